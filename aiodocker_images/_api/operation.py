"""One operation with progress: its call, its credentials, its source, and how it runs to frames and a result."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from aiodocker_images._aio.callbacks import check_callback, tell
from aiodocker_images._archive.image_names import AnnouncedImages
from aiodocker_images._archive.streams import ArchiveSource, open_source
from aiodocker_images._http.call import Call
from aiodocker_images._http.transport import Transport
from aiodocker_images.api_version import APIVersion
from aiodocker_images.credentials import (
    LOGGER,
    Keychain,
    ListingKeychain,
    RegistryAuth,
    check_auth,
    find_credentials,
    registry_auth_header,
    registry_config_header,
)
from aiodocker_images.errors import (
    CredentialHelperError,
    ForbiddenError,
    InvalidPlatformError,
    NotFoundError,
    PlatformMismatchError,
    UnauthorizedError,
)
from aiodocker_images.models import Platform
from aiodocker_images.progress import OnProgress, ProgressFrame

from .build_output import StepOutput
from .json_stream import FrameDecoder
from .outcomes import Outcome

__all__ = ["REGISTRY_CONFIG", "Operation", "Operator", "chosen_platform"]

# Docker 20.10 and 26 end the pull with it, and have the image all the same; newer ones only warn.
_OTHER_PLATFORM: Final = re.compile(
    r"does not match the specified platform: wanted ([\w./()+-]{1,100}), actual: ([\w./()+-]{1,100})$"
)

ZSTD: Final = APIVersion(1, 42)
"""Since when Engines read archives in zstd: Docker 20.10 takes one for a broken tar."""

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

REGISTRY_AUTH: Final = "X-Registry-Auth"
REGISTRY_CONFIG: Final = "X-Registry-Config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[R_co]):
    """What is to be done, checked but not begun.

    `registry` is whose credentials go along, None if none do, and `repository` the one that they are for in it.
    Push needs the header even without any (`header_if_anonymous`); on a pull an empty one would hide what the daemon
    itself is configured with. Which registries a build needs only the builder knows: so it gets the
    `whole_keychain`.
    `complete` finds out, off the loop, what the call could not check without I/O. `output` reads the frames of a
    build. `announced` sees the archive that is uploaded, `verify` asks the Engine afterwards whether all was done.
    They are no generators around that of the frames: when a loop ends, asyncio closes all of them at
    once, each from under the one around it.
    """

    call: Call
    outcome: Outcome[R_co]
    source: ArchiveSource | None = None
    registry: str | None = None
    repository: str = ""
    auth: RegistryAuth | None = None
    header_if_anonymous: bool = False
    whole_keychain: bool = False
    complete: Callable[[Operation[Any]], Awaitable[Operation[Any]]] | None = None
    output: StepOutput | None = None
    announced: AnnouncedImages | None = None
    verify: Callable[[Operation[Any]], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        check_auth(self.auth)


class Operator:
    """What the parts of `ImageService` share: the connection to the Engine, the keychain, the running of operations."""

    def __init__(self, transport: Transport, keychain: Keychain) -> None:
        self._transport = transport
        self._keychain = keychain

    async def _run(self, operation: Operation[R], on_progress: OnProgress[ProgressFrame] | None) -> R:
        """Run an operation to its end: the coroutines fold the same frames that their twins yield."""
        check_callback(on_progress)
        async with contextlib.aclosing(self._frames(operation)) as frames:
            async for frame in frames:
                if on_progress is not None:
                    await tell(on_progress, frame)
        return operation.outcome.result()

    async def _frames(self, operation: Operation[Any]) -> AsyncGenerator[ProgressFrame, None]:
        """Yield the frames of an operation; return only if it is complete."""
        async with contextlib.AsyncExitStack() as stack:
            if operation.output is not None:
                stack.enter_context(operation.output.explaining())
            stack.enter_context(self._transport.located(operation.call))
            if operation.complete is not None:
                operation = await operation.complete(operation)
            call = operation.call
            if operation.registry is not None:
                call = await self._authorized(
                    call,
                    operation.registry,
                    operation.auth,
                    stack,
                    repository=operation.repository,
                    even_anonymous=operation.header_if_anonymous,
                )
            if operation.whole_keychain:
                call = await self._with_whole_keychain(call, stack)
            upload = None
            if operation.source is not None:
                upload = await stack.enter_async_context(open_source(operation.source, operation.announced))
                if await self._transport.versions.negotiated() < ZSTD:
                    await upload.expand_zstd()
            live = await stack.enter_async_context(self._transport.open(call, upload))
            chunks = await stack.enter_async_context(contextlib.aclosing(live.chunks()))
            decoder = FrameDecoder(ProgressFrame)
            update, output = operation.outcome.update, operation.output
            async for chunk in chunks:
                for frame in decoder.feed(chunk):
                    # What is done for each frame is done for a million of them.
                    if frame.error is not None or frame.error_detail is not None:
                        self._check(frame, operation)
                    update(frame)
                    yield frame if output is None else output.read(frame)
            decoder.finish()
            operation.outcome.result()
            if operation.verify is not None:
                await operation.verify(operation)

    def _check(self, frame: ProgressFrame, operation: Operation[Any]) -> None:
        if (message := frame.failure) is not None:
            if operation.call.verb == "pull" and (other := _OTHER_PLATFORM.search(message)) is not None:
                raise PlatformMismatchError.of(*other.groups())
            code = frame.error_detail.code if frame.error_detail else None
            raise self._transport.api_error(operation.call, message, None, code=code or None)

    async def _authorized(
        self,
        call: Call,
        registry: str,
        auth: RegistryAuth | None,
        stack: contextlib.ExitStack | contextlib.AsyncExitStack,
        *,
        repository: str = "",
        even_anonymous: bool = False,
    ) -> Call:
        """Add the credentials for a `repository` of `registry`: those given, or else the keychain's.

        Its failure is said again in an error that ends what is done in `stack`.
        """
        if auth is None:
            try:
                auth = await find_credentials(self._keychain, registry, repository)
            except CredentialHelperError as error:
                stack.enter_context(_going_without(call, error))
        if auth is None and not even_anonymous:
            return call
        return replace(call, headers={**call.headers, REGISTRY_AUTH: registry_auth_header(auth, registry)})

    async def _with_whole_keychain(self, call: Call, stack: contextlib.AsyncExitStack) -> Call:
        """Add all the credentials that the keychain can list."""
        known: Mapping[str, RegistryAuth] = {}
        if isinstance(self._keychain, ListingKeychain):
            try:
                known = await self._keychain.resolve_all()
            except CredentialHelperError as error:
                stack.enter_context(_going_without(call, error))
        return replace(call, headers={REGISTRY_CONFIG: registry_config_header(known)}) if known else call


@contextlib.contextmanager
def _going_without(call: Call, problem: CredentialHelperError) -> Generator[None, None, None]:
    """Warn of credentials that cannot be had; say so again in the error if the registry refuses the call."""
    LOGGER.warning("%s: goes on without credentials: %s", call.operation, problem)
    try:
        yield
    except (UnauthorizedError, ForbiddenError, NotFoundError) as error:
        error.add_note(f"The credentials could not be had: {problem}")
        raise


def chosen_platform(platform: str | Platform | None) -> str | None:
    """Return the platform that the caller or `DOCKER_DEFAULT_PLATFORM` wants; None for the daemon's own.

    As with the docker CLI, the variable counts for pull, build and import.
    """
    if platform is not None:
        return str(Platform.parse(platform))
    default = os.environ.get("DOCKER_DEFAULT_PLATFORM")
    if not default:
        return None
    try:
        return str(Platform.parse(default))
    except InvalidPlatformError as error:
        raise InvalidPlatformError(f"{error} (from DOCKER_DEFAULT_PLATFORM)") from None

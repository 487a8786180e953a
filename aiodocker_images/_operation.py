"""One operation with progress: its call, its credentials, its source, and how it runs to frames and a result."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from ._archive import ArchiveSource, open_source
from ._jsonstream import FrameDecoder
from ._outcome import Outcome
from ._transport import Call, Transport
from .credentials import LOGGER, Keychain, RegistryAuth, registry_auth_header
from .errors import CredentialHelperError, ForbiddenError, NotFoundError, UnauthorizedError
from .progress import ProgressFrame

__all__ = ["OnFrame", "Operation", "Operator", "going_without"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OnFrame = Callable[[ProgressFrame], object]

REGISTRY_AUTH: Final = "X-Registry-Auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[R_co]):
    """What is to be done, checked but not begun.

    `registry` is whose credentials go along, None if none do. Push needs the header even without any
    (`header_if_anonymous`); on a pull an empty one would hide what the daemon itself is configured with.
    """

    call: Call
    outcome: Outcome[R_co]
    source: ArchiveSource | None = None
    registry: str | None = None
    auth: RegistryAuth | None = None
    header_if_anonymous: bool = False


class Operator:
    """What the parts of `ImageService` share: the connection to the Engine, the keychain, the running of operations."""

    def __init__(self, transport: Transport, keychain: Keychain) -> None:
        self._transport = transport
        self._keychain = keychain

    async def _run(self, operation: Operation[R], on_frame: OnFrame | None) -> R:
        """Run an operation to its end: the coroutines fold the same frames that their twins yield."""
        async with contextlib.aclosing(self._frames(operation)) as frames:
            async for frame in frames:
                if on_frame is not None:
                    on_frame(frame)
        return operation.outcome.result()

    async def _frames(self, operation: Operation[Any]) -> AsyncGenerator[ProgressFrame, None]:
        """Yield the frames of an operation; return only if it is complete."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._transport.located(operation.call))
            call = operation.call
            if operation.registry is not None:
                call = await stack.enter_async_context(
                    self._authorized(
                        call, operation.registry, operation.auth, even_anonymous=operation.header_if_anonymous
                    )
                )
            upload = None
            if operation.source is not None:
                upload = await stack.enter_async_context(open_source(operation.source))
            live = await stack.enter_async_context(self._transport.open(call, upload))
            chunks = await stack.enter_async_context(contextlib.aclosing(live.chunks()))
            decoder = FrameDecoder(ProgressFrame)
            async for chunk in chunks:
                for frame in decoder.feed(chunk):
                    yield self._checked(frame, operation)
            for frame in decoder.finish():
                yield self._checked(frame, operation)
            operation.outcome.result()

    def _checked(self, frame: ProgressFrame, operation: Operation[Any]) -> ProgressFrame:
        if (message := frame.failure) is not None:
            code = frame.error_detail.code if frame.error_detail else None
            raise self._transport.api_error(operation.call, message, code or None)
        operation.outcome.update(frame)
        return frame

    @contextlib.asynccontextmanager
    async def _authorized(
        self, call: Call, registry: str, auth: RegistryAuth | None, *, even_anonymous: bool = False
    ) -> AsyncGenerator[Call, None]:
        """Give the call with the credentials for `registry`: those given, or else the keychain's."""
        with contextlib.ExitStack() as stack, self._transport.located(call):
            if auth is None:
                try:
                    auth = await self._keychain.resolve(registry)
                except CredentialHelperError as error:
                    stack.enter_context(going_without(call, error))
            if auth is not None or even_anonymous:
                call = replace(call, headers={**call.headers, REGISTRY_AUTH: registry_auth_header(auth, registry)})
            yield call


@contextlib.contextmanager
def going_without(call: Call, problem: CredentialHelperError) -> Generator[None, None, None]:
    """Warn of credentials that cannot be had; say so again in the error if the registry refuses the call."""
    LOGGER.warning("%s: goes on without credentials: %s", call.operation, problem)
    try:
        yield
    except (UnauthorizedError, ForbiddenError, NotFoundError) as error:
        error.add_note(f"The credentials could not be had: {problem}")
        raise

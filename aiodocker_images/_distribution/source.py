"""An image in a registry as the source of a copy: manifests and blobs, from mirrors first, resumed where they broke."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import Final, TypeVar

from aiodocker_images.errors import (
    DigestMismatchError,
    ForbiddenError,
    FrameDecodeError,
    NotFoundError,
    RateLimitedError,
    RegistryUnreachableError,
    ServerError,
    StreamInterruptedError,
    UnauthorizedError,
)
from aiodocker_images.models import Descriptor

from .digests import DigestCheck
from .manifests import Manifest
from .registry import count_retry
from .repository import Repository
from .transport import Answer

__all__ = ["RegistrySource"]

T = TypeVar("T")

PROGRESS: Final = 64 << 10
"""Bytes that must have come before a break for it not to count as one more failure in a row."""

MAX_RESUMES: Final = 100
"""How often one blob is gone on with, however much came in between."""

MAX_SKIPS: Final = 3
"""How often a blob is read from its first byte on, and dropped as far as it is known, because Range is ignored."""

COSIGN: Final = (".sig", ".att", ".sbom")
"""How the tags end under which cosign keeps signatures, attestations and SBOMs of a manifest."""

_FALLS_THROUGH: Final = (
    NotFoundError,
    ServerError,
    RateLimitedError,
    UnauthorizedError,
    ForbiddenError,
    RegistryUnreachableError,
    StreamInterruptedError,
    # A mirror that lies, or sends what is no manifest: the next one is asked for the same digest or name.
    DigestMismatchError,
    FrameDecodeError,
)
"""After which the next of several repositories is asked; the registry itself is the last."""


class RegistrySource:
    """An image by tag or digest, in a repository and its mirrors."""

    def __init__(self, repositories: Sequence[Repository], tag_or_digest: str) -> None:
        self._repositories = list(repositories)
        self._tag_or_digest = tag_or_digest
        self._read: Manifest | None = None  # by `resolve`, where only the body told the digest

    @property
    def repository(self) -> Repository:
        """The repository itself, not a mirror of it."""
        return self._repositories[-1]

    @property
    def who(self) -> str:
        """Names the repository in errors."""
        return self.repository.name

    async def resolve(self) -> Descriptor:
        """Return what the tag or digest points to: by HEAD, which registries do not count as a pull.

        Where HEAD is not answered, or without a digest, the manifest is read. Raises `NotFoundError`.
        """
        if self._read is not None:
            return self._read.descriptor

        async def head(repository: Repository) -> Descriptor:
            found = await repository.head_manifest(self._tag_or_digest)
            if found is not None and found.digest:
                if (
                    self._tag_or_digest.partition(":")[0] == found.digest.partition(":")[0]
                    and ":" in self._tag_or_digest
                ):
                    _must_agree(self._tag_or_digest, found.digest, repository.name)
                return found
            # Some registries know HEAD for nothing; then GET tells. It also says why, in words that HEAD cannot have.
            self._read = await repository.get_manifest(self._tag_or_digest)
            return self._read.descriptor

        return await self._first(head)

    async def named_manifest(self) -> Manifest:
        """Return the manifest that the tag or digest points to. Raises `NotFoundError`, `DigestMismatchError`."""
        if self._read is None:
            self._read = await self._first(lambda one: one.get_manifest(self._tag_or_digest))
        return self._read

    async def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return the manifest of a descriptor. Raises `DigestMismatchError`, `UnsupportedManifestError`."""
        if self._read is not None and self._read.digest == descriptor.digest:
            return self._read
        return await self._first(lambda one: one.get_manifest(descriptor.digest, media_type=descriptor.media_type))

    async def read_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return a small blob whole."""
        return await self._first(lambda one: one.read_blob(descriptor, limit))

    async def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is `digest`, as signatures and SBOMs have it."""
        return await self._first(lambda one: one.referrers(digest))

    async def signatures(self, digest: str) -> dict[str, Descriptor]:
        """Return the manifests that cosign keeps beside a manifest, under tags made of its digest."""
        found: dict[str, Descriptor] = {}
        for suffix in COSIGN:
            tag = f"{digest.replace(':', '-')}{suffix}"
            if (descriptor := await self.repository.head_manifest(tag)) is not None:
                found[tag] = descriptor if descriptor.digest else (await self.repository.get_manifest(tag)).descriptor
        return found

    async def _first(self, ask: Callable[[Repository], Awaitable[T]]) -> T:
        for repository in self._repositories[:-1]:
            try:
                return await ask(repository)
            except _FALLS_THROUGH:
                continue
        return await ask(self._repositories[-1])

    async def blob(self, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield a blob from the byte `start` on. After a break it goes on where it was.

        Its digest and size are checked if it is read from its beginning, and the last piece is held back until they
        agree. Raises `DigestMismatchError`.
        """
        check = DigestCheck(descriptor.digest, descriptor.size, who=self.who) if start == 0 else None
        reading = _Reading(descriptor, start)
        held = b""
        while True:
            try:
                async with contextlib.aclosing(self._pieces(reading)) as pieces:
                    async for piece in pieces:
                        if check is not None:
                            with self._distrusting(reading):
                                check.update(piece)
                        if held:
                            yield held
                        held = piece
                break
            except StreamInterruptedError as error:
                if reading.complete:
                    break
                # What did not even begin was tried often enough below.
                if not reading.opened or (seconds := reading.seconds_until_next(self.repository)) is None:
                    raise
                count_retry(error, seconds)
            await self.repository.registry.sleep(seconds)
        if check is not None:
            with self._distrusting(reading):
                check.finish()
        if held:
            yield held

    @contextlib.contextmanager
    def _distrusting(self, reading: _Reading) -> Generator[None, None, None]:
        """Ask a mirror no more that gave what is wrong."""
        try:
            yield
        except DigestMismatchError as error:
            error.endpoint = self.repository.registry.name
            # Another blob that was under way may have found it out already.
            if reading.repository in self._repositories[:-1]:
                self._repositories.remove(reading.repository)
            raise

    async def _pieces(self, reading: _Reading) -> AsyncGenerator[bytes, None]:
        async with contextlib.AsyncExitStack() as stack:
            reading.opened = False
            answer = await self._opened(reading, stack)
            reading.opened = True
            skip = reading.skip(answer)
            whole = answer.headers.get("Content-Length") is not None
            chunks = await stack.enter_async_context(contextlib.aclosing(answer.chunks()))
            async for data in chunks:
                if skip >= len(data):
                    skip -= len(data)
                    continue
                piece, skip = data[skip:] if skip else data, 0
                reading.position += len(piece)
                yield piece
        # Without a length, a proxy can end an answer politely in the middle.
        if not whole and reading.descriptor.size is not None and not reading.complete:
            raise StreamInterruptedError(f"{self.who} ended the blob {reading.descriptor.digest} before its end")

    async def _opened(self, reading: _Reading, stack: contextlib.AsyncExitStack) -> Answer:
        start = reading.position if reading.by_range else 0
        for repository in tuple(self._repositories):  # one may be given up meanwhile
            reading.repository = repository
            try:
                return await stack.enter_async_context(repository.open_blob(reading.descriptor, start))
            except _FALLS_THROUGH:
                if repository is self.repository:
                    raise
        raise RuntimeError("the last repository is the registry's own")


class _Reading:
    """How far a blob was read, and how often that was interrupted."""

    def __init__(self, descriptor: Descriptor, start: int) -> None:
        self.descriptor = descriptor
        self.position = start
        self.by_range = True
        self.opened = False
        self.exhausted = False
        self.repository: Repository | None = None
        self._resumes = self._skips = self._failures = 0
        self._before = start

    @property
    def complete(self) -> bool:
        """Whether all bytes have come: then nothing is asked for any more."""
        return self.descriptor.size is not None and self.position >= self.descriptor.size

    def seconds_until_next(self, repository: Repository) -> float | None:
        """Return how long to wait after an interruption before going on; None to give up."""
        retry = repository.registry.retry
        self._resumes += 1
        self._failures = 1 if self.position - self._before >= PROGRESS else self._failures + 1
        self._before = self.position
        if self.exhausted or self._failures >= retry.attempts or self._resumes > MAX_RESUMES:
            return None
        return retry.seconds_after(self._failures) if self._failures > 1 else 0.0

    def skip(self, answer: Answer) -> int:
        """Return how many bytes of an answer are known already; raise `StreamInterruptedError` for another range."""
        if not self.position:
            return 0
        if answer.status == 206:
            unit, _, asked = answer.headers.get("Content-Range", "").strip().partition(" ")
            if unit.lower() == "bytes" and asked.partition("-")[0].strip() == str(self.position):
                return 0
        elif answer.status == 200:
            self._skips += 1
            if self._skips > MAX_SKIPS:
                self.exhausted = True
                raise StreamInterruptedError(
                    f"{answer.where} breaks off the blob {self.descriptor.digest} again and again, and ignores Range"
                )
            return self.position
        self.by_range = False
        raise StreamInterruptedError(
            f"{answer.where} was asked for a blob from byte {self.position} on and sent something else"
            f" (status {answer.status})"
        )


def _must_agree(expected: str, actual: str, who: str) -> None:
    if expected != actual:
        raise DigestMismatchError(
            f"{who} says that its manifest {expected} has the digest {actual}",
            expected=expected,
            actual=actual,
            who=who,
        )

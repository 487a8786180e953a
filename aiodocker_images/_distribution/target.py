"""An image in a registry as the target of a copy: each blob mounted if it can be, and uploaded if not.

known from this run -> there
in another repository of the registry -> mounted
POST ?mount=<digest>&from=<the repository itself> -> 201: it is there, without a HEAD; 202: a session to upload in
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final

import msgspec

from aiodocker_images.errors import (
    APIError,
    DigestMismatchError,
    DockerError,
    ForbiddenError,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    TagImmutableError,
)
from aiodocker_images.models import Descriptor

from .manifests import Manifest, make_index
from .refusals import says_immutable
from .registry import PASSING, count_retry
from .repository import Repository, referrers_tag
from .stores import BlobContent, Written
from .uploads import Upload, Uploads

__all__ = ["RegistryTarget", "Shelf"]

MAX_ORIGINS: Final = 2
"""Repositories that a blob is tried to be mounted from; each costs a request."""

MAX_KNOWN: Final = 100_000
"""Blobs whose places are remembered for each registry; those of 10,000 images of ten layers."""

CHUNK: Final = 4 << 20
"""Bytes of a chunk where a registry refuses a whole blob (413), or the size is not known; GHCR refuses longer ones."""

_SESSION_LOST: Final = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID", "DIGEST_INVALID"})


class Shelf:
    """Which repositories of one registry are known to have which blobs, and which blobs are on their way there."""

    def __init__(self) -> None:
        self.flights: dict[str, asyncio.Future[None]] = {}
        self.listing = asyncio.Lock()  # of who writes an index of referrers
        self._places: dict[str, dict[str, None]] = {}

    def has(self, path: str, digest: str) -> bool:
        """Whether a repository is known to have a blob."""
        return path in self._places.get(digest, ())

    def add(self, path: str, digest: str) -> None:
        """Note that a repository has a blob."""
        self._places.setdefault(digest, {})[path] = None
        if len(self._places) > MAX_KNOWN:
            del self._places[next(iter(self._places))]

    def origins(self, digest: str) -> list[str]:
        """Return the repositories that a blob is known to be in, the latest first."""
        return list(reversed(self._places.get(digest, ())))

    def forget(self, digests: Iterable[str]) -> None:
        """Believe no longer that these blobs are anywhere."""
        for digest in digests:
            self._places.pop(digest, None)


class RegistryTarget:
    """A tag of a repository, or none: then what is written is there by its digest alone.

    `origins` are other repositories of the registry that may have the blobs. With `verify`, the registry is asked at
    the end whether it has what was written. `resumed`: an earlier copy to it was ended before it had written the tag.
    """

    def __init__(
        self,
        repository: Repository,
        tag: str | None,
        shelf: Shelf,
        *,
        origins: Sequence[str] = (),
        verify: bool = False,
        resumed: bool = False,
    ) -> None:
        self._repository = repository
        self._registry = repository.registry
        self._uploads = Uploads(repository)
        self._tag = tag
        self._shelf = shelf
        self._origins = [each for each in origins if each != repository.path]
        self._verify = verify
        self._populated = False  # the tag is there, so there may be blobs of the image, too
        self._resumed = resumed
        self._empty: bool | None = None
        self._looking = asyncio.Lock()

    @property
    def who(self) -> str:
        """Names the repository in errors."""
        return self._repository.name

    def check(self, manifest: Manifest) -> None:
        """Raise nothing: every manifest is offered to the registry, which decides."""

    @property
    def place(self) -> tuple[str, str]:
        """The registry and the repository."""
        return self._registry.name, self._repository.path

    def may_mount(self, digest: str) -> bool:
        """Whether a blob may be mounted from another repository."""
        return bool(self._candidates(digest))

    async def finds_blob(self, descriptor: Descriptor) -> bool:
        """Whether a blob is there, for a caller that will not upload it."""
        if self._shelf.has(self._repository.path, descriptor.digest):
            return True
        return await self._may_have_blobs() and await self.has_blob(descriptor)

    async def resolve(self) -> Descriptor | None:
        """Return what the tag points to now, by HEAD: nothing that a registry would count as a pull."""
        if self._tag is None:
            return None
        try:
            found = await self._repository.head_manifest(self._tag)
        except ForbiddenError as error:
            if error.status != 401:
                raise
            found = None  # Pulp 2.30: a repository that is not there
        self._populated = found is not None
        if found is not None and not found.digest:
            with contextlib.suppress(NotFoundError):
                return (await self._repository.get_manifest(self._tag)).descriptor
            return None
        return found

    async def _stored_digest(self, name: str) -> str | None:
        """Return the digest of what a tag or digest points to, None if there is nothing."""
        found = await self._repository.head_manifest(name)
        if found is None or found.digest:
            return None if found is None else found.digest
        try:
            return (await self._repository.get_manifest(name)).digest
        except NotFoundError:
            return None

    async def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether this manifest is there."""
        found = await self._repository.head_manifest(descriptor.digest)
        # Without a digest it may be that HEAD is not known there (405), so that only storing it once more is certain.
        return found is not None and found.digest == descriptor.digest

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether this blob is there."""
        return await self._repository.has_blob(descriptor.digest)

    async def write_blob(self, descriptor: Descriptor, content: BlobContent) -> Written:
        """Make the blob be there. Who else brings it to this registry at this time is waited for."""
        path, digest = self._repository.path, descriptor.digest
        while (flight := self._shelf.flights.get(digest)) is not None:
            await asyncio.wait({flight})
        if self._shelf.has(path, digest):
            return "there"
        flight = self._shelf.flights[digest] = asyncio.get_running_loop().create_future()
        try:
            written = await self._bring(descriptor, content)
            self._shelf.add(path, digest)
        finally:
            del self._shelf.flights[digest]
            flight.set_result(None)
        return written

    async def _bring(self, descriptor: Descriptor, content: BlobContent) -> Written:
        digest = descriptor.digest
        upload = None
        for origin in self._candidates(digest):
            if upload is not None:
                await self._uploads.cancel(upload)
            mounted, upload = await self._mount(digest, origin)
            if mounted:
                return "mounted"
        if upload is None:
            upload = await self._start(descriptor)
            if upload is None:
                return "there"
        return await self._upload(upload, descriptor, content)

    def _candidates(self, digest: str) -> list[str]:
        known = [each for each in self._shelf.origins(digest) if each != self._repository.path]
        return list(dict.fromkeys([*known, *self._origins]))[:MAX_ORIGINS]

    async def _mount(self, digest: str, origin: str) -> tuple[bool, Upload | None]:
        """Return whether the blob was mounted, and the session that the registry opened instead, if it did."""
        try:
            upload = await self._uploads.start(mount=digest, origin=origin)
        except RateLimitedError:
            raise
        except APIError as error:
            if error.status is None or error.status >= 500:
                raise
            # A miss is 404 at some registries; and not everyone may read what is to be mounted.
            return False, None
        return upload is None, upload

    async def _start(self, descriptor: Descriptor) -> Upload | None:
        """Open a session; None if the blob is there."""
        try:
            if self._registry.mounts.own is False:
                if await self._may_have_blobs() and await self.has_blob(descriptor):
                    return None
                return await self._uploads.start()
            return await self._mount_own(descriptor)
        except NotFoundError as error:
            error.message += "; some registries (ECR) want a repository to be created before it is pushed to"
            raise

    async def _mount_own(self, descriptor: Descriptor) -> Upload | None:
        """Ask for the blob to be mounted from the repository itself: None if it is there, a session if it is not."""
        mounts = self._registry.mounts
        async with contextlib.AsyncExitStack() as stack:
            if mounts.misses_are_404 is None:
                await stack.enter_async_context(mounts.finding_out)
            if mounts.misses_are_404 and not await self._may_have_blobs():
                return await self._uploads.start()
            there, upload = await self._mount(descriptor.digest, self._repository.path)
            if there:
                mounts.own = True
                return None
            mounts.misses_are_404 = upload is None
        if upload is None:
            return await self._uploads.start()
        if mounts.own is None and self._populated and mounts.tries:
            # Is it not there, or does the registry not know this use of mounts?
            mounts.tries -= 1
            if await self._known_by_head(descriptor, upload):
                mounts.own = False
                return None
        return upload

    async def _may_have_blobs(self) -> bool:
        """Whether it is worth looking for a blob: whether the repository has any tag."""
        if not self._populated and not self._resumed:
            async with self._looking:
                if self._empty is None:
                    self._empty = await self._repository.is_empty()
        return self._populated or self._resumed or not self._empty

    async def _known_by_head(self, descriptor: Descriptor, upload: Upload) -> bool:
        try:
            there = await self.has_blob(descriptor)
        except BaseException:
            await self._uploads.cancel(upload)
            raise
        if there:
            await self._uploads.cancel(upload)
        return there

    async def _upload(self, upload: Upload | None, descriptor: Descriptor, content: BlobContent) -> Written:
        """Upload a blob, in as many attempts as it takes: each in a new session, from the first byte on."""
        failures = 0
        chunk = self._registry.config.chunk_size or (CHUNK if descriptor.size is None else None)
        while upload is not None:
            sending = _Sending(content)
            try:
                if chunk is None:
                    await self._put_blob(upload, descriptor, sending)
                else:
                    await self._patch(upload, descriptor.digest, sending, chunk)
            except DockerError as error:
                await self._uploads.cancel(upload)
                if sending.failure is not None:
                    raise sending.failure from sending.failure.__cause__
                if chunk is None and isinstance(error, APIError) and error.status == 413:
                    chunk = CHUNK
                elif not _passes(error) or (failures := failures + 1) >= self._registry.retry.attempts:
                    raise
                seconds = self._registry.retry.seconds_after(failures) if failures > 1 else 0.0
                count_retry(error, seconds)
            except BaseException:
                await self._uploads.cancel(upload)
                raise
            else:
                return "moved"
            finally:
                await sending.aclose()
            await self._registry.sleep(seconds)
            # Perhaps only the answer was lost: then the blob is there.
            upload = await self._start(descriptor)
        return "moved"

    async def _put_blob(self, upload: Upload, descriptor: Descriptor, sending: _Sending) -> None:
        await sending.begin()
        await self._uploads.put(upload, descriptor.digest, descriptor.size or 0, sending.pieces)

    async def _patch(self, upload: Upload, digest: str, sending: _Sending, size: int) -> None:
        """Send a blob in chunks of `size`, or longer ones if the registry wants them; only the last may be shorter."""
        position, chunk = 0, bytearray()
        await sending.begin()
        async with contextlib.aclosing(sending.pieces()) as pieces:
            async for piece in pieces:
                chunk += piece
                while len(chunk) >= (length := max(size, upload.chunk_minimum)):
                    await self._uploads.patch(upload, position, bytes(chunk[:length]))
                    position += length
                    del chunk[:length]
        # A PATCH could not tell that it is the last, and may be too short to be another: this goes with the end.
        rest = bytes(chunk) if 0 < len(chunk) < upload.chunk_minimum else b""
        if chunk and not rest:
            await self._uploads.patch(upload, position, bytes(chunk))
        await self._uploads.finish(upload, digest, position, rest)

    def forget(self, digests: Iterable[str]) -> None:
        """Believe no longer that these blobs are there: the registry says that one of them is not."""
        self._shelf.forget(digests)

    async def write_manifest(self, manifest: Manifest) -> None:
        """Store a manifest under its digest."""
        await self._put(manifest, manifest.digest)

    async def write_tag(self, manifest: Manifest, tag: str) -> bool:
        """Store a manifest under another tag than the image's, such as that of its signature, unless it is there.

        Returns whether the tag has all of it now: a tag with what this manifest lacks, such as a signature that was
        made here, is left as it is.
        """
        takes = await self.takes_tag(manifest, tag)
        if takes:
            await self._put(manifest, tag)
        return takes is not None

    async def takes_tag(self, manifest: Manifest, tag: str) -> bool | None:
        """Return whether a tag can be moved to this manifest without a loss; False if it has all of it already.

        None if each of the two has layers that the other lacks. Only layers count: the configuration that cosign makes
        lists them, and so differs.
        """
        found = await self._repository.head_manifest(tag)
        if found is None or found.digest == manifest.digest:
            return found is None
        try:
            there = _digests((await self._repository.get_manifest(tag)).layers)
        except NotFoundError:
            return True
        brought = _digests(manifest.layers)
        if there <= brought:
            return True
        return False if brought <= there else None

    async def _put(self, manifest: Manifest, tag_or_digest: str) -> None:
        reply = await self._repository.put_manifest(manifest, tag_or_digest)
        if manifest.subject is not None and "OCI-Subject" not in reply.headers:
            # This registry does not list referrers, so clients do, in an index under a tag ("Pushing Manifests with
            # Subject"): what others have put there stays. Nothing can be done about writers in other processes.
            async with self._shelf.listing:
                await self._list_referrer(manifest, manifest.subject.digest)

    async def _list_referrer(self, manifest: Manifest, subject: str) -> None:
        listed = await self._repository.tagged_referrers(subject)
        if manifest.digest not in {each.digest for each in listed}:
            entry = msgspec.structs.replace(
                manifest.descriptor, artifact_type=manifest.referrer_type, annotations=manifest.annotations
            )
            await self._repository.put_manifest(make_index([*listed, entry]), referrers_tag(subject))

    async def write_name(self, manifest: Manifest) -> None:
        """Store the manifest under the tag, which points to it from then on.

        Raises `TagImmutableError` if the registry does not let the tag be moved.
        """
        name = self._tag or manifest.digest
        try:
            await self._put(manifest, name)
        except APIError as error:
            if not says_immutable(error):
                raise
            if await self._stored_digest(name) != manifest.digest:
                raise _immutable(error, self._repository.name, name, manifest.digest) from error
        if self._verify:
            actual = await self._stored_digest(name)
            if actual != manifest.digest:
                raise DigestMismatchError(
                    f"{self.who}:{name} is {actual or 'not there'} after {manifest.digest} was stored",
                    expected=manifest.digest,
                    actual=actual,
                    who=self.who,
                    endpoint=self._registry.name,
                )


def _digests(descriptors: Iterable[Descriptor]) -> set[str]:
    return {each.digest for each in descriptors}


class _Sending:
    """The bytes of one attempt: begun before anything is sent, and begun anew if the request is sent again."""

    def __init__(self, content: BlobContent) -> None:
        self.failure: DockerError | None = None
        self._content = content
        self._begun: AsyncGenerator[bytes, None] | None = None
        self._first = b""

    async def begin(self) -> None:
        """Wait for the first piece: a source that fails costs the target nothing."""
        self._begun = self._content()
        try:
            self._first = await anext(self._begun, b"")
        except DockerError as error:
            self.failure = error
            raise

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces."""
        begun, self._begun = self._begun, None
        first, self._first = self._first, b""
        async with contextlib.aclosing(begun if begun is not None else self._content()) as pieces:
            try:
                if first:
                    yield first
                async for piece in pieces:
                    yield piece
            except DockerError as error:
                self.failure = error
                raise

    async def aclose(self) -> None:
        """Let go of what was begun and never sent."""
        if self._begun is not None:
            begun, self._begun = self._begun, None
            await begun.aclose()


def _passes(error: DockerError) -> bool:
    """Whether an upload may succeed in a new session."""
    if isinstance(error, NoSpaceError):
        return False
    return isinstance(error, PASSING) or (
        isinstance(error, APIError) and (error.code in _SESSION_LOST or error.status in {404, 416})
    )


def _immutable(error: APIError, repository: str, tag: str, digest: str) -> TagImmutableError:
    return TagImmutableError(
        f"{repository} does not let the tag {tag} be moved to {digest}: {error.message}",
        status=error.status,
        method=error.method,
        path=error.path,
        code=error.code,
        endpoint=error.endpoint,
    )

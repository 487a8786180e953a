"""One image of a layout, to copy from and to copy to; and reading and writing blobs off the event loop.

A thread cannot be cancelled, so whoever is cancelled waits until its call has ended before anything is closed or
removed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Final, TypeVar

import msgspec

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._archive.readers import PIECE_SIZE
from aiodocker_images.errors import (
    ArchiveError,
    FrameDecodeError,
    NotFoundError,
    UnsupportedManifestError,
    shown,
)
from aiodocker_images.models import Descriptor

from .digests import DigestCheck, check_digest
from .layout_files import BlobFile, BlobOutput, DirectoryFiles, LayoutFiles
from .layout_index import LayoutIndex, referrers_of
from .layout_tars import TarOutput
from .manifests import MAX_MANIFEST_SIZE, Manifest
from .stores import BlobContent, Written

__all__ = [
    "LayoutGlance",
    "LayoutPlace",
    "LayoutSource",
    "LayoutTarget",
    "in_steps",
    "read_blob",
    "read_manifest",
    "undone_if_cancelled",
]

_T = TypeVar("_T")
_END: Final = object()
_LOCK_SECONDS: Final = 0.02  # between two tries to get the lock of an index.json; it is held for milliseconds


class LayoutSource:
    """One image of a layout, to copy from. See `ImageSource`."""

    def __init__(self, files: LayoutFiles, index: LayoutIndex, who: str, name: str | None) -> None:
        self.who = who
        self._files = files
        self._index = index
        self._name = name
        self._referrers: list[Manifest] | None = None  # once they were asked for

    @property
    def name(self) -> str | None:
        """What the image is called, for a target that says nothing else; None for one without a name."""
        digest = self._index.find(self._name).digest
        names = [each.names[0] for each in self._index.images if each.descriptor.digest == digest and each.names]
        return self._name if self._name in names else next(iter(names), None)

    async def resolve(self) -> Descriptor:
        """Return what the image's name points to."""
        return self._index.find(self._name)

    async def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return a manifest, checked against its digest."""
        return await read_manifest(self._files, descriptor, self.who)

    async def blob(self, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield a blob, checked against its digest if it is read from its beginning."""
        check_digest(descriptor.digest, "a blob")
        file = await undone_if_cancelled(lambda: self._files.open_blob(descriptor.digest), lambda file: file.close())
        async with aclosing(read_blob(file, descriptor, start, self.who)) as pieces:
            async for piece in pieces:
                yield piece

    async def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the manifests that the layout lists whose subject is `digest`."""
        if self._referrers is None:
            self._referrers = [each async for each in self._listed_referrers()]
        return referrers_of(self._referrers, digest)

    async def _listed_referrers(self) -> AsyncGenerator[Manifest, None]:
        for image in self._index.images:
            if image.names and not image.descriptor.artifact_type:
                continue  # an image: a referrer is listed by its digest, or says what it is
            try:
                manifest = await self.manifest(image.descriptor)
            except (NotFoundError, UnsupportedManifestError, FrameDecodeError):
                continue  # an entry that is not a manifest, or whose content was left out
            if manifest.subject is not None:
                yield manifest


class LayoutTarget:
    """One image of a layout, to copy to. See `ImageTarget`."""

    def __init__(self, place: LayoutPlace, who: str, name: str | None) -> None:
        self.who = who
        self.name = name
        self.changed = False
        self._place = place
        self._files = place.files
        self._waiting: list[tuple[Descriptor, str | None]] = []  # names of a tar, until it is left

    def check(self, manifest: Manifest) -> None:
        """Raise `UnsupportedManifestError` for what cannot be copied here, before anything is."""
        _refuse_schema_1(manifest)

    async def resolve(self) -> Descriptor | None:
        """Return what the image's name points to now."""
        if self.name is None:
            return None
        data = await in_thread(self._files.read, "index.json")
        return LayoutIndex(data, self.who).lookup(self.name)

    async def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether the manifest is there."""
        return await self.has_blob(descriptor)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether a blob of this digest and size is there. It is not read: that would take as long as copying it."""
        check_digest(descriptor.digest, "a blob")
        size = await in_thread(self._files.size, descriptor.digest)
        return size is not None and descriptor.size in {None, size}

    async def write_blob(self, descriptor: Descriptor, content: BlobContent) -> Written:
        """Write a blob, checked against its digest on the way, unless it is there."""
        if descriptor.size is None:
            raise UnsupportedManifestError("an OCI layout cannot hold images of schema 1, which do not record sizes")
        # Two images that share a layer do not fetch it twice.
        async with self._place.blob_lock(check_digest(descriptor.digest, "a blob")):
            if await self.has_blob(descriptor):
                return "there"
            async with aclosing(content()) as pieces:
                await self._write(descriptor.digest, descriptor.size, pieces)
        return "moved"

    async def write_manifest(self, manifest: Manifest) -> None:
        """Store a manifest; one that refers to another is listed, for nothing else leads to it."""
        _refuse_schema_1(manifest)

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield manifest.data

        await self.write_blob(manifest.descriptor, pieces)
        if manifest.subject is not None:
            await self._list(msgspec.structs.replace(manifest.descriptor, artifact_type=manifest.referrer_type), None)

    async def write_name(self, manifest: Manifest) -> None:
        """Store the manifest and let the image's name point to it."""
        await self.write_manifest(manifest)
        await self._list(manifest.descriptor, self.name)

    async def publish(self) -> None:
        """Add the names that waited for the copy to be complete."""
        waiting, self._waiting = self._waiting, []
        for descriptor, name in waiting:
            await self._place.add(descriptor, name)
            self.changed = True

    async def _list(self, descriptor: Descriptor, name: str | None) -> None:
        self._waiting.append((descriptor, name))
        if isinstance(self._files, DirectoryFiles):
            await self.publish()

    async def _write(self, digest: str, size: int, pieces: AsyncGenerator[bytes, None]) -> None:
        check = DigestCheck(digest, size)
        output = await undone_if_cancelled(
            lambda: self._files.create_blob(digest, size), lambda output: output.discard()
        )
        try:
            batch: list[bytes] = []
            gathered = 0
            async for piece in pieces:
                batch.append(piece)
                gathered += len(piece)
                if gathered >= PIECE_SIZE:
                    await in_thread(_write_checked, output, check, batch)
                    batch, gathered = [], 0
            await in_thread(_write_checked, output, check, batch)
            check.finish()
            await in_thread(output.commit)
        finally:
            await in_thread(output.discard)  # nothing, once it is committed


class LayoutGlance:
    """What a layout has, for a plan: as a target, but nothing can be written. `files` is None where no layout is."""

    def __init__(self, files: LayoutFiles | None, index: LayoutIndex, who: str, name: str | None) -> None:
        self.who = who
        self._files = files
        self._index = index
        self._name = name

    def check(self, manifest: Manifest) -> None:
        """Raise `UnsupportedManifestError` for what cannot be copied here."""
        _refuse_schema_1(manifest)

    async def resolve(self) -> Descriptor | None:
        """Return what the image's name points to now."""
        return None if self._name is None else self._index.lookup(self._name)

    async def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether the manifest is there."""
        return await self.has_blob(descriptor)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether a blob of this digest and size is there."""
        if self._files is None:
            return False
        size = await in_thread(self._files.size, check_digest(descriptor.digest, "a blob"))
        return size is not None and descriptor.size in {None, size}


def _refuse_schema_1(manifest: Manifest) -> None:
    if manifest.kind == "schema1":
        raise UnsupportedManifestError("an OCI layout cannot hold images of schema 1, which do not record sizes")


@dataclasses.dataclass(eq=False, slots=True)
class _Naming:
    """An image that is to get a name; `given_up` by a copy that failed or was cancelled."""

    descriptor: Descriptor
    name: str | None
    given_up: bool = False


class LayoutPlace:
    """A layout that is open for writing: its files, its index, and who writes which blob."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.changed = False
        self.opened: DirectoryFiles | TarOutput | None = None
        self._blobs: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._waiting: list[_Naming] = []
        self._writing = asyncio.Lock()

    @property
    def files(self) -> DirectoryFiles | TarOutput:
        """The files, once they are open."""
        if self.opened is None:
            raise RuntimeError("the layout is not open")
        return self.opened

    def blob_lock(self, digest: str) -> asyncio.Lock:
        """Return the lock of who writes a blob."""
        return self._blobs.setdefault(digest, asyncio.Lock())

    async def add(self, descriptor: Descriptor, name: str | None) -> None:
        """Let `name` point to an image.

        Those who come while the index is written are written together: each time takes longer the more there are in it.
        """
        mine = _Naming(descriptor, name)
        self._waiting.append(mine)
        try:
            async with self._writing:
                # Whoever had the lock before may have written this one.
                if mine in self._waiting:
                    await self._write_all()
        except BaseException:
            mine.given_up = True
            raise
        self.changed = True

    async def _write_all(self) -> None:
        batch = [each for each in self._waiting if not each.given_up]
        self._waiting = []

        def changed(data: bytes | None) -> bytes:
            index = LayoutIndex(data, self.path)
            for each in batch:
                index.add(each.descriptor, each.name)
            return index.encode()

        try:
            await self._change_index(changed)
        except BaseException:
            # The others try themselves: they may not have been cancelled, and the failure may not be theirs.
            self._waiting = batch + self._waiting
            raise

    async def _change_index(self, changed: Callable[[bytes | None], bytes]) -> None:
        done = False
        while not done:
            done = await in_thread(self.files.change_index, changed)
            if not done:
                await asyncio.sleep(_LOCK_SECONDS)


async def read_manifest(files: LayoutFiles, descriptor: Descriptor, who: str) -> Manifest:
    check_digest(descriptor.digest, "a manifest")

    def read() -> bytes:
        file = files.open_blob(descriptor.digest)
        try:
            if file.size > MAX_MANIFEST_SIZE:
                raise FrameDecodeError(
                    f"a manifest of {file.size} bytes in {shown(who)}; {MAX_MANIFEST_SIZE} is the most"
                )
            return file.read(0, file.size)
        finally:
            file.close()

    return Manifest.parse(await in_thread(read), descriptor.media_type, digest=descriptor.digest, who=who)


async def read_blob(file: BlobFile, descriptor: Descriptor, start: int, who: str) -> AsyncGenerator[bytes, None]:
    """Yield a blob and close its file; the last piece comes only when the digest is the promised one."""
    try:
        check = DigestCheck(descriptor.digest, descriptor.size, who=who) if not start else None
        position, last = start, b""
        while position < file.size:
            piece = await in_thread(_read_checked, file, position, check)
            if not piece:
                break
            position += len(piece)
            if last:
                yield last
            last = piece
        if check is not None:
            check.finish()
        elif position < file.size:
            raise ArchiveError(f"{shown(file.path)} shrank while it was read")
        if last:
            yield last
    finally:
        await in_thread(file.close)


def _read_checked(file: BlobFile, position: int, check: DigestCheck | None) -> bytes:
    piece = file.read(position, PIECE_SIZE)
    if check is not None:
        check.update(piece)
    return piece


def _write_checked(output: BlobOutput, check: DigestCheck, pieces: list[bytes]) -> None:
    for piece in pieces:
        check.update(piece)
    output.write(pieces)


async def undone_if_cancelled(call: Callable[[], _T], undo: Callable[[_T], None]) -> _T:
    """Run `call` in a thread, and `undo` what it did if nobody is there to take it: its waiter was cancelled."""
    made: list[_T] = []
    try:
        await in_thread(lambda: made.append(call()))
    except BaseException:
        for each in made:
            await in_thread(undo, each)
        raise
    return made[0]


async def in_steps(steps: Generator[None, None, None]) -> None:
    """Run a generator in threads, a step at a time, so that a cancellation does not wait for all of it."""
    try:
        while await in_thread(next, steps, _END) is None:
            pass
    finally:
        await in_thread(steps.close)

"""`OCILayout`: images in a directory or a tar, as a source and a target of copies.

OCI image specification, "Image Layout".

File I/O runs in threads. A thread cannot be cancelled, so whoever is cancelled waits until its call has ended before
anything is closed or removed.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import os
import stat
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar, cast

import msgspec

from aiodocker_images._aio.threads import in_thread, outlast, retrieve
from aiodocker_images._archive.files import failing
from aiodocker_images._archive.streams import PIECE_SIZE, check_target
from aiodocker_images.errors import (
    ArchiveError,
    DockerError,
    FrameDecodeError,
    NotFoundError,
    UnsupportedManifestError,
    shown,
)
from aiodocker_images.models import Descriptor
from aiodocker_images.reference import Reference

from .digests import DigestCheck, check_digest
from .layout_files import BlobFile, BlobOutput, DirectoryFiles, LayoutFiles
from .layout_index import LayoutImage, LayoutIndex, check_layout, referrers_of
from .layout_tars import TarFiles, TarOutput
from .manifests import MAX_MANIFEST_SIZE, Manifest
from .stores import BlobContent, Written

__all__ = ["LayoutSource", "LayoutTarget", "OCILayout", "read_blob"]

_T = TypeVar("_T")
_END: Final = object()
_LOCK_SECONDS: Final = 0.02  # between two tries to get the lock of an index.json; it is held for milliseconds


@dataclasses.dataclass(frozen=True, slots=True)
class OCILayout:
    """An OCI layout: a directory or a tar with any number of images, each blob in it once.

    `path` is an existing directory or tar, or where one is to be made: a tar if the name ends in ".tar", and else a
    directory. `name` is the image in it: the annotation `org.opencontainers.image.ref.name`, or containerd's
    `io.containerd.image.name`; "alpine:3.20" also finds "docker.io/library/alpine:3.20", and a digest finds an image
    without a name. A source without a name has to hold a single image; a target without one gets the source's name.

    Raises `TypeError` or `ValueError` for what cannot be a path.
    """

    path: str | os.PathLike[str]
    name: str | Reference | None = None

    def __post_init__(self) -> None:
        _check(self.path, self.name)

    async def images(self) -> tuple[LayoutImage, ...]:
        """Return the images of the layout, with all names of each."""
        files = await _open_files(self._file)
        try:
            return (await _read_index(files, self._file)).images
        finally:
            await in_thread(files.close)

    @asynccontextmanager
    async def open_source(self) -> AsyncGenerator[LayoutSource, None]:
        """Open the image to copy from; raises `ArchiveError` where there is no layout."""
        files = await _open_files(self._file)
        try:
            yield LayoutSource(files, await _read_index(files, self._file), self._file, self._name)
        finally:
            await in_thread(files.close)

    @asynccontextmanager
    async def open_target(self, default_name: str | None = None) -> AsyncGenerator[LayoutTarget, None]:
        """Open the image to copy to.

        Of a directory, each blob and manifest stays once it is whole, and the next copy need not bring it again. A tar
        takes the place of the one before when everyone in this event loop who has it open has left, and leaving waits
        for that, except within `held()`. Whoever leaves with an exception adds no name.
        """
        opened = await _enter(self._file)
        target = LayoutTarget(opened, self._file, self._name or default_name)
        try:
            yield target
            await target.publish()
        except BaseException:
            await opened.leave_broken()
            raise
        await opened.leave(wait=target.changed and not opened.holders)

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None, None]:
        """Keep the layout open as a target: a tar that gets many images is then written once, at the end.

        Leaving raises `ArchiveError` if that fails, also on behalf of the copies that were made meanwhile.
        """
        opened = await _enter(self._file)
        opened.holders += 1
        try:
            yield
        finally:
            opened.holders -= 1
            await opened.leave(wait=not opened.holders)

    @property
    def _file(self) -> str:
        return os.fspath(self.path)

    @property
    def _name(self) -> str | None:
        return None if self.name is None else str(self.name)


class LayoutSource:
    """One image of a layout, to copy from. See `ImageSource`."""

    def __init__(self, files: LayoutFiles, index: LayoutIndex, who: str, name: str | None) -> None:
        self.who = who
        self._files = files
        self._index = index
        self._name = name

    async def resolve(self) -> Descriptor:
        """Return what the image's name points to."""
        return self._index.find(self._name)

    async def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return a manifest, checked against its digest."""
        return await _read_manifest(self._files, descriptor, self.who)

    async def blob(self, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield a blob, checked against its digest if it is read from its beginning."""
        check_digest(descriptor.digest, "a blob")
        file = await _held(lambda: self._files.open_blob(descriptor.digest), lambda file: file.close())
        async with aclosing(read_blob(file, descriptor, start, self.who)) as pieces:
            async for piece in pieces:
                yield piece

    async def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the manifests that the layout lists whose subject is `digest`."""
        manifests: list[Manifest] = []
        for each in self._index.images:
            try:
                manifests.append(await self.manifest(each.descriptor))
            except (NotFoundError, UnsupportedManifestError, FrameDecodeError):
                continue  # an entry that is not a manifest, or is of another platform and was left out
        return referrers_of(manifests, digest)


class LayoutTarget:
    """One image of a layout, to copy to. See `ImageTarget`."""

    def __init__(self, opened: _Opened, who: str, name: str | None) -> None:
        self.who = who
        self.name = name
        self.changed = False
        self._opened = opened
        self._files = opened.files
        self._waiting: list[tuple[Descriptor, str | None]] = []  # names of a tar, until it is left

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
        async with self._opened.blob_lock(check_digest(descriptor.digest, "a blob")):
            if await self.has_blob(descriptor):
                return "there"
            async with aclosing(content()) as pieces:
                await self._write(descriptor.digest, descriptor.size, pieces)
        return "moved"

    async def write_manifest(self, manifest: Manifest) -> None:
        """Store a manifest; one that refers to another is listed, for nothing else leads to it."""
        if manifest.kind == "schema1":
            raise UnsupportedManifestError("an OCI layout cannot hold images of schema 1")

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
            await self._opened.add(descriptor, name)
            self.changed = True

    async def _list(self, descriptor: Descriptor, name: str | None) -> None:
        self._waiting.append((descriptor, name))
        if isinstance(self._files, DirectoryFiles):
            await self.publish()

    async def _write(self, digest: str, size: int, pieces: AsyncGenerator[bytes, None]) -> None:
        check = DigestCheck(digest, size)
        output = await _held(lambda: self._files.create_blob(digest, size), lambda output: output.discard())
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


class _Opened:
    """A layout that is open as a target, by one or more users in one event loop."""

    def __init__(self, path: str, key: _Key) -> None:
        self.users = 0
        self.holders = 0
        self._path = path
        self._key = key
        self._lock = asyncio.Lock()
        self._files: DirectoryFiles | TarOutput | None = None
        self._changed = False
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._blobs: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @property
    def files(self) -> DirectoryFiles | TarOutput:
        """The files, once they are open."""
        if self._files is None:
            raise RuntimeError("the layout is not open")
        return self._files

    def blob_lock(self, digest: str) -> asyncio.Lock:
        """Return the lock of who writes a blob."""
        return self._blobs.setdefault(digest, asyncio.Lock())

    async def open(self) -> None:
        """Open the files; whoever comes second waits for who came first."""
        async with self._lock:
            if self._files is not None:
                return
            if not await in_thread(_is_tar, self._path):
                files = DirectoryFiles(self._path)
                await in_thread(files.sweep)
                self._files = files
                return
            tar = TarOutput(self._path)
            try:
                await _in_steps(tar.open())
            except BaseException:
                await in_thread(tar.discard)
                raise
            self._files = tar

    async def add(self, descriptor: Descriptor, name: str | None) -> None:
        """Let `name` point to an image."""

        def changed(data: bytes | None) -> bytes:
            index = LayoutIndex(data, self._path)
            index.add(descriptor, name)
            return index.encode()

        done = False
        while not done:
            done = await in_thread(self.files.change_index, changed)
            if not done:
                await asyncio.sleep(_LOCK_SECONDS)
        self._changed = True

    async def leave(self, *, wait: bool) -> None:
        """Use the layout no more; `wait` until all that was written to it is in its place."""
        self.users -= 1
        if not self.users:
            del _OPEN[self._key]
            finishing = _FINISHING[self._key] = asyncio.create_task(self._finish())
            await outlast(finishing)
        if wait and isinstance(self._files, TarOutput):
            await asyncio.wait({self._done})
            if (error := self._done.exception()) is not None:
                raise copy.copy(error) from error  # each gets its own

    async def leave_broken(self) -> None:
        """Use the layout no more, after a failure, which is what the user hears of."""
        await self.leave(wait=False)

    async def _finish(self) -> None:
        tar = self._files
        try:
            if isinstance(tar, TarOutput):
                try:
                    if self._changed:
                        await _in_steps(tar.finish())
                finally:
                    await in_thread(tar.discard)
        except DockerError as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
        finally:
            if not self._done.done():
                self._done.set_exception(ArchiveError(f"{shown(self._path)} was not written"))
            retrieve(self._done)
            del _FINISHING[self._key]


_Key = tuple[asyncio.AbstractEventLoop, str]
_OPEN: Final[dict[_Key, _Opened]] = {}
_FINISHING: Final[dict[_Key, asyncio.Task[None]]] = {}


async def _enter(path: str) -> _Opened:
    """Open a layout as a target, or share it with those in this event loop who have it open."""
    key = asyncio.get_running_loop(), await in_thread(os.path.realpath, path)
    while (finishing := _FINISHING.get(key)) is not None:
        await asyncio.wait({finishing})
    opened = _OPEN.get(key)
    if opened is None:
        opened = _OPEN[key] = _Opened(path, key)
    opened.users += 1
    try:
        await opened.open()
    except BaseException:
        await opened.leave_broken()
        raise
    return opened


def _check(path: object, name: object) -> None:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"the path of a layout is a str or a PathLike, not {type(path).__name__}")
    check_target(cast("object", path))
    if not isinstance(name, str | Reference | None):
        raise TypeError(f"the name of an image in a layout is a str, not {type(name).__name__}")
    if name == "":
        raise ValueError("the name of an image in a layout is empty")


def _is_tar(path: str) -> bool:
    with failing("write", path):
        try:
            return not stat.S_ISDIR(Path(path).stat().st_mode)
        except FileNotFoundError:
            return path.endswith(".tar")


def _opened_files(path: str) -> LayoutFiles:
    with failing("read", path):
        is_directory = stat.S_ISDIR(Path(path).stat().st_mode)
    files: LayoutFiles = DirectoryFiles(path) if is_directory else TarFiles(path)
    try:
        check_layout(files.read("oci-layout"), path)
    except BaseException:
        files.close()
        raise
    return files


async def _open_files(path: str) -> LayoutFiles:
    return await _held(lambda: _opened_files(path), lambda files: files.close())


async def _read_index(files: LayoutFiles, path: str) -> LayoutIndex:
    data = await in_thread(files.read, "index.json")
    if data is None:
        raise ArchiveError(f"{shown(path)} is not a whole OCI layout: it has no index.json")
    return await in_thread(LayoutIndex, data, path)


async def _read_manifest(files: LayoutFiles, descriptor: Descriptor, who: str) -> Manifest:
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


async def _held(call: Callable[[], _T], undo: Callable[[_T], None]) -> _T:
    """Run `call` in a thread, and `undo` what it did if nobody is there to take it: its waiter was cancelled."""
    made: list[_T] = []
    try:
        await in_thread(lambda: made.append(call()))
    except BaseException:
        for each in made:
            await in_thread(undo, each)
        raise
    return made[0]


async def _in_steps(steps: Generator[None, None, None]) -> None:
    """Run a generator in threads, a step at a time, so that a cancellation does not wait for all of it."""
    try:
        while await in_thread(next, steps, _END) is None:
            pass
    finally:
        await in_thread(steps.close)

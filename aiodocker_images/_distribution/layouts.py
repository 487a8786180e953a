"""`OCILayout`: images in a directory or a tar, as a source and a target of copies.

OCI image specification, "Image Layout". A directory is written while it is copied to. A tar is written as a whole, once
for all in this event loop who have it open.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final, cast

from aiodocker_images._aio.threads import in_thread, outlast, retrieve
from aiodocker_images._archive.files import failing
from aiodocker_images._archive.streams import check_target
from aiodocker_images.errors import (
    ArchiveError,
    DockerError,
    InvalidArgumentError,
    shown,
)
from aiodocker_images.reference import Reference

from .layout_files import DirectoryFiles, LayoutFiles
from .layout_images import LayoutGlance, LayoutPlace, LayoutSource, LayoutTarget, in_steps, undone_if_cancelled
from .layout_index import LayoutImage, LayoutIndex, check_layout
from .layout_tars import TarFiles, TarOutput
from .manifests import is_foreign

__all__ = ["LayoutImage", "OCILayout"]


@dataclasses.dataclass(frozen=True, slots=True)
class OCILayout:
    """An OCI layout: a directory or a tar with any number of images, each blob in it once.

    `path` is an existing directory or tar, or where one is to be made: a tar if the name ends in ".tar", and else a
    directory. `name` is the image in it: the annotation `org.opencontainers.image.ref.name`, or containerd's
    `io.containerd.image.name`; "alpine:3.20" also finds "docker.io/library/alpine:3.20", and a digest finds an image
    without a name. A source without a name has to hold a single image; a target without one gets the source's name.

    New files are readable by their owner alone, as those of `save` are. Raises `TypeError` or `ValueError` for what
    cannot be a path.
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

    async def verify(self) -> None:
        """Read all images of the layout, whatever `name` is, and compare each manifest and blob with its digest.

        Raises `DigestMismatchError` or `NotFoundError` for the first that is wrong or missing. Layers that can be had
        from elsewhere (`urls`) need not be there.
        """
        files = await _open_files(self._file)
        try:
            index = await _read_index(files, self._file)
            source = LayoutSource(files, index, self._file, None)
            todo = [image.descriptor for image in reversed(index.images)]
            seen: set[str] = set()
            while todo:
                descriptor = todo.pop()
                if descriptor.digest in seen:
                    continue
                seen.add(descriptor.digest)
                manifest = await source.manifest(descriptor)
                todo += reversed(manifest.children)
                for blob in manifest.blobs:
                    if blob.digest not in seen and not (
                        is_foreign(blob) and await in_thread(files.size, blob.digest) is None
                    ):
                        seen.add(blob.digest)
                        async with aclosing(source.blob(blob)) as pieces:
                            async for _ in pieces:
                                pass
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
    async def glance(self, default_name: str | None = None) -> AsyncGenerator[LayoutGlance, None]:
        """Open the image to see what a copy to it would write; nothing is made, also where no layout is yet."""
        name = self._name or default_name
        if not await in_thread(os.path.lexists, self._file):
            yield LayoutGlance(None, LayoutIndex(None, self._file), self._file, name)
            return
        files = await _open_files(self._file)
        try:
            yield LayoutGlance(files, await _read_index(files, self._file), self._file, name)
        finally:
            await in_thread(files.close)

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


class _Opened(LayoutPlace):
    """A layout that is open as a target, by one or more users in one event loop."""

    def __init__(self, path: str, key: _Key) -> None:
        super().__init__(path)
        self.users = 0
        self.holders = 0
        self._key = key
        self._lock = asyncio.Lock()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Open the files; whoever comes second waits for who came first."""
        async with self._lock:
            if self.opened is not None:
                return
            if not await in_thread(_is_tar, self.path):
                files = DirectoryFiles(self.path)
                await in_thread(files.sweep)
                self.opened = files
                return
            tar = TarOutput(self.path)
            try:
                await in_steps(tar.open())
            except BaseException:
                await in_thread(tar.discard)
                raise
            self.opened = tar

    async def leave(self, *, wait: bool) -> None:
        """Use the layout no more; `wait` until all that was written to it is in its place."""
        self.users -= 1
        if not self.users:
            del _OPEN[self._key]
            finishing = _FINISHING[self._key] = asyncio.create_task(self._finish())
            await outlast(finishing)
        if wait and isinstance(self.opened, TarOutput):
            await asyncio.wait({self._done})
            if (error := self._done.exception()) is not None:
                raise copy.copy(error) from error  # each gets its own

    async def leave_broken(self) -> None:
        """Use the layout no more, after a failure, which is what the user hears of."""
        await self.leave(wait=False)

    async def _finish(self) -> None:
        tar = self.opened
        try:
            if isinstance(tar, TarOutput):
                try:
                    if self.changed:
                        await in_steps(tar.finish())
                finally:
                    await in_thread(tar.discard)
        except DockerError as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
        finally:
            if not self._done.done():
                self._done.set_exception(ArchiveError(f"{shown(self.path)} was not written"))
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
        raise TypeError(f"the path of a layout must be a str or a PathLike, not {type(path).__name__}")
    check_target(cast("object", path))
    if not isinstance(name, str | Reference | None):
        raise TypeError(f"the name of an image in a layout must be a str, not {type(name).__name__}")
    if name == "":
        raise InvalidArgumentError("the name of an image in a layout must be some text, and it is empty")


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
    return await undone_if_cancelled(lambda: _opened_files(path), lambda files: files.close())


async def _read_index(files: LayoutFiles, path: str) -> LayoutIndex:
    data = await in_thread(files.read, "index.json")
    if data is None:
        raise ArchiveError(f"{shown(path)} is not a whole OCI layout: it has no index.json")
    return await in_thread(LayoutIndex, data, path)

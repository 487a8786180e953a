"""An OCI layout in a tar, read and written. Blocking.

A tar is written as a temporary neighbour, with what the tar had already. Room is set aside for each blob when it
begins, so that several can be written at once, and what was set aside for one that failed is closed at the end.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiodocker_images._archive.files import OutputFile, failing
from aiodocker_images._system.files import copy_in_kernel, open_file, read_at, write_at
from aiodocker_images.errors import ArchiveError, NotFoundError, shown

from .layout_files import BlobFile, BlobOutput, blob_name, limited, read_all, regular_size, remove_stale
from .layout_index import LAYOUT, check_layout
from .tar_members import END, Member, header, padding, scan

__all__ = ["TarFiles", "TarOutput"]

_COPY_SIZE: Final = 64 << 20  # bytes of a tar that one call copies, before a cancellation is noticed

_MAX_TAR: Final = 1 << 60
"""Bytes of a tar; a manifest that claims more is lying, and more would not be an offset in a file."""


class TarFiles:
    """A layout in a tar that is read."""

    def __init__(self, path: str) -> None:
        self.path = path
        with failing("read", path):
            self._descriptor = open_file(path)
            try:
                regular_size(self._descriptor)
                self.members = scan(self._descriptor, path)
            except BaseException:
                os.close(self._descriptor)
                raise

    def read(self, name: str) -> bytes | None:
        """Return one of the small files."""
        member = self._find(name)
        if member is None:
            return None
        with failing("read", self.path):
            return read_all(self._descriptor, member.offset, limited(member.size, name), self.path)

    def size(self, digest: str) -> int | None:
        """Return the size of a blob."""
        member = self._find(blob_name(digest))
        return None if member is None else member.size

    def open_blob(self, digest: str) -> BlobFile:
        """Open a blob."""
        return self.open_member(blob_name(digest), f"blob {digest}")

    def open_member(self, name: str, what: str) -> BlobFile:
        """Open a file of the tar."""
        member = self._find(name)
        if member is None:
            raise NotFoundError(f"there is no {what} in {shown(self.path)}")
        return BlobFile(self._descriptor, self.path, member.offset, member.size, own=False)

    def close(self) -> None:
        """Close the tar."""
        os.close(self._descriptor)

    def copy(self, member: Member, descriptor: int, position: int) -> Generator[None, None, None]:
        """Copy a member's bytes into another file, in steps."""
        yield from _copy(self._descriptor, member.offset, member.size, descriptor, position, self.path)

    def _find(self, name: str) -> Member | None:
        member = self.members.get(name)
        if member is not None and member.link is not None:
            raise ArchiveError(f"{shown(self.path)} has a link where a file is expected: {shown(name)}")
        return member


class TarOutput:
    """A layout in a tar that is written. Several threads may write at once.

    `keep` keeps what the tar has already; without, it is replaced as a whole.
    """

    def __init__(self, path: str, *, keep: bool = True) -> None:
        self.path = path
        self._keep = keep
        self._output = OutputFile(path)
        self._status: os.stat_result | None = None
        self._last: dict[str, bytes] = {}  # small files that are written at the end
        self._end = 0
        self._blobs: dict[str, Member] = {}  # by name, those that are whole
        self._holes = False  # whether room was reserved for a blob that failed
        self._lock = threading.Lock()

    def open(self) -> Generator[None, None, None]:
        """Create the temporary file and copy what there is already, in steps."""
        with failing("write", self.path):
            with suppress(FileNotFoundError):
                self._status = Path(self.path).stat()
            if self._status is not None and not stat.S_ISREG(self._status.st_mode):
                raise OSError(errno.EINVAL, "a layout can only be written into a regular file")
        place = Path(os.path.realpath(self.path))
        remove_stale(place.parent.glob(f".{glob.escape(place.name)}.{'[0-9a-f]' * 16}.part"))
        self._output.open()
        self._append_file("oci-layout", LAYOUT)
        if self._keep and self._status is not None and self._status.st_size:
            old = TarFiles(self.path)
            try:
                check_layout(old.read("oci-layout"), self.path)
                index = old.read("index.json")
                if index is not None:
                    self._last["index.json"] = index
                for name, member in old.members.items():
                    if member.link is None and name not in {"oci-layout", "index.json"}:
                        yield from self._take(name, member, old.copy)
            finally:
                old.close()

    def read(self, name: str) -> bytes | None:
        """Return one of the small files."""
        return LAYOUT if name == "oci-layout" else self._last.get(name)

    def write_last(self, name: str, data: bytes) -> None:
        """Keep a small file for the end of the tar."""
        with self._lock:
            self._last[name] = data

    def size(self, digest: str) -> int | None:
        """Return the size of a blob."""
        member = self._blobs.get(blob_name(digest))
        return None if member is None else member.size

    def create_blob(self, digest: str, size: int) -> BlobOutput:
        """Reserve room for a blob and begin to write it."""
        name = blob_name(digest)
        start = header(name, size)
        with self._lock:
            position = self._end
            if position + size > _MAX_TAR:
                raise ArchiveError(f"a blob of {size} bytes does not fit into {shown(self.path)}")
            self._end += len(start) + size + len(padding(size))
        member = Member(position + len(start), size)
        try:
            self._write_at(start, position)
        except BaseException:
            self._holes = True
            raise
        return _BlobInTar(self, name, member)

    def change_index(self, change: Callable[[bytes | None], bytes]) -> bool:
        """Keep what `change` makes of index.json for the end."""
        with self._lock:
            self._last["index.json"] = change(self._last.get("index.json"))
        return True

    def finish(self) -> Generator[None, None, None]:
        """Write the end of the tar, wait until the disk has all of it, and put it in its place; in steps."""
        if self._holes:
            yield from self._close_holes()
        for name, data in self._last.items():
            self._append_file(name, data)
        self._write_at(END, self._end)
        with failing("write", self.path):
            os.ftruncate(self._output.descriptor, self._end + len(END))
        self._output.prepare()
        yield
        with failing("write", self.path):
            now: os.stat_result | None = None
            with suppress(FileNotFoundError):
                now = Path(self.path).stat()
        if self._keep and _identity(now) != _identity(self._status):
            raise ArchiveError(f"{shown(self.path)} was changed by somebody else meanwhile: it is left as it is")
        self._output.commit()

    def discard(self) -> None:
        """Remove the temporary file, unless it has taken its place."""
        self._output.discard()

    def write_blob(self, member: Member, position: int, chunks: Iterable[bytes]) -> int:
        """Write bytes of a blob; return how many of it are written now."""
        for chunk in chunks:
            if position + len(chunk) > member.size:
                raise ArchiveError(f"more than the {member.size} bytes that a blob in {shown(self.path)} has room for")
            self._write_at(chunk, member.offset + position)
            position += len(chunk)
        return position

    def blob_done(self, name: str, member: Member, *, whole: bool) -> None:
        """Count a blob that is whole in, and close the room of any other."""
        with self._lock:
            if whole:
                self._blobs[name] = member
            else:
                self._holes = True

    def _take(
        self, name: str, member: Member, copy: Callable[[Member, int, int], Generator[None, None, None]]
    ) -> Generator[None, None, None]:
        start = header(name, member.size)
        self._write_at(start, self._end)
        yield from copy(member, self._output.descriptor, self._end + len(start))
        self._blobs[name] = Member(self._end + len(start), member.size)
        self._end += len(start) + member.size + len(padding(member.size))

    def _close_holes(self) -> Generator[None, None, None]:
        holed, blobs = self._output, self._blobs
        self._output, self._blobs, self._end = OutputFile(self.path), {}, 0
        try:
            self._output.open()
            self._append_file("oci-layout", LAYOUT)

            def copy(member: Member, descriptor: int, position: int) -> Generator[None, None, None]:
                yield from _copy(holed.descriptor, member.offset, member.size, descriptor, position, self.path)

            for name, member in blobs.items():
                yield from self._take(name, member, copy)
        finally:
            holed.discard()

    def _append_file(self, name: str, data: bytes) -> None:
        file = header(name, len(data)) + data + padding(len(data))
        self._write_at(file, self._end)
        self._end += len(file)

    def _write_at(self, data: bytes, position: int) -> None:
        with failing("write", self.path):
            _write_at(self._output.descriptor, data, position)


class _BlobInTar:
    def __init__(self, tar: TarOutput, name: str, member: Member) -> None:
        self._tar = tar
        self._name = name
        self._member = member
        self._written = 0
        self._ended = False

    def write(self, chunks: Iterable[bytes]) -> None:
        self._written = self._tar.write_blob(self._member, self._written, chunks)

    def commit(self) -> None:
        self._end(whole=self._written == self._member.size)

    def discard(self) -> None:
        self._end(whole=False)

    def _end(self, *, whole: bool) -> None:
        if not self._ended:
            self._ended = True
            self._tar.blob_done(self._name, self._member, whole=whole)


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = write_at(descriptor, view, position)
        position += written
        view = view[written:]


def _copy(  # noqa: PLR0917 - two places and a size
    source: int, offset: int, size: int, target: int, position: int, path: str
) -> Generator[None, None, None]:
    """Copy bytes between two files, within the kernel where it can; every step takes a bounded time."""
    in_kernel = True
    done = since = 0
    while done < size:
        wanted = min(size - done, _COPY_SIZE)
        copied = 0
        with failing("write", path):
            if in_kernel:
                copied = copy_in_kernel(source, target, wanted, offset + done, position + done)
            if not copied:
                in_kernel = False
                piece = read_at(source, min(wanted, 1 << 20), offset + done)
                if not piece:
                    raise OSError(errno.EIO, "it shrank while it was read")
                _write_at(target, piece, position + done)
                copied = len(piece)
        done += copied
        since += copied
        if since >= _COPY_SIZE:
            since = 0
            yield


def _identity(status: os.stat_result | None) -> tuple[int, ...]:
    return () if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

"""The files of an OCI layout in a directory, and what they have in common with those in a tar. Blocking.

Each file is written as a temporary neighbour and renamed, so that a reader sees a whole one at any moment. Blobs are
known by their digests, so that two writers of one blob write the same.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from aiodocker_images._archive.files import OutputFile, failing
from aiodocker_images._system.files import open_file, read_at
from aiodocker_images._system.locks import DirectoryLock
from aiodocker_images.errors import ArchiveError, NotFoundError, shown

from .layout_index import LAYOUT, MAX_INDEX

__all__ = [
    "BlobFile",
    "BlobOutput",
    "DirectoryFiles",
    "LayoutFiles",
    "blob_name",
    "limited",
    "read_all",
    "regular_size",
    "remove_stale",
]

_STALE_SECONDS: Final = 24 * 3600
"""The age of a temporary file whose writer is surely dead; a living one writes at least every idle timeout."""

_MAX_LAYOUT_FILE: Final = 4096  # bytes of oci-layout


_INDEX_LOCK: Final = threading.Lock()


def blob_name(digest: str) -> str:
    """Return the path of a blob in a layout. The digest has been checked: nothing else leads out of the layout."""
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded}"


def remove_stale(parts: Iterable[Path]) -> None:
    """Remove those temporary files whose writers are surely dead."""
    before = time.time() - _STALE_SECONDS
    for part in parts:
        with suppress(OSError):  # somebody else may have removed it, or may be the only one who can
            if part.stat().st_mtime < before:
                part.unlink()


class BlobFile:
    """A blob that is open for reading: `size` bytes, from `offset` on, of a file."""

    def __init__(self, descriptor: int, path: str, offset: int, size: int, *, own: bool) -> None:
        self.path = path
        self.size = size
        self._descriptor = descriptor
        self._offset = offset
        self._own = own

    def read(self, start: int, size: int) -> bytes:
        """Return at most `size` bytes from `start` on; none only at the end."""
        with failing("read", self.path):
            return read_at(self._descriptor, min(size, self.size - start), self._offset + start)

    def close(self) -> None:
        """Close the file, if it belongs to this blob alone."""
        if self._own:
            os.close(self._descriptor)


class BlobOutput(Protocol):
    """A blob that is being written: all of `write()`, then `commit()`; or `discard()` at any time."""

    def write(self, chunks: Iterable[bytes]) -> object:
        """Write the next bytes."""
        ...

    def commit(self) -> None:
        """Put the blob in its place."""
        ...

    def discard(self) -> None:
        """Remove what was written of a blob that was not committed."""
        ...


class LayoutFiles(Protocol):
    """What can be read from a layout."""

    def read(self, name: str) -> bytes | None:
        """Return one of the small files, None if it is not there."""
        ...

    def size(self, digest: str) -> int | None:
        """Return the size of a blob, None if it is not there."""
        ...

    def open_blob(self, digest: str) -> BlobFile:
        """Open a blob; raises `NotFoundError`."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class DirectoryFiles:
    """A layout in a directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, name: str) -> bytes | None:
        """Return one of the small files."""
        path = f"{self.path}/{name}"
        with failing("read", path):
            try:
                descriptor = open_file(path)
            except FileNotFoundError:
                return None
            try:
                size = regular_size(descriptor)
                return read_all(descriptor, 0, limited(size, path), path)
            finally:
                os.close(descriptor)

    def size(self, digest: str) -> int | None:
        """Return the size of a blob."""
        path = Path(self.path, blob_name(digest))
        with failing("read", str(path)):
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open_blob(self, digest: str) -> BlobFile:
        """Open a blob."""
        path = f"{self.path}/{blob_name(digest)}"
        with failing("read", path):
            try:
                descriptor = open_file(path)
            except FileNotFoundError:
                raise NotFoundError(f"there is no blob {digest} in {shown(self.path)}") from None
            try:
                return BlobFile(descriptor, path, 0, regular_size(descriptor), own=True)
            except BaseException:
                os.close(descriptor)
                raise

    def create_blob(self, digest: str, size: int) -> BlobOutput:  # noqa: ARG002 - a tar needs it
        """Begin to write a blob."""
        self._prepare()
        path = Path(self.path, blob_name(digest))
        with failing("write", str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                path.unlink()  # not written through: it could lead anywhere
        return _BlobOnDisk(str(path))

    def change_index(self, change: Callable[[bytes | None], bytes]) -> bool:
        """Write what `change` makes of index.json; False if another process is doing so, to be called again."""
        self._prepare()
        with failing("write", f"{self.path}/index.json"):
            # On a file system without locks, another process may forget this image, but the file stays whole.
            lock = DirectoryLock(self.path)
        try:
            if not lock.held:
                return False
            with _INDEX_LOCK:
                _write_file(f"{self.path}/index.json", change(self.read("index.json")))
            return True
        finally:
            lock.release()

    def sweep(self) -> None:
        """Remove the temporary files of writers that were killed."""
        remove_stale(Path(self.path, "blobs").glob("*/.*.part"))

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def _prepare(self) -> None:
        with failing("write", self.path):
            Path(self.path).mkdir(parents=True, exist_ok=True)
        if self.read("oci-layout") is None:
            with failing("read", self.path):
                others = [each for each in Path(self.path).iterdir() if not each.name.startswith(".")]
            if others and self.read("oci-layout") is None:
                raise ArchiveError(f"{shown(self.path)} is neither an OCI layout nor an empty directory")
            _write_file(f"{self.path}/oci-layout", LAYOUT)


class _BlobOnDisk:
    """A blob in a file of its own."""

    def __init__(self, path: str) -> None:
        self._output = OutputFile(path)
        try:
            self._output.open()
        except BaseException:
            self._output.discard()
            raise

    def write(self, chunks: Iterable[bytes]) -> None:
        self._output.write(chunks)

    def commit(self) -> None:
        self._output.prepare()
        self._output.commit()

    def discard(self) -> None:
        self._output.discard()


def _write_file(path: str, data: bytes) -> None:
    output = OutputFile(path)
    try:
        output.open()
        output.write([data])
        output.prepare()
        output.commit()
    except BaseException:
        output.discard()
        raise


def read_all(descriptor: int, offset: int, size: int, path: str) -> bytes:
    """Read `size` bytes at once."""
    pieces: list[bytes] = []
    while size:
        piece = read_at(descriptor, size, offset)
        if not piece:
            raise ArchiveError(f"{shown(path)} shrank while it was read")
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def regular_size(descriptor: int) -> int:
    """Return the size of an open file; raises OSError if it is a directory, a FIFO or a device."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL, "it is not a regular file")
    return status.st_size


def limited(size: int, path: str) -> int:
    """Return the size of a small file of a layout, unless it is not small."""
    limit = _MAX_LAYOUT_FILE if path.endswith("oci-layout") else MAX_INDEX
    if size > limit:
        raise ArchiveError(f"{shown(path)} has {size} bytes; {limit} is the most")
    return size

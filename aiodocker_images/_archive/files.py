"""The blocking ends of an archive: what reads and writes files, file objects and iterables, in a thread."""

from __future__ import annotations

import errno
import inspect
import io
import os
import re
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, cast

from aiodocker_images._system.files import (
    begin_writeback,
    can_send,
    open_file,
    read_at,
    ready,
    send,
    sync,
    write_some,
)
from aiodocker_images._system.replacing import Replacement
from aiodocker_images.errors import LocalFileError

from .image_names import AnnouncedImages

_GATHER_SIZE = 64 * 1024  # small items of an iterable are gathered up to this per visit to a thread
_GATHER_SECONDS = 0.05  # unless they come slowly
_FLUSH_SIZE = 8 << 20  # bytes after which the disk begins to write, lest the end waits for all of it

# /dev/stdout can be a regular file: to rename over that would part it from the shell that redirected to it.
_DESCRIPTOR_PATHS = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")
_OWN_DESCRIPTOR = re.compile(r"/(?:dev|proc/self|proc/thread-self)/fd/([0-9]{1,9})")
_STANDARD_DESCRIPTORS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class BinaryWriter(Protocol):
    """A file opened for writing bytes."""

    def write(self, data: bytes, /) -> object:
        """Write, and return how many bytes were written or None for all."""
        ...


class InputItems:
    """A user's iterable: `read()` returns b"" at its end, and None for nothing yet."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = items
        self._iterator: Iterator[object] = iter(())
        self._error: Exception | None = None

    def open(self) -> None:
        self._iterator = iter(self._items)

    def read(self) -> bytes | None:
        if self._error is not None:
            raise self._error
        until = time.monotonic() + _GATHER_SECONDS
        gathered = bytearray()
        try:
            for item in self._iterator:
                piece = as_bytes(item)
                if not gathered and len(piece) >= _GATHER_SIZE:
                    return piece
                gathered += piece
                if len(gathered) >= _GATHER_SIZE or time.monotonic() > until:
                    return bytes(gathered) or None
        except Exception as error:
            if not gathered:
                raise
            self._error = error  # for the next call: what came before it goes first
        return bytes(gathered)

    def close(self) -> None:
        # One that still runs belongs to a thread that was left alone.
        if inspect.isgenerator(self._iterator) and not self._iterator.gi_running:
            self._iterator.close()


class InputObject:
    """A user's file, which is left open."""

    def __init__(self, file: object, read: Callable[[int], object]) -> None:
        self.path = _name_of(file)
        self._file = file
        self._read = read

    def open(self) -> int | None:
        with failing("read", self.path):
            return _size_of(self._file)

    def read(self, size: int) -> bytes:
        with failing("read", self.path):
            try:
                data = self._read(size)
            except OSError:
                raise
            except Exception as error:
                # gzip, lzma, bz2 and zipfile raise each their own for data that is cut off or broken.
                if isinstance(error, _broken_archives()):
                    raise OSError(errno.EIO, f"its compressed data is broken: {error}") from error
                raise
            if data is None:
                raise BlockingIOError(errno.EAGAIN, "it does not block, and has nothing to read now")
        return as_bytes(data)


class InputFile:
    """A path to read from: `read()` returns b"" at the end, and None for nothing yet.

    `sendable` is whether `send()` can spare the way through this process.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.sendable = False
        self._descriptor = -1
        self._regular = False

    def open(self) -> int | None:
        with failing("read", self.path):
            self._descriptor = open_file(self.path)
            status = os.fstat(self._descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise _os_error(errno.EISDIR)
            self._regular = stat.S_ISREG(status.st_mode)
            self.sendable = self._regular and can_send()
            return status.st_size if self._regular else None

    def read(self, size: int) -> bytes | None:
        with failing("read", self.path):
            # A FIFO that nobody has opened for writing yet reads as ended, but does not poll as ready.
            if not self._regular and not ready(self._descriptor):
                return None
            try:
                return os.read(self._descriptor, size)
            except BlockingIOError:  # another reader of the FIFO was faster
                return None

    def peek(self, size: int) -> bytes:
        """Return the first bytes of a regular file, which stays at its beginning."""
        with failing("read", self.path):
            return read_at(self._descriptor, size, 0)

    def scan(self, announced: AnnouncedImages) -> None:
        """Let `announced` look through the file, which stays at its beginning."""
        with failing("read", self.path):
            announced.scan(self._descriptor)

    def send(self, connection: int, size: int) -> int | None:
        """Let the kernel send the next bytes to a unix socket that does not block; None if it sends none now.

        A `ConnectionError` is the socket's.
        """
        try:
            return send(connection, self._descriptor, size)
        except BlockingIOError:
            return None
        except ConnectionError:
            raise
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                self.sendable = False  # not from this file system: it has to be read
                return None
            with failing("read", self.path):
                raise

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class OutputObject:
    """A user's file, which is left open and keeps what was written."""

    def __init__(self, file: BinaryWriter) -> None:
        self._file = file
        self._path = _name_of(file)

    def open(self) -> bool:
        return True

    def write(self, chunks: Iterable[bytes]) -> bool:
        with failing("write", self._path):
            for chunk in chunks:
                rest = chunk
                while rest:
                    written = self._file.write(rest)
                    if inspect.isawaitable(written):
                        if inspect.iscoroutine(written):
                            written.close()
                        raise TypeError(
                            f"the write() of {type(self._file).__name__} is asynchronous and has written nothing: "
                            "give a path, or a file whose write() returns when the bytes are written"
                        )
                    if written is None and not isinstance(self._file, io.RawIOBase):
                        break  # many a user's own `write` returns nothing
                    if not written:
                        raise BlockingIOError(errno.EAGAIN, "it does not block, and takes nothing now")
                    rest = rest[written:] if isinstance(written, int) else b""
        return True

    def prepare(self) -> None:
        flush = getattr(self._file, "flush", None)
        if callable(flush):
            with failing("write", self._path):
                flush()

    def commit(self) -> None:
        pass

    def discard(self) -> None:
        pass


class OutputFile:
    """A path to write to: `open()` and `write()` return False where they are to be called again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._target = path
        self._place: os.stat_result | None = None  # of the file that is replaced
        self._part: Replacement | None = None  # None: written in place
        self._descriptor = -1
        self._shared = False  # a descriptor of the caller's, whose file may go on behind the archive
        self._rest: list[memoryview] = []
        self._written = self._flushed = 0

    def open(self) -> bool:
        with failing("write", self._path):
            mode = _mode_of(self._path)
            if stat.S_ISDIR(mode) or self._path.endswith(("/", os.sep)):
                raise _os_error(errno.EISDIR)
            if mode and (not stat.S_ISREG(mode) or self._path.startswith(_DESCRIPTOR_PATHS)):
                if stat.S_ISREG(mode) and (number := _own_descriptor(self._path)) is not None:
                    # Opened by its path it would be written from its beginning, over what `>>` adds to.
                    self._descriptor, self._shared = os.dup(number), True
                    return True
                try:
                    self._descriptor = open_file(self._path, os.O_WRONLY)
                except OSError as error:
                    if error.errno == errno.ENXIO and stat.S_ISFIFO(mode):
                        return False  # nobody reads it yet
                    raise
                return True
            self._target = os.path.realpath(self._path)
            if mode:
                self._place = Path(self._target).stat()
            # An archive can hold secrets: nobody else reads it before its owner says so.
            self._part = Replacement(self._target)
            self._descriptor = self._part.descriptor
            return True

    @property
    def descriptor(self) -> int:
        """The open temporary file, for who writes it at several places; -1 if it is not open."""
        return self._descriptor

    def write(self, chunks: Iterable[bytes]) -> bool:
        self._rest += map(memoryview, chunks)
        with failing("write", self._path):
            while self._rest:
                if self._part is None and not ready(self._descriptor, writing=True):
                    return False
                try:
                    written = write_some(self._descriptor, self._rest)
                except BlockingIOError:
                    return False
                self._written += written
                done = 0
                while done < len(self._rest) and written >= len(self._rest[done]):
                    written -= len(self._rest[done])
                    done += 1
                del self._rest[:done]
                if written:
                    self._rest[0] = self._rest[0][written:]
        self._flush_early()
        return True

    def _flush_early(self) -> None:
        """Have the disk begin to write what the kernel would keep until the sync at the end."""
        size = self._written - self._flushed
        if self._part is not None and size >= _FLUSH_SIZE:
            begin_writeback(self._descriptor, self._flushed, size)
            self._flushed = self._written

    def prepare(self) -> None:
        with failing("write", self._path):
            if self._part is not None:
                if self._place is not None:
                    self._part.resemble(self._place)
                self._descriptor = -1
                self._part.close()
                return
            if self._shared:
                # Old bytes behind the archive would be read as a part of it.
                os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_CUR))
            sync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def commit(self) -> None:
        if self._part is not None:
            with failing("write", self._path):
                self._part.commit()

    def discard(self) -> None:
        if self._part is not None:
            self._part.discard()
        elif self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)


def _own_descriptor(path: str) -> int | None:
    """Return the number of this process's descriptor that a path such as /dev/stdout or /dev/fd/3 means."""
    match = _OWN_DESCRIPTOR.fullmatch(path)
    return int(match[1]) if match else _STANDARD_DESCRIPTORS.get(path)


@contextmanager
def failing(doing: str, path: str | None) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        what = repr(path) if path is not None else "the file of the archive"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what += " (free some space on its file system, or name a file on another one)"
        failure = LocalFileError.of(error, f"cannot {doing} {what}")
        failure.filename = path  # not the temporary one's
        raise failure from error


def _broken_archives() -> tuple[type[Exception], ...]:
    """Return what the decompressors of the standard library raise, of those modules that somebody has imported."""
    names = (
        ("lzma", "LZMAError"),
        ("zipfile", "BadZipFile"),
        ("tarfile", "TarError"),
        ("compression.zstd", "ZstdError"),
    )
    classes = (getattr(sys.modules.get(module), name, None) for module, name in names)
    found = tuple(each for each in classes if isinstance(each, type) and issubclass(each, Exception))
    return (EOFError, zlib.error, *found)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def as_bytes(item: object) -> bytes:
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(cast("bytes", item))
    raise TypeError(f"the pieces of an archive must be bytes, not {type(item).__name__}")


def _name_of(file: object) -> str | None:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else None


def _size_of(file: object) -> int | None:
    """Measure what can be measured at no cost: a decompressor would run to its end for it."""
    if type(file).__module__ == "tempfile":
        file = getattr(file, "file", file)  # a SpooledTemporaryFile has none, and measures itself
    raw: object = getattr(file, "raw", file)
    if isinstance(file, io.BufferedReader | io.BufferedRandom | io.FileIO):
        if not isinstance(raw, io.FileIO) or not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            return None
    elif not isinstance(file, io.BytesIO | tempfile.SpooledTemporaryFile):
        return None
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    return max(end - start, 0)


def _mode_of(path: str) -> int:
    if not path:
        raise _os_error(errno.ENOENT)
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return 0

"""Sources and sinks of tars: paths, file objects, bytes and iterables, read and written off the event loop.

What can block runs in a thread, one call at a time per archive. A thread cannot be cancelled, so whoever is
cancelled waits for the call in progress to end before anything is closed or removed: no descriptor is closed
under a reader, no temporary file is left behind. FIFOs and terminals, which can block for ever, are polled in
short calls; a blocking `read`, `write` or `next` of the user's own has to return by itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import functools
import hashlib
import inspect
import io
import os
import secrets
import select
import stat
import tempfile
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeGuard, TypeVar, cast

from .errors import ArchiveError, ArchiveFileError

__all__ = [
    "PIECE_SIZE",
    "WRITE_SIZE",
    "ArchiveSink",
    "ArchiveSource",
    "ArchiveTarget",
    "ArchiveUpload",
    "AsyncBinaryReader",
    "BinaryReader",
    "BinaryWriter",
    "check_source",
    "check_target",
    "open_sink",
    "open_source",
]

PIECE_SIZE = 1024 * 1024
"""Bytes read from a file at once, and at most in one piece of an upload."""

WRITE_SIZE = 4 * 1024 * 1024
"""Bytes gathered before a thread writes them."""

_GATHER_SIZE = 64 * 1024  # small items of an iterable are gathered up to this per visit to a thread
_GATHER_SECONDS = 0.05  # unless they come slowly
_POLL_SECONDS = 0.1  # what a thread waits for a FIFO or a terminal, and so what a cancellation waits at most
_MAX_BUFFERS = 1024  # IOV_MAX of Linux and macOS
_MAX_PART_NAME = 200  # of the 255 bytes that file systems allow, less what the temporary name adds

# /dev/stdout can be a regular file: to rename over that would part it from the shell that redirected to it.
_DESCRIPTOR_PATHS = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class BinaryReader(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes; none at the end."""
        ...


class AsyncBinaryReader(Protocol):
    """A stream whose `read` is a coroutine, like that of `asyncio.StreamReader`."""

    async def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


class BinaryWriter(Protocol):
    """A file opened for writing bytes."""

    def write(self, data: bytes, /) -> object:
        """Write, and return how many bytes were written or None for all."""
        ...


ArchiveSource = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryReader
    | AsyncBinaryReader
    | Iterable[bytes]
    | AsyncIterable[bytes]
)
"""What an archive is read from. A str is a path, never a body."""

ArchiveTarget = str | os.PathLike[str] | BinaryWriter
"""What an archive is written to: a path, or a file opened for writing bytes."""


def check_source(source: object) -> None:
    """Raise TypeError if no archive can be read from `source`, ValueError if it is closed; does no I/O."""
    if _is_path(source):
        _check_path(os.fspath(source))
    elif isinstance(source, memoryview):
        if not source.c_contiguous:
            raise TypeError("an archive in a memoryview must be contiguous")
    elif callable(getattr(source, "read", None)):
        _check_file(source, "readable", "reading")
    elif issubclass(type(source), Mapping) or not isinstance(source, Iterable | AsyncIterable):
        raise TypeError(
            "an archive is read from a path, bytes, a file opened for reading bytes, or an iterable "
            f"or async iterable of bytes, not from {type(source).__name__}"
        )


def check_target(to: object) -> None:
    """Raise TypeError if no archive can be written to `to`, ValueError if it is closed; does no I/O."""
    if _is_path(to):
        _check_path(os.fspath(to))
        return
    write = getattr(to, "write", None)
    # StreamWriter.write is a plain function, but only for the thread of its loop.
    if not callable(write) or inspect.iscoroutinefunction(write) or isinstance(to, asyncio.StreamWriter):
        raise TypeError(
            f"an archive is written to a path or a file opened for writing bytes, not to {type(to).__name__}"
        )
    _check_file(to, "writable", "writing")


def _is_path(given: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(given, str | os.PathLike)


def _check_path(path: object) -> None:
    if not isinstance(path, str):
        raise TypeError(f"the path of an archive must be text, not {type(path).__name__}")
    if b"\0" in os.fsencode(path):
        raise ValueError(f"the path of an archive holds a NUL: {path!r}")


def _check_file(file: object, ability: str, doing: str) -> None:
    # The text files of codecs and tempfile are no TextIOBase, but have an encoding as well.
    if isinstance(file, io.TextIOBase) or isinstance(getattr(file, "encoding", None), str):
        raise TypeError(f"the file of an archive must be opened for {doing} bytes, not text")
    if getattr(file, "closed", False) is True:
        raise ValueError("the file of an archive is closed")
    able = getattr(file, ability, None)
    if callable(able) and not inspect.iscoroutinefunction(able) and able() is False:
        raise ValueError(f"the file of an archive is not opened for {doing}")


def open_source(source: ArchiveSource) -> ArchiveUpload:
    """Check `source` at once, and open it on `async with`."""
    check_source(source)
    return ArchiveUpload(source)


class ArchiveUpload:
    """A source of an archive: enter it, tell its `size`, send its `chunks()`.

    Entering raises `ArchiveFileError` for a path that cannot be opened. Leaving closes the file that was opened
    here, or the iterator of an iterable; never a file of the user's.

    `size` is the number of bytes to come, or None where only the end tells.
    `failure` is what ended `chunks()` early: an HTTP client wraps what the generator of a body raises.
    """

    def __init__(self, source: ArchiveSource) -> None:
        self.size: int | None = None
        self.failure: Exception | None = None
        self._source = source
        self._path: str | None = None
        self._opened = AsyncExitStack()
        self._left: int | None = None
        self._lock = asyncio.Lock()
        self._reader: asyncio.Task[Any] | None = None
        self._usable = False
        self._closed = False

    async def __aenter__(self) -> Self:
        """Open the file; nothing of it is read yet."""
        try:
            self._read = await self._open(self._source)
        except BaseException:
            await self._opened.aclose()
            raise
        self._left = self.size
        self._usable = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened here, once the read in progress has ended."""
        self._closed = True
        try:
            if self._reader is not None:
                # The HTTP client's writer of the body: it may wait for the user's iterable for ever.
                self._reader.cancel()
                await _outlast(asyncio.create_task(self._idle()))
        finally:
            await self._opened.aclose()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the archive, once, in pieces of at least 1 and at most `PIECE_SIZE` bytes."""
        while piece := await self._next():
            if len(piece) <= PIECE_SIZE:
                yield piece
            else:
                for start in range(0, len(piece), PIECE_SIZE):
                    yield piece[start : start + PIECE_SIZE]

    async def _idle(self) -> None:
        async with self._lock:
            pass

    async def _next(self) -> bytes:
        async with self._lock:
            if self._closed or not self._usable:
                # An end here would make half a body look whole to the daemon.
                raise ArchiveError("the archive was closed before it was read to its end")
            self._usable = False  # and stays so if this fails: a generator that has failed looks ended
            self._reader = asyncio.current_task()
            try:
                piece = await self._next_piece()
            except Exception as error:
                self.failure = error
                raise
            finally:
                self._reader = None
            self._usable = True
            return piece

    async def _next_piece(self) -> bytes:
        wanted = PIECE_SIZE if self._left is None else min(PIECE_SIZE, self._left)
        piece: bytes | None = None if wanted else b""
        while piece is None:
            piece = await self._read(wanted)
        if self._left is not None:
            piece = piece[: self._left]  # a file that grows is cut where the announced size ends
            self._left -= len(piece)
            if self._left and not piece:
                with _failing("read", self._path):
                    raise OSError(errno.EIO, f"it shrank while it was read, and ended {self._left} bytes early")
        return piece

    async def _open(self, source: ArchiveSource) -> Callable[[int], Awaitable[bytes | None]]:
        """Return what reads a piece of at most a size: b"" at the end, None for nothing yet."""
        if isinstance(source, bytes | bytearray | memoryview):
            view = memoryview(cast("bytes", source)).cast("B")
            self._opened.callback(view.release)
            self.size = len(view)
            return _memory_reader(view)
        if _is_path(source):
            self._path = os.fspath(source)
            file = InputFile(self._path)
            self._opened.push_async_callback(_in_thread, file.close)
            self.size = await _in_thread(file.open)
            return lambda wanted: _in_thread(file.read, wanted)
        read: Callable[[int], Any] | None = getattr(source, "read", None)
        if read is not None and not inspect.iscoroutinefunction(read):
            opened = InputObject(source, read)
            self._path = opened.path
            self.size = await _in_thread(opened.open)
            return lambda wanted: _in_thread(opened.read, wanted)
        if read is not None or isinstance(source, AsyncIterable):
            # asyncio's and aiohttp's streams are async iterables too, but of lines, and fail at long ones.
            iterable = _pieces_of(read) if read is not None else cast("AsyncIterable[object]", source)
            iterator = aiter(iterable)
            if inspect.isasyncgen(iterator):
                self._opened.push_async_callback(iterator.aclose)
            return _item_reader(iterator)
        gathered = InputItems(cast("Iterable[object]", source))
        self._opened.push_async_callback(_in_thread, gathered.close)
        await _in_thread(gathered.open)
        return lambda _: _in_thread(gathered.read)


def _memory_reader(view: memoryview) -> Callable[[int], Awaitable[bytes]]:
    starts = iter(range(0, len(view), PIECE_SIZE))

    async def read(_: int) -> bytes:
        start = next(starts, len(view))
        return bytes(view[start : start + PIECE_SIZE])

    return read


async def _pieces_of(read: Callable[[int], Awaitable[object]]) -> AsyncGenerator[object, None]:
    while piece := await read(PIECE_SIZE):
        yield piece


def _item_reader(items: AsyncIterator[object]) -> Callable[[int], Awaitable[bytes | None]]:
    end = object()

    async def read(_: int) -> bytes | None:
        item = await anext(items, end)
        return b"" if item is end else _as_bytes(item) or None

    return read


def open_sink(to: ArchiveTarget, *, checksum: bool = False) -> ArchiveSink:
    """Check `to` at once, and open it on `async with`; `checksum` computes a sha256 on the way."""
    check_target(to)
    return ArchiveSink(to, checksum=checksum)


class ArchiveSink:
    """A target of an archive: enter it, `write()` all, `commit()`; leaving without `commit()` discards.

    A path is written as a temporary neighbour, which takes its place at `commit()` when the disk has all of it;
    what exists and is no regular file (a FIFO, /dev/stdout) is written in place. A file object keeps what was
    written to it, and is not closed.

    Entering raises `ArchiveFileError` where the path cannot be written, and so do `write()` and `commit()`.
    `size` is the number of bytes taken.
    """

    def __init__(self, to: ArchiveTarget, *, checksum: bool) -> None:
        self.size = 0
        self._output = OutputFile(os.fspath(to)) if isinstance(to, str | os.PathLike) else OutputObject(to)
        self._hash = hashlib.sha256() if checksum else None
        self._batch: list[bytes] = []
        self._batch_size = 0
        self._flight: asyncio.Task[None] | None = None
        self._state = "not open"

    @property
    def digest(self) -> str | None:
        """`sha256:…` of the whole, once committed; None without `checksum`."""
        return f"sha256:{self._hash.hexdigest()}" if self._hash and self._state == "committed" else None

    async def __aenter__(self) -> Self:
        """Create the temporary file."""
        try:
            while not await _in_thread(self._output.open):
                pass  # a FIFO without a reader: `open` has waited for one for a while
        except BaseException:
            await _in_thread(self._output.discard)
            raise
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the temporary file, unless it was committed."""
        if self._state == "committed":
            return
        self._state = "closed"
        try:
            if self._flight is not None:
                self._flight.cancel()
                # It fails with what write() has raised already, or with what is of no interest any more.
                await _outlast(asyncio.gather(self._flight, return_exceptions=True))
        finally:
            await _in_thread(self._output.discard)

    async def write(self, chunks: Iterable[bytes]) -> None:
        """Take the next bytes; a thread writes them later, so a failure may show some calls later."""
        self._must_be_open()
        for chunk in chunks:
            if chunk:
                self._batch.append(chunk)
                self._batch_size += len(chunk)
                self.size += len(chunk)
            if self._batch_size >= WRITE_SIZE:
                await self._launch()

    async def commit(self) -> None:
        """Write the rest, wait until the disk has all of it, and put it in its place.

        A cancellation before that last step leaves the target as it was.
        """
        self._must_be_open()
        await self._launch()
        await self._land()
        self._state = "broken"
        await _in_thread(self._output.prepare)
        await _in_thread(self._output.commit)
        self._state = "committed"

    def _must_be_open(self) -> None:
        if self._state != "open":
            raise RuntimeError(f"the sink of an archive is {self._state}")

    async def _launch(self) -> None:
        await self._land()
        if self._batch:
            batch, self._batch, self._batch_size = self._batch, [], 0
            # Not awaited here: the next bytes are received while a thread writes these.
            self._flight = asyncio.create_task(self._write(batch))

    async def _land(self) -> None:
        if self._flight is not None:
            await asyncio.wait({self._flight})  # which, cancelled, leaves the flight to __aexit__
            if self._flight.exception() is not None:
                self._state = "broken"
            flight, self._flight = self._flight, None
            flight.result()

    async def _write(self, batch: list[bytes]) -> None:
        written = await _in_thread(self._write_and_hash, batch)
        while not written:
            written = await _in_thread(self._output.write, [])

    def _write_and_hash(self, batch: list[bytes]) -> bool:
        if self._hash is not None:
            for chunk in batch:
                self._hash.update(chunk)
        return self._output.write(batch)


async def _in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `call` in a thread, and come back only when it has ended, cancelled or not."""
    bound = functools.partial(contextvars.copy_context().run, call, *args, **kwargs)
    return await _outlast(asyncio.get_running_loop().run_in_executor(None, bound))


async def _outlast(future: asyncio.Future[_T]) -> _T:
    """Wait for `future` without cancelling it, however often the waiting task is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # retrieved, so that asyncio does not report it as lost
        raise cancelled
    return future.result()


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
                piece = _as_bytes(item)
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
        if inspect.isgenerator(self._iterator):
            self._iterator.close()


class InputObject:
    """A user's file, which is left open."""

    def __init__(self, file: object, read: Callable[[int], object]) -> None:
        self.path = _name_of(file)
        self._file = file
        self._read = read

    def open(self) -> int | None:
        with _failing("read", self.path):
            return _size_of(self._file)

    def read(self, size: int) -> bytes:
        with _failing("read", self.path):
            data = self._read(size)
            if data is None:
                raise BlockingIOError(errno.EAGAIN, "it does not block, and has nothing to read now")
        return _as_bytes(data)


class InputFile:
    """A path to read from: `read()` returns b"" at the end, and None for nothing yet."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = -1
        self._regular = False

    def open(self) -> int | None:
        with _failing("read", self.path):
            # O_NONBLOCK: a FIFO without a writer would block the thread. Regular files ignore it.
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            status = os.fstat(self._descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise _os_error(errno.EISDIR)
            self._regular = stat.S_ISREG(status.st_mode)
            return status.st_size if self._regular else None

    def read(self, size: int) -> bytes | None:
        with _failing("read", self.path):
            # A FIFO that nobody has opened for writing yet reads as ended, but does not poll as ready.
            if not self._regular and not _ready(self._descriptor, select.POLLIN):
                return None
            try:
                return os.read(self._descriptor, size)
            except BlockingIOError:  # another reader of the FIFO was faster
                return None

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
        with _failing("write", self._path):
            for chunk in chunks:
                rest = chunk
                while rest:
                    written = self._file.write(rest)
                    if written is None and not isinstance(self._file, io.RawIOBase):
                        break  # many a user's own `write` returns nothing
                    if not written:
                        raise BlockingIOError(errno.EAGAIN, "it does not block, and takes nothing now")
                    rest = rest[written:] if isinstance(written, int) else b""
        return True

    def prepare(self) -> None:
        flush = getattr(self._file, "flush", None)
        if callable(flush):
            with _failing("write", self._path):
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
        self._mode: int | None = None
        self._part: str | None = None  # None: written in place
        self._descriptor = -1
        self._rest: list[memoryview] = []

    def open(self) -> bool:
        flags = os.O_WRONLY | os.O_NOCTTY
        with _failing("write", self._path):
            mode = _mode_of(self._path)
            if stat.S_ISDIR(mode) or self._path.endswith("/"):
                raise _os_error(errno.EISDIR)
            if mode and (not stat.S_ISREG(mode) or self._path.startswith(_DESCRIPTOR_PATHS)):
                try:
                    self._descriptor = os.open(self._path, flags | os.O_NONBLOCK)
                except OSError as error:
                    if error.errno == errno.ENXIO and stat.S_ISFIFO(mode):
                        time.sleep(_POLL_SECONDS)
                        return False
                    raise
                return True
            self._mode = stat.S_IMODE(mode) & 0o777 if mode else None
            self._target = os.path.realpath(self._path)
            directory, name = os.path.split(self._target)
            short = os.fsdecode(os.fsencode(name)[:_MAX_PART_NAME])
            part = f"{directory}/.{short}.{secrets.token_hex(8)}.part"
            # An archive can hold secrets: nobody else reads it before its owner says so.
            self._descriptor = os.open(part, flags | os.O_CREAT | os.O_EXCL, 0o600)
            self._part = part
            return True

    def write(self, chunks: Iterable[bytes]) -> bool:
        self._rest += map(memoryview, chunks)
        with _failing("write", self._path):
            while self._rest:
                if self._part is None and not _ready(self._descriptor, select.POLLOUT):
                    return False
                try:
                    written = os.writev(self._descriptor, self._rest[:_MAX_BUFFERS])
                except BlockingIOError:
                    return False
                done = 0
                while done < len(self._rest) and written >= len(self._rest[done]):
                    written -= len(self._rest[done])
                    done += 1
                del self._rest[:done]
                if written:
                    self._rest[0] = self._rest[0][written:]
        return True

    def prepare(self) -> None:
        with _failing("write", self._path):
            if self._mode is not None:
                os.fchmod(self._descriptor, self._mode)
            _sync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def commit(self) -> None:
        if self._part is None:
            return
        with _failing("write", self._path):
            Path(self._part).replace(self._target)
            self._part = None
            with suppress(PermissionError):  # a directory that may be written need not be readable
                directory = os.open(Path(self._target).parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    _sync(directory)
                finally:
                    os.close(directory)

    def discard(self) -> None:
        with suppress(OSError):
            if self._descriptor >= 0:
                os.close(self._descriptor)
        with suppress(OSError):
            if self._part is not None:
                Path(self._part).unlink()


@contextmanager
def _failing(doing: str, path: str | None) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        what = repr(path) if path is not None else "the file of the archive"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what += " (free some space on its file system, or name a file on another one)"
        failure = ArchiveFileError.of(error, f"cannot {doing} {what}")
        failure.filename = path  # not the temporary one's
        raise failure from error


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _as_bytes(item: object) -> bytes:
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


def _ready(descriptor: int, event: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(_POLL_SECONDS * 1000))


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what FIFOs, devices and some directories say
            raise

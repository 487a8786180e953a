"""Sources and sinks of tars: paths, file objects, bytes and iterables, read and written off the event loop.

What can block runs in a thread, one call at a time per archive. A thread cannot be cancelled, so whoever is
cancelled waits for the call in progress to end before anything is closed or removed: no descriptor is closed
under a reader, no temporary file is left behind. FIFOs and terminals, which can block for ever, are polled in
short calls; a blocking `read`, `write` or `next` of the user's own has to return by itself.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import inspect
import io
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self, TypeGuard, cast

from aiodocker_images._aio.threads import in_own_thread, in_thread, outlast
from aiodocker_images.errors import ArchiveError, InvalidArgumentError

from .compression import MAGIC_SIZE, ArchiveCompression, compress, compressor, is_zstd
from .files import BinaryWriter, InputFile, InputItems, InputObject, OutputFile, OutputObject, failing
from .image_names import AnnouncedImages
from .readers import (
    PIECE_SIZE,
    REST_SECONDS,
    Read,
    beginning_with,
    expanding,
    file_reader,
    item_reader,
    memory_reader,
    pieces_of,
)

__all__ = ["ArchiveSource", "ArchiveTarget"]

WRITE_SIZE = 2 * 1024 * 1024
"""Bytes gathered before a thread writes them."""

SEND_SIZE = 16 * 1024 * 1024
"""Bytes that the kernel is asked to send at once; what the connection takes is less."""


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
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"the path of an archive is none that a file can have: {path!a}") from error
    if b"\0" in encoded:
        raise InvalidArgumentError(f"the path of an archive holds a NUL: {path!r}")


def _check_file(file: object, ability: str, doing: str) -> None:
    # The text files of tempfile and codecs.open are no TextIOBase, but have an encoding as well.
    if isinstance(file, io.TextIOBase) or isinstance(getattr(file, "encoding", None), str):
        raise TypeError(f"the file of an archive must be opened for {doing} bytes, not text")
    if getattr(file, "closed", False) is True:
        raise InvalidArgumentError("the file of an archive is closed")
    able = getattr(file, ability, None)
    if callable(able) and not inspect.iscoroutinefunction(able) and able() is False:
        raise InvalidArgumentError(f"the file of an archive is not opened for {doing}")


def open_source(source: ArchiveSource, announced: AnnouncedImages | None = None) -> ArchiveUpload:
    """Check `source` at once, and open it on `async with`; `announced` sees what is read of it."""
    check_source(source)
    return ArchiveUpload(source, announced)


class ArchiveUpload:
    """A source of an archive: enter it, tell its `size`, send its `chunks()`.

    Entering raises `LocalFileError` for a path that cannot be opened. Leaving closes the file that was opened
    here, or the iterator of an iterable; never a file of the user's.

    `size` is the number of bytes to come, or None where only the end tells.
    """

    def __init__(self, source: ArchiveSource, announced: AnnouncedImages | None = None) -> None:
        self.size: int | None = None
        self._announced = announced
        self._source: ArchiveSource = source
        self._path: str | None = None
        self._file: InputFile | None = None
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
        self._source = b""  # held no longer: a view of it would forbid its owner to resize it
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
                await outlast(asyncio.create_task(self._idle()))
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

    @property
    def sendable(self) -> bool:
        """Whether `send()` may be used in the place of the next chunks."""
        return self._file is not None and self._file.sendable

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left of a source of a known size."""
        return self._left == 0

    async def send(self, connection: int) -> int | None:
        """Let the kernel send the next bytes to a unix socket that does not block.

        Returns how many, 0 at the end, or None if none were sent: the socket takes none now, or the file is not
        `sendable` after all. Raises `ConnectionError` if the other end takes no more.
        """
        file = self._file
        if file is None or self._left is None:
            raise RuntimeError("only a file of a known size is sent")
        async with self._reading():
            if not self._left:
                return 0
            sent = await in_thread(file.send, connection, min(SEND_SIZE, self._left))
            if sent is not None:
                self._left -= sent
                self._must_go_on(sent)
            return sent

    async def expand_zstd(self) -> None:
        """Send an archive that is compressed by zstd expanded, for an Engine that cannot read zstd.

        Looks at the first bytes, and so waits until there are some. Raises `ArchiveError` if zstd cannot be had here.
        """
        async with self._reading():
            if self._file is not None and self._file.sendable:
                start = await in_thread(self._file.peek, MAGIC_SIZE)
            else:
                start = await self._start(MAGIC_SIZE)
                self._read = beginning_with(start, self._read)
            if is_zstd(start):
                self._read = expanding(self._read)
                self.size = self._left = self._file = None

    async def _start(self, size: int) -> bytes:
        """Take the first bytes: fewer than `size` only of an archive that has no more."""
        start = b""
        while len(start) < size and (piece := await self._read(size - len(start))) != b"":
            start += piece or b""
        return start

    async def _idle(self) -> None:
        async with self._lock:
            pass

    async def _next(self) -> bytes:
        async with self._reading():
            return await self._next_piece()

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[None, None]:
        async with self._lock:
            if self._closed or not self._usable:
                # An end here would make half a body look whole to the daemon.
                raise ArchiveError("the archive was closed before it was read to its end")
            self._usable = False  # and stays so if this fails: a generator that has failed looks ended
            self._reader = asyncio.current_task()
            try:
                yield
            finally:
                self._reader = None
            self._usable = True

    async def _next_piece(self) -> bytes:
        wanted = PIECE_SIZE if self._left is None else min(PIECE_SIZE, self._left)
        piece: bytes | None = None if wanted else b""
        while piece is None:
            piece = await self._read(wanted)
        if self._left is not None:
            piece = piece[: self._left]  # a file that grows is cut where the announced size ends
            self._left -= len(piece)
            self._must_go_on(len(piece))
        if self._announced is not None:
            self._announced.feed(piece)
        return piece

    def _must_go_on(self, size: int) -> None:
        """Raise if nothing comes where the announced size promised more."""
        if self._left and not size:
            with failing("read", self._path):
                raise OSError(errno.EIO, f"it shrank while it was read, and ended {self._left} bytes early")

    async def _open(self, source: ArchiveSource) -> Read:
        """Return what reads a piece of at most a size: b"" at the end, None for nothing yet."""
        if isinstance(source, bytes | bytearray | memoryview):
            view = memoryview(cast("bytes", source)).cast("B")
            self._opened.callback(view.release)
            self.size = len(view)
            return memory_reader(view)
        if _is_path(source):
            self._path = os.fspath(source)
            self._file = file = InputFile(self._path)
            self._opened.push_async_callback(in_thread, file.close)
            self.size = await in_thread(file.open)
            if self._announced is not None and file.sendable:
                # What the kernel sends does not pass by here.
                announced, self._announced = self._announced, None
                await in_thread(file.scan, announced)
            return file_reader(file)
        read: Callable[[int], Any] | None = getattr(source, "read", None)
        if read is not None and not inspect.iscoroutinefunction(read):
            opened = InputObject(source, read)
            self._path = opened.path
            self.size = await in_thread(opened.open)
            return lambda wanted: in_own_thread(opened.read, wanted)
        if read is not None or isinstance(source, AsyncIterable):
            # asyncio's and aiohttp's streams are async iterables too, but of lines, and fail at long ones.
            iterable = pieces_of(read) if read is not None else cast("AsyncIterable[object]", source)
            iterator = aiter(iterable)
            if inspect.isasyncgen(iterator):
                self._opened.push_async_callback(iterator.aclose)
            return item_reader(iterator)
        gathered = InputItems(cast("Iterable[object]", source))
        self._opened.push_async_callback(in_thread, gathered.close)
        await in_thread(gathered.open)
        return lambda _: in_own_thread(gathered.read)


def open_sink(
    to: ArchiveTarget, *, checksum: bool = False, compression: ArchiveCompression | None = None
) -> ArchiveSink:
    """Check `to` at once, and open it on `async with`; `checksum` computes a sha256 of what is written."""
    check_target(to)
    return ArchiveSink(to, checksum=checksum, compression=compression)


class ArchiveSink:
    """A target of an archive: enter it, `write()` all, `commit()`; leaving without `commit()` discards.

    A path is written as a temporary neighbour, which takes its place at `commit()` when the disk has all of it;
    what exists and is no regular file (a FIFO, /dev/stdout) is written in place. A file object keeps what was
    written to it, and is not closed.

    Entering raises `LocalFileError` where the path cannot be written, and so do `write()` and `commit()`.
    `size` is the number of bytes taken, and `written` that of the bytes that they became, compressed or not.
    """

    def __init__(self, to: ArchiveTarget, *, checksum: bool, compression: ArchiveCompression | None = None) -> None:
        self.size = 0
        self.written = 0
        self._compressor = None if compression is None else compressor(compression)
        self._output = OutputFile(os.fspath(to)) if isinstance(to, str | os.PathLike) else OutputObject(to)
        # A file object of the user's may block for ever, in a pipe for one.
        self._call = in_thread if isinstance(self._output, OutputFile) else in_own_thread
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
            await self._repeat(self._output.open)
        except BaseException:
            await in_thread(self._output.discard)
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
                await outlast(asyncio.gather(self._flight, return_exceptions=True))
        finally:
            await in_thread(self._output.discard)

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
        if self._compressor is not None:
            await self._write_out([await in_thread(self._compressor.flush)])
        await self._call(self._output.prepare)
        await in_thread(self._output.commit)
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
        if self._compressor is not None:
            batch = await in_thread(compress, self._compressor, batch)
        await self._write_out([chunk for chunk in batch if chunk])

    async def _write_out(self, batch: list[bytes]) -> None:
        self.written += sum(map(len, batch))
        hashed = None if self._hash is None else asyncio.create_task(in_thread(self._add_to_hash, batch))
        try:
            if not await self._call(self._output.write, batch):
                await self._repeat(functools.partial(self._output.write, []))
        finally:
            if hashed is not None:
                await outlast(hashed)

    async def _repeat(self, call: Callable[[], bool]) -> None:
        """Run `call` in a thread until it returns that it is done."""
        done = False
        while not done:
            done = await self._call(call)
            if not done:
                await asyncio.sleep(REST_SECONDS)

    def _add_to_hash(self, batch: list[bytes]) -> None:
        if self._hash is not None:
            for chunk in batch:
                self._hash.update(chunk)

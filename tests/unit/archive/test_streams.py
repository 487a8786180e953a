"""Archives come from and go to files, objects and iterables, off the event loop, and nothing is left behind."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import gzip
import hashlib
import io
import itertools
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._archive.readers import PIECE_SIZE
from aiodocker_images._archive.streams import (
    WRITE_SIZE,
    ArchiveSource,
    ArchiveUpload,
    check_source,
    check_target,
    open_sink,
    open_source,
)
from aiodocker_images.errors import ArchiveError, LocalFileError

DATA = secrets.token_bytes(2 * PIECE_SIZE + 12_345)
OLD = b"what was there before"
PATIENCE = 10  # seconds within which what must end, ends


class WordsOnlyPath:
    """A path in bytes, as some old libraries give."""

    def __fspath__(self) -> bytes:
        return b"/x"


class Recorder:
    """A file of the user's own: notes the threads it was used in."""

    def __init__(self, data: bytes = b"") -> None:
        self.file = io.BytesIO(data)
        self.threads: set[int] = set()

    def read(self, size: int) -> bytes:
        self.threads.add(threading.get_ident())
        return self.file.read(size)

    def write(self, data: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.file.write(data)


class ShortReads(io.RawIOBase):
    """A raw file that gives and takes at most 1000 bytes a time, or what it is told."""

    def __init__(self, data: bytes = b"", answer: int | None = 1000) -> None:
        self.data = io.BytesIO(data)
        self.answer = answer

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes | None:
        return None if self.answer is None else self.data.read(min(size or 0, self.answer))

    def write(self, data: Any, /) -> int | None:  # noqa: ANN401 -- typeshed's own words
        return None if self.answer is None else self.data.write(data[: self.answer])


class AsyncWriter:
    async def write(self, data: bytes) -> int:
        return len(data)


@contextlib.contextmanager
def nothing_left(directory: Path, *new: str) -> Generator[None, None, None]:
    """Fail unless `directory` ends with the same files, and `new`, and the process with the same descriptors."""

    def now() -> tuple[set[str], int]:
        return {path.name for path in directory.iterdir()}, len(list(Path("/proc/self/fd").iterdir()))

    names, descriptors = now()
    yield
    assert now() == (names | set(new), descriptors)


@contextlib.contextmanager
def unprivileged() -> Generator[None, None, None]:
    """Let permissions count, for root too."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def shared(request: pytest.FixtureRequest) -> Generator[Path, None, None]:
    """A directory that everybody can reach, with the mode that the test asks for."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(request.param)
        yield path


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path, None, None]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    assert mount
    assert umount
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run([umount, disk], check=True)


async def read_all(upload: ArchiveUpload) -> bytes:
    data = b""
    async for piece in upload.chunks():
        assert 0 < len(piece) <= PIECE_SIZE
        data += piece
    return data


async def read(source: ArchiveSource) -> bytes:
    async with open_source(source) as upload:
        return await read_all(upload)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel `task`, and wait until it has ended by that."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


def generated() -> Iterator[bytes]:
    yield b""
    for start in range(0, len(DATA), 100_000):
        yield DATA[start : start + 100_000]
        yield b""


async def generated_later() -> AsyncIterator[bytes]:
    for piece in generated():
        await asyncio.sleep(0)
        yield piece


def on_disk(path: Path, data: bytes = DATA) -> Path:
    path.write_bytes(data)
    return path


# What is accepted.


TEXT_FILES: dict[str, Callable[[Path], Any]] = {
    "io.StringIO": lambda _: io.StringIO("x"),
    "a file": lambda path: path.open("r+", encoding="utf-8"),
    "a temporary file": lambda _: tempfile.NamedTemporaryFile("w+", encoding="utf-8"),
}


@pytest.mark.parametrize("make", TEXT_FILES.values(), ids=TEXT_FILES.keys())
@pytest.mark.parametrize("check", [check_source, check_target, open_source, open_sink])
def test_a_text_file_is_refused_at_the_call(
    tmp_path: Path, check: Callable[[Any], object], make: Callable[[Path], Any]
) -> None:
    with make(on_disk(tmp_path / "text", b"x")) as file, pytest.raises(TypeError, match="bytes, not text"):
        check(file)


NO_SOURCES: list[object] = [None, 5, 1.5, {"a": b"b"}, object(), True, WordsOnlyPath(), memoryview(b"abcd")[::2]]
NO_TARGETS: list[object] = [None, 5, b"/tmp/x.tar", bytearray(b"x"), object(), [], WordsOnlyPath(), AsyncWriter(), {}]


@pytest.mark.parametrize("source", NO_SOURCES, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("check", [check_source, open_source])
def test_what_is_no_source_is_refused_at_the_call(source: Any, check: Callable[[Any], object]) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(TypeError, match="archive"):
        check(source)


@pytest.mark.parametrize("to", NO_TARGETS, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("check", [check_target, open_sink])
def test_what_is_no_target_is_refused_at_the_call(to: Any, check: Callable[[Any], object]) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(TypeError, match="archive"):
        check(to)


def test_a_closed_or_one_way_file_is_refused_at_the_call(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "x")
    closed = io.BytesIO()
    closed.close()
    for check in (check_source, check_target):
        with pytest.raises(ValueError, match="closed"):
            check(closed)
        with pytest.raises(ValueError, match="NUL"):
            check("a\0b")
    with path.open("rb") as file, pytest.raises(ValueError, match="not opened for writing"):
        check_target(file)
    with path.open("ab") as file, pytest.raises(ValueError, match="not opened for reading"):
        check_source(file)


def test_a_path_is_not_touched_by_the_check(tmp_path: Path) -> None:
    with nothing_left(tmp_path):
        check_source(tmp_path / "missing")
        check_target(tmp_path / "missing" / "x.tar")
        open_source(str(tmp_path / "missing"))
        open_sink(str(tmp_path / "new"))


# Sources.

SOURCES: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "a path as text": (str, True),
    "a path": (Path, True),
    "bytes": (lambda _: DATA, True),
    "a bytearray": (lambda _: bytearray(DATA), True),
    "a memoryview": (lambda _: memoryview(DATA), True),
    "io.BytesIO": (lambda _: io.BytesIO(DATA), True),
    "a buffered file": (lambda path: path.open("rb"), True),
    "a file for reading and writing": (lambda path: path.open("r+b"), True),
    "a raw file": (lambda path: path.open("rb", buffering=0), True),
    "a gzip file": (lambda _: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(DATA, 1))), False),
    "a file of the user's own": (lambda _: Recorder(DATA), False),
    "a raw file with short reads": (lambda _: ShortReads(DATA), False),
    "a list": (lambda _: [DATA[:5], b"", DATA[5:]], False),
    "a generator": (lambda _: generated(), False),
    "an async generator": (lambda _: generated_later(), False),
    "pieces that are bytearrays and memoryviews": (lambda _: [bytearray(DATA[:9]), memoryview(DATA)[9:]], False),
}


@pytest.mark.parametrize(("make", "sized"), SOURCES.values(), ids=SOURCES.keys())
async def test_every_source_gives_its_bytes(tmp_path: Path, make: Callable[[Path], Any], sized: bool) -> None:
    source = make(on_disk(tmp_path / "x.tar"))
    with nothing_left(tmp_path):
        async with open_source(source) as upload:
            assert upload.size == (len(DATA) if sized else None)
            assert await read_all(upload) == DATA
    assert not getattr(source, "closed", False)
    if isinstance(source, io.IOBase):
        source.close()


@pytest.mark.parametrize(
    "make",
    [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, lambda: tempfile.SpooledTemporaryFile(max_size=1 << 30)],
    ids=["TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"],
)
async def test_a_temporary_file_is_read_from_where_it_stands(make: Callable[[], Any]) -> None:
    with make() as file:
        file.write(DATA)
        file.seek(12_000)
        async with open_source(file) as upload:
            assert upload.size == len(DATA) - 12_000
            assert await read_all(upload) == DATA[12_000:]


async def test_a_view_of_other_items_than_bytes_is_read_as_bytes() -> None:
    numbers = array.array("I", range(1000))
    async with open_source(memoryview(numbers)) as upload:
        assert upload.size == numbers.itemsize * 1000
        assert await read_all(upload) == numbers.tobytes()
    numbers.append(1)  # which a view that is still held would forbid


async def test_a_socket_is_read_to_its_end() -> None:
    near, far = socket.socketpair()

    def send() -> None:
        far.sendall(DATA)
        far.close()

    with near, far, near.makefile("rb") as file:
        sender = threading.Thread(target=send)
        sender.start()
        async with open_source(file) as upload:
            assert upload.size is None
            assert await read_all(upload) == DATA
        sender.join()


async def test_a_stream_reader_is_read_in_pieces_not_in_lines() -> None:
    stream = asyncio.StreamReader(limit=1000)
    stream.feed_data(b"\x01" * 5_000_000)  # a line over its limit
    stream.feed_eof()
    assert await read(stream) == b"\x01" * 5_000_000


EMPTY: dict[str, ArchiveSource] = {"bytes": b"", "list": [], "pieces of nothing": [b"", b""], "device": "/dev/null"}


@pytest.mark.parametrize("source", EMPTY.values(), ids=EMPTY.keys())
async def test_an_empty_source_gives_no_piece(source: ArchiveSource) -> None:
    assert await read(source) == b""


async def test_a_source_is_never_read_on_the_loops_thread() -> None:
    file = Recorder(DATA)
    threads: set[int] = set()

    def items() -> Iterator[bytes]:
        try:
            threads.add(threading.get_ident())
            yield b"x"
        finally:
            threads.add(threading.get_ident())

    await read(file)
    await read(items())
    assert threading.get_ident() not in file.threads | threads
    assert file.threads
    assert threads


async def test_small_items_are_gathered_but_not_held_back_by_a_slow_producer() -> None:
    go_on = threading.Event()

    def items() -> Iterator[bytes]:
        yield from [b"x"] * 3
        threading.Event().wait(0.1)
        yield b"y"
        assert go_on.wait(PATIENCE)
        yield b"z"

    async with open_source(items()) as upload:
        chunks = upload.chunks()
        assert await anext(chunks) == b"xxxy"
        go_on.set()
        assert await anext(chunks) == b"z"


NO_FILES: dict[str, tuple[Callable[[Path], Path | str], int]] = {
    "missing": (lambda path: path / "missing", errno.ENOENT),
    "nothing": (lambda _: "", errno.ENOENT),
    "a directory": (lambda path: path, errno.EISDIR),
    "below a file": (lambda path: on_disk(path / "file") / "x", errno.ENOTDIR),
}


@pytest.mark.parametrize(("make", "number"), NO_FILES.values(), ids=NO_FILES.keys())
async def test_a_wrong_path_raises_on_entering(tmp_path: Path, make: Callable[[Path], Path | str], number: int) -> None:
    source = make(tmp_path)
    with nothing_left(tmp_path):
        with pytest.raises(LocalFileError) as caught:
            await open_source(source).__aenter__()
        assert (caught.value.errno, caught.value.filename) == (number, str(source))
        assert str(caught.value) == f"cannot read {str(source)!r}: {os.strerror(number)}"


@pytest.mark.parametrize("shared", [0o755], indirect=True, ids=oct)
async def test_a_file_without_permission_raises_on_entering(shared: Path) -> None:
    on_disk(shared / "x").chmod(0)
    with unprivileged(), pytest.raises(LocalFileError) as caught:
        await open_source(shared / "x").__aenter__()
    assert caught.value.errno == errno.EACCES
    assert isinstance(caught.value.__cause__, PermissionError)


async def test_a_file_that_shrinks_while_it_is_read_raises(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "x")
    with nothing_left(tmp_path):
        async with open_source(path) as upload:
            chunks = upload.chunks()
            await anext(chunks)
            os.truncate(path, PIECE_SIZE + 10)
            assert len(await anext(chunks)) == 10
            with pytest.raises(LocalFileError, match="it shrank while it was read") as caught:
                await anext(chunks)
            assert caught.value.filename == str(path)


@pytest.mark.parametrize("opened", [False, True], ids=["path", "file"])
async def test_a_file_that_grows_while_it_is_read_ends_at_its_size(tmp_path: Path, opened: bool) -> None:
    path = on_disk(tmp_path / "x")
    with path.open("rb") as file:
        async with open_source(file if opened else path) as upload:
            chunks = upload.chunks()
            data = await anext(chunks)
            with path.open("ab") as more:
                more.write(DATA)
            async for piece in chunks:
                data += piece
    assert data == DATA


class GreedyFile(io.BytesIO):
    """Gives more than it was asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size) + b"more"


async def test_a_file_that_gives_more_than_was_asked_for_ends_at_its_size() -> None:
    assert await read(GreedyFile(b"data")) == b"data"


class FailingFile(io.BytesIO):
    def __init__(self, error: Exception) -> None:
        super().__init__(DATA)
        self.error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise self.error
        return super().read(size)


async def test_a_read_that_fails_midway_raises_the_archives_error() -> None:
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    async with open_source(FailingFile(error)) as upload:
        with pytest.raises(LocalFileError, match="cannot read the file of the archive: Input/output") as caught:
            await read_all(upload)
    assert caught.value.errno == errno.EIO
    assert caught.value.__cause__ is error


async def test_a_damaged_gzip_file_raises_the_archives_error(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "x.gz", b"no gzip at all")
    with gzip.open(path) as file, pytest.raises(LocalFileError, match="Not a gzipped file"):
        await read(file)


async def test_a_file_that_does_not_block_raises() -> None:
    with pytest.raises(LocalFileError, match="nothing to read now") as caught:
        await read(ShortReads(DATA, answer=None))
    assert caught.value.errno == errno.EAGAIN


class UserError(Exception):
    pass


def failing_items() -> Iterator[bytes]:
    yield b"first"
    raise UserError


async def failing_items_later() -> AsyncIterator[bytes]:
    yield b"first"
    raise UserError


class FailingReader:
    def __init__(self) -> None:
        self.pieces = [b"first"]

    def read(self, _: int) -> bytes:
        if not self.pieces:
            raise UserError
        return self.pieces.pop()


@pytest.mark.parametrize("make", [failing_items, failing_items_later, FailingReader])
async def test_an_exception_of_the_callers_source_is_raised_unchanged(make: Callable[[], Any]) -> None:
    async with open_source(make()) as upload:
        chunks = upload.chunks()
        assert await anext(chunks) == b"first"
        with pytest.raises(UserError):
            await anext(chunks)


async def async_items(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class TextReader:
    def read(self, _: int) -> str:
        return "text"


WRONG_ITEMS: dict[str, tuple[Callable[[], Any], str]] = {
    "a list of text": (lambda: ["text"], "str"),
    "a list of numbers": (lambda: [1, 2], "int"),
    "a range": (lambda: range(3), "int"),
    "an async iterable of None": (lambda: async_items([None]), "NoneType"),
    "a reader of text": (TextReader, "str"),
}


@pytest.mark.parametrize(("make", "kind"), WRONG_ITEMS.values(), ids=WRONG_ITEMS.keys())
async def test_pieces_that_are_not_bytes_raise_with_their_type(make: Callable[[], Any], kind: str) -> None:
    with pytest.raises(TypeError, match=f"must be bytes, not {kind}"):
        await read(make())


class Watched:
    """Endless iterables that tell whether they were closed."""

    def __init__(self) -> None:
        self.closed = 0

    def items(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            self.closed += 1

    async def items_later(self) -> AsyncIterator[bytes]:
        try:
            while True:
                await asyncio.sleep(0)
                yield b"x" * 100_000
        finally:
            await asyncio.sleep(0)
            self.closed += 1


async def leave_quietly(upload: ArchiveUpload) -> None:
    await anext(upload.chunks())


async def leave_by_exception(upload: ArchiveUpload) -> Never:
    await anext(upload.chunks())
    raise UserError


async def leave_by_cancellation(upload: ArchiveUpload) -> None:
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().call_later(0.05, task.cancel)
    async for _ in upload.chunks():
        await asyncio.sleep(0)


async def leave_by_aclose(upload: ArchiveUpload) -> None:
    chunks = upload.chunks()
    await anext(chunks)
    await chunks.aclose()


WAYS_OUT = [leave_quietly, leave_by_exception, leave_by_cancellation, leave_by_aclose]


@pytest.mark.parametrize("leave", WAYS_OUT)
@pytest.mark.parametrize("kind", ["path", "file", "generator", "async generator"])
async def test_every_way_out_closes_what_was_opened_here_and_nothing_else(
    tmp_path: Path, leave: Callable[[ArchiveUpload], Awaitable[None]], kind: str
) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 1 << 34)  # takes no room, and no reader comes to its end in time
    watched = Watched()

    async def use(source: ArchiveSource) -> None:
        async with open_source(source) as upload:
            await leave(upload)

    with path.open("rb") as file:
        sources: dict[str, ArchiveSource] = {
            "path": path,
            "file": file,
            "generator": watched.items(),
            "async generator": watched.items_later(),
        }
        with nothing_left(tmp_path), contextlib.suppress(UserError, asyncio.CancelledError):
            await asyncio.create_task(use(sources[kind]))
        assert not file.closed
    assert watched.closed == kind.endswith("generator")


async def test_a_closed_source_fails_instead_of_looking_ended(tmp_path: Path) -> None:
    async with open_source(on_disk(tmp_path / "x")) as upload:
        chunks = upload.chunks()
        await anext(chunks)
    with pytest.raises(ArchiveError, match="closed before it was read to its end"):
        await anext(chunks)


async def test_a_source_whose_read_failed_does_not_look_ended_to_the_next_reader() -> None:
    async with open_source(failing_items_later()) as upload:
        with pytest.raises(UserError):
            await read_all(upload)
        with pytest.raises(ArchiveError):
            await read_all(upload)


async def test_leaving_ends_a_reader_that_waits_for_the_users_iterable() -> None:
    closed = asyncio.Event()

    async def stuck() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with asyncio.timeout(PATIENCE):
        async with open_source(stuck()) as upload:
            reader = asyncio.create_task(read_all(upload))
            await asyncio.sleep(0.01)
        assert closed.is_set()
        with pytest.raises(asyncio.CancelledError):
            await reader


async def test_a_cancelled_reader_waits_for_the_read_in_progress() -> None:
    started, go_on = threading.Event(), threading.Event()
    events: list[str] = []

    def items() -> Iterator[bytes]:
        try:
            started.set()
            assert go_on.wait(PATIENCE)
            events.append("read")
            yield b"x"
        finally:
            events.append("closed")

    task = asyncio.create_task(read(items()))
    await asyncio.to_thread(started.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["read", "closed"]


async def test_leaving_waits_for_another_tasks_read_even_if_cancelled_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()
    real = os.read

    def slow(descriptor: int, size: int) -> bytes:
        started.set()
        assert go_on.wait(PATIENCE)
        return real(descriptor, size)  # EBADF, were it closed by now

    path = on_disk(tmp_path / "x")
    upload = open_source(path)
    with nothing_left(tmp_path):
        await upload.__aenter__()
        monkeypatch.setattr(os, "read", slow)
        reader = asyncio.create_task(read_all(upload))
        while not started.is_set():
            await asyncio.sleep(0.001)
        leaving = asyncio.create_task(upload.__aexit__(None, None, None))
        for _ in range(3):
            await asyncio.sleep(0.01)
            leaving.cancel()
        assert not leaving.done()
        assert not reader.done()
        go_on.set()
        for task in (reader, leaving):
            with pytest.raises(asyncio.CancelledError):
                await task
        monkeypatch.undo()


# FIFOs and descriptors.


async def test_a_fifo_is_read_though_its_writer_comes_late(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with nothing_left(tmp_path):
        task = asyncio.create_task(read(tmp_path / "fifo"))
        await asyncio.sleep(0.25)
        assert not task.done()
        await asyncio.to_thread((tmp_path / "fifo").write_bytes, DATA)
        assert await task == DATA


async def test_a_fifo_with_a_late_slow_reader_is_written_in_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    def slowly() -> bytes:
        data = b""
        with (tmp_path / "fifo").open("rb", buffering=0) as file:
            threading.Event().wait(0.3)
            while piece := file.read(1 << 20):
                data += piece
        return data

    async def save() -> None:
        async with open_sink(tmp_path / "fifo") as sink:
            await sink.write([DATA])
            await sink.commit()

    with nothing_left(tmp_path):
        task = asyncio.create_task(save())
        await asyncio.sleep(0.15)
        assert await asyncio.to_thread(slowly) == DATA
        await task
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


async def test_a_cancellation_ends_every_wait_for_a_fifo(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def save() -> None:
        async with open_sink(fifo) as sink:
            await sink.write([DATA])
            await sink.commit()

    with nothing_left(tmp_path):
        for wait in (read(fifo), save()):
            task = asyncio.create_task(wait)
            await asyncio.sleep(0.05)
            await cancelled(task)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # which never reads
        task = asyncio.create_task(save())
        await asyncio.sleep(0.05)
        await cancelled(task)
        os.close(reader)


async def test_many_waits_for_fifos_leave_threads_to_the_others(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    waits = [asyncio.create_task(read(tmp_path / "fifo")) for _ in range(40)]
    try:
        async with asyncio.timeout(PATIENCE):
            assert await read(on_disk(tmp_path / "x")) == DATA
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits, timeout=PATIENCE)
    assert all(wait.cancelled() for wait in waits)


async def test_a_device_is_written_in_place() -> None:
    async with open_sink("/dev/null", checksum=True) as sink:
        await sink.write([DATA])
        await sink.commit()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116 -- no path object needed
    assert sink.digest == f"sha256:{hashlib.sha256(DATA).hexdigest()}"


SAVE = """
import asyncio, sys
from aiodocker_images._archive.streams import open_sink, open_source

async def main():
    async with open_sink(sys.argv[1]) as sink:
        await sink.write([b"x" * 9_000_000])
        if sys.argv[2] == "hang":
            await asyncio.sleep(1)
            print("written", flush=True)
            await asyncio.sleep(60)
        await sink.commit()

asyncio.run(main())
"""
LOAD = """
import asyncio, sys
from aiodocker_images._archive.streams import open_source

async def main():
    async with open_source("/dev/stdin") as upload:
        print(upload.size, sum([len(piece) async for piece in upload.chunks()]))

asyncio.run(main())
"""


def python(
    code: str, *arguments: str | Path, stdin: int | None = None, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout)


def test_standard_output_is_written_in_place_even_where_it_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with nothing_left(tmp_path, "out"), path.open("wb") as out:
        with python(SAVE, "/dev/stdout", "commit", stdout=out.fileno()) as process:
            assert process.wait() == 0
        assert os.fstat(out.fileno()).st_size == 9_000_000
        assert os.fstat(out.fileno()).st_ino == path.stat().st_ino


def test_standard_input_is_read_to_its_end_from_a_pipe() -> None:
    with python(LOAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(DATA)
    assert out.split() == [b"None", str(len(DATA)).encode()]


def test_a_kill_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "x.tar", OLD)
    with python(SAVE, path, "hang", stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.read_bytes() == OLD
    [part] = [name for name in os.listdir(tmp_path) if name != "x.tar"]  # noqa: PTH208 -- names are wanted
    assert part.startswith(".x.tar.")
    assert part.endswith(".part")


# Sinks.


async def save(to: Any, *chunks: bytes) -> None:  # noqa: ANN401 -- any target
    async with open_sink(to) as sink:
        await sink.write(chunks)
        await sink.commit()


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("kind", [str, Path])
async def test_a_new_file_holds_all_and_is_readable_by_its_owner_alone(
    tmp_path: Path, kind: Callable[[Path], Any], checksum: bool
) -> None:
    path = tmp_path / "x.tar"
    with nothing_left(tmp_path, "x.tar"):
        async with open_sink(kind(path), checksum=checksum) as sink:
            for _ in range(5):
                await sink.write([DATA, b"", b"x"])
            assert sink.digest is None
            assert not path.exists()
            await sink.commit()
    whole = (DATA + b"x") * 5
    assert path.read_bytes() == whole
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sink.size == len(whole)
    assert sink.digest == (f"sha256:{hashlib.sha256(whole).hexdigest()}" if checksum else None)


@given(
    chunks=st.lists(st.binary(max_size=50), max_size=40),
    copies=st.integers(1, 100),
    limit=st.one_of(st.none(), st.integers(1, 30)),
)
def test_any_chunks_arrive_in_order_however_short_the_writes(
    chunks: list[bytes], copies: int, limit: int | None
) -> None:
    real = os.writev

    def short(descriptor: int, buffers: list[memoryview]) -> int:
        assert len(buffers) <= 1024
        return os.write(descriptor, buffers[0][:limit])

    def no_sync(_: int) -> None:
        pass

    async def scenario(path: Path) -> str | None:
        async with open_sink(path, checksum=True) as sink:
            await sink.write(chunks * copies)
            await sink.commit()
        return sink.digest

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "writev", short if limit else real)
        patch.setattr(os, "fsync", no_sync)  # hundreds take minutes on a disk that others write to, too
        path = Path(directory, "x")
        digest = asyncio.run(scenario(path))
        assert path.read_bytes() == b"".join(chunks) * copies
        assert digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


async def test_an_existing_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = on_disk(tmp_path / "x.tar", OLD)
    path.chmod(0o4644)
    with nothing_left(tmp_path):
        await save(path, DATA)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("old", [OLD, None], ids=["file", "nothing"])
async def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path, old: bytes | None) -> None:
    (tmp_path / "there").mkdir()
    real = tmp_path / "there" / "real.tar"
    if old:
        real.write_bytes(old)
    (tmp_path / "link").symlink_to("there/real.tar")
    with nothing_left(tmp_path):
        await save(tmp_path / "link", DATA)
    assert (tmp_path / "link").is_symlink()
    assert real.read_bytes() == DATA
    assert [path.name for path in real.parent.iterdir()] == ["real.tar"]


async def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path: Path) -> None:
    name = "é" * 127
    with nothing_left(tmp_path, name):
        await save(tmp_path / name, DATA)


async def test_a_relative_path_means_the_directory_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_sink("x.tar") as sink:
        monkeypatch.chdir("/")
        await sink.write([DATA])
        await sink.commit()
    assert (tmp_path / "x.tar").read_bytes() == DATA


NO_PLACES: dict[str, tuple[Callable[[Path], Path | str], int]] = {
    "a directory": (lambda path: path, errno.EISDIR),
    "a directory to be": (lambda path: f"{path}/new/", errno.EISDIR),
    "in a missing directory": (lambda path: path / "missing" / "x", errno.ENOENT),
    "nothing": (lambda _: "", errno.ENOENT),
    "below a file": (lambda path: path / "file" / "x", errno.ENOTDIR),
    "a link to itself": (lambda path: path / "loop", errno.ELOOP),
}


@pytest.mark.parametrize(("make", "number"), NO_PLACES.values(), ids=NO_PLACES.keys())
async def test_a_target_that_cannot_be_written_raises_on_entering(
    tmp_path: Path, make: Callable[[Path], Path | str], number: int
) -> None:
    on_disk(tmp_path / "file")
    (tmp_path / "loop").symlink_to("loop")
    to = make(tmp_path)
    with nothing_left(tmp_path):
        with pytest.raises(LocalFileError) as caught:
            await open_sink(to).__aenter__()
        assert (caught.value.errno, caught.value.filename) == (number, str(to))
        assert str(caught.value) == f"cannot write {str(to)!r}: {os.strerror(number)}"


@pytest.mark.parametrize("shared", [0o555], indirect=True, ids=oct)
async def test_a_parent_without_permission_raises_on_entering(shared: Path) -> None:
    with nothing_left(shared), unprivileged(), pytest.raises(LocalFileError) as caught:
        await open_sink(shared / "x").__aenter__()
    assert (caught.value.errno, caught.value.filename) == (errno.EACCES, str(shared / "x"))


@pytest.mark.parametrize("shared", [0o333], indirect=True, ids=oct)
async def test_a_directory_that_can_be_written_but_not_read_is_enough(shared: Path) -> None:
    with unprivileged():
        await save(shared / "x", DATA)
    assert (shared / "x").read_bytes() == DATA


async def without_commit(path: Path) -> None:
    async with open_sink(path) as sink:
        await sink.write([DATA] * 3)


async def with_an_exception(path: Path) -> None:
    async with open_sink(path) as sink:
        await sink.write([DATA] * 3)
        raise UserError


def fail_as_user(_: int) -> Never:
    raise UserError


async def with_an_exception_in_commit(path: Path) -> None:
    async with open_sink(path) as sink:
        await sink.write([DATA] * 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fail_as_user)
            await sink.commit()


async def with_a_cancellation(path: Path) -> None:
    async with open_sink(path) as sink:
        await sink.write([DATA] * 3)
        task = asyncio.current_task()
        assert task
        task.cancel()
        await sink.write([DATA] * 3)


async def with_a_closed_generator(path: Path) -> None:
    async def saving() -> AsyncGenerator[None, None]:
        async with open_sink(path) as sink:
            while True:
                await sink.write([DATA])
                yield

    generator = saving()
    for _ in range(3):
        await anext(generator)
    await generator.aclose()


@pytest.mark.parametrize(
    "leave",
    [without_commit, with_an_exception, with_an_exception_in_commit, with_a_cancellation, with_a_closed_generator],
)
@pytest.mark.parametrize("old", [OLD, None], ids=["file", "nothing"])
async def test_every_way_out_without_a_commit_leaves_everything_as_it_was(
    tmp_path: Path, leave: Callable[[Path], Awaitable[None]], old: bytes | None
) -> None:
    path = tmp_path / "x.tar"
    if old:
        path.write_bytes(old)
    with nothing_left(tmp_path), contextlib.suppress(UserError, asyncio.CancelledError):
        await asyncio.ensure_future(leave(path))
    assert (path.read_bytes() if path.exists() else None) == old


SLOW_CALLS = {"writev": OLD, "fsync": OLD, "replace": DATA}


@pytest.mark.parametrize(("name", "left"), SLOW_CALLS.items(), ids=SLOW_CALLS.keys())
async def test_a_cancelled_write_is_waited_for_and_its_temporary_file_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, left: bytes
) -> None:
    started, go_on = threading.Event(), threading.Event()
    real = getattr(os, name)

    def slow(*arguments: Any) -> Any:  # noqa: ANN401 -- any function of os
        started.set()
        assert go_on.wait(PATIENCE)
        return real(*arguments)

    path = on_disk(tmp_path / "x.tar", OLD)
    with nothing_left(tmp_path), monkeypatch.context() as patch:
        patch.setattr(os, name, slow)
        task = asyncio.create_task(save(path, DATA))
        while not started.is_set():
            await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        assert len(os.listdir(tmp_path)) == 2  # noqa: PTH208 -- names are enough
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert path.read_bytes() == left


async def test_a_file_is_synced_before_its_rename_and_its_name_before_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        calls.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix}")
        real_sync(descriptor)

    def replace(source: str, target: str) -> None:
        calls.append("replace")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    await save(tmp_path / "x.tar", DATA)
    assert calls == ["sync .part", "replace", "sync "]


@pytest.mark.parametrize("failure", [None, OSError(errno.EINVAL, "no such advice"), "absent"], ids=str)
async def test_the_disk_begins_to_write_before_the_end_where_it_can_be_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | str | None
) -> None:
    advised: list[tuple[int, int]] = []

    def advise(descriptor: int, offset: int, size: int, advice: int) -> None:
        assert (os.fstat(descriptor).st_size, advice) == (offset + size, os.POSIX_FADV_DONTNEED)
        advised.append((offset, size))
        if isinstance(failure, Exception):
            raise failure

    if failure == "absent":
        monkeypatch.delattr(os, "posix_fadvise")
    else:
        monkeypatch.setattr(os, "posix_fadvise", advise)
    pieces = [bytes([number]) * (1 << 20) for number in range(40)]
    await save(tmp_path / "x.tar", *pieces)
    assert (tmp_path / "x.tar").read_bytes() == b"".join(pieces)
    begins = [offset for offset, _ in advised]
    assert begins == [0, *itertools.accumulate(size for _, size in advised)][: len(begins)]
    assert all(size >= 8 << 20 for _, size in advised)
    assert (len(advised) >= 3) == (failure != "absent")


async def test_a_directory_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with nothing_left(tmp_path, "x.tar"):
        await save(tmp_path / "x.tar", DATA)


@pytest.mark.parametrize(
    ("name", "number"), [("writev", errno.EIO), ("fsync", errno.EIO), ("replace", errno.EROFS), ("fchmod", errno.EPERM)]
)
async def test_a_failing_write_names_the_path_and_removes_the_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    def fail(*_: object) -> Never:
        raise OSError(number, os.strerror(number))

    path = on_disk(tmp_path / "x.tar", OLD)
    with nothing_left(tmp_path), monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(LocalFileError) as caught:
            await save(path, DATA)
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("chunks", [1, 10, 1000], ids=["in one batch", "in some batches", "in many batches"])
async def test_a_full_disk_raises_and_leaves_everything_as_it_was(small_disk: Path, chunks: int) -> None:
    path = on_disk(small_disk / "x.tar", OLD)
    with nothing_left(small_disk), pytest.raises(LocalFileError, match="free some space") as caught:
        await save(path, *[DATA] * chunks)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == OLD
    assert shutil.disk_usage(small_disk).used < 100_000


async def test_a_full_device_raises() -> None:
    with pytest.raises(LocalFileError) as caught:
        await save("/dev/full", DATA)
    assert caught.value.errno == errno.ENOSPC


async def test_a_full_disk_under_a_file_object_raises_and_leaves_the_file_open(small_disk: Path) -> None:
    with (small_disk / "x").open("wb", buffering=0) as file:
        with pytest.raises(LocalFileError, match="free some space") as caught:
            await save(file, DATA)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(small_disk / "x"))
        assert not file.closed


TARGETS: dict[str, Callable[[Path], Any]] = {
    "io.BytesIO": lambda _: io.BytesIO(),
    "a buffered file": lambda path: path.open("w+b"),
    "a raw file": lambda path: path.open("w+b", buffering=0),
    "a raw file with short writes": lambda _: ShortReads(),
    "a temporary file": lambda _: tempfile.TemporaryFile(),
    "a spooled temporary file": lambda _: tempfile.SpooledTemporaryFile(1000),
    "a file of the user's own, whose write returns nothing": lambda _: Recorder(),
}


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS.keys())
async def test_every_file_object_gets_all_and_stays_open(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    file = make(tmp_path / "x")
    with contextlib.ExitStack() as stack:
        if isinstance(file, io.IOBase):
            stack.enter_context(contextlib.closing(file))
        async with open_sink(file, checksum=True) as sink:
            await sink.write([DATA[:5], DATA[5:]])
            await sink.commit()
        inner = getattr(file, "data", None) or (file.file if isinstance(file, Recorder) else file)
        inner.seek(0)
        assert inner.read() == DATA
        assert sink.digest == f"sha256:{hashlib.sha256(DATA).hexdigest()}"


async def test_a_file_object_is_never_used_on_the_loops_thread() -> None:
    file = Recorder()
    await save(file, DATA)
    assert file.threads
    assert threading.get_ident() not in file.threads


async def test_a_buffered_file_is_flushed_by_the_commit(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb", buffering=1 << 20) as file:
        await save(file, b"little")
        assert (tmp_path / "x").read_bytes() == b"little"


@pytest.mark.parametrize("answer", [None, 0])
async def test_a_raw_file_that_takes_nothing_raises(answer: int | None) -> None:
    with pytest.raises(LocalFileError, match="takes nothing now") as caught:
        await save(ShortReads(answer=answer), DATA)
    assert caught.value.errno == errno.EAGAIN


class FailingWriter:
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    def write(self, _: bytes) -> None:
        self.calls += 1
        raise self.error


async def test_only_os_errors_of_a_file_object_are_wrapped() -> None:
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(LocalFileError) as caught:
        await save(FailingWriter(error), DATA)
    assert caught.value.__cause__ is error
    with pytest.raises(UserError):
        await save(FailingWriter(UserError()), DATA)


async def test_nothing_is_written_after_a_failed_write_and_the_next_one_raises() -> None:
    file = FailingWriter(UserError())
    async with open_sink(file) as sink:
        with pytest.raises(UserError):
            await sink.write([bytes(WRITE_SIZE)] * 3)
        for again in (sink.write([b"x"]), sink.commit()):
            with pytest.raises(RuntimeError, match="broken"):
                await again
    assert file.calls == 1


async def test_a_failure_that_nobody_waited_for_is_not_reported_as_lost() -> None:
    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    async with open_sink(FailingWriter(UserError())) as sink:
        await sink.write([bytes(WRITE_SIZE)])
        await asyncio.sleep(0.05)
    del sink
    await asyncio.sleep(0)
    assert reports == []


async def test_a_sink_takes_nothing_after_its_commit(tmp_path: Path) -> None:
    async with open_sink(tmp_path / "x") as sink:
        await sink.commit()
        with pytest.raises(RuntimeError, match="committed"):
            await sink.write([DATA])
    assert (tmp_path / "x").read_bytes() == b""


async def test_memory_stays_bounded_on_the_way_through(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.touch()
    os.truncate(path, 64 << 20)
    tracemalloc.start()
    try:
        async with open_source(path) as upload, open_sink("/dev/null") as sink:
            async for piece in upload.chunks():
                await sink.write([piece])
            await sink.commit()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sink.size == 64 << 20
    assert peak < 2 * WRITE_SIZE + 4 * PIECE_SIZE

"""Files of archives at their edges: descriptors of the caller's, owners, objects that block, broken compression."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import gc
import gzip
import io
import lzma
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiodocker_images import LocalFileError
from aiodocker_images._archive.streams import open_sink, open_source
from tests.conftest import Leftovers

OLD = b"old" * 1000
DATA = b"new" * 100_000


async def save(to: Any, data: bytes = DATA) -> None:  # noqa: ANN401 - any target
    async with open_sink(to) as sink:
        await sink.write([data])
        await sink.commit()


async def read(source: Any) -> bytes:  # noqa: ANN401 - any source
    async with open_source(source) as upload:
        return b"".join([chunk async for chunk in upload.chunks()])


@pytest.fixture
def silent() -> Iterator[tuple[int, Callable[[], None]]]:
    """A pipe in which nothing comes: its readable end, and what ends it, so that whoever reads it returns."""
    readable, writable = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, readable)
        end = stack.enter_context(contextlib.ExitStack())
        end.callback(os.close, writable)
        yield readable, end.close


# Descriptors of the caller's.


@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}"])
async def test_an_archive_is_added_to_a_file_that_was_opened_for_appending(tmp_path: Path, form: str) -> None:
    """As `command >> file` does with its standard output."""
    path = tmp_path / "out"
    path.write_bytes(OLD)
    with path.open("ab") as file:
        await save(form.format(file.fileno()))
        file.write(b"more")
    assert path.read_bytes() == OLD + DATA + b"more"


async def test_an_archive_is_written_where_the_file_of_a_descriptor_is(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"head")
        await save(f"/dev/fd/{file.fileno()}")
    assert path.read_bytes() == b"head" + DATA


async def test_no_old_bytes_are_left_behind_an_archive(tmp_path: Path) -> None:
    """As with `command 1<>file`."""
    path = tmp_path / "out"
    path.write_bytes(bytes(2 * len(DATA)))
    with path.open("r+b") as file:
        await save(f"/dev/fd/{file.fileno()}")
    assert path.read_bytes() == DATA


async def test_a_descriptor_that_is_not_open_is_a_clear_error() -> None:
    with pytest.raises(LocalFileError, match="/dev/fd/99999"):
        await save("/dev/fd/99999")


# Files that are replaced.


async def test_a_replaced_file_keeps_its_owner_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(OLD)
    path.chmod(0o640)
    owner = (1234, 5678) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    await save(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid) == owner
    assert status.st_mode & 0o777 == 0o640
    assert path.read_bytes() == DATA


def test_closing_the_loop_during_a_save_leaves_no_temporary_file(tmp_path: Path) -> None:
    async def begin() -> None:
        sink = open_sink(tmp_path / "x.tar")
        await sink.__aenter__()
        await sink.write([DATA])
        raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(begin())
    finally:
        loop.close()
    # The thread that opened the file may still be about to let go of it.
    until = time.monotonic() + 30
    while list(tmp_path.iterdir()) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


# File objects.


async def test_an_asynchronous_write_is_refused_before_anything_looks_saved() -> None:
    class Writer:
        def write(self, data: bytes) -> object:
            return asyncio.sleep(0, len(data))

    with pytest.raises(TypeError, match="the write\\(\\) of Writer is asynchronous"):
        await save(Writer())


def cut_zip() -> Any:  # noqa: ANN401 - a reader
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.tar", DATA)
    broken = bytearray(file.getvalue())
    broken[len(broken) // 2] ^= 1
    return zipfile.ZipFile(io.BytesIO(broken)).open("x.tar")


CUT = {
    "gzip": lambda: gzip.open(io.BytesIO(gzip.compress(DATA)[:-20])),
    "gzip, changed": lambda: gzip.open(io.BytesIO(gzip.compress(DATA)[:200] + bytes(200))),
    "bz2": lambda: bz2.open(io.BytesIO(bz2.compress(DATA)[:-20])),
    "lzma": lambda: lzma.open(io.BytesIO(lzma.compress(DATA)[:-20])),
    "lzma, changed": lambda: lzma.open(io.BytesIO(lzma.compress(DATA)[:30] + bytes(200))),
    "zip": cut_zip,
}


@pytest.mark.parametrize("source", CUT.values(), ids=CUT)
async def test_broken_compressed_data_is_an_error_of_this_library(source: Any) -> None:  # noqa: ANN401 - makes a reader
    with pytest.raises(LocalFileError):
        await read(source())


async def until_no_thread_blocks() -> None:
    while any(thread.name == "blocking call of an archive" for thread in threading.enumerate()):
        await asyncio.sleep(0.01)


async def test_file_objects_that_block_leave_the_threads_of_the_loop_to_others(
    silent: tuple[int, Callable[[], None]], leftovers: Leftovers
) -> None:
    readable, end = silent
    before = leftovers.now()
    many = (os.cpu_count() or 1) + 40  # more than the loop's pool has threads
    with contextlib.ExitStack() as files:
        blocked = [
            asyncio.create_task(read(files.enter_context(os.fdopen(os.dup(readable), "rb", buffering=0))))
            for _ in range(many)
        ]
        while sum(thread.name == "blocking call of an archive" for thread in threading.enumerate()) < many:
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(lambda: "free") == "free"
        for task in blocked:
            task.cancel()
        ended = await asyncio.gather(*blocked, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        end()
        await until_no_thread_blocks()
    await leftovers.settle(before)


async def test_a_timeout_ends_the_reading_of_a_file_object_that_blocks(
    silent: tuple[int, Callable[[], None]],
) -> None:
    readable, end = silent
    with os.fdopen(os.dup(readable), "rb", buffering=0) as file:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await read(file)
        end()
        await until_no_thread_blocks()


async def test_a_timeout_ends_the_writing_to_a_file_object_that_blocks() -> None:
    readable, writable = os.pipe()
    with os.fdopen(readable, "rb") as out, os.fdopen(writable, "wb", buffering=0) as file:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await save(file, bytes(8 << 20))  # far more than a pipe holds
        drain = asyncio.create_task(asyncio.to_thread(out.read))
        await until_no_thread_blocks()
        file.close()
        await drain

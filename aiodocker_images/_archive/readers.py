"""How the sources of an archive are read, piece by piece: files, memory, iterables, and what zstd stands for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, TypeAlias

from aiodocker_images._aio.threads import in_thread

from .compression import ZstdExpander
from .files import InputFile, as_bytes

__all__ = [
    "PIECE_SIZE",
    "REST_SECONDS",
    "Read",
    "beginning_with",
    "expanding",
    "file_reader",
    "item_reader",
    "memory_reader",
    "pieces_of",
]

PIECE_SIZE: Final = 1024 * 1024
"""Bytes read from a file at once, and at most in one piece of an upload."""

REST_SECONDS: Final = 0.08
"""Seconds for which a thread that waits for a FIFO or a terminal in vain is left to others."""

Read: TypeAlias = Callable[[int], Awaitable[bytes | None]]
"""Reads a piece of at most a size: b"" at the end, None for nothing yet."""


def file_reader(file: InputFile) -> Read:
    async def read(wanted: int) -> bytes | None:
        piece = await in_thread(file.read, wanted)
        if piece is None:
            await asyncio.sleep(REST_SECONDS)
        return piece

    return read


def beginning_with(start: bytes, read: Read) -> Read:
    starts = iter((start,) if start else ())

    async def read_all(wanted: int) -> bytes | None:
        return next(starts, None) or await read(wanted)

    return read_all


def expanding(read: Read) -> Read:
    expander = ZstdExpander()
    expanded: Iterator[bytes] = iter(())

    async def read_expanded(_: int) -> bytes | None:
        nonlocal expanded
        while not (piece := await in_thread(next, expanded, b"")):
            compressed = await read(PIECE_SIZE)
            if not compressed:
                if compressed is not None:
                    expander.finish()
                return compressed
            expanded = expander.expand(compressed)
        return piece

    return read_expanded


def memory_reader(view: memoryview) -> Callable[[int], Awaitable[bytes]]:
    starts = iter(range(0, len(view), PIECE_SIZE))

    async def read(_: int) -> bytes:
        start = next(starts, len(view))
        return bytes(view[start : start + PIECE_SIZE])

    return read


async def pieces_of(read: Callable[[int], Awaitable[object]]) -> AsyncGenerator[object, None]:
    while piece := await read(PIECE_SIZE):
        yield piece


def item_reader(items: AsyncIterator[object]) -> Read:
    end = object()

    async def read(_: int) -> bytes | None:
        item = await anext(items, end)
        return b"" if item is end else as_bytes(item) or None

    return read

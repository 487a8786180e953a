"""Archives that are read many pieces at once: none is lost, however they come, are read and end."""

from __future__ import annotations

import asyncio
import os

import pytest

from aiodocker_images import ArchiveError, ImageService, StreamInterruptedError, StreamStalledError
from aiodocker_images._transport import ARCHIVE_BUFFER

from .scripted import Exchange, Handler, ScriptedDaemon
from .tars import tar_of

MIB = 1 << 20
PIECE = 32 << 10
PATH = "/images/alpine:3.20/get"


def saving(archive: bytes, *, lose: int = 0) -> Handler:
    async def save(exchange: Exchange) -> None:
        await exchange.head(headers={"Connection": "close"})
        for start in range(0, len(archive) - lose, PIECE):
            await exchange.chunk(archive[start : min(start + PIECE, len(archive) - lose)])
        if not lose:
            await exchange.end()
        exchange.keep_alive = False
        while exchange.writer.transport.get_write_buffer_size():
            await asyncio.sleep(0)  # then it hangs up at once

    return save


async def read(images: ImageService, pause: float) -> bytes:
    pieces: list[bytes] = []
    async for piece in images.save_stream("alpine:3.20"):
        pieces.append(piece)
        await asyncio.sleep(pause)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1000, 100_000, 2 * MIB, 5 * MIB, 9 * MIB + 77])
@pytest.mark.parametrize("pause", [0, 0.01])
async def test_an_archive_is_whole_whose_daemon_hangs_up(
    daemon: ScriptedDaemon, images: ImageService, size: int, pause: float
) -> None:
    archive = tar_of({"layer": os.urandom(size)})
    daemon.on("GET", PATH, saving(archive))
    for _ in range(3):
        assert await read(images, pause) == archive


@pytest.mark.parametrize("beyond", range(-64 << 10, 256 << 10, 16 << 10))
async def test_an_archive_is_whole_whose_end_comes_while_as_much_is_unread_as_may_be(
    daemon: ScriptedDaemon, images: ImageService, beyond: int
) -> None:
    """The end of the connection overtakes nothing, wherever aiohttp begins to have enough."""
    archive = tar_of({"layer": os.urandom(2 * ARCHIVE_BUFFER + beyond)})
    daemon.on("GET", PATH, saving(archive))
    assert await read(images, 0.1) == archive


async def test_what_comes_slowly_is_not_kept_back(daemon: ScriptedDaemon, images: ImageService) -> None:
    """Not even a byte: it waits some milliseconds for more."""
    archive = tar_of({"layer": b"x" * 1000})
    gate = asyncio.Event()

    async def save(exchange: Exchange) -> None:
        await exchange.head()
        for byte in (archive[:1], archive[1:2], archive[2:]):
            await exchange.chunk(byte)
            await gate.wait()
            gate.clear()
        await exchange.end()

    daemon.on("GET", PATH, save)
    async with asyncio.timeout(10):
        received: list[bytes] = []
        async for piece in images.save_stream("alpine:3.20"):
            received.append(piece)
            gate.set()
    assert [len(piece) for piece in received] == [1, 1, len(archive) - 2]


@pytest.mark.parametrize("lose", [1, 700, 100_000, 2 * MIB])
async def test_an_archive_that_is_cut_never_looks_whole(
    daemon: ScriptedDaemon, images: ImageService, lose: int
) -> None:
    archive = tar_of({"layer": os.urandom(5 * MIB)})
    daemon.on("GET", PATH, saving(archive, lose=lose))
    with pytest.raises((StreamInterruptedError, ArchiveError)):
        await read(images, 0.005)


async def test_a_reader_that_is_slow_is_no_daemon_that_stalls(daemon: ScriptedDaemon) -> None:
    archive = tar_of({"layer": os.urandom(6 * MIB)})
    daemon.on("GET", PATH, saving(archive))
    async with ImageService(daemon.socket, idle_timeout=0.3) as images:
        assert await read(images, 0.5) == archive


async def test_a_daemon_that_stalls_is_noticed(daemon: ScriptedDaemon) -> None:
    async def stall(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(bytes(100))
        await asyncio.sleep(30)

    daemon.on("GET", PATH, stall)
    async with ImageService(daemon.socket, idle_timeout=0.2) as images, asyncio.timeout(10):
        with pytest.raises(StreamStalledError):
            await read(images, 0)

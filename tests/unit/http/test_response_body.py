"""Bodies that are read past aiohttp's reader: nothing is lost, however they come, are framed, read and end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable

import aiohttp
import pytest

from aiodocker_images import ArchiveError, ImageService, ServerError, StreamInterruptedError, StreamStalledError
from aiodocker_images._http.call import ARCHIVE_BUFFER, FRAME_BUFFER
from aiodocker_images._http.response_body import StreamedResponse
from tests.conftest import STRICT_AIOHTTP, Leftovers
from tests.support.scripted import Exchange, Handler, ScriptedDaemon
from tests.support.tars import tar_of

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
async def test_an_archive_that_ends_with_a_full_read_buffer_is_whole(
    daemon: ScriptedDaemon, images: ImageService, beyond: int
) -> None:
    """The end of the connection overtakes nothing, wherever the reader begins to have enough."""
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


async def test_a_daemon_that_is_slow_is_none_that_stalls(daemon: ScriptedDaemon) -> None:
    """The time limit is between two pieces: aiohttp's own, which sees none of them, runs out here, and stops nobody."""

    async def trickle(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        for _ in range(8):
            await asyncio.sleep(0.1)
            await exchange.chunk(FRAMES)
        await exchange.end()

    daemon.on("POST", "/images/load", trickle)
    async with ImageService(daemon.socket, idle_timeout=0.4) as images:
        assert len([frame async for frame in images.load_stream(b"x")]) == 24


async def test_a_daemon_that_stalls_is_noticed(daemon: ScriptedDaemon) -> None:
    async def stall(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(bytes(100))
        await asyncio.sleep(30)

    daemon.on("GET", PATH, stall)
    async with ImageService(daemon.socket, idle_timeout=0.2) as images, asyncio.timeout(10):
        with pytest.raises(StreamStalledError):
            await read(images, 0)


FRAMES = b'{"stream":"Loaded image: alpine:3.20\\n"}\r\n' * 3
STATUS = b"HTTP/1.1 200 OK\r\n"


def chunks(data: bytes, size: int) -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


ANSWERS: dict[str, bytes] = {
    "chunks": STATUS + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(FRAMES, 7),
    "chunks, in capitals": STATUS + b"TRANSFER-ENCODING: Chunked\r\n\r\n" + chunks(FRAMES, 1000),
    "chunks with extensions and trailers": STATUS
    + b"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    + chunks(FRAMES, 50).replace(b"2a\r\n", b"2a ; a=b\r\n").replace(b"0\r\n\r\n", b"0\r\nX: y\r\nZ: 0\r\n\r\n"),
    "a length": STATUS + b"Content-Length: %d\r\n\r\n" % len(FRAMES) + FRAMES,
    "a length, and more behind it": STATUS + b"Content-Length: %d\r\n\r\n" % len(FRAMES) + FRAMES + b"garbage",
    "until the end": STATUS + b"\r\n" + FRAMES,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + FRAMES,
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    + STATUS
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunks(FRAMES, 9),
    "blank lines before": b"\r\n\r\n" + STATUS + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(FRAMES, 9),
}
if not STRICT_AIOHTTP:
    ANSWERS["line feeds alone in the head"] = b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n" + chunks(FRAMES, 9)


def answering(pieces: Iterable[bytes]) -> Handler:
    """Answer with these bytes, each sent when the client has had time to read those before, and hang up."""

    async def answer(exchange: Exchange) -> None:
        await exchange.body()
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0)
        exchange.keep_alive = False

    return answer


@pytest.mark.parametrize("size", [1, 2, 3, 17, 10_000])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_read_however_it_is_framed_and_comes(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers, answer: bytes, size: int
) -> None:
    await images.ping()
    before = leftovers.now()
    pieces = [answer[start : start + size] for start in range(0, len(answer), size)]
    daemon.on("POST", "/images/load", answering(pieces))
    frames = [frame.stream async for frame in images.load_stream(b"x")]
    assert frames == ["Loaded image: alpine:3.20\n"] * 3
    await leftovers.settle(before)


CUT: dict[str, bytes] = {
    "in a chunk": ANSWERS["chunks"][:-40],
    "between chunks": STATUS + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(FRAMES, 1000)[:-5],
    "before the blank line": ANSWERS["chunks"][:-2],
    "before a length": ANSWERS["a length"][: -len(FRAMES) // 3],
}


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
async def test_an_answer_that_is_cut_is_interrupted_after_what_came(
    daemon: ScriptedDaemon, images: ImageService, answer: bytes
) -> None:
    daemon.on("POST", "/images/load", answering([answer]))
    frames: set[str | None] = set()
    with pytest.raises(StreamInterruptedError, match="in mid-answer: did it stop or restart"):
        async for frame in images.load_stream(b"x"):
            frames.add(frame.stream)
    assert frames == {"Loaded image: alpine:3.20\n"}


BROKEN: dict[str, bytes] = {
    "no size": b"x\r\n",
    "a sign": b"+5\r\n",
    "an underscore": b"1_0\r\n",
    "a size of 2^68": b"10000000000000000\r\n",
    "no end of a chunk": b"1\r\n{}\r\n",
    "an extension without end": b"5;" + b"x" * 10_000,
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_a_body_that_is_framed_by_nobody_is_interrupted_at_once(
    daemon: ScriptedDaemon, images: ImageService, body: bytes
) -> None:
    """The daemon does not hang up here: who waited for more would wait for ever."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STATUS + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        await exchange.client_gone()

    daemon.on("POST", "/images/load", answer)
    async with asyncio.timeout(10):
        with pytest.raises(StreamInterruptedError, match="chunk"):
            await images.load(b"x")


async def test_a_reset_is_no_end_of_a_body_that_the_connection_ends(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    """To aiohttp's own reader it is one. What came before it is read."""
    read = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STATUS + b"\r\n" + FRAMES)
        await read.wait()
        exchange.writer.transport.abort()  # with what it was sent still unread: a reset, on a unix socket too

    daemon.on("POST", "/images/load", answer)

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(1 << 16)

    frames: list[str | None] = []
    with pytest.raises(StreamInterruptedError):
        async for frame in images.load_stream(endless()):
            frames.append(frame.stream)
            read.set()
    assert len(frames) == 3


async def test_a_framing_that_is_not_known_is_left_to_aiohttp(
    daemon: ScriptedDaemon, images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[object] = []
    start = StreamedResponse.start

    async def spy(response: StreamedResponse, connection: aiohttp.connector.Connection) -> StreamedResponse:
        await start(response, connection)
        readers.append(response.reader)
        return response

    monkeypatch.setattr(StreamedResponse, "start", spy)
    answer = STATUS + b"Transfer-Encoding: identity, chunked\r\n\r\n" + chunks(FRAMES, 9)
    for piece in (answer, ANSWERS["chunks"]):
        daemon.on("POST", "/images/load", answering([piece]))
        assert len([frame async for frame in images.load_stream(b"x")]) == 3
    assert readers[0] is None
    assert readers[1] is not None


@pytest.mark.parametrize("answer", ["chunks", "a length", "until the end"])
async def test_the_words_of_an_error_are_read(daemon: ScriptedDaemon, images: ImageService, answer: str) -> None:
    failed = ANSWERS[answer].replace(b"200 OK", b"500 X").replace(FRAMES, b'{"message":"no such luck"}')
    words = b'{"message":"no such luck"}'
    head = failed[: failed.index(b"\r\n\r\n") + 4].replace(b": %d" % len(FRAMES), b": %d" % len(words))
    daemon.on("POST", "/images/load", answering([head + (chunks(words, 5) if answer == "chunks" else words)]))
    with pytest.raises(ServerError, match="no such luck"):
        await images.load(b"x")


async def test_a_reader_that_stops_holds_the_daemon_back(daemon: ScriptedDaemon, images: ImageService) -> None:
    """What waits is bounded: by the buffer, by what asyncio reads at once, and by the sockets' own."""
    sent = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head()
        while True:
            await exchange.chunk(b'{"stream":"x"}\r\n' * 1000)
            sent += 16_000

    daemon.on("POST", "/images/load", answer)
    frames = images.load_stream(b"x")
    await anext(frames)
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.2)
    assert FRAME_BUFFER < sent < FRAME_BUFFER + 2 * MIB
    for _ in range(50_000):  # and it goes on
        await anext(frames)
    assert sent > before
    await frames.aclose()

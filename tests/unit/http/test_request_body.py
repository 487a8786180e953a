"""Files that the kernel sends: what arrives, and how it ends when file, daemon or caller does not hold out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import select
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from aiodocker_images import (
    ArchiveSource,
    ImageService,
    InvalidArchiveError,
    LocalFileError,
    NoSpaceError,
    ServerError,
    StreamInterruptedError,
    StreamStalledError,
)
from tests.conftest import Leftovers
from tests.support.scripted import MAX_HEAD, Exchange, ScriptedDaemon

SIZE = 40 << 20  # more than a socket takes, and than is sent at once
PIECE = 1 << 20

Handler = Callable[[Exchange], Awaitable[None]]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(os.urandom(PIECE) * (SIZE // PIECE - 1) + os.urandom(PIECE - 7))
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """More than the scripted daemon takes unasked."""
    path = tmp_path / "large.tar"
    path.touch()
    os.truncate(path, 4 * MAX_HEAD + SIZE)
    return path


class Loads:
    """Answers loads, and keeps the sha256 of what came."""

    def __init__(self) -> None:
        self.digests: list[str] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.digests.append(hashlib.sha256(await exchange.body()).hexdigest())
        await exchange.answer(b'{"stream":"Loaded image: a:1\\n"}\n')


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each successful sendfile."""
    sizes: list[int] = []
    sendfile = os.sendfile

    def counted(out: int, source: int, offset: int | None, count: int) -> int:
        sizes.append(sendfile(out, source, offset, count))  # None: where it stands
        return sizes[-1]

    monkeypatch.setattr(os, "sendfile", counted)
    return sizes


async def test_a_file_arrives_unchanged_and_is_mostly_sent_by_the_kernel(
    daemon: ScriptedDaemon, images: ImageService, archive: Path, sent: list[int]
) -> None:
    loads = Loads()
    daemon.on("POST", "/images/load", loads)
    await images.load(archive)
    assert loads.digests == [hashlib.sha256(archive.read_bytes()).hexdigest()]
    assert sum(sent) == archive.stat().st_size - PIECE


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
@pytest.mark.parametrize("calls", [0, 3])
async def test_a_file_that_cannot_be_sent_is_read(
    daemon: ScriptedDaemon,
    images: ImageService,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    calls: int,
) -> None:
    """Not every file system knows sendfile; nothing is lost or sent twice, be it found out late."""
    sendfile, left = os.sendfile, calls

    def refuse(out: int, source: int, offset: int | None, count: int) -> int:
        nonlocal left
        if left == 0:
            raise OSError(number, os.strerror(number))
        left -= 1
        return sendfile(out, source, offset, count)  # None: where it stands

    monkeypatch.setattr(os, "sendfile", refuse)
    loads = Loads()
    daemon.on("POST", "/images/load", loads)
    await images.load(archive)
    assert left == 0
    assert loads.digests == [hashlib.sha256(archive.read_bytes()).hexdigest()]


async def test_a_file_that_grows_is_cut_where_its_announced_size_ends(
    daemon: ScriptedDaemon, images: ImageService, archive: Path
) -> None:
    loads = Loads()
    before = archive.read_bytes()

    async def grow(exchange: Exchange) -> None:
        with archive.open("ab") as file:
            file.write(b"more")
        await loads(exchange)

    daemon.on("POST", "/images/load", grow)
    await images.load(archive)
    assert loads.digests == [hashlib.sha256(before).hexdigest()]


async def test_a_file_that_shrinks_ends_the_load(
    daemon: ScriptedDaemon, images: ImageService, archive: Path, leftovers: Leftovers
) -> None:
    async def shrink(exchange: Exchange) -> None:
        os.truncate(archive, 30 << 20)
        await exchange.body()

    daemon.on("POST", "/images/load", shrink)
    await images.ping()
    before = leftovers.now()
    with pytest.raises(LocalFileError, match="it shrank while it was read, and ended .* bytes early"):
        await images.load(archive)
    await leftovers.settle(before)


async def test_a_file_that_cannot_be_read_ends_the_load(
    daemon: ScriptedDaemon, images: ImageService, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "sendfile", fail)
    daemon.on("POST", "/images/load", Loads())
    with pytest.raises(LocalFileError, match="cannot read .*image.tar") as caught:
        await images.load(archive)
    assert caught.value.errno == errno.EIO


async def refuse_in_the_stream(exchange: Exchange) -> None:
    await exchange.reader.readexactly(512)
    await exchange.head()
    await exchange.frames({"errorDetail": {"message": "archive/tar: invalid tar header"}, "error": "x"})
    await exchange.end()
    await asyncio.sleep(0.1)
    exchange.cut()


async def refuse_by_status(exchange: Exchange) -> None:
    await exchange.answer_json({"message": "no space left on device"}, 500)
    exchange.writer.close()


async def refuse_and_linger(exchange: Exchange) -> None:
    await exchange.answer_json({"message": "no space left on device"}, 500)
    await asyncio.sleep(1)
    exchange.cut()


async def in_pieces(archive: Path) -> AsyncGenerator[bytes, None]:
    with archive.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


SOURCES: dict[str, Callable[[Path], ArchiveSource]] = {
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "async iterable": in_pieces,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize(
    ("refuse", "error"),
    [(refuse_in_the_stream, InvalidArchiveError), (refuse_by_status, NoSpaceError), (refuse_and_linger, NoSpaceError)],
    ids=["in the stream", "by status", "by status, and it lingers"],
)
async def test_an_early_answer_is_heard(
    daemon: ScriptedDaemon,
    images: ImageService,
    archive: Path,
    leftovers: Leftovers,
    refuse: Handler,
    error: type[Exception],
    source: Callable[[Path], ArchiveSource],
) -> None:
    daemon.on("POST", "/images/load", refuse)
    await images.ping()
    before = leftovers.now()
    for _ in range(5):
        async with asyncio.timeout(10):
            with pytest.raises(error):
                await images.load(source(archive))
    await leftovers.settle(before)


async def test_an_answer_is_heard_that_is_unread_when_a_send_fails(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon hangs up between the look at the connection and the send, and the loop has not turned since."""
    hung_up = threading.Event()

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)  # the head, and what may come with it
            connection.sendall(b"HTTP/1.1 500 X\r\nContent-Length: 27\r\n\r\n" + b'{"message":"no such luck"}\n')
        hung_up.set()

    async def source() -> AsyncGenerator[bytes, None]:
        yield b"begin"
        hung_up.wait(10)  # the loop stands still
        yield bytes(PIECE)
        yield bytes(PIECE)

    blind = Mock(poll=Mock(return_value=[]))
    monkeypatch.setattr(select, "poll", lambda: blind)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "d.sock"))
        listener.listen()
        thread = threading.Thread(target=refuse, args=[listener])
        thread.start()
        async with ImageService(f"unix://{short_path}/d.sock", api_version="1.45") as images:
            with pytest.raises(ServerError, match="no such luck"):
                await images.load(source())
        thread.join()


async def test_a_connection_that_is_cut_in_the_middle_ends_the_load(
    daemon: ScriptedDaemon, images: ImageService, archive: Path, leftovers: Leftovers
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.reader.readexactly(10 << 20)
        exchange.cut()

    daemon.on("POST", "/images/load", cut)
    await images.ping()
    before = leftovers.now()
    for _ in range(5):
        with pytest.raises(StreamInterruptedError):
            await images.load(archive)
    await leftovers.settle(before)


async def take_nothing(exchange: Exchange) -> None:
    await asyncio.sleep(0.2)
    await exchange.client_gone()


async def take_nothing_for_long(_: Exchange) -> None:
    await asyncio.sleep(30)


async def test_a_daemon_that_takes_nothing_stalls_it(daemon: ScriptedDaemon, large: Path) -> None:
    daemon.on("POST", "/images/load", take_nothing_for_long)
    async with ImageService(daemon.socket, idle_timeout=0.2) as images, asyncio.timeout(10):
        with pytest.raises(StreamStalledError, match="took nothing"):
            await images.load(large)


async def test_a_daemon_that_takes_little_by_little_does_not(daemon: ScriptedDaemon, large: Path) -> None:
    loads = Loads()

    async def slow(exchange: Exchange) -> None:
        body = hashlib.sha256()
        left = int(exchange.headers["content-length"])
        while left:
            data = await exchange.reader.readexactly(min(left, MAX_HEAD // 8))
            body.update(data)
            left -= len(data)
            await asyncio.sleep(0.13)  # the whole takes longer than may pass between two takings: MAX_HEAD, a second
        exchange.body_read = True
        loads.digests.append(body.hexdigest())
        await exchange.answer(b'{"stream":"Loaded image: a:1\\n"}\n')

    daemon.on("POST", "/images/load", slow)
    async with ImageService(daemon.socket, idle_timeout=4) as images:
        await images.load(large)
    assert loads.digests == [hashlib.sha256(large.read_bytes()).hexdigest()]


async def test_a_cancelled_load_leaves_nothing(
    daemon: ScriptedDaemon, images: ImageService, large: Path, leftovers: Leftovers
) -> None:
    daemon.on("POST", "/images/load", take_nothing)
    await images.ping()
    before = leftovers.now()
    for seconds in (0.0, 0.001, 0.005, 0.02, 0.1):
        load = asyncio.create_task(images.load(large))
        await asyncio.sleep(seconds)
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await load
    await leftovers.settle(before)


async def test_closing_the_service_ends_the_load(daemon: ScriptedDaemon, large: Path, leftovers: Leftovers) -> None:
    daemon.on("POST", "/images/load", take_nothing)
    before = leftovers.now()
    async with asyncio.timeout(60):
        images = ImageService(daemon.socket)
        load = asyncio.create_task(images.load(large))
        while not daemon.paths:
            await asyncio.sleep(0.01)
        await images.aclose()
        with pytest.raises(StreamInterruptedError, match="closed"):
            await load
    await leftovers.settle(before)

"""What callers do to streams besides reading them: two readers, a close from aside, a loop that ends, a slow reader."""

from __future__ import annotations

import asyncio
import gc
import resource
import tarfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

from aiodocker_images import ImageService
from tests.conftest import Leftovers
from tests.support.answer_sweep import HANG
from tests.support.scripted import Exchange, ScriptedDaemon

Stream = Callable[[ImageService], AsyncGenerator[Any, None]]

FRAME: Final = {"status": "Downloading", "id": "0123456789ab", "progressDetail": {"current": 1, "total": 2}}

STREAMS: Final[dict[str, Stream]] = {
    "pull": lambda images: images.pull_stream("alpine:1"),
    "push": lambda images: images.push_stream("alpine:1"),
    "load": lambda images: images.load_stream(b"tar"),
    "save": lambda images: images.save_stream("alpine:1"),
    "import": lambda images: images.import_stream(b"tar"),
    "build": lambda images: images.build_stream(b"tar"),
    "events": lambda images: images.events(since=1),
}

every_stream = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)


class Sender:
    """A daemon's handler that sends for ever, as fast as it is let; `sent` is how many bytes it got rid of."""

    def __init__(self) -> None:
        self.sent = 0
        self.more = asyncio.Event()
        self.more.set()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        archive = exchange.path.endswith("/get")
        piece = head_of_a_large_member() if archive else None
        number = 0
        while True:
            await self.more.wait()
            if piece is not None:
                await exchange.chunk(piece)
                self.sent += len(piece)
                piece = bytes(1 << 16)
            else:
                number += 1  # no event is a repetition
                await exchange.frames(*[{**FRAME, "Action": "pull", "timeNano": number}] * 100)
                self.sent += 10_000


def head_of_a_large_member() -> bytes:
    info = tarfile.TarInfo("data")
    info.size = 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.fixture
def sender(daemon: ScriptedDaemon) -> Sender:
    sender = Sender()
    for method, path in (
        ("POST", "/images/create"),
        ("POST", "/images/alpine/push"),
        ("POST", "/images/load"),
        ("POST", "/build"),
        ("GET", "/images/alpine:1/get"),
        ("GET", "/events"),
    ):
        daemon.on(method, path, sender)
    return sender


@every_stream
async def test_a_second_reader_of_a_stream_is_refused_and_the_first_reads_on(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers, sender: Sender, stream: Stream
) -> None:
    """So is who would close it while another reads. Python itself says so, and nothing of the stream is lost."""
    await images.ping()
    before = leftovers.now()
    frames = stream(images)
    await anext(frames)
    sender.more.clear()
    async with asyncio.timeout(HANG):
        reading = asyncio.ensure_future(anext(frames))
        while (await asyncio.wait({reading}, timeout=0.1))[0]:  # until one of them has to wait
            reading = asyncio.ensure_future(anext(frames))
        with pytest.raises(RuntimeError, match="already running"):
            await anext(frames)
        with pytest.raises(RuntimeError, match="already running"):
            await frames.aclose()
        sender.more.set()
        assert await reading
        assert await anext(frames)
        await frames.aclose()
        await daemon_is_left(daemon)
        await leftovers.settle(before)


async def daemon_is_left(daemon: ScriptedDaemon) -> None:
    """Wait until no connection is left but the one that is kept for control calls."""
    async with asyncio.timeout(HANG):
        while len(daemon.connections) > 1:
            await asyncio.sleep(0.002)


@every_stream
async def test_a_reader_that_stops_holds_the_daemon_back(
    daemon: ScriptedDaemon, images: ImageService, sender: Sender, stream: Stream
) -> None:
    """What waits is bounded, however long the reader takes: the daemon feels the socket fill, and memory does not."""
    frames = stream(images)
    known = 0
    async with asyncio.timeout(HANG):
        for _ in range(3):
            await anext(frames)
            known = -1
            while known != sender.sent:
                known = sender.sent
                await asyncio.sleep(0.1)
            assert known < 24 << 20  # of what it would have sent, gibibytes; events wait in 4 MiB, twice
        for _ in range(50_000):
            await anext(frames)
            if sender.sent > known:
                break
        assert sender.sent > known
        await frames.aclose()
        await daemon_is_left(daemon)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_loop_that_ends_in_mid_stream_leaves_nothing(short_path: Path) -> None:
    """`asyncio.run` ends with a stream and a service still open: whoever forgot them is not punished with a leak."""
    before = descriptors()
    kept: list[object] = []

    async def main(stream: Stream) -> None:
        async with ScriptedDaemon(short_path / "docker.sock") as daemon:
            for path in ("/images/create", "/images/load", "/images/alpine/push", "/build"):
                daemon.on("POST", path, Sender())
            for path in ("/images/alpine:1/get", "/events"):
                daemon.on("GET", path, Sender())
            async with ImageService(daemon.socket) as images:
                frames = stream(images)
                await anext(frames)
                kept.append(frames)
                raise ZeroDivisionError

    context = short_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    more: list[Stream] = [
        lambda images: images.build_stream(context),
        lambda images: images.load_stream(context / "Dockerfile"),
        lambda images: images.save_stream("alpine:1", chunk_size=1000),
    ]
    for stream in [*STREAMS.values(), *more]:
        with pytest.raises(ZeroDivisionError):
            asyncio.run(main(stream))
        (short_path / "docker.sock").unlink(missing_ok=True)  # from Python 3.13 on, asyncio removes it
        gc.collect()
        assert descriptors() == before


def test_many_streams_at_once_leave_control_calls_alone(short_path: Path) -> None:
    """A thousand pulls on one service, while it answers pings and inspections; with all of them left, nothing stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(_thousand_streams(short_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _thousand_streams(directory: Path) -> None:
    async def pull(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames(FRAME)
        await exchange.client_gone()

    async def inspect(exchange: Exchange) -> None:
        await exchange.answer_json({"Id": "sha256:" + "ab" * 32})

    async with ScriptedDaemon(directory / "docker.sock") as daemon, asyncio.timeout(HANG):
        daemon.on("POST", "/images/create", pull)
        daemon.on("GET", "/images/alpine:latest/json", inspect)
        async with ImageService(daemon.socket) as images:
            await images.ping()
            before = Leftovers.now()
            streams = [images.pull_stream("alpine") for _ in range(1000)]
            await asyncio.gather(*map(anext, streams))
            assert len(daemon.connections) == 1001
            for _ in range(20):
                assert (await images.ping()).api_version
                assert (await images.inspect("alpine")).id
            waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
            await asyncio.gather(*(images.inspect("alpine") for _ in range(20)))
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            # The connections of 20 inspections at once are kept, each with its task in the daemon.
            while len(daemon.connections) > 21:
                await asyncio.sleep(0.002)
            await Leftovers().settle((before[0] + 40, before[1] + 20, *before[2:]))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_leaving_an_upload_ends_it_even_if_the_daemon_reads_nothing(
    short_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """What is buffered of it is dropped with the connection: an orderly close would wait until it is sent, for ever."""
    taking = asyncio.Event()

    async def take_nothing(exchange: Exchange) -> None:
        taking.set()
        await asyncio.Event().wait()

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(1 << 20)

    async def main() -> None:
        async with ScriptedDaemon(short_path / "docker.sock") as daemon, ImageService(daemon.socket) as images:
            daemon.on("POST", "/images/load", take_nothing)
            await images.ping()
            before = descriptors()
            load = asyncio.create_task(images.load(endless()))
            await taking.wait()
            await asyncio.sleep(0.05)
            load.cancel()
            await asyncio.wait({load})
            async with asyncio.timeout(5):
                while descriptors() > before + 1:  # the daemon has its end still open
                    await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())

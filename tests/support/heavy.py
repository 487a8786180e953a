"""Heavy loads on one service: many calls, large archives, a slow reader. Each returns what it cost, in numbers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tarfile
import time
from pathlib import Path
from typing import Final, NamedTuple, Self

from aiodocker_images import ImageService

from .scripted import Exchange, ScriptedDaemon

PIECE: Final = bytes(1 << 20)
FRAME: Final = b'{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"0123456789ab"}\r\n'
DIGEST: Final = "sha256:" + "ab" * 32


class Cost(NamedTuple):
    """What grew in this process: resident memory in bytes, and open descriptors."""

    memory: int
    descriptors: int

    @classmethod
    def now(cls) -> Cost:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(pages * 4096, sum(1 for _ in Path("/proc/self/fd").iterdir()))

    def since(self, before: Cost) -> Cost:
        return Cost(self.memory - before.memory, self.descriptors - before.descriptors)


class Peak:
    """Measures, while it is entered, the most that resident memory grew."""

    def __init__(self) -> None:
        self.memory = 0

    async def __aenter__(self) -> Self:
        self._before = Cost.now().memory
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory = max(self.memory, pages * 4096 - self._before)
            await asyncio.sleep(0.02)


def header_of(size: int) -> bytes:
    """Return the header of a tar's member of so many bytes, be they gibibytes."""
    info = tarfile.TarInfo("layer.tar")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


async def calls(directory: Path, count: int) -> Cost:
    """Make `count` calls one after the other: pulls, loads and inspections; return what grew after the first tenth."""

    async def pull(exchange: Exchange) -> None:
        await exchange.answer(FRAME + b'{"status":"Status: Downloaded newer image"}\r\n')

    async def load(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(b'{"stream":"Loaded image: alpine:1\\n"}\r\n')

    async def inspect(exchange: Exchange) -> None:
        await exchange.answer_json({"Id": DIGEST})

    async with ScriptedDaemon(directory / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        daemon.on("POST", "/images/create", pull)
        daemon.on("POST", "/images/load", load)
        daemon.on("GET", "/images/alpine:1/json", inspect)
        before = Cost.now()
        for number in range(count):
            if number == count // 10:  # caches are warm then
                await _settled(daemon)
                before = Cost.now()
            match number % 3:
                case 0:
                    await images.pull("alpine:1")
                case 1:
                    await images.load(b"tar")
                case _:
                    await images.inspect("alpine:1")
            daemon.requests.clear()
        await _settled(daemon)
        return Cost.now().since(before)


async def archive(directory: Path, size: int) -> dict[str, int]:
    """Save and load a tar of `size` bytes, sparse where it is on a disk; return how much memory each took at most."""
    taken = 0

    async def get(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(header_of(size))
        for _ in range(size // len(PIECE)):
            await exchange.chunk(PIECE)
        await exchange.chunk(bytes(1024))
        await exchange.end()
        await exchange.client_gone()

    async def load(exchange: Exchange) -> None:
        nonlocal taken
        left = int(exchange.headers["content-length"])
        while left:
            data = await exchange.reader.read(min(left, 1 << 20))
            left -= len(data)
            taken += len(data)
        await exchange.answer(b'{"stream":"Loaded image: alpine:1\\n"}\r\n')

    path = directory / "large.tar"
    with path.open("wb") as file:
        file.write(header_of(size))
        file.truncate(512 + size + 1024)
    async with ScriptedDaemon(directory / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        daemon.on("GET", "/images/alpine:1/get", get)
        daemon.on("POST", "/images/load", load)
        await images.ping()
        async with Peak() as saving:
            saved = await images.save("alpine:1", to="/dev/null")
        assert saved.size == path.stat().st_size
        async with Peak() as loading:
            await images.load(path)
        assert taken == saved.size
    return {"save": saving.memory, "load": loading.memory}


async def slow_reader(directory: Path, seconds: float) -> dict[str, int]:
    """Read one frame in a tenth of a second of a daemon that sends for ever; return what it sent, and the memory."""
    sent = 0

    async def pull(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head()
        while True:
            await exchange.chunk(FRAME * 100)
            sent += len(FRAME) * 100

    async with ScriptedDaemon(directory / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        daemon.on("POST", "/images/create", pull)
        await images.ping()
        until = time.monotonic() + seconds
        async with Peak() as peak, contextlib.aclosing(images.pull_stream("alpine:1")) as frames:
            async for _ in frames:
                await asyncio.sleep(0.1)
                if time.monotonic() > until:
                    break
    return {"sent": sent, "memory": peak.memory}


async def _settled(daemon: ScriptedDaemon) -> None:
    while len(daemon.connections) > 1:
        await asyncio.sleep(0.002)

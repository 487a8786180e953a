"""The library itself as a contestant."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

from aiodocker_images import ImageService, ProgressFrame
from aiodocker_images._api.json_stream import FrameDecoder

from .job import Job, Meter, memory
from .turns import repeat

PIECE = 1 << 20


async def save_file(job: Job, meter: Meter) -> None:
    """Save to a path."""
    async with ImageService(job.socket) as images:
        with meter:
            await images.save(job.reference, to=job.path, checksum=job.what == "checksum")


async def save_object(job: Job, meter: Meter) -> None:
    """Save to an open file."""
    with Path(job.path).open("wb") as file:
        async with ImageService(job.socket) as images:
            with meter:
                await images.save(job.reference, to=file)


async def save_nowhere(job: Job, meter: Meter) -> None:
    """Read the archive and drop it."""
    async with ImageService(job.socket) as images:
        with meter:
            received = 0
            async for chunk in images.save_stream(job.reference):
                received += len(chunk)
    assert received >= job.size


async def load_file(job: Job, meter: Meter) -> None:
    """Load from a path."""
    async with ImageService(job.socket) as images:
        with meter:
            await images.load(job.path)


async def load_object(job: Job, meter: Meter) -> None:
    """Load from an open file."""
    with Path(job.path).open("rb") as file:
        async with ImageService(job.socket) as images:
            with meter:
                await images.load(file)


async def load_bytes(job: Job, meter: Meter) -> None:
    """Load from bytes; zeros that were never written to take no memory."""
    source = bytes(job.size)
    async with ImageService(job.socket) as images:
        with meter:
            await images.load(source)


async def load_iterable(job: Job, meter: Meter) -> None:
    """Load from an async iterable of pieces of 1 MiB."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        piece = bytes(PIECE)
        for _ in range(job.size // PIECE):
            yield piece

    async with ImageService(job.socket) as images:
        with meter:
            await images.load(pieces())


async def load_items(job: Job, meter: Meter) -> None:
    """Load from a plain iterable of pieces of 1 MiB."""

    def pieces() -> Iterator[bytes]:
        piece = bytes(PIECE)
        for _ in range(job.size // PIECE):
            yield piece

    async with ImageService(job.socket) as images:
        with meter:
            await images.load(pieces())


async def frames(job: Job, meter: Meter) -> None:
    """Read the frames of one pull."""
    async with ImageService(job.socket) as images:
        await images.ping()
        with meter:
            received = 0
            async for _ in images.pull_stream(job.reference):
                received += 1
    assert received >= job.times


def decode(job: Job, meter: Meter) -> None:
    """Decode frames in memory, as they would come from a socket."""
    data = Path(job.path).read_bytes()
    decoder = FrameDecoder(ProgressFrame)
    with meter:
        received = 0
        for start in range(0, len(data), 64 << 10):
            received += len(decoder.feed(data[start : start + (64 << 10)]))
        decoder.finish()
    assert received == job.times


async def pulls(job: Job, meter: Meter) -> None:
    """Read the frames of many pulls at once, and inspect an image over and over meanwhile."""
    async with ImageService(job.socket) as images:
        inspect = timed(lambda: images.inspect("localhost/application:1.0"))
        idle = [await inspect() for _ in range(200)]
        held, opened = asyncio.Event(), 0
        before = memory("VmRSS")

        async def pull() -> None:
            nonlocal opened
            first = True
            async for _ in images.pull_stream(job.reference):
                if first:
                    first = False
                    opened += 1
                    if opened == job.times:
                        meter.notes["stream_kib"] = (memory("VmRSS") - before) / job.times
                        held.set()

        with meter:
            streams = [asyncio.create_task(pull()) for _ in range(job.times)]
            await held.wait()
            busy = [await inspect()]
            while not all(stream.done() for stream in streams):
                busy.append(await inspect())
                await asyncio.sleep(0.01)
            await asyncio.gather(*streams)
    meter.notes |= {"idle": statistics.median(idle), "busy": statistics.median(busy), "worst": max(busy)}


async def pull_all(job: Job, meter: Meter) -> None:
    """Pull distinct images at once."""
    async with ImageService(job.socket) as images:
        await images.ping()
        with meter:
            await asyncio.gather(*(images.pull(reference) for reference in job.references))


async def inspect(job: Job, meter: Meter) -> None:
    """Inspect an image so many times."""
    async with ImageService(job.socket) as images:
        await repeat(lambda: images.inspect("localhost/application:1.0"), job, meter)


async def list_images(job: Job, meter: Meter) -> None:
    """List the images so many times."""
    async with ImageService(job.socket) as images:
        await repeat(images.list, job, meter)


async def ping(job: Job, meter: Meter) -> None:
    """Ping so many times."""
    async with ImageService(job.socket) as images:
        await repeat(images.ping, job, meter)


def timed(call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[float]]:
    """Return a call that returns its seconds."""

    async def run() -> float:
        started = time.perf_counter()
        await call()
        return time.perf_counter() - started

    return run

"""aiodocker as a contestant: what its documentation shows, or what does better."""

from __future__ import annotations

import asyncio
import importlib
import statistics
import time
from pathlib import Path
from typing import Any

from .job import Job, Meter, memory
from .turns import repeat

aiohttp: Any = importlib.import_module("aiohttp")
aiodocker: Any = importlib.import_module("aiodocker")
PIECE = 1 << 20


def connect(job: Job) -> Any:  # noqa: ANN401 - it comes without types
    """Return a client. Its own limit is 100 connections, behind which everything else would wait."""
    return aiodocker.Docker(url="http://localhost", connector=aiohttp.UnixConnector(job.socket, limit=0))


async def save_file(job: Job, meter: Meter) -> None:
    """Save to a path."""
    async with connect(job) as docker:
        with meter, Path(job.path).open("wb") as file:
            async with docker.images.export_image(job.reference) as content:
                async for chunk in content.iter_any():
                    file.write(chunk)


async def save_nowhere(job: Job, meter: Meter) -> None:
    """Read the archive and drop it, in the way that is the fastest."""
    async with connect(job) as docker:
        with meter:
            async with docker.images.export_image(job.reference) as content:
                async for _ in content.iter_any():
                    pass


async def load_file(job: Job, meter: Meter) -> None:
    """Load from a file."""
    async with connect(job) as docker:
        with meter, Path(job.path).open("rb") as file:
            await docker.images.import_image(file)


async def load_iterable(job: Job, meter: Meter) -> None:
    """Load from an async iterable of pieces of 1 MiB."""

    async def pieces() -> Any:  # noqa: ANN401 - an async generator
        piece = bytes(PIECE)
        for _ in range(job.size // PIECE):
            yield piece

    async with connect(job) as docker:
        with meter:
            await docker.images.import_image(pieces())


async def frames(job: Job, meter: Meter) -> None:
    """Read the frames of one pull."""
    repository, _, tag = job.reference.rpartition(":")
    async with connect(job) as docker:
        await docker.version()
        with meter:
            received = 0
            async for _ in docker.images.pull(repository, tag=tag, stream=True):
                received += 1
    assert received >= job.times


async def pulls(job: Job, meter: Meter) -> None:
    """Read the frames of many pulls at once, and inspect an image over and over meanwhile."""
    repository, _, tag = job.reference.rpartition(":")
    async with connect(job) as docker:

        async def inspect() -> float:
            started = time.perf_counter()
            await docker.images.inspect("localhost/application:1.0")
            return time.perf_counter() - started

        idle = [await inspect() for _ in range(200)]
        held, opened = asyncio.Event(), 0
        before = memory("VmRSS")

        async def pull() -> None:
            nonlocal opened
            first = True
            async for _ in docker.images.pull(repository, tag=tag, stream=True):
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
    async with connect(job) as docker:
        await docker.version()
        with meter:
            await asyncio.gather(*(docker.images.pull(reference) for reference in job.references))


async def inspect(job: Job, meter: Meter) -> None:
    """Inspect an image so many times."""
    async with connect(job) as docker:
        await repeat(lambda: docker.images.inspect("localhost/application:1.0"), job, meter)


async def list_images(job: Job, meter: Meter) -> None:
    """List the images so many times."""
    async with connect(job) as docker:
        await repeat(docker.images.list, job, meter)

"""aiohttp and msgspec with nothing around them: what the library's own code costs is the difference.

In the row of decoding it is the standard library's json and a dataclass, the way without msgspec.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from .job import Job, Meter
from .turns import repeat

API = "http://localhost/v1.45"


def connect(job: Job) -> aiohttp.ClientSession:
    """Return a session."""
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(job.socket, limit=0), timeout=aiohttp.ClientTimeout(total=None)
    )


async def inspect(job: Job, meter: Meter) -> None:
    """Inspect an image so many times, into the same struct as ours."""
    from aiodocker_images.models import ImageInspect  # noqa: PLC0415 - not for the others

    decoder = msgspec.json.Decoder(ImageInspect)
    async with connect(job) as session:

        async def call() -> object:
            async with session.get(f"{API}/images/localhost/application:1.0/json") as response:
                return decoder.decode(await response.read())

        await repeat(call, job, meter)


async def list_images(job: Job, meter: Meter) -> None:
    """List the images so many times, into the same structs as ours."""
    from aiodocker_images.models import ImageSummary  # noqa: PLC0415 - not for the others

    decoder = msgspec.json.Decoder(tuple[ImageSummary, ...], strict=False)
    async with connect(job) as session:

        async def call() -> object:
            async with session.get(f"{API}/images/json") as response:
                return decoder.decode(await response.read())

        await repeat(call, job, meter)


async def ping(job: Job, meter: Meter) -> None:
    """Ping so many times."""
    async with connect(job) as session:

        async def call() -> object:
            async with session.head("http://localhost/_ping") as response:
                return response.headers["Api-Version"]

        await repeat(call, job, meter)


async def save_nowhere(job: Job, meter: Meter) -> None:
    """Read the archive by aiohttp alone, with a large buffer, and drop it."""
    async with connect(job) as session:
        with meter:
            url = f"{API}/images/{job.reference}/get"
            async with session.get(url, read_bufsize=1 << 20) as response:
                async for _ in response.content.iter_any():
                    pass


async def frames(job: Job, meter: Meter) -> None:
    """Read the frames of one pull and drop them undecoded: what aiohttp's parser of HTTP chunks takes."""
    image, _, tag = job.reference.rpartition(":")
    async with connect(job) as session:
        with meter:
            parameters = {"fromImage": image, "tag": tag}
            async with session.post(f"{API}/images/create", params=parameters) as response:
                async for _ in response.content.iter_any():
                    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    status: str | None
    progress: str | None
    id: str | None
    current: int | None
    total: int | None


def decode(job: Job, meter: Meter) -> None:
    """Decode frames in memory by json, into a dataclass."""
    data = Path(job.path).read_bytes()
    received: Any = []
    with meter:
        for line in data.splitlines():
            found: dict[str, Any] = json.loads(line)
            detail: dict[str, Any] = found.get("progressDetail") or {}
            received.append(
                _Frame(
                    status=found.get("status"),
                    progress=found.get("progress"),
                    id=found.get("id"),
                    current=detail.get("current"),
                    total=detail.get("total"),
                )
            )
    assert len(received) == job.times

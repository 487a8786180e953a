"""The same call over and over, by so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .job import Job, Meter


async def repeat(call: Callable[[], Awaitable[object]], job: Job, meter: Meter) -> None:
    """Call `job.times` times in `job.concurrency` tasks; connections are open, and code is warm, before."""
    left = 0

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    async def run(count: int) -> None:
        nonlocal left
        left = count
        await asyncio.gather(*(some() for _ in range(job.concurrency)))

    await call()
    await run(job.concurrency * 2)
    with meter:
        await run(job.times)

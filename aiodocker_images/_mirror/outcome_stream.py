"""Outcomes as an async generator, of work that runs in a task of its own and ends with the generator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from aiodocker_images._aio.dependents import run_inside
from aiodocker_images._aio.threads import outlast
from aiodocker_images.errors import StreamInterruptedError
from aiodocker_images.service import ImageService

__all__ = ["outcome_stream"]

T = TypeVar("T")


async def outcome_stream(
    name: str,
    services: Iterable[ImageService],
    work: Callable[[Callable[[T], object]], Coroutine[Any, Any, None]],
) -> AsyncGenerator[T, None]:
    """Run `work`, which is given what it calls with each outcome, and yield these outcomes as they come.

    The work is ended, and waited for, when this generator is left in any way, and when one of the services is closed:
    after a `break` out of a loop, nobody closes the generator before the service. Raises what the work raises, and
    `StreamInterruptedError` if a service was closed.
    """
    queue: asyncio.Queue[T | None] = asyncio.Queue()
    runner = asyncio.create_task(run_inside(work, queue.put_nowait), name=name)
    # Not in the work itself: a task that is cancelled before its first step runs none of its code.
    runner.add_done_callback(lambda _: queue.put_nowait(None))
    for service in services:
        service.end_with(runner)
    try:
        while (outcome := await queue.get()) is not None:
            yield outcome
        if runner.cancelled():
            raise StreamInterruptedError(f"the service was closed in the middle of the {name} run")
        runner.result()
    finally:
        runner.cancel()
        # Ended by now, or on its way to give back what it borrowed; what it raised then, it raised above.
        await outlast(asyncio.gather(runner, return_exceptions=True))

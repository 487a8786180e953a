"""Coroutines at once, of which none outlives the others' failure. Unlike a TaskGroup, it raises what was raised."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from aiodocker_images._aio.threads import outlast

__all__ = ["together"]


async def together(coroutines: Iterable[Coroutine[Any, Any, None]], *, until: asyncio.Event | None = None) -> None:
    """Run coroutines at once; end them all when one raises, and raise that, or when `until` is set."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(coroutine) for coroutine in coroutines]
    watcher = asyncio.create_task((until or asyncio.Event()).wait())
    # A queue, as to wait for the first of all of them again and again would take quadratic time.
    ended: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    for task in (*tasks, watcher):
        task.add_done_callback(ended.put_nowait)
    try:
        for _ in tasks:
            if (task := await ended.get()) is watcher:
                break
            task.result()
    finally:
        for task in (*tasks, watcher):
            task.cancel()
        await outlast(asyncio.gather(*tasks, watcher, return_exceptions=True))

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
    waiting = set(tasks)
    watcher = asyncio.create_task((until or asyncio.Event()).wait())
    tasks.append(watcher)
    try:
        while waiting and not watcher.done():
            ended, _ = await asyncio.wait({*waiting, watcher}, return_when=asyncio.FIRST_COMPLETED)
            waiting -= ended
            for task in ended:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await outlast(asyncio.gather(*tasks, return_exceptions=True))

"""Tasks that a service ends, and waits for, before it closes: runs that tidy up after themselves with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from .threads import outlast

__all__ = ["Dependents", "run_inside"]

T = TypeVar("T")

_INSIDE: Final[ContextVar[asyncio.Task[Any] | None]] = ContextVar("_INSIDE", default=None)
"""The run that what is running is a part of, in a task of the run or in one that such a task made."""


async def run_inside(work: Callable[[T], Coroutine[Any, Any, None]], argument: T) -> None:
    """Run the work of a task that may be given to `Dependents`; what it calls counts as a part of it."""
    _INSIDE.set(asyncio.current_task())
    await work(argument)


class Dependents:
    """The tasks that depend on a service."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Task[None] | None = None

    def add(self, task: asyncio.Task[Any]) -> None:
        """Cancel this task, and wait for it, before the service closes."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end_and(self, close: Callable[[], Awaitable[None]]) -> None:
        """Cancel the tasks of this loop, wait until they have ended, and then `close`.

        A part of such a task, such as a callback that closes the service, would wait for itself: it does not wait, and
        whoever calls this next waits for it.
        """
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if _INSIDE.get() in tasks:
            self._closing = loop.create_task(_end(tasks, close), name="close the service when its runs have ended")
            return
        try:
            await _end(tasks, close)
        finally:
            if self._closing is not None and self._closing.get_loop() is loop:
                closing, self._closing = self._closing, None
                await outlast(closing)


async def _end(tasks: list[asyncio.Task[Any]], close: Callable[[], Awaitable[None]]) -> None:
    try:
        if tasks:
            await outlast(asyncio.ensure_future(asyncio.wait(tasks)))
    finally:
        await close()

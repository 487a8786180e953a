"""Many who want to know the same at the same time, and one who finds it out."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiodocker_images.errors import DockerError

from .threads import outlast

__all__ = ["SharedRuns"]

T = TypeVar("T")


class SharedRuns:
    """Calls that want the same at the same time share one task, which ends with the last who waits for it."""

    def __init__(self) -> None:
        self.runs: dict[tuple[object, ...], _Run] = {}

    async def share(self, key: tuple[object, ...], start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the run of `key` returns, which `start` begins if there is none."""
        loop = asyncio.get_running_loop()
        for stale in [each for each, run in self.runs.items() if run.loop.is_closed()]:
            self.runs.pop(stale, None)  # of a loop that was not run to the end of its tasks
        place = (loop, *key)  # a loop cannot wait for another's task
        run = self.runs.get(place)
        if run is None:
            run = self.runs[place] = _Run(loop, loop.create_task(start()))
            run.task.add_done_callback(lambda _: self._forget(place, run))
        run.waiters += 1
        try:
            await asyncio.wait({run.task})
        except asyncio.CancelledError:
            run.waiters -= 1
            if not run.waiters:
                self._forget(place, run)
                run.task.cancel()
                with contextlib.suppress(Exception, asyncio.CancelledError):
                    await outlast(run.task)
            raise
        try:
            result: T = run.task.result()
        except DockerError as error:
            # Each gets its own, to be located and raised without the others' tracebacks.
            failure = copy.copy(error)
            failure.__cause__ = error.__cause__
        else:
            return result
        raise failure

    def _forget(self, place: tuple[object, ...], run: _Run) -> None:
        if self.runs.get(place) is run:
            del self.runs[place]


class _Run:
    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        self.loop = loop
        self.task = task
        self.waiters = 0

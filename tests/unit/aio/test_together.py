"""Coroutines at once: all of them end, with the first failure, with the event that stops them, or by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, cast

import pytest

from aiodocker_images._aio.together import together
from tests.conftest import Leftovers


class Waiters:
    """Coroutines that wait until they are let go, and note how they ended."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended: list[str] = []

    async def wait(self) -> None:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")

    async def let_go(self) -> None:
        self.go.set()

    async def fail(self) -> None:
        raise ZeroDivisionError


async def test_all_run_at_once_and_to_their_end(leftovers: Leftovers) -> None:
    before, waiters = leftovers.now(), Waiters()
    await together([waiters.wait(), waiters.wait(), waiters.let_go()])
    assert waiters.ended == ["done", "done"]
    await together([])
    await leftovers.settle(before)


async def test_the_first_failure_ends_the_others_and_is_raised(leftovers: Leftovers) -> None:
    before, waiters = leftovers.now(), Waiters()
    with pytest.raises(ZeroDivisionError):
        await together([waiters.wait(), waiters.fail(), waiters.wait()])
    assert waiters.ended == ["cancelled", "cancelled"]
    await leftovers.settle(before)


async def test_the_event_ends_what_is_under_way(leftovers: Leftovers) -> None:
    before, waiters, stop = leftovers.now(), Waiters(), asyncio.Event()

    async def stopping() -> None:
        stop.set()

    await together([waiters.wait(), stopping(), waiters.wait()], until=stop)
    assert waiters.ended == ["cancelled", "cancelled"]
    await leftovers.settle(before)


class Watched(asyncio.Task[None]):
    """A task that counts who wants to know of its end."""

    watchers = 0

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        Watched.watchers += 1
        super().add_done_callback(fn, context=context)


def watched(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, None],
    *,
    name: str | None = None,
    context: Context | None = None,
) -> Watched:
    return Watched(work, loop=loop, name=name, context=context)


async def test_a_task_is_watched_no_more_often_the_more_others_there_are() -> None:
    """To wait for the first of all that are left, again after each of them, would be quadratic work."""
    loop = asyncio.get_running_loop()

    async def after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def watchers_of(tasks: int) -> int:
        Watched.watchers = 0
        await together([after(turns) for turns in range(tasks)])
        return Watched.watchers

    loop.set_task_factory(cast("Any", watched))
    try:
        assert await watchers_of(99) <= 2 * (
            99 + 1
        )  # by `together` and by its `gather`, which Python 3.13 does without
    finally:
        loop.set_task_factory(None)

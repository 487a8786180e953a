"""Who may transfer next: in their order, and at the same cost however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from aiodocker_images import Retry
from aiodocker_images._mirror.slots import AHEAD, Slots

TARGETS = frozenset({"b.example"})


class Limits(Mapping[str, int]):
    """Limits of registries that count how often one is looked up: once for each wish that is thought about."""

    def __init__(self) -> None:
        self.looks = 0

    def __getitem__(self, registry: str) -> int:
        self.looks += 1
        raise KeyError(registry)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


async def looks_while(waiting: int) -> int:
    """Let many pulls wait for room at a full target, make room for ten, and return how many wishes were looked at."""
    limits, begun = Limits(), list[int]()
    slots = Slots(1, limits, Retry())

    async def pull(number: int) -> None:
        async with slots.transfer("a.example", targets=TARGETS):
            begun.append(number)

    tasks = [asyncio.create_task(pull(number)) for number in range(waiting)]
    while len(begun) < AHEAD:
        await asyncio.sleep(0)
    limits.looks = 0
    for number in range(AHEAD, AHEAD + 10):
        slots.image_done(TARGETS)
        while len(begun) <= number:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    looks = limits.looks
    assert begun == list(range(AHEAD + 10))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return looks


async def test_pulls_begin_in_order_at_constant_cost_however_many_wait() -> None:
    assert await looks_while(200) == await looks_while(20)


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_a_pull_that_is_cancelled_while_it_waits_holds_up_none_behind_it(cancelled: int) -> None:
    slots, begun = Slots(1, None, Retry()), list[int]()

    async def pull(number: int) -> None:
        async with slots.transfer("a.example", targets=TARGETS):
            begun.append(number)

    async with slots.transfer("a.example", targets=TARGETS):
        tasks = [asyncio.create_task(pull(number)) for number in range(3)]
        await asyncio.sleep(0)
    # Nobody has run since the slot was let go: one has it already, or gets it when the first gives up.
    tasks[cancelled].cancel()
    slots.image_done(TARGETS)
    slots.image_done(TARGETS)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert begun == [number for number in range(3) if number != cancelled]

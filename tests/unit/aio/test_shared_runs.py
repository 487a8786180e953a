"""One run for many who want to know the same at the same time: its results, its failures, its end."""

from __future__ import annotations

import asyncio
from typing import Any

from aiodocker_images import ConfigError
from aiodocker_images._aio.shared_runs import SharedRuns
from tests.conftest import Leftovers


class Question:
    """Counts how often it is asked; is answered when `go` is set."""

    def __init__(self, answer: object = "answer") -> None:
        self.answer = answer
        self.asked = 0
        self.go = asyncio.Event()

    async def __call__(self) -> object:
        self.asked += 1
        await self.go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_concurrent_calls_share_a_run_and_a_later_call_gets_another() -> None:
    shared, one, other = SharedRuns(), Question("one"), Question("other")
    asking = [asyncio.create_task(shared.share((key,), question)) for key, question in [(1, one), (2, other), (1, one)]]
    await asyncio.sleep(0)
    one.go.set()
    other.go.set()
    assert await asyncio.gather(*asking) == ["one", "other", "one"]
    assert (one.asked, other.asked) == (1, 1)
    assert await shared.share((1,), one) == "one"
    assert one.asked == 2
    await asyncio.sleep(0)
    assert shared.runs == {}


async def test_each_gets_an_error_of_its_own() -> None:
    cause = OSError(5, "I/O error")
    failure = ConfigError("the file cannot be read")
    failure.__cause__ = cause
    shared, question = SharedRuns(), Question(failure)
    question.go.set()
    errors = await asyncio.gather(*(shared.share((1,), question) for _ in range(3)), return_exceptions=True)
    assert question.asked == 1
    assert {(type(error), str(error)) for error in errors} == {(ConfigError, "the file cannot be read")}
    assert len({id(error) for error in (*errors, failure)}) == 4
    assert all(isinstance(error, ConfigError) and error.__cause__ is cause for error in errors)


async def test_it_goes_on_while_anybody_waits(leftovers: Leftovers) -> None:
    before = leftovers.now()
    shared, question = SharedRuns(), Question()
    first, second = (asyncio.create_task(shared.share((1,), question)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    question.go.set()
    assert await second == "answer"
    assert (first.cancelled(), question.asked) == (True, 1)
    last = asyncio.create_task(shared.share((1,), Question()))
    await asyncio.sleep(0)
    last.cancel()
    await asyncio.wait([last])
    assert (last.cancelled(), shared.runs) == (True, {})
    await leftovers.settle(before)


def silence(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take no notice of tasks that are destroyed."""


def test_what_a_closed_loop_has_left_is_forgotten() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async def now() -> str:
        return "now"

    async def begin() -> None:
        asyncio.ensure_future(shared.share(("x",), forever))  # noqa: RUF006 - that nobody ends it is what is tried
        await asyncio.sleep(0)

    shared = SharedRuns()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(silence)
    loop.run_until_complete(begin())
    assert len(shared.runs) == 1
    loop.close()
    assert asyncio.run(shared.share(("x",), now)) == "now"
    assert shared.runs == {}

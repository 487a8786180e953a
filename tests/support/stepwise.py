"""Cancel a coroutine at one of its await points: each of them is a place where something could be left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Generator
from typing import Any, Final, Generic, Literal, TypeVar, cast, get_args

T = TypeVar("T")

Moment = Literal["asleep", "woken", "twice"]
MOMENTS: Final[tuple[Moment, ...]] = get_args(Moment)


class Stepwise(Generic[T]):
    """Awaits `coroutine`, and cancels the task that it runs in at the coroutine's suspension number `at`, from 1.

    asleep: as it begins to wait. woken: when what it waits for has come, and it has not been told yet; what it was
    given then is easily lost. twice: asleep, and again at the first suspension of the cleaning up.

    `suspensions` counts them all, `met` is whether there were as many as `at`.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], at: int, moment: Moment) -> None:
        self.suspensions = 0
        self._coroutine = coroutine
        self._at = at
        self._moment = moment

    @property
    def met(self) -> bool:
        return self.suspensions >= self._at

    def __await__(self) -> Generator[Any, Any, T]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            self.suspensions += 1
            self._cancel(waited_for)
            error = None
            try:
                yield waited_for
            except BaseException as thrown:  # noqa: BLE001 - it goes to the coroutine
                error = thrown

    def _cancel(self, waited_for: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.suspensions == self._at:
            if self._moment == "woken" and isinstance(waited_for, asyncio.Future):
                future = cast("asyncio.Future[object]", waited_for)
                # Before the task's own callback, so that the task is still to be woken then.
                future.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        elif self.suspensions == self._at + 1 and self._moment == "twice":
            task.cancel()


async def cancelled_at(coroutine: Coroutine[Any, Any, T], at: int, moment: Moment) -> tuple[bool, T | None]:
    """Run a coroutine, cancelled at that point; return whether it got so far, and its result if it had one."""
    stepwise = Stepwise(coroutine, at, moment)

    async def run() -> T:
        return await stepwise

    task = asyncio.create_task(run())
    result = None
    with contextlib.suppress(asyncio.CancelledError):
        result = await task
    return stepwise.met, result

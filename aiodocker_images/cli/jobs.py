"""Several images at once: each is a job, and a report shows its progress."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

from aiodocker_images import DockerError, ProgressFrame, ProgressTracker

from .terminal import clean

__all__ = ["Job", "Report", "Result", "Speed", "run_jobs"]

State: TypeAlias = Literal["waiting", "running", "done", "failed"]

WINDOW: Final = 8.0
"""Seconds that the speed is measured over."""


@dataclass(slots=True)
class Job:
    """One image, or archive, that is on its way: by its name, with all that a display needs."""

    name: str
    verb: str
    turn: str = ""
    """Those with the same one run one after the other."""
    tracker: ProgressTracker = field(default_factory=ProgressTracker)
    state: State = "waiting"
    summary: str = ""
    """How it ended, in a few words."""
    moved: int = 0
    """Bytes, where no frames tell: of an archive that is written."""
    expected: int = 0
    """About how many it will be."""
    phases: int = 1
    """How many operations it takes one after the other: a mirrored image is pulled, then pushed."""
    begun: float = 0.0
    ended: float = 0.0
    _phase: int = 0
    _before: int = 0

    @property
    def bytes_done(self) -> int:
        """Bytes moved so far."""
        return self.moved or self._before + self.tracker.downloaded

    @property
    def bytes_total(self) -> int:
        """Bytes to move, as far as they are known."""
        expected = 0 if self.state == "done" else self.expected
        return max(self.moved, expected) or self._before + self.tracker.total

    @property
    def fraction(self) -> float | None:
        """How much is done, 0 to 1; None if unknown."""
        if self.state == "done":
            return 1.0
        fraction = min(self.moved / self.expected, 1.0) if self.expected else self.tracker.fraction
        return fraction if self.phases == 1 else (self._phase + (fraction or 0.0)) / self.phases

    def next_phase(self, verb: str) -> None:
        """Begin the next operation: what was moved stays, layers begin anew."""
        self._before += self.tracker.downloaded
        self._phase = min(self._phase + 1, self.phases - 1)
        self.verb, self.tracker = verb, ProgressTracker()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a job came to: the lines that scripts read, with `-q` and without, a few words for the display, the data."""

    lines: tuple[str, ...] = ()
    quiet_lines: tuple[str, ...] = ()
    summary: str = ""
    data: Any = None


class Speed:
    """How fast something goes on: bytes each second, and when it will be done, of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, float]] = deque()

    def sample(self, now: float, moved: int, fraction: float) -> None:
        """Note how far it is."""
        if self._samples and moved < self._samples[-1][1]:
            self._samples.clear()  # a layer starts again
        self._samples.append((now, moved, fraction))
        while now - self._samples[0][0] > WINDOW:
            self._samples.popleft()

    @property
    def bytes_per_second(self) -> float | None:
        """The speed; None as long as it is unknown."""
        seconds, moved, _ = self._change()
        return moved / seconds if seconds > 0.2 and moved > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """How long it will take yet; None as long as that is unknown."""
        seconds, _, progress = self._change()
        return (1 - self._samples[-1][2]) * seconds / progress if seconds > 1 and progress > 0 else None

    def _change(self) -> tuple[float, int, float]:
        if not self._samples:
            return 0.0, 0, 0.0
        (then, moved, fraction), (now, more, further) = self._samples[0], self._samples[-1]
        return now - then, more - moved, further - fraction


class Report(Protocol):
    """Tells how jobs go on."""

    async def run(self, work: Awaitable[None]) -> None:
        """Wait for the work, and tell meanwhile."""
        ...

    def frame(self, job: Job, frame: ProgressFrame, /) -> None:
        """Tell what the Engine says of a job, after its tracker knows."""
        ...

    def ended(self, job: Job, result: Result | DockerError, /) -> None:
        """Tell how a job ended."""
        ...


async def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job, Callable[[ProgressFrame], None]], Awaitable[Result]],
    report: Report,
    *,
    concurrency: int,
) -> list[DockerError | None]:
    """Run jobs, so many at once, and return how each failed, None if it did not. None harms another."""
    gate = asyncio.Semaphore(concurrency)
    turns = {job.turn: asyncio.Lock() for job in jobs}

    async def one(job: Job) -> DockerError | None:
        def on_progress(frame: ProgressFrame) -> None:
            job.tracker.update(frame)
            report.frame(job, frame)

        async with turns[job.turn] if job.turn else contextlib.nullcontext(), gate:
            job.state, job.begun = "running", time.monotonic()
            try:
                result: Result | DockerError = await work(job, on_progress)
            except DockerError as error:
                result = error
            job.ended = time.monotonic()
            if isinstance(result, Result):
                job.tracker.finish()
                job.state, job.summary = "done", result.summary
            else:
                job.state, job.summary = "failed", clean(result.message.partition("\n")[0])
            report.ended(job, result)
            return result if isinstance(result, DockerError) else None

    tasks = [asyncio.create_task(one(job)) for job in jobs]
    gathered = asyncio.gather(*tasks)
    try:
        await report.run(_done(gathered))
        return gathered.result()
    finally:
        # One that fails otherwise, as when nobody reads the output any more, ends all.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _done(work: Awaitable[object]) -> None:
    await work

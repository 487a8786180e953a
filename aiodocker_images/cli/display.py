"""The live display on a terminal: rich draws what the board says, some times each second."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from aiodocker_images import DockerError, ProgressFrame

from .board import Board
from .jobs import Job, Result
from .terminal import say

__all__ = ["LiveReport"]

PERIOD: Final = 0.1
"""Seconds between two pictures."""


class Picture:
    """What rich is asked to draw: the board as it is at that moment."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.final = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines that the terminal has room for, at its present size."""
        width, height = console.size
        lines = self._board.lines(width - 1, height, time.monotonic(), final=self.final)
        yield Text("\n", no_wrap=True, overflow="crop").join(lines)


class LiveReport:
    """Tells by a display that is drawn again and again on standard error.

    `lines` has what scripts read follow at the end, on standard output: never while the display is drawn.
    """

    def __init__(self, jobs: Sequence[Job], *, lines: bool) -> None:
        self._console = Console(stderr=True, force_terminal=True, highlight=False, soft_wrap=False)
        unicode = self._console.encoding.lower().startswith("utf")
        self._picture = Picture(Board(jobs, unicode=unicode))
        self._lines: list[str] | None = [] if lines else None
        self._at_once = lines and not sys.stdout.isatty()

    async def run(self, work: Awaitable[None]) -> None:
        """Draw until the work is done or has failed; the terminal is as it was, whatever happens."""
        try:
            # Not by rich's own thread: frames come in this one.
            with Live(self._picture, console=self._console, auto_refresh=False, redirect_stdout=False) as live:
                drawing = asyncio.create_task(self._draw(live))
                try:
                    await work
                finally:
                    drawing.cancel()
                    await asyncio.gather(drawing, return_exceptions=True)
                    self._picture.final = True
        finally:
            if self._lines:
                say("".join(f"{line}\n" for line in self._lines))

    def frame(self, _job: Job, _frame: ProgressFrame, /) -> None:
        """Leave it to the next picture."""

    def ended(self, _job: Job, result: Result | DockerError, /) -> None:
        """Keep what scripts read, or say it if they read it elsewhere."""
        if not isinstance(result, Result) or self._lines is None:
            return
        if self._at_once:
            say("".join(f"{line}\n" for line in result.lines))
        else:
            self._lines += result.lines

    async def _draw(self, live: Live) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone; the signal that says so follows
            while True:
                live.refresh()
                await asyncio.sleep(PERIOD)

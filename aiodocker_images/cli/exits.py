"""How the program ends: the exit statuses, and the signals."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

from aiodocker_images._system.signals import StopSignals

__all__ = ["BAD_TEMPLATE", "DONE", "FAILED", "SOME_FAILED", "STATUSES", "USAGE", "Stopped", "run"]

T = TypeVar("T")

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
SOME_FAILED: Final = 3
BAD_TEMPLATE: Final = 64
"""That of the docker CLI for inspect, version and events; its other commands end with 1."""

STATUSES: Final = """\
Exit status: 0 done; 1 failed; 2 the command line makes no sense, and nothing was done; 3 some of several images
failed, the others are done; 64 the template for inspect, version or events cannot be read; 130 ended by Ctrl-C, 143 by
SIGTERM, 129 by a hang-up, 141 because nobody reads the output any more.\
"""

_SHOW_CURSOR: Final = b"\r\n\x1b[?25h"


class Stopped(Exception):  # noqa: N818 - no error: somebody wanted it
    """A signal ended the work, and all of it is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function to its end. A signal cancels it: raises `Stopped` when it has cleaned up.

    A second one does not wait for that.
    """
    import asyncio  # noqa: PLC0415 - `--help` needs no event loop

    received: list[int] = []
    signals = StopSignals()

    async def main() -> T:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a coroutine that runs has a task")

        def stop(number: int) -> None:
            if received:
                _leave(number)
            received.append(number)
            task.cancel()

        signals.listen(stop)
        return await work()

    try:
        return asyncio.run(main())
    except (Exception, asyncio.CancelledError):
        # Whatever failed while it was cleaned up, failed for that: a hang-up takes the terminal away, too.
        if received:
            raise Stopped(received[0]) from None
        raise
    finally:
        signals.restore()


def _leave(number: int) -> NoReturn:
    """Leave without cleaning up, but for the terminal: the first signal's work takes too long for somebody."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    os._exit(128 + number)

"""Signals that stop a program: which there are, how a loop is told of them, and how a process ends by one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final, NoReturn

__all__ = ["BROKEN_PIPE", "StopSignals", "end_process"]

BROKEN_PIPE: Final = 13
"""SIGPIPE, by the number that it has on Linux and macOS; Windows has none."""

# Windows has no hang-up: SIGBREAK comes when its console is closed, and from Ctrl-Break.
_STOPS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class StopSignals:
    """The signals that stop a program, from the making of this object, before there is a loop, to `restore()`."""

    def __init__(self) -> None:
        # Only the main thread can listen to signals.
        names = _STOPS if threading.current_thread() is threading.main_thread() else ()
        numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
        # What is ignored stays ignored, as nohup and `&` of a script want it.
        self._before = {number: before for number in numbers if (before := signal.getsignal(number)) != signal.SIG_IGN}
        self._changed: list[signal.Signals] = []

    def listen(self, heard: Callable[[int], None]) -> None:
        """Have the running loop call `heard` with the number of each signal that comes."""
        import asyncio  # noqa: PLC0415 - what starts no loop, as --help, should not wait for its import

        loop = asyncio.get_running_loop()

        def tell(number: int, _: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(heard, number)

        for number in self._before:
            try:
                loop.add_signal_handler(number, heard, number)
            except NotImplementedError:  # by Windows's loop, which a signal does wake
                signal.signal(number, tell)
                self._changed.append(number)

    def restore(self) -> None:
        """Put back what was there before, once the loop is closed; a loop with handlers of its own has done it."""
        for number in self._changed:
            signal.signal(number, self._before[number] or signal.SIG_DFL)
        self._changed.clear()


def end_process(number: int) -> NoReturn:
    """End this process by a signal: whoever waits for it sees the truth, and a shell ends its loop, too.

    Windows has no such end; there it is the exit status that a shell would make of it, as of the docker CLI.
    """
    if sys.platform != "win32" and hasattr(signal, "pthread_sigmask"):
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            os.kill(os.getpid(), number)
    raise SystemExit(128 + number)

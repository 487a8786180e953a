"""Other programs: how they are started alone, listened to, waited for and ended with all that they have started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

__all__ = ["PipeReader", "await_end", "kill", "start"]

_READ_SIZE: Final = 64 << 10


def start(
    command: Sequence[str], *, environ: Mapping[str, str], stdin: int, directory: str | None
) -> subprocess.Popen[bytes]:
    """Start a program without a shell or a terminal, in a session of its own. Raises OSError and ValueError."""
    return subprocess.Popen(  # noqa: S603 - without a shell
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=directory,
        env=environ,
        start_new_session=True,
        creationflags=_creation_flags(),
    )


def _creation_flags() -> int:
    """Return what Windows has in the place of sessions: no window pops up, and our Ctrl-C is not the program's."""
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    else:  # noqa: RET505 - mypy reports what follows as unreachable on Windows
        return 0


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program with all of its session; on Windows, the program alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform != "win32" and hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def await_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a program's end; where it can be, its id remains its own until `process.wait()` has been called."""
    # macOS has no waitid before Python 3.13.
    if sys.platform != "win32" and (sys.platform != "darwin" or sys.version_info >= (3, 13)) and hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):  # somebody else has waited for all children
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


class PipeReader:
    """Reads a program's pipe for the running loop: `heard` is called in it with what comes, with nothing at the end.

    Where a loop cannot wait for pipes (Windows), a thread reads. It ends when nobody can write to the pipe any more.
    """

    def __init__(self, pipe: IO[bytes], heard: Callable[[bytes], None]) -> None:
        self._pipe = pipe
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._polled = False
        if sys.platform != "win32" and hasattr(os, "killpg"):
            os.set_blocking(pipe.fileno(), False)
            self._loop.add_reader(pipe.fileno(), self._read)
            self._polled = True
        else:
            threading.Thread(target=self._follow, name="reading a program's output", daemon=True).start()

    def stop(self) -> None:
        """Read no more. Idempotent."""
        if not self._stopped:
            self._stopped = True
            if self._polled:
                self._loop.remove_reader(self._pipe.fileno())
                self._pipe.close()

    def abandon(self) -> None:
        """Do the same without the loop, which is closed."""
        if not self._stopped:
            self._stopped = True
            if self._polled:
                self._pipe.close()

    def _read(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), _READ_SIZE)
        except BlockingIOError:
            return
        self._hand_on(data)

    def _hand_on(self, data: bytes) -> None:
        if self._stopped:
            return
        if not data:
            self.stop()
        self._heard(data)

    def _follow(self) -> None:
        """Read in a thread. Only this thread closes the pipe: to close it under a reader would block on Windows."""
        with self._pipe as pipe:
            data = b"-"
            while data:
                try:
                    data = os.read(pipe.fileno(), _READ_SIZE)
                except OSError:  # some ends of a pipe are errors on Windows
                    data = b""
                if not self._stopped:
                    self._hand_over(data)

    def _hand_over(self, data: bytes) -> None:
        """Have the loop hand on what came, and wait until it has: what nobody has taken yet does not pile up."""
        taken = threading.Event()

        def hand_on() -> None:
            taken.set()
            self._hand_on(data)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(hand_on)
            while not taken.wait(1) and not self._loop.is_closed():
                pass

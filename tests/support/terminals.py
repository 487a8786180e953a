"""A terminal for tests: a program runs in a pseudo-terminal, and what a person would see is read from its screen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

import pyte

PROGRAM = (sys.executable, "-W", "error", "-m", "aiodocker_images")


class Terminal:
    """Runs a command line of ours in a terminal; `stdin` and `stdout` may be redirected, as a shell does."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.written = b""
        self.pictures: list[list[str]] = []
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdin=slave if stdin is None else stdin,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
            # Its own terminal, for Ctrl-C to reach it.
            preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
        )
        self._slave = slave

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without the empty lines at its end."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def cursor_is_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def is_as_before(self) -> bool:
        """Say whether the program left the terminal as it found it."""
        return termios.tcgetattr(self._slave) == self._before and not self.cursor_is_hidden

    def read(self, seconds: float = 0.05) -> None:
        """Take in what the program writes within so much time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._master], [], [], left)[0]:
                return
            with contextlib.suppress(OSError):
                data = os.read(self._master, 65536)
                self.written += data
                self._stream.feed(data)
                self.pictures.append(self.lines)

    def until(self, seen: Callable[[], bool], within: float = 30) -> None:
        """Read until something can be seen."""
        end = time.monotonic() + within
        while not seen():
            assert time.monotonic() < end, f"not seen within {within} s:\n{self.text}"
            assert self.process.poll() is None, f"ended with {self.process.returncode} before that:\n{self.text}"
            self.read()

    async def has_written(self, data: bytes) -> None:
        """Wait until the program has written this, spaces at the end of a line included."""
        await asyncio.to_thread(self.until, lambda: data in self.written)

    async def shows(self, text: str) -> None:
        """Wait until a text stands on the screen."""
        await asyncio.to_thread(self.until, lambda: text in self.text)

    async def ended(self) -> int:
        """Wait for the end of the program; see `wait`."""
        return await asyncio.to_thread(self.wait)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within: float = 30) -> int:
        """Read to the end of the program, and return its status: below 0 the signal that ended it."""
        end = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running after {within} s:\n{self.text}"
            self.read()
        self.read()
        assert "Traceback" not in self.written.decode("utf-8", "replace"), self.text
        return self.process.returncode

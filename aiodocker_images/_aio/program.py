"""Another program, run to its end: without a shell or a terminal, in bounded time, with nothing of it left over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from aiodocker_images._system.names import executable
from aiodocker_images._system.processes import PipeReader, await_end, kill, start

from .threads import outlast

__all__ = ["MAX_INPUT", "Ended", "Program", "ProgramError", "find_program", "run_program"]

MAX_INPUT: Final = 512
"""Bytes of input: what any pipe takes at once (POSIX), so that nobody waits for the program to read it."""

DRAIN_TIMEOUT: Final = 1.0
"""Seconds for the output of a program that has ended: longer only if another session keeps the pipe open."""

REAP_TIMEOUT: Final = 5.0
"""Seconds for a killed program to be gone: longer only if the kernel holds it, or it is another user's."""


class ProgramError(Exception):
    """Why a program did not run to its end, in words that follow its name ("is not on PATH")."""


@dataclass(frozen=True, slots=True, repr=False)
class Ended:
    """How a program ended: its exit status (the negative of a signal that ended it), and what it wrote."""

    status: int
    output: bytes
    errors: bytes

    def __repr__(self) -> str:
        # What it wrote may hold secrets.
        return f"Ended(status={self.status})"


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """Return the path of a program on the PATH of `environ`; raise `ProgramError` if there is none.

    A relative directory there does not count: what lies in the current directory is no program of the user's.
    """
    reason = "is not on PATH"
    for directory in environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(directory, executable(name))
        try:
            if not path.is_absolute() or not stat.S_ISREG(path.stat().st_mode):
                continue
        except (OSError, ValueError):  # not there, or no path at all
            continue
        if os.access(path, os.X_OK):
            return str(path)
        reason = f"is not executable: {path}"
    raise ProgramError(reason)


async def run_program(
    command: Sequence[str], *, environ: Mapping[str, str], time_limit: float, max_output: int, stdin: bytes = b""
) -> Ended:
    """Run a program, whose path comes first, and return how it ended.

    It gets no terminal to prompt at, but a session of its own; whatever is left of its process group when it ends,
    or fails, or the caller is cancelled, is killed. It may write `max_output` bytes, output and errors together,
    within `time_limit` seconds; `stdin` has at most `MAX_INPUT` bytes. Raises `ProgramError`.
    """
    if len(stdin) > MAX_INPUT:
        raise ProgramError(f"takes no more than {MAX_INPUT} bytes of input")
    collected = _Collected(max_output)
    with _holding(stdin) as readable:
        program = Program(command, environ=environ, stdin=readable, heard=collected.hear)
    collected.program = program
    try:
        async with asyncio.timeout(time_limit):
            await program.finished()
    except TimeoutError:
        failure = f"did not end within {time_limit:g} seconds"
    else:
        if program.status is not None and not collected.overflown:
            return Ended(program.status, bytes(collected.output), bytes(collected.errors))
        failure = f"wrote more than {max_output} bytes"
    finally:
        await outlast(program.end())
    raise ProgramError(failure)


class _Collected:
    """What a program writes, up to a limit; what writes more is not waited for."""

    def __init__(self, limit: int) -> None:
        self.output = bytearray()
        self.errors = bytearray()
        self.overflown = False
        self.program: Program | None = None
        self._limit = limit

    def hear(self, data: bytes, errors: bool) -> None:
        if len(self.output) + len(self.errors) + len(data) <= self._limit:
            (self.errors if errors else self.output).extend(data)
            return
        self.overflown = True
        if self.program is not None:
            self.program.stop_listening()
            self.program.ended.set()


class Program:
    """A program that runs, from its start to `end()`. It gets no terminal, but a session of its own.

    `heard` is called with what it writes, nothing at the end of it, and whether that are errors. `ended` is set when
    the program has ended, with `status`; `drained` when nobody can write any more. Raises `ProgramError` if it
    cannot be started.

    Not asyncio's own: that hangs if the loop cancels all its tasks while a program is started, and it takes note
    of the end of one only when its id may be another's already.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        stdin: int,
        heard: Callable[[bytes, bool], None],
        directory: str | None = None,
    ) -> None:
        self.status: int | None = None
        self.ended = asyncio.Event()
        self.drained = asyncio.Event()
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        # A future, and no task: whoever cancels all the tasks of a loop does not cancel this.
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._open: set[PipeReader] = set()
        try:
            self._process = start(command, environ=environ, stdin=stdin, directory=directory)
            self._watch(command[0])
        except (OSError, ValueError, RuntimeError) as error:  # of the last kind is that there can be no more threads
            raise ProgramError(f"cannot be run: {getattr(error, 'strerror', None) or error}") from error

    def __repr__(self) -> str:
        return f"Program(status={self.status})"

    def _watch(self, name: str) -> None:
        try:
            for pipe, errors in ((self._process.stdout, False), (self._process.stderr, True)):
                if pipe is not None:  # as both are
                    self._listen(pipe, errors)
            threading.Thread(target=self._wait, name=f"wait for {name}", daemon=True).start()
        except BaseException:
            self.stop_listening()
            self._kill()
            self._process.wait()
            raise

    def _listen(self, pipe: IO[bytes], errors: bool) -> None:
        def hear(data: bytes) -> None:
            if not data:
                self._close(reader)
            self._heard(data, errors)

        reader = PipeReader(pipe, hear)
        self._open.add(reader)

    async def finished(self) -> None:
        """Wait until it has ended, and all that it wrote was heard."""
        await self.ended.wait()
        # The pipes end when the last who could write to them ends; in other sessions that may be never.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                await self.drained.wait()

    def stop_listening(self) -> None:
        """Read no more of what the program writes."""
        for reader in tuple(self._open):
            self._close(reader)

    def end(self) -> asyncio.Future[None]:
        """Kill what is left of the program; the result is there when nothing is."""
        self.stop_listening()
        if self.status is None:
            self._kill()
            timer = self._loop.call_later(REAP_TIMEOUT, self._let_go)
            self._gone.add_done_callback(lambda _: timer.cancel())
        else:
            self._let_go()
        return self._gone

    def abandon(self) -> None:
        """Kill the program without the loop that it was started in, which is closed; its own thread waits for it."""
        for reader in tuple(self._open):
            self._open.discard(reader)
            reader.abandon()
        if self.status is None:
            self._kill()

    def _close(self, reader: PipeReader) -> None:
        self._open.discard(reader)
        reader.stop()
        if not self._open:
            self.drained.set()

    def _wait(self) -> None:
        """Wait in a thread for the program's end; its id remains its own until `_ended` has taken note of it."""
        await_end(self._process)
        try:
            self._loop.call_soon_threadsafe(self._ended)
        except RuntimeError:  # the loop is closed
            self._process.wait()

    def _ended(self) -> None:
        self._kill()  # what it has left
        self.status = self._process.wait()
        self.ended.set()
        if not self._open:
            self._let_go()

    def _kill(self) -> None:
        kill(self._process)

    def _let_go(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)


@contextlib.contextmanager
def _holding(data: bytes) -> Generator[int, None, None]:
    """Give the readable end of a pipe with all of the data in it."""
    readable, writable = os.pipe()
    try:
        try:
            os.write(writable, data)
        finally:
            os.close(writable)
        yield readable
    finally:
        os.close(readable)

"""Another program, run to its end: without a shell or a terminal, in bounded time, with nothing of it left over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ._threads import outlast

__all__ = ["MAX_INPUT", "Ended", "ProgramError", "find_program", "run_program"]

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
        path = Path(directory, name)
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

    It gets no terminal to prompt at, but a session of its own; whatever is left in that when the program ends,
    or fails, or the caller is cancelled, is killed. It may write `max_output` bytes, output and errors together,
    within `time_limit` seconds; `stdin` has at most `MAX_INPUT` bytes. Raises `ProgramError`.
    """
    if len(stdin) > MAX_INPUT:
        raise ProgramError(f"takes no more than {MAX_INPUT} bytes of input")
    collector = _Collector(max_output)
    starting = asyncio.create_task(_start(command, collector, environ, stdin))
    cause: Exception | None = None
    bound = asyncio.timeout(time_limit)
    try:
        async with bound:
            pid = (await asyncio.shield(starting)).get_pid()
            await collector.done.wait()
            if not collector.overflown:
                # The pipes end when the last who could write to them ends; in other sessions that may be never.
                _kill_session(pid)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_TIMEOUT):
                        await collector.drained.wait()
    except (OSError, ValueError) as error:
        if bound.expired():
            failure = f"did not end within {time_limit:g} seconds"
        else:
            failure, cause = f"cannot be run: {getattr(error, 'strerror', None) or error}", error
    else:
        if not collector.overflown:
            # The status of a program that has ended is never None.
            return Ended(starting.result().get_returncode() or 0, bytes(collector.output), bytes(collector.errors))
        failure = f"wrote more than {max_output} bytes"
    finally:
        await outlast(asyncio.create_task(_end(starting, collector)))
    raise ProgramError(failure) from cause


async def _start(
    command: Sequence[str], collector: _Collector, environ: Mapping[str, str], stdin: bytes
) -> asyncio.SubprocessTransport:
    with _holding(stdin) as readable:
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: collector, *command, stdin=readable, env=dict(environ), start_new_session=True
        )
    return transport


@contextlib.contextmanager
def _holding(data: bytes) -> Generator[int, None, None]:
    """Give the readable end of a pipe with all of the data in it: a real one, while asyncio's own is a socket."""
    readable, writable = os.pipe()
    try:
        try:
            os.write(writable, data)
        finally:
            os.close(writable)
        yield readable
    finally:
        os.close(readable)


async def _end(starting: asyncio.Task[asyncio.SubprocessTransport], collector: _Collector) -> None:
    """Kill what is left of a program and let go of all that belongs to it."""
    await asyncio.wait({starting})
    if starting.cancelled() or starting.exception() is not None:
        return
    transport = starting.result()
    _kill_session(transport.get_pid())
    with contextlib.suppress(PermissionError):  # asyncio kills it once more
        transport.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REAP_TIMEOUT):
            await collector.closed.wait()


def _kill_session(pid: int) -> None:
    # The id of a process group is not given to another process while anybody is in the group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class _Collector(asyncio.SubprocessProtocol):
    """Collects what a program writes; `done` when it has ended or has written too much."""

    def __init__(self, limit: int) -> None:
        self.output = bytearray()
        self.errors = bytearray()
        self.overflown = False
        self.done = asyncio.Event()
        self.drained = asyncio.Event()
        self.closed = asyncio.Event()
        self._limit = limit
        self._open = {1, 2}

    def __repr__(self) -> str:
        return "_Collector()"

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if len(self.output) + len(self.errors) + len(data) > self._limit:
            self.overflown = True
            self.done.set()
            self.drained.set()
        if not self.overflown:
            (self.output if fd == 1 else self.errors).extend(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._open.discard(fd)
        if not self._open:
            self.drained.set()

    def process_exited(self) -> None:
        self.done.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.closed.set()

"""The life of a daemon: its process, its state directory, the port it listens on."""

# ruff: noqa: S603 - to run programs found on PATH is what this package is for

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from . import state
from .state import END_TIMEOUT, STATE_MARK, EngineError

READY_TIMEOUT = 60.0


class Daemon(ABC):
    """A daemon and its state directory, which lasts from the first `start` to `stop`, over kills and restarts.

    Attributes: `state`, the directory; `log`, what the daemon wrote since its last start.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self.state = state.STATE_PARENT / f"adi-{secrets.token_hex(4)}"
        self.log = self.state / "log"
        self._lock: int | None = None
        self._heir: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The daemon's process; raises EngineError while there is none."""
        if self._pid is None:
            raise EngineError(f"{self._title} does not run.")
        return self._pid

    def start(self) -> None:
        """Start the daemon and wait until it serves; after `kill`, with the data and the address it had."""
        if self._process is not None and self._process.poll() is None:
            raise EngineError(f"{self._title} runs already.")
        self.kill()  # what a daemon that ended by itself may have left
        if self._lock is None:
            state.sweep()
            self._lock = state.claim(self.state)
            self._heir = state.start_heir(self.state)
        self._launch()

    def stop(self) -> None:
        """End the daemon and all it started, and remove all it wrote. May be called again."""
        self.kill()
        if self._lock is not None:
            state.destroy(self.state)
            os.close(self._lock)
            self._lock = None
        if self._heir is not None:
            self._heir.communicate(b"nothing is left")
            self._heir = None

    def kill(self) -> None:
        """End the daemon and all it started as SIGKILL does, and keep its data."""
        if self._process is not None:
            state.kill_all(self.state)
            self._process.wait()
            self._process = self._pid = None

    def pause(self) -> None:
        """Let the daemon do nothing: it keeps its connections and answers no more."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            # The threads stop one by one, and a thread that still runs may still answer.
            while not _at_rest(pid):
                time.sleep(0.001)

    def resume(self) -> None:
        """Let the daemon go on after `pause`."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def restart(self) -> None:
        """Ask the daemon to end, as a service manager does, and start it again with the data it had."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.kill(self.pid, signal.SIGTERM)
                self.resume()
                self._process.wait(END_TIMEOUT)
        self.kill()
        self.start()

    @abstractmethod
    def _launch(self) -> None: ...

    def _processes(self) -> Iterator[int]:
        """Give the processes that answer, and what one of them starts only after it was taken."""
        yield self.pid

    def _serve(
        self, command: Sequence[str | Path], ready: Callable[[], bool], environment: Mapping[str, str] | None = None
    ) -> None:
        """Run the command until it is ready; raise EngineError if it ends before or takes too long."""
        # In a session of its own: a Ctrl-C at the terminal is for us, who then stop the daemon.
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", STATE_MARK: str(self.state), **(environment or {})}
        nothing = subprocess.DEVNULL
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd="/", env=variables, stdin=nothing, stdout=log, stderr=log, start_new_session=True
            )
        self._pid = self._process.pid
        deadline = time.monotonic() + READY_TIMEOUT
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise EngineError(f"{self._title} did not come up within {READY_TIMEOUT:.0f} s, or ended:\n{tail}")
            time.sleep(0.02)

    def _serve_on_port(self, address: str, serve: Callable[[str], None]) -> str:
        """Serve at the address, or if it is empty at a free port of 127.0.0.1, and return it.

        A port that another process takes between the choice and the start is not the end.
        """
        while True:
            chosen = address or _free_address()
            try:
                serve(chosen)
            except EngineError:
                if address or "address already in use" not in self.log.read_text(errors="replace").lower():
                    raise
            else:
                return chosen

    def _listener(self, address: str) -> int | None:
        """Return the process of this daemon that listens at the address; on a snatched port, another's does."""
        port = int(address.rpartition(":")[2])
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = {line[9] for line in lines if line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == port}
        sockets = {Path(f"socket:[{inode}]") for inode in listening}
        for pid in with_descendants(self._process.pid) if self._process and sockets else ():
            with contextlib.suppress(OSError):  # it ended
                if any(file.readlink() in sockets for file in Path(f"/proc/{pid}/fd").iterdir()):
                    return pid
        return None


def children(pid: int) -> list[int]:
    """Return the child processes of a process, none if it ended."""
    with contextlib.suppress(OSError):
        threads = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return []


def with_descendants(pid: int) -> Iterator[int]:
    """Give the process, and then, as they are by then, its children, each with its own."""
    yield pid
    for child in children(pid):
        yield from with_descendants(child)


def _at_rest(pid: int) -> bool:
    """Return whether every thread of the process is stopped, or dead."""
    with contextlib.suppress(OSError):
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
        return all(stat.rpartition(") ")[2][0] in "TtZX" for stat in stats)
    return False  # a thread ended just now


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"

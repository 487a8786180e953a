"""State directories: what a daemon writes, who owns it, and how nothing of it stays, whatever ends its owner.

The owner holds a lock on the directory, and a small process, this file run as a program, waits for the owner's end.
"""

# ruff: noqa: S603, S607 - to run programs found on PATH is what this package is for

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

END_TIMEOUT = 30.0
# Short, because the path of a unix socket ends at 107 bytes; on a disk, because /tmp may be memory.
STATE_PARENT = Path("/var/tmp")  # noqa: S108 - what is made there is exclusive, and swept only if ours
# What to type on a machine that cannot have a private Engine, for want of root or of Debian's packages.
WITH_DOCKER = (
    "with Docker: docker run -d -p 5000:5000 registry:2 && "
    "DOCKER_HOST=unix:///var/run/docker.sock REGISTRY=127.0.0.1:5000 make demo"
)
STATE_MARK = "ENGINES_STATE"  # the variable that every process of a daemon carries


class EngineError(Exception):
    """An Engine or a registry cannot be had: what is missing and, on a second line, what to type."""


def sweep() -> None:
    """Destroy the state directories whose owners ended without doing so, and all that runs in them."""
    for directory in STATE_PARENT.glob("adi-*"):
        # Not ours, its owner lives, or somebody else is at it: no business of this sweep.
        with contextlib.suppress(OSError, EngineError), contextlib.ExitStack() as closing:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            closing.callback(os.close, lock)
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                destroy(directory)


def claim(directory: Path) -> int:
    """Make the state directory and return the descriptor whose lock says that its owner lives."""
    directory.mkdir(mode=0o700)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if directory.exists():
        return lock
    os.close(lock)
    return claim(directory)  # a sweep was faster than the lock


def destroy(directory: Path) -> None:
    """End all that runs in the state directory and remove it."""
    kill_all(directory)
    for pattern in (directory.name, f"*/{directory.name}"):  # cgroups, version 2 and 1, outlive containers
        for parent in Path("/sys/fs/cgroup").glob(pattern):
            for cgroup in sorted(parent.glob("**/"), reverse=True):
                cgroup.rmdir()
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (point := line.split()[4]).startswith(f"{directory}/"):  # a disk, say, that a test put under a daemon
            subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(directory, ignore_errors=True)  # errors, lest two who are at it stop each other
    if directory.exists():
        raise EngineError(f"Cannot remove all of {directory}.")


def kill_all(directory: Path) -> None:
    """Kill every process that carries the mark of the state directory, and wait until they are gone."""
    mark, deadline, alive = f"{STATE_MARK}={directory}".encode(), time.monotonic() + END_TIMEOUT, True
    while alive:
        alive = False
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # another user's, or gone
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    alive = True
                    if (process / "comm").read_text() != "unshare\n":  # which ends when its namespace is empty
                        os.kill(int(process.name), signal.SIGKILL)
        if alive and time.monotonic() > deadline:
            raise EngineError(f"Processes of {directory} do not end.")
        time.sleep(0.01 * alive)


def start_heir(directory: Path) -> subprocess.Popen[bytes]:
    """Start the process that destroys the state directory if we end without a word on its standard input."""
    command = [sys.executable, "-I", __file__, str(directory)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


if __name__ == "__main__" and not os.read(0, 1):  # the pipe closed without a word: its owner was killed
    destroy(Path(sys.argv[1]))

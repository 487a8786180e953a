"""Locks that one process has at a time, and that end with it. They block nobody: who comes second is told so."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from .files import optional_flags

if sys.platform != "win32":
    import fcntl

__all__ = ["DirectoryLock", "FileLock"]


class FileLock:
    """A lock on the file at `path`, which its holder has open, and keeps when the file is replaced.

    Where open files cannot be locked so that others may read them (Windows), a file beside it is the lock: it exists
    while somebody holds it, and the kernel removes it even if its holder is killed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self._guard = path.parent / f".{path.name}.lock"
        self._held = -1

    def take(self, descriptor: int) -> bool:
        """Lock an open file, perhaps one that is about to replace the other; False if another process has it."""
        if sys.platform != "win32" and hasattr(fcntl, "flock"):
            return _flock(descriptor)
        if self._held < 0:
            self._held = _make(self._guard)
        return self._held >= 0

    def release(self) -> None:
        """Let others have it; a file that was locked itself has to be closed for that. Idempotent."""
        if self._held >= 0:
            _unmake(self._guard, self._held)
            self._held = -1


class DirectoryLock:
    """A lock on what is written in a directory, from its making to `release()`, if it is `held`."""

    def __init__(self, path: str) -> None:
        self._guard: Path | None = None
        self.held = True
        if sys.platform != "win32" and hasattr(fcntl, "flock"):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # on a file system without locks, nobody is kept out
                self.held = _flock(self._descriptor)
        else:
            self._guard = Path(path, ".lock")
            self._descriptor = _make(self._guard)
            self.held = self._descriptor >= 0

    def release(self) -> None:
        """Let others have it."""
        if self._guard is None:
            os.close(self._descriptor)
        elif self.held:
            _unmake(self._guard, self._descriptor)


def _flock(descriptor: int) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _make(guard: Path) -> int:
    """Make the file that is a lock; return -1 if another process has made it."""
    try:
        # Windows removes a file that was opened with O_TEMPORARY when it is closed, and when its process ends.
        return os.open(guard, os.O_RDWR | os.O_CREAT | os.O_EXCL | optional_flags("O_TEMPORARY"), 0o600)
    except FileExistsError:
        return -1
    except PermissionError:
        # What Windows says while it removes the file; and so it does of a directory that may not be written.
        if guard.exists():
            return -1
        raise


def _unmake(guard: Path, descriptor: int) -> None:
    if not optional_flags("O_TEMPORARY"):
        guard.unlink(missing_ok=True)
    os.close(descriptor)

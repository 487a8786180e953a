"""Open a file that must be a regular one: a FIFO in its place would block whoever opens it, past any timeout."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["IrregularFileError", "open_regular", "read_regular"]


class IrregularFileError(OSError):
    """What is there is a directory, a FIFO, a socket or a device."""


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file and return its descriptor; raise `IrregularFileError` for anything else that is there."""
    # O_NONBLOCK: to open a FIFO would wait for its other end. Regular files take no notice.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0), mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularFileError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return descriptor


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return what is in a regular file; of one that is longer than `limit`, one byte more than that."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(limit + 1)

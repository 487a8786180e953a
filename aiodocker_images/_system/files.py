"""Files: opened, read, written and synchronised, with a plain way where a call is missing. It blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import sys
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

__all__ = [
    "IrregularFileError",
    "begin_writeback",
    "can_send",
    "copy_in_kernel",
    "give_mode",
    "give_owner",
    "open_file",
    "open_regular",
    "optional_flags",
    "read_at",
    "read_regular",
    "ready",
    "send",
    "sync",
    "sync_directory",
    "write_at",
    "write_some",
]

POLL_SECONDS: Final = 0.02
"""How long a call waits for a FIFO or a terminal."""

_MAX_BUFFERS: Final = 1024  # IOV_MAX of Linux and macOS
_ONE_AT_A_TIME: Final = threading.Lock()
_NO_SYNC: Final = {errno.EINVAL, errno.ENOTSUP}  # the answers of FIFOs, devices and some directories


class IrregularFileError(OSError):
    """What is there is a directory, a FIFO, a socket or a device."""


def optional_flags(*names: str) -> int:
    """Return those flags of `os.open` that this platform has, together."""
    flags = 0
    for name in names:
        flag: int = getattr(os, name, 0)
        flags |= flag
    return flags


def open_file(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a file for bytes, and return its descriptor.

    The opening does not wait for the other end of a FIFO, and does not make a terminal the process's own. Raises
    IsADirectoryError for a directory on a platform that cannot open one.
    """
    # Without O_BINARY, Windows changes the ends of lines in what is read and written. Regular files ignore O_NONBLOCK.
    flags |= optional_flags("O_BINARY", "O_NOCTTY", "O_NONBLOCK")
    try:
        return os.open(path, flags, mode)
    except PermissionError:
        # This is how Windows refuses to open a directory, however its permissions are.
        if not hasattr(os, "O_DIRECTORY") and Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)) from None
        raise


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file and return its descriptor; raise `IrregularFileError` for anything else that is there."""
    try:
        descriptor = open_file(path, flags, mode)
    except IsADirectoryError as error:
        if hasattr(os, "O_DIRECTORY"):  # opened for writing
            raise
        raise IrregularFileError(errno.EINVAL, "it is not a regular file", os.fspath(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularFileError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return descriptor


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return what is in a regular file; of one that is longer than `limit`, one byte more than that."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(limit + 1)


def read_at(descriptor: int, size: int, position: int) -> bytes:
    """Read at most `size` bytes at a place; the file's own position stays as it is. Several threads may read."""
    if sys.platform != "win32" and hasattr(os, "pread"):
        return os.pread(descriptor, size, position)
    with _moved_to(descriptor, position):
        return os.read(descriptor, size)


def write_at(descriptor: int, data: bytes | memoryview, position: int) -> int:
    """Write bytes at a place, and return how many were written. Several threads may write."""
    if sys.platform != "win32" and hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, position)
    with _moved_to(descriptor, position):
        return os.write(descriptor, data)


@contextlib.contextmanager
def _moved_to(descriptor: int, position: int) -> Generator[None, None, None]:
    with _ONE_AT_A_TIME:  # the position belongs to the file, which several threads may use
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, position, os.SEEK_SET)
        try:
            yield
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


def write_some(descriptor: int, pieces: Sequence[memoryview]) -> int:
    """Write the first of some pieces, at least a part of one; return how many bytes were written."""
    if sys.platform != "win32" and hasattr(os, "writev"):
        return os.writev(descriptor, pieces[:_MAX_BUFFERS])
    return os.write(descriptor, pieces[0])


def ready(descriptor: int, *, writing: bool = False) -> bool:
    """Wait a moment until something can be read or written; return whether it can.

    True where nothing can wait for it: there the reading or writing itself waits, for as long as it takes.
    """
    if sys.platform != "win32" and hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
        return bool(poll.poll(POLL_SECONDS * 1000))
    return True


def can_send() -> bool:
    """Whether the kernel can send a file to a socket. The call of macOS is another one, and is not used."""
    return sys.platform == "linux" and hasattr(os, "sendfile")


def send(connection: int, descriptor: int, size: int) -> int:
    """Let the kernel send the next bytes of a file to a socket; return how many it has taken. See `can_send`."""
    if sys.platform == "linux" and hasattr(os, "sendfile"):
        return os.sendfile(connection, descriptor, None, size)
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def copy_in_kernel(source: int, target: int, size: int, start: int, position: int) -> int:
    """Let the kernel copy bytes from one file to another; return how many it has copied, none if it cannot.

    Raises OSError if the disk fails or is full.
    """
    if sys.platform == "linux" and hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, size, start, position)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise
    return 0  # the platform cannot, or these two file systems cannot


def begin_writeback(descriptor: int, start: int, size: int) -> None:
    """Have the disk begin to write what the kernel would otherwise keep until the file is synchronised."""
    # Linux begins to write dirty pages that are not needed any more, and does not wait for them. Others may do
    # nothing, or know no such advice.
    if sys.platform == "linux" and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_DONTNEED)


def give_owner(descriptor: int, status: os.stat_result) -> None:
    """Give an open file the owner that another one has, if this user may: only root can give a file away."""
    if sys.platform != "win32" and hasattr(os, "fchown") and (status.st_uid, status.st_gid) != _owner():
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, status.st_uid, status.st_gid)


def _owner() -> tuple[int, int] | None:
    if sys.platform != "win32" and hasattr(os, "geteuid"):
        return os.geteuid(), os.getegid()
    return None


def give_mode(descriptor: int, path: str, mode: int) -> None:
    """Give an open file, which has this path, permissions: on Windows no more than whether it may be written."""
    if sys.platform != "win32" and hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)
    else:
        Path(path).chmod(mode)


def sync(descriptor: int) -> None:
    """Return when the disk has all of an open file; of what is not on a disk, nothing is expected."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Return when the disk has the names in a directory. Windows writes them by itself, and opens no directories."""
    if sys.platform != "win32" and hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(PermissionError):  # a directory that may be written need not be readable
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                sync(directory)
            finally:
                os.close(directory)

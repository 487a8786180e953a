"""Directories that are opened one from another, so that no link leads out of a tree. It blocks."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Final, Self

from .files import optional_flags

__all__ = ["Directory", "device_numbers", "entry_mode"]

_JUNCTION: Final = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT: Windows reports it as a directory


class Directory:
    """An open directory. Nothing in it is opened through a link: whoever changes the tree cannot lead out of it.

    Where the platform cannot open files from an open directory (Windows), they are opened by their paths, and it is
    checked before and after that what was opened is not a link. Somebody who exchanges directories on the way at the
    right moment would not be noticed there.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str, *, links: bool = True) -> Self:
        """Open a directory by its path; without `links`, one that is not a link itself."""
        return cls(path, _opened(path, links=links))

    def names(self) -> list[str]:
        """Return the names in it."""
        return os.listdir(self._descriptor if self._descriptor >= 0 else self._path)  # noqa: PTH208 - an open one

    def status(self, name: str) -> os.stat_result:
        """Return what is known of an entry: of a link itself, not of what it leads to."""
        if self._descriptor >= 0:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        return Path(self._below(name)).lstat()

    def directory(self, name: str) -> Directory:
        """Open a directory in this one."""
        return Directory(self._below(name), _opened(self._below(name), links=False, inside=(self._descriptor, name)))

    def file(self, name: str) -> int:
        """Open a file in it for reading; the opening waits for nothing. Raises OSError for a link."""
        flags = os.O_RDONLY | optional_flags("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK")
        if self._descriptor >= 0:
            return os.open(name, flags, dir_fd=self._descriptor)
        path = self._below(name)
        before = Path(path).lstat()
        if stat.S_ISLNK(before.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        descriptor = os.open(path, flags)
        if not os.path.samestat(before, os.fstat(descriptor)):
            os.close(descriptor)
            raise OSError(errno.ELOOP, "it was replaced while it was opened", path)
        return descriptor

    def link(self, name: str) -> str:
        """Return where a link leads, as it is written in there."""
        if self._descriptor >= 0:
            return os.readlink(name, dir_fd=self._descriptor)
        # The prefix by which Windows names paths of any length is not a part of the path.
        return str(Path(self._below(name)).readlink()).removeprefix("\\\\?\\")

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _below(self, name: str) -> str:
        return f"{self._path}/{name}"


def _opened(path: str, *, links: bool, inside: tuple[int, str] | None = None) -> int:
    """Open a directory; return -1 where files cannot be opened from it, and it is only looked at."""
    if sys.platform != "win32" and hasattr(os, "O_DIRECTORY") and hasattr(os, "O_NOFOLLOW"):
        flags = os.O_RDONLY | os.O_DIRECTORY | (0 if links else os.O_NOFOLLOW)
        if inside is None:
            return os.open(path, flags)
        return os.open(inside[1], flags, dir_fd=inside[0])
    status = Path(path).stat() if links else Path(path).lstat()
    if getattr(status, "st_reparse_tag", 0) == _JUNCTION:
        raise OSError(errno.ELOOP, "it is a junction, which is not followed", path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return -1


def entry_mode(mode: int) -> int:
    """Return the permissions of a file for an archive that Linux unpacks.

    Windows knows only whether a file may be written. As by the docker CLI, everything from there may be executed and
    nothing be written by others: 0755, or 0555 if it is read-only.
    """
    mode = stat.S_IMODE(mode)
    return mode & 0o755 | 0o111 if sys.platform == "win32" else mode


def device_numbers(status: os.stat_result) -> tuple[int, int]:
    """Return the numbers of a device; Windows has no such files."""
    if sys.platform != "win32" and hasattr(os, "major"):
        return os.major(status.st_rdev), os.minor(status.st_rdev)
    return 0, 0

"""A file that is written beside its target, and takes its place when it is whole. It blocks."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final

from .files import give_mode, give_owner, open_file, sync, sync_directory

__all__ = ["Replacement"]

MAX_NAME: Final = 200
"""Bytes of the target's name in that of the temporary file: file systems allow 255, less what is added."""

PATIENCE: Final = 2.0
"""Seconds for another program to close the target on Windows: virus scanners and indexers open what is new."""

# Windows cannot replace a file that a program has open; it says "access is denied" or "a sharing violation".
_IN_USE: Final = {5, 32}

# Names that Windows gives to devices, whatever their ending, and what it allows in no name. A colon would write to
# another stream of a file of a shorter name.
_DEVICE: Final = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[1-9\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}])"
    r" *(?:[.:].*)?",
    re.IGNORECASE | re.DOTALL,
)
_NOT_IN_NAMES: Final = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]\Z')


class Replacement:
    """A new, empty file beside `target`, for this user alone, until it takes the target's place.

    The names of such files begin with a dot and end with `.part`. If this object is lost, the file is removed.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self._target = os.fspath(target)
        directory, name = os.path.split(self._target)
        _check_name(name)
        short = os.fsencode(name)[:MAX_NAME].decode("utf-8", "ignore")
        self._path = os.path.join(directory, f".{short}.{secrets.token_hex(8)}.part")  # noqa: PTH118 - of texts
        self.descriptor = open_file(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        # A loop that is closed in the middle of an archive runs no more of our code: then this removes the file.
        self._remove: weakref.finalize[[str], Replacement] = weakref.finalize(self, _remove_if_there, self._path)

    def resemble(self, status: os.stat_result) -> None:
        """Give it the permissions and the owner of the file that it is to replace."""
        give_owner(self.descriptor, status)
        give_mode(self.descriptor, self._path, stat.S_IMODE(status.st_mode) & 0o777)

    def close(self) -> None:
        """Have all of it on the disk, and close it."""
        sync(self.descriptor)
        self._close()

    def commit(self) -> None:
        """Put it in its place, once it is closed."""
        _replace(self._path, self._target)
        self._remove.detach()
        sync_directory(Path(self._target).parent)

    def commit_over(self, descriptor: int) -> None:
        """Put it in the place of the target that is open as `descriptor`, which is the new file from then on.

        If it fails, `descriptor` is the old file as before.
        """
        if renames_open_files():
            _replace(self._path, self._target)
            os.dup2(self.descriptor, descriptor, inheritable=False)
        else:
            self._close()
            _reopen(os.devnull, descriptor)
            try:
                _replace(self._path, self._target)
            finally:
                _reopen(self._target, descriptor)
        self._close()
        self._remove.detach()
        sync_directory(Path(self._target).parent)

    def discard(self) -> None:
        """Remove it, unless it has taken its place. Idempotent."""
        with suppress(OSError):
            self._close()
        self._remove()

    def _close(self) -> None:
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


def renames_open_files() -> bool:
    """Whether a file that is open can be renamed and replaced: everywhere but on Windows, where nothing forks."""
    return hasattr(os, "fork")


def _reopen(path: str, descriptor: int) -> None:
    """Make an open descriptor one of another file."""
    opened = open_file(path, os.O_RDWR)
    try:
        os.dup2(opened, descriptor, inheritable=False)
    finally:
        os.close(opened)


def _replace(path: str, target: str) -> None:
    pause, last = 0.01, time.monotonic() + PATIENCE
    while True:
        try:
            Path(path).replace(target)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _IN_USE or time.monotonic() > last:
                raise
        else:
            return
        time.sleep(pause)
        pause *= 2


def _check_name(name: str) -> None:
    """Raise OSError for a name that no file on Windows can have; it would be opened as something else."""
    if sys.platform == "win32" and (_DEVICE.fullmatch(name) or _NOT_IN_NAMES.search(name)):
        raise OSError(errno.EINVAL, "Windows has no files of such a name")


def _remove_if_there(path: str) -> None:
    with suppress(OSError):
        Path(path).unlink()

"""The names of files, as other platforms write them."""

from __future__ import annotations

import os
import sys
from pathlib import PurePath

__all__ = ["executable", "relative_to", "with_slashes"]


def with_slashes(path: str) -> str:
    r"""Return a path as Docker's Engines write it: `a\b` of Windows is `a/b`. Elsewhere a backslash is a character."""
    return path if os.sep == "/" else path.replace(os.sep, "/")


def relative_to(path: PurePath, top: PurePath) -> str | None:
    """Return an absolute path relative to a directory, with slashes; None if it is not in there.

    On Windows, capital and small letters are the same, and another drive is elsewhere.
    """
    try:
        return path.relative_to(top).as_posix()
    except ValueError:
        return None


def executable(name: str) -> str:
    """Return the file name of a program: with .exe on Windows, where a .bat would be run by a shell."""
    return f"{name}.exe" if sys.platform == "win32" and not name.lower().endswith(".exe") else name

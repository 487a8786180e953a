"""Who this process belongs to, and where that user's files are."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

if sys.platform != "win32":
    import pwd

__all__ = ["home_directory", "runtime_directory", "user_id"]


class _Variables(Protocol):
    def get(self, key: str, /) -> str | None: ...


def home_directory(environ: _Variables | Mapping[str, str]) -> Path | None:
    """Return the user's home directory: of the environment, or else of the user database, for services have no HOME.

    On Windows it is USERPROFILE, as for the docker CLI; Windows has no user database that Python could ask.
    """
    if given := environ.get("USERPROFILE" if sys.platform == "win32" else "HOME"):
        return Path(given)
    user = user_id()
    if sys.platform != "win32" and user is not None:
        with contextlib.suppress(KeyError):  # not every user has an entry
            return Path(pwd.getpwuid(user).pw_dir)
    return None


def runtime_directory(environ: _Variables | Mapping[str, str]) -> Path | None:
    """Return the directory of the user's sockets; services have no variable for it. None if there is none."""
    if given := environ.get("XDG_RUNTIME_DIR"):
        return Path(given)
    user = user_id()
    return None if user is None else Path(f"/run/user/{user}")


def user_id() -> int | None:
    """Return the number of the user that this process belongs to; on Windows users have none."""
    if sys.platform != "win32" and hasattr(os, "getuid"):
        return os.getuid()
    return None

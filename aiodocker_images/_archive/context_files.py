"""The small files of a build context: found and read without being led out of the context by a link. It blocks.

A context may be somebody else's: a repository that was just cloned. A link in it must not make this program read a
file of its own user elsewhere, whose lines an Engine's message would quote.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import PurePath
from typing import Final

from aiodocker_images._system.directories import Directory
from aiodocker_images._system.files import open_file
from aiodocker_images._system.names import relative_to

from .files import failing

__all__ = ["MAX_DOCKERFILE", "MAX_IGNORE_FILE", "inside", "read_inside", "read_outside"]

MAX_IGNORE_FILE: Final = 1 << 20
"""Bytes of a `.dockerignore`; one with thousands of patterns is far shorter."""

MAX_DOCKERFILE: Final = 4 << 20
"""Bytes of a Dockerfile that is held in memory: one that comes alone, or is not in the context."""


def inside(root: str, name: str) -> str:
    """Return where the links on the way to `name` lead, relative to the context `root`.

    Raises `LocalFileError` for a link that leads out of the context.
    """
    base = os.path.realpath(root)
    target = os.path.realpath(os.path.join(base, name))  # noqa: PTH118 - names with undecodable bytes, as texts
    with failing("read", f"{root}/{name}"):
        found = relative_to(PurePath(target), PurePath(base))
        if found is None or found == ".":
            raise OSError(errno.EXDEV, "it is a symbolic link that leads out of the context, and is not followed")
    return found


def read_inside(root: str, name: str, limit: int) -> bytes | None:
    """Return the content of a small file, None if there is none. Raises `LocalFileError`.

    Links are followed where they stay in the context; whoever changes one meanwhile gets an error.
    """
    directories = inside(root, name).split("/")
    last = directories.pop()
    shown_as = f"{root}/{name}"
    with failing("read", shown_as):
        opened = Directory.open(os.path.realpath(root), links=False)
        try:
            for directory in directories:
                below = opened.directory(directory)
                opened.close()
                opened = below
            descriptor = opened.file(last)
        except FileNotFoundError:
            return None
        finally:
            opened.close()
        return _content(descriptor, limit)


def read_outside(path: str, limit: int) -> bytes:
    """Return the content of a small file that the caller has named, wherever it is. Raises `LocalFileError`."""
    with failing("read", path):
        return _content(open_file(path), limit)


def _content(descriptor: int, limit: int) -> bytes:
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = b""
        while len(content) <= limit and (piece := file.read(limit)):
            content += piece
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is longer than {limit >> 20} MiB")
    return content

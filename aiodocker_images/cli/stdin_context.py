"""What `build -` finds on standard input: an archive, or a Dockerfile alone."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import IO, Final

from aiodocker_images._archive.context_files import MAX_DOCKERFILE
from aiodocker_images._archive.dockerfile import HEAD_SIZE, archive_around, is_archive
from aiodocker_images._system.files import ready

from .terminal import StandardStreamError

__all__ = ["read_context", "read_dockerfile"]

_PIECE: Final = 1 << 20


def read_context(source: str | IO[bytes]) -> Generator[bytes, None, None]:
    """Yield the archive that standard input is, or one around the Dockerfile that it is.

    An empty piece comes where there is nothing yet: so a build that waits for its context can be given up.
    """
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(Path(source).open("rb", buffering=0)) if isinstance(source, str) else source
        head = b""
        for piece in _pieces(file):
            head += piece
            if len(head) >= HEAD_SIZE:
                break
            yield b""
        if is_archive(head):
            yield head
            yield from _pieces(file)
            return
        for piece in _pieces(file):
            head += piece
            if len(head) > MAX_DOCKERFILE:
                raise StandardStreamError("standard input is no archive, and too long for a Dockerfile")
            yield b""
        yield archive_around(head)


def read_dockerfile(source: str | IO[bytes]) -> bytes:
    """Return the Dockerfile that standard input is."""
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(Path(source).open("rb", buffering=0)) if isinstance(source, str) else source
        content = b""
        while piece := file.read(_PIECE):
            content += piece
            if len(content) > MAX_DOCKERFILE:
                raise StandardStreamError("standard input is too long for a Dockerfile")
    return content


def _pieces(file: IO[bytes]) -> Generator[bytes, None, None]:
    while True:
        if not ready(file.fileno()):
            yield b""
        elif piece := file.read(_PIECE):
            yield piece
        else:
            return

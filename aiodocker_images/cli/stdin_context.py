"""What `build -` finds on standard input: an archive, or a Dockerfile alone."""

from __future__ import annotations

import contextlib
import io
import select
import tarfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Final

from .terminal import StandardStreamError

__all__ = ["MAX_DOCKERFILE", "is_archive", "read_context", "read_dockerfile"]

MAX_DOCKERFILE: Final = 4 << 20
"""Bytes of a Dockerfile that comes without an archive around it: it is held in memory."""

_PIECE: Final = 1 << 20
_BLOCK: Final = 512  # of a tar, whose header is one
_POLL_SECONDS: Final = 0.02
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def read_context(source: str | IO[bytes]) -> Generator[bytes, None, None]:
    """Yield the archive that standard input is, or one around the Dockerfile that it is.

    An empty piece comes where there is nothing yet: so a build that waits for its context can be given up.
    """
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(Path(source).open("rb", buffering=0)) if isinstance(source, str) else source
        head = b""
        for piece in _pieces(file):
            head += piece
            if len(head) >= _BLOCK:
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
        yield _around(head)


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


def is_archive(head: bytes) -> bool:
    """Say whether this is how a tar begins, compressed or not."""
    if head.startswith(_COMPRESSED):
        return True
    block = head[:_BLOCK]
    if len(block) == _BLOCK and not block.strip(b"\0"):  # an empty tar is nothing but zeros
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _pieces(file: IO[bytes]) -> Generator[bytes, None, None]:
    while True:
        if not select.select([file], [], [], _POLL_SECONDS)[0]:
            yield b""
        elif piece := file.read(_PIECE):
            yield piece
        else:
            return


def _around(dockerfile: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        archive.addfile(info, io.BytesIO(dockerfile))
    return buffer.getvalue()

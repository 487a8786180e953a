"""A Dockerfile: told apart from an archive, put into one, and asked whether it copies itself. Pure."""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator
from typing import Final

from aiodocker_images._glob import Glob

__all__ = ["HEAD_SIZE", "archive_around", "file_entry", "is_archive", "may_copy"]

HEAD_SIZE: Final = tarfile.BLOCKSIZE
"""Bytes that tell an archive from a Dockerfile, if there are so many."""

_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_ESCAPE: Final = re.compile(r"#[ \t]*escape[ \t]*=[ \t]*([\\`])[ \t]*", re.IGNORECASE)


def is_archive(head: bytes) -> bool:
    """Tell whether this is how a tar begins, compressed or not."""
    if head.startswith(_COMPRESSED):
        return True
    block = head[: tarfile.BLOCKSIZE]
    if len(block) == tarfile.BLOCKSIZE and not block.strip(b"\0"):  # an empty tar is nothing but zeros
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def archive_around(dockerfile: bytes) -> bytes:
    """Return a tar with a Dockerfile alone."""
    data = file_entry("Dockerfile", dockerfile) + bytes(2 * tarfile.BLOCKSIZE)
    return data + bytes(-len(data) % tarfile.RECORDSIZE)


def file_entry(name: str, content: bytes) -> bytes:
    """Return a file as an entry of a tar; everybody may read it."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def may_copy(dockerfile: bytes, path: str) -> bool:
    """Tell whether a Dockerfile has an instruction that takes the file `path` of the context into the image.

    In doubt it has: where a source has a variable in it.
    """
    return any(
        "$" in source or _covers(source, path)
        for words in _instructions(dockerfile.decode("utf-8", "replace"))
        for source in _sources(words)
    )


def _instructions(text: str) -> Iterator[list[str]]:
    """Yield the words of each instruction, of the inner one behind ONBUILD."""
    lines = text.removeprefix("\ufeff").splitlines()
    escape = "\\"
    for line in lines:
        if not line.startswith("#"):
            break
        if match := _ESCAPE.fullmatch(line.strip()):
            escape = match[1]
    gathered: list[str] = []
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue  # also in the middle of an instruction, as in BuildKit's parser
        whole = line.rstrip()
        gathered.append(whole.removesuffix(escape))
        if not whole.endswith(escape):
            words, gathered = " ".join(gathered).split(), []
            yield words[1:] if words[0].upper() == "ONBUILD" else words
    yield " ".join(gathered).split() or [""]


def _sources(words: list[str]) -> Iterator[str]:
    """Yield what an instruction takes from the context."""
    keyword = words[:1] and words[0].upper()
    flags = [word for word in words[1:] if word.startswith("--")]
    if keyword in ("COPY", "ADD"):
        if any(flag.startswith("--from=") for flag in flags):
            return
        rest = [word for word in words[1:] if not word.startswith("--")]
        if rest and rest[0].startswith("["):
            try:
                rest = [str(each) for each in json.loads(" ".join(rest))]
            except (ValueError, TypeError, RecursionError):
                rest = ["$", ""]  # not JSON: let the builder say so
        yield from (source for source in rest[:-1] if "://" not in source)
    elif keyword == "RUN":
        for flag in flags:
            options: dict[str, str] = {}
            for part in flag.removeprefix("--mount=").split(","):
                name, _, value = part.partition("=")
                options[name] = value
            if flag.startswith("--mount=") and options.get("type", "bind") == "bind" and "from" not in options:
                yield options.get("source", options.get("src", "."))


def _covers(source: str, path: str) -> bool:
    """Tell whether `source` is a file, one of its directories, or a pattern of either."""
    pattern = posixpath.normpath(f"/{source}").lstrip("/")
    names = path.split("/")
    if not pattern:
        return True
    try:
        glob = Glob(pattern)
    except ValueError:
        return True
    return any(glob.matches("/".join(names[:depth])) for depth in range(1, len(names) + 1))

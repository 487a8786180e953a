"""Which members a tar file has, and where: read header by header, without extracting anything. Blocking."""

from __future__ import annotations

import os
import tarfile
from typing import Final, NamedTuple

from aiodocker_images._system.files import read_at
from aiodocker_images.errors import ArchiveError, shown

__all__ = ["BLOCK", "END", "Member", "header", "padding", "scan"]

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""What ends a tar."""

MAX_MEMBERS: Final = 200_000
"""Members of one tar, each of which is kept in memory: some thousands of images with all their layers."""

MAX_EXTENDED_HEADER: Final = 1 << 20
"""Bytes of one pax header or GNU long name: what Go's reader, and so any Engine, accepts at most."""

_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_EXTENDED: Final = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_LINKS: Final = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_OTHERS: Final = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


class Member(NamedTuple):
    """A regular file in a tar: `size` bytes at `offset`. A link has no bytes of its own, and names its target."""

    offset: int
    size: int
    link: str | None = None


def header(name: str, size: int) -> bytes:
    """Return the header of a regular file; equal files have equal headers."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of a file of `size` bytes."""
    return bytes(-size % BLOCK)


def scan(descriptor: int, path: str) -> dict[str, Member]:
    """Return the files and links of a tar by their names; `path` names it in errors.

    A leading "./" is left out. Of two members with one name the later one counts, as it does when a tar is unpacked.
    Raises `ArchiveError` for what is not a whole tar, is compressed, or has a name that leads out of it; and OSError.
    """
    end = os.fstat(descriptor).st_size
    start = read_at(descriptor, 8, 0)
    for magic, compression in _COMPRESSED.items():
        if start.startswith(magic):
            raise ArchiveError(f"{shown(path)} is compressed by {compression}: decompress it first")
    found: dict[str, Member] = {}
    extended: dict[str, str] = {}
    position = 0
    for _ in range(MAX_MEMBERS):
        block = read_at(descriptor, BLOCK, position)
        if block == END[:BLOCK]:
            return found
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _broken(path, position) from error
        position += BLOCK
        if member.type in _EXTENDED:
            if not 0 <= member.size <= MAX_EXTENDED_HEADER:
                raise ArchiveError(f"{shown(path)} has an extended header of {member.size} bytes")
            data = read_at(descriptor, member.size, position)
            if len(data) != member.size:
                raise _broken(path, position)
            extended |= _extended(member.type, data, path)
            position += member.size + len(padding(member.size))
            continue
        size = _size(extended.get("size"), member.size)
        name = _checked_name(extended.get("path") or member.name, path)
        if member.type in _LINKS:
            found[name] = Member(position, 0, extended.get("linkpath") or member.linkname)
        elif member.isreg() and member.type != tarfile.GNUTYPE_SPARSE:
            if size < 0 or position + size > end:
                raise _broken(path, position)
            found[name] = Member(position, size)
            position += size + len(padding(size))
        elif not (member.isdir() or member.type in _OTHERS):
            raise ArchiveError(f"{shown(path)} has a member {shown(name)} of a type that is not known here")
        extended = {}
    raise ArchiveError(f"{shown(path)} has more than {MAX_MEMBERS} members")


def _extended(kind: bytes, data: bytes, path: str) -> dict[str, str]:
    text = data.decode("utf-8", "surrogateescape")
    if kind == tarfile.XGLTYPE:
        return {}  # comments of whoever made it, such as git
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": text.partition("\0")[0]}
    if kind == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": text.partition("\0")[0]}
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        # "30 path=…\n", with the length of all of it in front.
        length, space, _ = data[position : position + 20].partition(b" ")
        size = int(length) if length.isdigit() and space else 0
        record = data[position : position + size].decode("utf-8", "surrogateescape")
        if not size or not record.endswith("\n"):
            raise ArchiveError(f"{shown(path)} has a pax header that is not one")
        key, _, value = record[len(length) + 1 : -1].partition("=")
        records[key] = value
        position += size
    if any(key.startswith("GNU.sparse") for key in records):
        raise ArchiveError(f"{shown(path)} has a sparse member, which is not supported here")
    return {key: records[key] for key in ("path", "linkpath", "size") if key in records}


def _size(text: str | None, size: int) -> int:
    if text is None:
        return size
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def _checked_name(name: str, path: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    if name.startswith("/") or ".." in name.split("/"):
        raise ArchiveError(f"{shown(path)} has a member whose name leads out of it: {shown(name)}")
    return name


def _broken(path: str, position: int) -> ArchiveError:
    return ArchiveError(f"{shown(path)} is not a whole tar: it breaks at byte {position}")

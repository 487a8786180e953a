"""Pure: tell whether a stream of bytes is one whole tar, or has the daemon's error written into it.

`docker save` answers 200 before it has read a single layer, so a failure after that has no status to show in:

- The daemon appends its error as a JSON document to whatever it has written so far: in the middle of a layer,
  or, because containerd's exporter closes its tar on every way out, behind a well-formed end of archive.
- The tar writer of the classic image store logs the error of reading a layer and ends the stream, in good
  HTTP form, without an end of archive and without an error document.

So nothing but a walk from header to header tells. Only headers are looked at: the cost is some microseconds
per member, and a constant few operations per piece of data.
"""

from __future__ import annotations

import re
from collections import deque

import msgspec

from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import ArchiveError
from aiodocker_images.progress import ErrorDocument

__all__ = ["MAX_ERROR_DOCUMENT", "MAX_EXTENDED_HEADER", "MAX_PADDING", "TarCheck"]

MAX_ERROR_DOCUMENT = 64 * 1024
"""Bytes kept of the end of the stream, in which the daemon's error document is looked for."""

MAX_EXTENDED_HEADER = 1024 * 1024
"""Bytes of one pax or GNU long-name header: what Go's reader, and so any daemon, accepts at most."""

MAX_PADDING = 1024 * 1024
"""Bytes of zeros behind the end; writers of tapes pad to 10 KiB, or to what they are told, up to this."""

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb"[ \0]*([0-7]*) *(?:\0.*)?\Z", re.DOTALL)
_MAX_CANDIDATES = 64
_SMALL_PIECE = 1024
_MAX_SIZE_DIGITS = 20
_MAX_SHOWN_NAME = 200
_NOT_WHOLE = "the archive is not a whole tar"

_WITHOUT_DATA = frozenset(b"123456")  # links, devices, directories, FIFOs: whatever their size field says
_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK = b"xgLK"


class TarCheck:
    """Follow an archive as its bytes pass by: `feed()` all of them, then `finish()`."""

    def __init__(self) -> None:
        self._total = 0
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._skip = 0  # bytes of data and padding that are still to pass
        self._wanted = _BLOCK
        self._gathered = bytearray()  # the start of a header that was split between two pieces
        self._extended = 0  # the type of the extended header whose data is gathered; 0: a plain header is
        self._next_name: str | None = None
        self._next_size: int | None = None
        self._member = ""
        self._member_size = 0
        self._members = 0
        self._padded_size = 0
        self._zero_blocks = 0
        self._padding = 0
        self._fault: str | None = None
        self._behind_fault = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece, of any size.

        What is no tar raises `ArchiveError` no earlier than all of an error document may have come, and then at
        once: an archive that has no end could fill a disk.
        """
        size = len(data)
        if not size:
            return
        self._total += size
        self._remember(data)
        if self._fault is not None:
            self._behind_fault += size
            if self._behind_fault > MAX_ERROR_DOCUMENT:
                self.finish()
        if size <= self._skip:
            self._skip -= size
            return
        position, self._skip = self._skip, 0
        view = memoryview(data)
        while position < size and self._fault is None:
            if self._zero_blocks == 2:
                self._accept_padding(view[position:])
                return
            taken = min(self._wanted - len(self._gathered), size - position)
            self._gathered += view[position : position + taken]
            position += taken
            if len(self._gathered) < self._wanted:
                return
            block = bytes(self._gathered)
            self._gathered.clear()
            self._accept(block)
            passed = min(self._skip, size - position)
            position += passed
            self._skip -= passed

    def finish(self) -> None:
        """Say that the stream has ended; raise `ArchiveError` if it was not one whole tar."""
        fault = self._fault or self._incomplete()
        if fault is None:
            return
        # Looked for only now: a layer may hold such a document of its own.
        error = _error_document(b"".join(self._tail))
        if error is not None:
            raise ArchiveError(f"the daemon failed while it wrote the archive: {error}")
        raise ArchiveError(fault)

    def _remember(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) > MAX_ERROR_DOCUMENT:
            data = data[-MAX_ERROR_DOCUMENT:]
        piece = bytes(data)
        self._tail_size += len(piece)
        if self._tail and len(self._tail[-1]) < _SMALL_PIECE:
            piece = self._tail.pop() + piece  # single bytes would cost forty times their size
        self._tail.append(piece)
        while self._tail_size - len(self._tail[0]) >= MAX_ERROR_DOCUMENT:
            self._tail_size -= len(self._tail.popleft())

    def _accept(self, block: bytes) -> None:
        if self._extended:
            self._accept_extended(block)
        elif block == _ZERO_BLOCK:
            self._zero_blocks += 1
        elif self._zero_blocks:
            self._fault = f"{_NOT_WHOLE}: one zero block after {self._last()}, then something else"
        else:
            self._accept_header(block)

    def _accept_header(self, block: bytes) -> None:
        size = _number(block[124:136])
        if not _has_checksum(block) or size is None:
            self._fault = self._no_header(block)
            return
        kind = block[156]
        if kind in (_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK):
            if size > MAX_EXTENDED_HEADER:
                self._fault = (
                    f"{_NOT_WHOLE}: an extended header of {size} bytes after {self._last()}, "
                    f"where at most {MAX_EXTENDED_HEADER} are allowed"
                )
            elif size:
                self._extended = kind
                self._wanted = _padded(size)
                self._member_size = size
            return
        if self._next_size is not None:
            size = self._next_size
        if kind in _WITHOUT_DATA:
            size = 0
        self._member = self._next_name or _name(block)
        self._member_size = size
        self._members += 1
        self._skip = self._padded_size = _padded(size)
        self._next_name = self._next_size = None

    def _accept_extended(self, block: bytes) -> None:
        data = block[: self._member_size]
        if self._extended == _GNU_LONG_NAME:
            self._next_name = _text(data)
        elif self._extended == _PAX:
            records = _pax_records(data)
            if records is None:
                self._fault = f"{_NOT_WHOLE}: a malformed pax header after {self._last()}"
                return
            if b"path" in records:
                self._next_name = _text(records[b"path"])
            if b"size" in records:  # beyond the 8 GiB that octal digits hold
                self._next_size = int(records[b"size"])
        self._extended = 0
        self._wanted = _BLOCK

    def _accept_padding(self, rest: memoryview) -> None:
        # Go's writer ends after two zero blocks, Python's and GNU's pad to 10 KiB.
        self._padding += len(rest)
        if bytes(rest).count(0) != len(rest) or self._padding > MAX_PADDING:
            self._fault = f"{_NOT_WHOLE}: behind its end stands something that is not padding"

    def _no_header(self, block: bytes) -> str:
        if self._members:
            return f"{_NOT_WHOLE}: after {self._last()} stands no header of a member"
        if block.startswith(b"\x1f\x8b"):
            return "the archive is not a tar: it is compressed with gzip"
        return "the archive is not a tar"

    def _incomplete(self) -> str | None:
        if not self._total:
            return "the archive is empty: not one byte came"
        if self._zero_blocks == 2:
            return None if self._members else "the archive is empty: a tar without members"
        if self._skip:
            passed = min(self._padded_size - self._skip, self._member_size)
            return f"{_NOT_WHOLE}: ended {passed} bytes into member {_shown(self._member)} of {self._member_size} bytes"
        if not self._members and not self._extended and self._total < _BLOCK:
            return "the archive is not a tar"
        if self._gathered or self._extended:
            return f"{_NOT_WHOLE}: ended inside of a header, after {self._last()}"
        # A single zero block is not enough: every writer closes with two, so the end of the stream was lost.
        return f"{_NOT_WHOLE}: ended after {self._last()}, without the end-of-archive blocks"

    def _last(self) -> str:
        return f"member {_shown(self._member)}" if self._members else "0 members"


def _padded(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _has_checksum(block: bytes) -> bool:
    stated = _number(block[_CHECKSUM])
    return stated == sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")


def _number(field: bytes) -> int | None:
    """Read octal digits or, behind a high bit, GNU's base-256; None for neither and for negative numbers."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            return None
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    octal = _OCTAL.match(field)
    return int(octal[1] or b"0", 8) if octal else None


def _name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _MAX_SHOWN_NAME else f"{name[:_MAX_SHOWN_NAME]}…")


def _pax_records(data: bytes) -> dict[bytes, bytes] | None:
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or not equals or data[end - 1 : end] != b"\n":
            return None
        if key == b"size" and not (value.isdigit() and len(value) <= _MAX_SIZE_DIGITS):
            return None
        records[key] = value
        position = end
    return records


def _error_document(tail: bytes) -> str | None:
    """Return the message of the error document that the stream ends with, if it ends with one."""
    tail = tail.rstrip()
    start = len(tail)
    # The daemon begins it with "errorDetail" or "error", never with another key.
    for _ in range(_MAX_CANDIDATES):
        start = tail.rfind(b'{"error', 0, start)
        if start < 0:
            return None
        try:
            document = msgspec.json.decode(tail[start:], type=ErrorDocument)
        except UNDECODABLE:
            continue
        if document.words is not None:
            return document.words
    return None

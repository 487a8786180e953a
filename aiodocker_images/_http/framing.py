"""Where the body of an HTTP answer ends: by its length, in chunks, or with the connection. Pure, without any I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["MAX_OVERHEAD", "Framing", "FramingError", "framing_of"]

MAX_OVERHEAD: Final = 1 << 20
"""Bytes in a row that bring no answer and nothing of its body.

An honest head is some hundred bytes, an honest chunk has ten bytes beside its data. Not less than some pieces of
256 KiB, in which asyncio reads: a piece may have the head and the beginning of the body.
"""

MAX_LINE: Final = 8 << 10
"""Bytes of a line between chunks, or behind them."""

# RFC 9112, 7.1: a chunk's size, and extensions of which we know none. Each match is of linear cost.
_SIZE: Final = rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n"
_FIRST: Final = re.compile(_SIZE)
_NEXT: Final = re.compile(rb"\r\n" + _SIZE)
# The beginnings of these.
_SIZE_BEGUN: Final = rb"(?:[0-9a-fA-F]{1,16}[ \t]*(?:;[^\r\n]*)?\r?)?"
_FIRST_BEGUN: Final = re.compile(_SIZE_BEGUN)
_NEXT_BEGUN: Final = re.compile(rb"\r?|\r\n" + _SIZE_BEGUN)
_EXCERPT: Final = 40


class FramingError(Exception):
    """What came is no body of this framing."""


class Framing(Protocol):
    """The body at hand."""

    @property
    def ended(self) -> bool:
        """Whether its end has come. What comes behind is nobody's."""
        ...

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is its end."""
        ...

    def feed(self, data: bytearray, size: int) -> bytes:
        """Return what the first `size` bytes of `data` bring of the body; raise `FramingError`."""
        ...


def framing_of(transfer_encoding: Sequence[str], content_length: Sequence[str]) -> Framing | None:
    """Return how a body with such headers is framed; None for what is not known here."""
    if transfer_encoding:
        alone = len(transfer_encoding) == 1 and not content_length
        return _Chunked() if alone and transfer_encoding[0].strip().lower() == "chunked" else None
    if content_length:
        length = content_length[0].strip()
        return _Counted(int(length)) if len(content_length) == 1 and re.fullmatch(r"[0-9]{1,19}", length) else None
    return _UntilClosed()


class _UntilClosed:
    """A body that only the end of the connection ends."""

    ended = False
    ends_with_connection = True

    def feed(self, data: bytearray, size: int) -> bytes:
        return bytes(memoryview(data)[:size])


class _Counted:
    """A body of a known length."""

    ends_with_connection = False

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def ended(self) -> bool:
        return self._left == 0

    def feed(self, data: bytearray, size: int) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return bytes(memoryview(data)[:size])


class _Chunked:
    """A body in chunks.

    The data is copied once, and nothing else is looked at than what stands between: a daemon sends an archive in
    chunks of 32 KiB, but each frame of a stream in one of its own, which are many.
    """

    ends_with_connection = False

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # bytes of the chunk at hand
        self._usual = 0  # bytes of the chunk that began last
        self._begun = b""  # a line, of which the end is still to come
        self._border, self._border_begun = _FIRST, _FIRST_BEGUN
        self._behind = False  # the last chunk, where trailers may be
        self._trailers = 0  # bytes

    def feed(self, data: bytearray, size: int) -> bytes:
        if self._begun:
            data = bytearray(self._begun + memoryview(data)[:size])
            size = len(data)
            self._begun = b""
        pieces: list[memoryview] = []
        with memoryview(data) as view:
            position = self._chunks(data, size, view, pieces)
            if self._behind:
                position = self._read_trailers(data, position, size)
            if position < size and not self.ended:
                self._begun = bytes(view[position:size])
            body = b"".join(pieces)
            for piece in pieces:
                piece.release()
        if len(self._begun) > MAX_LINE:
            raise FramingError(f"a line of more than {MAX_LINE} bytes stands between chunks")
        return body

    def _chunks(self, data: bytearray, size: int, view: memoryview, pieces: list[memoryview]) -> int:
        """Take the chunks; return where the rest begins: a line, in whole or in part."""
        position, left, self._left = 0, self._left, 0
        border = self._border.match
        while True:
            if left:
                end = position + left
                if end > size:
                    pieces.append(view[position:size])
                    self._left = end - size
                    return size
                pieces.append(view[position:end])
                position = end
            if self._behind:
                return position
            found = border(data, position, size)
            if found is None:
                break
            left = int(found[1], 16)
            position = found.end()
            self._behind = not left
            if left == self._usual and left:
                # Two of one size, and so more of them may come: all of an archive's chunks, and many of a pull's.
                line = found[0]
                while data.startswith(line, position + left, size):
                    pieces.append(view[position : position + left])
                    position += left + len(line)
            self._usual = left
            border = _NEXT.match
            self._border, self._border_begun = _NEXT, _NEXT_BEGUN
        if self._border_begun.fullmatch(data, position, size) is None:
            raise FramingError(f"no size of a chunk: {bytes(data[position : min(size, position + _EXCERPT)])!r}")
        return position

    def _read_trailers(self, data: bytearray, position: int, size: int) -> int:
        """Pass over what may stand behind the last chunk, to the blank line that ends it."""
        while not self.ended and (end := data.find(b"\r\n", position, size) + 2) >= 2:
            self.ended = end == position + 2
            self._trailers += end - position
            position = end
        if self._trailers + size - position > MAX_OVERHEAD:
            raise FramingError(f"{MAX_OVERHEAD >> 10} KiB came that bring the answer no further")
        return position

r"""Turn the bytes of a JSON stream into typed frames, without doing any I/O.

Goals, for a stream of n bytes that arrives in any number of pieces:

- O(n) time in total, be it one byte at a time or a frame of 5 MiB in pieces of 1 KiB: no byte of an
  unfinished frame is scanned twice. A piece that the fast path refuses is read a second time, never a third.
- Memory for one frame and the piece at hand: never more than `max_frame` bytes and a piece are kept.
- The speed of C for what daemons really send, whole frames, one per line. Only frames that cross the border
  of two pieces, or come with something odd, take the scanner in Python.
- The frames, and the class of the error that ends them, depend on the bytes alone, not on how they are split.
  (How much of nothing is too much is counted in pieces.)

A stream is a sequence of JSON objects. Between them may stand any number of spaces, tabs, CR, LF and record
separators (0x1e, RFC 7464), or nothing: an object ends with its own brace, and is delivered without waiting
for a newline. moby ends each frame with CR LF, Podman with LF, `application/json-seq` begins each with 0x1e.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

import msgspec

from aiodocker_images._lenient import decode_leniently
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.credentials import LOGGER
from aiodocker_images.errors import FrameDecodeError, StreamInterruptedError

__all__ = ["MAX_FRAME", "MAX_SILENCE", "FrameDecoder"]

MAX_FRAME = 16 * 1024 * 1024
"""The largest frame, in bytes: BuildKit's traces reach megabytes, and no honest frame comes near this."""

MAX_SILENCE = 1024 * 1024
"""Bytes in a row, beside the frame at hand, that bring no frame with anything in it: blanks, or empty objects.

So much is a newline every half minute for a year, to keep a connection open; without a limit it is no silence that
a timeout would notice.
"""

_ESSENTIAL = "error"  # how the fields that report a failure begin

_EXCERPT = 80  # bytes of the stream that an error quotes

_NOT_SEPARATOR = re.compile(rb"[^ \t\r\n\x1e]")
_OUTSIDE_STRINGS = re.compile(rb'[{}"]')
# JSON has no raw control characters in strings. To stop at one finds a line that was cut off inside a string
# at once, instead of taking all that follows for its continuation.
_INSIDE_STRING = re.compile(rb'["\\\x00-\x1f]')

T = TypeVar("T", bound=msgspec.Struct)


class FrameDecoder(Generic[T]):
    """Decode a stream of JSON objects into frames of one type.

    `frame_type` is a struct that reads JSON objects. A frame of more than `max_frame` bytes is an error.
    A decoder serves one stream: after an error it raises that error again.
    """

    def __init__(self, frame_type: type[T], *, max_frame: int = MAX_FRAME) -> None:
        self._decoder = msgspec.json.Decoder(frame_type)
        self._max_frame = max_frame
        self._error: FrameDecodeError | None = None
        self._silence = 0
        self._warned = False  # of what a frame lost; the others of the stream will be like it
        self._pending = bytearray()  # the frame at hand, as far as earlier chunks brought it
        self._depth = 0  # braces that are open; brackets need no counting, msgspec checks them
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes | bytearray | memoryview) -> list[T]:
        """Return the frames that `data` completes, in order.

        Raises `FrameDecodeError` for what is no stream of JSON objects of this type, and as soon as a frame
        passes the limit. Frames that came before the fault in the same piece are returned first: then the
        next call raises.
        """
        if self._error is not None:
            raise self._error
        frames: list[T] = []
        try:
            self._read(data if isinstance(data, bytes) else bytes(data), frames)
            self._listen(len(data), frames)
        except FrameDecodeError as error:
            self._error = error
            if not frames:
                raise
        return frames

    def finish(self) -> list[T]:
        """Declare the end of the stream; return the frames not delivered yet: none, as a brace ends each.

        Raises `StreamInterruptedError` if the stream ended inside a frame, and the `FrameDecodeError` that
        the last `feed` held back.
        """
        if self._error is not None:
            raise self._error
        if self._pending:
            raise StreamInterruptedError(f"the stream ended inside a frame: {_excerpt(self._pending)}")
        return []

    def _listen(self, size: int, frames: list[T]) -> None:
        # The last frame nearly always says something: one look for each piece is all that this costs.
        if frames and (not _is_empty(frames[-1]) or not all(map(_is_empty, frames))):
            self._silence = 0
            return
        self._silence += size
        if self._silence - len(self._pending) > MAX_SILENCE:
            raise FrameDecodeError(f"{MAX_SILENCE} bytes in a row came that say nothing")

    def _read(self, chunk: bytes, frames: list[T]) -> None:
        position = 0
        if self._pending and chunk:
            position = self._read_frame(chunk, position, frames)
        if not self._pending:
            position = self._read_lines(chunk, position, frames)
        while found := _NOT_SEPARATOR.search(chunk, position):
            if found.group() != b"{":
                raise FrameDecodeError(f"expected a JSON object: {_excerpt(chunk[found.start() :])}")
            position = self._read_frame(chunk, found.start(), frames)

    def _read_lines(self, chunk: bytes, start: int, frames: list[T]) -> int:
        """Decode the whole lines of the chunk at once if they are clean; return where the rest begins."""
        end = chunk.rfind(b"\n", start) + 1
        if not start < end <= start + self._max_frame:  # none of the frames in so few bytes is over the limit
            return start
        try:
            # It knows no lines in fact: it takes objects with any whitespace between, as the scanner does.
            frames += self._decoder.decode_lines(memoryview(chunk)[start:end])
        except UNDECODABLE:
            return start  # record separators, half a frame or a fault: the scanner finds out which, and where
        return end

    def _read_frame(self, chunk: bytes, start: int, frames: list[T]) -> int:
        """Read the frame at hand, as much of it as the chunk has; return where that ends."""
        end = self._scan(chunk, start)
        self._pending += memoryview(chunk)[start:end]
        if len(self._pending) > self._max_frame:
            raise FrameDecodeError(f"a frame of more than {self._max_frame} bytes: {_excerpt(self._pending)}")
        if self._depth == 0:
            frame, self._pending = self._pending, bytearray()
            frames.append(self._decode(frame))
        return end

    def _scan(self, chunk: bytes, start: int) -> int:
        """Follow braces and strings to the end of the frame at hand or of the chunk; return where that is."""
        depth, in_string, position = self._depth, self._in_string, start + self._escaped
        self._escaped = False
        while found := (_INSIDE_STRING if in_string else _OUTSIDE_STRINGS).search(chunk, position):
            position = found.end()
            match found.group():
                case b'"':
                    in_string = not in_string
                case b"\\":
                    if position == len(chunk):
                        self._escaped = True
                        break
                    position += 1
                case b"{":
                    depth += 1
                case b"}":
                    depth -= 1
                    if depth == 0:
                        break
                case _:
                    around = chunk[max(0, position - _EXCERPT // 2) :]
                    raise FrameDecodeError(f"a control character inside a JSON string: {_excerpt(around)}")
        else:
            position = len(chunk)
        self._depth, self._in_string = depth, in_string
        return position

    def _decode(self, frame: bytearray) -> T:
        try:
            return self._decoder.decode(frame)
        except UNDECODABLE as error:
            cause = error
        try:
            value, flaws = decode_leniently(frame, self._decoder.type)
        except UNDECODABLE:
            raise FrameDecodeError(f"not a frame: {cause}: {_excerpt(frame)}") from cause
        # What says that the operation failed is never left out.
        if any(flaw.startswith(_ESSENTIAL) for flaw in flaws):
            raise FrameDecodeError(f"not a frame: {flaws[0]}: {_excerpt(frame)}") from cause
        if flaws and not self._warned:
            self._warned = True
            LOGGER.warning("what could not be read was left out of a frame: %s", "; ".join(flaws))
        return value


def _is_empty(frame: msgspec.Struct) -> bool:
    return not any(getattr(frame, name) for name in frame.__struct_fields__)


def _excerpt(data: bytes | bytearray) -> str:
    return repr(bytes(data[:_EXCERPT]))

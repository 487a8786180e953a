"""What BuildKit reports while it builds: the steps and their output, out of the frames of a build. Pure.

The Engine passes on BuildKit's own progress as base64 in the `aux` of frames: the `StatusResponse` of its control
API, in protocol buffers. The few messages in it are read here by hand, which takes less code than a library does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from ._document import Document
from .errors import FrameDecodeError
from .progress import ProgressFrame

__all__ = ["BuildLog", "BuildStatus", "BuildStep", "BuildTrace", "BuildWarning", "read_trace"]

TRACE: Final = "moby.buildkit.trace"
"""The `id` of the frames that carry it."""


MAX_FIELDS: Final = 100_000
"""Fields of one message; two bytes make one, and each of them an object."""


class BuildStep(Document, frozen=True, kw_only=True):
    """One step of a build, which BuildKit calls a vertex: sent when it is planned, starts and ends."""

    digest: str = ""
    """What the other messages name the step by."""
    name: str = ""
    """Such as "[2/3] COPY a /a"."""
    inputs: tuple[str, ...] = ()
    """The digests of the steps that it needs."""
    cached: bool = False
    started: datetime | None = None
    completed: datetime | None = None
    error: str = ""
    """Why it failed; empty if it did not."""


class BuildStatus(Document, frozen=True, kw_only=True):
    """How far one part of a step has come, such as the download of a layer."""

    id: str = ""
    step: str = ""
    """The digest of the step."""
    name: str = ""
    current: int = 0
    total: int = 0
    """Mostly bytes; 0 if unknown."""
    timestamp: datetime | None = None
    started: datetime | None = None
    completed: datetime | None = None


class BuildLog(Document, frozen=True, kw_only=True):
    """A piece of a step's output, which need not be a whole line."""

    step: str = ""
    """The digest of the step."""
    timestamp: datetime | None = None
    stream: int = 0
    """1: standard output, 2: standard error."""
    data: bytes = b""


class BuildWarning(Document, frozen=True, kw_only=True):
    """Something that BuildKit has to say of the Dockerfile."""

    step: str = ""
    """The digest of the step."""
    level: int = 0
    short: str = ""
    detail: tuple[str, ...] = ()
    url: str = ""


class BuildTrace(Document, frozen=True, kw_only=True):
    """What one frame of BuildKit's progress says."""

    steps: tuple[BuildStep, ...] = ()
    statuses: tuple[BuildStatus, ...] = ()
    logs: tuple[BuildLog, ...] = ()
    warnings: tuple[BuildWarning, ...] = ()


def read_trace(frame: ProgressFrame) -> BuildTrace | None:
    """Return what a frame carries of BuildKit's progress, None if it is another frame.

    Raises `FrameDecodeError` for one that is no protocol buffer.
    """
    if frame.id != TRACE or not isinstance(frame.aux, str):
        return None
    try:
        fields = _Fields(base64.b64decode(frame.aux, validate=True))
        return BuildTrace(
            steps=tuple(_step(_Fields(each)) for each in fields.messages(1)),
            statuses=tuple(_status(_Fields(each)) for each in fields.messages(2)),
            logs=tuple(_log(_Fields(each)) for each in fields.messages(3)),
            warnings=tuple(_warning(_Fields(each)) for each in fields.messages(4)),
        )
    except (binascii.Error, ValueError, OverflowError) as error:
        raise FrameDecodeError(f"BuildKit's progress is not what it should be: {error}") from error


def _step(fields: _Fields) -> BuildStep:
    return BuildStep(
        digest=fields.text(1),
        inputs=tuple(fields.texts(2)),
        name=fields.text(3),
        cached=bool(fields.number(4)),
        started=fields.time(5),
        completed=fields.time(6),
        error=fields.text(7),
    )


def _status(fields: _Fields) -> BuildStatus:
    return BuildStatus(
        id=fields.text(1),
        step=fields.text(2),
        name=fields.text(3),
        current=fields.number(4),
        total=fields.number(5),
        timestamp=fields.time(6),
        started=fields.time(7),
        completed=fields.time(8),
    )


def _log(fields: _Fields) -> BuildLog:
    data = fields.messages(4)
    return BuildLog(step=fields.text(1), timestamp=fields.time(2), stream=fields.number(3), data=b"".join(data[-1:]))


def _warning(fields: _Fields) -> BuildWarning:
    return BuildWarning(
        step=fields.text(1),
        level=fields.number(2),
        short=fields.text(3),
        detail=tuple(fields.texts(4)),
        url=fields.text(5),
    )


class _Fields:
    """The fields of one message, by their numbers. Raises ValueError for bytes that are no message."""

    def __init__(self, message: bytes) -> None:
        self._numbers: dict[int, int] = {}
        self._bytes: dict[int, list[bytes]] = {}
        for count, (number, value) in enumerate(_read(message)):
            if count == MAX_FIELDS:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            if isinstance(value, int):
                self._numbers[number] = value
            else:
                self._bytes.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        value = self._numbers.get(field, 0) & ((1 << 64) - 1)
        return value - (1 << 64) if value >> 63 else value  # an int64 below 0

    def messages(self, field: int) -> list[bytes]:
        return self._bytes.get(field, [])

    def texts(self, field: int) -> list[str]:
        return [value.decode("utf-8", "replace") for value in self.messages(field)]

    def text(self, field: int) -> str:
        return "".join(self.texts(field)[-1:])

    def time(self, field: int) -> datetime | None:
        messages = self.messages(field)
        if not messages:
            return None
        stamp = _Fields(messages[-1])
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=stamp.number(1), microseconds=stamp.number(2) // 1000)


def _read(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field; those of fixed width, which BuildKit does not use, as bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if position + size > len(message):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends in the middle of a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")

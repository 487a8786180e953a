"""Sizes and times as the docker CLI writes them, and sizes as it reads them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

__all__ = ["age", "bytes_of", "clock", "duration", "local_time", "rfc3339", "size"]

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([bkmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24  # hours


def size(count: float, digits: int = 4) -> str:
    """Write a number of bytes with so many significant digits: "3.37MB"."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.{digits}g}{_UNITS[unit]}"


def bytes_of(text: str) -> int:
    """Read a size as `--memory` and `--shm-size` take it, in powers of 1024: "64m". Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not a size such as 64m or 1g")
    return int(float(match[1]) * _BINARY[match[2].lower()])


def duration(seconds: float) -> str:
    """Write a duration in the words of the docker CLI: "About an hour"."""
    whole = int(seconds)
    minutes, hours = whole // _MINUTE, int(seconds / _HOUR + 0.5)
    steps = (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < _MINUTE, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 2 * _DAY, f"{hours} hours"),
        (hours < 14 * _DAY, f"{hours // _DAY} days"),
        (hours < 60 * _DAY, f"{hours // _DAY // 7} weeks"),
        (hours < 730 * _DAY, f"{hours // _DAY // 30} months"),
    )
    return next((words for fits, words in steps if fits), f"{whole // _HOUR // _DAY // 365} years")


def age(moment: datetime | None, now: datetime) -> str:
    """Write how long ago something was; "N/A" for what is not known."""
    return "N/A" if moment is None else f"{duration((now - moment).total_seconds())} ago"


def local_time(moment: datetime | None) -> str:
    """Write a time in the local zone as Go does by default: "2026-11-25 01:20:32 +0100 CET"."""
    return "N/A" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


def rfc3339(moment: datetime | None, nanoseconds: int | None = None) -> str:
    """Write a time in the local zone by RFC 3339, if they are given with `nanoseconds` of its second."""
    if moment is None:
        return "N/A"
    local = moment.astimezone()
    zone = local.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{local:%Y-%m-%dT%H:%M:%S}{'' if nanoseconds is None else f'.{nanoseconds:09}'}{zone}"


def from_nanoseconds(since_epoch: int) -> str:
    """Write a time that is given in nanoseconds since the epoch, all nine digits of its second shown."""
    seconds, rest = divmod(since_epoch, 1_000_000_000)
    return rfc3339(datetime.fromtimestamp(seconds, UTC), rest)


def clock(seconds: float) -> str:
    """Write a time that is left or has passed: "1:02:03", "02:03"."""
    minutes, rest = divmod(int(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"

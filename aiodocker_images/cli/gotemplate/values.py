"""Values with the types that they have in the docker CLI, on which it depends how Go's templates write them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final, TypeAlias, cast

__all__ = [
    "MAX_TEXT",
    "CallError",
    "Duration",
    "Int64",
    "List",
    "Map",
    "Moment",
    "NilPointer",
    "Number",
    "Struct",
    "TemplateError",
    "Value",
    "bounded",
    "is_nil",
    "truth",
    "type_name",
    "untyped",
]

Value: TypeAlias = object
"""None (nil, or nothing at all), bool, int, float, str, or one of the classes below."""

_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9})[0-9]*)?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_NANOSECONDS: Final = (("ms", 1_000_000), ("µs", 1_000), ("ns", 1))
_SECOND: Final = 1_000_000_000


MAX_TEXT: Final = 16 << 20
"""Characters of one text that a template makes: ten `print $x $x`, each of the one before, make a thousand times $x."""


class CallError(ValueError):
    """A function of a template cannot do anything with its arguments."""


class TemplateError(ValueError):
    """A template that cannot be read, or not with these values. `written` is what came before the fault."""

    written = ""


class Int64(int):
    """A number from an Engine."""


class Number(str):
    """A number of a document without types, as it was written."""

    __slots__ = ()


class Moment(str):
    """A time as RFC 3339 writes it; Go's templates show it in its own form."""

    __slots__ = ()

    def shown(self) -> str:
        """Write it as Go does by default: "2026-11-25 01:20:32.5 +0000 UTC"."""
        match = _TIME.fullmatch(self or "0001-01-01T00:00:00Z")
        if match is None:
            return str(self)
        date, clock, fraction, zone = match.groups()
        rest = f".{fraction}".rstrip("0").rstrip(".") if fraction else ""
        offset, name = ("+0000", "UTC") if zone in "Zz" else _zone(f"{date}T{clock}{zone}", zone)
        return f"{date} {clock}{rest} {offset} {name}"


def _zone(moment: str, zone: str) -> tuple[str, str]:
    """Return an offset and its name, which Go knows if it is the local one at that time."""
    offset = zone.replace(":", "")
    try:
        local = datetime.fromisoformat(moment).astimezone()
    except (ValueError, OverflowError, OSError):
        return offset, offset
    minutes = int(zone[1:3]) * 60 + int(zone[4:])
    own = local.utcoffset() == timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes)).utcoffset(None)
    return offset, local.tzname() or offset if own else offset


class Duration(int):
    """A length of time in nanoseconds."""

    def shown(self) -> str:
        """Write it as Go does: "1h2m3.5s"."""
        sign, left = ("-", -int(self)) if self < 0 else ("", int(self))
        if left < _SECOND:
            for unit, size in _NANOSECONDS:
                if left >= size:
                    return f"{sign}{_decimal(left, size)}{unit}"
            return "0s"
        minutes, seconds = divmod(left, 60 * _SECOND)
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(seconds, _SECOND)}s"
        if hours or minutes:
            text = f"{minutes}m{text}"
        return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0").rstrip(".") if rest else str(whole)


class List(list[Value]):
    """A slice; `nil` is what an Engine left out, which JSON has as null."""

    def __init__(self, items: Iterable[Value] = (), type_name: str = "[]interface {}", *, nil: bool = False) -> None:
        super().__init__(items)
        self.type_name = type_name
        self.nil = nil


class Map(dict[str, Value]):
    """A map from text; `zero` is what `index` finds where nothing is."""

    def __init__(
        self,
        items: Mapping[str, Value] | None = None,
        type_name: str = "map[string]interface {}",
        *,
        zero: Value = None,
        nil: bool = False,
    ) -> None:
        super().__init__(items or {})
        self.type_name = type_name
        self.zero = zero
        self.nil = nil


@dataclass(frozen=True)
class Struct:
    """A struct. `members` has its fields and methods by name, in order.

    `json` are the members as JSON has them, in its order. `html_safe`: JSON escapes `<`, `>` and `&` in it. `parts`
    are the values that `{}` shows, if they are not all members: an embedded struct is one of them.
    """

    type_name: str
    members: Mapping[str, Value]
    json: Callable[[], Mapping[str, Value]]
    html_safe: bool = False
    parts: Mapping[str, Value] | None = None


@dataclass(frozen=True)
class NilPointer:
    """A pointer to nothing, where a struct of that type would be."""

    type_name: str


def bounded(pieces: Iterable[str], separator: str = "") -> str:
    """Join texts. Raises `CallError` before the whole is longer than `MAX_TEXT`."""
    kept: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece) + len(separator)
        if length > MAX_TEXT:
            raise CallError(f"the text would be longer than {MAX_TEXT >> 20} MiB")
        kept.append(piece)
    return separator.join(kept)


def untyped(document: object) -> Value:
    """Return a decoded JSON document as Go has it without a type: numbers keep the form in which they were written."""
    match document:
        case bool() | str() | None:
            return document
        case int():
            return Number(document)
        case float():
            return Number(repr(document))
        case Mapping():
            return Map({key: untyped(value) for key, value in cast("Mapping[str, object]", document).items()})
        case Sequence():
            return List(map(untyped, cast("Sequence[object]", document)))
        case _:
            return str(document)


_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "bool"),
    (Duration, "time.Duration"),
    (Int64, "int64"),
    (int, "int"),
    (float, "float64"),
    (Number, "json.Number"),
    (Moment, "time.Time"),
    (str, "string"),
)


def type_name(value: Value) -> str:
    """Return the name of a value's type in Go."""
    if isinstance(value, List | Map | Struct | NilPointer):
        return value.type_name
    return next((name for kind, name in _NAMES if isinstance(value, kind)), "<nil>")


def is_nil(value: Value) -> bool:
    """Whether a value is Go's nil, of whatever type."""
    return value is None or isinstance(value, NilPointer) or (isinstance(value, List | Map) and value.nil)


def truth(value: Value) -> bool:
    """Whether a value counts as true for `if`, `with`, `and`, `or` and `not`: what is not empty or zero."""
    if isinstance(value, Moment | Struct):
        return True
    return not isinstance(value, NilPointer) and bool(value)

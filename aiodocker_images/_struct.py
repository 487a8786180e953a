"""How an answer of the Engine becomes a frozen struct: null, absent and differently written values included. Pure."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Optional, TypeVar, get_type_hints

import msgspec

from ._document import Document

__all__ = ["UNDECODABLE", "Model", "Nullable", "UnixTime", "WireTime", "in_utc"]

T = TypeVar("T")

UNDECODABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding a document raises. ValueError: it is no UTF-8; and msgspec 0.22 says so of a time in the first second
of the year 10000."""

_YEAR_10000: Final = 253_402_300_800  # in seconds since the epoch

if TYPE_CHECKING:
    # A field never is null for who reads it, but may be on the wire: Model.__post_init__ stands between.
    Nullable = Annotated[T, "null becomes the default"]
    WireTime = datetime | None
    UnixTime = datetime | None
else:
    Nullable = Optional
    # Becomes datetime | None. RFC 3339 text with nanoseconds, or seconds since the epoch; "" and the year 1 mean that
    # it is unknown.
    WireTime = Annotated[Any, msgspec.Meta(extra_json_schema={"type": ["string", "null"], "format": "date-time"})]
    # Seconds since the epoch, which msgspec makes a datetime of by itself, if it is not strict.
    UnixTime = Annotated[datetime, msgspec.Meta(tz=True)] | None


class Model(Document, frozen=True, kw_only=True, rename="pascal"):
    """A frozen struct decoded from an answer of the Engine."""

    def __post_init__(self) -> None:
        # This runs for each of the thousand images of a list: no call in it that is not needed.
        read, nullable, times = _MENDS.get(type(self)) or _mends(type(self))
        if None in read(self):  # all fields in one call in C
            for name, mend in nullable:
                if getattr(self, name) is None:
                    msgspec.structs.force_setattr(self, name, mend())
        for name in times:
            value = getattr(self, name)
            if type(value) is int and 0 <= value < _YEAR_10000:
                msgspec.structs.force_setattr(self, name, datetime.fromtimestamp(value, UTC))
            elif value is not None:
                msgspec.structs.force_setattr(self, name, _timestamp(value))


class _Mends(NamedTuple):
    """The fields of a model whose wire value may differ from the declared one."""

    read: Callable[[object], tuple[Any, ...]]  # all that may be null
    nullable: tuple[tuple[str, Callable[[], Any]], ...]  # with what makes their default
    times: tuple[str, ...]


_MENDS: Final[dict[type[Model], _Mends]] = {}


def _mends(model: type[Model]) -> _Mends:
    hints = get_type_hints(model, include_extras=True)
    nullable: list[tuple[str, Callable[[], Any]]] = []
    times: list[str] = []
    for info in msgspec.structs.fields(model):
        if hints[info.name] is WireTime:
            times.append(info.name)
        elif info.default_factory is not msgspec.NODEFAULT:
            nullable.append((info.name, info.default_factory))
        elif info.default not in (msgspec.NODEFAULT, None):
            nullable.append((info.name, functools.partial(_same, info.default)))
    names = [name for name, _ in nullable]
    # Of a single name, attrgetter would return the value itself, and of none there is none.
    read = operator.attrgetter(*names, names[0]) if names else _nothing
    _MENDS[model] = mends = _Mends(read, tuple(nullable), tuple(times))
    return mends


def _nothing(_: object) -> tuple[Any, ...]:
    return ()


def _same(default: object) -> object:
    return default


def in_utc(moment: datetime) -> datetime | None:
    """Return a time of the Engine in UTC; None for the zero time of Go, which means that it is unknown.

    Raises ValueError for one that is beyond the year 9999 there.
    """
    if moment.year == 1:
        return None
    try:
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is beyond the year 9999") from None


def _timestamp(value: object) -> datetime | None:
    """Convert a time of the Engine to UTC; the zero time of Go and an empty text mean that it is unknown."""
    if isinstance(value, datetime):
        return value
    if value == "":
        return None
    moment = msgspec.convert(value, datetime, strict=False)
    return in_utc(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))

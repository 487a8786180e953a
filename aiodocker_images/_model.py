"""How an answer of the Engine becomes a frozen struct: null, absent and differently written values included. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar, get_type_hints

import msgspec

__all__ = ["Model", "Nullable", "Timestamp"]

T = TypeVar("T")

if TYPE_CHECKING:
    # A field never is null for who reads it, but may be on the wire: Model.__post_init__ stands between.
    Nullable = Annotated[T, "null becomes the default"]
    Timestamp = datetime | None
else:
    Nullable = Optional
    # RFC 3339 text with nanoseconds or seconds since the epoch; "", 0 and the year 1 mean unknown.
    Timestamp = Annotated[Any, "becomes datetime | None"]


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A frozen struct decoded from an answer of the Engine."""

    def __post_init__(self) -> None:
        for name, mend in _mends(type(self)):
            value = getattr(self, name)
            if value is None or mend is _timestamp:
                msgspec.structs.force_setattr(self, name, mend(value))


@functools.cache
def _mends(model: type[Model]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """List the fields whose wire value may differ from the declared one, with what mends it."""
    hints = get_type_hints(model, include_extras=True)
    mends: list[tuple[str, Callable[[Any], Any]]] = []
    for info in msgspec.structs.fields(model):
        if hints[info.name] is Timestamp:
            mends.append((info.name, _timestamp))
        elif info.default_factory is not msgspec.NODEFAULT:
            mends.append((info.name, functools.partial(_from_factory, info.default_factory)))
        elif info.default not in (msgspec.NODEFAULT, None):
            mends.append((info.name, functools.partial(_from_default, info.default)))
    return tuple(mends)


def _from_factory(factory: Callable[[], Any], _null: None) -> object:
    return factory()


def _from_default(default: object, _null: None) -> object:
    return default


def _timestamp(value: object) -> datetime | None:
    """Convert a time of the Engine; the zero time of Go, an empty text and 0 mean that it is unknown."""
    if isinstance(value, datetime):
        return value
    if not value or not isinstance(value, str | int | float):
        return None
    moment = msgspec.convert(value, datetime, strict=False)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment if moment.year > 1 else None

"""Decode an answer in which something is not as it should be: an odd value costs its own field and nothing else. Pure.

The usual way to decode is msgspec's, all at once and strict. This module is asked only when that has failed. It
decodes the same document in pieces: each piece strictly at first, and one that fails again in its own pieces. So a
text where a number belongs, a time outside of Python's years or a null in a list costs at most the one field, which
then has its default. Every such loss is reported as a text that names the image and the field.

Pieces are kept as slices of the answer until they are decoded, and what no model knows is never decoded. So the
memory that this takes is bounded like that of the strict way.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar, Union, cast, get_args, get_origin

import msgspec

from ._struct import UNDECODABLE
from .errors import shown

__all__ = ["UndecodableError", "decode_leniently"]

T = TypeVar("T")

_Kind: TypeAlias = Any  # a type, or an annotation, as msgspec takes it
_Value: TypeAlias = Any  # one of that type

MAX_PIECES: Final = 4_000_000
"""Commas in a list or map that is decoded in pieces, which take 50 bytes each."""

MAX_DIGITS: Final = 40
"""Digits of a number that is written as a text: Python takes quadratic time to read one."""

MAX_FLAWS: Final = 100
"""Losses that are reported of one answer; of further ones only the number."""

# A surrogate pair, half of one, or another escaped character.
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE: Final = re.compile(rb"%b%b|%b|%b|\\." % (_HIGH, _LOW, _HIGH, _LOW), re.DOTALL)

_ABSENT: Final = msgspec.Raw(b"")
_CONTAINERS: Final = (b"[", b"{")


class UndecodableError(ValueError):
    """A piece, or the whole answer, has nothing in it that its type could take."""


def decode_leniently(data: bytes | bytearray, kind: type[T], *, strict: bool = True) -> tuple[T, list[str]]:
    """Decode a document as `kind`; return it, and what was lost: "[3] ('sha256:…').Created: …".

    `strict` as for msgspec. Raises `UndecodableError`, or one of `UNDECODABLE`, for what is not a JSON document of this
    kind at all.
    """
    reader = _Reader(strict=strict)
    try:
        raw = msgspec.json.decode(data, type=msgspec.Raw)
    except UNDECODABLE:
        raw = msgspec.json.decode(_ESCAPE.sub(_without_surrogate, data), type=msgspec.Raw)
    return cast("T", reader.read(raw, kind, "")), reader.report()


def _without_surrogate(escape: re.Match[bytes]) -> bytes:
    """Replace half of a surrogate pair, as Go does. msgspec 0.22 takes a document with one for a cut one."""
    return escape[0] if len(escape[0]) in {2, 12} else rb"\ufffd"


class _Reader:
    """Reads one document, and notes what it loses."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._flaws: list[str] = []
        self._lost = 0

    def report(self) -> list[str]:
        more = self._lost - len(self._flaws)
        return [*self._flaws, f"and {more} more"] if more else self._flaws

    def read(self, raw: msgspec.Raw, kind: _Kind, where: str) -> _Value:
        """Return the value of a piece; raise `UndecodableError` if it has none of this kind."""
        try:
            return _decoder(kind, self._strict).decode(raw)
        except UNDECODABLE as error:
            reason = str(error).partition(" - at `$")[0]
        kinds = _alternatives(kind)
        if len(kinds) == 1 and (reader := self._reader(kinds[0])) is not None:
            return reader(raw, kinds[0], where)
        if (value := _scalar(raw, kinds)) is not None:
            return value
        raise UndecodableError(reason)

    def _reader(self, kind: _Kind) -> Callable[[msgspec.Raw, _Kind, str], _Value] | None:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._struct
        origin = _origin(kind)
        if origin in (tuple, list):
            return self._sequence
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping
        return None

    def _struct(self, raw: msgspec.Raw, kind: type[msgspec.Struct], where: str) -> msgspec.Struct:
        try:
            pieces = _decoder(_in_pieces(kind), True).decode(raw)
        except UNDECODABLE as error:
            raise UndecodableError(f"expected an object of {kind.__name__}") from error
        flaws, values = self._apart(), dict[str, Any]()
        for field in msgspec.structs.fields(kind):
            if (piece := getattr(pieces, field.name)) is _ABSENT:
                continue
            try:
                values[field.name] = flaws.read(piece, field.type, field.encode_name)
            except UndecodableError as error:
                flaws.lose(field.encode_name, str(error))
        value = self._made(kind, values, flaws)
        # An image is named by its id, wherever in a list it is.
        name = getattr(value, "id", None) or getattr(value, "digest", None)
        named = f"{where} ({shown(name)})" if where and isinstance(name, str) and name else where
        self._take(flaws, f"{named}." if named else "")
        return value

    def _made(self, kind: type[msgspec.Struct], values: dict[str, Any], flaws: _Reader) -> msgspec.Struct:
        """Make the struct; a value that only its `__post_init__` refuses, such as a time, is lost."""
        try:
            return kind(**values)
        except UNDECODABLE:
            kept: dict[str, Any] = {}
            for field in msgspec.structs.fields(kind):
                if field.name not in values:
                    continue
                try:
                    kind(**{field.name: values[field.name]})
                except UNDECODABLE as error:
                    flaws.lose(field.encode_name, str(error))
                else:
                    kept[field.name] = values[field.name]
            return kind(**kept)

    def _sequence(self, raw: msgspec.Raw, kind: _Kind, where: str) -> _Value:
        item = get_args(kind)[0]
        text = bytes(raw)
        if text == b"null":
            return _origin(kind)()
        if text.startswith(b'"') and _alternatives(item) == (str,):
            # As Go's clients do: before API 1.20, a command of one word was a text.
            return _origin(kind)((self.read(raw, item, where),))
        _check_size(text)
        try:
            pieces = msgspec.json.decode(text, type=list[msgspec.Raw])
        except UNDECODABLE as error:
            raise UndecodableError("expected a list") from error
        values: list[Any] = []
        for index, piece in enumerate(pieces):
            try:
                values.append(self.read(piece, item, f"{where}[{index}]"))
            except UndecodableError as error:
                self.lose(f"{where}[{index}]", str(error))
        return _origin(kind)(values)

    def _mapping(self, raw: msgspec.Raw, kind: _Kind, where: str) -> dict[str, Any]:
        item = get_args(kind)[1]
        text = bytes(raw)
        if text == b"null":
            return {}
        _check_size(text)
        try:
            pieces = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except UNDECODABLE as error:
            raise UndecodableError("expected a map") from error
        values: dict[str, Any] = {}
        for key, piece in pieces.items():
            if item is str and bytes(piece) == b"null":
                values[key] = ""  # as Go reads it
                continue
            try:
                values[key] = self.read(piece, item, f"{where}[{shown(key)}]")
            except UndecodableError as error:
                self.lose(f"{where}[{shown(key)}]", str(error))
        return values

    def _apart(self) -> _Reader:
        return _Reader(strict=self._strict)

    def lose(self, where: str, reason: str) -> None:
        """Note that the value of a field is lost."""
        self._lost += 1
        if len(self._flaws) < MAX_FLAWS:
            self._flaws.append(f"{where}: {reason}" if where else reason)

    def _take(self, other: _Reader, prefix: str) -> None:
        """Take in what was lost of a struct."""
        self._flaws += [f"{prefix}{flaw}" for flaw in other._flaws[: MAX_FLAWS - len(self._flaws)]]
        self._lost += other._lost


def _origin(kind: _Kind) -> _Kind:
    return get_origin(kind)  # which mypy takes for that of a ParamSpec


def _check_size(text: bytes) -> None:
    if len(text) > MAX_PIECES and text.count(b",") > MAX_PIECES:
        raise UndecodableError(f"more than {MAX_PIECES} members")


@functools.lru_cache(maxsize=256)
def _decoder(kind: _Kind, strict: bool) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=strict)


@functools.lru_cache(maxsize=256)
def _alternatives(kind: _Kind) -> tuple[Any, ...]:
    """Return the types that a value may have, without None and annotations."""
    if hasattr(kind, "__metadata__"):  # Annotated
        return _alternatives(get_args(kind)[0])
    if _origin(kind) in (Union, types.UnionType):
        return tuple(each for member in get_args(kind) if member is not type(None) for each in _alternatives(member))
    return (kind,)


@functools.lru_cache(maxsize=256)
def _in_pieces(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Make the struct that has the same fields, each undecoded."""
    fields = msgspec.structs.fields(kind)
    return msgspec.defstruct(
        f"{kind.__name__}InPieces",
        [(field.name, msgspec.Raw, _ABSENT) for field in fields],
        rename={field.name: field.encode_name for field in fields},
    )


def _scalar(raw: msgspec.Raw, kinds: tuple[Any, ...]) -> _Value:
    """Return what a text, a number or a flag that is written as one of the others means; None for nothing."""
    text = bytes(raw)
    if text.startswith(_CONTAINERS) or text == b"null":
        return None
    try:
        value = msgspec.json.decode(text.decode("utf-8", "replace"))
    except UNDECODABLE:
        return None  # such as half of a surrogate pair
    if str in kinds:
        return value if isinstance(value, str) else text.decode("ascii")
    if bool in kinds:
        return {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())
    if int in kinds or float in kinds:
        return _number(value, whole=float not in kinds)
    if datetime in kinds and not isinstance(value, bool):
        try:
            return msgspec.convert(value, datetime, strict=False)
        except UNDECODABLE:
            return None
    return None


def _number(value: object, *, whole: bool) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        if isinstance(value, str):
            if len(value) > MAX_DIGITS:
                return None
            value = int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
        number = int(value) if isinstance(value, int) or value.is_integer() else value
    except (ValueError, OverflowError):
        return None
    return None if whole and not isinstance(number, int) else number

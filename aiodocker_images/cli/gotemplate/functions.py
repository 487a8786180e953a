"""What templates can call: Go's own functions, and the docker CLI's. Pure."""

from __future__ import annotations

import itertools
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from .printing import as_json, printed, quoted, sprint, sprintf, sprintln
from .values import MAX_TEXT, CallError, List, Map, Moment, NilPointer, Value, bounded, is_nil, truth, type_name

__all__ = ["FUNCTIONS", "HEADER_FUNCTIONS", "Function"]


@dataclass(frozen=True)
class Function:
    """A function of templates: what its parameters are ("string", "int" or "any"), and whether the last repeats."""

    call: Callable[..., Value]
    parameters: tuple[str, ...]
    variadic: bool = False


def _json(value: Value) -> str:
    return as_json(value)


def _split(text: str, separator: str) -> List:
    parts = text.split(separator) if separator else [*text]
    return List(parts, "[]string")


def _join(items: Value, separator: str) -> str:
    match items:
        case None:
            return ""
        case List():
            return bounded(map(printed, items), separator)
        case Map():
            return bounded(sorted(map(printed, items.values())), separator)
        case _:
            raise CallError(f"expected slice, got {type_name(items)}")


def _title(text: str) -> str:
    before, pieces = " ", list[str]()
    for character in text:
        begins = not (before.isalnum() or before == "_") and (before.isascii() or before.isspace())
        pieces.append(_upper(character) if begins else character)
        before = character
    return "".join(pieces)


def _upper(text: str) -> str:
    return "".join(each.upper() if len(each.upper()) == 1 else each for each in text)


def _lower(text: str) -> str:
    return "".join(each.lower() if len(each.lower()) == 1 else each for each in text)


def _pad(text: str, before: int, after: int) -> str:
    if not text:
        return text
    for count in (before, after):
        if count < 0:
            raise CallError("strings: negative Repeat count")
        if count > MAX_TEXT:
            raise CallError(f"the text would be longer than {MAX_TEXT >> 20} MiB")
    return " " * before + text + " " * after


def _truncate(text: str, length: int) -> str:
    if length < 0:
        raise CallError(f"slice bounds out of range [:{length}]")
    return _cut(text, 0, length)


def _cut(text: str, start: int, end: int | None) -> str:
    """Cut by bytes, as Go does; of a character that is cut in two, a replacement is left."""
    if text.isascii():
        return text[start:end]
    return text.encode("utf-8", "replace")[start:end].decode("utf-8", "replace")


def _length(value: Value) -> int:
    match value:
        case None | NilPointer():
            raise CallError("len of nil pointer")
        case Moment():
            raise CallError(f"len of type {type_name(value)}")
        case str():
            return len(value.encode("utf-8", "replace"))
        case List() | Map():
            return len(value)
        case _:
            raise CallError(f"len of type {type_name(value)}")


def _position(index: Value, length: int, *, end: bool = False) -> int:
    if index is None:
        raise CallError("cannot index slice/array with nil")
    if not isinstance(index, int) or isinstance(index, bool):
        raise CallError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index < length + end:
        raise CallError(f"index out of range: {int(index)}")
    return int(index)


def _index(value: Value, *indexes: Value) -> Value:
    if value is None:
        raise CallError("index of untyped nil")
    for index in indexes:
        match value:
            case Map():
                if not isinstance(index, str):
                    shown = "nil" if index is None else type_name(index)
                    raise CallError(f"value has type {shown}; should be string")
                value = value.get(index, value.zero)
            case List():
                value = value[_position(index, len(value))]
            case str() if not isinstance(value, Moment):
                data = value.encode("utf-8", "replace")
                value = data[_position(index, len(data))]
            case None | NilPointer():
                raise CallError("index of nil pointer")
            case _:
                raise CallError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: Value, *indexes: Value) -> Value:
    if value is None:
        raise CallError("slice of untyped nil")
    if len(indexes) > 3:
        raise CallError(f"too many slice indexes: {len(indexes)}")
    if isinstance(value, List):
        length = len(value)
    elif isinstance(value, str) and not isinstance(value, Moment):
        if len(indexes) == 3:
            raise CallError("cannot 3-index slice a string")
        length = len(value.encode("utf-8", "replace"))
    else:
        raise CallError(f"can't slice item of type {type_name(value)}")
    bounds = [_position(index, length, end=True) for index in indexes]
    for first, second in itertools.pairwise(bounds):
        if first > second:
            raise CallError(f"invalid slice index: {first} > {second}")
    start, end = [*bounds, *(0, length)[len(bounds) :]][:2] if len(bounds) < 2 else bounds[:2]
    if isinstance(value, List):
        return List(value[start:end], value.type_name)
    return _cut(value, start, end)


_KINDS: Final = ((bool, "bool"), (int, "int"), (float, "float"), (str, "string"))


def _kind(value: Value) -> str | None:
    if isinstance(value, Moment):
        return None
    return next((name for kind, name in _KINDS if isinstance(value, kind)), None)


def _equal(first: Value, *others: Value) -> bool:
    if not others:
        raise CallError("missing argument for comparison")
    kind = _kind(first)
    for other in others:
        if kind != _kind(other):
            if first is not None and other is not None:
                raise CallError(f"incompatible types for comparison: {type_name(first)} and {type_name(other)}")
        elif kind is not None:
            if first == other:
                return True
        elif is_nil(first) or is_nil(other):
            if is_nil(first) == is_nil(other):
                return True
        elif isinstance(first, List | Map) or isinstance(other, List | Map):
            raise CallError(f"non-comparable type {printed(first)}: {type_name(first)}")
        elif first == other:
            return True
    return False


def _not_equal(first: Value, second: Value) -> bool:
    return not _equal(first, second)


def _less(first: Value, second: Value) -> bool:
    kind = _kind(first)
    if kind is None or _kind(second) is None:
        raise CallError("invalid type for comparison")
    if kind != _kind(second):
        raise CallError(f"incompatible types for comparison: {type_name(first)} and {type_name(second)}")
    match first, second:
        case str(), str():
            return first.encode("utf-8", "replace") < second.encode("utf-8", "replace")
        case (bool(), _):
            raise CallError("invalid type for comparison")
        case _:
            return cast("float", first) < cast("float", second)


def _less_or_equal(first: Value, second: Value) -> bool:
    return _less(first, second) or _equal(first, second)


def _greater(first: Value, second: Value) -> bool:
    return not _less_or_equal(first, second)


def _greater_or_equal(first: Value, second: Value) -> bool:
    return not _less(first, second)


def _texts(values: Sequence[Value]) -> str:
    """Return what `html`, `js` and `urlquery` escape."""
    if len(values) == 1 and isinstance(values[0], str):
        return printed(values[0])
    return sprint([("<no value>" if value is None else value) for value in values])


_HTML: Final = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"},
)
_JS: Final = str.maketrans(
    {
        "\\": r"\\",
        "'": r"\'",
        '"': r"\"",
        "<": r"\u003C",
        ">": r"\u003E",
        "&": r"\u0026",
        "=": r"\u003D",
        **{chr(code): rf"\u{code:04X}" for code in (*range(0x20), 0x7F)},
    }
)


def _html(*values: Value) -> str:
    return _texts(values).translate(_HTML)


def _js(*values: Value) -> str:
    text = _texts(values).translate(_JS)
    return "".join(each if ord(each) < 0x80 or each.isprintable() else quoted(each)[1:-1] for each in text)


def _urlquery(*values: Value) -> str:
    return urllib.parse.quote_plus(_texts(values), safe="~", encoding="utf-8", errors="replace")


def _printf(template: str, *values: Value) -> str:
    return sprintf(template, values)


def _print(*values: Value) -> str:
    return sprint(values)


def _println(*values: Value) -> str:
    return sprintln(values)


def _not(value: Value) -> bool:
    return not truth(value)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "eq": Function(_equal, ("any", "any"), variadic=True),
    "ge": Function(_greater_or_equal, ("any", "any")),
    "gt": Function(_greater, ("any", "any")),
    "html": Function(_html, ("any",), variadic=True),
    "index": Function(_index, ("any", "any"), variadic=True),
    "js": Function(_js, ("any",), variadic=True),
    "le": Function(_less_or_equal, ("any", "any")),
    "len": Function(_length, ("any",)),
    "lt": Function(_less, ("any", "any")),
    "ne": Function(_not_equal, ("any", "any")),
    "not": Function(_not, ("any",)),
    "print": Function(_print, ("any",), variadic=True),
    "printf": Function(_printf, ("string", "any"), variadic=True),
    "println": Function(_println, ("any",), variadic=True),
    "slice": Function(_slice, ("any", "any"), variadic=True),
    "urlquery": Function(_urlquery, ("any",), variadic=True),
    "join": Function(_join, ("any", "string")),
    "json": Function(_json, ("any",)),
    "lower": Function(_lower, ("string",)),
    "pad": Function(_pad, ("string", "int", "int")),
    "split": Function(_split, ("string", "string")),
    "title": Function(_title, ("string",)),
    "truncate": Function(_truncate, ("string", "int")),
    "upper": Function(_upper, ("string",)),
}
"""Those that take their arguments as they come. `and` and `or`, which stop at the first that decides, are not here."""


def _same(text: str, *_: Value) -> str:
    return text


_LEFT_ALONE: Final = {
    "join": ("string", "string"),
    "json": ("string",),
    "lower": ("string",),
    "split": ("string", "string"),
    "title": ("string",),
    "truncate": ("string", "int"),
    "upper": ("string",),
}

HEADER_FUNCTIONS: Final[Mapping[str, Function]] = {
    **FUNCTIONS,
    **{name: Function(_same, parameters) for name, parameters in _LEFT_ALONE.items()},
}
"""The same for the headings of a table, which stay as they are where values are split, cut and so on."""

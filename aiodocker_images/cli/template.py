"""The part of Go's templates that `--format` takes: text, `{{.Field.Field}}` and `{{json .Field}}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

import msgspec

__all__ = ["Template", "TemplateError"]

_ACTION: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELD: Final = re.compile(r"\s*(json\s+)?(\.|(?:\.[A-Za-z_][A-Za-z0-9_]*)+)\s*")
_ESCAPES: Final = {"\\t": "\t", "\\n": "\n"}


class TemplateError(ValueError):
    """A template that is none, needs more than is known here, or names what is not there."""


class Template:
    """A template, read once; `fill()` puts the values of a JSON object into it."""

    def __init__(self, text: str) -> None:
        pieces: list[Callable[[object], str]] = []
        end = 0
        for match in _ACTION.finditer(text):
            pieces.append(_text(text[end : match.start()]))
            pieces.append(_field(match[1]))
            end = match.end()
        rest = text[end:]
        if "{{" in rest:
            raise TemplateError(f"the template {text[:80]!r} has a {{{{ without its }}}}")
        pieces.append(_text(rest))
        self.fields = [match[1].strip() for match in _ACTION.finditer(text)]
        self._pieces = pieces

    def fill(self, values: object) -> str:
        """Return the text with the values in it. Raises `TemplateError` for a field that is not there."""
        return "".join(piece(values) for piece in self._pieces)


def _text(text: str) -> Callable[[object], str]:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return lambda _: text


def _field(action: str) -> Callable[[object], str]:
    match = _FIELD.fullmatch(action)
    if match is None:
        raise TemplateError(
            f"{{{{{action[:80]}}}}} is beyond what is understood here, {{{{.Field}}}} and {{{{json .Field}}}}:"
            " take --format json, and a program that reads JSON"
        )
    names = [name for name in match[2].split(".") if name]
    write = _as_json if match[1] else _as_go_writes_it

    def value(values: object) -> str:
        for name in names:
            if not isinstance(values, Mapping):
                raise TemplateError(f"there is no field .{'.'.join(names)}: what is before .{name} has none")
            fields = cast("Mapping[str, object]", values)
            if name not in fields:
                raise TemplateError(f"there is no field .{name}; there are {', '.join(fields) or 'none'}")
            values = fields[name]
        return write(values)

    return value


def _as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _as_go_writes_it(value: object) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case Mapping():
            items = cast("Mapping[str, object]", value)
            return f"map[{' '.join(f'{name}:{_as_go_writes_it(items[name])}' for name in sorted(items))}]"
        case str():
            return value
        case Sequence():
            return f"[{' '.join(map(_as_go_writes_it, cast('Sequence[object]', value)))}]"
        case _:
            return str(value)

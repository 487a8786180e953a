"""Values as text: as Go's fmt prints them, by the verbs of its printf, and as JSON. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .values import Duration, List, Map, Moment, NilPointer, Number, Struct, Value, bounded, type_name

__all__ = ["as_json", "printed", "quoted", "sprint", "sprintf", "sprintln"]

MAX_WIDTH: Final = 1_000_000
"""Of a field and of a precision, as in Go: a short template could ask for any amount of blanks."""

_INDEX: Final = r"(\[[^\[\]%]{0,20}\])?"
_NUMBER: Final = r"(\*|[0-9]{1,9})?"
_DIRECTIVE: Final = re.compile(rf"%([-+# 0]*){_INDEX}{_NUMBER}(?:(\.){_INDEX}{_NUMBER})?{_INDEX}(.)?", re.DOTALL)
_SHOWN: Final = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
_EXPONENTS: Final = (-4, 6)  # between which Go writes a number without one


@dataclass(frozen=True)
class _Flags:
    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    width: int | None = None
    precision: int | None = None


_NO_FLAGS: Final = _Flags()


def printed(value: Value) -> str:
    """Write a value as `{{.Field}}` does."""
    return value if type(value) is str else _formatted(value, "v", _NO_FLAGS)


def sprint(values: Sequence[Value]) -> str:
    """Write values as `print` does: with a blank between two of which neither is a text."""
    return bounded(_spaced(values))


def _spaced(values: Sequence[Value]) -> Iterator[str]:
    for number, value in enumerate(values):
        if number and not (type(value) is str or type(values[number - 1]) is str):
            yield " "
        yield printed(value)


def sprintln(values: Sequence[Value]) -> str:
    """Write values as `println` does."""
    return f"{bounded(map(printed, values), ' ')}\n"


def sprintf(template: str, values: Sequence[Value]) -> str:
    """Write values by a template of fmt; what is wrong with it is written where it is, as Go does."""
    return bounded(_directed(template, values))


def _directed(template: str, values: Sequence[Value]) -> Iterator[str]:
    arguments = _Arguments(values)
    end = 0
    while (start := template.find("%", end)) >= 0:
        yield template[end:start]
        match = _DIRECTIVE.match(template, start)
        if match is None:  # never: all parts of it are optional
            break
        end = match.end()
        yield _directive(match, arguments)
    yield template[end:]
    if not arguments.reordered and (extra := values[arguments.next :]):
        shown = ("<nil>" if each is None else f"{type_name(each)}={printed(each)}" for each in extra)
        yield f"%!(EXTRA {bounded(shown, ', ')})"


class _Arguments:
    """What printf writes, one after the other, or by number."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values
        self.next = 0
        self.reordered = False
        self.bad_index = False

    def choose(self, index: str | None) -> None:
        if index is None:
            return
        self.reordered = True
        text = index[1:-1]
        number = int(text) if text.isascii() and text.isdecimal() else 0
        if 1 <= number <= len(self.values):
            self.next = number - 1
        else:
            self.bad_index = True

    def take(self) -> tuple[bool, Value]:
        if self.next >= len(self.values):
            return False, None
        self.next += 1
        return True, self.values[self.next - 1]

    def number(self, text: str | None, problem: str, problems: list[str]) -> int | None:
        if text is None:
            return None
        if text != "*":
            value: Value = int(text)
        else:
            _, value = self.take()
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WIDTH:
            return value
        problems.append(problem)
        return None


def _directive(match: re.Match[str], arguments: _Arguments) -> str:
    signs, index, width_text, dot, precision_index, precision_text, last_index, verb = match.groups()
    problems: list[str] = []
    arguments.bad_index = False
    arguments.choose(index)
    width = arguments.number(width_text, "%!(BADWIDTH)", problems)
    arguments.choose(precision_index)
    precision = arguments.number(precision_text, "%!(BADPREC)", problems) if dot else None
    arguments.choose(last_index)
    if verb is None:
        return "%!(NOVERB)"
    minus = "-" in signs or (width is not None and width < 0)
    flags = _Flags(
        minus=minus,
        plus="+" in signs,
        sharp="#" in signs,
        space=" " in signs,
        zero="0" in signs and not minus,
        width=None if width is None else abs(width),
        precision=(max(precision, 0) if precision is not None else 0) if dot else None,
    )
    if verb == "%":
        return "%"
    if arguments.bad_index:
        return f"{''.join(problems)}%!{verb}(BADINDEX)"
    there, value = arguments.take()
    text = _formatted(value, verb, flags) if there else f"%!{verb}(MISSING)"
    return "".join([*problems, text])


def _formatted(value: Value, verb: str, flags: _Flags) -> str:
    if verb == "T":
        return _padded(type_name(value), flags)
    if value is None or isinstance(value, NilPointer):
        return _padded("<nil>", flags) if verb == "v" else f"%!{verb}(<nil>)"
    if isinstance(value, Moment | Duration) and verb in "vsqxX" and (isinstance(value, Moment) or verb in "vsq"):
        return _text(value.shown(), verb, flags)
    match value:
        case bool():
            return _padded("true" if value else "false", flags) if verb in "tv" else _bad(value, verb)
        case int():
            return _integer(value, verb, flags)
        case float():
            return _real(value, verb, flags)
        case str():
            return _text(value, verb, flags)
        case List():
            items = (_formatted(each, verb, flags) for each in value)
            if flags.sharp and verb == "v":
                return f"{value.type_name}(nil)" if value.nil else f"{value.type_name}{{{bounded(items, ', ')}}}"
            return f"[{bounded(items, ' ')}]"
        case Map():
            pairs = (f"{_formatted(key, verb, flags)}:{_formatted(value[key], verb, flags)}" for key in sorted(value))
            if flags.sharp and verb == "v":
                return f"{value.type_name}(nil)" if value.nil else f"{value.type_name}{{{bounded(pairs, ', ')}}}"
            return f"map[{bounded(pairs, ' ')}]"
        case Struct():
            return _struct(value, verb, flags)
        case _:
            return _padded(str(value), flags)


def _struct(value: Struct, verb: str, flags: _Flags) -> str:
    parts = value.members if value.parts is None else value.parts
    written = {name: _formatted(part, verb, flags) for name, part in parts.items()}
    if verb == "v" and flags.sharp:
        return f"{value.type_name}{{{', '.join(f'{name}:{text}' for name, text in written.items())}}}"
    named = verb == "v" and flags.plus
    return f"{{{' '.join(f'{name}:{text}' if named else text for name, text in written.items())}}}"


def _bad(value: Value, verb: str) -> str:
    return f"%!{verb}({type_name(value)}={printed(value)})"


def _padded(text: str, flags: _Flags, *, zero: bool = False) -> str:
    missing = (flags.width or 0) - len(text)
    if missing <= 0:
        return text
    if flags.minus:
        return text + " " * missing
    return ("0" if flags.zero and zero else " ") * missing + text


def _text(value: str, verb: str, flags: _Flags) -> str:
    if verb in "xX":
        data = value.encode("utf-8", "replace")[: flags.precision]
        pairs = [f"{byte:02X}" if verb == "X" else f"{byte:02x}" for byte in data]
        prefix = f"0{verb}" if flags.sharp and pairs else ""
        joint = f" {prefix}" if flags.space else ""
        return _padded(prefix + joint.join(pairs), flags, zero=True)
    text = str(value) if flags.precision is None else str(value)[: flags.precision]
    if verb == "s" or (verb == "v" and not flags.sharp):
        return _padded(text, flags, zero=True)
    if verb in "qv":
        raw = (
            verb == "q" and flags.sharp and "`" not in text and all(each.isprintable() or each == "\t" for each in text)
        )
        return _padded(f"`{text}`" if raw else quoted(text, ascii_only=flags.plus), flags, zero=True)
    return _bad(value, verb)


def quoted(text: str, *, ascii_only: bool = False, mark: str = '"') -> str:
    """Quote a text as Go's source has it."""
    pieces = [mark]
    for character in text:
        code = ord(character)
        if character in (mark, "\\"):
            pieces.append(f"\\{character}")
        elif character.isprintable() and (code < 0x80 or not ascii_only):
            pieces.append(character)
        elif character in _SHOWN:
            pieces.append(_SHOWN[character])
        elif code < 0x80:
            pieces.append(f"\\x{code:02x}")
        else:
            pieces.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join([*pieces, mark])


_BASES: Final = {"d": ("", "d"), "v": ("", "d"), "b": ("0b", "b"), "o": ("0", "o"), "x": ("0x", "x"), "X": ("0X", "X")}


def _integer(value: int, verb: str, flags: _Flags) -> str:
    if verb in "cqU":
        return _rune(value, verb, flags)
    if verb == "O":
        prefix, base = "0o", "o"
    elif verb in _BASES:
        prefix, base = _BASES[verb]
        prefix = prefix if flags.sharp else ""
    else:
        return _bad(value, verb)
    digits = format(abs(int(value)), base)
    sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
    if flags.precision is not None:
        digits = "" if flags.precision == 0 and value == 0 else digits.rjust(flags.precision, "0")
    elif flags.zero and flags.width is not None:
        digits = digits.rjust(flags.width - len(sign), "0")
    return _padded(f"{sign}{prefix}{digits}", flags)


def _rune(value: int, verb: str, flags: _Flags) -> str:
    character = chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF else "\ufffd"
    if verb == "c":
        return _padded(character, flags)
    if verb == "q":
        return _padded(quoted(character, ascii_only=flags.plus, mark="'"), flags)
    code = f"U+{value & 0xFFFFFFFFFFFFFFFF:04X}"
    return _padded(f"{code} '{character}'" if flags.sharp and character.isprintable() else code, flags)


def _real(value: float, verb: str, flags: _Flags) -> str:
    if verb not in "vgGfFeE":
        return _bad(value, verb)
    if verb in "fFeE":
        text = format(abs(value), f".{6 if flags.precision is None else flags.precision}{verb}")
    elif flags.precision is not None:
        text = format(abs(value), f".{flags.precision or 1}g")
    else:
        text = _shortest(abs(value), *_EXPONENTS)
    text = text.upper() if verb == "G" else text
    sign = "-" if math.copysign(1, value) < 0 else "+" if flags.plus else " " if flags.space else ""
    if flags.zero and flags.width is not None:
        text = text.rjust(flags.width - len(sign), "0")
    return _padded(f"{sign}{text}", flags)


def _shortest(value: float, smallest: int, largest: int) -> str:
    """Write a number that is not negative with as few digits as tell it, with an exponent beyond these two."""
    if value == 0:
        return "0"
    mantissa, _, exponent_text = format(value, f".{len(_digits(value)) - 1}e").partition("e")
    exponent = int(exponent_text)
    if exponent < smallest or exponent >= largest:
        return f"{mantissa}e{exponent:+03d}"
    digits = mantissa.replace(".", "")
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{digits}"
    whole, rest = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{whole}.{rest}" if rest else whole


def _digits(value: float) -> str:
    mantissa = repr(value).partition("e")[0]
    return mantissa.replace(".", "").strip("0") or "0"


_LINES: Final = {"\u2028": r"\u2028", "\u2029": r"\u2029"}
_HTML: Final = {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"}
_SPECIAL: Final = re.compile("[\u2028\u2029<>&\ud800-\udfff]")
_JSON_EXPONENTS: Final = (-6, 21)


def as_json(value: Value, *, html_safe: bool = False) -> str:
    """Write a value as JSON, byte for byte as Go's encoding/json does."""
    match value:
        case None | NilPointer():
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return f"{'-' if value < 0 else ''}{_shortest(abs(value), *_JSON_EXPONENTS)}"
        case Number():
            return str(value)
        case str():
            return _json_text(value, html_safe=html_safe)
        case List():
            if value.nil:
                return "null"
            return f"[{','.join([as_json(each, html_safe=html_safe) for each in value])}]"
        case Map():
            return "null" if value.nil else _json_object({key: value[key] for key in sorted(value)}, html_safe)
        case Struct():
            return _json_object(value.json(), html_safe or value.html_safe)
        case _:
            return _json_text(str(value), html_safe=html_safe)


def _json_object(members: Mapping[str, Value], html_safe: bool) -> str:
    pairs = [
        f"{_json_text(key, html_safe=html_safe)}:{as_json(each, html_safe=html_safe)}" for key, each in members.items()
    ]
    return f"{{{','.join(pairs)}}}"


def _json_text(text: str, *, html_safe: bool) -> str:
    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if "\ud800" <= character <= "\udfff":  # half of a pair, which UTF-8 does not have
            return r"\ufffd"
        return _LINES.get(character) or (_HTML[character] if html_safe else character)

    return _SPECIAL.sub(escaped, json.dumps(text, ensure_ascii=False))

"""The words of a template: text, and what stands in `{{` and `}}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from .printing import quoted
from .values import TemplateError

__all__ = ["KEYWORDS", "Word", "parse_error", "words"]

KEYWORDS: Final = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"})

_TRIMMED: Final = " \t\r\n"

# Each of them is found in one pass: no part of one can be read in two ways.
_WORDS: Final = (
    ("space", re.compile(r"[ \t\r\n]+")),
    ("string", re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')),
    ("raw", re.compile(r"`[^`]*`")),
    ("character", re.compile(r"'(?:[^'\\\n]|\\[^\n])+'")),
    ("number", re.compile(r"[+-]?\.?[0-9](?:[eEpP][+-]|[0-9A-Za-z_.])*")),
    ("field", re.compile(r"\.[^\W\d]\w*")),
    ("dot", re.compile(r"\.")),
    ("variable", re.compile(r"\$\w*")),
    ("name", re.compile(r"[^\W\d]\w*")),
    ("declare", re.compile(r":=")),
    ("mark", re.compile(r"[=|,()]")),
)
_ENDS_WORD: Final = frozenset(" \t\r\n.,|:()=")
_UNTERMINATED: Final = {
    '"': "unterminated quoted string",
    "`": "unterminated raw quoted string",
    "'": "unterminated character constant",
}


@dataclass(frozen=True)
class Word:
    """A word: `kind` is text, open, close, eof, a kind of `_WORDS`, or for a mark or a keyword itself."""

    kind: str
    text: str
    position: int

    def __str__(self) -> str:
        if self.kind == "eof":
            return "EOF"
        if self.text in KEYWORDS:
            return f"<{self.text}>"
        return quoted(self.text[:10]) + ("..." if len(self.text) > 10 else "")


def parse_error(name: str, text: str, position: int, problem: str) -> TemplateError:
    """Return an error as Go words it, which names the line."""
    line = text.count("\n", 0, position) + 1
    return TemplateError(f"template: {name}:{line}: {problem}")


def words(text: str, name: str) -> Generator[Word, None, None]:
    """Yield the words of a template. Raises `TemplateError` for what is not one."""
    place = 0
    trim_left = False
    while True:
        start = text.find("{{", place)
        piece = text[place : start if start >= 0 else len(text)]
        if trim_left:
            piece = piece.lstrip(_TRIMMED)
        if start < 0:
            if piece:
                yield Word("text", piece, place)
            yield Word("eof", "", len(text))
            return
        inner = start + 2
        trim_right = text[inner : inner + 1] == "-" and text[inner + 1 : inner + 2] in tuple(_TRIMMED)
        if trim_right:
            piece = piece.rstrip(_TRIMMED)
            inner += 2
        if piece:
            yield Word("text", piece, place)
        if text.startswith("/*", inner):
            place, trim_left = _comment_end(text, inner, name)
            continue
        yield Word("open", "{{", start)
        place, trim_left = yield from _action(text, inner, name)


def _comment_end(text: str, start: int, name: str) -> tuple[int, bool]:
    end = text.find("*/", start + 2)
    if end < 0:
        raise parse_error(name, text, start, "unclosed comment")
    end += 2
    if text.startswith("}}", end):
        return end + 2, False
    if text[end : end + 1] in tuple(_TRIMMED) and text.startswith("-}}", end + 1):
        return end + 4, True
    raise parse_error(name, text, end, "comment ends before closing delimiter")


def _action(text: str, place: int, name: str) -> Generator[Word, None, tuple[int, bool]]:
    open_parentheses = 0
    started = place
    while True:
        trims = text[place : place + 1] in tuple(_TRIMMED) and text.startswith("-}}", place + 1)
        if trims or text.startswith("}}", place):
            if open_parentheses:
                raise parse_error(name, text, place, "unclosed left paren")
            yield Word("close", text[place : place + 4] if trims else "}}", place)
            return place + (4 if trims else 2), trims
        if place >= len(text):
            raise parse_error(name, text, place, "unclosed action")
        word = _word(text, place, name)
        open_parentheses += (word.kind == "(") - (word.kind == ")")
        if open_parentheses < 0:
            raise parse_error(name, text, place, "unexpected right paren")
        end = place + len(word.text)
        # `{{x -}}`: the blank before the mark is that of the mark.
        if word.kind == "space" and text.startswith("-}}", end) and end - place > 1:
            word = Word("space", word.text[:-1], place)
            end -= 1
        yield word
        place = max(end, started)


def _word(text: str, place: int, name: str) -> Word:
    character = text[place]
    for kind, pattern in _WORDS:
        match = pattern.match(text, place)
        if match is None:
            continue
        found = match[0]
        after = text[match.end() : match.end() + 1]
        if (
            kind in ("name", "field", "variable")
            and after
            and after not in _ENDS_WORD
            and not text.startswith("}}", match.end())
        ):
            raise parse_error(name, text, place, f"bad character U+{ord(after):04X} '{after}'")
        is_its_own_kind = kind == "mark" or (kind == "name" and found in KEYWORDS)
        return Word(found if is_its_own_kind else kind, found, place)
    problem = _UNTERMINATED.get(character)
    if problem is None:
        problem = f"unexpected {quoted(character)} in action" if character.isprintable() else "unrecognized character"
        problem = "expected :=" if character == ":" else problem
    if character in "}{[]!@#%^&*;?<>~/\\" or not character.isprintable():
        shown = f"U+{ord(character):04X}" + (f" '{character}'" if character.isprintable() else "")
        problem = f"unrecognized character in action: {shown}"
    raise parse_error(name, text, place, problem)

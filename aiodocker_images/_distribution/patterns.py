"""Globs and regular expressions over tags that never take more than time proportional to pattern times text. Pure.

Python's `re` goes back and tries again, and takes exponential time for some patterns and texts: `(a|a)*b` is enough.
Here a pattern becomes a machine with several states at once, as in RE2 and Go's `regexp`, and the sets of states that
have been seen are kept, so that a second tag that looks like the first costs one look-up a character. Look-around and
back-references cannot be had in this way, and are refused.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from aiodocker_images._glob import Glob
from aiodocker_images.errors import ConfigError, shown

__all__ = ["GlobPattern", "RegexPattern", "parse_regex"]

MAX_PATTERN: Final = 1000
"""Characters of a pattern; a tag has 128 at most."""

MAX_PROGRAM: Final = 2000
"""Steps that a pattern may have, with its repetitions written out: `a{500}` is 500 of them."""

MAX_EMITTED: Final = 20 * MAX_PROGRAM
"""Parts of a pattern, with its repetitions written out, of which some have no steps."""

MAX_NESTING: Final = 50
"""Parentheses within parentheses."""

MAX_KEPT: Final = 100_000
"""Steps in all sets of them that are kept. There may be exponentially many: then they are forgotten, and made again."""

_DIGITS: Final = frozenset(string.digits)
_WORD: Final = frozenset(string.ascii_letters + string.digits + "_")
_SPACE: Final = frozenset(string.whitespace)
_CLASSES: Final = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


@dataclass(frozen=True, slots=True)
class _Chars:
    """One character: of `chars`, or of all others."""

    chars: frozenset[str]
    negated: bool = False

    def has(self, char: str) -> bool:
        return (char in self.chars) != self.negated


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The beginning of the text, or its end."""

    at_end: bool


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    least: int
    most: int | None


_Node = _Chars | _Anchor | _Sequence | _Choice | _Repeat

_ANY: Final = _Chars(frozenset(), negated=True)


@dataclass(slots=True)
class _Step:
    """A step of the program: a character or an anchor, and then `go`; or, without either, all of `go` at once."""

    test: _Chars | _Anchor | None
    go: list[int]


@dataclass(slots=True)
class _Set:
    """Steps that may be the next at some place of a text, and which set follows on each character seen so far."""

    steps: frozenset[int]
    accepts: bool
    next: dict[str, _Set] = field(default_factory=dict[str, "_Set"])


_MATCH: Final = 0  # the step at which the pattern has matched


class RegexPattern:
    """What a tag, as a whole, has to look like. `text` is the pattern as the user wrote it."""

    def __init__(self, text: str, node: _Node) -> None:
        self.text = text
        self.steps: list[_Step] = [_Step(None, [])]
        self._emitted = 0
        self._first = self._emit(node, _MATCH)
        self.sets: dict[frozenset[int], _Set] = {}
        self._kept = 0
        self._start = self._set({self._first}, at_start=True)

    def matches(self, text: str) -> bool:
        """Whether all of `text` is what the pattern describes."""
        now = self._start
        for char in text:
            following = now.next.get(char)
            if following is None:
                following = self._follow(now, char)
            if not following.steps:
                return False
            now = following
        return now.accepts

    def _emit(self, node: _Node, then: int) -> int:
        """Add the steps of `node`, which go on with `then`; return the first."""
        self._emitted += 1
        if self._emitted > MAX_EMITTED:
            self._repeats_too_much()  # of nothing, as in `((){999}){999}`, which has no steps to count
        if isinstance(node, _Chars | _Anchor):
            return self._add(node, [then])
        if isinstance(node, _Sequence):
            for part in reversed(node.parts):
                then = self._emit(part, then)
            return then
        if isinstance(node, _Choice):
            return self._add(None, [self._emit(part, then) for part in node.parts])
        if node.most is None:
            loop = self._add(None, [then])
            self.steps[loop].go.append(self._emit(node.part, loop))
            then = loop
        else:
            end = then
            for _ in range(node.most - node.least):
                then = self._add(None, [end, self._emit(node.part, then)])
        for _ in range(node.least):
            then = self._emit(node.part, then)
        return then

    def _add(self, test: _Chars | _Anchor | None, go: list[int]) -> int:
        if len(self.steps) >= MAX_PROGRAM:
            self._repeats_too_much()
        self.steps.append(_Step(test, go))
        return len(self.steps) - 1

    def _repeats_too_much(self) -> NoReturn:
        raise ConfigError(
            f"the pattern {shown(self.text)} repeats too much: written out, it has over {MAX_PROGRAM} steps"
        )

    def _follow(self, now: _Set, char: str) -> _Set:
        steps = self.steps
        going = {
            steps[each].go[0] for each in now.steps if isinstance(test := steps[each].test, _Chars) and test.has(char)
        }
        if self._kept > MAX_KEPT:
            for each in (self._start, *self.sets.values()):
                each.next.clear()
            self.sets = {}
            self._kept = 0
        following = now.next[char] = self._set(going, at_start=False)
        return following

    def _set(self, going: Iterable[int], *, at_start: bool) -> _Set:
        reached = self.reach(going, at_start=at_start, at_end=False)
        # Beyond these, the way goes on with a character, with the end of the text, or not at all.
        stops = frozenset(each for each in reached if self.steps[each].test is not None or each == _MATCH)
        found = self.sets.get(stops)
        if found is None or at_start:
            at_end = self.reach(stops, at_start=at_start, at_end=True)
            found = _Set(stops, _MATCH in at_end)
            if not at_start:
                self.sets[stops] = found
            self._kept += len(stops) + 1
        return found

    def reach(self, going: Iterable[int], *, at_start: bool, at_end: bool) -> set[int]:
        """Return all steps that are reached without a character."""
        todo = list(going)
        reached: set[int] = set()
        while todo:
            at = todo.pop()
            if at in reached:
                continue
            reached.add(at)
            step = self.steps[at]
            if step.test is None or (isinstance(step.test, _Anchor) and (at_end if step.test.at_end else at_start)):
                todo += step.go
        return reached


class GlobPattern:
    r"""A glob over tags: `*` any characters, `?` one, `[a-z]` and `[^a-z]` one of some, `\` takes the next as it is.

    Raises `ConfigError` for what is not a glob.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        _check_length(text, "glob")
        if "[!" in text:
            raise ConfigError(f"{shown(text)} is not a glob that can be used: write [^...] instead of [!...]")
        try:
            self._glob = Glob(text)
        except ValueError as error:
            raise ConfigError(f"{shown(text)} is not a glob: {error}") from error

    def matches(self, text: str) -> bool:
        """Whether all of `text` is what the glob describes."""
        return self._glob.matches(text)


def parse_regex(text: str) -> RegexPattern:
    """Read a regular expression as Python and Go write it, which has to match a whole tag.

    `.*` around it finds it anywhere. A leading `(?i)` takes capital and small letters as the same.
    Raises `ConfigError` for what is not one, and for look-around, back-references and word boundaries.
    """
    reader = _Reader(text)
    if text.startswith("(?i)"):
        reader.ignores_case = True
        reader.at = 4
    node = reader.choice(0)
    if reader.at < len(text):
        reader.refuse("there is a ')' too many")
    return RegexPattern(text, node)


def _check_length(text: str, kind: str) -> None:
    if len(text) > MAX_PATTERN:
        raise ConfigError(f"a {kind} of {len(text)} characters; {MAX_PATTERN} is the most")


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, text: str) -> None:
        self.at = 0
        self.ignores_case = False
        self._text = text
        _check_length(text, "regular expression")

    def refuse(self, flaw: str) -> NoReturn:
        """Raise what is wrong."""
        raise ConfigError(
            f"{shown(self._text)} is not a regular expression that can be used: {flaw}, at character {self.at}"
        )

    def peek(self) -> str | None:
        """Return the next character, None at the end."""
        return self._text[self.at] if self.at < len(self._text) else None

    def take(self) -> str | None:
        """Return the next character and go on."""
        char = self.peek()
        self.at += 1
        return char

    def _escaped(self) -> str:
        """Return the character behind a backslash."""
        char = self.take()
        if char is None:
            self.refuse("it ends with a '\\'")
        return char

    def choice(self, depth: int) -> _Node:
        """Read alternatives."""
        if depth > MAX_NESTING:
            self.refuse(f"it has more than {MAX_NESTING} parentheses within each other")
        parts = [self._sequence(depth)]
        while self.peek() == "|":
            self.at += 1
            parts.append(self._sequence(depth))
        return parts[0] if len(parts) == 1 else _Choice(tuple(parts))

    def _sequence(self, depth: int) -> _Node:
        parts: list[_Node] = []
        while (char := self.peek()) is not None and char not in "|)":
            self.at += 1
            parts.append(self._repeated(self._atom(char, depth)))
        return _Sequence(tuple(parts))

    def _repeated(self, part: _Node) -> _Node:
        char = self.peek()
        bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(char or "")
        if bounds is not None:
            self.at += 1
        elif char == "{":
            self.at += 1
            bounds = self._counts()
        if bounds is None:
            return part
        if self.peek() == "?":
            self.at += 1  # as few as possible: a whole text is matched by the same ones
        if (self.peek() or " ") in "*+?{":
            self.refuse("there are two repetitions of one thing")
        return _Repeat(part, *bounds)

    def _counts(self) -> tuple[int, int | None]:
        end = self._text.find("}", self.at)
        least, comma, most = self._text[self.at : max(end, self.at)].partition(",")
        numbers = [each for each in (least, most) if each]
        if end < 0 or not numbers or not all(each.isascii() and each.isdigit() and len(each) < 5 for each in numbers):
            self.refuse("a '{' does not begin a repetition such as {2}, {2,} or {2,3}; write '\\{' for the character")
        self.at = end + 1
        low = int(least or 0)
        high = (int(most) if most else None) if comma else low
        if high is not None and high < low:
            self.refuse(f"a repetition of {low} to {high} times")
        return low, high

    def _atom(self, char: str, depth: int) -> _Node:
        if char == "(":
            return self._group(depth)
        if char == "[":
            return self._char_class()
        if char == ".":
            return _ANY
        if char in "^$":
            return _Anchor(at_end=char == "$")
        if char in "*+?{":
            self.refuse(f"there is nothing before {char!r} that could be repeated")
        if char == "\\":
            return self._escape()
        return self._char(char)

    def _group(self, depth: int) -> _Node:
        if self.peek() == "?":
            rest = self._text[self.at + 1 :]
            if rest.startswith(":"):
                self.at += 2
            elif rest.startswith(("P<", "<")) and not rest.startswith(("<=", "<!")):
                end = rest.find(">")
                if end < 0:
                    self.refuse("the name of a group has no end")
                self.at += end + 2
            else:
                self.refuse("only (…), (?:…), (?P<name>…) and (?i) in front of all are supported")
        node = self.choice(depth + 1)
        if self.take() != ")":
            self.refuse("a '(' has no ')'")
        return node

    def _escape(self) -> _Node:
        char = self._escaped()
        if char.lower() in _CLASSES:
            return _Chars(_CLASSES[char.lower()], negated=char.isupper())
        if char in "AZz":
            return _Anchor(at_end=char != "A")
        return self._char(self._literal(char))

    def _literal(self, char: str) -> str:
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum():
            self.refuse(f"\\{char} is not supported")
        return char

    def _char(self, char: str) -> _Chars:
        return _Chars(self._cases({char}))

    def _cases(self, chars: set[str]) -> frozenset[str]:
        return frozenset(chars | {each.swapcase() for each in chars} if self.ignores_case else chars)

    def _char_class(self) -> _Chars:
        """Read what follows a '['."""
        negated = self.peek() == "^"
        self.at += negated
        chars: set[str] = set()
        first = True
        while (char := self.take()) != "]" or first:
            if char is None:
                self.refuse("a '[' has no ']'")
            first = False
            low = self._class_char(char)
            if (
                len(low) == 1
                and self._text[self.at : self.at + 1] == "-"
                and self._text[self.at + 1 : self.at + 2] not in {"", "]"}
            ):
                self.at += 1
                high = self._class_char(self._escaped())
                if len(high) != 1 or min(high) < min(low) or ord(min(high)) - ord(min(low)) > 0xFFFF:
                    self.refuse("a range of characters that is not one")
                chars |= {chr(code) for code in range(ord(min(low)), ord(min(high)) + 1)}
            else:
                chars |= low
        return _Chars(self._cases(chars), negated=negated)

    def _class_char(self, char: str) -> set[str]:
        if char != "\\":
            return {char}
        char = self._escaped()
        if char in _CLASSES:
            return set(_CLASSES[char])
        return {self._literal(char)}

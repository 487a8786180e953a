"""Patterns with `*`, `?`, `**` and classes, matched without backtracking. Pure.

The patterns are those of Go's `filepath.Match`, and `**` for any number of directories, as moby's `.dockerignore`
has them. A text is walked through once, character by character, with the set of all places in the pattern that it
may have reached: so no pattern and no text cost more than their lengths multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["Glob"]

_MAX_REMEMBERED: Final = 1024
"""Characters whose steps a pattern remembers; more than any alphabet has, far fewer than Unicode."""


class _Class(NamedTuple):
    """One character of `ranges`, or with `negated` one of all others, which may be a `/`, as in moby's matcher."""

    negated: bool
    ranges: tuple[tuple[str, str], ...]

    def has(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) is not self.negated


class _Wildcard(NamedTuple):
    name: str


_ONE: Final = _Wildcard("?")
_NAME: Final = _Wildcard("*")
_DIRECTORIES: Final = _Wildcard("**/")  # nothing, or anything that ends with a slash
_REST: Final = _Wildcard("**")  # at the end: anything
# Neither of the two takes a line break, because moby's regular expressions have no flag for that.

_Item = str | _Class | _Wildcard


class Glob:
    """A pattern; raises ValueError for what Go's `filepath.Match` refuses.

    A backslash makes the next character plain, `[a-c]` and `[^a-c]` are classes. `*` and `?` stop at a `/`.
    """

    __slots__ = ("_items", "_least", "_longest", "_prefix", "_steps", "_suffix")

    def __init__(self, pattern: str) -> None:
        self._items = tuple(_items(pattern))
        self._least = sum(item not in (_NAME, _DIRECTORIES, _REST) for item in self._items)
        runs = _plain_runs(self._items)
        # What a text must have, and is found fast: it spares most texts the walk.
        self._prefix, self._suffix, self._longest = runs[0], runs[-1], max(runs, key=len)
        self._steps: _Steps | None = None

    def matches(self, text: str) -> bool:
        """Tell whether the pattern matches the whole text."""
        if len(text) < self._least or not (text.startswith(self._prefix) and text.endswith(self._suffix)):
            return False
        if self._longest not in text:
            return False
        if self._steps is None:  # only now: the pattern is not much longer than the text
            self._steps = _Steps(self._items)
        return self._steps.matches(text)


class _Steps:
    """A pattern as sets of its places, each a number with one bit for each place."""

    __slots__ = ("_classes", "_directories", "_end", "_inside", "_letters", "_names", "_ones", "_passed", "_rest")

    def __init__(self, items: tuple[_Item, ...]) -> None:
        self._letters: dict[str, int] = {}
        self._classes: list[tuple[int, _Class]] = []
        self._ones = self._names = self._rest = self._directories = self._inside = 0
        self._passed: dict[str, tuple[int, int]] = {}
        place = 1
        for item in items:
            if isinstance(item, _Class):
                self._classes.append((place, item))
            elif isinstance(item, str):
                self._letters[item] = self._letters.get(item, 0) | place
            elif item is _ONE:
                self._ones |= place
            elif item is _NAME:
                self._names |= place
            elif item is _REST:
                self._rest |= place
            else:  # two places: before the directories, and in them
                self._directories |= place
                place <<= 1
                self._inside |= place
            place <<= 1
        self._end = place

    def matches(self, text: str) -> bool:
        passed, directories, skipped = self._passed, self._directories, self._names | self._rest
        places = 1
        places |= ((places & directories) << 1) | ((places & directories) << 2)
        places |= (places & skipped) << 1
        for char in text:
            forward, stay = passed.get(char) or self._pass(char)
            places = ((places & forward) << 1) | (places & stay)
            if not places:
                return False
            # One after the other is enough: directories may stand before a name's wildcard, never behind it.
            places |= ((places & directories) << 1) | ((places & directories) << 2)
            places |= (places & skipped) << 1
        return bool(places & self._end)

    def _pass(self, char: str) -> tuple[int, int]:
        """Return the places from which a character leads on, and those that it may leave as they are."""
        forward = self._letters.get(char, 0) | (self._inside if char == "/" else self._ones)
        for place, members in self._classes:
            if members.has(char):
                forward |= place
        stay = (0 if char == "/" else self._names) | (0 if char == "\n" else self._rest | self._inside)
        if len(self._passed) < _MAX_REMEMBERED:
            self._passed[char] = forward, stay
        return forward, stay


def _items(pattern: str) -> Iterator[_Item]:
    at, last = 0, None
    while at < len(pattern):
        char = pattern[at]
        at += 1
        item: _Item
        if char == "*" and pattern.startswith("*", at):
            at += 1
            if pattern.startswith("/", at):
                at += 1
            item = _DIRECTORIES if at < len(pattern) else _REST
        elif char == "*":
            item = _NAME
        elif char == "?":
            item = _ONE
        elif char == "[":
            item, at = _class(pattern, at)
        elif char == "\\":
            item, at = _escaped(pattern, at - 1)
        else:
            item = char
        if item is not _DIRECTORIES or item is not last:  # twice is as good as once
            yield item
        last = item


def _class(pattern: str, at: int) -> tuple[_Class, int]:
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _member(pattern, at + 1)
        if at >= len(pattern):
            raise ValueError("a [ is not closed")
        if low > high:
            raise ValueError(f"the range {low}-{high} in [] is empty")
        ranges.append((low, high))
    return _Class(negated, tuple(ranges)), at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith(("-", "]"), at):
        raise ValueError("a - or ] in [] needs a backslash")
    return _escaped(pattern, at)


def _escaped(pattern: str, at: int) -> tuple[str, int]:
    """Take one character, which a backslash may make a plain one."""
    at += pattern.startswith("\\", at)
    if at >= len(pattern):
        raise ValueError("it ends too early")
    return pattern[at], at + 1


def _plain_runs(items: tuple[_Item, ...]) -> list[str]:
    """Return the plain texts before, between and behind the wildcards."""
    runs: list[str] = []
    run: list[str] = []
    for item in items:
        if isinstance(item, str):
            run.append(item)
        else:
            runs.append("".join(run))
            run = []
    return [*runs, "".join(run)]

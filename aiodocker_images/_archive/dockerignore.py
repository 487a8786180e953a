"""Which files of a directory a `.dockerignore` leaves out: its patterns, and the order that decides. Pure.

A path is relative to the directory and has `/` between its names; bytes that are no UTF-8 are surrogates in it.
The patterns are those of `_glob`, where a plain one also matches all that is below it.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from aiodocker_images._glob import Glob
from aiodocker_images.errors import ConfigError, shown

__all__ = ["NO_PARENT", "IgnoreRules", "Inherited", "read_patterns"]

Inherited = tuple[bool, ...]
"""For each rule, whether it matches a directory and so all that is in it."""

NO_PARENT: Final[Inherited] = ()

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_WILDCARD: Final = re.compile(r"[*?\[\]\\]")


def read_patterns(content: bytes) -> list[str]:
    """Return the patterns in the content of a `.dockerignore`, without comments and empty lines."""
    patterns: list[str] = []
    for line in content.removeprefix(_BYTE_ORDER_MARK).split(b"\n"):
        text = line.decode("utf-8", "surrogateescape")
        if text.startswith("#"):  # only there: in " #", the # begins a pattern
            continue
        pattern = text.strip()
        if not pattern:
            continue
        mark = "!" if pattern.startswith("!") else ""
        pattern = pattern.removeprefix(mark).strip()
        if pattern:
            pattern = _clean(pattern)
            # "/" alone stays, and matches nothing.
            pattern = pattern.removeprefix("/") or pattern
        patterns.append(mark + pattern)
    return patterns


class IgnoreRules:
    """Patterns in their order, of which the last one that matches a path decides; `keep` are names never left out.

    Raises `ConfigError` for a pattern that is none.
    """

    def __init__(self, patterns: Iterable[str], *, keep: Iterable[str] = ()) -> None:
        rules = [_rule(pattern) for pattern in patterns if pattern.strip()]
        prefixes = [_plain_prefix(rule.pattern) for rule in rules if rule.exception]
        # Docker's BuildKit looks below every directory then; the classic docker CLI did not, and lost such files.
        self._exceptions_anywhere = any(_WILDCARD.search(prefix) for prefix in prefixes)
        kept = list(keep)
        self._exceptions_below = tuple(f"{prefix}/" for prefix in prefixes + kept)
        self._rules = (*rules, *(_Rule(name, True, name.__eq__) for name in kept))

    def ignores(self, path: str, parent: Inherited = NO_PARENT) -> tuple[bool, Inherited]:
        """Tell whether `path` is left out, and what its entries inherit if it is a directory.

        `parent` is what its own directory inherits to it: walk from the top down.
        """
        ignored = False
        inherited: list[bool] = []
        for index, rule in enumerate(self._rules):
            matches = bool(parent) and parent[index]
            # What would decide nothing for a directory is not inherited either: so do moby's own walks.
            if not matches and rule.exception is ignored:
                matches = bool(rule.matches(path))
            inherited.append(matches)
            if matches:
                ignored = not rule.exception
        return ignored, tuple(inherited)

    def leaves_out(self, path: str) -> bool:
        """Tell whether `path` is left out, without a walk from the top down."""
        names, inherited, ignored = path.split("/"), NO_PARENT, False
        for depth in range(1, len(names) + 1):
            ignored, inherited = self.ignores("/".join(names[:depth]), inherited)
        return ignored

    def may_keep_below(self, directory: str) -> bool:
        """Tell whether an exception can keep something in `directory`, which is left out itself."""
        return self._exceptions_anywhere or any(
            exception.startswith(f"{directory}/") for exception in self._exceptions_below
        )


class _Rule(NamedTuple):
    pattern: str
    exception: bool
    matches: Callable[[str], object]


def _rule(text: str) -> _Rule:
    pattern = _clean(text.strip())
    exception = pattern.startswith("!")
    if exception:
        pattern = pattern[1:]
        if not pattern:
            raise ConfigError("'!' alone in a .dockerignore excepts nothing")
    try:
        return _Rule(pattern, exception, _matcher(pattern))
    except ValueError as error:
        raise ConfigError(f"{shown(pattern)} in a .dockerignore is not a pattern: {error}") from error


def _clean(pattern: str) -> str:
    return posixpath.normpath(re.sub("^/+", "/", pattern))  # normpath would leave two slashes there


def _plain_prefix(pattern: str) -> str:
    return pattern.removesuffix("/**").removesuffix("/*")


def _matcher(pattern: str) -> Callable[[str], object]:
    if not _WILDCARD.search(pattern):
        return pattern.__eq__
    if pattern.startswith("**") and not _WILDCARD.search(pattern[2:]):
        return functools.partial(_ends_with, pattern[2:])
    if pattern.endswith("**") and not _WILDCARD.search(pattern[:-2]):
        return functools.partial(_begins_with, pattern[:-2])
    return Glob(pattern).matches


def _ends_with(end: str, path: str) -> bool:
    return path.endswith(end) or (end.startswith("/") and path == end[1:])


def _begins_with(start: str, path: str) -> bool:
    return path.startswith(start)

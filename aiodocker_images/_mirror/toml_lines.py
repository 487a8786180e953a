"""Which line of a TOML document something is in: tomllib does not tell, so it is asked about one statement at a time.

Used only for messages, once something is wrong. Pure.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, Final, cast

__all__ = ["Path", "line_of"]

Path = tuple[str | int, ...]

MAX_TRIES: Final = 50
"""How many lines of one value are tried as its end; behind them its end must stand alone in its line."""


def line_of(text: str, path: Path) -> int:
    """Return the line, from 1 on, of what is at `path` (("source", 0, "tags", 1)), or of what it would be in."""
    best, found = 0, 1
    for line, lines, paths in _statements(text):
        for whole in paths:
            if len(whole) > best and path[: len(whole)] == whole:
                best, found = len(whole), line
                if len(lines) > 1 and isinstance(whole[-1], int):
                    found += _lines_before_element(lines, whole[-1])
    return found


def _statements(text: str) -> Iterator[tuple[int, list[str], list[Path]]]:
    """Give each statement: its first line's number, its lines, and the paths that it defines."""
    table: Path = ()
    tables: dict[Path, int] = {}
    begun, lines, tries = 1, list[str](), 0
    for number, line in enumerate(text.split("\n"), start=1):
        begun = begun if lines else number
        lines.append(line)
        if len(lines) > 1 and (line.rstrip().endswith((",", "[")) or _is_inside(lines)):
            continue  # the middle of an array: to try each of its lines would take long
        tries = tries + 1 if len(lines) > 1 else 0
        if tries > MAX_TRIES and line.strip() != "]":
            continue
        try:
            content = tomllib.loads("\n".join(lines))
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        if lines[0].lstrip().startswith("["):
            table = _opened_table(content, tables)
            yield begun, lines, [table]
        else:
            yield begun, lines, [table + path for path in _paths(content)]
        lines = []


def _is_inside(lines: list[str]) -> bool:
    """Return whether the last line of an array that begins in the first cannot be its end."""
    return lines[0].partition("=")[2].lstrip().startswith("[") and "]" not in lines[-1]


def _opened_table(header: dict[str, Any], tables: dict[Path, int]) -> Path:
    """Return the path of the table that a header opens; `tables` counts the elements of arrays of tables."""
    path: Path = ()
    node: object = header
    while isinstance(node, dict) and node:
        key, node = next(iter(cast("dict[str, object]", node).items()))
        path += (key,)
        if isinstance(node, list):
            tables[path] = tables.get(path, -1) + 1
            return path + (tables[path],)  # noqa: RUF005 - unpacking, pyright loses the type
        if path in tables:
            path += (tables[path],)
    return path


def _paths(node: object) -> Iterator[Path]:
    """Give the paths of all that is in a value."""
    items: list[tuple[str | int, object]] = []
    if isinstance(node, dict):
        items = list(cast("dict[str | int, object]", node).items())
    elif isinstance(node, list):
        items = list(enumerate(cast("list[object]", node)))
    for key, value in items:
        yield (key,)
        yield from ((key, *path) for path in _paths(value))


def _lines_before_element(lines: list[str], index: int) -> int:
    """Return in which line of an array, from 0 on, its element is; 0 where that is not plain."""
    low, high = 1, len(lines)
    while low < high:  # as many lines as have it: in the middle of them
        middle = count = (low + high) // 2
        while (length := _length(lines, count)) is None and count < min(high, middle + MAX_TRIES):
            count += 1  # a value of more than one line ends further on
        if length is not None and length <= index:
            low = count + 1
        else:
            high = middle
    length = _length(lines, low)
    return low - 1 if length is not None and length > index else 0


def _length(lines: list[str], count: int) -> int | None:
    """Return how many elements of an array are in its first `count` lines; None if these are no array."""
    node: object = None
    try:
        node = tomllib.loads("\n".join([*lines[:count], "]" if count < len(lines) else ""]))
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    while isinstance(node, dict):
        node = next(iter(cast("dict[str, object]", node).values()))
    return len(cast("list[object]", node)) if isinstance(node, list) else None

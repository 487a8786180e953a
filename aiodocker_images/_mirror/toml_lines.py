"""Which line of a TOML document something is in: tomllib does not tell, so it is asked about one statement at a time.

Used only for messages, once something is wrong. Pure.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, cast

__all__ = ["Path", "line_of"]

Path = tuple[str | int, ...]


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
    begun, lines = 1, list[str]()
    for number, line in enumerate(text.split("\n"), start=1):
        begun = begun if lines else number
        lines.append(line)
        if len(lines) > 1 and line.rstrip().endswith((",", "[")):
            continue  # the middle of an array: to try each of its lines would take long
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
    for count in range(1, len(lines) + 1):
        node: object = None
        try:
            node = tomllib.loads("\n".join([*lines[:count], "]" if count < len(lines) else ""]))
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        while isinstance(node, dict):
            node = next(iter(cast("dict[str, object]", node).values()))
        if isinstance(node, list) and len(cast("list[object]", node)) > index:
            return count - 1
    return 0

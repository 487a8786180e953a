"""Rows as tables, JSON lines or templates, byte for byte as the docker CLI lays them out. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from .template import Template, TemplateError
from .terminal import visible

__all__ = ["Columns", "Row", "laid_out", "shortened", "written"]

_MINIMUM: Final = 10  # of a column
_GAP: Final = 3

Row: TypeAlias = "Mapping[str, str]"
"""A line by the names that the docker CLI's templates and JSON have for its fields."""

Columns: TypeAlias = "Mapping[str, str]"
"""Headings by the names of their fields, in order: what a table shows of a row."""


def written(rows: Sequence[Row], columns: Columns, *, chosen: str, headings: Mapping[str, str] | None = None) -> str:
    """Write rows as `chosen` says: "table", "json", a template, or "table" and a template.

    `headings` are those of all fields, for templates that show others than `columns`. Raises `TemplateError`.
    """
    if chosen == "json":
        return "".join(f"{msgspec.json.encode(row).decode()}\n" for row in rows)
    rows = [{name: visible(value) for name, value in row.items()} for row in rows]
    if chosen in ("", "table"):
        return laid_out([list(columns.values()), *([row[name] for name in columns] for row in rows)])
    name, _, rest = chosen.partition(" ")
    template = Template(rest.strip(" ") if name == "table" else chosen)
    if not template.fields:
        raise TemplateError(f"{chosen[:80]!r} is no format: table, json, or a template such as '{{{{.ID}}}}'")
    lines = [template.fill(row) for row in rows]
    if name != "table":
        return "".join(f"{line}\n" for line in lines)
    known = {**{each: each.upper() for row in rows[:1] for each in row}, **(headings or {}), **columns}
    return laid_out([line.split("\t") for line in (template.fill(known), *lines)])


def laid_out(lines: Iterable[Sequence[str]]) -> str:
    """Line up cells in columns: three spaces between them, none narrower than ten; the last is as it is."""
    cells = [list(line) for line in lines]
    widths = [
        max([_MINIMUM, *(len(line[number]) + _GAP for line in cells if number < len(line) - 1)])
        for number in range(max((len(line) for line in cells), default=1) - 1)
    ]
    # As Go's tabwriter does, widths count characters; what is one character and two cells wide moves the rest.
    return "".join(
        "".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]]) + "\n"
        for line in cells
    )


def shortened(text: str, width: int) -> str:
    """Cut a text to so many cells of a terminal, with an ellipsis at the end if it was longer."""
    if sum(map(_cells, text)) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _cells(character)
        if used > width - 1:
            break
        kept += character
    return f"{kept}…"


def _cells(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

"""Rows as tables, JSON lines or templates, byte for byte as the docker CLI lays them out. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from .template import Template, TemplateError
from .terminal import visible

__all__ = ["Columns", "Listing", "Row", "laid_out", "shortened"]

_MINIMUM: Final = 10  # of a column
_GAP: Final = 3

Row: TypeAlias = "Mapping[str, str]"
"""A line by the names that the docker CLI's templates and JSON have for its fields."""

Columns: TypeAlias = "Mapping[str, str]"
"""Headings by the names of their fields, in order: what a table shows of a row."""


class Listing:
    """How rows are written: "table", "json", a template, or "table" and a template.

    `columns` are what a table shows; `headings` are those of other fields, for templates that name them. Raises
    `TemplateError` for a format that is none.
    """

    def __init__(self, chosen: str, columns: Columns, headings: Mapping[str, str] | None = None) -> None:
        name, _, rest = chosen.partition(" ")
        self._as_json = chosen == "json"
        self._columns = columns
        self._headings = {**(headings or {}), **columns}
        self._in_columns = name in ("", "table")
        self._template: Template | None = None
        if chosen not in ("", "table", "json"):
            self._template = Template(rest.strip(" ") if name == "table" else chosen)
            if not self._template.fields:
                raise TemplateError(f"{chosen[:80]!r} is no format: table, json, or a template such as '{{{{.ID}}}}'")

    def write(self, rows: Sequence[Row]) -> str:
        """Return the rows as text. Raises `TemplateError` for a field that they do not have."""
        if self._as_json:
            return "".join(f"{msgspec.json.encode(row).decode()}\n" for row in rows)
        if self._in_columns:  # which a tab or the end of a line in a cell would break
            rows = [{name: visible(value) for name, value in row.items()} for row in rows]
        if self._template is None:
            return laid_out([list(self._columns.values()), *([row[name] for name in self._columns] for row in rows)])
        lines = [self._template.fill(row) for row in rows]
        if not self._in_columns:
            return "".join(f"{line}\n" for line in lines)
        known = {**{name: name.upper() for row in rows[:1] for name in row}, **self._headings}
        return laid_out([line.split("\t") for line in (self._template.fill(known), *lines)])


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

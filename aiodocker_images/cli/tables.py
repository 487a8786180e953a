"""Rows as tables, JSON lines or by templates, byte for byte as the docker CLI lays them out. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from .gotemplate.functions import HEADER_FUNCTIONS
from .gotemplate.template import Template
from .gotemplate.values import Map, Struct, TemplateError
from .terminal import visible

__all__ = ["Columns", "Listing", "aligned", "shortened", "template_of"]

_MINIMUM: Final = 10  # of a column
_GAP: Final = 3

Columns: TypeAlias = "Sequence[str]"
"""The names of fields, in order: what a table shows of a row."""


def template_of(chosen: str) -> Template:
    """Read a format that is "json" or a template. Raises `TemplateError`."""
    return Template("{{json .}}" if chosen == "json" else chosen)


class Listing:
    """How rows are written: "table", "json", a template, or "table" and a template behind it.

    `columns` are the fields that a table shows, `headings` those of all fields. `raw` is a template for the format of
    that name, where a listing has one. Raises `TemplateError` for a format that cannot be read.
    """

    def __init__(self, chosen: str, columns: Columns, headings: Mapping[str, str], *, raw: str | None = None) -> None:
        self._headings = headings
        self._in_columns = chosen.startswith("table") or not chosen
        if chosen in ("", "table"):
            chosen = "\t".join(f"{{{{.{name}}}}}" for name in columns)
        elif chosen == "raw" and raw is not None:
            chosen = raw
        else:
            chosen = chosen.removeprefix("table").strip(" ").replace("\\t", "\t").replace("\\n", "\n")
        self._template = template_of(chosen)

    def write(self, rows: Iterable[Struct]) -> str:
        """Return the rows as text. Raises `TemplateError` if the template asks for what they do not have."""
        if not self._in_columns:
            return "".join(f"{self._template.execute(row)}\n" for row in rows)
        lines = [self._template.execute(_in_cells(row)) for row in rows]
        return aligned("".join(f"{line}\n" for line in (self._heading(), *lines)), _MINIMUM, _GAP)

    def _heading(self) -> str:
        try:
            return self._template.execute(Map(self._headings, "map[string]string", zero=""), functions=HEADER_FUNCTIONS)
        except TemplateError as error:  # a template need not be one for texts alone
            return error.written


def _in_cells(row: Struct) -> Struct:
    """Return a row without tabs and ends of lines in its values, which would break the columns."""
    return replace(
        row,
        members={name: visible(value) if isinstance(value, str) else value for name, value in row.members.items()},
    )


def aligned(text: str, minimum: int, gap: int) -> str:
    """Line up what stands between tabs, as Go's tabwriter does: a column ends where a line does not have it.

    No column is narrower than `minimum`, and each is `gap` wider than the widest of its cells. The last cell of a line
    is as it is.
    """
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[] for _ in lines]
    blocks = [(0, len(lines))]  # lines of which all have the column before
    while blocks:
        start, end = blocks.pop()
        column = len(widths[start]) if start < end else 0
        first = start
        while first < end:
            last = first
            while last < end and column < len(lines[last]) - 1:
                last += 1
            if last == first:
                first += 1
                continue
            # As with Go, widths count characters: one that is two cells wide moves the rest.
            width = max(minimum, *(len(line[column]) + gap for line in lines[first:last]))
            for place in range(first, last):
                widths[place].append(width)
            blocks.append((first, last))
            first = last
    return "\n".join(
        "".join([*(cell.ljust(width) for cell, width in zip(line, places, strict=False)), line[-1]])
        for line, places in zip(lines, widths, strict=True)
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

"""RESULTS.md: each program that measures writes a section of its own there, and leaves the others' alone."""

from __future__ import annotations

import re
from typing import Final

from .harness import ROOT

__all__ = ["write"]

FILE: Final = ROOT / "benchmarks" / "RESULTS.md"
TITLE: Final = "# What was measured\n"


def write(section: str, text: str) -> None:
    """Put the text in the place of the section, which goes to the end if it is new."""
    begin, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->\n"
    old = FILE.read_text(encoding="utf-8") if FILE.exists() else TITLE
    new = f"{begin}\n{text.strip()}\n\n{end}"
    replaced, count = re.subn(re.escape(begin) + ".*?" + re.escape(end), lambda _: new, old, flags=re.DOTALL)
    FILE.write_text(replaced if count else f"{old.rstrip()}\n\n{new}", encoding="utf-8")

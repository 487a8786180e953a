"""How many faults were injected, by Engine and operation: what a run of the tests says of itself at its end."""

from __future__ import annotations

from collections import Counter
from typing import Final

INJECTED: Final[Counter[tuple[str, str, str]]] = Counter()
"""By what answered ("docker28", "replay of docker28"), operation and kind of fault."""


def table(injected: Counter[tuple[str, str, str]]) -> list[str]:
    """Return the counts as lines of text: a row for each that answered and operation, a column for each kind."""
    if not injected:
        return []
    kinds = sorted({kind for _, _, kind in injected})
    rows = [["", "", *kinds, "all"]]
    for engine, operation in sorted({(engine, operation) for engine, operation, _ in injected}):
        counts = [injected[engine, operation, kind] for kind in kinds]
        rows.append([engine, operation, *(str(count or "") for count in counts), str(sum(counts))])
    sums = [sum(count for (_, _, of), count in injected.items() if of == kind) for kind in kinds]
    rows.append(["all", "", *map(str, sums), str(injected.total())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(_padded, range(len(row)), row, widths)).rstrip() for row in rows]


def _padded(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)

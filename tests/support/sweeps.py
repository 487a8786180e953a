"""How much of a sweep is run: all of it with `--every-byte`, as `.ci/run` does, and otherwise a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import hypothesis

T = TypeVar("T")

EXAMPLES: Final = 100
"""Examples of a property in a whole run."""

_PART: Final = 4


class _Extent:
    whole = False


def set_extent(*, whole: bool) -> None:
    """Choose it, before tests are imported: their decorators ask for it."""
    _Extent.whole = whole
    # A deadline for each example is a timing assertion: a busy machine would break it.
    hypothesis.settings.register_profile("sweeps", deadline=None, max_examples=examples(EXAMPLES))
    hypothesis.settings.load_profile("sweeps")


def examples(whole: int) -> int:
    """Return how many examples a property gets that has so many in a whole run."""
    return whole if _Extent.whole else whole // _PART


def spread(points: Sequence[T], most: int) -> Sequence[T]:
    """Return all points of a sweep, or otherwise about `most` of them: the first, the last, and some between."""
    if _Extent.whole or len(points) <= most:
        return points
    return [points[index * (len(points) - 1) // (most - 1)] for index in range(most)]

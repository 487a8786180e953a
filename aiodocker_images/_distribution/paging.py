"""`Link: <…>; rel="next"`: where the next page of a list is (RFC 8288). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["next_page"]

MAX_HEADER: Final = 16 << 10
"""Characters of a header that are read."""

_LINK: Final = re.compile(r"<([^<>]*)>([^<>]*)")
_NEXT: Final = re.compile(r';\s*rel\s*=\s*"?(?:[^"<>;,]*\s)?next\b', re.IGNORECASE)


def next_page(values: Iterable[str]) -> str | None:
    """Return the target of the first link to a next page, byte for byte; None if there is none."""
    for value in values:
        for target, parameters in _LINK.findall(value[:MAX_HEADER]):
            if _NEXT.search(parameters):
                return str(target)
    return None

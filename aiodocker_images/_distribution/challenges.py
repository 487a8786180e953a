"""`WWW-Authenticate`: which credentials a registry wants (RFC 9110, section 11; the token specification). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Challenge", "parse_challenges"]

MAX_HEADER: Final = 8 << 10
"""Characters of a header that are read; a challenge has a URL and some scopes."""

# Each alternative begins with a different character, so that no text takes more than linear time.
_ITEM: Final = re.compile(
    r"""[\s,]*(?:
        (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
        (?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"=]+)))?
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A scheme in lower case ("bearer", "basic") and its parameters, their names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that are asked for: "repository:library/alpine:pull"."""
        return tuple(self.parameters.get("scope", "").split())


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Read the values of `WWW-Authenticate`. What is not a challenge ends the reading of its header."""
    found: list[Challenge] = []
    for value in values:
        position, parameters = 0, None
        text = value[:MAX_HEADER]
        while match := _ITEM.match(text, position):
            position = match.end()
            name, quoted, plain = match["name"].lower(), match["quoted"], match["plain"]
            if quoted is None and plain is None:
                parameters = dict[str, str]()
                found.append(Challenge(name, parameters))
            elif parameters is not None:
                parameters.setdefault(name, plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
    return found

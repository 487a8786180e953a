"""`Retry`: how often a step that failed is tried, and how long it waits before the next attempt. Pure."""

from __future__ import annotations

import random

import msgspec

from ._arguments import check_count, check_given, wrong
from .errors import InvalidArgumentError

__all__ = ["Retry"]


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a step is tried, and how long it waits before the next: exponential backoff with jitter.

    Before try n+1 it waits min(`maximum`, `initial` x 2^(n-1)) seconds, and up to `jitter` more.
    """

    attempts: int = 5
    initial: float = 1.0
    maximum: float = 60.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        check_given("attempts", self.attempts, "an int")
        check_count("attempts", self.attempts)
        for name in ("initial", "maximum", "jitter"):
            seconds: object = getattr(self, name)
            if not isinstance(seconds, int | float) or isinstance(seconds, bool):
                raise wrong(name, seconds, "a number of seconds")
            if not 0 <= seconds < float("inf"):
                raise InvalidArgumentError(f"{name} must be 0 seconds or more, not {seconds}")

    def seconds_after(self, attempts: int) -> float:
        """Return how long to wait after so many attempts in a row failed."""
        # An exponent over 60 would say nothing more, and at 1024 be no float.
        seconds = min(self.maximum, self.initial * 2.0 ** min(max(attempts, 1) - 1, 60))
        return seconds + random.uniform(0, self.jitter)  # noqa: S311 - so that not all come back at once

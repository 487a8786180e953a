"""Trying again: what is worth it, and how tenacity does it. Imported at the first need, for the extra `mirror`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import tenacity

from aiodocker_images.errors import (
    DaemonUnreachableError,
    RateLimitedError,
    ServerError,
    StreamInterruptedError,
)

from .jobs import Retry

__all__ = ["PASSING", "persist"]

T = TypeVar("T")

PASSING: Final = (RateLimitedError, ServerError, StreamInterruptedError, DaemonUnreachableError)
"""What may be over at the next try. Refused credentials, a missing image or a full disk are not."""


async def persist(step: Callable[[], Awaitable[T]], retry: Retry, on_retry: Callable[[], None]) -> T:
    """Run `step` until it succeeds or fails for good, and return what it returns.

    After a rate limit it is tried again at once: it waits in `Slots`, with all that concerns the registry.
    """
    # wait_exponential_jitter would be one word for it, but calls `initial` differently from tenacity 9.2 on.
    exponential = tenacity.wait_exponential(multiplier=retry.initial, max=retry.maximum)
    backoff = exponential + tenacity.wait_random(0, retry.jitter)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, RateLimitedError):
            return 0.0
        return backoff(state)

    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(retry.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception_type(PASSING),
        before_sleep=lambda _: on_retry(),  # not called after the last try
        reraise=True,
    )
    return await retrying(step)

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

from ._slots import Slots
from .jobs import Retry

__all__ = ["PASSING", "persist"]

T = TypeVar("T")

PASSING: Final = (RateLimitedError, ServerError, StreamInterruptedError, DaemonUnreachableError)
"""What may be over at the next try. Refused credentials, a missing image or a full disk are not."""


async def persist(
    step: Callable[[], Awaitable[T]], *, registry: str, retry: Retry, slots: Slots, on_retry: Callable[[], object]
) -> T:
    """Run `step` until it succeeds or fails for good, and return what it returns.

    A rate limit pauses the whole registry, in `slots`, where whatever concerns it waits.
    """
    # wait_exponential_jitter would be one word for it, but calls `initial` differently from tenacity 9.2 on.
    exponential = tenacity.wait_exponential(multiplier=retry.initial, max=retry.maximum)
    backoff = exponential + tenacity.wait_random(0, retry.jitter)

    def wait(state: tenacity.RetryCallState) -> float:
        on_retry()
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, RateLimitedError):
            return 0.0
        return backoff(state)

    async def once() -> T:
        try:
            result = await step()
        except RateLimitedError:
            slots.slow_down(registry)
            raise
        slots.went_well(registry)
        return result

    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(retry.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception_type(PASSING),
        reraise=True,
    )
    return await retrying(once)

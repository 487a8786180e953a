"""Trying again: what is worth it, and how tenacity does it. It is imported when something first fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from aiodocker_images.errors import (
    DaemonUnreachableError,
    DockerError,
    RateLimitedError,
    ServerError,
    StreamInterruptedError,
)

from .jobs import Retry

if TYPE_CHECKING:
    import tenacity

__all__ = ["PASSING", "OnRetry", "persist"]

T = TypeVar("T")

OnRetry = Callable[[BaseException, float, int], None]

PASSING: Final = (RateLimitedError, ServerError, StreamInterruptedError, DaemonUnreachableError)
"""What may be over at the next try. Refused credentials, a missing image or a full disk are not."""


async def persist(step: Callable[[], Awaitable[T]], retry: Retry, on_retry: OnRetry) -> T:
    """Run `step` until it succeeds or fails for good, and return what it returns.

    `on_retry` is called before each wait, with the failure, the seconds to wait, and how many tries there were.
    After a rate limit it is tried again at once: it waits in `Slots`, with all that concerns the registry.
    """
    failures: list[DockerError] = []
    try:
        return await step()
    except PASSING as error:
        failures.append(error)

    async def again() -> T:
        if failures:  # the first try's, which is tenacity's first as well
            raise failures.pop()
        return await step()

    return await _retrying(retry, on_retry)(again)


def _retrying(retry: Retry, on_retry: OnRetry) -> tenacity.AsyncRetrying:
    import tenacity  # noqa: PLC0415 - with all that it imports in turn: most runs never need it

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, RateLimitedError):
            return 0.0
        return retry.seconds_after(state.attempt_number)

    def told(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None:
            on_retry(error, state.next_action.sleep if state.next_action is not None else 0.0, state.attempt_number)

    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(retry.attempts),
        wait=wait,
        retry=tenacity.retry_if_exception_type(PASSING),
        before_sleep=told,  # not called after the last try
        reraise=True,
    )

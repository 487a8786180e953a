"""What blocks, run in a thread, and how to wait for what cannot be cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["in_thread", "outlast", "retrieve"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `call` in a thread, and come back only when it has ended, cancelled or not."""
    bound = functools.partial(contextvars.copy_context().run, call, *args, **kwargs)
    return await outlast(asyncio.get_running_loop().run_in_executor(None, bound))


async def outlast(future: asyncio.Future[_T]) -> _T:
    """Wait for `future` without cancelling it, however often the waiting task is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        retrieve(future)
        raise cancelled
    return future.result()


def retrieve(future: asyncio.Future[Any]) -> None:
    """Look at the exception of a future that failed, so that asyncio does not report it as lost."""
    if not future.cancelled():
        future.exception()

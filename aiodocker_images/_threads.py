"""What blocks, run in a thread: whoever asked is not let go before the thread is done."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["in_thread", "outlast"]

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
        if not future.cancelled():
            future.exception()  # retrieved, so that asyncio does not report it as lost
        raise cancelled
    return future.result()

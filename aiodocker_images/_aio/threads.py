"""Blocking calls in threads, and how to wait for work that cannot be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["in_own_thread", "in_thread", "outlast", "retrieve"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

GRACE: Final = 0.5
"""Seconds that a cancelled caller still waits for a call of somebody else's code, which may block for ever."""


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `call` in a thread, and come back only when it has ended, cancelled or not."""
    bound = functools.partial(contextvars.copy_context().run, call, *args, **kwargs)
    return await outlast(asyncio.get_running_loop().run_in_executor(None, bound))


async def in_own_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `call`, which may block for ever, in a thread of its own.

    The threads of the loop's pool are few: some calls that block would stop everything else that needs one. If the
    caller is cancelled and `call` does not end within `GRACE` seconds, the thread is left alone; it keeps neither
    the loop nor the interpreter from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()
    bound = functools.partial(contextvars.copy_context().run, call, *args, **kwargs)
    threading.Thread(target=_run_for, args=(future, bound), name="blocking call of an archive", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await outlast(asyncio.create_task(_settled_within(future, GRACE)))
        raise


def _run_for(future: asyncio.Future[_T], call: Callable[[], _T]) -> None:
    """Run `call` in this thread, and settle the future in its loop."""
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - raised where it is awaited
        settle: Callable[[], None] = functools.partial(_settle, future, None, error)
    else:
        settle = functools.partial(_settle, future, result, None)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # which no future takes
        future.set_exception(RuntimeError("a blocking call raised StopIteration"))
    else:
        future.set_exception(error)


async def _settled_within(future: asyncio.Future[Any], seconds: float) -> None:
    await asyncio.wait({future}, timeout=seconds)
    if future.done():
        retrieve(future)
    else:
        future.cancel()


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

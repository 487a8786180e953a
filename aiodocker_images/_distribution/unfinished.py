"""What is half-done at the registries, and is undone there before the connections of a service are closed."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from aiodocker_images._aio.threads import outlast

__all__ = ["OPENING_SECONDS", "Unfinished", "undoing"]

OPENING_SECONDS: Final = 1.0
"""Seconds that a registry may take to say which session it has opened, when nobody wants that session any more."""

_UNDOING: Final = contextvars.ContextVar[bool]("_UNDOING", default=False)

Undo = Callable[[], Coroutine[Any, Any, None]]


def undoing() -> bool:
    """Whether the requests of this task undo something, and so may be sent after the service was closed."""
    return _UNDOING.get()


class Unfinished:
    """The sessions of uploads: `openings` are those that were asked for, and `undo` ends those that are open."""

    def __init__(self) -> None:
        self.openings: set[asyncio.Task[Any]] = set()
        self.undo: dict[object, Undo] = {}
        self._undone: asyncio.Future[None] | None = None

    def opening(self, task: asyncio.Task[Any]) -> None:
        """Remember a request that opens a session, until it is answered."""
        self.openings.add(task)
        task.add_done_callback(self.openings.discard)

    async def opened(self) -> None:
        """Wait a moment until it is known which sessions are open."""
        if self.openings:
            await asyncio.wait(self.openings, timeout=OPENING_SECONDS)

    async def undo_all(self, close: Callable[[], Awaitable[None]]) -> None:
        """End what is open, when `close` has broken it all off. Whether that succeeds does not matter."""
        undo, self.undo = self.undo, {}
        self._undone = asyncio.get_running_loop().create_future()
        try:
            await close()
            _UNDOING.set(True)  # in this task, and in those that it starts
            await asyncio.gather(*(each() for each in undo.values()), return_exceptions=True)
        finally:
            self._undone.set_result(None)

    async def undone(self) -> None:
        """Wait until `undo_all`, if it was called, has come to its end."""
        if self._undone is not None:
            await outlast(self._undone)

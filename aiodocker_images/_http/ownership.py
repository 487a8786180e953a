"""The event loop and the process that a service belongs to, and how its connections are closed from anywhere else."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import pkgutil
import platform
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Literal, TypeAlias

import aiohttp

from aiodocker_images._aio.threads import in_thread
from aiodocker_images.errors import ServiceClosedError

__all__ = ["USED", "Owner", "close_forgotten", "drop_connections", "unknown_parts"]

Place: TypeAlias = Literal["nowhere", "here", "another thread", "a stopped loop", "a closed loop", "another process"]

CLOSED: Final = "this service is closed"
INTERRUPTED: Final = "the service was closed in the middle of it"

USED: Final[dict[str, tuple[str, ...]]] = {
    "connector": ("_conns", "_acquired", "_close"),
    "transport": ("_call_connection_lost",),
}
"""The private parts of aiohttp's connectors, and of asyncio's transports, that connections are closed by here.

Neither has a public way to close what belongs to a loop that runs no more. Without one of these parts such connections
stay open until the garbage collector finds them, and a warning says so.
"""

_SELECTOR_TRANSPORT: Final = "asyncio.selector_events:_SelectorTransport"

LOOK_SECONDS: Final = 0.1
"""Seconds between two looks whether the loop of another thread still runs: one that has stopped closes nothing."""


class Owner:
    """Remembers where a service was first used: its connections work in that event loop and process alone."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def claim(self) -> None:
        """Make the running loop the owner, or raise `ServiceClosedError` if there is another one."""
        if self.loop is None:
            self.loop, self._process = asyncio.get_running_loop(), os.getpid()
        elif self._process != os.getpid():
            raise ServiceClosedError("this service was opened before a fork; make one in each process")
        elif self.loop is not asyncio.get_running_loop():
            raise ServiceClosedError("this service was opened in another event loop; make one for each loop")

    def place(self) -> Place:
        """Say where the owner is, as seen from here."""
        if self.loop is None:
            return "nowhere"
        if self._process != os.getpid():
            return "another process"
        if self.loop is asyncio._get_running_loop():  # noqa: SLF001 - documented; None where no loop runs
            return "here"
        if self.loop.is_closed():
            return "a closed loop"
        return "another thread" if self.loop.is_running() else "a stopped loop"

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in the owner's loop, which is in another thread or stopped, and wait for it."""
        loop = self.loop
        if loop is None or loop.is_closed():
            return
        if not loop.is_running():
            await in_thread(loop.run_until_complete, work())
            return
        coroutine = work()
        try:
            future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
        except RuntimeError:  # it was closed just now
            coroutine.close()
            return
        while not future.done() and loop.is_running():
            await asyncio.wait({future}, timeout=LOOK_SECONDS)
        if not future.done():
            future.cancel()
        elif not future.cancelled():  # otherwise that loop has ended meanwhile, with all of its tasks
            future.result()


def unknown_parts(connector: aiohttp.BaseConnector) -> list[str]:
    """Return what these versions of aiohttp and Python lack of `USED`."""
    unknown = [f"{type(connector).__name__}.{part}" for part in USED["connector"] if not hasattr(connector, part)]
    try:
        transport: object = pkgutil.resolve_name(_SELECTOR_TRANSPORT)
    except (ImportError, AttributeError):
        return [*unknown, _SELECTOR_TRANSPORT]
    return unknown + [f"{_SELECTOR_TRANSPORT}.{part}" for part in USED["transport"] if not hasattr(transport, part)]


@functools.cache
def _warn(unknown: tuple[str, ...]) -> None:
    """Say once that connections may stay open."""
    logging.getLogger("aiodocker_images").warning(
        "aiohttp %s and Python %s have no %s: connections of a service whose loop is over stay open for a while",
        aiohttp.__version__,
        platform.python_version(),
        ", ".join(unknown),
    )


def drop_connections(sessions: Iterable[aiohttp.ClientSession]) -> None:
    """Close the sockets of sessions whose loop runs no more, or runs in the process that this one was forked from.

    `ClientSession.close` would need that loop. In a forked process it would also change what the parent's loop
    watches, because both share one epoll object.
    """
    for session in sessions:
        connector = session.connector
        session.detach()
        if connector is None:
            continue
        if unknown := unknown_parts(connector):
            _warn(tuple(unknown))
        kept: Iterable[Iterable[tuple[Any, float]]] = getattr(connector, "_conns", {}).values()
        protocols = [protocol for each in kept for protocol, _ in each] + list(getattr(connector, "_acquired", ()))
        for protocol in protocols:
            # The last step of asyncio's own closing, which a loop would call: it closes the socket.
            close = getattr(getattr(protocol, "transport", None), "_call_connection_lost", None)
            if callable(close):
                with contextlib.suppress(RuntimeError, AttributeError):  # the loop is closed: nobody is to be told
                    close(None)
        for name in ("_conns", "_acquired"):
            getattr(connector, name, dict[Any, Any]()).clear()


def close_forgotten(sessions: Iterable[aiohttp.ClientSession], owner: Owner) -> None:
    """Close the connections of a service that nobody closed, as far as that is possible without waiting."""
    if owner.loop is None or owner.loop.is_closed() or owner.place() == "another process":
        drop_connections(sessions)
        return
    for session in sessions:
        connector = session.connector
        session.detach()  # otherwise aiohttp warns as well, of objects that the user has never seen
        # The public close() insists on being awaited.
        close = getattr(connector, "_close", None)
        if callable(close):
            with contextlib.suppress(RuntimeError):
                close()

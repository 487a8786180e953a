"""What aiohttp does not tell of a connection: its end, to who waits for more, and failures that nobody looks at."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

__all__ = ["end_with_connection", "retrieve"]


def end_with_connection(response: aiohttp.ClientResponse) -> None:
    """Wake whoever reads the body when the connection is gone, with what broke it if aiohttp knows.

    Its parser in C (3.12 to 3.14) tells a fault in the framing of a body to nobody who waits for more of that
    body: it closes the connection, and with that ends the time limit, too.
    """
    protocol = None if response.connection is None else response.connection.protocol
    closed = None if protocol is None else protocol.closed
    if protocol is None or closed is None:
        return  # the whole body is here
    content = response.content

    def end(_: asyncio.Future[None]) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(protocol.exception() or aiohttp.ClientPayloadError("the connection is closed"))

    def let_go() -> None:
        closed.remove_done_callback(end)

    closed.add_done_callback(end)
    content.on_eof(let_go)  # the connection may serve many other answers
    closed.remove_done_callback(retrieve)
    closed.add_done_callback(retrieve)


def retrieve(future: asyncio.Future[Any]) -> None:
    """Look at the exception of a future that failed, so that asyncio does not report it as lost."""
    if not future.cancelled():
        future.exception()

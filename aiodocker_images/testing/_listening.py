"""Accepts connections for a server in a test: each is served in a task, and none outlives the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from aiodocker_images._system.sockets import unix_socket

BACKLOG: Final = 4096
_ACCEPTED_AT_ONCE: Final = 128  # the loop's other work has its turn between
_POLL: Final = 0.005  # seconds


def unix_listener(path: Path) -> socket.socket:
    """Return a socket that listens at a path, instead of one that another server has left there."""
    if path.is_socket():
        path.unlink()
    listener = unix_socket()
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def tcp_listener(port: int = 0) -> socket.socket:
    """Return a socket that listens on 127.0.0.1."""
    return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)


class Listener:
    """Accepts what connects to its sockets, and serves each connection in a task.

    asyncio's own server, when it is closed, forgets to close a connection that it has accepted, but whose transport it
    has yet to make (CPython 3.11), or whose TLS handshake has not ended. It does not end handlers, either.

    serve: Is called with each accepted connection, and has to close it. What it raises is reported to the loop.
    """

    def __init__(self, serve: Callable[[socket.socket], Coroutine[Any, Any, object]]) -> None:
        self._serve = serve
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[object]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Accept what connects to a listening socket, from now on until `stop()`, which closes it."""
        listener.setblocking(False)
        self._sockets.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def idle(self) -> None:
        """Return when no connection is open, and none waits to be accepted."""
        while True:
            for each in self._sockets:
                self._accept(each)
            if not self._tasks:
                return
            await asyncio.sleep(_POLL)

    async def stop(self) -> None:
        """Accept nothing more, and return when every task has been cancelled and every connection is closed."""
        loop = asyncio.get_running_loop()
        while self._sockets:
            listener = self._sockets.pop()
            loop.remove_reader(listener)
            listener.close()
        await asyncio.sleep(0)  # every task begins: one that is cancelled before that never closes its connection
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(3):  # aborted transports close their sockets in a later turn of the loop
            await asyncio.sleep(0)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except OSError:  # there are no more; or no descriptor is left, and they have to wait
                return
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a connection could not be served", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[socket.socket], Coroutine[Any, Any, object]], *listeners: socket.socket
) -> AsyncGenerator[None, None]:
    """Serve what connects to listening sockets until the end of the block, which closes them; see `Listener`."""
    listener = Listener(serve)
    for each in listeners:
        listener.listen(each)
    try:
        yield
    finally:
        await listener.stop()


@contextlib.asynccontextmanager
async def streams(
    connection: socket.socket, *, limit: int, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    """Yield an accepted connection's reader and writer, after the TLS handshake; it is closed at the end.

    Raises OSError if the client leaves in its handshake, and cuts off what has not been sent yet at the end of the
    block: close the writer in the block to wait for that.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield reader, writer
    finally:
        transport.abort()

"""The body of a request: what an upload yields, as aiohttp takes it, and how it is let go of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from asyncio.trsock import TransportSocket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from aiodocker_images._aio.threads import outlast, retrieve
from aiodocker_images._archive.streams import SEND_SIZE, ArchiveUpload
from aiodocker_images._system.sockets import hung_up, is_unix
from aiodocker_images.errors import StreamStalledError

__all__ = ["Body"]

SEND_BUFFER: Final = 4 << 20
"""Bytes that wait in a unix socket to be read by the daemon; Linux caps it silently, at net.core.wmem_max.

With its default of 208 KiB a piece is sent in five parts, and the loop turns once for each.
"""

_LOOK_SECONDS: Final = 0.001  # between two looks at a connection that is about to end


class Body(aiohttp.Payload):
    """A request body that takes its chunks from an upload, remembers what failed, and can be waited for."""

    def __init__(self, upload: ArchiveUpload, *, idle_timeout: float | None, on_failure: Callable[[], None]) -> None:
        super().__init__(upload, content_type="application/x-tar")
        self._size = upload.size  # known: sent as Content-Length; None: in HTTP chunks
        self._upload = upload
        self._idle_timeout = idle_timeout
        self._on_failure = on_failure
        self._transport: asyncio.WriteTransport | None = None
        self._wake = asyncio.Event()
        self._settled: asyncio.Future[None] | None = None
        self.failure: Exception | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's signature
        raise TypeError("an upload is read once, by the connection")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002 - the upload ends at its size by itself
        self._settled = asyncio.get_running_loop().create_future()
        # In the abstract class only since aiohttp 3.14; and uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.WriteTransport | None", getattr(writer, "transport", None))
        if (task := asyncio.current_task()) is not None:
            # aiohttp leaves it there if the connection ends just before the last chunk, and asyncio would report
            # it as lost; who reads the answer hears of that end by himself.
            task.add_done_callback(retrieve)
        try:
            if (connection := self._unix_socket()) is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            async with contextlib.aclosing(self._upload.chunks()) as chunks:
                await self._pump(chunks, writer)
        finally:
            self._settled.set_result(None)

    async def _pump(self, chunks: AsyncGenerator[bytes, None], writer: AbstractStreamWriter) -> None:
        while True:
            try:
                chunk = await anext(chunks, None)
            except Exception as error:
                self._fail(error)
                raise
            if chunk is None:
                return
            if await self._hung_up():
                if self._size is None:
                    raise ConnectionResetError("the daemon takes no more")  # lest an end of the body is sent
                return
            await self._taken(writer.write(chunk))
            if self._upload.sendable and await self._send_rest(writer):
                return

    async def _send_rest(self, writer: AbstractStreamWriter) -> bool:
        """Let the kernel send the rest of a file, past this process; return whether it did.

        The first piece went through aiohttp, with the head of the request.
        """
        connection, transport = self._unix_socket(), self._transport
        if connection is None or transport is None:
            return False
        transport.set_write_buffer_limits(0)
        await self._taken(writer.drain())  # until nothing is left there that the rest could overtake
        if transport.is_closing():
            return False  # which aiohttp's writer tells better
        # A number of our own: if the transport closes its own meanwhile, that may become another file's.
        descriptor = os.dup(connection.fileno())
        try:
            while self._upload.sendable and not transport.is_closing():
                try:
                    sent = await self._upload.send(descriptor)
                except ConnectionError:
                    return True  # the daemon takes no more: why is to be read
                except Exception as error:
                    self._fail(error)
                    raise
                if sent == 0:
                    return True
                # Not at once again, for the little that the daemon has read meanwhile: each time costs two threads a
                # turn. The kernel says that there is room when the most of the buffer is free.
                if sent is None or (sent < SEND_SIZE and not self._upload.exhausted):
                    await self._taken(self._writable(descriptor))
        finally:
            os.close(descriptor)
        return False

    async def _hung_up(self) -> bool:
        """Whether the daemon takes no more; if so, wait until what it has answered is read."""
        transport, connection = self._transport, self._unix_socket()
        if transport is None:
            return False
        if not transport.is_closing() and (connection is None or not hung_up(connection.fileno())):
            return False
        # asyncio tells of it only the protocol, which is aiohttp's.
        while not transport.is_closing():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.sleep(0)  # a send that failed lets the protocol know in the next turn of the loop
        return True

    async def _writable(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        self._wake.clear()
        loop.add_writer(descriptor, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            loop.remove_writer(descriptor)

    def _unix_socket(self) -> TransportSocket | None:
        """Return the socket, if what is written to it is what the daemon reads."""
        if self._transport is None or self._transport.is_closing():
            return None
        connection: TransportSocket | None = self._transport.get_extra_info("socket")
        secured = self._transport.get_extra_info("sslcontext") is not None
        if connection is None or secured:
            return None
        return connection if is_unix(connection.family) else None

    async def _taken(self, step: Awaitable[None]) -> None:
        """Wait until the daemon has taken what it was sent."""
        try:
            async with asyncio.timeout(self._idle_timeout):
                await step
        except TimeoutError as error:
            if error.errno is None:  # ETIMEDOUT of a TCP connection is a TimeoutError, too
                self._fail(StreamStalledError(f"the daemon took nothing for {self._idle_timeout:g} s"))
            raise

    def _fail(self, failure: Exception) -> None:
        self.failure = failure
        # The daemon may have begun to answer and now waits for the rest of the body, as we for the rest of
        # the answer: without this nobody would ever end it.
        self._on_failure()

    async def abandon(self) -> None:
        """Drop the connection with what is still unsent, and wait until the source is let go."""
        if self._transport is not None:
            # close() would first try to send what is buffered, to a daemon that may never take it.
            self._transport.abort()
        self._wake.set()
        if self._settled is not None:
            await outlast(self._settled)

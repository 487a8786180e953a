"""What a daemon may send that brings an answer no further: so much, and then the connection is closed.

aiohttp bounds the length of a line and the number of headers, but not what stands beside them: interim answers
(1xx), blank lines before an answer, extensions of chunks, trailers. A daemon that never stops sending such things
never lets the answer begin, or end, and no timeout between two bytes notices. Nor does aiohttp look at what comes
between two answers on a connection that is kept: it would take it for the next one, however old it is.

So a guard stands between the connection and aiohttp, with nothing but asyncio's own `Transport.set_protocol`.
"""

from __future__ import annotations

import asyncio
from typing import Final, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from ._threads import retrieve

__all__ = ["MAX_OVERHEAD", "GuardedResponse"]

MAX_OVERHEAD: Final = 1 << 20
"""Bytes in a row that bring no answer and nothing of its body.

An honest head is some hundred bytes, an honest chunk has ten bytes beside its data. Not less than some pieces of
256 KiB, in which asyncio reads: a piece may have the head and the beginning of the body.
"""


READ_SIZE: Final = 256 << 10
"""Bytes that are read at once, as asyncio does."""

LARGEST_BLOCK: Final = 4 << 20
"""Bytes of the largest object that an archive passes through."""

ENOUGH: Final = 128 << 10
"""Bytes of an archive that are worth a turn of everything behind the connection."""

HOLD_SECONDS: Final = 0.002
"""Seconds that less waits for more."""


class GuardedResponse(aiohttp.ClientResponse):
    """An answer whose connection is guarded from here on, until the next answer."""

    async def start(self, connection: aiohttp.connector.Connection) -> Self:
        """Read the head of the answer."""
        transport, protocol = connection.transport, connection.protocol
        guard = None
        if transport is not None and protocol is not None:
            before = transport.get_protocol()
            if isinstance(before, _Guard):  # the connection is used again
                guard = before
                guard.begins()
            else:
                guard = _Guard(transport, protocol)
                transport.set_protocol(guard)
                if (closed := protocol.closed) is not None:  # a future that aiohttp lets fail with nobody looking
                    closed.add_done_callback(retrieve)
        await super().start(connection)
        if guard is not None:
            guard.began(self.content)
        return self

    def expect_much(self) -> None:
        """Have the rest of the body read in a way that is for gigabytes."""
        connection = self.connection
        transport = None if connection is None else connection.transport
        # uvloop, whose transports are of no class of asyncio's, reads so anyhow; TLS has its own buffers.
        if not isinstance(transport, asyncio.Transport) or transport.get_extra_info("sslcontext") is not None:
            return
        if isinstance(guard := transport.get_protocol(), _Guard):
            transport.set_protocol(_BufferedGuard(guard, transport))
            # glibc learns from the largest block that is freed: blocks up to its size stay in its heap from then on.
            # Else it may give those of each piece back to the kernel, and new pages cost more than all the rest.
            bytes(LARGEST_BLOCK)


class _Guard(asyncio.Protocol):
    """Passes everything on to aiohttp's own protocol, and counts the bytes that bring nothing."""

    def __init__(self, transport: asyncio.Transport, protocol: ResponseHandler) -> None:
        self._transport = transport
        self._protocol = protocol
        self._content: aiohttp.StreamReader | None = None
        self._received = 0  # bytes of the body
        self._overhead = 0

    def begins(self) -> None:
        """Note that the next answer may come."""
        self._content = None
        self._received = self._overhead = 0

    def began(self, content: aiohttp.StreamReader) -> None:
        """Note that the head is there, and where its body comes."""
        self._content = content
        self._received, self._overhead = content.total_bytes, 0

    def data_received(self, data: bytes) -> None:
        content = self._content
        if content is not None and content.is_eof():
            # Nobody has asked yet: the next request says so here before it can be answered.
            self._transport.abort()
            return
        self._protocol.data_received(data)
        self._pass_on()
        if content is None or (content.total_bytes == self._received and not content.is_eof()):
            self._count(len(data))
        else:
            self._received, self._overhead = content.total_bytes, 0
            if content.is_eof() and self._protocol.should_close:  # there is more behind the end
                self._transport.abort()

    def _pass_on(self, *, ended: bool = False) -> None:
        """Tell whoever waits for the body that it cannot be read on.

        aiohttp (3.12 to 3.14) closes the connection then, as for a chunk whose size is no number, but tells only
        those who wait for a head.
        """
        content, error = self._content, self._protocol.exception()
        if content is None or content.is_eof():
            return
        if (told := content.exception()) is not None:
            if ended:  # once more: a reader that the end of a chunk has woken waits again without a look at it
                content.set_exception(told)
        elif isinstance(error, HttpProcessingError):
            content.set_exception(aiohttp.ClientConnectionError(error.message))
        elif error is not None or ended:
            content.set_exception(aiohttp.ClientPayloadError(str(error or "the connection is closed")))

    def _count(self, size: int) -> None:
        self._overhead += size
        if self._overhead <= MAX_OVERHEAD:
            return
        reason = f"{MAX_OVERHEAD >> 10} KiB came that bring the answer no further"
        if self._content is None:
            self._protocol.set_exception(HttpProcessingError(message=reason))
        else:
            self._content.set_exception(aiohttp.ClientConnectionError(reason))
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self._pass_on(ended=True)

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class _BufferedGuard(asyncio.BufferedProtocol):
    """A guard that gives the bytes many at once, in objects of their size.

    An Engine sends an archive in pieces of 32 KiB: for each, aiohttp, the tasks and the disk would take their turn.
    And asyncio's own way is an object of 256 KiB for each piece, cut to what came, which is hard on the allocator.
    """

    def __init__(self, guard: _Guard, transport: asyncio.Transport) -> None:
        self._guard = guard
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._filled = 0
        self._timer: asyncio.TimerHandle | None = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled >= ENOUGH:
            self._give()
        elif self._timer is None:
            self._timer = self._loop.call_later(HOLD_SECONDS, self._give)

    def _give(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._filled and not self._transport.is_closing():
            filled, self._filled = self._filled, 0
            self._guard.data_received(bytes(self._buffer[:filled]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # What the daemon sent before it broke off. If we closed the connection ourselves, it is nobody's any more.
        if exc is not None and self._filled:
            self._guard.data_received(bytes(self._buffer[: self._filled]))
        self._guard.connection_lost(exc)

    def eof_received(self) -> bool:
        self._give()
        if not self._transport.is_reading():
            # aiohttp has enough for now, and keeps a part of this that it has not looked at: it would lose that if
            # it heard of the end. The transport reads the end again when it goes on.
            return True
        self._guard.eof_received()
        return False

    def pause_writing(self) -> None:
        self._guard.pause_writing()

    def resume_writing(self) -> None:
        self._guard.resume_writing()

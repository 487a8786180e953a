"""The body of a live answer, read from its connection past aiohttp's reader.

aiohttp parses the head, and never sees what stands behind: its parser takes a turn for each HTTP chunk, of which there
is one for each frame of a pull, and copies an archive three times. What of aiohttp that needs, `guard.USED` names; with
an aiohttp that lacks any of it, and for an answer whose framing is not known here, aiohttp reads on.

Blobs of registries are read so, too: over plain HTTP, 1 GiB from registry to registry costs a quarter less CPU time, as
aiohttp has new memory from the kernel for each piece; over TLS it costs the same (benchmarks/RESULTS.md). A connection
whose answer had a known length is used again, as it is after aiohttp's own reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, cast

import aiohttp

from .framing import Framing, FramingError, framing_of
from .guard import Guard, GuardedResponse

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

__all__ = ["ARCHIVE_READ", "StreamedResponse", "read_error_body", "read_some"]

FIRST_BUFFER: Final = 16 << 10
"""Bytes of memory that each answer begins with: a thousand pulls at once may wait for their daemon."""

ARCHIVE_READ: Final = 256 << 10
FRAMES_READ: Final = 32 << 10
"""Bytes that are read at once, at most: of more, what is made of them would no longer be in the processor's caches."""

HOLD_SECONDS: Final = 0.002
"""Seconds that less waits for more."""

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_INTERIM: Final = re.compile(rb"HTTP/[0-9.]+ 1")

MAX_ERROR_BODY: Final = 64 << 10
"""Bytes that are read of the body of an error answer; a message is far shorter."""

MAX_ERROR_SECONDS: Final = 10.0
"""Seconds that the body of an error answer may take: the error is known, and its words come with it."""


class _Reader(asyncio.BaseProtocol):
    """Keeps what comes until it is read; stops the connection when that is too much."""

    def __init__(self, guard: _HeadGuard, transport: asyncio.Transport) -> None:
        self._guard = guard
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._framing: Framing | None = None
        self._buffer = bytearray(FIRST_BUFFER)
        self._filled = 0
        self._most = FIRST_BUFFER
        self._read_size = FRAMES_READ
        self._enough = 1
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None
        self._lost = False
        self._reset: Exception | None = None  # what ended the connection, if nobody closed it

    def add(self, data: bytes) -> None:
        """Keep what came."""
        self._buffer[self._filled : self._filled + len(data)] = data
        self._came(len(data))

    def begin(self, framing: Framing) -> None:
        """Note how the body is framed."""
        self._framing = framing

    def given_back(self) -> bytes:
        """Return all that came and was not read."""
        self._resume()
        return bytes(self._buffer[: self._filled])

    def expect(self, buffer: int, *, at_once: int | None) -> None:
        """Let `buffer` bytes wait to be read. One read takes at most `at_once`; half of that wakes the reader."""
        self._most = buffer
        if at_once is not None:
            self._enough, self._read_size = at_once // 2, at_once
        if self._filled < self._most:
            self._resume()

    async def read(self, idle_timeout: float | None) -> bytes:
        """Return some more of the body; nothing at its end. Raises what `_http.failures` translates."""
        framing = self._framing
        if framing is None:
            raise RuntimeError("begin() comes first")
        while not framing.ended:
            if self._failure is not None:
                raise self._failure
            if self._filled:
                if data := self._take(framing):
                    return data
            elif self._lost:
                if framing.ends_with_connection and self._reset is None:
                    break
                raise aiohttp.ClientPayloadError("the connection is closed") from self._reset
            else:
                await self._more(idle_timeout)
        return b""

    def _take(self, framing: Framing) -> bytes:
        size = self._filled
        try:
            data = framing.feed(self._buffer, size)
        except FramingError as error:
            raise aiohttp.ClientConnectionError(str(error)) from error
        self._filled = 0
        self._resume()
        if framing.ended and len(data) == size:  # a body of a known length, and nothing behind it
            self._guard.end_body()
        return data

    async def _more(self, idle_timeout: float | None) -> None:
        self._waiter = waiter = self._loop.create_future()
        try:
            if idle_timeout is None:  # a frame that comes alone costs little else
                await waiter
            else:
                async with asyncio.timeout(idle_timeout):
                    await waiter
        except TimeoutError:
            raise aiohttp.SocketTimeoutError("nothing came") from None
        finally:
            self._waiter = None

    def _came(self, size: int) -> None:
        self._filled += size
        if not self._filled:
            return
        if self._filled >= self._most and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()
        if self._filled >= self._enough or self._paused:
            self._wake()
        elif self._timer is None:
            self._timer = self._loop.call_later(HOLD_SECONDS, self._wake)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, failure: Exception) -> None:
        """Let whoever reads fail, from now on."""
        self._failure = self._failure or failure
        self._wake()

    def ended(self, exc: Exception | None) -> None:
        """Note that nothing more comes."""
        self._lost, self._reset = True, exc
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.connection_lost(exc)  # which says so here

    def eof_received(self) -> None:
        """Leave it to the transport to close itself."""

    def pause_writing(self) -> None:
        self._guard.pause_writing()

    def resume_writing(self) -> None:
        self._guard.resume_writing()


class _Buffered(_Reader, asyncio.BufferedProtocol):
    """Has asyncio read into memory that is used again: its own way is a new object of 256 KiB for each read."""

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        size = len(self._buffer)
        if self._filled * 2 >= size and size < self._most:  # more comes than was thought
            self._buffer += bytes(min(size, self._most - size))
        return memoryview(self._buffer)[self._filled : self._filled + self._read_size]

    def buffer_updated(self, nbytes: int) -> None:
        self._came(nbytes)


class _Plain(_Reader, asyncio.Protocol):
    """Takes what uvloop has read: it takes one of the other kind only from the beginning."""

    def data_received(self, data: bytes) -> None:
        self.add(data)


class _HeadGuard(Guard):
    """Passes the head on to aiohttp, and has a reader take what follows it."""

    def __init__(self, transport: asyncio.Transport, protocol: ResponseHandler) -> None:
        super().__init__(transport, protocol)
        self._head = bytearray()  # as far as it came
        self._reader: _Reader | None = None

    def end_body(self) -> None:
        """Let the connection be used again: aiohttp, which saw the head alone, is told that the body has ended."""
        if self._content is None or self._content.exception() is not None or self._transport.is_closing():
            return
        self._transport.set_protocol(self)
        self._reader, self._head = None, bytearray()
        self._content.feed_eof()

    def data_received(self, data: bytes) -> None:
        if self._reader is not None:  # the rest of a connection that has ended
            self._reader.add(data)
            return
        before = len(self._head)
        self._head += data
        position = max(0, before - 3)
        while self._reader is None and (end := _END_OF_HEAD.search(self._head, position)):
            head = self._head[: end.end()].lstrip()
            del self._head[: end.end()]
            position = 0
            if head and not _INTERIM.match(head):
                behind = bytes(self._head)
                data = data[: len(data) - len(behind)]
                # uvloop's transports are of no class of asyncio's.
                kind = _Buffered if isinstance(cast("object", self._transport), asyncio.Transport) else _Plain
                self._reader = kind(self, self._transport)
                self._reader.add(behind)
        super().data_received(data)
        if self._reader is not None and not self._transport.is_closing():
            self._transport.set_protocol(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._reader is not None:
            self._reader.ended(exc)

    def began(self, response: GuardedResponse) -> None:
        """Have the body read: by the reader if it can."""
        super().began(response)
        reader, content, headers = self._reader, response.content, response.headers
        if reader is None or not isinstance(response, StreamedResponse):
            return
        framing = framing_of(headers.getall("Transfer-Encoding", ()), headers.getall("Content-Length", ()))
        # An answer without a body has ended already, and aiohttp saw some of one whose head ends in an odd way.
        if framing is not None and not content.is_eof() and not content.total_bytes:
            reader.begin(framing)
            response.reader = reader
        else:
            self._transport.set_protocol(self)
            self._reader, self._head = None, bytearray()
            if rest := reader.given_back():
                super().data_received(rest)


class StreamedResponse(GuardedResponse):
    """An answer on a connection of its own, whose body is read as it comes."""

    guard_class = _HeadGuard
    reader: _Reader | None = None

    def expect(self, buffer: int, *, at_once: int | None) -> None:
        """Let `buffer` bytes wait to be read. One read takes at most `at_once`; half of that wakes the reader."""
        if self.reader is not None:
            self.reader.expect(buffer, at_once=at_once)

    def close(self) -> None:
        """Close the connection, and wake who reads."""
        super().close()
        if self.reader is not None:  # TLS says good-bye first, which may take its time
            self.reader.fail(aiohttp.ClientConnectionError("the connection is closed"))


def read_some(response: aiohttp.ClientResponse, idle_timeout: float | None) -> Awaitable[bytes]:
    """Return, when it is awaited, some more of an answer's body, as much as there is; nothing at its end."""
    if isinstance(response, StreamedResponse) and response.reader is not None:
        return response.reader.read(idle_timeout)
    return response.content.readany()


async def read_error_body(response: aiohttp.ClientResponse, idle_timeout: float | None) -> bytes:
    """Return the body of an error answer; if it is cut off or never ends, what has arrived of it."""
    body = bytearray()
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(MAX_ERROR_SECONDS):
            while len(body) < MAX_ERROR_BODY and (data := await read_some(response, idle_timeout)):
                body += data
    return bytes(body[:MAX_ERROR_BODY])

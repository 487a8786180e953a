"""What a daemon may send that brings an answer no further: so much, and then the connection is closed.

aiohttp bounds the length of a line and the number of headers, but not what stands beside them: interim answers
(1xx), blank lines before an answer, extensions of chunks, trailers. A daemon that never stops sending such things
never lets the answer begin, or end, and no timeout between two bytes notices. Nor does aiohttp look at what comes
between two answers on a connection that is kept: it would take it for the next one, however old it is.

So a guard stands between the connection and aiohttp. It needs asyncio's public `Transport.set_protocol`, and of
aiohttp what `USED` names, most of which is documented for no one: `ClientResponse.start` to come in before the head is
read, the connection's `ResponseHandler` to pass everything on to, `StreamReader.set_exception` to end a body. With an
aiohttp that lacks any of it, aiohttp reads alone: slower, and without these limits, but not wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pkgutil
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from aiodocker_images._aio.threads import retrieve
from aiodocker_images._system.sockets import receive

from .framing import MAX_OVERHEAD

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

__all__ = ["USED", "Guard", "GuardedResponse", "unknown_parts"]

USED: Final[dict[str, tuple[str, ...]]] = {
    "aiohttp:ClientResponse": ("start", "close", "content", "connection"),
    "aiohttp:StreamReader": ("set_exception", "exception", "is_eof", "feed_eof", "total_bytes", "readany"),
    "aiohttp.connector:Connection": ("transport", "protocol"),
    "aiohttp.client_proto:ResponseHandler": (
        "set_exception",
        "exception",
        "should_close",
        "closed",
        "data_received",
        "eof_received",
        "connection_lost",
        "pause_writing",
        "resume_writing",
    ),
}
"""What of aiohttp is used here and in `response_body`, by class."""


def unknown_parts() -> list[str]:
    """Return what this version of aiohttp lacks of `USED`."""
    unknown: list[str] = []
    for name, members in USED.items():
        try:
            cls: object = pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            unknown.append(name)
            continue
        unknown += [f"{name}.{member}" for member in members if not hasattr(cls, member)]
    return unknown


_UNKNOWN: Final = tuple(unknown_parts())
if _UNKNOWN:
    logging.getLogger("aiodocker_images").warning(
        "aiohttp %s has no %s: answers are read in its own, slower way, and daemons are not bounded in what they send"
        " beside them",
        aiohttp.__version__,
        ", ".join(_UNKNOWN),
    )

REST: Final = 64 << 10
"""Bytes that are read at once of what a connection that ended still holds; a unix socket holds three times that."""


class Guard(asyncio.Protocol):
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

    def began(self, response: GuardedResponse) -> None:
        """Note that the head is there, and where its body comes."""
        self._content = content = response.content
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
        if isinstance(exc, ConnectionError):
            self._read_rest()
        self._protocol.connection_lost(exc)
        self._pass_on(ended=True)

    def _read_rest(self) -> None:
        """Read what a daemon sent that then hung up in mid-request: why it did so.

        asyncio drops that when a send fails, and closes the socket only when everybody has heard of the end.
        """
        connection: TransportSocket | None = self._transport.get_extra_info("socket")
        if connection is None or self._transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(OSError):  # nothing more is there, or the connection was reset
            for _ in range(MAX_OVERHEAD // REST):
                if not (data := receive(connection, REST)):
                    break
                self.data_received(data)

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class GuardedResponse(aiohttp.ClientResponse):
    """An answer whose connection is guarded from here on, until the next answer."""

    guard_class: type[Guard] = Guard

    async def start(self, connection: aiohttp.connector.Connection) -> Self:
        """Read the head of the answer."""
        transport, protocol = connection.transport, connection.protocol
        guard = None
        if transport is not None and protocol is not None and not _UNKNOWN:
            before = transport.get_protocol()
            if type(before) is self.guard_class:  # the connection is used again
                guard = before
                guard.begins()
            else:
                guard = self.guard_class(transport, protocol)
                transport.set_protocol(guard)
                if (closed := protocol.closed) is not None:  # a future that aiohttp lets fail with nobody looking
                    closed.add_done_callback(retrieve)
        await super().start(connection)
        if guard is not None:
            guard.began(self)
        return self

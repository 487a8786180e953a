"""A small HTTP/1.1 server whose every byte can be made to go wrong.

It is written by hand because a library would not send half a head, a wrong length, or a byte twice. What it serves is
a `Service`; what goes wrong is a `Fault` that the service names for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

from ._exchange import PIECE, POLL, ClientLeftError, Exchange, Request, Response, at_breaking_point, flush, hung_up
from ._listening import Listener, streams, tcp_listener, unix_listener
from .faults import Fault, Injection, altered

MAX_HEAD: Final = 1 << 20  # real servers accept some KiB; a client's long token should arrive all the same
MAX_DRAINED: Final = 256 << 10  # what Go's server reads of a body that its handler left, to keep the connection
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_NOT_HTTP: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request"


class Service(Protocol):
    """What a server serves."""

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a request. May set `exchange.injection`, the fault that the answer is to meet."""
        ...


class Server:
    """Serves on 127.0.0.1, on the same port each time, with TLS if there is a context for it.

    With `unix`, the path of a socket, it serves there instead. `known_as` is the host in its URL. `connections` are
    those that are open.
    """

    def __init__(
        self,
        name: str,
        service: Service,
        requests: list[Request],
        *,
        tls: ssl.SSLContext | None = None,
        known_as: str = "127.0.0.1",
        unix: Path | None = None,
    ) -> None:
        self.name = name
        self.port = 0
        self.connections: set[asyncio.StreamWriter] = set()
        self._service = service
        self._requests = requests
        self._tls = tls
        self._known_as = known_as
        self._unix = unix
        self._accepted = 0
        self._listener = Listener(self._accept)

    @property
    def host(self) -> str:
        """Host and port, as in an image's name."""
        return f"{self._known_as}:{self.port}"

    @property
    def url(self) -> str:
        """The same with its scheme."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    async def start(self) -> None:
        """Listen."""
        if self._unix is not None:
            self._listener.listen(unix_listener(self._unix))
            return
        listener = tcp_listener(self.port)
        self.port = listener.getsockname()[1]
        self._listener.listen(listener)

    async def stop(self) -> None:
        """Close all connections and stop to listen."""
        self.drop_connections()
        await self._listener.stop()

    def drop_connections(self) -> None:
        """Close every connection at once."""
        for writer in tuple(self.connections):
            writer.transport.abort()

    async def _accept(self, connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError, ConnectionError, TimeoutError):  # the client left in its handshake
            async with streams(connection, limit=MAX_HEAD, tls=self._tls) as (reader, writer):
                self._accepted += 1
                await self._serve_all(self._accepted, reader, writer)

    async def _serve_all(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, which has this number."""
        self.connections.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._serve(number, reader, writer):
                    pass
        finally:
            await _close(writer)
            self.connections.discard(writer)

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection serves another."""
        try:
            begun = await reader.readexactly(1)
            if not begun.isalpha():
                # A client that tries https first, as Docker's Engine does on 127.0.0.1, waits 10 seconds for an answer.
                writer.write(_NOT_HTTP)
                await writer.drain()
                return False
            head = (begun + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return False
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, version = f"{first}  ".split(" ")[:3]
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in lines):
            known = headers.get(name.lower())  # Docker's Engine has a line of its own for each Accept
            headers[name.lower()] = value.strip() if known is None else f"{known}, {value.strip()}"
        request = Request(method=method, target=target, headers=headers, connection=number, server=self.name)
        self._requests.append(request)
        try:
            exchange = Exchange(request, reader, writer)
            response = await self._service.answer(exchange)
            as_good = await _send(exchange, response, writer)
            wanted = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
            return await _drain(exchange, reader, writer) and as_good and wanted
        finally:
            request.done = True


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and look at how it ended: asyncio reports an exception that nobody has looked at."""
    writer.close()
    try:
        await writer.wait_closed()
    except (OSError, asyncio.CancelledError):
        writer.transport.abort()


async def _send(exchange: Exchange, response: Response, writer: asyncio.StreamWriter) -> bool:
    """Send an answer with what goes wrong with it; return whether the connection is as good as before."""
    request, injection = exchange.request, exchange.injection
    request.status = response.status
    headers = dict(response.headers)
    body = response.body
    if response.stream is not None:
        headers["Transfer-Encoding"] = "chunked"
    elif response.status not in {204, 304}:
        headers.setdefault("Content-Length", str(len(body)))
    keep = headers.get("Content-Length", "0") == str(len(body))  # unlike distribution 2.8.2's 416
    if request.method == "HEAD":
        keep, body = True, b""
    fault = injection.fault if injection is not None and injection.fault.of != "request" else None
    if fault is not None:
        if fault.kind == "header":
            headers = altered(fault, headers)
            keep = "content-length" in {name.lower() for name in headers}
        elif fault.kind == "content_length":
            headers["Content-Length"] = str(max(0, len(body) + fault.length))
            keep = False
        elif fault.kind == "lie" and fault.text == "body" and body:
            at = min(fault.after, len(body) - 1)
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        elif fault.kind == "duplicate" and body:
            body = body[: fault.after + fault.length] + body[fault.after :]
            keep = False
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    wire = _Wire(request, writer, injection, fault)
    if response.stream is not None:
        await wire.send_stream(head, response.stream)
    else:
        await wire.send(head, body)
    return keep


class _Wire:
    """What an answer's bytes go through, with the fault that acts at one of them."""

    def __init__(
        self, request: Request, writer: asyncio.StreamWriter, injection: Injection | None, fault: Fault | None
    ) -> None:
        self._request = request
        self._writer = writer
        self._injection = injection
        self._fault = fault

    async def send(self, head: bytes, body: bytes) -> None:
        fault = self._fault
        if fault is None or fault.kind not in {"cut", "reset", "stall", "slow"}:
            await self._write(head, 0)
            await self._write_body(body)
        elif fault.kind == "slow":
            await self._write(head, 0)
            start = 0
            while start < len(body) and not (self._injection and self._injection.released):
                await self._write_body(body[start : start + fault.length])
                start += fault.length
                await asyncio.sleep(fault.seconds or 0)
            await self._write_body(body[start:])
        else:
            before = fault.after + (len(head) if fault.of == "body" else 0)
            await self._write(head[:before], 0)
            in_body = max(0, before - len(head))
            await self._write_body(body[:in_body])
            if self._injection is not None:
                await at_breaking_point(self._injection, self._writer)
            await self._write(head[before:], 0)
            await self._write_body(body[in_body:])

    async def send_stream(self, head: bytes, stream: AsyncGenerator[bytes, None]) -> None:
        """Send each piece as a chunk; `after` of a fault counts the bytes in them, or the pieces."""
        fault, sent, pieces = self._fault, 0, 0
        breaking = fault is not None and fault.kind in {"cut", "reset", "stall"}
        async with contextlib.aclosing(stream):
            if breaking and fault is not None and fault.of == "response":
                await self._write(head[: fault.after], 0)
                await self._break()
                await self._write(head[fault.after :], 0)
                breaking = False
            else:
                await self._write(head, 0)
            while piece := await self._next(stream):
                chunk, at = b"%x\r\n%s\r\n" % (len(piece), piece), -1
                if breaking and fault is not None:
                    if fault.of == "frames":
                        at = 0 if pieces == fault.after else -1
                    elif sent <= fault.after < sent + len(piece):
                        at = len(chunk) - len(piece) - 2 + fault.after - sent
                if at >= 0:
                    await self._write(chunk[:at], 0)
                    await self._break()
                    breaking = False
                await self._write_slowly(chunk[max(at, 0) :], len(piece))
                sent, pieces = sent + len(piece), pieces + 1
        if breaking:
            await self._break()
        await self._write(b"0\r\n\r\n", 0)

    async def _write_slowly(self, chunk: bytes, counted: int) -> None:
        fault = self._fault
        if fault is None or fault.kind != "slow":
            await self._write(chunk, counted)
            return
        for start in range(0, len(chunk), fault.length):
            await self._write(chunk[start : start + fault.length], 0)
            if not (self._injection and self._injection.released):
                await asyncio.sleep(fault.seconds or 0)
        self._request.bytes_out += counted

    async def _break(self) -> None:
        if self._injection is not None:
            await at_breaking_point(self._injection, self._writer)

    async def _next(self, stream: AsyncGenerator[bytes, None]) -> bytes:
        """Return the next piece, nothing at the end; raises `ClientLeftError` if the client does not wait for it."""
        task = asyncio.ensure_future(anext(stream, b""))
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=POLL)
                if not task.done() and (self._writer.is_closing() or hung_up(self._writer)):
                    raise ClientLeftError("the client left")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    async def _write_body(self, body: bytes) -> None:
        view = memoryview(body)
        for start in range(0, len(body), PIECE):
            piece = view[start : start + PIECE]
            await self._write(piece, len(piece))

    async def _write(self, data: bytes | memoryview, counted: int) -> None:
        if not data:
            return
        if self._writer.is_closing():  # to uvloop it is a RuntimeError
            raise ClientLeftError("the client left")
        self._writer.write(data)
        await self._writer.drain()
        self._request.bytes_out += counted


async def _drain(exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Read the rest of a request that was answered before its end; return whether it was short enough.

    A connection that is closed while there is something to read is reset, and the answer may be lost with it: so the
    sending side is closed first, as Go's server does it, and the client is given the time to read.
    """
    if exchange.body_read:
        return True
    exchange.injection = None
    if not exchange.refused_body and await exchange.skip(MAX_DRAINED):
        return True
    await flush(writer)
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while await reader.read(PIECE):
                pass
    return False

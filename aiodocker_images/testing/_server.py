"""A small HTTP/1.1 server whose every byte can be made to go wrong.

It is written by hand because a library would not send half a head, a wrong length, or a byte twice. What it serves is
a `Service`; what goes wrong is a `Fault` that the service names for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qsl, unquote

from .faults import Fault, Injection, altered

MAX_HEAD: Final = 1 << 20  # real servers accept some KiB; a client's long token should arrive all the same
MAX_DRAINED: Final = 256 << 10  # what Go's server reads of a body that its handler left, to keep the connection
PIECE: Final = 64 << 10
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER, for no time
_HUNG_UP: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_ESTABLISHED: Final = "01"  # in /proc/net/tcp
_NOT_HTTP: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request"
_POLL: Final = 0.005  # seconds between two looks at whether a client that is kept waiting has left


class ClientLeftError(ConnectionError):
    """The client closed the connection, or a fault did."""


@dataclass(eq=False, kw_only=True)
class Request:
    """A request that came, and what became of it.

    `target` is the path with its query exactly as they came; `path` is the decoded path alone. `headers` have names
    in lower case; of several lines with one name, the values are joined by commas. `status` is 0 until an answer
    began. `bytes_in` and `bytes_out` count bodies alone. `connection` is the number of the connection, `server` which
    of the fake's servers it was, `step` what was asked ("GET manifest"), with `repository` and `reference` (a tag or
    digest; empty where there is none).
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)  # with credentials
    connection: int
    server: str
    step: str = "unknown"
    repository: str = ""
    reference: str = ""
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    fault: Fault | None = None
    done: bool = False

    @property
    def path(self) -> str:
        """The path, decoded, without the query."""
        return unquote(self.target.partition("?")[0])

    @property
    def raw_query(self) -> str:
        """The query exactly as it came."""
        return self.target.partition("?")[2]

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded; of several with one name, the last."""
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def authorized(self) -> bool:
        """Whether an Authorization header was sent, right or wrong."""
        return "authorization" in self.headers


@dataclass(kw_only=True)
class Response:
    """An answer: its body is sent with its length."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class Exchange:
    """A request that is being answered: its body, as it comes."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.injection: Injection | None = None
        self._reader = reader
        self._writer = writer
        self._to_continue = request.headers.get("expect", "").lower() == "100-continue"
        self._chunked = request.headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = 0 if self._chunked else int(request.headers.get("content-length") or 0)
        self.body_read = not self._chunked and not self._left

    @property
    def refused_body(self) -> bool:
        """Whether the client still waits to be told to send its body."""
        return self._to_continue and not self.body_read

    async def some(self) -> bytes:
        """Return the next bytes of the request's body, nothing at its end; raises `ClientLeftError` if it is cut."""
        if self.body_read:
            return b""
        if self._to_continue:
            self._to_continue = False
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if self._chunked and not self._left:
                self._left = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if not self._left:
                    await self._reader.readuntil(b"\r\n")
                    self.body_read = True
                    return b""
            data = await self._reader.read(min(self._left, await self._allowed()))
            self._left -= len(data)
            self.request.bytes_in += len(data)
            if not self._left and self._chunked:
                await self._reader.readexactly(2)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise ClientLeftError("the request's body is not whole") from error
        if not data:
            raise ClientLeftError("the request's body ended early")
        self.body_read = not self._left and not self._chunked
        return data

    async def read(self) -> bytes:
        """Return the whole body."""
        body = bytearray()
        while data := await self.some():
            body += data
        return bytes(body)

    async def skip(self, most: int) -> bool:
        """Read `most` bytes of the rest of the body at most; return whether that was all."""
        before = self.request.bytes_in
        while self.request.bytes_in - before <= most and await self.some():
            pass
        return self.body_read

    async def _allowed(self) -> int:
        """Return how many bytes may be read now, after the fault of the request's body has had its turn."""
        if (injection := self.injection) is None or injection.fault.of != "request":
            return PIECE
        fault = injection.fault
        if fault.kind == "slow" and not injection.released:
            await asyncio.sleep(fault.seconds or 0)
            return fault.length
        if fault.kind not in {"cut", "reset", "stall"}:
            return PIECE
        if allowed := fault.after - self.request.bytes_in:
            return min(allowed, PIECE)
        self.injection = None
        await at_breaking_point(injection, self._writer)
        return PIECE


class Service(Protocol):
    """What a server serves."""

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a request. May set `exchange.injection`, the fault that the answer is to meet."""
        ...


class Server:
    """Serves on 127.0.0.1, on the same port each time, with TLS if there is a context for it.

    `known_as` is the host in its URL. `connections` are those that are open.
    """

    def __init__(
        self,
        name: str,
        service: Service,
        requests: list[Request],
        *,
        tls: ssl.SSLContext | None = None,
        known_as: str = "127.0.0.1",
    ) -> None:
        self.name = name
        self.port = 0
        self.connections: set[asyncio.StreamWriter] = set()
        self._service = service
        self._requests = requests
        self._tls = tls
        self._known_as = known_as
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

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
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self.port = self._socket.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=self._socket, limit=MAX_HEAD, ssl=self._tls)

    async def stop(self) -> None:
        """Close all connections and stop to listen."""
        if self._server is None or self._socket is None:
            return
        # What asyncio has accepted, but not yet made a transport of when the server closes, it forgets to close
        # (CPython 3.11): so first nothing more is accepted. uvloop does not know the descriptor, and needs none of it.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            asyncio.get_running_loop().remove_reader(self._socket)
        for _ in range(10):
            await asyncio.sleep(0)
        self._server.close()
        self.drop_connections()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        for _ in range(3):  # aborted transports close their sockets in a later turn of the loop
            await asyncio.sleep(0)
        self._server = self._socket = None

    def drop_connections(self) -> None:
        """Close every connection at once."""
        for writer in tuple(self.connections):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in a task
        self._tasks.add(task)
        self.connections.add(writer)
        self._accepted += 1
        number = self._accepted
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._serve(number, reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # stop() ended it; a stream server's callback would report it as an error
        finally:
            await _close(writer)
            self._tasks.discard(task)
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
    if response.status not in {204, 304}:
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
    await _Wire(request, writer, injection, fault).send(head, body)
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


async def at_breaking_point(injection: Injection, writer: asyncio.StreamWriter) -> None:
    """Do what a cut, a reset or a stall does; returns only if a stall is over."""
    fault = injection.fault
    if fault.kind == "stall":
        return await _stalled(injection, writer)
    await _flush(writer)
    if fault.kind == "reset":
        with contextlib.suppress(OSError):  # a unix socket
            peer: socket.socket = writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        writer.transport.abort()
    else:
        writer.close()
    raise ClientLeftError(f"cut by the fault {fault}")


async def _stalled(injection: Injection, writer: asyncio.StreamWriter) -> None:
    """Return when the stall is over; raises `ClientLeftError` when the client has."""
    await _flush(writer)
    loop = asyncio.get_running_loop()
    end = None if injection.fault.seconds is None else loop.time() + injection.fault.seconds
    while not injection.released and (end is None or loop.time() < end):
        if writer.is_closing() or _hung_up(writer):
            raise ClientLeftError("the client left")
        await asyncio.sleep(_POLL)


def _hung_up(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the client has closed its side, which the loop notices only when it reads."""
    peer: socket.socket | None = writer.get_extra_info("socket")
    if peer is None or peer.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(peer.fileno(), getattr(select, "POLLRDHUP", 0))
    return any(event & _HUNG_UP for _, event in poll.poll(0)) or _waits_to_close(writer)


def _waits_to_close(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the client has closed its side, but has sent more than anybody reads: its end comes after that.

    The client is on this machine, so Linux has its socket in a table, and its state there. Elsewhere nobody knows.
    """
    address = writer.get_extra_info("peername")
    if not isinstance(address, tuple):
        return False
    with contextlib.suppress(OSError):
        ours = f":{address[1]:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(ours) and fields[2].endswith(f":{writer.get_extra_info('sockname')[1]:04X}"):
                return fields[3] != _ESTABLISHED
    return False


async def _flush(writer: asyncio.StreamWriter) -> None:
    """Wait until the kernel has all that was written: a reset would take the rest with it."""
    while writer.transport.get_write_buffer_size() and not writer.is_closing():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)


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
    await _flush(writer)
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while await reader.read(PIECE):
                pass
    return False

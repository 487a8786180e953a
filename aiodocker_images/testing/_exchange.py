"""One request and its answer, as a small server has them in hand, and where a fault acts on the connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from aiodocker_images._system import sockets

from .faults import Fault, Injection

PIECE: Final = 64 << 10
POLL: Final = 0.005  # seconds between two looks at whether a client that is kept waiting has left
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER, for no time
_ESTABLISHED: Final = "01"  # in /proc/net/tcp


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
    """An answer: its body is sent with its length, or in chunks what comes of `stream`, each piece when it is there."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    stream: AsyncGenerator[bytes, None] | None = None


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


async def at_breaking_point(injection: Injection, writer: asyncio.StreamWriter) -> None:
    """Do what a cut, a reset or a stall does; returns only if a stall is over."""
    fault = injection.fault
    if fault.kind == "stall":
        return await _stalled(injection, writer)
    await flush(writer)
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
    await flush(writer)
    loop = asyncio.get_running_loop()
    end = None if injection.fault.seconds is None else loop.time() + injection.fault.seconds
    while not injection.released and (end is None or loop.time() < end):
        if writer.is_closing() or hung_up(writer):
            raise ClientLeftError("the client left")
        await asyncio.sleep(POLL)


def hung_up(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the client has closed its side, which the loop notices only when it reads."""
    peer: socket.socket | None = writer.get_extra_info("socket")
    if peer is None or peer.fileno() < 0:
        return True
    return sockets.hung_up(peer.fileno(), half=True) or _waits_to_close(writer)


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


async def flush(writer: asyncio.StreamWriter) -> None:
    """Wait until the kernel has all that was written: a reset would take the rest with it."""
    while writer.transport.get_write_buffer_size() and not writer.is_closing():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)

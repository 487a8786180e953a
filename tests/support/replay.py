"""A daemon that answers with a recording, broken at one byte: faster than a proxy, for faults at every byte."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from aiodocker_images.testing._listening import Listener, tcp_listener, unix_listener

from .fault_proxy import RESET_AT_CLOSE, TRICKLE, Fault

RECORDINGS: Final = Path(__file__).parents[1] / "recordings"

PAUSE: Final = 0.01
"""Seconds before what comes after the fault: long enough that it comes by itself, in another piece."""

_PONG: Final = b"HTTP/1.1 200 OK\r\nApi-Version: %b\r\nContent-Length: 0\r\n\r\n"


def recording(engine: str, operation: str) -> bytes:
    """Return the whole answer of an Engine to an operation, as it was on the wire."""
    return (RECORDINGS / engine / f"{operation}.http").read_bytes()


class Replay:
    """Listens in `directory`; each request is answered with `answer`, and meets `fault` on the way."""

    def __init__(self, directory: Path, answer: bytes, *, api_version: str = "1.51") -> None:
        self.pong = _PONG % api_version.encode()
        self.socket = directory / "replay.sock"
        self.tcp = ""
        self.answer = answer
        self.fault: Fault | None = None
        self.connections: set[asyncio.Transport] = set()
        self._listener = Listener(self._accept)

    async def __aenter__(self) -> Self:
        tcp = tcp_listener()
        self.tcp = "tcp://{}:{}".format(*tcp.getsockname())
        self._listener.listen(tcp)
        self._listener.listen(unix_listener(self.socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.stop()

    async def _accept(self, connection: socket.socket) -> None:
        """Hold a connection until it is over."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        transport, _ = await loop.connect_accepted_socket(lambda: _Connection(self, over), connection)
        try:
            await over
        finally:
            transport.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, replay: Replay, over: asyncio.Future[None]) -> None:
        self._replay = replay
        self._over = over
        self._request = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self._replay.connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._replay.connections.discard(self._transport)
        if not self._over.done():
            self._over.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._request += data
        if not _is_whole(bytes(self._request)):
            return
        if b" /_ping " in self._request:
            self._transport.write(self._replay.pong)
        else:
            self._answer(self._replay.answer, self._replay.fault)
        self._request.clear()

    def _answer(self, answer: bytes, fault: Fault | None) -> None:
        before, after = (answer, b"") if fault is None else (answer[: fault.offset], answer[fault.offset :])
        self._transport.write(before)
        if fault is None:
            return
        match fault.kind:
            case "cut":
                self._transport.close()
            case "half-close":
                self._transport.write_eof()
            case "stall":
                pass
            case "reset":
                connection = self._transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                self._transport.abort()
            # The connection stays open after a lie: the client itself must find that what came is no answer.
            case "duplicate":
                asyncio.get_running_loop().call_later(PAUSE, self._transport.write, after[: fault.length] + after)
            case "corrupt":
                lie = bytes([after[0] ^ fault.flip]) + after[1:]
                asyncio.get_running_loop().call_later(PAUSE, self._transport.write, lie)
            case "delay":
                asyncio.get_running_loop().call_later(PAUSE, self._transport.write, after)
            case "trickle":
                self._trickle(after, 0)

    def _trickle(self, rest: bytes, sent: int) -> None:
        if self._transport.is_closing():
            return
        if sent == TRICKLE:
            self._transport.write(rest[sent:])
        else:
            self._transport.write(rest[sent : sent + 1])
            asyncio.get_running_loop().call_soon(self._trickle, rest, sent + 1)


def _is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) >= int(value)
        if name == b"transfer-encoding":
            return body.endswith(b"0\r\n\r\n")
    return True

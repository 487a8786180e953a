"""A proxy between a client and an Engine that breaks what passes through it, at one byte, as it is told to.

It listens on a unix socket, and on a port of 127.0.0.1 for the fault that only TCP has: a real reset. It knows of
HTTP just enough to see whose connection it is: the first request of each decides, and `/_ping` passes untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import select
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

from aiodocker_images.testing._listening import Listener, streams, tcp_listener, unix_listener

Kind = Literal["cut", "reset", "stall", "trickle", "duplicate", "corrupt", "delay", "half-close"]
Direction = Literal["request", "answer"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)

HARMLESS: Final[frozenset[Kind]] = frozenset({"trickle", "delay"})
"""Faults that lose and change nothing: what meets them must succeed."""

LYING: Final[frozenset[Kind]] = frozenset({"duplicate", "corrupt"})
"""Faults that change bytes: no transport can tell all of them, so they may end in another whole result."""

DELAY: Final = 0.05
MAX_DUPLICATE: Final = 64
TRICKLE: Final = 1024
"""Bytes that trickle, one by one; the rest passes as it is, for an archive would take minutes."""

_HEAD_END: Final = b"\r\n\r\n"
_REQUEST: Final = re.compile(rb"([A-Z]+) (?:/v1\.[0-9]+)?(/[^ ?]*)(\S*) HTTP/1\.1\r\n")
_PIECE: Final = 1 << 16
_HUNG_UP: Final = select.POLLHUP | select.POLLERR | select.POLLRDHUP
RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER, for no time at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one direction of a connection when `offset` bytes of it have passed, its head included.

    cut: both sides are closed. reset: likewise, and TCP says so to the client. stall: nothing more passes.
    trickle: byte by byte. duplicate: the next `length` bytes come twice. corrupt: the next byte becomes another
    by `flip`. delay: a pause. half-close: this direction ends, the other goes on.
    """

    kind: Kind
    direction: Direction
    offset: int
    length: int = 1
    flip: int = 1

    @classmethod
    def random(cls, source: random.Random, kind: Kind, direction: Direction, size: int, *, start: int = 0) -> Fault:
        """Make a fault somewhere in a direction that has `size` bytes, not before the byte `start`."""
        return cls(
            kind=kind,
            direction=direction,
            offset=source.randrange(start, max(size, start + 1)),
            length=source.randint(1, MAX_DUPLICATE),
            flip=source.randint(1, 255),
        )


@dataclass(slots=True)
class Tape:
    """What passed through one connection: as the sender sent it, before any fault."""

    method: str = ""
    path: str = ""
    request: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)


class FaultProxy:
    """Listens in `directory`, and passes all on to the unix socket `upstream`.

    `fault` is what each connection from now on meets, but those of pings; None lets all pass. `injected` counts
    the faults that came to be, by kind and direction, `tapes` has each connection but those of pings.
    """

    def __init__(self, directory: Path, upstream: Path) -> None:
        self.socket = directory / "fault.sock"
        self.tcp = ""
        self.fault: Fault | None = None
        self.injected: Counter[tuple[Kind, Direction]] = Counter()
        self.tapes: list[Tape] = []
        self._upstream = upstream
        self._listener = Listener(self._accept)
        self._connections: set[asyncio.Task[None]] = set()

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

    async def idle(self) -> None:
        """Return when no connection is left but those that carry pings: the client has let go of all others."""
        while self._connections:
            await asyncio.sleep(0.002)

    def endpoint(self, kind: Kind) -> str:
        """Return where a client connects to meet that kind of fault."""
        return self.tcp if kind == "reset" else f"unix://{self.socket}"

    async def _accept(self, connection: socket.socket) -> None:
        async with streams(connection, limit=_PIECE) as (reader, writer):
            await self._proxy(reader, writer)

    async def _proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        pair: _Pair | None = None
        try:
            try:
                head = await reader.readuntil(_HEAD_END)
                upstream = await asyncio.open_unix_connection(self._upstream)
            except (asyncio.IncompleteReadError, ConnectionError, FileNotFoundError):
                return
            method, path = _request_line(head)
            tape = Tape(method, path)
            fault = None
            if path != "/_ping":
                self._connections.add(task)
                self.tapes.append(tape)
                fault = self.fault
            pair = _Pair(self, fault, tape, reader, writer, *upstream)
            await pair.run(head)
        finally:
            if pair is not None:
                pair.drop()
            self._connections.discard(task)


class _Pair:
    """Both directions of one connection."""

    def __init__(
        self,
        proxy: FaultProxy,
        fault: Fault | None,
        tape: Tape,
        client_reader: asyncio.StreamReader,
        client_writer: asyncio.StreamWriter,
        engine_reader: asyncio.StreamReader,
        engine_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._fault = fault
        self._tape = tape
        self._client = client_reader, client_writer
        self._engine = engine_reader, engine_writer
        self._over = asyncio.Event()

    async def run(self, head: bytes) -> None:
        """Pass both directions on until one side is gone or the fault ends it."""
        tasks = {
            asyncio.create_task(self._request(head)),
            asyncio.create_task(self._answer()),
            asyncio.create_task(self._over.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
        with contextlib.suppress(ConnectionError):
            self._client[1].close()  # what was passed on arrives before the end
            await self._client[1].wait_closed()

    def drop(self) -> None:
        """Let go of the Engine."""
        self._engine[1].transport.abort()

    async def _request(self, head: bytes) -> None:
        await self._pass("request", head, self._client[0], self._engine[1], self._tape.request)

    async def _answer(self) -> None:
        await self._pass("answer", b"", self._engine[0], self._client[1], self._tape.answer)

    async def _pass(
        self,
        direction: Direction,
        first: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tape: bytearray,
    ) -> None:
        """Pass one direction on, and do to it what the fault says."""
        fault = self._fault if self._fault is not None and self._fault.direction == direction else None
        passed = 0
        try:
            while data := first or await reader.read(_PIECE):
                first = b""
                tape += data
                if fault is not None and passed <= fault.offset < passed + len(data):
                    before, after = data[: fault.offset - passed], data[fault.offset - passed :]
                    await _send(writer, before)
                    self._proxy.injected[fault.kind, direction] += 1
                    if (pieces := await self._meet(fault, after, writer)) is None:
                        return
                    for piece in pieces:
                        await _send(writer, piece)
                else:
                    await _send(writer, data)
                passed += len(data)
        except (ConnectionError, RuntimeError):  # RuntimeError: uvloop's word for a writer that is closed
            self._over.set()

    async def _meet(self, fault: Fault, after: bytes, writer: asyncio.StreamWriter) -> Iterable[bytes] | None:
        """Inject the fault; return what is to be sent then, or None when the client has left after the end."""
        match fault.kind:
            case "trickle":
                for index in range(min(len(after), TRICKLE)):
                    await _send(writer, after[index : index + 1])
                    await asyncio.sleep(0)
                return (after[TRICKLE:],)
            case "duplicate":
                return after[: fault.length], after
            case "corrupt":
                return bytes([after[0] ^ fault.flip]), after[1:]
            case "delay":
                await asyncio.sleep(DELAY)
                return (after,)
            case "cut":
                self._over.set()
            case "reset":
                self._reset()
            case "half-close":
                writer.write_eof()
            case "stall":
                pass
        await self._gone()
        return None

    def _reset(self) -> None:
        client: socket.socket = self._client[1].get_extra_info("socket")
        if client.family == socket.AF_UNIX:
            raise ValueError("a unix socket has no reset: connect to `tcp`")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self._client[1].transport.abort()
        self._over.set()

    async def _gone(self) -> None:
        """Wait for the client to hang up, which a reader that has stopped reading does not tell."""
        poll = select.poll()
        poll.register(self._client[1].get_extra_info("socket"), _HUNG_UP)
        while not poll.poll(0):
            await asyncio.sleep(0.005)
        self._over.set()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(data)
        await writer.drain()


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _request_line(head: bytes) -> tuple[str, str]:
    if match := _REQUEST.match(head):
        return match[1].decode(), match[2].decode()
    raise ValueError(f"no request: {head[:80]!r}")

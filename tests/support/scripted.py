"""A daemon that does what a test scripts, byte by byte, on a unix socket.

It speaks HTTP by hand, because a library would not let a test send half a chunk, an answer before the request is
read, or no HTTP at all. A handler is a coroutine function that gets an `Exchange`, and answers with its methods.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from aiodocker_images.testing._listening import Listener, streams, unix_listener

Handler = Callable[["Exchange"], Awaitable[None]]

API_VERSION = "1.51"
MAX_HEAD = 16 << 20  # a request with the longest of names


@dataclass
class Exchange:
    """One request, and what is sent in answer to it.

    `head_lines` are the request's own, as it came; `sent` counts the bytes that the client's side took.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    keep_alive: bool = True
    body_read: bool = False
    head_lines: tuple[str, ...] = ()
    sent: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def path(self) -> str:
        """The path without the API version, as it came, quoted."""
        path = urlsplit(self.target).path
        return "/" + path.split("/", 2)[2] if path.startswith("/v1.") else path

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    async def body(self) -> bytes:
        """Read the whole request body; raises IncompleteReadError if the client ends it early."""
        self.body_read = True
        if (length := self.headers.get("content-length")) is not None:
            return await self.reader.readexactly(int(length))
        if self.headers.get("transfer-encoding") != "chunked":
            return b""
        body = bytearray()
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return bytes(body)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self.writer.is_closing():  # to uvloop it is a RuntimeError
            raise ConnectionResetError("the client is gone")
        self.writer.write(data)
        await self.writer.drain()
        self.sent += len(data)

    async def head(
        self, status: int = 200, *, length: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send the head of an answer: with a length, or in chunks."""
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = [f"HTTP/1.1 {status} X", framing, *(f"{name}: {value}" for name, value in (headers or {}).items())]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def answer(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer with its length."""
        await self.head(status, length=len(body), headers=headers)
        if self.method != "HEAD":
            await self.send(body)

    async def answer_json(self, document: object, status: int = 200) -> None:
        await self.answer(json.dumps(document).encode(), status, {"Content-Type": "application/json"})

    async def frames(self, *documents: object) -> None:
        """Send frames, each in a chunk of its own as dockerd flushes them."""
        for document in documents:
            await self.chunk(json.dumps(document).encode() + b"\r\n")

    def cut(self) -> None:
        """Drop the connection where it is."""
        self.keep_alive = False
        self.writer.transport.abort()

    async def client_gone(self) -> None:
        """Return when the client has closed its side, as a daemon notices that nobody wants a pull any more."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.closed.set()


class ScriptedDaemon:
    """Listens at `socket`; `on(method, path, handler)` scripts it. `requests` has each request that came."""

    def __init__(self, socket: Path, *, api_version: str | None = API_VERSION) -> None:
        self.socket = socket
        self.api_version = api_version
        self.requests: list[Exchange] = []
        self.connections: set[asyncio.StreamWriter] = set()
        self.otherwise: Handler | None = None  # for what no handler is scripted for, pings apart
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._listener = Listener(self._accept)

    def on(self, method: str, path: str, handler: Handler) -> None:
        """Answer requests to `path`, named without the version, with `handler`."""
        self._handlers[method, path] = handler

    @property
    def paths(self) -> list[str]:
        """The method and path of each request but pings."""
        return [f"{each.method} {each.path}" for each in self.requests if each.path != "/_ping"]

    @property
    def pings(self) -> int:
        return sum(each.path == "/_ping" for each in self.requests)

    async def idle(self) -> None:
        """Return when no connection is open and no handler runs: what a test calls after the client has left."""
        await self._listener.idle()

    async def __aenter__(self) -> Self:
        self._listener.listen(unix_listener(self.socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.stop()

    async def _accept(self, connection: socket.socket) -> None:
        async with streams(connection, limit=MAX_HEAD) as (reader, writer):
            self.connections.add(writer)
            # What was sent is out of our hands: a slow client gets all of it.
            writer.transport.set_write_buffer_limits(0)
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    while await self._serve(reader, writer):
                        pass
            finally:
                self.connections.discard(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return False
        request, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = request.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        keep_alive = headers.get("connection", "").lower() != "close"
        exchange = Exchange(method, target, headers, reader, writer, keep_alive, head_lines=(request, *lines))
        self.requests.append(exchange)
        try:
            await self._answer(exchange)
        except ConnectionError:  # the client left before its handler could wait for that
            exchange.closed.set()
            raise
        return exchange.keep_alive

    async def _answer(self, exchange: Exchange) -> None:
        handler = self._handlers.get((exchange.method, exchange.path))
        if handler is not None:
            await handler(exchange)
        elif exchange.path == "/_ping" and self.api_version is not None:
            await exchange.answer(
                b"OK", headers={"Api-Version": self.api_version, "Ostype": "linux", "Server": "Scripted"}
            )
        elif self.otherwise is not None:
            await self.otherwise(exchange)
        else:
            await exchange.answer_json({"message": "page not found"}, 404)

"""Whatever a daemon sends, or never stops sending: each call ends by itself, with a right result or an error of ours.

No caller's timeout helps here, and what the client takes in is bounded. The daemons of this file go on until the
client hangs up; one that did not would run into pytest's own time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from aiodocker_images import DockerError, ImageService, RegistryAuth, _transport
from aiodocker_images._jsonstream import MAX_FRAME

from .conftest import Leftovers
from .scripted import Exchange, Handler, ScriptedDaemon
from .tars import tar_of

MIB = 1 << 20
NAME = "alpine:3.20"
AUTH = RegistryAuth(username="jane", password="hunter2")

# What the sockets of both sides hold is taken, too, and so is what aiohttp buffers.
SLACK = 4 * MIB

TAR = tar_of({"a": b"x"})


async def exhaust(stream: AsyncGenerator[Any, None]) -> None:
    async with contextlib.aclosing(stream) as items:
        async for _ in items:
            pass


class Operation(NamedTuple):
    method: str
    path: str
    run: Callable[[ImageService], Awaitable[object]]


WHOLE: dict[str, Operation] = {
    "inspect": Operation("GET", f"/images/{NAME}/json", lambda images: images.inspect(NAME)),
    "list": Operation("GET", "/images/json", lambda images: images.list()),
    "version": Operation("GET", "/version", lambda images: images.version()),
    "tag": Operation("POST", f"/images/{NAME}/tag", lambda images: images.tag(NAME, "mine")),
    "login": Operation("POST", "/auth", lambda images: images.login(AUTH)),
    "request": Operation("GET", "/info", lambda images: images.request("GET", "/info")),
}
STREAMS: dict[str, Operation] = {
    "pull": Operation("POST", "/images/create", lambda images: images.pull(NAME, auth=AUTH)),
    "pull_stream": Operation("POST", "/images/create", lambda images: exhaust(images.pull_stream(NAME, auth=AUTH))),
    "push_stream": Operation("POST", f"/images/{NAME}/push", lambda images: exhaust(images.push_stream(NAME))),
    "load": Operation("POST", "/images/load", lambda images: images.load(TAR)),
    "import_stream": Operation("POST", "/images/create", lambda images: exhaust(images.import_stream(TAR))),
    "build_stream": Operation("POST", "/build", lambda images: exhaust(images.build_stream(TAR))),
    "events": Operation("GET", "/events", lambda images: exhaust(images.events(reconnect=False))),
}
ARCHIVES: dict[str, Operation] = {
    "save": Operation("GET", f"/images/{NAME}/get", lambda images: images.save(NAME, to=io.BytesIO())),
    "save_stream": Operation("GET", f"/images/{NAME}/get", lambda images: exhaust(images.save_stream(NAME))),
}
OPERATIONS = WHOLE | STREAMS | ARCHIVES


def endless(piece: bytes, *, first: bytes = b"") -> Handler:
    """Send `first`, and then `piece` until the client hangs up."""

    async def flood(exchange: Exchange) -> None:
        await exchange.send(first)
        await asyncio.sleep(0.01)  # most clients have the head by then, and wait for the body
        while True:
            await exchange.send(piece)

    return flood


def once(answer: bytes, *, close: bool = False) -> Handler:
    """Send an answer as it is written here; then wait for the client to leave, or `close`."""

    async def send(exchange: Exchange) -> None:
        await exchange.send(answer)
        exchange.keep_alive = False
        if not close:
            await exchange.client_gone()

    return send


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# Nothing of these ever becomes an answer.
ENDLESS_HEADS: dict[str, Handler] = {
    "many headers": endless(b"X-Header: value\r\n" * 1000, first=OK),
    "one header": endless(b"x" * 65536, first=OK + b"X-Header: "),
    "one name of a header": endless(b"x" * 65536, first=OK),
    "a folded header": endless(b" x\r\n" * 1000, first=OK + b"X-Header: x\r\n"),
    "a status": endless(b"1" * 65536, first=b"HTTP/1.1 "),
    "a version": endless(b"1" * 65536, first=b"HTTP/1."),
    "a reason": endless(b"x" * 65536, first=b"HTTP/1.1 200 "),
    "blank lines before": endless(b"\r\n" * 1000),
    "NULs": endless(bytes(65536)),
    "answers 100": endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "answers 102": endless(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000),
    "answers 103": endless(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000),
    "answers 199": endless(b"HTTP/1.1 199 X\r\n\r\n" * 1000),
    "cookies": endless(b"Set-Cookie: a=b\r\n" * 1000, first=OK),
    "HTTP/0.9": endless(b"<html>" * 10000),
    "the preface of HTTP/2": endless(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * 1000),
    "an upgrade": endless(b"x" * 65536, first=b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "status 99": endless(b"x" * 65536, first=b"HTTP/1.1 099 X\r\nContent-Length: 1000000000000\r\n\r\n"),
}

# Here it begins, and has no end.
ENDLESS_BODIES: dict[str, Handler] = {
    "an extension of a chunk": endless(b"x" * 65536, first=CHUNKED + b"5;"),
    "an extension of a later chunk": endless(b"x" * 65536, first=CHUNKED + chunk(b"{") + b"5;x="),
    "trailers": endless(b"X-Trailer: value\r\n" * 1000, first=CHUNKED + b"0\r\n"),
    "one trailer": endless(b"x" * 65536, first=CHUNKED + b"0\r\nX-Trailer: "),
    "the size of a chunk": endless(b"0" * 65536, first=CHUNKED),
    "a big size of a chunk": endless(b"f" * 65536, first=CHUNKED),
    "blanks behind the size of a chunk": endless(b" " * 65536, first=CHUNKED + b"5"),
    "newlines": endless(chunk(b"\r\n" * 1000), first=CHUNKED),
    "blanks": endless(chunk(b" \t" * 1000), first=CHUNKED),
    "record separators": endless(chunk(b"\x1e" * 1000), first=CHUNKED),
    "NULs": endless(chunk(bytes(65536)), first=CHUNKED),
    "empty frames": endless(chunk(b"{}\r\n" * 1000), first=CHUNKED),
    "frames of somebody else's": endless(chunk(b'{"x":1}\r\n' * 1000), first=CHUNKED),
    "brackets": endless(chunk(b"[" * 65536), first=CHUNKED),
    "braces": endless(chunk(b'{"a":' * 10000), first=CHUNKED),
    "a text": endless(chunk(b"x" * 65536), first=CHUNKED + chunk(b'{"status":"')),
    "a number": endless(chunk(b"1" * 65536), first=CHUNKED + chunk(b'{"id":')),
    "a list": endless(chunk(b'{"Id":"x"},' * 1000), first=CHUNKED + chunk(b"[")),
    "a key twice": endless(chunk(b'"status":"x",' * 1000), first=CHUNKED + chunk(b"{")),
    "a length of 2^62": endless(b" " * 65536, first=OK + b"Content-Length: 4611686018427387904\r\n\r\n"),
    "until the end": endless(b" " * 65536, first=b"HTTP/1.0 200 OK\r\n\r\n"),
}

ENDLESS_ERRORS: dict[str, Handler] = {
    "a text": endless(chunk(b"x" * 65536), first=FAILED),
    "a message": endless(chunk(b"x" * 65536), first=FAILED + chunk(b'{"message":"')),
    "blanks": endless(chunk(b" " * 65536), first=FAILED),
    "brackets": endless(chunk(b"[" * 65536), first=FAILED),
    "an extension of a chunk": endless(b"x" * 65536, first=FAILED + b"5;"),
    "trailers": endless(b"X-Trailer: value\r\n" * 1000, first=FAILED + chunk(b"no") + b"0\r\n"),
    "until the end": endless(b"x" * 65536, first=b"HTTP/1.0 500 X\r\n\r\n"),
}


@pytest.fixture(autouse=True)
def smaller_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read whole ends here at 4 MiB: the same code, with less to shovel."""
    monkeypatch.setattr(_transport, "MAX_ANSWER", 4 * MIB)


@pytest.fixture
async def images(daemon: ScriptedDaemon) -> AsyncGenerator[ImageService, None]:
    """A service that sends no pings, so that every connection is the operation's own."""
    async with ImageService(daemon.socket, api_version="1.51") as service:
        yield service


async def attacked(daemon: ScriptedDaemon, images: ImageService, operation: Operation, attack: Handler) -> DockerError:
    """Run an operation against an attack; return what it raises, when all that it opened is closed again."""
    before = Leftovers.now()
    daemon.on(operation.method, operation.path, attack)
    with pytest.raises(DockerError) as caught:
        await operation.run(images)
    await daemon.idle()
    await Leftovers().settle(before)
    (exchange,) = daemon.requests
    assert exchange.sent < MAX_FRAME + SLACK
    return caught.value


@pytest.mark.parametrize("attack", ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_a_head_without_end(
    daemon: ScriptedDaemon, images: ImageService, operation: Operation, attack: Handler
) -> None:
    error = await attacked(daemon, images, operation, attack)
    print("RAISED", repr(error)[:200], daemon.requests[0].sent)


@pytest.mark.parametrize("attack", ENDLESS_BODIES.values(), ids=ENDLESS_BODIES)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_a_body_without_end(
    daemon: ScriptedDaemon, images: ImageService, operation: Operation, attack: Handler
) -> None:
    error = await attacked(daemon, images, operation, attack)
    print("RAISED", repr(error)[:200], daemon.requests[0].sent)


@pytest.mark.parametrize("attack", ENDLESS_ERRORS.values(), ids=ENDLESS_ERRORS)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_an_error_without_end(
    daemon: ScriptedDaemon, images: ImageService, operation: Operation, attack: Handler
) -> None:
    error = await attacked(daemon, images, operation, attack)
    print("RAISED", repr(error)[:200], daemon.requests[0].sent)

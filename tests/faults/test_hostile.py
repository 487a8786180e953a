"""Whatever a daemon sends, or never stops sending: each call ends by itself, with a right result or an error of ours.

No caller's timeout helps here, and what the client takes in is bounded. The daemons of this file go on until the
client hangs up; one that did not would run into pytest's own time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import socket
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from aiodocker_images import (
    APIError,
    ArchiveError,
    DaemonUnreachableError,
    DockerError,
    FrameDecodeError,
    ImageService,
    RegistryAuth,
    ServerError,
    StreamInterruptedError,
)
from aiodocker_images._api.json_stream import MAX_FRAME
from aiodocker_images._http import documents
from aiodocker_images._http import response_body as _response_body
from aiodocker_images._http import transport as _transport
from aiodocker_images._http.framing import MAX_OVERHEAD
from aiodocker_images._http.refusals import MAX_PLAIN_TEXT
from aiodocker_images.testing._listening import listening, tcp_listener, unix_listener
from tests.conftest import STRICT_AIOHTTP, Leftovers
from tests.support.scripted import Exchange, Handler, ScriptedDaemon
from tests.support.tars import tar_of

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


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    run: Callable[[ImageService], Awaitable[object]]


WHOLE: dict[str, Operation] = {
    "inspect": Operation("GET", f"/images/{NAME}/json", lambda images: images.inspect(NAME)),
    "tag": Operation("POST", f"/images/{NAME}/tag", lambda images: images.tag(NAME, "mine")),
    "request": Operation("GET", "/info", lambda images: images.request("GET", "/info")),
}
STREAMS: dict[str, Operation] = {
    "pull": Operation("POST", "/images/create", lambda images: images.pull(NAME, auth=AUTH)),
    "push_stream": Operation("POST", "/images/alpine/push", lambda images: exhaust(images.push_stream(NAME))),
    "load": Operation("POST", "/images/load", lambda images: images.load(TAR)),
    "build_stream": Operation("POST", "/build", lambda images: exhaust(images.build_stream(TAR))),
    "events": Operation("GET", "/events", lambda images: exhaust(images.events(reconnect=False))),
}
ARCHIVES: dict[str, Operation] = {
    "save": Operation("GET", f"/images/{NAME}/get", lambda images: images.save(NAME, to=io.BytesIO())),
    "save_stream": Operation("GET", f"/images/{NAME}/get", lambda images: exhaust(images.save_stream(NAME))),
}
OPERATIONS = WHOLE | STREAMS | ARCHIVES

# One of each kind: a whole answer on a connection that is kept and on one that is not, frames, an upload, a tar.
KINDS = {name: OPERATIONS[name] for name in ("inspect", "tag", "pull", "load", "events", "save_stream")}


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
    leftovers = Leftovers()
    before = leftovers.now()
    daemon.on(operation.method, operation.path, attack)
    with pytest.raises(DockerError) as caught:
        await operation.run(images)
    await daemon.idle()
    await leftovers.settle(before)
    (exchange,) = daemon.requests
    assert exchange.sent < MAX_FRAME + SLACK
    assert len(str(caught.value)) < MAX_PLAIN_TEXT + 1000
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("attack", ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
@pytest.mark.parametrize("operation", KINDS.values(), ids=KINDS)
async def test_a_head_without_end_ends(
    daemon: ScriptedDaemon, images: ImageService, operation: Operation, attack: Handler
) -> None:
    """After so many bytes, and with the words that this is no daemon, or the status that came."""
    error = await attacked(daemon, images, operation, attack)
    assert isinstance(error, DaemonUnreachableError | ServerError)
    assert daemon.requests[0].sent < MAX_OVERHEAD + SLACK


@pytest.mark.parametrize("attack", ENDLESS_BODIES.values(), ids=ENDLESS_BODIES)
@pytest.mark.parametrize("operation", KINDS.values(), ids=KINDS)
async def test_a_body_without_end_ends(
    daemon: ScriptedDaemon, images: ImageService, operation: Operation, attack: Handler
) -> None:
    error = await attacked(daemon, images, operation, attack)
    assert isinstance(error, FrameDecodeError | ArchiveError | StreamInterruptedError | DaemonUnreachableError)


@pytest.mark.parametrize("attack", ENDLESS_ERRORS.values(), ids=ENDLESS_ERRORS)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_the_body_of_an_error_without_end_leaves_the_error(
    daemon: ScriptedDaemon, images: ImageService, operation: Operation, attack: Handler
) -> None:
    error = await attacked(daemon, images, operation, attack)
    assert isinstance(error, ServerError)
    assert error.status == 500
    assert daemon.requests[0].sent < MAX_OVERHEAD + SLACK


def trickled(piece: bytes, *, first: bytes = b"") -> Handler:
    async def trickle(exchange: Exchange) -> None:
        await exchange.send(FAILED + chunk(b"no such luck") + first)
        while True:
            await exchange.send(piece)
            await asyncio.sleep(0.005)

    return trickle


TRICKLED: dict[str, Handler] = {
    "a body": trickled(chunk(b".")),
    "an extension of a chunk": trickled(b"x", first=b"5;"),
    "silence": once(FAILED + chunk(b"no such luck")),
}


@pytest.mark.parametrize("attack", TRICKLED.values(), ids=TRICKLED)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_an_error_that_comes_for_ever_is_raised_as_far_as_it_came(
    daemon: ScriptedDaemon,
    images: ImageService,
    operation: Operation,
    attack: Handler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_response_body, "MAX_ERROR_SECONDS", 0.05)
    error = await attacked(daemon, images, operation, attack)
    assert error.message.startswith("no such luck")


async def test_a_load_whose_upload_has_no_end_ends_with_the_daemons_error(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    """The daemon answers before it has read anything, and goes on to read nothing."""

    async def endless_tar() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(65536)

    load = Operation("POST", "/images/load", lambda images: images.load(endless_tar()))
    error = await attacked(daemon, images, load, endless(chunk(b"no" * 1000), first=FAILED))
    assert isinstance(error, ServerError)


def answer(body: bytes, *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    framing = f"Content-Length: {len(body) if length is None else length}"
    return "\r\n".join([f"HTTP/1.1 {status}", framing, *lines, "", ""]).encode("latin-1") + body


def chunked(data: bytes, *lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *lines, "", ""]).encode() + data


IMAGE = b'{"Id":"sha256:%s"}' % (b"1" * 64)
WHOLE_CHUNKS = chunk(IMAGE) + b"0\r\n\r\n"
BOMB = gzip.compress(bytes(64 * MIB))

# What contradicts itself, and what is raised of it where an image was asked for.
CONTRADICTIONS: dict[str, tuple[bytes, type[DockerError]]] = {
    "a length that is too long": (answer(IMAGE, length=len(IMAGE) + 1), StreamInterruptedError),
    "a length that is too short": (answer(IMAGE, length=len(IMAGE) - 1), DaemonUnreachableError),
    "a length of 0": (answer(IMAGE, length=0), DaemonUnreachableError),
    "a negative length": (answer(IMAGE, length=-1), DaemonUnreachableError),
    "a length of 2^64": (answer(IMAGE, length=1 << 64), DaemonUnreachableError),
    "two lengths": (answer(IMAGE, "Content-Length: 5"), DaemonUnreachableError),
    "two equal lengths": (answer(IMAGE, f"Content-Length: {len(IMAGE)}"), DaemonUnreachableError),
    "a length and chunks": (chunked(WHOLE_CHUNKS, "Content-Length: 5"), DaemonUnreachableError),
    "chunks and a length": (answer(WHOLE_CHUNKS, "Transfer-Encoding: chunked"), DaemonUnreachableError),
    "a chunk of 2^63 bytes": (chunked(b"8000000000000000\r\n" + IMAGE), StreamInterruptedError),
    "a chunk of 2^64 bytes": (chunked(b"10000000000000000\r\n" + IMAGE), DaemonUnreachableError),
    "a chunk of a negative size": (chunked(b"-5\r\n" + IMAGE), DaemonUnreachableError),
    "a chunk of no size": (chunked(b"zz\r\n" + IMAGE), DaemonUnreachableError),
    "a chunk longer than it says": (chunked(b"5\r\n" + IMAGE), DaemonUnreachableError),
    "no last chunk": (chunked(chunk(IMAGE)), StreamInterruptedError),
    "half a chunk": (chunked(chunk(IMAGE)[:-5]), StreamInterruptedError),
    "a body with 204": (answer(IMAGE, status="204 No Content"), DaemonUnreachableError),
    "304, which answers a condition": (answer(b"", status="304 Not Modified"), APIError),
    "an upgrade": (answer(b"", "Connection: Upgrade", "Upgrade: h2c", status="101 X"), ServerError),
    "no status": (b"HTTP/1.1 000 X\r\n\r\n" + IMAGE, ServerError),
    "an unknown status": (answer(b"", status="999 X"), ServerError),
    "HTTP/0.9": (IMAGE, DaemonUnreachableError),
    "HTTP/1.9": (answer(IMAGE).replace(b"1.1", b"1.9"), DaemonUnreachableError),
    "HTTP/2": (answer(IMAGE).replace(b"1.1", b"2"), DaemonUnreachableError),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", DaemonUnreachableError),
    "a frame of HTTP/2": (bytes.fromhex("000012040000000000") + bytes(18), DaemonUnreachableError),
    "a header without a name": (answer(IMAGE, "banana"), DaemonUnreachableError),
    "nothing": (b"", StreamInterruptedError),
    "half a head": (answer(IMAGE)[:20], StreamInterruptedError),
    "a bomb, in gzip": (answer(BOMB, "Content-Encoding: gzip"), FrameDecodeError),
    "a bomb, in deflate": (answer(BOMB[10:-8], "Content-Encoding: deflate"), FrameDecodeError),
    "a bomb, as it is transferred": (
        chunked(chunk(BOMB) + b"0\r\n\r\n").replace(b"chunked", b"gzip, chunked"),
        FrameDecodeError,
    ),
    "in br": (answer(b"\x0b\x02\x80{}\x03", "Content-Encoding: br"), FrameDecodeError),
    "in zstd": (answer(b"\x28\xb5\x2f\xfd\x20\x02\x11\0\0{}", "Content-Encoding: zstd"), FrameDecodeError),
    "deep lists": (answer(b"[" * 100_000), FrameDecodeError),
    "deep objects": (answer(b'{"x":' * 100_000), FrameDecodeError),
    "deep in a field": (answer(b'{"Config":{"Labels":' + b'{"x":' * 100_000), FrameDecodeError),
}


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "head first"])
@pytest.mark.parametrize(("raw", "error"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
async def test_an_answer_that_makes_no_sense_is_an_error(
    daemon: ScriptedDaemon, images: ImageService, raw: bytes, error: type[DockerError], *, pause: bool
) -> None:
    """In one piece, or with the body behind a pause, in which the reading of it begins."""
    head, blank, body = raw.partition(b"\r\n\r\n")

    async def attack(exchange: Exchange) -> None:
        exchange.keep_alive = False
        if not pause:
            await exchange.send(raw)
            return
        await exchange.send(head + blank)
        await asyncio.sleep(0.01)
        await exchange.send(body)

    for operation in (WHOLE["inspect"], WHOLE["request"], STREAMS["pull"], STREAMS["push_stream"]):
        daemon.on(operation.method, operation.path, attack)
    leftovers = Leftovers()
    before = leftovers.now()
    tracemalloc.start()
    try:
        with pytest.raises(DockerError) as caught:
            await images.inspect(NAME)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    # With a pause, the head made sense.
    assert isinstance(caught.value, error if not pause else (error, StreamInterruptedError, FrameDecodeError))
    for operation in (STREAMS["pull"], STREAMS["push_stream"]):
        with pytest.raises(DockerError):
            await operation.run(images)
    # What is no answer of the Engine's may be some text to this one, and is then no error.
    with contextlib.suppress(DockerError):
        await images.request("GET", "/info")
    await daemon.idle()
    await leftovers.settle(before)


ODDITIES: dict[str, tuple[bytes, str]] = {
    "a huge number": (b'{"Id":"x","Size":%s}' % (b"9" * 100_000), "x"),
    "a huge exponent": (b'{"Id":"x","Size":1e99999}', "x"),
    "a time beyond all times": (b'{"Id":"x","Created":1e300}', "x"),
    "half a surrogate pair": (b'{"Id":"\\ud800"}', "\N{REPLACEMENT CHARACTER}"),
    "no UTF-8": (b'{"Id":"\xff"}', "\N{REPLACEMENT CHARACTER}"),
}


@pytest.mark.parametrize(("body", "image_id"), ODDITIES.values(), ids=ODDITIES)
async def test_an_odd_value_costs_its_own_field_and_little_memory(
    daemon: ScriptedDaemon, images: ImageService, body: bytes, image_id: str
) -> None:
    async def odd(exchange: Exchange) -> None:
        await exchange.answer(body)

    inspect = WHOLE["inspect"]
    daemon.on(inspect.method, inspect.path, odd)
    tracemalloc.start()
    try:
        image = await images.inspect(NAME)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    assert (image.id, image.size, image.created) == (image_id, 0, None)


TOLERATED: dict[str, bytes] = {
    "HTTP/1.0, until the end": b"HTTP/1.0 200 OK\r\n\r\n" + IMAGE,
    "HTTP/1.1, until the end": b"HTTP/1.1 200 OK\r\n\r\n" + IMAGE,
    "interim answers before": b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + answer(IMAGE),
    "early hints before": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(IMAGE),
    "chunks with extensions": chunked(b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(IMAGE), IMAGE)),
    "trailers": chunked(chunk(IMAGE) + b"0\r\nX-Trailer: x\r\n\r\n"),
    "a key twice: the last counts": answer(IMAGE[:-1] + b"," + IMAGE[1:]),
    "an encoding that is none": answer(IMAGE, "Content-Encoding: identity"),
    "a hundred headers": answer(IMAGE, *(f"X-Header-{n}: {'x' * 5000}" for n in range(100))),
}


@pytest.mark.parametrize("raw", TOLERATED.values(), ids=TOLERATED)
async def test_what_is_odd_but_clear_is_understood(daemon: ScriptedDaemon, images: ImageService, raw: bytes) -> None:
    daemon.on("GET", f"/images/{NAME}/json", once(raw, close=True))
    assert (await images.inspect(NAME)).id == "sha256:" + "1" * 64


async def test_newlines_alone_are_understood_but_in_debug_mode(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("GET", f"/images/{NAME}/json", once(answer(IMAGE).replace(b"\r\n", b"\n"), close=True))
    if STRICT_AIOHTTP:
        with pytest.raises(DaemonUnreachableError, match="does not speak HTTP: Missing expected CR"):
            await images.inspect(NAME)
    else:
        assert (await images.inspect(NAME)).id == "sha256:" + "1" * 64


MINE, THEIRS = b'{"Id":"mine"}', b'{"Id":"smuggled"}'
SMUGGLED = answer(THEIRS)

# How a second answer follows the first on a connection that is kept.
SMUGGLING: dict[str, tuple[bytes, ...]] = {
    "in the same piece": (answer(MINE) + SMUGGLED,),
    "behind the body": (answer(MINE)[:-5], answer(MINE)[-5:] + SMUGGLED),
    "behind chunks": (chunked(chunk(MINE)), b"0\r\n\r\n" + SMUGGLED),
    "half a head in the same piece": (answer(MINE) + SMUGGLED[:20], SMUGGLED[20:]),
    "later": (answer(MINE), SMUGGLED),
    "much later, in halves": (answer(MINE), SMUGGLED[:20], SMUGGLED[20:]),
    "without an end": (answer(MINE), SMUGGLED * 100_000),
}


@pytest.mark.parametrize("pieces", SMUGGLING.values(), ids=SMUGGLING)
async def test_a_second_answer_is_not_taken_for_the_next_ones(
    daemon: ScriptedDaemon, images: ImageService, pieces: tuple[bytes, ...]
) -> None:
    finished = asyncio.Event()

    async def answer_twice(exchange: Exchange) -> None:
        try:
            for piece in pieces:
                await exchange.send(piece)
                await asyncio.sleep(0.01)
        finally:
            finished.set()

    daemon.on("GET", f"/images/{NAME}/json", answer_twice)
    daemon.on("GET", "/images/other:latest/json", lambda exchange: exchange.answer(MINE))
    assert (await images.inspect(NAME)).id == "mine"
    await finished.wait()
    await asyncio.sleep(0.01)
    for _ in range(3):
        assert (await images.inspect("other")).id == "mine"
    assert daemon.requests[0].sent < MAX_OVERHEAD


async def test_a_connection_that_is_kept_is_used_again(daemon: ScriptedDaemon, images: ImageService) -> None:
    """What guards it against second answers does not cost the connection."""
    daemon.on("GET", f"/images/{NAME}/json", lambda exchange: exchange.answer(MINE))
    for _ in range(3):
        await images.inspect(NAME)
    assert len({id(exchange.writer) for exchange in daemon.requests}) == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_a_redirect_is_an_error_and_nothing_is_sent_there(
    daemon: ScriptedDaemon, images: ImageService, operation: Operation, status: int
) -> None:
    """To another machine, to another socket, and to the same daemon."""
    connections = 0

    async def count(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        connection.close()

    tcp, unix = tcp_listener(), unix_listener(daemon.socket.with_name("other.sock"))
    async with listening(count, tcp, unix):
        port = tcp.getsockname()[1]
        for location in (
            f"http://127.0.0.1:{port}/images/json",
            f"//127.0.0.1:{port}/",
            f"unix://{daemon.socket.with_name('other.sock')}",
            "/containers/json",
            "?all=true",
            "",
        ):
            redirect = answer(b"moved", f"Location: {location}", status=f"{status} Moved")
            daemon.on(operation.method, operation.path, once(redirect, close=True))
            with pytest.raises(APIError) as caught:
                await operation.run(images)
            assert caught.value.status == status
        assert connections == 0
    assert daemon.paths == [f"{operation.method} {operation.path}"] * 6


async def test_a_proxy_of_the_environment_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = 0

    async def count(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        connection.close()

    proxy = tcp_listener()
    async with listening(count, proxy):
        port = proxy.getsockname()[1]
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        with socket.socket() as unused:  # bound, but nobody listens there
            unused.bind(("127.0.0.1", 0))
            async with ImageService(f"tcp://127.0.0.1:{unused.getsockname()[1]}") as images:
                with pytest.raises(DaemonUnreachableError):
                    await images.pull(NAME, auth=AUTH)
    assert connections == 0


async def test_cookies_are_not_sent_back(daemon: ScriptedDaemon, images: ImageService) -> None:
    cookies = {"Set-Cookie": "a=b; Path=/", "set-cookie": "c=d"}
    daemon.on("GET", f"/images/{NAME}/json", lambda exchange: exchange.answer(MINE, headers=cookies))
    for _ in range(2):
        await images.inspect(NAME)
    assert [name for exchange in daemon.requests for name in exchange.headers if "cookie" in name] == []


PINGS: dict[str, Handler] = ENDLESS_HEADS | {
    "no Api-Version": once(answer(b""), close=True),
    "a body without end": endless(b"x" * 65536, first=answer(b"", length=1 << 40)),
    "a redirect": once(answer(b"", "Location: /other", status="307 X"), close=True),
}


@pytest.mark.parametrize("attack", PINGS.values(), ids=PINGS)
async def test_a_ping_that_is_never_answered_rightly_is_no_daemon(daemon: ScriptedDaemon, attack: Handler) -> None:
    """Nor is anything else sent to it."""
    leftovers = Leftovers()
    before = leftovers.now()
    for method in ("HEAD", "GET"):
        daemon.on(method, "/_ping", attack)
    async with ImageService(daemon.socket) as images:
        for ask in (images.ping, images.list):
            with pytest.raises(DaemonUnreachableError):
                await ask()
    assert daemon.paths == []
    await daemon.idle()
    await leftovers.settle(before)
    assert all(exchange.sent < MAX_OVERHEAD + SLACK for exchange in daemon.requests)


async def test_a_ping_does_not_read_what_follows_its_head(daemon: ScriptedDaemon) -> None:
    head = chunked(b"", "Api-Version: 1.51")
    for method in ("HEAD", "GET"):
        daemon.on(method, "/_ping", endless(chunk(b"x" * 65536), first=head))
    async with ImageService(daemon.socket) as images:
        assert (await images.ping()).api_version == "1.51"
        await daemon.idle()
    assert daemon.requests[0].sent < MAX_OVERHEAD + SLACK


VERSIONS: dict[str, str] = {
    "long": "1." + "5" * 8000,
    "text": "x" * 8000,
    "full-width": "\uff11.\uff15\uff11",
    "negative": "-1.51",
    "two": "1.51, 1.41",
    "with a path": "1.51/../containers",
    "with a fragment": "1.51#",
    "latin-1": "1.51\xe9",
    "huge": "99999999.1",
}


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
async def test_a_version_that_is_none_is_never_put_into_a_path(daemon: ScriptedDaemon, version: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nApi-Version: %s\r\nContent-Length: 0\r\n\r\n"
    raw = version.encode("latin-1" if "\xe9" in version else "utf-8")
    daemon.on("HEAD", "/_ping", once(head % raw))
    async with ImageService(daemon.socket) as images:
        with pytest.raises(DaemonUnreachableError) as caught:
            await images.list()
    assert daemon.paths == []
    assert len(str(caught.value)) < 300
    assert str(caught.value).encode()


async def test_headers_that_no_text_can_hold_become_text(daemon: ScriptedDaemon) -> None:
    lines = b"Api-Version: 1.51\r\nServer: \xff\xfe\r\nOstype: \xe9\r\nSwarm: \xe9\r\nBuilder-Version: \xe9"
    daemon.on("HEAD", "/_ping", once(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n%s\r\n\r\n" % lines))
    async with ImageService(daemon.socket) as images:
        assert msgspec.json.encode(await images.ping())


async def test_a_reason_that_no_text_can_hold_becomes_text(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("GET", "/images/json", once(b"HTTP/1.1 500 \xe9\r\nContent-Length: 0\r\n\r\n", close=True))
    with pytest.raises(ServerError) as caught:
        await images.list()
    assert str(caught.value).encode()


DATES = [
    "Mon, 99999999999999999999 Jan 2020 00:00:00 GMT",
    "Mon, 1 Jan 2020 99999999999:00:00 +0000",
    "Mon, 1 Jan 2020 00:00:00 +99999999999999999999999",
    "Mon, 1 Jan 0000 00:00:00 GMT",
    "9" * 8000,
    "",
]


@pytest.mark.parametrize("date", DATES, ids=lambda date: date[:30])
async def test_a_date_that_is_none_does_not_stop_events(
    daemon: ScriptedDaemon, images: ImageService, date: str
) -> None:
    event = b'{"Type":"image","Action":"pull","Actor":{"ID":"x"},"timeNano":1}\n'
    daemon.on("GET", "/events", once(chunked(chunk(event), f"Date: {date}")))
    async with contextlib.aclosing(images.events()) as events:
        assert (await anext(events)).action == "pull"


async def test_frames_without_end_take_no_memory(daemon: ScriptedDaemon, images: ImageService) -> None:
    """They are progress, which nothing tells from that of a long pull: it is the caller who ends it."""
    rows = (b'{"status":"Downloading","progressDetail":{"current":1},"id":"%012x"}\r\n' % n for n in range(1000))
    daemon.on("POST", "/images/create", endless(chunk(b"".join(rows)), first=CHUNKED))
    tracemalloc.start()
    try:
        async with contextlib.aclosing(images.pull_stream(NAME)) as frames:
            async for _ in frames:
                if daemon.requests[0].sent > 16 * MIB:
                    break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    await daemon.idle()


async def test_a_load_that_never_stops_naming_images_is_an_error(daemon: ScriptedDaemon, images: ImageService) -> None:
    names = chunk(b'{"stream":"Loaded image: a:1\\n"}\r\n' * 1000)
    error = await attacked(daemon, images, STREAMS["load"], endless(names, first=CHUNKED))
    assert isinstance(error, FrameDecodeError)


async def test_an_answer_of_countless_objects_is_not_decoded(
    daemon: ScriptedDaemon, images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three bytes of it would take hundreds in memory."""
    monkeypatch.setattr(documents, "MAX_OBJECTS", 1000)
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer(b"[" + b"{}," * 998 + b"{}]"))
    assert len(await images.list()) == 999
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer(b"[" + b"{}," * 999 + b"{}]"))
    with pytest.raises(FrameDecodeError, match="more than 1000 objects"):
        await images.list()

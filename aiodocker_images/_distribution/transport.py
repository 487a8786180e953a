"""One HTTP request to a registry at a time, over aiohttp: sessions, bodies, and aiohttp's exceptions in our own.

This is the only module of the distribution API that knows aiohttp. Nothing is decided here: no redirect is followed,
no status means anything, and nothing is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from aiodocker_images._aio.threads import outlast, retrieve
from aiodocker_images._http.guard import GuardedResponse
from aiodocker_images._http.ownership import CLOSED, INTERRUPTED, Owner, close_forgotten, drop_connections
from aiodocker_images._http.response_body import StreamedResponse, read_some
from aiodocker_images._version import __version__
from aiodocker_images.errors import (
    DockerError,
    FrameDecodeError,
    RegistryUnreachableError,
    ServiceClosedError,
    StreamInterruptedError,
    StreamStalledError,
    without_frames,
)

from .unfinished import Unfinished, undoing

__all__ = ["Answer", "Body", "Request", "Transport"]

READ_BUFFER: Final = 1 << 20
"""Bytes of a blob that wait to be sent on before no more of it is taken from the socket, and that are read at once.

Each piece costs a turn of everything between the two registries: of 1 GiB, pieces of 256 KiB cost a tenth more.
"""

COMMIT_PATIENCE: Final = 5
"""How many times `idle_timeout` a registry may take to answer an upload: some copy the blob before they do."""

MAX_REASON: Final = 200
"""Characters of what aiohttp says of an answer that is not HTTP: it quotes all that came."""


class Body:
    """A request's body that is sent once, as it comes. Its size is known.

    `failure` is what `chunks` raised, which aiohttp would wrap in an exception of its own. `complete` says whether all
    of it was given to the connection.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], size: int) -> None:
        self.chunks = chunks
        self.size = size
        self.failure: Exception | None = None
        self.complete = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: where to, and over what. `headers` and `proxy_headers` may carry credentials.

    `large`: the body may be long, so that reading it past aiohttp's reader saves time (`_http.response_body`).
    """

    method: str
    url: URL = field(repr=False)  # may be signed
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | Body | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    proxy: URL | None = None
    proxy_headers: Mapping[str, str] | None = field(default=None, repr=False)
    large: bool = False


class Answer:
    """The head of an answer, and its body as long as nobody has closed it. Close it on every way out."""

    def __init__(
        self, transport: Transport, response: aiohttp.ClientResponse, payload: _Payload | None, where: str
    ) -> None:
        self.status = response.status
        self.reason = response.reason
        self.headers: Mapping[str, str] = response.headers
        self.where = where
        self._transport = transport
        self._response = response
        self._payload = payload

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header that may be there several times."""
        return self._response.headers.getall(name, [])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes, in pieces of any size; raise if it ends before its end."""
        while True:
            try:
                data = await read_some(self._response, self._transport.idle_timeout)
            except Exception as error:  # noqa: BLE001 - translated, or raised as it is
                failure = self._transport.failure(error, self.where, answered=True)
                break
            if not data:
                return
            yield data
        raise failure

    async def read(self, limit: int, *, cut: bool = False) -> bytes:
        """Return the whole body. Raises `FrameDecodeError` if it passes the limit, unless it may be `cut` there."""
        pieces = bytearray()
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for data in chunks:
                pieces += data
                if len(pieces) > limit:
                    if cut:
                        break
                    raise FrameDecodeError(f"the answer of {self.where} is longer than {limit} bytes")
        return bytes(pieces[:limit])

    async def aclose(self) -> None:
        """Let the connection be used again if the answer was read to its end; close it otherwise. Idempotent."""
        self._transport.forget(self)
        if self._response.connection is not None:
            self._response.close()
        if self._payload is not None:
            await self._payload.abandon()

    def interrupt(self) -> None:
        """Wake whoever waits for more of this answer."""
        self._response.close()


class Transport:
    """The connections of one service, opened at the first request; they belong to the loop of that."""

    def __init__(self, *, connect_timeout: float | None, idle_timeout: float | None) -> None:
        self._connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._owner = Owner()
        self._answers: set[Answer] = set()
        self._closed = False
        self._closing = asyncio.Event()
        self.unfinished = Unfinished()

    def check_usable(self) -> None:
        """Raise `ServiceClosedError` if the service was closed, or belongs to another loop or process."""
        if self._closed and not undoing():
            raise ServiceClosedError(CLOSED)
        self._owner.claim()

    async def send(self, request: Request) -> Answer:
        """Send a request and return its answer when the head is there.

        Raises `RegistryUnreachableError`, `StreamInterruptedError`, and what the chunks of the body raise.
        """
        self.check_usable()
        where = request.url.authority
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._connect_timeout, sock_read=self._patience(request.body)
        )
        payload = _Payload(request.body, self.idle_timeout) if isinstance(request.body, Body) else None
        data = payload if payload is not None else request.body
        failure: Exception
        outer = sys.exception()
        try:
            response = await self._opened(large=request.large).request(
                request.method,
                request.url,
                data=data,
                headers=request.headers,
                allow_redirects=False,
                timeout=timeout,
                ssl=request.tls or True,
                proxy=request.proxy,
                proxy_headers=request.proxy_headers,
            )
        except Exception as error:  # noqa: BLE001 - translated, or raised as it is
            failure = self._failure_of(error, payload, where)
        except BaseException as error:
            without_frames(error, outer=outer)  # those of aiohttp have the headers in their variables
            if payload is not None:
                await payload.abandon()
            raise
        else:
            if isinstance(response, StreamedResponse):
                response.expect(READ_BUFFER, at_once=READ_BUFFER)
            answer = Answer(self, response, payload, where)
            self._answers.add(answer)
            return answer
        if payload is not None:
            await payload.abandon()
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises `ServiceClosedError` at once when the service is closed in the meantime."""
        if undoing():
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        self.check_usable()

    def _patience(self, body: bytes | Body | None) -> float | None:
        if self.idle_timeout is None or not isinstance(body, Body):
            return self.idle_timeout
        return self.idle_timeout * COMMIT_PATIENCE

    def _opened(self, *, large: bool) -> aiohttp.ClientSession:
        """Return the session for such answers. Both take their connections from the same pool, the first one's."""
        if large not in self._sessions:
            other = self._sessions.get(not large)
            self._sessions[large] = aiohttp.ClientSession(
                # limit=0: who may send when is decided by `Registry` and `Slots`.
                connector=aiohttp.TCPConnector(limit=0) if other is None else other.connector,
                connector_owner=other is None,
                cookie_jar=aiohttp.DummyCookieJar(),
                # Compressed on the way, a blob would have another digest, and a Range would mean something else.
                headers={"User-Agent": f"aiodocker-images/{__version__}", "Accept-Encoding": "identity"},
                skip_auto_headers=("Content-Type", "Accept"),
                auto_decompress=False,
                trust_env=False,  # which would send the credentials of ~/.netrc, too
                read_bufsize=READ_BUFFER // 2,  # aiohttp reads on until it has twice that
                response_class=StreamedResponse if large else GuardedResponse,
            )
        return self._sessions[large]

    def _failure_of(self, error: Exception, payload: _Payload | None, where: str) -> Exception:
        if payload is not None and payload.body.failure is not None:
            return payload.body.failure
        return self.failure(error, where, answered=False)

    def failure(self, error: Exception, where: str, *, answered: bool) -> DockerError:
        """Make the exception for what aiohttp or the operating system raised; a bug of ours stays as it is."""
        ours = (
            StreamInterruptedError(INTERRUPTED)
            if self._closed
            else _translate(error, where, answered=answered, idle=self.idle_timeout, connect=self._connect_timeout)
        )
        if ours is None:
            raise error
        # The repr of aiohttp's ClientResponseError has the request's headers, credentials and all, and so have the
        # variables of aiohttp's frames.
        cause = error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error
        ours.__cause__ = None if cause is None else without_frames(cause)
        return ours

    def forget(self, answer: Answer) -> None:
        """Note that an answer has ended."""
        self._answers.discard(answer)

    async def aclose(self) -> None:
        """End what is under way and close every connection. Idempotent, and possible from any loop and process."""
        self._closed = True
        place = self._owner.place()
        if place in ("another thread", "a stopped loop"):
            await self._owner.run(self._aclose_here)
        elif place in ("a closed loop", "another process"):
            drop_connections(self._given_up())
        else:
            await self._aclose_here()

    def close_forgotten(self) -> bool:
        """Close what is open of a service that nobody closed, without waiting; return whether there was anything."""
        sessions = self._given_up()
        close_forgotten(sessions, self._owner)
        return bool(sessions)

    async def _aclose_here(self) -> None:
        self._closing.set()
        # In a task, because a cancellation in the middle of it would leave the rest open, and nobody to close it.
        await outlast(asyncio.create_task(self._close(), name="close the connections to registries"))

    async def _close(self) -> None:
        await self.unfinished.opened()
        # Over connections of their own, as those that are closed were in the middle of uploads.
        await self.unfinished.undo_all(self._close_sessions)
        await self._close_sessions()

    async def _close_sessions(self) -> None:
        for answer in tuple(self._answers):
            answer.interrupt()
        for session in self._given_up():
            await session.close()

    def _given_up(self) -> list[aiohttp.ClientSession]:
        sessions, self._sessions = list(self._sessions.values()), {}
        return sessions


class _Payload(aiohttp.Payload):
    """Gives the chunks of a body to a connection, once, and can be waited for."""

    def __init__(self, body: Body, idle_timeout: float | None) -> None:
        super().__init__(body, content_type="application/octet-stream")
        self.body = body
        self._size = body.size  # sent as Content-Length
        self._idle_timeout = idle_timeout
        self._task: asyncio.Task[object] | None = None
        self._settled: asyncio.Future[None] | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's signature
        raise TypeError("an upload is read once, by the connection")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002 - the body has its size
        if self._settled is not None:
            # aiohttp sends a PUT again by itself if the connection was a kept one that has ended.
            raise ConnectionResetError("the connection ended in the middle of the body")
        self._settled = asyncio.get_running_loop().create_future()
        self._task = cast("asyncio.Task[object] | None", asyncio.current_task())
        if self._task is not None:
            self._task.add_done_callback(retrieve)  # who reads the answer hears of that end by himself
        try:
            async with contextlib.aclosing(self.body.chunks) as chunks:
                await self._pump(chunks, writer)
        finally:
            self._settled.set_result(None)

    async def _pump(self, chunks: AsyncGenerator[bytes, None], writer: AbstractStreamWriter) -> None:
        sent = 0
        while True:
            try:
                chunk = await anext(chunks, None)
            except Exception as error:
                self.body.failure = error
                raise
            if chunk is None:
                self.body.complete = True
                return
            await self._taken(writer.write(chunk))
            # A registry that has all bytes may answer before the source has closed its file and said that it ends.
            sent += len(chunk)
            self.body.complete = sent >= self.body.size

    async def _taken(self, step: Awaitable[None]) -> None:
        """Wait until the registry has taken what it was sent."""
        try:
            async with asyncio.timeout(self._idle_timeout):
                await step
        except TimeoutError as error:
            if error.errno is None:  # ETIMEDOUT of a TCP connection is a TimeoutError, too
                self.body.failure = StreamStalledError(f"the registry took nothing for {self._idle_timeout:g} s")
            raise

    async def abandon(self) -> None:
        """End the sending, and wait until the source of the chunks is let go."""
        if self._settled is None:
            await outlast(asyncio.ensure_future(self.body.chunks.aclose()))
            return
        if not self._settled.done() and self._task is not None:
            self._task.cancel()
        await outlast(self._settled)


def _translate(
    error: Exception, where: str, *, answered: bool, idle: float | None, connect: float | None
) -> DockerError | None:
    """Make ours of what a request (`answered` false) or the reading of its answer raised.

    Returns None for what neither the network nor the registry can cause: that is a bug, to be seen as it is.
    """
    match error:
        case aiohttp.SocketTimeoutError():
            return StreamStalledError(f"{where} sent nothing for {idle:g} s")
        case aiohttp.ConnectionTimeoutError():
            return RegistryUnreachableError(f"cannot connect to {where}: no connection within {connect} s")
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            reason: str = getattr(cause, "verify_message", str(cause))
            return RegistryUnreachableError(
                f"cannot connect to {where}: its certificate is not valid: {reason}; its authority belongs into"
                f" certs.d/{where}/ca.crt or RegistryConfig(tls=TLSConfig(ca=...))"
            )
        case aiohttp.ClientSSLError():
            return RegistryUnreachableError(
                f"cannot connect to {where}: no TLS with what answers there: {_short(error)}"
            )
        case aiohttp.ClientHttpProxyError():
            return RegistryUnreachableError(f"cannot connect to {where}: the proxy refused with status {error.status}")
        case aiohttp.ClientConnectorError():
            return RegistryUnreachableError(f"cannot connect to {where}: {_short(error)}")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return RegistryUnreachableError(f"{where} is not an address")
        case aiohttp.ClientResponseError() | HttpProcessingError() if not answered:
            return RegistryUnreachableError(
                f"what answers at {where} does not speak HTTP, or wants TLS: {_short(error.message)}"
            )
        case aiohttp.ClientError() | HttpProcessingError() | OSError() | EOFError():
            when = "in the middle of its answer" if answered else "before it answered"
            # Of a plain end aiohttp tells the framing that broke, with a status (400) that nobody sent.
            plain = isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError)
            reason = "" if plain else f": {_short(error)}"
            return StreamInterruptedError(f"the connection to {where} ended {when}{reason}")
        case _:
            return None


def _short(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"

"""Requests over aiohttp: sessions, versions, URLs, statuses, and live answers that end in any way they are left.

Two sessions. Safe requests (GET, HEAD) whose answers are read whole share kept-alive connections. Whatever
streams or changes something opens a connection of its own and closes it after: leaving such an answer early
must end the daemon's work, which only a closed connection does, and a request that must not be sent twice
must not meet a connection that the daemon is just closing. Nor is it sent again by aiohttp if that breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Final, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from aiodocker_images._aio.threads import in_thread, outlast
from aiodocker_images._archive.streams import ArchiveUpload
from aiodocker_images._encoding import Query
from aiodocker_images._version import __version__
from aiodocker_images.api_version import APIVersion, require
from aiodocker_images.endpoint import Endpoint
from aiodocker_images.errors import (
    APIError,
    DaemonUnreachableError,
    DockerError,
    FrameDecodeError,
    ServiceClosedError,
    StreamInterruptedError,
    UnsupportedAPIVersionError,
    without_frames,
)
from aiodocker_images.models import Ping

from . import failures
from .build_failures import build_error
from .call import ARCHIVE_BUFFER, Call
from .connector import Link
from .documents import check_objects, may_have_too_many_objects, read_document
from .guard import GuardedResponse
from .negotiation import Negotiation
from .ownership import CLOSED, INTERRUPTED, Owner, close_forgotten, drop_connections
from .ping import read_ping
from .refusals import api_error_class, no_success, read_error, version_refused
from .request_body import Body
from .response_body import ARCHIVE_READ, StreamedResponse, read_error_body, read_some

T = TypeVar("T")

_READ_ARCHIVES: Final = ("load", "import")  # the Engine reads a tar, and asks no registry

MAX_ANSWER: Final = 256 << 20
"""Bytes of an answer that is read whole; a list of 100,000 images is about 60 MiB."""


class Live:
    """An answer that is being read, from its request to its end. Made by `Transport.open`; counts as one of `slots`.

    Its context is no generator of contextlib's: when a loop ends, asyncio closes every async generator by itself and
    at once, this one from under whoever is in its context.
    """

    def __init__(
        self,
        transport: Transport,
        call: Call,
        upload: ArchiveUpload | None = None,
        *,
        shared: bool = False,
        slots: asyncio.Semaphore | None = None,
    ) -> None:
        self._transport = transport
        self._call = call
        self._shared = shared
        self._slots = slots
        self._response: aiohttp.ClientResponse | None = None
        self._body: Body | None = None
        if upload is not None:
            self._body = Body(upload, idle_timeout=transport.idle_timeout, on_failure=self.interrupt)

    async def __aenter__(self) -> Self:
        """Wait for a slot, send the request, and wait for the head of the answer."""
        self._transport.must_be_usable()  # before anything is waited for that belongs to another loop
        if self._slots is not None:
            await self._slots.acquire()
        try:
            await self._start()
        except BaseException as error:
            await self._end()
            self._transport.locate(error, self._call)  # behind it: to find out the endpoint may fail
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the answer: close its connection if that has more to come, which ends the daemon's work."""
        await self._end()
        self._transport.locate(error, self._call)

    async def _start(self) -> None:
        """Send the request and wait for the head of the answer; raise what its status says.

        An Engine that has been replaced by an older or newer one refuses the version that the other one spoke, and
        has done nothing: then the request is sent once more in a version that this one speaks. What is uploaded
        may come from a source that can be read only once: there the refusal is raised.
        """
        try:
            await self._send()
        except UnsupportedAPIVersionError:
            if self._response is None or self._body is not None or self._transport.versions.current is not None:
                raise
            self._response.close()
            self._response = None
            await self._send()

    async def _send(self) -> None:
        transport, call = self._transport, self._call
        version = transport.versions.current or await transport.versions.negotiated()
        for parameter in call.parameters:
            require(call.verb, parameter, version)
        session = await transport.session(shared=self._shared)
        url = transport.url(f"/v{version}{call.path}", call.query)
        transport.live.add(self)
        failure: Exception | None = None
        try:
            response = await self._request(session, url)
        except Exception as error:  # noqa: BLE001 - translated, or raised as it is
            failure = self._failure(error, answered=False)
        else:
            transport.versions.heard(response.headers.get("Api-Version"))
            # Nothing is asked that 1xx or 3xx would answer: no upgrade, no condition, and no redirect is followed.
            if not 200 <= response.status < 300:
                failure = transport.refusal(call, response, await read_error_body(response, transport.idle_timeout))
            elif call.statuses and response.status not in call.statuses:
                body = await read_error_body(response, transport.idle_timeout)
                failure = no_success(response.status, call.statuses, body)
            elif isinstance(response, StreamedResponse):
                at_once = ARCHIVE_READ if call.archive else None
                response.expect(ARCHIVE_BUFFER if call.archive else call.buffer, at_once=at_once)
        if failure is not None:
            raise failure

    async def _request(
        self, session: aiohttp.ClientSession, url: URL, *, again: bool = False
    ) -> aiohttp.ClientResponse:
        """Send the request, and return the response when its head has come."""
        transport, call = self._transport, self._call
        body: aiohttp.Payload | None = self._body
        if call.document is not None:
            body = aiohttp.BytesPayload(call.document, content_type="application/json")
        shared = self._shared and not again
        outer = sys.exception()
        try:
            self._response = await session.request(
                call.method,
                url,
                data=body,
                headers=call.headers,
                allow_redirects=False,
                middlewares=transport.middlewares(shared=shared),
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not shared or transport.closed or isinstance(error, aiohttp.ClientConnectorError):
                raise
        except asyncio.CancelledError as error:
            # It passes through untouched, but for aiohttp's frames: the headers are in their variables.
            without_frames(error, outer=outer)
            raise
        else:
            return self._response
        # A kept connection was dead, and so was the one that aiohttp tried next. A new one is not.
        return await self._request(await transport.session(shared=False), url, again=True)

    async def _end(self) -> None:
        try:
            self._transport.live.discard(self)
            if self._response is not None and self._response.connection is not None:
                self._response.close()
            if self._body is not None:
                await self._body.abandon()  # lets go of the source
        finally:
            if self._slots is not None:
                self._slots.release()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes, in pieces of any size; raise if it ends before its end."""
        if self._response is None:
            raise RuntimeError("an answer is read in its context")
        while True:
            try:
                data = await read_some(self._response, self._transport.idle_timeout)
            except Exception as error:  # noqa: BLE001 - translated, or raised as it is
                failure = self._failure(error, answered=True)
                break
            if not data:
                return
            yield data
        raise failure

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raise if it ends before its end, or passes the limit."""
        if self._response is None:
            raise RuntimeError("an answer is read in its context")
        pieces: list[bytes] = []
        size = 0
        try:
            while data := await read_some(self._response, self._transport.idle_timeout):
                pieces.append(data)
                size += len(data)
                if size > limit:
                    break
        except Exception as error:  # noqa: BLE001 - translated, or raised as it is
            failure = self._failure(error, answered=True)
        else:
            if size <= limit:
                return b"".join(pieces)  # one piece is returned as it is
            failure = FrameDecodeError(f"the answer is longer than {limit >> 20} MiB")
        raise failure

    def header(self, name: str) -> str | None:
        """Return a header of the answer."""
        return None if self._response is None else self._response.headers.get(name)

    def interrupt(self) -> None:
        """Wake whoever waits for more of this answer."""
        if self._response is not None:
            self._response.close()

    def _failure(self, error: Exception, *, answered: bool) -> Exception:
        """Make the exception, to be raised outside of the handler: there, `error` would become its context."""
        if self._body is not None and self._body.failure is not None:
            return self._body.failure
        return self._transport.failure(error, answered=answered)


class Transport:
    """Requests to one Engine: sessions opened at the first of them, one negotiated version, live answers.

    `max_connections` bounds live streams alone: a control call never queues behind them.
    """

    def __init__(
        self,
        endpoint: Endpoint | None,
        *,
        api_version: APIVersion | None,
        max_connections: int | None,
        idle_timeout: float | None,
        connect_timeout: float | None,
    ) -> None:
        self._link = Link(endpoint, connect_timeout=connect_timeout)
        self.versions = Negotiation(api_version, self.ping, interrupted=self._interruption)
        self._slots = asyncio.Semaphore(max_connections) if max_connections is not None else None
        self.idle_timeout = idle_timeout
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout, sock_connect=connect_timeout, sock_read=idle_timeout
        )
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._owner = Owner()
        self._closed = False
        self.live: set[Live] = set()  # the answers that are under way
        self._closing = asyncio.Event()

    @property
    def endpoint(self) -> Endpoint:
        """Where requests go; chosen at the first need."""
        return self._link.endpoint

    @property
    def closed(self) -> bool:
        """Whether the service was closed."""
        return self._closed

    async def aclose(self) -> None:
        """End what is under way and close every connection. Idempotent, and possible from any loop and process."""
        self._closed = True
        place = self._owner.place()
        if place in ("another thread", "a stopped loop"):
            await self._owner.run(self._aclose_here)
        elif place in ("a closed loop", "another process"):
            sessions, self._sessions = list(self._sessions.values()), {}
            drop_connections(sessions)
            if place == "a closed loop":
                self._link.abandon()
        else:
            await self._aclose_here()

    def __del__(self) -> None:
        """Warn of a service that nobody closed, and close what it has open."""
        if sessions := list(self._sessions.values()):
            warnings.warn(
                f"ImageService({str(self.endpoint)!r}) was never closed: use it with `async with`, or await aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )
            close_forgotten(sessions, self._owner)

    async def _aclose_here(self) -> None:
        self._closing.set()
        for live in tuple(self.live):
            live.interrupt()
        # In a task, because a cancellation in the middle of it would leave the rest open, and nobody to close it.
        await outlast(asyncio.create_task(self._close(), name="close the connections to the Engine"))

    async def _close(self) -> None:
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()
        await self.versions.aclose()
        await self._link.aclose()

    async def fetch(self, call: Call, decoder: msgspec.json.Decoder[T]) -> T:
        """Send a request whose answer is one JSON document, and decode it."""
        return self.decode(call, await self.fetch_bytes(call), decoder)

    def decode(self, call: Call, body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
        """Decode the answer to a call; see `read_document`."""
        with self.located(call):
            return read_document(body, decoder, call.operation)

    async def fetch_bytes(self, call: Call) -> bytes:
        """Send a request and return the whole body of its answer."""
        async with Live(self, call, shared=call.method in ("GET", "HEAD")) as live:
            body = await live.read(MAX_ANSWER)
            if may_have_too_many_objects(body):
                await in_thread(check_objects, body)
            return body

    def open(self, call: Call, upload: ArchiveUpload | None = None, *, slot: bool = True) -> Live:
        """Return the live answer to a request: entering its context sends it, leaving it in any way ends both.

        Without a `slot` it does not count as one of `max_connections`: an answer that has no end would keep it.
        """
        return Live(self, call, upload, slots=self._slots if slot else None)

    async def ping(self) -> Ping:
        """Ask the daemon, outside of any version, what it is."""
        status, words, outer = 0, "", sys.exception()
        failure: DockerError | None = None
        for method in ("HEAD", "GET"):  # a proxy may refuse HEAD
            try:
                session = await self.session(shared=True)
                async with session.request(method, self.url("/_ping"), allow_redirects=False) as response:
                    headers, status = response.headers, response.status
                    # A daemon in trouble answers with status 500, and with these headers all the same.
                    if (answer := read_ping(headers)) is not None:
                        self.versions.heard(answer.api_version)
                        return answer
                    if method == "GET" and status >= 400:
                        # Docker Desktop says here that it is paused, and a proxy why it lets nobody through.
                        body = await read_error_body(response, self.idle_timeout)
                        words = read_error(status, response.reason, body)[1]
            except DockerError:
                raise
            except asyncio.CancelledError as error:
                without_frames(error, outer=outer)  # those of aiohttp have the headers in their variables
                raise
            except Exception as error:  # noqa: BLE001 - translated, or raised as it is
                failure = self._unanswered(error)
                break
        if failure is not None:  # outside of the handler: there, `error` with its headers would become its context
            raise failure
        reason = f": {words}" if words else " and no Api-Version header"
        raise DaemonUnreachableError(
            f"no Docker Engine answered the ping, but status {status}{reason}" + failures.tls_hint(self.endpoint)
        )

    def _unanswered(self, error: Exception) -> DockerError:
        """Make the exception for a ping that broke: a peer that hangs up on it cannot be used as an Engine."""
        failure = self.failure(error, answered=False)
        if type(failure) is StreamInterruptedError and not self._closed:
            unreachable = DaemonUnreachableError(f"{failure.message}{failures.tls_hint(self.endpoint)}")
            unreachable.__cause__ = failure.__cause__
            return unreachable
        return failure

    def refusal(self, call: Call, response: aiohttp.ClientResponse, body: bytes) -> DockerError:
        """Make the exception for an answer with an error status."""
        status, message = read_error(response.status, response.reason, body)
        if error := version_refused(message):
            self.versions.forget()  # another daemon than the one that was asked: ask again next time
            return error
        return self.api_error(call, message, status)

    def api_error(self, call: Call, message: str, status: int | None, *, code: int | None = None) -> APIError:
        """Make the exception for what the daemon said about a call, by status or in its stream with a `code`."""
        if call.verb == "build":
            error = build_error(status, message, code)
        else:
            status = status or code
            error = api_error_class(status, message, archive=call.verb in _READ_ARCHIVES)(message, status=status)
        error.method, error.path = call.method, call.path
        self.locate(error, call)
        return error

    def failure(self, error: Exception, *, answered: bool) -> DockerError:
        """Make the exception for what aiohttp or the operating system raised; a bug of ours stays as it is."""
        ours: DockerError | None = self._interruption()
        if ours is None:
            ours = failures.translate(
                error,
                self.endpoint,
                answered=answered,
                idle=self.idle_timeout,
                connect=self._timeout.connect,
                remark=self._link.remark,
            )
        if ours is None:
            raise error
        # The repr of aiohttp's ClientResponseError has the request's headers, credentials and all, and so have the
        # variables of aiohttp's frames.
        cause = error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error
        ours.__cause__ = None if cause is None else without_frames(cause)
        if isinstance(ours, DaemonUnreachableError):
            self.versions.forget()  # what comes up there next may be another daemon
        return ours

    async def pause(self, seconds: float) -> None:
        """Wait; raise `StreamInterruptedError` if the service is closed in the meantime."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        self._must_be_open()

    def _interruption(self) -> StreamInterruptedError | None:
        """Return what a call under way meets when the service is closed; None as long as it is not."""
        return StreamInterruptedError(INTERRUPTED) if self._closed else None

    def _must_be_open(self) -> None:
        if (interruption := self._interruption()) is not None:
            raise interruption

    def must_be_usable(self) -> None:
        """Raise `ServiceClosedError` if the service was closed, or belongs to another loop or process."""
        if self._closed:
            raise ServiceClosedError(CLOSED)
        self._owner.claim()

    async def session(self, *, shared: bool) -> aiohttp.ClientSession:
        """Return the session that keeps its connections for the next request (`shared`), or the one that does not."""
        self.must_be_usable()
        if (session := self._sessions.get(shared)) is not None and not self._link.may_break:
            return session
        try:
            await self._link.open()
        except DaemonUnreachableError:
            self._must_be_open()
            raise
        self._must_be_open()
        if shared not in self._sessions:
            self._sessions[shared] = aiohttp.ClientSession(
                connector=self._link.connector(shared=shared),
                proxy=self._link.proxy,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                headers={
                    **(self._link.headers or {}),
                    "User-Agent": f"aiodocker-images/{__version__}",
                    "Accept-Encoding": "identity",
                },
                auto_decompress=False,
                middlewares=self._link.middlewares(shared=True),
                response_class=GuardedResponse if shared else StreamedResponse,
            )
        return self._sessions[shared]

    def middlewares(self, *, shared: bool) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """Return what is done beside sending one request."""
        return self._link.middlewares(shared=shared)

    def url(self, path: str, query: Query = ()) -> URL:
        """Return the URL of a path of the API."""
        # The path is quoted and consists of validated names; encoded=True keeps yarl from quoting it again.
        url = URL(self._link.base + path, encoded=True)
        return url.with_query(query) if query else url

    def locate(self, error: BaseException | None, call: Call) -> None:
        """Say in one of our errors which operation it met, and at which endpoint, unless it says so already."""
        failures.locate(error, call, lambda: self.endpoint)

    def located(self, call: Call) -> failures.Located:
        """Do so with what is raised in this context."""
        return failures.Located(call, lambda: self.endpoint)

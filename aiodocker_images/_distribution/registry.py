"""One registry of a service: its requests, each with credentials, pauses, redirects and new attempts.

    Call -> wait until the registry may be asked -> credentials -> send -> follow redirects -> read the status

What is tried again: a broken connection, silence, 429 and 5xx, so often and so long after as `Retry` says; 401 and 403
once, with new credentials; nothing else. A 429 makes all requests to the registry wait, for as long as it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from yarl import URL

from aiodocker_images._retry import Retry
from aiodocker_images.credentials import Keychain
from aiodocker_images.errors import (
    APIError,
    DockerError,
    NotFoundError,
    RateLimitedError,
    RegistryUnreachableError,
    ServerError,
    StreamInterruptedError,
    UnauthorizedError,
)

from .challenges import parse_challenges
from .config import RegistryConfig
from .hosts import Hosts, resolve_location, same_origin
from .refusals import MAX_ERROR_BODY, rate_limit, refusal, retry_after
from .results import RateLimit
from .tokens import Authorization, Authorizer, Scopes, TokenRequest
from .transport import Answer, Body, Request, Transport

__all__ = ["PASSING", "RETRY", "TALLY", "Call", "Registry", "Reply", "Tally", "count_blob", "count_retry"]

T = TypeVar("T")

PASSING: Final = (RateLimitedError, ServerError, StreamInterruptedError, RegistryUnreachableError)
"""What may be over at the next attempt."""

REQUESTS_AT_ONCE: Final = 16
"""Requests to one registry that are under way at once, beside the blobs."""

MAX_PAUSE: Final = 600.0
"""Seconds that a registry is left alone at most, whatever it asks for; then it is asked again."""

LOW_PAUSE: Final = 60.0
"""Seconds between two looks at a registry that has few pulls left."""

MAX_REDIRECTS: Final = 5
MAX_TOKEN_ANSWER: Final = 1 << 20

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_UNREDIRECTED: Final = frozenset({400, 401, 403, 404, 410})
"""What a signed URL answers that is no longer good: the registry has a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a registry: `path` ("/v2/library/alpine/manifests/3.20"), or the `url` that it sent us to.

    `expected` are the statuses that are no failures. `body` may be a factory: each attempt takes a new one.
    `repeat` says whether a broken connection and a 5xx lead to another attempt; a 429 always does. `large` is that of
    `Request`.
    """

    method: str
    path: str
    scopes: Scopes
    expected: frozenset[int]
    url: URL | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes | Callable[[], Body] | None = field(default=None, repr=False)
    repeat: bool = True
    large: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read whole. `url` is where it came from."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: URL = field(repr=False)


@dataclass(slots=True)
class Tally:
    """What an operation has cost: requests, attempts beyond the first of each, and bytes of blobs by how they came.

    An operation that is a part of another counts in the `outer` tally, too. `on_retry` hears of each new attempt: why,
    and after how many seconds; `on_pause` of each registry that asked to be left alone, and for how many.
    """

    outer: Tally | None = None
    on_retry: Callable[[DockerError, float], object] | None = None
    on_pause: Callable[[str, float], object] | None = None
    requests: int = 0
    retries: int = 0
    bytes: Counter[str] = field(default_factory=Counter[str])

    def chain(self) -> Generator[Tally, None, None]:
        """Yield this tally and those that it is a part of."""
        tally: Tally | None = self
        while tally is not None:
            yield tally
            tally = tally.outer


TALLY: Final = contextvars.ContextVar[Tally]("TALLY")
"""Where the requests of the operation under way are counted; the tasks that it starts count in the same place."""

RETRY: Final = contextvars.ContextVar[Retry]("RETRY")
"""How often the operation under way tries each step, where that is not what the service says."""


@dataclass(slots=True)
class Mounts:
    """How a registry mounts blobs, as far as that was found out; None is not known yet.

    `own`: whether a mount from the same repository says 201 for a blob that is there, which saves a HEAD (distribution
    2.8 and ociserver do, crane's registry and Pulp do not); `tries` more attempts to find it out are worth it.
    `misses_are_404`: whether a blob that cannot be mounted is 404, and not a session to upload it in.
    """

    own: bool | None = None
    tries: int = 3
    misses_are_404: bool | None = None
    finding_out: asyncio.Lock = field(default_factory=asyncio.Lock)


class Registry:
    """A registry, by its name in references ("docker.io", "127.0.0.1:5000")."""

    def __init__(
        self,
        name: str,
        config: RegistryConfig,
        *,
        transport: Transport,
        hosts: Hosts,
        keychain: Keychain,
        retry: Retry,
        mirrored: str = "",
    ) -> None:
        self.name = name
        self.config = config
        self._retry = retry
        self.limits: RateLimit | None = None
        self.mounts = Mounts()
        self.unfinished = transport.unfinished
        self._mirrored = mirrored  # whose mirror this is
        self._transport = transport
        self._hosts = hosts
        self._keychain = keychain
        self._base: URL | None = None
        self._authorizer: Authorizer | None = None
        self._requests = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._meeting: asyncio.Event | None = None  # set when the first request has been answered, or failed
        self._resume = self._next = 0.0
        self._strikes = 0

    @property
    def retry(self) -> Retry:
        """How often a step is tried. A mirror is given up as its registry's configuration says."""
        return self._retry if self._mirrored else RETRY.get(self._retry)

    async def fetch(self, call: Call, *, limit: int = MAX_ERROR_BODY) -> Reply:
        """Send a request and return its whole answer. Raises `DockerError`."""

        async def read(answer: Answer, url: URL) -> Reply:
            return Reply(answer.status, answer.headers, await answer.read(limit), url)

        if callable(call.body):
            # A blob has a slot of its own, which another attempt waits for once more: with a place here as well, those
            # who have the places and those who have the slots could wait for each other.
            return await self._persist(call, read)
        async with self._requests:
            return await self._persist(call, read)

    @contextlib.asynccontextmanager
    async def open(self, call: Call) -> AsyncGenerator[Answer, None]:
        """Send a request and let its answer be read as it comes. Raises `DockerError`."""

        async def keep(answer: Answer, url: URL) -> Answer:  # noqa: ARG001 - as fetch's
            return answer

        answer = await self._persist(call, keep)
        try:
            yield answer
        except DockerError as error:
            self._locate(error)
            raise
        finally:
            await answer.aclose()

    async def _persist(self, call: Call, use: Callable[[Answer, URL], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await self._attempt(call, use)
            except APIError as error:
                failures += 1
                if not _passes(error, call) or failures >= self.retry.attempts:
                    raise
                # The pause of a rate limit is the whole registry's, and is waited for before the next attempt.
                seconds = 0.0 if isinstance(error, RateLimitedError) else self.retry.seconds_after(failures)
                count_retry(error, max(seconds, self.pause_left()))
            except (StreamInterruptedError, RegistryUnreachableError) as error:
                failures += 1
                if not call.repeat or failures >= self.retry.attempts:
                    raise
                # The first time it may have been a kept connection that the registry was just closing.
                seconds = self.retry.seconds_after(failures) if failures > 1 else 0.0
                count_retry(error, seconds)
            await self._transport.sleep(seconds)

    async def _attempt(self, call: Call, use: Callable[[Answer, URL], Awaitable[T]]) -> T:
        if self._meeting is not None:
            await self._meeting.wait()
            return await self._negotiate(call, use)
        # The first request finds out which credentials the registry wants: the others wait for that.
        self._meeting = meeting = asyncio.Event()
        try:
            return await self._negotiate(call, use)
        finally:
            meeting.set()

    async def _negotiate(self, call: Call, use: Callable[[Answer, URL], Awaitable[T]]) -> T:
        try:
            refused, own = False, None
            while True:
                authorization, answer, url, away = await self._answered(call, own)
                keep = False
                try:
                    if answer.status in call.expected:
                        result = await use(answer, url)
                        self._strikes = 0
                        keep = isinstance(result, Answer)
                        return result
                    error = await self._refused(call, answer, away=away)
                finally:
                    if not keep:
                        await answer.aclose()
                challenges = parse_challenges(answer.header_values("WWW-Authenticate"))
                if away or answer.status not in {401, 403} or own is not None:
                    raise error
                if refused:
                    # Others use the same token. If it died meanwhile, one that is nobody else's has the last word.
                    if not any(each.parameters.get("error") == "invalid_token" for each in challenges):
                        raise error
                    own = await self._authorized().token_of_its_own(call.scopes)
                    continue
                # Without credentials so far, it is no refusal of ours.
                refused = authorization is not None
                if not await self._authorized().renew(call.scopes, authorization, challenges):
                    raise self._advised(error, authorization)
        except DockerError as error:
            self._locate(error)
            raise

    async def _answered(self, call: Call, own: Authorization | None) -> tuple[Authorization | None, Answer, URL, bool]:
        """Return what was sent, its answer behind all redirects, from where, and whether that is another origin."""
        if self._base is None:
            self._base = await self._hosts.base(self.name)
        base = self._base
        url = call.url if call.url is not None else URL(f"{base}{call.path}", encoded=True)
        await self._turn()
        authorization = None
        if same_origin(url, base):
            authorization = own or await self._authorized().current(call.scopes)
        answer = await self._send(call, url, authorization)
        for _ in range(MAX_REDIRECTS):
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTS or call.method not in {"GET", "HEAD"} or not location:
                break
            try:
                await answer.read(MAX_ERROR_BODY, cut=True)  # so that the connection can be used again
            finally:
                await answer.aclose()
            url = resolve_location(url, location)
            await self._turn()
            answer = await self._send(call, url, authorization if same_origin(url, base) else None)
        self._notice(answer)
        return authorization, answer, url, not same_origin(url, base)

    async def _send(self, call: Call, url: URL, authorization: Authorization | None) -> Answer:
        route = await self._hosts.route(url)
        _count_request()
        return await self._transport.send(
            Request(
                method=call.method,
                url=url,
                headers=call.headers | {"Authorization": authorization.value} if authorization else call.headers,
                body=call.body() if callable(call.body) else call.body,
                tls=route.tls,
                proxy=route.proxy,
                proxy_headers=route.proxy_headers,
                large=call.large,
            )
        )

    def _authorized(self) -> Authorizer:
        if self._authorizer is None:
            if self._base is None:
                raise RuntimeError("the address comes first")
            self._authorizer = Authorizer(self.name, self._base, self._keychain, self._ask)
        return self._authorizer

    async def _ask(self, request: TokenRequest) -> bytes:
        """Ask a token server, which counts as a part of the registry: its rate limit is the registry's."""
        failures = 0
        while True:
            try:
                return await self._asked(request)
            except PASSING as error:
                failures += 1
                if failures >= self.retry.attempts:
                    raise
                seconds = 0.0 if isinstance(error, RateLimitedError) else self.retry.seconds_after(failures)
                count_retry(error, max(seconds, self.pause_left()))
            await self._transport.sleep(seconds)

    async def _asked(self, request: TokenRequest) -> bytes:
        await self._turn()
        route = await self._hosts.route(request.url)
        _count_request()
        answer = await self._transport.send(
            Request(
                method=request.method,
                url=request.url,
                headers=request.headers,
                body=request.body,
                tls=route.tls,
                proxy=route.proxy,
                proxy_headers=route.proxy_headers,
            )
        )
        try:
            if answer.status == 200:
                return await answer.read(MAX_TOKEN_ANSWER)
            error = await self._refusal_of(answer)
        finally:
            await answer.aclose()
        if not isinstance(error, PASSING):
            where = request.url.authority
            error = UnauthorizedError(
                f"the token server {where} of {self.name} refused, with status {error.status}: {error.message};"
                f" to log in: docker login {self.name}",
                status=error.status,
                code=error.code,
            )
        raise error

    async def _refused(self, call: Call, answer: Answer, *, away: bool) -> APIError:
        error = await self._refusal_of(answer)
        error.method = call.method
        error.path = call.path
        if away:
            error.endpoint, error.endpoint_source = answer.where, f"a redirect of {self.name}"
        return error

    async def _refusal_of(self, answer: Answer) -> APIError:
        try:
            body = await answer.read(MAX_ERROR_BODY, cut=True)
        except StreamInterruptedError:  # the status is known, and its words come with it
            body = b""
        challenged = bool(answer.header_values("WWW-Authenticate"))
        error = refusal(answer.status, answer.reason, answer.headers, body, challenged=challenged)
        if isinstance(error, RateLimitedError):
            self._strikes += 1
            asked = error.retry_after
            self._asked_for(self.retry.seconds_after(self._strikes) if asked is None else asked)
        elif answer.status == 503 and (asked := retry_after(answer.headers.get("Retry-After"))) is not None:
            self._asked_for(asked)
        return error

    def _asked_for(self, seconds: float) -> None:
        self.pause(seconds)
        for tally in _tally().chain():
            if tally.on_pause is not None:
                tally.on_pause(self.name, min(seconds, MAX_PAUSE))

    def _advised(self, error: APIError, authorization: Authorization | None) -> APIError:
        if isinstance(error, UnauthorizedError):
            what = "there are no credentials for it" if authorization is None else "the credentials were refused"
            error.message = f"{error.message}; {what}: docker login {self.name}"
        return error

    @contextlib.contextmanager
    def located(self) -> Generator[None, None, None]:
        """Say in our errors which registry they met."""
        try:
            yield
        except DockerError as error:
            self._locate(error)
            raise

    def _locate(self, error: DockerError) -> None:
        error.endpoint = error.endpoint or self.name
        if self._mirrored and error.endpoint == self.name:
            error.endpoint_source = f"the mirrors of {self._mirrored}"

    async def _turn(self) -> None:
        """Wait until the registry may be asked."""
        loop = asyncio.get_running_loop()
        while (seconds := self.pause_left()) > 0:
            if self._mirrored:  # the next one is asked instead
                raise RateLimitedError(f"{self.name} is left alone for {seconds:.0f} s, as it asked for")
            await self._transport.sleep(seconds)
        if self.config.requests_per_second is not None:
            now = loop.time()
            at = max(now, self._next)
            self._next = at + 1 / self.config.requests_per_second
            await self._transport.sleep(at - now)

    async def sleep(self, seconds: float) -> None:
        """Wait before another attempt, but no longer than the service is open."""
        await self._transport.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Send the registry nothing for `seconds`, or for longer if a longer pause has begun already."""
        self._resume = max(self._resume, asyncio.get_running_loop().time() + min(seconds, MAX_PAUSE))

    def pause_left(self) -> float:
        """Return for how many seconds the registry is left alone yet; 0 or less if it may be asked."""
        return self._resume - asyncio.get_running_loop().time()

    def _notice(self, answer: Answer) -> None:
        limits = rate_limit(answer.headers)
        if limits is None:
            return
        self.limits = limits
        floor = self.config.pause_below
        if floor is not None and limits.remaining is not None and limits.remaining < floor:
            self.pause(LOW_PAUSE)


def _passes(error: APIError, call: Call) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, RateLimitedError):
        return True
    if not call.repeat:
        return False
    if (error.endpoint_source or "").startswith("a redirect") and error.status in _UNREDIRECTED:
        return not isinstance(error, NotFoundError) or call.method == "GET"
    return isinstance(error, ServerError)


def _count_request() -> None:
    for tally in _tally().chain():
        tally.requests += 1


def count_retry(error: DockerError, seconds: float) -> None:
    """Count that something is tried again because of `error`, after a pause of `seconds`."""
    for tally in _tally().chain():
        tally.retries += 1
        if tally.on_retry is not None:
            tally.on_retry(error, seconds)


def count_blob(status: str, size: int) -> None:
    """Count the bytes of a blob that is at its target now: "moved", "mounted" or "there"."""
    for tally in _tally().chain():
        tally.bytes[status] += size


def _tally() -> Tally:
    return TALLY.get(None) or Tally()

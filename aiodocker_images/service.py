"""`ImageService`: one method per image operation of the Engine, over one lazily opened connection pool."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self, cast

import msgspec

from ._aio.dependents import Dependents
from ._api.build import Build
from ._api.events import Events
from ._api.registry import Registry
from ._api.transfers import Transfers
from ._arguments import check_count, check_seconds, check_text, wrong
from ._dockercli.keychain import DockerKeychain
from ._encoding import Query, encode_json, path_segment
from ._http.call import Call
from ._http.transport import Transport
from ._struct import UNDECODABLE
from .api_version import MINIMUM, APIVersion
from .credentials import Keychain, check_keychain
from .endpoint import Endpoint
from .errors import ConfigError, InvalidArgumentError, InvalidReferenceError, UnsupportedAPIVersionError
from .models import EngineVersion, Ping

__all__ = ["ImageService"]

DEFAULT_CONNECT_TIMEOUT: Final = 10.0

_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._:@\[\]-]+)+")

_PING: Final = Call(verb="ping", method="HEAD", path="/_ping")
_GET_VERSION: Final = Call(verb="version", method="GET", path="/version")
_VERSION: Final = msgspec.json.Decoder(EngineVersion)


class ImageService(Transfers, Registry, Build, Events):
    """Everything that can be done to images through one Docker Engine.

    `endpoint` is an absolute path, a URL (`unix://…`, `tcp://host:port`, `https://…`, `ssh://user@host`) or an
    `Endpoint`; by default it is chosen as the docker CLI does, see `Endpoint.resolve`. `api_version` ("1.43"), or
    `DOCKER_API_VERSION`, is spoken as it is; by default it is negotiated with the daemon. `keychain` finds
    credentials where a call brings none, by default those of the docker CLI (`DockerKeychain`); with
    `StaticKeychain({})` calls go anonymously. `max_connections` bounds the streams that are open at once; control
    calls never queue. `idle_timeout` seconds without a byte in either direction raise `StreamStalledError`, by
    default never; `connect_timeout` bounds the connecting, None for not at all.

    Making one needs no event loop and does no I/O. It belongs to the loop that it is first used in. Raises
    `ConfigError` for an endpoint or a version that makes no sense.
    """

    def __init__(
        self,
        endpoint: str | os.PathLike[str] | Endpoint | None = None,
        *,
        api_version: str | None = None,
        keychain: Keychain | None = None,
        max_connections: int | None = None,
        idle_timeout: float | None = None,
        connect_timeout: float | None = DEFAULT_CONNECT_TIMEOUT,
    ) -> None:
        check_text("api_version", api_version)
        check_keychain(keychain)
        check_count("max_connections", max_connections)
        check_seconds("idle_timeout", idle_timeout)
        check_seconds("connect_timeout", connect_timeout)
        transport = Transport(
            None if endpoint is None else Endpoint.resolve(endpoint),
            api_version=_pinned(api_version),
            max_connections=max_connections,
            idle_timeout=idle_timeout,
            connect_timeout=connect_timeout,
        )
        super().__init__(transport, DockerKeychain() if keychain is None else keychain)
        self._dependents = Dependents()

    @property
    def endpoint(self) -> Endpoint:
        """Where the daemon is, and who chose it; looked for at the first need. Raises `ConfigError`."""
        return self._transport.endpoint

    async def ping(self) -> Ping:
        """Ask whether the daemon is there, and what it speaks.

        Raises `DaemonUnreachableError` and every other `DockerError`. HEAD /_ping (any API version).
        """
        with self._transport.located(_PING):
            return await self._transport.ping()

    async def version(self) -> EngineVersion:
        """Return the versions of the daemon, of its parts and of its API. GET /version (API 1.41)."""
        return await self._transport.fetch(_GET_VERSION, _VERSION)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        json: object = None,
    ) -> object:
        """Send any request and return its answer as plain JSON values, for what is newer than this library.

        `path` has no version ("/images/json"), `params` is a mapping, or pairs if a name is repeated; `json`
        is encoded as the body. An answer
        that is no JSON is returned as text, an empty one as None.

        Raises `InvalidReferenceError` for a path that is no plain path, and every other `DockerError`.
        Any endpoint whose answer is read whole.
        """
        for name, value in (("method", method), ("path", path)):
            if not isinstance(cast("object", value), str):
                raise wrong(name, value, "a str")
        pairs = _pairs(params)
        # The target of a CONNECT is a host and not a path.
        if not (method.isascii() and method.isalpha()) or method.upper() == "CONNECT":
            raise InvalidArgumentError(f"{method[:80]!r} is not an HTTP method")
        if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
            raise InvalidReferenceError(f"{path[:80]!r} is no path of the Engine API such as /images/json")
        call = Call(
            verb="request",
            subject=f"{method} {path}",
            method=method,
            path=path_segment(path),
            query=pairs,
            document=None if json is None else encode_json(json),
            statuses=(),
        )
        body = await self._transport.fetch_bytes(call)
        try:
            return msgspec.json.decode(body) if body else None
        except UNDECODABLE:
            return body.decode("utf-8", "replace")

    def end_with(self, task: asyncio.Task[Any]) -> None:
        """Let `aclose` cancel a task and wait for it before it closes anything.

        For work that is made of several calls, and may tidy up after itself with further ones: `mirror`, `transfer`.
        """
        self._dependents.add(task)

    async def aclose(self) -> None:
        """End the live streams (they raise `StreamInterruptedError`) and close every connection.

        Runs of `mirror` and `transfer` on this service are ended first, and those of `mirror` give back what they
        borrowed.
        Again is harmless. `async with` calls it.
        """
        await self._dependents.end_and(self._transport.aclose)

    async def __aenter__(self) -> Self:
        """Return the service; nothing is opened before the first request."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the service."""
        await self.aclose()

    def __repr__(self) -> str:
        return f"ImageService({str(self.endpoint)!r})"


def _pairs(params: object) -> Query:
    pairs: object = cast("Mapping[object, object]", params).items() if isinstance(params, Mapping) else params
    if not isinstance(pairs, Iterable):
        raise wrong("params", pairs, "a mapping of texts, or pairs of them")
    query: list[tuple[str, str]] = []
    for pair in cast("Iterable[object]", pairs):
        match pair:
            case (str() as name, str() as value):
                query.append((name, value))
            case _:
                raise wrong("each of params", pair, "a pair of texts")
    return tuple(query)


def _pinned(given: str | None) -> APIVersion | None:
    """Return the version that the caller or the environment insists on; None to negotiate."""
    text = given if given is not None else os.environ.get("DOCKER_API_VERSION") or None
    if text is None:
        return None
    source = "" if given is not None else " (from DOCKER_API_VERSION)"
    try:
        version = APIVersion.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{error}{source}") from None
    if version < MINIMUM:
        raise UnsupportedAPIVersionError(f"this client{source}", required=f"{MINIMUM} or newer", actual=str(version))
    return version

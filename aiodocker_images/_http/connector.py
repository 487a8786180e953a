"""How an endpoint is connected to: aiohttp's connectors, and what stands behind them, TLS or an ssh tunnel."""

from __future__ import annotations

import functools
import os
import ssl

import aiohttp

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._dockercli.config import Environment, http_headers
from aiodocker_images._dockercli.network import custom_headers, proxy_for
from aiodocker_images._system.sockets import has_unix_sockets
from aiodocker_images.endpoint import Endpoint
from aiodocker_images.errors import ConfigError, DaemonUnreachableError

from .ssh import SSHTunnel
from .tls import client_context

__all__ = ["Link"]


class Link:
    """What stands between a service and its Engine. `open()` it before each request, and close it at the end.

    `endpoint` is chosen at the first need, unless it is given.
    """

    def __init__(self, endpoint: Endpoint | None, *, connect_timeout: float | None) -> None:
        self._endpoint = endpoint
        self._connect_timeout = connect_timeout
        self.headers: dict[str, str] | None = None  # that the user's configuration adds to every request
        self._tls: ssl.SSLContext | None = None
        self._tunnel: SSHTunnel | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where requests go. Raises `ConfigError`."""
        if self._endpoint is None:
            self._endpoint = Endpoint.resolve()
        return self._endpoint

    @property
    def remark(self) -> str:
        """What ssh says of a connection that failed; empty without a tunnel."""
        return self._tunnel.said if self._tunnel is not None else ""

    @functools.cached_property
    def base(self) -> str:
        """What every URL begins with."""
        return str(self.endpoint.base_url).rstrip("/")

    @property
    def proxy(self) -> str | None:
        """The proxy between us and an Engine on TCP; None for none."""
        on_tcp = self.endpoint.scheme in {"tcp", "http", "https"}
        return proxy_for(self.endpoint.base_url, Environment(os.environ)) if on_tcp else None

    @property
    def may_break(self) -> bool:
        """Whether `open()` has more to do than once."""
        return self._tunnel is not None

    async def open(self) -> None:
        """Make the endpoint connectable, off the loop: choose it, read what there is to read, dial its tunnel."""
        if self._endpoint is None:
            self._endpoint = await in_thread(Endpoint.resolve)
        if self.headers is None:
            # What the environment has replaces what config.json has, as with the docker CLI.
            environment = Environment(os.environ)
            self.headers = custom_headers(environment) or await in_thread(http_headers, environment)
        endpoint = self._endpoint
        if endpoint.scheme in {"unix", "ssh"} and not has_unix_sockets():
            raise ConfigError(
                f"{endpoint} (from {endpoint.source}) needs unix sockets, which Python does not have on this platform:"
                " use npipe:// or tcp:// with TLS"
            )
        if endpoint.tls is not None and self._tls is None:
            self._tls = await in_thread(client_context, endpoint.tls, endpoint.source)
        if endpoint.scheme == "ssh":
            if self._tunnel is None:
                self._tunnel = SSHTunnel(endpoint.ssh_target)
            await self._tunnel.open(self._connect_timeout)

    def connector(self, *, shared: bool) -> aiohttp.BaseConnector:
        """Make a connector; `shared` keeps connections for the next request."""
        endpoint = self.endpoint
        # limit=0: aiohttp's own default of 100 would queue control calls behind streams.
        if endpoint.scheme == "unix":
            return aiohttp.UnixConnector(endpoint.socket_path, limit=0, force_close=not shared)
        if self._tunnel is not None:
            return aiohttp.UnixConnector(self._tunnel.socket_path, limit=0, force_close=not shared)
        if endpoint.scheme == "npipe":
            try:
                return aiohttp.NamedPipeConnector(endpoint.pipe_path, limit=0, force_close=not shared)
            except (RuntimeError, AttributeError) as error:
                raise ConfigError(f"{endpoint} (from {endpoint.source}) needs Windows, and its default loop") from error
        return aiohttp.TCPConnector(limit=0, force_close=not shared, ssl=self._tls or True)

    def middlewares(self, *, shared: bool) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """Make what is done beside sending requests; anew for each that is not `shared`."""
        redialling = (self._redialling,) if self._tunnel is not None else ()
        return redialling if shared else (_Once(), *redialling)

    async def _redialling(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Dial the tunnel again if it turns out to have broken; nothing of the request was sent then."""
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError:
            if self._tunnel is None:
                raise
            try:
                await self._tunnel.reopen(self._connect_timeout)
            except DaemonUnreachableError:
                pass  # the first error is raised, with what ssh has said by now
            else:
                return await handler(request)
            raise

    async def aclose(self) -> None:
        """End the tunnel. Idempotent."""
        if self._tunnel is not None:
            await self._tunnel.aclose()

    def abandon(self) -> None:
        """End the tunnel without the loop that it was opened in, which is closed."""
        if self._tunnel is not None:
            self._tunnel.abandon()


class _Once:
    """Lets one request be sent once.

    If a connection breaks, aiohttp by itself sends a GET or a DELETE again, on another one: an image that the first
    has removed would not be found by the second, and what streams would be begun twice.
    """

    def __init__(self) -> None:
        self._failure: Exception | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request; the second time, only say again how the first ended."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        try:
            return await handler(request)
        except Exception as error:
            self._failure = error
            raise

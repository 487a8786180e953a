"""How a host is reached: http or https, whose certificates are trusted, and through which proxy."""

from __future__ import annotations

import base64
import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from yarl import URL

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._http.tls import client_context
from aiodocker_images.endpoint import TLSConfig
from aiodocker_images.errors import ConfigError, RegistryUnreachableError, shown
from aiodocker_images.reference import DOCKER_HUB, DOCKER_HUB_HOST

from .config import RegistryConfig

__all__ = ["Hosts", "Route", "resolve_location", "same_origin"]

MAX_LOCATION: Final = 16 << 10
"""Characters of a URL that a registry sends us to; a signed one has some thousand."""

MAX_CERTIFICATES: Final = 100
"""Files that are read of one directory of certificates."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to connect to one origin; `proxy_headers` may carry the proxy's password."""

    tls: ssl.SSLContext | None = None
    proxy: URL | None = None
    proxy_headers: Mapping[str, str] | None = field(default=None, repr=False)


class Hosts:
    """The routes to the hosts that a service meets, looked up once for each."""

    def __init__(self, registries: Mapping[str, RegistryConfig]) -> None:
        self._registries = registries
        self._routes: dict[tuple[str, str, int | None], Route] = {}

    async def base(self, registry: str) -> URL:
        """Return the URL of a registry, by its name in references. Raises `ConfigError`."""
        host = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
        config = self._registries.get(registry, RegistryConfig())
        plain = config.plain_http
        if plain is None:
            address = URL(f"http://{host}", encoded=True)
            plain = config.tls is None and _is_loopback(address.host or "") and not await in_thread(_certificates, host)
        return URL(f"{'http' if plain else 'https'}://{host}", encoded=True)

    async def route(self, url: URL) -> Route:
        """Return how to connect for a URL. Raises `ConfigError` for certificates that cannot be read."""
        key = url.scheme, url.host or "", url.port
        if key not in self._routes:
            self._routes[key] = await in_thread(self._find, url)
        return self._routes[key]

    def _find(self, url: URL) -> Route:
        host = url.host or ""
        proxy, proxy_headers = _proxy(url.scheme, host, url.authority)
        if url.scheme != "https":
            return Route(None, proxy, proxy_headers)
        names = (DOCKER_HUB,) if host == DOCKER_HUB_HOST else (url.authority, f"{url.authority}:443")
        config = next((self._registries[name] for name in names if name in self._registries), RegistryConfig())
        if config.tls is not None:
            return Route(client_context(config.tls, f"the configuration of {url.authority}"), proxy, proxy_headers)
        return Route(_context_of(_certificates(url.authority)), proxy, proxy_headers)


def same_origin(one: URL, other: URL) -> bool:
    """Whether both are the same scheme, host and port: what credentials are for."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def resolve_location(base: URL, location: str) -> URL:
    """Return the URL of a `Location`, relative or absolute, byte for byte: it may be signed.

    https never becomes http: on the same host it stays https (a registry behind a proxy that ends TLS does not know
    that it is asked over https), and another host is refused. Raises `RegistryUnreachableError`.
    """
    url = None
    if location and location.isascii() and location.isprintable() and " " not in location:
        try:
            url = _joined(base, location) if len(location) <= MAX_LOCATION else None
        except ValueError:
            url = None
    if url is None or url.scheme not in {"http", "https"} or not url.host or url.user is not None:
        raise RegistryUnreachableError(f"{base.authority} sends us to what is not an address: {shown(location)}")
    if base.scheme == "https" and url.scheme == "http":
        if url.host != base.host:
            raise RegistryUnreachableError(
                f"{base.authority} speaks https and sends us to {shown(url.authority)} over http: refused"
            )
        rest = str(url).partition("://")[2].partition("/")[2]
        url = URL(f"https://{base.authority}/{rest}", encoded=True)
    return url


def _joined(base: URL, location: str) -> URL:
    if location.startswith("//"):
        return URL(f"{base.scheme}:{location}", encoded=True)
    if "://" in location.partition("?")[0]:
        return URL(location, encoded=True)
    origin = f"{base.scheme}://{base.authority}"
    if location.startswith("/"):
        return URL(origin + location, encoded=True)
    if location.startswith("?"):
        return URL(f"{origin}{base.raw_path}{location}", encoded=True)
    return URL(f"{origin}{base.raw_path.rpartition('/')[0]}/{location}", encoded=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxy(scheme: str, host: str, authority: str) -> tuple[URL | None, Mapping[str, str] | None]:
    """Return the proxy that the environment names, as curl and Docker read it: never for this machine itself."""
    text = urllib.request.getproxies_environment().get(scheme)
    if not text or _is_loopback(host) or urllib.request.proxy_bypass(authority):
        return None, None
    try:
        proxy: URL | None = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        proxy = None
    if proxy is None or proxy.scheme not in {"http", "https"} or not proxy.host:
        # Without the text: it may have a password in it.
        raise ConfigError(f"the proxy in {scheme.upper()}_PROXY is not an http or https address")
    if proxy.user is None:
        return proxy, None
    credentials = f"{unquote(proxy.raw_user or '')}:{unquote(proxy.raw_password or '')}"
    encoded = base64.b64encode(credentials.encode("utf-8", "surrogateescape")).decode()
    return proxy.with_user(None), {"Proxy-Authorization": f"Basic {encoded}"}


def _certificates(host: str) -> Path | None:
    """Return the directory of certificates for a registry, as the docker CLI, its daemon and Podman look for it."""
    home, config = os.environ.get("HOME"), os.environ.get("XDG_CONFIG_HOME")
    own = Path(config) if config else Path(home, ".config") if home else None
    roots = [*([own / "docker", own / "containers"] if own else []), Path("/etc/docker"), Path("/etc/containers")]
    for root in roots:
        directory = root / "certs.d" / host
        try:
            if directory.is_dir():
                return directory
        except OSError:  # may not be looked at
            continue
    return None


def _context_of(directory: Path | None) -> ssl.SSLContext | None:
    """Return what trusts the system's authorities and those of a directory (`*.crt`), and shows its `*.cert`."""
    if directory is None:
        return None
    try:
        files = sorted(directory.iterdir())[:MAX_CERTIFICATES]
    except OSError as error:
        raise ConfigError(f"the certificates in {directory} cannot be read: {error.strerror}") from error
    certificates = [file for file in files if file.suffix == ".cert"]
    keys = [file for file in files if file.suffix == ".key"]
    tls = TLSConfig()
    if certificates or keys:
        cert = certificates[0] if certificates else None
        # As the docker CLI: a certificate and its key have the same name.
        key = next((each for each in keys if cert is None or each.stem == cert.stem), None)
        tls = TLSConfig(cert=cert, key=key)
    context = client_context(tls, str(directory))
    for file in files:
        if file.suffix == ".crt":
            # Reads it by itself, with errors that name the file.
            client_context(TLSConfig(ca=file), str(directory))
            context.load_verify_locations(cafile=os.fspath(file))
    return context

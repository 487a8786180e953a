"""Where the daemon is: an address, and where the choice of it came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yarl import URL

from .errors import ConfigError

__all__ = ["Endpoint"]

DEFAULT_SOCKET: Final = "/var/run/docker.sock"
DEFAULT_PORT: Final = 2375
PODMAN_SOCKET: Final = "/run/podman/podman.sock"

# What yarl makes of a host: a name in IDNA's ASCII, or an address. It lets spaces and much else pass.
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a daemon (`unix://…` or `tcp://host:port`), and `source`, which says who chose it."""

    url: str
    source: str = "argument"

    def __post_init__(self) -> None:
        if self.scheme == "unix":
            if not self.socket_path.startswith("/"):
                raise self._error("a unix socket needs an absolute path, as in unix:///var/run/docker.sock")
            if "\0" in self.url:
                raise self._error("a path has no NUL")
        elif self.scheme in ("tcp", "http"):
            self._check_address()
        else:
            raise self._error("only unix://, tcp:// and http:// endpoints and absolute paths are supported")

    @classmethod
    def resolve(
        cls, endpoint: str | os.PathLike[str] | Endpoint | None = None, *, environ: Mapping[str, str] | None = None
    ) -> Endpoint:
        """Choose the endpoint: the argument, `DOCKER_HOST`, the first default socket that exists.

        Raises `ConfigError`, which names where the choice came from, for an address that makes no sense.
        """
        if isinstance(endpoint, Endpoint):
            return endpoint
        if endpoint is not None:
            return cls.parse(os.fspath(endpoint), source="argument")
        environ = os.environ if environ is None else environ
        if host := environ.get("DOCKER_HOST"):
            return cls.parse(host, source="DOCKER_HOST")
        for path in _default_sockets(environ):
            if os.path.exists(path):  # noqa: PTH110 - Path's raises for a directory that may not be entered
                return cls(f"unix://{path}", "default socket")
        return cls(f"unix://{DEFAULT_SOCKET}", "default socket")

    @classmethod
    def parse(cls, text: str, *, source: str = "argument") -> Endpoint:
        """Read an address; an absolute path is a unix socket. Raises `ConfigError`."""
        return cls(f"unix://{text}" if text.startswith("/") else text, source)

    @property
    def scheme(self) -> str:
        """The part before `://`, in lower case; empty if there is none."""
        scheme, separator, _ = self.url.partition("://")
        return scheme.lower() if separator else ""

    @property
    def socket_path(self) -> str:
        """The path of the unix socket."""
        return self.url.partition("://")[2]

    @property
    def base_url(self) -> URL:
        """What requests are addressed to. Behind a unix socket the host only fills the Host header."""
        if self.scheme == "unix":
            return URL("http://docker")
        return self._address()

    def __str__(self) -> str:
        return self.url

    def _address(self) -> URL:
        url = URL(f"http://{self.url.partition('://')[2]}")
        return url.with_port(url.explicit_port or DEFAULT_PORT).origin()

    def _check_address(self) -> None:
        rest = self.url.partition("://")[2]
        # Before yarl sees it, whose errors quote what they refuse.
        if "@" in rest:
            raise self._error("expected nothing but a host and a port, and no user or password")
        if rest.startswith("[") and rest.partition("]")[2][:1] not in ("", ":", "/"):
            raise self._error("expected nothing but a port behind the ']'")  # yarl before 1.24 overlooks it
        if not rest.isprintable():  # the standard library drops line ends and tabs from URLs
            raise self._error("there is an unprintable character in it")
        try:
            url = URL(f"http://{rest}")
            host = url.host and url.raw_host  # the first can fail where the second does not
            port = url.explicit_port
        except ValueError as error:
            raise self._error(str(error)) from error
        if not host:
            raise self._error("the host is missing, as in tcp://127.0.0.1:2375")
        if not _HOST.fullmatch(host):
            raise self._error(f"{host!r} is not a host")
        if port == 0:
            raise self._error("no daemon listens on port 0")
        if url.raw_path not in ("", "/") or url.raw_query_string or url.raw_fragment:
            raise self._error("expected nothing but a host and a port")

    def _error(self, reason: str) -> ConfigError:
        # Whoever put a password in there does not want to see it in a log.
        user, at, host = self.url.rpartition("@")
        scheme, separator, _ = user.partition("://")
        shown = f"{scheme + separator if separator else ''}…@{host}" if at else self.url
        return ConfigError(f"{shown[:200]!r} (from {self.source}) is no endpoint: {reason}")


def _default_sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    """List where daemons listen by default: Docker, rootless Docker, Docker Desktop, then Podman."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    home = environ.get("HOME")
    yield Path(DEFAULT_SOCKET)
    if runtime:
        yield Path(runtime, "docker.sock")
    if home:
        yield Path(home, ".docker/run/docker.sock")
        yield Path(home, ".docker/desktop/docker.sock")
    if runtime:
        yield Path(runtime, "podman/podman.sock")
    yield Path(PODMAN_SOCKET)

"""Where the daemon is: an address, how it is secured, and where the choice of it came from."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

from yarl import URL

from ._arguments import path_text, wrong
from ._dockercli.config import config_directory
from ._dockercli.context import DEFAULT_CONTEXT, DockerContext, current_context, read_context
from ._system.users import home_directory, runtime_directory
from .errors import ConfigError

__all__ = ["Endpoint", "SSHTarget", "TLSConfig"]

DEFAULT_SOCKET: Final = "/var/run/docker.sock"
DEFAULT_PIPE: Final = "npipe:////./pipe/docker_engine"
DEFAULT_HOST: Final = "localhost"
DEFAULT_PORT: Final = 2375
DEFAULT_TLS_PORT: Final = 2376
MAX_DIGITS: Final = 5
"""Digits of a port."""

PODMAN_SOCKET: Final = "/run/podman/podman.sock"

_SCHEMES: Final = ("unix", "npipe", "tcp", "http", "https", "ssh")

# What yarl makes of a host: a name in IDNA's ASCII, or an address. It lets spaces and much else pass.
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?")
# Without a scheme, the docker CLI takes anything for a TCP address, a file name, too; here it must look like one:
# host:port, perhaps with a path; host: and :port, of which the other half is the default; localhost or an IP address.
_BARE_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?:[0-9]+(?:/.*)?|(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):"
    r"|localhost|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9A-Fa-f:.]+\]"
)
_AUTHORITY = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[^:]*))?")
# A proxy may offer an Engine under a path.
_BASE_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+)*/?")
_PIPE = re.compile(r"//\./pipe/[^/\\\0]+")
# OpenSSH puts users and hosts into commands of the user's configuration (%r, %h): nothing that a shell would read,
# and nothing that could be an option. The path becomes part of a forwarding, in which `:` and `%` mean something.
SSH_PATH: Final = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.@+-]+)+")
_SSH = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.@+-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9._-]*)|\[(?P<address>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    rf"(?P<path>{SSH_PATH.pattern})?/?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSConfig:
    """How a TCP endpoint is secured, by paths of PEM files that are read where they are.

    `ca` is who signed the daemon's certificate, None for whoever the system trusts; `cert` and `key` are our own,
    for a daemon that asks for one. Without `verify` anybody could answer in the daemon's place.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class SSHTarget:
    """The parts of an `ssh://` address; what is None is left to the user's OpenSSH configuration, and the remote."""

    host: str
    user: str | None = None
    port: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a daemon, and who chose it.

    `url` is `unix:///path`, `tcp://host:port`, `http://…` (never TLS), `https://…` (always), `ssh://user@host:port/path`
    or, on Windows, `npipe:////./pipe/name`. `source` says who chose it: "argument", "DOCKER_HOST", 'context "prod"
    in …/meta.json', "default socket". `tls` secures `tcp://` and `https://`. `considered` is what was looked at on
    the way to the choice, in order.
    """

    url: str
    source: str = "argument"
    tls: TLSConfig | None = None
    considered: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        match self.scheme:
            case "unix":
                if not self.socket_path.startswith("/"):
                    raise self._error("a unix socket needs an absolute path, as in unix:///var/run/docker.sock")
                if "\0" in self.url:
                    raise self._error("a path has no NUL")
            case "npipe":
                if not _PIPE.fullmatch(self._rest.replace("\\", "/")):
                    raise self._error(f"a named pipe is written as in {DEFAULT_PIPE}")
            case "tcp" | "http" | "https":
                self._check_address()
            case "ssh":
                self._check_ssh()
            case _:
                schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
                raise self._error(f"expected an absolute path, host:port, or one of {schemes}")
        if self.scheme not in ("tcp", "https"):
            object.__setattr__(self, "tls", None)
        elif self.scheme == "https" and self.tls is None:
            object.__setattr__(self, "tls", TLSConfig())

    @classmethod
    def resolve(
        cls, endpoint: str | os.PathLike[str] | Endpoint | None = None, *, environ: Mapping[str, str] | None = None
    ) -> Endpoint:
        """Choose the endpoint as the docker CLI does.

        The argument; `DOCKER_HOST`; the context that `DOCKER_CONTEXT` names; the `currentContext` of config.json
        in `DOCKER_CONFIG` or ~/.docker; the first default socket: Docker's, rootless Docker's, Docker Desktop's,
        Podman's. A `tcp://` address of the first two is secured if `DOCKER_TLS_VERIFY` is set (with `DOCKER_TLS`
        alone, unverified), by ca.pem, cert.pem and key.pem in `DOCKER_CERT_PATH` or ~/.docker.

        Reads small files, at most. Raises `ConfigError` for what makes no sense, and `ContextNotFoundError`; both
        name where the choice came from.
        """
        environ = os.environ if environ is None else environ
        if isinstance(endpoint, Endpoint):
            return endpoint
        if endpoint is not None:
            return _secured(cls.parse(path_text("endpoint", endpoint), source="argument"), environ)
        if (chosen := _environment_host(environ)) is not None:
            return chosen
        considered = ["DOCKER_HOST: not set"]
        name, chosen_by = environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
        if not name:
            considered.append("DOCKER_CONTEXT: not set")
            name, path = current_context(environ)
            chosen_by = f"currentContext in {path}"
        considered.append(f"{chosen_by}: {name or 'not set'}")
        if name and name != DEFAULT_CONTEXT:
            chosen = _of_context(read_context(name, environ, chosen_by=chosen_by), environ)
        else:
            chosen = _default(environ)
        return replace(chosen, considered=(*considered, *chosen.considered))

    @classmethod
    def from_context(cls, name: str, *, environ: Mapping[str, str] | None = None) -> Endpoint:
        """Return the endpoint of a docker context, by its name.

        "default" is, as for the docker CLI, what is chosen without a context: `DOCKER_HOST`, or a default socket.

        Raises `ContextNotFoundError`, and `ConfigError` for a context that makes no sense.
        """
        if not isinstance(cast("object", name), str):
            raise wrong("name", name, "a str")
        environ = os.environ if environ is None else environ
        if name == DEFAULT_CONTEXT:
            return _environment_host(environ) or _default(environ)
        return _of_context(read_context(name, environ, chosen_by="argument"), environ)

    @classmethod
    def parse(cls, text: str, *, source: str = "argument", tls: TLSConfig | None = None) -> Endpoint:
        """Read an address: a URL, an absolute path of a unix socket, or host:port. Raises `ConfigError`.

        As for the docker CLI, white space around it does not count, and what is left out of it is the default:
        "tcp://" and ":2375" are on localhost, "unix://" is /var/run/docker.sock, "npipe://" Docker's named pipe.
        """
        if not isinstance(cast("object", text), str):
            raise wrong("endpoint", text, "a str")
        text = text.strip()
        if text.startswith("/"):
            text = f"unix://{text}"
        elif _BARE_ADDRESS.fullmatch(text):
            text = f"tcp://{text}"
        scheme, separator, rest = text.partition("://")
        if separator:
            text = f"{scheme}://{_with_defaults(scheme.lower(), rest)}"
        return cls(text, source, tls)

    @property
    def scheme(self) -> str:
        """The part before the colon, in lower case; empty if there is none."""
        scheme, separator, _ = self.url.partition("://")
        return scheme.lower() if separator else ""

    @property
    def socket_path(self) -> str:
        """The path of the unix socket."""
        return self._rest

    @property
    def pipe_path(self) -> str:
        r"""The path of the named pipe, as Windows writes it (\\.\pipe\docker_engine)."""
        return self._rest.replace("/", "\\")

    @property
    def ssh_target(self) -> SSHTarget:
        """The parts of an address that begins with ssh:."""
        parts = _SSH.fullmatch(self._rest)
        if parts is None:
            raise self._error("expected ssh://user@host:port/path/to/docker.sock, all but the host optional")
        return SSHTarget(
            host=parts["host"] or parts["address"],
            user=parts["user"],
            port=int(parts["port"]) if parts["port"] else None,
            path=parts["path"] or None,
        )

    @property
    def base_url(self) -> URL:
        """What requests are addressed to. Where no host is connected to, it only fills the Host header."""
        if self.scheme not in ("tcp", "http", "https"):
            return URL("http://docker")
        return self._address()

    def explain(self) -> str:
        """Say in lines what was chosen and why: the address, then what was considered on the way to it."""
        return "\n".join([f"{self.url} (from {self.source})", *(f"  {step}" for step in self.considered)])

    def __str__(self) -> str:
        return self.url

    @property
    def _rest(self) -> str:
        return self.url.partition("://")[2]

    def _address(self) -> URL:
        secure = self.scheme == "https" or (self.scheme == "tcp" and self.tls is not None)
        url = URL(f"{'https' if secure else 'http'}://{self._rest}")
        port = url.explicit_port or (DEFAULT_TLS_PORT if secure else DEFAULT_PORT)
        return url.with_port(port).with_path(url.path.rstrip("/"))

    def _check_address(self) -> None:
        rest = self._rest
        # Before yarl sees it, whose errors quote what they refuse.
        if "@" in rest:
            raise self._error("expected nothing but a host and a port, and no user or password")
        if rest.startswith("[") and rest.partition("]")[2][:1] not in ("", ":", "/"):
            raise self._error("expected nothing but a port behind the ']'")  # yarl before 1.24 overlooks it
        if not rest.isprintable():  # the standard library drops line ends and tabs from URLs
            raise self._error("there is an unprintable character in it")
        authority = _AUTHORITY.fullmatch(rest.partition("/")[0].partition("?")[0].partition("#")[0])
        if authority is None:
            raise self._error("an IPv6 address is written in brackets, as in tcp://[::1]:2375")
        port = authority["port"]
        if port and not (port.isascii() and port.isdecimal() and len(port) <= MAX_DIGITS and int(port) < 1 << 16):
            raise self._error("a port is a number from 1 to 65535")
        try:
            url = URL(f"http://{rest}")
            host = url.host and url.raw_host  # the first can fail where the second does not
        except ValueError as error:
            raise self._error("the host is not one that can be looked up") from error
        if not host:
            raise self._error("the host is missing, as in tcp://127.0.0.1:2375")
        if not _HOST.fullmatch(host):
            raise self._error(f"{host!r} is not a host")
        if port and int(port) == 0:
            raise self._error("no daemon listens on port 0")
        # Of the text, for yarl resolves dots.
        if {"?", "#"} & set(rest) or not _BASE_PATH.fullmatch(f"/{rest.partition('/')[2]}"):
            raise self._error("expected nothing but a host, a port and perhaps a plain path")

    def _check_ssh(self) -> None:
        user, at, _ = self._rest.rpartition("@")
        if at and ":" in user:
            raise self._error("ssh takes no password from an address; put a key into ssh-agent")
        target = self.ssh_target
        if target.port is not None and not 0 < target.port < 65536:
            raise self._error("a port is a number from 1 to 65535")

    def _error(self, reason: str) -> ConfigError:
        # Whoever put a password in there does not want to see it in a log.
        user, at, host = self.url.rpartition("@")
        scheme, separator, _ = user.partition("://")
        shown = f"{scheme + separator if separator else ''}…@{host}" if at else self.url
        return ConfigError(f"{shown[:200]!r} (from {self.source}) is no endpoint: {reason}")


def _with_defaults(scheme: str, rest: str) -> str:
    """Add to an address what the docker CLI adds. The port of TCP depends on TLS, and is added where it is used."""
    if scheme == "unix":
        return rest or DEFAULT_SOCKET
    if scheme == "npipe":
        return rest or DEFAULT_PIPE.partition("://")[2]
    if scheme != "tcp" or "@" in rest:
        return rest
    authority, slash, path = rest.partition("/")
    if authority.endswith("]:") or authority.count(":") == 1:
        authority = authority.removesuffix(":")
    if (authority.startswith(":") and authority.count(":") == 1) or not rest:
        authority = f"{DEFAULT_HOST}{authority}"
    return f"{authority}{slash}{path}"


def _environment_host(environ: Mapping[str, str]) -> Endpoint | None:
    """Return the endpoint that `DOCKER_HOST` names; None if it names none."""
    host = environ.get("DOCKER_HOST", "")
    return _secured(Endpoint.parse(host, source="DOCKER_HOST"), environ) if host.strip() else None


def _secured(endpoint: Endpoint, environ: Mapping[str, str]) -> Endpoint:
    """Add what the environment says of TLS, as the docker CLI does for addresses that are of no context."""
    tls = _environment_tls(environ, always=endpoint.scheme == "https")
    return endpoint if tls is None else replace(endpoint, tls=tls)


def _environment_tls(environ: Mapping[str, str], *, always: bool = False) -> TLSConfig | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    given = environ.get("DOCKER_CERT_PATH")
    if not (verify or environ.get("DOCKER_TLS") or (always and given)):
        return None
    verify = verify or not environ.get("DOCKER_TLS")
    directory = Path(given) if given else config_directory(environ)
    if directory is None:
        return TLSConfig(verify=verify)
    # Like the docker CLI: our own certificate is optional, the authority to verify with is not.
    cert, key = (file if file.exists() else None for file in (directory / "cert.pem", directory / "key.pem"))
    return TLSConfig(ca=directory / "ca.pem" if verify else None, cert=cert, key=key, verify=verify)


def _of_context(context: DockerContext, environ: Mapping[str, str]) -> Endpoint:
    source = f'context "{context.name}" in {context.path}'
    if not context.host:
        return replace(_default(environ), source=source)
    tls = None
    if context.ca or context.cert or context.key or context.skip_tls_verify:
        tls = TLSConfig(ca=context.ca, cert=context.cert, key=context.key, verify=not context.skip_tls_verify)
    return Endpoint.parse(context.host, source=source, tls=tls)


def _default(environ: Mapping[str, str]) -> Endpoint:
    """Choose where nobody said anything."""
    if tls := _environment_tls(environ):
        # So does the docker CLI: who asks for TLS does not mean the socket.
        return Endpoint(f"tcp://localhost:{DEFAULT_TLS_PORT}", "DOCKER_TLS_VERIFY", tls)
    return Endpoint(DEFAULT_PIPE, "default pipe") if sys.platform == "win32" else _default_socket(environ)


def _default_socket(environ: Mapping[str, str]) -> Endpoint:
    considered: list[str] = []
    refused: list[str] = []
    for path in _default_sockets(environ):
        try:
            is_socket = stat.S_ISSOCK(path.stat().st_mode)
        except (OSError, ValueError):  # ValueError: a NUL is in it
            considered.append(f"{path}: not there")
            continue
        if not is_socket:
            considered.append(f"{path}: not a socket")  # Docker makes a directory of what it mounts and is not there
        elif not os.access(path, os.R_OK | os.W_OK):
            considered.append(f"{path}: not for this user")
            refused.append(str(path))
        else:
            considered.append(f"{path}: there")
            return Endpoint(f"unix://{path}", "default socket", considered=tuple(considered))
    # Nothing is there: the error will name the first, and say what is wrong with it.
    first = refused[0] if refused else DEFAULT_SOCKET
    return Endpoint(f"unix://{first}", "default socket", considered=tuple(considered))


def _default_sockets(environ: Mapping[str, str]) -> Iterator[Path]:
    """List where daemons listen by default: Docker, rootless Docker, Docker Desktop, then Podman."""
    runtime = runtime_directory(environ)
    home = home_directory(environ)
    yield Path(DEFAULT_SOCKET)
    if runtime is not None:
        yield runtime / "docker.sock"
    if home is not None:
        yield home / ".docker/run/docker.sock"
        yield home / ".docker/desktop/docker.sock"
    if runtime is not None:
        yield runtime / "podman/podman.sock"
    yield Path(PODMAN_SOCKET)
    if home is not None:
        yield home / ".local/share/containers/podman/machine/podman.sock"  # of `podman machine`, on macOS

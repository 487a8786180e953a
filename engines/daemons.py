"""Private Engines of every kind."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .kinds import DEFAULT, ENGINES, EngineSpec, own_name, root_directory
from .namespaces import isolated, require_root
from .process import Daemon
from .state import EngineError


@dataclass(frozen=True, kw_only=True)
class ServerTLS:
    """The certificate that an Engine or a registry shows, in PEM: bytes, or the path of a file, read at every start.

    With `ca`, it wants from its clients a certificate that this authority signed; without, none.
    """

    cert: bytes | Path
    key: bytes | Path = field(repr=False)
    ca: bytes | Path | None = None

    def write(self, directory: Path) -> list[str]:
        """Write what is given to cert.pem, key.pem and ca.pem, for us alone, and return which of these there are."""
        given = {"cert": self.cert, "key": self.key, "ca": self.ca}
        written = list[str]()
        for name, pem in given.items():
            if pem is not None:
                path = directory / f"{name}.pem"
                path.touch(mode=0o600)
                path.write_bytes(pem if isinstance(pem, bytes) else pem.read_bytes())
                written.append(name)
        return written


# How the options are called: of dockerd in its daemon.json, of `podman system service` on its command line.
_DOCKER_TLS = {"cert": "tlscert", "key": "tlskey", "ca": "tlscacert"}
_PODMAN_TLS = {"cert": "--tls-cert", "key": "--tls-key", "ca": "--tls-client-ca"}


class Engine(Daemon):
    """A private Engine on a unix socket, without images and without networks. Needs root.

    Attributes: `name`, a key of ENGINES, on Debian 13 "docker26" for "docker20", which is the same there; `socket`, the
    path it serves on; `host`, the same for DOCKER_HOST;
    `data_root`. `config` adds to dockerd's daemon.json; Podman has none.

    It also listens on a port of 127.0.0.1 with `tls`, at `tls_address`, or in plain text with `tcp`, at
    `tcp_address`: "127.0.0.1:PORT", empty before the first start, the same from then on.
    """

    def __init__(
        self,
        name: str = DEFAULT,
        *,
        config: Mapping[str, object] | None = None,
        tls: ServerTLS | None = None,
        tcp: bool = False,
    ) -> None:
        name = own_name(name)
        super().__init__(f"The Engine {name}")
        self.name = name
        self.socket = self.state / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.data_root = self.state / "data"
        self.tls_address = self.tcp_address = ""
        self._config = config or {}
        self._tls = tls
        self._tcp = tcp
        self._listener_pid: int | None = None
        if config and not ENGINES[name].docker:
            raise EngineError(f"The Engine {name} has no daemon.json to be configured by.")
        if tls and tcp:
            raise EngineError(f"The Engine {name} listens with TLS or without: dockerd does not do both.")

    def _launch(self) -> None:
        require_root(f"a private Engine, {self.name},")
        if self._tls:
            self.tls_address = self._serve_on_port(self.tls_address, self._launch_at)
        elif self._tcp:
            self.tcp_address = self._serve_on_port(self.tcp_address, self._launch_at)
        else:
            self._launch_at("")

    def _launch_at(self, address: str) -> None:
        """Start the daemon on its socket and, if that is not empty, at the address too."""
        spec = ENGINES[self.name]
        pems = {name: f"/state/{name}.pem" for name in (self._tls.write(self.state) if self._tls else ())}
        for name, text in spec.files.items():
            (self.state / name).write_text(text)
        beside: list[str] = []
        if spec.docker:
            (self.state / "daemon.json").write_text(json.dumps(self._daemon_json(spec, address, pems)))
        elif address:  # `podman system service` serves one address: another serves this one, from the same storage
            options = [f"{_PODMAN_TLS[name]}={path}" for name, path in pems.items()]
            beside = [*spec.command[:-1], *options, f"tcp://{address}"]
        command = isolated(root_directory(spec), self.state, spec.command, beside=beside)
        self._serve(command, lambda: self._answers() and self._listens(address), spec.environment)

    def _daemon_json(self, spec: EngineSpec, address: str, pems: Mapping[str, str]) -> dict[str, object]:
        config = {"cgroup-parent": f"/{self.state.name}", **spec.config, **self._config}
        if address:
            config["hosts"] = [f"unix:///state/{self.socket.name}", f"tcp://{address}"]
        if pems:
            # Without a word on it, dockerd wants a certificate of every client (20.10, 26.1, 28.5).
            config |= {"tls": True, "tlsverify": "ca" in pems}
            config |= {_DOCKER_TLS[name]: path for name, path in pems.items()}
        return config

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            # The peer is the daemon itself, not the unshare that it descends from.
            self._pid, *_ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return b" 200 " in connection.recv(32)
        return False

    def _listens(self, address: str) -> bool:
        self._listener_pid = self._listener(address) if address else None
        return not address or self._listener_pid is not None

    def _processes(self) -> Iterator[int]:
        yield self.pid
        if self._listener_pid is not None and self._listener_pid != self.pid:  # Podman's other service
            yield self._listener_pid

"""Looks at private daemons by the standard library: the harness is tested without what it is a harness for."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from pathlib import Path

import engines


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(engine: engines.Engine | Path, method: str, path: str, body: bytes = b"", timeout: float = 30) -> bytes:
    """Return the body of the answer of an Engine, or of whatever is behind the socket."""
    at = engine.socket if isinstance(engine, engines.Engine) else engine
    return _answer(UnixConnection(at, timeout), method, path, body)


def ping(address: str, tls: ssl.SSLContext | None = None, timeout: float = 30) -> bytes:
    """Return what an Engine at "HOST:PORT" answers to a ping."""
    if tls is None:
        return _answer(http.client.HTTPConnection(address, timeout=timeout), "GET", "/_ping")
    return _answer(http.client.HTTPSConnection(address, timeout=timeout, context=tls), "GET", "/_ping")


def _answer(connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"") -> bytes:
    with contextlib.closing(connection):
        connection.request(method, path, body)
        return connection.getresponse().read()


def listens(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


def traces(directory: Path) -> list[str]:
    """Return the processes and mounts of a state directory, and itself if it exists."""
    found = [str(directory)] if directory.exists() else []
    for name in ("environ", "mountinfo"):
        for file in Path("/proc").glob(f"[0-9]*/{name}"):
            with contextlib.suppress(OSError):  # the process ended
                if str(directory).encode() in file.read_bytes():
                    found.append(str(file))
    return found

"""Turn the exceptions of aiohttp and of the operating system into our own errors, and say where each happened."""

from __future__ import annotations

import contextlib
import errno
import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from aiodocker_images.endpoint import Endpoint
from aiodocker_images.errors import (
    ConfigError,
    DaemonUnreachableError,
    DockerError,
    StreamInterruptedError,
    StreamStalledError,
)

from .call import Call

__all__ = ["Located", "locate", "tls_hint", "translate"]

MAX_REASON: Final = 200
"""Characters of what aiohttp says of an answer that is no HTTP: it quotes all that came."""


def locate(error: BaseException | None, call: Call, endpoint: Callable[[], Endpoint]) -> None:
    """Say in one of our errors which operation it met, and at which endpoint, unless it says so already."""
    if isinstance(error, DockerError):
        if error.operation is None:
            error.operation, error.verb = call.operation, call.verb
        if not isinstance(error, ConfigError):  # which may be about that very endpoint
            error.endpoint = error.endpoint or str(endpoint())
            error.endpoint_source = error.endpoint_source or endpoint().source


class Located(contextlib.AbstractContextManager[None]):
    """Locates what is raised in its context. No generator of contextlib's: every ping enters one."""

    def __init__(self, call: Call, endpoint: Callable[[], Endpoint]) -> None:
        self._call = call
        self._endpoint = endpoint

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Add to the error."""
        locate(error, self._call, self._endpoint)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def translate(
    error: Exception,
    endpoint: Endpoint,
    *,
    answered: bool,
    idle: float | None,
    connect: float | None,
    remark: str = "",
) -> DockerError | None:
    """Make ours of what a request (`answered` false) or the reading of its answer raised.

    Returns None for what neither the network nor the daemon can cause: that is a bug, to be seen as it is.
    `idle` and `connect` are the time limits in seconds, for the message; `remark` is what ssh said.
    """
    match error:
        case aiohttp.SocketTimeoutError():
            return StreamStalledError(f"the daemon sent nothing for {idle} s")
        case aiohttp.ConnectionTimeoutError():
            return DaemonUnreachableError(f"cannot connect: no connection within {connect} s")
        case aiohttp.ClientConnectorError():
            return DaemonUnreachableError(f"cannot connect: {remark or _why_unreachable(error, endpoint)}")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return ConfigError(f"not an address: {error}")
        case aiohttp.ClientResponseError() | HttpProcessingError() if not answered:
            reason = _short(error.message)
            return DaemonUnreachableError(f"what answers there does not speak HTTP: {reason}{tls_hint(endpoint)}")
        case aiohttp.ClientError() | OSError() if refusal := _tls_refusal(error):
            return DaemonUnreachableError(f"cannot connect: {refusal}")
        case aiohttp.ClientError() | OSError() if remark and not answered:
            # ssh takes the connection first, and drops it when the remote end refuses it. Why, sshd does not tell.
            return DaemonUnreachableError(
                f"cannot connect: the remote socket did not take it ({remark}); is it there, may this user use it,"
                " and does sshd forward to sockets (AllowStreamLocalForwarding)?"
            )
        case aiohttp.ClientError() | HttpProcessingError() | OSError() | EOFError():
            when = "in mid-answer" if answered else "before it answered"
            # Of a plain end aiohttp tells the framing that broke, with a status (400) that nobody sent.
            plain = isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError)
            reason = "did it stop or restart?" if plain else _short(str(error)) or type(error).__name__
            said = f"; ssh says: {remark}" if remark else ""
            return StreamInterruptedError(f"the connection to the daemon ended {when}: {reason}{said}")
        case _:
            return None


def tls_hint(endpoint: Endpoint) -> str:
    """Return what to do about a daemon that answers strangely because it expects TLS; empty if it cannot be that."""
    # dockerd then answers HEAD with status 400 and a body, which no answer to HEAD has.
    plain = endpoint.scheme == "tcp" and endpoint.tls is None
    return "; if it expects TLS, set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH" if plain else ""


def _why_unreachable(error: aiohttp.ClientConnectorError, endpoint: Endpoint) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        verified = endpoint.tls.ca if endpoint.tls is not None and endpoint.tls.ca else "the system's authorities"
        cause = error.certificate_error
        reason: str = getattr(cause, "verify_message", str(cause))
        return f"the certificate it shows does not hold: {reason} (verified with {verified})"
    if isinstance(error, aiohttp.ClientSSLError):
        return _tls_refusal(error) or f"no TLS with what answers there: {_tls_reason(error)}"
    if endpoint.scheme != "unix":
        # Its own text has "ssl:default" for every connection, and [None] where the other end hung up in the handshake.
        number, text = error.os_error.errno, error.os_error.strerror or str(error.os_error)
        known = number in errno.errorcode  # getaddrinfo has numbers of its own
        reason = os.strerror(number) if number is not None and known else text or "the other end hung up"
        handshake = " in the TLS handshake" if isinstance(error.os_error, ConnectionResetError) and endpoint.tls else ""
        return f"{error.host}:{error.port}: {reason}{handshake}" if error.host else reason
    match error.errno:
        case errno.ENOENT:
            return "there is no such socket; is the daemon running?"
        case errno.EACCES | errno.EPERM:
            return "permission denied; is this user in the group that owns the socket?"
        case errno.ECONNREFUSED if not _is_socket(endpoint.socket_path):
            return "this file is not a socket"
        case errno.ECONNREFUSED:
            return "nothing listens on this socket; is the daemon running?"
        case _:
            return error.os_error.strerror or str(error.os_error)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return True


def _tls_refusal(error: BaseException) -> str | None:
    """Return what a daemon that broke off TLS wants of us; None for everything else.

    With TLS 1.3 it says so only after the handshake, in place of its answer.
    """
    reason = _tls_reason(error)
    if "certificate required" in reason or "bad certificate" in reason or "unknown ca" in reason:
        return f"the daemon wants a client certificate that it trusts ({reason})"
    return None


def _tls_reason(error: BaseException) -> str:
    """Return OpenSSL's word for what ended a connection, of the exception or of one behind it; empty for none."""
    seen: BaseException | None = error
    while seen is not None:
        reason: object = getattr(seen, "reason", None)  # of a bare SSLError there is none
        if isinstance(seen, ssl.SSLError) and isinstance(reason, str):
            return reason.replace("_", " ").lower()
        os_error = getattr(seen, "os_error", None)
        seen = os_error if isinstance(os_error, ssl.SSLError) else seen.__cause__ or seen.__context__
    return ""

"""Whatever an answer or a connection fails with becomes an error of ours that says something useful."""

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiodocker_images._http.failures import translate
from aiodocker_images.endpoint import Endpoint
from aiodocker_images.errors import (
    ConfigError,
    DaemonUnreachableError,
    DockerError,
    StreamInterruptedError,
    StreamStalledError,
)

SOCKET = Endpoint("unix:///nowhere/docker.sock")
TCP = Endpoint("tcp://127.0.0.1:2375")

_URL = URL("http://docker/v1.41/images/json")
_INFO = RequestInfo(_URL, "GET", CIMultiDictProxy(CIMultiDict({"X-Registry-Auth": "c2VjcmV0"})), _URL)
_KEY = ConnectionKey("docker", 2375, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None)
_REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
_UNTRUSTED = ssl.SSLCertVerificationError(1, "self-signed certificate")

# Any: each class of aiohttp takes arguments of its own.
Factory = Callable[[Any], Exception]


class Row(NamedTuple):
    """How an exception is made of its class, and what it becomes before the answer began and in its middle."""

    make: Factory
    before: type[DockerError]
    amid: type[DockerError]


def _of_a_text(cls: Any) -> Exception:  # noqa: ANN401 - see Factory
    error: Exception = cls("what happened")
    return error


def interrupted(make: Factory = _of_a_text) -> Row:
    return Row(make, StreamInterruptedError, StreamInterruptedError)


def unreachable(make: Factory = _of_a_text) -> Row:
    return Row(make, DaemonUnreachableError, DaemonUnreachableError)


def no_http(make: Factory = _of_a_text) -> Row:
    return Row(make, DaemonUnreachableError, StreamInterruptedError)


def no_address(make: Factory = _of_a_text) -> Row:
    return Row(make, ConfigError, ConfigError)


# A class that another release of aiohttp adds fails the enumeration below until it has its row here.
AIOHTTP: dict[str, Row] = {
    "ClientError": interrupted(),
    "ClientConnectionError": interrupted(),
    "ClientConnectionResetError": interrupted(),
    "ClientOSError": interrupted(lambda cls: cls(errno.EPIPE, "Broken pipe")),
    "ClientPayloadError": interrupted(),
    "ServerConnectionError": interrupted(),
    "ServerDisconnectedError": interrupted(lambda cls: cls()),
    "ServerTimeoutError": interrupted(),
    "UploadAbortedError": interrupted(),
    "SocketTimeoutError": Row(_of_a_text, StreamStalledError, StreamStalledError),
    "ConnectionTimeoutError": unreachable(),
    "ClientConnectorError": unreachable(lambda cls: cls(_KEY, _REFUSED)),
    "ClientConnectorDNSError": unreachable(lambda cls: cls(_KEY, socket.gaierror(socket.EAI_NONAME, "not known"))),
    "UnixClientConnectorError": unreachable(lambda cls: cls("/nowhere/docker.sock", _KEY, _REFUSED)),
    "ClientSSLError": unreachable(lambda cls: cls(_KEY, ssl.SSLError(1, "what happened"))),
    "ClientConnectorSSLError": unreachable(lambda cls: cls(_KEY, ssl.SSLError(1, "what happened"))),
    "ClientConnectorCertificateError": unreachable(lambda cls: cls(_KEY, ssl.CertificateError(1, "what happened"))),
    # The head of an answer could not be read.
    "ClientResponseError": no_http(lambda cls: cls(_INFO, (), status=400, message="Expected HTTP/")),
    "InvalidURL": no_address(),
    "InvalidUrlClientError": no_address(),
    "NonHttpUrlClientError": no_address(),
    # aiohttp's parsers raise them. Most reach nobody but aiohttp, which wraps them, in other places in each release.
    "HttpProcessingError": no_http(lambda cls: cls(message="what happened")),
    "BadHttpMessage": no_http(),
    "HttpBadRequest": no_http(),
    "PayloadEncodingError": no_http(),
    "ContentEncodingError": no_http(),
    "TransferEncodingError": no_http(),
    "ContentLengthError": no_http(),
    "DecompressSizeError": no_http(),
    "LineTooLong": no_http(lambda cls: cls(b"what happened", 8190)),
    "InvalidHeader": no_http(),
    "BadStatusLine": no_http(),
    "BadHttpMethod": no_http(),
    "InvalidURLError": no_http(),
}

# What neither a request of ours nor the reading of its answer raises.
EXCLUDED = {
    "WSServerHandshakeError": "WebSockets",
    "WSMessageTypeError": "WebSockets",
    "ContentTypeError": "of response.json(), which is not used",
    "TooManyRedirects": "redirects are not followed",
    "RedirectClientError": "redirects are not followed",
    "InvalidUrlRedirectClientError": "redirects are not followed",
    "NonHttpUrlRedirectClientError": "redirects are not followed",
    "ClientHttpProxyError": "no proxy is used",
    "ClientProxyConnectionError": "no proxy is used",
    "ServerFingerprintMismatch": "certificates are verified, not fingerprints",
}

DEFINED: dict[str, type[Exception]] = {
    name: cls
    for module in (client_exceptions, http_exceptions)
    for name, cls in vars(module).items()
    if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == module.__name__
}


def translated(error: Exception, endpoint: Endpoint = SOCKET, *, answered: bool = False) -> DockerError | None:
    return translate(error, endpoint, answered=answered, idle=30.0, connect=10.0)


def test_every_aiohttp_exception_is_in_the_table_or_excluded_for_a_reason() -> None:
    assert set(DEFINED) - set(AIOHTTP) - set(EXCLUDED) == set()
    assert set(AIOHTTP) & set(EXCLUDED) == set()


@pytest.mark.parametrize("endpoint", [SOCKET, TCP], ids=["unix", "tcp"])
@pytest.mark.parametrize("name", [name for name in AIOHTTP if name in DEFINED])
def test_every_exception_of_aiohttp_becomes_one_of_ours(name: str, endpoint: Endpoint) -> None:
    row = AIOHTTP[name]
    for answered, expected in ((False, row.before), (True, row.amid)):
        ours = translated(row.make(DEFINED[name]), endpoint, answered=answered)
        assert type(ours) is expected
        assert str(ours).strip(": ")
        assert "c2VjcmV0" not in str(ours)  # credentials in the headers of the request


def _subclasses(cls: type[OSError]) -> set[type[OSError]]:
    return {cls}.union(*(_subclasses(each) for each in cls.__subclasses__() if each.__module__ == "builtins"))


SYSTEM: list[Exception] = [
    *(cls(errno.EIO, "what happened") for cls in sorted(_subclasses(OSError), key=lambda cls: cls.__name__)),
    OSError(),
    TimeoutError(),
    TimeoutError(errno.ETIMEDOUT, "Connection timed out"),
    ConnectionResetError(),
    ssl.SSLError(1, "what happened"),
    socket.gaierror(socket.EAI_AGAIN, "what happened"),
    EOFError(),
    asyncio.IncompleteReadError(b"x", 2),
]


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("error", SYSTEM, ids=repr)
def test_every_exception_of_the_operating_system_is_an_interruption(error: Exception, *, answered: bool) -> None:
    ours = translated(error, answered=answered)
    assert type(ours) is StreamInterruptedError
    when = "in mid-answer" if answered else "before it answered"
    assert ours.message.startswith(f"the connection to the daemon ended {when}: ")
    assert not ours.message.endswith(": ")


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), KeyError("x"), RuntimeError("x"), AssertionError()])
def test_a_bug_stays_what_it_is(error: Exception) -> None:
    assert translated(error) is None


MESSAGES: list[tuple[Exception, Endpoint, bool, str]] = [
    (aiohttp.SocketTimeoutError(), SOCKET, True, "the daemon sent nothing for 30.0 s"),
    (aiohttp.ConnectionTimeoutError(), SOCKET, False, "cannot connect: no connection within 10.0 s"),
    (
        aiohttp.ConnectionTimeoutError(),
        Endpoint("tcp://127.0.0.1", "DOCKER_HOST"),
        False,
        "cannot connect: no connection within 10.0 s",
    ),
    (
        aiohttp.ServerDisconnectedError(),
        SOCKET,
        False,
        "the connection to the daemon ended before it answered: did it stop or restart?",
    ),
    (
        aiohttp.ClientPayloadError("Response payload is not completed: <TransferEncodingError: 400>"),
        SOCKET,
        True,
        "the connection to the daemon ended in mid-answer: did it stop or restart?",
    ),
    (aiohttp.ClientConnectionError(), SOCKET, True, "the connection to the daemon ended in mid-answer: ClientConn"),
    (
        aiohttp.ClientResponseError(_INFO, (), status=400, message="Expected HTTP/"),
        Endpoint("unix:///nowhere/docker.sock", "default socket"),
        False,
        "what answers there does not speak HTTP: Expected HTTP/",
    ),
    (aiohttp.InvalidURL("http://x y"), SOCKET, False, "not an address: http://x y"),
    (aiohttp.ClientConnectorError(_KEY, _REFUSED), TCP, False, "cannot connect: docker:2375: Connection refused"),
]


@pytest.mark.parametrize(("error", "endpoint", "answered", "text"), MESSAGES, ids=[row[3] for row in MESSAGES])
def test_the_message_says_when_where_from_and_why(
    error: Exception, endpoint: Endpoint, text: str, *, answered: bool
) -> None:
    assert str(translated(error, endpoint, answered=answered)).startswith(text)


REASONS = [
    (errno.ENOENT, "there is no such socket; is the daemon running?"),
    (errno.EACCES, "permission denied; is this user in the group that owns the socket?"),
    (errno.EPERM, "permission denied; is this user in the group that owns the socket?"),
    (errno.ECONNREFUSED, "nothing listens on this socket; is the daemon running?"),
    (errno.ENOTDIR, "Not a directory"),
]


@pytest.mark.parametrize(("number", "reason"), REASONS, ids=[errno.errorcode[number] for number, _ in REASONS])
def test_why_a_socket_cannot_be_reached_is_said_with_what_to_do(number: int, reason: str) -> None:
    error = client_exceptions.UnixClientConnectorError("/nowhere/docker.sock", _KEY, OSError(number, "Not a directory"))
    assert str(translated(error)) == f"cannot connect: {reason}"


def test_a_cause_without_a_number_is_named_by_its_text() -> None:
    error = client_exceptions.UnixClientConnectorError("/nowhere/docker.sock", _KEY, OSError("AF_UNIX path too long"))
    assert str(translated(error)) == "cannot connect: AF_UNIX path too long"


def test_a_file_in_place_of_a_socket_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    error = client_exceptions.UnixClientConnectorError("docker.sock", _KEY, _REFUSED)
    ours = translated(error, Endpoint.parse(str(tmp_path / "docker.sock")))
    assert str(ours) == "cannot connect: this file is not a socket"


@pytest.mark.parametrize("answered", [False, True])
def test_of_all_that_aiohttp_quotes_only_the_beginning_is_told(*, answered: bool) -> None:
    error = http_exceptions.BadHttpMessage("Expected HTTP/:\n\n  " + "x" * 100_000)
    message = str(translated(error, answered=answered))
    assert "Expected HTTP/: xxx" in message
    assert len(message) < 400

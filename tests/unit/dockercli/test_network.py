"""Headers and proxies of the environment are used as the docker CLI uses them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator

import pytest
from yarl import URL

from aiodocker_images import ConfigError, DaemonUnreachableError, ImageService
from aiodocker_images._dockercli.config import Environment
from aiodocker_images._dockercli.network import custom_headers, proxy_for
from aiodocker_images.testing._listening import listening, streams, tcp_listener
from tests.support.scripted import ScriptedDaemon

HEADERS: list[tuple[str, dict[str, str]]] = [
    ("", {}),
    ("one=one-value", {"one": "one-value"}),
    (
        'one=one-value,"two=two,value","three= a value with whitespace  ",four=,five=five=one,five=five-two',
        {
            "one": "one-value",
            "two": "two,value",
            "three": " a value with whitespace  ",
            "four": "",
            "five": "five-two",
        },
    ),
    (" one =1", {"one": "1"}),
    ("host=x,X-Registry-Auth=y,one=1", {"one": "1"}),
]


@pytest.mark.parametrize(("text", "headers"), HEADERS, ids=ascii)
def test_custom_headers_are_read_as_a_line_of_csv(text: str, headers: dict[str, str]) -> None:
    assert custom_headers(Environment({"DOCKER_CUSTOM_HEADERS": text})) == headers


@pytest.mark.parametrize("text", ["one", "=s3cret", "one=1,two", '"one=s3cret', "one=s3cret\x00", "o ne=s3cret"])
def test_what_is_not_a_header_is_refused_without_its_value(text: str) -> None:
    with pytest.raises(ConfigError, match="DOCKER_CUSTOM_HEADERS") as caught:
        custom_headers(Environment({"DOCKER_CUSTOM_HEADERS": text}))
    assert "s3cret" not in str(caught.value)


async def test_custom_headers_go_along_with_every_request(
    daemon: ScriptedDaemon, images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CUSTOM_HEADERS", "X-Team=one")
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([]))
    await images.list()
    assert [request.headers.get("x-team") for request in daemon.requests] == ["one", "one"]


PROXY = "http://proxy:3128"

DIRECT = ["*", "engine.example", "example", ".example", "*.example", "a,engine.example ,b", "engine.example:2375"]
PROXIED = ["", "other.example", "gine.example", "engine.example:1", ".engine.example", "10.0.0.0/8", ",", "example/8"]


@pytest.mark.parametrize(("exceptions", "proxied"), [*((e, False) for e in DIRECT), *((e, True) for e in PROXIED)])
def test_a_proxy_is_used_unless_the_host_is_excepted(exceptions: str, proxied: bool) -> None:
    environ = Environment({"HTTP_PROXY": PROXY, "NO_PROXY": exceptions})
    assert proxy_for(URL("http://engine.example:2375"), environ) == (PROXY if proxied else None)


@pytest.mark.parametrize(
    ("url", "exceptions", "proxied"),
    [
        ("http://10.1.2.3:2375", "10.0.0.0/8", False),
        ("http://10.1.2.3:2375", "10.1.2.3", False),
        ("http://11.1.2.3:2375", "10.0.0.0/8", True),
        ("http://[fd00::1]:2375", "fd00::/8", False),
        ("http://[fd00::1]:2375", "", True),
        ("http://localhost:2375", "", False),
        ("http://127.0.0.5:2375", "", False),
        ("http://[::1]:2375", "", False),
    ],
)
def test_this_machine_and_networks_can_be_excepted(url: str, exceptions: str, proxied: bool) -> None:
    environ = Environment({"http_proxy": "proxy:3128", "no_proxy": exceptions})
    assert proxy_for(URL(url), environ) == (PROXY if proxied else None)


def test_an_engine_with_tls_has_the_proxy_for_https() -> None:
    environ = Environment({"HTTP_PROXY": PROXY, "HTTPS_PROXY": "http://other:1"})
    assert proxy_for(URL("https://engine.example:2376"), environ) == "http://other:1"
    assert proxy_for(URL("https://engine.example:2376"), Environment({"HTTP_PROXY": PROXY})) is None


@contextlib.asynccontextmanager
async def proxy(seen: list[bytes]) -> AsyncGenerator[str, None]:
    """A proxy that answers pings in the Engine's place."""

    async def serve(connection: socket.socket) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async with streams(connection, limit=1 << 16) as (reader, writer):
                while head := await reader.readuntil(b"\r\n\r\n"):
                    seen.append(head.partition(b"\r\n")[0])
                    writer.write(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()

    listener = tcp_listener()
    async with listening(serve, listener):
        yield "http://{}:{}".format(*listener.getsockname())


async def test_an_engine_on_tcp_is_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    async with proxy(seen) as address:
        monkeypatch.setenv("HTTP_PROXY", address)
        async with ImageService("tcp://engine.example:2375") as images:
            assert (await images.ping()).api_version == "1.51"
    assert seen == [b"HEAD http://engine.example:2375/_ping HTTP/1.1"]


async def test_a_proxy_that_is_not_there_is_an_engine_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with ImageService("tcp://engine.example:2375") as images:
        with pytest.raises(DaemonUnreachableError, match="127.0.0.1"):
            await images.ping()


async def test_a_socket_has_no_proxy(
    daemon: ScriptedDaemon, images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    await images.ping()
    assert daemon.pings == 1

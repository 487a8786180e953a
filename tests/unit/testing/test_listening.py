"""A test's servers leave no connection open, however far it had come when they stopped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from aiohttp import web

from aiodocker_images.testing import FakeRegistry
from aiodocker_images.testing._listening import Listener, streams, tcp_listener, unix_listener
from tests.conftest import Leftovers
from tests.support.fault_proxy import FaultProxy
from tests.support.replay import Replay
from tests.support.scripted import ScriptedDaemon
from tests.support.web_server import WebServer

TURNS = 8
"""After so many turns of its loop, a server has a task for a connection that came before them."""

BEGUN = b"GET / HT"


def server_of(kind: str, directory: Path) -> AbstractAsyncContextManager[object]:
    """Make a server that listens at `directory`/server, or at the port that `port_of` returns."""
    match kind:
        case "scripted daemon":
            return ScriptedDaemon(directory / "server")
        case "fault proxy":
            return FaultProxy(directory, directory / "nobody")
        case "replay":
            return Replay(directory, b"")
        case "aiohttp":
            return WebServer(web.Application(), unix_listener(directory / "server"))
        case "registry":
            return FakeRegistry()
        case _:
            return FakeRegistry(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def connect(server: object, directory: Path) -> socket.socket:
    """Connect, which the kernel does without the server's help."""
    if isinstance(server, FakeRegistry):
        host, _, port = server.host.partition(":")
        return socket.create_connection((host, int(port)))
    client = socket.socket(socket.AF_UNIX)
    at = server.socket if isinstance(server, ScriptedDaemon | FaultProxy | Replay) else directory / "server"
    client.connect(str(at))
    return client


@pytest.mark.parametrize("sent", [b"", BEGUN], ids=["silent", "begun"])
@pytest.mark.parametrize("turns", range(TURNS))
@pytest.mark.parametrize("kind", ["scripted daemon", "fault proxy", "replay", "aiohttp", "registry", "TLS registry"])
async def test_a_connection_is_closed_by_a_server_that_stops(
    kind: str, turns: int, sent: bytes, short_path: Path, leftovers: Leftovers
) -> None:
    before = leftovers.now(collect=False)
    async with server_of(kind, short_path) as server:
        client = connect(server, short_path)
        client.send(sent)
        for _ in range(turns):
            await asyncio.sleep(0)
    # The client's end, and nothing of the server's, not even what the garbage collector would close.
    now = leftovers.now(collect=False)
    assert all(here <= there for here, there in zip(now, (before[0] + 1, *before[1:]), strict=True))
    with client:
        client.settimeout(30)
        with contextlib.suppress(ConnectionResetError):  # what it sent was not read
            assert client.recv(1) == b""


async def test_idle_waits_for_connections_that_have_yet_to_be_accepted(daemon: ScriptedDaemon) -> None:
    with connect(daemon, daemon.socket.parent) as client:
        idle = asyncio.create_task(daemon.idle())
        while not daemon.connections:
            await asyncio.sleep(0)
        assert not idle.done()
        client.close()
        await idle
    assert not daemon.connections


async def test_a_failure_in_a_handler_is_reported_to_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(connection: socket.socket) -> None:
        async with streams(connection, limit=1 << 16):
            raise AssertionError("the request is wrong")

    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    listener, listening = Listener(fail), tcp_listener()
    listener.listen(listening)
    with socket.create_connection(listening.getsockname()):
        await listener.idle()
    await listener.stop()
    assert [str(each["exception"]) for each in reports] == ["the request is wrong"]


async def test_a_socket_that_another_server_left_is_replaced(short_path: Path) -> None:
    unix_listener(short_path / "server").close()
    with unix_listener(short_path / "server"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short_path / "server"))


async def test_a_file_is_not_replaced_by_a_socket(short_path: Path) -> None:
    (short_path / "server").touch()
    with pytest.raises(OSError, match="in use"):
        unix_listener(short_path / "server")

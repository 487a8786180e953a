"""A service that is used or closed outside of its event loop, its thread or its process, or that nobody closes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aiodocker_images import DaemonUnreachableError, ImageService, ServiceClosedError, StreamInterruptedError
from aiodocker_images._http import ownership
from aiodocker_images.testing._listening import listening, tcp_listener
from tests.support.scripted import Exchange, ScriptedDaemon

INSPECT = "/images/a/json"
HANG = "/images/b/json"


async def answer(exchange: Exchange) -> None:
    await exchange.answer_json({"Id": "sha256:" + "a" * 64})


async def never(exchange: Exchange) -> None:
    await exchange.client_gone()


class Thread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - of any coroutine
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


@pytest.fixture
def other() -> Generator[Thread, None, None]:
    thread = Thread()
    yield thread
    if not thread.loop.is_closed():
        thread.stop()


@pytest.fixture
def served(short_path: Path) -> Generator[ScriptedDaemon, None, None]:
    """A scripted daemon in a thread of its own, for tests that have several loops, or none."""
    thread = Thread()
    daemon = ScriptedDaemon(short_path / "docker.sock")
    daemon.on("GET", INSPECT, answer)
    daemon.on("GET", HANG, never)
    thread.run(daemon.__aenter__())
    yield daemon
    thread.run(daemon.__aexit__(None, None, None))
    thread.stop()


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one syscall


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.01)


def test_a_call_from_another_thread_is_refused_during_negotiation(served: ScriptedDaemon, other: Thread) -> None:
    served.on("HEAD", "/_ping", never)

    async def both() -> None:
        async with ImageService(served.socket) as images:
            first = asyncio.create_task(images.inspect("a"))
            while not served.pings:
                await asyncio.sleep(0.01)
            second = asyncio.run_coroutine_threadsafe(images.inspect("a"), other.loop)
            with pytest.raises(ServiceClosedError, match="another event loop"):
                await asyncio.wrap_future(second)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first

    asyncio.run(both())


def test_a_stream_that_waits_for_a_place_is_refused_in_another_thread(served: ScriptedDaemon, other: Thread) -> None:
    async def both() -> None:
        async with ImageService(served.socket, max_connections=1) as images:
            await images.ping()

            async def pull() -> None:
                await images.pull("a")

            with pytest.raises(ServiceClosedError, match="another event loop"):
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pull(), other.loop))

    asyncio.run(both())


def test_a_service_whose_loop_is_closed_can_be_closed_from_another_loop(served: ScriptedDaemon) -> None:
    before = descriptors()
    images = ImageService(served.socket)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(images.inspect("a"))
    loop.close()
    asyncio.run(images.aclose())
    until(lambda: descriptors() == before)  # the daemon's end of a connection is closed a moment later
    until(lambda: not served.connections)


def test_closing_a_service_of_a_closed_loop_hides_no_exception(served: ScriptedDaemon) -> None:
    before = descriptors()
    images = ImageService(served.socket)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(images.inspect("a"))
    loop.close()

    async def again() -> None:
        async with images:
            await images.inspect("a")

    with pytest.raises(ServiceClosedError, match="another event loop"):
        asyncio.run(again())
    until(lambda: descriptors() == before)  # the daemon's end of a connection is closed a moment later


def test_a_service_whose_loop_is_stopped_can_be_closed_from_another_loop(served: ScriptedDaemon) -> None:
    before = descriptors()
    images = ImageService(served.socket)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(images.inspect("a"))
    asyncio.run(images.aclose())
    loop.close()
    until(lambda: descriptors() == before)  # the daemon's end of a connection is closed a moment later


def test_to_close_a_service_ends_its_calls_in_another_thread(served: ScriptedDaemon, other: Thread) -> None:
    images = ImageService(served.socket)

    async def call() -> None:
        await images.inspect("b")

    under_way = asyncio.run_coroutine_threadsafe(call(), other.loop)
    until(lambda: under_way.done() or any(each.path == HANG for each in served.requests))
    assert not under_way.done()
    asyncio.run(images.aclose())
    with pytest.raises(StreamInterruptedError):
        under_way.result(10)
    until(lambda: not served.connections)


FORK = """
import asyncio, os, sys
from aiodocker_images import ImageService, ServiceClosedError

async def main():
    images = ImageService(sys.argv[1])
    await images.inspect("a")
    child = os.fork()
    if child == 0:
        asyncio._set_running_loop(None)

        async def in_child():
            try:
                await images.inspect("a")
            except ServiceClosedError as error:
                assert "fork" in str(error), error
                await images.aclose()
                return
            raise AssertionError("the child used its parent's service")

        asyncio.set_event_loop(asyncio.new_event_loop())
        asyncio.get_event_loop().run_until_complete(in_child())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(3):  # on the connection that the parent has kept
        await images.inspect("a")
    await images.aclose()

asyncio.run(main())
print("ended")
"""


def test_closing_a_service_after_a_fork_leaves_the_parents_alone(served: ScriptedDaemon) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(served.socket)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("ended\n", "")
    assert sum(each.path == "/_ping" for each in served.requests) == 1


def test_a_service_that_nobody_closes_warns_and_closes_its_connections(
    served: ScriptedDaemon,
) -> None:
    before = descriptors()

    async def forget() -> None:
        images = ImageService(served.socket)
        await images.inspect("a")
        del images
        gc.collect()
        await asyncio.sleep(0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
        gc.collect()
    assert [str(each.message) for each in caught] == [
        f"ImageService('unix://{served.socket}') was never closed: use it with `async with`, or await aclose()"
    ]
    until(lambda: descriptors() == before)  # the daemon's end of a connection is closed a moment later


async def test_what_a_paused_daemon_says_to_the_ping_is_in_the_error(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    async def paused(exchange: Exchange) -> None:
        await exchange.answer_json({"message": "Docker Desktop is manually paused. Unpause it."}, 503)

    daemon.on("HEAD", "/_ping", paused)
    daemon.on("GET", "/_ping", paused)
    with pytest.raises(DaemonUnreachableError, match="status 503: Docker Desktop is manually paused"):
        await images.inspect("a")


async def test_the_words_of_a_proxy_that_refuses_the_ping_are_in_the_error(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    async def refuses(exchange: Exchange) -> None:
        page = b"<html><head><title>403</title></head><body>Not from here, says the proxy</body></html>"
        await exchange.answer(page, 403, {"Content-Type": "text/html"})

    daemon.on("HEAD", "/_ping", refuses)
    daemon.on("GET", "/_ping", refuses)
    with pytest.raises(DaemonUnreachableError, match=r"status 403: .*Not from here, says the proxy"):
        await images.ping()


async def test_a_peer_that_hangs_up_on_the_ping_is_unreachable(daemon: ScriptedDaemon, images: ImageService) -> None:
    async def hang_up(exchange: Exchange) -> None:
        exchange.cut()

    daemon.on("HEAD", "/_ping", hang_up)
    with pytest.raises(DaemonUnreachableError, match="ended before it answered"):
        await images.ping()
    with pytest.raises(DaemonUnreachableError):
        await images.pull("a")


async def test_a_peer_that_hangs_up_on_tls_is_told_in_words(short_path: Path) -> None:
    async def hang_up(connection: socket.socket) -> None:
        connection.close()

    listener = tcp_listener()
    port = listener.getsockname()[1]
    async with listening(hang_up, listener), ImageService(f"https://127.0.0.1:{port}") as images:
        with pytest.raises(DaemonUnreachableError) as caught:
            await images.ping()
    assert "[None]" not in str(caught.value)
    assert "ssl:default" not in str(caught.value)


async def test_kept_connections_that_are_all_dead_fail_no_request(daemon: ScriptedDaemon, images: ImageService) -> None:
    """As after a firewall has forgotten them: each looks open, and breaks at the next request."""
    daemon.on("GET", INSPECT, answer)
    together = asyncio.Barrier(5)

    async def together_answer(exchange: Exchange) -> None:
        await together.wait()
        await answer(exchange)

    daemon.on("GET", "/images/b/json", together_answer)
    await asyncio.gather(*(images.inspect("b") for _ in range(5)))  # five connections are kept
    dead = {id(each.writer) for each in daemon.requests}

    async def answer_on_new_ones(exchange: Exchange) -> None:
        if id(exchange.writer) in dead:
            exchange.cut()
        else:
            await answer(exchange)

    daemon.on("GET", INSPECT, answer_on_new_ones)
    for _ in range(3):
        await images.inspect("a")


async def test_aiohttp_and_asyncio_have_what_connections_are_closed_by() -> None:
    connector = aiohttp.UnixConnector("/nowhere")
    assert ownership.unknown_parts(connector) == [], (
        f"aiohttp {aiohttp.__version__} or Python {sys.version} changed what _http/ownership.py uses: connections of a"
        " service whose loop is over stay open now. Adapt it, and ownership.USED."
    )
    await connector.close()


def test_without_those_parts_a_service_is_closed_and_one_warning_says_what_stays_open(
    served: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(ownership.USED, "connector", ("_gone",))
    for _ in range(2):
        images = ImageService(served.socket)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(images.inspect("a"))
        loop.close()
        asyncio.run(images.aclose())
        with pytest.raises(ServiceClosedError):
            asyncio.run(images.inspect("a"))
    (warning,) = [each.getMessage() for each in caplog.records if each.name == "aiodocker_images"]
    assert "have no UnixConnector._gone" in warning

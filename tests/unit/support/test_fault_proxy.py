"""The fault-injecting proxy does what it says, at the byte that it is told, and without a fault nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.conftest import Leftovers
from tests.support.fault_proxy import DIRECTIONS, KINDS, Direction, Fault, FaultProxy, Kind
from tests.support.scripted import Exchange, ScriptedDaemon

REQUEST = b"POST /v1.51/images/load?quiet=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + bytes(range(250)) * 4
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(range(250, 0, -1)) * 4
PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"


class Recorder:
    """A daemon's handler that keeps what arrived of the request after the head, and sends the answer at its end."""

    def __init__(self) -> None:
        self.arrived = b""
        self.over = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        try:
            while len(self.arrived) < 1000 and (data := await exchange.reader.read(100)):
                self.arrived += data
            if len(self.arrived) >= 1000:
                await exchange.send(ANSWER)
                await exchange.client_gone()
        finally:
            exchange.keep_alive = False
            self.over.set()


@pytest.fixture
async def proxy(daemon: ScriptedDaemon, short_path: Path) -> AsyncGenerator[FaultProxy, None]:
    async with FaultProxy(short_path, daemon.socket) as proxy:
        yield proxy


@pytest.fixture
def recorder(daemon: ScriptedDaemon) -> Recorder:
    recorder = Recorder()
    daemon.on("POST", "/images/load", recorder)
    return recorder


async def talk(proxy: FaultProxy, *, tcp: bool = False, until: int | None = None) -> tuple[bytes, str]:
    """Send the request; return what came back, and how it ended: "end", "reset", or "silence" if nothing more came."""
    if tcp:
        host, port = proxy.tcp.removeprefix("tcp://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    else:
        reader, writer = await asyncio.open_unix_connection(proxy.socket)
    got = b""
    try:
        writer.write(REQUEST)
        async with asyncio.timeout(0.4):
            while data := await reader.read(1000):
                got += data
                if len(got) == until:
                    return got, "whole"
    except TimeoutError:
        return got, "silence"
    except ConnectionError:
        return got, "reset"
    else:
        return got, "end"
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_without_a_fault_everything_passes_and_is_taped(proxy: FaultProxy, recorder: Recorder) -> None:
    assert await talk(proxy, until=len(ANSWER)) == (ANSWER, "whole")
    await proxy.idle()
    (tape,) = proxy.tapes
    assert (tape.method, tape.path) == ("POST", "/images/load")
    assert (bytes(tape.request), bytes(tape.answer)) == (REQUEST, ANSWER)
    assert not proxy.injected


@pytest.mark.parametrize("offset", [0, 1, 60, len(ANSWER) - 1])
@pytest.mark.parametrize("kind", ["cut", "half-close", "reset", "stall"])
async def test_what_ends_an_answer_ends_it_after_that_byte(
    proxy: FaultProxy, recorder: Recorder, kind: Kind, offset: int
) -> None:
    proxy.fault = Fault(kind=kind, direction="answer", offset=offset)
    got, end = await talk(proxy, tcp=kind == "reset")
    assert got == ANSWER[:offset]
    assert end == {"reset": "reset", "stall": "silence"}.get(kind, "end")
    await proxy.idle()
    await recorder.over.wait()
    assert proxy.injected == {(kind, "answer"): 1}


@pytest.mark.parametrize("offset", [100, len(REQUEST) - 1])
@pytest.mark.parametrize("kind", ["cut", "half-close", "reset", "stall"])
async def test_what_ends_a_request_ends_it_after_that_byte(
    proxy: FaultProxy, recorder: Recorder, kind: Kind, offset: int
) -> None:
    proxy.fault = Fault(kind=kind, direction="request", offset=offset)
    got, _ = await talk(proxy, tcp=kind == "reset")
    assert got == b""
    await proxy.idle()
    await recorder.over.wait()
    assert recorder.arrived == REQUEST[-1000:][: offset - (len(REQUEST) - 1000)]
    assert proxy.injected == {(kind, "request"): 1}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", ["trickle", "delay"])
async def test_what_only_takes_time_changes_nothing(
    proxy: FaultProxy, recorder: Recorder, kind: Kind, direction: Direction
) -> None:
    proxy.fault = Fault(kind=kind, direction=direction, offset=90)
    assert await talk(proxy, until=len(ANSWER)) == (ANSWER, "whole")
    assert recorder.arrived == REQUEST[-1000:]
    assert proxy.injected == {(kind, direction): 1}


async def test_duplicate_and_corrupt_change_just_these_bytes(proxy: FaultProxy, recorder: Recorder) -> None:
    proxy.fault = Fault(kind="duplicate", direction="answer", offset=50, length=7)
    got, _ = await talk(proxy, until=len(ANSWER) + 7)
    assert got == ANSWER[:57] + ANSWER[50:57] + ANSWER[57:]
    recorder.arrived = b""
    proxy.fault = Fault(kind="corrupt", direction="request", offset=len(REQUEST) - 10, flip=0x81)
    await talk(proxy, until=len(ANSWER))
    assert recorder.arrived == REQUEST[-1000:-10] + bytes([REQUEST[-10] ^ 0x81]) + REQUEST[-9:]


async def test_a_ping_meets_no_fault(proxy: FaultProxy, daemon: ScriptedDaemon) -> None:
    proxy.fault = Fault(kind="cut", direction="answer", offset=0)
    reader, writer = await asyncio.open_unix_connection(proxy.socket)
    writer.write(PING)
    assert (await reader.readuntil(b"OK")).startswith(b"HTTP/1.1 200")
    writer.close()
    assert not proxy.injected
    assert not proxy.tapes


async def test_a_client_that_leaves_is_passed_on_and_an_engine_that_is_gone_too(
    proxy: FaultProxy, recorder: Recorder, daemon: ScriptedDaemon, leftovers: Leftovers
) -> None:
    """Whichever side goes, nothing of the pair is left."""
    await talk(proxy, until=1)
    await talk(proxy, until=len(ANSWER))
    await proxy.idle()
    await daemon.idle()
    before = leftovers.now()
    for _ in range(20):
        await talk(proxy, until=len(ANSWER))
    await proxy.idle()
    await daemon.idle()
    await leftovers.settle(before)

    async def hang_up(exchange: Exchange) -> None:
        exchange.cut()

    daemon.on("POST", "/images/load", hang_up)
    assert (await talk(proxy))[1] != "silence"
    await proxy.idle()
    await leftovers.settle(before)


def test_a_seed_makes_the_same_faults_again() -> None:
    def faults(seed: int) -> list[Fault]:
        source = random.Random(seed)
        return [Fault.random(source, kind, direction, 500, start=9) for kind in KINDS for direction in DIRECTIONS]

    assert faults(5) == faults(5) != faults(6)
    assert all(9 <= fault.offset < 500 for seed in range(50) for fault in faults(seed))

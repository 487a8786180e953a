"""Each operation under every fault, at every byte of what real Engines answered: a whole result or our exception."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

import engines
from aiodocker_images import ImageService

from .conftest import Leftovers
from .faultproxy import KINDS, LYING, Fault, FaultProxy, Kind
from .replay import recording
from .scripted import Exchange, ScriptedDaemon
from .sweep import BODY, IDLE, OPERATIONS, Call, complaint, outcome_of, sweep
from .tally import INJECTED

SAMPLE: Final = 16
"""Faults of each kind but cuts that each recording meets here; `make torture` has them at every byte, too."""

ARCHIVE_STEP: Final = 16
"""In the long archives, cuts are so many bytes apart here, but for one Engine's; `make torture` has others."""

EDGE: Final = 2048
"""Bytes at both ends of an archive's answer that are all cut: heads, the first chunks, and the last."""

all_operations = pytest.mark.parametrize("operation", OPERATIONS)


@pytest.mark.parametrize("engine", engines.ENGINES)
@all_operations
async def test_an_answer_cut_after_any_byte_is_an_interruption(
    short_path: Path, leftovers: Leftovers, operation: str, engine: str
) -> None:
    """Cut after every single byte but the last, it never looks like a success, nor like somebody else's error."""
    before = leftovers.now()
    wire = recording(engine, operation)
    faults = (
        Fault(kind="cut", direction="answer", offset=offset)
        for offset in range(len(wire))
        if operation != "save"
        or engine == "docker28c"
        or not EDGE <= offset < len(wire) - EDGE
        or offset % ARCHIVE_STEP == 0
    )
    assert await sweep(engine, operation, wire, faults, short_path) == []
    await leftovers.settle(before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cut"])
@all_operations
async def test_an_answer_under_a_fault_is_whole_or_our_exception(
    short_path: Path, leftovers: Leftovers, operation: str, kind: Kind
) -> None:
    """Whatever loses nothing must succeed, whatever ends the answer must not; of a lie, either is right."""
    before = leftovers.now()
    sweeps: list[Awaitable[list[str]]] = []
    for engine in engines.ENGINES:
        wire = recording(engine, operation)
        faults = some_faults(random.Random(f"{engine} {operation} {kind}"), kind, len(wire))
        sweeps.append(sweep(engine, operation, wire, faults, short_path / engine, workers=3))
    assert [wrong for complaints in await asyncio.gather(*sweeps) for wrong in complaints] == []
    await leftovers.settle(before)


def some_faults(source: random.Random, kind: Kind, size: int) -> Iterator[Fault]:
    for _ in range(SAMPLE):
        yield Fault.random(source, kind, "answer", size)


async def take_the_body(exchange: Exchange) -> None:
    """Answer only what came whole, as a daemon does that unpacks what it gets."""
    assert await exchange.body() == BODY
    await exchange.answer(b'{"stream":"Loaded image: alpine:3.20\\n"}')


async def in_pieces() -> AsyncGenerator[bytes, None]:
    for start in range(0, len(BODY), 4000):
        yield BODY[start : start + 4000]


UPLOADS: Final[dict[str, Call]] = {
    "a known size": lambda images: images.load(BODY),
    "chunks": lambda images: images.load(in_pieces()),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LYING])
@pytest.mark.parametrize("upload", UPLOADS.values(), ids=UPLOADS)
async def test_a_request_under_a_fault_is_whole_or_our_exception(
    daemon: ScriptedDaemon, short_path: Path, leftovers: Leftovers, upload: Call, kind: Kind
) -> None:
    """At the bytes where something begins or ends, and at some between: heads, chunk frames, the body's last byte."""
    daemon.on("POST", "/images/load", take_the_body)
    async with (
        FaultProxy(short_path, daemon.socket) as proxy,
        ImageService(proxy.endpoint(kind), idle_timeout=IDLE if kind in {"stall", "half-close"} else None) as images,
    ):
        expected = await upload(images)
        before = leftovers.now()
        tape = proxy.tapes[0]
        source = random.Random(kind)
        borders = [0, 1, *(found.end() + step for found in re.finditer(b"\r\n", tape.request) for step in (-1, 0))]
        borders += [source.randrange(len(tape.request)) for _ in range(SAMPLE)]
        offsets = sorted({offset for offset in borders if offset < len(tape.request)})
        if kind in {"stall", "delay"}:  # which take their time
            offsets = source.sample(offsets, SAMPLE // 2)
        for offset in offsets:
            proxy.fault = fault = Fault(kind=kind, direction="request", offset=offset)
            outcome = await outcome_of(upload(images))
            # A daemon that is told half a request and then the end hangs up.
            judged = replace(fault, kind="cut") if kind == "half-close" else fault
            assert complaint(judged, expected, outcome) is None
            await proxy.idle()
        proxy.fault = None
        assert await upload(images) == expected
        await leftovers.settle(before)
        for (injected, _), count in proxy.injected.items():
            INJECTED["scripted", "load", injected] += count

"""Run one operation under many faults against a recording, and tell what was neither a whole result nor ours."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from aiodocker_images import DockerError, ImageService, StreamInterruptedError, StreamStalledError
from tests.conftest import Leftovers

from .fault_proxy import HARMLESS, LYING, Fault, Kind
from .replay import Replay
from .tally import INJECTED
from .tars import tar_of

Call = Callable[[ImageService], Awaitable[object]]

BODY: Final = tar_of({"Dockerfile": "FROM scratch\n", "data": b"0123456789"})
IDLE: Final = 0.2
"""Seconds that a stall may last."""

HANG: Final = 60.0
"""Seconds after which a call has hung, for good."""

AT_ONCE: Final = 8

STRIDE: Final = 31
EDGE: Final = 40
"""A sample has every byte so near to the beginning and the end, and each of so many between."""

OPERATIONS: Final = ("pull", "push", "load", "save", "import", "build", "events")


def call_of(operation: str, wire: bytes) -> Call:
    """Return what runs the operation so that the recording `wire` answers it."""

    async def save(images: ImageService) -> object:
        return b"".join([chunk async for chunk in images.save_stream("alpine:3.20")])

    async def events(images: ImageService) -> object:
        return [event async for event in images.events(since=1, until=until, reconnect=False)]

    # The end of the events that were recorded: the daemon's time, which it tells in whole seconds.
    date = re.search(rb"\r\nDate: (.*)\r\n", wire)
    until = parsedate_to_datetime(date[1].decode()).timestamp() + 1 if date else 1
    calls: dict[str, Call] = {
        "pull": lambda images: images.pull("alpine:3.20"),
        "push": lambda images: images.push("alpine:3.20"),
        "load": lambda images: images.load(BODY),
        "save": save,
        "import": lambda images: images.import_image(BODY),
        "build": lambda images: images.build(BODY),
        "events": events,
    }
    return calls[operation]


def sampled(offsets: Sequence[int]) -> list[int]:
    """Return some of the offsets: those near both ends, and some between."""
    return sorted({*offsets[:EDGE], *offsets[EDGE:-EDGE:STRIDE], *offsets[-EDGE:]})


def complaint(fault: Fault, expected: object, outcome: object) -> str | None:
    """Say what is wrong with the outcome of a call, a result or an exception, that met the fault; None: nothing."""
    match fault.kind:
        case kind if kind in HARMLESS:
            right = outcome == expected
        case kind if kind in LYING:
            right = isinstance(outcome, DockerError | type(expected))
        case "stall":
            right = isinstance(outcome, StreamStalledError)
        case _:
            right = isinstance(outcome, StreamInterruptedError)
    return None if right else f"{fault}: {outcome!r}"


async def sweep(
    engine: str, operation: str, wire: bytes, faults: Iterable[Fault], directory: Path, *, at_once: int = AT_ONCE
) -> list[str]:
    """Run the operation under each fault, then without; return the complaints.

    So many at a time, and each time nothing may be left of them.
    """
    call = call_of(operation, wire)
    complaints: list[str] = []
    expected: object = None
    services: dict[tuple[str, float | None], ImageService] = {}

    async def meet(replay: Replay, fault: Fault, images: ImageService) -> None:
        replay.fault = fault
        outcome = await outcome_of(call(images))
        replay.fault = None
        INJECTED[f"replay of {engine}", operation, fault.kind] += 1
        if (wrong := complaint(fault, expected, outcome)) is not None:
            complaints.append(f"{operation} of {engine}: {wrong}")
        if (afterwards := await outcome_of(call(images))) != expected:
            complaints.append(f"{operation} of {engine}, after {fault}: {afterwards!r}")

    async with contextlib.AsyncExitStack() as stack:
        replays: list[Replay] = []
        for number in range(at_once):
            place = directory / str(number)
            place.mkdir(parents=True, exist_ok=True)
            replays.append(await stack.enter_async_context(Replay(place, wire)))

        async def service(replay: Replay, kind: Kind) -> ImageService:
            # A lie about a length can leave both sides waiting for each other.
            idle = IDLE if kind == "stall" or kind in LYING else None
            endpoint = replay.tcp if kind == "reset" else str(replay.socket)
            if (endpoint, idle) not in services:
                images = await stack.enter_async_context(ImageService(endpoint, idle_timeout=idle))
                nonlocal expected
                expected = await call(images)
                services[endpoint, idle] = images
            return services[endpoint, idle]

        left = iter(faults)
        while batch := tuple(itertools.islice(left, at_once)):
            meetings = [
                (replay, fault, await service(replay, fault.kind))
                for replay, fault in zip(replays, batch, strict=False)
            ]
            async with leaving_nothing(directory, complaints, f"{operation} of {engine}, {batch}"):
                await asyncio.gather(*(meet(*meeting) for meeting in meetings))
    return complaints


@contextlib.asynccontextmanager
async def leaving_nothing(directory: Path, complaints: list[str], what: str) -> AsyncGenerator[None, None]:
    """Complain of what is done here if it leaves a descriptor, a task, a thread, a process or a file."""

    def open_now() -> tuple[int, ...]:
        # Not first collecting what only a cycle holds: nothing is left to that, and it takes longer than a fault.
        return *Leftovers.now(collect=False), sum(1 for _ in directory.rglob("*"))

    for _ in range(10):  # what was done before has ended, and some of it is being closed
        await asyncio.sleep(0)
    before = open_now()
    yield
    try:
        async with asyncio.timeout(HANG):
            while any(now > then for now, then in zip(open_now(), before, strict=True)):
                await asyncio.sleep(0)
    except TimeoutError:
        complaints.append(f"{what}: {open_now()} are left, and before were {before}")


async def outcome_of(call: Awaitable[object]) -> object:
    try:
        async with asyncio.timeout(HANG):
            return await call
    except Exception as error:  # noqa: BLE001 - judged by `complaint`
        return error

"""Run one operation under many faults against a recording, and tell what was neither a whole result nor ours."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from aiodocker_images import DockerError, ImageService, StreamInterruptedError, StreamStalledError

from .faultproxy import HARMLESS, LYING, Fault, Kind
from .replay import Replay
from .tally import INJECTED
from .tars import tar_of

Call = Callable[[ImageService], Awaitable[object]]

BODY: Final = tar_of({"Dockerfile": "FROM scratch\n", "data": b"0123456789"})
IDLE: Final = 0.2
"""Seconds that a stall may last."""

HANG: Final = 60.0
"""Seconds after which a call has hung, for good."""

WORKERS: Final = 8

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
    engine: str, operation: str, wire: bytes, faults: Iterable[Fault], directory: Path, *, workers: int = WORKERS
) -> list[str]:
    """Run the operation once under each fault, `workers` of them at a time; return the complaints."""
    call = call_of(operation, wire)
    complaints: list[str] = []
    left = iter(faults)

    async def work(number: int) -> None:
        place = directory / str(number)
        place.mkdir(parents=True, exist_ok=True)
        async with Replay(place, wire) as replay, contextlib.AsyncExitStack() as stack:
            services: dict[tuple[str, float | None], ImageService] = {}

            async def service(kind: Kind | None) -> ImageService:
                # A lie about a length can leave both sides waiting for each other.
                idle = IDLE if kind == "stall" or kind in LYING else None
                endpoint = replay.tcp if kind == "reset" else str(replay.socket)
                if (endpoint, idle) not in services:
                    made = await stack.enter_async_context(ImageService(endpoint, idle_timeout=idle))
                    services[endpoint, idle] = made
                return services[endpoint, idle]

            expected = await call(await service(None))
            for fault in left:
                replay.fault = fault
                outcome = await outcome_of(call(await service(fault.kind)))
                INJECTED[f"replay of {engine}", operation, fault.kind] += 1
                if (wrong := complaint(fault, expected, outcome)) is not None:
                    complaints.append(f"{operation} of {engine}: {wrong}")
            replay.fault = None
            # What was broken before does no harm to what comes next.
            afterwards = [await outcome_of(call(images)) for images in services.values()]
            complaints.extend(
                f"{operation} of {engine}, afterwards: {outcome!r}" for outcome in afterwards if outcome != expected
            )
            async with asyncio.timeout(HANG):
                while len(replay.connections) > len(services):  # the one of each that its pings go over is kept
                    await asyncio.sleep(0.002)

    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(work(number))
    return complaints


async def outcome_of(call: Awaitable[object]) -> object:
    try:
        async with asyncio.timeout(HANG):
            return await call
    except Exception as error:  # noqa: BLE001 - judged by `complaint`
        return error

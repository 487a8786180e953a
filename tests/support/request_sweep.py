"""Run one operation while its request meets many faults, in each form that the request can have."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiodocker_images import ImageService

from .answer_sweep import HANG, IDLE, Call, call_of, complaint, leaving_nothing, outcome_of, sampled
from .fault_proxy import LYING, Fault, FaultProxy, Kind
from .tally import INJECTED
from .tars import tar_of

SAMPLE: Final = 16
"""Faults at random bytes, besides those where something begins or ends."""

AT_ONCE: Final = 3

SMALL: Final = tar_of({"Dockerfile": "FROM scratch\n"})[: 4 * 512]
"""A tar without the padding behind its end: short enough to be cut at every byte."""

LARGE: Final = tar_of({"Dockerfile": "FROM scratch\n", "data": bytes(1_200_000)})
"""More than the first piece of a file, a MiB, that goes through the process: the kernel sends the rest."""


async def in_pieces() -> AsyncGenerator[bytes, None]:
    for start in range(0, len(SMALL), 1000):
        yield SMALL[start : start + 1000]


def forms_of(operation: str, directory: Path) -> dict[str, Call]:
    """Return the forms of an operation's request; files that they need are made in the directory."""
    file = directory / "large.tar"
    file.write_bytes(LARGE)
    context = directory / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\n")
    match operation:
        case "load":
            return {
                "known size": lambda images: images.load(SMALL),
                "chunks": lambda images: images.load(in_pieces()),
                "file": lambda images: images.load(file),
            }
        case "import":
            return {
                "known size": lambda images: images.import_image(SMALL),
                "chunks": lambda images: images.import_image(in_pieces()),
                "file": lambda images: images.import_image(file),
            }
        case "build":
            return {
                "known size": lambda images: images.build(SMALL),
                "chunks": lambda images: images.build(in_pieces()),
                "file": lambda images: images.build(file),
                "directory": lambda images: images.build(context),
            }
        case _:
            return {"no body": call_of(operation, b"")}


async def sweep_requests(
    operation: str, form: str, kind: Kind, directory: Path, source: random.Random, *, every_byte: bool
) -> list[str]:
    """Run the operation under each fault, then without, some at a time; return the complaints.

    The daemon that is asked listens at `docker.sock` in the directory.
    """
    call = forms_of(operation, directory)[form]
    complaints: list[str] = []
    idle = IDLE if kind == "stall" or kind in LYING else None
    expected: object = None

    async def meet(proxy: FaultProxy, images: ImageService, fault: Fault) -> None:
        proxy.fault = fault
        outcome = await outcome_of(call(images))
        # A daemon that is told half a request and then the end hangs up.
        judged = replace(fault, kind="cut") if kind == "half-close" else fault
        if (wrong := complaint(judged, expected, outcome)) is not None:
            complaints.append(f"{operation}, {form}: {wrong}")
        async with asyncio.timeout(HANG):
            await proxy.idle()
        proxy.fault = None
        if (afterwards := await outcome_of(call(images))) != expected:
            complaints.append(f"{operation}, {form}, after {fault}: {afterwards!r}")
        proxy.tapes.clear()
        met = proxy.injected.total()
        proxy.injected.clear()
        INJECTED["requests", operation, kind] += met
        if met != 1:  # more: a request was sent again
            complaints.append(f"{operation}, {form}: one call met {fault} {met} times")

    async with contextlib.AsyncExitStack() as stack:
        stations: list[tuple[FaultProxy, ImageService]] = []
        faults: Iterator[Fault] = iter(())
        for number in range(AT_ONCE):
            place = directory / str(number)
            place.mkdir(exist_ok=True)
            proxy = await stack.enter_async_context(FaultProxy(place, directory / "docker.sock"))
            images = await stack.enter_async_context(ImageService(proxy.endpoint(kind), idle_timeout=idle))
            expected = await call(images)
            if not stations:
                faults = iter(_faults(source, kind, bytes(proxy.tapes[0].request), every_byte=every_byte))
            stations.append((proxy, images))
        while batch := tuple(itertools.islice(faults, AT_ONCE)):
            async with leaving_nothing(directory, complaints, f"{operation}, {form}, {batch}"):
                await asyncio.gather(*(meet(*station, fault) for station, fault in zip(stations, batch, strict=False)))
    return complaints


def _faults(source: random.Random, kind: Kind, request: bytes, *, every_byte: bool) -> list[Fault]:
    """Make the faults of a kind that a request meets: where something begins or ends, and at some random bytes.

    Cuts are at every byte, but only of the head where the body is large.
    """
    lines = [found.end() + step for found in re.finditer(b"\r\n", request) for step in (-1, 0)]
    offsets = {0, 1, *lines, len(request) - 1, *(source.randrange(len(request)) for _ in range(SAMPLE))}
    if kind == "cut":
        every = range(len(request) if len(request) < len(LARGE) else request.index(b"\r\n\r\n") + 4)
        offsets.update(every if every_byte else sampled(every))
    chosen = sorted(offset for offset in offsets if offset < len(request))
    if kind in {"stall", "delay"}:  # which take their time
        chosen = source.sample(chosen, SAMPLE // 2)
    made = (Fault.random(source, kind, "request", 1) for _ in chosen)
    return [replace(fault, offset=offset) for fault, offset in zip(made, chosen, strict=True)]

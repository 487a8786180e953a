"""Run one operation while its request meets many faults, in each form that the request can have."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiodocker_images import ImageService

from .faultproxy import LYING, Fault, FaultProxy, Kind
from .sweep import HANG, IDLE, Call, call_of, complaint, outcome_of
from .tally import INJECTED
from .tars import tar_of

SAMPLE: Final = 16
"""Faults at random bytes, besides those where something begins or ends."""

WORKERS: Final = 3

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


async def sweep_requests(operation: str, form: str, kind: Kind, directory: Path, source: random.Random) -> list[str]:
    """Run the operation once under each fault, `WORKERS` of them at a time; return the complaints.

    The daemon that is asked listens at `docker.sock` in the directory.
    """
    call = forms_of(operation, directory)[form]
    complaints: list[str] = []
    left: list[Fault] = []
    chosen = asyncio.Event()

    async def work(number: int) -> None:
        place = directory / str(number)
        place.mkdir(exist_ok=True)
        idle = IDLE if kind == "stall" or kind in LYING else None
        async with (
            FaultProxy(place, directory / "docker.sock") as proxy,
            ImageService(proxy.endpoint(kind), idle_timeout=idle) as images,
        ):
            expected = await call(images)
            if not number:
                left.extend(_faults(source, kind, bytes(proxy.tapes[0].request)))
                chosen.set()
            await chosen.wait()
            met = 0
            while left:
                proxy.fault = fault = left.pop()
                outcome = await outcome_of(call(images))
                # A daemon that is told half a request and then the end hangs up.
                judged = replace(fault, kind="cut") if kind == "half-close" else fault
                if (wrong := complaint(judged, expected, outcome)) is not None:
                    complaints.append(f"{operation}, {form}: {wrong}")
                async with asyncio.timeout(HANG):
                    await proxy.idle()
                proxy.tapes.clear()
                met += 1
            proxy.fault = None
            # What was broken before does no harm to what comes next.
            if (afterwards := await outcome_of(call(images))) != expected:
                complaints.append(f"{operation}, {form}, afterwards: {afterwards!r}")
            if proxy.injected.total() != met:  # more: a request was sent again
                complaints.append(f"{operation}, {form}: {met} calls met {proxy.injected}")
            INJECTED["requests", operation, kind] += proxy.injected.total()

    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(work(number))
    return complaints


def _faults(source: random.Random, kind: Kind, request: bytes) -> list[Fault]:
    """Make the faults of a kind that a request meets: where something begins or ends, and at some random bytes.

    Cuts are at every byte, but only of the head where the body is large.
    """
    lines = [found.end() + step for found in re.finditer(b"\r\n", request) for step in (-1, 0)]
    offsets = {0, 1, *lines, len(request) - 1, *(source.randrange(len(request)) for _ in range(SAMPLE))}
    if kind == "cut":
        offsets.update(range(len(request) if len(request) < len(LARGE) else request.index(b"\r\n\r\n") + 4))
    chosen = sorted(offset for offset in offsets if offset < len(request))
    if kind in {"stall", "delay"}:  # which take their time
        chosen = source.sample(chosen, SAMPLE // 2)
    made = (Fault.random(source, kind, "request", 1) for _ in chosen)
    return [replace(fault, offset=offset) for fault, offset in zip(made, chosen, strict=True)]

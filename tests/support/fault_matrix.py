"""Every operation under every fault on a real Engine, at random bytes from a seed, all operations side by side."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Final

from aiodocker_images import DockerError, ImageService

from .answer_sweep import HANG, outcome_of
from .fault_proxy import DIRECTIONS, HARMLESS, KINDS, LYING, Direction, Fault, FaultProxy
from .streaming_jobs import JOBS, Job
from .tally import INJECTED

SIZE: Final = 200_000
"""Bytes in the images: more than the buffers of a socket."""

IDLE: Final = 1.0
"""Seconds that a stall may last; an Engine that works on a busy machine may take as long, which is no failure."""

_SILENT: Final = LYING | {"stall", "half-close"}
"""Faults that can leave both sides waiting for each other: a lie about a length, too."""


async def run_matrix(
    engine: str, host: str, registry: str, directory: Path, source: random.Random, *, rounds: int = 1
) -> list[str]:
    """Run the matrix; return what was wrong, each with all that it takes to see it again."""
    async with ImageService(host) as service:
        before = await _images(service)
        jobs = [kind(service, registry, _made(directory / kind.name), size=SIZE) for kind in JOBS]
        runs = [
            _run(engine, Path(host.removeprefix("unix://")), job, directory / job.name, source.getrandbits(64), rounds)
            for job in jobs
        ]
        try:
            complaints = [wrong for each in await asyncio.gather(*runs) for wrong in each]
            # All have ended, each with a success.
            names = {name for name in await _names(service) if not any(job.named_before(name) for job in jobs)}
            expected = {name for _, names in before for name in names} | {job.image for job in jobs}
            if names != expected:
                complaints.append(f"{engine}: after all of it there are {names}, not {expected}")
        finally:
            for job in jobs:
                await job.remove()
            for name in await _names(service):
                if any(job.named_before(name) for job in jobs):
                    await service.remove(name)
        after = await _images(service)
        complaints += [f"{engine}: {image} is gone" for image in before - after]
        for identifier, named in after - before:
            if named or not await _is_of_a_job(service, identifier):
                complaints.append(f"{engine}: {identifier} is left, named {named}")
        return complaints


async def _is_of_a_job(service: ImageService, identifier: str) -> bool:
    """Tell, and remove, a whole image without a name that came of a job that was broken off.

    Docker's older builder had not named it yet. And an archive's name goes to what was loaded last, which may be
    what an Engine has made, late, of an archive with a lie in it.
    """
    layers = await service.history(identifier)
    if not any("COPY" in layer.created_by or layer.comment.startswith("Imported from") for layer in layers):
        return False
    await service.remove(identifier)
    return True


async def _names(service: ImageService) -> set[str]:
    return {name for _, names in await _images(service) for name in names}


async def _images(service: ImageService) -> set[tuple[str, tuple[str, ...]]]:
    """Return the identifier and the names of every image that the Engine has, the unnamed ones too."""
    return {(image.id, tuple(sorted(image.repo_tags))) for image in await service.list(all=True)}


async def _run(engine: str, socket: Path, job: Job, directory: Path, seed: int, rounds: int) -> list[str]:
    """Run one operation under each kind of fault in each direction, `rounds` times."""
    source = random.Random(seed)
    complaints: list[str] = []
    await job.set_up()
    async with FaultProxy(directory, socket) as proxy, contextlib.AsyncExitStack() as stack:
        services = {
            kind: await stack.enter_async_context(
                ImageService(proxy.endpoint(kind), idle_timeout=IDLE if kind in _SILENT else None)
            )
            for kind in KINDS
        }
        plain = services["cut"]
        await job.prepare()
        await job.check(await job.run(plain))
        tape = proxy.tapes[0]
        head = tape.request.index(b"\r\n\r\n") + 4
        sizes: dict[Direction, int] = {"request": len(tape.request), "answer": len(tape.answer)}
        for _ in range(rounds):
            for kind in source.sample(KINDS, len(KINDS)):
                for direction in DIRECTIONS:
                    # A lie in the head of what creates an image could create another one.
                    start = head if kind in LYING and direction == "request" and job.creates else 0
                    if start >= sizes[direction]:
                        continue
                    fault = Fault.random(source, kind, direction, sizes[direction], start=start)
                    proxy.fault = None
                    await job.prepare()
                    proxy.fault, before = fault, proxy.injected.total()
                    outcome = await outcome_of(job.run(services[kind]))
                    await _idle(proxy)
                    met = proxy.injected.total() > before
                    INJECTED[engine, job.name, kind] += met
                    wrong = await _judge(job, fault, outcome, met=met)
                    if wrong is not None:
                        complaints.append(f"{engine} {job.name} {fault}: {wrong}")
        proxy.fault = None
        await job.prepare()
        await job.check(await job.run(plain))
    return complaints


async def _idle(proxy: FaultProxy) -> None:
    async with asyncio.timeout(HANG):
        await proxy.idle()


async def _judge(job: Job, fault: Fault, outcome: object, *, met: bool) -> str | None:
    """Say what is wrong with what came of a job under a fault; None for nothing."""
    try:
        await job.check_after()
        if not isinstance(outcome, Exception):
            if fault.kind not in LYING:  # of which any whole result can come
                await job.check(outcome)
            # An Engine can answer in full without having read all, or though the client has ended its side.
            if met and fault.kind not in HARMLESS | LYING and fault.direction == "answer":
                return f"a success: {outcome!r}"
        elif not isinstance(outcome, DockerError):
            return f"not ours: {outcome!r}"
        elif fault.kind in HARMLESS:
            return f"no success: {outcome!r}"
    except (AssertionError, DockerError) as error:
        return f"{outcome!r}, but then {error!r}"
    return None


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory

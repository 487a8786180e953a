"""What is measured with real Engines: save and load in all of them, and pulls from a registry."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import engines
from aiodocker_images import DockerError, ImageService
from engines.process import with_descendants
from tests.support.tars import root_file_system

from .harness import Results, Row, measure
from .job import Job

NAME = "localhost/benchmark:1"
MIB = 1 << 20
SIZE = 128 * MIB
PULLS = 32
LAYER = 4 * MIB
EVERYBODY = ("curl", "docker CLI", "docker-py", "aiodocker", "ours", "ours+uvloop")

Measured = Iterator[tuple[Row, dict[str, Results]]]


def transfers(name: str, cli: str, directory: Path, rounds: int, chosen: Callable[[str], bool]) -> Measured:
    """Measure save and load in one kind of Engine; everybody in one, the docker CLI and us in all."""
    keys = [f"{name}-{what}" for what in ("save", "load")]
    if not any(map(chosen, keys)):
        return
    contestants = EVERYBODY if name == "docker28" else ("docker CLI", "ours")
    amount = SIZE / MIB
    with engines.Engine(name) as engine:
        socket = str(engine.socket)
        archive = str(directory / "image.tar")
        save = Job("save_file", socket, NAME, path=str(directory / "saved.tar"), size=SIZE, program=cli)
        asyncio.run(_make(socket, archive))
        for key in filter(chosen, keys):
            what = key.rpartition("-")[2]
            job = save if what == "save" else save._replace(what="load_file", path=archive)
            row = Row(
                key,
                f"{name}: {what} an image of {amount:.0f} MiB",
                contestants,
                "docker CLI",
                job,
                amount,
                "MiB/s",
            )
            if what == "load":
                asyncio.run(_remove(socket, [NAME]))
            yield (
                row,
                measure(
                    row, rounds, lambda job: asyncio.run(_remove(job.socket, [NAME])) if "load" in job.what else None
                ),
            )


def pulls(rounds: int) -> Measured:
    """Measure many pulls at once of distinct images."""
    with engines.Engine("docker28") as engine, engines.Registry() as registry:
        references = tuple(f"{registry.address}/benchmark/{number}:1" for number in range(PULLS))
        socket = str(engine.socket)
        asyncio.run(_publish(socket, references))
        pids = (engine.pid, registry.pid)
        spent = _cpu_seconds(pids)

        def clean(_: Job) -> Mapping[str, float]:
            nonlocal spent
            daemons = _cpu_seconds(pids) - spent
            asyncio.run(_remove(socket, references))
            spent = _cpu_seconds(pids)
            return {"daemons": daemons}

        row = Row(
            "registry",
            f"docker28: {PULLS} pulls at once of distinct images of {LAYER // MIB} MiB from a local registry",
            ("docker-py", "aiodocker", "ours"),
            "aiodocker",
            Job("pull_all", socket, references=references),
            PULLS,
            "pulls/s",
            rounds=5,
            shown={"daemons": "daemons' CPU {:.2f} s"},
        )
        yield row, measure(row, rounds, clean)


async def _make(socket: str, archive: str) -> None:
    async with ImageService(socket) as images:
        await images.import_image(root_file_system(SIZE), reference=NAME)
        await images.save(NAME, to=archive)


async def _publish(socket: str, references: Iterable[str]) -> None:
    async with ImageService(socket) as images:
        for reference in references:
            await images.import_image(root_file_system(LAYER), reference=reference)
            await images.push(reference)
            await images.remove(reference)


async def _remove(socket: str, references: Iterable[str]) -> None:
    async with ImageService(socket) as images:
        for reference in references:
            with contextlib.suppress(DockerError):
                await images.remove(reference, force=True)


def _cpu_seconds(pids: Iterable[int]) -> float:
    ticks = 0
    for pid in pids:
        for each in with_descendants(pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
                ticks += sum(int(field) for field in fields[11:15])  # its own, and its ended children's
    return ticks / os.sysconf("SC_CLK_TCK")

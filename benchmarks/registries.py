"""Copies between two registries of one machine: this library beside the programs that people use for that."""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import engines
from engines.kinds import crane_program
from engines.packages import program, unpacked
from tests.support.tars import root_file_system

from . import publishing, report
from .harness import CACHE, Results, Row, run
from .job import Job
from .publishing import Blob, Layer, digest_of
from .report import OURS, OURS_RUNNING

AIOREGISTRY = "aioregistry==0.7.3"
MIB = 1 << 20
AT_ONCE = 4
ROUNDS = 5
TAG = "1"
REMEDY = "To measure without it, choose other rows."

FLOOR = "curl to curl"
OURS_PLAINLY = f"{OURS_RUNNING}, aiohttp's reader"
SHOWN = {"requests": "{:.0f} requests", "down": "{:.1f} MiB down", "up": "{:.1f} MiB up"}

ABOUT = f"""\
`make bench ARGS="--rows registries"` writes this section. Two registries (distribution 2.8) on one machine, whose cores
they share with the client, with their data in memory; each run of an empty target has a registry that was just started.
{AT_ONCE} images at once: aioregistry and this library copy all images in one process, the others have a process for
each. "{FLOOR}" pipes each blob once, and checks nothing. "{OURS}" is a whole process, "{OURS_RUNNING}"
is what remains without the start of Python and the imports; with "aiohttp's reader", large blobs are read in the way
that small ones are. Peak memory is that of the largest process, and at least the 21 MiB of the one that starts it.
Requests and bytes are those of a run of its own, by the registries' logs, and by what the target's process read.\
"""


@dataclass(frozen=True)
class Scenario:
    """Images to copy: `count` with a layer of `own` bytes each, and one of `shared` bytes that all have."""

    key: str
    title: str
    count: int
    own: int
    shared: int = 0
    again: bool = False
    floor: bool = False

    @property
    def repositories(self) -> list[str]:
        """The repositories of the images."""
        return [f"benchmark/app{number}" for number in range(self.count)]

    @property
    def row(self) -> Row:
        """The row of the first copies."""
        moved = (self.shared + self.count * self.own) / MIB
        amount, unit = (moved, "MiB/s") if self.floor else (self.count, "images/s")
        key, reference = f"registries-{self.key}", FLOOR if self.floor else "crane"
        return Row(key, self.title, self._contestants(), reference, Job("copy"), amount, unit, shown=SHOWN)

    @property
    def row_again(self) -> Row:
        """The row of the copies after which nothing has changed."""
        who = [each for each in self._contestants() if each not in (FLOOR, OURS_PLAINLY)]
        title = f"{self.title}: all there already"
        return Row(
            f"registries-{self.key}-again", title, who, "crane", Job("copy"), self.count, "images/s", shown=SHOWN
        )

    def _contestants(self) -> list[str]:
        floor, plainly = ([FLOOR], [OURS_PLAINLY]) if self.floor else ([], [])
        return [*floor, *report.COPIERS, OURS, OURS_RUNNING, *plainly]


SCENARIOS = (
    Scenario("blob", "one image of 1 GiB in one layer", 1, 1 << 30, floor=True),
    Scenario(
        "twenty", "20 images of 50 MiB, of which 30 are a shared layer", 20, 20 * MIB, 30 * MIB, again=True, floor=True
    ),
    Scenario("small", "200 images of 80 KiB, of which 64 are a shared layer", 200, 16 << 10, 64 << 10, again=True),
)


def measured(directory: Path, rounds: int, chosen: Callable[[str], bool]) -> Iterator[tuple[Row, dict[str, Results]]]:
    """Measure what is chosen."""
    wanted = [each for each in SCENARIOS if chosen(each.row.key) or (each.again and chosen(each.row_again.key))]
    if not wanted:
        return
    programs = tools()
    for scenario in wanted:
        source_storage, target_storage = directory / "source", directory / "target"
        with (
            engines.Registry(storage=source_storage) as source,
            engines.Registry(storage=target_storage) as target,
        ):
            blobs = asyncio.run(_publish(source.address, scenario))
            bench = _Bench(scenario, programs, source, target, _blob_list(directory, blobs))
            if chosen(scenario.row.key):
                yield scenario.row, bench.measure(scenario.row, min(rounds, ROUNDS))
            if scenario.again and chosen(scenario.row_again.key):
                yield scenario.row_again, bench.measure(scenario.row_again, min(rounds, ROUNDS), again=True)
        for storage in (source_storage, target_storage):
            shutil.rmtree(storage, ignore_errors=True)


def section(measured: report.Measured, rounds: int) -> str:
    """Return the section of RESULTS.md."""
    programs = tools()
    told = [_output([programs[each], "--version"]) for each in ("skopeo 1.9", "skopeo 1.22")]
    # Debian's crane does not know its version.
    told += ["crane of Debian forky", f"oras {_output([programs['oras'], 'version'])}"]
    parts = [
        f"## Registries\n\n{ABOUT}",
        report.targets(measured),
        report.table(measured),
        f"{'; '.join(told)}; {AIOREGISTRY}. {min(rounds, ROUNDS)} rounds, by turns; medians. {report.machine()}",
    ]
    return "\n\n".join(parts)


def tools() -> dict[str, str]:
    """Return the programs of the contestants, fetched at the first need: as Debian has them, and a Python."""
    old, new = (unpacked("skopeo", ("skopeo",), REMEDY, suite=suite, whole=True) for suite in (None, "forky"))
    oras = unpacked("oras", ("oras",), REMEDY, suite="forky", whole=False) / "usr/bin/oras"
    python = CACHE / "aioregistry/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE / "aioregistry"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", AIOREGISTRY], check=True)
    return {
        FLOOR: "",
        "skopeo 1.9": str(program(old, "skopeo")),
        "skopeo 1.22": str(program(new, "skopeo")),
        "crane": str(crane_program()),
        "oras": str(oras),
        "aioregistry": str(python),
        OURS: "",
        OURS_RUNNING: "",
        OURS_PLAINLY: "",
    }


class _Bench:
    """Two registries, and the contestants that copy from one to the other."""

    def __init__(
        self,
        scenario: Scenario,
        programs: dict[str, str],
        source: engines.Registry,
        target: engines.Registry,
        blobs: Path,
    ) -> None:
        self._scenario = scenario
        self._programs = programs
        self._source = source
        self._target = target
        self._blobs = blobs

    def measure(self, row: Row, rounds: int, *, again: bool = False) -> dict[str, Results]:
        """Run all contestants of a row by turns, after a run of each whose requests and bytes are counted."""
        if again:
            self._copy(OURS)
        results = {contestant: Results() for contestant in row.contestants}
        counted: dict[str, dict[str, float]] = {}
        for contestant in row.contestants:
            self._prepare(again=again)
            before = self._count()
            self._copy(contestant)
            counted[contestant] = {what: value - before[what] for what, value in self._count().items()}
        for _ in range(rounds):
            for contestant, kept in results.items():
                self._prepare(again=again)
                kept.runs.append({**self._copy(contestant), **counted[contestant]})
        return results

    def _prepare(self, *, again: bool) -> None:
        if not again:
            self._target.kill()
            shutil.rmtree(self._target.storage, ignore_errors=True)
            self._target.start()

    def _copy(self, contestant: str) -> dict[str, float]:
        ways = {FLOOR: "floor", OURS: "ours", OURS_RUNNING: "ours_running", OURS_PLAINLY: "ours_plainly"}
        job = Job(
            ways.get(contestant) or contestant.partition(" ")[0],
            self._source.address,
            self._target.address,
            references=tuple(f"{each}:{TAG}" for each in self._scenario.repositories),
            path=str(self._blobs),
            concurrency=AT_ONCE,
            program=self._programs[contestant],
        )
        return run("registries", job)

    def _count(self) -> dict[str, float]:
        """Return how many requests both registries were sent since they were started, and how many MiB were moved."""
        asked = [_ACCESS.findall(each.log.read_text(errors="replace")) for each in (self._source, self._target)]
        read = re.search(r"rchar: (\d+)", Path(f"/proc/{self._target.pid}/io").read_text())
        return {
            "requests": sum(map(len, asked)),
            "down": sum(int(size) for method, size in asked[0] if method == "GET") / MIB,
            "up": int(read[1]) / MIB if read else 0.0,
        }


# A line of distribution's access log: the method, the status and the bytes of the answer.
_ACCESS = re.compile(r'"([A-Z]+) /v2/[^" ]* HTTP/1\.1" \d+ (\d+) ')


async def _publish(address: str, scenario: Scenario) -> list[Blob]:
    shared = [_layer(scenario.shared)] if scenario.shared else []
    images = ((each, [*shared, _layer(scenario.own)]) for each in scenario.repositories)
    return await publishing.publish(address, TAG, images)


def _layer(size: int) -> Layer:
    data = root_file_system(size)
    return Layer(gzip.compress(data, 0, mtime=0), digest_of(data))  # it would not become any smaller


def _blob_list(directory: Path, blobs: Sequence[Blob]) -> Path:
    """Write a file of the blobs, each digest once."""
    path = directory / "blobs"
    distinct = {blob.digest: blob for blob in blobs}
    path.write_text("".join(f"{blob.repository} {blob.digest} {blob.size}\n" for blob in distinct.values()))
    return path


def _output(command: list[str]) -> str:
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return text.splitlines()[0].removeprefix("Version:").strip()

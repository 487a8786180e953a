"""Mirroring 20 images between two registries through an Engine: this library and the ways people do it today.

    sudo .venv/bin/python -m benchmarks.mirror [--write] [ROUNDS [IMAGES [MIB]]]

Starts private Engines and registries; skopeo comes from Debian's package and aiodocker has an environment of its own,
both under .cache. Each image has MIB MiB of data that does not compress, three fifths of it in a layer that is in all
of them. Prints Markdown, with `--write` also into RESULTS.md: medians of wall time, of what the registries sent and
received, of the client's CPU time and of how busy the machine was, and the median ratio to a shell loop of the same
turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import engines
from aiodocker_images import ImageService, NotFoundError
from engines.packages import unpacked
from tests.support.tars import root_file_system

from . import publishing, results
from .publishing import Layer, digest_of

AIODOCKER = "aiodocker==0.27.0"
AT_ONCE = 4

OURS = """
import asyncio, sys, time
from aiodocker_images import ImageService, MirrorJob, MirrorSummary, mirror

async def main(host, journal, names, keep=""):
    jobs = [MirrorJob(*line.split()) for line in open(names)]
    started = time.perf_counter()
    async with ImageService(host) as images:
        outcomes = mirror(images, jobs, concurrency=4, journal=journal, keep=bool(keep))
        summary = MirrorSummary.of([outcome async for outcome in outcomes])
    print(time.perf_counter() - started)
    sys.exit(0 if summary.ok else str(summary))

asyncio.run(main(*sys.argv[1:]))
"""

THEIRS = """
import asyncio, sys
import aiodocker

async def main(host, journal, names):
    slots = asyncio.Semaphore(4)
    async with aiodocker.Docker(url=host) as docker:
        async def one(source, target):
            repository, _, tag = target.rpartition(":")
            async with slots:
                await docker.images.pull(source)
                await docker.images.tag(source, repo=repository, tag=tag)
                await docker.images.push(repository, tag=tag)
        await asyncio.gather(*(one(*line.split()) for line in open(names)))

asyncio.run(main(*sys.argv[1:]))
"""

ABOUT = """\
`python -m benchmarks.mirror --write` writes this section. Two registries and an Engine on one machine, whose cores they
share with the client: `cores busy` is how much of them was used by anybody. The aims are 0.6 of the docker CLI's shell
loop with an empty target, never more than its `xargs -P 4`, and 0.3 of skopeo's when all is there already. This library
asks first what is there, and removes in the end what was not; the others do neither, and with `keep=True` it leaves the
images, too. skopeo needs no Engine: it copies blobs as they are, and unpacks and packs nothing.\
"""
ONE_BY_DOCKER = 'docker pull -q "$1" && docker tag "$1" "$2" && docker push -q "$2"'
ONE_BY_SKOPEO = (
    'skopeo --insecure-policy copy -q --src-tls-verify=false --dest-tls-verify=false "docker://$1" "docker://$2"'
)


def loop(one: str) -> str:
    """Make a shell program that does one after the other."""
    return f'while read -r one other; do set -- "$one" "$other"; {one} || exit 1; done < "$NAMES"'


def at_once(one: str) -> str:
    """Make a shell program that does some at once."""
    return f"xargs -P {AT_ONCE} -n 2 sh -c '{one}' sh < \"$NAMES\""


@dataclass
class Figures:
    """What the runs of one way took."""

    seconds: list[float] = field(default_factory=list[float])
    moved: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])
    busy: list[float] = field(default_factory=list[float])  # of all cores' time, the share that was used by anybody
    inside: list[float] = field(default_factory=list[float])  # what the program itself says that it took


@dataclass(frozen=True)
class Setting:
    """What is the same for every way: where things are, and the file of names."""

    host: str
    directory: Path
    environment: dict[str, str]
    theirs: Path

    def command(self, way: str) -> list[str]:
        """Return the command line of one way."""
        arguments = [self.host, str(self.directory / "journal"), str(self.directory / "names")]
        return {
            US: [sys.executable, "-c", OURS, *arguments],
            KEEPING: [sys.executable, "-c", OURS, *arguments, "keep"],
            IMPORTING: [sys.executable, "-c", "import aiohttp"],
            "docker CLI, shell loop": ["sh", "-c", loop(ONE_BY_DOCKER)],
            "docker CLI, xargs -P 4": ["sh", "-c", at_once(ONE_BY_DOCKER)],
            "aiodocker, semaphore": [str(self.theirs), "-c", THEIRS, *arguments],
            "skopeo copy, shell loop": ["sh", "-c", loop(ONE_BY_SKOPEO)],
            "skopeo copy, xargs -P 4": ["sh", "-c", at_once(ONE_BY_SKOPEO)],
        }[way]


US = "this library"
KEEPING = "this library, keep=True"
WAYS = (
    "docker CLI, shell loop",
    US,
    KEEPING,
    "docker CLI, xargs -P 4",
    "aiodocker, semaphore",
    "skopeo copy, shell loop",
    "skopeo copy, xargs -P 4",
)
ASKING = "the Engine's answers to this library's questions, alone"
IMPORTING = "`import aiohttp` in a fresh Python, alone"
AGAIN = (US, "docker CLI, shell loop", "skopeo copy, shell loop", "skopeo copy, xargs -P 4")


async def publish(registry: str, count: int, size: int) -> list[str]:
    """Put images with one layer in common into a registry, and return their names."""

    def layer(data: bytes) -> Layer:
        return Layer(gzip.compress(data, 1, mtime=0), digest_of(data))

    base = layer(root_file_system(size * 3 // 5))
    repositories = [f"benchmark/app{number}" for number in range(count)]
    images = ((each, [base, layer(root_file_system(size * 2 // 5))]) for each in repositories)
    await publishing.publish(registry, "1.0", images)
    return [f"{registry}/{each}:1.0" for each in repositories]


async def empty(host: str) -> None:
    """Remove every image of an Engine."""
    async with ImageService(host) as images:
        for image in await images.list(all=True):
            for name in (*image.repo_tags, image.id):
                with contextlib.suppress(NotFoundError):
                    await images.remove(name, force=True)


def counted(registry: engines.Registry, what: str) -> int:
    """Return how many bytes the registry's process read or wrote ("rchar", "wchar"), sockets and files."""
    lines = (line.split(": ") for line in Path(f"/proc/{registry.pid}/io").read_text().splitlines())
    return int(dict(lines)[what])


def used() -> float:
    """Return the seconds that all cores together have worked since the machine started."""
    user, nice, system, _, _, *interrupts = (int(word) for word in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


async def only_ask(host: str, names: list[str], figures: Figures) -> None:
    """Note how long the Engine takes to say what so many references are, to a client that does nothing else."""
    async with ImageService(host) as images:
        await images.ping()
        before, started = time.process_time(), time.perf_counter()
        used_before = used()
        await asyncio.gather(*map(images.inspect_distribution, names))
        seconds = time.perf_counter() - started
        figures.seconds.append(seconds)
        figures.moved.append(0)
        figures.cpu.append(time.process_time() - before)
        figures.busy.append((used() - used_before) / seconds / (os.cpu_count() or 1))


def timed(setting: Setting, way: str, figures: Figures, moved: Callable[[], int]) -> float:
    """Run one way, note what it took, and return the seconds."""
    before, bytes_before = resource.getrusage(resource.RUSAGE_CHILDREN), moved()
    used_before, started = used(), time.perf_counter()
    run = subprocess.run(
        setting.command(way),
        env=setting.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    busy = (used() - used_before) / seconds / (os.cpu_count() or 1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        sys.exit(f"{way} failed:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    if way in {US, KEEPING}:
        figures.inside.append(float(run.stdout))
    figures.seconds.append(seconds)
    figures.busy.append(busy)
    figures.moved.append((moved() - bytes_before) / (1 << 20))
    figures.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds


def tools() -> tuple[dict[str, str], Path]:
    """Return an environment with docker and skopeo on its PATH, and the Python that has aiodocker."""
    skopeo = unpacked("skopeo", ("skopeo",), "The benchmark needs skopeo.", whole=True)
    cache = Path(__file__).resolve().parents[1] / ".cache"
    theirs = cache / "aiodocker/bin/python"
    if not theirs.exists():
        subprocess.run([sys.executable, "-m", "venv", cache / "aiodocker"], check=True)
        subprocess.run([theirs, "-m", "pip", "install", "--quiet", AIODOCKER], check=True)
    environment = {
        "PATH": f"{engines.docker_cli().parent}:{skopeo / 'usr/bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": str(skopeo / "usr/lib/x86_64-linux-gnu"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "HOME": "/nonexistent",
    }
    return environment, theirs


async def measure(engine_name: str, rounds: int, count: int, size: int) -> str:
    """Let all ways take turns through one Engine, and return the tables."""
    environment, theirs = tools()
    first, second = {way: Figures() for way in WAYS}, {way: Figures() for way in (*AGAIN, ASKING, IMPORTING)}
    with engines.Registry() as source, engines.Engine(engine_name) as engine:
        names = await publish(source.address, count, size)
        for turn in range(rounds):
            for way in WAYS[turn % len(WAYS) :] + WAYS[: turn % len(WAYS)]:
                with tempfile.TemporaryDirectory() as directory, engines.Registry() as target:
                    lines = [f"{name} {name.replace(source.address, target.address)}\n" for name in names]
                    (Path(directory) / "names").write_text("".join(lines))
                    variables = {**environment, "DOCKER_HOST": engine.host, "NAMES": f"{directory}/names"}
                    setting = Setting(engine.host, Path(directory), variables, theirs)

                    def moved(target: engines.Registry = target) -> int:
                        return counted(source, "wchar") + counted(target, "rchar")

                    await empty(engine.host)
                    seconds = timed(setting, way, first[way], moved)
                    again = timed(setting, way, second[way], moved) if way in second else 0.0
                    if way == US:
                        await only_ask(engine.host, " ".join(lines).split(), second[ASKING])
                        timed(setting, IMPORTING, second[IMPORTING], moved)
                    print(f"{engine_name} {turn} {way:26}{seconds:7.2f} s  again {again:6.2f} s", file=sys.stderr)
    return "\n\n".join(
        [
            f"### Through {engine_name}, {count} images of {size >> 20} MiB, medians of {rounds}",
            table("an empty target", first, "docker CLI, shell loop"),
            table("all there already", second, "skopeo copy, shell loop"),
        ]
    )


def table(title: str, figures: dict[str, Figures], base: str) -> str:
    """Return what all ways took, and the ratio to one of them in the same turn."""
    lines = [
        f"| {title} | seconds | / {base} (least to most) | MiB moved | client CPU, s | cores busy |",
        "|---|---|---|---|---|---|",
    ]
    for way, figure in figures.items():
        middle = [statistics.median(each) for each in (figure.seconds, figure.moved, figure.cpu, figure.busy)]
        ratio = spread(figure.seconds, figures[base])
        lines.append(
            f"| {way} | {middle[0]:.2f} | {ratio} | {middle[1]:.0f} | {middle[2]:.2f} | {100 * middle[3]:.0f} % |"
        )
        if figure.inside:
            ratio = spread(figure.inside, figures[base])
            lines.append(
                f"| {way}, without the start of Python | {statistics.median(figure.inside):.2f} | {ratio} | | | |"
            )
    return "\n".join(lines)


def spread(seconds: list[float], base: Figures) -> str:
    """Return the ratio to another way: the median, and the least and the most of all turns."""
    ratios = [one / other for one, other in zip(seconds, base.seconds, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


async def main() -> None:
    """Measure through both image stores."""
    parser = argparse.ArgumentParser(prog="benchmarks.mirror")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    for name, default in (("rounds", 3), ("images", 20), ("mib", 50)):
        parser.add_argument(name, nargs="?", type=int, default=default)
    given = parser.parse_args()
    os.environ.pop("DOCKER_HOST", None)
    tables = [await measure(name, given.rounds, given.images, given.mib << 20) for name in ("docker28", "docker28c")]
    text = "\n\n".join(["## Mirroring", ABOUT, *tables])
    print(text)
    if given.write:
        results.write("mirroring", text)


if __name__ == "__main__":
    asyncio.run(main())

"""Mirroring 20 images between two registries through an Engine: this library and the ways people do it today.

    sudo .venv/bin/python -m benchmarks.mirror [ROUNDS [IMAGES [MIB]]]

Starts private Engines and registries; skopeo comes from Debian's package and aiodocker has an environment of its own,
both under .cache. Each image has MIB MiB of data that does not compress, three fifths in a layer that all share.
Each image has MIB MiB of data that does not compress, three fifths of it in a layer that is in all of them.
Prints a Markdown table: medians of wall time, of what the registries sent and received, and of the client's CPU time,
and the median ratio to the shell loop of the same turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
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

import aiohttp
from yarl import URL

import engines
from aiodocker_images import ImageService, NotFoundError
from engines.packages import unpacked
from tests.tars import root_file_system

AIODOCKER = "aiodocker==0.27.0"
AT_ONCE = 4
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"

OURS = """
import asyncio, sys, time
from aiodocker_images import ImageService, MirrorJob, MirrorSummary, mirror

async def main(host, journal, names):
    jobs = [MirrorJob(*line.split()) for line in open(names)]
    started = time.perf_counter()
    async with ImageService(host) as images:
        summary = MirrorSummary.of([o async for o in mirror(images, jobs, concurrency=4, journal=journal)])
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
            "this library": [sys.executable, "-c", OURS, *arguments],
            "docker CLI, shell loop": ["sh", "-c", loop(ONE_BY_DOCKER)],
            "docker CLI, xargs -P 4": ["sh", "-c", at_once(ONE_BY_DOCKER)],
            "aiodocker, semaphore": [str(self.theirs), "-c", THEIRS, *arguments],
            "skopeo copy, shell loop": ["sh", "-c", loop(ONE_BY_SKOPEO)],
            "skopeo copy, xargs -P 4": ["sh", "-c", at_once(ONE_BY_SKOPEO)],
        }[way]


WAYS = (
    "docker CLI, shell loop",
    "this library",
    "docker CLI, xargs -P 4",
    "aiodocker, semaphore",
    "skopeo copy, shell loop",
    "skopeo copy, xargs -P 4",
)
AGAIN = ("this library", "docker CLI, shell loop", "skopeo copy, shell loop", "skopeo copy, xargs -P 4")


async def publish(registry: str, count: int, size: int) -> list[str]:
    """Put images with one layer in common into a registry, by hand, as another client would have made them."""
    names: list[str] = []
    base = root_file_system(size * 3 // 5)
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        async def put(repository: str, data: bytes, kind: str) -> dict[str, object]:
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            async with session.post(f"http://{registry}/v2/{repository}/blobs/uploads/") as response:
                location = URL(response.headers["Location"])
            headers = {"Content-Type": "application/octet-stream"}
            async with session.put(location.update_query(digest=digest), data=data, headers=headers):
                return {"mediaType": kind, "digest": digest, "size": len(data)}

        packed_base = gzip.compress(base, 1, mtime=0)
        for number in range(count):
            repository = f"benchmark/app{number}"
            own = root_file_system(size * 2 // 5)
            diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in (base, own)]
            config: dict[str, object] = {"architecture": "amd64", "os": "linux", "config": {}}
            config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": await put(repository, json.dumps(config).encode(), CONFIG_TYPE),
                "layers": [
                    await put(repository, packed_base, LAYER_TYPE),
                    await put(repository, gzip.compress(own, 1, mtime=0), LAYER_TYPE),
                ],
            }
            url = f"http://{registry}/v2/{repository}/manifests/1.0"
            async with session.put(url, json=manifest, headers={"Content-Type": MANIFEST_TYPE}):
                names.append(f"{registry}/{repository}:1.0")
    return names


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


def timed(setting: Setting, way: str, figures: Figures, moved: Callable[[], int]) -> float:
    """Run one way, note what it took, and return the seconds."""
    before, bytes_before = resource.getrusage(resource.RUSAGE_CHILDREN), moved()
    started = time.perf_counter()
    run = subprocess.run(
        setting.command(way),
        env=setting.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode:
        sys.exit(f"{way} failed:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    if way == "this library":
        figures.inside.append(float(run.stdout))
    figures.seconds.append(seconds)
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


async def measure(engine_name: str, rounds: int, count: int, size: int) -> None:
    """Let all ways take turns through one Engine, and print the table."""
    environment, theirs = tools()
    first, second = {way: Figures() for way in WAYS}, {way: Figures() for way in AGAIN}
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
                    print(f"{engine_name} {turn} {way:26}{seconds:7.2f} s  again {again:6.2f} s", file=sys.stderr)
    print(f"\n### {engine_name}, {count} images of {size >> 20} MiB, medians of {rounds}\n")
    table("an empty target", first, "docker CLI, shell loop")
    table("all there already", second, "skopeo copy, shell loop")


def table(title: str, figures: dict[str, Figures], base: str) -> None:
    """Print what all ways took, and the ratio to one of them in the same turn."""
    print(f"| {title} | seconds | / {base} (least to most) | MiB moved | client CPU, s |")
    print("|---|---|---|---|---|")
    for way, figure in figures.items():
        ratios = [one / other for one, other in zip(figure.seconds, figures[base].seconds, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        middle = [statistics.median(each) for each in (figure.seconds, figure.moved, figure.cpu)]
        print(f"| {way} | {middle[0]:.2f} | {spread} | {middle[1]:.0f} | {middle[2]:.2f} |")
        if figure.inside:
            ratios = [one / other for one, other in zip(figure.inside, figures[base].seconds, strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {way}, without the start of Python | {statistics.median(figure.inside):.2f} | {spread} | | |")
    print()


async def main(rounds: int, count: int, mib: int) -> None:
    """Measure through both image stores."""
    for name in ("docker28", "docker28c"):
        await measure(name, rounds, count, mib << 20)


if __name__ == "__main__":
    os.environ.pop("DOCKER_HOST", None)
    given = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*given, *(3, 20, 50)[len(given) :]))

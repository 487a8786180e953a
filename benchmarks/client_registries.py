"""Copies from registry to registry: by programs, whose whole life counts, and by the library in a running process.

Of a job, `socket` is the address of the source, `reference` that of the target, `references` are the images without it,
`path` is a file of the blobs, and `program` is what copies.
"""

from __future__ import annotations

import sys
import tempfile

from .client_programs import run_program
from .job import Job, Meter

PIPE = """
location=$(curl -sS --fail -X POST -o /dev/null -D - "http://$TARGET/v2/$1/blobs/uploads/" | tr -d '\\r' |
    sed -n 's/^[Ll]ocation: //p') &&
curl -sS --fail "http://$SOURCE/v2/$1/blobs/$2" |
    curl -sS --fail -o /dev/null -X PUT -T - -H "Content-Length: $3" -H Transfer-Encoding: -H Expect: \\
        -H "Content-Type: application/octet-stream" "$location&digest=$2"
"""

AIOREGISTRY = """
import asyncio, sys
from aioregistry import AsyncRegistryClient, parse_image_name

async def main(source, target, at_once, *names):
    slots = asyncio.Semaphore(int(at_once))
    async with AsyncRegistryClient() as client:
        async def copy(name):
            async with slots:
                await client.copy_refs(*(parse_image_name(f"http://{each}/{name}") for each in (source, target)))
        await asyncio.gather(*map(copy, names))

asyncio.run(main(*sys.argv[1:]))
"""


def floor(job: Job, meter: Meter) -> None:
    """Pipe each blob from one curl to another, and check nothing."""
    environment = [f"SOURCE={job.socket}", f"TARGET={job.reference}"]
    at_once = ["xargs", "-a", job.path, "-P", str(job.concurrency), "-n", "3"]
    run_program(meter, ["/usr/bin/env", *environment, *at_once, "sh", "-c", PIPE, "sh"])


def skopeo(job: Job, meter: Meter) -> None:
    """Copy with skopeo, a process for each image."""
    options = ["--insecure-policy", "copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
    _each(job, meter, options, "docker://")


def crane(job: Job, meter: Meter) -> None:
    """Copy with crane, a process for each image."""
    _each(job, meter, ["copy", "--insecure"])


def oras(job: Job, meter: Meter) -> None:
    """Copy with oras, a process for each image."""
    _each(job, meter, ["cp", "--no-tty", "--from-plain-http", "--to-plain-http"])


def aioregistry(job: Job, meter: Meter) -> None:
    """Copy with aioregistry, all in one process."""
    run_program(meter, [job.program, "-c", AIOREGISTRY, *_arguments(job)])


def ours(job: Job, meter: Meter) -> None:
    """Copy with the library, all in one process."""
    run_program(meter, [sys.executable, "-m", "benchmarks.copy_images", *_arguments(job)])


async def ours_running(job: Job, meter: Meter) -> None:
    """Copy with the library in this process, so that the start of Python and its imports do not count."""
    from .copy_images import copy_images  # noqa: PLC0415 - it would be in the memory of every other contestant

    with meter:
        await copy_images(job.socket, job.reference, job.concurrency, list(job.references))


async def ours_plainly(job: Job, meter: Meter) -> None:
    """Copy so, with aiohttp's reader for all blobs."""
    from aiodocker_images._distribution import repository  # noqa: PLC0415 - only this variant has it

    setattr(repository, "LARGE", 1 << 62)  # noqa: B010 - it is Final
    await ours_running(job, meter)


def _each(job: Job, meter: Meter, options: list[str], scheme: str = "") -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        for name in job.references:
            file.write(f"{scheme}{job.socket}/{name} {scheme}{job.reference}/{name}\n")
        file.flush()
        at_once = ["/usr/bin/xargs", "-a", file.name, "-P", str(job.concurrency), "-n", "2"]
        run_program(meter, [*at_once, job.program, *options])


def _arguments(job: Job) -> list[str]:
    return [job.socket, job.reference, str(job.concurrency), *job.references]

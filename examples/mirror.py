"""Mirroring, start to end: a plan, its dry run, the run itself with a line for each image, and a second run.

    python3 -m engines run docker28c -- .venv/bin/python examples/mirror.py     on a private, throwaway Engine
    DOCKER_HOST=… REGISTRY=127.0.0.1:5000 python examples/mirror.py             on yours

Three small images are made and pushed to REGISTRY, and mirrored from there to TARGET, by default the same registry.
The Engine has in the end what it had before.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import secrets
import sys
import tarfile
import tempfile
from pathlib import Path

from aiodocker_images import (
    DockerError,
    ImageService,
    MirrorJob,
    MirrorOutcome,
    MirrorPlan,
    MirrorProgress,
    MirrorSummary,
    NotFoundError,
)

PLAN = """
targets = ["{target}/copies/"]   # ends in "/": the repository of the source follows
concurrency = 4
journal = "mirror.journal"       # beside this file: after a kill, only what is left is done

[[source]]
prefix = "{registry}/"
images = ["{word}/one", "{word}/two"]
tags = ["1.0"]

[[source]]
images = ["{registry}/{word}/three:2.0", "{registry}/{word}/missing:1.0"]

[retry]
attempts = 3
"""


def root_file_system() -> bytes:
    """Make the tar of a small root file system that no other image has."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("data")
        info.size = 4 << 20
        archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    return file.getvalue()


async def publish(images: ImageService, names: list[str]) -> None:
    """Put something to mirror into the registry."""
    for name in names:
        await images.import_image(root_file_system(), reference=name)
        try:
            await images.push(name)
        finally:
            with contextlib.suppress(NotFoundError):
                await images.remove(name)


async def run(images: ImageService, plan: MirrorPlan) -> MirrorSummary:
    """Do the plan; print what is on its way, and each outcome as it comes."""
    begun: set[tuple[MirrorJob, str]] = set()

    def follow(progress: MirrorProgress) -> None:
        if (progress.job, progress.step) not in begun:
            begun.add((progress.job, progress.step))
            print(f"  {progress.step:9} {progress.job}")

    outcomes: list[MirrorOutcome] = []
    async for outcome in plan.mirror(images, on_progress=follow):
        print(f"  {outcome}")
        outcomes.append(outcome)
    return MirrorSummary.of(outcomes)


async def main() -> None:
    """Plan, look, mirror, and mirror again."""
    registry = os.environ.get("REGISTRY", "127.0.0.1:5000")
    word = f"mirror-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "plan.toml"
        file.write_text(PLAN.format(registry=registry, target=os.environ.get("TARGET", registry), word=word))
        plan = await MirrorPlan.read(file)
        async with ImageService(keychain=plan.keychain()) as images:
            await publish(images, [job.source for job in plan.jobs if "missing" not in job.source])

            print("What would be done:")
            async for outcome in plan.mirror(images, dry_run=True):
                print(f"  {outcome}")

            print("Mirroring:")
            summary = await run(images, plan)
            print(summary)

            print("Once more:")
            again = await run(images, plan)
            print(again)
            if [outcome.job for outcome in summary.failures] != [outcome.job for outcome in again.failures]:
                raise SystemExit("the second run came to something else")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except DockerError as error:
        sys.exit(f"mirror: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

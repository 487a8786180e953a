"""The main job, start to end: import, tag, push, remove, pull with live progress, save, remove, load.

    make demo                                            on a private, throwaway Engine and registry
    DOCKER_HOST=… REGISTRY=127.0.0.1:5000 make demo      on yours

The id and the digest are printed at each step and must agree. What was made is removed, whatever happens.
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

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from aiodocker_images import (
    DockerError,
    ImageService,
    NotFoundError,
    ProgressFrame,
    ProgressTracker,
    PullResult,
)

MEBIBYTE = 1 << 20


def root_file_system() -> bytes:
    """Make the tar of a small root file system; random bytes, which do not compress, make it worth watching."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in {"etc/motd": b"Hello from aiodocker_images.\n", "data": os.urandom(48 * MEBIBYTE)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


async def pull_with_bars(images: ImageService, name: str, console: Console) -> PullResult:
    """Pull an image and draw a bar for each of its layers."""
    tracker, bars = ProgressTracker(), dict[str, TaskID]()
    columns = TextColumn("         {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, refresh_per_second=20) as progress:

        def draw(frame: ProgressFrame) -> None:
            tracker.update(frame)
            for layer in tracker.layers.values():
                if layer.id not in bars:
                    bars[layer.id] = progress.add_task(layer.id)
                done = layer.total if layer.done else layer.current
                text = f"{layer.id} {layer.status:<18}"
                progress.update(bars[layer.id], description=text, total=layer.total, completed=done)

        return await images.pull(name, on_progress=draw)


async def main_job(images: ImageService, registry: str, name: str, console: Console, directory: Path) -> None:
    """Do it step by step, and check that the image comes back as the one that went."""
    first, tagged = f"{name}:imported", f"{registry}/{name}:1.0"

    engine, ping = await images.version(), await images.ping()
    console.print(f"engine   {engine.version} ({images.endpoint}), API {ping.api_version}; registry {registry}")

    imported = await images.import_image(root_file_system(), reference=first, changes=['CMD ["/bin/sh"]'])
    console.print(f"import   {first}: id {imported.id}")

    await images.tag(first, tagged)
    console.print(f"tag      {first} as {tagged}")

    pushed = await images.push(tagged)
    console.print(f"push     {tagged}: digest {pushed.digest}, manifest {pushed.size} bytes")

    for image in (first, tagged):
        await images.remove(image)
    console.print(f"remove   {first} and {tagged}")

    console.print(f"pull     {tagged}")
    pulled = await pull_with_bars(images, tagged, console)
    inspected = await images.inspect(tagged)
    console.print(f"         id {inspected.id}, digest {pulled.digest}")

    archive = directory / "image.tar"
    saved = await images.save(tagged, to=archive, checksum=True)
    console.print(f"save     {saved.size / MEBIBYTE:.1f} MiB, {saved.digest}")

    await images.remove(tagged)
    console.print(f"remove   {tagged}")

    loaded = await images.load(archive)
    reloaded = await images.inspect(loaded.references[0])
    console.print(f"load     {', '.join(loaded.references)}: id {reloaded.id}")

    if not imported.id == inspected.id == reloaded.id or pushed.digest != pulled.digest:
        raise SystemExit("the ids or digests disagree")
    console.print("The ids agree, and so do the digests.")


async def main() -> None:
    """Run the main job under names that nobody else has, and remove them."""
    registry = os.environ.get("REGISTRY", "127.0.0.1:5000")
    name = f"quickstart-{secrets.token_hex(4)}"
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as directory:
        async with ImageService() as images:
            try:
                await main_job(images, registry, name, console, Path(directory))
            finally:
                for image in (f"{name}:imported", f"{registry}/{name}:1.0"):
                    with contextlib.suppress(NotFoundError):
                        await images.remove(image)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except DockerError as error:
        sys.exit(f"quickstart: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

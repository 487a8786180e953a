"""Draw docs/pull.svg: `aiodocker-images pull` of three images, as it is on its way, on a real Engine.

    .venv/bin/python docs/pull.py

A private Engine takes a private registry for Docker Hub, and the images there are made of random bytes. They come as
slowly as from a registry far away.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parent.parent))

import engines
from aiodocker_images import ImageService, OnProgress, ProgressFrame
from aiodocker_images.cli.board import Board
from aiodocker_images.cli.commands.transfers import SHORT_DIGEST
from aiodocker_images.cli.jobs import Job, Result, run_jobs
from aiodocker_images.cli.reports import QuietReport
from aiodocker_images.cli.terminal import PROGRAM

PICTURE = Path(__file__).with_suffix(".svg")
WIDTH = 96
FAR = 0.6

MEGABYTE = 1_000_000
RATE = 8 * MEGABYTE
"""Bytes each second, of each download."""

IMAGES = {"python:3.13-slim": (29, 12, 4), "redis:7.4": (28, 9, 2), "alpine:3.20": (4,)}
"""Names, and the sizes of their layers."""

REGISTRY = web.AppKey("registry", str)


def context(sizes: Sequence[int]) -> bytes:
    """Return the tar of what an image with layers of these sizes is built of."""
    files = {f"layer{number}": os.urandom(size * MEGABYTE) for number, size in enumerate(sizes)}
    files["Dockerfile"] = ("FROM scratch\n" + "".join(f"COPY {name} /{name}\n" for name in files)).encode()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


async def slowly(request: web.Request) -> web.StreamResponse:
    """Answer what the registry answers, with some time between its pieces."""
    accept = {"Accept": request.headers.get("Accept", "*/*")}
    async with (
        aiohttp.ClientSession() as session,
        session.get(request.app[REGISTRY] + request.path, headers=accept) as answer,
    ):
        response = web.StreamResponse(status=answer.status)
        for name in ("Content-Type", "Content-Length", "Docker-Content-Digest"):
            if name in answer.headers:
                response.headers[name] = answer.headers[name]
        await response.prepare(request)
        if request.method == "GET":
            async for piece in answer.content.iter_chunked(RATE // 20):
                await response.write(piece)
                await asyncio.sleep(len(piece) / RATE)
        return response


class OnItsWay(QuietReport):
    """Keeps what the display shows when it has come so far."""

    def __init__(self, board: Board, jobs: Sequence[Job]) -> None:
        self.lines: list[Text] = []
        self._board = board
        self._jobs = jobs

    def frame(self, _job: Job, _frame: ProgressFrame, /) -> None:
        """Draw, and keep it up to there."""
        done = sum(job.fraction or 0.0 for job in self._jobs) / len(self._jobs)
        if done < FAR:
            self.lines = self._board.lines(WIDTH, 40, time.monotonic())


async def draw(registry: str) -> None:
    """Fill the registry, pull from it, and write the picture."""
    app = web.Application()
    app[REGISTRY] = f"http://{registry}"
    app.router.add_get("/{path:.*}", slowly)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    mirrors = [f"http://127.0.0.1:{runner.addresses[0][1]}"]
    try:
        with engines.Engine(config={"registry-mirrors": mirrors}) as engine:
            lines = await pulled(engine.host, registry)
    finally:
        await runner.cleanup()
    console = Console(record=True, file=io.StringIO(), width=WIDTH, force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {PROGRAM} pull {' '.join(IMAGES)}", style="bold"))
    console.print(Text("\n").join(lines))
    # Without the fonts, which would come from elsewhere.
    svg = re.sub(r" *@font-face \{.*?\}\n", "", console.export_svg(title=PROGRAM, unique_id="pull"), flags=re.DOTALL)
    PICTURE.write_text(svg, encoding="utf-8")


async def pulled(host: str, registry: str) -> list[Text]:
    """Pull the images, and return what the display showed on the way."""
    async with ImageService(host) as images:
        for name, sizes in IMAGES.items():
            await images.build(context(sizes), tags=f"{registry}/library/{name}")
            await images.push(f"{registry}/library/{name}")
        await images.prune(all=True)
        jobs = [Job(name, "Pulling") for name in IMAGES]
        report = OnItsWay(Board(jobs), jobs)

        async def pull(job: Job, on_progress: OnProgress[ProgressFrame]) -> Result:
            pulled = await images.pull(job.name, on_progress=on_progress)
            return Result(summary=f"{(pulled.digest or '')[:SHORT_DIGEST]}  new")

        failed = [error for error in await run_jobs(jobs, pull, report, concurrency=4) if error is not None]
        if failed:
            raise failed[0]
    return report.lines


if __name__ == "__main__":
    with engines.Registry() as registry:
        asyncio.run(draw(registry.address))

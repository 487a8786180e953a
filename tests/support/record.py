"""Record each Engine's answer to each operation, as raw HTTP: python3 -m tests.support.record, with a private Engine.

The files are test vectors: `recordings/ENGINE/OPERATION.http` is the whole answer, byte by byte as it came.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from aiodocker_images import ImageService

from .fault_proxy import FaultProxy
from .streaming_jobs import JOBS

RECORDINGS = Path(__file__).parents[1] / "recordings"
SIZE = 64  # bytes of what the images hold: small enough to cut at every byte of what comes back


async def record(engine: str, host: str, registry: str) -> None:
    """Do each job once, and keep what came back."""
    target = RECORDINGS / engine
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="adi-", dir="/tmp") as name:
        directory = Path(name)
        async with (
            ImageService(host) as service,
            FaultProxy(directory, Path(host.removeprefix("unix://"))) as proxy,
            ImageService(proxy.socket) as images,
        ):
            for kind in JOBS:
                job = kind(service, registry, directory, size=SIZE)
                await job.set_up()
                await job.prepare()
                await job.check(await job.run(images))
                await proxy.idle()
                (target / f"{job.name}.http").write_bytes(proxy.tapes[-1].answer)
                await job.remove()


if __name__ == "__main__":
    asyncio.run(record(os.environ["ENGINE"], os.environ["DOCKER_HOST"], os.environ["REGISTRY"]))

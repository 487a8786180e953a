"""docker-py as a contestant, by its low-level client: its objects would inspect each image of a list."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .job import Job, Meter

docker: Any = importlib.import_module("docker")
WRITTEN = 2 << 20  # docker.constants.DEFAULT_DATA_CHUNK_SIZE, which its documentation shows


def connect(job: Job) -> Any:  # noqa: ANN401 - it comes without types
    """Return a client that asks for the version first, and never gives up."""
    return docker.APIClient(base_url=f"unix://{job.socket}", version="auto", timeout=600)


def save_file(job: Job, meter: Meter) -> None:
    """Save to a path."""
    client = connect(job)
    with meter, Path(job.path).open("wb") as file:
        file.writelines(client.get_image(job.reference, chunk_size=WRITTEN))


def save_nowhere(job: Job, meter: Meter) -> None:
    """Read the archive and drop it."""
    client = connect(job)
    with meter:
        received = sum(len(chunk) for chunk in client.get_image(job.reference, chunk_size=WRITTEN))
    assert received >= job.size


def load_file(job: Job, meter: Meter) -> None:
    """Load from a file."""
    client = connect(job)
    with meter, Path(job.path).open("rb") as file:
        for _ in client.load_image(file):
            pass


def frames(job: Job, meter: Meter) -> None:
    """Read the frames of one pull."""
    repository, _, tag = job.reference.rpartition(":")
    client = connect(job)
    with meter:
        received = sum(1 for _ in client.pull(repository, tag=tag, stream=True, decode=True))
    assert received >= job.times


def pull_all(job: Job, meter: Meter) -> None:
    """Pull distinct images, each in a thread."""
    client = connect(job)
    with meter, ThreadPoolExecutor(len(job.references)) as threads:
        for _ in threads.map(client.pull, job.references):
            pass


def inspect(job: Job, meter: Meter) -> None:
    """Inspect an image so many times."""
    client = connect(job)
    _repeat(lambda _: client.inspect_image("localhost/application:1.0"), job, meter)


def list_images(job: Job, meter: Meter) -> None:
    """List the images so many times."""
    client = connect(job)
    _repeat(lambda _: client.images(), job, meter)


def ping(job: Job, meter: Meter) -> None:
    """Ping so many times."""
    client = connect(job)
    _repeat(lambda _: client.ping(), job, meter)


def _repeat(call: Callable[[int], object], job: Job, meter: Meter) -> None:
    if job.concurrency == 1:
        call(0)
        with meter:
            for number in range(job.times):
                call(number)
        return
    with ThreadPoolExecutor(job.concurrency) as threads:
        for _ in threads.map(call, range(job.concurrency * 2)):
            pass
        with meter:
            for _ in threads.map(call, range(job.times)):
                pass

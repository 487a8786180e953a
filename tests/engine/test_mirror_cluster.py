"""mirror_on_cluster: a real Dask cluster of two worker processes, each with an Engine of its own; two registries."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed
import pytest

import engines
from aiodocker_images import ImageService, InvalidArgumentError, MirrorJob, MirrorOutcome, Retry, mirror_on_cluster
from tests.support.tars import root_file_system

from .test_mirror import digest_in

pytestmark = pytest.mark.once


def own_engine(hosts: dict[object, str]) -> ImageService:
    """Connect a worker to its Engine."""
    return ImageService(hosts[distributed.get_worker().name])


def name_and_pid(dask_worker: distributed.Worker) -> tuple[object, int]:
    return dask_worker.name, os.getpid()


@dataclass
class Cluster:
    """A connected client, and the worker processes' Engines by the workers' names."""

    client: Any
    hosts: dict[object, str]

    @property
    def service(self) -> functools.partial[ImageService]:
        return functools.partial(own_engine, self.hosts)

    async def pids(self) -> dict[object, int]:
        return dict((await self.client.run(name_and_pid)).values())


@pytest.fixture(scope="module")
def hosts() -> Generator[dict[object, str], None, None]:
    with engines.Engine() as one, engines.Engine() as other:
        yield {0: one.host, 1: other.host}


@pytest.fixture(scope="module")
def target() -> Generator[str, None, None]:
    with engines.Registry() as registry:
        yield registry.address


@pytest.fixture
async def cluster(hosts: dict[object, str]) -> AsyncGenerator[Cluster, None]:
    dask: Any = distributed  # whose constructors and methods have no types
    async with (
        dask.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", asynchronous=True
        ) as local,
        dask.Client(local, asynchronous=True) as client,
    ):
        await client.wait_for_workers(2)
        yield Cluster(client, hosts)


async def publish(host: str, registry: str, count: int, size: int) -> list[str]:
    """Put so many images into the registry, and leave none of them on the Engine."""
    names = [f"{registry}/cluster-{secrets.token_hex(4)}/app{number}:1" for number in range(count)]
    async with ImageService(host) as images:
        for name in names:
            await images.import_image(root_file_system(size), reference=name)
            await images.push(name)
            await images.remove(name)
    return names


async def left_on(hosts: dict[object, str]) -> list[str]:
    left: list[str] = []
    for host in hosts.values():
        async with ImageService(host) as images:
            left += [name for image in await images.list(all=True) for name in image.repo_tags or [image.id]]
    return left


async def test_a_lost_worker_s_jobs_are_done_by_another(
    cluster: Cluster, engine_host: str, registry: str, target: str, tmp_path: Path
) -> None:
    """Outcomes come as they end, one worker is killed in the middle: all is done, and no Engine keeps anything."""
    names = await publish(engine_host, registry, 8, 8 << 20)
    jobs = [MirrorJob(name, name.replace(registry, target)) for name in names]
    before = await cluster.pids()
    outcomes: list[MirrorOutcome] = []
    stream = mirror_on_cluster(
        cluster.client, jobs, service=cluster.service, retry=Retry(attempts=2), per_registry=4, journal=tmp_path
    )
    async with contextlib.aclosing(stream):
        async for outcome in stream:
            outcomes.append(outcome)
            if len(outcomes) == 2:
                os.kill(before[0], signal.SIGKILL)
    assert {outcome.job for outcome in outcomes} == set(jobs)
    assert len(outcomes) == len(jobs)
    # What the killed worker had pushed before it could say so is there already, to the next.
    assert {outcome.status for outcome in outcomes} <= {"mirrored", "skipped"}
    for job in jobs:
        assert await digest_in(target, job.target) == await digest_in(registry, job.source)
    await cluster.client.wait_for_workers(2)
    assert (await cluster.pids())[0] != before[0]
    # Whoever comes next to that Engine gives back what the killed worker had borrowed; both workers come.
    again = [MirrorJob(job.source, job.target.replace(":1", ":2")) for job in jobs]
    done = [o async for o in mirror_on_cluster(cluster.client, again, service=cluster.service, journal=tmp_path)]
    assert {outcome.status for outcome in done} == {"mirrored"}
    assert await left_on(cluster.hosts) == []


async def test_leaving_stops_the_workers_and_leaves_nothing_on_their_engines(
    cluster: Cluster, engine_host: str, registry: str, target: str
) -> None:
    names = await publish(engine_host, registry, 6, 16 << 20)
    jobs = [MirrorJob(name, name.replace(registry, target)) for name in names]
    async with contextlib.aclosing(mirror_on_cluster(cluster.client, jobs, service=cluster.service)) as outcomes:
        async for outcome in outcomes:
            assert outcome.ok
            break
    assert await left_on(cluster.hosts) == []
    async with asyncio.timeout(30):
        while any((await cluster.client.processing()).values()):
            await asyncio.sleep(0.1)
    assert None in [await digest_in(target, job.target) for job in jobs]


async def test_failures_are_outcomes_and_a_dry_run_writes_nothing(
    cluster: Cluster, engine_host: str, registry: str, target: str
) -> None:
    """A missing image, and Engines that nobody can ask: told for each job, and tried no oftener than is said."""
    (name,) = await publish(engine_host, registry, 1, 1 << 16)
    jobs = [MirrorJob(name, name.replace(registry, target)), MirrorJob(f"{name}.missing", f"{target}/missing:1")]
    planned = {
        o.job: o.status async for o in mirror_on_cluster(cluster.client, jobs, service=cluster.service, dry_run=True)
    }
    assert planned == {jobs[0]: "planned", jobs[1]: "failed"}
    assert await digest_in(target, jobs[0].target) is None
    done = {o.job: o.status async for o in mirror_on_cluster(cluster.client, jobs, service=cluster.service)}
    assert done == {jobs[0]: "mirrored", jobs[1]: "failed"}
    nowhere = functools.partial(ImageService, "/nowhere.sock")
    (lost,) = [o async for o in mirror_on_cluster(cluster.client, jobs[:1], service=nowhere, retry=None)]
    assert lost.error is not None
    assert (lost.status, lost.error.kind) == ("failed", "DaemonUnreachableError")


async def test_what_makes_no_sense_is_refused_at_the_call(cluster: Cluster) -> None:
    with pytest.raises(InvalidArgumentError, match="two jobs write"):
        mirror_on_cluster(cluster.client, [MirrorJob("a", "r.x/a"), MirrorJob("b", "r.x/a")])

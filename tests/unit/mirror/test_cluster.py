"""mirror_on_cluster without Engines: what the workers of a real cluster tell each other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from pathlib import Path
from typing import Any

import distributed
import pytest

from aiodocker_images import ImageService, MirrorJob, Retry, mirror_on_cluster
from aiodocker_images._mirror import cluster as module
from tests.support.mirror_daemon import MirrorDaemon, answers
from tests.support.scripted import Exchange, ScriptedDaemon

# It needs no Engine, but distributed, as the other tests of clusters: not for every loop and every Python.
pytestmark = pytest.mark.once

LIMITED, OTHER, TARGET = "limited.example/", "other.example/", "target.example/"


def own_daemon(directory: str) -> ImageService:
    """Connect a worker to its daemon."""
    return ImageService(f"{directory}/{distributed.get_worker().name}")


def leaves_alone(registry: str) -> bool:
    """Say, on a worker, whether its last run leaves a registry alone."""
    return any(slots._pause_of(registry) > 0 for runs in module._slots.values() for slots in runs.values())  # pyright: ignore[reportPrivateUsage] - what nobody else asks


def listeners(dask_scheduler: Any) -> int:  # noqa: ANN401 - the broker has no types
    """Say, on the scheduler, how many would hear of a pause."""
    return len(dask_scheduler._broker._topics[module.PAUSES].subscribers)


async def test_a_rate_limit_pauses_its_registry_on_all_workers(short_path: Path) -> None:
    """One worker meets it; the other hears of it while it is at work, and neither even asks for what comes next."""
    dask: Any = distributed  # whose constructors and methods have no types
    heard, go = asyncio.Event(), asyncio.Event()

    async def wait(engine: MirrorDaemon, exchange: Exchange) -> None:
        await go.wait()
        await engine.pull(f"{OTHER}app:1", exchange)

    async def limit(exchange: Exchange) -> None:
        await heard.wait()
        await answers(429, "toomanyrequests: slow down")(exchange)

    later = [f"{LIMITED}later{number}" for number in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        daemons = [
            MirrorDaemon(await stack.enter_async_context(ScriptedDaemon(short_path / str(name)))) for name in (0, 1)
        ]
        for daemon in daemons:
            for name in (f"{LIMITED}one", f"{OTHER}app", *later):
                daemon.publish(f"{name}:1")
            daemon.trouble[f"pull {LIMITED}one:1"] = [limit]
            daemon.trouble[f"pull {OTHER}app:1"] = [functools.partial(wait, daemon)]
        local = await stack.enter_async_context(
            dask.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", asynchronous=True
            )
        )
        client = await stack.enter_async_context(dask.Client(local, asynchronous=True))
        await client.wait_for_workers(2)
        jobs = [MirrorJob(f"{name}:1", f"{TARGET}{name}") for name in (f"{LIMITED}one", f"{OTHER}app", *later)]
        service = functools.partial(own_daemon, str(short_path))
        once = Retry(attempts=1, initial=3600, maximum=3600)
        stream = await stack.enter_async_context(
            contextlib.aclosing(mirror_on_cluster(client, jobs, service=service, retry=once))
        )
        first = asyncio.ensure_future(anext(stream))
        while sum(daemon.count("pull") for daemon in daemons) < 2 or await client.run_on_scheduler(listeners) < 2:
            await asyncio.sleep(0.02)
        heard.set()
        outcome = await first
        assert (outcome.job, outcome.status) == (jobs[0], "failed")
        while not all((await client.run(leaves_alone, "limited.example")).values()):
            await asyncio.sleep(0.02)
        go.set()
        outcome = await anext(stream)
        assert (outcome.job, outcome.status) == (jobs[1], "mirrored")
        while any(daemon.count("list") < 2 for daemon in daemons):  # each has begun another job
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        log = [entry for daemon in daemons for entry in daemon.log]
        assert [entry for entry in log if entry.startswith(f"look {LIMITED}later")] == []
        assert log.count(f"pull {LIMITED}one:1") == 1
        assert not [entry for entry in log if entry.startswith(f"pull {LIMITED}later")]

"""mirror_on_cluster without Engines: what the workers of a real cluster tell each other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from pathlib import Path
from typing import Any

import distributed

from aiodocker_images import ImageService, MirrorJob, MirrorOutcome, Retry, mirror_on_cluster
from aiodocker_images._mirror import cluster as module

from .mirror_daemon import MirrorDaemon, answers
from .scripted import Exchange, ScriptedDaemon

LIMITED, OTHER, TARGET = "limited.example/", "other.example/", "target.example/"


def own_daemon(directory: str) -> ImageService:
    """Connect a worker to its daemon."""
    return ImageService(f"{directory}/{distributed.get_worker().name}")


def leaves_alone(registry: str) -> bool:
    """Say, on a worker, whether its last run leaves a registry alone."""
    return any(slots._pause_of(registry) > 0 for runs in module._slots.values() for slots in runs.values())


async def test_a_rate_limit_pauses_its_registry_on_all_workers(short_path: Path) -> None:
    """One worker meets it; the other hears of it while it is at work, and does not even ask for what comes next."""
    dask: Any = distributed  # whose constructors and methods have no types
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(engine: MirrorDaemon, exchange: Exchange) -> None:
        begun.set()
        await go.wait()
        await engine.pull(f"{OTHER}app:1", exchange)

    async def limit(exchange: Exchange) -> None:
        await begun.wait()  # or the other worker might meet it, too
        await answers(429, "toomanyrequests: slow down")(exchange)

    async with contextlib.AsyncExitStack() as stack:
        daemons = [
            MirrorDaemon(await stack.enter_async_context(ScriptedDaemon(short_path / str(name)))) for name in (0, 1)
        ]
        for daemon in daemons:
            for name in (f"{LIMITED}one:1", f"{LIMITED}two:1", f"{OTHER}app:1"):
                daemon.publish(name)
            daemon.trouble[f"pull {LIMITED}one:1"] = [limit]
            daemon.trouble[f"pull {OTHER}app:1"] = [functools.partial(wait, daemon)]
        local = await stack.enter_async_context(
            dask.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", asynchronous=True
            )
        )
        client = await stack.enter_async_context(dask.Client(local, asynchronous=True))
        await client.wait_for_workers(2)
        jobs = [MirrorJob(f"{name}:1", f"{TARGET}{name}") for name in (f"{LIMITED}one", f"{OTHER}app", f"{LIMITED}two")]
        service = functools.partial(own_daemon, str(short_path))
        patient = Retry(initial=3600, maximum=3600)
        outcomes: list[MirrorOutcome] = []
        stream = await stack.enter_async_context(
            contextlib.aclosing(mirror_on_cluster(client, jobs, service=service, retry=patient))
        )
        next_one = asyncio.ensure_future(anext(stream))
        while not all((await client.run(leaves_alone, "limited.example")).values()):
            await asyncio.sleep(0.02)
        go.set()
        outcomes.append(await next_one)
        assert (outcomes[0].job, outcomes[0].status) == (jobs[1], "mirrored")
        while sum(daemon.count("list") for daemon in daemons) < 3:  # the third has begun
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        log = [entry for daemon in daemons for entry in daemon.log]
        assert [entry for entry in log if entry.endswith(f"{LIMITED}two:1")] == []
        assert log.count(f"pull {LIMITED}one:1") == 1

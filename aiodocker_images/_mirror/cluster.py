"""`mirror_on_cluster`: the jobs of `mirror` on a Dask cluster, each worker with an Engine of its own.

Which worker does what, what becomes of a lost one's work, and how results come back are `distributed`'s, not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from weakref import WeakKeyDictionary

from aiodocker_images._aio.threads import outlast
from aiodocker_images._arguments import path_text
from aiodocker_images.errors import ConfigError, DockerError
from aiodocker_images.models import Platform
from aiodocker_images.reference import Reference
from aiodocker_images.service import ImageService

from .jobs import MirrorFailure, MirrorJob, MirrorOutcome, Retry
from .journal import Journal
from .options import DEFAULT_CONCURRENCY, Options, checked_jobs, checked_platforms, checked_retry
from .runner import CLEANUP_TIMEOUT, Run
from .slots import Slots

if TYPE_CHECKING:
    import distributed

__all__ = ["PAUSES", "mirror_on_cluster"]


def _dask() -> Any:  # noqa: ANN401 - see below
    """Return distributed, at the first need of it.

    It says that it is typed, and most of its functions have no types: those that are used have them below.
    """
    import distributed  # noqa: PLC0415 - for the extra `dask`; half a second

    return distributed


_Logged = tuple[float, tuple[str, str, float]]
"""A pause: when the scheduler heard of it, and the run, the registry, the seconds."""


class _Future(Protocol):
    """A distributed.Future of an asynchronous client."""

    def exception(self) -> Awaitable[BaseException | None]: ...

    def result(self) -> Awaitable[list[MirrorOutcome]]: ...

    def release(self) -> None: ...


class _Client(Protocol):
    """A distributed.Client that is asynchronous."""

    @property
    def status(self) -> str: ...

    def submit(self, work: object, order: object, *, key: str, pure: bool, retries: int) -> _Future: ...

    def cancel(self, futures: list[_Future], *, force: bool) -> Awaitable[None]: ...

    def subscribe_topic(self, topic: str, handler: Callable[[_Logged], None]) -> None: ...

    def get_events(self, topic: str) -> Awaitable[Iterable[_Logged]]: ...


class _Event(Protocol):
    """A distributed.Event of an asynchronous client."""

    def set(self) -> Awaitable[None]: ...

    def clear(self) -> Awaitable[None]: ...

    def is_set(self) -> Awaitable[bool]: ...


class _Worker(Protocol):
    """A distributed.Worker."""

    def log_event(self, topic: str, message: object) -> None: ...


PAUSES: Final = "aiodocker_images.mirror-pauses"
"""The topic on which workers tell each other which registry asked to slow down, and for how many seconds."""

STOP_INTERVAL: Final = 0.5
"""Seconds between two looks at whether everything is to stop."""

TRIES: Final = 3
"""How often jobs are given to another worker whose own Engine cannot be asked."""


def mirror_on_cluster(
    client: distributed.Client,
    jobs: Iterable[MirrorJob],
    *,
    service: Callable[[], ImageService] = ImageService,
    concurrency: int = DEFAULT_CONCURRENCY,
    per_registry: int | Mapping[str, int] | None = None,
    retry: Retry | None = Retry(),  # noqa: B008 - frozen
    platforms: Iterable[str | Platform] | Literal["all"] = (),
    dry_run: bool = False,
    journal: str | os.PathLike[str] | None = None,
    keep: bool = False,
    require_digest: bool = False,
    narrow: bool = False,
) -> AsyncGenerator[MirrorOutcome, None]:
    """Mirror images as `mirror` does, on the workers of a Dask cluster, and yield outcomes as they come back.

    `client` is asynchronous and connected: `await distributed.Client(address, asynchronous=True)`. `service` is
    called on the worker and makes the connection to its Engine, by default to the one that the worker's environment
    says; it is pickled, as functions of modules are. Jobs with the same source go to one worker, and share a pull. A
    worker does as many sources at once as it has threads, and `concurrency` of their pulls and pushes;
    `per_registry` bounds in how many sources the whole cluster has to do with a registry at once. A rate limit
    pauses the registry on all workers, as soon as they hear of it from the one that met it.

    What a lost worker had not ended, another one does. What it had pulled stays on its Engine, unless `journal`
    names a directory on the workers' disks: whoever comes next to that Engine gives it back. Other options as in
    `mirror`. Leaving the generator stops the jobs on the workers, and waits for them to give back what they borrowed.

    Raises at the call what `mirror` does.
    """
    options = Options(
        concurrency=concurrency,
        per_registry=per_registry,
        retry=checked_retry(retry),
        platforms=checked_platforms(platforms),
        dry_run=dry_run,
        keep=keep,
        require_digest=require_digest,
        narrow=narrow,
    )
    connected: Any = client
    return _outcomes(
        connected,
        _by_source(checked_jobs(jobs)),
        service,
        options,
        None if journal is None else path_text("journal", journal),
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """What a worker is to do."""

    run: str
    jobs: tuple[MirrorJob, ...]
    service: Callable[[], ImageService]
    options: Options
    journal: str | None


def _by_source(jobs: Iterable[MirrorJob]) -> list[tuple[MirrorJob, ...]]:
    groups: dict[str, list[MirrorJob]] = {}
    for job in jobs:
        groups.setdefault(job.source, []).append(job)
    return [tuple(group) for group in groups.values()]


async def _outcomes(
    client: _Client,
    groups: Sequence[tuple[MirrorJob, ...]],
    service: Callable[[], ImageService],
    options: Options,
    journal: str | None,
) -> AsyncGenerator[MirrorOutcome, None]:
    run = f"mirror-{secrets.token_hex(8)}"
    stop: _Event = _dask().Event(f"{run}-stop", client=client)
    begun: dict[_Future, tuple[MirrorJob, ...]] = {}
    try:
        for number, group in enumerate(groups):
            order = _Order(run, group, service, options, journal)
            future = client.submit(_on_worker, order, key=f"{run}-{number}", pure=False, retries=TRIES)
            begun[future] = group
        async for future in _dask().as_completed(list(begun)):
            outcomes = await _results(future, begun.pop(future))
            future.release()  # or a worker that is lost later would lose it, and another do it again
            for outcome in outcomes:
                yield outcome
    finally:
        await outlast(asyncio.ensure_future(_end(client, stop, list(begun))))


async def _results(future: _Future, group: Sequence[MirrorJob]) -> list[MirrorOutcome]:
    """Return what came of jobs, also where no worker brought them to an end."""
    error = await future.exception()
    if error is None:
        return await future.result()
    failure = MirrorFailure(type(error).__name__, str(error))
    return [MirrorOutcome(job=job, status="failed", error=failure) for job in group]


async def _end(client: _Client, stop: _Event, futures: list[_Future]) -> None:
    """Let what still runs on workers give back what it borrowed, and forget it all."""
    if not futures or client.status != "running":
        return
    await stop.set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLEANUP_TIMEOUT):
            await asyncio.gather(*(future.exception() for future in futures), return_exceptions=True)
    await client.cancel(futures, force=True)
    await stop.clear()


# What follows runs on a worker, in its event loop.

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Slots]] = WeakKeyDictionary()
"""By the loop and the run, which is the last one."""


async def _slots_of(order: _Order, client: _Client) -> Slots:
    """Return what bounds a run on this worker, and let it hear of the pauses of the others, and what it has missed."""
    ours = _slots.setdefault(asyncio.get_running_loop(), {})
    if order.run not in ours:
        worker: _Worker = _dask().get_worker()

        def tell(registry: str, seconds: float) -> None:
            worker.log_event(PAUSES, [order.run, registry, seconds])

        def hear(event: _Logged) -> None:
            (then, (run, registry, seconds)) = event
            if run in ours:
                # Clocks may differ: never for longer than was said.
                ours[run].pause(registry, min(seconds, then + seconds - time.time()))

        ours.clear()
        ours[order.run] = Slots(order.options.concurrency, None, order.options.retry, on_pause=tell)
        client.subscribe_topic(PAUSES, hear)
        for event in await client.get_events(PAUSES):
            hear(event)
    return ours[order.run]


async def _on_worker(order: _Order) -> list[MirrorOutcome]:
    """Do the jobs of one source, until they end or everything is to stop."""
    outcomes: list[MirrorOutcome] = []
    client = await _dask().get_client()
    slots = await _slots_of(order, client)
    stop = asyncio.create_task(_set(_dask().Event(f"{order.run}-stop", client=client)))
    work = asyncio.create_task(_work(order, slots, outcomes))
    try:
        await asyncio.wait({stop, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        return outcomes
    finally:
        for task in (work, stop):
            task.cancel()
        await outlast(asyncio.gather(work, stop, return_exceptions=True))


async def _set(event: _Event) -> None:
    # Its own wait() leaves a traceback in the scheduler's log for each that is given up.
    while not await event.is_set():  # noqa: ASYNC110 - it is set on another machine
        await asyncio.sleep(STOP_INTERVAL)


async def _work(order: _Order, slots: Slots, outcomes: list[MirrorOutcome]) -> None:
    jobs, options = order.jobs, order.options
    async with order.service() as images, contextlib.AsyncExitStack() as leases:
        path = None if order.journal is None or options.dry_run else Path(order.journal) / _journal_name(jobs)
        if path is not None:
            await _give_back_for_the_lost(images, path, options)
        for registry in _registries(jobs):
            if (limit := _limit(options, registry)) is not None:
                # All in one order, so that none waits for one that waits for it; a lost worker's leases run out.
                semaphore = _dask().Semaphore(max_leases=limit, name=f"{order.run}-{registry}")
                await semaphore.acquire()
                leases.push_async_callback(semaphore.release)
        async with Journal(path) as journal:
            doing = Run(images, jobs, options, journal, emit=outcomes.append, slots=slots)
            await (doing.plan() if options.dry_run else doing.run())


async def _give_back_for_the_lost(images: ImageService, path: Path, options: Options) -> None:
    """Give back what workers borrowed on this Engine that were lost since; theirs are the journals nobody has open."""
    for other in path.parent.glob("*.mirror-journal"):
        if other != path:
            with contextlib.suppress(ConfigError):  # in use, or no journal
                async with Journal(other) as journal:
                    with contextlib.suppress(DockerError):
                        await Run(images, (), options, journal, emit=lambda _: None).settle()


def _journal_name(jobs: tuple[MirrorJob, ...]) -> str:
    return f"{hashlib.sha256(jobs[0].source.encode()).hexdigest()[:32]}.mirror-journal"


def _registries(jobs: Iterable[MirrorJob]) -> list[str]:
    names = {name for job in jobs for name in (job.source, job.target)}
    return sorted({Reference.parse(name).domain for name in names})


def _limit(options: Options, registry: str) -> int | None:
    limits = options.per_registry
    return limits.get(registry) if isinstance(limits, Mapping) else limits

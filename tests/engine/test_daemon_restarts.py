"""The daemon is killed, stopped for a while and restarted in the middle of every operation, and the registry fails."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

import engines
from aiodocker_images import (
    APIError,
    DockerError,
    ImageService,
    NoSpaceError,
    RateLimitedError,
    ServerError,
)
from aiodocker_images.testing import Fault
from tests.conftest import Leftovers, by_engine, engine_is
from tests.support.answer_sweep import HANG, OPERATIONS, outcome_of
from tests.support.slow_registry import SlowRegistry
from tests.support.tally import INJECTED
from tests.support.tars import root_file_system, tar_of

pytestmark = pytest.mark.engine

LARGE: Final = 24 << 20
"""Bytes of an image whose archive is more than all buffers between hold."""


class Midway:
    """Every operation on one Engine, held in its middle: begun and not ended before `go_on` is set."""

    def __init__(self, images: ImageService, slow: SlowRegistry, registry: str, directory: Path) -> None:
        self.go_on = asyncio.Event()
        self.begun = {name: asyncio.Event() for name in OPERATIONS}
        self._images = images
        self._slow = slow
        self.large = f"{registry}/large:{secrets.token_hex(4)}"
        self._archive = directory / "image.tar"
        self._target = directory / "saved.tar"

    async def set_up(self) -> None:
        await self._images.import_image(root_file_system(LARGE), reference=self.large)
        await self._images.save(self.large, to=self._archive)

    def start(self, *, events_for: float) -> Mapping[str, asyncio.Task[object]]:
        """Begin all of them; the events end by themselves after so many seconds."""
        self._events_for = events_for
        runs: dict[str, Callable[[], Awaitable[object]]] = {
            "pull": self._pull,
            "push": self._push,
            "load": lambda: self._images.load(self._held("load", self._archive.read_bytes())),
            "save": self._save,
            "import": lambda: self._images.import_image(self._held("import", root_file_system()), reference="new:1"),
            "build": lambda: self._images.build(
                self._held("build", tar_of({"Dockerfile": "FROM scratch\nCOPY x /\n", "x": "y"})), tags="built:1"
            ),
            "events": self._events,
        }
        return {name: asyncio.ensure_future(run()) for name, run in runs.items()}

    def begin_again(self) -> None:
        self.go_on.clear()
        for event in self.begun.values():
            event.clear()

    async def all_begun(self) -> None:
        async with asyncio.timeout(HANG):
            for name, event in self.begun.items():
                if name != "push":  # of which some Engines say nothing before the registry has answered
                    await event.wait()

    async def _pull(self) -> object:
        return await self._images.pull(self._slow.image, on_progress=lambda _: self.begun["pull"].set())

    async def _push(self) -> object:
        return await self._images.push(self.large)

    async def _held(self, name: str, data: bytes) -> AsyncGenerator[bytes, None]:
        yield data[: len(data) // 2]
        self.begun[name].set()
        await self.go_on.wait()
        yield data[len(data) // 2 :]

    async def _save(self) -> object:
        size = 0
        async with contextlib.aclosing(self._images.save_stream(self.large)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                self.begun["save"].set()
                await self.go_on.wait()
        return size

    async def _events(self) -> object:
        # Those of the import before, and then what is to come.
        now = time.time()
        events = self._images.events(since=now - 60, until=now + self._events_for, reconnect=False)
        seen: list[object] = []
        async with contextlib.aclosing(events):
            async for event in events:
                seen.append(event)
                self.begun["events"].set()
        return seen


@pytest.fixture
async def own(engine_name: str) -> AsyncGenerator[engines.Engine, None]:
    """An Engine of the test's own, because nothing else could use it meanwhile."""
    own = engines.Engine(engine_name)
    try:
        await asyncio.to_thread(own.start)
        yield own
    finally:
        await asyncio.to_thread(own.stop)


@pytest.fixture
async def own_registry() -> AsyncGenerator[engines.Registry, None]:
    registry = engines.Registry()
    try:
        await asyncio.to_thread(registry.start)
        yield registry
    finally:
        await asyncio.to_thread(registry.stop)


Deed = Callable[[engines.Engine], Awaitable[None]]


async def kill(own: engines.Engine) -> None:
    await asyncio.to_thread(own.kill)
    await asyncio.to_thread(own.start)


async def restart(own: engines.Engine) -> None:
    await asyncio.to_thread(own.restart)


async def stop_for_a_while(own: engines.Engine) -> None:
    await asyncio.to_thread(own.pause)
    await asyncio.sleep(1)
    own.resume()


async def test_a_daemon_may_be_killed_stopped_or_restarted_during_any_call(
    own: engines.Engine, own_registry: engines.Registry, engine_name: str, tmp_path: Path, leftovers: Leftovers
) -> None:
    """A daemon that was only stopped completes all; one that ended interrupts all, and serves when it is back."""
    before = leftovers.now()
    async with ImageService(own.host) as images, SlowRegistry() as slow:
        midway = Midway(images, slow, own_registry.address, tmp_path)
        await midway.set_up()
        names = await all_names(images)
        for deed in (kill, restart, stop_for_a_while):
            midway.begin_again()
            slow.hold()
            await asyncio.to_thread(own_registry.pause)
            tasks = midway.start(events_for=5 if deed is stop_for_a_while else 600)
            await midway.all_begun()
            await deed(own)
            own_registry.resume()
            slow.finish()
            midway.go_on.set()
            outcomes = {name: await outcome_of(task) for name, task in tasks.items()}
            failures = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Exception)}
            INJECTED.update((engine_name, name, deed.__name__.replace("_for_a_while", "")) for name in tasks)
            if deed is stop_for_a_while:
                assert failures == {}
            else:
                assert all(isinstance(failure, DockerError) for failure in failures.values())
                # The rest of a save can be in the buffers between, and an Engine may let an upload end.
                assert failures.keys() >= (
                    {"pull", "push", "load", "import", "build", "events"} if deed is kill else {"events"}
                )
            left = await all_names(images)
            assert names <= left <= names | {slow.image, "new:1", "built:1"}
            for name in left - names:
                await images.remove(name, force=True)
    await leftovers.settle(before)


async def all_names(images: ImageService) -> set[str]:
    """The names of the Engine's images, as Docker shows them."""
    return {
        name.removeprefix("localhost/").removeprefix("docker.io/library/")
        for image in await images.list(all=True)
        for name in image.repo_tags
    }


FAILING: Final[dict[int, type[APIError]]] = {429: RateLimitedError, 500: ServerError, 503: ServerError}


@pytest.mark.parametrize("status", FAILING)
async def test_a_registry_that_fails_for_a_while_fails_a_pull_and_then_does_not(
    engine: ImageService, engine_name: str, leftovers: Leftovers, status: int
) -> None:
    """The error is of the class that the registry's status means, and the next pull is a whole one."""
    await engine.ping()
    before = leftovers.now()
    async with SlowRegistry() as registry:
        names = await all_names(engine)
        registry.finish()
        refusal = registry.fail(Fault.refuse(status, message="not now"), on="manifest", times=None)
        INJECTED[engine_name, "pull", f"registry {status}"] += 1
        if status == 429 and engine_is("podman"):  # it tries again by itself, for minutes
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await engine.pull(registry.image)
        else:
            with pytest.raises(APIError) as caught:
                await engine.pull(registry.image)
            assert type(caught.value) is FAILING[status], caught.value
        assert await all_names(engine) == names
        refusal.remove()
        result = await engine.pull(registry.image)
        assert result.digest == by_engine(registry.digest, podman=None)
        await engine.remove(registry.image)
    await leftovers.settle(before)


async def test_a_registry_that_is_killed_fails_both_ways_and_is_met_again(
    engine: ImageService, engine_name: str, own_registry: engines.Registry, leftovers: Leftovers
) -> None:
    name = f"{own_registry.address}/{secrets.token_hex(4)}:1"
    await engine.import_image(root_file_system(), reference=name)
    pushed = await engine.push(name)
    before = leftovers.now()
    await asyncio.to_thread(own_registry.kill)
    for call in (engine.push(name), engine.pull(name)):
        with pytest.raises(ServerError):
            await call
    INJECTED[engine_name, "push", "registry killed"] += 1
    INJECTED[engine_name, "pull", "registry killed"] += 1
    assert name in await all_names(engine)
    await asyncio.to_thread(own_registry.start)
    assert (await engine.push(name)).digest == pushed.digest
    assert (await engine.pull(name)).digest == by_engine(pushed.digest, podman=None)
    await engine.remove(name)
    await leftovers.settle(before)


class FullRegistry(engines.Registry):
    """A registry whose storage is on a file system of one MiB."""

    def _launch(self) -> None:
        self.storage.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.storage], check=True)
        super()._launch()

    def grow(self) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", "remount,size=64m", self.storage], check=True)


async def test_a_registry_with_a_full_disk_fails_the_push(engine: ImageService, engine_name: str) -> None:
    """Docker tries an upload again and again, with pauses: whoever does not wait for that can leave it."""
    registry = FullRegistry()
    try:
        await asyncio.to_thread(registry.start)
        name = f"{registry.address}/large:1"
        await engine.import_image(root_file_system(8 << 20), reference=name)
        retried = False
        try:
            async with asyncio.timeout(HANG), contextlib.aclosing(engine.push_stream(name)) as frames:
                async for frame in frames:
                    if retried := (frame.status or "").startswith("Retrying in"):
                        break
            assert retried
        except APIError as error:
            assert isinstance(error, NoSpaceError | ServerError)
        INJECTED[engine_name, "push", "registry full"] += 1
        assert name in await all_names(engine)
        registry.grow()
        assert (await engine.push(name)).digest
        await engine.remove(name)
    finally:
        await asyncio.to_thread(registry.stop)

"""Image events of a real Engine: what it tells of an image's life, its past, its filters, and its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import secrets
import tarfile
import time
from collections.abc import Callable
from typing import Final

import pytest

import engines
from aiodocker_images import Event, ImageService, InvalidParameterError, ServerError
from aiodocker_images._encoding import Filters
from tests.conftest import Leftovers

pytestmark = pytest.mark.engine

# What `live` does, in the words of each Engine. Podman has no event of an import but the tag, and says delete with
# every name that goes.
DOCKER_LIFE: Final = ["tag", "import", "tag", "save", "untag", "untag", "delete"]
PODMAN_LIFE: Final = ["tag", "tag", "save", "untag", "delete", "untag", "delete"]


def is_podman() -> bool:
    return os.environ["ENGINE"] == "podman"


def life() -> list[str]:
    return PODMAN_LIFE if is_podman() else DOCKER_LIFE


def root_file_system() -> bytes:
    """The tar of a root file system that is new to every Engine."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("etc/motd")
        info.size = 16
        archive.addfile(info, io.BytesIO(secrets.token_bytes(16)))
    return file.getvalue()


class Image:
    """A new image of the Engine, with a name and a label of its own."""

    def __init__(self, engine: ImageService) -> None:
        self.engine = engine
        self.name = f"events-{secrets.token_hex(4)}"
        self.id = ""

    async def begin(self) -> None:
        imported = await self.engine.import_image(
            root_file_system(), reference=f"{self.name}:1", changes=[f"LABEL name.of.test={self.name}"]
        )
        self.id = imported.id

    async def end(self) -> None:
        await self.engine.tag(f"{self.name}:1", f"{self.name}:2")
        await self.engine.save(f"{self.name}:1", to=io.BytesIO())
        await self.engine.remove(f"{self.name}:1")
        await self.engine.remove(f"{self.name}:2")

    def is_in(self, event: Event) -> bool:
        """Tell whether an event is this image's. Podman's ids have no sha256: before them."""
        return event.actor is not None and event.actor.id.removeprefix("sha256:") == self.id.removeprefix("sha256:")


class Watch:
    """A task that collects events; `seen` returns when there are as many of the image's as are wanted."""

    def __init__(self, engine: ImageService) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()
        # What is before the beginning is of other images.
        self.task = asyncio.create_task(self._collect(engine, time.time() - 1))

    async def _collect(self, engine: ImageService, since: float) -> None:
        async for event in engine.events(since=since):
            self.events.append(event)
            self._more.set()

    async def seen(self, image: Image, count: int) -> list[Event]:
        async with asyncio.timeout(60):
            while True:
                mine = [event for event in self.events if image.id and image.is_in(event)]
                if len(mine) >= count:
                    return mine
                self._more.clear()
                await self._more.wait()

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


def actions(events: list[Event]) -> list[str]:
    return [event.action for event in events]


async def past(engine: ImageService, image: Image, since: float, filters: Filters | None = None) -> list[Event]:
    """Return what the Engine remembers of an image."""
    return [
        event async for event in engine.events(since=since, until=time.time(), filters=filters) if image.is_in(event)
    ]


async def test_the_life_of_an_image_is_told_as_it_happens_and_again_as_the_past(
    engine: ImageService, leftovers: Leftovers
) -> None:
    """Live and by `since` and `until`, the same events are the same values."""
    await engine.ping()
    before = leftovers.now()
    image, watch, began = Image(engine), Watch(engine), time.time()
    await image.begin()
    await image.end()
    events = await watch.seen(image, len(life()))
    await watch.stop()
    assert actions(events) == life()
    assert {event.type for event in events} == {"image"}
    assert {event.scope for event in events} == {"local"}
    for event in events:
        assert began - 1 < event.time_nano / 1e9 < time.time() + 1
        assert event.time is not None
        assert event.time.timestamp() == event.time_nano // 10**9
        assert event.actor is not None
        assert event.actor.attributes["name"]
    tagged = [event.actor.attributes["name"] for event in events if event.actor and event.action == "tag"]
    assert [name.removeprefix("docker.io/library/") for name in tagged] == [f"{image.name}:1", f"{image.name}:2"]

    assert await past(engine, image, began) == events
    assert [event async for event in engine.events(until=began - 3600) if image.is_in(event)] == []
    half = sorted(event.time_nano for event in events)[3]
    later = await past(engine, image, half / 10**9)
    assert 3 <= len(later) <= 5  # Docker's beginning is inclusive, Podman's is not and is rounded
    assert all(event in events for event in later)
    await leftovers.settle(before)


async def test_filters_choose_events(engine: ImageService) -> None:
    """By action, by image and by label; Podman's image events have no labels."""
    image, other, began = Image(engine), Image(engine), time.time()
    for each in (image, other):
        await each.begin()
        await each.end()
    some = [action for action in life() if action in ("delete", "save")]
    assert actions(await past(engine, image, began, {"event": ["delete", "save"]})) == some
    mine = [event async for event in engine.events(since=began, until="0s", filters={"image": image.id})]
    assert actions(mine) == life()
    assert all(image.is_in(event) for event in mine)
    named = await past(engine, image, began, {"image": f"{image.name}:2", "event": "tag"})
    assert actions(named) == ["tag"]
    labelled = [
        event async for event in engine.events(since=began, until="0s", filters={"label": {"name.of.test": image.name}})
    ]
    if is_podman():
        assert labelled == []
    else:
        assert actions(labelled)[:4] == life()[:4]  # the containerd store has none of them any more in an untag
        assert all(image.is_in(event) for event in labelled)


async def test_an_unknown_filter_is_an_error_of_podman_and_nothing_to_docker(engine: ImageService) -> None:
    image, began = Image(engine), time.time()
    await image.begin()
    await image.end()
    if is_podman():
        with pytest.raises(ServerError, match="nonsense is an invalid filter"):
            await past(engine, image, began, {"nonsense": "x"})
    else:
        assert actions(await past(engine, image, began, {"nonsense": "x"})) == life()


async def test_events_that_end_before_they_begin_are_an_error_on_docker_alone(engine: ImageService) -> None:
    events = engine.events(since="1m", until="2m")
    if is_podman():
        assert [event async for event in events] == []
    else:
        with pytest.raises(InvalidParameterError, match="cannot be after"):
            await anext(events)


def restart(engine: engines.Engine) -> None:
    engine.restart()


def kill_and_start(engine: engines.Engine) -> None:
    engine.kill()
    engine.start()


@pytest.mark.parametrize("ending", [restart, kill_and_start])
async def test_a_restart_in_the_middle_loses_and_repeats_nothing(
    leftovers: Leftovers, ending: Callable[[engines.Engine], None]
) -> None:
    """Neither what was before it, nor what happened after it while the watcher was not back yet."""
    before = leftovers.now()
    with engines.Engine(os.environ["ENGINE"]) as private:
        async with ImageService(private.host) as images:
            image, watch = Image(images), Watch(images)
            begun = 1 if is_podman() else 2
            await image.begin()
            await watch.seen(image, begun)
            await asyncio.to_thread(ending, private)
            await image.end()
            events = await watch.seen(image, len(life()))
            second = Image(images)
            await second.begin()
            await watch.seen(second, begun)
            await watch.stop()
            assert actions([event for event in watch.events if image.is_in(event)]) == life()
            assert actions([event for event in watch.events if second.is_in(event)]) == life()[:begun]
            assert events == watch.events[: len(events)]
    await leftovers.settle(before)


async def test_watching_leaves_the_engine_nothing_to_do(engine: ImageService, leftovers: Leftovers) -> None:
    """Twenty watches, each left at its first event, leave no connection and no task."""
    image = Image(engine)
    began = time.time()
    await image.begin()
    before = leftovers.now()
    for _ in range(20):
        async for event in engine.events(since=began - 1):
            assert event.action
            break
    await leftovers.settle(before)
    await image.end()

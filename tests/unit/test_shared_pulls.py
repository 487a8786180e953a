"""One pull for many watchers: each sees the newest state and the end, and the last to leave ends it or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from aiodocker_images import (
    ImageService,
    InvalidPlatformError,
    InvalidReferenceError,
    NotFoundError,
    ProgressTracker,
    PullState,
    ServiceClosedError,
    SharedPulls,
    StreamInterruptedError,
)
from tests.conftest import Leftovers
from tests.support.scripted import Exchange, ScriptedDaemon

DIGEST = "sha256:" + "1" * 64
LAYER = "0123456789ab"


class Pulls:
    """Pulls of a daemon that go on when they are told to."""

    def __init__(self, daemon: ScriptedDaemon) -> None:
        self.begun = 0
        self.ended = 0
        self.go_on = asyncio.Event()
        self.frames: list[object] = [
            {"status": "Downloading", "id": LAYER, "progressDetail": {"current": 1, "total": 4}}
        ]
        self.last: list[object] = [
            {"status": "Pull complete", "id": LAYER},
            {"status": f"Digest: {DIGEST}"},
            {"status": "Status: Downloaded newer image for app:1"},
        ]
        daemon.on("POST", "/images/create", self._answer)

    async def _answer(self, exchange: Exchange) -> None:
        self.begun += 1
        await exchange.head()
        await exchange.frames(*self.frames)
        gone, told = asyncio.ensure_future(exchange.client_gone()), asyncio.ensure_future(self.go_on.wait())
        await asyncio.wait({gone, told}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.ended += 1
        else:
            await exchange.frames(*self.last)
            await exchange.end()
        for each in (gone, told):
            each.cancel()
        await asyncio.wait({gone, told})


@pytest.fixture
def pulls(daemon: ScriptedDaemon) -> Pulls:
    return Pulls(daemon)


async def until(condition: object) -> None:
    async with asyncio.timeout(30):
        while not (condition() if callable(condition) else condition):
            await asyncio.sleep(0.005)


async def states(watching: AsyncGenerator[PullState, None]) -> list[PullState]:
    async with aclosing(watching):
        return [state async for state in watching]


async def test_two_watchers_share_one_pull_and_both_get_its_result(images: ImageService, pulls: Pulls) -> None:
    shared = SharedPulls(images)
    first = asyncio.ensure_future(states(shared.watch("app:1")))
    await until(lambda: pulls.begun)
    second = asyncio.ensure_future(states(shared.watch("docker.io/library/app:1")))
    await until(lambda: shared.active == ("app:1",))
    pulls.go_on.set()
    seen = await first, await second
    assert pulls.begun == 1
    for each in seen:
        result = each[-1].result
        assert result is not None
        assert result.digest == DIGEST
        assert each[-1].progress.fraction == 1.0
        assert all(state.result is None for state in each[:-1])
    assert shared.active == ()


async def test_a_late_watcher_begins_with_the_present_state(images: ImageService, pulls: Pulls) -> None:
    shared = SharedPulls(images)
    early = shared.watch("app:1")
    async for state in early:
        if state.progress.layers:
            break
    async with aclosing(shared.watch("app:1")) as late:
        present = await anext(late)
    assert present.progress.layers[0].id == LAYER
    assert present.to_dict()["progress"]["layers"][0]["current"] == 1
    await early.aclose()


async def test_the_pull_ends_with_its_last_watcher_on_the_engine_too(
    images: ImageService, pulls: Pulls, daemon: ScriptedDaemon, leftovers: Leftovers
) -> None:
    await images.ping()
    before = leftovers.now()
    shared = SharedPulls(images)
    first, second = shared.watch("app:1"), shared.watch("app:1")
    await anext(first)
    await anext(second)
    await until(lambda: pulls.begun)
    await first.aclose()
    assert (pulls.ended, shared.active) == (0, ("app:1",))
    await second.aclose()
    assert shared.active == ()
    await until(lambda: pulls.ended == 1)
    await leftovers.settle(before, within=30)


async def test_a_kept_pull_goes_on_when_its_last_watcher_has_left(images: ImageService, pulls: Pulls) -> None:
    shared = SharedPulls(images, keep=True)
    async with aclosing(shared.watch("app:1")) as watching:
        await anext(watching)
    assert shared.active == ("app:1",)
    pulls.go_on.set()
    await until(lambda: not shared.active)
    assert (pulls.begun, pulls.ended) == (1, 0)


async def test_a_slow_watcher_misses_states_and_holds_up_nobody(images: ImageService, pulls: Pulls) -> None:
    pulls.frames = [
        {"status": "Downloading", "id": LAYER, "progressDetail": {"current": each, "total": 5000}}
        for each in range(5000)
    ]
    pulls.go_on.set()
    shared = SharedPulls(images)
    slow = shared.watch("app:1")
    await anext(slow)
    fast = await states(shared.watch("app:1"))  # while the slow one takes nothing
    assert fast[-1].result is not None
    rest = [state async for state in slow]
    assert rest[-1].result == fast[-1].result
    assert len(rest) <= 2


async def test_a_failure_raises_for_every_watcher_with_a_traceback_of_its_own(
    images: ImageService, pulls: Pulls
) -> None:
    pulls.last = [{"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"}]
    shared = SharedPulls(images)
    watching = [asyncio.ensure_future(states(shared.watch("app:1"))) for _ in range(3)]
    await until(lambda: pulls.begun)
    pulls.go_on.set()
    errors = await asyncio.gather(*watching, return_exceptions=True)
    assert [type(error) for error in errors] == [NotFoundError] * 3
    assert len({id(error) for error in errors}) == 3
    pulls.last = [{"status": f"Digest: {DIGEST}"}, {"status": "Status: Image is up to date for app:1"}]
    assert (await states(shared.watch("app:1")))[-1].result is not None  # a new pull


async def test_closing_ends_the_pulls_and_tells_their_watchers(
    images: ImageService, pulls: Pulls, leftovers: Leftovers
) -> None:
    await images.ping()
    before = leftovers.now()
    async with SharedPulls(images) as shared:
        watching = asyncio.ensure_future(states(shared.watch("app:1")))
        await until(lambda: pulls.begun)
    with pytest.raises(ServiceClosedError, match="pull app:1: the shared pull was ended"):
        await watching
    with pytest.raises(ServiceClosedError, match="are closed"):
        await states(shared.watch("app:1"))
    await leftovers.settle(before, within=30)


async def test_a_cancelled_watcher_leaves_and_the_others_go_on(images: ImageService, pulls: Pulls) -> None:
    shared = SharedPulls(images)
    first, second = (asyncio.ensure_future(states(shared.watch("app:1"))) for _ in range(2))
    await until(lambda: pulls.begun)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    pulls.go_on.set()
    assert (await second)[-1].result is not None
    assert pulls.ended == 0


async def test_other_platforms_and_other_images_are_other_pulls(images: ImageService, pulls: Pulls) -> None:
    shared = SharedPulls(images)
    watching = [shared.watch("app:1"), shared.watch("app:2"), shared.watch("app:1", platform="linux/arm64")]
    for each in watching:
        await anext(each)
    assert len(shared.active) == 3
    for each in watching:
        await each.aclose()


async def test_wrong_arguments_are_told_at_the_call(images: ImageService) -> None:
    shared = SharedPulls(images)
    with pytest.raises(InvalidReferenceError):
        shared.watch("App:1")
    with pytest.raises(InvalidPlatformError):
        shared.watch("app:1", platform="a/b/c/d/e")


async def test_a_tracker_that_follows_a_stream_finishes_with_it(images: ImageService, pulls: Pulls) -> None:
    pulls.go_on.set()
    tracker = ProgressTracker()
    fractions = [tracker.fraction async for _ in tracker.follow(images.pull_stream("app:1"))]
    assert fractions[-1] != 1.0
    assert tracker.snapshot().fraction == 1.0
    assert tracker.snapshot().layers[0].done


async def test_a_tracker_does_not_finish_with_a_stream_that_fails(images: ImageService, daemon: ScriptedDaemon) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames({"status": "Pull complete", "id": LAYER})
        exchange.cut()

    daemon.on("POST", "/images/create", cut)
    tracker = ProgressTracker()
    with pytest.raises(StreamInterruptedError):
        async for _ in tracker.follow(images.pull_stream("app:1")):
            pass
    assert tracker.snapshot().fraction != 1.0

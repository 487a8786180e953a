"""Other programs on the same Engine: whatever they do between two requests of a run, they lose nothing by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiodocker_images import ImageService, MirrorJob, Retry, mirror
from tests.support.mirror_daemon import MirrorDaemon, canonical, digest_of
from tests.support.scripted import ScriptedDaemon
from tests.support.sweeps import spread

A, B, C = "a.example/", "b.example/", "c.example/"
SOURCE, TARGET = canonical(f"{A}app:1"), canonical(f"{B}app:1")
JOBS = [MirrorJob(SOURCE, TARGET), MirrorJob(SOURCE, canonical(f"{C}app:1"))]
KINDS = {
    "containerd store": {"graph": False, "compares": True},
    "graph-driver store": {"graph": True, "compares": True},
    "Podman": {"graph": False, "compares": False},
}


def builds_source(engine: MirrorDaemon) -> None:
    """Somebody builds an image under the source's name."""
    engine.builds(SOURCE, "theirs")


def builds_target(engine: MirrorDaemon) -> None:
    """Somebody builds an image under the target's name."""
    engine.builds(TARGET, "theirs")


def prunes(engine: MirrorDaemon) -> None:
    """Somebody removes all images without a tag."""
    for image in tuple(engine.state.images):
        names = [name for name, other in engine.state.local.items() if other == image]
        if all("@" in name for name in names):
            del engine.state.images[image]
            for name in names:
                del engine.state.local[name]


def prunes_all(engine: MirrorDaemon) -> None:
    """Somebody removes all images that the run pulled, with all their names."""
    for image, digest in tuple(engine.state.images.items()):
        if digest == digest_of("new"):
            del engine.state.images[image]
            engine.state.local = {name: other for name, other in engine.state.local.items() if other != image}


async def run(directory: Path, name: str, act: Callable[[MirrorDaemon], None], at: int) -> int:
    """Mirror while somebody acts before request `at`; check what must hold; return how many requests there were."""
    count = 0
    async with ScriptedDaemon(directory / f"{at}.sock") as daemon, ImageService(daemon.socket) as images:
        engine = MirrorDaemon(daemon, **KINDS[name])
        engine.publish(SOURCE, "new")
        engine.has(TARGET, "mine")
        seen: set[str] = set()

        async def watch(entry: str) -> None:
            nonlocal count
            # Called before and after each; only before, and one time.
            if entry in seen:
                seen.discard(entry)
                return
            seen.add(entry)
            count += 1
            if count == at:
                act(engine)

        engine.watch = watch
        retry = Retry(attempts=2, initial=0, jitter=0)
        outcomes = [outcome async for outcome in mirror(images, JOBS, retry=retry)]
        context = (at, engine.log, outcomes)
        assert {outcome.status for outcome in outcomes} == {"mirrored"}, context
        by_name = {name: engine.state.images[image] for name, image in engine.state.local.items()}
        held = set(engine.state.images.values())
        assert digest_of("mine") in held, context
        theirs = SOURCE if act is builds_source else TARGET if act is builds_target else None
        expected = {TARGET: digest_of("mine")}
        if theirs is not None and 0 < at <= count:
            expected[theirs] = digest_of("theirs")
        assert by_name == expected, context
        assert digest_of("new") not in held, context
        pushed = {engine.state.remote[job.target] for job in JOBS}
        assert len(pushed) == 1, context
        assert digest_of("theirs") not in pushed, context
    return count


ACTS = [builds_source, builds_target, prunes, prunes_all]


# With Podman a pull moves the source's tag, because it cannot say the digest first.
@pytest.mark.parametrize(
    ("name", "act"),
    [(name, act) for name in KINDS for act in ACTS if (name, act) != ("Podman", builds_source)],
    ids=[f"{name}, {act.__name__}" for name in KINDS for act in ACTS if (name, act) != ("Podman", builds_source)],
)
async def test_what_others_do_between_any_two_requests_costs_them_nothing(
    short_path: Path, name: str, act: Callable[[MirrorDaemon], None]
) -> None:
    """Their image and its name are there after; so is the image that had the target's name before."""
    requests = await run(short_path, name, act, 0)
    assert requests > 30
    for at in spread(range(1, requests + 1), 12):
        await run(short_path, name, act, at)

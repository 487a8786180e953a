"""What a copy would come to is what it comes to; signatures that were made at the target stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiodocker_images import CopyResult, OCILayout, Reference
from aiodocker_images._distribution.planned import PLANNED, Planned
from aiodocker_images._distribution.registry import RETRY, TALLY, Tally
from aiodocker_images._retry import Retry
from aiodocker_images.errors import DockerError, ServerError
from aiodocker_images.testing import FakeRegistry, Fault, Manifest, artifact, image, index, layer

from .conftest import Opened

TYPE = "application/vnd.example.signature"
WRITES = ("PUT", "POST", "PATCH", "DELETE")


def costs(result: CopyResult) -> tuple[object, ...]:
    """What a result says of the blobs; a plan does not know what a registry would have said to a mount."""
    return result.digest, result.skipped, result.manifests, result.blobs, result.bytes_moved, result.bytes_there


def writes(fake: FakeRegistry) -> int:
    return sum(fake.count(method) for method in WRITES)


BASE = layer(size=5000)
OLD = image([BASE, {"a": "old"}])
NEW = index(image([BASE, {"a": "new"}]), image(platform="linux/arm64"), attestations=True)


@pytest.mark.parametrize("like", ["oci", "distribution 2.8", "crane"])
@pytest.mark.parametrize("there", [None, OLD, NEW], ids=["nothing", "an older image", "the same"])
async def test_a_planned_copy_writes_nothing_and_tells_what_the_copy_then_moves(
    opened: Opened, like: str, there: Manifest | None
) -> None:
    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        source.put("app:1", NEW)
        if there is not None:
            target.put("app:1", there)
        ends = Reference.parse(source.name("app:1")), Reference.parse(target.name("app:1"))
        planned = await registries.plan_copy(*ends)
        assert (writes(target), source.count("GET blob")) == (0, 0)
        assert costs(planned) == costs(await registries.copy(*ends))
        assert target.has("app", NEW)


async def test_the_copies_of_one_plan_count_a_shared_layer_once(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        for tag, content in (("1", "one"), ("2", "two")):
            source.put(f"app:{tag}", image([BASE, {"a": content}]))
        PLANNED.set(Planned())
        results = [
            await registries.plan_copy(Reference.parse(source.name(f"app:{tag}")), Reference.parse(target.name(name)))
            for tag, name in (("1", "app:1"), ("2", "app:2"), ("2", "other:2"))
        ]
        assert [each.bytes_there for each in results] == [0, BASE.size, 0]
        assert (results[2].bytes_moved, results[2].bytes_mounted) == (0, results[0].bytes_moved)


@pytest.mark.parametrize("name", ["site", "site.tar"])
async def test_a_planned_copy_makes_no_layout_and_sees_what_is_in_one(
    opened: Opened, tmp_path: Path, name: str
) -> None:
    layout = OCILayout(tmp_path / name)
    async with FakeRegistry() as source, opened(source) as registries:
        source.put("app:1", OLD)
        source.put("app:2", NEW)
        old, new = (Reference.parse(source.name(f"app:{tag}")) for tag in "12")
        planned = await registries.plan_copy(old, layout)
        assert list(tmp_path.iterdir()) == []
        assert costs(planned) == costs(await registries.copy(old, layout))
        assert (await registries.plan_copy(old, layout)).skipped
        planned = await registries.plan_copy(new, layout)
        assert planned.bytes_there == BASE.size
        assert costs(planned) == costs(await registries.copy(new, layout))


SIGNED = image()
TAG = f"app:{SIGNED.digest.replace(':', '-')}.sig"
ONE, OTHER, BOTH = (artifact(TYPE, files) for files in ({"a": "one"}, {"b": "other"}, {"a": "one", "b": "other"}))


@pytest.mark.parametrize(
    ("here", "there", "then", "left"),
    [
        (ONE, None, ONE, ()),
        (BOTH, ONE, BOTH, ()),
        (ONE, BOTH, BOTH, ()),
        (ONE, OTHER, OTHER, (TAG.removeprefix("app:"),)),
    ],
    ids=["the first", "one more", "one fewer", "somebody else's"],
)
async def test_no_signature_that_only_the_target_has_is_lost(
    opened: Opened, here: Manifest, there: Manifest | None, then: Manifest, left: tuple[str, ...]
) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", SIGNED)
        source.put(TAG, here)
        if there is not None:
            target.put(TAG, there)
        ends = Reference.parse(source.name("app:1")), Reference.parse(target.name("app:1"))
        planned = await registries.plan_copy(*ends, referrers=True)
        result = await registries.copy(*ends, referrers=True)
        assert target.manifest(TAG).digest == then.digest
        assert (planned.left_tags, result.left_tags) == (left, left)


@pytest.mark.parametrize("like", ["oci", "crane", "distribution 2.8"])
async def test_a_copy_that_ended_before_its_tag_resumes_without_moving_bytes(opened: Opened, like: str) -> None:
    async with FakeRegistry() as source, FakeRegistry(like) as target:
        source.put("app:1", NEW)
        async with opened(source, target, retry=Retry(attempts=1)) as registries:
            target.fail(Fault.refuse(500), on="PUT manifest", reference="1")
            with pytest.raises(ServerError):
                await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.tags("app") == {}
        moved, stored = source.count("GET blob"), target.count("PUT manifest")
        async with opened(source, target) as registries:  # which remembers nothing
            result = await registries.copy(source.name("app:1"), target.name("app:1"), resume=True)
        assert (source.count("GET blob"), target.count("PUT manifest")) == (moved, stored + 1)
        assert (result.bytes_moved, result.digest) == (0, NEW.digest)
        assert target.has("app", NEW)


async def test_a_run_counts_what_its_copies_cost_and_says_how_often_they_try(opened: Opened) -> None:
    heard: list[DockerError] = []
    paused: list[tuple[str, float]] = []
    tally = Tally(
        on_retry=lambda error, _: heard.append(error), on_pause=lambda name, seconds: paused.append((name, seconds))
    )
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", OLD)
        source.fail(Fault.refuse(503), on="GET blob", times=2)
        target.fail(Fault.refuse(429, retry_after=0))
        TALLY.set(tally)
        RETRY.set(Retry(attempts=3, initial=0, jitter=0))
        result = await registries.copy(source.name("app:1"), target.name("app:1"))
        assert (tally.requests, tally.retries) == (result.requests, result.retries)
        assert tally.requests == len(source.requests) + len(target.requests)
        assert (tally.retries, len(heard)) == (3, 3)
        assert tally.bytes == {"moved": result.bytes_moved}
        assert paused == [(target.host, 0)]
        RETRY.set(Retry(attempts=1))
        source.put("app:2", image(platform="linux/s390x"))
        source.fail(Fault.refuse(503), on="GET blob")
        with pytest.raises(ServerError):
            await registries.copy(source.name("app:2"), target.name("app:2"))
        assert len(heard) == 3

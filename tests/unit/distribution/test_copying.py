"""Copies from registry to registry: what is brought, how often, in which order, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable

import pytest

from aiodocker_images import (
    CopyStep,
    InvalidPlatformError,
    InvalidReferenceError,
    NotFoundError,
    RegistryConfig,
    ServerError,
    TagImmutableError,
    UnsupportedManifestError,
)
from aiodocker_images.testing import (
    BEHAVIOURS,
    BasicAuth,
    FakeRegistry,
    Fault,
    Manifest,
    TokenAuth,
    artifact,
    image,
    index,
    layer,
)

from .conftest import Opened

WRITES = ("POST upload", "PATCH upload", "PUT upload", "PUT manifest")

SHARED = layer(size=5000)


def shared_layers(indent: int | None = 3) -> Manifest:
    """Return an index of two platforms that share a layer, with attestations, in an odd form."""
    return index(
        image(layers=[SHARED, {"a": "amd64"}]),
        image(layers=[SHARED, {"a": "arm64"}], platform="linux/arm64"),
        attestations=True,
        indent=indent,
        annotations={"org.example": "kept"},
    )


def most(content: Manifest) -> int:
    """Return how many requests the copy of this to an empty target may cost."""
    return 2 + 2 * len(list(content.walk())) + 3 * len(content.all_blobs())


IMAGES: dict[str, Callable[[], Manifest]] = {
    "an index with attestations": shared_layers,
    "an image": image,
    "a Docker image": lambda: image(format="docker"),
    "a manifest list": lambda: index(format="docker"),
    "an index in an index": lambda: index(index(), image(platform="linux/s390x")),
    "an artifact": lambda: artifact("application/vnd.example", {"a": b"1", "b": b"2"}),
    "an artifact in an index": lambda: index(image(), artifact("application/vnd.example", {"a": b"1"})),
    "an image without layers": lambda: image(layers=0),
    "an image with the same layer twice": lambda: image(layers=[SHARED, SHARED]),
}


@pytest.mark.parametrize("content", IMAGES.values(), ids=IMAGES)
async def test_a_copy_has_the_same_bytes_within_the_promised_requests(
    opened: Opened, content: Callable[[], Manifest]
) -> None:
    made = content()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        result = await registries.copy(source.name("app:1"), target.name("mirror/app:1"))
        assert target.has("mirror/app", made)
        assert target.tags("mirror/app") == {"1": made.digest}
        assert (result.digest, result.source_digest, result.skipped) == (made.digest, made.digest, False)
        assert result.bytes_moved == sum(each.size for each in made.all_blobs().values())
        assert (result.manifests, result.blobs) == (len(list(made.walk())), len(made.all_blobs()))
        assert result.requests == source.count() + target.count() <= most(made)
        assert result.retries == 0


@pytest.mark.parametrize("like", [name for name in BEHAVIOURS if name not in {"v1", "ociserver", "pulp"}])
async def test_copying_to_an_empty_target_stays_within_the_promised_requests(opened: Opened, like: str) -> None:
    made = shared_layers()
    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.create("app")
        result = await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)
        assert result.requests <= most(made)


@pytest.mark.parametrize("like", ["ociserver", "pulp"])
async def test_a_404_to_a_mount_costs_two_more_requests_once(opened: Opened, like: str) -> None:
    made = shared_layers()
    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        source.put("app:1", made)
        result = await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)
        assert result.requests <= most(made) + 2


@pytest.mark.parametrize("like", [name for name in BEHAVIOURS if name != "v1"])
async def test_what_is_equal_costs_two_heads(opened: Opened, like: str) -> None:
    made = shared_layers()
    async with FakeRegistry(like) as source, FakeRegistry(like) as target, opened(source, target) as registries:
        for fake in (source, target):
            fake.create("app")
            fake.put("app:1", made)
        result = await registries.copy(source.name("app:1"), target.name("app:1"))
        assert (result.skipped, result.digest, result.requests) == (True, made.digest, 2)
        assert source.counts == target.counts == {"HEAD manifest": 1}
        assert sum(each.bytes_out for each in source.requests + target.requests) == 0


async def test_the_tag_is_written_last_and_children_before_their_parents(opened: Opened) -> None:
    made = index(index(), image(platform="linux/s390x"))
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        await registries.copy(source.name("app:1"), target.name("app:1"))
        written = [each for each in target.requests if each.method == "PUT"]
        order = [each.reference for each in written if each.step == "PUT manifest"]
        assert order[-1] == "1"
        assert target.requests[-1].reference == "1"
        nested = made.manifests[0]
        assert all(order.index(child.digest) < order.index(nested.digest) for child in nested.manifests)


async def test_what_was_copied_is_mounted_into_other_repositories_without_bytes(opened: Opened) -> None:
    made = shared_layers()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        await registries.copy(source.name("app:1"), target.name("one:1"))
        result = await registries.copy(source.name("app:1"), target.name("two:1"))
        assert target.has("two", made)
        assert result.bytes_moved == 0
        assert result.bytes_mounted == sum(each.size for each in made.all_blobs().values())
        assert result.requests <= 2 + 2 * len(list(made.walk())) + len(made.all_blobs())


@pytest.mark.parametrize("auth", [None, TokenAuth("alice", "secret"), BasicAuth("alice", "secret")])
async def test_a_copy_within_a_registry_mounts_the_blobs(opened: Opened, auth: TokenAuth | None) -> None:
    made = shared_layers()
    async with FakeRegistry(auth=auth) as fake, opened(fake) as registries:
        fake.put("app:1", made)
        result = await registries.copy(fake.name("app:1"), fake.name("copy/of/app:1"))
        assert fake.has("copy/of/app", made)
        assert (result.bytes_moved, fake.count("GET blob"), fake.count("PUT upload")) == (0, 0, 0)


async def test_blobs_are_mounted_from_the_repositories_that_the_caller_names(opened: Opened) -> None:
    made = shared_layers()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.put("base:1", image(layers=[SHARED]))
        result = await registries.copy(
            source.name("app:1"), target.name("app:1"), mount_from=[target.name("base"), "elsewhere.example/x"]
        )
        assert result.bytes_mounted == SHARED.size
        assert target.has("app", made)


async def test_a_mount_that_is_forbidden_becomes_an_upload(opened: Opened) -> None:
    made = image()
    auth = TokenAuth("alice", "secret", allow=lambda account, repository, action: repository != "theirs")
    async with FakeRegistry() as source, FakeRegistry(auth=auth) as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.put("theirs:1", made)
        result = await registries.copy(source.name("app:1"), target.name("ours:1"), mount_from=[target.name("theirs")])
        assert target.has("ours", made)
        assert result.bytes_mounted == 0


@pytest.mark.parametrize("like", ["oci", "distribution 2.8", "crane", "ociserver", "pulp"])
async def test_of_an_image_that_is_half_there_the_other_half_is_moved(opened: Opened, like: str) -> None:
    made = shared_layers()
    more = index(*made.manifests, image(layers=[SHARED, {"a": "new"}], platform="linux/s390x"))
    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        source.put("app:1", more)
        target.put("app:1", made)
        result = await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", more)
        assert target.tags("app") == {"1": more.digest}
        new = more.manifests[-1]
        assert result.bytes_moved == sum(each.size for each in new.blobs if each != SHARED)
        # The children that are there cost a HEAD each, and nothing of them is read.
        assert source.count("GET manifest") == 2
        assert target.count("PUT manifest") == 2


async def test_a_new_tag_moves_only_what_is_new(opened: Opened) -> None:
    old, new = image(layers=[SHARED, {"v": "1"}]), image(layers=[SHARED, {"v": "2"}])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:2", new)
        target.put("app:1", old)
        result = await registries.copy(source.name("app:2"), target.name("app:2"))
        assert result.bytes_there == SHARED.size + new.config.size * (new.config == old.config)
        assert target.has("app", new)


async def test_copies_at_once_bring_each_blob_once(opened: Opened) -> None:
    images = [image(layers=[SHARED, {"number": str(number)}]) for number in range(6)]
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        for number, each in enumerate(images):
            source.put(f"app:{number}", each)
        await asyncio.gather(
            *(
                registries.copy(source.name(f"app:{number}"), target.name(f"repository{number % 3}:{number}"))
                for number in range(6)
            )
        )
        for number, each in enumerate(images):
            assert target.has(f"repository{number % 3}", each)
        assert source.count("GET blob", reference=SHARED.digest) == 1
        assert len({each.digest for made in images for each in made.blobs}) == target.count("PUT upload")


async def test_a_copy_brings_a_blob_itself_if_the_one_it_waits_for_fails(opened: Opened) -> None:
    made = image(layers=[SHARED])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        stalled = target.fail(Fault.stall(of="request"), on="PUT upload")
        first = asyncio.create_task(registries.copy(source.name("app:1"), target.name("one:1")))
        await stalled.reached()
        second = asyncio.create_task(registries.copy(source.name("app:1"), target.name("two:1")))
        await asyncio.sleep(0.05)
        first.cancel()
        await second
        assert target.has("two", made)
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_what_was_there_and_is_gone_is_brought_again(opened: Opened) -> None:
    made = image()
    async with FakeRegistry() as source, FakeRegistry("distribution 2.8") as target:
        async with opened(source, target) as registries:
            source.put("app:1", made)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            # The registry collects its garbage.
            target.remove("app:1")
            for blob in made.blobs:
                target.remove_blob("app", blob.digest)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)


async def test_force_copies_what_is_there(opened: Opened) -> None:
    made = shared_layers()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        for fake in (source, target):
            fake.put("app:1", made)
        target.remove_blob("app", SHARED.digest)
        assert (await registries.copy(source.name("app:1"), target.name("app:1"))).skipped
        result = await registries.copy(source.name("app:1"), target.name("app:1"), force=True)
        assert not result.skipped
        assert target.has("app", made)


async def test_verify_finds_a_registry_that_stores_something_else(opened: Opened) -> None:
    made = image()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        result = await registries.copy(source.name("app:1"), target.name("app:1"), verify=True)
        assert result.digest == made.digest
        assert target.requests[-1].step == "HEAD manifest"


# Names


async def test_a_target_without_a_tag_gets_the_sources(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        made = image()
        fake.put("app:1.0", made)
        fake.put("app:latest", made)
        await registries.copy(fake.name("app:1.0"), fake.name("a"))
        await registries.copy(fake.name("app"), fake.name("b"))
        await registries.copy(fake.name(f"app@{made.digest}"), fake.name("c"))
        await registries.copy(fake.name(f"app:1.0@{made.digest}"), fake.name("d"))
        assert [fake.tags(name) for name in "abcd"] == [
            {"1.0": made.digest},
            {"latest": made.digest},
            {},
            {"1.0": made.digest},
        ]
        assert fake.has("c", made)


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("app", "other@sha256:" + "0" * 64, InvalidReferenceError),
        ("UPPER", "app", InvalidReferenceError),
        ("app", "a b", InvalidReferenceError),
        ("app", "", InvalidReferenceError),
    ],
)
async def test_a_wrong_name_is_refused_before_anything_is_sent(
    opened: Opened, source: str, target: str, kind: type[Exception]
) -> None:
    async with opened() as registries:
        with pytest.raises(kind):
            await registries.copy(source, target)
        with pytest.raises(kind):
            async with contextlib.aclosing(registries.copy_stream(source, target)) as steps:
                await anext(steps)


# Platforms


async def test_some_platforms_become_a_new_index_with_their_attestations(opened: Opened) -> None:
    made = shared_layers()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        for platforms in ("linux/arm64", ["linux/arm64"]):
            result = await registries.copy(source.name("app:1"), target.name("app:1"), platforms=platforms)
        assert result.skipped
        assert (result.source_digest, result.digest) == (made.digest, target.tags("app")["1"])
        assert result.digest != made.digest
        manifest = await registries.manifest(target.name("app:1"))
        arm, attestation = made.manifests[1], made.manifests[3]
        assert [each.digest for each in manifest.manifests] == [arm.digest, attestation.digest]
        assert manifest.annotations == {"org.example": "kept"}
        assert source.count("GET blob") == len(arm.blobs) + len(attestation.blobs)


async def test_a_sparse_index_keeps_its_digest_where_the_registry_takes_it(opened: Opened) -> None:
    made = index()
    takes = dataclasses.replace(BEHAVIOURS["oci"], missing_child=0)
    async with FakeRegistry() as source, FakeRegistry(takes) as target, FakeRegistry() as other:
        async with opened(source, target, other) as registries:
            source.put("app:1", made)
            result = await registries.copy(
                source.name("app:1"), target.name("app:1"), platforms=["linux/arm64"], sparse=True
            )
            assert result.digest == made.digest
            assert target.tags("app") == {"1": made.digest}
            assert made.manifests[0].digest not in target.manifests("app")
            with pytest.raises(NotFoundError):
                await registries.copy(source.name("app:1"), other.name("app:1"), platforms=["linux/arm64"], sparse=True)
            assert other.tags("app") == {}


async def test_a_single_image_is_copied_if_it_is_of_the_platform(opened: Opened) -> None:
    made = image(platform="linux/arm64")
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        with pytest.raises(NotFoundError, match="has the platform linux/arm64 alone"):
            await registries.copy(source.name("app:1"), target.name("app:1"), platforms="linux/amd64")
        assert not target.asked("POST upload")
        await registries.copy(source.name("app:1"), target.name("app:1"), platforms="linux/arm64")
        assert target.has("app", made)


async def test_a_platform_that_is_not_there_is_told_before_anything_is_written(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", index())
        with pytest.raises(NotFoundError, match="linux/s390x"):
            await registries.copy(source.name("app:1"), target.name("app:1"), platforms=["linux/s390x"])
        assert target.counts == {"HEAD manifest": 1}


async def test_wrong_options_are_refused_at_once(opened: Opened) -> None:
    async with opened() as registries:
        with pytest.raises(InvalidPlatformError):
            await registries.copy("a", "b", platforms=["not a platform"])
        with pytest.raises(ValueError, match="platforms is empty"):
            await registries.copy("a", "b", platforms=[])
        with pytest.raises(ValueError, match="sparse"):
            await registries.copy("a", "b", sparse=True)


# Refusals of the target


async def test_a_repository_that_must_exist_is_told_before_any_blob_is_read(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry("ecr") as target, opened(source, target) as registries:
        source.put("app:1", image())
        with pytest.raises(NotFoundError, match="want a repository to be created before") as caught:
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert caught.value.endpoint == target.host
        assert caught.value.operation == f"copy {source.host}/app:1 to {target.host}/app:1"
        assert source.count("GET blob") == 0


async def test_an_immutable_tag_succeeds_only_if_it_is_equal(opened: Opened) -> None:
    immutable = dataclasses.replace(BEHAVIOURS["oci"], immutable_tags=True)
    made = image()
    async with FakeRegistry() as source, FakeRegistry(immutable) as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.put("app:1", made)
        await registries.copy(source.name("app:1"), target.name("app:1"), force=True)
        source.put("app:1", image(indent=1))
        with pytest.raises(TagImmutableError) as caught:
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert caught.value.endpoint == target.host
        assert target.tags("app") == {"1": made.digest}
        assert target.count("PUT manifest") == 2


async def test_a_manifest_that_the_target_refuses_is_never_replaced_by_another(opened: Opened) -> None:
    made = index()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        old = target.put("app:1", image())
        for fault in (Fault.refuse(400), Fault.refuse(413), Fault.refuse(500), Fault.refuse(415)):
            with target.fail(fault, on="PUT manifest", reference="1", times=None):
                with pytest.raises(Exception, match="status"):
                    await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.tags("app") == {"1": old}
            assert {each.headers["content-type"] for each in target.asked("PUT manifest", reference="1")} == {
                made.media_type
            }


# Strange sources


async def test_indexes_that_contain_each_other_end(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        made: Manifest = image()
        for _ in range(12):
            made = index(made)
        source.put("app:1", made)
        with pytest.raises(UnsupportedManifestError, match="nested more than 8 deep"):
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.tags("app") == {}


async def test_a_child_that_is_missing_at_the_source_leaves_the_old_tag(opened: Opened) -> None:
    made = index()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        source.remove(f"app@{made.manifests[1].digest}")
        old = target.put("app:1", image())
        with pytest.raises(NotFoundError) as caught:
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert caught.value.endpoint == source.host
        assert target.tags("app") == {"1": old}


# Concurrency


async def test_no_more_blobs_move_at_once_than_allowed_and_small_ones_pass(opened: Opened) -> None:
    layers = [layer(size=2_000_000, seed=number) for number in range(5)]
    made = image(layers=layers)
    async with FakeRegistry() as source, FakeRegistry() as target:
        configs = {source.host: RegistryConfig(concurrency=2)}
        async with opened(source, target, registries=configs) as registries:
            source.put("app:1", made)
            stalled = [source.fail(Fault.stall(after=100), on="GET blob", reference=each.digest) for each in layers]
            copying = asyncio.create_task(registries.copy(source.name("app:1"), target.name("app:1")))
            while sum(each.hits for each in stalled) < 2:
                await asyncio.sleep(0.005)
            while made.config.digest not in target.blobs():
                await asyncio.sleep(0.005)
            assert sum(each.hits for each in stalled) == 2
            for each in stalled:
                each.release()
            await copying
            assert target.has("app", made)


# Progress


async def test_progress_is_told_to_a_function_or_a_coroutine_function(opened: Opened) -> None:
    made = image(layers=[layer(size=2_000_000)])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        steps: list[CopyStep] = []

        async def note(step: CopyStep) -> None:
            await asyncio.sleep(0)
            steps.append(step)

        await registries.copy(source.name("app:1"), target.name("one:1"), on_progress=note)
        big = made.layers[0]
        moving = [step.current for step in steps if step.status == "moving" and step.digest == big.digest]
        assert moving == sorted(moving)
        assert len(moving) > 2
        whole = sum(each.size for each in made.blobs)
        assert [step.status for step in steps if step.digest == big.digest][-1] == "moved"
        assert (steps[-1].kind, steps[-1].digest) == ("manifest", made.digest)
        assert (steps[-1].done_bytes, steps[-1].all_bytes) == (whole, whole)
        assert all(step.done_bytes <= step.all_bytes for step in steps)

        steps.clear()
        await registries.copy(source.name("app:1"), target.name("two:1"), on_progress=steps.append)
        assert {step.status for step in steps if step.kind == "blob"} == {"mounted"}


async def test_a_stream_of_steps_ends_with_the_result(opened: Opened) -> None:
    made = image()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        steps = [step async for step in registries.copy_stream(source.name("app:1"), target.name("app:1"))]
        assert steps[-1].kind == "result"
        assert steps[-1].result is not None
        assert steps[-1].result.digest == made.digest
        steps = [step async for step in registries.copy_stream(source.name("app:1"), target.name("app:1"))]
        assert [(step.kind, step.status) for step in steps] == [("result", "there")]


async def test_leaving_a_stream_of_steps_ends_the_copy(opened: Opened) -> None:
    made = image(layers=[layer(size=2_000_000)])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        source.fail(Fault.stall(after=1_000_000), on="GET blob", reference=made.layers[0].digest)
        async with contextlib.aclosing(registries.copy_stream(source.name("app:1"), target.name("app:1"))) as steps:
            async for step in steps:
                if step.status == "moving":
                    break
        assert target.uploads == []
        assert target.tags("app") == {}
        await source.idle(keep_alive=True)


async def test_what_a_callback_raises_ends_the_copy_and_comes_out(opened: Opened) -> None:
    made = image(layers=[layer(size=2_000_000)])

    def fail(step: CopyStep) -> None:
        raise LookupError("the caller's own")

    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        with pytest.raises(LookupError, match="the caller's own"):
            await registries.copy(source.name("app:1"), target.name("app:1"), on_progress=fail)
        assert target.tags("app") == {}


async def test_one_copy_that_fails_harms_no_other(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        for number in range(4):
            source.put(f"app:{number}", image(layers=[{"n": str(number)}]))
        broken = source.manifest("app:2")
        source.fail(Fault.refuse(500), on="GET manifest", reference=broken.digest, times=None)
        results = await asyncio.gather(
            *(registries.copy(source.name(f"app:{number}"), target.name(f"app:{number}")) for number in range(4)),
            return_exceptions=True,
        )
        assert [isinstance(each, ServerError) for each in results] == [False, False, True, False]
        assert sorted(target.tags("app")) == ["0", "1", "3"]

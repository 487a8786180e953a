"""Copies of what is odd, and of much at once: nothing waits for itself, nothing is left out, and all is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from aiodocker_images import DigestMismatchError, RegistryConfig, UnsupportedManifestError
from aiodocker_images._distribution import copying, registry
from aiodocker_images.testing import FakeRegistry, Fault, Manifest, image, index, layer
from aiodocker_images.testing.content import Blob

from .conftest import Opened


async def test_uploads_that_are_refused_for_now_do_not_wait_for_each_other(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REQUESTS_AT_ONCE", 1)
    made = image(layers=[layer({"a": str(number)}) for number in range(8)])
    async with FakeRegistry() as source, FakeRegistry() as target:
        async with opened(source, target, concurrency=1) as registries:
            source.put("app:1", made)
            target.fail(Fault.refuse(429, retry_after=0), on="PUT upload", times=3)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)


async def test_a_layer_that_is_also_a_manifest_is_stored_as_both(opened: Opened) -> None:
    inner = image()
    outer = image(layers=[Blob(data=inner.data, media_type="application/vnd.oci.image.layer.v1.tar")])
    made = index(inner, outer)
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)


def without_digest(fake: FakeRegistry) -> None:
    fake.fail(Fault.header("Docker-Content-Digest", None), on="HEAD manifest", times=None)


async def test_a_part_is_copied_if_the_target_does_not_answer_head(opened: Opened) -> None:
    made = index()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.put("app:1", image(layers=1))
        target.fail(Fault.refuse(405), on="HEAD manifest", times=None)
        await registries.copy(source.name("app:1"), target.name("app:1"), verify=True)
        assert target.has("app", made)


async def test_verify_reads_what_is_stored_if_head_does_not_tell_its_digest(opened: Opened) -> None:
    made, other = image(), image(platform="linux/s390x")
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.put("app:1", other)
        without_digest(target)
        target.fail(Fault.refuse(200, body=other.data), on="GET manifest", times=None)
        with pytest.raises(DigestMismatchError, match=f"is {other.digest} after {made.digest} was stored"):
            await registries.copy(source.name("app:1"), target.name("app:1"), verify=True)


def nested(children: int) -> Manifest:
    entries = [index(image(platform=f"linux/amd64/v{number}")) for number in range(children)]
    return index(*entries)


async def test_manifests_are_counted_before_they_are_fetched(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "MAX_MANIFESTS", 9)
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", nested(5))
        with pytest.raises(UnsupportedManifestError, match="more than 9 manifests"):
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.tags("app") == {}
        target.forget_uploads()  # one may have been asked for just when the copy ended
        source.put("app:2", nested(4))
        await registries.copy(source.name("app:2"), target.name("app:2"))


async def test_the_bytes_of_all_manifests_are_limited(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    made = index()
    monkeypatch.setattr(copying, "MAX_BYTES", sum(each.size for each in made.walk()) - 1)
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        with pytest.raises(UnsupportedManifestError, match="more than .* bytes"):
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.tags("app") == {}
        target.forget_uploads()


LIES = {"another content": Fault.lie(), "too much": Fault.refuse(200, body=b"x" * 100_000)}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_mirror_that_lies_about_several_blobs_is_asked_no_more(opened: Opened, lie: Fault) -> None:
    made = image(layers=[layer({"a": str(number)}) for number in range(5)])
    async with FakeRegistry() as mirror, FakeRegistry() as source, FakeRegistry() as target:
        configs = {source.host: RegistryConfig(mirrors=(mirror.host,))}
        async with opened(mirror, source, target, registries=configs) as registries:
            for each in (mirror, source):
                each.put("app:1", made)
            mirror.fail(lie, on="GET blob", times=None)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)
            assert json.loads(target.manifest("app:1").data) == made.document


async def test_a_cancellation_while_a_copy_is_given_up_is_not_lost(opened: Opened) -> None:
    made = image(layers=[layer(size=3_000_000)])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        source.fail(Fault.stall(after=1_500_000), on="GET blob", reference=made.layers[0].digest)
        giving_up = target.fail(Fault.stall(), on="DELETE upload")

        async def watch() -> None:
            async with contextlib.aclosing(registries.copy_stream(source.name("app:1"), target.name("app:1"))) as steps:
                async for step in steps:
                    if step.status == "moving":
                        break

        watching = asyncio.create_task(watch())
        await giving_up.reached()
        watching.cancel()
        await asyncio.sleep(0)
        giving_up.release()
        with pytest.raises(asyncio.CancelledError):
            await watching

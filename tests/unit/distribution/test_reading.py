"""Digests, manifests, images, tags and blobs of registries, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable

import pytest

from aiodocker_images import (
    DigestMismatchError,
    DockerError,
    FrameDecodeError,
    InvalidReferenceError,
    NotFoundError,
    RateLimit,
    RateLimitedError,
    RegistryConfig,
    RegistryService,
    RegistryUnreachableError,
    Retry,
    ServerError,
    ServiceClosedError,
    StreamInterruptedError,
    StreamStalledError,
    UnsupportedManifestError,
)
from aiodocker_images.models import Platform
from aiodocker_images.testing import BEHAVIOURS, FakeRegistry, Fault, TokenAuth, artifact, image, index, random_bytes
from tests.conftest import Leftovers
from tests.support.sweeps import spread

from .conftest import AT_ONCE, Opened


async def blob(registries: RegistryService, repository: str, digest: str) -> bytes:
    return b"".join([piece async for piece in registries.blob_stream(repository, digest)])


# Digests


@pytest.mark.parametrize("like", [name for name in BEHAVIOURS if name not in {"v1", "ecr"}])
async def test_a_digest_costs_one_head(opened: Opened, like: str) -> None:
    async with FakeRegistry(like) as fake, opened(fake) as registries:
        content = index(attestations=True)
        fake.put("app:1", content)
        assert await registries.digest(fake.name("app:1")) == content.digest
        assert fake.counts == {"HEAD manifest": 1}


async def test_a_registry_that_does_not_tell_digests_is_asked_for_the_manifest(opened: Opened) -> None:
    silent = dataclasses.replace(BEHAVIOURS["oci"], content_digest=False)
    async with FakeRegistry(silent) as fake, opened(fake) as registries:
        content = index()
        fake.put("app:1", content)
        assert await registries.digest(fake.name("app:1")) == content.digest
        assert fake.counts == {"HEAD manifest": 1, "GET manifest": 1}


@pytest.mark.parametrize("status", [404, 405])
async def test_a_registry_that_does_not_answer_head_is_asked_for_the_manifest(opened: Opened, status: int) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        content = index()
        fake.put("app:1", content)
        fake.fail(Fault.refuse(status), on="HEAD manifest")
        assert await registries.digest(fake.name("app:1")) == content.digest


async def test_an_image_that_is_not_there_is_told_with_the_registrys_words(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        with pytest.raises(NotFoundError, match="MANIFEST_UNKNOWN") as caught:
            await registries.digest(fake.name("app:2"))
        assert caught.value.code == "MANIFEST_UNKNOWN"
        assert (caught.value.method, caught.value.path) == ("GET", "/v2/app/manifests/2")
        assert caught.value.endpoint == fake.host


async def test_a_registry_that_names_another_digest_is_not_believed(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        content = image()
        fake.put("app:1", content)
        fake.fail(Fault.header("Docker-Content-Digest", "sha256:" + "0" * 64), on="HEAD manifest")
        with pytest.raises(DigestMismatchError) as caught:
            await registries.digest(fake.name(f"app@{content.digest}"))
        assert caught.value.who == fake.name("app")


# Manifests


@pytest.mark.parametrize("like", [name for name in BEHAVIOURS if name != "v1"])
async def test_a_manifest_keeps_its_bytes(opened: Opened, like: str) -> None:
    async with FakeRegistry(like) as fake, opened(fake) as registries:
        fake.create("app")
        for content in (index(attestations=True, indent=3), image(format="docker"), image(indent=1)):
            fake.put("app:1", content)
            for name in ("app:1", f"app@{content.digest}", f"app:other@{content.digest}"):
                manifest = await registries.manifest(fake.name(name))
                assert (manifest.data, manifest.digest, manifest.media_type) == (
                    content.data,
                    content.digest,
                    content.media_type,
                )


LIES = {
    "body": Fault.lie(after=20),
    "header": Fault.lie(about="digest"),
}


@pytest.mark.parametrize("fault", LIES.values(), ids=LIES)
@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_a_manifest_that_is_not_what_the_registry_says_is_refused(opened: Opened, fault: Fault, by: str) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        content = index()
        fake.put("app:1", content)
        fake.fail(fault, on="GET manifest")
        with pytest.raises(DigestMismatchError, match=fake.name("app")) as caught:
            await registries.manifest(fake.name("app:1" if by == "tag" else f"app@{content.digest}"))
        assert caught.value.expected != caught.value.actual


async def test_a_manifest_may_break_at_every_byte(opened: Opened) -> None:
    async with FakeRegistry() as fake:
        content = image()
        fake.put("app:1", content)
        async with opened(fake) as registries:
            for after in spread(range(content.size), 24):
                injected = fake.fail(Fault.cut(after=after), on="GET manifest")
                assert (await registries.manifest(fake.name("app:1"))).data == content.data
                assert injected.hits == 1


STRANGE = {
    "a web page": (Fault.html(), RegistryUnreachableError, "web page"),
    "not JSON": (Fault.refuse(200, body=b"hello"), FrameDecodeError, "not what it should be"),
    "another document": (Fault.refuse(200, body=b'{"a": 1}'), UnsupportedManifestError, "neither a manifest"),
    "too long": (Fault.refuse(200, body=b" " * (5 << 20)), FrameDecodeError, "longer than 4194304 bytes"),
    "nothing": (Fault.refuse(200, body=b""), FrameDecodeError, "not what it should be"),
}


@pytest.mark.parametrize(("fault", "kind", "words"), STRANGE.values(), ids=STRANGE)
async def test_what_is_not_a_manifest_is_a_clear_error(
    opened: Opened, fault: Fault, kind: type[DockerError], words: str
) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.fail(fault, on="GET manifest")
        with pytest.raises(kind, match=words) as caught:
            await registries.manifest(fake.name("app:1"))
        assert caught.value.operation == f"manifest {fake.host}/app:1"
        assert caught.value.endpoint == fake.host


# Images


async def test_an_image_has_its_indexs_platforms_and_one_configuration(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        content = index(attestations=True)
        fake.put("app:1", content)
        found = await registries.image(fake.name("app:1"))
        assert found.descriptor is not None
        assert found.descriptor.digest == content.digest
        assert found.platforms == (Platform.parse("linux/amd64"), Platform.parse("linux/arm64"))
        assert (found.manifest, found.id, found.config) == (None, "", None)

        arm = await registries.image(fake.name("app:1"), platform="linux/arm64")
        assert arm.manifest is not None
        assert arm.manifest.digest == content.manifests[1].digest
        assert arm.id == content.manifests[1].config.digest
        assert (arm.os, arm.architecture) == ("linux", "arm64")
        assert arm.config is not None
        assert arm.config.cmd == ("/bin/sh",)
        assert arm.root_fs is not None
        assert arm.root_fs.layers == tuple(layer.diff_id for layer in content.manifests[1].layers)
        assert arm.created == datetime.datetime(2024, 5, 1, 10, 11, 12, tzinfo=datetime.UTC)
        assert [step.created_by for step in arm.history] == ["ADD 0 for linux/arm64"]


async def test_an_image_without_an_index_has_one_platform(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image(platform="linux/arm/v7"))
        found = await registries.image(fake.name("app:1"))
        assert found.platforms == (Platform.parse("linux/arm/v7"),)


async def test_an_image_of_a_platform_that_is_not_there_is_not_found(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", index())
        with pytest.raises(NotFoundError, match="linux/s390x"):
            await registries.image(fake.name("app:1"), platform="linux/s390x")


async def test_a_configuration_that_is_not_one_is_a_clear_error(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", artifact("application/vnd.example", {"a": b"1"}))
        assert (await registries.image(fake.name("app:1"))).config is None
        content = image()
        fake.put("app:2", content)
        fake.fail(Fault.lie(after=0), on="GET blob")
        with pytest.raises(DigestMismatchError):
            await registries.image(fake.name("app:2"))


# Tags


@pytest.mark.parametrize("like", [name for name in BEHAVIOURS if name not in {"v1", "ecr"}])
async def test_all_tags_are_listed_whatever_the_pages_are(opened: Opened, like: str) -> None:
    paged = dataclasses.replace(BEHAVIOURS[like], page_size=3, link=True)
    async with FakeRegistry(paged) as fake, opened(fake) as registries:
        tags = [f"1.{number}" for number in range(10)]
        fake.put("app:1.0", image())
        fake.tag("app:1.0", *tags)
        assert sorted(await registries.tags(fake.name("app"))) == sorted(tags)


async def test_a_list_of_tags_that_leads_back_to_itself_ends(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.fail(Fault.link_loop(), on="GET tags", times=None)
        assert await registries.tags(fake.name("app")) == ["1"]
        assert fake.count("GET tags") == 1


async def test_a_repository_without_tags_has_none(opened: Opened) -> None:
    for null in (False, True):
        async with FakeRegistry(dataclasses.replace(BEHAVIOURS["oci"], null_lists=null)) as fake:
            async with opened(fake) as registries:
                fake.create("app")
                assert await registries.tags(fake.name("app")) == []


async def test_a_registry_that_refuses_the_size_of_pages_is_asked_without_it(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.fail(Fault.refuse(400, code="PAGINATION_NUMBER_INVALID"), on="GET tags")
        assert await registries.tags(fake.name("app")) == ["1"]
        assert fake.asked("GET tags")[1].raw_query == ""


async def test_a_list_of_tags_that_is_left_costs_no_more_pages(opened: Opened) -> None:
    async with FakeRegistry(dataclasses.replace(BEHAVIOURS["oci"], page_size=2)) as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.tag("app:1", "2", "3", "4")
        async with contextlib.aclosing(registries.tags_stream(fake.name("app"))) as tags:
            assert await anext(tags) == "1"
        assert fake.count("GET tags") == 1


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags": [1]}', b'{"tags": {}}'])
async def test_a_list_of_tags_that_is_not_one_is_a_clear_error(opened: Opened, body: bytes) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.fail(Fault.refuse(200, body=body), on="GET tags")
        with pytest.raises(FrameDecodeError, match=f"the list of tags of {fake.host}/app"):
            await registries.tags(fake.name("app"))


# Blobs


@pytest.mark.usefixtures("each_reader")
@pytest.mark.parametrize("redirect", [False, True], ids=["here", "redirected"])
@pytest.mark.parametrize("fault", [Fault.cut, Fault.reset])
async def test_a_blob_may_break_at_every_byte_and_goes_on_there(
    opened: Opened, redirect: bool, fault: Callable[..., Fault]
) -> None:
    data = random_bytes(40)
    async with FakeRegistry(redirect=redirect) as fake:
        digest = fake.put_blob("app", data)
        step = "GET storage" if redirect else "GET blob"
        async with opened(fake) as registries:
            for after in spread(range(len(data)), 8):
                fake.requests.clear()
                injected = fake.fail(fault(after=after), on=step)
                assert await blob(registries, fake.name("app"), digest) == data
                assert injected.hits == 1
                ranges = [each.headers.get("range") for each in fake.asked(step)]
                assert ranges[0] is None
                assert ranges[1:] in ([None], [f"bytes={after}-"])


@pytest.mark.usefixtures("each_reader")
async def test_a_blob_that_breaks_again_and_again_goes_on_each_time(opened: Opened) -> None:
    data = random_bytes(1 << 20)
    async with FakeRegistry() as fake, opened(fake) as registries:
        digest = fake.put_blob("app", data)
        fake.fail(Fault.cut(after=100_000), on="GET blob", times=10)
        assert await blob(registries, fake.name("app"), digest) == data
        # Nothing that came is asked for again: what was in a socket's buffer when it broke is the most.
        assert sum(each.bytes_out for each in fake.asked("GET blob")) < 2 * len(data)


@pytest.mark.usefixtures("each_reader")
async def test_a_registry_that_ignores_ranges_is_read_again_so_far_and_so_often(opened: Opened) -> None:
    data = random_bytes(10_000)
    async with FakeRegistry("crane") as fake, opened(fake) as registries:
        digest = fake.put_blob("app", data)
        fake.fail(Fault.cut(after=5000), on="GET blob", times=2)
        assert await blob(registries, fake.name("app"), digest) == data
        fake.fail(Fault.cut(after=5000), on="GET blob", times=None)
        with pytest.raises(StreamInterruptedError):
            await blob(registries, fake.name("app"), digest)
        assert fake.count("GET blob") <= 3 + 6


@pytest.mark.usefixtures("each_reader")
@pytest.mark.parametrize("answer", ["bytes 7-9/10", "bytes 0-9/10", "nonsense", None])
async def test_another_range_than_was_asked_for_is_not_taken(opened: Opened, answer: str | None) -> None:
    data = random_bytes(10_000)
    async with FakeRegistry() as fake, opened(fake) as registries:
        digest = fake.put_blob("app", data)
        fake.fail(Fault.cut(after=5000), on="GET blob")
        fake.fail(Fault.header("Content-Range", answer), on="GET blob")
        assert await blob(registries, fake.name("app"), digest) == data


@pytest.mark.usefixtures("each_reader")
@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_a_signed_url_that_is_no_longer_good_is_asked_for_anew(opened: Opened, status: int) -> None:
    data = random_bytes(10_000)
    async with FakeRegistry(redirect=True, auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        digest = fake.put_blob("app", data)
        fake.fail(Fault.cut(after=5000), on="GET storage")
        fake.fail(Fault.refuse(status), on="GET storage")
        assert await blob(registries, fake.name("app"), digest) == data
        assert fake.count("GET blob") == 4  # the first is the challenge
        assert fake.count("GET token") == 1


@pytest.mark.usefixtures("each_reader")
@pytest.mark.parametrize(
    "fault",
    [Fault.lie(after=0), Fault.lie(after=9_999)],
    ids=["first byte", "last byte"],
)
async def test_the_end_of_a_wrong_blob_is_held_back(opened: Opened, fault: Fault) -> None:
    data = random_bytes(10_000)
    async with FakeRegistry() as fake, opened(fake) as registries:
        digest = fake.put_blob("app", data)
        fake.fail(fault, on="GET blob")
        came = bytearray()
        with pytest.raises(DigestMismatchError) as caught:
            async for piece in registries.blob_stream(fake.name("app"), digest):
                came += piece
        assert len(came) < len(data)
        assert (caught.value.expected, caught.value.endpoint) == (digest, fake.host)


@pytest.mark.usefixtures("each_reader")
async def test_bytes_that_come_twice_never_become_a_blob(opened: Opened) -> None:
    data = random_bytes(10_000)
    async with FakeRegistry() as fake, opened(fake) as registries:
        digest = fake.put_blob("app", data)
        for after in (0, 100, 5000):
            fake.fail(Fault.duplicate(after=after, length=10), on="GET blob")
            # More than its Content-Length says ends the connection, perhaps before any of it was read.
            with contextlib.suppress(DigestMismatchError):
                assert await blob(registries, fake.name("app"), digest) == data


@pytest.mark.usefixtures("each_reader")
async def test_a_blob_that_is_left_is_left_at_the_registry_too(opened: Opened, leftovers: Leftovers) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        digest = fake.put_blob("app", random_bytes(4 << 20))
        before = leftovers.now()
        async with contextlib.aclosing(registries.blob_stream(fake.name("app"), digest)) as pieces:
            await anext(pieces)
        await fake.idle()
        await leftovers.settle(before)


@pytest.mark.usefixtures("each_reader")
async def test_a_silent_registry_is_noticed_and_the_blob_goes_on(opened: Opened) -> None:
    data = random_bytes(10_000)
    async with FakeRegistry() as fake, opened(fake, idle_timeout=0.2) as registries:
        digest = fake.put_blob("app", data)
        fake.fail(Fault.stall(after=5000), on="GET blob")
        assert await blob(registries, fake.name("app"), digest) == data
        fake.fail(Fault.stall(of="response"), on="GET blob", times=None)
        with pytest.raises(StreamStalledError, match="sent nothing for 0.2 s"):
            await blob(registries, fake.name("app"), digest)


@pytest.mark.usefixtures("each_reader")
async def test_an_empty_blob_has_no_bytes(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        assert await blob(registries, fake.name("app"), fake.put_blob("app", b"")) == b""


@pytest.mark.usefixtures("each_reader")
async def test_a_blob_that_is_not_there_is_not_found_at_once(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.create("app")
        with pytest.raises(NotFoundError, match="BLOB_UNKNOWN"):
            await blob(registries, fake.name("app"), "sha256:" + "0" * 64)
        assert fake.count("GET blob") == 1


# Rate limits and failures


@pytest.mark.parametrize("step", ["HEAD manifest", "GET manifest", "GET tags", "GET blob", "GET base"])
async def test_a_rate_limit_is_waited_for_on_every_request(opened: Opened, step: str) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        digest = fake.put_blob("app", b"blob")
        injected = fake.fail(Fault.refuse(429, retry_after=0.05), on=step, times=2)
        await registries.digest(fake.name("app:1"))
        await registries.manifest(fake.name("app:1"))
        await registries.tags(fake.name("app"))
        await blob(registries, fake.name("app"), digest)
        await registries.ping(fake.host)
        assert injected.hits == 2


async def test_a_rate_limit_makes_the_whole_registry_wait_and_no_other(opened: Opened) -> None:
    async with FakeRegistry() as limited, FakeRegistry() as other, opened(limited, other) as registries:
        for fake in (limited, other):
            fake.put("app:1", image())
        limited.fail(Fault.refuse(429, retry_after=0.5), on="GET tags")
        first = asyncio.create_task(registries.tags(limited.name("app")))
        while not limited.count("GET tags"):
            await asyncio.sleep(0)
        while limited.asked("GET tags")[0].status != 429 or not limited.asked("GET tags")[0].done:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        second = asyncio.create_task(registries.digest(limited.name("app:1")))
        await registries.digest(other.name("app:1"))
        assert limited.count() == 1
        await asyncio.gather(first, second)
        assert limited.count() == 3


async def test_a_rate_limit_without_an_end_is_an_error_that_says_how_long(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake, retry=Retry(attempts=2, initial=0, jitter=0)) as registries:
        fake.put("app:1", image())
        fake.fail(Fault.refuse(429, retry_after=0.01, code="TOOMANYREQUESTS"), on="GET manifest", times=None)
        with pytest.raises(RateLimitedError) as caught:
            await registries.manifest(fake.name("app:1"))
        assert caught.value.retry_after == 0.01
        assert fake.count("GET manifest") == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_5xx_is_tried_again_within_bounds(opened: Opened, status: int) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.fail(Fault.refuse(status), on="GET manifest", times=4)
        await registries.manifest(fake.name("app:1"))
        fake.requests.clear()
        fake.fail(Fault.refuse(status), on="GET manifest", times=None)
        with pytest.raises(ServerError):
            await registries.manifest(fake.name("app:1"))
        assert fake.count("GET manifest") == 5


@pytest.mark.parametrize("status", [400, 404, 405, 409, 412, 418])
async def test_what_will_not_change_is_not_tried_again(opened: Opened, status: int) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.fail(Fault.refuse(status), on="GET manifest", times=None)
        with pytest.raises(DockerError):
            await registries.manifest(fake.name("app:1"))
        assert fake.count("GET manifest") == 1


async def test_a_registry_that_is_not_there_is_unreachable(opened: Opened) -> None:
    async with FakeRegistry() as fake:
        host = fake.host
    async with opened() as registries:
        with pytest.raises(RegistryUnreachableError, match=f"cannot connect to {host}"):
            await registries.digest(f"{host}/app:1")


async def test_a_registry_that_comes_back_is_waited_for(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        for after in range(40):
            fake.fail(Fault.cut(after=after, of="response"), on="HEAD manifest")
            await registries.digest(fake.name("app:1"))


async def test_a_registry_of_the_first_version_is_told_so(opened: Opened) -> None:
    async with FakeRegistry("v1", strict=False) as fake, opened(fake) as registries:
        with pytest.raises(RegistryUnreachableError, match="does not speak the distribution API"):
            await registries.ping(fake.host)
        with pytest.raises(NotFoundError):
            await registries.manifest(fake.name("app:1"))


@pytest.mark.parametrize("fault", [Fault.html(), Fault.html(404), Fault.refuse(404)], ids=["page", "page 404", "404"])
async def test_what_is_not_a_registry_is_told_so(opened: Opened, fault: Fault) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.fail(fault, on="GET base")
        with pytest.raises(RegistryUnreachableError, match="does not speak the distribution API"):
            await registries.ping(fake.host)


async def test_the_pulls_that_are_left_are_remembered_from_any_answer(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        assert await registries.limits(fake.host) == RateLimit()
        fake.fail(Fault.header("ratelimit-remaining", "76;w=21600"), on="HEAD manifest")
        await registries.digest(fake.name("app:1"))
        assert await registries.limits(fake.host) == RateLimit(remaining=76, window=21600)
        assert fake.count("GET base") == 1


async def test_a_registry_with_few_pulls_left_is_left_alone(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeRegistry() as fake:
        configs = {fake.host: RegistryConfig(pause_below=100)}
        async with opened(fake, registries=configs) as registries:
            fake.put("app:1", image())
            fake.fail(Fault.header("ratelimit-remaining", "99;w=21600"), on="HEAD manifest")
            await registries.digest(fake.name("app:1"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await registries.digest(fake.name("app:1"))
            assert fake.count("HEAD manifest") == 1


# Mirrors


async def test_a_mirror_is_asked_first_and_nothing_else(opened: Opened) -> None:
    async with FakeRegistry() as mirror, FakeRegistry() as fake:
        configs = {fake.host: RegistryConfig(mirrors=(f"{mirror.host}/hub",))}
        async with opened(fake, mirror, registries=configs) as registries:
            content = image()
            mirror.put("hub/app:1", content)
            assert await registries.digest(fake.name("app:1")) == content.digest
            assert (await registries.manifest(fake.name("app:1"))).digest == content.digest
            assert await blob(registries, fake.name("app"), content.config.digest) == content.config.data
            assert fake.requests == []


MIRROR_FAULTS = {
    "404": Fault.refuse(404),
    "500": Fault.refuse(500),
    "429": Fault.refuse(429, retry_after=600),
    "403": Fault.refuse(403),
    "cut": Fault.cut(of="response"),
}


@pytest.mark.parametrize("fault", MIRROR_FAULTS.values(), ids=MIRROR_FAULTS)
async def test_the_registry_is_asked_where_its_mirror_fails(opened: Opened, fault: Fault) -> None:
    async with FakeRegistry() as mirror, FakeRegistry() as fake:
        configs = {fake.host: RegistryConfig(mirrors=(mirror.host,))}
        async with opened(fake, mirror, registries=configs) as registries:
            content = image()
            for each in (mirror, fake):
                each.put("app:1", content)
            mirror.fail(fault, on="GET blob", times=None)
            assert await blob(registries, fake.name("app"), content.config.digest) == content.config.data
            # aiohttp by itself asks a second time on a kept connection that breaks.
            assert mirror.count("GET blob") <= 2
            assert fake.count("GET blob") == 1


@pytest.mark.parametrize("fault", [Fault.lie(), Fault.refuse(200, body=b"[")], ids=["another content", "no manifest"])
async def test_a_mirror_that_lies_about_manifests_is_passed_over(opened: Opened, fault: Fault) -> None:
    async with FakeRegistry() as mirror, FakeRegistry() as fake:
        configs = {fake.host: RegistryConfig(mirrors=(mirror.host,))}
        async with opened(fake, mirror, registries=configs) as registries:
            content = image()
            for each in (mirror, fake):
                each.put("app:1", content)
            mirror.fail(fault, on="GET manifest", times=None)
            manifest = await registries.manifest(fake.name("app:1"))
            assert (manifest.digest, manifest.data) == (content.digest, content.data)


async def test_a_mirror_that_is_down_is_passed_over(opened: Opened) -> None:
    async with FakeRegistry() as gone:
        host = gone.host
    async with FakeRegistry() as fake:
        async with opened(fake, registries={fake.host: RegistryConfig(mirrors=(host,))}) as registries:
            fake.put("app:1", image())
            await registries.manifest(fake.name("app:1"))


async def test_a_mirror_that_wants_to_be_left_alone_is_not_waited_for(opened: Opened) -> None:
    async with FakeRegistry() as mirror, FakeRegistry() as fake:
        configs = {fake.host: RegistryConfig(mirrors=(mirror.host,))}
        async with opened(fake, mirror, registries=configs) as registries:
            for each in (mirror, fake):
                each.put("app:1", image())
            mirror.fail(Fault.refuse(429, retry_after=600), times=None)
            for _ in range(3):
                await registries.digest(fake.name("app:1"))
            assert len(mirror.requests) == 1
            assert len(fake.requests) == 3


# The life of a service


def test_a_service_is_made_without_a_loop_and_without_io() -> None:
    assert repr(RegistryService()) == "RegistryService()"


async def test_a_closed_service_says_so() -> None:
    registries = RegistryService()
    await registries.aclose()
    await registries.aclose()
    for use in (registries.digest("app"), registries.tags("app"), registries.ping("registry.example")):
        with pytest.raises(ServiceClosedError, match="is closed"):
            await use


def test_a_service_belongs_to_its_loop() -> None:
    async def use(registries: RegistryService) -> None:
        async with FakeRegistry() as fake:
            fake.put("app:1", image())
            await registries.digest(fake.name("app:1"))

    registries = RegistryService()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use(registries))
        with pytest.raises(ServiceClosedError, match="another event loop"):
            second.run(use(registries))
        first.run(registries.aclose())


async def test_a_service_is_not_used_on_both_sides_of_a_fork(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        await registries.digest(fake.name("app:1"))
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: 1)
            with pytest.raises(ServiceClosedError, match="before a fork"):
                await registries.digest(fake.name("app:1"))
        assert len(fake.requests) == 1


@pytest.mark.usefixtures("each_reader")
async def test_closing_ends_what_is_under_way(opened: Opened) -> None:
    async with FakeRegistry() as fake:
        digest = fake.put_blob("app", random_bytes(1 << 20))
        stalled = fake.fail(Fault.stall(after=1000), on="GET blob")
        async with opened(fake) as registries:
            reading = asyncio.create_task(blob(registries, fake.name("app"), digest))
            await stalled.reached()
            await registries.aclose()
            with pytest.raises(DockerError):
                await reading


@pytest.mark.parametrize("retry", [AT_ONCE, Retry(initial=600, maximum=600, jitter=0)], ids=["pause", "retry"])
async def test_closing_ends_what_waits_for_another_attempt(opened: Opened, retry: Retry) -> None:
    async with FakeRegistry() as fake:
        async with opened(fake, retry=retry) as registries:
            fake.put("app:1", image())
            fake.fail(Fault.refuse(429, retry_after=600) if retry is AT_ONCE else Fault.refuse(500), times=None)
            waiting = asyncio.create_task(registries.digest(fake.name("app:1")))
            while not (fake.requests and fake.requests[0].done):
                await asyncio.sleep(0.01)
            await registries.aclose()
            with pytest.raises(DockerError):
                await waiting


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"idle_timeout": 0.0}, {"connect_timeout": -1.0}])
def test_a_wrong_argument_is_refused_at_once(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegistryService(**wrong)  # type: ignore[arg-type]


async def test_a_wrong_name_is_refused_before_anything_is_sent(opened: Opened) -> None:
    async with opened() as registries:
        for name in ("UPPER", "a b", "../etc", "", "sha256:" + "0" * 64):
            for use in (registries.digest, registries.manifest, registries.image, registries.tags):
                with pytest.raises(InvalidReferenceError):
                    await use(name)
        for registry in ("", "a b", "registry.example/app", "http://"):
            for ask in (registries.ping(registry), registries.limits(registry)):
                with pytest.raises(InvalidReferenceError):
                    await ask
        with pytest.raises(InvalidReferenceError):
            await blob(registries, "app", "sha256:../../x")

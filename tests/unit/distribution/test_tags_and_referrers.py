"""Tags that are given and removed, and what refers to images."""

from __future__ import annotations

import dataclasses
import json

import pytest

from aiodocker_images import (
    ConfigError,
    ConflictError,
    DockerError,
    FrameDecodeError,
    InvalidReferenceError,
    NotFoundError,
    TagImmutableError,
)
from aiodocker_images._distribution import repository
from aiodocker_images.testing import BEHAVIOURS, FakeRegistry, Fault, Manifest, artifact, image, index

from .conftest import Opened

SIGNATURE = "application/vnd.example.signature"


def signed(subject: Manifest, kind: str = SIGNATURE, content: bytes = b"signed") -> Manifest:
    return artifact(kind, {"sig": content}, subject=subject)


# Tags


async def test_an_image_gets_another_tag(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        made = index(indent=3)
        fake.put("app:1", made)
        await registries.tag(fake.name("app:1"), fake.name("app:2"))
        await registries.tag(fake.name(f"app@{made.digest}"), fake.name("app:3"))
        assert fake.tags("app") == {"1": made.digest, "2": made.digest, "3": made.digest}
        with pytest.raises(ValueError, match="two repositories"):
            await registries.tag(fake.name("app:1"), fake.name("other:1"))
        with pytest.raises(InvalidReferenceError):
            await registries.tag(fake.name("app:1"), fake.name(f"app@{made.digest}"))
        with pytest.raises(NotFoundError):
            await registries.tag(fake.name("app:9"), fake.name("app:4"))


async def test_tags_are_listed_as_the_registry_has_them_or_chosen_by_rules(opened: Opened) -> None:
    signature = f"sha256-{'a' * 64}.sig"
    async with FakeRegistry() as fake, opened(fake) as registries:
        for tag in ("3.18", "3.20.1", "3.19", "edge", signature):
            fake.put(f"app:{tag}", image())
        app = fake.name("app")
        assert await registries.tags(app) == ["3.18", "3.19", "3.20.1", "edge", signature]
        assert await registries.tags(app, match="3.*") == ["3.18", "3.19", "3.20.1"]
        assert await registries.tags(app, semver=">=3.19", newest=5) == ["3.20.1", "3.19"]
        assert await registries.tags(app, without=["3.*"]) == ["edge"]
        asked = len(fake.requests)
        with pytest.raises(ConfigError, match="newest"):
            await registries.tags(app, newest=0)
        assert len(fake.requests) == asked


async def test_a_tag_that_must_not_be_moved_is_not(opened: Opened) -> None:
    like = dataclasses.replace(BEHAVIOURS["oci"], immutable_tags=True)
    async with FakeRegistry(like) as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.put("app:2", image(indent=1))
        with pytest.raises(TagImmutableError):
            await registries.tag(fake.name("app:1"), fake.name("app:2"))


async def test_a_tag_alone_is_removed_where_the_registry_can(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        made = image()
        fake.put("app:1", made)
        fake.tag("app:1", "2")
        await registries.remove(fake.name("app:1"))
        assert fake.tags("app") == {"2": made.digest}


async def test_removing_a_tag_never_removes_a_manifest_that_another_tag_has(opened: Opened) -> None:
    async with FakeRegistry("distribution 2.8") as fake, opened(fake) as registries:
        made = image()
        fake.put("app:1", made)
        fake.put("app:other", image(indent=1))
        fake.tag("app:1", "2", "3")
        with pytest.raises(ConflictError, match="is also 2, 3: only_tag=False") as caught:
            await registries.remove(fake.name("app:1"))
        assert caught.value.endpoint == fake.host
        assert sorted(fake.tags("app")) == ["1", "2", "3", "other"]
        await registries.remove(fake.name("app:other"))
        assert sorted(fake.tags("app")) == ["1", "2", "3"]
        await registries.remove(fake.name("app:1"), only_tag=False)
        assert fake.manifests("app") == []


async def test_an_image_by_digest_is_removed_if_no_tag_has_it(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        made = image()
        fake.put("app:1", made)
        with pytest.raises(ConflictError):
            await registries.remove(fake.name(f"app@{made.digest}"))
        await registries.remove(fake.name("app:1"))
        await registries.remove(fake.name(f"app@{made.digest}"))
        assert fake.manifests("app") == []
        with pytest.raises(NotFoundError):
            await registries.remove(fake.name("app:1"))


# Referrers


@pytest.mark.parametrize("like", ["oci", "distribution 2.8"])
async def test_referrers_are_listed_by_the_api_or_the_fallback_tag(opened: Opened, like: str) -> None:
    async with FakeRegistry() as source, FakeRegistry(like) as fake, opened(source, fake) as registries:
        made = image()
        sbom = signed(made, "application/vnd.example.sbom", b"sbom")
        source.put("app:1", made, signed(made), sbom)
        await registries.copy(source.name("app:1"), fake.name("app:1"), referrers=True)
        found = await registries.referrers(fake.name("app:1"))
        assert {each.digest for each in found} == {signed(made).digest, sbom.digest}
        only = await registries.referrers(fake.name("app:1"), artifact_type=SIGNATURE)
        assert [each.digest for each in only] == [signed(made).digest]


async def test_an_image_without_referrers_has_none(opened: Opened) -> None:
    for like in ("oci", "ghcr", "crane"):
        async with FakeRegistry(like) as fake, opened(fake) as registries:
            fake.put("app:1", image())
            assert await registries.referrers(fake.name("app:1")) == []


@pytest.mark.parametrize("like", ["oci", "distribution 2.8", "ghcr"])
async def test_referrers_of_an_index_and_of_its_parts_go_with_it_if_asked_for(opened: Opened, like: str) -> None:
    made = index()
    of_index, of_child = signed(made), signed(made.manifests[0], content=b"child")
    of_signature = signed(of_index, content=b"signed signature")
    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        source.put("app:1", made, of_index, of_child, of_signature)
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert of_index.digest not in target.manifests("app")
        # The image is there already, and what refers to it is not.
        result = await registries.copy(source.name("app:1"), target.name("app:1"), referrers=True)
        assert set(result.referrers) == {of_index.digest, of_child.digest, of_signature.digest}
        for each in (of_index, of_child, of_signature):
            assert target.has("app", each)
        assert target.tags("app")["1"] == made.digest


async def test_referrers_of_one_type_alone_go_if_so_asked_for(opened: Opened) -> None:
    made = image()
    sbom = signed(made, "application/vnd.example.sbom", b"sbom")
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made, signed(made), sbom)
        result = await registries.copy(source.name("app:1"), target.name("app:1"), referrers=[SIGNATURE])
        assert result.referrers == (signed(made).digest,)
        assert not target.has("app", sbom)


async def test_what_others_have_put_into_the_fallback_index_stays(opened: Opened) -> None:
    made = image()
    theirs = signed(made, content=b"theirs")
    async with (
        FakeRegistry() as source,
        FakeRegistry("distribution 2.8") as target,
        opened(source, target) as registries,
    ):
        source.put("app:1", made, signed(made))
        await registries.copy(source.name("app:1"), target.name("app:1"))
        target.put("app", theirs)
        tag = made.digest.replace(":", "-")
        target.put(f"app:{tag}", index(theirs))
        await registries.copy(source.name("app:1"), target.name("app:1"), referrers=True)
        found = await registries.referrers(target.name("app:1"))
        assert {each.digest for each in found} == {theirs.digest, signed(made).digest}


async def test_the_tags_of_cosign_go_with_the_image(opened: Opened) -> None:
    made = index()
    signature = artifact("application/vnd.dev.cosign", {"sig": b"1"})
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        tags = [f"{each.digest.replace(':', '-')}.sig" for each in (made, made.manifests[1])]
        for tag in tags:
            source.put(f"app:{tag}", signature)
        await registries.copy(source.name("app:1"), target.name("app:1"), referrers=True)
        assert sorted(target.tags("app")) == sorted(["1", *tags])
        assert target.has("app", signature)


async def test_the_pages_of_referrers_are_followed_and_end(opened: Opened) -> None:
    made = image()
    like = dataclasses.replace(BEHAVIOURS["oci"], page_size=2)
    async with FakeRegistry(like) as fake, opened(fake) as registries:
        fake.put("app:1", made, *(signed(made, content=str(number).encode()) for number in range(5)))
        assert len(await registries.referrers(fake.name("app:1"))) == 5
        fake.fail(Fault.link_loop(), on="GET referrers", times=None)
        assert len(await registries.referrers(fake.name("app:1"))) <= 5


@pytest.mark.parametrize("fault", [Fault.refuse(404), Fault.refuse(400), Fault.html()], ids=["404", "400", "HTML"])
async def test_a_later_page_of_referrers_that_is_refused_is_no_end_of_them(opened: Opened, fault: Fault) -> None:
    made = image()
    like = dataclasses.replace(BEHAVIOURS["oci"], page_size=2)
    async with FakeRegistry(like) as fake, opened(fake) as registries:
        fake.put("app:1", made, *(signed(made, content=str(number).encode()) for number in range(5)))
        fake.fail(fault, on="GET referrers", skip=1)
        with pytest.raises(DockerError):
            await registries.referrers(fake.name("app:1"))


async def test_the_numbers_of_tags_and_referrers_are_limited(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MAX_TAGS", 3)
    monkeypatch.setattr(repository, "MAX_REFERRERS", 3)
    made = image()
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", made, *(signed(made, content=str(number).encode()) for number in range(4)))
        fake.tag("app:1", "2", "3")
        assert len(await registries.tags(fake.name("app"))) == 3
        with pytest.raises(FrameDecodeError, match="more than 3 referrers"):
            await registries.referrers(fake.name("app:1"))
        fake.tag("app:1", "4")
        with pytest.raises(FrameDecodeError, match="more than 3 tags"):
            await registries.tags(fake.name("app"))


async def test_an_image_that_a_name_has_which_is_no_tag_is_not_removed(opened: Opened) -> None:
    async with FakeRegistry("distribution 2.8") as fake, opened(fake) as registries:
        fake.put("app:1", image())
        listed = json.dumps({"name": "app", "tags": ["1", "../../v2/app/manifests/x?y\r\nHost: evil"]}).encode()
        fake.fail(Fault.refuse(200, body=listed), on="GET tags", times=None)
        with pytest.raises(ConflictError, match="only_tag=False"):
            await registries.remove(fake.name("app:1"))
        assert fake.tags("app") != {}
        assert all("evil" not in each.target for each in fake.requests)


async def test_the_digest_that_is_removed_is_the_one_that_was_named(opened: Opened) -> None:
    made = image()
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app", made)
        fake.fail(Fault.lie(about="digest"), on="HEAD manifest", times=None)
        await registries.remove(fake.name(f"app@{made.digest}"))
        assert fake.manifests("app") == []

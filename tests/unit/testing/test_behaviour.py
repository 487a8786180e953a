"""What registries do that none of the real ones in the tests does: each behaviour, alone."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from aiodocker_images.testing import BEHAVIOURS, Behaviour, FakeRegistry, artifact, image, layer
from aiodocker_images.testing.content import OCI_INDEX
from tests.support.registry_client import RegistryClient

APP = image()
OTHER = image(2)
LAYER = layer(size=1000)


OCI = BEHAVIOURS["oci"]


@asynccontextmanager
async def served(behaviour: Behaviour) -> AsyncGenerator[tuple[FakeRegistry, RegistryClient], None]:
    async with FakeRegistry(behaviour) as registry, RegistryClient(registry.url) as client:
        yield registry, client


async def test_a_chunk_must_have_its_least_length_unless_it_is_the_last() -> None:
    async with served(replace(OCI, chunk_minimum=400)) as (registry, client):
        opened = await client.ask("POST", "/v2/app/blobs/uploads/")
        assert opened.headers["oci-chunk-min-length"] == "400"
        short = await client.ask(
            "PATCH", opened.headers["location"], body=LAYER.data[:100], headers={"Content-Range": "0-99"}
        )
        assert (short.status, short.codes) == (416, ["SIZE_INVALID"])
        first = await client.ask(
            "PATCH", opened.headers["location"], body=LAYER.data[:400], headers={"Content-Range": "0-399"}
        )
        assert (await client.finish(first, LAYER.digest, LAYER.data[400:])).status == 201
        assert registry.blob(LAYER.digest) == LAYER.data


async def test_an_immutable_tag_takes_the_same_manifest_again_and_no_other() -> None:
    async with served(replace(OCI, immutable_tags=True)) as (registry, client):
        await client.push("app", APP, "1.0")
        await client.push("app", OTHER, "2.0")
        assert (await client.push_manifest("app", APP, "1.0")).status == 201
        refused = await client.push_manifest("app", OTHER, "1.0")
        assert (refused.status, refused.codes) == (400, ["TAG_INVALID"])
        assert registry.tags("app") == {"1.0": APP.digest, "2.0": OTHER.digest}


async def test_a_repository_that_must_exist_is_made_first() -> None:
    async with served(BEHAVIOURS["ecr"]) as (registry, client):
        for answer in (
            await client.ask("POST", "/v2/app/blobs/uploads/"),
            await client.push_manifest("app", APP, "1.0"),
        ):
            assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])
        registry.create("app")
        await client.push("app", APP, "1.0")
        assert registry.has("app", APP)


async def test_a_registry_of_version_1_knows_nothing_of_version_2() -> None:
    async with served(BEHAVIOURS["v1"]) as (_, client):
        base = await client.get("/v2/")
        assert (base.status, base.headers["content-type"]) == (404, "text/html")
        assert (await client.get("/v1/_ping")).body == b"true"


async def test_pulp_answers_401_without_a_challenge_for_what_is_not_there() -> None:
    async with served(BEHAVIOURS["pulp"]) as (_, client):
        answer = await client.get("/v2/none/manifests/1.0")
        assert answer.status == 401
        assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("like", "link"),
    [
        (OCI, '</v2/app/tags/list?last=2.0&n=2>; rel="next"'),
        (replace(OCI, absolute_link=True), '<{url}/v2/app/tags/list?last=2.0&n=2>; rel="next"'),
        (replace(OCI, tight_link=True), '</v2/app/tags/list?last=2.0&n=2>;rel="next"'),
        (replace(OCI, link=False), None),
    ],
    ids=["path", "URL", "no space", "none"],
)
async def test_a_page_that_is_not_the_last_has_a_link(like: Behaviour, link: str | None) -> None:
    async with served(replace(like, page_size=2)) as (registry, client):
        registry.put("app:1.0", APP)
        registry.tag("app:1.0", "2.0", "3.0")
        page = await client.get("/v2/app/tags/list?n=100")
        assert page.json["tags"] == ["1.0", "2.0"]
        assert page.headers.get("link") == (link and link.format(url=registry.url))


async def test_the_last_page_may_have_a_link_to_an_empty_one() -> None:
    async with served(replace(OCI, link_on_last_page=True)) as (registry, client):
        registry.put("app:1.0", APP)
        page = await client.get("/v2/app/tags/list?n=1")
        following = page.headers["link"].partition("<")[2].partition(">")[0]
        last = await client.get(following)
        assert (last.json["tags"], "link" in last.headers) == ([], False)


async def test_referrers_come_in_pages_too() -> None:
    async with served(replace(OCI, page_size=2)) as (registry, client):
        signatures = [artifact("a/b", {"sig": str(number)}, subject=APP) for number in range(5)]
        registry.put("app:1.0", APP, *signatures)
        path, digests, pages = f"/v2/app/referrers/{APP.digest}?artifactType=a/b", list[str](), 0
        while path:
            answer = await client.get(path)
            digests += [each["digest"] for each in answer.json["manifests"]]
            path, pages = answer.headers.get("link", "").partition("<")[2].partition(">")[0], pages + 1
        assert (digests, pages) == (sorted(each.digest for each in signatures), 3)


async def test_distribution_declares_the_wrong_length_of_a_416() -> None:
    async with served(BEHAVIOURS["distribution 2.8"]) as (registry, _), aiohttp.ClientSession() as session:
        registry.put_blob("app", LAYER)
        headers = {"Range": f"bytes={LAYER.size}-"}
        async with session.get(f"{registry.url}/v2/app/blobs/{LAYER.digest}", headers=headers) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (416, str(LAYER.size))
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


@pytest.mark.parametrize("what", ["manifests", "blobs"])
async def test_a_registry_may_not_let_anything_be_deleted(what: str) -> None:
    async with served(replace(OCI, delete=False)) as (registry, client):
        registry.put("app:1.0", APP)
        digest = APP.digest if what == "manifests" else APP.config.digest
        assert (await client.ask("DELETE", f"/v2/app/{what}/{digest}")).status == 405
        assert registry.has("app", APP)


async def test_indexes_may_contain_each_other_under_wrong_digests() -> None:
    def containing(digest: str) -> bytes:
        entry = {"mediaType": OCI_INDEX, "digest": digest, "size": 2}
        return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()

    a, b = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    async with served(OCI) as (registry, client):
        registry.put_manifest("app:loop", containing(b), OCI_INDEX, digest=a)
        registry.put_manifest("app", containing(a), OCI_INDEX, digest=b)
        reference, seen = "loop", list[str]()
        while len(seen) < 5:
            answer = await client.get(f"/v2/app/manifests/{reference}")
            seen.append(answer.headers["docker-content-digest"])
            [reference] = [each["digest"] for each in answer.json["manifests"]]
        assert seen == [a, b, a, b, a]


LIES: Mapping[str, Callable[[FakeRegistry], str]] = {
    "a blob": lambda registry: registry.put_blob("app", b"another", digest=LAYER.digest),
    "a manifest": lambda registry: registry.put_manifest("app", b"{}", OCI_INDEX, digest=LAYER.digest),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_content_is_stored_under_a_wrong_digest_if_a_test_says_so(lie: Callable[[FakeRegistry], str]) -> None:
    async with served(OCI) as (registry, _):
        assert lie(registry) == LAYER.digest

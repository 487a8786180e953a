"""The fake registry: what a test puts into it is served, what a client puts into it can be looked at."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import unittest
import urllib.request
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trustme

from aiodocker_images.testing import FakeRegistry, NotFakedError, artifact, image, index
from tests.conftest import Leftovers
from tests.support.registry_client import MANIFEST_TYPES, RegistryClient

APP = index(image(2), image(platform="linux/arm64"), attestations=True)


@pytest.fixture
async def registry() -> AsyncGenerator[FakeRegistry, None]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def client(registry: FakeRegistry) -> AsyncGenerator[RegistryClient, None]:
    async with RegistryClient(registry.url) as client:
        yield client


async def test_what_a_test_puts_into_it_is_served_byte_for_byte(registry: FakeRegistry, client: RegistryClient) -> None:
    assert registry.put("team/app:1.0", APP) == APP.digest
    answer = await client.get("/v2/team/app/manifests/1.0", Accept=MANIFEST_TYPES)
    assert (answer.status, answer.body) == (200, APP.data)
    assert answer.headers["docker-content-digest"] == APP.digest
    assert answer.headers["content-type"] == APP.media_type
    for digest, blob in APP.all_blobs().items():
        assert (await client.get(f"/v2/team/app/blobs/{digest}")).body == blob.data


async def test_what_a_client_pushes_can_be_looked_at(registry: FakeRegistry, client: RegistryClient) -> None:
    await client.push("app", APP, "1.0")
    assert registry.images == {"app:1.0": APP.digest}
    assert registry.tags("app") == {"1.0": APP.digest}
    assert registry.has("app", APP)
    assert registry.manifest("app:1.0").data == APP.data
    assert registry.blobs("app") == APP.all_blobs().keys()
    assert registry.uploads == []
    assert registry.repositories == ["app"]


async def test_an_image_with_a_blob_missing_is_not_all_there(registry: FakeRegistry) -> None:
    registry.put("app:1.0", APP)
    registry.remove_blob("app", APP.manifests[0].config.digest)
    assert not registry.has("app", APP)
    assert not registry.has("other", APP)


async def test_tags_are_given_and_removed(registry: FakeRegistry) -> None:
    registry.put("app:1.0", APP)
    registry.tag("app:1.0", "1", "latest")
    assert registry.tags("app") == dict.fromkeys(["1.0", "1", "latest"], APP.digest)
    registry.remove("app:1")
    assert sorted(registry.tags("app")) == ["1.0", "latest"]
    registry.remove(f"app@{APP.digest}")
    assert registry.tags("app") == {}
    with pytest.raises(KeyError, match="no manifest 'app:1.0'"):
        registry.manifest("app:1.0")


async def test_every_request_is_in_the_log(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.put("app:1.0", APP)
    await client.get("/v2/app/manifests/1.0", Authorization="Bearer x")
    await client.push_blob("app", APP.manifests[0].config)
    first, opened, put = registry.requests
    assert (first.step, first.repository, first.reference) == ("GET manifest", "app", "1.0")
    assert (first.status, first.bytes_out, first.authorized) == (200, APP.size, True)
    assert (opened.step, opened.status, opened.bytes_in) == ("POST upload", 202, 0)
    assert (put.step, put.status, put.bytes_in) == ("PUT upload", 201, APP.manifests[0].config.size)
    assert put.query["digest"] == APP.manifests[0].config.digest
    assert registry.counts == {"GET manifest": 1, "POST upload": 1, "PUT upload": 1}
    assert (registry.count(), registry.count("upload"), registry.count("GET", reference="1.0")) == (3, 2, 1)
    assert "Bearer" not in repr(first)


async def test_a_count_of_an_unknown_step_is_an_error(registry: FakeRegistry) -> None:
    with pytest.raises(NotFakedError, match="no step 'GET manifests'; its steps are GET base"):
        registry.count("GET manifests")


async def test_connections_and_uploads_that_are_open_are_counted(registry: FakeRegistry) -> None:
    async with RegistryClient(registry.url) as client:
        opened = await client.ask("POST", "/v2/app/blobs/uploads/")
        assert registry.connections == 1
        assert [(each.repository, each.size) for each in registry.uploads] == [("app", 0)]
        await client.ask("DELETE", opened.headers["location"])
        assert registry.uploads == []
    await registry.idle()
    assert registry.connections == 0


async def test_leaving_it_closes_everything(leftovers: Leftovers) -> None:
    before = leftovers.now()
    async with FakeRegistry() as registry:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(registry.host.partition(":")[2]))
        writer.write(b"GET /v2/ HTTP/1.1\r\n")
        await writer.drain()
    with contextlib.suppress(ConnectionResetError):  # what was sent may not have been read
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    await leftovers.settle(before)


async def test_entered_again_it_serves_what_it_had_where_it_was() -> None:
    registry = FakeRegistry()
    async with registry:
        host = registry.host
        registry.put("app:1.0", APP)
    async with registry, RegistryClient(registry.url) as client:
        assert registry.host == host
        assert (await client.get("/v2/app/manifests/1.0")).body == APP.data


def test_without_a_loop_it_is_served_in_a_thread(leftovers: Leftovers) -> None:
    with FakeRegistry() as registry:
        registry.put("app:1.0", APP)
        with urllib.request.urlopen(f"{registry.url}/v2/app/manifests/1.0") as answer:
            assert answer.read() == APP.data
        assert registry.count("GET manifest") == 1


async def test_referrers_are_listed_and_filtered(registry: FakeRegistry, client: RegistryClient) -> None:
    signature = artifact("application/vnd.example.signature", {"sig": b"x"}, subject=APP, annotations={"by": "me"})
    sbom = artifact("application/spdx+json", {"sbom": b"{}"}, subject=APP)
    registry.put("app:1.0", APP, signature, sbom)
    answer = await client.get(f"/v2/app/referrers/{APP.digest}")
    assert {each["digest"] for each in answer.json["manifests"]} == {signature.digest, sbom.digest}
    answer = await client.get(f"/v2/app/referrers/{APP.digest}?artifactType=application/spdx%2Bjson")
    assert [each["digest"] for each in answer.json["manifests"]] == [sbom.digest]
    assert answer.headers["oci-filters-applied"] == "artifactType"


async def test_a_pushed_referrer_is_answered_with_its_subject(client: RegistryClient) -> None:
    signature = artifact("application/vnd.example.signature", subject=APP)
    await client.push_blob("app", signature.config)
    assert (await client.push_manifest("app", signature)).headers["oci-subject"] == APP.digest


async def test_a_blob_is_redirected_to_a_signed_url_whose_query_must_not_change() -> None:
    async with FakeRegistry(redirect=True) as registry, RegistryClient(registry.url) as client:
        registry.put("app:1.0", APP)
        blob = APP.manifests[0].layers[0]
        answer = await client.get(f"/v2/app/blobs/{blob.digest}")
        assert answer.status == 307
        location = answer.headers["location"]
        assert location.startswith(f"http://{registry.storage_host}/")
        assert (await client.get(location)).body == blob.data
        assert (await client.get(location.replace("%2F", "/"))).status == 403
        assert (await client.get(location, Authorization="Bearer x")).status == 400
        assert (await client.get(location, Range="bytes=5-")).body == blob.data[5:]
        assert registry.count("GET storage") == 4


async def test_it_serves_https_with_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "server.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")

    def ask(url: str) -> bytes:
        with urllib.request.urlopen(f"{url}/v2/", context=trusting) as answer:
            body: bytes = answer.read()
            return body

    async with FakeRegistry(tls=server) as registry:
        assert registry.url == f"https://{registry.host}"
        assert await asyncio.to_thread(ask, registry.url) == b"{}"
        await registry.idle()


async def test_what_is_not_faked_is_a_clear_error_at_the_end() -> None:
    with pytest.raises(NotFakedError, match="GET /v2/app/unheard/of; it answered 404"):
        async with FakeRegistry() as registry, RegistryClient(registry.url) as client:
            assert (await client.get("/v2/app/unheard/of")).status == 404
    async with FakeRegistry(strict=False) as registry, RegistryClient(registry.url) as client:
        assert (await client.get("/v2/app/unheard/of")).status == 404


def test_an_unknown_registry_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="by the name 'harbour'; there are 'oci', 'strict'"):
        FakeRegistry(like="harbour")


async def test_a_hundred_thousand_tags_come_in_pages(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.put("app:first", APP)
    registry.tag("app:first", *(f"v{number}" for number in range(100_000)))
    tags, pages, path = list[str](), 0, "/v2/app/tags/list?n=10000"
    while path:
        answer = await client.get(path)
        tags += answer.json["tags"]
        path = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
        pages += 1
    assert (len(tags), len(set(tags)), pages) == (100_001, 100_001, 11)


@pytest.mark.parametrize("like", ["oci", "strict"])
async def test_the_query_of_an_uploads_location_must_come_back(like: str) -> None:
    async with FakeRegistry(like=like) as registry, RegistryClient(registry.url) as client:
        opened = await client.ask("POST", "/v2/app/blobs/uploads/")
        location = opened.headers["location"]
        encoded = location.replace("%3d", "%3D").replace("%20", "+")
        without = location.partition("?")[0]
        assert (await client.get(location)).status == 204
        assert (await client.get(encoded)).status == (204 if like == "oci" else 404)
        assert (await client.get(without)).codes == ["BLOB_UPLOAD_INVALID"]
        patched = await client.ask("PATCH", location, body=b"x")
        assert (await client.get(location)).status == 404  # only the latest is good
        assert (await client.get(patched.headers["location"])).status == 204


async def test_several_lines_of_accept_are_one_list() -> None:
    async with FakeRegistry(like="strict") as strict:
        strict.put("app:1.0", APP)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(strict.host.partition(":")[2]))
        lines = ["GET /v2/app/manifests/1.0 HTTP/1.1", "Accept: a/b", f"Accept: {APP.media_type}", "Accept: c/d"]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        assert (await reader.read()).endswith(APP.data)
        writer.close()
        await writer.wait_closed()
        assert strict.requests[0].headers["accept"] == f"a/b, {APP.media_type}, c/d"


async def test_a_tls_client_is_told_at_once_that_the_port_is_plain(registry: FakeRegistry) -> None:
    with pytest.raises(ssl.SSLError, match="(?i)wrong version number|record"):
        await asyncio.open_connection(*registry.host.split(":"), ssl=ssl.create_default_context())
    await registry.idle()
    assert registry.requests == []


class InUnittest(unittest.IsolatedAsyncioTestCase):
    """The same with nothing but the standard library's own tests."""

    async def asyncSetUp(self) -> None:
        self.registry = await self.enterAsyncContext(FakeRegistry())

    async def test_it_is_served_in_the_loop_of_the_test(self) -> None:
        self.registry.put("app:1.0", APP)
        async with RegistryClient(self.registry.url) as client:
            assert (await client.get("/v2/app/manifests/1.0")).body == APP.data
        await self.registry.idle()

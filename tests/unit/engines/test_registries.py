"""The private registries of every kind: each serves what it was given, as it was told to, and nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import ssl
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import pytest

import engines
from tests.support import certificates
from tests.support.blob_host import BlobHost
from tests.support.docker_home import basic
from tests.support.probes import listens, traces
from tests.support.token_server import TokenServer

pytestmark = pytest.mark.once

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = b"a layer" * 1000


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def location(self) -> str:
        return self.headers["Location"]


@dataclass(frozen=True)
class Client:
    """Sends requests to a registry, by the standard library."""

    registry: engines.RegistryDaemon
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    tls: ssl.SSLContext | None = None

    def ask(self, method: str, path: str, body: bytes = b"", /, **headers: str) -> Answer:
        path = path.removeprefix(self.registry.url)
        address = self.registry.address
        connection = (
            http.client.HTTPSConnection(address, timeout=30, context=self.tls)
            if self.tls
            else http.client.HTTPConnection(address, timeout=30)
        )
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {**self.headers, **named})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def push_blob(self, name: str, content: bytes) -> None:
        upload = self.ask("POST", f"/v2/{name}/blobs/uploads/").location
        url = f"{upload}{'&' if '?' in upload else '?'}digest={digest(content)}"
        assert self.ask("PUT", url, content, Content_Type="application/octet-stream").status == 201

    def push(self, name: str, tag: str, layer: bytes = LAYER, **fields: object) -> bytes:
        """Push an image of one layer; return its manifest. `fields` are added to that."""
        config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
        for blob in (layer, config):
            self.push_blob(name, blob)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": descriptor("application/vnd.oci.image.config.v1+json", config),
                "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
                **fields,
            }
        ).encode()
        put = self.ask("PUT", f"/v2/{name}/manifests/{tag}", manifest, Content_Type=OCI_MANIFEST)
        assert put.status == 201, put.body
        return manifest

    def manifest(self, name: str, tag: str) -> Answer:
        return self.ask("GET", f"/v2/{name}/manifests/{tag}", Accept=OCI_MANIFEST)

    def blob(self, name: str, content: bytes, method: str = "GET", **headers: str) -> Answer:
        return self.ask(method, f"/v2/{name}/blobs/{digest(content)}", **headers)


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(content), "digest": digest(content)}


@pytest.fixture(scope="module")
def open_registry() -> Generator[Client, None, None]:
    """A client of an open registry of distribution that has one image, box:1."""
    with engines.Registry() as registry:
        client = Client(registry)
        client.push("box", "1")
        yield client


@pytest.mark.parametrize("kind", engines.REGISTRIES)
def test_a_registry_gives_back_an_image_and_leaves_nothing(kind: str) -> None:
    with engines.REGISTRIES[kind]() as registry:
        client = Client(registry)
        assert client.ask("GET", "/v2/").status == 200
        manifest = client.push("some/box", "1")
        assert client.manifest("some/box", "1").body == manifest
        assert client.blob("some/box", LAYER).body == LAYER
    assert traces(registry.state) == []
    assert not listens(registry.address)


@pytest.mark.parametrize("kind", engines.REGISTRIES)
def test_a_registry_that_cannot_start_says_why_and_leaves_nothing(kind: str) -> None:
    registry = engines.REGISTRIES[kind]()
    with socket.create_server(("127.0.0.1", 0)) as server:
        registry.address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(engines.EngineError, match="address already in use"), registry:
            pass
    assert traces(registry.state) == []


@pytest.mark.parametrize("kind", engines.REGISTRIES)
def test_a_registry_keeps_its_address(kind: str) -> None:
    """A registry has the same address after a kill and after a restart, and none listens there in between."""
    with engines.REGISTRIES[kind]() as registry:
        address = registry.address
        registry.kill()
        assert not listens(address)
        registry.start()
        assert (registry.address, listens(address)) == (address, True)
        registry.restart()
        assert (registry.address, listens(address)) == (address, True)


@pytest.mark.parametrize("kind", engines.REGISTRIES)
def test_a_registry_whose_port_is_snatched_takes_another(kind: str, snatched: list[str]) -> None:
    """A port that another process takes between the choice and the start is not the end."""
    with engines.REGISTRIES[kind]() as registry:
        assert len(snatched) == 1
        assert registry.address not in snatched


def test_htpasswd_wants_a_name_and_a_password() -> None:
    encrypted = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    with engines.Registry(htpasswd=f"somebody:{encrypted}\n") as registry:
        nobody = Client(registry).ask("GET", "/v2/")
        assert (nobody.status, nobody.headers["WWW-Authenticate"]) == (401, 'Basic realm="a private registry"')
        for password, status in {"right": 200, "wrong": 401}.items():
            authorization = f"Basic {basic('somebody', password)}"
            assert Client(registry).ask("GET", "/v2/", Authorization=authorization).status == status


async def test_token_wants_a_token_for_the_repository(tmp_path: Path) -> None:
    async with TokenServer(tmp_path) as server:
        with engines.Registry(token=server.registry) as registry:
            assert Client(registry).ask("GET", "/v2/").headers["WWW-Authenticate"].startswith("Bearer realm=")
            token = server.token(["repository:box:pull,push"])
            client = Client(registry, {"Authorization": f"Bearer {token}"})
            client.push("box", "1")
            assert client.manifest("box", "1").status == 200
            assert client.manifest("another", "1").status == 401


def test_tls_wants_a_certificate_of_the_client_if_it_has_an_authority(tmp_path: Path) -> None:
    made = certificates.make(tmp_path)
    with engines.Registry(tls=made.server) as registry:
        assert registry.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Client(registry, tls=context).ask("GET", "/v2/")
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        client = Client(registry, tls=context)
        manifest = client.push("box", "1")
        assert client.manifest("box", "1").body == manifest


def test_tls_without_an_authority_is_open_to_everybody(tmp_path: Path) -> None:
    with engines.Registry(tls=certificates.make(tmp_path, clients=False).server) as registry:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        assert Client(registry, tls=context).ask("GET", "/v2/").status == 200


def test_a_read_only_registry_serves_anothers_storage_without_changes(open_registry: Client) -> None:
    other = open_registry.registry
    assert isinstance(other, engines.Registry)
    with engines.Registry(read_only=True, storage=other.storage) as registry:
        client = Client(registry)
        manifest = client.manifest("box", "1")
        assert manifest.body == open_registry.manifest("box", "1").body
        for method, path in {
            "POST": "/v2/box/blobs/uploads/",
            "PUT": "/v2/box/manifests/2",
            "DELETE": f"/v2/box/manifests/{digest(manifest.body)}",
        }.items():
            assert client.ask(method, path, manifest.body, Content_Type=OCI_MANIFEST).status == 405
    assert open_registry.manifest("box", "1").status == 200  # the storage stays with its owner


def test_the_location_of_an_upload_is_absolute_or_relative_as_told(open_registry: Client) -> None:
    absolute = open_registry.ask("POST", "/v2/box/blobs/uploads/").location
    assert absolute.startswith(f"{open_registry.registry.url}/v2/box/blobs/uploads/")
    with engines.Registry(relative_urls=True) as registry:
        assert Client(registry).ask("POST", "/v2/box/blobs/uploads/").location.startswith("/v2/box/blobs/uploads/")
        Client(registry).push("box", "1")


async def test_blobs_are_redirected_to_another_host_that_has_them(open_registry: Client) -> None:
    other = open_registry.registry
    assert isinstance(other, engines.Registry)
    async with BlobHost() as host:
        host.storage = other.storage
        with engines.Registry(redirect=host.url, storage=other.storage) as registry:
            client = Client(registry)
            for method in ("GET", "HEAD"):
                redirect = client.blob("box", LAYER, method)
                assert (redirect.status, redirect.location.startswith(f"{host.url}/docker/registry/v2/blobs/")) == (
                    307,
                    True,
                )
            assert client.manifest("box", "1").status == 200  # which is not redirected
            assert host.requests == []
            path = client.blob("box", LAYER).location.removeprefix(host.url)
            read, status = await asyncio.to_thread(fetch, host.url, path, {"Range": "bytes=7-13"})
            assert (read, status) == (b"a layer", 206)
            assert [(method, path) for method, path, _headers in host.requests] == [("GET", path)]
            assert (await asyncio.to_thread(fetch, host.url, "/no/such/blob", {}))[1] == 404


def fetch(url: str, path: str, headers: Mapping[str, str]) -> tuple[bytes, int]:
    with contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        return response.read(), response.status


async def test_a_proxy_has_what_another_registry_has_and_keeps_it() -> None:
    with engines.Registry() as upstream:
        manifest = Client(upstream).push("box", "1")
        with engines.Registry(proxy=upstream.url) as registry:
            client = Client(registry)
            assert client.manifest("box", "1").body == manifest
            assert client.blob("box", LAYER).body == LAYER
            assert client.ask("POST", "/v2/box/blobs/uploads/").status == 405
            # It stores a blob while, and after, it passes it on.
            repository = registry.storage / "docker/registry/v2/repositories/box"
            link = repository / "_layers/sha256" / digest(LAYER).removeprefix("sha256:") / "link"
            async with asyncio.timeout(30):
                while not link.exists():
                    await asyncio.sleep(0.01)
            upstream.kill()
            assert client.blob("box", LAYER).body == LAYER


def test_an_upload_outlives_a_restart_of_the_registry() -> None:
    with engines.Registry() as registry:
        client = Client(registry)
        upload = client.ask("POST", "/v2/box/blobs/uploads/").location
        upload = client.ask("PATCH", upload, LAYER[:100], Content_Type="application/octet-stream").location
        registry.restart()
        put = client.ask(
            "PUT", f"{upload}&digest={digest(LAYER)}", LAYER[100:], Content_Type="application/octet-stream"
        )
        assert put.status == 201
        assert client.blob("box", LAYER).body == LAYER


def test_crane_answers_to_mounts_ranges_uploads_and_lists_in_its_own_way() -> None:
    with engines.CraneRegistry() as registry:
        client = Client(registry)
        manifest = client.push("box", "1")
        assert client.ask("POST", f"/v2/other/blobs/uploads/?mount={digest(LAYER)}&from=box").status == 202
        part = client.blob("box", LAYER, Range="bytes=7-13")
        assert (part.status, part.body) == (206, b"a layer")
        assert client.blob("box", LAYER, Range="bytes=7-").status == 416
        upload = client.ask("POST", "/v2/box/blobs/uploads/").location
        assert client.ask("PATCH", upload, LAYER[:100]).status == 204
        assert client.ask("GET", upload).status == 400
        client.push("box", "2", LAYER + b"2")
        page = client.ask("GET", "/v2/box/tags/list?n=1")
        assert (json.loads(page.body)["tags"], page.headers["Link"]) == (["1"], None)
        assert client.ask("GET", f"/v2/box/referrers/{digest(manifest)}").status == 404


def test_crane_with_a_disk_keeps_blobs_over_a_restart() -> None:
    with engines.CraneRegistry(disk=True) as registry:
        client = Client(registry)
        client.push("box", "1")
        registry.restart()
        assert client.blob("box", LAYER).body == LAYER
        assert client.manifest("box", "1").status == 404


def test_the_oci_registry_has_referrers_and_pages() -> None:
    with engines.OCIRegistry() as registry:
        client = Client(registry)
        subject = client.push("box", "1")
        signature = client.push(
            "box", "2", b"a signature", subject=descriptor(OCI_MANIFEST, subject), artifactType="application/signature"
        )
        referrers = json.loads(client.ask("GET", f"/v2/box/referrers/{digest(subject)}").body)
        assert [each["digest"] for each in referrers["manifests"]] == [digest(signature)]
        page = client.ask("GET", "/v2/box/tags/list?n=1")
        assert json.loads(page.body)["tags"] == ["1"]
        following = page.headers["Link"].partition(">")[0].removeprefix("<")
        assert json.loads(client.ask("GET", following).body)["tags"] == ["2"]


def test_the_oci_registry_resumes_an_upload_and_accepts_a_single_post() -> None:
    with engines.OCIRegistry() as registry:
        client = Client(registry)
        binary = "application/octet-stream"
        upload = client.ask("POST", "/v2/box/blobs/uploads/").location
        client.ask("PATCH", upload, LAYER[:100], Content_Type=binary, Content_Range="0-99")
        state = client.ask("GET", upload)
        assert (state.status, state.headers["Range"]) == (204, "0-99")
        single = client.ask("POST", f"/v2/box/blobs/uploads/?digest={digest(b'one')}", b"one", Content_Type=binary)
        assert single.status == 201
        assert client.blob("box", b"one").body == b"one"


def test_the_oci_registry_does_without_what_it_is_told_to_do_without() -> None:
    with engines.OCIRegistry(
        immutable_tags=True, referrers=False, single_post=False, tag_digest=False, links=False, max_page=5
    ) as registry:
        client = Client(registry)
        manifest = client.push("box", "1")
        client.push("box", "2")
        moved = client.ask("PUT", "/v2/box/manifests/1", manifest + b"\n", Content_Type=OCI_MANIFEST)
        assert moved.status == 403
        assert client.ask("GET", f"/v2/box/referrers/{digest(manifest)}").status == 404
        single = client.ask("POST", f"/v2/box/blobs/uploads/?digest={digest(b'one')}", b"one")
        assert single.status == 202
        assert client.manifest("box", "1").headers["Docker-Content-Digest"] is None
        assert client.ask("GET", "/v2/box/tags/list?n=1").headers["Link"] is None
        assert client.ask("GET", "/v2/box/tags/list?n=6").status == 400

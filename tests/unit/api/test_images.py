"""The operations whose answers are read whole: what comes back, and what goes out where versions differ."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiodocker_images import (
    FrameDecodeError,
    ImageService,
    InvalidReferenceError,
    LoginResult,
    NotFoundError,
    Platform,
    RegistryAuth,
    RemovedImage,
    SearchResult,
    ServerError,
    StaticKeychain,
    UnauthorizedError,
    UnsupportedAPIVersionError,
)
from tests.support.scripted import Exchange, Handler, ScriptedDaemon

ID = "sha256:" + "1" * 64
DIGEST = "sha256:" + "2" * 64


def json_answer(document: object, status: int = 200) -> Handler:
    async def answer(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer_json(document, status)

    return answer


async def test_history_comes_newest_first_with_times(daemon: ScriptedDaemon, images: ImageService) -> None:
    layers = [
        {"Id": ID, "Created": 1700000000, "CreatedBy": "CMD sh", "Tags": ["a:1"], "Size": 0, "Comment": ""},
        {"Id": "<missing>", "Created": 1600000000, "CreatedBy": "ADD x /", "Tags": None, "Size": 7, "Comment": "c"},
    ]
    daemon.on("GET", "/images/a:1/history", json_answer(layers))
    newest, oldest = await images.history("a:1")
    assert (newest.id, newest.tags, newest.created) == (ID, ("a:1",), datetime.fromtimestamp(1700000000, UTC))
    assert (oldest.id, oldest.tags, oldest.size, oldest.comment) == ("<missing>", (), 7, "c")


@pytest.mark.parametrize(
    ("everything", "filters", "sent"),
    [
        (False, None, {"dangling": ["true"]}),
        (True, None, {"dangling": ["false"]}),
        (True, {"label": {"stage": "test"}, "until": "24h"}, {
            "dangling": ["false"], "label": ["stage=test"], "until": ["24h"],
        }),
        (False, {"dangling": False}, {"dangling": ["false"]}),
    ],
    ids=["dangling", "all", "narrowed", "the caller's own"],
)  # fmt: skip
async def test_prune_all_means_what_the_clis_all_means(
    daemon: ScriptedDaemon,
    images: ImageService,
    everything: bool,
    filters: dict[str, str | dict[str, str] | bool] | None,
    sent: dict[str, list[str]],
) -> None:
    daemon.on(
        "POST",
        "/images/prune",
        json_answer({"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": ID}], "SpaceReclaimed": 5}),
    )
    report = await images.prune(all=everything, filters=filters)
    assert report.removed == (RemovedImage(untagged="a:1"), RemovedImage(deleted=ID))
    assert report.space_reclaimed == 5
    assert json.loads(dict(daemon.requests[-1].query)["filters"]) == sent


async def test_a_prune_of_nothing_is_empty(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/images/prune", json_answer({"ImagesDeleted": None, "SpaceReclaimed": 0}))
    assert (await images.prune()).removed == ()


async def test_search_and_its_options(daemon: ScriptedDaemon, images: ImageService) -> None:
    found = [{"name": "alpine", "description": "small", "star_count": 9, "is_official": True, "is_automated": False}]
    daemon.on("GET", "/images/search", json_answer(found))
    (result,) = await images.search("alpine", limit=5, filters={"is-official": True, "stars": 3})
    assert (result.name, result.description, result.star_count, result.is_official) == ("alpine", "small", 9, True)
    query = dict(daemon.requests[-1].query)
    assert (query["term"], query["limit"]) == ("alpine", "5")
    assert json.loads(query["filters"]) == {"is-official": ["true"], "stars": ["3"]}


async def test_podmans_shape_of_a_search_is_read(daemon: ScriptedDaemon, images: ImageService) -> None:
    """As Podman 5.8 sent it."""
    found = b"""[{"Index":"127.0.0.1:46855","Name":"127.0.0.1:46855/word/app","Description":"an app","Stars":3,"""
    found += b""""Official":"[OK]","Automated":"","Tag":""}]"""
    daemon.on("GET", "/images/search", lambda exchange: exchange.answer(found))
    (result,) = await images.search("127.0.0.1:46855/word")
    expected = SearchResult(name="127.0.0.1:46855/word/app", description="an app", star_count=3, is_official=True)
    assert result == expected


async def test_no_name_is_no_name_in_the_older_api_too(daemon: ScriptedDaemon, images: ImageService) -> None:
    """As Docker 20.10 sent it."""
    nameless = {"Id": ID, "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"], "Created": 1700000000}
    daemon.on("GET", "/images/json", json_answer([nameless]))
    (summary,) = await images.list()
    assert (summary.repo_tags, summary.repo_digests) == ((), ())


async def test_podmans_bare_ids_are_ids(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("DELETE", "/images/a:1", json_answer([{"Untagged": "a:1"}, {"Deleted": "1" * 64}]))
    assert await images.remove("a:1") == [RemovedImage(untagged="a:1"), RemovedImage(deleted=ID)]


async def test_a_search_goes_to_the_registry_of_its_term_with_its_credentials(daemon: ScriptedDaemon) -> None:
    daemon.on("GET", "/images/search", json_answer([]))
    keychain = StaticKeychain({"127.0.0.1:5000": RegistryAuth(username="u", password="p")})
    async with ImageService(daemon.socket, keychain=keychain) as images:
        await images.search("127.0.0.1:5000/word")
        header = base64.urlsafe_b64decode(daemon.requests[-1].headers["x-registry-auth"])
        assert json.loads(header)["serveraddress"] == "127.0.0.1:5000"
        await images.search("two words")
        assert "x-registry-auth" not in daemon.requests[-1].headers


async def test_inspect_distribution_gives_the_digest_and_the_platforms(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    answer = {
        "Descriptor": {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": DIGEST, "size": 9},
        "Platforms": [{"architecture": "arm64", "os": "linux", "variant": "v8"}],
    }
    daemon.on("GET", "/distribution/docker.io/library/alpine:latest/json", json_answer(answer))
    result = await images.inspect_distribution("alpine", auth=RegistryAuth(username="u", password="p"))
    assert result.descriptor is not None
    assert result.descriptor.digest == DIGEST
    assert result.platforms == (Platform.parse("linux/arm64/v8"),)
    assert "x-registry-auth" in daemon.requests[-1].headers
    daemon.on("GET", "/distribution/docker.io/library/alpine:latest/json", json_answer({**answer, "Platforms": None}))
    assert (await images.inspect_distribution("alpine")).platforms == ()


async def test_login_sends_the_credentials_in_the_body_and_takes_both_answers(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    bodies: list[object] = []

    async def accept(exchange: Exchange) -> None:
        assert exchange.headers["content-type"] == "application/json"
        bodies.append(json.loads(await exchange.body()))
        await exchange.answer_json({"Status": "Login Succeeded", "IdentityToken": "secret-token"})

    async def accept_silently(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    daemon.on("POST", "/auth", accept)
    result = await images.login(RegistryAuth(username="u", password="p", server_address="127.0.0.1:5000"))
    assert result == LoginResult(status="Login Succeeded", identity_token="secret-token")
    assert "secret-token" not in repr(result)
    await images.login(RegistryAuth(username="u", password="p"))
    assert bodies == [
        {"username": "u", "password": "p", "serveraddress": "127.0.0.1:5000"},
        {"username": "u", "password": "p", "serveraddress": "https://index.docker.io/v1/"},
    ]
    daemon.on("POST", "/auth", accept_silently)
    assert await images.login(RegistryAuth(username="u", password="p")) == LoginResult()
    daemon.on("POST", "/auth", json_answer({"message": "Get https://r/v2/: unauthorized: bad"}, 401))
    with pytest.raises(UnauthorizedError, match=r"^login docker\.io: "):
        await images.login(RegistryAuth(username="u", password="hunter2"))


async def test_attestations_are_of_the_newest_api_only(short_path: Path) -> None:
    statement = {
        "Descriptor": {"digest": DIGEST},
        "PredicateType": "https://slsa.dev/provenance/v0.2",
        "Statement": {"a": 1},
    }
    async with (
        ScriptedDaemon(short_path / "new.sock", api_version="1.55") as new,
        ScriptedDaemon(short_path / "old.sock", api_version="1.54") as old,
        ImageService(new.socket) as images,
        ImageService(old.socket) as of_old,
    ):
        new.on("GET", "/images/a:1/attestations", json_answer([statement]))
        (attestation,) = await images.attestations("a:1", platform="linux/amd64", types=["x", "y"], statement=True)
        assert attestation.statement == {"a": 1}
        assert attestation.predicate_type == "https://slsa.dev/provenance/v0.2"
        assert new.requests[-1].query == [
            ("platform", '{"os":"linux","architecture":"amd64"}'),
            ("type", "x"),
            ("type", "y"),
            ("statement", "true"),
        ]
        with pytest.raises(UnsupportedAPIVersionError, match=r"attestations needs Engine API 1\.55"):
            await of_old.attestations("a:1")
        assert old.paths == []
        new.on("GET", "/images/a:1/attestations", json_answer({"message": "not implemented by the graphdriver"}, 501))
        with pytest.raises(ServerError):
            await images.attestations("a:1")


SUMMARY = {"Id": ID, "Size": 100, "SharedSize": 40, "Containers": 1, "RepoTags": ["a:1"]}
UNUSED = {"Id": DIGEST, "Size": 50, "SharedSize": 0, "Containers": 0, "RepoTags": None}


@pytest.mark.parametrize(
    ("version", "query"),
    [("1.41", []), ("1.42", [("type", "image")]), ("1.51", [("type", "image")])],
)
async def test_disk_usage_of_an_older_engine_is_computed(
    short_path: Path, version: str, query: list[tuple[str, str]]
) -> None:
    async with (
        ScriptedDaemon(short_path / "docker.sock", api_version=version) as daemon,
        ImageService(daemon.socket) as images,
    ):
        daemon.on("GET", "/system/df", json_answer({"LayersSize": 150, "Images": [SUMMARY, UNUSED], "Containers": []}))
        usage = await images.disk_usage(verbose=True)
        assert daemon.requests[-1].query == query
    assert (usage.active_count, usage.total_count, usage.total_size, usage.reclaimable) == (1, 2, 150, 90)
    assert [image.id for image in usage.items] == [ID, DIGEST]


async def test_disk_usage_of_a_newer_engine_is_its_own(short_path: Path) -> None:
    figures = {"ActiveCount": 1, "TotalCount": 2, "Reclaimable": 50, "TotalSize": 150}
    async with (
        ScriptedDaemon(short_path / "docker.sock", api_version="1.52") as daemon,
        ImageService(daemon.socket) as images,
    ):
        daemon.on("GET", "/system/df", json_answer({"ImageUsage": figures, "LayersSize": 1, "Images": []}))
        usage = await images.disk_usage()
        assert daemon.requests[-1].query == [("type", "image")]
        assert (usage.active_count, usage.total_count, usage.total_size, usage.reclaimable) == (1, 2, 150, 50)
        assert usage.items == ()
        daemon.on("GET", "/system/df", json_answer({"ImageUsage": {**figures, "Items": [SUMMARY]}}))
        assert [image.id for image in (await images.disk_usage(verbose=True)).items] == [ID]
        assert daemon.requests[-1].query == [("type", "image"), ("verbose", "true")]


async def test_any_request_can_be_sent_and_its_raw_answer_read(daemon: ScriptedDaemon, images: ImageService) -> None:
    async def echo(exchange: Exchange) -> None:
        await exchange.answer_json({"query": exchange.query, "body": json.loads(await exchange.body() or b"null")})

    daemon.on("POST", "/newer/thing", echo)
    daemon.on("GET", "/info", lambda exchange: exchange.answer(b"no json"))
    daemon.on("GET", "/empty", lambda exchange: exchange.answer(b""))
    raw = await images.request("POST", "/newer/thing", params=[("a", "b&c"), ("a", "d")], json={"x": 1})
    assert raw == {"query": [["a", "b&c"], ["a", "d"]], "body": {"x": 1}}
    assert await images.request("GET", "/info") == "no json"
    assert await images.request("GET", "/empty") is None
    with pytest.raises(NotFoundError, match="^request GET /nothing: "):
        await images.request("GET", "/nothing")


@pytest.mark.parametrize(
    "path", ["images", "/images/../containers", "/a?b", "/a#b", "/a b", "/a%2e", "/", "//x", "/a\r\nb", "/./a"]
)
async def test_a_raw_path_is_plain_or_refused(daemon: ScriptedDaemon, images: ImageService, path: str) -> None:
    with pytest.raises(InvalidReferenceError):
        await images.request("GET", path)
    assert daemon.requests == []


async def test_a_raw_method_is_a_word(images: ImageService) -> None:
    with pytest.raises(ValueError, match="is not an HTTP method"):
        await images.request("GET /x HTTP/1.1\r\n", "/info")


async def test_an_answer_of_another_shape_is_an_error_of_ours(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/images/prune", json_answer([1]))
    daemon.on("GET", "/images/search", json_answer({"message": "x"}))
    for call in (images.prune(), images.search("x")):
        with pytest.raises(FrameDecodeError):
            await call


@pytest.mark.parametrize("body", [b"{}", b'{"Id": ""}', b'{"Id": null, "RepoTags": ["app:1"]}'])
async def test_an_answer_without_an_image_in_it_is_no_image(
    daemon: ScriptedDaemon, images: ImageService, body: bytes
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body, headers={"Content-Type": "application/json"})

    daemon.on("GET", "/images/app:1/json", answer)
    with pytest.raises(FrameDecodeError, match="inspect app:1: the answer has no image in it"):
        await images.inspect("app:1")

"""What Docker 29 answers, byte by byte as it was on the wire (API 1.56), is understood by every method.

docker29 is its graph-driver store, docker29c its containerd store, which is the default of new installations.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from aiodocker_images import (
    DockerError,
    ImageService,
    InvalidArchiveError,
    NotFoundError,
    TransferredTag,
    UnsupportedAPIVersionError,
)
from tests.support.replay import Replay, recording

PLATFORM = "linux/arm64"
BOTH = "127.0.0.1:5101/cap/both:1"
INDEX = "sha256:cfb71f469f89ed4d9212e9134b128734c6f5c2b0253c2433d64805f32b23ceb4"
MANIFEST = "sha256:ee93b4c120ba5495fae8f560da9f05b576129489363e80b93947a40e2132d3bb"


@contextlib.asynccontextmanager
async def docker29(directory: Path, name: str, engine: str = "docker29c") -> AsyncGenerator[ImageService, None]:
    async with (
        Replay(directory, recording(engine, name), api_version="1.56") as replay,
        ImageService(replay.socket) as images,
    ):
        yield images


async def test_a_platform_that_is_listed_but_was_not_pulled_is_not_found(short_path: Path) -> None:
    """Docker 29 answers with status 200 and a document without an architecture."""
    async with docker29(short_path, "inspect-platform-arm64") as images:
        with pytest.raises(NotFoundError, match=f"^inspect {BOTH}: .* does not hold .* linux/arm64") as caught:
            await images.inspect(BOTH, platform=PLATFORM)
    assert (caught.value.method, caught.value.path) == ("GET", f"/images/{BOTH}/json")


async def test_a_platform_that_was_pulled_is_inspected(short_path: Path) -> None:
    async with docker29(short_path, "inspect-platform-amd64") as images:
        image = await images.inspect(BOTH, platform="linux/amd64")
    assert (image.os, image.architecture, image.size) == ("linux", "amd64", 21424)
    assert image.identity is not None
    assert [pull.repository for pull in image.identity.pull] == ["127.0.0.1/cap/both"]


MISSING: dict[str, Callable[[ImageService], Awaitable[object]]] = {
    "inspect-platform-s390x": lambda images: images.inspect(BOTH, platform="linux/s390x"),
    "remove-platform-not-held": lambda images: images.remove(BOTH, platforms=[PLATFORM], force=True),
    "save-missing": lambda images: images.save("missing:1", to="/dev/null"),
}


@pytest.mark.parametrize("name", MISSING)
async def test_what_is_missing_is_not_found(short_path: Path, name: str) -> None:
    async with docker29(short_path, name) as images:
        with pytest.raises(NotFoundError):
            await MISSING[name](images)


async def test_a_push_tells_that_one_manifest_went_in_place_of_the_index(short_path: Path) -> None:
    async with docker29(short_path, "push-one-of-two-platforms") as images:
        result = await images.push(BOTH)
    assert (result.digest, result.size, result.instead_of_index) == (MANIFEST, 419, INDEX)
    assert result.tags == (TransferredTag(tag="1", digest=MANIFEST, size=419, instead_of_index=INDEX),)


@pytest.mark.parametrize("engine", ["docker29", "docker29c"])
async def test_a_push_of_what_the_engine_holds_whole_replaces_nothing(short_path: Path, engine: str) -> None:
    async with docker29(short_path, "push", engine) as images:
        result = await images.push("127.0.0.1:5101/cap/a:1")
    assert result.instead_of_index is None
    assert result.digest is not None
    assert [(tag.tag, tag.digest) for tag in result.tags] == [("1", result.digest)]


@pytest.mark.parametrize(("name", "up_to_date"), [("pull", False), ("pull-up-to-date", True)])
async def test_a_pull_tells_whether_anything_was_new(short_path: Path, name: str, up_to_date: bool) -> None:
    async with docker29(short_path, name) as images:
        result = await images.pull("127.0.0.1:5101/cap/a:1")
    assert result.up_to_date == up_to_date
    assert [(tag.tag, tag.digest) for tag in result.tags] == [("1", result.digest)]


async def test_identities_are_listed(short_path: Path) -> None:
    async with docker29(short_path, "list-identity") as images:
        listed = await images.list(identity=True)
    assert all(image.manifests for image in listed)


@pytest.mark.parametrize("name", ["df", "df-1.52", "df-verbose"])
async def test_disk_usage_is_that_of_the_new_fields(short_path: Path, name: str) -> None:
    """The fields of older versions are still there beside them at version 1.52."""
    async with docker29(short_path, name) as images:
        usage = await images.disk_usage(verbose=True)
    assert (usage.active_count, usage.total_count) == (1, 3)
    assert len(usage.items) == 3
    assert usage.total_size is not None


async def test_counts_that_are_zero_are_left_out_and_zero(short_path: Path) -> None:
    body = b'{"ImageUsage":{"TotalCount":2,"TotalSize":5}}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with Replay(short_path, answer, api_version="1.56") as replay, ImageService(replay.socket) as images:
        usage = await images.disk_usage()
    assert (usage.active_count, usage.total_count, usage.reclaimable, usage.total_size) == (0, 2, 0, 5)


@pytest.mark.parametrize("engine", ["docker29", "docker29c"])
@pytest.mark.parametrize("name", ["load-garbage", "load-empty"])
async def test_an_archive_that_is_not_one_is_an_archive_error(short_path: Path, engine: str, name: str) -> None:
    async with docker29(short_path, name, engine) as images:
        with pytest.raises(InvalidArchiveError, match="^load: "):
            await images.load(b"garbage")


@pytest.mark.parametrize("engine", ["docker29", "docker29c"])
async def test_a_root_file_system_that_is_not_a_tar_is_an_archive_error(short_path: Path, engine: str) -> None:
    async with docker29(short_path, "import-garbage", engine) as images:
        with pytest.raises(InvalidArchiveError, match="^import"):
            await images.import_image(b"garbage")


@pytest.mark.parametrize("name", ["too-old", "too-new"])
async def test_a_version_that_it_does_not_speak_is_named(short_path: Path, name: str) -> None:
    async with docker29(short_path, name) as images:
        with pytest.raises(UnsupportedAPIVersionError) as caught:
            await images.list()
    assert caught.value.required in {"1.40", "1.56"}


READ: dict[str, Callable[[ImageService], Awaitable[object]]] = {
    "list": lambda images: images.list(),
    "list-one-platform-held": lambda images: images.list(manifests=True),
    "history": lambda images: images.history("127.0.0.1:5101/cap/a:1"),
    "history-buildkit": lambda images: images.history("cap:1"),
    "version": lambda images: images.version(),
    "distribution": lambda images: images.inspect_distribution("127.0.0.1:5101/cap/a:1"),
}


@pytest.mark.parametrize("name", READ)
async def test_documents_are_read_without_a_loss(short_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    async with docker29(short_path, name) as images:
        assert await READ[name](images)
    assert caplog.records == []


async def test_a_tag_is_set(short_path: Path) -> None:
    async with docker29(short_path, "tag") as images:
        await images.tag("cap:1", "cap:2")


async def test_a_graph_driver_store_says_that_it_keeps_no_attestations(short_path: Path) -> None:
    async with docker29(short_path, "attestations-none", "docker29") as images:
        with pytest.raises(DockerError, match="does not support attestations"):
            await images.attestations("cap:1")

"""Whether an image is there, whether a newer one is in its registry, and pulls that depend on it."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from aiodocker_images import FrameDecodeError, ImageService, NotFoundError, PullResult, UpdateCheck
from tests.support.scripted import Exchange, ScriptedDaemon

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
CANONICAL = "docker.io/library/alpine:3.20"
IMAGE = {"Id": "sha256:" + "1" * 64, "Os": "linux", "Architecture": "amd64", "RepoDigests": [f"alpine@{DIGEST}", "x"]}


@pytest.fixture
def held(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """An Engine that has alpine:3.20 for amd64, and pulls whatever it is told to."""
    architecture = "amd64"

    async def inspect(exchange: Exchange) -> None:
        wanted = dict(exchange.query).get("platform")
        if wanted is not None and json.loads(wanted)["architecture"] != architecture:
            await exchange.answer_json({"message": "does not provide the specified platform"}, 404)
        else:
            await exchange.answer_json({**IMAGE, "Architecture": architecture})

    async def pull(exchange: Exchange) -> None:
        nonlocal architecture
        architecture = dict(exchange.query).get("platform", "linux/amd64").partition("/")[2]
        await exchange.head()
        await exchange.frames({"status": f"Digest: {OTHER}"}, {"status": "Status: Downloaded newer image"})
        await exchange.end()

    for name in (CANONICAL, "alpine:3.20"):
        daemon.on("GET", f"/images/{name}/json", inspect)
    daemon.on("POST", "/images/create", pull)
    return daemon


async def test_an_image_exists_or_not(held: ScriptedDaemon, images: ImageService) -> None:
    assert await images.exists("alpine:3.20")
    assert await images.exists("alpine:3.20", platform="linux/amd64")
    assert not await images.exists("alpine:3.20", platform="arm64")
    assert not await images.exists("busybox")
    assert "POST /images/create" not in held.paths


@pytest.mark.parametrize("policy", ["missing", "never"])
@pytest.mark.parametrize("platform", [None, "linux/amd64"])
async def test_what_is_there_is_not_pulled(
    held: ScriptedDaemon, images: ImageService, policy: Literal["missing", "never"], platform: str | None
) -> None:
    result = await images.pull("alpine:3.20", policy=policy, platform=platform)
    assert result == PullResult(reference=CANONICAL, digest=DIGEST, up_to_date=True)
    assert held.paths == [f"GET /images/{CANONICAL}/json"]


@pytest.mark.parametrize(("name", "platform"), [("busybox:1", None), ("alpine:3.20", "linux/arm64")])
async def test_what_is_missing_is_pulled_or_not_found(
    held: ScriptedDaemon, images: ImageService, name: str, platform: str | None
) -> None:
    """An image for another platform is not the one that is asked for."""
    with pytest.raises(NotFoundError, match=f"^pull {name}: .* is not to be pulled"):
        await images.pull(name, policy="never", platform=platform)
    assert "POST /images/create" not in held.paths
    assert (await images.pull(name, policy="missing", platform=platform)).digest == OTHER


async def test_an_image_for_another_windows_version_is_not_taken_as_present(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    async def inspect(exchange: Exchange) -> None:
        if "platform" in dict(exchange.query):
            await exchange.answer_json({"message": "does not provide the specified platform"}, 404)
        else:
            await exchange.answer_json({**IMAGE, "Os": "windows", "OsVersion": "10.0.17763.1"})

    daemon.on("GET", f"/images/{CANONICAL}/json", inspect)
    assert (await images.pull("alpine:3.20", policy="never", platform="windows(10.0.17763.1)/amd64")).up_to_date
    with pytest.raises(NotFoundError, match="is not to be pulled"):
        await images.pull("alpine:3.20", policy="never", platform="windows(10.0.20348.1)/amd64")


async def test_a_pull_that_may_always_ask_asks_nothing_first(held: ScriptedDaemon, images: ImageService) -> None:
    await images.pull("alpine:3.20")
    assert held.paths == ["POST /images/create"]


async def test_a_policy_that_means_nothing_is_refused(held: ScriptedDaemon, images: ImageService) -> None:
    with pytest.raises(ValueError, match="always, missing, never"):
        await images.pull("alpine", policy="sometimes")  # type: ignore[arg-type]  # that it is refused is the claim
    with pytest.raises(ValueError, match="name a tag"):
        await images.pull("alpine", all_tags=True, policy="missing")
    assert held.paths == []


def _registry_has(daemon: ScriptedDaemon, name: str, digest: str | None) -> None:
    daemon.on(
        "GET", f"/distribution/{name}/json", lambda exchange: exchange.answer_json({"Descriptor": {"digest": digest}})
    )


@pytest.mark.parametrize(("digest", "update"), [(DIGEST, False), (OTHER, True)])
async def test_an_update_is_there_if_the_registry_has_another_digest(
    held: ScriptedDaemon, images: ImageService, digest: str, update: bool
) -> None:
    _registry_has(held, CANONICAL, digest)
    result = await images.check_for_update("alpine:3.20")
    assert result == UpdateCheck(reference=CANONICAL, latest=digest, held=(DIGEST,))
    assert result.update_available == update
    assert "POST /images/create" not in held.paths


async def test_for_an_image_that_the_engine_does_not_have_an_update_is_there(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    _registry_has(daemon, CANONICAL, DIGEST)
    result = await images.check_for_update("alpine:3.20")
    assert (result.held, result.update_available) == ((), True)


async def test_a_registry_that_does_not_have_the_image_is_not_found(held: ScriptedDaemon, images: ImageService) -> None:
    """So answers Podman always, which has no such endpoint."""
    with pytest.raises(NotFoundError):
        await images.check_for_update("alpine:3.20")


async def test_an_answer_without_a_digest_is_not_an_update(held: ScriptedDaemon, images: ImageService) -> None:
    _registry_has(held, CANONICAL, None)
    with pytest.raises(FrameDecodeError, match="^check_for_update alpine:3.20: .* no digest"):
        await images.check_for_update("alpine:3.20")

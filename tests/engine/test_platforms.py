"""Multi-platform images: pull, push, save, load, inspect, history and remove by platform.

The containerd store holds all platforms of an image, the others the one that was pulled.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import pytest

from aiodocker_images import APIError, DockerError, ImageService, NotFoundError, UnsupportedAPIVersionError
from tests.conftest import engine_is
from tests.support.oci_archives import MultiPlatformImage

pytestmark = pytest.mark.engine

PODMAN = engine_is("podman")
CONTAINERD_STORE = engine_is("docker28c")
BELOW_1_48 = engine_is("docker20", "docker26", "podman")


@pytest.fixture
def both(registry: str) -> MultiPlatformImage:
    """An image of linux/amd64 and linux/arm64 that is nowhere yet."""
    return MultiPlatformImage(f"{registry}/platforms-{secrets.token_hex(4)}:1.0")


async def label(engine: ImageService, name: str) -> str:
    config = (await engine.inspect(name)).config
    assert config is not None
    return config.labels["platform"]


async def test_a_pull_takes_the_platform_that_is_asked_for(
    engine: ImageService, registry: str, both: MultiPlatformImage
) -> None:
    """And without one that of the daemon. The registry's digest is that of the index."""
    await both.upload(registry)
    if not PODMAN:
        found = await engine.inspect_distribution(both.name)
        assert found.descriptor is not None
        assert found.descriptor.digest == both.digest
        assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm64"]
    for platform in ("linux/arm64", "linux/amd64"):
        result = await engine.pull(both.name, platform=platform)
        assert result.digest in ({None} if PODMAN else {both.digest})
        if not CONTAINERD_STORE:
            assert await label(engine, both.name) == platform
            assert (await engine.inspect(both.name)).architecture == platform.partition("/")[2]
        await engine.remove(both.name, force=True)
    await engine.pull(both.name)
    assert await label(engine, both.name) == "linux/amd64"
    with pytest.raises(DockerError, match=f"^pull {both.name}: "):
        await engine.pull(both.name, platform="linux/s390x")
    await engine.remove(both.name, force=True)


BY_PLATFORM: dict[str, Callable[[ImageService, str], Awaitable[object]]] = {
    "save": lambda engine, name: engine.save(name, to="/dev/null", platforms=["linux/arm64"]),
    "inspect": lambda engine, name: engine.inspect(name, platform="linux/arm64"),
    "history": lambda engine, name: engine.history(name, platform="linux/arm64"),
    "push": lambda engine, name: engine.push(name, platform="linux/arm64"),
    "remove": lambda engine, name: engine.remove(name, platforms=["linux/arm64"]),
}


@pytest.mark.parametrize("call", BY_PLATFORM.values(), ids=BY_PLATFORM)
async def test_a_platform_that_the_store_does_not_hold_is_an_error(
    engine: ImageService,
    registry: str,
    both: MultiPlatformImage,
    call: Callable[[ImageService, str], Awaitable[object]],
) -> None:
    """Never another platform's image in its place: old daemons would silently ignore the parameter."""
    await both.upload(registry)
    await engine.pull(both.name, platform="linux/amd64")
    with pytest.raises(UnsupportedAPIVersionError if BELOW_1_48 else APIError):
        await call(engine, both.name)
    assert await label(engine, both.name) == "linux/amd64"
    await engine.remove(both.name, force=True)


async def test_the_containerd_store_holds_every_platform(
    engine: ImageService, registry: str, both: MultiPlatformImage
) -> None:
    """Load, list, inspect, history, save, push and remove see both or the one that is asked for."""
    if PODMAN:  # it takes the platform that it runs on from the archive
        assert (await engine.load(both.archive)).references == (both.name,)
        assert await label(engine, both.name) == "linux/amd64"
        await engine.remove(both.name)
        return
    if not CONTAINERD_STORE:
        with pytest.raises(APIError):  # an OCI layout without Docker's manifest.json is no archive to them
            await engine.load(both.archive)
        return
    loaded = await engine.load(both.archive)
    assert loaded.references == (both.name,)
    (summary,) = await engine.list(both.name, manifests=True)
    assert summary.descriptor is not None
    assert summary.descriptor.digest == both.digest
    held = {str(m.image_data.platform): m.available for m in summary.manifests if m.image_data}
    assert held == {"linux/amd64": True, "linux/arm64": True}
    details = await engine.inspect(both.name, manifests=True)
    assert {manifest.id for manifest in details.manifests} == set(both.manifests.values())
    for platform in ("linux/amd64", "linux/arm64"):
        config = (await engine.inspect(both.name, platform=platform)).config
        assert config is not None
        assert config.labels["platform"] == platform
        (layer,) = await engine.history(both.name, platform=platform)
        assert layer.created_by == f"ADD 0 for {platform}"

    assert (await engine.push(both.name)).digest == both.digest
    found = await engine.inspect_distribution(both.name)
    assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm64"]
    single = both.name.replace(":1.0", ":arm64")
    await engine.tag(both.name, single)
    assert (await engine.push(single, platform="linux/arm64")).digest == both.manifests["linux/arm64"]

    archive = b"".join([chunk async for chunk in engine.save_stream(both.name, platforms=["linux/arm64"])])
    with pytest.raises(APIError, match="all images referencing this variant"):
        await engine.remove(both.name, platforms=["linux/arm64"])
    removed = await engine.remove(both.name, platforms=["linux/arm64"], force=True)
    assert removed
    with pytest.raises(NotFoundError):
        await engine.inspect(both.name, platform="linux/arm64")
    assert await label(engine, both.name) == "linux/amd64"
    for name in (both.name, single):
        await engine.remove(name, force=True)
    await engine.load(archive)
    assert (await engine.inspect(both.name, platform="linux/arm64")).architecture == "arm64"
    with pytest.raises(NotFoundError):
        await engine.inspect(both.name, platform="linux/amd64")
    await engine.remove(both.name, force=True)
    # Docker 28.5 unpacks only this platform, but keeps the others' content as well.
    await engine.load(both.archive, platforms=["linux/amd64"])
    assert await label(engine, both.name) == "linux/amd64"
    await engine.remove(both.name, force=True)
    with pytest.raises(APIError, match="^load: "):
        await engine.load(both.archive, platforms=["linux/s390x"])

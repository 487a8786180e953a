"""Real Engines pull from and push to the fake registry, whichever registry it behaves as."""

from __future__ import annotations

import secrets

import pytest

from aiodocker_images import APIError, ImageService, RegistryAuth
from aiodocker_images.testing import BEHAVIOURS, BasicAuth, FakeRegistry, Fault, TokenAuth, image, index, layer
from aiodocker_images.testing.auth import Auth
from tests.conftest import by_engine, engine_is

pytestmark = pytest.mark.engine

SPOKEN = [name for name, behaviour in BEHAVIOURS.items() if behaviour.version == 2 and name != "strict"]
"""Engines do not send back the query of an upload's Location byte for byte."""


@pytest.mark.parametrize("like", SPOKEN)
async def test_an_engine_pulls_and_pushes(engine: ImageService, like: str) -> None:
    content = index(image([layer(size=200_000, seed=secrets.randbits(64))]), image(platform="linux/arm64"))
    async with FakeRegistry(like=like) as registry:
        source, target = registry.name("app:1.0"), registry.name("copy:1.0")
        registry.put("app:1.0", content)
        registry.create("copy")
        pulled = await engine.pull(source, platform="linux/amd64")
        assert pulled.digest == by_engine(content.digest, podman=None)
        await engine.tag(source, target)
        await engine.remove(source)
        pushed = await engine.push(target, platform="linux/amd64" if engine_is("docker28c") else None)
        assert registry.tags("copy") == {"1.0": pushed.digest}
        config = registry.manifest("copy:1.0").descriptors("config")[0]["digest"]
        assert config == content.manifests[0].config.digest
        if registry.behaviour.upload_cancel == 204:  # Podman opens one to mount a blob, and cancels it if it could not
            assert registry.uploads == []
        await engine.remove(target)


@pytest.mark.parametrize("auth", [BasicAuth("alice", "secret"), TokenAuth("alice", "secret")], ids=["basic", "token"])
async def test_an_engine_needs_the_password(engine: ImageService, auth: Auth) -> None:
    content = image([layer(seed=secrets.randbits(64))])
    async with FakeRegistry(auth=auth, redirect=True) as registry:
        registry.put("app:1.0", content)
        name = registry.name("app:1.0")
        with pytest.raises(APIError):
            await engine.pull(name)
        await engine.pull(name, auth=RegistryAuth(username="alice", password="secret"))
        assert registry.count("GET storage") > 0
        await engine.remove(name)


async def test_an_engine_goes_on_where_a_layer_was_cut(engine: ImageService) -> None:
    big = layer(size=2 << 20, seed=secrets.randbits(64))
    async with FakeRegistry() as registry:
        registry.put("app:1.0", image([big]))
        cut = registry.fail(Fault.cut(after=1 << 20), on="GET blob", reference=big.digest)
        await engine.pull(registry.name("app:1.0"))
        assert cut.hits == 1
        again = registry.asked("GET blob", reference=big.digest)[1:]
        assert [each.status for each in again] == [206]
        await engine.remove(registry.name("app:1.0"))

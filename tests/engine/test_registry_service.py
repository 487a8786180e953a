"""`RegistryService` between real registries: distribution in its variants, crane's, and an OCI 1.1 one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import bcrypt
import pytest

import engines
from aiodocker_images import (
    APIError,
    RegistryAuth,
    RegistryConfig,
    RegistryService,
    RegistryUnreachableError,
    StaticKeychain,
    UnauthorizedError,
)
from aiodocker_images.testing import FakeRegistry, artifact, image, index, layer
from tests.conftest import Leftovers
from tests.support import certificates
from tests.support.blob_host import BlobHost
from tests.support.token_server import TokenServer

pytestmark = pytest.mark.once

SHARED = layer(size=300_000)
CONTENT = index(
    image(layers=[SHARED, {"a": "amd64"}]),
    image(layers=[SHARED, {"a": "arm64"}], platform="linux/arm64"),
    attestations=True,
    indent=3,
    annotations={"org.example": "kept"},
)
MOST = 2 + 2 * len(list(CONTENT.walk())) + 3 * len(CONTENT.all_blobs())


@contextlib.asynccontextmanager
async def filled(leftovers: Leftovers) -> AsyncGenerator[tuple[FakeRegistry, RegistryService], None]:
    """A source with the image, and a service; nothing of it is left behind."""
    before = leftovers.now()
    async with FakeRegistry() as source:
        source.put("app:1", CONTENT)
        async with RegistryService(keychain=StaticKeychain({})) as registries:
            yield source, registries
    await leftovers.settle(before)


@pytest.mark.parametrize("kind", engines.REGISTRIES)
async def test_a_copy_to_a_real_registry_keeps_every_byte_at_the_promised_cost(kind: str, leftovers: Leftovers) -> None:
    with engines.REGISTRIES[kind]() as target:
        async with filled(leftovers) as (source, registries):
            result = await registries.copy(source.name("app:1"), f"{target.address}/app:1", verify=True)
            assert result.digest == CONTENT.digest
            # One more is the look at the end, and two where a mount that misses is 404.
            assert result.requests <= MOST + 3
            again = await registries.copy(source.name("app:1"), f"{target.address}/app:1")
            assert (again.skipped, again.requests) == (True, 2)
            manifest = await registries.manifest(f"{target.address}/app:1")
            assert manifest.data == CONTENT.data
            other = await registries.copy(f"{target.address}/app:1", f"{target.address}/other/app:2")
            assert other.digest == CONTENT.digest
            assert await registries.tags(f"{target.address}/other/app") == ["2"]
            back = await registries.copy(f"{target.address}/other/app:2", source.name("back:1"))
            assert source.has("back", CONTENT)
            assert back.digest == CONTENT.digest


async def test_distribution_mounts_what_another_repository_has(leftovers: Leftovers) -> None:
    with engines.Registry() as target:
        async with filled(leftovers) as (source, registries):
            await registries.copy(source.name("app:1"), f"{target.address}/one:1")
            result = await registries.copy(source.name("app:1"), f"{target.address}/two:1")
            assert result.bytes_moved == 0
        async with filled(leftovers) as (source, registries):
            # A service that knows nothing of that: what is in the repository itself is found without a HEAD.
            source.put("app:2", index(*CONTENT.manifests, indent=1))
            result = await registries.copy(source.name("app:2"), f"{target.address}/two:2")
            assert (result.bytes_moved, result.bytes_there > 0) == (0, True)


async def test_a_registry_with_passwords_takes_the_right_one(leftovers: Leftovers) -> None:
    encrypted = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    with engines.Registry(htpasswd=f"alice:{encrypted}\n", relative_urls=True) as target:
        async with filled(leftovers) as (source, registries):
            with pytest.raises(UnauthorizedError, match="docker login"):
                await registries.copy(source.name("app:1"), f"{target.address}/app:1")
            keychain = StaticKeychain({target.address: RegistryAuth(username="alice", password="secret")})
            async with RegistryService(keychain=keychain) as known:
                result = await known.copy(source.name("app:1"), f"{target.address}/app:1")
                assert result.digest == CONTENT.digest


async def test_a_registry_with_a_token_server_gives_what_its_tokens_allow(leftovers: Leftovers, tmp_path: Path) -> None:
    async with TokenServer(tmp_path) as server:
        with engines.Registry(token=server.registry) as target:
            auth = RegistryAuth(username=server.username, password=server.password)
            async with filled(leftovers) as (source, _):
                async with RegistryService(keychain=StaticKeychain({target.address: auth})) as known:
                    await known.copy(source.name("app:1"), f"{target.address}/app:1")
                    result = await known.copy(f"{target.address}/app:1", f"{target.address}/other:1")
                    assert (result.digest, result.bytes_moved) == (CONTENT.digest, 0)


async def test_blobs_that_are_at_another_host_are_read_there_without_credentials(leftovers: Leftovers) -> None:
    async with BlobHost() as host:
        with engines.Registry() as plain:
            host.storage = plain.storage
            async with filled(leftovers) as (source, registries):
                await registries.copy(source.name("app:1"), f"{plain.address}/app:1")
                with engines.Registry(redirect=host.url, storage=plain.storage) as redirecting:
                    await registries.copy(f"{redirecting.address}/app:1", source.name("back:1"))
                assert source.has("back", CONTENT)
            assert host.requests
            assert not any("Authorization" in headers for _, _, headers in host.requests)


async def test_a_registry_with_tls_is_spoken_to_with_our_certificate(leftovers: Leftovers, tmp_path: Path) -> None:
    made = certificates.make(tmp_path)
    with engines.Registry(tls=made.server) as target:
        async with filled(leftovers) as (source, _):
            configs = {target.address: RegistryConfig(tls=made.client)}
            async with RegistryService(keychain=StaticKeychain({}), registries=configs) as known:
                result = await known.copy(source.name("app:1"), f"{target.address}/app:1")
                assert result.digest == CONTENT.digest
            configs = {target.address: RegistryConfig(plain_http=False)}
            async with RegistryService(keychain=StaticKeychain({}), registries=configs) as stranger:
                with pytest.raises(RegistryUnreachableError, match="certificate"):
                    await stranger.ping(target.address)


async def test_a_registry_that_is_read_only_refuses_before_any_blob_is_read(leftovers: Leftovers) -> None:
    with engines.Registry(read_only=True) as target:
        async with filled(leftovers) as (source, registries):
            with pytest.raises(APIError) as caught:
                await registries.copy(source.name("app:1"), f"{target.address}/app:1")
            assert caught.value.status == 405
            assert source.count("GET blob") == 0


async def test_signatures_go_to_a_registry_without_the_referrers_api(leftovers: Leftovers) -> None:
    signature = artifact("application/vnd.example.signature", {"sig": b"1"}, subject=CONTENT)
    with engines.Registry() as target:
        async with filled(leftovers) as (source, registries):
            source.put("app:1", CONTENT, signature)
            result = await registries.copy(source.name("app:1"), f"{target.address}/app:1", referrers=True)
            assert result.referrers == (signature.digest,)
            found = await registries.referrers(f"{target.address}/app:1")
            assert [each.digest for each in found] == [signature.digest]


async def test_a_tag_of_distribution_is_removed_if_no_other_tag_has_the_image(leftovers: Leftovers) -> None:
    with engines.Registry() as target:
        async with filled(leftovers) as (source, registries):
            await registries.copy(source.name("app:1"), f"{target.address}/app:1")
            await registries.remove(f"{target.address}/app:1")
            assert await registries.tags(f"{target.address}/app") == []

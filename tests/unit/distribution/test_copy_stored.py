"""Copies between registries and what is on disk: layouts and archives of docker save."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aiodocker_images import Descriptor, DockerArchive, NotFoundError, OCILayout, UnsupportedManifestError
from aiodocker_images._distribution.stores import ImageSource
from aiodocker_images.testing import FakeRegistry, Manifest, image, index, layer

from .conftest import Opened

SHARED = layer(size=5000)


def two_platforms() -> Manifest:
    """Return an index of two platforms that share a layer, with attestations, in an odd form."""
    return index(
        image(layers=[SHARED, {"a": "amd64"}]),
        image(layers=[SHARED, {"a": "arm64"}], platform="linux/arm64"),
        attestations=True,
        indent=3,
    )


@pytest.fixture(params=["images", "images.tar"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


async def test_an_image_is_carried_over_in_a_layout_with_its_digest(opened: Opened, place: Path) -> None:
    made = two_platforms()
    async with FakeRegistry() as outside, FakeRegistry() as inside, opened(outside, inside) as registries:
        outside.put("app:1", made)
        out = await registries.copy(outside.name("app:1"), OCILayout(place))
        assert out.digest == made.digest
        (found,) = await OCILayout(place).images()
        assert found.names[0] == outside.name("app:1")
        await OCILayout(place).verify()
        back = await registries.copy(OCILayout(place, outside.name("app:1")), inside.name("mirror/app:1"))
        assert back.digest == made.digest
        assert inside.has("mirror/app", made)
        assert out.bytes_moved == back.bytes_moved


async def test_a_second_copy_into_a_layout_asks_for_the_digest_alone(opened: Opened, place: Path) -> None:
    made = two_platforms()
    async with FakeRegistry() as outside, opened(outside) as registries:
        outside.put("app:1", made)
        await registries.copy(outside.name("app:1"), OCILayout(place))
        outside.requests.clear()
        again = await registries.copy(outside.name("app:1"), OCILayout(place))
        assert again.skipped
        assert [each.method for each in outside.requests] == ["HEAD"]


async def test_many_images_at_once_into_one_layout_fetch_what_they_share_once(opened: Opened, place: Path) -> None:
    made = [image(layers=[SHARED, {"a": str(number)}]) for number in range(6)]
    async with FakeRegistry() as outside, opened(outside) as registries:
        for number, each in enumerate(made):
            outside.put(f"app:{number}", each)
        names = [outside.name(f"app:{number}") for number in range(6)]
        async with OCILayout(place).held():
            await asyncio.gather(*(registries.copy(name, OCILayout(place)) for name in names))
        await OCILayout(place).verify()
        assert sorted(each.names[0] for each in await OCILayout(place).images()) == sorted(names)
        assert len(outside.asked("GET blob")) == len({blob for each in made for blob in each.all_blobs()})


async def test_one_platform_goes_into_an_archive_and_back(opened: Opened, tmp_path: Path) -> None:
    made = two_platforms()
    archive = DockerArchive(tmp_path / "to-load.tar", "app:1")
    async with FakeRegistry() as outside, FakeRegistry() as inside, opened(outside, inside) as registries:
        outside.put("app:1", made)
        with pytest.raises(UnsupportedManifestError, match="several platforms"):
            await registries.copy(outside.name("app:1"), archive)
        assert not list(tmp_path.iterdir())
        assert not outside.asked("GET blob")
        out = await registries.copy(outside.name("app:1"), archive, platforms=["linux/arm64"])
        back = await registries.copy(archive, inside.name("app:1"))
        assert back.digest in {each.digest for each in (await registries.manifest(outside.name("app:1"))).children}
        whole = await registries.copy(OCILayout(archive.path), inside.name("whole:1"))
        assert whole.digest == out.digest


async def test_what_is_not_in_a_layout_leaves_the_registry_as_it_was(opened: Opened, place: Path) -> None:
    async with FakeRegistry() as outside, FakeRegistry() as inside, opened(outside, inside) as registries:
        outside.put("app:1", image())
        await registries.copy(outside.name("app:1"), OCILayout(place))
        with pytest.raises(NotFoundError, match="app:1"):
            await registries.copy(OCILayout(place, "other:1"), inside.name("other:1"))
        assert not inside.asked("PUT manifest")


class _WithoutEnd:
    """A source whose blobs give all their bytes and then do not end, as one that is slow to close its files."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.who = source.who
        self.resolve, self.manifest, self.referrers = source.resolve, source.manifest, source.referrers
        self.closed = 0

    async def blob(self, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in self._source.blob(descriptor, start):
                yield piece
            await asyncio.Event().wait()
        finally:
            self.closed += 1


async def test_an_upload_with_all_bytes_is_complete_before_its_source_ends(opened: Opened, place: Path) -> None:
    made = image(layers=[SHARED])
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", made)
        await registries.copy(fake.name("app:1"), OCILayout(place))
        sources: list[_WithoutEnd] = []

        class Stored(OCILayout):
            @asynccontextmanager
            async def open_source(self) -> AsyncGenerator[Any, None]:
                async with super().open_source() as source:
                    sources.append(_WithoutEnd(source))
                    yield sources[-1]

        async with FakeRegistry() as other, opened(other) as again:
            async with asyncio.timeout(30):
                copied = await again.copy(Stored(place), other.name("app:1"))
            assert (copied.digest, copied.retries) == (made.digest, 0)
            assert other.has("app", made)
            assert other.count("PUT upload") == sources[0].closed == len(made.all_blobs())

"""Copies from and to what is on the disk: layouts as directories and tars, and docker-archives."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiodocker_images import DigestMismatchError, DockerArchive, NotFoundError, OCILayout
from aiodocker_images.testing import FakeRegistry, Fault, docker_archive, image, index, layer, oci_archive

from .conftest import Opened


@pytest.mark.parametrize("name", ["layout", "layout.tar"])
async def test_an_image_goes_through_a_layout_and_keeps_its_bytes(opened: Opened, tmp_path: Path, name: str) -> None:
    made = index(image(layers=[layer(size=300_000)]), image(platform="linux/arm64"), attestations=True, indent=3)
    layout = OCILayout(tmp_path / name)
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        there = await registries.copy(source.name("app:1"), layout)
        assert (there.digest, there.bytes_moved) == (made.digest, sum(each.size for each in made.all_blobs().values()))
        back = await registries.copy(layout, target.name("app:1"))
        assert back.digest == made.digest
        assert target.has("app", made)
        # What is there costs no blob.
        again = await registries.copy(source.name("app:1"), layout)
        assert (again.skipped, again.requests) == (True, 1)
        assert (await registries.copy(layout, target.name("app:1"))).requests == 1


async def test_images_with_shared_layers_have_them_once_in_a_layout(opened: Opened, tmp_path: Path) -> None:
    shared = layer(size=10_000)
    layout = tmp_path / "layout"
    async with FakeRegistry() as source, opened(source) as registries:
        for number in range(3):
            source.put(f"app:{number}", image(layers=[shared, {"n": str(number)}]))
            await registries.copy(source.name(f"app:{number}"), OCILayout(layout))
        assert source.count("GET blob", reference=shared.digest) == 1
        assert len(await OCILayout(layout).images()) == 3


async def test_a_lie_never_gets_into_a_layout(opened: Opened, tmp_path: Path) -> None:
    made = image(layers=[layer(size=10_000)])
    layout = OCILayout(tmp_path / "layout")
    async with FakeRegistry() as source, opened(source) as registries:
        source.put("app:1", made)
        source.fail(Fault.lie(after=5), on="GET blob", reference=made.layers[0].digest, times=None)
        with pytest.raises(DigestMismatchError):
            await registries.copy(source.name("app:1"), layout)
        written = {file.name for file in (tmp_path / "layout").rglob("*") if file.is_file()}
        assert written <= {made.config.digest.removeprefix("sha256:"), "oci-layout"}
        source.clear_faults()
        source.fail(Fault.cut(after=5000), on="GET blob", reference=made.layers[0].digest)
        await registries.copy(source.name("app:1"), layout)


async def test_a_blob_that_is_broken_on_the_disk_never_reaches_a_registry(opened: Opened, tmp_path: Path) -> None:
    made = image(layers=[layer(size=10_000)])
    layout = OCILayout(tmp_path / "layout")
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        await registries.copy(source.name("app:1"), layout)
        file = tmp_path / "layout" / "blobs" / made.layers[0].digest.replace(":", "/")
        file.write_bytes(bytes(file.stat().st_size))
        with pytest.raises(DigestMismatchError):
            await registries.copy(layout, target.name("app:1"))
        assert target.tags("app") == {}
        assert made.layers[0].digest not in target.blobs()


async def test_what_docker_save_wrote_is_pushed_without_an_engine(opened: Opened, tmp_path: Path) -> None:
    made = image(layers=[layer({"a": "1"}, compress=False)])
    async with FakeRegistry() as target, opened(target) as registries:
        (tmp_path / "oci.tar").write_bytes(oci_archive(made, "docker.io/library/app:1"))
        await registries.copy(OCILayout(tmp_path / "oci.tar"), target.name("oci:1"))
        assert target.has("oci", made)
        (tmp_path / "docker.tar").write_bytes(docker_archive(made, "app:1"))
        await registries.copy(DockerArchive(tmp_path / "docker.tar"), target.name("docker:1"))
        found = await registries.image(target.name("docker:1"))
        assert found.id == made.config.digest


async def test_an_image_is_written_as_docker_load_reads_it(opened: Opened, tmp_path: Path) -> None:
    made = image()
    async with FakeRegistry() as source, opened(source) as registries:
        source.put("app:1", made)
        await registries.copy(source.name("app:1"), DockerArchive(tmp_path / "docker.tar"))
        source.put("app:2", index())
        result = await registries.copy(DockerArchive(tmp_path / "docker.tar"), source.name("back:1"))
        assert result.digest
        assert (await registries.image(source.name("back:1"))).id == made.config.digest


async def test_a_layout_that_is_not_there_is_a_clear_error(opened: Opened, tmp_path: Path) -> None:
    async with FakeRegistry() as target, opened(target) as registries:
        with pytest.raises(Exception, match="nowhere"):
            await registries.copy(OCILayout(tmp_path / "nowhere"), target.name("app:1"))
        assert target.count("POST upload") == 0


async def test_an_image_that_a_layout_does_not_have_is_not_found(opened: Opened, tmp_path: Path) -> None:
    async with FakeRegistry() as source, opened(source) as registries:
        source.put("app:1", image())
        await registries.copy(source.name("app:1"), OCILayout(tmp_path / "layout", "app:1"))
        with pytest.raises(NotFoundError):
            await registries.copy(OCILayout(tmp_path / "layout", "app:2"), source.name("app:2"))

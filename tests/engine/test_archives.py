"""Archives and layouts that were written without an Engine load into every Engine, and its own archives are read."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from aiodocker_images import DockerError, ImageService, NotFoundError
from aiodocker_images._distribution.docker_archive import DockerArchive
from aiodocker_images._distribution.layouts import OCILayout
from aiodocker_images._distribution.manifests import DOCKER_MANIFEST
from tests.conftest import engine_is
from tests.support.image_graph import ImageGraph, copy_image, read_image, two_platforms

pytestmark = pytest.mark.engine

CONTAINERD_STORE = engine_is("docker28c")


@pytest.fixture
async def name(engine: ImageService) -> AsyncGenerator[str, None]:
    """A name that no image has, and that none has afterwards."""
    name = f"registry.example/archives-{secrets.token_hex(4)}:1.0"
    yield name
    with contextlib.suppress(NotFoundError):
        await engine.remove(name, force=True)


def image(graph: ImageGraph, kind: str) -> dict[str, Any]:
    """An image with three layers, of which two are the same, as an OCI manifest or as one of Docker's."""
    random = os.urandom(5000)
    root = graph.image(random, b"two", random)
    if kind == "oci":
        return root
    manifest = graph.manifest(root)
    assert manifest.config is not None
    config = graph.content[manifest.config.digest]
    layers = [graph.content[each.digest] for each in manifest.layers]
    docker = ImageGraph()
    root = docker.document(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": docker.blob(config, "application/vnd.docker.container.image.v1+json"),
            "layers": [docker.blob(each, "application/vnd.docker.image.rootfs.diff.tar.gzip") for each in layers],
        }
    )
    graph.content = docker.content
    return root


@pytest.mark.parametrize("kind", ["oci", "docker"])
async def test_an_archive_that_was_written_here_loads(
    engine: ImageService, tmp_path: Path, name: str, kind: str
) -> None:
    graph = ImageGraph()
    root = image(graph, kind)
    path = tmp_path / "to-load.tar"
    async with DockerArchive(path, name).open_target() as target:
        manifest = await copy_image(graph.source(root), target)
    result = await engine.load(path)
    assert [str(each) for each in result.references] == [name]
    inspected = await engine.inspect(name)
    assert manifest.config is not None
    # containerd's store calls an image by its manifest, and so shows that the digest was kept.
    assert inspected.id == (root["digest"] if CONTAINERD_STORE else manifest.config.digest)
    assert inspected.root_fs is not None
    assert len(inspected.root_fs.layers) == 3


async def test_an_index_of_one_platform_loads_as_that_platform(engine: ImageService, tmp_path: Path, name: str) -> None:
    """What a choice of one platform of an index comes to, with the attestation of that platform."""
    graph = ImageGraph()
    index = graph.manifest(two_platforms(graph)).subset(["linux/amd64"])
    graph.content[index.digest] = index.data
    path = tmp_path / "to-load.tar"
    async with DockerArchive(path, name).open_target() as target:
        await copy_image(graph.source({"digest": index.digest}), target)
    result = await engine.load(path)
    assert name in [str(each) for each in result.references]
    inspected = await engine.inspect(name)
    image = graph.manifest({"digest": index.select(["linux/amd64"])[0].digest})
    assert image.config is not None
    assert inspected.id == (index.digest if CONTAINERD_STORE else image.config.digest)


async def test_what_an_engine_saves_is_read_and_loads_again(engine: ImageService, tmp_path: Path, name: str) -> None:
    graph = ImageGraph()
    first, saved, again = (tmp_path / f"{each}.tar" for each in ("first", "saved", "again"))
    async with DockerArchive(first, name).open_target() as target:
        await copy_image(graph.source(image(graph, "oci")), target)
    await engine.load(first)
    before = await engine.inspect(name)
    await engine.save(name, to=saved)
    await engine.remove(name, force=True)
    async with DockerArchive(saved, name).open_source() as source:
        content = await read_image(source)
        assert len(content) >= 4
        async with OCILayout(tmp_path / "layout", name).open_target() as target:
            await copy_image(source, target)
    async with (
        OCILayout(tmp_path / "layout", name).open_source() as source,
        DockerArchive(again, name).open_target() as target,
    ):
        await copy_image(source, target)
    await engine.load(again)
    after = await engine.inspect(name)
    assert before.root_fs is not None
    assert after.root_fs is not None
    assert after.root_fs.layers == before.root_fs.layers
    if not CONTAINERD_STORE:
        assert after.id == before.id


async def test_several_images_of_one_save_are_told_apart(engine: ImageService, tmp_path: Path, name: str) -> None:
    graph = ImageGraph()
    names = [name, f"{name}-second"]
    ids: list[str] = []
    for each in names:
        path = tmp_path / "one.tar"
        async with DockerArchive(path, each).open_target() as target:
            manifest = await copy_image(graph.source(graph.image(os.urandom(100), b"shared")), target)
        assert manifest.config is not None
        ids.append(manifest.config.digest)
        await engine.load(path)
    saved = tmp_path / "saved.tar"
    try:
        await engine.save(*names, to=saved)
    finally:
        await engine.remove(names[1], force=True)
    assert set(names) <= set(await DockerArchive(saved).names())
    for each, config in zip(names, ids, strict=True):
        async with DockerArchive(saved, each).open_source() as source:
            assert config in await read_image(source)


async def test_a_layout_of_several_platforms_loads_where_the_store_holds_them(
    engine: ImageService, tmp_path: Path, name: str
) -> None:
    """Docker's classic store asks for a manifest.json, which a layout does not have."""
    graph = ImageGraph()
    root = two_platforms(graph)
    path = tmp_path / "layout.tar"
    async with OCILayout(path, name).open_target() as target:
        await copy_image(graph.source(root), target)
    if not (CONTAINERD_STORE or engine_is("podman")):
        with pytest.raises(DockerError):
            await engine.load(path)
        return
    await engine.load(path)
    inspected = await engine.inspect(name)
    assert inspected.architecture == "amd64"
    if CONTAINERD_STORE:
        assert inspected.id == root["digest"]

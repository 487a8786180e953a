"""The tars of docker save are read as each generation of Docker writes them, and written so that each loads them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodocker_images import (
    ArchiveError,
    DigestMismatchError,
    DockerError,
    FrameDecodeError,
    InvalidReferenceError,
    LocalFileError,
    NotFoundError,
    UnsupportedManifestError,
)
from aiodocker_images._distribution.digests import compute_digest
from aiodocker_images._distribution.docker_archive import DockerArchive
from aiodocker_images._distribution.layouts import OCILayout
from aiodocker_images._distribution.manifests import OCI_MANIFEST
from tests.conftest import Leftovers
from tests.support.image_graph import ImageGraph, copy_image, read_image, two_platforms
from tests.support.sweeps import examples
from tests.support.tars import tar_of


@pytest.fixture
def graph() -> ImageGraph:
    return ImageGraph()


def config_of(*layers: bytes) -> bytes:
    diff_ids = [compute_digest(layer) for layer in layers]
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}}).encode()


class Legacy:
    """An archive as Docker up to 24 writes it: a directory for each layer, and links in the place of what is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar = tarfile.open(path, "w")
        self._images: list[dict[str, Any]] = []

    def file(self, name: str, data: bytes) -> str:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        return name

    def link(self, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> str:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = target
        self._tar.addfile(member)
        return name

    def image(self, *layers: str, config: bytes, tags: list[str] | None = None, name: str | None = None) -> bytes:
        file = self.file(name or f"{compute_digest(config)[7:]}.json", config)
        self._images.append({"Config": file, "RepoTags": tags, "Layers": layers})
        return config

    def close(self, manifest: bytes | None = None) -> DockerArchive:
        self.file("manifest.json", json.dumps(self._images).encode() if manifest is None else manifest)
        self.file("repositories", b"{}")
        self._tar.close()
        return DockerArchive(self.path)


@pytest.fixture
def legacy(tmp_path: Path) -> Legacy:
    return Legacy(tmp_path / "saved.tar")


LAYERS = [tar_of({"one": b"1" * 5000}), tar_of({"two": b"2"}), tar_of({"one": b"1" * 5000})]


def simple(legacy: Legacy) -> bytes:
    """Three layers of which the last is a link to the first."""
    legacy.file("aaa/VERSION", b"1.0")
    one = legacy.file("aaa/layer.tar", LAYERS[0])
    two = legacy.file("bbb/layer.tar", LAYERS[1])
    three = legacy.link("ccc/layer.tar", "../aaa/layer.tar")
    return legacy.image(one, two, three, config=config_of(*LAYERS), tags=["alpine:3.20"])


async def read(archive: DockerArchive) -> dict[str, bytes]:
    async with archive.open_source() as source:
        return await read_image(source)


def only(blobs: Mapping[str, bytes], *contents: bytes) -> bool:
    return {compute_digest(content) for content in contents} <= set(blobs)


# As a source


async def test_a_legacy_archive_becomes_a_manifest_of_its_layers_as_they_are(
    legacy: Legacy, leftovers: Leftovers
) -> None:
    config = simple(legacy)
    archive = legacy.close()
    before = leftovers.now()
    async with archive.open_source() as source:
        manifest = await source.manifest(await source.resolve())
        found = await read_image(source)
        assert await source.referrers(manifest.digest) == ()
    await leftovers.settle(before)
    assert manifest.media_type == OCI_MANIFEST
    assert manifest.config is not None
    assert manifest.config.digest == compute_digest(config)  # which is the image's id
    assert [layer.digest for layer in manifest.layers] == [compute_digest(layer) for layer in LAYERS]
    assert {layer.media_type for layer in manifest.layers} == {"application/vnd.oci.image.layer.v1.tar"}
    assert found == {manifest.digest: manifest.data} | {compute_digest(data): data for data in (config, *LAYERS)}


async def test_the_same_archive_always_gives_the_same_digest(legacy: Legacy) -> None:
    simple(legacy)
    archive = legacy.close()
    digests: set[str] = set()
    for _ in range(2):
        async with archive.open_source() as source:
            digests.add((await source.resolve()).digest)
    assert len(digests) == 1


async def test_a_compressed_layer_is_kept_and_has_a_digest_of_its_own(legacy: Legacy) -> None:
    """Tools such as crane write layers compressed, for which the configuration has no digest."""
    compressed = gzip.compress(LAYERS[0])
    legacy.image(legacy.file("x.tar.gz", compressed), config=config_of(LAYERS[0]), tags=["a:1"])
    async with legacy.close().open_source() as source:
        manifest = await source.manifest(await source.resolve())
        found = await read_image(source)
    (layer,) = manifest.layers
    assert layer.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert found[layer.digest] == compressed


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("alpine:3.20", 0),
        ("docker.io/library/alpine:3.20", 0),
        ("other", 1),
        ("other:latest", 1),
        ("registry.example/x:1", 1),
    ],
)
async def test_an_image_is_found_by_any_of_its_names(legacy: Legacy, name: str, place: int) -> None:
    configs = [config_of(layer) for layer in LAYERS[:2]]
    tags = [["alpine:3.20"], ["other:latest", "registry.example/x:1"]]
    for layer, config, names in zip(LAYERS[:2], configs, tags, strict=True):
        legacy.image(legacy.file(f"{compute_digest(layer)[7:]}.tar", layer), config=config, tags=names)
    legacy.close()
    assert await DockerArchive(legacy.path).names() == ("alpine:3.20", "other:latest", "registry.example/x:1")
    for wanted in (name, compute_digest(configs[place]), compute_digest(configs[place])[:19]):
        found = await read(DockerArchive(legacy.path, wanted))
        assert compute_digest(configs[place]) in found


async def test_an_image_that_is_not_there_is_told_with_those_that_are(legacy: Legacy) -> None:
    for number in range(2):
        layer = tar_of({"x": str(number)})
        legacy.image(legacy.file(f"{number}.tar", layer), config=config_of(layer), tags=[f"app:{number}"])
    legacy.close()
    for name, words in (("app:7", "there is no image"), (None, "there is more than one image")):
        with pytest.raises(NotFoundError, match=rf"{words}.*'app:0', 'app:1'"):
            await read(DockerArchive(legacy.path, name))


async def test_an_image_without_a_name_is_the_only_one(legacy: Legacy) -> None:
    legacy.image(legacy.file("x.tar", LAYERS[0]), config=config_of(LAYERS[0]))
    assert only(await read(legacy.close()), LAYERS[0])


async def test_an_archive_of_docker_25_has_the_manifest_itself(tmp_path: Path, graph: ImageGraph) -> None:
    root = graph.image(b"one", b"two")
    files = {f"blobs/sha256/{digest[7:]}": data for digest, data in graph.content.items()}
    manifest = graph.manifest(root)
    assert manifest.config is not None
    entry = {
        "Config": f"blobs/sha256/{manifest.config.digest[7:]}",
        "RepoTags": ["alpine:3.20"],
        "Layers": [f"blobs/sha256/{layer.digest[7:]}" for layer in manifest.layers],
    }
    names = {"io.containerd.image.name": "docker.io/library/alpine:3.20", "org.opencontainers.image.ref.name": "3.20"}
    index = {"schemaVersion": 2, "manifests": [{**root, "annotations": names}]}
    files |= {
        "index.json": json.dumps(index).encode(),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "manifest.json": json.dumps([entry]).encode(),
    }
    path = tmp_path / "saved.tar"
    path.write_bytes(tar_of(files))
    assert await read(DockerArchive(path, "alpine:3.20")) == graph.content
    async with OCILayout(path, "alpine:3.20").open_source() as source:
        assert (await source.resolve()).digest == root["digest"]


async def test_of_an_index_the_platform_that_is_there_is_found(tmp_path: Path, graph: ImageGraph) -> None:
    """Containerd's image store saves the index, and of its platforms those that it has."""
    root = two_platforms(graph)
    arm64 = graph.manifest(root).select(["linux/arm64"])[0]
    manifest = graph.manifest({"digest": arm64.digest})
    assert manifest.config is not None
    here = [root["digest"], arm64.digest, *(blob.digest for blob in manifest.blobs)]
    files = {f"blobs/sha256/{digest[7:]}": graph.content[digest] for digest in here}
    entry = {
        "Config": f"blobs/sha256/{manifest.config.digest[7:]}",
        "Layers": [f"blobs/sha256/{layer.digest[7:]}" for layer in manifest.layers],
    }
    files |= {
        "index.json": json.dumps({"manifests": [root]}).encode(),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "manifest.json": json.dumps([entry]).encode(),
    }
    path = tmp_path / "saved.tar"
    path.write_bytes(tar_of(files))
    async with DockerArchive(path).open_source() as source:
        assert (await source.resolve()).digest == arm64.digest
        await read_image(source)


# Bad archives


async def test_a_layer_that_is_not_what_the_configuration_says_is_found(legacy: Legacy) -> None:
    legacy.image(legacy.file("x.tar", LAYERS[1]), config=config_of(LAYERS[0]), tags=["a:1"])
    with pytest.raises(DigestMismatchError):
        await read(legacy.close())


async def test_a_number_of_layers_that_is_not_the_configurations_is_refused(legacy: Legacy) -> None:
    legacy.image(legacy.file("x.tar", LAYERS[0]), config=config_of(*LAYERS), tags=["a:1"])
    with pytest.raises(ArchiveError, match="1 layers, and its configuration 3"):
        await read(legacy.close())


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "layer.tar", "../ccc/layer.tar", "gone"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
async def test_a_link_leads_nowhere_but_into_the_archive(legacy: Legacy, target: str, kind: bytes) -> None:
    legacy.image(legacy.link("ccc/layer.tar", target, kind), config=config_of(LAYERS[0]), tags=["a:1"])
    with pytest.raises(NotFoundError, match="there is no file"):
        await read(legacy.close())


async def test_a_hard_link_leads_to_its_member(legacy: Legacy) -> None:
    legacy.file("aaa/layer.tar", LAYERS[0])
    link = legacy.link("bbb/layer.tar", "aaa/layer.tar", tarfile.LNKTYPE)
    legacy.image(link, config=config_of(LAYERS[0]), tags=["a:1"])
    assert only(await read(legacy.close()), LAYERS[0])


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", "gone.json"])
async def test_a_configuration_elsewhere_is_not_looked_for(legacy: Legacy, name: str) -> None:
    entry = [{"Config": name, "RepoTags": ["a:1"], "Layers": []}]
    with pytest.raises(NotFoundError):
        await read(legacy.close(json.dumps(entry).encode()))


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[5]", b'[{"Layers": "x"}]', b"\xff", b"[" * 10_000])
async def test_a_manifest_json_that_is_not_one_is_refused(legacy: Legacy, manifest: bytes) -> None:
    with pytest.raises(FrameDecodeError):
        await read(legacy.close(manifest))


async def test_what_is_not_an_archive_of_docker_is_named(tmp_path: Path, graph: ImageGraph) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of({"letter": b"dear"}))
    with pytest.raises(ArchiveError, match="not an archive of docker save"):
        await read(DockerArchive(path))
    layout = tmp_path / "layout.tar"
    async with OCILayout(layout, "a:1").open_target() as target:
        await copy_image(graph.source(graph.image(b"one")), target)
    with pytest.raises(ArchiveError, match="OCI layout"):
        await read(DockerArchive(layout))
    with pytest.raises(LocalFileError):
        await read(DockerArchive(tmp_path / "gone.tar"))


# As a target


async def test_an_image_comes_back_as_it_was(tmp_path: Path, graph: ImageGraph, leftovers: Leftovers) -> None:
    root = graph.image(os.urandom(5000), b"two")
    path = tmp_path / "to-load.tar"
    before = leftovers.now()
    async with DockerArchive(path).open_target("docker.io/library/alpine:3.20") as target:
        assert await target.resolve() is None
        await copy_image(graph.source(root), target)
    await leftovers.settle(before)
    assert [each.name for each in tmp_path.iterdir()] == ["to-load.tar"]
    assert await DockerArchive(path).names() == ("alpine:3.20",)
    assert await read(DockerArchive(path, "alpine:3.20")) == graph.content
    async with OCILayout(path, "alpine:3.20").open_source() as source:
        assert (await source.resolve()).digest == root["digest"]


async def test_manifest_json_has_what_every_engine_reads(tmp_path: Path, graph: ImageGraph) -> None:
    root = graph.image(b"one", b"two", b"one")
    path = tmp_path / "to-load.tar"
    async with DockerArchive(path, "registry.example/x:1").open_target("ignored:1") as target:
        await copy_image(graph.source(root), target)
    manifest = graph.manifest(root)
    assert manifest.config is not None
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        (entry,) = json.load(file)
        assert entry["RepoTags"] == ["registry.example/x:1"]
        assert entry["Config"] == f"blobs/sha256/{manifest.config.digest[7:]}"
        assert entry["Layers"] == [f"blobs/sha256/{layer.digest[7:]}" for layer in manifest.layers]
        assert set(entry["Layers"]) <= set(tar.getnames())


@pytest.mark.parametrize(
    ("name", "tags"), [(None, None), ("alpine@sha256:" + "a" * 64, None), ("alpine", ["alpine:latest"])]
)
async def test_a_name_without_a_tag_is_latest_and_a_digest_none(
    tmp_path: Path, graph: ImageGraph, name: str | None, tags: list[str] | None
) -> None:
    path = tmp_path / "to-load.tar"
    async with DockerArchive(path).open_target(name) as target:
        await copy_image(graph.source(graph.image(b"one")), target)
    assert list(await DockerArchive(path).names()) == (tags or [])
    assert len(await read(DockerArchive(path))) == 3


async def test_what_an_engine_cannot_load_is_refused_and_leaves_the_old_archive(
    tmp_path: Path, graph: ImageGraph
) -> None:
    path = tmp_path / "to-load.tar"
    path.write_text("old")
    one = graph.image(b"one")
    subject = {key: one[key] for key in ("mediaType", "digest", "size")}
    artifact = graph.document(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": graph.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [],
        }
    )
    for root, words in (
        (two_platforms(graph), "cannot hold an index of several platforms.*linux/amd64, linux/arm64/v8"),
        (graph.index(graph.index(one)), "cannot hold an index"),
        (artifact, "cannot hold an artifact"),
        (graph.image(b"two", subject=subject), "refers to another image"),
    ):
        with pytest.raises(UnsupportedManifestError, match=words):
            async with DockerArchive(path, "a:1").open_target() as target:
                await copy_image(graph.source(root), target)
    with pytest.raises(UnsupportedManifestError, match="cannot load an image without it"):
        async with DockerArchive(path, "a:1").open_target() as target:
            await target.write_name(graph.manifest(one))
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["to-load.tar"]


async def test_an_index_of_one_platform_is_the_image_of_that_platform(tmp_path: Path, graph: ImageGraph) -> None:
    """As a subset of an index is; its digest and its attestation are kept."""
    index = graph.manifest(two_platforms(graph)).subset(["linux/amd64"])
    graph.content[index.digest] = index.data
    path = tmp_path / "to-load.tar"
    async with DockerArchive(path, "a:1").open_target() as target:
        target.check(index)
        await copy_image(graph.source({"digest": index.digest}), target)
    (amd64,) = index.select(["linux/amd64"])
    async with DockerArchive(path, "a:1").open_source() as image:
        assert (await image.resolve()).digest == amd64.digest
        await read_image(image)
    async with OCILayout(path, "a:1").open_source() as whole:
        assert (await whole.resolve()).digest == index.digest
        assert len(await read_image(whole)) == 8


async def test_a_source_knows_the_name_of_its_image(legacy: Legacy, tmp_path: Path, graph: ImageGraph) -> None:
    simple(legacy)
    for name in (None, "alpine:3.20", "docker.io/library/alpine:3.20"):
        archive = DockerArchive(legacy.path, name) if name else legacy.close()
        async with archive.open_source() as image:
            assert image.name == "docker.io/library/alpine:3.20"
    layout = OCILayout(tmp_path / "layout", "b:1")
    async with layout.open_target() as target:
        await copy_image(graph.source(graph.image(b"one")), target)
    async with OCILayout(tmp_path / "layout").open_source() as source:
        assert source.name == "docker.io/library/b:1"


async def test_an_archive_takes_the_place_of_the_one_before(tmp_path: Path, graph: ImageGraph) -> None:
    path = tmp_path / "to-load.tar"
    for name in ("a:1", "b:1"):
        async with DockerArchive(path, name).open_target() as target:
            await copy_image(graph.source(graph.image(name.encode())), target)
    assert await DockerArchive(path).names() == ("b:1",)


async def test_a_legacy_archive_is_copied_into_a_layout_and_back(legacy: Legacy, tmp_path: Path) -> None:
    config = simple(legacy)
    legacy.close()
    layout = OCILayout(tmp_path / "images", "alpine:3.20")
    async with DockerArchive(legacy.path).open_source() as source, layout.open_target() as target:
        root = await copy_image(source, target)
    again = tmp_path / "again.tar"
    async with layout.open_source() as source, DockerArchive(again).open_target("alpine:3.20") as target:
        assert (await copy_image(source, target)).digest == root.digest
    assert only(await read(DockerArchive(again)), config, *LAYERS)


@pytest.mark.parametrize(
    ("path", "name", "error"), [(5, None, TypeError), ("a", 5, TypeError), ("a\0b", None, ValueError)]
)
def test_what_is_not_a_path_or_a_name_is_refused_at_once(path: object, name: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        DockerArchive(cast("str", path), cast("str", name))
    with pytest.raises(InvalidReferenceError):
        DockerArchive("a", "UPPER")


@given(st.data())
@settings(max_examples=examples(150), deadline=None)
def test_any_archive_is_an_image_or_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    legacy = Legacy(tmp_path_factory.mktemp("fuzz") / "saved.tar")
    simple(legacy)
    legacy.close()
    whole = bytearray(legacy.path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    legacy.path.write_bytes(whole)
    with contextlib.suppress(DockerError):
        asyncio.run(read(DockerArchive(legacy.path)))

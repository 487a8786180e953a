"""OCI layouts, in directories and tars: nothing is lost, nothing wrong gets in, and nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import tarfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, cast

import pytest

from aiodocker_images import (
    ArchiveError,
    Descriptor,
    DigestMismatchError,
    FrameDecodeError,
    LocalFileError,
    NotFoundError,
    Reference,
    UnsupportedManifestError,
)
from aiodocker_images._distribution import layout_files, layout_tars
from aiodocker_images._distribution.layout_index import MAX_INDEX, LayoutIndex
from aiodocker_images._distribution.layouts import OCILayout
from aiodocker_images._distribution.manifests import OCI_MANIFEST, Manifest
from tests.conftest import Leftovers
from tests.support.image_graph import LAYER, ImageGraph, copy_image, read_image, two_platforms

KINDS = ["images", "images.tar"]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a layout is made: a directory and then a tar."""
    return tmp_path / str(request.param)


@pytest.fixture
def graph() -> ImageGraph:
    return ImageGraph()


async def put(graph: ImageGraph, root: dict[str, Any], layout: OCILayout, default_name: str | None = None) -> Manifest:
    async with layout.open_target(default_name) as target:
        return await copy_image(graph.source(root), target)


async def get(layout: OCILayout) -> dict[str, bytes]:
    async with layout.open_source() as source:
        return await read_image(source)


def files(place: Path) -> dict[str, bytes]:
    """All files of a layout by name, temporary ones included."""
    if place.is_dir():
        return {str(each.relative_to(place)): each.read_bytes() for each in place.rglob("*") if each.is_file()}
    found: dict[str, bytes] = {}
    with tarfile.open(place) as tar:
        for member in tar:
            assert member.name not in found
            extracted = tar.extractfile(member)
            assert extracted is not None
            found[member.name] = extracted.read()
    return found


def parts(place: Path) -> list[Path]:
    return [*place.parent.rglob(".*.part"), *place.parent.rglob("*.part")]


def name_of(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


# There and back


async def test_an_image_comes_back_as_it_was(place: Path, graph: ImageGraph, leftovers: Leftovers) -> None:
    root = two_platforms(graph)
    before = leftovers.now()
    await put(graph, root, OCILayout(place, "alpine:3.20"))
    assert await get(OCILayout(place)) == graph.content
    async with OCILayout(place).open_source() as source:
        assert (await source.resolve()).digest == root["digest"]
    await leftovers.settle(before)
    assert not parts(place)


async def test_what_is_written_is_what_the_standard_says(place: Path, graph: ImageGraph) -> None:
    root = two_platforms(graph)
    await put(graph, root, OCILayout(place, "alpine:3.20"))
    found = files(place)
    assert json.loads(found.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(found.pop("index.json"))
    assert index["schemaVersion"] == 2
    assert index["manifests"] == [
        {
            "mediaType": root["mediaType"],
            "digest": root["digest"],
            "size": root["size"],
            "annotations": {
                "org.opencontainers.image.ref.name": "alpine:3.20",
                "io.containerd.image.name": "docker.io/library/alpine:3.20",
            },
        }
    ]
    assert found == {name_of(digest): data for digest, data in graph.content.items()}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_digests_of_each_algorithm_have_their_own_folder(place: Path, algorithm: str) -> None:
    graph = ImageGraph(algorithm)
    root = graph.image(b"one")
    await put(graph, root, OCILayout(place, "a:1"))
    assert {name.split("/")[1] for name in files(place) if "/" in name} == {algorithm}
    async with OCILayout(place, root["digest"]).open_source() as source:
        assert (await source.resolve()).digest == root["digest"]


async def test_a_tar_is_always_the_same(tmp_path: Path, graph: ImageGraph) -> None:
    root = two_platforms(graph)
    for name in ("one.tar", "two.tar"):
        await put(graph, root, OCILayout(tmp_path / name, "a:1"))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


async def test_many_images_share_their_blobs(place: Path, graph: ImageGraph) -> None:
    base = os.urandom(5000)
    roots = [graph.image(base, f"image {number}".encode()) for number in range(5)]
    sources = [graph.source(root) for root in roots]
    for number, source in enumerate(sources):
        async with OCILayout(place, f"registry.example/app:{number}").open_target() as target:
            await copy_image(source, target)
    reads = [digest for source in sources for digest in source.reads]
    assert len(reads) == len(set(reads))
    assert len(await OCILayout(place).images()) == 5
    for number, root in enumerate(roots):
        async with OCILayout(place, f"registry.example/app:{number}").open_source() as image:
            assert (await image.resolve()).digest == root["digest"]
            await read_image(image)


async def test_a_second_copy_reads_nothing_again(place: Path, graph: ImageGraph) -> None:
    root = two_platforms(graph)
    await put(graph, root, OCILayout(place, "a:1"))
    again = graph.source(root)
    async with OCILayout(place, "a:1").open_target() as target:
        assert await target.resolve() is not None
        assert await target.has_manifest(await again.resolve())
        await copy_image(again, target)
    assert again.reads == []
    assert len(await OCILayout(place).images()) == 1


async def test_a_name_moves_and_the_other_images_stay(place: Path, graph: ImageGraph) -> None:
    old, new, other = (graph.image(name) for name in (b"old", b"new", b"other"))
    await put(graph, old, OCILayout(place, "alpine:3"))
    await put(graph, other, OCILayout(place, "other:1"))
    await put(graph, new, OCILayout(place, "docker.io/library/alpine:3"))
    found = {image.names[0]: image.descriptor.digest for image in await OCILayout(place).images()}
    assert found == {"other:1": other["digest"], "docker.io/library/alpine:3": new["digest"]} or found == {
        "docker.io/library/other:1": other["digest"],
        "docker.io/library/alpine:3": new["digest"],
    }


async def test_the_source_names_what_the_user_does_not(place: Path, graph: ImageGraph) -> None:
    await put(graph, graph.image(b"one"), OCILayout(place), "docker.io/library/alpine:3.20")
    (image,) = await OCILayout(place).images()
    assert image.names == ("docker.io/library/alpine:3.20",)


async def test_an_image_without_a_name_is_found_by_its_digest(place: Path, graph: ImageGraph) -> None:
    one, two = graph.image(b"one"), graph.image(b"two")
    for root in (one, two, one):
        await put(graph, root, OCILayout(place))
    assert [image.names for image in await OCILayout(place).images()] == [(), ()]
    async with OCILayout(place, two["digest"]).open_source() as source:
        assert (await source.resolve()).digest == two["digest"]


async def test_a_referrer_is_listed_and_found_by_its_subject(place: Path, graph: ImageGraph) -> None:
    root = graph.image(b"one")
    subject = {key: root[key] for key in ("mediaType", "digest", "size")}
    signature = graph.document(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": graph.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [graph.blob(b"signed", "application/vnd.example.signature")],
            "subject": subject,
            "annotations": {"by": "me"},
        }
    )
    async with OCILayout(place, "a:1").open_target() as target:
        await copy_image(graph.source(root), target)
        manifest = graph.manifest(signature)
        for blob in manifest.blobs:
            await target.write_blob(blob, partial(graph.source(signature).blob, blob))
        await target.write_manifest(manifest)
    async with OCILayout(place).open_source() as source:  # which is the one that has a name
        (found,) = await source.referrers(root["digest"])
        assert await source.referrers(signature["digest"]) == ()
    assert (found.digest, found.artifact_type) == (signature["digest"], "application/vnd.example.signature")
    assert found.annotations == {"by": "me"}


# Names


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("docker.io/library/alpine:3.20", "a"),
        ("alpine:3.20", "a"),
        ("docker.io/alpine:3.20", "a"),
        ("v1", "b"),
        ("registry.example:5000/x/y:1", "c"),
    ],
)
def test_names_are_read_as_docker_and_the_standard_write_them(wanted: str, found: str) -> None:
    digests = {letter: f"sha256:{hashlib.sha256(letter.encode()).hexdigest()}" for letter in "abc"}
    annotations = {
        "a": {"io.containerd.image.name": "docker.io/library/alpine:3.20", "org.opencontainers.image.ref.name": "3.20"},
        "b": {"org.opencontainers.image.ref.name": "v1"},
        "c": {"org.opencontainers.image.ref.name": "registry.example:5000/x/y:1"},
    }
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digests[letter], "size": 1, "annotations": annotations[letter]}
        for letter in "abc"
    ]
    index = LayoutIndex(json.dumps({"manifests": entries}).encode(), "it")
    assert index.find(wanted).digest == digests[found]


async def test_a_name_that_is_not_there_is_told_with_those_that_are(place: Path, graph: ImageGraph) -> None:
    for name in ("alpine:3.19", "alpine:3.20"):
        await put(graph, graph.image(name.encode()), OCILayout(place, name))
    for wanted, words in (("alpine:3.21", "there is no image"), (None, "more than one image")):
        async with OCILayout(place, wanted).open_source() as source:
            with pytest.raises(NotFoundError, match=f"{words}.*alpine:3.19.*alpine:3.20"):
                await source.resolve()


def test_what_others_wrote_into_an_index_stays() -> None:
    digest = f"sha256:{'a' * 64}"
    entry: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 5, "x": [1.50], "platform": None}
    document = {"schemaVersion": 2, "manifests": [entry], "annotations": {"k": "v"}, "y": {}}
    index = LayoutIndex(json.dumps(document).encode(), "it")
    index.add(Descriptor(media_type=OCI_MANIFEST, digest=f"sha256:{'b' * 64}", size=7), "new")
    written = json.loads(index.encode())
    assert written["manifests"][0] == entry
    assert written["manifests"][1]["annotations"] == {"org.opencontainers.image.ref.name": "new"}
    assert (written["annotations"], written["y"]) == ({"k": "v"}, {})


# Wrong content


async def lying(_: Descriptor) -> AsyncGenerator[bytes, None]:
    yield b"another content"


@pytest.mark.parametrize("size", [15, 14, 16])
async def test_a_wrong_blob_does_not_get_in(place: Path, size: int, leftovers: Leftovers) -> None:
    descriptor = Descriptor(media_type=LAYER, digest=f"sha256:{'0' * 64}", size=size)
    before = leftovers.now()
    with pytest.raises(DigestMismatchError):
        async with OCILayout(place, "a:1").open_target() as target:
            await target.write_blob(descriptor, lambda: lying(descriptor))
    assert not parts(place)
    assert not [name for name in (files(place) if place.exists() else {}) if name.startswith("blobs/")]
    await leftovers.settle(before)


async def test_a_wrong_blob_leaves_the_others_and_no_hole(place: Path, graph: ImageGraph) -> None:
    """Two blobs are written at once; the one that fails was given its room first."""
    root = graph.image(b"one", b"two")
    bad = Descriptor(media_type=LAYER, digest=f"sha256:{'0' * 64}", size=100_000)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncGenerator[bytes, None]:
        begun.set()
        yield b"x" * 1000
        await go_on.wait()
        yield b"y"

    async with OCILayout(place, "a:1").open_target() as target:
        failing = asyncio.create_task(target.write_blob(bad, slow))
        await begun.wait()
        await copy_image(graph.source(root), target)
        go_on.set()
        with pytest.raises(DigestMismatchError):
            await failing
    assert await get(OCILayout(place)) == graph.content
    assert name_of(bad.digest) not in files(place)
    assert not parts(place)
    if place.suffix == ".tar":
        assert place.stat().st_size < 50_000


async def damage(place: Path, digest: str, graph: ImageGraph) -> None:
    data = graph.content[digest]
    if place.is_dir():
        (place / name_of(digest)).write_bytes(bytes([data[0] ^ 1]) + data[1:])
    else:
        whole = place.read_bytes()
        at = whole.index(data)
        place.write_bytes(whole[:at] + bytes([data[0] ^ 1]) + whole[at + 1 :])


async def test_a_blob_that_is_damaged_on_the_disk_is_found_when_it_is_read(place: Path, graph: ImageGraph) -> None:
    root = graph.image(os.urandom(3 << 20))
    await put(graph, root, OCILayout(place, "a:1"))
    layer = graph.manifest(root).layers[0]
    await damage(place, layer.digest, graph)
    got = 0
    async with OCILayout(place).open_source() as source:
        with pytest.raises(DigestMismatchError, match="images"):
            async for piece in source.blob(layer):
                got += len(piece)
    # The end was held back, so that nobody can make a whole blob of it.
    assert 0 < got < int(layer.size or 0)


async def test_a_manifest_that_is_damaged_on_the_disk_is_found(place: Path, graph: ImageGraph) -> None:
    root = graph.image(b"one")
    await put(graph, root, OCILayout(place, "a:1"))
    await damage(place, root["digest"], graph)
    with pytest.raises(DigestMismatchError):
        await get(OCILayout(place))


async def test_a_blob_of_another_size_counts_as_absent_and_is_written_again(tmp_path: Path, graph: ImageGraph) -> None:
    root = graph.image(b"one")
    layout = OCILayout(tmp_path / "images", "a:1")
    await put(graph, root, layout)
    layer = graph.manifest(root).layers[0]
    (tmp_path / "images" / name_of(layer.digest)).write_bytes(b"cut")
    source = graph.source(root)
    async with layout.open_target() as target:
        await copy_image(source, target)
    assert source.reads == [layer.digest]
    assert await get(layout) == graph.content


async def test_a_blob_may_be_read_from_the_middle(place: Path, graph: ImageGraph) -> None:
    root = graph.image(os.urandom(3 << 20))
    await put(graph, root, OCILayout(place, "a:1"))
    layer = graph.manifest(root).layers[0]
    async with OCILayout(place).open_source() as source:
        for start in (1, 2_500_000, int(layer.size or 0)):
            data = b"".join([piece async for piece in source.blob(layer, start)])
            assert data == graph.content[layer.digest][start:]


async def test_a_blob_that_is_not_there_is_not_found(place: Path, graph: ImageGraph) -> None:
    await put(graph, graph.image(b"one"), OCILayout(place, "a:1"))
    missing = Descriptor(digest=f"sha256:{'0' * 64}", size=1)
    async with OCILayout(place).open_source() as source:
        with pytest.raises(NotFoundError, match="no blob"):
            await anext(source.blob(missing))
        with pytest.raises(NotFoundError, match="no blob"):
            await source.manifest(missing)


async def test_schema_1_is_not_put_into_a_layout(place: Path) -> None:
    old = Manifest.parse(json.dumps({"fsLayers": [{"blobSum": f"sha256:{'0' * 64}"}]}).encode())
    with pytest.raises(UnsupportedManifestError):
        async with OCILayout(place, "a:1").open_target() as target:
            await target.write_blob(old.blobs[0], lambda: lying(old.blobs[0]))
    with pytest.raises(UnsupportedManifestError):
        async with OCILayout(place, "a:1").open_target() as target:
            await target.write_name(old)
    assert not parts(place)


async def test_a_layout_is_verified_as_a_whole(place: Path, graph: ImageGraph) -> None:
    """All its images, and each of their blobs once; a foreign layer need not be there."""
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": f"sha256:{'f' * 64}",
        "size": 7,
        "urls": ["https://example.com/layer"],
    }
    config = graph.blob(b"{}", "application/vnd.oci.image.config.v1+json")
    windows = graph.document({"mediaType": OCI_MANIFEST, "config": config, "layers": [foreign]})
    root = two_platforms(graph)
    async with OCILayout(place, "windows:1").open_target() as target:
        manifest = graph.manifest(windows)
        await target.write_blob(manifest.blobs[0], partial(graph.source(windows).blob, manifest.blobs[0]))
        await target.write_name(manifest)
    await put(graph, root, OCILayout(place, "a:1"))
    await OCILayout(place, "a:1").verify()
    await OCILayout(place, "no:such").verify()
    layer = graph.manifest({"digest": graph.manifest(root).children[1].digest}).layers[1]
    await damage(place, layer.digest, graph)
    with pytest.raises(DigestMismatchError, match=layer.digest):
        await OCILayout(place).verify()


# Bad layouts


@pytest.mark.parametrize("index", [b"", b"[]", b"{", b'{"manifests": [{}]}', b'{"manifests": "x"}', b"\xff"])
async def test_an_index_that_is_not_one_is_refused(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(FrameDecodeError):
        await OCILayout(tmp_path).images()
    async with OCILayout(tmp_path, "a:1").open_target() as target:
        with pytest.raises(FrameDecodeError):
            await target.resolve()
    assert (tmp_path / "index.json").read_bytes() == index


@pytest.mark.parametrize("layout", [None, b"", b"{}", b"x", b'{"imageLayoutVersion": "2.0.0"}', b"x" * 5000])
async def test_a_directory_that_is_not_a_layout_is_refused(tmp_path: Path, layout: bytes | None) -> None:
    (tmp_path / "index.json").write_text("{}")
    if layout is not None:
        (tmp_path / "oci-layout").write_bytes(layout)
    with pytest.raises(ArchiveError):
        await OCILayout(tmp_path).images()


async def test_a_directory_of_something_else_is_not_written_to(tmp_path: Path, graph: ImageGraph) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ArchiveError, match="neither an OCI layout nor an empty directory"):
        await put(graph, graph.image(b"one"), OCILayout(tmp_path, "a:1"))
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


async def test_a_tar_of_something_else_is_not_written_to(tmp_path: Path, graph: ImageGraph) -> None:
    place = tmp_path / "x.tar"
    with tarfile.open(place, "w") as tar:
        tar.addfile(tarfile.TarInfo("letter.txt"))
    data = place.read_bytes()
    with pytest.raises(ArchiveError, match="not an OCI layout"):
        await put(graph, graph.image(b"one"), OCILayout(place, "a:1"))
    assert place.read_bytes() == data
    assert not parts(place)


async def test_a_layout_that_is_not_there_is_an_error_of_the_file(place: Path) -> None:
    with pytest.raises(LocalFileError) as caught:
        await OCILayout(place).images()
    assert caught.value.errno == errno.ENOENT


async def test_an_index_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    with (tmp_path / "index.json").open("wb") as file:
        file.truncate(MAX_INDEX + 1)
    with pytest.raises(ArchiveError, match="is the most"):
        await OCILayout(tmp_path).images()


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "blob"])
async def test_a_fifo_in_a_layout_blocks_nothing(tmp_path: Path, graph: ImageGraph, name: str) -> None:
    place = tmp_path / "images"
    root = graph.image(b"one")
    await put(graph, root, OCILayout(place, "a:1"))
    path = place / (name_of(root["digest"]) if name == "blob" else name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LocalFileError):
        await get(OCILayout(place))


async def test_a_link_in_the_place_of_a_blob_is_not_written_through(tmp_path: Path, graph: ImageGraph) -> None:
    place = tmp_path / "images"
    root = graph.image(b"one")
    layer = graph.manifest(root).layers[0]
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (place / "blobs/sha256").mkdir(parents=True)
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / name_of(layer.digest)).symlink_to(precious)
    await put(graph, root, OCILayout(place, "a:1"))
    assert precious.read_text() == "mine"
    assert await get(OCILayout(place)) == graph.content


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "blob"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
async def test_a_link_in_a_tar_is_not_followed(tmp_path: Path, graph: ImageGraph, name: str, kind: bytes) -> None:
    place = tmp_path / "x.tar"
    root = graph.image(b"one")
    await put(graph, root, OCILayout(place, "a:1"))
    found = files(place)
    with tarfile.open(place, "w") as tar:
        for member_name, data in found.items():
            member = tarfile.TarInfo(member_name)
            if member_name == (name_of(root["digest"]) if name == "blob" else name):
                member.type, member.linkname = kind, "/etc/passwd"
            else:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with pytest.raises(ArchiveError, match="has a link where a file is expected"):
        await get(OCILayout(place))


@pytest.mark.parametrize(("path", "name"), [(5, None), (b"bytes", None), ("a", 5), (None, None)])
def test_what_is_not_a_path_or_a_name_is_a_type_error(path: object, name: object) -> None:
    with pytest.raises(TypeError):
        OCILayout(cast("str", path), cast("str", name))


def test_names_and_paths_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="NUL"):
        OCILayout("a\0b")
    with pytest.raises(ValueError, match="empty"):
        OCILayout("a", "")
    assert OCILayout("a", Reference.parse("alpine:3")).name == Reference.parse("alpine:3")


# Failures and cancellation


async def test_a_copy_that_fails_adds_no_name_and_leaves_a_tar_as_it_was(place: Path, graph: ImageGraph) -> None:
    await put(graph, graph.image(b"old"), OCILayout(place, "old:1"))
    before = place.read_bytes() if place.is_file() else None
    root = graph.image(b"new", b"more")

    async def breaks() -> AsyncGenerator[bytes, None]:
        yield b""
        raise RuntimeError("the source broke")

    manifest = graph.manifest(root)
    with pytest.raises(RuntimeError, match="the source broke"):
        async with OCILayout(place, "new:1").open_target() as target:
            await target.write_blob(manifest.blobs[0], lambda: graph.source(root).blob(manifest.blobs[0]))
            await target.write_blob(manifest.blobs[1], breaks)
    assert len(await OCILayout(place).images()) == 1
    assert not parts(place)
    if before is not None:
        assert place.read_bytes() == before
    # In a directory, what is whole serves the next attempt.
    source = graph.source(root)
    async with OCILayout(place, "new:1").open_target() as target:
        await copy_image(source, target)
    assert (manifest.blobs[0].digest in source.reads) == (before is not None)


async def test_a_cancelled_copy_leaves_nothing_behind(place: Path, graph: ImageGraph, leftovers: Leftovers) -> None:
    """Cancelled after each number of steps of the loop, until a copy is done before that."""
    root = two_platforms(graph, b"x" * 3000)
    before = leftovers.now()
    cancelled = 0
    for steps in range(5000):
        copying = asyncio.create_task(put(graph, root, OCILayout(place, "a:1")))
        for _ in range(steps):
            await asyncio.sleep(0)
            if copying.done():
                break
        copying.cancel()
        await asyncio.wait({copying})
        assert not parts(place), steps
        if not copying.cancelled():
            copying.result()
            break
        cancelled += 1
        if place.is_file():
            assert len(await OCILayout(place).images()) == 1
    assert cancelled > 20
    assert await get(OCILayout(place)) == graph.content
    await leftovers.settle(before)


async def test_a_full_disk_is_an_error_of_the_file_that_says_so(
    place: Path, graph: ImageGraph, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    """The real call fails as it does on a full disk, after some bytes."""
    await put(graph, graph.image(b"old"), OCILayout(place, "old:1"))
    left = 3000

    def take(size: int) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(size, left)
        left -= taken
        return taken

    writev, pwrite = os.writev, os.pwrite

    def limited_writev(descriptor: int, pieces: list[bytes]) -> int:
        whole = b"".join(pieces)
        return writev(descriptor, [whole[: take(len(whole))]])

    def limited_pwrite(descriptor: int, data: bytes, position: int) -> int:
        return pwrite(descriptor, data[: take(len(data))], position)

    monkeypatch.setattr(os, "writev", limited_writev)
    monkeypatch.setattr(os, "pwrite", limited_pwrite)
    before = leftovers.now()
    with pytest.raises(LocalFileError, match="free some space") as caught:
        await put(graph, graph.image(os.urandom(5000)), OCILayout(place, "new:1"))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert len(await OCILayout(place).images()) == 1
    assert not parts(place)
    await leftovers.settle(before)


async def test_temporary_files_of_killed_writers_are_removed_when_they_are_old(
    tmp_path: Path, graph: ImageGraph
) -> None:
    place = tmp_path / "images"
    root = graph.image(b"one")
    await put(graph, root, OCILayout(place, "a:1"))
    old, young = (place / "blobs/sha256" / f".{name}.part" for name in ("old", "young"))
    for part in (old, young):
        part.write_text("half")
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    await put(graph, root, OCILayout(place, "a:1"))
    assert not old.exists()
    assert young.exists()


async def test_temporary_tars_of_killed_writers_are_removed_when_they_are_old(
    tmp_path: Path, graph: ImageGraph
) -> None:
    place = tmp_path / "x[1].tar"
    old, young, other = (tmp_path / f".{name}.part" for name in (f"x[1].tar.{'0' * 16}", f"x[1].tar.{'1' * 16}", "y"))
    long_ago = time.time() - 2 * 24 * 3600
    for part in (old, young, other):
        part.write_text("half")
    for part in (old, other):
        os.utime(part, (long_ago, long_ago))
    await put(graph, graph.image(b"one"), OCILayout(place, "a:1"))
    assert {each.name for each in tmp_path.iterdir()} == {place.name, young.name, other.name}


# At once


async def test_many_copies_at_once_lose_nothing(place: Path, graph: ImageGraph, leftovers: Leftovers) -> None:
    base = os.urandom(5000)
    roots = [graph.image(base, f"image {number}".encode()) for number in range(8)]
    sources = [graph.source(root) for root in roots]

    async def one(number: int) -> None:
        async with OCILayout(place, f"app:{number}").open_target() as target:
            await copy_image(sources[number], target)
        if place.suffix == ".tar":
            # Whoever has left can rely on it.
            assert f"app:{number}" in {name for image in await OCILayout(place).images() for name in image.names}

    before = leftovers.now()
    await asyncio.gather(*map(one, range(8)))
    reads = [digest for source in sources for digest in source.reads]
    assert len(reads) == len(set(reads))
    for number, root in enumerate(roots):
        async with OCILayout(place, f"app:{number}").open_source() as source:
            assert (await source.resolve()).digest == root["digest"]
            await read_image(source)
    assert not parts(place)
    await leftovers.settle(before)


async def test_a_failure_of_one_copy_harms_no_other(place: Path, graph: ImageGraph) -> None:
    root = graph.image(b"one")

    async def good(number: int) -> None:
        await put(graph, root, OCILayout(place, f"good:{number}"))

    async def bad() -> None:
        descriptor = Descriptor(media_type=LAYER, digest=f"sha256:{'0' * 64}", size=15)
        async with OCILayout(place, "bad:1").open_target() as target:
            await target.write_blob(descriptor, lambda: lying(descriptor))

    results = await asyncio.gather(good(1), bad(), good(2), return_exceptions=True)
    assert [type(each) for each in results] == [type(None), DigestMismatchError, type(None)]
    assert len(await OCILayout(place).images()) == 2
    assert await get(OCILayout(place, "good:2")) == graph.content


async def test_a_held_tar_is_written_once(tmp_path: Path, graph: ImageGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = 0
    finish = layout_tars.TarOutput.finish

    def counted(self: layout_tars.TarOutput) -> Generator[None, None, None]:
        nonlocal finished
        finished += 1
        return finish(self)

    monkeypatch.setattr(layout_tars.TarOutput, "finish", counted)
    place = tmp_path / "x.tar"
    async with OCILayout(place).held(), OCILayout(place).held():
        for number in range(3):
            await put(graph, graph.image(f"image {number}".encode()), OCILayout(place, f"app:{number}"))
        assert not place.exists()
    assert finished == 1
    assert len(await OCILayout(place).images()) == 3


async def test_a_held_layout_that_gets_nothing_is_not_made(place: Path) -> None:
    async with OCILayout(place).held():
        pass
    assert not place.exists()
    assert not parts(place)


async def test_a_tar_that_another_process_changed_meanwhile_is_not_overwritten(
    tmp_path: Path, graph: ImageGraph
) -> None:
    place = tmp_path / "x.tar"
    with pytest.raises(ArchiveError, match="changed by somebody else"):
        async with OCILayout(place, "a:1").open_target() as target:
            await copy_image(graph.source(graph.image(b"one")), target)
            place.write_text("theirs")
    assert place.read_text() == "theirs"
    assert not parts(place)


def write_many(place: str, who: int, barrier: Barrier) -> None:
    """Write images into a layout, in a process of its own."""

    async def run() -> None:
        graph = ImageGraph()
        barrier.wait()
        for number in range(10):
            await put(
                graph, graph.image(b"shared" * 1000, b"%d %d" % (who, number)), OCILayout(place, f"p{who}:{number}")
            )

    asyncio.run(run())


@pytest.mark.program
async def test_two_processes_write_one_directory_and_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    place = str(tmp_path / "images")
    writers = [context.Process(target=write_many, args=(place, who, barrier)) for who in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        await asyncio.to_thread(writer.join)
        assert writer.exitcode == 0
        writer.close()
    names = {name for image in await OCILayout(place).images() for name in image.names}
    wanted = {f"p{who}:{number}" for who in range(2) for number in range(10)}
    assert wanted <= names
    for name in wanted:
        await get(OCILayout(place, name))


async def test_names_that_come_at_once_are_written_together(
    tmp_path: Path, graph: ImageGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time takes longer the more names there are, so that one at a time would take quadratic time."""
    written = 0
    change_index = layout_files.DirectoryFiles.change_index

    def counted(self: layout_files.DirectoryFiles, change: Callable[[bytes | None], bytes]) -> bool:
        nonlocal written
        written += 1
        time.sleep(0.02)
        return change_index(self, change)

    monkeypatch.setattr(layout_files.DirectoryFiles, "change_index", counted)
    root = graph.image(b"one")
    place = tmp_path / "images"
    await asyncio.gather(*(put(graph, root, OCILayout(place, f"app:{number}")) for number in range(20)))
    assert len(await OCILayout(place).images()) == 20
    assert written < 20


async def test_a_cancelled_name_is_not_written_and_a_failure_stays_with_its_copy(
    tmp_path: Path, graph: ImageGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call writes one name while three wait; the second, for these three, fails while one is cancelled."""
    layout = OCILayout(tmp_path / "images")
    root = graph.image(b"one")
    await put(graph, root, OCILayout(layout.path, "app:before"))
    manifest = graph.manifest(root)
    change_index = layout_files.DirectoryFiles.change_index
    calls = 0
    second, go_on = threading.Event(), threading.Event()

    def second_fails(self: layout_files.DirectoryFiles, change: Callable[[bytes | None], bytes]) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            time.sleep(0.05)
        if calls == 2:
            second.set()
            go_on.wait(10)
            raise LocalFileError.of(OSError(errno.EIO, "it broke"), "cannot write")
        return change_index(self, change)

    monkeypatch.setattr(layout_files.DirectoryFiles, "change_index", second_fails)

    async def name(text: str) -> None:
        async with OCILayout(layout.path, text).open_target() as target:
            await target.write_name(manifest)

    async with layout.held():
        tasks = [asyncio.create_task(name(f"app:{number}")) for number in range(4)]
        await asyncio.to_thread(second.wait, 10)
        waiting = [task for task in tasks if not task.done()]
        waiting[-1].cancel()
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = sorted(type(each).__name__ for each in results)
    assert kinds == ["CancelledError", "LocalFileError", "NoneType", "NoneType"]
    names = {each.rpartition("/")[2] for image in await layout.images() for each in image.names[:1]}
    assert names == {"app:before"} | {f"app:{number}" for number, each in enumerate(results) if each is None}


def write_until_killed(place: str) -> None:
    """Write images into a layout for ever, in a process of its own."""

    async def run() -> None:
        graph = ImageGraph()
        for number in itertools.count():
            root = graph.image(b"shared" * 1000, b"%d" % number)
            await put(graph, root, OCILayout(place, f"app:{number % 7}"))

    asyncio.run(run())


@pytest.mark.program
async def test_a_killed_process_leaves_a_layout_that_is_whole(place: Path) -> None:
    """Whatever index.json names is there, and what is not in its place yet is a temporary file."""
    context = multiprocessing.get_context("spawn")
    for number in range(3):
        writer = context.Process(target=write_until_killed, args=(str(place),))
        writer.start()
        while not place.exists() or (place.is_dir() and not (place / "index.json").exists()):
            await asyncio.sleep(0.01)
            assert writer.is_alive()
        await asyncio.sleep(0.1 + 0.07 * number)
        writer.kill()
        await asyncio.to_thread(writer.join)
        writer.close()
        images = await OCILayout(place).images()
        assert images
        for image in images:
            await get(OCILayout(place, image.names[0]))


async def test_files_are_not_touched_on_the_event_loop(
    place: Path, graph: ImageGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of the operating system that may block is made in another thread than the loop's."""
    loop_thread = threading.get_ident()
    threads: set[int] = set()

    def watch(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def watched(*args: object, **kwargs: object) -> object:
            threads.add(threading.get_ident())
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, watched)

    for name in ("open", "pread", "pwrite", "writev", "fsync", "stat", "replace", "unlink", "mkdir"):
        watch(name)
    root = two_platforms(graph)
    await put(graph, root, OCILayout(place, "a:1"))
    await get(OCILayout(place))
    monkeypatch.undo()
    assert threads
    assert loop_thread not in threads

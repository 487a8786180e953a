"""Content made from nothing: valid, the same each time, and refused by no reader of it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from aiodocker_images.testing import (
    Manifest,
    artifact,
    docker_archive,
    image,
    index,
    layer,
    oci_archive,
    random_bytes,
)
from aiodocker_images.testing.content import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {each.name: file.read() for each in tar if (file := tar.extractfile(each))}


def test_the_same_arguments_make_the_same_bytes() -> None:
    assert index(image(2), attestations=True).data == index(image(2), attestations=True).data
    assert image([layer(size=1000, seed=3)]).data == image([layer(size=1000, seed=3)]).data
    assert image([layer(seed=1)]).digest != image([layer(seed=2)]).digest
    assert random_bytes(10, 1) == random_bytes(10, 1) != random_bytes(10, 2)


def test_a_manifest_names_its_config_and_layers() -> None:
    made = image([{"etc/motd": "hello"}, {"bin/": b""}], config={"Labels": {"a": "b"}}, annotations={"c": "d"})
    assert made.document["mediaType"] == OCI_MANIFEST
    assert made.document["config"] == made.config.descriptor()
    assert made.document["layers"] == [each.descriptor() for each in made.layers]
    assert made.document["annotations"] == {"c": "d"}
    config = json.loads(made.config.data)
    assert (config["os"], config["architecture"], config["config"]["Labels"]) == ("linux", "amd64", {"a": "b"})
    unpacked = [gzip.decompress(each.data) for each in made.layers]
    assert config["rootfs"]["diff_ids"] == [digest_of(each) for each in unpacked]
    assert members(unpacked[0]) == {"etc/motd": b"hello"}


def test_docker_media_types_are_used_throughout() -> None:
    made = index(format="docker")
    assert made.media_type == DOCKER_INDEX
    assert {each.media_type for each in made.manifests} == {DOCKER_MANIFEST}
    types = {blob.media_type for blob in made.all_blobs().values()}
    assert types == {
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }


def test_an_index_names_its_platforms_and_attestations() -> None:
    made = index(image(), image(platform="linux/arm/v7"), attestations=True)
    entries = json.loads(made.data)["manifests"]
    assert [each["platform"] for each in entries] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm", "variant": "v7"},
        {"os": "unknown", "architecture": "unknown"},
        {"os": "unknown", "architecture": "unknown"},
    ]
    assert [each["annotations"]["vnd.docker.reference.digest"] for each in entries[2:]] == [
        each["digest"] for each in entries[:2]
    ]


def test_indexes_can_be_nested_and_children_come_first() -> None:
    inner = index()
    outer = index(inner, image(platform="linux/s390x"))
    order = [each.digest for each in outer.walk()]
    assert order[-1] == outer.digest
    assert order.index(inner.digest) == 2
    assert len(outer.all_blobs()) == 6


def test_an_artifact_refers_to_its_subject() -> None:
    app = image()
    made = artifact("application/vnd.example.signature", {"sig": b"x"}, subject=app)
    assert made.document["subject"] == {"mediaType": OCI_MANIFEST, "digest": app.digest, "size": app.size}
    assert (made.subject, made.document["artifactType"]) == (app.digest, "application/vnd.example.signature")
    assert len(artifact("a/b").document["layers"]) == 1  # type: ignore[arg-type]  # the specification wants one


@pytest.mark.parametrize("content", [image(), index(attestations=True)], ids=["image", "index"])
def test_an_oci_archive_is_a_layout_with_every_blob(content: Manifest) -> None:
    files = members(oci_archive(content, "app:1.0"))
    [entry] = json.loads(files["index.json"])["manifests"]
    assert (entry["digest"], entry["annotations"]["io.containerd.image.name"]) == (content.digest, "app:1.0")
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}
    assert all(name == f"blobs/{digest_of(data).replace(':', '/')}" for name, data in blobs.items())
    assert len(blobs) == len(content.all_blobs()) + len(list(content.walk()))
    assert json.loads(files["index.json"])["mediaType"] == OCI_INDEX


def test_a_docker_archive_has_the_layers_unpacked() -> None:
    made = image(2)
    files = members(docker_archive(made, "app:1.0"))
    [entry] = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == ["app:1.0"]
    assert files[entry["Config"]] == made.config.data
    diff_ids = json.loads(made.config.data)["rootfs"]["diff_ids"]
    assert [digest_of(files[path]) for path in entry["Layers"]] == diff_ids
    with pytest.raises(ValueError, match="one platform"):
        docker_archive(index())


def test_an_indented_manifest_is_the_same_with_another_digest() -> None:
    assert json.loads(image(indent=3).data) == json.loads(image().data)
    assert image(indent=3).digest != image().digest

"""Manifests and indexes are told apart, read and made, and their bytes stay what they were."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodocker_images import (
    Descriptor,
    DigestMismatchError,
    DockerError,
    FrameDecodeError,
    InvalidPlatformError,
    NotFoundError,
    Platform,
    UnsupportedManifestError,
)
from aiodocker_images._distribution.digests import ALGORITHMS, DigestCheck, check_digest, compute_digest, is_digest
from aiodocker_images._distribution.manifests import (
    ACCEPT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_DESCRIPTORS,
    MAX_MANIFEST_SIZE,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    is_attestation,
    is_foreign,
    is_manifest_type,
    is_media_type,
    make_index,
    platform_matches,
)
from tests.support.sweeps import examples

EMPTY: dict[str, Any] = {}

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def digest(text: str) -> str:
    return compute_digest(text.encode())


def entry(name: str, media_type: str, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(name), "size": len(name), **more}


def encode(document: object) -> bytes:
    return json.dumps(document, indent=3).encode()


def image(**changes: object) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": entry("config", OCI_CONFIG),
        "layers": [entry("one", OCI_LAYER), entry("two", OCI_LAYER), entry("one", OCI_LAYER)],
    }
    return document | changes


def on(platform: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))


def attestation(about: str, name: str) -> dict[str, Any]:
    annotations = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest(about)}
    return entry(name, OCI_MANIFEST, platform=on("unknown/unknown"), annotations=annotations)


def index(**changes: object) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            entry("amd64", OCI_MANIFEST, platform=on("linux/amd64"), **{"x-unknown": [1.50, {"a": None}]}),
            entry("arm64", OCI_MANIFEST, platform=on("linux/arm64/v8")),
            entry("armv6", OCI_MANIFEST, platform=on("linux/arm/v6")),
            attestation("amd64", "of amd64"),
            attestation("arm64", "of arm64"),
        ],
        "annotations": {"kept": "yes"},
        "unknown": {"b": 1, "a": 2.50},
    }
    return document | changes


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def read(document: object, media_type: str = "") -> Manifest:
    return Manifest.parse(encode(document), media_type)


# Kinds


@pytest.mark.parametrize(
    ("document", "said", "kind", "media_type"),
    [
        (image(), OCI_MANIFEST, "image", OCI_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), "", "image", DOCKER_MANIFEST),
        (image(layers=[]), "", "image", OCI_MANIFEST),
        (image(layers=None), "", "image", OCI_MANIFEST),
        (index(), OCI_INDEX, "index", OCI_INDEX),
        (index(mediaType=DOCKER_LIST), "", "index", DOCKER_LIST),
        (index(manifests=None), "", "index", OCI_INDEX),
        # What does not name its own type has the type that the sender names, and else the usual one of its shape.
        (without(image(), "mediaType"), DOCKER_MANIFEST, "image", DOCKER_MANIFEST),
        (without(image(), "mediaType"), "application/json; charset=utf-8", "image", OCI_MANIFEST),
        (without(image(), "mediaType"), "text/plain", "image", OCI_MANIFEST),
        (without(image(config=entry("c", DOCKER_CONFIG)), "mediaType"), "", "image", DOCKER_MANIFEST),
        (without(index(), "mediaType"), "", "index", OCI_INDEX),
        ({"manifests": [*EMPTY]}, "", "index", OCI_INDEX),
        ({"layers": [*EMPTY]}, "", "image", OCI_MANIFEST),
        # The document's own type outweighs the sender's, where they agree about the kind.
        (image(), DOCKER_MANIFEST, "image", OCI_MANIFEST),
        # A type that nobody knows is kept where the document looks like a manifest or an index.
        (image(mediaType="application/vnd.acme.thing.v3+json"), "", "image", "application/vnd.acme.thing.v3+json"),
        (index(mediaType="application/vnd.acme.things+json"), "", "index", "application/vnd.acme.things+json"),
        (without(index(), "mediaType"), "application/vnd.acme.things", "index", "application/vnd.acme.things"),
        # Artifacts, as they are and as they once were.
        (
            image(artifactType="application/spdx+json", config=entry("{}", "application/vnd.oci.empty.v1+json")),
            "",
            "image",
            OCI_MANIFEST,
        ),
        (
            {"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [entry("sbom", "text/spdx")]},
            "",
            "image",
            "application/vnd.oci.artifact.manifest.v1+json",
        ),
        (
            {"schemaVersion": 1, "fsLayers": [{"blobSum": digest("one")}], "signatures": [EMPTY]},
            "",
            "schema1",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
        (
            {"schemaVersion": 1, "fsLayers": [{"blobSum": digest("one")}]},
            "",
            "schema1",
            "application/vnd.docker.distribution.manifest.v1+json",
        ),
    ],
)
def test_each_kind_is_told_apart_and_named(document: object, said: str, kind: str, media_type: str) -> None:
    manifest = read(document, said)
    assert (manifest.kind, manifest.media_type) == (kind, media_type)
    assert manifest.is_index == (kind == "index")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({**index(), **image(mediaType=None)}, ""),
        ({**index(), **image(mediaType=None)}, OCI_INDEX),
        ({**index(), "mediaType": OCI_MANIFEST}, ""),
        ({**image(), "mediaType": OCI_INDEX}, ""),
        (without(image(), "mediaType"), OCI_INDEX),
        (index(), OCI_MANIFEST),
        ({**image(), "fsLayers": [{"blobSum": digest("one")}]}, ""),
    ],
)
def test_a_document_that_some_could_read_as_another_kind_is_refused(document: object, said: str) -> None:
    with pytest.raises(UnsupportedManifestError, match="it could be"):
        read(document, said)


@pytest.mark.parametrize(
    "document", [EMPTY, {"mediaType": "application/vnd.acme"}, {"schemaVersion": 2}, {"tags": [*EMPTY]}]
)
def test_a_document_that_is_neither_manifest_nor_index_is_refused(document: object) -> None:
    with pytest.raises(UnsupportedManifestError, match="neither a manifest nor an index"):
        read(document)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"layers": ' + b"[" * 100_000,
        encode(image(layers="none")),
        encode(image(layers=[None])),
        encode(image(layers=[EMPTY])),
        encode(image(layers=[entry("one", OCI_LAYER, digest="sha256:../../etc/passwd")])),
        encode(image(layers=[entry("one", OCI_LAYER, digest=digest("one").upper())])),
        encode(image(layers=[entry("one", OCI_LAYER, size=-1)])),
        encode(image(layers=[entry("one", OCI_LAYER, size=None)])),
        encode(image(layers=[entry("one", OCI_LAYER, size="3")])),
        encode(image(layers=[entry("one", OCI_LAYER, size=1 << 63)])),
        encode(image(layers=[entry("one", "a/b\r\nX-Evil: 1")])),
        encode(image(mediaType="a/b\r\nX-Evil: 1")),
        encode(image(subject={"digest": digest("it")})),
        encode({"fsLayers": [{"blobSum": ""}]}),
        b'"' + b"x" * MAX_MANIFEST_SIZE + b'"',
    ],
)
def test_what_is_not_such_a_document_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(FrameDecodeError):
        Manifest.parse(data)


def test_a_digest_of_an_unknown_algorithm_is_not_handled() -> None:
    with pytest.raises(UnsupportedManifestError, match="blake3"):
        read(image(layers=[entry("one", OCI_LAYER, digest="blake3:" + "0" * 64)]))


def test_an_error_names_the_manifest_by_its_digest() -> None:
    data = encode({"tags": [*EMPTY]})
    with pytest.raises(UnsupportedManifestError, match=compute_digest(data)):
        Manifest.parse(data)


def test_entries_without_number_are_refused() -> None:
    entries = [{"mediaType": OCI_LAYER, "digest": digest("one"), "size": 3}] * MAX_DESCRIPTORS
    document = json.dumps(image(layers=entries), separators=(",", ":")).encode()
    assert len(document) <= MAX_MANIFEST_SIZE
    with pytest.raises(UnsupportedManifestError, match="entries"):
        Manifest.parse(document)


def test_null_and_absent_fields_are_the_same() -> None:
    nulls = {"annotations": None, "subject": None, "artifactType": None, "manifests": None, "fsLayers": None}
    manifest = read(image(**nulls))
    assert (manifest.annotations, manifest.subject, manifest.artifact_type) == ({}, None, "")


# Bytes and digests


def test_bytes_stay_as_they_came_and_the_digest_is_theirs() -> None:
    data = encode(image()) + b"\n \n"
    manifest = Manifest.parse(data)
    assert manifest.data == data
    assert manifest.digest == compute_digest(data)
    assert (manifest.size, manifest.descriptor.size) == (len(data), len(data))
    assert manifest.descriptor.digest == manifest.digest
    assert repr(data) not in repr(manifest)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_digest_that_is_demanded_is_checked_by_its_own_algorithm(algorithm: str) -> None:
    data = encode(image())
    wanted = compute_digest(data, algorithm)
    assert Manifest.parse(data, digest=wanted).digest == wanted
    with pytest.raises(DigestMismatchError) as caught:
        Manifest.parse(data + b" ", digest=wanted, who="registry.example")
    assert caught.value.expected == wanted
    assert caught.value.actual == compute_digest(data + b" ", algorithm)
    assert caught.value.who == "registry.example"
    assert pickle.loads(pickle.dumps(caught.value)).expected == wanted


@pytest.mark.parametrize("text", ["", "sha256", "sha256:", "sha256:xyz", "sha256:" + "A" * 64, "../sha256:" + "a" * 64])
def test_what_is_not_a_digest_is_refused(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises((FrameDecodeError, UnsupportedManifestError)):
        check_digest(text, "it")


def test_content_is_checked_while_it_passes() -> None:
    check = DigestCheck(digest("hello"), 5)
    states = [check.complete]
    for piece in (b"hel", memoryview(b"lo")):
        check.update(piece)
        states.append(check.complete)
    check.finish()
    assert states == [False, False, True]


def test_content_of_another_digest_is_found_at_its_end() -> None:
    check = DigestCheck(digest("hello"), 5, who="registry.example")
    check.update(b"hellO")
    with pytest.raises(DigestMismatchError, match=r"registry\.example") as caught:
        check.finish()
    assert caught.value.actual == digest("hellO")


def test_too_long_content_fails_at_once_and_too_short_content_at_its_end() -> None:
    check = DigestCheck(digest("hello"), 5)
    with pytest.raises(DigestMismatchError, match="more than the 5 bytes"):
        check.update(b"hello!")
    check = DigestCheck(digest("hello"), 5)
    check.update(b"hell")
    with pytest.raises(DigestMismatchError, match="4 bytes"):
        check.finish()


def test_content_of_unknown_size_is_checked_by_its_digest_alone() -> None:
    check = DigestCheck(digest("hello"))
    check.update(b"hello")
    assert not check.complete
    check.finish()


# What a manifest leads to


def test_each_blob_is_listed_once_and_the_config_first() -> None:
    assert [blob.digest for blob in read(image()).blobs] == [digest("config"), digest("one"), digest("two")]


def test_a_manifest_has_no_children_and_an_index_no_blobs() -> None:
    assert read(image()).children == ()
    assert read(index()).blobs == ()
    names = ["amd64", "arm64", "armv6", "of amd64", "of arm64"]
    assert [child.digest for child in read(index()).children] == [digest(name) for name in names]


def test_an_index_of_indexes_has_them_as_children() -> None:
    assert [child.media_type for child in read(index(manifests=[entry("in", OCI_INDEX)])).children] == [OCI_INDEX]


def test_a_cache_of_buildkit_is_an_index_of_blobs() -> None:
    cache = index(manifests=[entry("one", OCI_LAYER), entry("c", "application/vnd.buildkit.cacheconfig.v0")])
    assert read(cache).children == ()
    assert [blob.digest for blob in read(cache).blobs] == [digest("one"), digest("c")]


def test_the_layers_of_schema_1_have_no_size() -> None:
    manifest = read({"schemaVersion": 1, "fsLayers": [{"blobSum": digest(name)} for name in ("one", "two", "one")]})
    assert [(blob.digest, blob.size) for blob in manifest.blobs] == [(digest("one"), None), (digest("two"), None)]


def test_a_layer_with_urls_is_foreign() -> None:
    layers = [entry("w", FOREIGN_LAYER, urls=["https://example.com/w"]), entry("own", FOREIGN_LAYER)]
    assert [is_foreign(layer) for layer in read(image(layers=layers)).layers] == [True, False]


def test_a_referrer_has_a_subject_and_a_type() -> None:
    own = read(image(subject=entry("it", OCI_MANIFEST), artifactType="application/spdx+json"))
    assert own.subject is not None
    assert own.subject.digest == digest("it")
    assert own.referrer_type == "application/spdx+json"
    assert read(image()).referrer_type == OCI_CONFIG
    assert read(index()).referrer_type == ""


# Platforms


def test_an_attestation_is_not_a_platform_and_belongs_to_what_it_is_about() -> None:
    manifest = read(index())
    assert list(map(str, manifest.platforms)) == ["linux/amd64", "linux/arm64/v8", "linux/arm/v6"]
    about = {key: [each.digest for each in value] for key, value in manifest.attestations.items()}
    assert about == {digest("amd64"): [digest("of amd64")], digest("arm64"): [digest("of arm64")]}
    assert is_attestation(Descriptor(platform=Platform(os="unknown", architecture="unknown")))


@pytest.mark.parametrize(
    ("wanted", "there", "matches"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/aarch64", "linux/arm64", True),
        ("linux/x86_64", "linux/amd64", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/7", "linux/arm/v7", True),
        ("linux/armhf", "linux/arm/v7", True),
        ("linux/armel", "linux/arm/v6", True),
        ("linux/arm", "linux/arm/v6", False),
        ("linux/amd64", "linux/amd64/v3", False),
        ("linux/amd64", "windows/amd64", False),
        ("macos/arm64", "darwin/arm64", True),
    ],
)
def test_platforms_match_as_dockers_platform_option_does(wanted: str, there: str, matches: bool) -> None:
    assert platform_matches(Platform.parse(wanted), Platform.parse(there)) is matches


def test_a_version_of_windows_matches_only_if_it_is_the_wanted_one() -> None:
    there = Platform(os="windows", architecture="amd64", os_version="10.0.20348.2227")
    assert platform_matches(Platform.parse("windows/amd64"), there)
    assert platform_matches(there, there)
    assert not platform_matches(Platform(os="windows", architecture="amd64", os_version="10.0.17763.1"), there)


def test_one_manifest_may_be_listed_for_two_platforms() -> None:
    twice = [entry("x", OCI_MANIFEST, platform=on(name)) for name in ("linux/amd64", "linux/386")]
    manifest = read(index(manifests=twice))
    assert len(manifest.platforms) == 2
    assert [each.digest for each in manifest.select(["linux/386"])] == [digest("x")]


def test_a_subset_keeps_what_it_keeps_as_it_was_written() -> None:
    manifest = read(index())
    part = manifest.subset(["linux/amd64"])
    assert [each.digest for each in part.manifests] == [digest("amd64"), digest("of amd64")]
    assert part.digest != manifest.digest
    assert part.media_type == OCI_INDEX
    kept = json.loads(part.data)
    document = index()
    assert kept == document | {"manifests": [document["manifests"][0], document["manifests"][3]]}
    assert b"1.5" in part.data
    assert b"2.5" in part.data
    assert manifest.subset(["linux/amd64"]).digest == part.digest


def test_a_subset_that_loses_nothing_keeps_the_digest() -> None:
    manifest = read(index())
    assert manifest.subset(["linux/amd64", "linux/arm64", "linux/arm/v6"]) is manifest


def test_a_platform_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(
        NotFoundError, match="no platform linux/s390x; it has linux/amd64, linux/arm64/v8, linux/arm/v6"
    ):
        read(index()).subset(["linux/amd64", "linux/s390x"])
    with pytest.raises(InvalidPlatformError):
        read(index()).subset(["intel"])
    with pytest.raises(TypeError):
        read(image()).subset(["linux/amd64"])


def test_attestations_are_not_selected_as_a_platform() -> None:
    with pytest.raises(NotFoundError):
        read(index()).select(["unknown/unknown"])


# New indexes


def test_a_new_index_has_what_it_was_made_of() -> None:
    made = make_index(read(index()).manifests, annotations={"a": "b"})
    assert made.kind == "index"
    assert made.manifests == read(index()).manifests
    assert made.annotations == {"a": "b"}
    assert made.digest == make_index(read(index()).manifests, annotations={"a": "b"}).digest
    assert b"null" not in made.data
    assert b'""' not in made.data


# The rest


def test_all_types_of_manifests_are_accepted() -> None:
    accepted = ACCEPT.split(", ")
    assert {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, "*/*"} <= set(accepted)
    assert all(is_manifest_type(each) for each in accepted[:-1])


def test_media_types_are_those_of_the_standard() -> None:
    assert is_media_type(OCI_LAYER)
    assert not any(map(is_media_type, ["", "a", "a/", "/b", "a/b; c=d", "a/b\n", "a /b", "ä/b", "a/" + "b" * 128]))


def test_a_manifest_crosses_the_borders_of_processes() -> None:
    manifest = read(index())
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    assert copy.deepcopy(manifest) == manifest


# Anything

_SMALL = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
_ANY = st.recursive(_SMALL, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner))
_DESCRIPTORS = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([OCI_MANIFEST, OCI_INDEX, OCI_LAYER, DOCKER_LIST, "", None]) | _ANY,
        "digest": st.sampled_from([digest("one"), digest("two"), "sha256:x", "", None]) | _ANY,
        "size": st.integers(-2, 1 << 65) | _ANY,
        "urls": st.lists(st.text(max_size=5), max_size=2) | _ANY,
        "platform": st.sampled_from([on("linux/amd64"), on("unknown/unknown"), on("linux/arm"), {}, None]) | _ANY,
        "annotations": st.sampled_from([{"vnd.docker.reference.digest": digest("one")}, None]) | _ANY,
    },
)
_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.sampled_from([1, 2]) | _ANY,
        "mediaType": st.sampled_from([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, "a/b", None]) | _ANY,
        "artifactType": st.text(max_size=5) | _ANY,
        "config": _DESCRIPTORS | _ANY,
        "layers": st.lists(_DESCRIPTORS, max_size=3) | _ANY,
        "blobs": st.lists(_DESCRIPTORS, max_size=3) | _ANY,
        "manifests": st.lists(_DESCRIPTORS, max_size=3) | _ANY,
        "fsLayers": st.lists(st.dictionaries(st.just("blobSum"), st.just(digest("one")) | _ANY), max_size=2) | _ANY,
        "signatures": _ANY,
        "subject": _DESCRIPTORS | _ANY,
        "annotations": st.dictionaries(st.text(max_size=3), st.text(max_size=3)) | _ANY,
    },
)


def explore(data: bytes, said: str) -> None:
    """Read `data` and use all that came of it: what is raised is ours."""
    try:
        manifest = Manifest.parse(data, said)
    except (UnsupportedManifestError, FrameDecodeError):
        return
    assert manifest.data == data
    assert is_media_type(manifest.media_type)
    found = [*manifest.children, *manifest.blobs, *(each for value in manifest.attestations.values() for each in value)]
    assert all(is_digest(each.digest) for each in found)
    assert {each.digest for each in (*manifest.children, *manifest.blobs)} >= {
        each.digest for each in (*manifest.layers, *manifest.manifests)
    }
    for platform in manifest.platforms:
        try:
            part = manifest.subset([platform])
        except DockerError:
            continue
        assert part.manifests
        assert all(each in manifest.manifests for each in part.manifests)


@given(_DOCUMENTS, st.sampled_from(["", OCI_MANIFEST, OCI_INDEX, "application/vnd.acme", "text/html"]))
@settings(max_examples=examples(400))
def test_any_document_is_a_manifest_or_one_of_our_errors(document: object, said: str) -> None:
    explore(json.dumps(document).encode(), said)


@given(st.binary(max_size=200), st.text(max_size=20))
def test_any_bytes_are_a_manifest_or_one_of_our_errors(data: bytes, said: str) -> None:
    explore(data, said)


@given(st.data())
@settings(max_examples=examples(300))
def test_a_manifest_with_bytes_changed_is_a_manifest_or_one_of_our_errors(data: st.DataObject) -> None:
    whole = bytearray(encode(data.draw(st.sampled_from([image(), index()]))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    explore(bytes(whole), "")


@given(st.lists(st.sampled_from(["linux/amd64", "linux/arm64", "linux/arm/v6"]), min_size=1))
def test_a_subset_of_a_subset_is_the_same(platforms: list[str]) -> None:
    part = read(index()).subset(platforms)
    assert part.subset(platforms) is part
    kept = {each.digest for each in part.manifests}
    assert set(part.attestations) <= kept

"""Manifests and indexes: told apart, decoded, checked, and made. Pure.

A manifest is known by the digest of its bytes, so the bytes are kept exactly as they came, and what is read here is
only a view of them. A kind that nobody can be sure of is refused rather than guessed, because two programs that guess
differently see two different images behind one digest.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from aiodocker_images._struct import UNDECODABLE, Model, Nullable
from aiodocker_images.errors import (
    DigestMismatchError,
    FrameDecodeError,
    NotFoundError,
    UnsupportedManifestError,
    shown,
)
from aiodocker_images.models import Descriptor, Platform

from .digests import check_digest, compute_digest

__all__ = ["Manifest"]

MAX_MANIFEST_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a manifest: what registries accept (OCI distribution specification, "Pushing Manifests")."""

MAX_DESCRIPTORS: Final = 10_000
"""Entries of a manifest. Images have some hundred at most; a fallback index of referrers can have thousands."""

MAX_DEPTH: Final = 8
"""Indexes within indexes. Two levels are seen in practice; a digest cannot lead back to itself, but can go deep."""

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"

_DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+json"
_SCHEMA_1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

Kind = Literal["image", "index", "schema1"]

_KINDS: Final[dict[str, Kind]] = {
    DOCKER_MANIFEST: "image",
    OCI_MANIFEST: "image",
    # Artifacts had manifests of their own until OCI 1.1 was released without them.
    "application/vnd.oci.artifact.manifest.v1+json": "image",
    "application/vnd.cncf.oras.artifact.manifest.v1+json": "image",
    DOCKER_LIST: "index",
    OCI_INDEX: "index",
    _SCHEMA_1_SIGNED: "schema1",
    _SCHEMA_1: "schema1",
}

ACCEPT: Final = ", ".join([*_KINDS, "*/*"])
"""The `Accept` header of a request for a manifest of any kind.

distribution 2.8 answers 404 for a manifest that is there unless its own type is named, also to `*/*` alone, which
others need for types that nobody has foreseen.
"""

_KIND_NAMES: Final[dict[Kind, str]] = {
    "image": "a manifest",
    "index": "an index",
    "schema1": "a manifest of schema 1",
}

# BuildKit exports its cache as an index whose entries are layers and a configuration, not manifests.
_BLOB_TYPE = re.compile(
    r"application/vnd\.(?:docker\.(?:image\.rootfs|container\.image)|oci\.image\.(?:layer|config)|buildkit\.cacheconfig)\."
)
# RFC 6838, 4.2. A media type from a document becomes a header of a request: nothing else may get there.
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")

# What servers say of JSON of which they know nothing more.
_SAYS_NOTHING: Final = {"", "application/json", "application/octet-stream", "binary/octet-stream"}

_UNKNOWN: Final = "unknown"
_REFERENCE_TYPE: Final = "vnd.docker.reference.type"
_REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"


class _Layer(Model, frozen=True, kw_only=True, rename=None):
    blobSum: Nullable[str] = ""  # noqa: N815 - schema 1 spells it so


class _Document(Model, frozen=True, kw_only=True, rename="camel"):
    """All fields that any kind of manifest has."""

    media_type: Nullable[str] = ""
    artifact_type: Nullable[str] = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    blobs: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    fs_layers: tuple[_Layer, ...] | None = None
    signatures: object = None
    subject: Descriptor | None = None
    annotations: Nullable[Mapping[str, str]] = msgspec.field(default_factory=dict[str, str])


_DECODER: Final = msgspec.json.Decoder(_Document)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A manifest or an index, with the bytes that it came in.

    `data` are those bytes, `digest` is computed from them ("sha256:9f86…"), and `media_type` is what a registry is
    told when they are pushed. `kind` is "image" (also an artifact), "index" (also a manifest list) or "schema1".

    An image has a `config` (None for old artifacts) and `layers`; an index has `manifests`, in its own order. `subject`
    is what this manifest refers to, as a signature does, or None. Each descriptor has a valid digest, and a size in
    bytes except in schema 1, which does not record sizes.

    OCI image specification 1.1, "Image Manifest" and "Image Index"; Docker's image manifest version 2, schema 1 and 2.
    """

    data: bytes = dataclasses.field(repr=False)
    digest: str
    media_type: str
    kind: Kind
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = dataclasses.field(default=(), repr=False)
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str], repr=False)

    @classmethod
    def parse(cls, data: bytes, media_type: str = "", *, digest: str | None = None, who: str = "") -> Manifest:
        """Read a manifest; `media_type` is what its sender or its parent says, `digest` what it must have.

        The document's own media type counts first, then `media_type`, then what the document looks like. `who` names
        the sender in errors. Raises `DigestMismatchError`; `UnsupportedManifestError` for a document that is neither a
        manifest nor an index, or might be either; and `FrameDecodeError` for anything that is not such a document.
        """
        if len(data) > MAX_MANIFEST_SIZE:
            raise FrameDecodeError(f"a manifest of {len(data)} bytes; {MAX_MANIFEST_SIZE} is the most")
        expected = check_digest(digest, "the manifest") if digest is not None else None
        actual = compute_digest(data, expected.partition(":")[0] if expected else "sha256")
        if expected not in {None, actual}:
            sender = f"{shown(who)} gave" if who else "the source gave"
            message = f"{sender} a manifest of digest {actual} instead of {expected}"
            raise DigestMismatchError(message, expected=str(expected), actual=actual, who=who)
        try:
            data.decode()  # msgspec passes over the text of fields that it does not know
            document = _DECODER.decode(data)
        except UNDECODABLE as error:
            raise FrameDecodeError(f"the manifest {actual} is not what it should be: {error}") from error
        try:
            return cls._read(data, actual, document, media_type)
        except (FrameDecodeError, UnsupportedManifestError) as error:
            raise type(error)(f"the manifest {actual}: {error.message}") from None

    @classmethod
    def _read(cls, data: bytes, digest: str, document: _Document, said: str) -> Manifest:
        kind, media_type = _identify(document, said)
        layers = document.layers or document.blobs or ()
        if kind == "schema1":
            # From the top layer down; the same empty layer is in most of them many times.
            layers = tuple(Descriptor(digest=layer.blobSum) for layer in document.fs_layers or ())
        manifests = document.manifests or ()
        entries = [("its config", document.config), ("its subject", document.subject)]
        entries += [("a layer", layer) for layer in layers] + [("an entry", entry) for entry in manifests]
        if len(entries) > MAX_DESCRIPTORS:
            raise UnsupportedManifestError(f"it has {len(entries)} entries; {MAX_DESCRIPTORS} is the most")
        for name, descriptor in entries:
            if descriptor is not None:
                _check(descriptor, name, sized=kind != "schema1")
        return cls(
            data=data,
            digest=digest,
            media_type=media_type,
            kind=kind,
            config=document.config,
            layers=layers,
            manifests=manifests,
            subject=document.subject,
            artifact_type=document.artifact_type,
            annotations=document.annotations,
        )

    @property
    def size(self) -> int:
        """Bytes of the manifest itself."""
        return len(self.data)

    @property
    def is_index(self) -> bool:
        """Whether this is an OCI index or a Docker manifest list."""
        return self.kind == "index"

    @property
    def descriptor(self) -> Descriptor:
        """What points to this manifest."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)

    @property
    def referrer_type(self) -> str:
        """The `artifactType` under which a list of referrers names this manifest: its own, or its config's type."""
        return self.artifact_type or (self.config.media_type if self.config else "")

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The distinct manifests and indexes of this index, attestations included."""
        return _distinct(entry for entry in self.manifests if not _BLOB_TYPE.match(entry.media_type))

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The distinct blobs of this manifest: config, layers, and those that an index of BuildKit's cache has.

        Those that are foreign (`is_foreign`) are included.
        """
        own = (self.config, *self.layers, *(entry for entry in self.manifests if _BLOB_TYPE.match(entry.media_type)))
        return _distinct(blob for blob in own if blob is not None)

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The distinct platforms of this index, in its order. An attestation is not a platform."""
        return tuple(dict.fromkeys(entry.platform for entry in self._images() if entry.platform is not None))

    @property
    def attestations(self) -> Mapping[str, tuple[Descriptor, ...]]:
        """The attestations of this index, by the digest of the manifest that each is about ("" if it names none)."""
        found: dict[str, tuple[Descriptor, ...]] = {}
        for entry in self.children:
            if is_attestation(entry):
                about = entry.annotations.get(_REFERENCE_DIGEST, "")
                found[about] = (*found.get(about, ()), entry)
        return found

    def select(self, platforms: Iterable[str | Platform]) -> tuple[Descriptor, ...]:
        """Return the manifests of this index for `platforms`, in its order, without attestations.

        Raises `NotFoundError` for a platform that the index does not have, `InvalidPlatformError` for one that is
        not written as linux/arm64/v8 is, and `TypeError` if this is not an index.
        """
        if not self.is_index:
            raise TypeError("platforms are selected from an index, and this is a single manifest")
        chosen: set[str] = set()
        for wanted in [Platform.parse(each) for each in platforms]:
            digests = {
                each.digest for each in self._images() if each.platform and platform_matches(wanted, each.platform)
            }
            if not digests:
                there = ", ".join(map(str, self.platforms)) or "none that is named"
                raise NotFoundError(f"the index {self.digest} has no platform {wanted}; it has {there}")
            chosen |= digests
        return _distinct(entry for entry in self._images() if entry.digest in chosen)

    def subset(self, platforms: Iterable[str | Platform]) -> Manifest:
        """Return an index of the manifests for `platforms` and their attestations alone, with a digest of its own.

        What is kept is kept as it was written, annotations and unknown fields included; an index that loses nothing
        is returned as it is, digest and all. Raises as `select()` does.
        """
        kept = {entry.digest for entry in self.select(platforms)}
        # An attestation is matched by digest, so one about a manifest that is left out is left out as well.
        kept |= {entry.digest for about in sorted(kept) for entry in self.attestations.get(about, ())}
        if all(entry.digest in kept for entry in self.manifests):
            return self
        try:
            document = msgspec.json.decode(self.data, type=dict[str, msgspec.Raw])
            entries = msgspec.json.decode(document["manifests"], type=list[msgspec.Raw])
        except UNDECODABLE as error:  # the name of a field that was passed over until now
            raise FrameDecodeError(f"the index {self.digest} is not what it should be: {error}") from error
        pairs = zip(self.manifests, entries, strict=True)
        rest = msgspec.json.encode([entry for descriptor, entry in pairs if descriptor.digest in kept])
        data = msgspec.json.encode(document | {"manifests": msgspec.Raw(rest)})
        return type(self).parse(data, self.media_type)

    def _images(self) -> Iterator[Descriptor]:
        # One manifest may be listed for two platforms, so these are not the distinct ones.
        return (each for each in self.manifests if not (_BLOB_TYPE.match(each.media_type) or is_attestation(each)))


def is_manifest_type(media_type: str, kind: Kind | None = None) -> bool:
    """Whether `media_type` is that of a manifest or an index of a known kind, or of the one that is given."""
    return media_type in _KINDS and kind in {None, _KINDS[media_type]}


def is_media_type(text: str) -> bool:
    """Whether `text` is a media type without parameters (RFC 6838), and so is safe in a header."""
    return _MEDIA_TYPE.fullmatch(text) is not None


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether an entry of an index is an attestation of BuildKit's: about another entry, and not a platform."""
    platform = descriptor.platform
    return _REFERENCE_TYPE in descriptor.annotations or (
        platform is not None and (platform.os, platform.architecture) == (_UNKNOWN, _UNKNOWN)
    )


def is_foreign(descriptor: Descriptor) -> bool:
    """Whether a layer is to be had from its `urls`, so that a registry need not have it."""
    return bool(descriptor.urls)


def platform_matches(wanted: Platform, platform: Platform) -> bool:
    """Whether `platform` is the one that is `wanted`."""
    return wanted.matches(platform)


def make_index(
    descriptors: Iterable[Descriptor],
    *,
    media_type: str = OCI_INDEX,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return a new index of `descriptors`, in their order. The same descriptors give the same digest."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [descriptor_document(each) for each in descriptors],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return Manifest.parse(msgspec.json.encode(document), media_type)


def descriptor_document(descriptor: Descriptor) -> dict[str, Any]:
    """Return a descriptor as it is written into an index: without the fields that say nothing."""
    built: dict[str, Any] = msgspec.to_builtins(descriptor)
    return {name: value for name, value in built.items() if value not in (None, "", {}, [], ())}


def _identify(document: _Document, said: str) -> tuple[Kind, str]:
    """Return the kind and the media type of a document; raise `UnsupportedManifestError` where they are not certain.

    One document that is an index to some and an image to others shows them different contents under one digest
    (CVE-2021-41190), so the media types and the shape all have to agree.
    """
    own, said = document.media_type, said.partition(";")[0].strip()
    if own and not is_media_type(own):
        raise FrameDecodeError(f"its mediaType {shown(own)} is not a media type")
    if said.lower() in _SAYS_NOTHING or not said.startswith("application/") or not is_media_type(said):
        said = ""
    kinds: set[Kind] = {_KINDS[name] for name in (own, said) if name in _KINDS}
    if document.manifests:
        kinds.add("index")
    if document.config or document.layers or document.blobs:
        kinds.add("image")
    if document.fs_layers:
        kinds.add("schema1")
    if len(kinds) > 1:
        both = " and ".join(_KIND_NAMES[kind] for kind in sorted(kinds))
        raise UnsupportedManifestError(f"it could be {both}, and nobody can tell which is meant")
    if not kinds:
        if document.manifests is not None:
            kinds = {"index"}
        elif document.layers is not None or document.blobs is not None:
            kinds = {"image"}
        else:
            what = f"a document of type {shown(own or said)}" if own or said else "a document without a type"
            raise UnsupportedManifestError(f"{what} that is neither a manifest nor an index")
    kind = kinds.pop()
    return kind, own or said or _usual_type(kind, document)


def _usual_type(kind: Kind, document: _Document) -> str:
    """Return the media type of a document that does not name its own."""
    if kind == "schema1":
        return _SCHEMA_1_SIGNED if document.signatures is not None else _SCHEMA_1
    if kind == "index":
        return OCI_INDEX
    return DOCKER_MANIFEST if document.config and document.config.media_type == _DOCKER_CONFIG else OCI_MANIFEST


def _check(descriptor: Descriptor, name: str, *, sized: bool) -> None:
    check_digest(descriptor.digest, name)
    size = descriptor.size
    if sized and (size is None or not 0 <= size < 1 << 63):
        raise FrameDecodeError(f"{name}, {descriptor.digest}, has no valid size: {size}")
    if descriptor.media_type and not is_media_type(descriptor.media_type):
        raise FrameDecodeError(f"{name}, {descriptor.digest}, has no valid mediaType: {shown(descriptor.media_type)}")


def _distinct(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    first: dict[str, Descriptor] = {}
    for each in descriptors:
        first.setdefault(each.digest, each)
    return tuple(first.values())

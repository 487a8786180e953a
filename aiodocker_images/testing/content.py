"""Images, indexes and artifacts made from nothing: the same arguments give the same bytes, and so the same digests.

app = image(layers=[{"etc/motd": "hello"}], platform="linux/arm64")
both = index(image(platform="linux/amd64"), app, attestations=True)
signature = artifact("application/vnd.example.signature", {"sig": b"..."}, subject=both)
registry.put("app:1.0", both, signature)
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from aiodocker_images.models import Platform

Format = Literal["oci", "docker"]
"""Whose media types a manifest has: OCI's, or Docker's schema 2."""

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
IN_TOTO: Final = "application/vnd.in-toto+json"

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})

CREATED: Final = "2024-05-01T10:11:12Z"
"""When everything here was created, so that the bytes are the same each time."""


def digest_of(data: bytes) -> str:
    """Return the SHA-256 digest in the form that registries name content by."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Bytes with a media type, which descriptors refer to by `digest` and `size`.

    `diff_id` is the digest of a layer before it was compressed. `annotations` are for the descriptor.
    """

    data: bytes = field(repr=False)
    media_type: str = "application/octet-stream"
    diff_id: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.data))

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self.data)

    def descriptor(self, **more: object) -> dict[str, object]:
        """Return the descriptor of this blob; `more` adds fields, and those that are empty are left out."""
        fields: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return fields | {
            name: value for name, value in {"annotations": dict(self.annotations), **more}.items() if value
        }


@dataclass(frozen=True, kw_only=True)
class Manifest(Blob):
    """A manifest or an index, with all that it refers to.

    `blobs` are its config and layers, in this order; `manifests` are those of an index. `subject` is the digest of
    what it refers to as a referrer; `platform` is "os/architecture[/variant]", or empty.
    """

    blobs: tuple[Blob, ...] = field(default=(), repr=False)
    manifests: tuple[Manifest, ...] = ()
    platform: str = ""
    subject: str = ""
    artifact_type: str = ""

    @property
    def config(self) -> Blob:
        """The config: the first of `blobs`."""
        return self.blobs[0]

    @property
    def layers(self) -> tuple[Blob, ...]:
        """The layers: `blobs` after the config."""
        return self.blobs[1:]

    @property
    def document(self) -> dict[str, object]:
        """The manifest as parsed JSON."""
        parsed: dict[str, object] = json.loads(self.data)
        return parsed

    def walk(self) -> Iterator[Manifest]:
        """Yield every manifest below this one and then this one: the order in which a registry accepts them."""
        for child in self.manifests:
            yield from child.walk()
        yield self

    def all_blobs(self) -> dict[str, Blob]:
        """Return every config and layer below this one, by digest."""
        return {blob.digest: blob for manifest in self.walk() for blob in manifest.blobs}


def random_bytes(size: int, seed: int = 0) -> bytes:
    """Return bytes that do not compress, and are the same for the same size and seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - not a secret


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """Return a tar of regular files; a name that ends in "/" is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name.rstrip("/"))
            info.size = len(data)
            info.mode = 0o644
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def layer(
    files: Mapping[str, bytes | str] | None = None,
    *,
    size: int = 0,
    seed: int = 0,
    compress: bool = True,
    format: Format = "oci",  # noqa: A002 - the word that the docker and podman command lines have for it
) -> Blob:
    """Return a layer with these files, and with `size` bytes that do not compress in the file "data"."""
    content = dict(files or {})
    if size or not content:
        content["data"] = random_bytes(size or 64, seed)
    data = tar(content)
    media_type = OCI_LAYER if format == "oci" else DOCKER_LAYER
    suffix = {"oci": "+gzip", "docker": ".gzip"}[format]
    if not compress:
        return Blob(data=data, media_type=media_type, diff_id=digest_of(data))
    return Blob(data=gzip.compress(data, 1, mtime=0), media_type=media_type + suffix, diff_id=digest_of(data))


def image(
    layers: int | Sequence[Mapping[str, bytes | str] | Blob] = 1,
    *,
    platform: str = "linux/amd64",
    config: Mapping[str, object] | None = None,
    format: Format = "oci",  # noqa: A002 - as above
    annotations: Mapping[str, str] | None = None,
    subject: Manifest | None = None,
    indent: int | None = None,
) -> Manifest:
    """Return an image of one platform.

    `layers` is how many, or what is in them: files, or a `layer()`. `config` adds to the config's "config" (Cmd,
    Labels, ...). `indent` writes the JSON in another form: the same image with another digest.
    """
    whose = Platform.parse(platform)
    if isinstance(layers, int):
        layers = [layer({"layer": f"{number} for {platform}"}, format=format) for number in range(layers)]
    made = [each if isinstance(each, Blob) else layer(each, format=format) for each in layers]
    document: dict[str, object] = {
        "created": CREATED,
        **_platform(whose),
        "config": {"Cmd": ["/bin/sh"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [each.diff_id or each.digest for each in made]},
        "history": [{"created": CREATED, "created_by": f"ADD {number} for {platform}"} for number in range(len(made))],
    }
    oci = format == "oci"
    config_blob = Blob(data=json.dumps(document).encode(), media_type=OCI_CONFIG if oci else DOCKER_CONFIG)
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST if oci else DOCKER_MANIFEST,
        "config": config_blob.descriptor(),
        "layers": [each.descriptor() for each in made],
    }
    return _manifest(
        fields, indent=indent, annotations=annotations, subject=subject, platform=platform, blobs=(config_blob, *made)
    )


def index(
    *manifests: Manifest,
    attestations: bool = False,
    format: Format = "oci",  # noqa: A002 - as above
    annotations: Mapping[str, str] | None = None,
    subject: Manifest | None = None,
    indent: int | None = None,
) -> Manifest:
    """Return an index of images, of artifacts or of other indexes; without any, of linux/amd64 and linux/arm64.

    With `attestations`, each image gets one beside it, as BuildKit writes them.
    """
    if not manifests:
        manifests = (image(format=format), image(platform="linux/arm64", format=format))
    if attestations:
        manifests += tuple(attestation(each) for each in manifests if each.platform)
    entries = [each.descriptor(**_entry(each)) for each in manifests]
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX if format == "oci" else DOCKER_INDEX,
        "manifests": entries,
    }
    return _manifest(fields, indent=indent, annotations=annotations, subject=subject, manifests=manifests)


def attestation(of: Manifest, statement: Mapping[str, object] | None = None) -> Manifest:
    """Return the attestation manifest of an image, as BuildKit puts it into an index beside the image."""
    document = statement or {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "image", "digest": {"sha256": of.digest.removeprefix("sha256:")}}],
        "predicate": {},
    }
    made = Blob(
        data=json.dumps(document).encode(),
        media_type=IN_TOTO,
        annotations={"in-toto.io/predicate-type": str(document.get("predicateType", ""))},
    )
    config = Blob(
        data=json.dumps(
            {
                "architecture": "unknown",
                "os": "unknown",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [made.digest]},
            }
        ).encode(),
        media_type=OCI_CONFIG,
    )
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [made.descriptor()],
    }
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of.digest}
    found = _manifest(fields, blobs=(config, made))
    return Manifest(data=found.data, media_type=found.media_type, blobs=found.blobs, annotations=about)


def artifact(
    artifact_type: str,
    files: Mapping[str, bytes | str] | None = None,
    *,
    subject: Manifest | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Return an artifact: a manifest with an empty config and a layer for each file.

    With a `subject`, it is a referrer: a signature or an SBOM of that manifest.
    """
    config = Blob(data=b"{}", media_type=OCI_EMPTY)
    made = [
        Blob(
            data=content.encode() if isinstance(content, str) else content,
            annotations={"org.opencontainers.image.title": name},
        )
        for name, content in (files or {}).items()
    ]
    layers = made or [config]  # the image specification asks for one layer at least, and for this one if there is none
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config.descriptor(),
        "layers": [each.descriptor() for each in layers],
    }
    return _manifest(
        fields, annotations=annotations, subject=subject, blobs=(config, *made), artifact_type=artifact_type
    )


def oci_archive(content: Manifest, name: str = "") -> bytes:
    """Return the tar of an OCI image layout with this manifest or index, as `docker save` writes it since 25.0."""
    blobs = {each.digest: each.data for each in content.all_blobs().values()}
    blobs |= {each.digest: each.data for each in content.walk()}
    about = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    entry = content.descriptor(annotations=about if name else {})
    layout = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    return tar(
        {
            "oci-layout": '{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps(layout),
            **{f"blobs/{digest.replace(':', '/')}": data for digest, data in blobs.items()},
        }
    )


def docker_archive(content: Manifest, *names: str) -> bytes:
    """Return an image of one platform as `docker save` wrote it before 25.0: manifest.json, config, layers."""
    if content.manifests or not content.layers:
        raise ValueError("a docker-archive holds images of one platform: give one of the index's images")
    files: dict[str, bytes | str] = {}
    paths = list[str]()
    for each in content.layers:
        path = f"{each.diff_id.removeprefix('sha256:')}/layer.tar"
        files[path] = gzip.decompress(each.data) if each.media_type.endswith("gzip") else each.data
        paths.append(path)
    config = f"{content.config.digest.removeprefix('sha256:')}.json"
    entry = {"Config": config, "RepoTags": list(names) or None, "Layers": paths}
    return tar({**files, config: content.config.data, "manifest.json": json.dumps([entry])})


def _platform(platform: Platform) -> dict[str, object]:
    fields = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {name: value for name, value in fields.items() if value}


def _entry(manifest: Manifest) -> dict[str, object]:
    if manifest.platform:
        return {"platform": _platform(Platform.parse(manifest.platform))}
    if "vnd.docker.reference.type" in manifest.annotations:
        return {"platform": {"architecture": "unknown", "os": "unknown"}}
    return {"artifactType": manifest.artifact_type}


def _manifest(
    fields: dict[str, object],
    *,
    indent: int | None = None,
    annotations: Mapping[str, str] | None = None,
    subject: Manifest | None = None,
    platform: str = "",
    blobs: tuple[Blob, ...] = (),
    manifests: tuple[Manifest, ...] = (),
    artifact_type: str = "",
) -> Manifest:
    if subject is not None:
        fields["subject"] = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
    if annotations:
        fields["annotations"] = dict(annotations)
    return Manifest(
        data=json.dumps(fields, indent=indent).encode(),
        media_type=str(fields["mediaType"]),
        platform=platform,
        blobs=blobs,
        manifests=manifests,
        subject=subject.digest if subject is not None else "",
        artifact_type=artifact_type,
    )

"""Images with all their blobs, in memory: what registries, layouts and archives are given, and must give back."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from aiodocker_images import Descriptor
from aiodocker_images._distribution.digests import compute_digest
from aiodocker_images._distribution.manifests import OCI_INDEX, OCI_MANIFEST, Manifest
from aiodocker_images._distribution.stores import ImageSource, ImageTarget

from .tars import tar_of

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class ImageGraph:
    """An image that is made from its leaves to its root; each `blob()` and `manifest()` returns what points to it."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self.algorithm = algorithm
        self.content: dict[str, bytes] = {}
        self.types: dict[str, str] = {}

    def blob(self, data: bytes, media_type: str, **more: object) -> dict[str, Any]:
        digest = compute_digest(data, self.algorithm)
        self.content[digest] = data
        self.types[digest] = media_type
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def document(self, document: Mapping[str, Any], **more: object) -> dict[str, Any]:
        # Oddly indented: whoever writes it again changes its digest.
        data = json.dumps(document, indent=3).encode() + b"\n"
        return self.blob(data, str(document["mediaType"]), **more)

    def image(self, *layers: bytes, platform: str = "linux/amd64", **more: object) -> dict[str, Any]:
        """An image that an Engine can run nothing of, but can load: `layers` are files in it."""
        tars = [tar_of({f"file{at}": data}) for at, data in enumerate(layers)]
        os_name, architecture = platform.split("/")[:2]
        config = {
            "os": os_name,
            "architecture": architecture,
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [compute_digest(tar) for tar in tars]},
            "history": [{"created": "2024-05-01T10:11:12Z", "created_by": "ADD"} for _ in tars],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(json.dumps(config).encode(), CONFIG),
            "layers": [self.blob(gzip.compress(tar, mtime=0), LAYER) for tar in tars],
            **more,
        }
        names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        return self.document(manifest, platform=names)

    def index(self, *entries: dict[str, Any], **more: object) -> dict[str, Any]:
        return self.document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more})

    def manifest(self, entry: Mapping[str, Any]) -> Manifest:
        return Manifest.parse(self.content[entry["digest"]], digest=entry["digest"])

    def source(self, root: Mapping[str, Any]) -> GraphSource:
        return GraphSource(self, root)


class GraphSource:
    """An `ImageSource` in memory."""

    def __init__(self, graph: ImageGraph, root: Mapping[str, Any]) -> None:
        self.who = "memory"
        self.reads: list[str] = []
        self._graph = graph
        self._root = root

    async def resolve(self) -> Descriptor:
        return self._graph.manifest(self._root).descriptor

    async def manifest(self, descriptor: Descriptor) -> Manifest:
        return Manifest.parse(self._graph.content[descriptor.digest], descriptor.media_type, digest=descriptor.digest)

    async def blob(self, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        self.reads.append(descriptor.digest)
        data = self._graph.content[descriptor.digest][start:]
        for at in range(0, len(data), 1000):
            yield data[at : at + 1000]

    async def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        return ()


async def copy_image(source: ImageSource, target: ImageTarget) -> Manifest:
    """Copy in the order that every target may rely on: blobs, manifests, parents, the name."""

    async def descend(descriptor: Descriptor) -> Manifest:
        manifest = await source.manifest(descriptor)
        for child in manifest.children:
            await target.write_manifest(await descend(child))
        for blob in manifest.blobs:
            await target.write_blob(blob, partial(source.blob, blob))
        return manifest

    root = await descend(await source.resolve())
    await target.write_name(root)
    return root


async def read_image(source: ImageSource) -> dict[str, bytes]:
    """Read all of an image: content by digest."""
    found: dict[str, bytes] = {}

    async def descend(descriptor: Descriptor) -> None:
        manifest = await source.manifest(descriptor)
        found[manifest.digest] = manifest.data
        for child in manifest.children:
            await descend(child)
        for blob in manifest.blobs:
            found[blob.digest] = b"".join([piece async for piece in source.blob(blob)])

    await descend(await source.resolve())
    return found


def two_platforms(graph: ImageGraph, shared: bytes | None = None) -> dict[str, Any]:
    """An index of two platforms that share a layer, with an attestation of one of them."""
    shared = os.urandom(5000) if shared is None else shared
    amd64 = graph.image(shared, b"amd64")
    arm64 = graph.image(shared, b"arm64", platform="linux/arm64/v8")
    statement = graph.document(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": graph.blob(b"{}", CONFIG),
            "layers": [graph.blob(b'{"predicate": 1}', "application/vnd.in-toto+json")],
        },
        platform={"os": "unknown", "architecture": "unknown"},
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": amd64["digest"],
        },
    )
    return graph.index(amd64, arm64, statement, annotations={"odd": "yes"})

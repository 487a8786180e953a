"""Puts images into a registry, by hand, as another client would have made them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import aiohttp
from yarl import URL

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Layer(NamedTuple):
    """A layer as a registry has it, and the digest of the archive in it."""

    packed: bytes
    diff_id: str


class Blob(NamedTuple):
    """A blob that was put somewhere."""

    repository: str
    digest: str
    size: int


def digest_of(data: bytes) -> str:
    """Return the digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def publish(registry: str, tag: str, images: Iterable[tuple[str, Sequence[Layer]]]) -> list[Blob]:
    """Put an image of these layers into each repository, and return their blobs, those of each image in order."""
    blobs: list[Blob] = []
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(raise_for_status=True, timeout=timeout) as session:

        async def put(repository: str, data: bytes, kind: str) -> dict[str, object]:
            blob = Blob(repository, digest_of(data), len(data))
            async with session.post(f"http://{registry}/v2/{repository}/blobs/uploads/") as response:
                location = URL(response.headers["Location"])
            headers = {"Content-Type": "application/octet-stream"}
            url = location.update_query(digest=blob.digest)
            async with session.put(url, data=io.BytesIO(data), headers=headers):
                blobs.append(blob)
                return {"mediaType": kind, "digest": blob.digest, "size": blob.size}

        for repository, layers in images:
            config: dict[str, object] = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Labels": {"of": repository}},
            }
            config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": await put(repository, json.dumps(config).encode(), CONFIG_TYPE),
                "layers": [await put(repository, layer.packed, LAYER_TYPE) for layer in layers],
            }
            url = f"http://{registry}/v2/{repository}/manifests/{tag}"
            async with session.put(url, json=manifest, headers={"Content-Type": MANIFEST_TYPE}):
                pass
    return blobs

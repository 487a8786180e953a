"""Archives of multi-platform images, made from nothing: an OCI layout with one manifest for each platform."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Sequence

import aiohttp
from yarl import URL

from .tars import tar_of

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
STATEMENT_TYPE = "application/vnd.in-toto+json"


class MultiPlatformImage:
    """An image of several platforms named `name`; `archive` is what `load` takes, `digest` that of its index.

    With `attested` its index has an attestation for each platform, as buildx writes them.
    """

    def __init__(
        self, name: str, platforms: Sequence[str] = ("linux/amd64", "linux/arm64"), *, attested: bool = False
    ) -> None:
        self.name = name
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, str] = {}  # platform: digest
        self.attestations: list[str] = []
        entries: list[object] = []
        for platform in platforms:
            os_name, architecture = platform.split("/")
            layer = tar_of({"etc/platform": platform.encode(), "data": os.urandom(4096)})
            config = {
                "os": os_name,
                "architecture": architecture,
                "config": {"Cmd": ["/bin/sh"], "Labels": {"platform": platform}},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
                "history": [{"created": "2024-05-01T10:11:12Z", "created_by": f"ADD {platform}"}],
            }
            manifest = self._blob(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST_TYPE,
                    "config": self._blob(config, CONFIG_TYPE),
                    "layers": [self._blob(gzip.compress(layer, mtime=0), LAYER_TYPE)],
                },
                MANIFEST_TYPE,
            )
            self.manifests[platform] = str(manifest["digest"])
            entries.append({**manifest, "platform": {"os": os_name, "architecture": architecture}})
        entries += [self._attestation(digest) for digest in self.manifests.values() if attested]
        index = self._blob({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}, INDEX_TYPE)
        self.digest = str(index["digest"])
        annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        layout = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [{**index, "annotations": annotations}]}
        self.archive = tar_of(
            {
                "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
                "index.json": json.dumps(layout).encode(),
                **{f"blobs/sha256/{digest}": data for digest, data in self.blobs.items()},
            }
        )

    def _attestation(self, subject: str) -> dict[str, object]:
        statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"name": subject}]}).encode()
        config = {
            "os": "unknown",
            "architecture": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(statement).hexdigest()}"]},
        }
        layer = self._blob(statement, STATEMENT_TYPE)
        layer["annotations"] = {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
        manifest = self._blob(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": self._blob(config, CONFIG_TYPE),
                "layers": [layer],
            },
            MANIFEST_TYPE,
        )
        self.attestations.append(str(manifest["digest"]))
        annotations = {"vnd.docker.reference.digest": subject, "vnd.docker.reference.type": "attestation-manifest"}
        return {**manifest, "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": annotations}

    def _blob(self, content: object, media_type: str) -> dict[str, object]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    async def upload(self, registry: str) -> None:
        """Put the image into a registry by hand, for Engines whose store cannot hold several platforms."""
        repository, _, tag = self.name.removeprefix(f"{registry}/").rpartition(":")
        base = f"http://{registry}/v2/{repository}"
        media_types = {self.digest: INDEX_TYPE} | dict.fromkeys(
            [*self.manifests.values(), *self.attestations], MANIFEST_TYPE
        )
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            for digest, data in self.blobs.items():
                if f"sha256:{digest}" in media_types:
                    continue
                async with session.post(f"{base}/blobs/uploads/") as response:
                    location = URL(response.headers["Location"])
                url = location.update_query(digest=f"sha256:{digest}")
                await session.put(url, data=data, headers={"Content-Type": "application/octet-stream"})
            for digest, media_type in reversed(media_types.items()):  # the index last: it names the others
                reference = tag if digest == self.digest else digest
                body = self.blobs[digest.removeprefix("sha256:")]
                await session.put(f"{base}/manifests/{reference}", data=body, headers={"Content-Type": media_type})

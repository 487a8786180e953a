"""Images of several platforms that no Engine and no registry has yet."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from aiodocker_images.testing import image, index, layer, oci_archive

from .registry_client import RegistryClient


class MultiPlatformImage:
    """An image of several platforms named `name`; `archive` is what `load` accepts, `digest` that of its index.

    `manifests` are the digests of its platforms. The label "platform" of each says which it is. With `attested` its
    index has an attestation for each platform, as buildx writes them; `attestations` are their digests.
    """

    def __init__(
        self, name: str, platforms: Sequence[str] = ("linux/amd64", "linux/arm64"), *, attested: bool = False
    ) -> None:
        self.name = name
        made = {
            platform: image(
                [layer({"etc/platform": platform}, size=4096, seed=secrets.randbits(64))],
                platform=platform,
                config={"Labels": {"platform": platform}},
            )
            for platform in platforms
        }
        self.manifests = {platform: each.digest for platform, each in made.items()}
        self._index = index(*made.values(), attestations=attested)
        self.attestations = [each.digest for each in self._index.manifests if not each.platform]
        self.digest = self._index.digest
        self.archive = oci_archive(self._index, name)

    async def upload(self, registry: str) -> None:
        """Put the image into a registry by hand, for Engines whose store cannot hold several platforms."""
        repository, _, tag = self.name.removeprefix(f"{registry}/").rpartition(":")
        async with RegistryClient(f"http://{registry}") as client:
            await client.push(repository, self._index, tag)

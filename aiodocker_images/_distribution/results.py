"""What registries say of images, and what operations on them come to: frozen structs. Pure."""

from __future__ import annotations

from aiodocker_images._struct import WireTime
from aiodocker_images.models import Descriptor, DistributionInspect, HistoryItem, ImageConfig, RootFS
from aiodocker_images.results import Result

__all__ = ["RateLimit", "RegistryImage", "RegistryPing"]


class RateLimit(Result, frozen=True, kw_only=True):
    """How many pulls a registry still allows, as Docker Hub tells it with each answer.

    `limit` pulls in `window` seconds, of which `remaining` are left. None for what the registry does not say.
    """

    limit: int | None = None
    remaining: int | None = None
    window: int | None = None


class RegistryPing(Result, frozen=True, kw_only=True):
    """A registry that speaks the distribution API: at which URL, and in which version it says it does ("registry/2.0").

    `version` is "" for one that does not say.
    """

    registry: str
    url: str
    version: str = ""


class RegistryImage(DistributionInspect, frozen=True, kw_only=True):
    """An image in a registry: its manifest or index, the platforms in it, and the configuration of one of them.

    `id` is the digest of that configuration, and `manifest` points to the manifest that it belongs to. They, and what
    follows them, are None or empty for an index of which no platform was chosen, and for what is not an image.
    `history` is oldest first.
    """

    manifest: Descriptor | None = None
    id: str = ""
    os: str = ""
    architecture: str = ""
    variant: str = ""
    created: WireTime = None
    author: str = ""
    config: ImageConfig | None = None
    root_fs: RootFS | None = None
    history: tuple[HistoryItem, ...] = ()

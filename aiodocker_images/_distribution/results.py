"""What registries say of images, and what operations on them come to: frozen structs. Pure."""

from __future__ import annotations

from typing import Literal

from aiodocker_images._struct import WireTime
from aiodocker_images.models import Descriptor, DistributionInspect, HistoryItem, ImageConfig, RootFS
from aiodocker_images.results import Result

__all__ = ["CopyResult", "CopyStatus", "CopyStep", "RateLimit", "RegistryImage", "RegistryPing"]

CopyStatus = Literal["moving", "moved", "mounted", "there", "left"]
"""A blob is on its way, or came by being moved or mounted, or was there, or was left where its URLs say."""


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


class CopyResult(Result, frozen=True, kw_only=True):
    """What a copy came to.

    `digest` is what the target has now, `source_digest` what the source had: they differ only if platforms were chosen.
    `skipped` says that the target had it before, and `because` why nothing was to be done. Bytes are of blobs: `moved`
    through this process, `mounted` from another repository of the target, `there` already. `manifests` and `blobs` are
    those that the copy was about, `requests` all that were sent, and `retries` those of them that were new attempts.
    `left_foreign` are layers that were left where their URLs say, `referrers` the manifests that refer to the image and
    were copied with it; `left_tags` are tags of signatures that the target keeps, because they have what the source's
    lack.
    """

    source: str
    target: str
    digest: str
    source_digest: str
    skipped: bool = False
    because: str = ""
    manifests: int = 0
    blobs: int = 0
    bytes_moved: int = 0
    bytes_mounted: int = 0
    bytes_there: int = 0
    left_foreign: tuple[str, ...] = ()
    referrers: tuple[str, ...] = ()
    left_tags: tuple[str, ...] = ()
    requests: int = 0
    retries: int = 0


class CopyStep(Result, frozen=True, kw_only=True):
    """How far a copy is: what has just happened to a blob or a manifest, and the sums of all blobs.

    `digest` is that of the blob or the manifest; `current` of its `total` bytes are done, and `total` is None where its
    size is not known. `done_bytes` of `all_bytes` are done of all blobs that are known so far: more may turn up as
    manifests are read. The last step of a stream is of the kind "result" and has the `result`.
    """

    kind: Literal["blob", "manifest", "result"]
    status: CopyStatus
    digest: str
    current: int = 0
    total: int | None = None
    done_bytes: int = 0
    all_bytes: int = 0
    result: CopyResult | None = None

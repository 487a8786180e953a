"""What the Engine answers about images: frozen structs. Pure.

Field names are the API's in snake_case. Unknown fields are ignored. Every field tolerates being absent or
null, whatever the API promises: daemons of different ages and Podman differ in what they leave out. Tuples,
mappings, texts and flags are then empty or false; numbers, times and nested structs are None, unless their
documentation says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

import msgspec
from msgspec import field

from ._platform import Platform
from ._struct import Model, Nullable, UnixTime, WireTime, in_utc

__all__ = [
    "Attestation",
    "AttestationData",
    "BuildCachePruneReport",
    "BuildIdentity",
    "Descriptor",
    "DistributionInspect",
    "EngineComponent",
    "EnginePlatform",
    "EngineVersion",
    "Event",
    "EventActor",
    "GraphDriver",
    "HealthConfig",
    "HistoryItem",
    "Identity",
    "ImageConfig",
    "ImageDiskUsage",
    "ImageInspect",
    "ImageManifest",
    "ImageManifestData",
    "ImageMetadata",
    "ImageSummary",
    "LoginResult",
    "ManifestSize",
    "Ping",
    "Platform",
    "PruneReport",
    "PullIdentity",
    "RemovedImage",
    "RootFS",
    "SearchResult",
    "SignatureIdentity",
    "SignatureTimestamp",
    "SignerIdentity",
    "UnpackedSize",
]


class Descriptor(Model, frozen=True, kw_only=True, rename="camel"):
    """Points to a piece of content in a registry or a content store (OCI descriptor). `size` in bytes."""

    media_type: Nullable[str] = ""
    digest: Nullable[str] = ""
    size: int | None = None
    urls: Nullable[tuple[str, ...]] = ()
    annotations: Nullable[Mapping[str, str]] = field(default_factory=dict[str, str])
    data: str | None = None
    platform: Platform | None = None
    artifact_type: Nullable[str] = ""


class ManifestSize(Model, frozen=True, kw_only=True):
    """Bytes of a manifest: `content` compressed in the content store, `total` with what is unpacked."""

    total: int | None = None
    content: int | None = None


class UnpackedSize(Model, frozen=True, kw_only=True):
    """Bytes of the unpacked image on disk."""

    unpacked: int | None = None


class BuildIdentity(Model, frozen=True, kw_only=True):
    """The build that made an image: its reference in BuildKit's history, and when."""

    ref: Nullable[str] = ""
    created_at: WireTime = None


class PullIdentity(Model, frozen=True, kw_only=True):
    """The repository that an image was pulled from; the original one if it came through a mirror."""

    repository: Nullable[str] = ""


class SignatureTimestamp(Model, frozen=True, kw_only=True):
    """A verified time of a signature, and who vouches for it."""

    type: Nullable[str] = ""
    uri: Nullable[str] = field(default="", name="URI")
    timestamp: WireTime = None


class SignerIdentity(Model, frozen=True, kw_only=True):
    """What the certificate of a signature says of its signer, and of the build that signed."""

    certificate_issuer: Nullable[str] = ""
    subject_alternative_name: Nullable[str] = ""
    issuer: Nullable[str] = ""
    build_signer_uri: Nullable[str] = field(default="", name="BuildSignerURI")
    build_signer_digest: Nullable[str] = ""
    runner_environment: Nullable[str] = ""
    source_repository_uri: Nullable[str] = field(default="", name="SourceRepositoryURI")
    source_repository_digest: Nullable[str] = ""
    source_repository_ref: Nullable[str] = ""
    source_repository_identifier: Nullable[str] = ""
    source_repository_owner_uri: Nullable[str] = field(default="", name="SourceRepositoryOwnerURI")
    source_repository_owner_identifier: Nullable[str] = ""
    build_config_uri: Nullable[str] = field(default="", name="BuildConfigURI")
    build_config_digest: Nullable[str] = ""
    build_trigger: Nullable[str] = ""
    run_invocation_uri: Nullable[str] = field(default="", name="RunInvocationURI")
    source_repository_visibility_at_signing: Nullable[str] = ""


class SignatureIdentity(Model, frozen=True, kw_only=True):
    """A signature of an image, and what its verification found."""

    name: Nullable[str] = ""
    timestamps: Nullable[tuple[SignatureTimestamp, ...]] = ()
    known_signer: Nullable[str] = ""
    docker_reference: Nullable[str] = ""
    signer: SignerIdentity | None = None
    signature_type: Nullable[str] = ""
    error: Nullable[str] = ""
    warnings: Nullable[tuple[str, ...]] = ()


class Identity(Model, frozen=True, kw_only=True):
    """What the daemon has verified of an image's origin (API 1.53)."""

    signature: Nullable[tuple[SignatureIdentity, ...]] = ()
    pull: Nullable[tuple[PullIdentity, ...]] = ()
    build: Nullable[tuple[BuildIdentity, ...]] = ()


class ImageManifestData(Model, frozen=True, kw_only=True):
    """What a manifest of the kind "image" says besides; `containers` holds ids of containers that use it."""

    platform: Platform | None = None
    identity: Identity | None = None
    containers: Nullable[tuple[str, ...]] = ()
    size: UnpackedSize | None = None


class AttestationData(Model, frozen=True, kw_only=True):
    """The manifest digest that an attestation is for."""

    for_: Nullable[str] = field(default="", name="For")


class ImageManifest(Model, frozen=True, kw_only=True):
    """One manifest of a (multi-platform) image: `kind` is "image", "attestation" or "unknown".

    `available` tells whether all of its content is there locally.
    """

    id: Nullable[str] = field(default="", name="ID")
    descriptor: Descriptor | None = None
    available: Nullable[bool] = False
    size: ManifestSize | None = None
    kind: Nullable[str] = ""
    image_data: ImageManifestData | None = None
    attestation_data: AttestationData | None = None


_NULL: Final[Any] = None  # what no field is, if one asks a type checker
_BARE_ID: Final = re.compile(r"[0-9a-f]{64}")
_BARE_ID_LENGTH: Final = 64

_NO_TAGS: Final = ("<none>:<none>",)
_NO_DIGESTS: Final = ("<none>@<none>",)


def _whole_id(image_id: str) -> str:
    # Podman 5.8 leaves out the algorithm in removals and in disk usage, and puts it before the same id elsewhere.
    return f"sha256:{image_id}" if _BARE_ID.fullmatch(image_id) else image_id


class ImageSummary(Model, frozen=True, kw_only=True):
    """One image of `list`.

    `size` in bytes of all layers; `shared_size` those shared with other images, `containers` the number that
    use it: each -1 where it was not computed. `virtual_size` is the older name of `size` (API below 1.44).
    `manifests` only if asked for, `descriptor` only from multi-platform stores.
    """

    id: Nullable[str] = ""
    parent_id: Nullable[str] = ""
    repo_tags: Nullable[tuple[str, ...]] = ()
    repo_digests: Nullable[tuple[str, ...]] = ()
    created: UnixTime = None
    size: Nullable[int] = 0
    shared_size: Nullable[int] = -1
    virtual_size: int | None = None
    labels: Nullable[Mapping[str, str]] = field(default_factory=dict[str, str])
    containers: Nullable[int] = -1
    manifests: Nullable[tuple[ImageManifest, ...]] = ()
    descriptor: Descriptor | None = None

    def __post_init__(self) -> None:
        # A list has thousands of these: what is usual takes here a third of the time that Model takes for any.
        texts = (self.id, self.parent_id, self.repo_tags, self.repo_digests, self.labels)
        rest = (self.size, self.shared_size, self.containers, self.manifests)
        if _NULL in texts or _NULL in rest:
            Model.__post_init__(self)
        if (created := self.created) is not None and (created.year == 1 or created.tzinfo is not UTC):
            msgspec.structs.force_setattr(self, "created", in_utc(created))
        if len(self.id) == _BARE_ID_LENGTH:
            msgspec.structs.force_setattr(self, "id", _whole_id(self.id))
        # Below API 1.43, "<none>:<none>" and "<none>@<none>" stand for no name and no digest.
        if self.repo_tags == _NO_TAGS:
            msgspec.structs.force_setattr(self, "repo_tags", ())
        if self.repo_digests == _NO_DIGESTS:
            msgspec.structs.force_setattr(self, "repo_digests", ())


class HealthConfig(Model, frozen=True, kw_only=True):
    """How a container of the image is checked. Times in nanoseconds; 0 means inherited."""

    test: Nullable[tuple[str, ...]] = ()
    interval: int | None = None
    timeout: int | None = None
    retries: int | None = None
    start_period: int | None = None
    start_interval: int | None = None


class ImageConfig(Model, frozen=True, kw_only=True):
    """What containers of the image start with."""

    user: Nullable[str] = ""
    exposed_ports: Nullable[Mapping[str, Any]] = field(default_factory=dict[str, Any])
    env: Nullable[tuple[str, ...]] = ()
    cmd: Nullable[tuple[str, ...]] = ()
    healthcheck: HealthConfig | None = None
    args_escaped: Nullable[bool] = False
    volumes: Nullable[Mapping[str, Any]] = field(default_factory=dict[str, Any])
    working_dir: Nullable[str] = ""
    entrypoint: Nullable[tuple[str, ...]] = ()
    on_build: Nullable[tuple[str, ...]] = ()
    labels: Nullable[Mapping[str, str]] = field(default_factory=dict[str, str])
    stop_signal: Nullable[str] = ""
    shell: Nullable[tuple[str, ...]] = ()


class GraphDriver(Model, frozen=True, kw_only=True):
    """The storage driver that holds the layers, and what it says of them."""

    name: Nullable[str] = ""
    data: Nullable[Mapping[str, str]] = field(default_factory=dict[str, str])


class RootFS(Model, frozen=True, kw_only=True):
    """The digests of the uncompressed layers, the lowest first."""

    type: Nullable[str] = ""
    layers: Nullable[tuple[str, ...]] = ()


class ImageMetadata(Model, frozen=True, kw_only=True):
    """What only this daemon knows of the image."""

    last_tag_time: WireTime = None


class ImageInspect(Model, frozen=True, kw_only=True):
    """Everything about one image. `size` in bytes; `virtual_size` is its older name (API below 1.44)."""

    id: Nullable[str] = ""
    descriptor: Descriptor | None = None
    manifests: Nullable[tuple[ImageManifest, ...]] = ()
    identity: Identity | None = None
    repo_tags: Nullable[tuple[str, ...]] = ()
    repo_digests: Nullable[tuple[str, ...]] = ()
    parent: Nullable[str] = ""
    comment: Nullable[str] = ""
    created: WireTime = None
    docker_version: Nullable[str] = ""
    author: Nullable[str] = ""
    config: ImageConfig | None = None
    architecture: Nullable[str] = ""
    variant: Nullable[str] = ""
    os: Nullable[str] = ""
    os_version: Nullable[str] = ""
    size: Nullable[int] = 0
    virtual_size: int | None = None
    graph_driver: GraphDriver | None = None
    root_fs: RootFS | None = field(default=None, name="RootFS")
    metadata: ImageMetadata | None = None

    @property
    def platform(self) -> Platform:
        """What the image is for; without an architecture where the Engine does not tell it."""
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant, os_version=self.os_version)


class RemovedImage(Model, frozen=True, kw_only=True):
    """One step of a removal: a name taken from an image (`untagged`), or an image gone (`deleted`, its id)."""

    untagged: str | None = None
    deleted: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deleted is not None:
            msgspec.structs.force_setattr(self, "deleted", _whole_id(self.deleted))


class HistoryItem(Model, frozen=True, kw_only=True):
    """One step in the making of an image, the newest first.

    `id` is "<missing>" for layers made elsewhere. `size` in bytes, 0 for a step that only changed the
    configuration. `created_by` is the command.
    """

    id: Nullable[str] = ""
    created: WireTime = None
    created_by: Nullable[str] = ""
    tags: Nullable[tuple[str, ...]] = ()
    size: Nullable[int] = 0
    comment: Nullable[str] = ""


class PruneReport(Model, frozen=True, kw_only=True):
    """What a prune removed, and the bytes that it freed."""

    removed: Nullable[tuple[RemovedImage, ...]] = field(default=(), name="ImagesDeleted")
    space_reclaimed: Nullable[int] = 0


class BuildCachePruneReport(Model, frozen=True, kw_only=True):
    """The ids of the build cache records that a prune removed, and the bytes that it freed."""

    removed: Nullable[tuple[str, ...]] = field(default=(), name="CachesDeleted")
    space_reclaimed: Nullable[int] = 0


class SearchResult(Model, frozen=True, kw_only=True, rename=None):
    """A repository that a registry's search found. `is_automated` is always false since Docker 25."""

    name: Nullable[str] = ""
    description: Nullable[str] = ""
    star_count: Nullable[int] = 0
    is_official: Nullable[bool] = False
    is_automated: Nullable[bool] = False


class DistributionInspect(Model, frozen=True, kw_only=True):
    """What a registry says of an image without a pull: its manifest or index, and the platforms in it."""

    descriptor: Descriptor | None = None
    platforms: Nullable[tuple[Platform, ...]] = ()


class Attestation(Model, frozen=True, kw_only=True):
    """An in-toto statement attached to an image; `statement`, its JSON document, only if it was asked for."""

    descriptor: Descriptor | None = None
    predicate_type: Nullable[str] = ""
    statement: Any | None = None


class EventActor(Model, frozen=True, kw_only=True):
    """What an event is about: for an image, its id or name, and attributes such as `name`."""

    id: Nullable[str] = field(default="", name="ID")
    attributes: Nullable[Mapping[str, str]] = field(default_factory=dict[str, str])


class Event(Model, frozen=True, kw_only=True):
    """Something that happened to an image: `action` is pull, push, tag, untag, delete, load, save, import and so on.

    `time_nano` is when, in nanoseconds since the epoch; `time` the same as a datetime, to the second.
    """

    type: Nullable[str] = ""
    action: Nullable[str] = ""
    actor: EventActor | None = None
    scope: Nullable[str] = field(default="", name="scope")
    time: WireTime = field(default=None, name="time")
    time_nano: Nullable[int] = field(default=0, name="timeNano")


class ImageDiskUsage(Model, frozen=True, kw_only=True):
    """The disk that images take. Sizes in bytes.

    `active_count` of `total_count` images are used by containers; `reclaimable` is what removing the others
    would free, `total_size` what all layers take together. `items` are the images: since API 1.52 only if they
    are asked for.
    """

    active_count: int | None = None
    total_count: int | None = None
    reclaimable: int | None = None
    total_size: int | None = None
    items: Nullable[tuple[ImageSummary, ...]] = ()


class LoginResult(Model, frozen=True, kw_only=True):
    """How a registry took credentials; `identity_token` stands for the password from then on, if not empty."""

    status: Nullable[str] = ""
    identity_token: Nullable[str] = ""

    def __repr__(self) -> str:
        token = ", identity_token=***" if self.identity_token else ""
        return f"LoginResult(status={self.status!r}{token})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # msgspec's own would show the token
        return [("status", self.status)]


class Ping(Model, frozen=True, kw_only=True):
    """What the daemon says of itself before any version is agreed: the headers of its answer to a ping."""

    api_version: str
    os_type: str = ""
    experimental: bool = False
    builder_version: str = ""
    swarm: str = ""
    server: str = ""


class EngineComponent(Model, frozen=True, kw_only=True):
    """One part of the Engine (Engine, containerd, runc …) and its version."""

    name: Nullable[str] = ""
    version: Nullable[str] = ""
    details: Nullable[Mapping[str, Any]] = field(default_factory=dict[str, Any])


class EnginePlatform(Model, frozen=True, kw_only=True):
    """The product that the daemon belongs to."""

    name: Nullable[str] = ""


class EngineVersion(Model, frozen=True, kw_only=True):
    """The versions of the daemon, of its parts and of its API."""

    platform: EnginePlatform | None = None
    components: Nullable[tuple[EngineComponent, ...]] = ()
    version: Nullable[str] = ""
    api_version: Nullable[str] = ""
    min_api_version: Nullable[str] = field(default="", name="MinAPIVersion")
    git_commit: Nullable[str] = ""
    go_version: Nullable[str] = ""
    os: Nullable[str] = ""
    arch: Nullable[str] = ""
    kernel_version: Nullable[str] = ""
    experimental: Nullable[bool] = False
    build_time: Nullable[str] = ""

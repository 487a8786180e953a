"""An asyncio-native client for the image part of the Docker Engine API.

    async with ImageService() as images:
        result = await images.pull("alpine:3.20")
        async for frame in images.pull_stream("alpine:3.20"):
            ...

`ImageService` has a coroutine for every operation, and for the long ones a `*_stream` twin, an async generator of
progress frames or of bytes. Every failure is a `DockerError`; `aiodocker_images.errors` draws the family.
"""

from importlib import import_module

from ._version import __version__

# typing's, for checkers alone: the import of typing would be half of this package's.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._api.build_options import (
        Builder,
        BuildOptions,
        Ulimit,
    )
    from ._api.events import (
        Timestamp,
    )
    from ._archive.streams import (
        ArchiveSource,
        ArchiveTarget,
    )
    from ._distribution.config import (
        RegistryConfig,
    )
    from ._distribution.manifests import (
        Manifest,
    )
    from ._distribution.results import (
        RateLimit,
        RegistryImage,
        RegistryPing,
    )
    from ._distribution.service import (
        RegistryService,
    )
    from ._dockercli.keychain import (
        DockerKeychain,
    )
    from ._encoding import (
        Filters,
    )
    from ._mirror import (
        CredentialNames,
        MirrorFailure,
        MirrorJob,
        MirrorOutcome,
        MirrorPlan,
        MirrorProgress,
        MirrorStatus,
        MirrorSummary,
        TransferOutcome,
        TransferProgress,
        mirror,
        mirror_on_cluster,
        transfer,
    )
    from ._retry import (
        Retry,
    )
    from .api_version import (
        APIVersion,
    )
    from .buildkit import (
        BuildLog,
        BuildStatus,
        BuildStep,
        BuildTrace,
        BuildWarning,
        read_trace,
    )
    from .credentials import (
        Keychain,
        ListingKeychain,
        MultiKeychain,
        RegistryAuth,
        StaticKeychain,
    )
    from .endpoint import (
        Endpoint,
        SSHTarget,
        TLSConfig,
    )
    from .errors import (
        APIError,
        ArchiveError,
        ConfigError,
        ConflictError,
        ContextNotFoundError,
        CredentialHelperError,
        DaemonUnreachableError,
        DigestMismatchError,
        DockerError,
        ForbiddenError,
        FrameDecodeError,
        InvalidArgumentError,
        InvalidParameterError,
        InvalidPlatformError,
        InvalidReferenceError,
        LocalFileError,
        NoSpaceError,
        NotFoundError,
        RateLimitedError,
        RegistryUnreachableError,
        ServerError,
        ServiceClosedError,
        StreamInterruptedError,
        StreamStalledError,
        TagImmutableError,
        UnauthorizedError,
        UnsupportedAPIVersionError,
        UnsupportedManifestError,
    )
    from .models import (
        Attestation,
        AttestationData,
        BuildCachePruneReport,
        BuildIdentity,
        Descriptor,
        DistributionInspect,
        EngineComponent,
        EnginePlatform,
        EngineVersion,
        Event,
        EventActor,
        GraphDriver,
        HealthConfig,
        HistoryItem,
        Identity,
        ImageConfig,
        ImageDiskUsage,
        ImageInspect,
        ImageManifest,
        ImageManifestData,
        ImageMetadata,
        ImageSummary,
        LoginResult,
        ManifestSize,
        Ping,
        Platform,
        PruneReport,
        PullIdentity,
        RemovedImage,
        RootFS,
        SearchResult,
        SignatureIdentity,
        SignatureTimestamp,
        SignerIdentity,
        UnpackedSize,
    )
    from .progress import (
        ErrorDetail,
        LayerProgress,
        OnProgress,
        ProgressDetail,
        ProgressFrame,
        ProgressTracker,
        SaveProgress,
    )
    from .reference import (
        Reference,
    )
    from .results import (
        BuildResult,
        ImportResult,
        LoadResult,
        PullResult,
        PushResult,
        SaveResult,
    )
    from .service import (
        ImageService,
    )

__all__ = [
    "APIError",
    "APIVersion",
    "ArchiveError",
    "ArchiveSource",
    "ArchiveTarget",
    "Attestation",
    "AttestationData",
    "BuildCachePruneReport",
    "BuildIdentity",
    "BuildLog",
    "BuildOptions",
    "BuildResult",
    "BuildStatus",
    "BuildStep",
    "BuildTrace",
    "BuildWarning",
    "Builder",
    "ConfigError",
    "ConflictError",
    "ContextNotFoundError",
    "CredentialHelperError",
    "CredentialNames",
    "DaemonUnreachableError",
    "Descriptor",
    "DigestMismatchError",
    "DistributionInspect",
    "DockerError",
    "DockerKeychain",
    "Endpoint",
    "EngineComponent",
    "EnginePlatform",
    "EngineVersion",
    "ErrorDetail",
    "Event",
    "EventActor",
    "Filters",
    "ForbiddenError",
    "FrameDecodeError",
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
    "ImageService",
    "ImageSummary",
    "ImportResult",
    "InvalidArgumentError",
    "InvalidParameterError",
    "InvalidPlatformError",
    "InvalidReferenceError",
    "Keychain",
    "LayerProgress",
    "ListingKeychain",
    "LoadResult",
    "LocalFileError",
    "LoginResult",
    "Manifest",
    "ManifestSize",
    "MirrorFailure",
    "MirrorJob",
    "MirrorOutcome",
    "MirrorPlan",
    "MirrorProgress",
    "MirrorStatus",
    "MirrorSummary",
    "MultiKeychain",
    "NoSpaceError",
    "NotFoundError",
    "OnProgress",
    "Ping",
    "Platform",
    "ProgressDetail",
    "ProgressFrame",
    "ProgressTracker",
    "PruneReport",
    "PullIdentity",
    "PullResult",
    "PushResult",
    "RateLimit",
    "RateLimitedError",
    "Reference",
    "RegistryAuth",
    "RegistryConfig",
    "RegistryImage",
    "RegistryPing",
    "RegistryService",
    "RegistryUnreachableError",
    "RemovedImage",
    "Retry",
    "RootFS",
    "SSHTarget",
    "SaveProgress",
    "SaveResult",
    "SearchResult",
    "ServerError",
    "ServiceClosedError",
    "SignatureIdentity",
    "SignatureTimestamp",
    "SignerIdentity",
    "StaticKeychain",
    "StreamInterruptedError",
    "StreamStalledError",
    "TLSConfig",
    "TagImmutableError",
    "Timestamp",
    "TransferOutcome",
    "TransferProgress",
    "Ulimit",
    "UnauthorizedError",
    "UnpackedSize",
    "UnsupportedAPIVersionError",
    "UnsupportedManifestError",
    "__version__",
    "mirror",
    "mirror_on_cluster",
    "read_trace",
    "transfer",
]

# From the least to import to the most: who wants a `Reference` alone does not wait for aiohttp.
_HOMES = (
    "errors",
    "reference",
    "models",
    "progress",
    "results",
    "_retry",
    "api_version",
    "buildkit",
    "credentials",
    "_dockercli.keychain",
    "endpoint",
    "_encoding",
    "_archive.streams",
    "_api.build_options",
    "_api.events",
    "service",
    "_distribution.config",
    "_distribution.results",
    "_distribution.manifests",
    "_distribution.service",
    "_mirror",
)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for: a public name, or the module of public names."""
        if name in __all__:
            for home in _HOMES:
                found = vars(import_module(f".{home}", __name__))
                if name in found:
                    globals()[name] = found[name]
                    return found[name]
        if name in _HOMES:
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

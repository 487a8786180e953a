"""An asyncio-native client for the image part of the Docker Engine API.

    async with ImageService() as images:
        result = await images.pull("alpine:3.20")
        async for frame in images.pull_stream("alpine:3.20"):
            ...

`ImageService` has a coroutine for every operation, and for the long ones a `*_stream` twin, an async generator of
progress frames or of bytes. Every failure is a `DockerError`; `aiodocker_images.errors` draws the family.
"""

from ._version import __version__
from .api_version import (
    APIVersion,
)
from .credentials import (
    Keychain,
    RegistryAuth,
    StaticKeychain,
)
from .endpoint import (
    Endpoint,
)
from .errors import (
    APIError,
    ArchiveError,
    ArchiveFileError,
    ConfigError,
    ConflictError,
    DaemonUnreachableError,
    DockerError,
    ForbiddenError,
    FrameDecodeError,
    InvalidParameterError,
    InvalidPlatformError,
    InvalidReferenceError,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    ServiceClosedError,
    StreamInterruptedError,
    StreamStalledError,
    UnauthorizedError,
    UnsupportedAPIVersionError,
)
from .models import (
    Descriptor,
    EngineComponent,
    EngineVersion,
    GraphDriver,
    HealthConfig,
    ImageConfig,
    ImageInspect,
    ImageManifest,
    ImageManifestData,
    ImageMetadata,
    ImageSummary,
    ImportResult,
    LoadResult,
    Ping,
    Platform,
    PullResult,
    PushResult,
    RemovedImage,
    RootFS,
    SaveResult,
)
from .progress import (
    ErrorDetail,
    LayerProgress,
    ProgressDetail,
    ProgressFrame,
    ProgressTracker,
)
from .reference import (
    Reference,
)
from .service import (
    ImageService,
)

__all__ = [
    "APIError",
    "APIVersion",
    "ArchiveError",
    "ArchiveFileError",
    "ConfigError",
    "ConflictError",
    "DaemonUnreachableError",
    "Descriptor",
    "DockerError",
    "Endpoint",
    "EngineComponent",
    "EngineVersion",
    "ErrorDetail",
    "ForbiddenError",
    "FrameDecodeError",
    "GraphDriver",
    "HealthConfig",
    "ImageConfig",
    "ImageInspect",
    "ImageManifest",
    "ImageManifestData",
    "ImageMetadata",
    "ImageService",
    "ImageSummary",
    "ImportResult",
    "InvalidParameterError",
    "InvalidPlatformError",
    "InvalidReferenceError",
    "Keychain",
    "LayerProgress",
    "LoadResult",
    "NoSpaceError",
    "NotFoundError",
    "Ping",
    "Platform",
    "ProgressDetail",
    "ProgressFrame",
    "ProgressTracker",
    "PullResult",
    "PushResult",
    "RateLimitedError",
    "Reference",
    "RegistryAuth",
    "RemovedImage",
    "RootFS",
    "SaveResult",
    "ServerError",
    "ServiceClosedError",
    "StaticKeychain",
    "StreamInterruptedError",
    "StreamStalledError",
    "UnauthorizedError",
    "UnsupportedAPIVersionError",
    "__version__",
]

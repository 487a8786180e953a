"""Engine API versions: which ones this library speaks, and which parameter needs which."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .errors import ConfigError, UnsupportedAPIVersionError

__all__ = ["APIVersion"]

_VERSION = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})", re.ASCII)


class APIVersion(NamedTuple):
    """A version of the Engine API, ordered as versions are: 1.9 is older than 1.41."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> APIVersion:
        """Read "1.41" or "v1.41"; raise `ConfigError` for anything else."""
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ConfigError(f"{text!r} is not an Engine API version such as 1.41")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MINIMUM: Final = APIVersion(1, 41)  # Docker 20.10
MAXIMUM: Final = APIVersion(1, 56)  # Docker 29

# The daemon silently ignores a parameter that its version, or the version in the URL, does not know.
# A row is added with the parameter; those that every version since MINIMUM knows need none. An operation that
# is newer than MINIMUM as a whole is a parameter of its own name.
_FIRST_VERSIONS: Final[dict[tuple[str, str], APIVersion]] = {
    # Before, the architecture in it was ignored.
    ("import", "platform"): APIVersion(1, 42),
    ("disk_usage", "type"): APIVersion(1, 42),
    ("list", "shared_size"): APIVersion(1, 42),
    # The BuildKit of Docker 20.10 ignores these two; the classic builder knows them.
    ("build", "buildkit_shm_size"): APIVersion(1, 42),
    ("build", "buildkit_ulimits"): APIVersion(1, 42),
    ("push", "platform"): APIVersion(1, 46),
    ("list", "manifests"): APIVersion(1, 47),
    ("inspect", "manifests"): APIVersion(1, 48),
    ("load", "platforms"): APIVersion(1, 48),
    ("save", "platforms"): APIVersion(1, 48),
    ("inspect", "platform"): APIVersion(1, 49),
    ("remove", "platforms"): APIVersion(1, 50),
    # One platform is understood since 1.48; a second one was refused until 1.52.
    ("load", "several_platforms"): APIVersion(1, 52),
    ("save", "several_platforms"): APIVersion(1, 52),
    ("history", "platform"): APIVersion(1, 48),
    # Before, reserved_space was called keep-storage.
    ("prune_build_cache", "reserved_space"): APIVersion(1, 48),
    ("prune_build_cache", "max_used_space"): APIVersion(1, 48),
    ("prune_build_cache", "min_free_space"): APIVersion(1, 48),
    ("disk_usage", "verbose"): APIVersion(1, 52),
    ("list", "identity"): APIVersion(1, 54),
    ("attestations", "attestations"): APIVersion(1, 55),
}


# How errors name those that are no parameters by themselves.
_WORDS: Final = {
    "buildkit_shm_size": "shm_size with BuildKit",
    "buildkit_ulimits": "ulimits with BuildKit",
    "several_platforms": "several platforms",
}


def first_version(operation: str, parameter: str) -> APIVersion:
    """Return the first API version whose daemons understand `parameter` of `operation`."""
    return _FIRST_VERSIONS.get((operation, parameter), MINIMUM)


def require(operation: str, parameter: str, actual: APIVersion) -> None:
    """Raise `UnsupportedAPIVersionError` if `parameter` of `operation` is newer than `actual`."""
    required = first_version(operation, parameter)
    if actual < required:
        feature = operation if parameter == operation else f"{_WORDS.get(parameter, parameter)!r} of {operation}"
        raise UnsupportedAPIVersionError(feature, required=str(required), actual=str(actual))


def negotiated(daemon: APIVersion) -> APIVersion:
    """Return the version to speak with a daemon whose newest is `daemon`; raise if it is too old for us."""
    if daemon < MINIMUM:
        raise UnsupportedAPIVersionError("this client", required=f"{MINIMUM} or newer", actual=str(daemon))
    return min(daemon, MAXIMUM)

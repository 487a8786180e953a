"""How to mirror, checked at the call. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from aiodocker_images.errors import ConfigError
from aiodocker_images.models import Platform

from .jobs import MirrorJob, Retry

__all__ = ["DEFAULT_CONCURRENCY", "ONCE", "Options", "checked_jobs", "checked_platforms"]

DEFAULT_CONCURRENCY: Final = 4
ONCE: Final = Retry(attempts=1)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `mirror` that can be carried to another process. Raises `ConfigError`."""

    concurrency: int = DEFAULT_CONCURRENCY
    per_registry: int | Mapping[str, int] | None = None
    retry: Retry = Retry()
    platforms: tuple[str, ...] | Literal["all"] = ()
    dry_run: bool = False
    keep: bool = False
    require_digest: bool = False
    narrow: bool = False

    def __post_init__(self) -> None:
        limits = self.per_registry.values() if isinstance(self.per_registry, Mapping) else (self.per_registry,)
        for name, limit in (("concurrency", self.concurrency), *(("per_registry", limit) for limit in limits)):
            if limit is not None and limit < 1:
                raise ConfigError(f"{name} must be 1 or more, not {limit}")


def checked_platforms(platforms: Iterable[str | Platform] | Literal["all"]) -> tuple[str, ...] | Literal["all"]:
    """Return platforms as Docker writes them; raise `InvalidPlatformError` for what is none."""
    if platforms == "all":
        return "all"
    if isinstance(platforms, str | Platform):
        platforms = (platforms,)
    return tuple(dict.fromkeys(str(Platform.parse(platform)) for platform in platforms))


def checked_jobs(jobs: Iterable[MirrorJob]) -> tuple[MirrorJob, ...]:
    """Return the jobs if they can be done beside each other; raise `ConfigError` if not."""
    given = tuple(jobs)
    writers: dict[str, MirrorJob] = {}
    for job in given:
        if other := writers.get(job.target):
            raise ConfigError(f"two jobs write {job.target}: from {other.source} and from {job.source}")
        writers[job.target] = job
    for job in given:
        if other := writers.get(job.source):
            # Which image would go, the old or the new one, would be chance.
            raise ConfigError(
                f"{job.source} is the target of one job and the source of another: do one after the other"
            )
    return given

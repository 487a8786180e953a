"""How to mirror, checked at the call. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, cast

import msgspec

from aiodocker_images._arguments import check_count, check_flag, wrong
from aiodocker_images._encoding import parse_platforms
from aiodocker_images.errors import InvalidArgumentError
from aiodocker_images.models import Platform

from .jobs import MirrorJob, Retry

__all__ = ["DEFAULT_CONCURRENCY", "ONCE", "Options", "checked_jobs", "checked_platforms", "checked_retry"]

DEFAULT_CONCURRENCY: Final = 4
ONCE: Final = Retry(attempts=1)


def checked_retry(retry: Retry | None) -> Retry:
    """Return how often to try; None is once."""
    if retry is None:
        return ONCE
    if not isinstance(cast("object", retry), Retry):
        raise wrong("retry", retry, "a Retry(attempts=…), or None for no retry")
    return retry


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `mirror` that can be carried to another process. Raises `InvalidArgumentError`."""

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
            check_count(name, limit)
        for name in ("dry_run", "keep", "require_digest", "narrow"):
            check_flag(name, getattr(self, name))


def checked_platforms(platforms: Iterable[str | Platform] | Literal["all"]) -> tuple[str, ...] | Literal["all"]:
    """Return platforms as Docker writes them; raise `InvalidPlatformError` for what is none."""
    if platforms == "all":
        return "all"
    return tuple(map(str, parse_platforms(platforms)))


def checked_jobs(jobs: Iterable[MirrorJob]) -> tuple[MirrorJob, ...]:
    """Return the jobs if they can be done beside each other; raise `InvalidArgumentError` if not."""
    if not isinstance(cast("object", jobs), Iterable):
        raise wrong("jobs", jobs, "several MirrorJob")
    given = tuple(jobs)
    for job in given:
        if not isinstance(cast("object", job), MirrorJob):
            raise wrong("each job", job, "a MirrorJob(source, target)")
    writers: dict[str, MirrorJob] = {}
    for job in given:
        if other := writers.get(job.target):
            raise InvalidArgumentError(f"two jobs write {job.target}: from {other.source} and from {job.source}")
        writers[job.target] = job
    for job in given:
        if other := writers.get(job.source):
            # Which image would go, the old or the new one, would be chance.
            raise InvalidArgumentError(
                f"{job.source} is the target of one job and the source of another: do one after the other"
            )
    return given

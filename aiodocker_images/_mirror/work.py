"""Jobs on their way: those that share a pull are a group. Nothing here is asked or done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiodocker_images.models import DistributionInspect, ImageInspect, Platform
from aiodocker_images.reference import Reference

from .digests import digest_of
from .jobs import MirrorJob

__all__ = ["Group", "Work", "grouped", "now"]


@dataclass(eq=False, slots=True)
class Work:
    """A job on its way. `present` is what the target has, if it is known."""

    job: MirrorJob
    target: Reference
    started: float
    present: DistributionInspect | None = None
    retries: int = 0
    ended: bool = False


@dataclass(eq=False, slots=True)
class Group:
    """Jobs that share a pull: of one source, and the same of its platforms.

    `found` is what the registry says of the source, `incomparable` why it says nothing. `image` is what was pulled,
    `held` the run's own name for it, `digests` are those that the source may have. `whole`: the image goes with all
    that its index names. `push_platform` is the one that is pushed of several.
    """

    source: Reference
    platform: Platform | None
    works: list[Work]
    found: DistributionInspect | None = None
    incomparable: str = ""
    retries: int = 0
    room: frozenset[str] = frozenset()
    image: ImageInspect | None = None
    held: str = ""
    digests: frozenset[str] = frozenset()
    whole: bool = False
    push_platform: Platform | None = None
    pulling: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def digest(self) -> str | None:
        """The source's digest: what was pulled, or else what the registry said, if that is one."""
        return next(iter(self.digests)) if len(self.digests) == 1 else digest_of(self.found)

    @property
    def pinned(self) -> Reference | None:
        """The source by its digest, if that is known: what was compared is what is pulled."""
        digest = self.source.digest or digest_of(self.found)
        return None if digest is None else Reference(self.source.domain, self.source.path, digest=digest)

    @property
    def left(self) -> list[Work]:
        """The jobs that have not ended."""
        return [work for work in self.works if not work.ended]


def grouped(jobs: Iterable[MirrorJob]) -> list[Group]:
    """Put jobs that share a pull together."""
    groups: dict[tuple[str, str | None], Group] = {}
    for job in jobs:
        group = groups.get((job.source, job.platform))
        if group is None:
            platform = None if job.platform is None else Platform.parse(job.platform)
            group = groups[job.source, job.platform] = Group(Reference.parse(job.source), platform, [])
        group.works.append(Work(job, Reference.parse(job.target), now()))
    return list(groups.values())


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()

"""How jobs end: the outcome of each is given away once, and a failure that is everybody's stops the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from aiodocker_images.errors import NoSpaceError

from .jobs import MirrorFailure, MirrorOutcome, MirrorStatus
from .journal import Journal
from .work import Group, Work, now

__all__ = ["Endings"]

FREE_SPACE: Final = (
    "Nothing more was tried. Free some space (on the Engine for instance with prune(), `docker image prune` or a"
    " lower concurrency), and run this again: with the same journal it does what is left"
)


class Endings:
    """Gives away outcomes. `failed`: some job has; `stop` is set when nothing more is to be begun."""

    def __init__(self, journal: Journal, emit: Callable[[MirrorOutcome], object]) -> None:
        self._journal = journal
        self._emit = emit
        self.failed = False
        self.stop = asyncio.Event()
        self._stopped: MirrorFailure | None = None

    def fail(self, group: Group, works: Iterable[Work], error: Exception) -> None:
        """End works with a failure of theirs, and stop everything if it is everybody's."""
        self._journal.check()
        failure = MirrorFailure.of(error)
        if isinstance(error, NoSpaceError):
            failure = MirrorFailure.of(error, f"{failure.message}. {FREE_SPACE}")
            self._stopped = failure
            self.stop.set()
        for work in tuple(works):
            self.end(group, work, "failed", before=group.digest, error=failure)

    def stop_rest(self, groups: Iterable[Group]) -> None:
        """End what is left after a failure that is everybody's."""
        if self._stopped is not None:
            for group in groups:
                for work in group.left:
                    self.end(group, work, "stopped", because="another job met it", error=self._stopped)

    def refuse(self, group: Group, work: Work, kind: str, because: str) -> None:
        """End a job that would do what was not asked for, before anything is moved for it at its target."""
        error = MirrorFailure(kind, f"{because}; nothing was moved")
        self.end(group, work, "failed", before=group.digest, because=because, error=error)

    def change(self, group: Group, work: Work, because: str, *, after: str | None = None) -> None:
        """End a job whose digest may not change and does."""
        told = "the target has the other digest now" if after else "nothing was moved"
        before = group.digest
        error = MirrorFailure("DigestChanged", f"the digest is not preserved, because {because}; {told}")
        self.end(group, work, "failed", before=before, after=after, preserved=False, because=because, error=error)

    def end(
        self,
        group: Group,
        work: Work,
        status: MirrorStatus,
        *,
        before: str | None = None,
        after: str | None = None,
        preserved: bool | None = None,
        because: str | None = None,
        error: MirrorFailure | None = None,
    ) -> None:
        """End a job."""
        work.ended = True
        self.failed = self.failed or error is not None
        self._emit(
            MirrorOutcome(
                job=work.job,
                status=status,
                source_digest=before,
                target_digest=after,
                digest_preserved=preserved,
                because=because,
                attempts=1 + group.retries + work.retries,
                elapsed=now() - work.started,
                error=error,
            )
        )

    @property
    def stopped(self) -> bool:
        """Whether a failure that is everybody's has come."""
        return self._stopped is not None

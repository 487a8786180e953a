"""What is to be mirrored and what came of it: frozen structs, which JSON and pickle can carry. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Self

import msgspec

from aiodocker_images._retry import Retry
from aiodocker_images.errors import InvalidReferenceError, shown
from aiodocker_images.models import Platform
from aiodocker_images.progress import ProgressFrame
from aiodocker_images.reference import Reference

__all__ = [
    "MirrorFailure",
    "MirrorJob",
    "MirrorOutcome",
    "MirrorProgress",
    "MirrorStatus",
    "MirrorSummary",
    "Retry",
    "checked_target",
]

MirrorStatus = Literal["mirrored", "skipped", "planned", "failed", "stopped"]

_STATUSES: Final[tuple[MirrorStatus, ...]] = ("mirrored", "skipped", "planned", "failed", "stopped")


def checked_target(text: str) -> Reference:
    """Return the reference of a target; raise `InvalidReferenceError` for what names a registry and no repository."""
    if _is_like_a_registry(text):
        raise InvalidReferenceError(
            f"{shown(text)} names no repository: a target is a registry and a name, as in registry.example.com/app"
        )
    return Reference.parse(text)


def _is_like_a_registry(text: str) -> bool:
    """Return whether a name without a slash, which is one of Docker Hub's, looks like that of a registry."""
    host, _, port = text.partition(":")
    if "/" in text or "@" in text:
        return False
    return "." in host or host == "localhost" or (port.isascii() and port.isdigit() and 4 <= len(port) <= 5)


class MirrorJob(msgspec.Struct, frozen=True):
    """One image to bring from `source` to `target`.

    Both are references, kept as Docker shows them. A source without a tag or digest is `latest`; a target without a
    tag gets the source's. `platform` ("linux/arm64") is the only one of a multi-platform image that goes.
    Raises `InvalidReferenceError` and `InvalidPlatformError`.
    """

    source: str
    target: str
    platform: str | None = None

    def __post_init__(self) -> None:
        source, target = Reference.parse(self.source).with_default_tag(), checked_target(self.target)
        if target.digest is not None:
            raise InvalidReferenceError(f"{target.familiar!r} cannot be mirrored to: it has a digest, name a tag")
        if target.tag is None:
            if source.tag is None:
                raise InvalidReferenceError(f"{target.familiar!r} needs a tag: the source {source.familiar!r} has none")
            target = target.with_tag(source.tag)
        if source == target:
            raise InvalidReferenceError(f"{source.familiar!r} would be mirrored to itself")
        msgspec.structs.force_setattr(self, "source", source.familiar)
        # In full where the short form would look like a registry.
        shown_target = target.familiar if not _is_like_a_registry(target.familiar) else str(target)
        msgspec.structs.force_setattr(self, "target", shown_target)
        if self.platform is not None:
            msgspec.structs.force_setattr(self, "platform", str(Platform.parse(self.platform)))

    def __str__(self) -> str:
        platform = f" ({self.platform})" if self.platform else ""
        return f"{self.source} -> {self.target}{platform}"


class MirrorProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job has come. Jobs that share a pull have it told of the first of them."""

    job: MirrorJob
    step: Literal["pull", "push"]
    frame: ProgressFrame
    """What the Engine said of that pull or push."""


class MirrorFailure(msgspec.Struct, frozen=True, dict=True):
    """Why a job failed: the name of the exception's class ("NotFoundError") and its text.

    `exception` is the exception itself, for `isinstance`; it does not go through JSON or pickle.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: Exception, message: str | None = None) -> Self:
        """Return what is told of an exception."""
        failure = cls(type(error).__name__, str(error) if message is None else message)
        vars(failure)["exception"] = error
        return failure

    @property
    def exception(self) -> Exception | None:
        """The exception; None for a failure that none made, or that another process met."""
        found: Exception | None = vars(self).get("exception")
        return found

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class MirrorOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one job.

    `status`: "mirrored"; "skipped", it was there already; "planned", what a dry run would do; "failed"; "stopped",
    not done because another failure was everybody's (a full disk). `digest_preserved` says whether the target has
    the source's digest, None where that is not known, and `because` why not, or why the job was skipped.
    `attempts` is 1 if nothing had to be tried again, `elapsed` the seconds from its pull, or where it came to none
    from its comparison, to its end.
    """

    job: MirrorJob
    status: MirrorStatus
    source_digest: str | None = None
    target_digest: str | None = None
    digest_preserved: bool | None = None
    because: str | None = None
    attempts: int = 1
    elapsed: float = 0.0
    error: MirrorFailure | None = None

    @property
    def ok(self) -> bool:
        """Whether the target is what it should be, or would be after a dry run."""
        return self.status not in {"failed", "stopped"}

    @property
    def digest_note(self) -> str:
        """The truth about the digest in words: "digest preserved: no, because …"."""
        answer = {True: "yes", False: "no", None: "not known"}[self.digest_preserved]
        reason = f", because {self.because}" if self.because and not self.digest_preserved else ""
        return f"digest preserved: {answer}{reason}"

    def __str__(self) -> str:
        text = f"{self.status}: {self.job}"
        if self.error is not None:
            return f"{text}: {self.error}"
        if self.status == "mirrored":
            return f"{text}: {self.digest_note}"
        return f"{text}: {self.because}" if self.because else text


class MirrorSummary(msgspec.Struct, frozen=True):
    """What a whole run came to: `str()` of it is the counts and a line for each failure."""

    outcomes: tuple[MirrorOutcome, ...]

    @classmethod
    def of(cls, outcomes: Iterable[MirrorOutcome]) -> Self:
        """Gather outcomes."""
        return cls(tuple(outcomes))

    @property
    def failures(self) -> tuple[MirrorOutcome, ...]:
        """The outcomes of the jobs that are still to be done."""
        return tuple(outcome for outcome in self.outcomes if not outcome.ok)

    @property
    def ok(self) -> bool:
        """Whether nothing is left to be done."""
        return not self.failures

    def count(self, status: MirrorStatus) -> int:
        """Return how many jobs ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status in _STATUSES if (count := self.count(status)))
        return "\n".join([counts or "nothing to do", *(str(outcome) for outcome in self.failures)])

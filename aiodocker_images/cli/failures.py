"""What failed, in one line, and what to do about it, in another. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiodocker_images import (
    APIError,
    ConflictError,
    ContextNotFoundError,
    DaemonUnreachableError,
    DockerError,
    ForbiddenError,
    FrameDecodeError,
    InvalidArgumentError,
    LocalFileError,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    StreamInterruptedError,
    TagImmutableError,
    UnauthorizedError,
    UnsupportedAPIVersionError,
)

from .exits import DONE, FAILED, SOME_FAILED, USAGE
from .terminal import PROGRAM, clean

__all__ = ["advice", "headline", "status_of", "status_of_all"]

MAX_HEADLINE: Final = 600
"""Characters of an error that are shown: a registry behind a proxy may answer with a web page."""

# Only what was never sent: an Engine that does not know an option may be updated, and the same line be right then.
_USAGE: Final = InvalidArgumentError

_ADVICE: Final[tuple[tuple[type[DockerError], str], ...]] = (
    (
        DaemonUnreachableError,
        f"Is the Engine running? `{PROGRAM} endpoint` says why it is this one; -H or --context choose another.",
    ),
    (UnauthorizedError, f"Log in with `docker login`, which stores credentials; `{PROGRAM} login` checks some."),
    (ForbiddenError, "Whoever owns the repository can permit it; or log in as somebody else with `docker login`."),
    (RateLimitedError, "Wait before you try again; who is logged in (`docker login`) may do more."),
    (NoSpaceError, f"Make room on the Engine's disk: `{PROGRAM} df` shows what images take, `prune` removes some."),
    (TagImmutableError, "Push another tag: the registry does not let this one be moved to another image."),
    (ConflictError, f"Remove what uses it first; `{PROGRAM} rm -f` removes an image that only stopped containers use."),
    (StreamInterruptedError, "The Engine may have restarted. Nothing counts as done: run it again."),
    (FrameDecodeError, f"That is not how an Engine answers; `{PROGRAM} endpoint` says what is asked, and why."),
    (UnsupportedAPIVersionError, "Leave that option out, or use a newer Engine. Nothing was sent."),
)

_REGISTRY_ADVICE: Final[tuple[tuple[type[DockerError], str], ...]] = (
    (NoSpaceError, "Make room in the registry."),
    (StreamInterruptedError, "Run it again: what has arrived is not moved a second time."),
    *((kind, text) for kind, text in _ADVICE if kind in (UnauthorizedError, ForbiddenError, RateLimitedError)),
    (TagImmutableError, "Name another tag: the registry does not let this one be moved to another image."),
)
"""What to do where no Engine takes part."""

_REGISTRY_VERBS: Final = frozenset({"copy", "digest", "manifest", "tags"})

_LACKING: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
"""Codes of a registry that has the name, but not all that belongs to the image."""

_NOT_FOUND: Final = {
    "pull": "Check the name and the tag; a private image needs a `docker login`, too.",
    **dict.fromkeys(_REGISTRY_VERBS, "Check the name and the tag; a private image needs a `docker login`, too."),
    "push": f"Name what is there (`{PROGRAM} ls`), or give it this name first: `{PROGRAM} tag`.",
    "search": "Search for another word.",
}


def headline(error: BaseException) -> str:
    """Return what happened as one line without surprises."""
    text = str(error)
    if isinstance(error, APIError):
        # Where the Engine is and what it was asked, `--debug` shows. Behind its first line an error of a build has
        # the output of the step, which has been shown already.
        message = error.message
        if error.verb == "build":
            message = message.partition("\n")[0]
        text = f"{error.operation}: {message}" if error.operation else message
    line = clean(text)
    return line if len(line) <= MAX_HEADLINE else f"{line[: MAX_HEADLINE - 1]}…"


def advice(error: BaseException) -> str | None:
    """Return what to do about it, None where the error says it all."""
    if isinstance(error, NotFoundError):
        if error.verb == "build" or error.code in _LACKING:
            return None
        return _NOT_FOUND.get(error.verb or "", f"`{PROGRAM} ls` lists what is there.")
    if isinstance(error, LocalFileError):
        return None
    if isinstance(error, ContextNotFoundError):
        return f"`{PROGRAM} endpoint` says where the Engine is looked for, and why."
    table = _REGISTRY_ADVICE if getattr(error, "verb", None) in _REGISTRY_VERBS else _ADVICE
    return next((text for kind, text in table if isinstance(error, kind)), None)


def status_of(error: BaseException) -> int:
    """Return the exit status that an error alone comes to."""
    return USAGE if isinstance(error, _USAGE) else FAILED


def status_of_all(outcomes: Iterable[BaseException | None]) -> int:
    """Return the exit status of several, None being those that are done."""
    statuses = [DONE if error is None else status_of(error) for error in outcomes]
    if not any(statuses):
        return DONE
    return SOME_FAILED if DONE in statuses else min(filter(None, statuses))

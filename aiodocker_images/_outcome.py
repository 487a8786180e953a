"""What the frames of an operation say of its result, and whether they say that it came to its end. Pure.

HTTP tells when an answer was cut, but a proxy between may end it politely. So an operation whose Engine always
says a last word (all but load) is only complete when that word was seen.
"""

from __future__ import annotations

import re
from typing import Generic, Protocol, TypeVar

import msgspec

from .errors import FrameDecodeError, StreamInterruptedError
from .progress import ProgressFrame
from .reference import Reference
from .results import ImportResult, LoadResult, PullResult, PushResult

__all__ = ["ImportOutcome", "LoadOutcome", "Outcome", "PullOutcome", "PushOutcome"]

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

_DIGEST = r"[A-Za-z0-9_+.-]+:[0-9a-fA-F]{32,}"
_PULLED_DIGEST = re.compile(rf"Digest: ({_DIGEST})")
_PUSHED = re.compile(rf"\S+: digest: ({_DIGEST})? size: (\d{{1,19}})", re.ASCII)
_IMPORTED = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_LOADED = re.compile(r"Loaded image(?P<id> ID)?: (?P<names>.+)")


class Outcome(Protocol[R_co]):
    """Gathers the result of one operation from its frames."""

    def update(self, frame: ProgressFrame) -> None:
        """Take in one frame, which reports no error."""
        ...

    def result(self) -> R_co:
        """Return the result at the end of the stream; raise `StreamInterruptedError` if it is not complete."""
        ...


class _Ended(Generic[R]):
    """Holds a result from the moment that the Engine said its last word."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._ended: R | None = None

    def result(self) -> R:
        if self._ended is None:
            raise StreamInterruptedError(
                f"the daemon's answer ended without saying that the {self._operation} was done"
            )
        return self._ended


class PullOutcome(_Ended[PullResult]):
    """Docker ends the pull of each tag with "Digest: …" and "Status: …", Podman with "Download complete"."""

    def __init__(self, reference: Reference) -> None:
        super().__init__("pull")
        self._reference = str(reference)
        self._digest: str | None = reference.digest
        self._new = False
        self._docker = False

    def update(self, frame: ProgressFrame) -> None:
        """Note the digest and the last word."""
        status = frame.status or ""
        if status.startswith("Pulling from "):  # never said by Podman
            self._docker = True
        elif match := _PULLED_DIGEST.fullmatch(status):
            self._digest = match[1]
        elif status.startswith("Status: "):
            self._docker = True
            self._new = self._new or not status.startswith("Status: Image is up to date")
            self._ended = self._result(new=self._new)
        elif not self._docker:
            # Podman's last frame has the image's id in place of a layer's, but else looks like those of the
            # layers, which others follow.
            self._ended = self._result(new=True) if status == "Download complete" and frame.id else None

    def _result(self, *, new: bool) -> PullResult:
        return PullResult(reference=self._reference, digest=self._digest, up_to_date=not new)


class PushOutcome(_Ended[PushResult]):
    """The graph-driver store and newer Podmans end with `aux`, the containerd store with a line of text only."""

    def __init__(self, reference: Reference) -> None:
        super().__init__("push")
        self._reference = str(reference)

    def update(self, frame: ProgressFrame) -> None:
        """Note the manifest's digest and size."""
        if _names_digest(frame.aux):
            try:
                pushed = msgspec.convert(frame.aux, _PushedAux)
            except msgspec.ValidationError as error:
                raise FrameDecodeError(f"the daemon's digest of the push is not what it should be: {error}") from error
            self._end(pushed.digest, pushed.size)
        elif match := _PUSHED.fullmatch(frame.status or ""):
            self._end(match[1], int(match[2]))

    def _end(self, digest: str | None, size: int | None) -> None:
        self._ended = PushResult(reference=self._reference, digest=digest or None, size=size)


def _names_digest(aux: object) -> bool:
    return isinstance(aux, dict) and "Digest" in aux


class _PushedAux(msgspec.Struct, rename="pascal"):
    digest: str | None = None
    size: int | None = None


class ImportOutcome(_Ended[ImportResult]):
    """The last status is the new image's id: with `sha256:` from Docker, without it from Podman."""

    def __init__(self) -> None:
        super().__init__("import")

    def update(self, frame: ProgressFrame) -> None:
        """Note the id."""
        status = frame.status or ""
        if _IMPORTED.fullmatch(status):
            self._ended = ImportResult(id=f"sha256:{status.removeprefix('sha256:')}")


class LoadOutcome:
    """Each image of the archive is named in a line of `stream`; one with no image in it ends without a word."""

    def __init__(self) -> None:
        self._references: list[str] = []
        self._ids: list[str] = []

    def update(self, frame: ProgressFrame) -> None:
        """Note the names and ids; Podman lists all names in one line."""
        for line in (frame.stream or "").splitlines():
            if match := _LOADED.fullmatch(line.strip()):
                names = [name.strip() for name in match["names"].split(",")]
                (self._ids if match["id"] else self._references).extend(names)

    def result(self) -> LoadResult:
        """Return what was loaded."""
        return LoadResult(references=tuple(self._references), ids=tuple(self._ids))

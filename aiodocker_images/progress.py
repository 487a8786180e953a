"""What an Engine reports while it works: typed frames, and a tracker that makes bars of them.

The frames are moby's `jsonstream.Message` and what Podman sends in its place. Who sends what:

- moby's graph drivers pull each layer from `Pulling fs layer` over `Downloading`, `Verifying Checksum`,
  `Download complete` and `Extracting` to `Pull complete`, and count bytes in both phases.
- moby's containerd store counts bytes while it downloads, and *seconds*, without a total, while it extracts.
- Podman ends a layer with `Download complete`; the configuration of the image comes as one more layer.
- A push goes from `Preparing` and `Waiting` over `Pushing` to `Pushed`; a load says `Loading layer`, and
  nothing when it has; an import from a URL counts bytes without an id.
- No Engine says `Copying` and `Copied`: the command line does, of copies between registries.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from ._document import Document

__all__ = [
    "ErrorDetail",
    "LayerProgress",
    "OnProgress",
    "ProgressDetail",
    "ProgressFrame",
    "ProgressSnapshot",
    "ProgressTracker",
    "SaveProgress",
]

P = TypeVar("P")

OnProgress: TypeAlias = Callable[[P], object]
"""What `on_progress=` takes: a function of one argument, plain or `async`. A coroutine is awaited before more is read.

The argument is a `ProgressFrame` for pull, push, load, import and build, a `SaveProgress` for save, a `MirrorProgress`
for `mirror()` and a `TransferProgress` for `transfer()`. What it raises ends the operation.
"""


class ProgressDetail(Document, frozen=True, kw_only=True):
    """How far one action has come.

    Any field may be missing: Engines leave out what is 0. They send whole numbers; fractions are tolerated.
    """

    current: int | float | None = None
    """How much is done, in `units`."""
    total: int | float | None = None
    """How much there is to do, in `units`; missing, 0 or negative if unknown. `current` may exceed it."""
    start: int | float | None = None
    """When it began, in seconds since the Unix epoch. Engines do not set it."""
    hide_counts: bool | None = msgspec.field(name="hidecounts", default=None)
    """The numbers are not worth showing."""
    units: str | None = None
    """What the numbers count: bytes if missing or empty, seconds if "s" (an extracting containerd store)."""

    @property
    def counts_bytes(self) -> bool:
        """Whether the numbers are bytes."""
        return self.units in {None, "", "bytes"}


class ErrorDetail(Document, frozen=True, kw_only=True):
    """How the operation failed."""

    code: int | None = None
    """The HTTP status or the exit code that belongs to it. Missing or 0, as nearly always: none."""
    message: str | None = None


class ErrorDocument(Document, frozen=True, kw_only=True):
    """How an Engine reports a failure where it can send no status: in a frame, or behind a piece of an archive."""

    error: str | None = None
    """The message of `error_detail` again, for clients before API 1.4."""
    error_detail: ErrorDetail | None = msgspec.field(name="errorDetail", default=None)

    @property
    def words(self) -> str | None:
        """The message of the error, None if there is none."""
        return (self.error_detail and self.error_detail.message) or self.error or None

    @property
    def failure(self) -> str | None:
        """The message of the error that is reported, never empty; None if none is.

        An `errorDetail` is an error even without a text, as it is for Docker's own client.
        """
        if self.error_detail is not None:
            return self.words or "the daemon reported an error without a message"
        return self.words


class ProgressFrame(ErrorDocument, frozen=True, kw_only=True):
    """One message of a progress stream. Every field may be missing."""

    id: str | None = None
    """Whom the message is about: mostly the first 12 digits of a layer's digest.

    `Pulling from …` carries the tag here, and an import by Podman the image's id.
    """
    status: str | None = None
    """What happens, or a line for the whole operation."""
    progress: str | None = None
    """A bar drawn in text, from Engines before API 1.52. `progress_detail` says the same in numbers."""
    progress_detail: ProgressDetail | None = msgspec.field(name="progressDetail", default=None)
    stream: str | None = None
    """Output as text, line ends included: of a build, or what a load has loaded."""
    aux: Any = None
    """Data that is not meant to be shown: the digest of a push, the id of a built image, BuildKit's trace."""


class SaveProgress(Document, frozen=True, kw_only=True):
    """How far a save has come."""

    size: int
    """Bytes of the archive that have been received so far. How many there will be, the Engine does not say."""


class LayerProgress(Document, frozen=True, kw_only=True):
    """How far one layer has come. A snapshot: the tracker puts a new one in its place."""

    id: str
    """As the Engine names it. Empty for an import, whose one part has no name."""
    status: str
    """The Engine's words: "Downloading", "Pull complete"."""
    current: int | None
    """Bytes that the present phase has got through; None if it counts none."""
    total: int | None
    """Size of the layer in bytes; None as long as it is unknown."""
    fraction: float | None
    """How much of all its phases is done, 0 to 1; None while bytes flow to an unknown total. May go back."""
    done: bool
    """Whether nothing is left to do."""


class ProgressSnapshot(Document, frozen=True, kw_only=True):
    """What a `ProgressTracker` says at one moment. `downloaded` and `total` in bytes, `fraction` 0 to 1 or None."""

    status: str | None = None
    fraction: float | None = None
    downloaded: int = 0
    total: int = 0
    layers: tuple[LayerProgress, ...] = ()


class _Phase(NamedTuple):
    start: float  # the share of the layer's work that lies behind it
    span: float = 0.0  # the share that its own bytes measure
    moves: bool = False  # its bytes are the transfer itself
    resumes: bool = False  # moby goes on with a broken transfer, and counts only the rest of it from there
    closes: bool = False  # the last of its bytes is the layer's end: no frame says so
    skips: bool = False  # there was nothing to do
    unforeseen: bool = False  # its layers come one by one: how many will is unknown
    retries: bool = False  # what was moved is lost, or will be resumed


# A pull downloads, then extracts. The network takes most of the time; and as neither the containerd store nor
# Podman tells how far the extraction has come, a bigger share of it would only make bars stand and jump.
_DOWNLOAD_SHARE = 0.75

_ANNOUNCED = _Phase(0.0)
_SKIPPED = _Phase(1.0, skips=True)
_TRANSFER = _Phase(0.0, 1.0, moves=True, closes=True)

_PHASES = {
    "Pulling fs layer": _ANNOUNCED,
    "Preparing": _ANNOUNCED,
    "Waiting": _ANNOUNCED,
    "Unavailable": _ANNOUNCED,  # the containerd store, of layers that it has not begun to push, and may never
    "Downloading": _Phase(0.0, _DOWNLOAD_SHARE, moves=True, resumes=True),
    "Verifying Checksum": _Phase(_DOWNLOAD_SHARE),
    "Download complete": _Phase(_DOWNLOAD_SHARE),
    "Extracting": _Phase(_DOWNLOAD_SHARE, 1.0 - _DOWNLOAD_SHARE),
    "Pull complete": _Phase(1.0),
    "Pushing": _Phase(0.0, 1.0, moves=True),
    "Pushed": _Phase(1.0),
    "Copying": _Phase(0.0, 1.0, moves=True),
    "Copied": _Phase(1.0),
    "Already exists": _SKIPPED,
    "Layer already exists": _SKIPPED,
    "Loading layer": _TRANSFER._replace(unforeseen=True),
    "Importing": _TRANSFER,
}
_PHASES_BY_PREFIX = (("Retrying in ", _Phase(0.0, retries=True)), ("Mounted from ", _SKIPPED))

MAX_LAYERS: Final = 10_000
"""Layers that a tracker keeps: an image has 127 at most, and a pull of all tags or a load has those of many images."""

_ALMOST = 0.999  # only finish() makes it 1
_MAX_COUNT = 2**63 - 1  # Docker's numbers are int64; JSON's can be too big to be multiplied by a float


@dataclass(slots=True)
class _Part:
    """What the tracker's sums hold of one layer."""

    size: int = 0  # bytes; 0: unknown
    moved: int = 0  # bytes of the transfer
    share: float = 0.0  # of its work that is done; without a size only 0, 0.75 or 1, whose sums are exact
    weighs: bool = True  # in the fraction of the whole
    retrying: bool = False
    resumed_at: int = 0  # the byte at which the present attempt began


class ProgressTracker:
    """Fold the frames of one pull, push, load or import into a bar per layer and one for the whole.

    ::

        async for frame in images.pull_stream("alpine:3.20"):
            tracker.update(frame)
            for layer in tracker.layers.values():
                draw(layer.id, layer.status, layer.fraction)
        tracker.finish()

    A layer's fraction spans its phases: the download of a pull is the first three quarters, the extraction
    the rest; pushes and loads have one phase. The whole is the mean of the layers, weighed by size: a layer
    of unknown size weighs as much as the average one, and one that already exists nothing.

    Memory grows with the number of layers only, up to `MAX_LAYERS`, of which the oldest are then left out of `layers`,
    and stay counted in the whole. The work per frame does not grow at all.
    """

    def __init__(self) -> None:
        self._layers: OrderedDict[str, LayerProgress] = OrderedDict()
        self._parts: dict[str, _Part] = {}
        self._status: str | None = None
        self._fraction: float | None = None
        self._downloaded = 0
        self._total = 0
        # The layers whose size is known, in bytes, and the others, by their number.
        self._sized = 0
        self._sized_work = 0
        self._sized_done = 0
        self._unsized = 0
        self._unsized_done = 0.0

    @property
    def layers(self) -> Mapping[str, LayerProgress]:
        """The layers by id, in the order of their appearance: a live, read-only view."""
        return MappingProxyType(self._layers)

    @property
    def status(self) -> str | None:
        """The last message that was not about a single layer."""
        return self._status

    @property
    def downloaded(self) -> int:
        """Bytes moved so far: downloaded by a pull, sent by a push, read by a load.

        Extraction, seconds and layers that already exist count nothing. Goes back when a layer starts again.
        """
        return self._downloaded

    @property
    def total(self) -> int:
        """Bytes to move, as far as layers have told their size. Never less than `downloaded`."""
        return self._total

    @property
    def fraction(self) -> float | None:
        """How much of the whole is done, 0 to 1; None as long as that is unknown.

        Unknown until a layer with something to do appears, and throughout a load: it announces no layers,
        they come one by one. It never goes back, and stands still when an Engine announces layers late.

        It is 1 only after `finish()`: no message means the end. Pulls and pushes of several tags send a
        closing line per tag, loads send none, and an error can follow any of them.
        """
        return self._fraction

    def update(self, frame: ProgressFrame) -> None:
        """Take in the next frame. Frames that say nothing about progress change nothing."""
        layer_id, text = frame.id or "", frame.status or ""
        current, total = _byte_counts(frame.progress_detail)
        counted = current > 0 or total > 0
        phase = _phase(text) or (_TRANSFER if counted else None)
        # An import from a URL has bytes but no id. "Pulling from …" has an id, the tag, but no bytes, and its
        # text is no layer's. (That it has no progressDetail proves nothing: nor has a layer of Podman's.)
        of_layer = (phase is not None or layer_id in self._layers) if layer_id else counted
        if not (layer_id and of_layer):
            self._status = text or (frame.stream or "").strip() or self._status
        if of_layer and phase is not None:
            self._update_layer(layer_id, text, phase, current, total)
        elif of_layer and text:
            self._layers[layer_id] = msgspec.structs.replace(self._layers[layer_id], status=text)

    def finish(self) -> None:
        """Declare that the operation succeeded: the whole and every layer are done.

        For the end of the stream, which alone tells: Podman, for one, never says that a layer is extracted.
        """
        self._fraction = 1.0
        for layer_id, layer in self._layers.items():
            self._layers[layer_id] = msgspec.structs.replace(layer, fraction=1.0, done=True)

    def snapshot(self) -> ProgressSnapshot:
        """Return what the tracker says now, as a document that can go to a web page."""
        return ProgressSnapshot(
            status=self._status,
            fraction=self._fraction,
            downloaded=self._downloaded,
            total=self._total,
            layers=tuple(self._layers.values()),
        )

    async def follow(self, frames: AsyncGenerator[ProgressFrame, None]) -> AsyncGenerator[ProgressFrame, None]:
        """Yield the frames of a stream after taking each in, and finish with the stream. Leaving it leaves that one."""
        async with aclosing(frames):
            async for frame in frames:
                self.update(frame)
                yield frame
        self.finish()

    def _update_layer(self, layer_id: str, text: str, phase: _Phase, current: int, total: int) -> None:
        part = self._parts.get(layer_id)
        if part is None:
            if len(self._layers) >= MAX_LAYERS:
                del self._parts[self._layers.popitem(last=False)[0]]
            part = self._parts[layer_id] = _Part()
        else:
            self._add(part, -1)
        shown = _advance(part, phase, current, total)
        self._add(part, +1)
        self._raise_fraction()
        self._layers[layer_id] = LayerProgress(
            id=layer_id,
            status=text,
            current=shown,
            total=part.size or None,
            fraction=None if phase.moves and not part.size else part.share,
            done=part.share == 1.0 and (phase.closes or phase.span == 0.0),
        )

    def _add(self, part: _Part, sign: int) -> None:
        self._downloaded += sign * part.moved
        self._total += sign * max(part.size, part.moved)
        if not part.weighs:
            return
        if part.size:
            self._sized += sign
            self._sized_work += sign * part.size
            self._sized_done += sign * int(part.size * part.share)
        else:
            self._unsized += sign
            self._unsized_done += sign * part.share

    def _raise_fraction(self) -> None:
        average = self._sized_work / self._sized if self._sized else 1.0
        work = self._sized_work + average * self._unsized
        if work > 0:
            done = self._sized_done + average * self._unsized_done
            self._fraction = max(self._fraction or 0.0, min(done / work, _ALMOST))


def _advance(part: _Part, phase: _Phase, current: int, total: int) -> int | None:
    """Bring `part` to where the frame says; return the bytes that the phase got through, if it counts any."""
    part.weighs = not (phase.unforeseen or (phase.skips and not part.size))
    if phase.moves:
        return _move(part, phase, current, total)
    if phase.start > 0.0:
        part.size = part.moved = part.size or max(total, current) or part.moved
        part.share = phase.start + phase.span * (min(current / total, 1.0) if total else 0.0)
        if phase.span:
            return min(current, part.size) if total else None
        return part.size or None
    if part.share == 1.0 and not phase.retries:  # a push of several tags announces its layers once per tag
        return part.size or None
    part.retrying = part.retrying or phase.retries
    # moby shows a full bar as it closes a broken download: how much arrived is not known until it resumes.
    part.moved, part.resumed_at, part.share = 0, 0, 0.0
    return None


def _move(part: _Part, phase: _Phase, current: int, total: int) -> int | None:
    if part.retrying and phase.resumes and total:
        part.resumed_at = max(part.size - total, 0)
    part.retrying = False
    part.moved = part.resumed_at + current
    size = part.resumed_at + total if total else part.size
    part.size = max(size, part.moved) if size else 0  # a push can send more than its total: a tar has padding
    part.share = phase.start + phase.span * (part.moved / part.size if part.size else 0.0)
    return part.moved if current or total else None


def _byte_counts(detail: ProgressDetail | None) -> tuple[int, int]:
    """Return `current` and `total` if they are bytes; 0 is unknown."""
    if detail is None or not detail.counts_bytes:
        return 0, 0
    return _count(detail.current), _count(detail.total)


def _phase(text: str) -> _Phase | None:
    phase = _PHASES.get(text)
    if phase is None:
        return next((phase for prefix, phase in _PHASES_BY_PREFIX if text.startswith(prefix)), None)
    return phase


def _count(value: float | None) -> int:
    return int(min(value, _MAX_COUNT)) if value is not None and value > 0 else 0

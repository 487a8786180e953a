"""The reports of jobs: nothing but results, lines, JSON lines, or the live display."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, cast

import msgspec

from aiodocker_images import DockerError, ProgressFrame

from . import failures
from .jobs import Job, Report, Result
from .terminal import clean, is_terminal, moves_cursor, note, say

# These frames are repeated by the result.
_RESULT: Final = re.compile(r"(?:Digest|Status|Loaded image(?: ID)?): .*|.*: digest: sha256:.*|sha256:[0-9a-f]{64}")

MAX_TOLD: Final = 10_000
"""Layers whose last step is remembered; an image has at most some hundred, but a daemon may name any number."""


class QuietReport:
    """Tells nothing but the lines that `-q` is for."""

    async def run(self, work: Awaitable[None]) -> None:
        """Wait for the work."""
        await work

    def frame(self, _job: Job, _frame: ProgressFrame, /) -> None:
        """Tell nothing."""

    def ended(self, _job: Job, result: Result | DockerError, /) -> None:
        """Tell what there is to know."""
        if isinstance(result, Result):
            _say_lines(result.quiet_lines)


class PlainReport(QuietReport):
    """Tells by lines: what changes, to standard error, and what comes of it, to standard output.

    Each layer's steps are told once, without numbers: a log shall not grow with the size of an image.
    """

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._told: dict[tuple[str, str], str] = {}

    def frame(self, job: Job, frame: ProgressFrame, /) -> None:
        """Tell what changed."""
        text = clean(frame.status or frame.stream or "")
        layer, step = frame.id or "", text.partition(" in ")[0]  # Retrying in 5 seconds, in 4 …
        if not text or _RESULT.fullmatch(text) or self._told.get((job.name, layer)) == step:
            return
        if len(self._told) >= MAX_TOLD:
            self._told.clear()  # then a step may be told twice
        self._told[job.name, layer] = step
        head = f"{job.name}: " if self._several else ""
        note(f"{head}{clean(layer)}: {text}" if layer else f"{head}{text}")

    def ended(self, _job: Job, result: Result | DockerError, /) -> None:
        """Tell what came of it."""
        if isinstance(result, Result):
            _say_lines(result.lines)


class JSONReport(QuietReport):
    """Tells each frame, and then the result or the error, as a line of JSON on standard output."""

    def frame(self, job: Job, frame: ProgressFrame, /) -> None:
        """Tell the frame as the Engine sent it, with the image that it is about."""
        say_json({"image": job.name, **document_of(frame)})

    def ended(self, job: Job, result: Result | DockerError, /) -> None:
        """Tell the result."""
        if isinstance(result, Result):
            say_json({"image": job.name, "result": result.data})
        else:
            kind = type(result).__name__
            say_json({"image": job.name, "failed": {"error": kind, "message": failures.headline(result)}})


def document_of(frame: msgspec.Struct) -> dict[str, object]:
    """Return a frame as it was on the wire, or a step: without what it does not say."""
    return cast("dict[str, object]", _without_none(msgspec.to_builtins(frame)))


def say_json(document: object) -> None:
    """Write a line of JSON to standard output."""
    say(f"{msgspec.json.encode(document).decode()}\n")


def report_for(jobs: Sequence[Job], *, quiet: bool, as_json: bool) -> Report:
    """Choose how to tell: for programs, not at all, on a terminal that can be drawn on, or by lines."""
    if as_json:
        return JSONReport()
    if quiet:
        return QuietReport()
    if moves_cursor():
        from .display import LiveReport  # noqa: PLC0415 - rich is worth its time only here

        return LiveReport(jobs, lines=len(jobs) == 1 or not is_terminal(sys.stdout))
    return PlainReport(several=len(jobs) > 1)


def _say_lines(lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if text:
        say(text)


def _without_none(value: object) -> object:
    if isinstance(value, dict):
        items = cast("dict[str, object]", value)
        return {name: _without_none(each) for name, each in items.items() if each is not None}
    return value

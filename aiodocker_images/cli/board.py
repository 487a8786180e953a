"""The live display as lines of text: images, their layers, and the total. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from aiodocker_images import LayerProgress

from .jobs import Job, Speed
from .terminal import clean, visible
from .units import clock, size

__all__ = ["Board"]

MAX_WIDTH: Final = 110
"""Cells of a line: beyond that, eyes lose it."""

_AMOUNT: Final = 15  # "999.9MB/999.9MB"
_STATUS: Final = 18  # "Verifying Checksum"
_LAYER: Final = 14  # two spaces, and the 12 digits of an id
_MIN_BAR: Final = 6
_MAX_BAR: Final = 40

_STYLES: Final = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red"}


class _Marks:
    """What is drawn, for terminals that know Unicode and those that do not."""

    def __init__(self, *, unicode: bool) -> None:
        self.states = (
            {"waiting": "·", "running": "▸", "done": "✓", "failed": "✗"}
            if unicode
            else {"waiting": ".", "running": ">", "done": "+", "failed": "x"}
        )
        self.full, self.empty = ("━", "─") if unicode else ("#", "-")
        self.more = "…" if unicode else "..."


class Board:
    """Draws jobs in a terminal of any size. The total is always in sight; what is at work comes before the rest."""

    def __init__(self, jobs: Sequence[Job], *, unicode: bool = True) -> None:
        self._jobs = jobs
        self._marks = _Marks(unicode=unicode)
        self._speed = Speed()

    def lines(self, width: int, height: int, now: float, *, final: bool = False) -> list[Text]:
        """Return the lines for a terminal of this size; `final` are those that stay: an image each, and the total."""
        width = min(width, MAX_WIDTH)
        total = self._total(width, now)
        if final:
            drawn = [self._heading(job, width, now) for job in self._jobs]
            return [*drawn, total] if len(drawn) > 1 else drawn
        room = max(height - 1, 2) - 1
        shown = self._chosen(room)
        room -= len(shown) + (len(shown) < len(self._jobs))
        lines = list[Text]()
        for number in shown:
            lines.append(self._heading(self._jobs[number], width, now))
            if self._jobs[number].state == "running":
                layers = self._layers(self._jobs[number], room)
                room -= len(layers)
                lines += [self._layer(layer, width) for layer in layers]
        if len(shown) < len(self._jobs):
            seen = set(shown)
            lines.append(self._rest([job for number, job in enumerate(self._jobs) if number not in seen], width))
        return [*lines, total]

    def _chosen(self, room: int) -> list[int]:
        """Choose the images that have room for a line: all, or first those at work, then those that failed."""
        if len(self._jobs) <= room:
            return list(range(len(self._jobs)))
        weight = {"running": 0, "failed": 1, "waiting": 2, "done": 3}
        by_weight = sorted(range(len(self._jobs)), key=lambda number: weight[self._jobs[number].state])
        return sorted(by_weight[: max(room - 1, 0)])

    @staticmethod
    def _layers(job: Job, room: int) -> list[LayerProgress]:
        layers = list(job.tracker.layers.values())
        if len(layers) > room:
            moving = [layer for layer in layers if not layer.done and layer.current is not None]
            waiting = [layer for layer in layers if not layer.done and layer.current is None]
            layers = [*moving, *waiting][:room] if room > 0 else []
        return layers

    def _heading(self, job: Job, width: int, now: float) -> Text:
        ended = job.state in ("done", "failed")
        seconds = (job.ended if ended else now) - job.begun if job.begun else 0.0
        match job.state:
            case "done":
                moved = f"{size(job.bytes_done, 3)} in " if job.bytes_done else ""
                words = f"{visible(job.summary)}  {moved}{seconds:.1f}s".strip()
            case "failed":
                words = clean(job.summary)
            case "running":
                percent = "" if job.fraction is None else f"{int(job.fraction * 100):3}%  "
                words = f"{percent}{_amount(job.bytes_done, job.bytes_total)}".rstrip()
                if len(self._jobs) == 1 or not words:  # of one, the total says it
                    words = job.verb
            case _:
                words = job.state
        name = clean(job.name)
        room = width - 2
        if cell_len(name) + 2 + cell_len(words) > room:
            # Names differ at their ends. A failure's words are told in full below the display.
            name = _from_end(name, max(room - 2 - cell_len(words), room // 2), self._marks.more)
            words = _from_start(words, max(room - 2 - cell_len(name), 0), self._marks.more)
        line = Text(no_wrap=True, end="").append(f"{self._marks.states[job.state]} ", style=_STYLES[job.state])
        line.append(name, style="bold" if job.state == "running" else "default")
        return line.append(f"  {words}" if words else "", style="red" if job.state == "failed" else "dim")

    def _layer(self, layer: LayerProgress, width: int) -> Text:
        amount = "" if layer.done else _amount(layer.current, layer.total)
        line = Text("  ", no_wrap=True, end="").append(set_cell_size(clean(layer.id), _LAYER - 2), style="dim")
        left = width - _LAYER
        if left - _STATUS - 1 >= _MIN_BAR + _AMOUNT + 2:
            line.append(f" {set_cell_size(clean(layer.status), _STATUS)}", style="green" if layer.done else "default")
            left -= _STATUS + 1
        elif not amount or left < _MIN_BAR + _AMOUNT + 2:  # too narrow for all: numbers, or else the word
            return line.append(f" {_from_start(amount or clean(layer.status), left - 1, self._marks.more)}")
        if layer.done:
            return line
        line.append(" ")
        line.append_text(self._bar(layer.fraction, min(left - _AMOUNT - 2, _MAX_BAR)))
        return line.append(f" {amount:>{_AMOUNT}}", style="dim")

    def _total(self, width: int, now: float) -> Text:
        moved = sum(job.bytes_done for job in self._jobs)
        whole = sum(job.bytes_total for job in self._jobs)
        fraction = self._fraction()
        self._speed.sample(now, moved, fraction)
        speed, left = self._speed.bytes_per_second, self._speed.seconds_left
        ended = all(job.state in ("done", "failed") for job in self._jobs)
        words = [_amount(moved, whole) if not ended else size(moved, 3)]
        if ended:
            seconds = max((job.ended for job in self._jobs), default=now) - min(job.begun for job in self._jobs)
            words.append(f"{size(moved / seconds, 3)}/s" if moved and seconds > 0 else "")
            words.append(f"{seconds:.1f}s")
        else:
            words.append(f"{size(speed, 3)}/s" if speed is not None else "")
            words.append(f"{clock(left)} left" if left is not None and fraction < 1 else "")
        text = "  ".join(filter(None, words))
        line = Text(no_wrap=True, end="").append("Total ", style="bold")
        if any(job.fraction is not None for job in self._jobs):
            bar = min(width - len("Total ") - len(" 100%  ") - cell_len(text), _MAX_BAR)
            if bar >= _MIN_BAR:
                line.append_text(self._bar(fraction, bar)).append(" ")
            line.append(f"{int(fraction * 100):3}%  ", style="bold")
        return line.append(_from_start(text, max(width - cell_len(line.plain), 0), self._marks.more), style="default")

    def _fraction(self) -> float:
        """Return how much of all is done: images weigh as they are big, those of unknown size as the average."""
        jobs = [job for job in self._jobs if job.state != "failed"]
        if not jobs:
            return 1.0
        known = [job.bytes_total for job in jobs if job.bytes_total]
        average = sum(known) / len(known) if known else 1.0
        weights = [job.bytes_total or average for job in jobs]
        done = sum((job.fraction or 0.0) * weight for job, weight in zip(jobs, weights, strict=True))
        return min(done / sum(weights), 1.0)

    def _bar(self, fraction: float | None, width: int) -> Text:
        full = int((fraction or 0.0) * width)
        bar = Text(end="").append(self._marks.full * full, style="green" if full == width else "cyan")
        return bar.append(self._marks.empty * (width - full), style="dim")

    def _rest(self, jobs: Sequence[Job], width: int) -> Text:
        counts = {state: sum(job.state == state for job in jobs) for state in ("running", "waiting", "done", "failed")}
        words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        return Text(_from_start(f"  and {len(jobs)} more: {words}", width, self._marks.more), style="dim", end="")


def _amount(current: int | None, total: int | None) -> str:
    if not current and not total:
        return ""
    if not total or total == current:
        return size(current or 0, 3)
    return f"{size(current or 0, 3)}/{size(total, 3)}"


def _from_start(text: str, width: int, more: str) -> str:
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, width - len(more)).rstrip()}{more}" if width > len(more) else ""


def _from_end(text: str, width: int, more: str) -> str:
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - len(more):
        text = text[1:]
    return f"{more}{text}"

"""How each grows: archives from 1 MiB to 10 GiB, frames from a thousand to a million, streams from 1 to 1,000."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .harness import run
from .job import Job

GIB = 1 << 30
SIZES = (*(1 << power for power in range(20, 33, 2)), 10 * GIB)
COUNTS = (1_000, 10_000, 100_000, 1_000_000)
STREAMS = (1, 10, 100, 1_000)
RUNS = 2
LONG = 2.0  # seconds; what takes longer is measured once


@dataclass(frozen=True)
class Curve:
    """The seconds of one contestant by the size of its job."""

    contestant: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Plot:
    """Curves with one meaning. `ticks` are where the axis of sizes is labelled."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]


def plots(socket: str, directory: Path) -> Iterator[Plot]:
    """Measure all plots."""
    sizes = tuple((float(size), f"{size >> 30} GiB" if size >= GIB else f"{size >> 20} MiB") for size in SIZES)
    source = directory / "growing.tar"
    saved = str(directory / "saved.tar")

    def save(size: int) -> Job:
        return Job("save_file", socket, f"localhost/save:{size}", path=saved, size=size)

    def load(size: int) -> Job:
        with source.open("wb") as file:
            file.truncate(size)
        return Job("load_file", socket, path=str(source), size=size)

    yield _plot("save to a file", sizes, SIZES, save, ("curl", "docker-py", "aiodocker", "ours"))
    yield _plot("load from a file", sizes, SIZES, load, ("curl", "docker-py", "aiodocker", "ours"))
    yield _plot(
        "frames of one pull, each in an HTTP chunk",
        tuple((float(count), f"{count:,}") for count in COUNTS),
        COUNTS,
        lambda count: Job("frames", socket, f"localhost/each:{count}", times=count),
        ("docker-py", "aiodocker", "ours"),
    )
    yield _plot(
        "pulls at once, 500 frames each as fast as they can be read",
        tuple((float(count), f"{count:,}") for count in STREAMS),
        STREAMS,
        lambda count: Job("pulls", socket, f"localhost/paced:500-{count}-1-0", times=count),
        ("aiodocker", "ours"),
    )


def _plot(
    title: str,
    ticks: tuple[tuple[float, str], ...],
    sizes: Sequence[int],
    job: Callable[[int], Job],
    contestants: Sequence[str],
) -> Plot:
    points: dict[str, list[tuple[float, float]]] = {contestant: [] for contestant in contestants}
    for size in sizes:
        seconds: dict[str, list[float]] = {contestant: [] for contestant in contestants}
        for _ in range(RUNS):
            for contestant, measured in seconds.items():
                if not measured or measured[0] < LONG:
                    measured.append(run(contestant, job(size))["seconds"])
        for contestant, measured in seconds.items():
            points[contestant].append((float(size), min(measured)))
    return Plot(title, ticks, tuple(Curve(contestant, tuple(each)) for contestant, each in points.items()))

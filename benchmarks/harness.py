"""Runs contestants by turns, each in a process of its own, and keeps what each run cost."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .job import Job

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
PYTHON = CACHE / "venv" / "bin" / "python"
TIME_LIMIT = 180.0


@dataclass
class Results:
    """What the runs of one contestant cost, one entry for each round: a mapping of measured values."""

    runs: list[Mapping[str, float]] = field(default_factory=list[Mapping[str, float]])

    def median(self, what: str) -> float:
        """Return the median of one measured value."""
        return statistics.median(run[what] for run in self.runs)

    def ratio(self, other: Results, what: str = "seconds") -> tuple[float, float, float]:
        """Return how this compares with the other, round by round: the median, the lowest, the highest."""
        ratios = [mine[what] / max(theirs[what], 1e-9) for mine, theirs in zip(self.runs, other.runs, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


@dataclass(frozen=True)
class Row:
    """One row: a job, who does it, and who is the measure of it.

    `amount` and `unit` make a rate of the seconds. `rounds` is the most that are run, where one takes
    long or varies little. `shown` says how what contestants note beside is shown.
    """

    key: str
    title: str
    contestants: Sequence[str]
    reference: str
    job: Job
    amount: float = 0
    unit: str = ""
    rounds: int | None = None
    shown: Mapping[str, str] = field(default_factory=dict[str, str])


def run(contestant: str, job: Job) -> dict[str, float]:
    """Let a contestant do its job in a process of its own, and return what it measured."""
    if job.what == "import":
        arguments = [str(ROOT / "benchmarks" / "importing.py"), contestant]
    else:
        arguments = ["-m", "benchmarks.worker", contestant, json.dumps(job._asdict())]
    process = subprocess.run(
        [PYTHON, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(f"{contestant} failed at {job.what}:\n{process.stderr.decode()[-4000:]}")
    return dict(json.loads(process.stdout))


def measure(row: Row, rounds: int, between: Callable[[Job], Mapping[str, float] | None]) -> dict[str, Results]:
    """Run all contestants of a row by turns: A B C, A B C, … `between` runs after each and may add to its values."""
    results = {contestant: Results() for contestant in row.contestants}
    for _ in range(min(rounds, row.rounds or rounds)):
        for contestant, kept in results.items():
            measured = run(contestant, row.job)
            measured |= between(row.job) or {}
            kept.runs.append(measured)
            if row.job.path and row.job.what.startswith("save") and Path(row.job.path).is_file():
                Path(row.job.path).unlink()
    return results


@contextmanager
def peer(directory: Path, images: int = 10) -> Generator[str, None, None]:
    """Run the synthetic daemon and give its socket."""
    socket = directory / f"peer-{images}.sock"
    process = subprocess.Popen(
        [PYTHON, "-m", "benchmarks.peer", str(socket), str(images)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the synthetic daemon does not come up")
            time.sleep(0.01)
        yield str(socket)
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)


def install() -> None:
    """Make the environment of the contestants, unless it is there."""
    requirements = ROOT / "benchmarks" / "requirements.txt"
    done = CACHE / "venv" / "done"
    wanted = requirements.read_text() + (ROOT / "constraints.txt").read_text()
    if done.exists() and done.read_text() == wanted:
        return
    print("installing the contestants", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", CACHE / "venv"], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--constraint", str(ROOT / "constraints.txt"), "-r", str(requirements), "aiohttp", "msgspec", "yarl"],
        check=True,
    )
    done.write_text(wanted)

"""What a contestant is to do, and what it cost. Small, for it is imported beside what is measured."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any, NamedTuple, Self


class Job(NamedTuple):
    """One job: `what` names it, the rest is what it needs."""

    what: str
    socket: str = ""
    reference: str = ""  # the image
    references: tuple[str, ...] = ()
    path: str = ""  # the archive
    size: int = 0  # bytes
    times: int = 0  # calls, streams or frames
    concurrency: int = 1
    program: str = ""  # the docker CLI


class Meter:
    """Measures what runs inside of `with`: seconds, CPU seconds of this process, growth of its memory."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        self.notes: dict[str, Any] = {}
        self._resident = 0

    def __enter__(self) -> Self:
        self._resident = memory("VmRSS")
        self._cpu = cpu_seconds()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu = cpu_seconds() - self._cpu

    def report(self) -> dict[str, Any]:
        """Return what was measured; memory in MiB."""
        peak = memory("VmHWM")
        growth = max(peak - self._resident, 0)
        measured = {"seconds": self.seconds, "cpu": self.cpu, "peak": peak / 1024, "growth": growth / 1024}
        return {**measured, **self.notes}


def cpu_seconds() -> float:
    """Return the CPU seconds that this process has taken, in all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory(field: str) -> int:
    """Return a field of /proc/self/status, in KiB: VmRSS is what is resident, VmHWM the most that ever was."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0

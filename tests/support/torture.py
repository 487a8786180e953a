"""The deep runs of `make torture`: python3 -m tests.support.torture PART --seconds N --seed N.

PART is `scripted`, for what needs no Engine, or `engine`, with a private one; `slow` is the part of `scripted` that has
a process of its own. It prints its seed first and a table of the faults injected last, and ends with status 1 and the
command that shows a failure again if there was one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import engines

from . import heavy
from .answer_sweep import OPERATIONS, sweep
from .fault_matrix import run_matrix
from .fault_proxy import KINDS, Fault
from .replay import recording
from .request_sweep import forms_of, sweep_requests
from .strict_daemon import strict_daemon
from .tally import INJECTED, table

BATCH: Final = 500
ARCHIVE: Final = 20 << 30
CALLS: Final = 10_000
MEMORY: Final = 64 << 20
"""Bytes of memory that an archive of any size, or any number of calls, may take."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def scripted(seed: int, seconds: float) -> list[str]:
    """Heavy loads, then faults at random bytes of answers and of requests until the time is over.

    Beside all of them goes a reader that is slow for as long.
    """
    until = time.monotonic() + seconds
    command = (sys.executable, "-m", "tests.support.torture", "slow", "--seconds", str(seconds), "--seed", str(seed))
    slow_reader = await asyncio.create_subprocess_exec(*command)
    try:
        complaints = await _loads_and_faults(seed, until)
    except BaseException:
        slow_reader.kill()
        raise
    finally:
        status = await slow_reader.wait()
    return [*complaints, "a slow reader cost too much"] if status else complaints


async def _loads_and_faults(seed: int, until: float) -> list[str]:
    source = random.Random(seed)
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="adi-", dir="/tmp") as name:
        directory = Path(name)
        complaints += await _heavy(directory)
        say(f"{max(0.0, until - time.monotonic()):.0f} s are left for faults")
        async with strict_daemon(directory / "docker.sock"):
            while True:
                engine, operation = source.choice(list(engines.ENGINES)), source.choice(OPERATIONS)
                wire = recording(engine, operation)
                faults = _faults(source, len(wire), until)
                complaints += await sweep(engine, operation, wire, faults, directory, at_once=32)
                operation, kind = source.choice(OPERATIONS), source.choice(KINDS)
                for form in forms_of(operation, directory):
                    complaints += await sweep_requests(operation, form, kind, directory, source, every_byte=True)
                    if time.monotonic() > until:
                        return complaints


def _in_time(faults: Iterable[Fault], until: float) -> Iterator[Fault]:
    """Yield the faults until then, but one at least."""
    for fault in faults:
        yield fault
        if time.monotonic() > until:
            return


def _faults(source: random.Random, size: int, until: float) -> Iterator[Fault]:
    kind = source.choice(KINDS)  # of one kind, for one stall among others holds up all that begin with it
    return _in_time((Fault.random(source, kind, "answer", size) for _ in range(BATCH)), until)


async def _heavy(directory: Path) -> list[str]:
    complaints: list[str] = []
    grown = await heavy.calls(directory, CALLS)
    say(f"{CALLS} calls: {grown.memory} bytes of memory and {grown.descriptors} descriptors more after them")
    if grown.memory > MEMORY or grown.descriptors > 0:
        complaints.append(f"{CALLS} calls left {grown}")
    (directory / "docker.sock").unlink(missing_ok=True)
    peaks = await heavy.archive(directory, ARCHIVE)
    say(f"a save and a load of {ARCHIVE >> 30} GiB took at most {peaks} bytes of memory")
    if max(peaks.values()) > MEMORY:
        complaints.append(f"{ARCHIVE >> 30} GiB took {peaks}")
    (directory / "docker.sock").unlink(missing_ok=True)
    return complaints


async def slow(seed: int, seconds: float) -> list[str]:
    """Read slowly of a daemon that is fast; in a process of its own, for memory is measured. Nothing is random here."""
    with tempfile.TemporaryDirectory(prefix="adi-", dir="/tmp") as name:
        cost = await heavy.slow_reader(Path(name), seconds)
    say(f"a reader that was slow for {seconds:.0f} s: {cost['sent']} bytes came, {cost['memory']} of memory")
    return [f"a slow reader cost {cost}"] if max(cost.values()) > MEMORY else []


async def on_engine(seed: int, seconds: float) -> list[str]:
    """Run the matrix of operations and faults again and again until the time is over."""
    until = time.monotonic() + seconds
    source = random.Random(seed)
    complaints: list[str] = []
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory(prefix="adi-", dir="/tmp") as name:
            complaints += await run_matrix(
                os.environ["ENGINE"], os.environ["DOCKER_HOST"], os.environ["REGISTRY"], Path(name), source
            )
    return complaints


def main() -> int:
    """Run a part and return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.support.torture")
    parts = {"scripted": scripted, "engine": on_engine, "slow": slow}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    name = os.environ["ENGINE"] if options.part == "engine" else options.part
    say(f"--- {name}: seed {options.seed}, {options.seconds:.0f} s")
    part = parts[options.part]
    reported: list[str] = []

    async def run() -> list[str]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(f"asyncio: {context}"))
        return await part(options.seed, options.seconds)

    complaints = asyncio.run(run()) + reported
    for line in table(INJECTED):
        say(line)
    for complaint in complaints:
        say(f"FAILED {complaint}")
    if complaints:
        engine = f" ENGINES={name}" if options.part == "engine" else ""
        # What is given is shared by the scripted part and one Engine.
        say(f"again: make torture SEED={options.seed} SECONDS={2 * options.seconds:.0f}{engine}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure the library and its peers by turns, and print what came of it as one table.

    python -m benchmarks [--rows save,podman] [--rounds 7]

With neither, it runs everything and writes its section of RESULTS.md, and growth.svg beside it. The Engines need root.
With "registries" among the rows, or without any, it also writes the section on copies between registries.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import engines

from . import engine_rows, registries, report, rows
from .growth import plots
from .harness import CACHE, ROOT, Results, Row, install, measure, peer
from .peer import BLOCK, frame
from .picture import draw
from .results import write

ROOMY = 6 << 30  # bytes that archives take at once
PROGRAM_TURNS = 7


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("--rows", default="", help="keys or beginnings of keys, with commas between")
    parser.add_argument("--rounds", type=int, default=PROGRAM_TURNS)
    options = parser.parse_args()
    names: str = options.rows
    wanted = tuple(name for name in names.split(",") if name)

    def chosen(key: str) -> bool:
        return not wanted or key.startswith(wanted)

    started = time.monotonic()
    install()
    _between_registries(options.rounds, chosen, started, is_written=not wanted or "registries" in wanted)
    if wanted and all(name.startswith("registries") for name in wanted):
        return
    engines.prepare(engines.DEFAULT)
    cli = str(engines.docker_cli())
    measured: list[tuple[Row, dict[str, Results]]] = []
    with tempfile.TemporaryDirectory(dir=_roomy()) as name:
        directory = Path(name)
        for row, results in _all(directory, cli, options.rounds, chosen):
            measured.append((row, results))
            print(f"{time.monotonic() - started:4.0f} s  {row.key}", file=sys.stderr)
        text = "\n\n".join(
            [report.targets(measured), report.table(measured), report.circumstances(options.rounds, cli)]
        )
        print(text)
        if not wanted or chosen("growth"):
            with peer(directory) as socket:
                (ROOT / "benchmarks" / "growth.svg").write_text(draw(list(plots(socket, directory))))
    if not wanted:
        title = "## Operations\n\n`make bench` writes this section.\n\n![How each grows](growth.svg)"
        write("operations", f"{title}\n\n{text}")
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


def _between_registries(rounds: int, chosen: Callable[[str], bool], started: float, *, is_written: bool) -> None:
    """Measure copies between registries, as far as they are chosen: with peers, and a section, of their own."""
    measured: list[tuple[Row, dict[str, Results]]] = []
    with tempfile.TemporaryDirectory(dir=_roomy()) as name:
        for row, results in registries.measured(Path(name), rounds, chosen):
            measured.append((row, results))
            print(f"{time.monotonic() - started:4.0f} s  {row.key}", file=sys.stderr)
    if measured:
        print(text := registries.section(measured, rounds))
        if is_written:
            write("registries", text)


def _all(
    directory: Path, cli: str, rounds: int, chosen: Callable[[str], bool]
) -> Iterator[tuple[Row, dict[str, Results]]]:
    """Measure what is chosen."""
    with (directory / "frames.json").open("wb") as file:
        block = b"".join(map(frame, range(BLOCK)))
        for _ in range(rows.FRAMES // BLOCK):
            file.write(block)
    with (directory / "source.tar").open("wb") as file:
        for _ in range(rows.GIB // rows.MIB):
            file.write(bytes(rows.MIB))
    with (directory / "sparse.tar").open("wb") as file:
        file.truncate(10 * rows.GIB)
    with peer(directory) as socket, peer(directory, images=1000) as socket_1000:
        for row in (
            *rows.imports(),
            *rows.transfers(socket, cli, directory),
            *rows.streams(socket),
            *rows.calls(socket, socket_1000),
            *rows.memory(socket, directory),
        ):
            if chosen(row.key):
                yield row, measure(row, rounds, lambda _: None)
    if chosen("registry"):
        yield from engine_rows.pulls(rounds)
    (directory / "source.tar").unlink()
    for name in engines.ENGINES:
        yield from engine_rows.transfers(name, cli, directory, rounds, chosen)


def _roomy() -> Path:
    """Return a directory in memory if there is room, so that no disk is measured."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * ROOMY:
        return memory
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


if __name__ == "__main__":
    main()

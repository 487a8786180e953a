"""Each operation under every fault, at every byte of what real Engines answered: a whole result or our exception.

Without `--every-byte` only a sample of the bytes is cut, so that an ordinary run of the tests is short.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import engines
from tests.conftest import Leftovers
from tests.support.answer_sweep import OPERATIONS, sampled, sweep
from tests.support.fault_proxy import KINDS, Fault, Kind
from tests.support.replay import recording
from tests.support.request_sweep import forms_of, sweep_requests
from tests.support.strict_daemon import strict_daemon

SAMPLE: Final = 16
"""Faults of each kind but cuts that each recording meets here; `make torture` has more."""

all_operations = pytest.mark.parametrize("operation", OPERATIONS)


@pytest.mark.parametrize("engine", engines.ENGINES)
@all_operations
async def test_an_answer_cut_after_any_byte_is_an_interruption(
    short_path: Path, leftovers: Leftovers, every_byte: bool, operation: str, engine: str
) -> None:
    """Cut after every single byte but the last, it never looks like a success, nor like somebody else's error."""
    before = leftovers.now()
    wire = recording(engine, operation)
    offsets = range(len(wire)) if every_byte else sampled(range(len(wire)))
    faults = (Fault(kind="cut", direction="answer", offset=offset) for offset in offsets)
    assert await sweep(engine, operation, wire, faults, short_path) == []
    await leftovers.settle(before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cut"])
@all_operations
async def test_an_answer_under_a_fault_is_whole_or_our_exception(
    short_path: Path, leftovers: Leftovers, operation: str, kind: Kind
) -> None:
    """Whatever loses nothing must succeed, whatever ends the answer must not; of a lie, either is right."""
    before = leftovers.now()
    complaints: list[str] = []
    for engine in engines.ENGINES:
        wire = recording(engine, operation)
        faults = some_faults(random.Random(f"{engine} {operation} {kind}"), kind, len(wire))
        complaints += await sweep(engine, operation, wire, faults, short_path / engine, at_once=SAMPLE)
    assert complaints == []
    await leftovers.settle(before)


def some_faults(source: random.Random, kind: Kind, size: int) -> Iterator[Fault]:
    for _ in range(SAMPLE):
        yield Fault.random(source, kind, "answer", size)


@pytest.mark.parametrize("kind", KINDS)
@all_operations
async def test_a_request_under_a_fault_is_whole_or_our_exception(
    short_path: Path, leftovers: Leftovers, every_byte: bool, operation: str, kind: Kind
) -> None:
    """Cut at every byte, but of a large file's; else, where heads, chunks and bodies begin and end, and between."""
    before = leftovers.now()
    async with strict_daemon(short_path / "docker.sock"):
        complaints = [
            wrong
            for form in forms_of(operation, short_path)
            for wrong in await sweep_requests(
                operation, form, kind, short_path, random.Random(f"{operation} {form} {kind}"), every_byte=every_byte
            )
        ]
    assert complaints == []
    await leftovers.settle(before)

"""Many calls, large archives and slow readers cost no more than few, small and fast ones; `make torture` has more."""

from __future__ import annotations

from pathlib import Path

from tests.support import heavy


async def test_a_thousand_calls_leave_no_more_than_a_hundred(short_path: Path) -> None:
    """Neither memory, but for what the allocator keeps, nor descriptors, nor connections."""
    grown = await heavy.calls(short_path, 1000)
    assert grown.memory < 4 << 20
    assert grown.descriptors <= 0


async def test_half_a_gibibyte_is_saved_and_loaded_in_constant_memory(short_path: Path) -> None:
    """What is between the disk and the socket is some pieces of 1 to 4 MiB."""
    peaks = await heavy.archive(short_path, 512 << 20)
    assert max(peaks.values()) < 64 << 20, peaks


async def test_a_slow_reader_costs_no_memory(short_path: Path) -> None:
    cost = await heavy.slow_reader(short_path, 2)
    assert cost["sent"] < 4 << 20
    assert cost["memory"] < 16 << 20

"""The guard of a kept connection, and the memory that it reads into. What it refuses is in test_hostile."""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp.client_proto import ResponseHandler

from aiodocker_images._guard import FIRST_READ, LARGEST_READ, GuardedResponse


class Recorder:
    """In aiohttp's place: keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.given.append(data)

    def exception(self) -> None: ...


def test_what_comes_passes_through_memory_that_grows_with_it() -> None:
    """Each piece is a copy: what is read next into the same memory does not change it."""
    recorder, nowhere = Recorder(), cast("asyncio.Transport", None)
    guard = GuardedResponse.buffered_guard_class(nowhere, cast("ResponseHandler", recorder))
    assert isinstance(guard, asyncio.BufferedProtocol)
    data, sizes = bytes(range(250)) * 2_400, list[int]()
    left = memoryview(data)
    while left:
        memory = memoryview(guard.get_buffer(-1))
        size = min(len(memory), len(left))
        memory[:size], left = left[:size], left[size:]
        guard.buffer_updated(size)
        sizes.append(len(memory))
    assert b"".join(recorder.given) == data
    assert sizes[:5] == [FIRST_READ, 2 * FIRST_READ, 4 * FIRST_READ, LARGEST_READ, LARGEST_READ]
    assert set(sizes[4:]) == {LARGEST_READ}


def test_little_asks_for_no_more_memory() -> None:
    recorder = Recorder()
    guard = GuardedResponse.buffered_guard_class(cast("asyncio.Transport", None), cast("ResponseHandler", recorder))
    assert isinstance(guard, asyncio.BufferedProtocol)
    for _ in range(5):
        memoryview(guard.get_buffer(-1))[:3] = b"abc"
        guard.buffer_updated(3)
    assert recorder.given == [b"abc"] * 5
    assert len(memoryview(guard.get_buffer(-1))) == FIRST_READ

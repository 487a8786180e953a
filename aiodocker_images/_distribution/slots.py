"""How many blobs move at once, from and to each registry."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Final

__all__ = ["Slots"]

SMALL: Final = 1 << 20
"""Bytes of a blob that has slots of its own: configurations and the like do not wait for layers to pass."""


class Slots:
    """Slots of registries. `limit` says how many a registry has, of small blobs and as many again of others.

    A blob gets the slots of all registries that it concerns at once, or none: so nobody holds the slot of one registry
    while waiting for another that is slow. Of those that wait, the smallest goes first.
    """

    def __init__(self, limit: Callable[[str], int]) -> None:
        self._limit = limit
        self._busy: Counter[tuple[str, bool]] = Counter()
        self._waiting: list[tuple[int, int, frozenset[tuple[str, bool]], asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    @contextlib.asynccontextmanager
    async def hold(self, registries: frozenset[str], size: int | None) -> AsyncGenerator[None, None]:
        """Wait for a slot of each of the registries, for a blob of `size` bytes (None: unknown)."""
        small = size is not None and size <= SMALL
        wanted = frozenset((registry, small) for registry in registries)
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (size if size is not None else 1 << 62, next(self._numbers), wanted, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release(wanted)
            raise
        try:
            yield
        finally:
            self._release(wanted)

    def _release(self, held: frozenset[tuple[str, bool]]) -> None:
        self._busy.subtract(held)
        self._grant()

    def _grant(self) -> None:
        passed_over: list[tuple[int, int, frozenset[tuple[str, bool]], asyncio.Future[None]]] = []
        while self._waiting:
            wish = heapq.heappop(self._waiting)
            _, _, wanted, granted = wish
            if granted.done():  # cancelled
                continue
            if all(self._busy[each] < self._limit(each[0]) for each in wanted):
                self._busy.update(wanted)
                granted.set_result(None)
            else:
                passed_over.append(wish)
        self._waiting = passed_over  # in order, and so a heap

"""Who may transfer now: so many at once, so many with each registry, none with one that asked to slow down."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiodocker_images.errors import RateLimitedError

from .jobs import Retry

__all__ = ["AHEAD", "CHECKS", "Slots"]

CHECKS: Final = 16
"""How many questions a registry is asked at once. They do not wait for transfers."""

AHEAD: Final = 2
"""How many images are begun for a registry, for each transfer at once: pulls go on while pushes wait for a layer."""


@dataclass(eq=False, slots=True)
class _Wish:
    registry: str
    targets: frozenset[str]
    layers: frozenset[str]
    number: int
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Slots:
    """Transfers at once, in all and with each registry, and images that are on their way.

    What a transfer needs it gets all at once or not at all: none holds one slot while it waits for another, so
    none is stuck behind a registry that it has nothing to do with. Pushes go before pulls, and no more images are
    begun than `AHEAD` says for a registry that they go to, and none for one that asked to slow down: the Engine's
    disk holds only so many. A layer is uploaded to a registry once: a push that has it, too, waits, and then finds
    it there.
    """

    def __init__(
        self,
        concurrency: int,
        per_registry: int | Mapping[str, int] | None,
        retry: Retry,
        *,
        on_pause: Callable[[str, float], object] | None = None,
    ) -> None:
        self._concurrency = concurrency
        self._per_registry = per_registry
        self._retry = retry
        self._on_pause = on_pause
        self._transfers = 0
        self._images: Counter[str] = Counter()
        self._busy: Counter[str] = Counter()
        self._numbers = itertools.count()
        # By all that a pull's turn depends on: of thousands with the same, only the first need be looked at.
        self._pulls: dict[tuple[str, frozenset[str]], deque[_Wish]] = {}
        self._pushes: deque[_Wish] = deque()
        self._uploading: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._uploaded: defaultdict[str, set[str]] = defaultdict(set)
        self._resume: dict[str, float] = {}
        self._strikes: Counter[str] = Counter()
        self._checks: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(CHECKS))

    @contextlib.asynccontextmanager
    async def transfer(
        self, registry: str, *, targets: frozenset[str] = frozenset(), layers: frozenset[str] = frozenset()
    ) -> AsyncGenerator[None, None]:
        """Wait for a transfer with `registry`: of a push, which names its `layers`, or of a pull.

        A pull names the `targets` that its image is for, and waits until one of them has room for it, which stays
        taken until `image_done`.
        """
        wish = _Wish(registry, targets, layers, next(self._numbers))
        waiting = self._pulls.setdefault((registry, targets), deque()) if targets else self._pushes
        waiting.append(wish)
        self._grant()
        try:
            await wish.granted
        except asyncio.CancelledError:
            if wish.granted.done() and not wish.granted.cancelled():
                self._release(wish)
                self.image_done(targets)
            else:
                waiting.remove(wish)
                self._grant()  # to those behind it
            raise
        try:
            with self._heard(registry):
                yield
            self._uploaded[registry] |= layers
        finally:
            self._release(wish)

    @contextlib.asynccontextmanager
    async def check(self, registry: str) -> AsyncGenerator[None, None]:
        """Wait until `registry` may be asked something."""
        async with self._checks[registry]:
            while (seconds := self._pause_of(registry)) > 0:  # noqa: ASYNC110 - until a time, which may be put off
                await asyncio.sleep(seconds)
            with self._heard(registry):
                yield

    @contextlib.contextmanager
    def _heard(self, registry: str) -> Generator[None, None, None]:
        """Take notice of a rate limit, before the slot goes to another who would meet it as well."""
        try:
            yield
        except RateLimitedError:
            self._slow_down(registry)
            raise
        else:
            self._strikes.pop(registry, None)

    def image_done(self, targets: frozenset[str]) -> None:
        """Make room for another image that is for these registries."""
        self._images.subtract(targets)
        self._grant()

    def _slow_down(self, registry: str) -> None:
        """Pause all that has to do with `registry`, for longer each time that it asks for it in a row; tell others."""
        if self._pause_of(registry) > 0:
            return  # the answer to what was sent before the pause
        seconds = min(self._retry.maximum, self._retry.initial * 2.0 ** min(self._strikes[registry], 60))
        seconds += random.uniform(0, self._retry.jitter)  # noqa: S311 - so that not all come back at once
        self._strikes[registry] += 1
        self.pause(registry, seconds)
        if self._on_pause is not None:
            self._on_pause(registry, seconds)

    def pause(self, registry: str, seconds: float) -> None:
        """Leave `registry` alone for so many seconds, or for longer if it is to be already."""
        loop = asyncio.get_running_loop()
        self._resume[registry] = max(self._resume.get(registry, 0.0), loop.time() + seconds)
        loop.call_later(seconds, self._grant)

    def _pause_of(self, registry: str) -> float:
        """Return for how many seconds `registry` is to be left alone."""
        return self._resume.get(registry, 0.0) - asyncio.get_running_loop().time()

    def _limit(self, registry: str) -> int:
        if self._per_registry is None or isinstance(self._per_registry, int):
            return self._per_registry or self._concurrency
        return self._per_registry.get(registry, self._concurrency)

    def _grant(self) -> None:
        for wish in tuple(self._pushes):
            if self._transfers < self._concurrency and self._fits(wish):
                self._pushes.remove(wish)
                self._begin(wish)
        while self._transfers < self._concurrency:
            fitting = [waiting for waiting in self._pulls.values() if waiting and self._fits(waiting[0])]
            if not fitting:
                return
            self._begin(min(fitting, key=lambda waiting: waiting[0].number).popleft())

    def _begin(self, wish: _Wish) -> None:
        self._transfers += 1
        self._busy[wish.registry] += 1
        self._images.update(wish.targets)
        self._uploading[wish.registry].update(wish.layers)
        wish.granted.set_result(None)

    def _fits(self, wish: _Wish) -> bool:
        return (
            not wish.granted.done()  # cancelled, and about to be removed
            and self._busy[wish.registry] < self._limit(wish.registry)
            and self._pause_of(wish.registry) <= 0
            and (not wish.targets or any(self._has_room(target) for target in wish.targets))
            and not any(self._uploading[wish.registry][each] for each in wish.layers - self._uploaded[wish.registry])
        )

    def _has_room(self, target: str) -> bool:
        return self._images[target] < AHEAD * self._concurrency and self._pause_of(target) <= 0

    def _release(self, wish: _Wish) -> None:
        self._transfers -= 1
        self._busy[wish.registry] -= 1
        self._uploading[wish.registry].subtract(wish.layers)
        self._grant()

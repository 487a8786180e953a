"""Who may transfer now: so many at once, so many with each registry, none with one that asked to slow down."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiodocker_images.errors import RateLimitedError

from .jobs import Retry

__all__ = ["CHECKS", "Slots"]

CHECKS: Final = 8
"""How many questions a registry is asked at once. They do not wait for transfers."""


@dataclass(eq=False, slots=True)
class _Wish:
    registry: str
    image: bool
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Slots:
    """Transfers at once, in all and with each registry, and images that are on their way.

    What a transfer needs it gets all at once or not at all: none holds one slot while it waits for another, so
    none is stuck behind a registry that it has nothing to do with. Pushes go before pulls, and an image that
    was begun is ended before more are begun than `concurrency`: the Engine's disk holds only so many.
    """

    def __init__(self, concurrency: int, per_registry: int | Mapping[str, int] | None, retry: Retry) -> None:
        self._concurrency = concurrency
        self._per_registry = per_registry
        self._retry = retry
        self._transfers = 0
        self._images = 0
        self._busy: Counter[str] = Counter()
        self._pulls: deque[_Wish] = deque()
        self._pushes: deque[_Wish] = deque()
        self._resume: dict[str, float] = {}
        self._strikes: Counter[str] = Counter()
        self._checks: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(CHECKS))

    @contextlib.asynccontextmanager
    async def transfer(self, registry: str, *, image: bool = False) -> AsyncGenerator[None, None]:
        """Wait for a transfer with `registry`; with `image`, for room for one image more as well.

        The room for the image stays taken until `image_done`.
        """
        wish = _Wish(registry, image)
        (self._pulls if image else self._pushes).append(wish)
        self._grant()
        try:
            await wish.granted
        except asyncio.CancelledError:
            if wish.granted.done() and not wish.granted.cancelled():
                self._release(registry)
                if image:
                    self.image_done()
            else:
                (self._pulls if image else self._pushes).remove(wish)
            raise
        try:
            with self._heard(registry):
                yield
        finally:
            self._release(registry)

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

    def image_done(self) -> None:
        """Make room for another image."""
        self._images -= 1
        self._grant()

    def _slow_down(self, registry: str) -> None:
        """Pause all that has to do with `registry`, for longer each time that it asks for it in a row."""
        if self._pause_of(registry) > 0:
            return  # the answer to what was sent before the pause
        loop = asyncio.get_running_loop()
        seconds = min(self._retry.maximum, self._retry.initial * 2.0 ** min(self._strikes[registry], 60))
        seconds += random.uniform(0, self._retry.jitter)  # noqa: S311 - so that not all come back at once
        self._strikes[registry] += 1
        self._resume[registry] = loop.time() + seconds
        loop.call_later(seconds, self._grant)

    def _pause_of(self, registry: str) -> float:
        """Return for how many seconds `registry` is to be left alone."""
        return self._resume.get(registry, 0.0) - asyncio.get_running_loop().time()

    def _limit(self, registry: str) -> int:
        if self._per_registry is None or isinstance(self._per_registry, int):
            return self._per_registry or self._concurrency
        return self._per_registry.get(registry, self._concurrency)

    def _grant(self) -> None:
        for waiting in (self._pushes, self._pulls):
            for wish in tuple(waiting):
                if self._transfers >= self._concurrency:
                    return
                if self._fits(wish):
                    waiting.remove(wish)
                    self._transfers += 1
                    self._busy[wish.registry] += 1
                    self._images += wish.image
                    wish.granted.set_result(None)

    def _fits(self, wish: _Wish) -> bool:
        return (
            not wish.granted.done()  # cancelled, and about to be removed
            and self._busy[wish.registry] < self._limit(wish.registry)
            and not (wish.image and self._images >= self._concurrency)
            and self._pause_of(wish.registry) <= 0
        )

    def _release(self, registry: str) -> None:
        self._transfers -= 1
        self._busy[registry] -= 1
        self._grant()

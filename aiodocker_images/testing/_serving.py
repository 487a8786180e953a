"""What all fakes have: a life with `async with` or a plain `with`, faults, and what they were asked."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from ._exchange import Request
from .faults import Fault, Faults, Injection, NotFakedError

_IDLE_POLL: Final = 0.002


class Serving:
    """The life of a fake. A subclass starts and stops its servers, and `_unfaked` has what it refused."""

    def __init__(self, faults: Faults, *, strict: bool, refusal: int) -> None:
        self.requests: list[Request] = []
        self._faults = faults
        self._refusal = refusal
        self._strict = strict
        self._unfaked: list[str] = []
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

    async def _start(self) -> None:
        raise NotImplementedError

    async def _stop(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        if failure is None:
            self._check_faked()

    def __enter__(self) -> Self:
        ready = threading.Event()
        failures: list[BaseException] = []

        async def serve() -> None:
            loop, end = asyncio.get_running_loop(), asyncio.Event()
            self._end = lambda: loop.call_soon_threadsafe(end.set)
            try:
                await self._start()
                ready.set()
                await end.wait()
            finally:
                await self._stop()

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as problem:  # noqa: BLE001 - raised in the thread that waits for this one
                failures.append(problem)
            finally:
                ready.set()

        self._thread = threading.Thread(target=run, name=type(self).__name__, daemon=True)
        self._thread.start()
        ready.wait()
        if failures:
            self._thread.join()
            raise failures[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._thread is not None:
            self._thread.join()
        if failure is None:
            self._check_faked()

    def _check_faked(self) -> None:
        if self._strict and self._unfaked:
            asked = ", ".join(self._unfaked)
            self._unfaked.clear()
            name = type(self).__name__
            raise NotFakedError(
                f"{name} was asked for what it does not fake: {asked}; it answered {self._refusal}. "
                f"If that is the answer that the test wants, say {name}(strict=False)."
            )

    @property
    def connections(self) -> int:
        """How many connections are open."""
        raise NotImplementedError

    # What was asked, and what goes wrong

    def asked(self, step: str | None = None, *, reference: str | None = None) -> list[Request]:
        """Return the requests of a step, such as "GET manifest", "GET" or "manifest", and for a tag or digest."""
        if step is not None:
            self._faults.check_step(step)
        return [
            each
            for each in tuple(self.requests)
            if (step is None or step == each.step or step in each.step.split()) and reference in (None, each.reference)
        ]

    def count(self, step: str | None = None, *, reference: str | None = None) -> int:
        """Return how many requests of a step there were."""
        return len(self.asked(step, reference=reference))

    @property
    def counts(self) -> Counter[str]:
        """How many requests of each step there were."""
        return Counter(each.step for each in tuple(self.requests))

    @property
    def _answering(self) -> bool:
        return any(not each.done for each in tuple(self.requests))

    async def idle(self, *, keep_alive: bool = False) -> None:
        """Wait until no request is being answered and, unless `keep_alive`, no connection is open."""
        while self._answering or (self.connections and not keep_alive):  # noqa: ASYNC110 - it may be served elsewhere
            await asyncio.sleep(_IDLE_POLL)

    def fail(
        self,
        fault: Fault,
        *,
        on: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        reference: str | None = None,
    ) -> Injection:
        """Have a fault meet the next `times` requests (None: every one) of a step, after `skip` that it passes over.

        `on` is a step ("GET manifest"), a method ("GET"), a noun ("manifest"), or None for every request. With
        `reference`, only requests for that tag or digest are met. Requests that authentication refuses are not
        counted. One request meets one fault: of several that fit, the one that was named first.
        """
        return self._faults.add(fault, on, times, skip, reference)

    def clear_faults(self) -> None:
        """Forget all faults; what they hold up goes on."""
        self._faults.clear()

    @property
    def pending_faults(self) -> list[Injection]:
        """The faults that have not happened as often as they were to."""
        return self._faults.pending()

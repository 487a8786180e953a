"""`SharedPulls`: one pull of an image for all who want to watch it, as the page of a web backend does."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from ._document import Document
from .errors import DockerError, ServiceClosedError
from .models import Platform
from .progress import ProgressFrame, ProgressSnapshot, ProgressTracker
from .reference import Reference
from .results import PullResult

if TYPE_CHECKING:
    from .credentials import RegistryAuth
    from .service import ImageService

__all__ = ["PullState", "SharedPulls"]

_Key: TypeAlias = "tuple[Reference, Platform | None, RegistryAuth | None]"


class PullState(Document, frozen=True, kw_only=True):
    """How far a shared pull has come; in the last one `result` says what came of it."""

    reference: str
    progress: ProgressSnapshot
    result: PullResult | None = None


class SharedPulls:
    """Pulls that are watched by any number of tasks, each image pulled once at a time.

    ::

        pulls = SharedPulls(images)
        async for state in pulls.watch("alpine:3.20"):
            await page.send(state.to_json())

    A second request for the same image and platform joins the pull that is under way, and begins with its present
    state. Each watcher gets the newest state when it is ready for one, so a slow one misses some and holds up nobody.
    Everything else is as with `ImageService.pull`, and a pull that fails raises for each of its watchers.

    Args:
        images: The service that pulls. It stays open.
        keep: Whether a pull goes on when its last watcher has left; otherwise it is ended, on the Engine as well.

    """

    def __init__(self, images: ImageService, *, keep: bool = False) -> None:
        self._images = images
        self._keep = keep
        self._pulls: dict[_Key, _Pull] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def active(self) -> tuple[str, ...]:
        """The names of the images that are being pulled now."""
        return tuple(pull.image.familiar for pull in self._pulls.values())

    def watch(
        self, reference: str | Reference, *, platform: str | Platform | None = None, auth: RegistryAuth | None = None
    ) -> AsyncGenerator[PullState, None]:
        """Pull an image, or join its pull, and yield how far it has come; the last state has the result.

        `platform` and `auth` as for `ImageService.pull`; only calls with the same ones share a pull. Leaving the
        generator is leaving the pull, which ends with its last watcher unless `keep`.

        Raises what `ImageService.pull` raises, and `ServiceClosedError` after `aclose`.
        """
        image = Reference.parse(reference).with_default_tag()
        wanted = None if platform is None else Platform.parse(platform)
        return self._watch(image, wanted, auth)

    async def _watch(
        self, image: Reference, platform: Platform | None, auth: RegistryAuth | None
    ) -> AsyncGenerator[PullState, None]:
        if self._closed:
            raise ServiceClosedError("the shared pulls are closed", operation=f"pull {image.familiar}")
        key = (image, platform, auth)
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull(image)
            pull.task = asyncio.ensure_future(self._run(key, pull, platform, auth))
        pull.watchers += 1
        try:
            async for state in pull.states():
                yield state
        finally:
            pull.watchers -= 1
            if not (pull.watchers or self._keep):
                await self._end(key, pull)

    async def aclose(self) -> None:
        """End all pulls, and wait until they have ended. Their watchers get a `ServiceClosedError`. Idempotent."""
        self._closed = True
        for key, pull in list(self._pulls.items()):
            await self._end(key, pull)

    async def _run(self, key: _Key, pull: _Pull, platform: Platform | None, auth: RegistryAuth | None) -> None:
        try:
            result = await self._images.pull(pull.image, platform=platform, auth=auth, on_progress=pull.take)
        except asyncio.CancelledError:
            pull.fail(ServiceClosedError("the shared pull was ended", operation=f"pull {pull.image.familiar}"))
            raise
        except Exception as error:  # noqa: BLE001 - which each of the watchers raises
            pull.fail(error)
        else:
            pull.succeed(result)
        finally:
            self._forget(key, pull)

    def _forget(self, key: _Key, pull: _Pull) -> None:
        if self._pulls.get(key) is pull:
            del self._pulls[key]

    async def _end(self, key: _Key, pull: _Pull) -> None:
        self._forget(key, pull)  # whoever comes now begins another
        pull.task.cancel()
        await asyncio.wait({pull.task})


class _Pull:
    """One pull: its state, and how its watchers learn of another."""

    task: asyncio.Future[None]

    def __init__(self, image: Reference) -> None:
        self.image = image
        self.watchers = 0
        self._tracker = ProgressTracker()
        self._version = 0
        self._changed = asyncio.Event()
        self._snapshot: tuple[int, PullState] | None = None
        self._result: PullResult | None = None
        self._failure: BaseException | None = None
        self._ended = False

    def take(self, frame: ProgressFrame) -> None:
        self._tracker.update(frame)
        self._tell()

    def succeed(self, result: PullResult) -> None:
        self._tracker.finish()
        self._result, self._ended = result, True
        self._tell()

    def fail(self, error: BaseException) -> None:
        self._failure, self._ended = error, True
        self._tell()

    async def states(self) -> AsyncGenerator[PullState, None]:
        seen = -1
        while True:
            while seen == self._version and not self._ended:
                await self._changed.wait()
            if self._failure is not None:
                raise self._own_failure(self._failure)
            ended, seen = self._ended, self._version
            yield self._state()
            if ended:
                return

    def _tell(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _state(self) -> PullState:
        """Make the state once for all who are ready for it at the same time."""
        if self._snapshot is None or self._snapshot[0] != self._version:
            state = PullState(reference=self.image.familiar, progress=self._tracker.snapshot(), result=self._result)
            self._snapshot = self._version, state
        return self._snapshot[1]

    @staticmethod
    def _own_failure(error: BaseException) -> BaseException:
        """Return an error for one watcher, without the tracebacks of the others."""
        if not isinstance(error, DockerError):
            return error
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        return own

"""The API version that is spoken with the Engine: negotiated once, and again when another Engine answers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable

from aiodocker_images._aio.threads import retrieve
from aiodocker_images.api_version import APIVersion, negotiated
from aiodocker_images.errors import ConfigError, DaemonUnreachableError, DockerError
from aiodocker_images.models import Ping

__all__ = ["Negotiation"]


class Negotiation:
    """The version of one service. `current` is None until it is negotiated; a `pinned` one is spoken as it is.

    `interrupted` returns what a call under way meets when the service is closed, None as long as it is not.
    """

    def __init__(
        self,
        pinned: APIVersion | None,
        ping: Callable[[], Awaitable[Ping]],
        *,
        interrupted: Callable[[], DockerError | None],
    ) -> None:
        self.current = pinned
        self._pinned = pinned
        self._ping = ping
        self._interrupted = interrupted
        self._announced: str | None = None  # by the Engine that it was negotiated with
        self._other: str | None = None  # that another answer announced
        self._task: asyncio.Task[APIVersion] | None = None

    def forget(self) -> None:
        """Ask again before the next request: another Engine may have come up there."""
        self.current = self._pinned

    def heard(self, announced: str | None) -> None:
        """Note the newest version of the Engine that answers: every answer of one has it.

        If it is not the version that was announced when we negotiated, then the Engine was replaced meanwhile, and
        the next request negotiates again.
        """
        if announced and self._announced is not None and announced not in {self._announced, self._other}:
            self._other = announced  # asked about once: a proxy may answer pings itself
            self.forget()

    async def negotiated(self) -> APIVersion:
        """Return the version to speak; concurrent first calls share one ping, and its failure."""
        if self.current is not None:
            return self.current
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._negotiate(), name="negotiate the Engine API version")
            # All callers may have been cancelled when it fails: then nobody else looks at the exception.
            self._task.add_done_callback(retrieve)
        await asyncio.wait([task := self._task])  # no shield: Python 3.14's logs what fails later
        try:
            return task.result()
        except DockerError as error:
            # Each caller gets its own, to be located and raised without the others' tracebacks.
            raise copy.copy(error) from error.__cause__

    async def aclose(self) -> None:
        """End a negotiation under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _negotiate(self) -> APIVersion:
        try:
            answer = (await self._ping()).api_version
        except asyncio.CancelledError:
            if (interruption := self._interrupted()) is not None:  # nobody cancelled the callers
                raise interruption from None
            raise
        try:
            daemon = APIVersion.parse(answer)
        except ConfigError as error:
            message = f"the Api-Version in the answer to the ping is not usable: {answer[:40]!r}"
            raise DaemonUnreachableError(message) from error
        self._announced, self.current = answer, negotiated(daemon)
        return self.current

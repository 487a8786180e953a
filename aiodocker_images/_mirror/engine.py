"""What a run needs to know of the Engine that it works through, each asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, cast

from aiodocker_images.models import EngineVersion, Platform
from aiodocker_images.service import ImageService

__all__ = ["EngineFacts", "Patiently"]

T = TypeVar("T")


class Tried(Protocol):
    """A job, or several that share a pull."""

    retries: int


class Patiently(Protocol):
    """Runs a step, and runs it again after a failure that may pass; what is tried counts how often."""

    def __call__(self, step: Callable[[], Awaitable[T]], tried: Tried | None = None, /) -> Awaitable[T]:
        """Return what the step returned in the end."""
        ...


class EngineFacts:
    """The identity, the kind and the image store of an Engine."""

    def __init__(self, images: ImageService, patiently: Patiently) -> None:
        self._images = images
        self._patiently = patiently
        self._asking = asyncio.Lock()
        self._version: EngineVersion | None = None
        self._info: dict[str, object] | None = None

    async def identity(self) -> str:
        """Return what tells this Engine from every other, whatever address it has."""
        info = await self._told()
        name = str(info.get("ID") or "")
        # Podman 5.8 makes a new ID for each answer.
        if not name or await self.is_podman():
            name = f"{info.get('Name', '')} {info.get('DockerRootDir', '')}"
        return name

    async def is_podman(self) -> bool:
        """Return whether this is Podman, which has no distribution inspect but can untag an image by its id."""
        return any("Podman" in component.name for component in (await self._asked_version()).components)

    async def has_containerd_store(self) -> bool:
        """Return whether images are in containerd's store, which can hold several platforms of one."""
        return "io.containerd.snapshotter" in str((await self._told()).get("DriverStatus"))

    async def platform(self) -> Platform:
        """Return the platform that the Engine pulls when none is named."""
        version = await self._asked_version()
        return Platform(os=version.os or "linux", architecture=version.arch)

    async def _asked_version(self) -> EngineVersion:
        async with self._asking:
            if self._version is None:
                self._version = await self._patiently(self._images.version)
            return self._version

    async def _told(self) -> dict[str, object]:
        async with self._asking:
            if self._info is None:
                info = await self._patiently(lambda: self._images.request("GET", "/info"))
                self._info = cast("dict[str, object]", info) if isinstance(info, dict) else {}
            return self._info

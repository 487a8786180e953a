"""A copy that writes nothing: it asks the target all that a copy would, and finds out what would be moved."""

from __future__ import annotations

import contextvars
from typing import Final

from aiodocker_images.models import Descriptor

from .manifests import Manifest
from .stores import BlobContent, SeenTarget, Written
from .target import RegistryTarget

__all__ = ["PLANNED", "Planned", "PlannedTarget"]


class Planned:
    """What the copies of one plan would have brought so far: the next of them would find it there."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], set[str]] = {}

    def has(self, place: tuple[str, str], digest: str) -> bool:
        """Whether `digest` would be in a place, which is a registry and a repository, or a path."""
        return place[1] in self._places.get((place[0], digest), ())

    def has_elsewhere(self, place: tuple[str, str], digest: str) -> bool:
        """Whether it would be in another repository of the same registry."""
        return bool(self._places.get((place[0], digest), set()) - {place[1]})

    def add(self, place: tuple[str, str], digest: str) -> None:
        """Note that it would be in a place."""
        self._places.setdefault((place[0], digest), set()).add(place[1])


PLANNED: Final = contextvars.ContextVar["Planned | None"]("PLANNED", default=None)
"""What the plan under way would have brought so far; each copy alone is a plan of its own."""


class PlannedTarget:
    """Stands before the target of a copy and lets nothing be written to it. See `ImageTarget`."""

    def __init__(self, target: SeenTarget) -> None:
        self.who = target.who
        self._target = target
        self._planned = PLANNED.get() or Planned()
        self._place = target.place if isinstance(target, RegistryTarget) else ("", target.who)

    def check(self, manifest: Manifest) -> None:
        """Raise what the target raises."""
        self._target.check(manifest)

    async def resolve(self) -> Descriptor | None:
        """Return what the image's name points to now."""
        return await self._target.resolve()

    async def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether the manifest is there, or would be."""
        return self._planned.has(self._place, descriptor.digest) or await self._target.has_manifest(descriptor)

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, or would be."""
        return self._planned.has(self._place, descriptor.digest) or await self._target.has_blob(descriptor)

    async def write_blob(self, descriptor: Descriptor, content: BlobContent) -> Written:  # noqa: ARG002 - not read
        """Return how the blob would come to be there."""
        if await self._finds_blob(descriptor):
            return "there"
        elsewhere = self._planned.has_elsewhere(self._place, descriptor.digest)
        self._planned.add(self._place, descriptor.digest)
        if elsewhere or (isinstance(self._target, RegistryTarget) and self._target.may_mount(descriptor.digest)):
            return "mounted"
        return "moved"

    async def _finds_blob(self, descriptor: Descriptor) -> bool:
        if self._planned.has(self._place, descriptor.digest):
            return True
        if isinstance(self._target, RegistryTarget):
            return await self._target.finds_blob(descriptor)
        return await self._target.has_blob(descriptor)

    async def write_manifest(self, manifest: Manifest) -> None:
        """Note that the manifest would be there."""
        self._planned.add(self._place, manifest.digest)

    async def write_tag(self, manifest: Manifest, tag: str) -> bool:
        """Return whether the tag would be written, or is there."""
        self._planned.add(self._place, manifest.digest)
        return not isinstance(self._target, RegistryTarget) or await self._target.takes_tag(manifest, tag) is not None

    async def write_name(self, manifest: Manifest) -> None:
        """Note that the manifest would be there."""
        self._planned.add(self._place, manifest.digest)

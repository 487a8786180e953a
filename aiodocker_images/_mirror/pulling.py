"""How an image comes onto the Engine, gets its target's name and goes again, without harm to what others have there."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiodocker_images.errors import (
    DockerError,
    NotFoundError,
    PlatformMismatchError,
    ServerError,
    UnsupportedAPIVersionError,
)
from aiodocker_images.models import ImageInspect, Platform
from aiodocker_images.progress import OnProgress, ProgressFrame
from aiodocker_images.reference import Reference
from aiodocker_images.service import ImageService

from .borrowed import Names
from .comparing import Comparing
from .digests import has_attestations, is_index, missing_platforms, pulled_digests
from .engine import EngineFacts
from .options import Options
from .work import Group

__all__ = ["Pulls"]

T = TypeVar("T")


class Pulls:
    """Pulls the images of groups, and keeps the names that they have on the Engine."""

    def __init__(
        self, images: ImageService, facts: EngineFacts, names: Names, comparing: Comparing, options: Options
    ) -> None:
        self._images = images
        self._facts = facts
        self._names = names
        self._comparing = comparing
        self._options = options
        self._removed: NotFoundError | None = None

    def was_removed(self, error: NotFoundError) -> bool:
        """Return whether an error says that an image is gone which was there: not that there never was one."""
        return error is self._removed

    async def pull(self, group: Group, on_progress: OnProgress[ProgressFrame] | None) -> None:
        """Pull a group's source, hold the image, and note in the group what came."""
        platforms = await self._platforms(group)
        pinned = group.pinned
        try:
            if self._options.keep:
                digest = await self._pull_all(group.source, platforms, on_progress)
                image = await self._images.inspect(group.source)
                await self._complete(group, image, str(group.source), on_progress)
            elif pinned is not None and await self._by_digest(group, pinned, platforms):
                image, digest = await self._pull_pinned(group, pinned, platforms, on_progress), pinned.digest
            else:
                image, digest = await self._pull_tag(group, platforms, on_progress)
        except DockerError:
            if pinned is not None:
                with contextlib.suppress(DockerError):  # tried again at the end
                    await self._names.drop_digest(str(pinned), None)
            raise
        group.image, group.digests = image, pulled_digests(digest, image, group.source)

    async def _platforms(self, group: Group) -> tuple[Platform | None, ...]:
        """Return the platforms to pull, one after the other, and choose the one to push; None for the Engine's own."""
        group.push_platform, group.whole = None, not is_index(group.found)
        wanted = self._comparing.wanted(group)
        if not wanted:
            return (None,)
        if not await self._facts.has_containerd_store():
            return (None,) if group.platform is None and self._options.platforms == "all" else wanted[:1]
        if is_index(group.found) and missing_platforms(group.found, wanted):
            group.push_platform = wanted[0]  # an Engine pushes one platform, or the whole index
            return wanted[:1]
        return wanted if is_index(group.found) else wanted[:1]

    async def _by_digest(self, group: Group, pinned: Reference, platforms: Sequence[Platform | None]) -> bool:
        """Return whether the source can be pulled by its digest without harm to what is there already.

        Its digest may already be there by somebody's tag, with other platforms. A graph-driver store does not move a
        name with a digest to another platform, and a containerd store removes both names together.
        """
        if group.source.tag is None:
            return True
        there = await self._names.find(pinned)
        return there is None or await self._has_all(there, pinned, platforms)

    async def _has_all(self, there: ImageInspect, pinned: Reference, platforms: Sequence[Platform | None]) -> bool:
        own = await self._facts.platform()
        wanted = [platform or own for platform in platforms]
        if there.descriptor is None:
            return all(one.accepts(there.platform) for one in wanted)
        manifests = await self._manifests(pinned)
        held = [data.platform for data in manifests.image_data if data.platform is not None] if manifests else []
        return all(any(one.accepts(other) for other in held) for one in wanted)

    async def _pull_all(
        self, reference: Reference, platforms: Sequence[Platform | None], on_progress: OnProgress[ProgressFrame] | None
    ) -> str | None:
        digest: str | None = None
        for platform in platforms:
            digest = (await self._images.pull(reference, platform=platform, on_progress=on_progress)).digest
        return digest

    async def _pull_pinned(
        self,
        group: Group,
        pinned: Reference,
        platforms: Sequence[Platform | None],
        on_progress: OnProgress[ProgressFrame] | None,
    ) -> ImageInspect:
        there = await self._names.find(pinned)
        if there is None or not await self._has_all(there, pinned, platforms):
            if there is None:
                await self._names.pulling(pinned)
            await self._pull_all(pinned, platforms, on_progress)
        image = await self._must_be_there(lambda: self._images.inspect(pinned))
        group.held = await self._must_be_there(lambda: self._names.hold_pulled(image))
        if platforms[0] is not None and image.descriptor is None:
            _check_platform(platforms[0], image)
        await self._complete(group, image, group.held, on_progress)
        await self._names.drop_digest(str(pinned), image.id)
        return image

    async def _complete(
        self, group: Group, image: ImageInspect, name: str, on_progress: OnProgress[ProgressFrame] | None
    ) -> None:
        """Bring what an index names besides images, if all of it is to go, and note whether it is whole."""
        if is_index(group.found) and image.descriptor is not None and group.push_platform is None:
            group.whole = await self._is_whole(group, name, on_progress)

    async def _is_whole(self, group: Group, name: str, on_progress: OnProgress[ProgressFrame] | None) -> bool:
        """Return whether the Engine has all that an index names; what it leaves out of a pull is pulled by its digest.

        The containerd store of 28.5 pulls images, and no attestations. By its digest it gets one, though it says then
        that it cannot unpack it.
        """
        wanted = self._comparing.wanted(group)
        all_wanted = bool(wanted) and not missing_platforms(group.found, wanted)
        found = await self._manifests(name)
        if found is None:
            return all_wanted and not has_attestations(group.found)
        if all_wanted and found.missing_attestations:
            attestations = [
                Reference(group.source.domain, group.source.path, digest=digest)
                for digest in found.missing_attestations
            ]
            for attestation in attestations:
                await self._names.pulling(attestation)
                with contextlib.suppress(ServerError):
                    await self._images.pull(attestation, on_progress=on_progress)
            for attestation in attestations:
                await self._names.drop_digest(str(attestation), None)
            found = await self._manifests(name) or found
        return found.is_complete

    async def _manifests(self, name: Reference | str) -> _Manifests | None:
        """Return what the Engine has of an index; None if it cannot say."""
        try:
            return _Manifests(await self._images.inspect(name, manifests=True))
        except UnsupportedAPIVersionError:
            return None

    async def _pull_tag(
        self, group: Group, platforms: Sequence[Platform | None], on_progress: OnProgress[ProgressFrame] | None
    ) -> tuple[ImageInspect, str | None]:
        told: list[str | None] = []

        async def pull() -> None:
            told.append(await self._pull_all(group.source, platforms, on_progress))

        image = await self._must_be_there(lambda: self._names.borrow_source(group.source, pull))
        try:
            group.held = await self._must_be_there(lambda: self._names.hold_pulled(image))
            await self._complete(group, image, group.held, on_progress)
        finally:
            await self._names.give_back(str(group.source), own=group.held or None)
        digest = told[-1]
        if (pinned := group.pinned) is not None and digest is not None and digest != pinned.digest:
            raise NotFoundError(
                f"the tag {group.source.familiar} was moved in its registry while it was mirrored: {pinned.digest} was"
                f" compared, and {digest} came"
            )
        return image, digest

    async def _must_be_there(self, step: Callable[[], Awaitable[T]]) -> T:
        try:
            return await step()
        except NotFoundError as error:
            self._removed = error
            raise

    # The target's name

    async def name(self, group: Group, target: Reference) -> None:
        """Give the image its target's name."""
        image = _id_of(group)
        if self._options.keep:
            await self._must_be_there(lambda: self._images.tag(image, target))
        else:
            await self._must_be_there(lambda: self._names.lend(target, image, group.held))

    async def is_named(self, group: Group, target: Reference) -> bool:
        """Return whether the image has its target's name."""
        found = await self._names.find(target)
        return found is not None and found.id == _id_of(group)

    async def is_still_named(self, group: Group, target: Reference) -> bool:
        """Return whether no other image has the target's name."""
        return await self._names.still_there(target, _id_of(group))

    async def let_go(self, group: Group) -> None:
        """Give back the names of a group, and let its image go if it is nobody's."""
        first: DockerError | None = None
        for work in group.works:
            try:
                await self._names.give_back(str(work.target), own=group.held)
            except DockerError as error:
                first = first or error
        if group.held:
            await self._names.release(group.held)
        if first is not None:
            raise first


class _Manifests:
    """What a containerd store has of an index."""

    def __init__(self, image: ImageInspect) -> None:
        self.image_data = [each.image_data for each in image.manifests if each.available and each.image_data]
        self.missing_attestations = [
            each.descriptor.digest
            for each in image.manifests
            if each.kind == "attestation" and not each.available and each.descriptor is not None
        ]
        self.is_complete = bool(image.manifests) and all(each.available for each in image.manifests)


def _id_of(group: Group) -> str:
    assert group.image is not None  # noqa: S101 - names are given to what was pulled
    return group.image.id


def _check_platform(wanted: Platform, image: ImageInspect) -> None:
    came = image.platform
    if came.architecture and not wanted.accepts(came):
        raise PlatformMismatchError.of(str(wanted), str(came))

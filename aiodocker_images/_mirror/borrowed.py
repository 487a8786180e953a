"""Names on the Engine that a run takes for a while, and gives back as they were; with them go the images it pulled."""

from __future__ import annotations

import contextlib
from collections import Counter

from aiodocker_images.errors import ConflictError, NotFoundError
from aiodocker_images.models import ImageInspect
from aiodocker_images.reference import Reference
from aiodocker_images.service import ImageService

from .journal import Began, Borrowed, Journal, Pulled, Returned, Settled
from .together import together

__all__ = ["Names"]


class Names:
    """The names that were moved and the images that were pulled, as the journal knows them.

    With `keep` nothing is given back: the Engine is left as a user who typed the pulls and tags would leave it.
    """

    def __init__(self, images: ImageService, journal: Journal, *, keep: bool) -> None:
        self._images = images
        self._journal = journal
        self._keep = keep
        self._endpoint = ""
        self._begun = False
        self._held: Counter[str] = Counter()

    @property
    def _borrowed(self) -> dict[str, str | None]:
        return self._journal.state.borrowed.get(self._endpoint, {})

    @property
    def _ours(self) -> set[str]:
        """The images that are on the Engine because of us."""
        return self._journal.state.pulled.get(self._endpoint, set()) - self._before

    @property
    def _before(self) -> set[str]:
        """The images that were on the Engine before."""
        began = self._journal.state.began.get(self._endpoint)
        return set() if began is None else set(began.images)

    async def begin(self) -> None:
        """Note what the Engine has; what an earlier run borrowed and did not give back is borrowed still."""
        self._endpoint = str(self._images.endpoint)
        images = () if self._keep else tuple(image.id for image in await self._images.list(all=True))
        await self._journal.note(Began(self._endpoint, images))
        self._begun = True

    async def borrow(self, reference: Reference) -> None:
        """Note what a name is, before it is moved."""
        name = str(reference)
        if not self._keep and name not in self._borrowed:
            await self._journal.note(Borrowed(name, await self._id_of(name)))

    async def pulled(self, image: ImageInspect) -> None:
        """Note an image that a pull brought, or found, and hold it."""
        await self._note_pulled(image.id)
        self._held[image.id] += 1

    async def give_back(self, reference: Reference) -> None:
        """Let a name be what it was; an image of which it was the last name goes with it."""
        name = str(reference)
        if name not in self._borrowed:
            return
        was = self._borrowed[name]
        now = await self._id_of(name)
        if now != was:
            if now is not None:
                await self._note_pulled(now)  # by a run that was killed before it could
            # A container of somebody's may have come to need it, or somebody else removed it: so be it.
            with contextlib.suppress(NotFoundError, ConflictError):
                await (self._images.remove(reference) if was is None else self._images.tag(was, reference))
        await self._journal.note(Returned(name))

    async def let_go(self, image: str) -> None:
        """Remove an image that we pulled and that has no name any more, unless it is held by another pull."""
        self._held[image] -= 1
        await self._drop(image)

    async def give_all_back(self) -> None:
        """Give back every name, those that an earlier run borrowed too, and remove what was pulled."""
        if not self._begun:
            return
        self._held.clear()
        if not self._keep:
            await together([self.give_back(Reference.parse(name)) for name in tuple(self._borrowed)])
            await together([self._drop(image) for image in tuple(self._ours)])
        await self._journal.note(Settled())

    async def _note_pulled(self, image: str) -> None:
        known = self._journal.state.pulled.get(self._endpoint, set())
        if not self._keep and image not in known | self._before:
            await self._journal.note(Pulled(image))

    async def _drop(self, image: str) -> None:
        # A moved tag leaves an image without a name, or, in a graph-driver store, with its digest for a name.
        if self._keep or self._held[image] > 0 or image not in self._ours:
            return
        try:
            found = await self._images.inspect(image)
        except NotFoundError:
            return
        if not found.repo_tags:
            for name in (*found.repo_digests, image):
                with contextlib.suppress(NotFoundError, ConflictError):
                    await self._images.remove(name)

    async def _id_of(self, name: str) -> str | None:
        try:
            return (await self._images.inspect(Reference.parse(name))).id
        except NotFoundError:
            return None

"""The names on the Engine that a run gives to images, and takes away again without harm to anybody else's.

Other programs use the same Engine. So an image is held by a name of the run's own, which nobody else uses, and what is
pulled is pulled by its digest, which moves no tag. The one name of somebody else's that a run needs is the target's:
an Engine pushes an image only by it. It is lent: what had it before is held meanwhile, and gets it back if it is still
where the run put it. No image is ever removed by its id while it has a name of somebody else's: taking away its last
name is what removes an image, and the Engine itself knows which one is the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiodocker_images.errors import ConflictError, DockerError, NotFoundError, PlatformMismatchError, ServerError
from aiodocker_images.models import ImageInspect
from aiodocker_images.reference import Reference
from aiodocker_images.service import ImageService

from .engine import EngineFacts
from .journal import Journal
from .records import Began, Held, Lent, OnEngine, Pulling, Returned, Settled
from .retrying import PASSING

__all__ = ["OWN_DOMAIN", "Names"]

LOGGER: Final = logging.getLogger("aiodocker_images")

OWN_DOMAIN: Final = "mirror.aiodocker-images.invalid"
"""Where the run's own names are: no registry can have a domain that ends so (RFC 2606)."""

KEPT: Final = "kept"
"""How the tag begins of a name whose image must outlive it."""

EMPTY: Final = bytes(1024)
"""A tar with nothing in it."""

LOG_PATIENCE: Final = 2.0
"""Seconds in which the Engine's own log of events must tell who had a name; Podman looks at it every quarter second."""

LOG_MARGIN: Final = 5
"""How far back in that log to begin, in seconds: the clocks of both machines may differ by as much."""


class Names:
    """The names that a run, and those before it that were killed, have on the Engine."""

    def __init__(self, images: ImageService, journal: Journal, facts: EngineFacts) -> None:
        self._images = images
        self._journal = journal
        self._facts = facts
        self._engine = ""
        self._begun = False
        self._own = f"{OWN_DOMAIN}/{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._marking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._before: frozenset[str] = frozenset()
        self.left: dict[str, DockerError] = {}
        """What could not be given back at the last try, and why."""

    @property
    def _noted(self) -> OnEngine:
        return self._journal.state.engines.get(self._engine) or OnEngine()

    async def begin(self) -> None:
        """Note which Engine this is, and look at what it has."""
        self._engine = await self._facts.identity() if self._journal.is_file else ""
        await self._journal.note(Began(self._engine))
        self._begun = True
        self.left = {}
        # What a killed run moved is given back first: the sooner, the fewer have come to use it.
        for name, lent in tuple(self._noted.lent.items()):
            if lent.image:
                await self._try(name, self.give_back(name))
        for name in tuple(self._noted.pulling):
            await self._try(name, self.drop_digest(name, None))
        self._before = frozenset(await self._somebodys())

    async def _somebodys(self) -> list[str]:
        """Return the ids of the images that are somebody's, by name or as one that has no name at all.

        Those that only a mirror run holds are not. What one odd image says of itself beside that is not looked at.
        """
        found = await self._images.request("GET", "/images/json", params=[("all", "1")])
        ids: list[str] = []
        unclear = {name for name, lent in self._noted.lent.items() if not lent.image}  # perhaps a killed run's pull
        for image in cast("list[dict[str, Any]]", found if isinstance(found, list) else []):
            tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
            digests = [name for name in image.get("RepoDigests") or () if not name.startswith("<none>@")]
            # One that has digests only is held by these names, or is just being pulled by another run.
            named = any("@" not in tag for tag in tags) or not digests
            if named and not any(_is_own(tag) for tag in tags) and not (tags and unclear.issuperset(tags)):
                ids.append(_whole_id(str(image.get("Id"))))
        return ids

    def noted(self) -> list[str]:
        """Return all names that a run still has on the Engine."""
        return [*self._noted.lent, *self._noted.pulling, *self._noted.held]

    # Images of the run's own

    async def find(self, name: Reference | str) -> ImageInspect | None:
        """Return the image that has this name now."""
        try:
            return await self._images.inspect(name)
        except NotFoundError:
            return None

    async def pulling(self, digested: Reference) -> None:
        """Note that an image is about to be pulled by a name that the Engine does not have."""
        await self._journal.note(Pulling(str(digested)))

    async def hold(self, image: str, *, keep: bool = False) -> str:
        """Give an image a name of the run's own, and return that; raise `NotFoundError` if it is gone."""
        name = f"{self._own}:{KEPT if keep else 'pulled'}-{next(self._numbers)}"
        await self._journal.note(Held(name, image, keep))
        try:
            await self._images.tag(image, name)
        except NotFoundError:
            await self._journal.note(Returned(name))
            raise
        return name

    async def hold_pulled(self, image: ImageInspect) -> str:
        """Hold an image that a pull brought or found; it is removed with that name, unless it was somebody's before."""
        own = [tag.rpartition(":")[2] for tag in image.repo_tags if _is_own(tag)]
        # Another run that holds it knows.
        keep = any(tag.startswith(KEPT) for tag in own) if own else image.id in self._before
        return await self.hold(image.id, keep=keep)

    async def release(self, name: str) -> None:
        """Take away a name of the run's own, and with it the image that has no other and is nobody's."""
        held = self._noted.held.get(name)
        if held is None:
            return
        if held.keep:
            await self._cover(name, held.image)
        try:
            await self._remove(name)
        except ConflictError:
            # Somebody has made a container of it: it stays, without a name.
            await self._cover(name, held.image)
            await self._remove(name)
        await self._journal.note(Returned(name))

    async def _cover(self, name: str, image: str) -> None:
        """Move a name of the run's own from an image to an empty one: the Engine removes an image with its last name.

        It does not when the name goes elsewhere.
        """
        if await self._id_of(name) == image:
            await self._images.import_image(EMPTY, reference=name)

    async def drop_digest(self, digested: str, image: str | None) -> None:
        """Take away the name that a pull by digest made, once the image is held by another.

        Without an `image` it is not known what came of the pull, as after a kill.
        """
        if digested not in self._noted.pulling:
            return
        reference = Reference.parse(digested)
        there = await self.find(image or digested)
        # The containerd store (28.5) removes all names of the repository with that digest: others' too, then.
        if there is None or there.descriptor is None or not _tags_in(there, reference.name):
            with contextlib.suppress(ConflictError):  # a container of somebody's came to need it
                await self._remove_and_mend(digested, image)
        await self._journal.note(Returned(digested))

    # The target's name

    async def lend(self, target: Reference, image: str, own: str) -> None:
        """Move a name to an image, which has the name `own`; what had it before is held meanwhile.

        Raises `NotFoundError` if the image is gone.
        """
        async with self._marking[own]:
            await self._lend(str(target), image, own)

    async def _lend(self, name: str, image: str, own: str) -> None:
        await self._images.tag(image, own)  # it may have been pruned; and it marks the place in the Engine's log
        was = await self._id_of(name)
        if was == image:
            return
        earlier = self._noted.lent.get(name)
        if earlier is not None and was in {earlier.image, None}:  # it is ours still, or was pruned with our image
            await self._journal.note(Lent(name, image, earlier.was, earlier.held))
            await self._images.tag(image, name)
            return
        held = await self._held_if_there(was)
        digested = held is not None and bool(await self._digests_in(image, Reference.parse(name).name))
        await self._journal.note(Lent(name, image, was if held else None, held, digested))
        await self._images.tag(image, name)
        if earlier is not None and earlier.held:
            await self.release(earlier.held)
        other = await self._moved_meanwhile(name, image, own)
        if other is not None and other not in {was, image}:
            taken = await self._held_if_there(other)
            await self._journal.note(Lent(name, image, other if taken else None, taken))
            if held:
                await self.release(held)

    async def borrow_source(self, source: Reference, pull: Callable[[], Awaitable[None]]) -> ImageInspect:
        """Pull by a tag, for an Engine that cannot say the digest first, and give the tag back; return the image.

        The image is held then. Raises `NotFoundError` if it is gone already.
        """
        name = str(source)
        earlier = self._noted.lent.get(name)
        was = await self._id_of(name)
        held = await self._held_if_there(was)
        if earlier is None:
            await self._journal.note(Lent(name, "", was if held else None, held))
        try:
            await pull()
        except PlatformMismatchError:
            if earlier is None and (came := await self._id_of(name)) is not None:
                await self._journal.note(Lent(name, came, was if held else None, held))
                await self.give_back(name)
            raise
        image = await self._images.inspect(source)
        if earlier is not None and was in {image.id, earlier.was}:
            # A run that was killed in its pull had moved it, to what this pull found as well.
            if held:
                await self.release(held)
                image = await self._images.inspect(source)
            await self._journal.note(Lent(name, image.id, earlier.was, earlier.held))
        else:
            if earlier is not None and earlier.held:
                await self.release(earlier.held)
            await self._journal.note(Lent(name, image.id, was if held else None, held))
        return image

    async def still_there(self, target: Reference, image: str) -> bool:
        """Return whether a name is that of no other image."""
        return await self._id_of(str(target)) in {image, None}

    async def _held_if_there(self, image: str | None, *, keep: bool = True) -> str | None:
        if image is None:
            return None
        try:
            return await self.hold(image, keep=keep)
        except NotFoundError:
            return None

    async def give_back(self, name: str, *, own: str | None = None) -> None:
        """Let a name be what it was, if it is what the run made it; `own` is the image's name if it is to go next."""
        lent = self._noted.lent.get(name)
        if lent is None:
            return
        now = await self._id_of(name)
        # With an image of ours that somebody pruned, the name went that is not ours.
        if lent.image and (now == lent.image or (now is None and lent.was is not None)):
            # What has its last name moved away stays there without one: a name of ours removes it in the end.
            meanwhile = await self._held_if_there(lent.image, keep=False) if own is None else None
            await self._give_back(lent, own or meanwhile or "")
            if meanwhile is not None:
                await self.release(meanwhile)
        elif not lent.image and now not in {lent.was, None}:
            LOGGER.warning("mirror: %s may be what an earlier run pulled before it was killed; it stays", name)
        await self._journal.note(Returned(name))
        if lent.held is not None:
            await self.release(lent.held)

    async def _give_back(self, lent: Lent, own: str) -> None:
        if lent.was is None or lent.held is None or not await self._restored(lent, lent.was, lent.held):
            await self._untag(lent.name, lent.image, own)
        elif not lent.digested:
            # A push to it made a name with a digest as well (graph-driver store), which did not go with the tag.
            for digested in await self._digests_in(lent.image, Reference.parse(lent.name).name):
                await self._remove(digested)

    async def _restored(self, lent: Lent, was: str, held: str) -> bool:
        """Give a name back to the image that it was; return False if that image is gone."""
        try:
            await self._images.tag(was, held)  # marks the place in the Engine's log
            if await self._id_of(lent.name) not in {lent.image, None}:
                return True  # somebody else's by now
            await self._images.tag(was, lent.name)
        except NotFoundError:
            return False
        other = await self._moved_meanwhile(lent.name, was, held)
        if other is not None and other not in {was, lent.image}:
            with contextlib.suppress(NotFoundError):
                await self._images.tag(other, lent.name)
        return True

    async def _digests_in(self, image: str, repository: str) -> list[str]:
        """Return the names with a digest that an image has in a repository where it has no tag.

        The containerd store and Podman only derive them from tags.
        """
        there = await self.find(image)
        if there is None or there.descriptor is not None or await self._facts.is_podman():
            return []
        if _tags_in(there, repository):
            return []
        return [name for name in there.repo_digests if name.partition("@")[0] in _spellings(repository)]

    async def _moved_meanwhile(self, name: str, image: str, marker: str) -> str | None:
        """Return which image somebody else gave `name` to just before it was moved to `image`, by the Engine's log.

        An Engine does not say what a name was when it moves it, and between a question and a change others may act.
        Our own tag of `marker` is where to begin to read, and our own of `name` where to end.
        """
        other: str | None = None
        marked = False
        since = time.time() - LOG_MARGIN
        events = self._images.events(since=since, filters={"event": ["tag"]}, reconnect=False)
        try:
            async with asyncio.timeout(LOG_PATIENCE), contextlib.aclosing(events):
                async for event in events:
                    actor = event.actor
                    if actor is None or event.action != "tag":
                        continue
                    named, tagged = actor.attributes.get("name", ""), _whole_id(actor.id)
                    if _same_name(named, marker):
                        marked, other = True, None
                    elif _same_name(named, name):
                        if tagged == image and marked:
                            return other
                        other = tagged
        except (TimeoutError, DockerError) as error:
            LOGGER.debug("mirror: the Engine's log of events does not tell who had %s: %r", name, error)
        return None

    async def _untag(self, name: str, image: str, own: str) -> None:
        """Take a name away from an image, as far as the Engine allows it only from that one."""
        reference = Reference.parse(name)
        if await self._facts.is_podman():
            query = [("repo", reference.name), ("tag", reference.tag or "")]
            with contextlib.suppress(NotFoundError, ServerError):  # gone, or another's by now
                await self._images.request("POST", f"/libpod/images/{image}/untag", params=query)
            return
        there = await self.find(image)
        if there is None:
            return
        with contextlib.suppress(NotFoundError, ConflictError):  # a container of somebody's came to need it
            if there.descriptor is not None and _tags_in(there, reference.name) == [name]:
                # The containerd store finds a name with a digest by both.
                await self._remove_and_mend(f"{reference.name}@{image}", image, besides=name)
                return
            if self._is_only_ours(there, own, name):
                # By its id an image is removed only if it has one name, and nobody uses it.
                await self.release(own)
                with contextlib.suppress(ConflictError):
                    await self._images.remove(image)
                    return
            if await self._id_of(name) == image:
                await self._images.remove(reference)

    def _is_only_ours(self, image: ImageInspect, own: str, name: str) -> bool:
        held = self._noted.held.get(own)
        tags = {str(Reference.parse(tag)) for tag in image.repo_tags}
        return held is not None and not held.keep and tags == {own, name}

    async def _remove_and_mend(self, digested: str, image: str | None, *, besides: str = "") -> None:
        """Remove a name with a digest; names with a tag that went with it, and are not ours, are given back."""
        with contextlib.suppress(NotFoundError):
            for step in await self._images.remove(digested):
                if step.untagged and image and "@" not in step.untagged:
                    name = str(Reference.parse(step.untagged))
                    if name != besides and not _is_own(name) and await self._id_of(name) is None:
                        await self._images.tag(image, name)

    async def _remove(self, name: str) -> None:
        with contextlib.suppress(NotFoundError):
            await self._images.remove(name)

    async def _id_of(self, name: str) -> str | None:
        """Return the id of the image that has a name now, whatever else that image says of itself."""
        try:
            found = await self._images.request("GET", f"/images/{name}/json")
        except NotFoundError:
            return None
        return _whole_id(str(cast("dict[str, object]", found).get("Id"))) if isinstance(found, dict) else None

    # The end

    async def give_all_back(self) -> None:
        """Give back every name, those of an earlier run too; one that cannot be is no reason to leave others.

        Raises the first failure that may pass, or else the first. All of them are in `left`.
        """
        self.left = {}
        if not self._begun:
            return
        for name in tuple(self._noted.lent):
            await self._try(name, self.give_back(name))
        for name in tuple(self._noted.pulling):
            await self._try(name, self.drop_digest(name, None))
        for name in tuple(self._noted.held):
            await self._try(name, self.release(name))
        if not self.left:
            await self._journal.note(Settled())
            return
        failures = list(self.left.values())
        raise next((failure for failure in failures if isinstance(failure, PASSING)), failures[0])

    async def _try(self, name: str, step: Awaitable[None]) -> None:
        try:
            await step
        except DockerError as error:
            self._journal.check()
            self.left[name] = error


def _is_own(name: str) -> bool:
    return name.startswith(f"{OWN_DOMAIN}/")


def _tags_in(image: ImageInspect, repository: str) -> list[str]:
    """Return the tags that an image has in a repository; the containerd store (28.5) lists digests among them."""
    tags = [Reference.parse(tag) for tag in image.repo_tags if "@" not in tag and "<none>" not in tag]
    return [str(tag) for tag in tags if tag.name == repository]


def _spellings(repository: str) -> set[str]:
    return {repository, Reference.parse(repository).familiar_name}


def _same_name(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return str(Reference.parse(one).with_default_tag()) == str(Reference.parse(other).with_default_tag())
    except DockerError:
        return False


def _whole_id(image: str) -> str:
    return image if image.startswith("sha256:") else f"sha256:{image}"

"""What is at the sources and at the targets, and which jobs end there, before a byte moves: in a dry run as well."""

from __future__ import annotations

from aiodocker_images._aio.together import together
from aiodocker_images.api_version import APIVersion
from aiodocker_images.errors import ConfigError, DockerError, ForbiddenError, NotFoundError, UnauthorizedError
from aiodocker_images.models import DistributionInspect, Platform
from aiodocker_images.reference import Reference
from aiodocker_images.service import ImageService

from .digests import digest_of, has_attestations, is_index, missing_platforms, told_platforms, what_is_lost
from .endings import Endings
from .engine import EngineFacts, Patiently
from .journal import Journal
from .options import Options
from .retrying import PASSING
from .slots import Slots
from .work import Group, Work

__all__ = ["Comparing"]

MANIFESTS = APIVersion(1, 48)
"""Since when an Engine tells which manifests of an index it has."""

GRAPH_STORE = "the Engine's graph-driver store holds one platform and writes a manifest of its own"


class Comparing:
    """Asks the registries, through the Engine, and ends the jobs that are done already or must not be begun."""

    def __init__(
        self,
        images: ImageService,
        *,
        facts: EngineFacts,
        slots: Slots,
        options: Options,
        journal: Journal,
        endings: Endings,
        patiently: Patiently,
    ) -> None:
        self._images = images
        self._facts = facts
        self._slots = slots
        self._options = options
        self._journal = journal
        self._endings = endings
        self._patiently = patiently

    async def compare(self, group: Group) -> None:
        """Ask the registries for the digests, all at once, and end the jobs that have nothing to do, or cannot."""
        await together([self._find(group), *(self._look(group, work) for work in group.works)])
        if group.found is not None:
            for work in group.left:
                self._skip_equal(group, work)
        elif not await self._can_compare():
            group.incomparable = "this Engine has no distribution inspect"
            for work in group.left:
                if work.job in self._journal.state.in_this_run:
                    self._skip_known(group, work, "the journal says that it was done")
        if group.left and group.found is not None:
            await self._refuse(group, group.found)

    async def _find(self, group: Group) -> None:
        """Ask what the source is."""
        try:
            group.found = await self._ask(group.source, group)
        except PASSING:
            raise
        except DockerError as error:
            # Of anything else than a clear no, the pull will tell more.
            if isinstance(error, NotFoundError | UnauthorizedError | ForbiddenError) and await self._can_compare():
                raise
            group.incomparable = error.message

    async def _look(self, group: Group, work: Work) -> None:
        """Ask what the target is."""
        try:
            work.present = await self._ask(work.target, work)
        except NotFoundError:
            work.present = None
        except ForbiddenError as error:
            # Docker Hub says "denied" of a repository that is not there yet; the first push makes it.
            if work.target.domain != "docker.io":
                self._endings.fail(group, [work], error)
        except (*PASSING, UnauthorizedError) as error:
            self._endings.fail(group, [work], error)
        except DockerError:
            work.present = None  # it says as little as that nothing is there: the push will tell

    async def _ask(self, reference: Reference, tried: Group | Work) -> DistributionInspect:
        async def ask() -> DistributionInspect:
            async with self._slots.check(reference.domain):
                return await self._images.inspect_distribution(reference)

        return await self._patiently(ask, tried)

    async def _can_compare(self) -> bool:
        """Whether the Engine has distribution inspect: Podman 5.8 has none."""
        return not await self._facts.is_podman()

    def _skip_equal(self, group: Group, work: Work) -> None:
        before, after = digest_of(group.found), digest_of(work.present)
        known = self._journal.state.done.get(work.job)
        if before is None or after is None:
            return
        if before == after:
            because = "the digests are equal"
            self._endings.end(group, work, "skipped", before=before, after=after, preserved=True, because=because)
        elif known is not None and known.digests == (before, after):
            self._skip_known(group, work, "neither digest has changed since the journal's run")

    def _skip_known(self, group: Group, work: Work, because: str) -> None:
        """Skip what the journal knows, unless its digest was changed and must not be."""
        before, after = self._journal.state.done[work.job].digests
        preserved = None if before is None or after is None else before == after
        if preserved or not self._options.require_digest:
            self._endings.end(group, work, "skipped", before=before, after=after, preserved=preserved, because=because)

    # What would go

    def wanted(self, group: Group) -> tuple[Platform, ...]:
        """Return the platforms that are asked for, as far as the source has several; none for the Engine's own."""
        if group.platform is not None:
            return (group.platform,)
        told = told_platforms(group.found)
        if self._options.platforms == "all":
            return told
        chosen = tuple(Platform.parse(platform) for platform in self._options.platforms)
        if told and not is_index(group.found):
            return tuple(one for one in chosen if any(one.accepts(other) for other in told))
        return chosen

    async def goes_whole(self, group: Group) -> bool:
        """Return whether the source goes with all that it has, by what is known before the pull."""
        if not is_index(group.found):
            return True
        wanted = self.wanted(group)
        if not wanted or missing_platforms(group.found, wanted) or not await self._facts.has_containerd_store():
            return False
        return not has_attestations(group.found) or await self.tells_manifests()

    async def tells_manifests(self) -> bool:
        """Return whether the Engine tells which manifests of an index it has."""
        try:
            return APIVersion.parse((await self._patiently(self._images.ping)).api_version) >= MANIFESTS
        except ConfigError:
            return False

    async def _refuse(self, group: Group, found: DistributionInspect) -> None:
        """End the jobs that would bring something else than what was asked for, or less than what the target has."""
        told, wanted = told_platforms(found), self.wanted(group)
        asked = [group.platform] if group.platform is not None else self._asked()
        missing = [one for one in asked if told and not any(one.accepts(other) for other in told)]
        if missing and (is_index(found) or len(missing) == len(asked)):
            has = ", ".join(map(str, told))
            because = f"the source is not for {', '.join(map(str, missing))}, but for {has}"
            for work in group.left:
                self._endings.refuse(group, work, "PlatformMismatchError", because)
            return
        whole = await self.goes_whole(group)
        if self._options.require_digest and not whole:
            store = await self._facts.has_containerd_store()
            because = "not all platforms of the source would go" if store else GRAPH_STORE
            if store and wanted and not missing_platforms(found, wanted):
                because = "the Engine's image store does not bring attestations"
            for work in group.left:
                self._endings.change(group, work, because)
        for work in group.left:
            await self.refuse_less(group, work, whole=whole)

    def _asked(self) -> list[Platform]:
        return [] if self._options.platforms == "all" else [Platform.parse(each) for each in self._options.platforms]

    async def refuse_less(self, group: Group, work: Work, *, whole: bool) -> None:
        """End a job that would leave the target with less than it has, unless that was asked for by name."""
        if self._options.narrow or group.platform is not None or self._asked():
            return
        goes = told_platforms(group.found) if whole else (await self._facts.platform(),)
        if lost := what_is_lost(work.present, goes, whole=whole and is_index(group.found)):
            because = (
                f"the target would lose what it has: {lost}; if it is to, name the platforms that go, or set narrow"
            )
            self._endings.refuse(group, work, "TargetNarrowed", because)

    async def plan(self, group: Group, work: Work) -> None:
        """Tell what a run would do with a job that is left."""
        if group.found is None:
            because = f"the digests cannot be compared: {group.incomparable}"
        else:
            because = "the target is not there" if work.present is None else "the target has another digest"
            if not await self.goes_whole(group):
                wanted = self.wanted(group)
                one = str(wanted[0]) if wanted and self._options.platforms != "all" else await self._facts.platform()
                some = f"{one} alone" if not await self._facts.has_containerd_store() or len(wanted) < 2 else "not all"
                because += f"; of the source's {len(told_platforms(group.found))} platforms {some} would go"
        before, after = digest_of(group.found), digest_of(work.present)
        self._endings.end(group, work, "planned", before=before, after=after, because=because)

"""One run of `mirror`: what is compared, pulled, tagged and pushed, in which order, and how jobs end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, cast

from aiodocker_images._aio.threads import outlast
from aiodocker_images.errors import DockerError, NoSpaceError, NotFoundError
from aiodocker_images.models import DistributionInspect, ImageInspect, Platform
from aiodocker_images.progress import OnProgress, ProgressFrame
from aiodocker_images.reference import Reference
from aiodocker_images.service import ImageService

from .borrowed import Names
from .digests import digest_of, is_index, missing_platforms, platform_of, pulled_digests, told_platforms, truth
from .jobs import MirrorFailure, MirrorJob, MirrorOutcome, MirrorProgress, MirrorStatus
from .journal import Done, Ended, Journal
from .options import Options
from .retrying import PASSING, persist
from .slots import Slots
from .together import together

__all__ = ["CLEANUP_TIMEOUT", "HELD", "Run"]

T = TypeVar("T")

HELD: Final = 1
"""How many images that are done stay on the Engine, for each transfer at once: the next may share their layers."""

CLEANUP_TIMEOUT: Final = 60.0
"""Seconds that giving back may take when a run is left early; what remains is in the journal."""

FREE_SPACE: Final = (
    "Nothing more was tried. Free some space (on the Engine for instance with prune(), `docker image prune` or a"
    " lower concurrency), and run this again: with the same journal it does what is left"
)


@dataclass(eq=False, slots=True)
class _Work:
    """A job on its way."""

    job: MirrorJob
    target: Reference
    started: float
    present: DistributionInspect | None = None
    retries: int = 0
    ended: bool = False


@dataclass(eq=False, slots=True)
class _Group:
    """Jobs that share a pull: of one source, and the same of its platforms."""

    source: Reference
    platform: Platform | None
    works: list[_Work]
    found: DistributionInspect | None = None
    retries: int = 0
    room: frozenset[str] = frozenset()
    image: str | None = None
    digests: frozenset[str] = frozenset()
    push_platform: Platform | None = None

    @property
    def digest(self) -> str | None:
        """The source's digest: what was pulled, or else what the registry said, if that is one."""
        return next(iter(self.digests)) if len(self.digests) == 1 else digest_of(self.found)

    @property
    def left(self) -> list[_Work]:
        return [work for work in self.works if not work.ended]


class Run:
    """Jobs on one Engine. `plan` is the dry one; `emit` is given each outcome."""

    def __init__(
        self,
        images: ImageService,
        jobs: Sequence[MirrorJob],
        options: Options,
        journal: Journal,
        *,
        emit: Callable[[MirrorOutcome], object],
        on_progress: OnProgress[MirrorProgress] | None = None,
        slots: Slots | None = None,
    ) -> None:
        self._images = images
        self._options = options
        self._journal = journal
        self._emit = emit
        self._on_progress = on_progress
        self._slots = slots or Slots(options.concurrency, options.per_registry, options.retry)
        self._names = Names(images, journal, keep=options.keep)
        self._groups = _grouped(jobs)
        self._users = Counter(str(group.source) for group in self._groups)
        self._locks = {name: asyncio.Lock() for name in self._users}
        self._repositories: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._done: deque[_Group] = deque()
        self._failed = False
        self._stop = asyncio.Event()
        self._stopped: MirrorFailure | None = None
        self._asking = asyncio.Lock()
        self._compares: bool | None = None
        self._holds: bool | None = None

    async def plan(self) -> None:
        """Compare, and tell what would be done."""
        await together([self._plan_group(group) for group in self._groups])

    async def run(self) -> None:
        """Do it all, and give back what was borrowed."""
        given_back = False
        try:
            await self._patiently(self._names.begin)
            await together([self._mirror_group(group) for group in self._groups], until=self._stop)
            if self._stopped:
                for group in self._groups:
                    for work in group.left:
                        self._end(group, work, "stopped", because="another job met it", error=self._stopped)
            await self._patiently(self._names.give_all_back)
            given_back = True
            if not self._failed:
                await self._journal.note(Ended())
        finally:
            if not given_back:
                await outlast(asyncio.create_task(self._give_back_what_can_be()))

    async def settle(self) -> None:
        """Give back what an earlier run on this Engine borrowed."""
        await self._patiently(self._names.begin)
        await self._patiently(self._names.give_all_back)

    async def _give_back_what_can_be(self) -> None:
        """Clean up after a run that was left early, in bounded time."""
        with contextlib.suppress(DockerError, TimeoutError):
            async with asyncio.timeout(CLEANUP_TIMEOUT):
                await self._names.give_all_back()

    async def _plan_group(self, group: _Group) -> None:
        try:
            await self._compare(group)
        except DockerError as error:
            self._fail(group, group.left, error)
        for work in group.left:
            if group.found is None:
                because = "the digests cannot be compared: this Engine has no distribution inspect"
            else:
                because = "the target is not there" if work.present is None else "the target has another digest"
            before, after = digest_of(group.found), digest_of(work.present)
            self._end(group, work, "planned", before=before, after=after, because=because)

    async def _mirror_group(self, group: _Group) -> None:
        try:
            await self._compare(group)
            await self._refuse_sure_changes(group)
            if group.left:
                image = await self._pull(group)
                await together([self._push(group, work, image) for work in group.left])
        except DockerError as error:
            self._fail(group, group.left, error)
        finally:
            self._users[str(group.source)] -= 1
            self._slots.image_done(group.room)
        await self._let_go_of_the_oldest(group)

    # What is there

    async def _compare(self, group: _Group) -> None:
        """Ask the registries for the digests, all at once, and end the jobs that have nothing to do."""
        await together([self._find(group), *(self._look(group, work) for work in group.works)])
        if group.found is not None:
            for work in group.left:
                self._skip_equal(group, work)
        elif not await self._can_compare():
            for work in group.left:
                if work.job in self._journal.state.in_this_run:
                    self._skip_known(group, work, "the journal says that it was done")

    async def _find(self, group: _Group) -> None:
        """Ask what the source is."""
        try:
            group.found = await self._ask(group.source, group)
        except PASSING:
            raise
        except DockerError as error:
            # This Engine may not know the question; and if something is wrong, the pull will tell what.
            if self._options.dry_run and not (isinstance(error, NotFoundError) and not await self._can_compare()):
                raise

    def _skip_equal(self, group: _Group, work: _Work) -> None:
        before, after = digest_of(group.found), digest_of(work.present)
        known = self._journal.state.done.get(work.job)
        if before is None or after is None:
            return
        if before == after:
            self._end(
                group, work, "skipped", before=before, after=after, preserved=True, because="the digests are equal"
            )
        elif known is not None and known.digests == (before, after):
            self._skip_known(group, work, "neither digest has changed since the journal's run")

    def _skip_known(self, group: _Group, work: _Work, because: str) -> None:
        """Skip what the journal knows, unless its digest was changed and must not be."""
        before, after = self._journal.state.done[work.job].digests
        preserved = None if before is None or after is None else before == after
        if preserved or not self._options.require_digest:
            self._end(group, work, "skipped", before=before, after=after, preserved=preserved, because=because)

    async def _look(self, group: _Group, work: _Work) -> None:
        """Ask what the target is. A refusal says as little as that nothing is there: the push will tell."""
        try:
            work.present = await self._ask(work.target, work)
        except PASSING as error:
            self._fail(group, [work], error)
        except DockerError:
            work.present = None

    async def _ask(self, reference: Reference, tried: _Group | _Work) -> DistributionInspect:
        async def ask() -> DistributionInspect:
            async with self._slots.check(reference.domain):
                return await self._images.inspect_distribution(reference)

        return await self._patiently(ask, tried)

    async def _can_compare(self) -> bool:
        """Whether the Engine has distribution inspect: Podman 5.8 has none."""
        async with self._asking:
            if self._compares is None:
                version = await self._patiently(self._images.version)
                self._compares = not any("Podman" in component.name for component in version.components)
            return self._compares

    async def _holds_all_platforms(self) -> bool:
        """Whether the Engine has a containerd image store, which holds several platforms of an image."""
        async with self._asking:
            if self._holds is None:
                info = await self._patiently(functools.partial(self._images.request, "GET", "/info"))
                status = cast("dict[str, object]", info).get("DriverStatus") if isinstance(info, dict) else None
                self._holds = "io.containerd.snapshotter" in str(status)
            return self._holds

    async def _refuse_sure_changes(self, group: _Group) -> None:
        """End the jobs whose digest may not change and would for sure, before a byte is moved for them."""
        if not self._options.require_digest or not group.left or not is_index(group.found):
            return
        if not await self._holds_all_platforms():
            because = "the Engine's graph-driver store holds one platform and writes a manifest of its own"
        elif len(told_platforms(group.found)) > 1 and not self._is_whole(group):
            because = "not all platforms of the source would go"
        else:
            return
        for work in group.left:
            self._end_changed(group, work, because)

    # What is moved

    def _wanted(self, group: _Group) -> tuple[Platform, ...]:
        if group.platform is not None:
            return (group.platform,)
        if self._options.platforms == "all":
            return told_platforms(group.found)
        return tuple(Platform.parse(platform) for platform in self._options.platforms)

    def _is_whole(self, group: _Group) -> bool:
        """Whether the platforms that are wanted are all that there are."""
        wanted = self._wanted(group)
        return bool(wanted) and group.found is not None and not missing_platforms(group.found, wanted)

    async def _platforms(self, group: _Group) -> tuple[Platform | None, ...]:
        """Return the platforms to pull, one after the other, and choose the one to push; None for the Engine's own."""
        wanted = self._wanted(group)
        if not wanted:
            return (None,)
        if not await self._holds_all_platforms():
            return (None,) if group.platform is None and self._options.platforms == "all" else wanted[:1]
        if is_index(group.found) and not self._is_whole(group):
            group.push_platform = wanted[0]  # an Engine pushes one platform, or the whole index
            return wanted[:1]
        return wanted

    async def _pull(self, group: _Group) -> ImageInspect:
        """Pull the source once, for all the jobs of the group."""
        platforms = await self._platforms(group)
        targets = frozenset(work.target.domain for work in group.left)

        async def pull() -> tuple[ImageInspect, str | None]:
            # Another platform of the same source would move the name before its image is known.
            async with self._locks[str(group.source)], self._slots.transfer(group.source.domain, targets=targets):
                try:
                    return await self._pull_once(group, platforms)
                except BaseException:
                    # There is no image of it on the Engine, and while this pull waits others may go on.
                    self._slots.image_done(targets)
                    raise

        image, digest = await self._patiently(pull, group)
        group.room = targets
        group.image, group.digests = image.id, pulled_digests(digest, image, group.source)
        return image

    async def _pull_once(self, group: _Group, platforms: Iterable[Platform | None]) -> tuple[ImageInspect, str | None]:
        for work in group.left:
            work.started = _now()
        await self._names.borrow(group.source)
        digest: str | None = None
        on_progress = self._framed(group.left[0], "pull")
        for platform in platforms:
            digest = (await self._images.pull(group.source, platform=platform, on_progress=on_progress)).digest
        image = await self._images.inspect(group.source)
        await self._names.pulled(image)
        return image, digest

    async def _push(self, group: _Group, work: _Work, image: ImageInspect) -> None:
        """Give the image its other name and push it."""
        layers = frozenset(image.root_fs.layers if image.root_fs is not None else ())

        async def push() -> str | None:
            # Of one source into one repository one after the other: the next finds the layers there. At once, the
            # containerd store (28.5) uploads them twice, and distribution 2.8 takes one for a mangled other.
            into = self._repositories[str(group.source), work.target.name]
            async with into, self._slots.transfer(work.target.domain, layers=layers):
                await self._names.borrow(work.target)
                await self._images.tag(image.id, work.target)
                on_progress = self._framed(work, "push")
                pushed = await self._images.push(work.target, platform=group.push_platform, on_progress=on_progress)
                return pushed.digest

        try:
            after = await self._patiently(push, work)
        except DockerError as error:
            self._fail(group, [work], error)
            return
        before, went = group.digest, str(group.push_platform or platform_of(image))
        preserved, because = truth(group.digests, after, found=group.found, image=image, went=went)
        if self._options.require_digest and not preserved:
            self._end_changed(group, work, because or "nobody knows why", after=after)
            return
        await self._journal.note(Done(work.job, before, after))
        self._end(group, work, "mirrored", before=before, after=after, preserved=preserved, because=because)

    async def _let_go_of_the_oldest(self, group: _Group) -> None:
        """Give back what a group borrowed: at once if nothing came of it, else when enough others are done."""
        if group.image is None:
            await self._let_go(group)
            return
        self._done.append(group)
        while len(self._done) > HELD * self._options.concurrency:
            await self._let_go(self._done.popleft())

    async def _let_go(self, group: _Group) -> None:
        # Whatever goes wrong here is tried again at the end of the run.
        with contextlib.suppress(DockerError):
            for work in group.works:
                await self._names.give_back(work.target)
            if not self._users[str(group.source)]:
                await self._names.give_back(group.source)
            if group.image is not None:
                await self._names.let_go(group.image)
        self._journal.check()

    async def _patiently(self, step: Callable[[], Awaitable[T]], tried: _Group | _Work | None = None) -> T:
        def count() -> None:
            if tried is not None:
                tried.retries += 1

        return await persist(step, self._options.retry, count)

    def _framed(self, work: _Work, step: Literal["pull", "push"]) -> OnProgress[ProgressFrame] | None:
        if (on_progress := self._on_progress) is None:
            return None
        return lambda frame: on_progress(MirrorProgress(job=work.job, step=step, frame=frame))

    # How jobs end

    def _fail(self, group: _Group, works: Iterable[_Work], error: DockerError) -> None:
        """End works with a failure of theirs, and stop everything if it is everybody's."""
        self._journal.check()
        failure = MirrorFailure.of(error)
        if isinstance(error, NoSpaceError):
            failure = MirrorFailure(failure.kind, f"{failure.message}. {FREE_SPACE}")
            self._stopped = failure
            self._stop.set()
        for work in tuple(works):
            self._end(group, work, "failed", before=group.digest, error=failure)

    def _end_changed(self, group: _Group, work: _Work, because: str, *, after: str | None = None) -> None:
        told = "the target has the other digest now" if after else "nothing was moved"
        before = group.digest
        error = MirrorFailure("DigestChanged", f"the digest is not preserved, because {because}; {told}")
        self._end(group, work, "failed", before=before, after=after, preserved=False, because=because, error=error)

    def _end(
        self,
        group: _Group,
        work: _Work,
        status: MirrorStatus,
        *,
        before: str | None = None,
        after: str | None = None,
        preserved: bool | None = None,
        because: str | None = None,
        error: MirrorFailure | None = None,
    ) -> None:
        work.ended = True
        self._failed = self._failed or error is not None
        self._emit(
            MirrorOutcome(
                job=work.job,
                status=status,
                source_digest=before,
                target_digest=after,
                digest_preserved=preserved,
                because=because,
                attempts=1 + group.retries + work.retries,
                elapsed=_now() - work.started,
                error=error,
            )
        )


def _grouped(jobs: Iterable[MirrorJob]) -> list[_Group]:
    groups: dict[tuple[str, str | None], _Group] = {}
    for job in jobs:
        platform = None if job.platform is None else Platform.parse(job.platform)
        group = groups.setdefault((job.source, job.platform), _Group(Reference.parse(job.source), platform, []))
        group.works.append(_Work(job, Reference.parse(job.target), _now()))
    return list(groups.values())


def _now() -> float:
    return asyncio.get_running_loop().time()

"""One run of `mirror`: what is compared, pulled, lent and pushed, in which order, and what is given back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, TypeVar

from aiodocker_images._aio.callbacks import tell
from aiodocker_images._aio.threads import outlast
from aiodocker_images._aio.together import together
from aiodocker_images.errors import DockerError, NotFoundError, NotGivenBackError
from aiodocker_images.progress import OnProgress, ProgressFrame
from aiodocker_images.service import ImageService

from .borrowed import Names
from .comparing import Comparing
from .digests import truth
from .endings import Endings
from .engine import EngineFacts, Tried
from .jobs import MirrorJob, MirrorOutcome, MirrorProgress
from .journal import Journal
from .options import Options
from .pulling import Pulls
from .records import Done, Ended
from .retrying import persist
from .slots import Slots
from .work import Group, Work, grouped, now

__all__ = ["CLEANUP_TIMEOUT", "Run"]

T = TypeVar("T")

HELD: Final = 1
"""How many images that are done stay on the Engine, for each transfer at once: the next may share their layers."""

CLEANUP_TIMEOUT: Final = 60.0
"""Seconds that giving back may take when a run is left early; what remains is in the journal."""

SIGN_OF_LIFE: Final = 3.0
"""Seconds in which an Engine must answer a ping when a run is left early: one that hangs is not waited for."""

TRIES: Final = 5
"""How often an image is pulled again, or a target's name moved again, that other programs took away meanwhile."""

LOGGER: Final = logging.getLogger("aiodocker_images")


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
        self._on_progress = on_progress
        self._slots = slots or Slots(options.concurrency, options.per_registry, options.retry)
        self._endings = Endings(journal, emit)
        self._facts = EngineFacts(images, self._patiently)
        self._names = Names(images, journal, self._facts)
        self._comparing = Comparing(
            images,
            facts=self._facts,
            slots=self._slots,
            options=options,
            journal=journal,
            endings=self._endings,
            patiently=self._patiently,
        )
        self._pulls = Pulls(images, self._facts, self._names, self._comparing, options)
        self._groups = grouped(jobs)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._repositories: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._done: deque[Group] = deque()
        self._callers: Exception | None = None

    async def plan(self) -> None:
        """Compare, and tell what would be done."""
        await together([self._plan_group(group) for group in self._groups])

    async def run(self) -> None:
        """Do it all, and give back what was borrowed."""
        given_back = False
        try:
            if not self._options.keep:
                await self._patiently(self._names.begin)
            await together([self._mirror_group(group) for group in self._groups], until=self._endings.stop)
            self._endings.stop_rest(self._groups)
            await self._give_all_back()
            given_back = True
            if not self._endings.failed:
                await self._journal.note(Ended())
        finally:
            if not given_back:
                await outlast(asyncio.create_task(self._give_back_what_can_be()))

    async def settle(self) -> None:
        """Give back what an earlier run on this Engine borrowed, if the journal knows of one."""
        if await self._facts.identity() in self._journal.state.engines:
            await self._patiently(self._names.begin)
            await self._give_all_back()

    async def _give_all_back(self) -> None:
        try:
            await self._patiently(self._names.give_all_back)
        except DockerError as error:
            self._journal.check()
            left = self._names.left or {"": error}
            reasons = "; ".join(f"{name}: {each}" for name, each in left.items())
            raise NotGivenBackError(
                f"not all names on the Engine could be given back: {reasons}", names=tuple(left)
            ) from error

    async def _give_back_what_can_be(self) -> None:
        """Clean up after a run that was left early, in bounded time."""
        try:
            async with asyncio.timeout(SIGN_OF_LIFE):
                await self._images.ping()
            async with asyncio.timeout(CLEANUP_TIMEOUT):
                await self._names.give_all_back()
        except (DockerError, TimeoutError) as error:
            left = self._names.noted()
            if left:
                names = ", ".join(left)
                LOGGER.warning("mirror: these names on the Engine were not given back: %s: %r", names, error)

    # The groups

    async def _plan_group(self, group: Group) -> None:
        try:
            await self._comparing.compare(group)
            for work in group.left:
                await self._comparing.plan(group, work)
        except Exception as error:  # noqa: BLE001 - one job's failure, whatever it is, is no other's
            self._endings.fail(group, group.left, error)

    async def _mirror_group(self, group: Group) -> None:
        try:
            await self._comparing.compare(group)
            if group.left:
                await self._pull(group)
                await together([self._push(group, work) for work in group.left])
        except Exception as error:
            if error is self._callers:
                raise
            self._endings.fail(group, group.left, error)
        finally:
            self._slots.image_done(group.room)
        await self._let_go_of_the_oldest(group)

    async def _pull(self, group: Group) -> None:
        """Pull the source once, for all the jobs of the group."""
        targets = frozenset(work.target.domain for work in group.left)
        on_progress = self._framed(group.left[0], "pull")

        async def pull() -> None:
            # Another platform of the same source would move the name before its image is known.
            async with self._locks[str(group.source)], self._slots.transfer(group.source.domain, targets=targets):
                try:
                    for work in group.left:
                        work.started = now()
                    await self._pulls.pull(group, on_progress)
                except BaseException:
                    # There is no image of it on the Engine, and while this pull waits others may go on.
                    self._slots.image_done(targets)
                    raise

        await self._while_others_remove(functools.partial(self._patiently, pull, group))
        group.room = targets
        for work in group.left:
            self._comparing_again(group, work)
            if not self._options.narrow and not group.whole:
                await self._comparing.refuse_less(group, work, whole=group.whole)

    def _comparing_again(self, group: Group, work: Work) -> None:
        if self._options.require_digest and not group.whole and not work.ended:
            self._endings.change(group, work, "the Engine did not bring all that the source's index names")

    async def _pull_again(self, group: Group, image: object) -> None:
        """Pull an image again that somebody removed from the Engine, once for all that miss it."""
        async with group.pulling:
            if group.image is image:
                self._slots.image_done(group.room)
                group.room = frozenset()
                await self._pull(group)

    async def _while_others_remove(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run a step again that found an image gone which was there a moment ago."""
        for _ in range(TRIES - 1):
            try:
                return await step()
            except NotFoundError as error:
                if not self._pulls.was_removed(error):
                    raise
        return await step()

    async def _push(self, group: Group, work: Work) -> None:
        """Give the image its other name and push it."""
        try:
            after = await self._pushed(group, work)
        except Exception as error:
            if error is self._callers:
                raise
            self._endings.fail(group, [work], error)
            return
        await self._end_pushed(group, work, after)

    async def _pushed(self, group: Group, work: Work) -> str | None:
        """Push, and pull again before it what somebody removed; return the digest that the Engine tells."""
        push = functools.partial(self._patiently, functools.partial(self._push_once, group, work), work)
        for _ in range(TRIES - 1):
            image = group.image
            try:
                return await push()
            except NotFoundError as error:
                if not self._pulls.was_removed(error):
                    raise
                await self._pull_again(group, image)
        return await push()

    async def _push_once(self, group: Group, work: Work) -> str | None:
        image, on_progress = group.image, self._framed(work, "push")
        assert image is not None  # noqa: S101 - it is pushed after it was pulled
        layers = frozenset(image.root_fs.layers if image.root_fs is not None else ())
        # Of one source into one repository one after the other: the next finds the layers there. At once, the
        # containerd store (28.5) uploads them twice, and distribution 2.8 takes one for a mangled other.
        into = self._repositories[str(group.source), work.target.name]
        async with into, self._slots.transfer(work.target.domain, layers=layers):
            for attempt in range(1, TRIES + 1):
                await self._pulls.name(group, work.target)
                try:
                    pushed = await self._images.push(work.target, platform=group.push_platform, on_progress=on_progress)
                except NotFoundError:
                    # Another run, which had the same to do, may have taken the name away.
                    if attempt == TRIES or await self._pulls.is_named(group, work.target):
                        raise
                    continue
                if await self._pulls.is_still_named(group, work.target):
                    return pushed.digest
                # Somebody gave the name to another image meanwhile: it may be that which went.
                LOGGER.warning("mirror: %s was moved to another image by another program; pushing again", work.target)
        raise NotFoundError(f"{work.target.familiar} was moved to another image by another program, again and again")

    async def _end_pushed(self, group: Group, work: Work, after: str | None) -> None:
        image = group.image
        assert image is not None  # noqa: S101 - it is pushed after it was pulled
        before, went = group.digest, str(group.push_platform or image.platform)
        preserved, because = truth(group.digests, after, found=group.found, image=image, went=went)
        if self._options.require_digest and not preserved:
            self._endings.change(group, work, because or "nobody knows why", after=after)
            return
        await self._journal.note(Done(work.job, before, after))
        self._endings.end(group, work, "mirrored", before=before, after=after, preserved=preserved, because=because)

    async def _let_go_of_the_oldest(self, group: Group) -> None:
        """Give back what a group borrowed: at once if nothing came of it, else when enough others are done."""
        if group.image is None:
            await self._let_go(group)
            return
        self._done.append(group)
        while len(self._done) > HELD * self._options.concurrency:
            await self._let_go(self._done.popleft())

    async def _let_go(self, group: Group) -> None:
        # Whatever goes wrong here is tried again at the end of the run.
        with contextlib.suppress(DockerError):
            await self._pulls.let_go(group)
        self._journal.check()

    async def _patiently(self, step: Callable[[], Awaitable[T]], tried: Tried | None = None, /) -> T:
        def told(error: BaseException, seconds: float, attempt: int) -> None:
            if tried is not None:
                tried.retries += 1
            limit = self._options.retry.attempts
            LOGGER.warning("mirror: try %d of %d failed, the next is in %.1f s: %s", attempt, limit, seconds, error)

        return await persist(step, self._options.retry, told)

    def _framed(self, work: Work, step: Literal["pull", "push"]) -> OnProgress[ProgressFrame] | None:
        if (on_progress := self._on_progress) is None:
            return None

        async def framed(frame: ProgressFrame) -> None:
            try:
                await tell(on_progress, MirrorProgress(job=work.job, step=step, frame=frame))
            except Exception as error:
                self._callers = error  # not a failure of the job, but the caller's own
                raise

        return framed

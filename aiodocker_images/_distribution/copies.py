"""The copies of a service: what each is made from, and what it has cost in the end."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from aiodocker_images.credentials import registry_name
from aiodocker_images.models import Platform
from aiodocker_images.reference import Reference

from .config import RegistryConfig
from .copying import Copy, Options, Report
from .ends import Ends, told
from .layouts import OCILayout
from .planned import PlannedTarget
from .registry import TALLY, Tally
from .repository import Repository
from .results import CopyResult
from .slots import Slots
from .source import RegistrySource
from .stores import ImageSource, ImageTarget, SeenTarget, StoredImages
from .target import RegistryTarget, Shelf

__all__ = ["Copies"]

Located = Callable[[str], contextlib.AbstractContextManager[None]]
"""Says in errors which operation they met."""


class Repositories(Protocol):
    """Returns the repository of an image; `writes` says that it is written to."""

    def __call__(self, image: Reference, *, writes: bool = False) -> Repository: ...


class Copies:
    """Copies beside each other, which share slots, and what they know of the blobs in each registry."""

    def __init__(
        self,
        repository: Repositories,
        source: Callable[[Reference], RegistrySource],
        configs: Mapping[str, RegistryConfig],
        concurrency: int,
    ) -> None:
        self._repository = repository
        self._source = source
        self._configs = configs
        self._concurrency = concurrency
        self._shelves: dict[str, Shelf] = {}
        self._slots = Slots(self._blobs_at_once)

    def options(
        self,
        ends: Ends,
        platforms: tuple[Platform, ...] | None,
        referrers: bool | Iterable[str],
        *,
        sparse: bool = False,
        force: bool = False,
        resumed: bool = False,
    ) -> Options:
        """Return the options of a copy; `referrers` are those of some types, or all or none."""
        return Options(
            platforms=platforms,
            sparse=sparse,
            force=force,
            resumed=resumed,
            copy_foreign=any(self._copies_foreign(each) for each in ends.registries),
            referrers=referrers is not False,
            artifact_types=frozenset() if isinstance(referrers, bool) else frozenset(referrers),
            registries=frozenset(ends.registries),
        )

    async def copy(
        self,
        ends: Ends,
        options: Options,
        *,
        origins: Iterable[Reference],
        verify: bool,
        report: Report | None,
        located: Located,
    ) -> CopyResult:
        """Copy, and return what it came to."""

        async def run(stack: contextlib.AsyncExitStack) -> CopyResult:
            source = await self._open_source(ends.source, stack)
            if isinstance(ends.target, Reference):
                target: ImageTarget = self._target(ends, origins, options, verify=verify)
            else:
                target = await stack.enter_async_context(ends.target.open_target(ends.name))
            return await Copy(source, target, options, self._slots, report).run()

        return await _tallied(ends, run, located)

    async def plan(self, ends: Ends, options: Options, *, located: Located) -> CopyResult:
        """Return what a copy would come to."""

        async def run(stack: contextlib.AsyncExitStack) -> CopyResult:
            source = await self._open_source(ends.source, stack)
            if isinstance(ends.target, OCILayout):
                target: SeenTarget = await stack.enter_async_context(ends.target.glance(ends.name))
            else:
                target = self._target(ends, (), options)
            return await Copy(source, PlannedTarget(target), options, self._slots, None).run()

        return await _tallied(ends, run, located)

    async def _open_source(self, source: Reference | StoredImages, stack: contextlib.AsyncExitStack) -> ImageSource:
        if isinstance(source, Reference):
            return self._source(source)
        return await stack.enter_async_context(source.open_source())

    def _target(
        self, ends: Ends, origins: Iterable[Reference], options: Options, *, verify: bool = False
    ) -> RegistryTarget:
        if not isinstance(ends.target, Reference):
            raise TypeError("a registry is named by a reference")
        repository = self._repository(ends.target, writes=True)
        registry = repository.registry.name
        also = [ends.source] if isinstance(ends.source, Reference) else []
        paths = [self._repository(each).path for each in [*also, *origins] if registry_name(each.domain) == registry]
        shelf = self._shelves.setdefault(registry, Shelf())
        return RegistryTarget(repository, ends.target.tag, shelf, origins=paths, verify=verify, resumed=options.resumed)

    def _copies_foreign(self, registry: str) -> bool:
        return registry in self._configs and self._configs[registry].foreign == "copy"

    def _blobs_at_once(self, registry: str) -> int:
        config = self._configs.get(registry)
        return (config.concurrency if config is not None else None) or self._concurrency


async def _tallied(
    ends: Ends, run: Callable[[contextlib.AsyncExitStack], Awaitable[CopyResult]], located: Located
) -> CopyResult:
    """Run a copy, and return its result with what it has cost."""
    tally = Tally(outer=TALLY.get(None))
    token = TALLY.set(tally)
    try:
        with located(str(ends)):
            async with contextlib.AsyncExitStack() as stack:
                result = await run(stack)
    finally:
        TALLY.reset(token)
    return msgspec.structs.replace(
        result,
        source=told(ends.source),
        target=told(ends.target),
        requests=tally.requests,
        retries=tally.retries,
    )

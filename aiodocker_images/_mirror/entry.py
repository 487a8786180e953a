"""`mirror`: many images from registry to registry through one Engine, each outcome as it comes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from aiodocker_images._aio.callbacks import check_callback
from aiodocker_images._arguments import path_text, wrong
from aiodocker_images.errors import ConfigError
from aiodocker_images.models import Platform
from aiodocker_images.progress import OnProgress
from aiodocker_images.service import ImageService

from .jobs import MirrorJob, MirrorOutcome, MirrorProgress, Retry
from .journal import Journal
from .options import DEFAULT_CONCURRENCY, Options, checked_jobs, checked_platforms, checked_retry
from .outcome_stream import outcome_stream
from .runner import Run

__all__ = ["mirror", "outcomes", "require_tenacity"]


def mirror(
    images: ImageService,
    jobs: Iterable[MirrorJob],
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
    per_registry: int | Mapping[str, int] | None = None,
    retry: Retry | None = Retry(),  # noqa: B008 - frozen
    platforms: Iterable[str | Platform] | Literal["all"] = (),
    dry_run: bool = False,
    journal: str | os.PathLike[str] | None = None,
    keep: bool = False,
    require_digest: bool = False,
    narrow: bool = False,
    on_progress: OnProgress[MirrorProgress] | None = None,
) -> AsyncGenerator[MirrorOutcome, None]:
    """Mirror images from their registries to others, and yield the outcome of each job as it ends.

    Before anything is pulled the registries are asked for both digests: what is there already is skipped. Jobs with
    the same source share one pull. `concurrency` bounds pulls and pushes at once, `per_registry` those with one
    registry, or with each that it names; nothing else waits for them. `retry` says how often a step is tried that
    failed on a rate limit, a server's error or a cut connection (None: once); a rate limit pauses its whole registry.
    One job's failure is its own outcome and harms no other; a full disk stops them all, with what to do in the error.

    `platforms` are those of a multi-platform image that go, "all" for all: several only through a containerd image
    store, through others the first of them; by default the Engine's own. A job's own platform beats it. A source that
    has none of them fails its job. With `require_digest` a job fails whose target would not have the source's digest;
    it is told before anything is moved, where that can be known. A target that would have fewer platforms than it has
    now, or no attestations any more, is left as it is and its job fails, unless the platforms that go are named, or
    `narrow` is set. `dry_run` asks and tells the same, and writes nothing.

    Other programs may use the Engine at the same time. What is pulled is pulled by its digest, and held by names of
    the run's own (mirror.aiodocker-images.invalid/...), which are gone in the end, unless `keep`: then pulls and tags
    stay as if they were typed. Only a target's name is moved while it is pushed; what had it before is held and gets
    it back, unless somebody else moved it meanwhile. With Podman, which cannot tell digests first, the source's tag is
    moved too, for the time of the pull. `journal` is a file in which the run notes what it does: after a kill, the
    same call does only what is left, and gives back what the killed run had moved on the same Engine. It is one run's
    at a time.

    Leaving the generator in any way ends all that is under way, and waits for it; so does closing the service, where
    nobody closes the generator. `on_progress`, a function or a coroutine function, is called with a `MirrorProgress`
    for each progress frame of a pull or a push. What is tried again is told as a warning of the logger
    `aiodocker_images`.

    Raises at the call `InvalidArgumentError` for options that make no sense and for two jobs that write the same
    target, and `ConfigError` for a missing `tenacity` (the extra `mirror`); then `ConfigError` for a file that is not a
    journal of this format, is in use or cannot be written, `NotGivenBackError` after the last outcome for names that
    could not be given back, and any `DockerError` if the Engine cannot be asked at all.
    """
    require_tenacity()
    if not isinstance(cast("object", images), ImageService):
        raise wrong("images", images, "an ImageService")
    check_callback(on_progress)
    options = Options(
        concurrency=concurrency,
        per_registry=per_registry,
        retry=checked_retry(retry),
        platforms=checked_platforms(platforms),
        dry_run=dry_run,
        keep=keep,
        require_digest=require_digest,
        narrow=narrow,
    )
    return outcomes(
        images,
        checked_jobs(jobs),
        options,
        None if journal is None else Path(path_text("journal", journal)),
        on_progress,
    )


def require_tenacity() -> None:
    """Raise `ConfigError` if what the extra `mirror` brings is not there."""
    if importlib.util.find_spec("tenacity") is None:
        raise ConfigError("mirroring needs tenacity: pip install 'aiodocker-images[mirror]'")


def outcomes(
    images: ImageService,
    jobs: Sequence[MirrorJob],
    options: Options,
    path: Path | None = None,
    on_progress: OnProgress[MirrorProgress] | None = None,
) -> AsyncGenerator[MirrorOutcome, None]:
    """Run checked jobs in a task of their own, which ends whenever this generator does."""

    async def work(emit: Callable[[MirrorOutcome], object]) -> None:
        if options.dry_run:
            await Run(images, jobs, options, await Journal.read(path), emit=emit).plan()
        else:
            async with Journal(path) as journal:
                await Run(images, jobs, options, journal, emit=emit, on_progress=on_progress).run()

    return outcome_stream("mirror", (images,), work)

"""The commands that move images: pull, push, load, save, import."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, BinaryIO, Literal

import typer

from aiodocker_images import (
    ArchiveError,
    DockerError,
    ImageService,
    InvalidReferenceError,
    OnProgress,
    ProgressFrame,
    Reference,
    SaveProgress,
)
from aiodocker_images._mirror.options import DEFAULT_CONCURRENCY
from aiodocker_images.cli.jobs import Job, Report, Result, run_jobs
from aiodocker_images.cli.options import (
    Concurrency,
    Images,
    JSONFrames,
    OnePlatform,
    Platforms,
    Quiet,
    each_of,
)
from aiodocker_images.cli.reports import report_for
from aiodocker_images.cli.session import session_of
from aiodocker_images.cli.terminal import (
    NobodyReadsError,
    archive_input,
    archive_output,
    clean,
    moves_cursor,
    note,
    reader_is_gone,
)

__all__ = ["import_", "load", "pull", "push", "save"]

Work = Callable[[ImageService, Job, OnProgress[ProgressFrame]], Awaitable[Result]]

SHORT_DIGEST = len("sha256:") + 12


def pull(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="NAME[:TAG|@DIGEST]...", help="What to pull.")],
    *,
    all_tags: Annotated[bool, typer.Option("--all-tags", "-a", help="Every tag of the repository.")] = False,
    policy: Annotated[
        Literal["always", "missing", "never"],
        typer.Option("--policy", help="Whether to ask the registry: missing pulls only what the Engine does not have."),
    ] = "always",
    platform: OnePlatform = None,
    quiet: Quiet = False,
    as_json: JSONFrames = False,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
) -> None:
    """Pull images from their registries, several at once."""
    references = _references(images, all_tags=all_tags)
    if all_tags and policy != "always":
        raise typer.BadParameter(f"--all-tags always asks the registry: --policy {policy} needs a tag")

    async def one(service: ImageService, job: Job, on_progress: OnProgress[ProgressFrame]) -> Result:
        pulled = await service.pull(
            job.name, platform=platform, all_tags=all_tags, policy=policy, on_progress=on_progress
        )
        said = "Image is up to date for" if pulled.up_to_date else "Downloaded newer image for"
        lines: tuple[str, ...] = (f"Status: {said} {job.name}", pulled.reference)
        if pulled.digest is not None and not all_tags:
            lines = (f"Digest: {pulled.digest}", *lines)
        summary = f"{(pulled.digest or '')[:SHORT_DIGEST]}  {'up to date' if pulled.up_to_date else 'new'}".strip()
        return Result(lines=lines, quiet_lines=(pulled.reference,), summary=summary, data=pulled)

    jobs = [Job(reference.familiar, "Pulling") for reference in references]
    _run(context, jobs, one, quiet=quiet, as_json=as_json, concurrency=concurrency)


def push(
    context: typer.Context,
    images: Images,
    *,
    all_tags: Annotated[bool, typer.Option("--all-tags", "-a", help="Every local tag of the repository.")] = False,
    platform: OnePlatform = None,
    quiet: Quiet = False,
    as_json: JSONFrames = False,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
) -> None:
    """Push images to the registries that their names say, several at once."""
    references = _references(images, all_tags=all_tags)
    for each in references:
        if each.digest is not None:
            raise InvalidReferenceError(f"{each.familiar!r} cannot be pushed by digest: name a tag")

    async def one(service: ImageService, job: Job, on_progress: OnProgress[ProgressFrame]) -> Result:
        pushed = await service.push(job.name, platform=platform, all_tags=all_tags, on_progress=on_progress)
        tag = Reference.parse(job.name).tag
        line = f"{tag}: digest: {pushed.digest} size: {pushed.size}" if tag and pushed.digest else pushed.reference
        summary = (pushed.digest or "")[:SHORT_DIGEST]
        return Result(lines=(line,), quiet_lines=(pushed.reference,), summary=summary, data=pushed)

    # Into one repository one after the other: the next finds the layers there. At once, a registry may take one for a
    # mangled other (distribution 2.8), or answer with status 500 (seen through Docker 26).
    jobs = [Job(reference.familiar, "Pushing", turn=reference.name) for reference in references]
    _run(context, jobs, one, quiet=quiet, as_json=as_json, concurrency=concurrency)


def load(
    context: typer.Context,
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE|-]...", help="Archives, as with --input.")] = None,
    *,
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="An archive; `-` is standard input, the default.",
            default_factory=list,
            show_default=False,
        ),
    ],
    platforms: Platforms,
    quiet: Quiet = False,
    as_json: JSONFrames = False,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
) -> None:
    """Load images from archives as `save` and `docker save` write them, compressed or not."""
    names = [*inputs, *(files or ())] or ["-"]
    sources: dict[str, str | BinaryIO] = {each: archive_input() if each == "-" else each for each in names}
    chosen = each_of(platforms)

    async def one(service: ImageService, job: Job, on_progress: OnProgress[ProgressFrame]) -> Result:
        loaded = await service.load(sources[job.name], platforms=chosen, on_progress=on_progress)
        lines = (
            *(f"Loaded image: {reference}" for reference in loaded.references),
            *(f"Loaded image ID: {image_id}" for image_id in loaded.ids),
        )
        names = ", ".join([*loaded.references, *(image_id[:SHORT_DIGEST] for image_id in loaded.ids)])
        return Result(lines=lines, quiet_lines=lines, summary=names, data=loaded)

    jobs = [Job(source, "Loading") for source in sources]
    _run(context, jobs, one, quiet=quiet, as_json=as_json, concurrency=concurrency)


def save(
    context: typer.Context,
    images: Images,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; `-` is standard output, the default.")
    ] = "-",
    platforms: Platforms,
    compression: Annotated[
        Literal["gzip", "bzip2", "xz", "zstd", "none"] | None,
        typer.Option("--compression", help="How to compress it; by default as FILE ends: .tar.gz, .tar.zst, …"),
    ] = None,
    checksum: Annotated[bool, typer.Option("--checksum", help="Tell the sha256 of the archive.")] = False,
    quiet: Quiet = False,
    as_json: JSONFrames = False,
) -> None:
    """Save images with their names, layers and history to one archive: whole, or not at all.

    Progress goes to standard error. A file gets its name when all of it is on the disk.
    """
    to_output = output == "-"
    if as_json and to_output:
        raise typer.BadParameter("--json writes to standard output, and so does the archive: name a file with -o")
    target: str | BinaryIO = archive_output() if to_output else output
    chosen = each_of(platforms)

    async def one(service: ImageService, job: Job, _: OnProgress[ProgressFrame]) -> Result:
        def count(progress: SaveProgress) -> None:
            job.moved = progress.size

        try:
            saved = await service.save(
                *images, to=target, platforms=chosen, compression=compression, checksum=checksum, on_progress=count
            )
        except ArchiveError as error:
            if to_output and reader_is_gone(error):
                raise NobodyReadsError from error
            raise
        if saved.digest is not None and to_output and not quiet:
            note(saved.digest)
        lines = (saved.digest,) if saved.digest is not None and not to_output else ()
        return Result(lines=lines, quiet_lines=lines, summary=saved.digest or "", data=saved)

    name = ", ".join(images) if to_output else output
    # Without a terminal there is nothing to tell of a save.
    _run(context, [Job(name, "Saving")], one, quiet=quiet or not moves_cursor(), as_json=as_json, concurrency=1)


def import_(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FILE|URL|-", help="The tar of a root file system; the Engine fetches a URL.")
    ],
    repository: Annotated[str | None, typer.Argument(metavar="[REPOSITORY[:TAG]]", help="Its name.")] = None,
    *,
    changes: Annotated[
        list[str],
        typer.Option(
            "--change",
            "-c",
            metavar="INSTRUCTION",
            help='Of a Dockerfile: CMD ["/bin/sh"].',
            default_factory=list,
            show_default=False,
        ),
    ],
    message: Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="The image's comment.")] = None,
    platform: OnePlatform = None,
    quiet: Quiet = False,
    as_json: JSONFrames = False,
) -> None:
    """Make an image of the tar of a root file system."""
    given = archive_input() if source == "-" else source

    async def one(service: ImageService, _: Job, on_progress: OnProgress[ProgressFrame]) -> Result:
        imported = await service.import_image(
            given, reference=repository, changes=changes, message=message, platform=platform, on_progress=on_progress
        )
        return Result(
            lines=(imported.id,), quiet_lines=(imported.id,), summary=imported.id[:SHORT_DIGEST], data=imported
        )

    job = Job(repository or clean(source), "Importing")
    _run(context, [job], one, quiet=quiet, as_json=as_json, concurrency=1)


def _run(context: typer.Context, jobs: list[Job], work: Work, *, quiet: bool, as_json: bool, concurrency: int) -> None:
    session = session_of(context)
    report: Report = report_for(jobs, quiet=quiet, as_json=as_json)

    async def all_of(service: ImageService) -> list[DockerError | None]:
        return await run_jobs(jobs, functools.partial(work, service), report, concurrency=concurrency)

    session.finish(session.run(all_of))


def _references(images: list[str], *, all_tags: bool) -> list[Reference]:
    """Read all names before anything is sent; the same one twice is one image."""
    references = [Reference.parse(each) for each in images]
    for each in references:
        if all_tags and each.tag_or_digest is not None:
            raise InvalidReferenceError(f"{each.familiar!r}: with all_tags, name the repository alone")
    return list(dict.fromkeys(each if all_tags else each.with_default_tag() for each in references))

"""The commands on images that the Engine has: ls, inspect, history, tag, rm, prune."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer

from aiodocker_images import (
    DockerError,
    HistoryItem,
    ImageService,
    ImageSummary,
    InvalidReferenceError,
    NotFoundError,
    Platform,
    Reference,
    RemovedImage,
)
from aiodocker_images._dockercli.config import images_format, prune_filters
from aiodocker_images.cli.documents import row, typed_image
from aiodocker_images.cli.exits import BAD_TEMPLATE, FAILED
from aiodocker_images.cli.gotemplate.template import Template
from aiodocker_images.cli.gotemplate.values import Struct, TemplateError, untyped
from aiodocker_images.cli.options import (
    All,
    Filter,
    Format,
    Image,
    Images,
    NoTrunc,
    OnePlatform,
    Platforms,
    Quiet,
    check_names,
    each_of,
)
from aiodocker_images.cli.session import filling, filters_of, session_of
from aiodocker_images.cli.tables import Listing, shortened
from aiodocker_images.cli.terminal import clean, is_terminal, note, say
from aiodocker_images.cli.units import age, local_time, rfc3339, size

__all__ = ["history", "image_row", "inspect", "ls", "prune", "rm", "tag"]

NONE: Final = "<none>"
COLUMNS: Final = ("Repository", "Tag", "ID", "CreatedSince", "Size")
DIGEST_COLUMNS: Final = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
HEADINGS: Final = {
    "Containers": "CONTAINERS",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "SharedSize": "SHARED SIZE",
    "Size": "SIZE",
    "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE",
}
_RAW: Final = "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
RAW: Final = f"repository: {{{{ .Repository }}}}\ntag: {{{{.Tag}}}}\n{_RAW}"
RAW_WITH_DIGEST: Final = f"repository: {{{{ .Repository }}}}\ntag: {{{{.Tag}}}}\ndigest: {{{{.Digest}}}}\n{_RAW}"
RAW_QUIET: Final = "image_id: {{.ID}}"
HISTORY_COLUMNS: Final = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
EXACT_HISTORY_COLUMNS: Final = ("ID", "CreatedAt", "CreatedBy", "Size", "Comment")
HISTORY_HEADINGS: Final = {
    "Comment": "COMMENT",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "CreatedSince": "CREATED",
    "ID": "IMAGE",
    "Size": "SIZE",
}
COMMAND_WIDTH: Final = 45
LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)  # builds that are to be reproducible set such dates


def ls(
    context: typer.Context,
    reference: Annotated[
        str | None, typer.Argument(metavar="[REPOSITORY[:TAG]]", help="Only this one, or a pattern.")
    ] = None,
    *,
    all_images: All = False,
    digests: Annotated[bool, typer.Option("--digests", help="Show the digests, too.")] = False,
    filters: Filter,
    chosen: Format = "",
    no_trunc: NoTrunc = False,
    quiet: Quiet = False,
) -> None:
    """List the images that the Engine has."""
    narrowed = filters_of(filters)
    if not chosen and not quiet:
        chosen = images_format(os.environ)
    if quiet and chosen in ("", "table"):
        chosen = "{{.ID}}"
    elif digests and chosen.startswith("table") and chosen != "table" and "{{.Digest}}" not in chosen:
        chosen += "\t{{.Digest}}"
    raw = RAW_QUIET if quiet else RAW_WITH_DIGEST if digests else RAW
    with filling():
        listing = Listing(chosen, DIGEST_COLUMNS if digests else COLUMNS, HEADINGS, raw=raw)
    if reference is not None:
        narrowed.setdefault("reference", []).append(reference)

    async def listed(service: ImageService) -> list[ImageSummary]:
        return await service.list(all=all_images, filters=narrowed, digests=digests)

    summaries = session_of(context).run(listed)
    now = datetime.now(UTC)
    with_digests = digests or "{{.Digest}}" in chosen
    with filling():
        text = listing.write(
            each
            for summary in summaries
            for each in image_rows(summary, now, digests=with_digests, own_rows=digests, truncate=not no_trunc)
        )
    say(text)


def image_rows(
    summary: ImageSummary, now: datetime, *, digests: bool, own_rows: bool, truncate: bool
) -> Iterator[Struct]:
    """Yield an image's rows: one for each tag, or with `digests` for each digest of the tag's repository.

    What has a digest and no tag has one row, or with `own_rows` one for each digest.
    """
    tags, by_repository = _by_repository(summary.repo_tags), _by_repository(summary.repo_digests)
    if not tags and not by_repository:
        yield image_row(summary, now, NONE, NONE, NONE, truncate=truncate)
    for repository, names in tags.items():
        known = by_repository.pop(repository, []) if digests else by_repository.pop(repository, [])[:0]
        for name in names:
            for digest in known or [NONE]:
                yield image_row(summary, now, repository, name, digest, truncate=truncate)
    for repository, known in by_repository.items():
        for digest in known if own_rows else [""]:
            yield image_row(summary, now, repository, NONE, digest, truncate=truncate)


def image_row(
    summary: ImageSummary, now: datetime, repository: str, tag: str, digest: str, *, truncate: bool = True
) -> Struct:
    """Return one row under the names that the docker CLI has for its fields."""
    shared = summary.shared_size
    members = {
        "Containers": str(summary.containers) if summary.containers >= 0 else "N/A",
        "CreatedAt": local_time(summary.created),
        "CreatedSince": age(summary.created, now),
        "Digest": digest,
        "ID": short_id(summary.id) if truncate else summary.id,
        "Repository": repository,
        "SharedSize": size(shared) if shared >= 0 else "N/A",
        "Size": size(summary.size, 3),
        "Tag": tag,
        "UniqueSize": size(summary.size - shared) if shared >= 0 else "N/A",
        "VirtualSize": size(summary.virtual_size or summary.size),  # its older name, with another number of digits
    }
    return row("*formatter.imageContext", members)


def short_id(image_id: str) -> str:
    """Return the first 12 digits of an id."""
    return image_id.removeprefix("sha256:")[:12]


def inspect(
    context: typer.Context,
    images: Images,
    *,
    chosen: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="json, or a template: {{.Field}}.")
    ] = "",
    platform: OnePlatform = None,
    kind: Annotated[str, typer.Option("--type", metavar="TYPE", help="image: there is nothing else here.")] = "image",
) -> None:
    """Show everything that the Engine knows of images, as JSON in its own words."""
    if kind not in ("", "image"):
        raise typer.BadParameter(f"--type is image here, not {clean(kind)[:80]}")
    session = session_of(context)
    with filling(BAD_TEMPLATE):
        template = Template(chosen) if chosen not in ("", "json") else None
    check_names(images)
    errors: list[DockerError | None] = []

    async def inspected(service: ImageService) -> list[object]:
        found: list[object] = []
        for image in images:
            try:
                found.append(await _raw(service, image, platform))
                errors.append(None)
            except DockerError as error:
                errors.append(error)
        return found

    documents = session.run(inspected)
    if template is None:
        text = msgspec.json.encode(documents)
        say(f"{(text if chosen else msgspec.json.format(text, indent=4)).decode()}\n")
        session.finish(errors)
        return
    filled, faults = _filled(template, documents)
    say(filled or "\n")  # as the docker CLI does without any image
    for fault in faults:
        with suppress(typer.Exit), filling():
            raise fault
    if faults:
        session.report([error for error in errors if error is not None])
        raise typer.Exit(FAILED)
    session.finish(errors)


def _filled(template: Template, documents: list[object]) -> tuple[str, list[TemplateError]]:
    """Fill a template in for each document. What is wrong with one of them leaves the others as they are."""
    lines: list[str] = []
    faults: list[TemplateError] = []
    for document in documents:
        try:
            lines.append(f"{fill(template, document)}\n")
        except TemplateError as fault:
            faults.append(fault)
    return "".join(lines), faults


def fill(template: Template, document: object) -> str:
    """Fill a template in from the Engine's document of an image. Raises `TemplateError`."""
    try:
        try:
            return template.execute(typed_image(document))
        except TemplateError:
            # As the docker CLI does: what its types do not have may be in the Engine's own words.
            return template.execute(untyped(document), strict=True)
    except RecursionError:
        raise TemplateError("template: the document is nested too deeply") from None


async def _raw(service: ImageService, image: str, platform: str | None) -> object:
    """Return the Engine's own answer: with what is newer than this library, too."""
    await service.inspect(image, platform=platform)  # checks the name and the version, and knows what failed
    query = () if platform is None else (("platform", msgspec.json.encode(Platform.parse(platform)).decode()),)
    return await service.request("GET", f"/images/{image}/json", params=query)


def history(
    context: typer.Context,
    image: Image,
    *,
    human: Annotated[bool, typer.Option("--human/--no-human", "-H", help="Sizes and times for people.")] = True,
    chosen: Format = "",
    no_trunc: NoTrunc = False,
    platform: OnePlatform = None,
    quiet: Quiet = False,
) -> None:
    """Show the steps in the making of an image, the newest first."""

    async def steps(service: ImageService) -> list[HistoryItem]:
        return await service.history(image, platform=platform)

    if quiet and chosen in ("", "table"):
        chosen = "{{.ID}}"
    with filling():
        listing = Listing(chosen, HISTORY_COLUMNS if human else EXACT_HISTORY_COLUMNS, HISTORY_HEADINGS)
    now = datetime.now(UTC)
    steps_made = session_of(context).run(steps)
    with filling():
        text = listing.write(_history_row(step, now, human=human, truncate=not no_trunc) for step in steps_made)
    say(text)


def _history_row(step: HistoryItem, now: datetime, *, human: bool, truncate: bool) -> Struct:
    command = step.created_by.replace("\t", " ")
    created = rfc3339(step.created)
    since = "N/A" if step.created is None or step.created <= LONG_AGO else age(step.created, now)
    members = {
        "Comment": step.comment,
        "CreatedAt": created,
        "CreatedBy": shortened(command, COMMAND_WIDTH) if truncate else command,
        "CreatedSince": since if human else created,
        "ID": short_id(step.id) if truncate else step.id,
        "Size": size(step.size, 3) if human else str(step.size),
    }
    return row("*image.historyContext", members)


def tag(
    context: typer.Context,
    source: Image,
    targets: Annotated[list[str], typer.Argument(metavar="TARGET[:TAG]...", help="The new names.")],
) -> None:
    """Give an image other names."""
    check_names([source])
    for target in targets:
        if Reference.parse(target).digest is not None:
            raise InvalidReferenceError(f"{clean(target)!r}: an image is tagged by name, not by digest")

    async def tagged(service: ImageService) -> None:
        for target in targets:
            await service.tag(source, target)

    session_of(context).run(tagged)


def rm(
    context: typer.Context,
    images: Images,
    *,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Even if a stopped container uses it, or it has several names."),
    ] = False,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Keep its untagged parents.")] = False,
    platforms: Platforms,
) -> None:
    """Remove names from images, and images with their last name."""
    session = session_of(context)
    chosen = each_of(platforms)
    check_names(images)
    errors: list[DockerError | None] = []

    async def removed(service: ImageService) -> None:
        for image in images:
            try:
                steps = await service.remove(image, force=force, no_prune=no_prune, platforms=chosen)
            except DockerError as error:
                errors.append(error)
            else:
                say(_removals(steps, "Untagged: ", "Deleted: "))
                errors.append(None)

    session.run(removed)
    if force and any(isinstance(error, NotFoundError) for error in errors):
        # As with `rm -f`: what is not there need not be removed.
        session.report([error for error in errors if isinstance(error, NotFoundError)])
        errors = [error for error in errors if not isinstance(error, NotFoundError)]
    session.finish(errors)


def prune(
    context: typer.Context,
    *,
    all_images: Annotated[
        bool, typer.Option("--all", "-a", help="All that no container uses, not only those without a name.")
    ] = False,
    filters: Annotated[
        list[str],
        typer.Option(
            "--filter",
            metavar="NAME=VALUE",
            help="until=24h, label=key=value; may be repeated.",
            default_factory=list,
            show_default=False,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask first.")] = False,
) -> None:
    """Remove images that no container uses."""
    narrowed = _with_stored_filters(filters_of(filters))
    session = session_of(context)
    if not force:
        _confirm(all_images=all_images)
    report = session.run(lambda service: service.prune(all=all_images, filters=narrowed))
    if report.removed:
        say(f"Deleted Images:\n{_removals(report.removed, 'untagged: ', 'deleted: ')}\n")
    say(f"Total reclaimed space: {size(report.space_reclaimed)}\n")


def _with_stored_filters(given: dict[str, list[str]]) -> dict[str, list[str]]:
    """Add the filters that config.json has for every prune. Of labels that contradict them, the given ones count."""
    opposite = {"label": "label!", "label!": "label"}
    merged = {name: list(values) for name, values in given.items()}
    for name, values in filters_of(prune_filters(os.environ)).items():
        against = given.get(opposite.get(name, ""), [])
        kept = [value for value in values if value not in (*against, *merged.get(name, []))]
        if kept:
            merged.setdefault(name, []).extend(kept)
    return merged


def _confirm(*, all_images: bool) -> None:
    what = "images without at least one container associated to them" if all_images else "dangling images"
    note(f"WARNING! This will remove all {what}.")
    if not is_terminal(sys.stdin):
        note("Nobody can be asked here: -f removes them without a question.")
        raise typer.Exit(1)
    if not typer.confirm("Are you sure you want to continue?", err=True):
        note("Nothing was removed.")
        raise typer.Exit(1)


def _removals(steps: list[RemovedImage] | tuple[RemovedImage, ...], untagged: str, deleted: str) -> str:
    return "".join(
        f"{deleted}{step.deleted}\n" if step.deleted is not None else f"{untagged}{step.untagged}\n" for step in steps
    )


def _by_repository(names: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        try:
            reference = Reference.parse(name)
        except DockerError:
            continue
        if reference.tag_or_digest is not None:
            found.setdefault(reference.familiar_name, []).append(reference.tag_or_digest)
    return found

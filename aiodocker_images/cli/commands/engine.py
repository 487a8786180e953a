"""The commands about the Engine itself: df, events, endpoint, ping, version."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer

from aiodocker_images import Event, ImageDiskUsage, ImageService, Reference, __version__
from aiodocker_images.cli.options import Filter, Format
from aiodocker_images.cli.session import filters_of, session_of, usage
from aiodocker_images.cli.tables import Listing, Row
from aiodocker_images.cli.template import Template
from aiodocker_images.cli.terminal import PROGRAM, clean, say
from aiodocker_images.cli.units import from_nanoseconds, size

from .images import NONE, image_row

__all__ = ["df", "endpoint", "events", "ping", "version"]

COLUMNS: Final = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
IMAGE_COLUMNS: Final = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}


def df(
    context: typer.Context,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Each image.")] = False,
    chosen: Format = "",
) -> None:
    """Show the disk that images take."""
    with usage():
        listing = Listing(chosen, IMAGE_COLUMNS if verbose else COLUMNS)
    used = session_of(context).run(lambda service: service.disk_usage(verbose=verbose))
    rows = [_row(used)]
    if verbose:
        now = datetime.now(UTC)
        rows = [
            image_row(image, now, *_first_name(image.repo_tags), NONE, truncate=chosen in ("", "table"))
            for image in used.items
        ]
    with usage():
        text = listing.write(rows)
    say(text)


def _row(used: ImageDiskUsage) -> Row:
    total, reclaimable = used.total_size or 0, used.reclaimable or 0
    percent = f" ({reclaimable * 100 // total}%)" if total > 0 else ""
    return {
        "Active": str(used.active_count or 0),
        "Reclaimable": f"{size(reclaimable)}{percent}",
        "Size": size(total),
        "TotalCount": str(used.total_count or 0),
        "Type": "Images",
    }


def _first_name(names: tuple[str, ...]) -> tuple[str, str]:
    for name in names:
        if ":" not in name:  # Podman 4 gives the tag alone
            return NONE, name
        with contextlib.suppress(ValueError):
            reference = Reference.parse(name)
            return reference.familiar_name, reference.tag or NONE
    return NONE, NONE


def events(
    context: typer.Context,
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From then on: 10m, a time, or seconds of the epoch.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Up to then.")] = None,
    filters: Filter,
    chosen: Annotated[str, typer.Option("--format", metavar="FORMAT", help="json, or a template of {{.Field}}s.")] = "",
) -> None:
    """Show what happens to images, across restarts of the Engine."""
    narrowed = filters_of(filters)
    with usage():
        template = Template(chosen) if chosen not in ("", "json") else None

    async def shown(service: ImageService) -> None:
        with usage():
            stream = service.events(since=since, until=until, filters=narrowed)
        async with contextlib.aclosing(stream):
            async for event in stream:
                if not chosen:
                    say(f"{_line(event)}\n")
                elif template is None:
                    say(f"{msgspec.json.encode(_document(event)).decode()}\n")
                else:
                    with usage():
                        say(f"{template.fill(_document(event))}\n")

    session_of(context).run(shown)


def _line(event: Event) -> str:
    time = from_nanoseconds(event.time_nano) if event.time_nano else ""
    actor = event.actor.id if event.actor else ""
    attributes = event.actor.attributes if event.actor else dict[str, str]()
    more = ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes))
    return clean(f"{time} {event.type} {event.action} {actor}{f' ({more})' if more else ''}")


def _document(event: Event) -> dict[str, object]:
    return {
        "Type": event.type,
        "Action": event.action,
        "Actor": {
            "ID": event.actor.id if event.actor else "",
            "Attributes": dict(event.actor.attributes) if event.actor else {},
        },
        "scope": event.scope,
        "time": event.time_nano // 1_000_000_000,
        "timeNano": event.time_nano,
    }


def endpoint(context: typer.Context) -> None:
    """Show which Engine is chosen, and why."""
    say(f"{session_of(context).endpoint().explain()}\n")


def ping(context: typer.Context) -> None:
    """Ask whether the Engine is there, and what it speaks."""
    answer = session_of(context).run(lambda service: service.ping())
    say(f"{clean(answer.server) or 'The Engine'} speaks API {clean(answer.api_version)}\n")


def version(
    context: typer.Context,
    *,
    chosen: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="json, or a template: {{.Server.Version}}.")
    ] = "",
) -> None:
    """Show the versions of this program, of the Engine and of its parts."""
    session = session_of(context)
    with usage():
        template = Template(chosen) if chosen not in ("", "json") else None
    server = session.run(lambda service: service.version())
    document = {"Client": {"Name": PROGRAM, "Version": __version__}, "Server": msgspec.to_builtins(server)}
    if template is not None:
        with usage():
            say(f"{template.fill(document)}\n")
        return
    if chosen == "json":
        say(f"{msgspec.json.encode(document).decode()}\n")
        return
    lines = [
        "Client:",
        f" {'Version:':18}{__version__}",
        "",
        f"Server: {server.platform.name if server.platform else ''}".rstrip(),
        f" {'Version:':18}{server.version}",
        f" {'API version:':18}{server.api_version} (minimum version {server.min_api_version})",
        f" {'OS/Arch:':18}{server.os}/{server.arch}",
        f" {'Kernel version:':18}{server.kernel_version}",
        *(f" {f'{component.name}:':18}{component.version}" for component in server.components),
    ]
    say("".join(f"{line}\n" for line in lines))

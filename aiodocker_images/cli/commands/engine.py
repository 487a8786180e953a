"""The commands about the Engine itself: df, events, endpoint, ping, version."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, cast

import typer

from aiodocker_images import ConfigError, Event, ImageDiskUsage, ImageService, Platform, Reference, __version__
from aiodocker_images.api_version import MAXIMUM, APIVersion
from aiodocker_images.cli.documents import row, typed_event, typed_version
from aiodocker_images.cli.exits import BAD_TEMPLATE
from aiodocker_images.cli.gotemplate.values import List, Struct, TemplateError, Value
from aiodocker_images.cli.options import Filter, Format
from aiodocker_images.cli.session import Session, filling, filters_of, session_of, usage
from aiodocker_images.cli.tables import Listing, aligned, template_of
from aiodocker_images.cli.terminal import PROGRAM, clean, say
from aiodocker_images.cli.units import from_nanoseconds, size

from .images import HEADINGS as IMAGE_HEADINGS
from .images import NONE, RAW_WITH_DIGEST, image_row

__all__ = ["df", "endpoint", "events", "ping", "version"]

COLUMNS: Final = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
HEADINGS: Final = {
    "Active": "ACTIVE",
    "Reclaimable": "RECLAIMABLE",
    "Size": "SIZE",
    "TotalCount": "TOTAL",
    "Type": "TYPE",
}
RAW: Final = """\
type: {{.Type}}
total: {{.TotalCount}}
active: {{.Active}}
size: {{.Size}}
reclaimable: {{.Reclaimable}}
"""
IMAGE_COLUMNS: Final = (
    "Repository",
    "Tag",
    "ID",
    "CreatedSince",
    "Size",
    "SharedSize",
    "UniqueSize",
    "Containers",
)
ENGINE_DETAILS: Final = ("ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "BuildTime")
VERSION_COLUMN: Final = 20  # as wide as the docker CLI makes it, at least
VERBOSE_RAW: Final = f"{{{{range .Images}}}}type: Image\n{RAW_WITH_DIGEST}\n{{{{end -}}}}"


def df(
    context: typer.Context,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Each image.")] = False,
    chosen: Format = "",
) -> None:
    """Show the disk that images take."""
    session = session_of(context)
    with filling():
        if verbose and chosen not in ("", "table"):
            # All images are one document then, as with the docker CLI.
            template = template_of(VERBOSE_RAW if chosen == "raw" else chosen.replace("\\t", "\t").replace("\\n", "\n"))
            images = _image_rows(session.run(lambda service: service.disk_usage(verbose=True)), truncate=False)
            whole: dict[str, Value] = {"Images": List(images, "[]*formatter.imageContext")}
            text = template.execute(Struct("*formatter.diskUsageContext", whole, lambda: whole))
            say(f"{text}\n" if chosen == "json" else text)
            return
        listing = (
            Listing(chosen, COLUMNS, HEADINGS, raw=RAW) if not verbose else Listing("", IMAGE_COLUMNS, IMAGE_HEADINGS)
        )
        used = session.run(lambda service: service.disk_usage(verbose=verbose))
        text = listing.write(_image_rows(used, truncate=True) if verbose else [_row(used)])
    say(text)


def _image_rows(used: ImageDiskUsage, *, truncate: bool) -> list[Struct]:
    now = datetime.now(UTC)
    return [image_row(image, now, *_first_name(image.repo_tags), "", truncate=truncate) for image in used.items]


def _row(used: ImageDiskUsage) -> Struct:
    total, reclaimable = used.total_size or 0, used.reclaimable or 0
    percent = f" ({reclaimable * 100 // total}%)" if total > 0 else ""
    members = {
        "Active": str(used.active_count or 0),
        "Reclaimable": f"{size(reclaimable)}{percent}",
        "Size": size(total),
        "TotalCount": str(used.total_count or 0),
        "Type": "Images",
    }
    return row("*formatter.diskUsageImagesContext", members)


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
    template = None
    if chosen:
        with filling(BAD_TEMPLATE):
            template = template_of(chosen)
            template.execute(typed_event({}))  # as the docker CLI does: it may ask for what no event has

    async def shown(service: ImageService) -> None:
        with usage():
            stream = service.events(since=since, until=until, filters=narrowed)
        async with contextlib.aclosing(stream):
            async for event in stream:
                if template is None:
                    say(f"{_line(event)}\n")
                    continue
                try:
                    say(f"{template.execute(_document(event))}\n")
                except TemplateError as fault:
                    say(fault.written)
                    with filling():
                        raise

    session_of(context).run(shown)


def _line(event: Event) -> str:
    time = from_nanoseconds(event.time_nano) if event.time_nano else ""
    actor = event.actor.id if event.actor else ""
    attributes = event.actor.attributes if event.actor else dict[str, str]()
    more = ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes))
    return clean(f"{time} {event.type} {event.action} {actor}{f' ({more})' if more else ''}")


def _document(event: Event) -> Value:
    actor = event.actor.id if event.actor else ""
    return typed_event(
        {
            "status": event.action,
            "id": actor,
            "Type": event.type,
            "Action": event.action,
            "Actor": {"ID": actor, "Attributes": dict(event.actor.attributes) if event.actor else {}},
            "scope": event.scope,
            "time": event.time_nano // 1_000_000_000,
            "timeNano": event.time_nano,
        }
    )


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
    with filling(BAD_TEMPLATE):
        template = template_of(chosen) if chosen else None

    if template is not None:
        # The Engine's own words: with what is newer than this library.
        document = session.run(lambda service: service.request("GET", "/version"))
        whole = typed_version({"Client": _client(session, document), "Server": _server(document)})
        with filling():
            try:
                say(aligned(f"{template.execute(whole)}\n", VERSION_COLUMN, 1))
            except TemplateError as fault:
                say(aligned(f"{fault.written}\n", VERSION_COLUMN, 1))
                raise
        return
    server = session.run(lambda service: service.version())
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


def _client(session: Session, server: object) -> dict[str, object]:
    """Return what `version` says of this program, in the place of the docker CLI."""
    spoken = os.environ.get("DOCKER_API_VERSION") or str(MAXIMUM)
    if isinstance(server, Mapping):
        newest = str(cast("Mapping[str, object]", server).get("ApiVersion"))
        with contextlib.suppress(ConfigError):
            spoken = str(min(APIVersion.parse(spoken), APIVersion.parse(newest)))
    host = Platform.parse("windows" if sys.platform == "win32" else sys.platform)
    return {
        "Platform": {"Name": PROGRAM},
        "Version": __version__,
        "ApiVersion": spoken,
        "DefaultAPIVersion": str(MAXIMUM),
        "Os": host.os,
        "Arch": host.architecture,
        "Context": session.context or os.environ.get("DOCKER_CONTEXT") or "default",
    }


def _server(document: object) -> object:
    """Return what the Engine says of itself as the docker CLI shows it: with an Engine among its parts."""
    if not isinstance(document, Mapping):
        return document
    server = dict(cast("Mapping[str, object]", document))
    known = server.get("Components")
    parts: list[object] = list(cast("list[object]", known)) if isinstance(known, list) else []
    if not any(_is_engine(part) for part in parts):
        details = {name: server.get(name) for name in ENGINE_DETAILS}
        details["Experimental"] = "true" if server.get("Experimental") else "false"
        parts.append({"Name": "Engine", "Version": server.get("Version"), "Details": details})
    server["Components"] = [_with_plain_date(part) for part in parts]
    return server


def _is_engine(part: object) -> bool:
    return isinstance(part, Mapping) and cast("Mapping[str, object]", part).get("Name") == "Engine"


def _with_plain_date(part: object) -> object:
    """Return a part of the Engine; that of the Engine itself has the date of its build as the docker CLI writes it."""
    if not _is_engine(part):
        return part
    engine = dict(cast("Mapping[str, object]", part))
    details = engine.get("Details")
    if isinstance(details, Mapping):
        known = dict(cast("Mapping[str, object]", details))
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(str(known.get("BuildTime")))
            known["BuildTime"] = f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S %Y}"
        engine["Details"] = known
    return engine

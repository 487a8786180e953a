"""The options that several commands have, as annotations, and what completes them in a shell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Annotated, Final

import typer

from aiodocker_images import DockerError, ImageService
from aiodocker_images.reference import name_or_id

from .session import Session

__all__ = [
    "All",
    "Concurrency",
    "Filter",
    "Format",
    "Image",
    "Images",
    "JSONFrames",
    "NoTrunc",
    "OnePlatform",
    "Platforms",
    "Quiet",
]

COMPLETION_SECONDS: Final = 3.0
"""How long a shell waits for names at most."""


def local_names(incomplete: str) -> list[str]:
    """Return the names on the Engine that begin like that, for a shell; nothing if the Engine does not answer."""

    async def names() -> list[str]:
        async with asyncio.timeout(COMPLETION_SECONDS), ImageService(Session().endpoint()) as images:
            return sorted({name for image in await images.list() for name in image.repo_tags})

    with contextlib.suppress(DockerError, TimeoutError):
        return [name for name in asyncio.run(names()) if name.startswith(incomplete)]
    return []


Image = Annotated[str, typer.Argument(metavar="IMAGE", help="A name or an id.", autocompletion=local_names)]
Images = Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Names or ids.", autocompletion=local_names)]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only what scripts need.")]
JSONFrames = Annotated[
    bool, typer.Option("--json", help="Each frame of the progress, and then the result, as a line of JSON.")
]
Format = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help="table, json, or a template in Go's language: {{.Field}}; after `table` too."
    ),
]
NoTrunc = Annotated[bool, typer.Option("--no-trunc", help="Do not shorten anything.")]
All = Annotated[bool, typer.Option("--all", "-a")]
Filter = Annotated[
    list[str],
    typer.Option(
        "--filter",
        "-f",
        metavar="NAME=VALUE",
        help="Narrow it; may be repeated.",
        default_factory=list,
        show_default=False,
    ),
]
OnePlatform = Annotated[
    str | None, typer.Option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of a multi-platform image.")
]
Platforms = Annotated[
    list[str],
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="Only these, separated by commas or repeated.",
        default_factory=list,
        show_default=False,
    ),
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", "-j", min=1, max=1000, metavar="N", help="So many images at once.")
]


def each_of(values: list[str]) -> list[str]:
    """Split what is separated by commas, as the docker CLI does with platforms."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def check_names(images: Iterable[str]) -> None:
    """Raise `InvalidReferenceError` if one of them is not the name or id of an image, before anything is done."""
    for image in images:
        name_or_id(image)

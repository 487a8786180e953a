"""The command that compares the Engine's images with those in their registries: outdated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from aiodocker_images import (
    DockerError,
    ImageService,
    InvalidReferenceError,
    NotFoundError,
    Reference,
    RegistryConfig,
    RegistryService,
    UpdateCheck,
)
from aiodocker_images.cli.commands.distribution import PlainHTTP
from aiodocker_images.cli.options import Concurrency, Quiet, each_of, local_names
from aiodocker_images.cli.reports import say_json
from aiodocker_images.cli.session import session_of, usage
from aiodocker_images.cli.tables import aligned
from aiodocker_images.cli.terminal import clean, say

__all__ = ["outdated"]

SHORT_DIGEST: Final = len("sha256:") + 12


def outdated(
    context: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE...]", help="Names; by default all that came from a registry.", autocompletion=local_names
        ),
    ] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also those that are up to date.")] = False,
    concurrency: Concurrency = 8,
    plain_http: PlainHTTP,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Each image as a line of JSON.")] = False,
) -> None:
    """Show which images have another one under their name in the registry, without pulling it.

    Registries do not count that as a pull. An image that the Engine does not have counts as outdated.

    For example: aiodocker-images outdated -q | xargs -r aiodocker-images pull
    """
    names = [Reference.parse(each).with_default_tag() for each in images or ()]
    with usage():
        registries = RegistryService(registries={host: RegistryConfig(plain_http=True) for host in each_of(plain_http)})
    errors: list[DockerError | None] = []

    async def checked(service: ImageService) -> list[UpdateCheck]:
        slots = asyncio.Semaphore(concurrency)

        async def check(name: Reference) -> UpdateCheck | None:
            try:
                async with slots:
                    found = UpdateCheck(
                        reference=name.familiar,
                        latest=await registries.digest(name),
                        held=await _held(service, name),
                    )
            except DockerError as error:
                errors.append(error)
                return None
            errors.append(None)
            return found

        async with registries:
            wanted = names or await _pulled(service)
            return [each for each in await asyncio.gather(*map(check, wanted)) if each is not None]

    session = session_of(context)
    shown = [each for each in session.run(checked) if all_ or each.update_available]
    if as_json:
        for each in shown:
            say_json({**each.to_dict(), "update_available": each.update_available})
    elif quiet:
        say("".join(f"{clean(each.reference)}\n" for each in shown))
    elif shown:
        say(aligned("".join("\t".join(line) + "\n" for line in _table(shown)), 0, 3))
    session.finish(errors)


async def _held(service: ImageService, name: Reference) -> tuple[str, ...]:
    try:
        image = await service.inspect(name)
    except NotFoundError:
        return ()
    known = (_read(each) for each in image.repo_digests)
    return tuple(each.digest for each in known if each is not None and each.name == name.name and each.digest)


async def _pulled(service: ImageService) -> list[Reference]:
    """Return the names of what the Engine has from registries: what was built here has no digest in any."""
    names = {tag for image in await service.list() if image.repo_digests for tag in image.repo_tags}
    return [name for name in map(_read, sorted(names)) if name is not None]


def _read(name: str) -> Reference | None:
    """Read a name of the Engine's; None for what no registry can have, such as "<none>:<none>"."""
    try:
        return Reference.parse(name)
    except InvalidReferenceError:
        return None


def _table(found: Sequence[UpdateCheck]) -> list[list[str]]:
    lines = [["IMAGE", "HELD", "LATEST"]]
    for each in found:
        held = each.latest if not each.update_available else next(iter(each.held), "-")
        lines.append([clean(each.reference), clean(held)[:SHORT_DIGEST], clean(each.latest)[:SHORT_DIGEST]])
    return lines

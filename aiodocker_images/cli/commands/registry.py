"""The commands that ask a registry: search, login."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Final

import typer

from aiodocker_images import DockerKeychain, ImageService, RegistryAuth, SearchResult
from aiodocker_images.cli.documents import row
from aiodocker_images.cli.gotemplate.values import Struct
from aiodocker_images.cli.options import Filter, Format, NoTrunc
from aiodocker_images.cli.session import filling, filters_of, session_of
from aiodocker_images.cli.tables import Listing, shortened
from aiodocker_images.cli.terminal import StandardStreamError, clean, is_terminal, note, say

__all__ = ["login", "search"]

COLUMNS: Final = ("Name", "Description", "StarCount", "IsOfficial")
HEADINGS: Final = {"Description": "DESCRIPTION", "IsOfficial": "OFFICIAL", "Name": "NAME", "StarCount": "STARS"}
DESCRIPTION_WIDTH: Final = 45
MAX_PASSWORD: Final = 64 << 10
"""Bytes of a password on standard input; registry tokens are long, but not endless."""


def search(
    context: typer.Context,
    term: Annotated[str, typer.Argument(metavar="TERM", help="A word, or REGISTRY/word.")],
    *,
    filters: Filter,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="At most so many; 25 by default.")] = None,
    chosen: Format = "",
    no_trunc: NoTrunc = False,
) -> None:
    """Search Docker Hub, or another registry that can be searched, for repositories."""
    narrowed = filters_of(filters)
    with filling():
        listing = Listing(chosen, COLUMNS, HEADINGS)

    async def found(service: ImageService) -> list[SearchResult]:
        return await service.search(term, limit=limit, filters=narrowed)

    results = session_of(context).run(found)
    with filling():
        text = listing.write(_row(each, truncate=not no_trunc) for each in results)
    say(text)


def _row(found: SearchResult, *, truncate: bool) -> Struct:
    description = found.description.replace("\n", " ").replace("\r", " ")
    members = {
        "Description": shortened(description, DESCRIPTION_WIDTH) if truncate else description,
        "IsOfficial": "[OK]" if found.is_official else "",
        "Name": found.name,
        "StarCount": str(found.star_count),
    }
    # As from the docker CLI, a row as a whole is for programs.
    return row("*registry.searchContext", members, {**members, "IsOfficial": "true" if found.is_official else "false"})


def login(
    context: typer.Context,
    registry: Annotated[str, typer.Argument(metavar="[REGISTRY]", help="Docker Hub by default.")] = "",
    *,
    username: Annotated[str | None, typer.Option("--username", "-u", metavar="NAME", help="Who.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Take the password, or a token, from standard input.")
    ] = False,
) -> None:
    """Let the Engine check credentials with a registry. Nothing is stored: that is what `docker login` is for.

    Without a name they are those that are stored. The password is asked for, or read from standard input: on a
    command line everybody could see it.
    """
    if password_stdin and not username:
        raise typer.BadParameter("--password-stdin needs a --username")
    stored = None if username else asyncio.run(DockerKeychain().resolve(registry or "docker.io"))
    if stored is None and not password_stdin and not is_terminal(sys.stdin):
        raise typer.BadParameter("standard input is no terminal to ask for a password: take --password-stdin")
    if stored is not None:
        note(f"Checking the stored credentials{f' of {clean(stored.username)}' if stored.username else ''}.")
        auth = stored
    else:
        name = username or typer.prompt("Username", err=True)
        secret = _password() if password_stdin else typer.prompt("Password", hide_input=True, err=True)
        address = "" if registry == "docker.io" else registry  # it is known as something else there
        auth = RegistryAuth(username=name, password=secret, server_address=address)
    answer = session_of(context).run(lambda service: service.login(auth))
    say(f"{clean(answer.status) or 'Login Succeeded'}\n")
    if stored is None:
        note("Nothing was stored.")


def _password() -> str:
    stream = sys.stdin
    if stream is None or stream.closed:  # it is None if it was closed
        raise StandardStreamError("standard input is closed")
    given = stream.buffer.read(MAX_PASSWORD + 1)
    if len(given) > MAX_PASSWORD:
        raise StandardStreamError("that is too long for a password")
    for end in (b"\r\n", b"\n", b"\r"):
        if given.endswith(end):
            given = given.removesuffix(end)
            break
    try:
        secret = given.decode()
    except UnicodeDecodeError:
        raise StandardStreamError("the password on standard input is not UTF-8") from None
    if not secret.strip():
        raise StandardStreamError("the password on standard input is empty")
    return secret

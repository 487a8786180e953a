"""The program: the list of its commands, its global options, and how whatever happens in it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from aiodocker_images import DockerError, __version__
from aiodocker_images._system.signals import BROKEN_PIPE, end_process

from . import exits
from .exits import STATUSES, Stopped
from .failures import headline, status_of
from .lazy_commands import LazyGroup, Listed
from .session import Session, session_of
from .terminal import (
    PROGRAM,
    NobodyReadsError,
    StandardStreamError,
    clean,
    note,
    say,
    tell_of_warnings,
    tolerate_any_text,
)

__all__ = ["app", "main"]

DEBUG_VARIABLE: Final = "AIODOCKER_IMAGES_DEBUG"

# A command is imported when it is called, so that `--help`, `--version` and completion of names wait for nothing.
_COMMANDS: Final = (
    Listed("pull", "transfers.pull", "Pull images from their registries, several at once."),
    Listed("push", "transfers.push", "Push images to the registries that their names say, several at once."),
    Listed(
        "load", "transfers.load", "Load images from archives as `save` and `docker save` write them, compressed or not."
    ),
    Listed(
        "save",
        "transfers.save",
        "Save images with their names, layers and history to one archive: whole, or not at all.",
    ),
    Listed("import", "transfers.import_", "Make an image of the tar of a root file system."),
    Listed(
        "build",
        "build.build",
        "Build an image of a directory, an archive on standard input, or a URL that the Engine fetches.",
    ),
    Listed("ls", "images.ls", "List the images that the Engine has.", aliases=("images", "list")),
    Listed("inspect", "images.inspect", "Show everything that the Engine knows of images, as JSON in its own words."),
    Listed("history", "images.history", "Show the steps in the making of an image, the newest first."),
    Listed("tag", "images.tag", "Give an image other names."),
    Listed("rm", "images.rm", "Remove names from images, and images with their last name.", aliases=("rmi", "remove")),
    Listed("prune", "images.prune", "Remove images that no container uses."),
    Listed(
        "mirror", "mirror.mirror", "Mirror images from registries to others: what is there already is not moved again."
    ),
    Listed(
        "transfer",
        "mirror.transfer",
        "Bring images from the Engine straight into another: through this process, and through no file.",
    ),
    Listed(
        "copy",
        "distribution.copy",
        "Copy an image with all its platforms from one registry to another, without an Engine.",
    ),
    Listed("tags", "distribution.tags", "List the tags of a repository in its registry, a line each."),
    Listed(
        "digest",
        "distribution.digest",
        "Print the digest that an image has in its registry. Registries do not count that as a pull.",
    ),
    Listed(
        "manifest",
        "distribution.manifest",
        "Print the manifest or index of an image: byte for byte, unless it goes to a terminal.",
    ),
    Listed(
        "search", "registry.search", "Search Docker Hub, or another registry that can be searched, for repositories."
    ),
    Listed(
        "login",
        "registry.login",
        "Let the Engine check credentials with a registry. Nothing is stored: that is what `docker login` is for.",
    ),
    Listed(
        "outdated",
        "updates.outdated",
        "Show which images have another one under their name in the registry, without pulling it.",
    ),
    Listed("df", "engine.df", "Show the disk that images take."),
    Listed("events", "engine.events", "Show what happens to images, across restarts of the Engine."),
    Listed("endpoint", "engine.endpoint", "Show which Engine is chosen, and why."),
    Listed("ping", "engine.ping", "Ask whether the Engine is there, and what it speaks."),
    Listed("version", "engine.version", "Show the versions of this program, of the Engine and of its parts."),
)


class Program(LazyGroup):
    """The program: its commands under their names, and under the docker CLI's other names for them."""

    listed = _COMMANDS


app = typer.Typer(
    name=PROGRAM,
    cls=Program,
    help="Everything that can be done to images through a Docker Engine, and in registries without one.",
    # How to end with 130, 141 or 143 is not for every page of it.
    epilog=STATUSES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"{PROGRAM} {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def program(
    context: typer.Context,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", "-H", metavar="ADDRESS", help="The Engine: unix:///path, tcp://host:port, ssh://user@host."
        ),
    ] = None,
    docker_context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="NAME", help="The Engine of a docker context.")
    ] = None,
    debug: Annotated[
        bool,
        typer.Option("--debug", "-D", help=f"Show where in the program an error came up, as {DEBUG_VARIABLE}=1 does."),
    ] = False,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="DIR", help="Where the docker CLI's configuration is, as DOCKER_CONFIG says."),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", "-v", callback=_say_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Take in the global options."""
    session = session_of(context)
    session.host, session.context, session.debug = host, docker_context, debug or session.debug
    if config is not None:
        os.environ["DOCKER_CONFIG"] = config  # for credential helpers as well, as the docker CLI does
    if host is not None and docker_context is not None:
        raise typer.BadParameter("take either --host or --context")
    if context.invoked_subcommand is None:
        say(f"{context.get_help()}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; what a signal ends, ends by that signal."""
    tolerate_any_text()
    tell_of_warnings()
    session = Session(debug=bool(os.environ.get(DEBUG_VARIABLE)))
    try:
        return _run(session, arguments)
    except Stopped as stopped:
        note(f"{PROGRAM}: stopped by {stopped}")
        end_process(stopped.number)
    except KeyboardInterrupt:
        note("")
        end_process(signal.SIGINT)
    except NobodyReadsError:
        end_process(BROKEN_PIPE)


def _run(session: Session, arguments: Sequence[str] | None) -> int:
    error: Exception
    status: object
    try:
        # Not standalone: typer would write its own errors, and end the program.
        status = typer.main.get_command(app).main(
            args=None if arguments is None else list(arguments),
            prog_name=PROGRAM,
            standalone_mode=False,
            obj=session,
        )
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # met by typer, as it wrote the help
            raise NobodyReadsError from None
        raise
    except typer.TyperException as wrong:
        return _misused(wrong)
    except typer.Abort as aborted:
        if isinstance(aborted.__context__, KeyboardInterrupt):  # at a question
            raise Stopped(signal.SIGINT) from None
        note(f"{PROGRAM}: nothing was answered, and nothing was done")
        return exits.FAILED
    except DockerError as failure:
        session.report([failure])
        return status_of(failure)
    except (Stopped, NobodyReadsError):
        raise
    except StandardStreamError as failure:
        note(f"{PROGRAM}: {failure}")
        return exits.USAGE if failure.misused else exits.FAILED
    except OSError as failure:
        error = failure
        note(f"{PROGRAM}: {clean(str(failure))}")
    except Exception as failure:  # noqa: BLE001 - a defect of ours is no reason for a traceback
        error = failure
        note(f"{PROGRAM}: an error of this program, {type(failure).__name__}: {headline(failure)}")
        note(f"With {DEBUG_VARIABLE}=1 it says where; please report that.")
    else:
        if status == 128 + signal.SIGINT:  # typer has caught a KeyboardInterrupt
            raise Stopped(signal.SIGINT)
        return status if isinstance(status, int) else exits.DONE
    if session.debug:
        session.trace(error)
    return exits.FAILED


def _misused(error: typer.TyperException) -> int:
    """Say what is wrong with the command line, and where to read how it is right."""
    path = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
    note(f"{path}: {clean(error.format_message())}")
    note(f"Try '{path} --help'.")
    return exits.USAGE

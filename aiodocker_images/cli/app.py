"""The program: its commands, its global options, and how whatever happens in it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from aiodocker_images import DockerError, __version__
from aiodocker_images.cli.commands import build as building
from aiodocker_images.cli.commands import distribution, engine
from aiodocker_images.cli.commands import images as local
from aiodocker_images.cli.commands import mirror as mirroring
from aiodocker_images.cli.commands import registry as registries
from aiodocker_images.cli.commands import transfers as moving

from . import exits
from .exits import STATUSES, Stopped, end_by
from .failures import headline, status_of
from .flags import Command, Group
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

app = typer.Typer(
    name=PROGRAM,
    cls=Group,
    help="Everything that can be done to images through a Docker Engine, and in registries without one.",
    # How to end with 130, 141 or 143 is not for every page of it.
    epilog=STATUSES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)

_COMMANDS: Final[dict[str, Callable[..., Any]]] = {
    "pull": moving.pull,
    "push": moving.push,
    "load": moving.load,
    "save": moving.save,
    "import": moving.import_,
    "build": building.build,
    "ls": local.ls,
    "inspect": local.inspect,
    "history": local.history,
    "tag": local.tag,
    "rm": local.rm,
    "prune": local.prune,
    "mirror": mirroring.mirror,
    "transfer": mirroring.transfer,
    "copy": distribution.copy,
    "tags": distribution.tags,
    "digest": distribution.digest,
    "manifest": distribution.manifest,
    "search": registries.search,
    "login": registries.login,
    "df": engine.df,
    "events": engine.events,
    "endpoint": engine.endpoint,
    "ping": engine.ping,
    "version": engine.version,
}
# The docker CLI's other names for them.
_ALIASES: Final[dict[str, Callable[..., Any]]] = {
    "images": local.ls,
    "list": local.ls,
    "rmi": local.rm,
    "remove": local.rm,
}

for _name, _command in _COMMANDS.items():
    app.command(_name, cls=Command)(_command)
for _name, _command in _ALIASES.items():
    app.command(_name, cls=Command, hidden=True)(_command)


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
    _: Annotated[
        bool, typer.Option("--version", "-v", callback=_say_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Take in the global options."""
    session = session_of(context)
    session.host, session.context, session.debug = host, docker_context, debug or session.debug
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
        end_by(stopped.number)
    except KeyboardInterrupt:
        note("")
        end_by(signal.SIGINT)
    except NobodyReadsError:
        end_by(signal.SIGPIPE)


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

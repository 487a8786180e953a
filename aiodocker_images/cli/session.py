"""What all commands share: the global options, the service that they choose, and how a command runs on it."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import typer

from aiodocker_images import DockerError, InvalidArgumentError, InvalidPlatformError, InvalidReferenceError

from . import exits, failures
from .gotemplate.values import TemplateError
from .terminal import PROGRAM, note

if TYPE_CHECKING:
    from aiodocker_images import Endpoint, ImageService, Keychain

__all__ = ["Session", "filling", "filters_of", "session_of", "usage"]

T = TypeVar("T")


class Session:
    """One command line: its global options, filled in by the callback of the program."""

    def __init__(self, *, debug: bool = False) -> None:
        self.host: str | None = None
        self.context: str | None = None
        self.debug = debug

    def endpoint(self) -> Endpoint:
        """Return where the Engine is. Raises `ConfigError`."""
        from aiodocker_images import Endpoint  # noqa: PLC0415 - `--help` needs no Engine

        if self.context is not None:
            return Endpoint.from_context(self.context)
        return Endpoint.resolve(self.host)

    def run(self, work: Callable[[ImageService], Awaitable[T]], *, keychain: Keychain | None = None) -> T:
        """Run a coroutine function on a service that is closed after it. Raises `Stopped` for a signal."""
        from aiodocker_images import ImageService  # noqa: PLC0415 - as above

        async def on_service() -> T:
            async with ImageService(self.endpoint(), keychain=keychain) as images:
                return await work(images)

        return exits.run(on_service)

    def finish(self, errors: Iterable[BaseException | None]) -> None:
        """Report what failed of several images, the same advice once, and leave with the status of all."""
        outcomes = list(errors)
        self.report([error for error in outcomes if error is not None])
        status = failures.status_of_all(outcomes)
        if status:
            raise typer.Exit(status)

    def report(self, errors: Sequence[BaseException]) -> None:
        """Write errors to standard error: what happened, and what to do."""
        for error in errors:
            note(f"{PROGRAM}: {failures.headline(error)}")
        for text in dict.fromkeys(filter(None, map(failures.advice, errors))):
            note(text)
        if self.debug:
            for error in errors:
                self.trace(error)

    @staticmethod
    def trace(error: BaseException) -> None:
        """Write where in the program an error came up."""
        note("".join(traceback.format_exception(error)).rstrip())


def session_of(context: typer.Context) -> Session:
    """Return the session of a command."""
    return cast("Session", context.obj)


@contextmanager
def usage() -> Generator[None, None, None]:
    """Turn what the library says of senseless arguments into a usage error. For calls that send nothing yet."""
    try:
        yield
    except (InvalidReferenceError, InvalidPlatformError):
        raise  # which say what is wrong with the name, and in which operation
    except InvalidArgumentError as error:
        raise typer.BadParameter(error.message) from error
    except (TypeError, ValueError) as error:
        if isinstance(error, DockerError):
            raise
        raise typer.BadParameter(str(error)) from error


@contextmanager
def filling(status: int = exits.FAILED) -> Generator[None, None, None]:
    """Tell what is wrong with a template, in the docker CLI's words, and leave with this status."""
    try:
        yield
    except TemplateError as error:
        note(f"{PROGRAM}: {failures.headline(ValueError(f'template parsing error: {error}'))}")
        raise typer.Exit(status) from error


def filters_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Read `--filter name=value`, any number of them. Raises a usage error for another form."""
    filters: dict[str, list[str]] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"a filter is name=value, not {each[:80]!r}")
        filters.setdefault(name.strip().lower(), []).append(value.strip())
    return filters

"""Commands that are listed without being imported: imports are most of the time that a short command takes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Final

import typer

from .flags import Command, Group

__all__ = ["LazyGroup", "Listed"]

_FOLDER: Final = "aiodocker_images.cli.commands"


@dataclass(frozen=True)
class Listed:
    """A command as `--help` lists it.

    Args:
        name: What is typed.
        place: Its module in `commands` and its function there: "images.ls".
        summary: The first paragraph of the function's docstring; a test compares them.
        aliases: Other names for it, which are not listed.

    """

    name: str
    place: str
    summary: str
    aliases: tuple[str, ...] = ()

    def load(self) -> Any:  # noqa: ANN401 - its class has no public name
        """Import the command."""
        module, _, function = self.place.partition(".")
        with _ended_by_ctrl_c():
            command = getattr(import_module(f"{_FOLDER}.{module}"), function)
        # typer makes no group of a program of one command, but that command.
        program = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        program.command(self.name, cls=Command)(command)
        return typer.main.get_command(program)


@contextmanager
def _ended_by_ctrl_c() -> Generator[None, None, None]:
    """Have Ctrl-C end the program at once: in the middle of an import, an exception would show where that was."""
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not raises or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class LazyGroup(Group):
    """A program whose commands are imported when they are called."""

    listed: ClassVar[tuple[Listed, ...]] = ()

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - typer's, as they are
        super().__init__(**attributes)
        self._by_name: Final = {name: each for each in self.listed for name in (each.name, *each.aliases)}
        for each in self.listed:
            for name in (each.name, *each.aliases):
                # Stands for the command in the list, in completion and where another name is suggested.
                self.add_command(Command(name, help=each.summary, hidden=name != each.name), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401 - as above
        """Return the command that is called, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None else self._by_name[command.name or ""].load(), rest

"""Commands that are listed without being imported: imports are most of the time that a short command takes."""

from __future__ import annotations

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
        # typer makes no group of a program of one command, but that command.
        program = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        program.command(self.name, cls=Command)(getattr(import_module(f"{_FOLDER}.{module}"), function))
        return typer.main.get_command(program)


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

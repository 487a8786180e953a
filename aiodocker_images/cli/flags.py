"""Flags that are given a value, as Go's programs take them: `--pull=true`, `--human=false`, `-q=0`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

__all__ = ["Command", "Group", "without_values"]

# What Go reads as a truth value.
_TRUTHS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Command(TyperCommand):
    """A command whose flags may have values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - its class has no public name
        """Read the command line."""
        return super().parse_args(ctx, without_values(args, _options(self, ctx)))


class Group(TyperGroup):
    """The program, whose own flags may have values as well: they stand before the name of the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - its class has no public name
        """Read the command line up to the name of a command."""
        return super().parse_args(ctx, without_values(args, _options(self, ctx), to_first_word=True))


def _options(command: TyperCommand | TyperGroup, context: typer.Context) -> list[TyperOption]:
    return [each for each in command.get_params(context) if isinstance(each, TyperOption)]


def without_values(
    arguments: Sequence[str], options: Sequence[TyperOption], *, to_first_word: bool = False
) -> list[str]:
    """Return a command line that means the same without values of flags: the last word about a flag counts.

    Raises a usage error for a value that is not a truth value.
    """
    known = {name: option for option in options for name in (*option.opts, *option.secondary_opts)}
    kept: list[tuple[TyperOption | None, str]] = []
    left = deque(arguments)

    def flag(option: TyperOption, name: str, value: str | None) -> None:
        if value is not None and value not in _TRUTHS:
            raise typer.BadParameter(f"{name} is true or false, not {value[:80]!r}")
        wanted = (value is None or _TRUTHS[value]) == (name in option.opts)
        if value is not None:
            kept[:] = [each for each in kept if each[0] is not option]
        if names := (option.opts if wanted else option.secondary_opts):
            kept.append((option, names[0]))

    while left:
        word = left.popleft()
        if word == "--" or (to_first_word and not word.startswith("-")):
            left.appendleft(word)
            break
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            option = known.get(name)
            if option is not None and option.is_flag:
                flag(option, name, value if equals else None)
                continue
            kept.append((None, word))
            if option is not None and not equals and left:
                kept.append((None, left.popleft()))
        elif word.startswith("-") and len(word) > 1:
            for place in range(1, len(word)):  # several flags may stand together: -aq
                name, rest = f"-{word[place]}", word[place + 1 :]
                option = known.get(name)
                if option is None or not option.is_flag:
                    kept.append((None, f"-{word[place:]}"))
                    if option is not None and not rest and left:
                        kept.append((None, left.popleft()))
                    break
                flag(option, name, rest[1:] if rest.startswith("=") else None)
                if rest.startswith("="):
                    break
        else:
            kept.append((None, word))
    return [*(word for _, word in kept), *left]

"""What a template is made of, once it is read: frozen nodes, each of which knows where it stands. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "Action",
    "Argument",
    "Branch",
    "Chain",
    "Command",
    "Dot",
    "Field",
    "Function",
    "Invocation",
    "Literal",
    "Loop",
    "Nil",
    "Node",
    "Pipeline",
    "Text",
    "Variable",
]


@dataclass(frozen=True)
class Located:
    """A node: `position` is where it begins in the template, `source` how it is quoted in errors."""

    position: int
    source: str


@dataclass(frozen=True)
class Text(Located):
    """What is written as it is."""


@dataclass(frozen=True)
class Dot(Located):
    """The value that everything is about now."""


@dataclass(frozen=True)
class Nil(Located):
    """The word nil."""


@dataclass(frozen=True)
class Literal(Located):
    """A constant."""

    value: bool | int | float | str


@dataclass(frozen=True)
class Field(Located):
    """Fields of the dot, each of the one before."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Variable(Located):
    """A variable, and fields of it."""

    name: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Function(Located):
    """The name of a function."""

    name: str


@dataclass(frozen=True)
class Chain(Located):
    """Fields of what an expression in parentheses, or the like, comes to."""

    start: Argument
    names: tuple[str, ...]


@dataclass(frozen=True)
class Command(Located):
    """A value, or a function and its arguments."""

    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Pipeline(Located):
    """Commands, each of which gets what the one before came to; and the variables that are set to the end of it."""

    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False


Argument: TypeAlias = "Dot | Nil | Literal | Field | Variable | Function | Chain | Pipeline"


@dataclass(frozen=True)
class Action(Located):
    """A pipeline whose value is written, unless it sets a variable."""

    pipeline: Pipeline


@dataclass(frozen=True)
class Branch(Located):
    """`if`, `with` and `range`, by `kind`: what is done, and what otherwise."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] = field(default=())


@dataclass(frozen=True)
class Loop(Located):
    """`break` and `continue`, by `kind`."""

    kind: str


@dataclass(frozen=True)
class Invocation(Located):
    """`template`: another one, by its name."""

    name: str
    pipeline: Pipeline | None


Node: TypeAlias = "Text | Action | Branch | Loop | Invocation"

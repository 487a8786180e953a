"""Checks of arguments at the call: a wrong type is a TypeError, a wrong value an `InvalidArgumentError`. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import cast

from .errors import InvalidArgumentError

__all__ = [
    "check_count",
    "check_flag",
    "check_given",
    "check_mapping",
    "check_number",
    "check_seconds",
    "check_text",
    "path_text",
    "texts",
    "wrong",
]


def wrong(name: str, value: object, words: str) -> TypeError:
    """Make the error for an argument of a wrong type. The value is not shown: it may be a secret."""
    return TypeError(f"{name} must be {words}, not {type(value).__name__}")


def check_flag(name: str, value: object) -> None:
    """Raise TypeError for what is neither True nor False: the text "no" would count as true."""
    if not isinstance(value, bool):
        raise wrong(name, value, "True or False")


def check_text(name: str, value: object) -> None:
    """Raise TypeError for what is neither a str nor None."""
    if value is not None and not isinstance(value, str):
        raise wrong(name, value, "a str")


def check_number(name: str, value: object) -> None:
    """Raise TypeError for what is neither an int nor None."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise wrong(name, value, "an int")


def check_count(name: str, value: object) -> None:
    """Raise for what is neither None nor 1 or more."""
    check_number(name, value)
    if value is not None and cast("int", value) < 1:
        raise InvalidArgumentError(f"{name} must be 1 or more, not {value}")


def check_given(name: str, value: object, expected: str) -> None:
    """Raise TypeError for None where a value is needed: the other checks take it for a default."""
    if value is None:
        raise wrong(name, value, expected)


def check_seconds(name: str, value: object) -> None:
    """Raise for what is neither None, for no limit, nor more than 0 seconds."""
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(name, value, "a number of seconds, or None for no limit")
    if not value > 0:
        raise InvalidArgumentError(f"{name} must be more than 0 seconds, or None for no limit, not {value}")


def check_mapping(name: str, value: object, example: str) -> None:
    """Raise TypeError for what is neither a mapping nor None."""
    if value is not None and not isinstance(value, Mapping):
        raise wrong(name, value, f"a mapping such as {example}")


def path_text(name: str, value: str | os.PathLike[str]) -> str:
    """Return a path as text; raise TypeError for what is none."""
    text: object = os.fspath(value) if isinstance(cast("object", value), os.PathLike) else value
    if not isinstance(text, str):
        raise wrong(name, value, "a str or a path")
    return text


def texts(name: str, values: str | Iterable[str]) -> tuple[str, ...]:
    """Return some texts; one may be given alone."""
    if isinstance(values, str):
        return (values,)
    if not isinstance(cast("object", values), Iterable) or isinstance(cast("object", values), bytes):
        raise wrong(name, values, "a str or several")
    given = tuple(values)
    for each in given:
        check_text(f"each of {name}", each)
    return given

"""Query parameters in the Engine's forms: booleans, filters, platforms, names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast
from urllib.parse import quote

import msgspec

from ._arguments import check_flag, check_mapping, check_text, wrong
from .errors import InvalidArgumentError
from .models import Platform

__all__ = ["Filters"]

Query: TypeAlias = tuple[tuple[str, str], ...]

FilterValue: TypeAlias = "bool | int | str | Sequence[bool | int | str] | Mapping[str, str]"
Filters: TypeAlias = "Mapping[str, FilterValue]"


def path_segment(name: str) -> str:
    """Quote a validated image name for the path, where the Engine takes `/`, `:` and `@` as they are."""
    return quote(name, safe="/:@")


def encode_json(document: object) -> bytes:
    """Encode a document for the Engine; raise `InvalidArgumentError`, or TypeError for what is no document."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        flaw = "a text has half of a surrogate pair in it, which UTF-8 cannot say"
    except RecursionError:
        flaw = "it is nested too deeply"
    raise InvalidArgumentError(flaw)  # out here: the context would have the text, which may be a password


def check_query(query: Query) -> None:
    """Raise `InvalidArgumentError` if a text cannot be sent."""
    for name, value in query:
        check_text(name, value)
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"the value of {name!a} has half of a surrogate pair in it, which UTF-8 cannot say"
            ) from error


def flags(**values: bool | None) -> Query:
    """Encode the flags that are set; what is None or False is the Engine's default and is left out."""
    for name, value in values.items():
        if value is not None:
            check_flag(name, value)
    return tuple((name.replace("_", "-"), "true") for name, value in values.items() if value)


def encode_filters(filters: Filters) -> str:
    """Encode filters as the Engine wants them: a JSON object of lists of strings.

    A mapping value (`{"label": {"key": "value"}}`) becomes `key=value` strings. Unknown names are the
    daemon's to refuse.
    """
    check_mapping("filters", filters, '{"label": "stage=test"}')
    return encode_json({name: _filter_values(value) for name, value in filters.items()}).decode()


def _filter_values(value: FilterValue) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, int | str):
        return [str(value)]
    if isinstance(value, Mapping):
        for text in value.values():
            check_text("each value of a filter", text)
        return [f"{key}={text}" if text else key for key, text in value.items()]
    if not isinstance(cast("object", value), Iterable) or isinstance(cast("object", value), bytes):
        raise wrong("the value of a filter", value, "a bool, a number, a str, several of them, or a mapping")
    return [text for item in value for text in _filter_values(item)]


def parse_platforms(platforms: str | Platform | Iterable[str | Platform]) -> tuple[Platform, ...]:
    """Return some platforms, each once; one may be given alone. Raises `InvalidPlatformError` and TypeError."""
    if isinstance(platforms, str | Platform):
        platforms = (platforms,)
    if not isinstance(cast("object", platforms), Iterable):
        raise wrong("platforms", platforms, "a platform such as 'linux/amd64' or several")
    return tuple(dict.fromkeys(Platform.parse(platform) for platform in platforms))


def encode_platforms(platforms: Iterable[Platform], *, name: str = "platform") -> Query:
    """Encode platforms as JSON objects under a repeated name; only pull takes os/architecture instead."""
    return tuple((name, encode_json(platform).decode()) for platform in platforms)

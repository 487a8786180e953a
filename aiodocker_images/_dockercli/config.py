"""The docker CLI's configuration: where it is, and how it is read whatever lies there."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from aiodocker_images._struct import UNDECODABLE
from aiodocker_images._system.files import IrregularFileError, read_regular
from aiodocker_images._system.users import home_directory
from aiodocker_images.errors import ConfigError, shown

__all__ = [
    "MAX_CONFIG",
    "Environment",
    "JSONConfig",
    "build_proxies",
    "config_directory",
    "first_value",
    "http_headers",
    "images_format",
    "is_header",
    "is_reserved",
    "prune_filters",
    "read_config",
    "usable_config",
    "warn_once",
]

T = TypeVar("T")

_LOGGER: Final = logging.getLogger(__package__)

MAX_CONFIG: Final = 4 << 20
"""Bytes of a configuration file; one with 10,000 registries is about 1 MiB."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# How a request is to be read, and what is ours to say.
_FRAMING: Final = {"connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
_OURS: Final = {"accept-encoding", "user-agent", "x-registry-auth", "x-registry-config"}
_PROXIES: Final = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "noProxy": "NO_PROXY",
    "ftpProxy": "FTP_PROXY",
    "allProxy": "ALL_PROXY",
}
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")


class Environment:
    """The variables of an environment. No traceback shows them, as it would a mapping: one is `DOCKER_AUTH_CONFIG`."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def get(self, name: str) -> str | None:
        """Return a variable, None if it is not set."""
        return self._variables.get(name)

    def copy(self) -> dict[str, str]:
        """Return all of them."""
        return dict(self._variables)


class JSONConfig:
    """A JSON object from `where`, whose members are decoded when they are asked for.

    So a broken member harms only whoever needs it. Names are found in any case, as Go's encoding/json finds them.
    """

    def __init__(self, members: Mapping[str, msgspec.Raw], where: str, *, exact: bool = False) -> None:
        self._members = members
        # Of several names that differ in case the last one counts, but for one that is written as it should be.
        self._in_any_case = {} if exact else {name.lower(): raw for name, raw in members.items()}
        self.where = where

    @classmethod
    def parse(cls, data: bytes | str, where: str) -> JSONConfig:
        """Read a JSON object; raise `ConfigError`, which quotes nothing of it.

        Like Go's decoder it reads the first value and no further; unlike that, it takes a byte order mark and UTF-16.
        """
        text = first_value(data if isinstance(data, str) else _text(data))
        # An empty file is an empty configuration to the docker CLI, and so is null.
        return cls({} if text in ("", "null") else _decoded(text, dict[str, msgspec.Raw], where), where)

    def member(self, name: str, kind: type[T]) -> T | None:
        """Decode a member; None where there is none or null. Raises `ConfigError`, which names it."""
        raw = self._members.get(name, self._in_any_case.get(name.lower()))
        return None if raw is None else _decoded(raw, kind | None, f"{shown(name)} in {self.where}")  # type: ignore[arg-type]  # a union is no type to mypy

    def usable(self, name: str, kind: type[T]) -> T | None:
        """Decode a member; None where there is none, or one of a wrong kind, of which a warning tells."""
        try:
            return self.member(name, kind)
        except ConfigError as error:
            warn_once(self.where, f"{error.message}; it is left out")
            return None

    def usable_texts(self, name: str) -> dict[str, str]:
        """Decode a member that is an object of texts; others in it are left out, and a warning tells of them."""
        members = self.usable(name, dict[str, msgspec.Raw]) or {}
        texts = JSONConfig(members, f"{shown(name)} in {self.where}", exact=True)
        return {each: text for each in members if (text := texts.usable(each, str)) is not None}


def _text(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def first_value(text: str) -> str:
    """Return the first JSON value of a text, where others follow it; the text as it is where there is none."""
    text = text.removeprefix("\ufeff").strip(" \t\r\n")
    try:
        return text[: json.JSONDecoder().raw_decode(text)[1]]
    except (ValueError, RecursionError):
        return text


_warned: dict[str, str] = {}
_MAX_WARNED: Final = 1000


def warn_once(where: str, message: str) -> None:
    """Log a warning about a configuration, but for one that has been logged already: it is read for each operation."""
    if _warned.get(message) != (state := _state(where)):
        if len(_warned) >= _MAX_WARNED:
            _warned.clear()
        _warned[message] = state
        _LOGGER.warning("%s", message)


def _state(where: str) -> str:
    """Return what changes when a file does."""
    try:
        status = Path(where).stat()
    except (OSError, ValueError):
        return hashlib.sha256(os.environ.get(where, "").encode("utf-8", "replace")).hexdigest()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _decoded(data: bytes | str | msgspec.Raw, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except UNDECODABLE as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error)
    # Outside of the handler: the exception of a decoder holds the text, and that may hold passwords.
    raise ConfigError(f"{where} makes no sense: {reason}")


def read_config(path: Path) -> JSONConfig | None:
    """Read a file with a JSON object; None if there is no such file. Raises `ConfigError`, which names it."""
    try:
        data = read_regular(path, MAX_CONFIG)
    except IrregularFileError:
        raise ConfigError(f"{path} is no regular file") from None
    except ValueError as error:
        raise ConfigError(f"{shown(str(path))} is no path: {error}") from error
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        if error.errno == errno.ENOTDIR and not path.parent.exists():
            return None
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_CONFIG:
        raise ConfigError(f"{path} is longer than {MAX_CONFIG >> 20} MiB")
    return JSONConfig.parse(data, str(path))


def usable_config(path: Path) -> JSONConfig | None:
    """Read a file of the docker CLI or of Podman, which others have written: None for one that cannot be used.

    A warning tells of it, as from the docker CLI, and what it was for goes on without: a service often has the HOME
    of another user, and an editor may have left a comma.
    """
    try:
        return read_config(path)
    except ConfigError as error:
        warn_once(str(path), f"{error.message}; it is left out")
        return None


def config_directory(environ: Environment | Mapping[str, str]) -> Path | None:
    """Return where the docker CLI's files are, `DOCKER_CONFIG` or ~/.docker; None if there is no home either."""
    if given := environ.get("DOCKER_CONFIG"):
        return Path(given)
    home = home_directory(environ)
    return home / ".docker" if home is not None else None


def http_headers(environ: Environment | Mapping[str, str]) -> dict[str, str]:
    """Return the `HttpHeaders` of config.json, which go along with every request.

    Those that say how a request is to be read, and those of our own, are left out; so are those that are no headers,
    and a warning tells of them.
    """
    directory = config_directory(environ)
    config = usable_config(directory / "config.json") if directory is not None else None
    if config is None:
        return {}
    headers: dict[str, str] = {}
    for name, value in config.usable_texts("HttpHeaders").items():
        if not is_header(name, value):
            # Not the value: it may be a password.
            warn_once(config.where, f"'HttpHeaders' in {config.where}: {shown(name)} is no header; it is left out")
        elif not is_reserved(name):
            headers[name] = value
    return headers


def is_header(name: str, value: str) -> bool:
    """Whether this can be sent as a header."""
    return bool(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value))


def is_reserved(name: str) -> bool:
    """Whether a header says how a request is to be read, or is one of our own: a user's is left out."""
    return name.lower() in _FRAMING | _OURS


def build_proxies(environ: Environment | Mapping[str, str], endpoint: str) -> dict[str, str]:
    """Return the `proxies` of config.json for an endpoint, or else its default ones, as arguments of a build.

    As from the docker CLI and docker-py, each comes in capital and in small letters.
    """
    directory = config_directory(environ)
    config = usable_config(directory / "config.json") if directory is not None else None
    if config is None:
        return {}
    where = f"'proxies' in {config.where}"
    hosts = config.usable("proxies", dict[str, msgspec.Raw]) or {}
    for host in (endpoint, "default"):
        if host in hosts:
            proxies = JSONConfig(hosts, where, exact=True).usable(host, dict[str, msgspec.Raw]) or {}
            members = JSONConfig(proxies, where)
            texts = {variable: members.usable(name, str) for name, variable in _PROXIES.items()}
            given = {variable: text for variable, text in texts.items() if text}
            return given | {variable.lower(): text for variable, text in given.items()}
    return {}


def images_format(environ: Environment | Mapping[str, str]) -> str:
    """Return the `imagesFormat` of config.json, how a list of images is written by default; an empty text without."""
    directory = config_directory(environ)
    config = usable_config(directory / "config.json") if directory is not None else None
    return (config.usable("imagesFormat", str) or "") if config is not None else ""


def prune_filters(environ: Environment | Mapping[str, str]) -> list[str]:
    """Return the `pruneFilters` of config.json, such as "until=24h" or "label!=keep".

    They protect images. So a file that cannot be read raises `ConfigError`: to go on without them would remove more.
    """
    directory = config_directory(environ)
    config = read_config(directory / "config.json") if directory is not None else None
    if config is None:
        return []
    # Like the docker CLI, without those that are no name=value.
    return [each for each in config.member("pruneFilters", list[str]) or [] if "=" in each.lstrip("=")]

"""The docker CLI's configuration: where it is, and how it is read whatever lies there."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import ConfigError, shown

__all__ = ["MAX_CONFIG", "JSONConfig", "config_directory", "home_directory", "http_headers", "read_config"]

T = TypeVar("T")

_LOGGER: Final = logging.getLogger(__package__)

MAX_CONFIG: Final = 4 << 20
"""Bytes of a configuration file; one with 10,000 registries is about 1 MiB."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# How a request is to be read, and what is ours to say.
_FRAMING: Final = {"connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
_OURS: Final = {"accept-encoding", "user-agent", "x-registry-auth", "x-registry-config"}
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")


class JSONConfig:
    """A JSON object from `where`, whose members are decoded when they are asked for.

    So a broken member harms only whoever needs it.
    """

    def __init__(self, members: Mapping[str, msgspec.Raw], where: str) -> None:
        self._members = members
        self.where = where

    @classmethod
    def parse(cls, data: bytes | str, where: str) -> JSONConfig:
        """Read a JSON object; raise `ConfigError`, which quotes nothing of it."""
        # An empty file is an empty configuration to the docker CLI.
        return cls(_decoded(data, dict[str, msgspec.Raw], where) if data.strip() else {}, where)

    def member(self, name: str, kind: type[T]) -> T | None:
        """Decode a member; None where there is none or null. Raises `ConfigError`, which names it."""
        raw = self._members.get(name)
        return None if raw is None else _decoded(raw, kind | None, f"{shown(name)} in {self.where}")  # type: ignore[arg-type]  # a union is no type to mypy


def _decoded(data: bytes | str | msgspec.Raw, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeError:
        reason = "it is not UTF-8"
    except UNDECODABLE as error:
        reason = str(error)
    # Outside of the handler: the exception of a decoder holds the text, and that may hold passwords.
    raise ConfigError(f"{where} makes no sense: {reason}")


def read_config(path: Path, *, if_permitted: bool = False) -> JSONConfig | None:
    """Read a file with a JSON object; None if there is no such file. Raises `ConfigError`, which names it.

    `if_permitted`, a file that may not be read is none, and a warning says so: a service often has the HOME of
    another user. The docker CLI goes on likewise.
    """
    try:
        # O_NONBLOCK: a FIFO would block until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path} is no regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_CONFIG + 1)
        finally:
            os.close(descriptor)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{shown(str(path))} is no path: {error}") from error
    except OSError as error:
        # A parent that is a file: to the docker CLI, too, there is nothing then.
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if if_permitted and error.errno in (errno.EACCES, errno.EPERM):
            _LOGGER.warning("%s cannot be read, and is left out: %s", path, error.strerror)
            return None
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_CONFIG:
        raise ConfigError(f"{path} is longer than {MAX_CONFIG >> 20} MiB")
    return JSONConfig.parse(data, str(path))


def config_directory(environ: Mapping[str, str]) -> Path | None:
    """Return where the docker CLI's files are, `DOCKER_CONFIG` or ~/.docker; None if there is no home either."""
    if given := environ.get("DOCKER_CONFIG"):
        return Path(given)
    home = home_directory(environ)
    return home / ".docker" if home is not None else None


def http_headers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the `HttpHeaders` of config.json, which go along with every request. Raises `ConfigError`.

    Those that say how a request is to be read, and those of our own, are left out.
    """
    directory = config_directory(environ)
    config = read_config(directory / "config.json", if_permitted=True) if directory is not None else None
    headers = (config and config.member("HttpHeaders", dict[str, str])) or {}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            # Not the value: it may be a password.
            raise ConfigError(f"'HttpHeaders' in {config and config.where} has what is no header: {shown(name)}")
    return {name: value for name, value in headers.items() if name.lower() not in _FRAMING | _OURS}


def home_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the user's home directory: of the environment, or else of the user database, for services have no HOME."""
    if given := environ.get("USERPROFILE" if sys.platform == "win32" else "HOME"):
        return Path(given)
    with contextlib.suppress(ImportError, KeyError):  # Windows has no such module, and not every user an entry
        import pwd  # noqa: PLC0415 - where there is one

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    return None

"""A docker context: what `docker context create` wrote of it, under the docker CLI's directory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from aiodocker_images.errors import ConfigError, ContextNotFoundError, shown

from .config import config_directory, read_config, usable_config

__all__ = ["DEFAULT_CONTEXT", "DockerContext", "current_context", "read_context"]

DEFAULT_CONTEXT: Final = "default"
"""The name of no context: the docker CLI then goes by the environment."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]+")
_MAX_NAMED: Final = 10  # of the contexts there are, in the message for one that is not


class _DockerEndpoint(msgspec.Struct):
    host: str | None = msgspec.field(default=None, name="Host")
    skip_tls_verify: bool | None = msgspec.field(default=None, name="SkipTLSVerify")


class _Endpoints(msgspec.Struct):
    docker: _DockerEndpoint | None = None


@dataclass(frozen=True, slots=True)
class DockerContext:
    """What a context says: `host`, empty for the default one, and the TLS files that there are.

    `path` is its meta.json.
    """

    name: str
    path: Path
    host: str
    skip_tls_verify: bool
    ca: Path | None
    cert: Path | None
    key: Path | None


def current_context(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the `currentContext` of config.json, empty for none, and the file's path. Raises `ConfigError`."""
    directory = config_directory(environ)
    if directory is None:
        return "", "config.json"
    path = directory / "config.json"
    config = usable_config(path)
    # A file without sense names no context, as for the docker CLI; a name without sense could be of another Engine.
    return (config and config.member("currentContext", str)) or "", str(path)


def read_context(name: str, environ: Mapping[str, str], *, chosen_by: str) -> DockerContext:
    """Read a context. Raises `ContextNotFoundError`, and `ConfigError` for one that makes no sense."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{shown(name)} (from {chosen_by}) is not the name of a docker context")
    directory = config_directory(environ)
    if directory is None:
        raise ContextNotFoundError(f"there is no docker context {name!r} (from {chosen_by}): this user has no home")
    identity = hashlib.sha256(name.encode()).hexdigest()
    path = directory / "contexts" / "meta" / identity / "meta.json"
    meta = read_config(path)
    if meta is None:
        raise ContextNotFoundError(f"there is no docker context {name!r} (from {chosen_by}): {_others(directory)}")
    endpoints = meta.member("Endpoints", _Endpoints)
    if endpoints is None or endpoints.docker is None:
        raise ConfigError(f"{path} (context {name!r} from {chosen_by}) names no docker endpoint")
    files = directory / "contexts" / "tls" / identity / "docker"
    ca, cert, key = (file if file.exists() else None for file in (files / f"{of}.pem" for of in ("ca", "cert", "key")))
    return DockerContext(
        name=name,
        path=path,
        host=endpoints.docker.host or "",
        skip_tls_verify=bool(endpoints.docker.skip_tls_verify),
        ca=ca,
        cert=cert,
        key=key,
    )


def _others(directory: Path) -> str:
    names: list[str] = []
    for path in sorted(directory.glob("contexts/meta/*/meta.json"))[:_MAX_NAMED]:
        try:
            meta = read_config(path)
            names.append((meta and meta.member("Name", str)) or "?")
        except ConfigError:
            names.append("?")
    return f"there are {', '.join(map(repr, sorted(names)))}" if names else f"there is none in {directory}"

"""`RegistryConfig`: what is special about one registry. The rest comes from `certs.d` and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from aiodocker_images._arguments import check_flag, check_given, check_mapping, check_number, check_text, wrong
from aiodocker_images.credentials import registry_name
from aiodocker_images.endpoint import TLSConfig
from aiodocker_images.errors import ConfigError, InvalidReferenceError, shown
from aiodocker_images.reference import Reference

__all__ = ["RegistryConfig"]

MIN_CHUNK: Final = 64 << 10
"""Bytes of the smallest chunk: each is a request of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryConfig:
    """How to talk to one registry.

    `tls` says whom to trust and who we are; by default, what `certs.d` has for the registry, as the docker CLI does,
    and whom the system trusts. `plain_http` True speaks http, without any encryption, and False never does; by default
    only a registry on this machine's loopback interface is asked over http, unless there is `tls` for it.

    `mirrors` are other registries ("cache.example.com", or with a prefix for repositories, "cache.example.com/hub")
    that are asked first for what is pulled, in this order, with credentials of their own. `concurrency` is how many
    blobs are moved from or to the registry at once, `requests_per_second` a limit on all requests to it. `chunk_size`
    is how many bytes of a blob go with one request, for a registry that does not take a whole blob at once.
    `pause_below` is the number of remaining pulls (`ratelimit-remaining`, Docker Hub) below which the registry is left
    alone for a while. `foreign="copy"` copies layers that have URLs to have them from; otherwise they stay where they
    are.

    Raises `ConfigError`.
    """

    tls: TLSConfig | None = None
    plain_http: bool | None = None
    mirrors: tuple[str, ...] = ()
    concurrency: int | None = None
    requests_per_second: float | None = None
    chunk_size: int | None = None
    pause_below: int | None = None
    foreign: Literal["leave", "copy"] = "leave"

    def __post_init__(self) -> None:
        self._check_types()
        if self.plain_http and self.tls is not None:
            raise ConfigError("plain_http means without TLS: give one of both")
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency must be 1 or more, not {self.concurrency}")
        if self.requests_per_second is not None and not 0 < self.requests_per_second < float("inf"):
            raise ConfigError(f"requests_per_second must be more than 0, not {self.requests_per_second}")
        if self.chunk_size is not None and self.chunk_size < MIN_CHUNK:
            raise ConfigError(f"chunk_size must be {MIN_CHUNK} bytes or more, not {self.chunk_size}")
        if self.pause_below is not None and self.pause_below < 1:
            raise ConfigError(f"pause_below must be 1 or more, not {self.pause_below}")
        if self.foreign not in ("leave", "copy"):
            raise ConfigError(f'foreign must be "leave" or "copy", not {self.foreign!r}')
        for mirror in self.mirrors:
            split_mirror(mirror)

    def _check_types(self) -> None:
        if self.tls is not None and not isinstance(cast("object", self.tls), TLSConfig):
            raise wrong("tls", self.tls, "a TLSConfig or None")
        if self.plain_http is not None:
            check_flag("plain_http", self.plain_http)
        if not isinstance(cast("object", self.mirrors), list | tuple):
            raise wrong("mirrors", self.mirrors, "a tuple of names")
        for mirror in self.mirrors:
            check_given("each of mirrors", mirror, "a str")
            check_text("each of mirrors", mirror)
        for name in ("concurrency", "chunk_size", "pause_below"):
            check_number(name, getattr(self, name))
        rate = self.requests_per_second
        if rate is not None and (not isinstance(cast("object", rate), int | float) or isinstance(rate, bool)):
            raise wrong("requests_per_second", rate, "a number")
        if not isinstance(cast("object", self.foreign), str):
            raise wrong("foreign", self.foreign, '"leave" or "copy"')


def split_mirror(mirror: str) -> tuple[str, str]:
    """Return the registry of a mirror, and the prefix of its repositories ("" for none). Raises `ConfigError`."""
    domain, _, prefix = mirror.partition("/")
    try:
        Reference(domain, f"{prefix}/a" if prefix else "a/a")
    except InvalidReferenceError as error:
        raise ConfigError(
            f"{shown(mirror)} is not a mirror: a registry, and perhaps a prefix: {error.message}"
        ) from None
    return domain, prefix


def by_registry(registries: Mapping[str, RegistryConfig]) -> dict[str, RegistryConfig]:
    """Return configurations by the names that `Reference.domain` has. Raises `ConfigError`."""
    check_mapping("registries", registries, '{"registry.example": RegistryConfig(…)}')
    found: dict[str, RegistryConfig] = {}
    for name, config in registries.items():
        check_given("each name of registries", name, "a str")
        check_text("each name of registries", name)
        if not isinstance(cast("object", config), RegistryConfig):
            raise wrong(f"what registries have for {shown(name)}", config, "a RegistryConfig")
        registry = registry_name(name)
        try:
            Reference(registry, "a/a")
        except InvalidReferenceError as error:
            raise ConfigError(f"{shown(name)} is not a registry: {error.message}") from None
        if registry in found:
            raise ConfigError(f"{shown(name)} is configured twice: {registry} is the same registry")
        found[registry] = config
    return found

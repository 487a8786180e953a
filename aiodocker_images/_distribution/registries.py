"""The registries of a service, each with what is known of it, and the repositories and images in them."""

from __future__ import annotations

from collections.abc import Mapping

from aiodocker_images._retry import Retry
from aiodocker_images.credentials import Keychain, registry_name
from aiodocker_images.reference import DOCKER_HUB, Reference

from .config import RegistryConfig, split_mirror
from .hosts import Hosts
from .registry import Registry
from .repository import Repository
from .source import RegistrySource
from .transport import Transport

__all__ = ["Registries"]


class Registries:
    """One `Registry` for each name, and for each mirror of one."""

    def __init__(
        self, transport: Transport, configs: Mapping[str, RegistryConfig], keychain: Keychain, retry: Retry
    ) -> None:
        self._transport = transport
        self._configs = configs
        self._keychain = keychain
        self._retry = retry
        self._hosts = Hosts(configs)
        self._registries: dict[tuple[str, str], Registry] = {}

    def registry(self, name: str, mirrored: str = "") -> Registry:
        """Return a registry; `mirrored` is the one that it is a mirror of."""
        key = name, mirrored
        if key not in self._registries:
            self._registries[key] = Registry(
                name,
                self._configs.get(name, RegistryConfig()),
                transport=self._transport,
                hosts=self._hosts,
                keychain=self._keychain,
                # A mirror that fails is not waited for: the next one is asked, and the registry itself in the end.
                retry=Retry(attempts=1) if mirrored else self._retry,
                mirrored=mirrored,
            )
        return self._registries[key]

    def repository(self, image: Reference, *, writes: bool = False, deletes: bool = False) -> Repository:
        """Return the repository of an image; `writes` and `deletes` say what else than reading it is for."""
        registry = registry_name(image.domain)
        path = image.path
        if registry == DOCKER_HUB and "/" not in path:  # by its other host names
            path = f"library/{path}"
        return Repository(self.registry(registry), path, writes=writes, deletes=deletes)

    def source(self, image: Reference) -> RegistrySource:
        """Return an image to copy from, in its repository and in the mirrors of that."""
        own = self.repository(image)
        mirrors: list[Repository] = []
        for mirror in own.registry.config.mirrors:
            name, prefix = split_mirror(mirror)
            path = f"{prefix}/{own.path}" if prefix else own.path
            mirrors.append(Repository(self.registry(registry_name(name), own.registry.name), path))
        return RegistrySource([*mirrors, own], image.tag_or_digest or "")

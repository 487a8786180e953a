"""`RegistryService`: images in registries, over the OCI distribution API, without an Engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from aiodocker_images._dockercli.keychain import DockerKeychain
from aiodocker_images._retry import Retry
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.credentials import Keychain, registry_name
from aiodocker_images.errors import (
    DockerError,
    FrameDecodeError,
    RegistryUnreachableError,
    named,
)
from aiodocker_images.models import Descriptor, HistoryItem, ImageConfig, Platform, RootFS
from aiodocker_images.reference import DOCKER_HUB, Reference

from .config import RegistryConfig, by_registry, split_mirror
from .hosts import Hosts
from .manifests import Manifest
from .registry import Call, Registry
from .repository import Repository
from .results import RateLimit, RegistryImage, RegistryPing
from .source import RegistrySource
from .transport import Transport

__all__ = ["RegistryService"]

DEFAULT_CONCURRENCY: Final = 6
DEFAULT_CONNECT_TIMEOUT: Final = 10.0
DEFAULT_IDLE_TIMEOUT: Final = 60.0

MAX_CONFIG: Final = 8 << 20
"""Bytes of an image's configuration; one with thousands of steps in its history has some hundred thousand."""

LIMIT_PROBE: Final = "ratelimitpreview/test"
"""The repository that Docker Hub has for asking how many pulls are left; a HEAD there is not counted as one."""


class _History(msgspec.Struct):
    created: Any = None
    created_by: str | None = None
    comment: str | None = None


class _RootFS(msgspec.Struct):
    type: str | None = None
    diff_ids: tuple[str, ...] | None = None


class _Config(msgspec.Struct):
    """The configuration of an image (OCI image specification, "Image Configuration")."""

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    created: Any = None
    author: str | None = None
    config: ImageConfig | None = None
    rootfs: _RootFS | None = None
    history: tuple[_History, ...] | None = None


_CONFIG: Final = msgspec.json.Decoder(_Config)


class RegistryService:
    """Everything that can be done to images in registries without an Engine.

    `keychain` finds credentials, by default those of the docker CLI (`DockerKeychain`); with `StaticKeychain({})` all
    requests go anonymously. `registries` says what is special about a registry, by its name ("docker.io",
    "registry.example:5000"). `concurrency` is how many blobs are moved from or to each registry at once, unless its
    `RegistryConfig` says otherwise. `connect_timeout` bounds the connecting; `idle_timeout` seconds without a byte in
    either direction break a request, which is then tried again; None means no limit. `retry` says how often a step is
    tried; a pause that a registry asks for is kept whatever it says.

    Making one needs no event loop and does no I/O. It belongs to the loop that it is first used in. Raises
    `ConfigError` for a configuration that cannot be.
    """

    def __init__(
        self,
        *,
        keychain: Keychain | None = None,
        registries: Mapping[str, RegistryConfig] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        connect_timeout: float | None = DEFAULT_CONNECT_TIMEOUT,
        idle_timeout: float | None = DEFAULT_IDLE_TIMEOUT,
        retry: Retry = Retry(),  # noqa: B008 - frozen
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, not {concurrency}")
        for name, seconds in (("idle_timeout", idle_timeout), ("connect_timeout", connect_timeout)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} must be more than 0 seconds, or None for no limit, not {seconds}")
        self._keychain = DockerKeychain() if keychain is None else keychain
        self._configs = by_registry(registries or {})
        self._retry = retry
        self._transport = Transport(connect_timeout=connect_timeout, idle_timeout=idle_timeout)
        self._hosts = Hosts(self._configs)
        self._registries: dict[tuple[str, str], Registry] = {}

    def __repr__(self) -> str:
        return "RegistryService()"

    async def digest(self, reference: str | Reference) -> str:
        """Return the digest of an image: of its index if it has several platforms.

        Registries do not count it as a pull. Raises `InvalidReferenceError`, `NotFoundError` and every other
        `DockerError`. HEAD /v2/<name>/manifests/<reference>, or GET where HEAD does not tell.
        """
        image = _parsed(reference)
        with self._located(f"digest {image.familiar}"):
            return (await self._source(image).resolve()).digest

    async def manifest(self, reference: str | Reference) -> Manifest:
        """Return the manifest or index of an image, with the bytes that it has in the registry.

        Raises `InvalidReferenceError`, `NotFoundError`, `DigestMismatchError`, `UnsupportedManifestError` and every
        other `DockerError`. GET /v2/<name>/manifests/<reference>.
        """
        image = _parsed(reference)
        with self._located(f"manifest {image.familiar}"):
            return await self._source(image).named_manifest()

    async def image(self, reference: str | Reference, *, platform: str | Platform | None = None) -> RegistryImage:
        """Return what a registry has of an image, without its layers: platforms and configuration.

        `platform` ("linux/arm64") chooses from an index; without one, an index has platforms and no configuration.

        Raises `InvalidReferenceError`, `InvalidPlatformError`, `NotFoundError` and every other `DockerError`.
        GET /v2/<name>/manifests/<reference> and /v2/<name>/blobs/<digest>.
        """
        image = _parsed(reference)
        wanted = None if platform is None else Platform.parse(platform)
        with self._located(f"image {image.familiar}"):
            source = self._source(image)
            top = manifest = await source.named_manifest()
            for _ in range(2):  # an index, perhaps in an index
                if manifest.is_index and wanted is not None:
                    manifest = await source.manifest(manifest.select([wanted])[0])
            if manifest.kind != "image" or manifest.config is None:
                return RegistryImage(descriptor=top.descriptor, platforms=top.platforms)
            body = await source.read_blob(manifest.config, MAX_CONFIG)
            return _image(top, manifest, body, who=source.who)

    async def tags(self, repository: str | Reference) -> list[str]:
        """Return all tags of a repository, in the registry's order.

        Raises as `tags_stream` does.
        """
        async with contextlib.aclosing(self.tags_stream(repository)) as tags:
            return [tag async for tag in tags]

    async def tags_stream(self, repository: str | Reference) -> AsyncGenerator[str, None]:
        """Yield the tags of a repository as their pages come, each once.

        Raises `InvalidReferenceError`, `NotFoundError` and every other `DockerError`. GET /v2/<name>/tags/list.
        """
        image = _parsed(repository)
        with self._located(f"tags {image.familiar_name}"):
            async with contextlib.aclosing(self._repository(image).tag_pages()) as pages:
                async for page in pages:
                    for tag in page:
                        yield tag

    async def blob_stream(self, repository: str | Reference, digest: str) -> AsyncGenerator[bytes, None]:
        """Yield a blob, in pieces of any size.

        After a break it goes on where it was. The last piece comes only if all of them have the digest: otherwise
        `DigestMismatchError` is raised. Raises `InvalidReferenceError`, `NotFoundError` and every other `DockerError`.
        GET /v2/<name>/blobs/<digest>.
        """
        image = _parsed(repository).with_digest(digest)
        with self._located(f"blob {image.familiar_name}@{digest}"):
            async with contextlib.aclosing(self._source(image).blob(Descriptor(digest=digest))) as pieces:
                async for piece in pieces:
                    yield piece

    async def ping(self, registry: str) -> RegistryPing:
        """Ask whether a registry ("registry.example:5000") is there, speaks the distribution API and knows us.

        Raises `InvalidReferenceError`, `RegistryUnreachableError`, `UnauthorizedError` and every other `DockerError`.
        GET /v2/.
        """
        name = _registry_of(registry)
        with self._located(f"ping {name}"):
            call = Call(method="GET", path="/v2/", scopes=(), expected=frozenset({200, 404}))
            reply = await self._registry(name).fetch(call)
            version = reply.headers.get("Docker-Distribution-Api-Version", "").strip()
            html = reply.headers.get("Content-Type", "").startswith("text/html")
            if reply.status != 200 or html or (version and not version.startswith("registry/2")):
                raise RegistryUnreachableError(
                    f"{reply.url.authority} does not speak the distribution API: GET /v2/ is answered with status"
                    f" {reply.status}{' and a web page' if html else ''}",
                    endpoint=name,
                )
            return RegistryPing(registry=name, url=str(reply.url.origin()), version=named(version))

    async def limits(self, registry: str) -> RateLimit:
        """Return how many pulls a registry still allows, by what it said last; Docker Hub is asked if it said nothing.

        Raises `InvalidReferenceError` and every other `DockerError`.
        """
        name = _registry_of(registry)
        with self._located(f"limits {name}"):
            asked = self._registry(name)
            if asked.limits is None and name == DOCKER_HUB:
                await Repository(asked, LIMIT_PROBE).head_manifest("latest")
            elif asked.limits is None:
                call = Call(method="GET", path="/v2/", scopes=(), expected=frozenset({200, 404}))
                await asked.fetch(call)
            return asked.limits or RateLimit()

    async def aclose(self) -> None:
        """End what is under way (it raises `StreamInterruptedError`) and close every connection. Idempotent.

        `async with` calls it.
        """
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        """Return the service; nothing is opened before the first request."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the service."""
        await self.aclose()

    @contextlib.contextmanager
    def _located(self, operation: str) -> Generator[None, None, None]:
        """Refuse the use after the end, and say in our errors which operation they met."""
        try:
            self._transport.check_usable()
            yield
        except DockerError as error:
            error.operation = error.operation or operation
            raise

    def _registry(self, name: str, mirrored: str = "") -> Registry:
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

    def _repository(self, image: Reference, *, writes: bool = False) -> Repository:
        registry = registry_name(image.domain)
        path = image.path
        if registry == DOCKER_HUB and "/" not in path:  # by its other host names
            path = f"library/{path}"
        return Repository(self._registry(registry), path, writes=writes)

    def _source(self, image: Reference) -> RegistrySource:
        own = self._repository(image)
        mirrors: list[Repository] = []
        for mirror in own.registry.config.mirrors:
            name, prefix = split_mirror(mirror)
            path = f"{prefix}/{own.path}" if prefix else own.path
            mirrors.append(Repository(self._registry(registry_name(name), own.registry.name), path))
        return RegistrySource([*mirrors, own], image.tag_or_digest or "")


def _parsed(reference: str | Reference) -> Reference:
    image = reference if isinstance(reference, Reference) else Reference.parse(reference)
    return image.with_default_tag()


def _registry_of(text: str) -> str:
    """Return the name of a registry. Raises `InvalidReferenceError`."""
    # Credentials know the address "https://index.docker.io/v1/"; a repository is not a registry.
    name = registry_name(text) if "://" in text else text
    name = DOCKER_HUB if registry_name(name) == DOCKER_HUB else name
    return Reference(name, "a/a").domain


def _image(top: Manifest, manifest: Manifest, body: bytes, *, who: str) -> RegistryImage:
    """Make what is told of an image from its manifests and the bytes of its configuration."""
    config = manifest.config
    try:
        read = _CONFIG.decode(body)
        platform = Platform(os=read.os or "", architecture=read.architecture or "", variant=read.variant or "")
        return RegistryImage(
            descriptor=top.descriptor,
            platforms=top.platforms or ((platform,) if platform.os else ()),
            manifest=manifest.descriptor,
            id=config.digest if config is not None else "",
            os=platform.os,
            architecture=platform.architecture,
            variant=platform.variant,
            created=read.created,
            author=read.author or "",
            config=read.config,
            root_fs=RootFS(type=read.rootfs.type or "", layers=read.rootfs.diff_ids or ()) if read.rootfs else None,
            history=tuple(
                HistoryItem(created=each.created, created_by=each.created_by or "", comment=each.comment or "")
                for each in read.history or ()
            ),
        )
    except UNDECODABLE as error:
        failure = FrameDecodeError(f"the configuration of {who}@{manifest.digest} is not what it should be: {error}")
    raise failure

"""`RegistryService`: images in registries, over the OCI distribution API, without an Engine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import warnings
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

from aiodocker_images._aio.callbacks import check_callback, tell
from aiodocker_images._aio.dependents import Dependents
from aiodocker_images._aio.threads import outlast
from aiodocker_images._arguments import check_count, check_given, check_seconds, wrong
from aiodocker_images._dockercli.keychain import DockerKeychain
from aiodocker_images._retry import Retry
from aiodocker_images.credentials import Keychain, check_keychain, registry_name
from aiodocker_images.errors import (
    DockerError,
    InvalidReferenceError,
    RegistryUnreachableError,
    named,
)
from aiodocker_images.models import Descriptor, Platform
from aiodocker_images.progress import OnProgress
from aiodocker_images.reference import DOCKER_HUB, Reference

from .config import RegistryConfig, by_registry
from .copies import Copies
from .copying import LatestSteps
from .ends import Ends
from .image_config import MAX_CONFIG, read_image
from .layouts import OCILayout
from .manifests import Manifest
from .registries import Registries
from .registry import Call
from .removal import remove
from .repository import Repository
from .results import CopyResult, CopyStep, RateLimit, RegistryImage, RegistryPing
from .stores import StoredImages
from .tag_selection import TagSelection
from .target import RegistryTarget, Shelf
from .transport import Transport

__all__ = ["RegistryService"]


DEFAULT_CONCURRENCY: Final = 6
DEFAULT_CONNECT_TIMEOUT: Final = 10.0
DEFAULT_IDLE_TIMEOUT: Final = 60.0

LIMIT_PROBE: Final = "ratelimitpreview/test"
"""The repository that Docker Hub has for asking how many pulls are left; a HEAD there is not counted as one."""


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
        check_keychain(keychain)
        check_given("concurrency", concurrency, "an int")
        check_count("concurrency", concurrency)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("idle_timeout", idle_timeout)
        if not isinstance(cast("object", retry), Retry):
            raise wrong("retry", retry, "a Retry(attempts=…)")
        configs = by_registry({} if registries is None else registries)
        self._transport = Transport(connect_timeout=connect_timeout, idle_timeout=idle_timeout)
        self._registries = Registries(
            self._transport, configs, DockerKeychain() if keychain is None else keychain, retry
        )
        # None of them refers to this object, which would then be in a cycle, and its end would be seen later.
        self._copies = Copies(self._registries.repository, self._registries.source, configs, concurrency)
        self._dependents = Dependents()

    def __repr__(self) -> str:
        return "RegistryService()"

    def __del__(self) -> None:
        """Warn of a service that nobody closed, and close what it has open."""
        transport: Transport | None = getattr(self, "_transport", None)  # None: it was refused when it was made
        if transport is not None and transport.close_forgotten():
            warnings.warn(
                "RegistryService was never closed: use it with `async with`, or await aclose()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    async def digest(self, reference: str | Reference) -> str:
        """Return the digest of an image: of its index if it has several platforms.

        Registries do not count it as a pull. Raises `InvalidReferenceError`, `NotFoundError` and every other
        `DockerError`. HEAD /v2/<name>/manifests/<reference>, or GET where HEAD does not tell.
        """
        image = _parsed(reference)
        with self._located(f"digest {image.familiar}"):
            return (await self._registries.source(image).resolve()).digest

    async def manifest(self, reference: str | Reference) -> Manifest:
        """Return the manifest or index of an image, with the bytes that it has in the registry.

        Raises `InvalidReferenceError`, `NotFoundError`, `DigestMismatchError`, `UnsupportedManifestError` and every
        other `DockerError`. GET /v2/<name>/manifests/<reference>.
        """
        image = _parsed(reference)
        with self._located(f"manifest {image.familiar}"):
            return await self._registries.source(image).named_manifest()

    async def image(self, reference: str | Reference, *, platform: str | Platform | None = None) -> RegistryImage:
        """Return what a registry has of an image, without its layers: platforms and configuration.

        `platform` ("linux/arm64") chooses from an index; without one, an index has platforms and no configuration.

        Raises `InvalidReferenceError`, `InvalidPlatformError`, `NotFoundError` and every other `DockerError`.
        GET /v2/<name>/manifests/<reference> and /v2/<name>/blobs/<digest>.
        """
        image = _parsed(reference)
        wanted = None if platform is None else Platform.parse(platform)
        with self._located(f"image {image.familiar}"):
            source = self._registries.source(image)
            top = manifest = await source.named_manifest()
            for _ in range(2):  # an index, perhaps in an index
                if manifest.is_index and wanted is not None:
                    manifest = await source.manifest(manifest.select([wanted])[0])
            if manifest.kind != "image" or manifest.config is None:
                return RegistryImage(descriptor=top.descriptor, platforms=top.platforms)
            body = await source.read_blob(manifest.config, MAX_CONFIG)
            return read_image(top, manifest, body, who=source.who)

    async def tags(
        self,
        repository: str | Reference,
        *,
        match: str | Sequence[str] = (),
        semver: str | None = None,
        newest: int | None = None,
        without: str | Sequence[str] = (),
    ) -> list[str]:
        """Return the tags of a repository, in the registry's order: all of them, or those that rules choose.

        `match` and `without` are globs ("3.*"), `semver` is a range of versions (">=3.18"), and `newest` is how many
        of the highest versions, which then come first. `TagSelection` says how these rules combine; with any of them,
        tags that hold signatures are left out.

        Raises `ConfigError` for a rule that makes no sense, before anything is sent, and as `tags_stream` does.
        """
        selection = TagSelection(match=match, semver=semver, newest=newest, without=without)
        async with contextlib.aclosing(self.tags_stream(repository)) as stream:
            tags = [tag async for tag in stream]
        return tags if selection == TagSelection() else list(selection.select(tags).tags)

    async def tags_stream(self, repository: str | Reference) -> AsyncGenerator[str, None]:
        """Yield the tags of a repository as their pages come, each once.

        Raises `InvalidReferenceError`, `NotFoundError` and every other `DockerError`. GET /v2/<name>/tags/list.
        """
        image = _parsed(repository)
        with self._located(f"tags {image.familiar_name}"):
            async with contextlib.aclosing(self._registries.repository(image).tag_pages()) as pages:
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
            async with contextlib.aclosing(self._registries.source(image).blob(Descriptor(digest=digest))) as pieces:
                async for piece in pieces:
                    yield piece

    async def referrers(self, reference: str | Reference, *, artifact_type: str | None = None) -> list[Descriptor]:
        """Return the manifests that name an image as their subject: signatures, SBOMs, attestations.

        `artifact_type` returns those of one type alone. A registry without the referrers API is asked for the index
        that clients keep under a tag instead; tags of cosign (`sha256-….sig`) are not referrers.

        Raises `InvalidReferenceError`, `NotFoundError` and every other `DockerError`.
        GET /v2/<name>/referrers/<digest> (OCI distribution 1.1).
        """
        image = _parsed(reference)
        with self._located(f"referrers {image.familiar}"):
            source = self._registries.source(image)
            digest = image.digest or (await source.resolve()).digest
            found = await source.referrers(digest)
        return [each for each in found if artifact_type in {None, each.artifact_type}]

    async def tag(self, source: str | Reference, target: str | Reference) -> None:
        """Give an image another tag in its repository.

        Raises `InvalidReferenceError`, `ValueError` for two repositories (`copy` does that), `NotFoundError`,
        `TagImmutableError` and every other `DockerError`. PUT /v2/<name>/manifests/<tag>.
        """
        start, end = _parsed(source), Reference.parse(target) if isinstance(target, str) else target
        end = end.with_default_tag()
        if end.digest is not None or end.tag is None:
            raise InvalidReferenceError(f"{end.familiar!r} is not a tag: it has a digest")
        if (registry_name(start.domain), start.path) != (registry_name(end.domain), end.path):
            raise ValueError(f"{start.familiar_name} and {end.familiar_name} are two repositories: copy between them")
        with self._located(f"tag {start.familiar} as {end.tag}"):
            repository = self._registries.repository(end, writes=True)
            manifest = await repository.get_manifest(start.tag_or_digest or "")
            await RegistryTarget(repository, end.tag, Shelf()).write_name(manifest)

    async def remove(self, reference: str | Reference, *, only_tag: bool = True) -> None:
        """Remove a tag, or with a digest in the reference an image that has no tag.

        Registries that cannot remove a tag alone (distribution 2.8) remove an image with all of its tags. That is done
        only if no other tag has the image, or if `only_tag` is False. Blobs stay until the registry collects garbage.

        Raises `InvalidReferenceError`, `NotFoundError`, `ConflictError` for an image that other tags have, and every
        other `DockerError`. DELETE /v2/<name>/manifests/<reference>.
        """
        image = _parsed(reference)
        with self._located(f"remove {image.familiar}"):
            repository = self._registries.repository(image, writes=True, deletes=True)
            await remove(repository, None if image.digest else image.tag, image.digest, only_tag=only_tag)

    async def ping(self, registry: str) -> RegistryPing:
        """Ask whether a registry ("registry.example:5000") is there, speaks the distribution API and knows us.

        Raises `InvalidReferenceError`, `RegistryUnreachableError`, `UnauthorizedError` and every other `DockerError`.
        GET /v2/.
        """
        name = _registry_of(registry)
        with self._located(f"ping {name}"):
            call = Call(method="GET", path="/v2/", scopes=(), expected=frozenset({200, 404}))
            reply = await self._registries.registry(name).fetch(call)
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
            asked = self._registries.registry(name)
            if asked.limits is None and name == DOCKER_HUB:
                await Repository(asked, LIMIT_PROBE).head_manifest("latest")
            elif asked.limits is None:
                call = Call(method="GET", path="/v2/", scopes=(), expected=frozenset({200, 404}))
                await asked.fetch(call)
            return asked.limits or RateLimit()

    async def copy(
        self,
        source: str | Reference | StoredImages,
        target: str | Reference | StoredImages,
        *,
        platforms: Iterable[str | Platform] | Literal["all"] = "all",
        sparse: bool = False,
        force: bool = False,
        verify: bool = False,
        referrers: bool | Iterable[str] = False,
        mount_from: Iterable[str | Reference] = (),
        resume: bool = False,
        on_progress: OnProgress[CopyStep] | None = None,
    ) -> CopyResult:
        """Copy an image from one registry to another, or from or to an `OCILayout`.

        A source without a tag or digest is `latest`; a target without a tag gets the source's. Manifests keep their
        bytes, and so their digests. An image that the target has already costs two HEADs; of any other, only what is
        missing is moved. The tag is written last: a copy that fails leaves the one that was there.

        `platforms` ("linux/amd64", …) copies those of an index alone, with their attestations: the target gets a new
        index with another digest, or with `sparse` the index as it is, if the registry takes one whose parts are
        missing. `force` also copies what the target seems to have. `verify` asks the target at the end whether it has
        the image. `referrers` also copies what refers to the image or to one of its platforms, such as signatures and
        SBOMs: all, or those of some artifact types, and cosign's tags. `mount_from` are repositories of the target's
        registry that may have some of the blobs. `resume` also looks for the parts of an earlier copy that was ended
        before it had written the tag, in a repository that seems to be empty. `on_progress` is called with each
        `CopyStep`, and awaited if it is a coroutine function.

        Raises `InvalidReferenceError`, `InvalidPlatformError`, `NotFoundError`, `DigestMismatchError` for a registry
        that sends or stores something else than it says, `TagImmutableError`, `UnsupportedManifestError`,
        `RegistryUnreachableError` and every other `DockerError`. OCI distribution specification, "Pull" and "Push".
        """
        check_callback(on_progress)
        ends = Ends.parse(source, target)
        chosen = None if platforms == "all" else tuple(map(Platform.parse, _listed(platforms)))
        if chosen == ():
            raise ValueError('platforms is empty: name one, or "all"')
        if sparse and chosen is None:
            raise ValueError("sparse needs platforms to choose")
        origins = [Reference.parse(each) if isinstance(each, str) else each for each in mount_from]
        return await self._copies.copy(
            ends,
            self._copies.options(ends, chosen, referrers, sparse=sparse, force=force, resumed=resume),
            origins=origins,
            verify=verify,
            report=None if on_progress is None else functools.partial(tell, on_progress),
            located=self._located,
        )

    async def plan_copy(
        self,
        source: Reference | OCILayout,
        target: Reference | OCILayout,
        *,
        platforms: Sequence[Platform] = (),
        referrers: bool | Iterable[str] = False,
        resume: bool = False,
    ) -> CopyResult:
        """Return what `copy` would come to, of as many requests as that takes without writing. For `mirror`.

        What would be mounted is known only where the blob is known to be in another repository. Without `platforms`,
        all of them would go.
        """
        ends = Ends.parse(source, target)
        options = self._copies.options(ends, tuple(platforms) or None, referrers, resumed=resume)
        return await self._copies.plan(ends, options, located=self._located)

    async def copy_stream(
        self,
        source: str | Reference | StoredImages,
        target: str | Reference | StoredImages,
        *,
        platforms: Iterable[str | Platform] | Literal["all"] = "all",
        sparse: bool = False,
        force: bool = False,
        verify: bool = False,
        referrers: bool | Iterable[str] = False,
        mount_from: Iterable[str | Reference] = (),
    ) -> AsyncGenerator[CopyStep, None]:
        """Copy as `copy` does, and yield how far it is; the last step has the `result`.

        Of a blob that is moving, only the latest step is kept for a caller who is busy. Leaving the loop ends the copy.
        """
        steps = LatestSteps()
        copying = asyncio.create_task(
            self.copy(
                source,
                target,
                platforms=platforms,
                sparse=sparse,
                force=force,
                verify=verify,
                referrers=referrers,
                mount_from=mount_from,
                on_progress=steps.put,
            )
        )
        copying.add_done_callback(lambda _: steps.close())
        try:
            async for step in steps:
                yield step
            result = copying.result()
            yield CopyStep(
                kind="result", status="there" if result.skipped else "moved", digest=result.digest, result=result
            )
        finally:
            copying.cancel()
            # Not suppressed: a cancellation of the caller, who may be waiting here, is his.
            await outlast(asyncio.gather(copying, return_exceptions=True))

    def end_with(self, task: asyncio.Task[Any]) -> None:
        """Let `aclose` cancel a task and wait for it before it closes anything. For `mirror`."""
        self._dependents.add(task)

    def pause(self, registry: str, seconds: float) -> None:
        """Send a registry ("registry.example:5000") nothing for `seconds`, as when it asks for a pause.

        Raises `InvalidReferenceError`.
        """
        self._registries.registry(_registry_of(registry)).pause(seconds)

    async def aclose(self) -> None:
        """End what is under way, by `StreamInterruptedError` or `ServiceClosedError`, and close all. Idempotent.

        Runs of `mirror` on this service are ended first. Uploads that are open at registries are given up there, which
        takes some seconds at most. It may be called from any loop, thread and process. `async with` calls it.
        """
        await self._dependents.end_and(self._transport.aclose)

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
            error.verb = error.verb or operation.partition(" ")[0]
            raise


def _parsed(reference: str | Reference) -> Reference:
    image = Reference.parse(reference)
    return image.with_default_tag()


def _registry_of(text: str) -> str:
    """Return the name of a registry. Raises `InvalidReferenceError`."""
    # Credentials know the address "https://index.docker.io/v1/"; a repository is not a registry.
    name = registry_name(text) if "://" in text else text
    name = DOCKER_HUB if registry_name(name) == DOCKER_HUB else name
    return Reference(name, "a/a").domain


def _listed(platforms: Iterable[str | Platform] | str) -> Iterable[str | Platform]:
    return (platforms,) if isinstance(platforms, str | Platform) else platforms

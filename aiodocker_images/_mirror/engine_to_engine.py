"""`transfer`: images from one Engine straight into another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

from aiodocker_images._aio.callbacks import check_callback, tell
from aiodocker_images._aio.together import together
from aiodocker_images._arguments import check_count, wrong
from aiodocker_images.errors import DockerError, NotFoundError
from aiodocker_images.models import ImageConfig, ImageInspect
from aiodocker_images.progress import OnProgress
from aiodocker_images.reference import Reference, name_or_id
from aiodocker_images.service import ImageService

from .jobs import MirrorFailure
from .options import DEFAULT_CONCURRENCY
from .outcome_stream import outcome_stream

__all__ = ["TransferOutcome", "TransferProgress", "transfer"]


class TransferProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far one image has come."""

    reference: str
    """The name that its outcome will have."""
    size: int
    """Bytes of its archive that went so far."""
    expected: int | None
    """About how many there will be, by what the source says of the image's size; None if it says nothing."""


class TransferOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one image.

    `status`: "transferred"; "skipped", the target has this image under this name; "failed". `loaded` are the names,
    or ids of images without one, that the target told; `size` the bytes that went, `elapsed` the seconds it took.
    """

    reference: str
    status: Literal["transferred", "skipped", "failed"]
    loaded: tuple[str, ...] = ()
    size: int = 0
    elapsed: float = 0.0
    error: MirrorFailure | None = None

    @property
    def ok(self) -> bool:
        """Whether the target has the image now."""
        return self.status != "failed"

    def __str__(self) -> str:
        return f"{self.status}: {self.reference}" + (f": {self.error}" if self.error is not None else "")


def transfer(
    source: ImageService,
    target: ImageService,
    *references: str | Reference,
    concurrency: int = DEFAULT_CONCURRENCY,
    on_progress: OnProgress[TransferProgress] | None = None,
) -> AsyncGenerator[TransferOutcome, None]:
    """Save images from one Engine into another, `concurrency` at once, and yield what came of each as it ends.

    The archive goes through this process in small pieces, as fast as the slower of both takes it, and to no disk. A
    name stays; an image named by its id has none over there. An image that the target has under that name is skipped:
    one with the same id, or, between a graph-driver and a containerd store, which give one image different ids, with
    the same layers and configuration. One image's failure is its own outcome. Leaving the generator ends what is under
    way, and so does closing one of the services, where nobody closes the generator; an archive that was cut gives the
    target no image.

    `on_progress`, a function or a coroutine function, is called with a `TransferProgress` whenever some bytes went.

    Raises at the call `InvalidReferenceError`, and `InvalidArgumentError` for a concurrency that makes no sense; then
    `StreamInterruptedError` if a service was closed before all images had ended.
    """
    for name, service in (("source", source), ("target", target)):
        if not isinstance(cast("object", service), ImageService):
            raise wrong(name, service, "an ImageService")
    check_count("concurrency", concurrency)
    check_callback(on_progress)
    names = tuple(dict.fromkeys(name_or_id(reference) for reference in references))
    return _outcomes(source, target, names, concurrency, on_progress)


def _outcomes(
    source: ImageService,
    target: ImageService,
    names: tuple[str, ...],
    concurrency: int,
    on_progress: OnProgress[TransferProgress] | None,
) -> AsyncGenerator[TransferOutcome, None]:
    async def work(emit: Callable[[TransferOutcome], object]) -> None:
        slots = asyncio.Semaphore(concurrency)

        async def one(name: str) -> None:
            async with slots:
                emit(await _transfer(source, target, name, on_progress))

        await together([one(name) for name in names])

    return outcome_stream("transfer", (source, target), work)


async def _transfer(
    source: ImageService, target: ImageService, name: str, on_progress: OnProgress[TransferProgress] | None
) -> TransferOutcome:
    loop = asyncio.get_running_loop()
    started, size = loop.time(), 0
    expected: int | None = None

    async def archive() -> AsyncGenerator[bytes, None]:
        nonlocal size
        async with contextlib.aclosing(source.save_stream(name)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if on_progress is not None:
                    await tell(on_progress, TransferProgress(reference=name, size=size, expected=expected))
                yield chunk

    try:
        here = await _content(source, name)
        if here.is_same_as(await _content_there(target, name)):
            return TransferOutcome(reference=name, status="skipped", elapsed=loop.time() - started)
        expected = here.size
        if on_progress is not None:
            await tell(on_progress, TransferProgress(reference=name, size=0, expected=expected))
        loaded = await target.load(archive())
    except DockerError as error:
        failure = MirrorFailure.of(error)
        return TransferOutcome(reference=name, status="failed", size=size, elapsed=loop.time() - started, error=failure)
    told = (*loaded.references, *loaded.ids)
    return TransferOutcome(reference=name, status="transferred", loaded=told, size=size, elapsed=loop.time() - started)


@dataclass(frozen=True, slots=True)
class _Content:
    """An image, which of its platforms are there, where a store may have some only, and its archive's size."""

    image: ImageInspect
    manifests: frozenset[str]
    size: int | None

    def is_same_as(self, other: _Content | None) -> bool:
        if other is None:
            return False
        if self.is_in_containerd == other.is_in_containerd:
            return (self.image.id, self.manifests) == (other.image.id, other.manifests)
        # A graph-driver store calls an image by its configuration, containerd's by its manifest, and neither tells
        # the other's digest. What the configuration says, and so all layers, is told by both (20.10 and 28.5, Podman).
        return len(self.manifests | other.manifests) == 1 and bool(self.said) and self.said == other.said

    @property
    def is_in_containerd(self) -> bool:
        """Whether the Engine's store is containerd's."""
        return self.image.descriptor is not None

    @property
    def said(self) -> tuple[object, ...]:
        """What the configuration says; nothing where the Engine does not tell the layers."""
        image = self.image
        layers = image.root_fs.layers if image.root_fs is not None else ()
        if not layers or image.created is None:
            return ()
        made = (image.created, image.author, image.comment, image.config or ImageConfig())
        return (layers, image.os, image.architecture, image.variant, image.os_version, *made)


async def _content(service: ImageService, name: str) -> _Content:
    image = await service.inspect(name)
    size: int | None = image.size
    if image.descriptor is not None:
        # A containerd store: its archive has what is packed, and its size is that and what is unpacked.
        image = await service.inspect(name, manifests=True)
        size = sum((each.size and each.size.content) or 0 for each in image.manifests if each.available)
    available = frozenset(manifest.id for manifest in image.manifests if manifest.available)
    return _Content(image, available, size or None)


async def _content_there(target: ImageService, name: str) -> _Content | None:
    try:
        return await _content(target, name)
    except NotFoundError:
        return None

"""What a copier needs of where an image comes from and of where it goes to: registries, layouts and archives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from aiodocker_images.models import Descriptor
from aiodocker_images.reference import Reference

from .manifests import Manifest

__all__ = ["BlobContent", "ImageSource", "ImageTarget", "SeenTarget", "StoredImages", "Written"]

BlobContent = Callable[[], AsyncGenerator[bytes, None]]
"""Begins to read a blob at its first byte; may be called again after a failure."""

Written = Literal["moved", "mounted", "there"]
"""How a blob came to its target: its bytes were moved, or it was mounted, or it was there already."""


class ImageSource(Protocol):
    """One image to copy from.

    What it gives is checked against its digest and size, and the last piece of a blob is held back until they agree:
    a wrong one raises `DigestMismatchError`. What is not there raises `NotFoundError`.
    """

    @property
    def who(self) -> str:
        """Names the registry or the file in errors."""
        ...

    async def resolve(self) -> Descriptor:
        """Return what the image's name points to now; its size is None where that is not known."""
        ...

    async def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return the manifest or index of `descriptor`."""
        ...

    def blob(self, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield a blob from the byte `start` on; only what is read from 0 can be checked by its digest."""
        ...

    async def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is `digest`, as signatures have it."""
        ...


class SeenTarget(Protocol):
    """One image that could be copied to, of which it can be seen what is there."""

    @property
    def who(self) -> str:
        """Names the registry or the file in errors."""
        ...

    def check(self, manifest: Manifest) -> None:
        """Raise `UnsupportedManifestError` for an image that cannot be copied here, before any of it is."""
        ...

    async def resolve(self) -> Descriptor | None:
        """Return what the image's name points to now, None if there is no such name."""
        ...

    async def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether this manifest is there."""
        ...

    async def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether this blob is there."""
        ...


class ImageTarget(SeenTarget, Protocol):
    """One image to copy to. The order is the caller's: blobs, then manifests, then parents, and the name last."""

    async def write_blob(self, descriptor: Descriptor, content: BlobContent) -> Written:
        """Make the blob be there; `content` is read only if it is needed. Raises `DigestMismatchError`."""
        ...

    async def write_manifest(self, manifest: Manifest) -> None:
        """Store a manifest under its digest."""
        ...

    async def write_name(self, manifest: Manifest) -> None:
        """Store the manifest and let the image's name point to it, in one step: all before it is not to be seen."""
        ...


class StoredImages(Protocol):
    """A place on disk that has images: a layout, or an archive. Nothing is opened before the `async with`."""

    @property
    def name(self) -> str | Reference | None:
        """What the user calls the image there."""
        ...

    def open_source(self) -> AbstractAsyncContextManager[ImageSource]:
        """Open the image of this name to copy from."""
        ...

    def open_target(self, default_name: str | None = None) -> AbstractAsyncContextManager[ImageTarget]:
        """Open it to copy to. `default_name` names the image if the user did not.

        Leaving without an error makes what was written permanent; leaving with one discards what is half-done.
        """
        ...

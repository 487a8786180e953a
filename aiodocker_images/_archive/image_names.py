"""The names of images that an archive announces in its manifest.json, read as its bytes pass by. Pure, but for `scan`.

An Engine names each image that it has loaded, and then ends its response. A proxy can make a response that was cut
off look complete: only the archive itself tells how many images there should be.
"""

from __future__ import annotations

from typing import Final

import msgspec

from aiodocker_images._struct import UNDECODABLE, Model, Nullable
from aiodocker_images._system.files import read_at
from aiodocker_images.errors import ArchiveError

from .tar_check import TarCheck

__all__ = ["AnnouncedImages"]

MAX_MANIFEST: Final = 4 << 20
"""Bytes of a manifest.json; that of an archive of a thousand images has some hundred thousand."""

MAX_MEMBERS: Final = 100_000
"""Members that are walked past in a file to find it; each costs a system call."""

MEMBER: Final = "manifest.json"


class _Image(Model, frozen=True, kw_only=True, rename="pascal"):
    repo_tags: Nullable[tuple[str, ...]] = ()


_IMAGES: Final = msgspec.json.Decoder(tuple[_Image, ...])


class AnnouncedImages(TarCheck):
    """Follow an archive that is uploaded: `feed()` its bytes, or `scan()` a file before the kernel sends it."""

    def __init__(self) -> None:
        super().__init__()
        self._manifest_size = 0
        self._manifest: bytes | None = None
        self._given_up = False

    @property
    def fewest(self) -> int | None:
        """The number of names that the Engine must tell at least; None if the archive does not show it.

        It is not shown by an archive that is compressed, or that has no manifest.json.
        """
        if self._manifest is None:
            return None
        try:
            images = _IMAGES.decode(self._manifest)
        except UNDECODABLE:
            return None
        # Images without a name may be the platforms of one, which is told once.
        return len({tag for image in images for tag in image.repo_tags}) or min(len(images), 1)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece of the archive; a fault of it is the Engine's to tell."""
        if not self._given_up and self._manifest is None:
            try:
                super().feed(data)
            except ArchiveError:
                self._given_up = True

    def scan(self, descriptor: int) -> None:
        """Look for the manifest in a regular file, from header to header; the file's position stays as it is."""
        position = 0
        while self._manifest is None and self._fault is None and not self._given_up and self._members < MAX_MEMBERS:
            block = read_at(descriptor, self._wanted, position)
            if not block or self._zero_blocks == 2:
                return
            self.feed(block)
            position += len(block) + self._skip
            self._skip = 0

    def _remember(self, data: bytes | bytearray | memoryview) -> None:
        """Keep nothing: no daemon writes its error into what is uploaded."""

    def _accept(self, block: bytes) -> None:
        if self._manifest_size:
            self._manifest = block[: self._manifest_size]
            self._fault = "nothing else is looked for"
            return
        super()._accept(block)
        if not self._extended and self._skip and self._member.removeprefix("./") == MEMBER:
            if self._member_size > MAX_MANIFEST:
                self._given_up = True
                return
            self._manifest_size, self._wanted, self._skip = self._member_size, self._skip, 0

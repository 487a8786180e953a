"""`index.json` of an OCI layout: which images it has, under which names, and how one more gets into it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from aiodocker_images._struct import UNDECODABLE, Model
from aiodocker_images.errors import ArchiveError, DockerError, FrameDecodeError, NotFoundError, shown
from aiodocker_images.models import Descriptor
from aiodocker_images.reference import Reference

from .digests import check_digest
from .manifests import OCI_INDEX, Manifest, descriptor_document

__all__ = ["LAYOUT", "MAX_INDEX", "LayoutImage", "LayoutIndex", "check_layout", "referrers_of"]

LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
"""The file oci-layout."""

MAX_INDEX: Final = 64 * 1024 * 1024
"""Bytes of index.json: some 200,000 images. It is not a manifest, and no registry has to accept it."""

MAX_NAMES_SHOWN: Final = 20
"""Names in the message that says which ones there are."""

_REF_NAME: Final = "org.opencontainers.image.ref.name"
_IMAGE_NAME: Final = "io.containerd.image.name"


class LayoutImage(NamedTuple):
    """An image of a layout: its names, the longest-reaching first (none for an unnamed one), and what it is."""

    names: tuple[str, ...]
    descriptor: Descriptor


class _Index(Model, frozen=True, kw_only=True, rename="camel"):
    manifests: tuple[Descriptor, ...] | None = None


class _Layout(msgspec.Struct, rename="camel"):
    image_layout_version: str = ""


class LayoutIndex:
    """The entries of an index.json, None for a layout that has none yet; `who` names the layout in errors.

    Raises `FrameDecodeError` for what is not an index.
    """

    def __init__(self, data: bytes | None, who: str) -> None:
        self._who = who
        self._document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX}
        self._raw: list[msgspec.Raw] = []
        entries: tuple[Descriptor, ...] = ()
        if data is not None:
            try:
                data.decode()
                entries = msgspec.json.decode(data, type=_Index).manifests or ()
                self._document = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
                # As they were written, for what this library does not know about them.
                self._raw = (
                    msgspec.json.decode(self._document.get("manifests", b"[]"), type=list[msgspec.Raw] | None) or []
                )
            except UNDECODABLE as error:
                raise FrameDecodeError(f"index.json of {shown(who)} is not an index: {error}") from error
            for entry in entries:
                check_digest(entry.digest, f"an entry in index.json of {shown(who)}")
        self.images = tuple(LayoutImage(_names(entry), entry) for entry in entries)

    def encode(self) -> bytes:
        """Return the index as it is written to the disk."""
        return msgspec.json.encode(self._document | {"manifests": self._raw})

    def find(self, name: str | None) -> Descriptor:
        """Return the image of that name, or the only one for None. Raises `NotFoundError`, which tells the names."""
        found = {each.descriptor.digest: each.descriptor for each in self._matches(name)}
        if len(found) == 1:
            return next(iter(found.values()))
        what = f"image {shown(name)}" if name is not None else "image"
        if not found:
            raise NotFoundError(f"there is no {what} in {shown(self._who)}; it has {self._known()}")
        raise NotFoundError(f"there is more than one {what} in {shown(self._who)}: name one of {self._known()}")

    def lookup(self, name: str) -> Descriptor | None:
        """Return what `name` points to, None for nothing."""
        return next((each.descriptor for each in self._matches(name)), None)

    def add(self, descriptor: Descriptor, name: str | None) -> None:
        """Let `name` point to an image, and to that one alone; an image without a name is listed by its digest."""
        if name is None:
            if any(each.descriptor.digest == descriptor.digest for each in self.images):
                return
        else:
            old = [each.descriptor for each in self._named(name)]
            kept = [at for at, each in enumerate(self.images) if each.descriptor not in old]
            self._raw = [self._raw[at] for at in kept]
            self.images = tuple(self.images[at] for at in kept)
            annotations = {_REF_NAME: name}
            if (full := _full_name(name)) is not None:
                annotations[_IMAGE_NAME] = full
            descriptor = msgspec.structs.replace(descriptor, annotations=annotations)
        self._raw.append(msgspec.Raw(msgspec.json.encode(descriptor_document(descriptor))))
        self.images = (*self.images, LayoutImage(_names(descriptor), descriptor))

    def _matches(self, name: str | None) -> Iterable[LayoutImage]:
        if name is None:
            # Referrers and other images without a name do not make the named one ambiguous.
            return [each for each in self.images if each.names] or self.images
        return self._named(name) or [each for each in self.images if each.descriptor.digest == name]

    def _named(self, name: str) -> list[LayoutImage]:
        """Return the images of exactly that name, or of one that means the same to Docker."""
        exact = [each for each in self.images if name in each.names]
        if exact:
            return exact
        full = _full_name(name)
        if full is None:
            return []
        # Only what ends alike can be the same, and few do: a layout may have tens of thousands of names.
        ending = full.rpartition("/")[2]
        return [
            each for each in self.images if any(one.endswith(ending) and _full_name(one) == full for one in each.names)
        ]

    def _known(self) -> str:
        names = [shown(each.names[0] if each.names else each.descriptor.digest) for each in self.images]
        more = ["..."] if len(names) > MAX_NAMES_SHOWN else []
        return ", ".join(names[:MAX_NAMES_SHOWN] + more) or "no image at all"


def check_layout(data: bytes | None, who: str) -> None:
    """Raise `ArchiveError` unless `data` is the file oci-layout of a version that is known here."""
    try:
        version = msgspec.json.decode(data or b"{}", type=_Layout).image_layout_version
    except UNDECODABLE:
        version = ""
    if version.partition(".")[0] != "1":
        reason = f"its version is {shown(version)}" if version else "it has no valid file oci-layout"
        raise ArchiveError(f"{shown(who)} is not an OCI layout: {reason}")


def _names(entry: Descriptor) -> tuple[str, ...]:
    annotations: Mapping[str, str] = entry.annotations
    # containerd, and Docker's save with it, has the whole name in an annotation of its own, and its tag in the usual.
    names = (annotations.get(_IMAGE_NAME), annotations.get(_REF_NAME))
    return tuple(dict.fromkeys(name for name in names if name))


def _full_name(name: str) -> str | None:
    """Return the canonical form of a name with a tag, None for any other text, such as a tag alone."""
    try:
        reference = Reference.parse(name)
    except DockerError:
        return None
    return str(reference) if reference.tag is not None and reference.digest is None else None


def referrers_of(manifests: Iterable[Manifest], digest: str) -> tuple[Descriptor, ...]:
    """Return the descriptors of those manifests whose subject is `digest`, as a registry's API lists them."""
    return tuple(
        msgspec.structs.replace(each.descriptor, artifact_type=each.referrer_type, annotations=dict(each.annotations))
        for each in manifests
        if each.subject is not None and each.subject.digest == digest
    )

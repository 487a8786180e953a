"""`DockerArchive`: the tar that `docker save` writes and `docker load` reads, as a source and a target of copies.

Such a tar has a manifest.json with the names of images, their configurations and layers, and no manifests of
registries. Docker 25 and later add an OCI layout, which has them. A docker-archive holds images of one platform each;
for all platforms of an image, read the layout in it with `OCILayout`.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Final, cast

import msgspec

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._archive.readers import PIECE_SIZE
from aiodocker_images._archive.streams import check_target
from aiodocker_images._struct import UNDECODABLE, Model, Nullable
from aiodocker_images.errors import (
    ArchiveError,
    DockerError,
    FrameDecodeError,
    InvalidReferenceError,
    NotFoundError,
    UnsupportedManifestError,
    shown,
)
from aiodocker_images.models import Descriptor
from aiodocker_images.reference import DEFAULT_TAG, Reference

from .digests import DigestCheck, check_digest, compute_digest
from .layout_files import BlobFile, blob_name
from .layout_images import LayoutPlace, LayoutTarget, in_steps, read_blob, undone_if_cancelled
from .layout_index import LayoutIndex
from .layout_tars import TarFiles, TarOutput
from .manifests import (
    MAX_DEPTH,
    MAX_DESCRIPTORS,
    MAX_MANIFEST_SIZE,
    OCI_MANIFEST,
    Manifest,
    is_attestation,
    is_manifest_type,
)

__all__ = ["DockerArchive"]

MAX_LINKS: Final = 5
"""Links from one to the next; Docker up to 24 writes one in the place of a layer that the archive has already."""

MAX_MANIFESTS_READ: Final = 1000
"""Manifests of the layout in an archive that are looked at to find the one of an image."""

_ID: Final = re.compile(r"sha256:[a-f0-9]{1,64}")
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_CONFIGS: Final = {_CONFIG, "application/vnd.docker.container.image.v1+json"}
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_COMPRESSIONS: Final = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}


class _Image(Model, frozen=True, kw_only=True, rename="pascal"):
    """An entry of manifest.json."""

    config: Nullable[str] = ""
    repo_tags: Nullable[tuple[str, ...]] = ()
    layers: Nullable[tuple[str, ...]] = ()


class _RootFS(Model, frozen=True, kw_only=True, rename=None):
    diff_ids: Nullable[tuple[str, ...]] = ()


class _Config(Model, frozen=True, kw_only=True, rename=None):
    rootfs: _RootFS | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DockerArchive:
    """The tar of `docker save`, with one or more images of one platform each.

    `path` is the tar. `name` is an image in it ("alpine:3.20"), or an image id ("sha256:…") for one without a name; a
    source without a name has to hold a single image. A target is replaced as a whole, as `docker save` does, holds one
    image, and gets the source's name unless there is one here. It is an OCI layout too, so that its digests are kept.

    Where the archive has no manifest of a source's image, one is made of it: an OCI manifest of the configuration and
    of the layers as they are, which are mostly not compressed. The same archive always gives the same digest, which is
    not the digest that the image had in the registry that it came from, for there its layers were compressed.

    Raises `TypeError` or `ValueError` for what cannot be a path, and `InvalidReferenceError`.
    """

    path: str | os.PathLike[str]
    name: str | Reference | None = None

    def __post_init__(self) -> None:
        _check(self.path, self.name)

    async def names(self) -> tuple[str, ...]:
        """Return the names of all images in the archive."""
        files = await self._open()
        try:
            images = await in_thread(_read_images, files)
        finally:
            await in_thread(files.close)
        return tuple(name for image in images for name in image.repo_tags)

    @asynccontextmanager
    async def open_source(self) -> AsyncGenerator[DockerArchiveSource, None]:
        """Open the image to copy from.

        Layers that are compressed are read once for their digests. Raises `ArchiveError` for what is not an archive of
        Docker's, and `NotFoundError`, which tells the names, for an image that is not there.
        """
        files = await self._open()
        try:
            yield await DockerArchiveSource.read(files, None if self.name is None else str(self.name))
        finally:
            await in_thread(files.close)

    @asynccontextmanager
    async def open_target(self, default_name: str | None = None) -> AsyncGenerator[DockerArchiveTarget, None]:
        """Open the archive to copy an image to. It takes its place when this is left without an exception."""
        name = str(self.name) if self.name is not None else default_name
        place = LayoutPlace(os.fspath(self.path))
        place.opened = tar = TarOutput(place.path, keep=False)
        try:
            await in_steps(tar.open())
            target = DockerArchiveTarget(place, name)
            yield target
            await target.publish()
            if place.changed:
                await in_steps(tar.finish())
        finally:
            await in_thread(tar.discard)

    async def _open(self) -> TarFiles:
        path = os.fspath(self.path)
        return await undone_if_cancelled(lambda: TarFiles(path), lambda files: files.close())


class DockerArchiveSource:
    """One image of an archive, to copy from. See `ImageSource`."""

    def __init__(self, files: TarFiles, name: str | None, manifest: Manifest, members: dict[str, str]) -> None:
        self.who = files.path
        self.name = name
        self._files = files
        self._manifest = manifest
        self._members = members  # by digest

    @classmethod
    async def read(cls, files: TarFiles, name: str | None) -> DockerArchiveSource:
        """Find the image of that name, and the manifest of it or what makes one."""
        image = _find(await in_thread(_read_images, files), name, files.path)
        names = [tag for tag in map(_tagged, image.repo_tags) if tag]
        name = next((each for each in names if name and each == _tagged(name)), next(iter(names), None))
        config = await in_thread(_read_member, files, image.config, MAX_MANIFEST_SIZE)
        found = await in_thread(_manifest_of, files, compute_digest(config))
        if found is not None:
            return cls(files, name, found, {each.digest: blob_name(each.digest) for each in found.blobs})
        diff_ids = _diff_ids(config, files.path)
        if len(diff_ids) != len(image.layers):
            raise ArchiveError(
                f"an image in {shown(files.path)} has {len(image.layers)} layers, and its configuration {len(diff_ids)}"
            )
        members = {compute_digest(config): image.config}
        layers: list[Descriptor] = []
        for member, diff_id in zip(image.layers, diff_ids, strict=True):
            layer = await _layer(files, member, diff_id)
            members[layer.digest] = member
            layers.append(layer)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": _CONFIG, "digest": compute_digest(config), "size": len(config)},
            "layers": [{"mediaType": each.media_type, "digest": each.digest, "size": each.size} for each in layers],
        }
        return cls(files, name, Manifest.parse(msgspec.json.encode(document)), members)

    async def resolve(self) -> Descriptor:
        """Return the manifest of the image."""
        return self._manifest.descriptor

    async def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return the manifest of the image, the only one that an archive has."""
        if descriptor.digest != self._manifest.digest:
            raise NotFoundError(f"there is no manifest {shown(descriptor.digest)} in {shown(self.who)}")
        return self._manifest

    async def blob(self, descriptor: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the configuration or a layer, checked against its digest if it is read from its beginning."""
        member = self._members.get(descriptor.digest)
        if member is None:
            raise NotFoundError(f"there is no blob {shown(descriptor.digest)} in {shown(self.who)}")
        file = await in_thread(_open_member, self._files, member)
        async with aclosing(read_blob(file, descriptor, start, self.who)) as pieces:
            async for piece in pieces:
                yield piece

    async def referrers(self, digest: str) -> tuple[Descriptor, ...]:  # noqa: ARG002 - an archive has none
        """Return nothing: an archive of Docker's holds images alone."""
        return ()


class DockerArchiveTarget(LayoutTarget):
    """The one image of an archive, to copy to. See `ImageTarget`."""

    def __init__(self, place: LayoutPlace, name: str | None) -> None:
        super().__init__(place, place.path, _tagged(name))
        self._tar = cast("TarOutput", place.files)
        self._written: dict[str, Manifest] = {}

    def check(self, manifest: Manifest) -> None:
        """Raise `UnsupportedManifestError` for anything that `load` cannot take."""
        what = shown(self.who)
        if manifest.is_index:
            images = _images(manifest)
            if len(images) != 1 or is_manifest_type(images[0].media_type, "index"):
                raise UnsupportedManifestError(
                    f"{what} cannot hold an index of several platforms, as a docker-archive is of one: choose one of "
                    f"{', '.join(map(str, manifest.platforms)) or 'them'}, or use an OCI layout"
                )
            return
        super().check(manifest)
        if manifest.config is None or manifest.config.media_type not in _CONFIGS:
            raise UnsupportedManifestError(f"{what} cannot hold an artifact: a docker-archive is of images alone")

    async def write_manifest(self, manifest: Manifest) -> None:
        """Store a manifest: that of the image, or one of its attestations."""
        if manifest.subject is not None:
            raise UnsupportedManifestError(
                f"{shown(self.who)} cannot hold what refers to another image, such as a signature"
            )
        await super().write_manifest(manifest)
        self._written[manifest.digest] = manifest

    async def write_name(self, manifest: Manifest) -> None:
        """Let the archive be that of this image, which may be the only one of an index."""
        self.check(manifest)
        await super().write_name(manifest)
        image = self._written.get(_images(manifest)[0].digest) if manifest.is_index else manifest
        if image is None:
            raise NotFoundError(f"the manifest of the only image in the index {manifest.digest} was not written")
        self.check(image)
        config = cast("Descriptor", image.config)
        for blob in image.blobs:
            if not await self.has_blob(blob):
                raise UnsupportedManifestError(
                    f"the blob {blob.digest} is not in {shown(self.who)}: an Engine cannot load an image without it"
                )
        entry = {
            "Config": blob_name(config.digest),
            "RepoTags": [Reference.parse(self.name).familiar] if self.name else None,
            "Layers": [blob_name(layer.digest) for layer in image.layers],
        }
        self._tar.write_last("manifest.json", msgspec.json.encode([entry]))


def _images(index: Manifest) -> list[Descriptor]:
    return [each for each in index.children if not is_attestation(each)]


def _check(path: object, name: object) -> None:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"the path of an archive must be a str or a PathLike, not {type(path).__name__}")
    check_target(cast("object", path))
    if isinstance(name, str):
        if not name.startswith("sha256:"):
            Reference.parse(name)
    elif not isinstance(name, Reference | None):
        raise TypeError(f"the name of an image in an archive must be a str, not {type(name).__name__}")


def _tagged(name: str | None) -> str | None:
    """Return a name that an Engine gives to the image that it loads; an image id is not one, and a digest none."""
    if name is None:
        return None
    try:
        reference = Reference.parse(name)
    except InvalidReferenceError:
        return None
    tag = reference.tag or (DEFAULT_TAG if reference.digest is None else None)
    return str(reference.name_only().with_tag(tag)) if tag else None


def _read_images(files: TarFiles) -> tuple[_Image, ...]:
    data = files.read("manifest.json")
    if data is None:
        other = ": it is an OCI layout, to be read as such" if files.read("oci-layout") is not None else ""
        raise ArchiveError(f"{shown(files.path)} is not an archive of docker save{other}")
    try:
        return msgspec.json.decode(data, type=tuple[_Image, ...])
    except UNDECODABLE as error:
        raise FrameDecodeError(f"manifest.json in {shown(files.path)} is not what it should be: {error}") from error


def _find(images: tuple[_Image, ...], name: str | None, path: str) -> _Image:
    if name is None:
        found = list(images)
    else:
        wanted = _tagged(name)
        found = [each for each in images if wanted is not None and wanted in map(_tagged, each.repo_tags)]
        # An id names the configuration, whose file bears it in each of Docker's layouts.
        identifier = name.removeprefix("sha256:") if _ID.fullmatch(name) else None
        found = found or [
            each for each in images if identifier and posixpath.basename(each.config).startswith(identifier)
        ]
    if len(found) == 1:
        return found[0]
    there = ", ".join(shown(tag) for each in images[:20] for tag in each.repo_tags[:5]) or "images without names"
    what = "image" if name is None else f"image {shown(name)}"
    if not images:
        there = "no image at all"
    number = "more than one" if found else "no"
    raise NotFoundError(f"there is {number} {what} in {shown(path)}; it has {there}")


def _member(files: TarFiles, name: str) -> str:
    """Return the member that has the content of `name`, through links within the archive."""
    at = posixpath.normpath(name)
    for _ in range(MAX_LINKS):
        member = files.members.get(at)
        if member is None:
            break
        if member.link is None:
            return at
        # A symbolic link is relative to its own directory, a hard link to the archive; nothing outside is looked at.
        relative = posixpath.normpath(posixpath.join(posixpath.dirname(at), member.link))
        at = relative if relative in files.members else posixpath.normpath(member.link)
    raise NotFoundError(f"there is no file {shown(name)} in {shown(files.path)}")


def _open_member(files: TarFiles, name: str) -> BlobFile:
    return files.open_member(_member(files, name), f"file {shown(name)}")


def _read_member(files: TarFiles, name: str, limit: int) -> bytes:
    file = _open_member(files, name)
    if file.size > limit:
        raise ArchiveError(f"{shown(name)} in {shown(files.path)} has {file.size} bytes; {limit} is the most")
    return file.read(0, file.size)


def _diff_ids(config: bytes, path: str) -> tuple[str, ...]:
    try:
        document = msgspec.json.decode(config, type=_Config)
    except UNDECODABLE as error:
        raise FrameDecodeError(f"the configuration of an image in {shown(path)} is not one: {error}") from error
    return document.rootfs.diff_ids if document.rootfs else ()


async def _layer(files: TarFiles, name: str, diff_id: str) -> Descriptor:
    """Describe a layer as it is in the archive."""
    file = await in_thread(_open_member, files, name)
    start = await in_thread(file.read, 0, 4)
    compression = next((each for magic, each in _COMPRESSIONS.items() if start.startswith(magic)), None)
    if compression is None:
        # The digest of a layer that is not compressed is in the configuration, and is checked when the layer is read.
        return Descriptor(media_type=_LAYER, digest=check_digest(diff_id, "a layer"), size=file.size)
    digest = compute_digest(b"")
    check = DigestCheck(digest)
    position = 0
    while position < file.size:
        position += await in_thread(_add_piece, file, position, check)
    return Descriptor(media_type=_LAYER + compression, digest=check.actual, size=file.size)


def _add_piece(file: BlobFile, position: int, check: DigestCheck) -> int:
    piece = file.read(position, PIECE_SIZE)
    if not piece:
        raise ArchiveError(f"{shown(file.path)} shrank while it was read")
    check.update(piece)
    return len(piece)


def _manifest_of(files: TarFiles, config: str) -> Manifest | None:
    """Return the manifest of the layout in the archive that has this configuration, if all of it is there."""
    data = files.read("index.json") if files.read("oci-layout") is not None else None
    if data is None:
        return None
    try:
        roots = [each.descriptor for each in LayoutIndex(data, files.path).images]
        for manifest in _manifests(files, roots):
            if manifest.config is not None and manifest.config.digest == config:
                there = all(files.size(blob.digest) == blob.size for blob in manifest.blobs)
                return manifest if there else None
    except DockerError:
        return None  # the layout is damaged, or of a later version: manifest.json is enough
    return None


def _manifests(files: TarFiles, roots: list[Descriptor]) -> Iterator[Manifest]:
    """Yield the manifests in the layout of an archive, which may lack those of other platforms."""
    todo = [(each, 0) for each in reversed(roots[:MAX_DESCRIPTORS])]
    seen: set[str] = set()
    while todo and len(seen) < MAX_MANIFESTS_READ:
        descriptor, depth = todo.pop()
        if descriptor.digest in seen or files.size(descriptor.digest) is None:
            continue
        seen.add(descriptor.digest)
        data = _read_member(files, blob_name(descriptor.digest), MAX_MANIFEST_SIZE)
        manifest = Manifest.parse(data, descriptor.media_type, digest=descriptor.digest, who=files.path)
        yield manifest
        if depth < MAX_DEPTH:
            todo += [(each, depth + 1) for each in reversed(manifest.children)]

"""What a fake Engine holds: images with their layers, and their names; what a name means; what a removal takes away."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from aiodocker_images.errors import InvalidReferenceError
from aiodocker_images.models import Platform
from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError
from .content import INDEXES, OCI_CONFIG, OCI_MANIFEST, Blob, Manifest, digest_of
from .engine_behaviour import EngineBehaviour

HOST: Final = Platform.parse("linux/amd64")
"""The platform that a fake Engine runs on."""

_HEX: Final = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
BLOCK: Final = 4096


@dataclass(eq=False, kw_only=True)
class Variant:
    """The image of one platform: manifest, config and layers as a registry has them."""

    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def document(self) -> dict[str, Any]:
        """The parsed config."""
        return dict(json.loads(self.config.data))

    @property
    def run(self) -> dict[str, Any]:
        """What containers start with: the config's "config"."""
        return dict(self.document.get("config") or {})

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        return dict(self.run.get("Labels") or {})

    @property
    def platform(self) -> Platform:
        """The platform, of which an imported image says little."""
        document = self.document
        return Platform(
            os=document.get("os") or "linux",
            architecture=document.get("architecture") or "amd64",
            variant=document.get("variant") or "",
        )

    @property
    def diff_ids(self) -> list[str]:
        """The digests of the uncompressed layers, the lowest first."""
        return list(self.document["rootfs"]["diff_ids"])


@dataclass(eq=False, kw_only=True)
class Image:
    """One image. `target` is what its names point to: a manifest, or an index of which `variants` are held.

    `parent` is the id of what it was built from here; `tagged` when it last got a name, in nanoseconds.
    """

    id: str
    target: Blob
    variants: list[Variant]
    parent: str = ""
    made_here: bool = False
    tagged: int = 0

    @property
    def main(self) -> Variant:
        """The variant for the Engine's own platform, or the first that is held."""
        return next((each for each in self.variants if HOST.accepts(each.platform)), self.variants[0])


@dataclass(eq=False)
class Removed:
    """What a removal did, as the Engine lists it, and the bytes that it freed."""

    steps: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    size: int = 0


def uncompressed(layer: Blob) -> bytes:
    """Return the tar of a layer."""
    return gzip.decompress(layer.data) if layer.data[:2] == b"\x1f\x8b" else layer.data


def content_size(tar: bytes) -> int:
    """Return the bytes of the files in a tar, as a graph driver counts a layer."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return sum(member.size for member in archive if member.isfile())


def unpacked_size(tar: bytes) -> int:
    """Return the bytes that a layer takes on a disk with blocks of 4 KiB: its directories, its files and its root."""
    directories, size = {"."}, 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            parts = member.name.strip("/").split("/")
            directories.update("/".join(parts[:end]) for end in range(1, len(parts) + member.isdir()))
            size += -(-member.size // BLOCK) * BLOCK if member.isfile() else 0
    return size + BLOCK * len(directories - {""})


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Return what a graph driver calls each layer: the digest of itself and of all that is below."""
    chain = list[str]()
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def manifest_of(config: Blob, layers: Iterable[Blob], media_type: str, *, indent: int | None = None) -> Blob:
    """Return a manifest as an Engine writes it for an image that came without one."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config.media_type, "size": config.size, "digest": config.digest},
        "layers": [{"mediaType": each.media_type, "size": each.size, "digest": each.digest} for each in layers],
    }
    separators = (",", ":") if indent is None else (",", ": ")
    return Blob(data=json.dumps(document, indent=indent, separators=separators).encode(), media_type=media_type)


def variants_of(content: Manifest) -> list[Variant]:
    """Return the images of single platforms in an image or index that was made by `content`."""
    return [
        Variant(manifest=each, config=each.config, layers=each.layers)
        for each in content.walk()
        if each.media_type not in INDEXES
        and each.blobs
        and each.config.media_type.endswith(("config.v1+json", "image.v1+json"))
        and json.loads(each.config.data).get("os") != "unknown"
    ]


class EngineStore:
    """All images of one Engine. Names are kept whole: "docker.io/library/alpine:3.20"."""

    def __init__(self, behaviour: EngineBehaviour) -> None:
        self.behaviour = behaviour
        self.images: dict[str, Image] = {}
        self.tags: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.cache: dict[tuple[str, str], str] = {}

    # Names

    def shown(self, name: str) -> str:
        """Return a name as this Engine shows it: Podman in full, Docker as people type it."""
        return name if self.behaviour.podman else Reference.parse(name).familiar

    def tags_of(self, image: Image) -> list[str]:
        """Return an image's names with a tag, as they are shown: Docker sorts them, Podman has the newest first."""
        found = [self.shown(name) for name, image_id in self.tags.items() if image_id == image.id]
        return found[::-1] if self.behaviour.podman else sorted(found)

    def digests_of(self, image: Image) -> list[str]:
        """Return an image's names with a digest."""
        if self.behaviour.store == "containerd":
            names = {Reference.parse(name).name_only() for name, owner in self.tags.items() if owner == image.id}
            return sorted(f"{each.familiar}@{image.id}" for each in names)
        if self.behaviour.podman:
            repositories = {
                name.partition("@")[0].rpartition(":")[0] if "@" not in name else name.partition("@")[0]
                for name, owner in self.tags.items()
                if owner == image.id
            }
            digests = {image.target.digest, image.main.manifest.digest}
            return sorted(f"{repository}@{digest}" for repository in repositories for digest in digests)
        return sorted(self.shown(name) for name, owner in self.digests.items() if owner == image.id)

    def find(self, name: str) -> Image | None:
        """Return the image that a name, an id or the beginning of an id means."""
        if (match := _HEX.fullmatch(name)) and len(match[1]) == 64:
            return self.images.get(f"sha256:{match[1]}")
        try:
            reference = Reference.parse(name).with_default_tag()
        except InvalidReferenceError:
            reference = None
        if reference is not None and not name.startswith("sha256:"):
            if reference.digest is not None:
                whole = f"{reference.name}@{reference.digest}"
                found = self.digests.get(whole) or self.tags.get(whole) or self._by_digest(whole)
            else:
                found = self.tags.get(str(reference))
            if found is not None:
                return self.images[found]
        if match:
            matching = [each for image_id, each in self.images.items() if image_id[7:].startswith(match[1])]
            return matching[0] if len(matching) == 1 else None
        return None

    def _by_digest(self, name: str) -> str | None:
        """Return the id of the image that has a digest in a repository, though not as one of its names."""
        if self.behaviour.store == "graph":
            return None
        shown = self.shown(name)
        return next((each.id for each in self.images.values() if shown in self.digests_of(each)), None)

    def get(self, name: str) -> Image:
        """Return the image that a name means, or refuse."""
        if (found := self.find(name)) is None:
            raise self.missing(name)
        return found

    def missing(self, name: str, *, inspected: bool = False) -> RefusalError:
        """Return the refusal of a name that no image has."""
        if self.behaviour.podman:
            full = name if "/" in name and not name.startswith("sha256:") else f"docker.io/library/{name}"
            words = "No such image" if inspected else "image not known"
            message = f"failed to find image {name}: {full}: {words}"
            return RefusalError(404, message, cause=message if inspected else words)
        shown = name
        if not name.startswith("sha256:"):
            shown = Reference.parse(name).with_default_tag().familiar
        if inspected and self.behaviour.release <= 20:
            return RefusalError(404, f"no such image: {name}: No such image: {shown}")
        return RefusalError(404, f"No such image: {shown}")

    # Changes

    def id_of(self, target: Blob, variant: Variant) -> str:
        """Return the id of an image: the containerd store's is the target's digest, others' that of the config."""
        return target.digest if self.behaviour.store == "containerd" else variant.config.digest

    def add(
        self, target: Blob, variants: list[Variant], *, parent: str = "", made_here: bool = False
    ) -> tuple[Image, bool]:
        """Store an image, or what is new of one that is there; return it, and whether anything is new."""
        image_id = self.id_of(target, variants[0])
        if (known := self.images.get(image_id)) is None:
            image = Image(id=image_id, target=target, variants=list(variants), parent=parent, made_here=made_here)
            self.images[image_id] = image
            return image, True
        held = {each.manifest.digest for each in known.variants}
        new = [each for each in variants if each.manifest.digest not in held]
        if self.behaviour.store == "containerd":
            known.variants.extend(new)
            return known, bool(new)
        return known, False

    def name(self, image: Image, name: str, *, by_hand: bool = False) -> bool:
        """Give an image a name with a tag, and take it from another; return whether that changed anything."""
        changed = self.tags.get(name) != image.id
        if changed:
            self.tags.pop(name, None)
            self.tags[name] = image.id
        if by_hand or self.behaviour.store == "containerd":
            image.tagged = time.time_ns()
        return changed

    def name_by_digest(self, image: Image, repository: str, digest: str) -> bool:
        """Note under which digest a registry has an image; return whether that is new."""
        name = f"{repository}@{digest}"
        if self.behaviour.store != "graph":
            return False
        return self.digests.setdefault(name, image.id) == image.id

    def has_layers(self, variant: Variant) -> int:
        """Return how many of the lowest layers are there already."""
        if self.behaviour.store == "graph":
            held = {chain for each in self._variants() for chain in chain_ids(each.diff_ids)}
            return sum(chain in held for chain in chain_ids(variant.diff_ids))
        held = {diff_id for each in self._variants() for diff_id in each.diff_ids}
        return sum(diff_id in held for diff_id in variant.diff_ids)

    def _variants(self) -> list[Variant]:
        return [variant for image in self.images.values() for variant in image.variants]

    def children(self, image: Image) -> list[Image]:
        """Return the images that were built from an image."""
        return [each for each in self.images.values() if each.parent == image.id]

    def layers(self) -> dict[str, Blob]:
        """Return all layers by the names that they are stored under."""
        found = dict[str, Blob]()
        for each in self._variants():
            names = chain_ids(each.diff_ids) if self.behaviour.store == "graph" else each.diff_ids
            found.update(zip(names, each.layers, strict=True))
        return found

    def remove(self, name: str, *, force: bool = False, no_prune: bool = False) -> Removed:
        """Remove a name, and with the last name the image; or an image by its id."""
        image = self.get(name)
        done = Removed()
        by_id = (match := _HEX.fullmatch(name)) is not None and image.id[7:].startswith(match[1])
        tags = [each for each, owner in self.tags.items() if owner == image.id]
        digests = [each for each, owner in self.digests.items() if owner == image.id]
        if by_id:
            if len(tags) > 1 and not force:
                raise self._conflict(image)
            gone = [*tags, *digests]
        else:
            gone = self._gone(name, tags, digests)
        stays = set(tags) | set(digests)
        stays -= set(gone)
        untagged = [{"Untagged": self.shown(each)} for each in gone]
        for each in gone:
            self.tags.pop(each, None)
            self.digests.pop(each, None)
        if stays:
            done.steps = untagged
            return done
        deleted = Removed()
        self._delete(image, deleted, no_prune=no_prune)
        done.size = deleted.size
        done.steps = [*deleted.steps, *untagged] if self.behaviour.podman else [*untagged, *deleted.steps]
        return done

    def _gone(self, name: str, tags: list[str], digests: list[str]) -> list[str]:
        """Return the names that go with a name: with the last tag in a repository, its digests."""
        reference = Reference.parse(name).with_default_tag()
        gone = str(reference) if reference.digest is None else f"{reference.name}@{reference.digest}"
        repository = f"{reference.name}"
        left = [each for each in tags if each != gone and Reference.parse(each).name == repository]
        if left or gone not in tags:
            return [gone]
        return [gone, *(each for each in digests if each.partition("@")[0] == repository)]

    def _conflict(self, image: Image) -> RefusalError:
        if self.behaviour.podman:
            names = " ".join(self.tags_of(image))
            message = f'unable to delete image "{image.id[7:]}" by ID with more than one tag ([{names}])'
            return RefusalError(500, f"{message}: please force removal")
        words = f"conflict: unable to delete {image.id[7:19]} (must be forced)"
        words += " - image is referenced in multiple repositories"
        return RefusalError(409, words)

    def _delete(self, image: Image, done: Removed, *, no_prune: bool) -> None:
        """Remove an image that has no name, and then what it was built from, if nothing else needs that."""
        if self.children(image):
            return
        before = self.layers()
        del self.images[image.id]
        self.cache = {key: made for key, made in self.cache.items() if made != image.id}
        done.steps.append({"Deleted": image.id.removeprefix("sha256:") if self.behaviour.podman else image.id})
        left = self.layers()
        freed = [name for name in before if name not in left]
        done.size += sum(self._size(before[name]) for name in freed)
        if self.behaviour.store == "graph":
            done.steps.extend({"Deleted": each} for each in reversed(freed))
        parent = self.images.get(image.parent)
        if parent is not None and not no_prune and not self._named(parent):
            self._delete(parent, done, no_prune=no_prune)

    def _size(self, layer: Blob) -> int:
        return content_size(uncompressed(layer)) if self.behaviour.store == "graph" else layer.size

    def _named(self, image: Image) -> bool:
        return image.id in self.tags.values() or image.id in self.digests.values()

    def prune(self, wanted: Iterable[Image], *, dangling: bool) -> Removed:
        """Remove those of the images that no child needs and, if only `dangling` ones go, that have no tag."""
        done = Removed()
        for image in list(wanted):
            tags = [each for each, owner in self.tags.items() if owner == image.id]
            is_between = bool(self.children(image)) and not self._named(image)
            if image.id not in self.images or is_between or (dangling and tags):
                continue
            names = tags or [each for each, owner in self.digests.items() if owner == image.id] or [image.id]
            for name in names:
                if self.find(name) is image:
                    removed = self.remove(name, force=True)
                    done.steps += removed.steps
                    done.size += removed.size
        return done


def new_variant(document: dict[str, Any], layers: tuple[Blob, ...]) -> Variant:
    """Return an image that the Engine itself made of a config and layers."""
    config = Blob(data=json.dumps(document, separators=(",", ":")).encode(), media_type=OCI_CONFIG)
    return Variant(manifest=manifest_of(config, layers, OCI_MANIFEST), config=config, layers=layers)

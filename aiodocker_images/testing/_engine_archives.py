"""Archives of a fake Engine: what `save` writes, and what `load` finds in one, by the kind of store."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError
from ._engine_registry import is_index
from ._engine_store import EngineStore, Image, Variant, manifest_of, uncompressed
from .content import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Blob,
    digest_of,
    tar,
)
from .engine_behaviour import EngineBehaviour

Files = dict[str, bytes]

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_NAME: Final = "io.containerd.image.name"
_TAG: Final = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, kw_only=True)
class Found:
    """One image of an archive. `names` are whole names with a tag."""

    target: Blob
    variants: list[Variant]
    names: tuple[str, ...]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


# Save


def saved(store: EngineStore, images: Sequence[tuple[Image, Sequence[str]]]) -> bytes:
    """Return the archive of images with these names, as the Engine writes it."""
    behaviour = store.behaviour
    files: Files = {}
    manifest, index = list[object](), list[object]()
    repositories: dict[str, dict[str, str]] = {}
    for image, names in images:
        variant = image.main
        paths, target = _put(files, image, behaviour)
        config = variant.config.digest[7:]
        inside = _path(variant.config.digest) if _is_layout(behaviour) else f"{config}.json"
        files[inside] = variant.config.data
        shown = [store.shown(name) for name in names]
        manifest.append({"Config": inside, "RepoTags": shown or None, "Layers": paths})
        for name in shown or [""]:
            repository, _, tag = name.rpartition(":")
            about = {"annotations": {_NAME: str(Reference.parse(name)), _TAG: tag}} if name else {}
            index.append({"mediaType": target.media_type, "digest": target.digest, "size": target.size, **about})
            if name and variant.diff_ids:
                repositories.setdefault(repository, {})[tag] = variant.diff_ids[-1][7:]
    if _is_layout(behaviour):
        files["index.json"] = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index})
        files["oci-layout"] = _LAYOUT
    files["manifest.json"] = _json(manifest)
    if behaviour.store != "containerd" and repositories:
        files["repositories"] = _json(repositories)
    return tar(files)


def _is_layout(behaviour: EngineBehaviour) -> bool:
    """Whether what is saved is an OCI layout, too: since Docker 25."""
    return not behaviour.podman and behaviour.release >= 25


def _put(files: Files, image: Image, behaviour: EngineBehaviour) -> tuple[list[str], Blob]:
    """Put an image's content into an archive; return its layers' paths there, and what the index is to point to."""
    if behaviour.store == "containerd":
        for variant in image.variants:
            for blob in (variant.manifest, variant.config, *variant.layers):
                files[_path(blob.digest)] = blob.data
        files[_path(image.target.digest)] = image.target.data
        return [_path(each.digest) for each in image.main.layers], image.target
    variant = image.main
    layers = [Blob(data=uncompressed(each), media_type=OCI_LAYER) for each in variant.layers]
    paths = [_layer_path(each.digest, behaviour) for each in layers]
    files.update({path: each.data for path, each in zip(paths, layers, strict=True)})
    manifest = manifest_of(Blob(data=variant.config.data, media_type=OCI_CONFIG), layers, OCI_MANIFEST)
    if _is_layout(behaviour):
        files[_path(manifest.digest)] = manifest.data
    return paths, manifest


def _layer_path(digest: str, behaviour: EngineBehaviour) -> str:
    if _is_layout(behaviour):
        return _path(digest)
    return f"{digest[7:]}.tar" if behaviour.podman else f"{digest[7:]}/layer.tar"


# Load


def loaded(data: bytes, behaviour: EngineBehaviour) -> list[Found]:
    """Return the images of an archive, or refuse it in the words of the Engine."""
    try:
        files = read_tar(data)
    except ValueError:
        raise RefusalError(500, _no_tar(behaviour)) from None
    if behaviour.store != "graph" and "index.json" in files:
        return [each for entry in json.loads(files["index.json"])["manifests"] for each in _of_index(files, entry)]
    if "manifest.json" not in files:
        raise RefusalError(500, _no_images(behaviour, layout="index.json" in files))
    entries: list[dict[str, Any]] = json.loads(files["manifest.json"])
    return [_of_entry(files, entry) for entry in entries]


def read_tar(data: bytes) -> Files:
    """Return the files of a tar, compressed or not; raises ValueError if it is not one."""
    files: Files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for member in archive:
                with contextlib.suppress(KeyError):
                    if (file := archive.extractfile(member)) is not None:
                        files[member.name.removeprefix("./")] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError("not a tar") from error
    return files


def no_tar_words(behaviour: EngineBehaviour) -> str:
    """Return what an Engine says of a tar that is not one."""
    prefix = "Error processing tar file(exit status 1): " if behaviour.release < 25 and not behaviour.podman else ""
    return f"{prefix}archive/tar: invalid tar header"


def _no_tar(behaviour: EngineBehaviour) -> str:
    if behaviour.podman:
        words = "failed to load image: payload does not match any of the supported image formats:"
        return f"{words}\n * oci-archive: {no_tar_words(behaviour)}"
    return no_tar_words(behaviour)


def _no_images(behaviour: EngineBehaviour, *, layout: bool) -> str:
    if behaviour.podman:
        words = "failed to load image: payload does not match any of the supported image formats:"
        return f'{words}\n * docker-archive: loading tar component "manifest.json": file does not exist'
    if behaviour.store == "containerd":
        return "unrecognized image format"
    file = "blobs/json" if layout else "repositories"
    return f"open /var/lib/docker/tmp/docker-import-1234567890/{file}: no such file or directory"


def _of_index(files: Files, entry: dict[str, Any]) -> list[Found]:
    digest = str(entry["digest"])
    if _path(digest) not in files:
        return []
    target = Blob(data=files[_path(digest)], media_type=str(entry["mediaType"]))
    about: dict[str, str] = entry.get("annotations", {})
    name = about.get(_NAME) or ""
    names = (str(Reference.parse(name).with_default_tag()),) if name else ()
    return [Found(target=target, variants=_held(files, target), names=names)]


def _held(files: Files, target: Blob) -> list[Variant]:
    """Return the images of an index, or the one of a manifest, of which everything is in the archive."""
    document: dict[str, Any] = json.loads(target.data)
    if is_index(target):
        entries: list[dict[str, Any]] = document["manifests"]
        there = [each for each in entries if _path(each["digest"]) in files]
        found = [Blob(data=files[_path(each["digest"])], media_type=each["mediaType"]) for each in there]
        return [variant for each in found for variant in _held(files, each)]
    parts = [document["config"], *document["layers"]]
    if any(_path(each["digest"]) not in files for each in parts):
        return []
    config, *layers = (Blob(data=files[_path(each["digest"])], media_type=each["mediaType"]) for each in parts)
    return [Variant(manifest=target, config=config, layers=_with_diff_ids(config, layers))]


def _of_entry(files: Files, entry: dict[str, Any]) -> Found:
    config = Blob(data=files[entry["Config"]], media_type=DOCKER_CONFIG)
    layers = [Blob(data=files[each], media_type=DOCKER_LAYER) for each in entry["Layers"]]
    layers = [Blob(data=uncompressed(each), media_type=DOCKER_LAYER) for each in layers]
    checked = _with_diff_ids(config, layers)
    for position, layer in enumerate(checked):
        if layer.diff_id != layer.digest:
            words = f"invalid diffID for layer {position}: expected {json.dumps(layer.diff_id)}"
            words += f", got {json.dumps(layer.digest)}"
            raise RefusalError(500, words)
    manifest = manifest_of(config, checked, DOCKER_MANIFEST)
    names: list[str] = entry.get("RepoTags") or []
    whole = tuple(str(Reference.parse(each).with_default_tag()) for each in names)
    return Found(target=manifest, variants=[Variant(manifest=manifest, config=config, layers=checked)], names=whole)


def _with_diff_ids(config: Blob, layers: Sequence[Blob]) -> tuple[Blob, ...]:
    document: dict[str, Any] = json.loads(config.data)
    diff_ids: list[str] = document["rootfs"]["diff_ids"]
    pairs = zip(layers, diff_ids, strict=True)
    return tuple(Blob(data=each.data, media_type=each.media_type, diff_id=diff_id) for each, diff_id in pairs)


def layer_of(data: bytes, *, packed: bytes | None = None) -> Blob:
    """Return the layer of a tar; `packed` is the same compressed, where a store keeps it so."""
    suffix = "" if packed is None else "+gzip"
    return Blob(data=data if packed is None else packed, media_type=f"{OCI_LAYER}{suffix}", diff_id=digest_of(data))

"""Pull and push of a fake Engine: the frames that the Engine's store sends, and what is there afterwards."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from aiodocker_images.models import Platform
from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError, bar, frame, status
from ._engine_events import EventLog
from ._engine_images import descriptor, fields_of
from ._engine_registry import Remote, is_index
from ._engine_store import HOST, EngineStore, Image, Variant, chain_ids, content_size, manifest_of, uncompressed
from .content import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Blob


class Transfers:
    """Pulls and pushes of one Engine. `own` returns the address of the registry behind it."""

    def __init__(self, store: EngineStore, events: EventLog) -> None:
        self._store = store
        self._as = store.behaviour
        self._events = events
        self.own = ""
        self._seen: dict[tuple[str, str], str] = {}  # where a registry has a layer: to mount it from there

    def remote(self, reference: Reference, auth: str) -> Remote:
        """Return the repository of a name."""
        return Remote(reference, self.own, auth, self._as)

    # Pull

    async def pull(self, reference: Reference, platform: Platform | None, auth: str) -> AsyncGenerator[bytes, None]:
        """Pull one image, or all tags if the name has neither tag nor digest."""
        remote = self.remote(reference, auth)
        if reference.tag_or_digest is not None:
            async for each in self._pull(remote, reference, platform, last=True):
                yield each
            return
        tags = ["latest"] if self._as.podman else await remote.tags()
        changed = False
        for tag in tags:
            one = self.remote(reference.with_tag(tag), auth)
            async for each in self._pull(one, reference.with_tag(tag), platform, last=self._as.store != "graph"):
                changed = changed or b"Pulling fs layer" in each
                yield each
        if self._as.store == "graph":
            yield frame(status(_ending(reference.familiar, new=changed)))

    async def _pull(
        self, remote: Remote, reference: Reference, platform: Platform | None, *, last: bool
    ) -> AsyncGenerator[bytes, None]:
        target = await remote.manifest(reference.tag_or_digest or "latest")
        try:
            entry = self._choose(target, platform)
        except RefusalError:
            if self._as.store == "graph":
                yield self._begin(reference)
            raise
        manifest = target if entry is None else await remote.manifest(str(entry["digest"]))
        if not self._as.podman:
            yield self._begin(reference)
        document: dict[str, Any] = json.loads(manifest.data)
        frames = self._fetch(remote, document)
        got = list[Blob]()
        async for each in frames:
            if isinstance(each, Blob):
                got.append(each)
            else:
                yield frame(each)
        config, *layers = got
        variant = Variant(manifest=manifest, config=config, layers=tuple(layers))
        for layer in layers:
            self._seen[remote.host, layer.digest] = remote.repository
        image, _ = self._store.add(target, [variant])
        changed = self._name(image, reference, target.digest)
        if not self._as.podman:
            yield frame(status(f"Digest: {target.digest}"))
            if last:
                yield frame(status(_ending(reference.familiar, new=changed)))
        else:
            yield frame(status("Download complete", config.digest[7:19]))
        self._events.pulled(image, reference)

    def _begin(self, reference: Reference) -> bytes:
        what = reference.tag if reference.digest is None else reference.familiar
        return frame({"status": f"Pulling from {reference.path}", "id": what})

    def _name(self, image: Image, reference: Reference, digest: str) -> bool:
        if reference.digest is not None:
            whole = f"{reference.name}@{reference.digest}"
            if self._as.store != "graph":
                return self._store.name(image, whole)
            changed = whole not in self._store.digests
            self._store.name_by_digest(image, reference.name, digest)
            return changed
        changed = self._store.name(image, str(reference))
        self._store.name_by_digest(image, reference.name, digest)
        return changed

    def _choose(self, target: Blob, platform: Platform | None) -> Mapping[str, Any] | None:
        """Return the entry of an index for a platform; None if the target is a manifest."""
        if not is_index(target):
            return None
        wanted = platform or HOST
        for entry in json.loads(target.data)["manifests"]:
            has: dict[str, str] = entry.get("platform") or {}
            if has.get("os") == "unknown":
                continue
            there = Platform(
                os=has.get("os", ""), architecture=has.get("architecture", ""), variant=has.get("variant", "")
            )
            if wanted.accepts(there):
                return dict(entry)
        words = f"no matching manifest for {wanted} in the manifest list entries"
        if self._as.store == "containerd":
            raise RefusalError(404, f"{words}: no match for platform in manifest: not found")
        if self._as.podman:
            words = (
                f'no image found in image index for architecture "{wanted.architecture}", variant "{wanted.variant}"'
            )
            raise RefusalError(500, f'{words}, OS "{wanted.os}"', bare=True)
        raise RefusalError(404, words)

    async def _fetch(
        self, remote: Remote, manifest: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, object] | Blob, None]:
        """Yield frames, and in between the config and then each layer, as they come."""
        entries: list[dict[str, Any]] = manifest["layers"]
        ids = [str(each["digest"])[7:19] for each in entries]
        graph, podman = self._as.store == "graph", self._as.podman
        # The config says which layers are there already; an Engine has it before it says a word about them.
        config = await remote.blob(manifest["config"], config=True)
        diff_ids: list[str] = json.loads(config.data)["rootfs"]["diff_ids"]
        held = self._store.layers()
        probe = Variant(manifest=config, config=config, layers=())
        known = self._store.has_layers(probe) if self._as.store != "podman" else 0
        image_known = any(config.digest == each.main.config.digest for each in self._store.images.values())
        quiet = image_known and not podman
        there = [position < known if not podman else diff_id in held for position, diff_id in enumerate(diff_ids)]
        for layer_id, old in zip(ids, there, strict=True):
            if not quiet and (not old or graph or podman):
                yield status("Already exists" if old else "Pulling fs layer", layer_id)
        yield config
        extracted = list[dict[str, object]]()
        for layer_id, entry, old, diff_id in zip(ids, entries, there, diff_ids, strict=True):
            layer = held[_held_name(held, diff_id, diff_ids, graph=graph)] if old else await remote.blob(entry)
            blob = Blob(data=layer.data, media_type=layer.media_type, diff_id=diff_id)
            if not old and not quiet:
                hidden = {"hidecounts": True} if self._as.store == "containerd" else {}
                if graph:
                    yield bar(self._as, "Downloading", layer_id, blob.size, blob.size)
                    yield status("Verifying Checksum", layer_id)
                yield status("Download complete", layer_id, **hidden)
                if graph:
                    extracted += [bar(self._as, "Extracting", layer_id, blob.size, blob.size)] * 2
                if not podman:
                    extracted.append(status("Pull complete", layer_id, **hidden))
            yield blob
        for each in extracted:
            yield each
        if podman:
            yield status("Pulling fs layer", config.digest[7:19])
            yield status("Download complete", config.digest[7:19])

    # Push

    async def push(self, reference: Reference, tags: list[str], auth: str) -> AsyncGenerator[bytes, None]:
        """Push the tags of a repository."""
        shown = reference.with_tag(tags[0]) if self._as.podman and tags else reference
        images = list[tuple[str, Image]]()
        if self._as.podman:
            images = [(tag, self._store.get(reference.with_tag(tag).familiar)) for tag in tags]
        yield frame(status(f"The push refers to repository [{self._store.shown(str(shown))}]"))
        if not self._as.podman:
            images = [(tag, self._pushed(reference, tag)) for tag in tags]
        for tag, image in images:
            remote = self.remote(reference.with_tag(tag), auth)
            if self._as.store == "containerd":
                frames = self._push_target(remote, image, tag)
            else:
                frames = self._push_layers(remote, image, tag)
            async for each in frames:
                yield frame(each)
            self._events.pushed(image, reference.with_tag(tag))

    def _pushed(self, reference: Reference, tag: str) -> Image:
        image = self._store.find(reference.with_tag(tag).familiar)
        if image is not None:
            return image
        if self._as.store == "containerd":
            raise RefusalError(404, f"tag does not exist: {reference.with_tag(tag).familiar}")
        raise RefusalError(404, f"An image does not exist locally with the tag: {reference.familiar_name}")

    async def _blob(
        self, remote: Remote, blob: Blob, layer_id: str, size: int
    ) -> AsyncGenerator[dict[str, object], None]:
        """Upload one layer, and say so."""
        source = self._seen.get((remote.host, blob.digest), "")
        done = await remote.push_blob(blob, source if source != remote.repository else "")
        self._seen.setdefault((remote.host, blob.digest), remote.repository)
        if done == "pushed" and self._as.store == "graph":
            yield bar(self._as, "Pushing", layer_id, min(512, size), size)
        words = {"there": "Layer already exists", "mounted": f"Mounted from {source}", "pushed": "Pushed"}[done]
        yield status(words, layer_id)

    async def _push_layers(self, remote: Remote, image: Image, tag: str) -> AsyncGenerator[dict[str, object], None]:
        """Push from a store that keeps no manifests: it writes one of Docker's, of layers that it packs again."""
        variant = image.main
        layers = [_packed(each) for each in variant.layers]
        graph = self._as.store == "graph"
        if graph:
            for layer in reversed(layers):
                yield status("Preparing", layer.diff_id[7:19])
        for layer in reversed(layers):
            async for each in self._blob(remote, layer, layer.diff_id[7:19], content_size(uncompressed(layer))):
                if graph:
                    yield each
        config = replace(variant.config, media_type=DOCKER_CONFIG)
        await remote.push_blob(config)
        manifest = manifest_of(config, layers, DOCKER_MANIFEST, indent=3 if graph else None)
        await remote.push_manifest(manifest, tag)
        self._store.name_by_digest(image, remote.reference.name, manifest.digest)
        # Podman 5.8 says the size of the manifest that it has, not of the one that it pushed.
        size = manifest.size if graph else variant.manifest.size
        yield status(f"{tag}: digest: {manifest.digest} size: {size}")
        if graph:
            aux = {"Tag": tag, "Digest": manifest.digest, "Size": manifest.size}
            yield {"progressDetail": {}, "aux": aux}

    async def _push_target(self, remote: Remote, image: Image, tag: str) -> AsyncGenerator[dict[str, object], None]:
        """Push what the name points to, byte for byte; of an index that is not held whole, one platform."""
        target, variants = image.target, image.variants
        if is_index(target):
            entries = {str(each["digest"]): each for each in json.loads(target.data)["manifests"]}
            if set(entries) - {each.manifest.digest for each in variants}:
                main = image.main
                selected = descriptor(main.manifest, platform=fields_of(main.platform))
                aux = {"manifestPushedInsteadOfIndex": True, "originalIndex": descriptor(target)}
                yield {"progressDetail": {}, "aux": aux | {"selectedManifest": selected}}
                target, variants = main.manifest, [main]
        for variant in variants:
            for layer in variant.layers:
                async for each in self._blob(remote, layer, layer.digest[7:19], layer.size):
                    yield each
            await remote.push_blob(variant.config)
            if variant.manifest.digest != target.digest:
                await remote.push_manifest(variant.manifest, variant.manifest.digest)
        await remote.push_manifest(target, tag)
        yield status(f"{tag}: digest: {target.digest} size: {target.size}")


def _packed(layer: Blob) -> Blob:
    """Return a layer compressed, as Docker's manifests have it."""
    tar = layer.data[:2] != b"\x1f\x8b"
    data = gzip.compress(layer.data, 1, mtime=0) if tar else layer.data
    return Blob(data=data, media_type=f"{DOCKER_LAYER}.gzip", diff_id=layer.diff_id)


def _held_name(held: Mapping[str, Blob], diff_id: str, diff_ids: list[str], *, graph: bool) -> str:
    if not graph:
        return diff_id
    return chain_ids(diff_ids)[diff_ids.index(diff_id)] if diff_id not in held else diff_id


def _ending(name: str, *, new: bool) -> str:
    return f"Status: Downloaded newer image for {name}" if new else f"Status: Image is up to date for {name}"

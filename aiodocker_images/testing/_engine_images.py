"""What a fake Engine says of its images: list, inspect, history and disk usage, in the words of its release."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiodocker_images._glob import Glob
from aiodocker_images.models import Platform
from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError, version_of
from ._engine_store import EngineStore, Image, Variant, chain_ids, content_size, uncompressed, unpacked_size
from .content import INDEXES, Blob, digest_of

Document = dict[str, Any]

_NEVER: Final = "0001-01-01T00:00:00Z"
_FILTERS: Final = frozenset({"dangling", "label", "label!", "before", "since", "until", "reference"})
_WHOLE_CONFIG: Final[Mapping[str, object]] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}  # fmt: skip
_SHORT_CONFIG: Final = ("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir")


def descriptor(blob: Blob, **more: object) -> Document:
    """Return the descriptor of a manifest as an Engine shows it."""
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size, **more}


def unix_time(text: str) -> int:
    """Return the seconds since the epoch of a time in a config; 0 if it has none."""
    return int(datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]*", r"\1", text)).timestamp()) if text else 0


def rfc3339(nanoseconds: int) -> str:
    """Return a time as an Engine writes it."""
    if not nanoseconds:
        return _NEVER
    whole = datetime.fromtimestamp(nanoseconds // 10**9, tz=UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09}Z"


class ImageViews:
    """The documents of one Engine's images. `version` of a method is the API version of the request."""

    def __init__(self, store: EngineStore) -> None:
        self._store = store
        self._as = store.behaviour

    # Sizes

    def layer_size(self, layer: Blob) -> int:
        """Return the size of a layer as this store counts it."""
        tar = uncompressed(layer)
        return {"graph": content_size, "containerd": unpacked_size, "podman": len}[self._as.store](tar)

    def content(self, variant: Variant) -> int:
        """Return the bytes of a variant in a content store: manifest, config and layers as they were transferred."""
        return sum(each.size for each in {each.digest: each for each in self._blobs(variant)}.values())

    @staticmethod
    def _blobs(variant: Variant) -> list[Blob]:
        return [variant.manifest, variant.config, *variant.layers]

    def size(self, image: Image, *, listed: bool = True) -> int:
        """Return the size of an image; the containerd store's `inspect` counts the content alone."""
        if self._as.store == "containerd":
            if listed:
                return sum(self.content(each) + self._unpacked(each) for each in image.variants)
            index = image.target.size if image.target.media_type in INDEXES else 0
            return self.content(image.main) + index
        layers = sum(self.layer_size(each) for each in image.main.layers)
        if not self._as.podman:
            return layers
        # Podman keeps the manifest twice, by its digest and by the name "manifest", and the index once.
        index = image.target.size if image.target.media_type in INDEXES else 0
        return layers + image.main.config.size + 2 * image.main.manifest.size + index

    def _unpacked(self, variant: Variant) -> int:
        return sum(self.layer_size(each) for each in variant.layers)

    def shared_size(self, image: Image) -> int:
        """Return the bytes of the layers that other images have, too."""
        own = dict(zip(self._chain(image.main), image.main.layers, strict=True))
        others = {
            chain for each in self._store.images.values() if each is not image for chain in self._chain(each.main)
        }
        return sum(self.layer_size(layer) for chain, layer in own.items() if chain in others)

    def _chain(self, variant: Variant) -> list[str]:
        return chain_ids(variant.diff_ids)

    # Documents

    def inspect(self, name: str, version: str, *, manifests: bool = False, platform: str = "") -> Document:
        """Return the document of one image."""
        if (image := self._store.find(name)) is None:
            raise self._store.missing(name, inspected=True)
        if platform and self._as.store == "graph" and self._as.release < 29:
            raise RefusalError(400, "graphdriver-based storage does not support inspecting a specific platform")
        variant = self._variant(image, platform) if platform else image.main
        document = variant.document
        podman, newest = self._as.podman, self._as.release >= 29
        found: Document = {
            "Id": image.id,
            "RepoTags": [each for each in self._store.tags_of(image) if not (podman and "@" in each)],
            "RepoDigests": self._store.digests_of(image),
            "Parent": image.parent.removeprefix("sha256:") if podman else image.parent,
            "Comment": next((each.get("comment", "") for each in document.get("history", [])[-1:]), ""),
            "Created": document.get("created", _NEVER),
        }
        if podman or (self._as.release < 25 and version_of(version) < (1, 45)):
            if not podman:
                found["Container"] = ""
            hostname = image.id[7:18] if podman else ""
            found["ContainerConfig"] = {**_WHOLE_CONFIG, "Hostname": hostname}
        found |= {
            "DockerVersion": document.get("docker_version", ""),
            "Author": document.get("author", ""),
            "Config": self._config(variant),
            "Architecture": document.get("architecture", ""),
            **({"Variant": document["variant"]} if document.get("variant") else {}),
            "Os": document.get("os", ""),
            "Size": self.size(image, listed=False),
        }
        if self._has_virtual_size(version):
            found["VirtualSize"] = found["Size"]
        if not (newest and self._as.store == "containerd"):
            found["GraphDriver"] = self._driver(variant)
        found |= {
            "RootFS": {"Type": "layers", "Layers": variant.diff_ids},
            "Metadata": {"LastTagTime": _NEVER if podman else rfc3339(image.tagged)},
        }
        if self._as.store == "containerd":
            found["Descriptor"] = descriptor(image.target)
            if manifests:
                found["Manifests"] = self.manifests(image)
        if newest:
            empty = {"Parent", "Comment", "DockerVersion", "Author"}
            found = {key: value for key, value in found.items() if value or key not in empty}
        return found

    def _has_virtual_size(self, version: str) -> bool:
        return not self._as.podman and version_of(version) < (1, 44)

    def _variant(self, image: Image, platform: str) -> Variant:
        wanted = platform_of(platform)
        for each in image.variants:
            if wanted.accepts(each.platform):
                return each
        raise RefusalError(
            404,
            f"image with reference {self._store.tags_of(image)[0]} was found but does not provide the specified"
            f" platform ({wanted})",
        )

    def _config(self, variant: Variant) -> Document:
        run = variant.run
        if self._as.podman or self._as.release >= 29:
            return {key: value for key, value in run.items() if value}
        if self._as.release < 28:
            return {**_WHOLE_CONFIG, **run}
        return {**{key: _WHOLE_CONFIG[key] for key in _SHORT_CONFIG}, **{k: v for k, v in run.items() if v}}

    def _driver(self, variant: Variant) -> Document:
        if self._as.store == "containerd":
            return {"Data": None, "Name": "overlayfs"}
        directory = "/var/lib/containers/storage/overlay" if self._as.podman else "/var/lib/docker/overlay2"
        layers = [f"{directory}/{digest_of(each.encode())[7:]}" for each in self._chain(variant)]
        data: dict[str, str] = {}
        if layers[1:]:
            data["LowerDir"] = ":".join(f"{each}/diff" for each in layers[-2::-1])
        if layers:
            data |= {} if self._as.podman else {"MergedDir": f"{layers[-1]}/merged"}
            data |= {"UpperDir": f"{layers[-1]}/diff", "WorkDir": f"{layers[-1]}/work"}
        return {"Data": data, "Name": "overlay" if self._as.podman else "overlay2"}

    def manifests(self, image: Image) -> list[Document]:
        """Return the manifests of an image, those in its index that are not held too."""
        held = {each.manifest.digest: each for each in image.variants}
        if image.target.media_type not in INDEXES:
            return [
                self._manifest(descriptor(image.main.manifest, platform=fields_of(image.main.platform)), image.main)
            ]
        entries: list[Document] = json.loads(image.target.data)["manifests"]
        return [self._manifest(entry, held.get(entry["digest"])) for entry in entries]

    def _manifest(self, entry: Document, variant: Variant | None) -> Document:
        content = self.content(variant) if variant else 0
        unpacked = self._unpacked(variant) if variant else 0
        found: Document = {
            "ID": entry["digest"],
            "Descriptor": entry,
            "Available": variant is not None,
            "Size": {"Content": content, "Total": content + unpacked},
        }
        about = entry.get("annotations", {})
        if "vnd.docker.reference.digest" in about:
            return found | {"Kind": "attestation", "AttestationData": {"For": about["vnd.docker.reference.digest"]}}
        data = {"Platform": entry.get("platform", {}), "Size": {"Unpacked": unpacked}, "Containers": None}
        return found | {"Kind": "image", "ImageData": data}

    def history(self, name: str) -> list[Document]:
        """Return the steps in the making of an image, the newest first."""
        image: Image | None = self._store.get(name)
        variant = image.main if image else None
        if variant is None:
            return []
        sizes = [self.layer_size(each) for each in variant.layers]
        steps = list[Document]()
        for entry in reversed(variant.document.get("history", [])):
            tags = self._store.tags_of(image) if image else []
            found = {
                "Comment": entry.get("comment", ""),
                "Created": unix_time(entry.get("created", "")),
                "CreatedBy": entry.get("created_by", ""),
                "Id": image.id if image else f"{'sha256:' if self._as.podman else ''}<missing>",
                "Size": 0 if entry.get("empty_layer") else sizes.pop(),
                "Tags": tags or None,
            }
            steps.append(found)
            image = self._store.images.get(image.parent) if image else None
        return steps

    def summary(self, image: Image, version: str) -> Document:
        """Return what `list` says of an image."""
        tags, digests = self._store.tags_of(image), self._store.digests_of(image)
        found: Document = {
            "Containers": 0 if self._as.release >= 28 or self._as.podman else -1,
            "Created": unix_time(image.main.document.get("created", "")),
            "Id": image.id,
            "Labels": image.main.run.get("Labels")
            or ({} if self._as.store == "containerd" and self._as.release >= 29 else None),
            "ParentId": image.parent.removeprefix("sha256:") if self._as.podman else image.parent,
            "RepoDigests": digests,
            "RepoTags": tags,
            "SharedSize": -1,
            "Size": self.size(image),
        }
        if self._as.store == "containerd":
            found["Descriptor"] = descriptor(image.target)
        if self._as.podman:
            found |= {"Digest": image.target.digest, "History": tags, "Names": tags}
            if not tags:
                found = {**found, "Dangling": True}
                del found["Names"]
        if self._has_virtual_size(version):
            found["VirtualSize"] = found["Size"]
        return found

    def listed(self, query: Mapping[str, str], version: str) -> list[Document]:
        """Return what `list` answers."""
        filters = read_filters(query.get("filters", ""), self._store)
        wanted = [image for image in self._store.images.values() if self.chosen(image, filters)]
        if not flag(query.get("all")):
            wanted = [each for each in wanted if not self._is_between(each)]
        found = list[Document]()
        patterns = filters.get("reference", [])
        for image in wanted:
            document = self.summary(image, version)
            if patterns:  # names that do not match are left out
                for key in ("RepoTags", "RepoDigests"):
                    kept = [each for each in document[key] if any(_matches(pattern, each) for pattern in patterns)]
                    document[key] = kept if self._as.store == "graph" else document[key]
            if flag(query.get("shared-size")) and version_of(version) >= (1, 42):
                document["SharedSize"] = self.shared_size(image)
            if flag(query.get("manifests")) and self._as.store == "containerd" and version_of(version) >= (1, 47):
                document["Manifests"] = self.manifests(image)
            found.append(self._with_nothings(document, version))
        return sorted(found, key=lambda each: -each["Created"])

    def _with_nothings(self, document: Document, version: str) -> Document:
        """Say as the release does that there is no name."""
        if self._as.store != "graph" or self._as.release >= 25:
            return document
        tags, digests = document["RepoTags"], document["RepoDigests"]
        if not tags and not digests and version_of(version) < (1, 43):
            return document | {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
        return document | {"RepoTags": tags or None, "RepoDigests": digests or None}

    def _is_between(self, image: Image) -> bool:
        """Whether an image is one that a build left on its way to another."""
        return bool(self._store.children(image)) and not self._store.tags_of(image)

    def chosen(self, image: Image, filters: Mapping[str, list[str]]) -> bool:
        """Tell whether an image passes the filters of `list` and `prune`."""
        created, store = unix_time(image.main.document.get("created", "")), self._store
        checks: dict[str, Callable[[str], bool]] = {
            "dangling": lambda value: (not store.tags_of(image)) == (value in {"true", "1"}),
            "label": lambda value: _has_label(image, value),
            "label!": lambda value: not _has_label(image, value),
            "before": lambda value: created < unix_time(store.get(value).main.document.get("created", "")),
            "since": lambda value: created > unix_time(store.get(value).main.document.get("created", "")),
            "until": lambda value: created < moment(value),
            "reference": lambda value: any(
                _matches(value, name) for name in (*store.tags_of(image), *store.digests_of(image))
            ),
        }
        every = {"label", "label!", "before", "since"}
        return all(
            (all if name in every else any)(checks[name](value) for value in values) for name, values in filters.items()
        )

    def disk_usage(self, query: Mapping[str, str], version: str) -> Document:
        """Return what `system df` answers about images."""
        images = [each for each in self._store.images.values() if not self._is_between(each) or self._as.podman]
        items = list[Document]()
        for image in images:
            item = self.summary(image, version) | {"Containers": 0, "SharedSize": self.shared_size(image)}
            for key in ("RepoTags", "RepoDigests"):
                item[key] = item[key] or None
            if self._as.podman:  # it says less here than in a list, and names images by their tags alone
                short = [each.rpartition(":")[2] for each in self._store.tags_of(image)]
                kept = ("Containers", "Created", "ParentId", "SharedSize", "Size")
                item = {
                    **{key: item[key] for key in kept},
                    "Id": image.id.removeprefix("sha256:"),
                    "Labels": dict[str, str](),
                    "RepoDigests": None,
                    "RepoTags": short or ["<none>"],
                }
            items.append(item)
        layers = self._store.layers().values()
        total = sum(self.layer_size(each) for each in layers)
        if self._as.store == "containerd":
            blobs = {each.digest: each.size for image in images for one in image.variants for each in self._blobs(one)}
            indexes = {each.target.digest: each.target.size for each in images}
            total += sum((blobs | indexes).values())
        nothing: list[object] | None = [] if self._as.podman or self._as.release < 25 else None
        found: Document = {"LayersSize": total, "Images": sorted(items, key=lambda each: -each["Created"])}
        found |= {"Containers": nothing, "Volumes": nothing, "BuildCache": [] if self._as.podman else None}
        if version_of(version) >= (1, 52):
            usage: Document = {"TotalCount": len(items), "Reclaimable": total, "TotalSize": total}
            if flag(query.get("verbose")):
                usage["Items"] = found["Images"]
            found["ImageUsage"] = {key: value for key, value in usage.items() if value}
        return found


def read_filters(text: str, store: EngineStore) -> dict[str, list[str]]:
    """Return the filters of a request, in either of their two forms; refuse an unknown one in the Engine's words."""
    behaviour = store.behaviour
    if not text:
        return {}
    try:
        document: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        if behaviour.podman or behaviour.release < 25:
            where = text[1:2]
            words = f"invalid character '{where}' looking for beginning of object key string"
            raise RefusalError(500, words) from None
        raise RefusalError(400, "invalid filter") from None
    filters = {name: _values(values) for name, values in document.items()}
    for name in filters:
        if name not in _FILTERS:
            if behaviour.podman:
                raise RefusalError(
                    500, f'invalid image filter "{name}": must be in the format "filter=value or filter!=value"'
                )
            raise RefusalError(400, f"{'I' if behaviour.release < 25 else 'i'}nvalid filter '{name}'")
    return filters


def _values(values: Mapping[str, bool] | list[str]) -> list[str]:
    return list(values) if isinstance(values, list) else [value for value, on in values.items() if on]


def moment(text: str) -> int:
    """Return the time of an `until`: seconds, a duration before now, or a date."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return int(float(text))
    if parts := re.findall(r"([0-9.]+)(h|m|s)", text):
        return int(datetime.now(UTC).timestamp() - sum(float(n) * {"h": 3600, "m": 60, "s": 1}[u] for n, u in parts))
    return unix_time(text)


def _matches(pattern: str, name: str) -> bool:
    """Match a name as Docker does: the whole of it, or the repository alone; `*` does not cross a slash."""
    glob = Glob(pattern)  # of bounded cost, which a regular expression made of it would not have
    return any(glob.matches(each) for each in (name, Reference.parse(name).name_only().familiar))


def _has_label(image: Image, wanted: str) -> bool:
    labels = image.main.labels
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def platform_of(text: str) -> Platform:
    """Read a platform of a query: text, or since API 1.48 JSON."""
    if text.startswith("{"):
        document: dict[str, str] = json.loads(text)
        return Platform(
            os=document.get("os", ""),
            architecture=document.get("architecture", ""),
            variant=document.get("variant", ""),
        )
    return Platform.parse(text)


def fields_of(platform: Platform) -> Document:
    """Return a platform as a descriptor has it."""
    fields = {"architecture": platform.architecture, "os": platform.os, "variant": platform.variant}
    return {key: value for key, value in fields.items() if value}


def flag(value: str | None) -> bool:
    """Read a flag of a query as an Engine does."""
    return value is not None and value.lower() not in {"", "0", "false", "no", "none"}

"""The API of a fake Engine: what each request about images does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from aiodocker_images.models import Platform
from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError, bar, begun, error_frame, frame, json_response, not_faked
from ._engine_archives import loaded, saved
from ._engine_build import Maker
from ._engine_events import EventLog
from ._engine_images import ImageViews, descriptor, fields_of, flag, platform_of, read_filters
from ._engine_registry import is_index
from ._engine_store import EngineStore, Image
from ._engine_transfers import Transfers
from ._exchange import PIECE, Exchange, Request, Response

STEPS: Final = (
    "ping", "version", "info", "list", "inspect", "history", "tag", "remove", "prune", "pull", "import_image", "push",
    "load", "save", "build", "prune_build_cache", "events", "disk_usage", "inspect_distribution", "login",
)  # fmt: skip
"""What can be asked of a fake Engine: the names of `ImageService`'s methods, and `info`."""

STREAMS: Final = frozenset({"pull", "push", "load", "build"})
"""Those that answer with frames of progress."""

_PLAIN: Final = {
    ("GET", "/_ping"): "ping", ("HEAD", "/_ping"): "ping", ("GET", "/version"): "version", ("GET", "/info"): "info",
    ("GET", "/images/json"): "list", ("POST", "/images/prune"): "prune", ("POST", "/images/load"): "load",
    ("GET", "/images/get"): "save", ("POST", "/build"): "build", ("POST", "/build/prune"): "prune_build_cache",
    ("GET", "/events"): "events", ("GET", "/system/df"): "disk_usage", ("POST", "/auth"): "login",
}  # fmt: skip
_NAMED: Final = (
    ("GET", re.compile(r"/images/(.+)/json"), "inspect"),
    ("GET", re.compile(r"/images/(.+)/history"), "history"),
    ("POST", re.compile(r"/images/(.+)/tag"), "tag"),
    ("POST", re.compile(r"/images/(.+)/push"), "push"),
    ("GET", re.compile(r"/images/(.+)/get"), "save"),
    ("GET", re.compile(r"/distribution/(.+)/json"), "inspect_distribution"),
    ("DELETE", re.compile(r"/images/(.+)"), "remove"),
)


def step_of(method: str, path: str, query: Mapping[str, str]) -> tuple[str, str] | None:
    """Return what a request asks for, and for which image; None if that is not faked."""
    if (method, path) == ("POST", "/images/create"):
        if "fromSrc" in query:
            return "import_image", _joined(query.get("repo", ""), query.get("tag", ""))
        return "pull", _joined(query.get("fromImage", ""), query.get("tag", ""))
    if step := _PLAIN.get((method, path)):
        return step, ""
    for verb, pattern, step in _NAMED:
        if verb == method and (match := pattern.fullmatch(path)):
            return step, _joined(match[1], query.get("tag", "")) if step == "push" else match[1]
    return None


def _joined(name: str, tag: str) -> str:
    if not tag:
        return name
    return f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"


class EngineAPI:
    """Answers what `step_of` has found out."""

    def __init__(self, store: EngineStore) -> None:
        self.events = EventLog(store.behaviour)
        self.transfers = Transfers(store, self.events)
        self._store = store
        self._as = store.behaviour
        self._views = ImageViews(store)
        self._maker = Maker(store, self.events, self.transfers)

    def headers(self, step: str) -> dict[str, str]:
        """Return the headers that all answers have."""
        as_ = self._as
        headers = {"Api-Version": as_.api_version, "Server": as_.server}
        headers |= {"Libpod-Api-Version": as_.version} if as_.podman else {"Ostype": "linux"}
        if not as_.podman or step == "ping":
            headers["Docker-Experimental"] = "true" if as_.podman else "false"
        if step == "ping":
            headers["Ostype"] = "linux"
            if as_.release >= 25:
                headers |= {"Builder-Version": "2", "Swarm": "inactive"}
            elif as_.podman:
                headers["Builder-Version"] = "1"
        headers["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        return headers

    async def answer(self, exchange: Exchange, path: str, version: str) -> Response:
        """Answer a request. `path` is without the version."""
        request = exchange.request
        query, reference = request.query, request.reference
        plain: dict[str, Callable[[], object]] = {
            "version": self._version,
            "info": self._info,
            "list": lambda: self._views.listed(query, version),
            "inspect": lambda: self._views.inspect(
                reference, version, manifests=flag(query.get("manifests")), platform=query.get("platform", "")
            ),
            "history": lambda: self._views.history(reference),
            "remove": lambda: self._remove(request),
            "prune": lambda: self._prune(query),
            "disk_usage": lambda: self._views.disk_usage(query, version),
            "prune_build_cache": lambda: {"CachesDeleted": None, "SpaceReclaimed": 0},
        }
        if answer := plain.get(request.step):
            return json_response(answer())
        rest: dict[str, Callable[[], Awaitable[Response]]] = {
            "ping": lambda: self._ping(request),
            "tag": lambda: self._tag(request),
            "pull": lambda: self._pull(request),
            "push": lambda: self._push(request, path),
            "import_image": lambda: self._import(exchange),
            "load": lambda: self._load(exchange),
            "save": lambda: self._save(request),
            "build": lambda: self._build(exchange),
            "events": lambda: self._events(request),
            "inspect_distribution": lambda: self._distribution(request),
            "login": lambda: self._login(exchange),
        }
        return await rest[request.step]()

    async def _ping(self, request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
        if request.method == "GET" or not self._as.podman:
            headers["Content-Type"] = "text/plain; charset=utf-8"
        return Response(headers=headers, body=b"OK")

    def _version(self) -> dict[str, object]:
        as_ = self._as
        engine = {"ApiVersion": as_.api_version, "Arch": "amd64", "MinAPIVersion": as_.min_api_version, "Os": "linux"}
        name = "Podman Engine" if as_.podman else "Engine"
        return {
            "Platform": {"Name": "linux/amd64/fake" if as_.podman else ""},
            "Components": [{"Name": name, "Version": as_.version, "Details": engine}],
            "Version": as_.version,
            "ApiVersion": as_.api_version,
            "MinAPIVersion": as_.min_api_version,
            "Os": "linux",
            "Arch": "amd64",
            "KernelVersion": "6.1.0-fake",
        }

    def _info(self) -> dict[str, object]:
        drivers = {"graph": "overlay2", "containerd": "overlayfs", "podman": "overlay"}
        status = [["driver-type", "io.containerd.snapshotter.v1"]] if self._as.store == "containerd" else []
        return {
            "ID": "fake",
            "Name": "fake-engine",
            "Images": len(self._store.images),
            "Driver": drivers[self._as.store],
            "DriverStatus": status,
            "ServerVersion": self._as.version,
            "OSType": "linux",
            "Architecture": "amd64" if self._as.podman else "x86_64",
        }

    # Names

    async def _tag(self, request: Request) -> Response:
        image = self._store.get(request.reference)
        query = request.query
        name = str(Reference.parse(_joined(query.get("repo", ""), query.get("tag", ""))).with_default_tag())
        self._store.name(image, name, by_hand=True)
        self.events.about("tag", image, self._store.shown(name))
        return Response(status=201, body=b"\n" if self._as.podman else b"")

    def _remove(self, request: Request) -> object:
        query, name = request.query, request.reference
        if "platforms" in query:
            raise not_faked("the removal of single platforms")
        image = self._store.get(name)
        removed = self._store.remove(name, force=flag(query.get("force")), no_prune=flag(query.get("noprune")))
        self._tell_removed(image, removed.steps)
        return removed.steps

    def _tell_removed(self, image: Image, steps: Sequence[Mapping[str, str]]) -> None:
        """Tell of a removal: an untag for each name, and a delete for each image."""
        graph = self._as.store == "graph"
        tags = [each for each in steps if "@" not in each.get("Untagged", "@")]
        for step in steps:
            if untagged := step.get("Untagged"):
                if "@" in untagged and tags:
                    continue  # Docker says nothing of the digests that go with a repository's last tag
                self.events.about("untag", image, "" if graph else untagged, labels=graph)
            elif (deleted := step.get("Deleted", "")).removeprefix("sha256:") == image.id.removeprefix("sha256:"):
                self.events.tell("delete", image.id, deleted if self._as.podman else image.id)

    def _prune(self, query: Mapping[str, str]) -> object:
        filters = read_filters(query.get("filters", ""), self._store)
        dangling = filters.pop("dangling", ["true"])[:1] in (["true"], ["1"])
        wanted = [each for each in self._store.images.values() if self._views.chosen(each, filters)]
        removed = self._store.prune(wanted, dangling=dangling)
        for image in wanted:
            about = [
                each for each in removed.steps if each.get("Deleted", "") and image.id.endswith(each["Deleted"][-64:])
            ]
            self._tell_removed(image, about)
        steps = removed.steps
        if self._as.podman:
            steps = [each for each in steps if "Deleted" in each]
        return {"ImagesDeleted": steps or ([] if self._as.podman else None), "SpaceReclaimed": removed.size}

    # Transfers

    async def _pull(self, request: Request) -> Response:
        query = request.query
        reference = Reference.parse(request.reference)
        platform = platform_of(query["platform"]) if query.get("platform") else None
        frames = self.transfers.pull(reference, platform, request.headers.get("x-registry-auth", ""))
        return await begun(frames)

    async def _push(self, request: Request, path: str) -> Response:
        if "platform" in request.query:
            raise not_faked("a push of one platform")
        name = Reference.parse(path.removeprefix("/images/").removesuffix("/push"))
        tags = [tag] if (tag := request.query.get("tag") or name.tag) else []
        reference = name.name_only()
        if not tags:
            if self._as.podman:
                tags = ["latest"]
            else:
                known = [Reference.parse(each) for each in self._store.tags]
                tags = sorted(each.tag for each in known if each.name == reference.name and each.tag)
        return await begun(self.transfers.push(reference, tags, request.headers.get("x-registry-auth", "")))

    async def _distribution(self, request: Request) -> Response:
        if self._as.podman:
            return Response(status=404, headers={"Content-Type": "text/plain; charset=utf-8"}, body=b"Not Found\n")
        reference = Reference.parse(request.reference).with_default_tag()
        remote = self.transfers.remote(reference, request.headers.get("x-registry-auth", ""))
        target = await remote.manifest(reference.tag_or_digest or "latest", plain=True)
        document: dict[str, Any] = json.loads(target.data)
        if is_index(target):
            platforms = [each.get("platform", {}) for each in document["manifests"]]
        else:
            config: dict[str, str] = json.loads((await remote.blob(document["config"], config=True)).data)
            there = Platform(os=config["os"], architecture=config["architecture"], variant=config.get("variant", ""))
            platforms = [fields_of(there)]
        return json_response({"Descriptor": descriptor(target), "Platforms": platforms})

    async def _login(self, exchange: Exchange) -> Response:
        await exchange.read()
        if self._as.podman:
            raise RefusalError(500, "login attempt failed: FakeEngine has no registry with a password", bare=True)
        return json_response({"IdentityToken": "", "Status": "Login Succeeded"})

    # Archives

    async def _load(self, exchange: Exchange) -> Response:
        data, quiet = await exchange.read(), flag(exchange.request.query.get("quiet", "1"))
        if not self._as.podman:
            # dockerd has sent its head before it reads: what is wrong with the archive comes in the stream
            frames = self._loading(data, quiet=quiet)
            return await begun(_errors_in(frames))
        lines = [json.loads(each)["stream"] async for each in self._loading(data, quiet=True)]
        names = ",".join(each.partition(": ")[2].strip() for each in lines)
        return json_response({"stream": f"Loaded image: {names}"})

    async def _loading(self, data: bytes, *, quiet: bool) -> AsyncGenerator[bytes, None]:
        for found in loaded(data, self._as):
            variant = found.variants[0]
            new = variant.layers[self._store.has_layers(variant) :] if self._as.store == "graph" else ()
            if not quiet:
                for layer in new:
                    size = layer.size
                    for _ in range(2):
                        yield frame(bar(self._as, "Loading layer", layer.diff_id[7:19], size, size))
            image, _ = self._store.add(found.target, found.variants)
            for name in found.names:
                self._store.name(image, name)
                yield frame({"stream": f"Loaded image: {self._store.shown(name)}\n"})
            if not found.names:
                yield frame({"stream": f"Loaded image ID: {image.id}\n"})
            if self._as.podman:
                self.events.about("loadfromarchive", image, found.names[0] if found.names else image.id[7:])
            else:
                self.events.about("load", image)

    async def _save(self, request: Request) -> Response:
        asked = [request.reference] if request.reference else _all(request.raw_query, "names")
        if "platform" in request.query:
            raise not_faked("a save of one platform")
        chosen: dict[str, list[str]] = {}
        for name in asked:
            image = self._saved(name, several=not request.reference)
            names = chosen.setdefault(image.id, [])
            reference = None if image.id[7:].startswith(name.removeprefix("sha256:")) else Reference.parse(name)
            if reference is None:
                continue
            if reference.tag_or_digest is None:
                known = [each for each, owner in self._store.tags.items() if owner == image.id]
                names += [each for each in known if Reference.parse(each).name == reference.name]
            elif reference.tag is not None:
                names.append(f"{reference.name}:{reference.tag}")
        data = saved(self._store, [(self._store.images[image_id], names) for image_id, names in chosen.items()])
        for image_id in chosen:
            self.events.about("save", self._store.images[image_id])
        media_type = "application/octet; charset=us-ascii" if self._as.podman else "application/x-tar"
        return Response(headers={"Content-Type": media_type}, stream=_pieces(data))

    def _saved(self, name: str, *, several: bool) -> Image:
        if (image := self._store.find(name)) is not None:
            return image
        if self._as.podman and several:
            raise RefusalError(500, f"{name}: image not known", cause="image not known")
        if self._as.store == "graph" and self._as.release < 29:
            raise RefusalError(404, "reference does not exist")
        raise self._store.missing(name)

    async def _import(self, exchange: Exchange) -> Response:
        request = exchange.request
        if request.query["fromSrc"] != "-":
            raise not_faked("an import from a URL")
        name = request.reference and str(Reference.parse(request.reference).with_default_tag())
        message = request.query.get("message") or "Imported from -"
        image = self._maker.bring_in(await exchange.read(), name, message, _all(request.raw_query, "changes"))
        if self._as.podman:
            return json_response({"status": image.id, "progress": "", "progressDetail": {}, "id": image.id})
        return await begun(_each([frame({"status": image.id})]))

    async def _build(self, exchange: Exchange) -> Response:
        query = exchange.request.query
        if query.get("version") == "2":
            raise not_faked("BuildKit; it builds with the classic builder")
        if query.get("remote"):
            raise not_faked("a build from a URL")
        if query.get("target") or query.get("squash") in {"1", "true"} or query.get("platform"):
            raise not_faked("a build with a target, squash or platform")
        names = [str(Reference.parse(each).with_default_tag()) for each in _all(exchange.request.raw_query, "t")]
        auth = ""  # of X-Registry-Config, which has all credentials: FakeRegistry behind the Engine needs none
        return await begun(self._maker.build(await exchange.read(), query, names, auth))

    async def _events(self, request: Request) -> Response:
        query = request.query
        known = {"type", "event", "image", "label"}
        document: dict[str, Any] = json.loads(query.get("filters") or "{}")
        if unknown := set(document) - known:
            raise not_faked(f"events filtered by {', '.join(sorted(unknown))}")
        filters = {name: list(values) for name, values in document.items()}
        since, until = (float(query[name]) if query.get(name) else None for name in ("since", "until"))
        response = await begun(self.events.watch(since, until, filters), at_once=False)
        if self._as.release >= 29 and "jsonl" in request.headers.get("accept", ""):
            response.headers["Content-Type"] = "application/jsonl"
        return response


async def _errors_in(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield frames, a refusal among them even before the first."""
    try:
        async for each in frames:
            yield each
    except RefusalError as refusal:
        yield error_frame(refusal.message)


async def _each(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for each in pieces:
        yield each


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def _all(raw_query: str, name: str) -> list[str]:
    return [value for key, value in parse_qsl(raw_query) if key == name]

"""A scripted Engine with registries behind it: it knows names, ids and digests, and fails where a test says so."""

from __future__ import annotations

import copy
import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

import msgspec

from aiodocker_images import Reference
from aiodocker_images._mirror.borrowed import OWN_DOMAIN

from .scripted import Exchange, Handler, ScriptedDaemon

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def canonical(name: str) -> str:
    return str(Reference.parse(name).with_default_tag())


@dataclass
class State:
    """What is where: digests in registries, ids on the Engine, and of which digest an id is."""

    remote: dict[str, str] = field(default_factory=dict[str, str])
    local: dict[str, str] = field(default_factory=dict[str, str])
    images: dict[str, str] = field(default_factory=dict[str, str])


class MirrorDaemon:
    """Serves on a `ScriptedDaemon`.

    `log` has each request as "pull NAME", "push NAME", "tag NAME", "remove NAME", "inspect NAME", "look NAME" (at a
    registry), "list", "import NAME"; the run's own names begin with "own:" in it, and a pull by a digest has the tag
    that has it. `trouble[request]` are handlers that answer it first, one each time. `watch` is called before and
    after a request takes effect. `graph`: pushes change the digest. `compares`: the Engine has distribution inspect.
    """

    def __init__(self, daemon: ScriptedDaemon, *, graph: bool = False, compares: bool = True) -> None:
        self.state = State()
        self.log: list[str] = []
        self.trouble: defaultdict[str, list[Handler]] = defaultdict(list)
        self.watch: Callable[[str], Awaitable[None]] | None = None
        self.busy: set[str] = set()
        self.most_busy = 0
        self.indexes: dict[str, list[str]] = {}
        self.layers: dict[str, list[str]] = {}
        self._graph = graph
        self._compares = compares
        self.identity = "engine-1"
        self._imports = 0
        self._architectures: dict[str, str] = {}
        self._published: set[tuple[str, str]] = set()
        self.events: list[dict[str, object]] = []
        daemon.otherwise = self._serve

    def publish(self, name: str, content: str = "") -> str:
        """Put an image into a registry; return its digest."""
        self.state.remote[canonical(name)] = digest = digest_of(content or name)
        self._published.add((_repository(canonical(name)), digest))
        return digest

    def has(self, name: str, content: str) -> str:
        """Put an image onto the Engine; return its id."""
        image = self._image(digest_of(content))
        self.state.local[canonical(name)] = image
        return image

    def builds(self, name: str, content: str) -> None:
        """Make an image on the Engine, as another program does, and give it a name that may be another's."""
        self.move(canonical(name), self._image(digest_of(content)))

    def count(self, verb: str) -> int:
        return sum(entry.partition(" ")[0] == verb for entry in self.log)

    def snapshot(self) -> State:
        return copy.deepcopy(self.state)

    def _image(self, digest: str) -> str:
        # The containerd store knows images by the digests of their manifests.
        image = digest_of(digest) if self._graph or not self._compares else digest
        self.state.images[image] = digest
        return image

    async def _serve(self, exchange: Exchange) -> None:
        path, query = unquote(exchange.path), dict(exchange.query)
        if path == "/images/create" and "fromSrc" in query:
            return await self._step("import", f"{query['repo']}:{query['tag']}", exchange, self._import)
        if path.endswith("/untag"):
            return await self._step("untag", f"{query['repo']}:{query['tag']}", exchange, self._untag)
        if path == "/events":
            return await self._tell_events(exchange)
        if (exchange.method, path) == ("POST", "/images/create"):
            return await self._step("pull", self._tag_of(_pulled_name(exchange)), exchange, self.pull)
        if path.endswith("/push"):
            name = canonical(f"{path.removeprefix('/images/').removesuffix('/push')}:{query['tag']}")
            return await self._step("push", name, exchange, self.push)
        if path.endswith("/tag"):
            return await self._step("tag", f"{query['repo']}:{query['tag']}", exchange, self._tag)
        if exchange.method == "DELETE":
            return await self._step("remove", path.removeprefix("/images/"), exchange, self._remove)
        if path.startswith("/distribution/"):
            name = path.removeprefix("/distribution/").removesuffix("/json")
            return await self._step("look", name, exchange, self._look)
        if path == "/images/json":
            return await self._step("list", "", exchange, self._list)
        if path.startswith("/images/"):
            name = path.removeprefix("/images/").removesuffix("/json")
            return await self._step("inspect", name, exchange, self._inspect)
        if path == "/version":
            part = "Engine" if self._compares else "Podman Engine"
            return await exchange.answer_json({"Components": [{"Name": part}], "Os": "linux", "Arch": "amd64"})
        if path == "/info":
            driver = ["Backing Filesystem", "extfs"] if self._graph else ["driver-type", "io.containerd.snapshotter.v1"]
            return await exchange.answer_json({"DriverStatus": [driver], "ID": self.identity, "Name": self.identity})
        return await exchange.answer_json({"message": "page not found"}, 404)

    async def _step(
        self, verb: str, name: str, exchange: Exchange, effect: Callable[[str, Exchange], Awaitable[None]]
    ) -> None:
        entry = re.sub(rf"{OWN_DOMAIN}/[0-9a-f]{{16}}", "own", f"{verb} {name}".rstrip())
        self.log.append(entry)
        transfers = verb in {"pull", "push"}
        if transfers:
            self.busy.add(entry)
            self.most_busy = max(self.most_busy, len(self.busy))
        try:
            if self.watch is not None:
                await self.watch(entry)
            if self.trouble[entry]:
                await self.trouble[entry].pop(0)(exchange)
            else:
                await effect(name, exchange)
            if self.watch is not None:
                await self.watch(entry)
        finally:
            self.busy.discard(entry)

    async def pull(self, _: str, exchange: Exchange) -> None:
        name = _pulled_name(exchange)
        digest = self._remote(name)
        if digest is None:
            await exchange.answer_json({"message": f"manifest for {name} not found: manifest unknown"}, 404)
            return
        self.move(name, image := self._image(digest))
        self._architectures[image] = dict(exchange.query).get("platform", "linux/amd64").split("/")[1]
        await exchange.head()
        await exchange.frames(
            {"status": "Pulling from x", "id": "1"},
            {"status": f"Digest: {digest}"},
            {"status": f"Status: Downloaded newer image for {name}"},
        )
        await exchange.end()

    async def push(self, name: str, exchange: Exchange) -> None:
        if name not in self.state.local:
            await exchange.answer_json({"message": f"An image does not exist locally with the tag: {name}"}, 404)
            return
        digest = self.state.images[self.state.local[name]]
        self.state.remote[name] = pushed = digest_of(f"changed {digest}") if self._graph else digest
        await exchange.head()
        await exchange.frames({"status": "Pushed", "id": "x"}, {"aux": {"Tag": "x", "Digest": pushed, "Size": 1}})
        await exchange.end()

    async def _tag(self, name: str, exchange: Exchange) -> None:
        image = self._resolve(unquote(exchange.path).removeprefix("/images/").removesuffix("/tag"))
        if image is None:
            await exchange.answer_json({"message": "No such image"}, 404)
            return
        self.move(name, image)
        await exchange.answer(b"", 201)

    def move(self, name: str, image: str) -> None:
        """Give a name to an image, as the Engine does it, and remember it as an event."""
        self.state.local[name] = image
        if "@" not in name:
            actor = {"ID": image, "Attributes": {"name": name}}
            moment = time.time_ns()
            event: dict[str, object] = {
                "Type": "image",
                "Action": "tag",
                "Actor": actor,
                "time": moment // 10**9,
                "timeNano": moment,
            }
            self.events.append(event)

    async def _tell_events(self, exchange: Exchange) -> None:
        """Tell what was remembered, and wait until nobody listens any more."""
        await exchange.head()
        await exchange.frames(*self.events)
        await exchange.client_gone()

    async def _import(self, name: str, exchange: Exchange) -> None:
        self._imports += 1
        image = self._image(digest_of(f"import {time.time_ns()} {self._imports}"))
        self.move(name, image)
        await exchange.head()
        await exchange.frames({"status": image})
        await exchange.end()

    async def _untag(self, name: str, exchange: Exchange) -> None:
        if self._compares:
            await exchange.answer_json({"message": "page not found"}, 404)
            return
        image = unquote(exchange.path).removeprefix("/libpod/images/").removesuffix("/untag")
        if self.state.local.get(name) != image:
            await exchange.answer_json({"message": f"{name}: tag not known"}, 500)
            return
        del self.state.local[name]
        await exchange.answer(b"", 201)

    async def _remove(self, name: str, exchange: Exchange) -> None:
        image = self._resolve(name)
        if image is None:
            await exchange.answer_json({"message": f"No such image: {name}"}, 404)
            return
        names = self._names(image)
        if name.startswith("sha256:"):
            tags = [each for each in names if "@" not in each]
            if len(tags) > 1 or len({each.partition("@")[0].rpartition(":")[0] for each in tags}) > 1:
                message = "conflict: unable to delete (must be forced) - image is referenced in multiple repositories"
                await exchange.answer_json({"message": message}, 409)
                return
            going = names
        elif "@" in name and not self._graph:
            # The containerd store takes all names of the repository with that digest.
            repository = name.partition("@")[0]
            going = [each for each in names if _repository(each) == repository]
        else:
            going = [canonical(name) if "@" not in name else name]
        for each in going:
            self.state.local.pop(each, None)
        steps: list[dict[str, str]] = [{"Untagged": each} for each in going]
        if image not in self.state.local.values():
            del self.state.images[image]
            steps.append({"Deleted": image})
        await exchange.answer_json(steps)

    async def _look(self, name: str, exchange: Exchange) -> None:
        if not self._compares:
            await exchange.answer(b"Not Found", 404)
            return
        digest = self._remote(name)
        if digest is None:
            await exchange.answer_json({"message": "manifest unknown: manifest unknown"}, 404)
            return
        told = [each.partition("/") for each in self.indexes.get(name, [])]
        platforms = [{"os": os, "architecture": architecture} for os, _, architecture in told]
        kind = INDEX if platforms else MANIFEST
        await exchange.answer_json(
            {
                "Descriptor": {"mediaType": kind, "digest": digest, "size": 1},
                "Platforms": platforms or [{"architecture": "amd64", "os": "linux"}],
            }
        )

    async def _list(self, _: str, exchange: Exchange) -> None:
        await exchange.answer_json([{"Id": image, **self._named(image)} for image in self.state.images])

    async def _inspect(self, name: str, exchange: Exchange) -> None:
        image = self._resolve(name)
        if image is None:
            await exchange.answer_json({"message": f"No such image: {name}"}, 404)
            return
        answer: dict[str, object] = {
            "Id": image,
            **self._named(image),
            "Os": "linux",
            "Architecture": self._architectures.get(image, "amd64") if self._graph else _asked_architecture(exchange),
            "RootFS": {"Type": "layers", "Layers": self.layers.get(self.state.images[image], [])},
        }
        if not self._graph:
            answer["Descriptor"] = {"mediaType": MANIFEST, "digest": self.state.images[image], "size": 1}
        await exchange.answer_json(answer)

    def _tag_of(self, name: str) -> str:
        """The tag that has a digest in its repository now, for the log."""
        tags = (tag for tag, digest in self.state.remote.items() if f"{_repository(tag)}@{digest}" == name)
        return next(tags, name)

    def _remote(self, name: str) -> str | None:
        """The digest that a registry has for a name; a digest stays there when its tag is moved."""
        if "@" not in name:
            return self.state.remote.get(name)
        repository, _, digest = name.partition("@")
        known = {(_repository(each), here) for each, here in self.state.remote.items()} | self._published
        return digest if (repository, digest) in known else None

    def _names(self, image: str) -> list[str]:
        return [name for name, other in self.state.local.items() if other == image]

    def _named(self, image: str) -> dict[str, object]:
        """The names of an image as both stores tell them: a digest for each repository that it was pulled from."""
        names = self._names(image)
        digests = [name for name in names if "@" in name]
        if not self._graph and self._compares:
            tags = names
            digests = [f"{_repository(name)}@{self.state.images[image]}" for name in names]
        else:
            tags = [name for name in names if "@" not in name]
        return {"RepoTags": tags, "RepoDigests": list(dict.fromkeys(digests))}

    def _resolve(self, name: str) -> str | None:
        if name.startswith("sha256:"):
            return name if name in self.state.images else None
        if "@" in name and not self._graph and self._compares:
            repository, _, digest = name.partition("@")
            images = [image for each, image in self.state.local.items() if _repository(each) == repository]
            return next((image for image in images if digest in {image, self.state.images[image]}), None)
        return self.state.local.get(canonical(name) if "@" not in name else name)


def _asked_architecture(exchange: Exchange) -> str:
    """The architecture that a containerd store is asked for, which has all."""
    asked = dict(exchange.query).get("platform")
    return "amd64" if asked is None else msgspec.json.decode(asked, type=dict[str, str])["architecture"]


def _pulled_name(exchange: Exchange) -> str:
    query = dict(exchange.query)
    separator = "@" if query["tag"].startswith("sha256:") else ":"
    return f"{query['fromImage']}{separator}{query['tag']}"


def _repository(name: str) -> str:
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]


def answers(status: int, message: str) -> Handler:
    """Answer with an error."""

    async def handler(exchange: Exchange) -> None:
        await exchange.answer_json({"message": message}, status)

    return handler


async def cut(exchange: Exchange) -> None:
    """Begin to answer, and drop the connection."""
    await exchange.head()
    await exchange.frames({"status": "Pulling from x"})
    exchange.cut()


def fails_in_stream(message: str) -> Handler:
    """Answer with status 200, and an error in the stream."""

    async def handler(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames({"errorDetail": {"message": message}, "error": message})
        await exchange.end()

    return handler

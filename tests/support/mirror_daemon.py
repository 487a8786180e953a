"""A scripted Engine with registries behind it: it knows names, ids and digests, and fails where a test says so."""

from __future__ import annotations

import copy
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiodocker_images import Reference

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
    registry), "list". `trouble[request]` are handlers that answer it first, one each time. `watch` is called before and
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
        daemon.otherwise = self._serve

    def publish(self, name: str, content: str = "") -> str:
        """Put an image into a registry; return its digest."""
        self.state.remote[canonical(name)] = digest = digest_of(content or name)
        return digest

    def has(self, name: str, content: str) -> str:
        """Put an image onto the Engine; return its id."""
        image = self._image(digest_of(content))
        self.state.local[canonical(name)] = image
        return image

    def count(self, verb: str) -> int:
        return sum(entry.partition(" ")[0] == verb for entry in self.log)

    def snapshot(self) -> State:
        return copy.deepcopy(self.state)

    def _image(self, digest: str) -> str:
        image = digest_of(digest)
        self.state.images[image] = digest
        return image

    async def _serve(self, exchange: Exchange) -> None:
        path, query = unquote(exchange.path), dict(exchange.query)
        if (exchange.method, path) == ("POST", "/images/create"):
            separator = "@" if query["tag"].startswith("sha256:") else ":"
            return await self._step("pull", f"{query['fromImage']}{separator}{query['tag']}", exchange, self.pull)
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
            return await exchange.answer_json({"Components": [{"Name": part}]})
        if path == "/info":
            driver = ["Backing Filesystem", "extfs"] if self._graph else ["driver-type", "io.containerd.snapshotter.v1"]
            return await exchange.answer_json({"DriverStatus": [driver]})
        return await exchange.answer_json({"message": "page not found"}, 404)

    async def _step(
        self, verb: str, name: str, exchange: Exchange, effect: Callable[[str, Exchange], Awaitable[None]]
    ) -> None:
        entry = f"{verb} {name}".rstrip()
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

    async def pull(self, name: str, exchange: Exchange) -> None:
        digest = self.state.remote.get(name)
        if digest is None:
            await exchange.answer_json({"message": f"manifest for {name} not found: manifest unknown"}, 404)
            return
        self.state.local[name] = self._image(digest)
        await exchange.head()
        await exchange.frames(
            {"status": "Pulling from x", "id": "1"},
            {"status": f"Digest: {digest}"},
            {"status": f"Status: Downloaded newer image for {name}"},
        )
        await exchange.end()

    async def push(self, name: str, exchange: Exchange) -> None:
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
        self.state.local[name] = image
        await exchange.answer(b"", 201)

    async def _remove(self, name: str, exchange: Exchange) -> None:
        image = self._resolve(name)
        if image is None:
            await exchange.answer_json({"message": f"No such image: {name}"}, 404)
            return
        self.state.local.pop(canonical(name) if not name.startswith("sha256:") else name, None)
        if image not in self.state.local.values():
            del self.state.images[image]
        await exchange.answer_json([{"Untagged": name}])

    async def _look(self, name: str, exchange: Exchange) -> None:
        if not self._compares:
            await exchange.answer(b"Not Found", 404)
            return
        digest = self.state.remote.get(name)
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
        await exchange.answer_json([{"Id": image, "RepoTags": self._names(image)} for image in self.state.images])

    async def _inspect(self, name: str, exchange: Exchange) -> None:
        image = self._resolve(name)
        if image is None:
            await exchange.answer_json({"message": f"No such image: {name}"}, 404)
            return
        answer: dict[str, object] = {
            "Id": image,
            "RepoTags": self._names(image),
            "Os": "linux",
            "Architecture": "amd64",
            "RootFS": {"Type": "layers", "Layers": self.layers.get(self.state.images[image], [])},
        }
        if not self._graph:
            answer["Descriptor"] = {"mediaType": MANIFEST, "digest": self.state.images[image], "size": 1}
        await exchange.answer_json(answer)

    def _names(self, image: str) -> list[str]:
        return [name for name, other in self.state.local.items() if other == image]

    def _resolve(self, name: str) -> str | None:
        if name.startswith("sha256:"):
            return name if name in self.state.images else None
        return self.state.local.get(canonical(name) if "@" not in name else name)


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

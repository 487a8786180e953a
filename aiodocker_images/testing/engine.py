"""An Engine in the test's own process, with real images, which can be looked into and told to fail.

    async with FakeEngine(like="docker28") as engine, ImageService(engine.host) as images:
        engine.registry.put("alpine:3.20", image())     # what can be pulled
        await images.pull("alpine:3.20")
        assert engine.images == {"alpine:3.20": (await images.inspect("alpine:3.20")).id}
        with engine.fail(Fault.refuse(500), on="pull", times=None):
            ...                                         # each pull fails

It is a real server on a unix socket, so any client can be tested with it, the docker command too.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final

from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError, begun, error_frame, version_of
from ._engine_api import STEPS, STREAMS, EngineAPI, step_of
from ._engine_store import HOST, EngineStore, variants_of
from ._exchange import ClientLeftError, Exchange, Response
from ._server import Server
from ._serving import Serving
from .content import Blob, Manifest, digest_of, image
from .engine_behaviour import EngineBehaviour, engine_behaviour
from .faults import Fault, FaultKind, Faults, NotFakedError
from .registry import FakeRegistry

KINDS: Final[frozenset[FaultKind]] = frozenset(
    {"refuse", "cut", "reset", "stall", "slow", "lie", "header", "no_space", "restart", "in_stream_error"}
)

_VERSIONED: Final = re.compile(r"/v([0-9]+\.[0-9]+)(/.*)")
_DIGEST: Final = re.compile(rb"([Dd]igest: )sha256:[0-9a-f]{64}")
_FULL: Final = "write /var/lib/docker/tmp/layer: no space left on device"


class FakeEngine(Serving):
    """A Docker Engine, or Podman's API, on a unix socket; it holds images and does what is asked about them.

    `async with` serves it in the running loop; a plain `with` serves it in a thread of its own, for tests that are
    not coroutines. Entered again, it has what it had, at the address it had: a daemon that was down and is back.

    Args:
        like: Which Engine it behaves as: a name in `ENGINES`, or an `EngineBehaviour`.
        registry: The registry that it pulls from; a new one by default. It stands in for all registries that are not
            on this machine: "alpine:3.20" is there as "alpine:3.20", and "ghcr.io/org/app:1" as "ghcr.io/org/app:1". A
            name with an address of this machine, such as "127.0.0.1:5000/app:1", is asked for at that address.
        strict: Whether leaving the block raises `NotFakedError` if something was asked that the fake does not do.
            Such requests are answered with status 501 in any case.

    Attributes:
        registry: The `FakeRegistry` behind it, which can be filled, looked into and told to fail.
        requests: Every request that came, in order.
    """

    def __init__(
        self, like: str | EngineBehaviour = "docker28", *, registry: FakeRegistry | None = None, strict: bool = True
    ) -> None:
        super().__init__(Faults("FakeEngine", STEPS, KINDS), strict=strict, refusal=501)
        self.behaviour = engine_behaviour(like)
        self.registry = registry if registry is not None else FakeRegistry(strict=strict)
        self._own_registry = registry is None
        # A unix socket's path ends at 107 bytes, so it is not below the test's own directory.
        self._directory = Path(tempfile.gettempdir(), f"fake-engine-{secrets.token_hex(6)}")
        self._store = EngineStore(self.behaviour)
        self._api = EngineAPI(self._store)
        self._server = Server("engine", self, self.requests, unix=self._directory / "engine.sock")

    # Life

    async def _start(self) -> None:
        self._directory.mkdir(mode=0o700)
        if self._own_registry:
            await self.registry.__aenter__()
        self._api.transfers.own = self.registry.host
        self._api.events.ended = False
        await self._server.start()

    async def _stop(self) -> None:
        self._api.events.ended = True
        await self._server.stop()
        if self._own_registry:
            await self.registry.__aexit__(None, None, None)
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def host(self) -> str:
        """The address, as `DOCKER_HOST` has it: "unix:///tmp/fake-engine-.../engine.sock"."""
        return f"unix://{self._directory / 'engine.sock'}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.connections)

    # What is in it

    def put(self, name: str, content: Manifest | None = None) -> str:
        """Let the Engine hold an image under a name ("app:1.0") without a pull, and return the image's id.

        Of an index, a store with a graph driver and Podman hold the image for linux/amd64. Without `content` it is
        `image()`.
        """
        content = image() if content is None else content
        variants = variants_of(content)
        if not variants:
            raise NotFakedError(f"FakeEngine does not hold {content.media_type} without an image in it.")
        if self.behaviour.store != "containerd":
            variants = [next((each for each in variants if HOST.accepts(each.platform)), variants[0])]
        reference = Reference.parse(name).with_default_tag()
        target = Blob(data=content.data, media_type=content.media_type)
        held, _ = self._store.add(target, variants)
        self._store.name(held, str(reference))
        return held.id

    @property
    def images(self) -> dict[str, str]:
        """The ids of all images with a name, by their names as the Engine shows them."""
        return {self._store.shown(name): image_id for name, image_id in sorted(self._store.tags.items())}

    @property
    def ids(self) -> list[str]:
        """The ids of all images, those without a name too."""
        return sorted(self._store.images)

    # How it answers

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a request; the server calls this."""
        request, behaviour = exchange.request, self.behaviour
        version, path = behaviour.api_version, request.path
        if match := _VERSIONED.fullmatch(path):
            version, path = match[1], match[2]
        found = step_of(request.method, path, request.query)
        request.step, request.reference = found or ("unknown", "")
        try:
            self._check_version(version)
            if found is None:
                self._unfaked.append(f"{request.method} {request.path}")
                response = RefusalError(501, f"FakeEngine does not fake {request.method} {path}").response(behaviour)
            else:
                response = await self._with_fault(exchange, lambda: self._api.answer(exchange, path, version))
        except RefusalError as refusal:
            if refusal.status == 501:
                self._unfaked.append(refusal.message.removeprefix("FakeEngine does not fake "))
            response = refusal.response(behaviour)
        for name, value in self._api.headers(request.step).items():
            response.headers.setdefault(name, value)
        return response

    def _check_version(self, version: str) -> None:
        as_, asked = self.behaviour, version_of(version)
        if as_.podman:  # 5.8 answers whatever the version in the path is
            return
        if asked > version_of(as_.api_version):
            words = f"client version {version} is too new. Maximum supported API version is {as_.api_version}"
            raise RefusalError(400, words)
        if asked < version_of(as_.min_api_version):
            words = f"client version {version} is too old. Minimum supported API version is {as_.min_api_version}"
            raise RefusalError(400, f"{words}, please upgrade your client to a newer version")

    async def _with_fault(self, exchange: Exchange, answer: Callable[[], Awaitable[Response]]) -> Response:
        """Answer, with the fault that this request is to meet."""
        request = exchange.request
        injection = self._faults.take(request.step, request.reference)
        if injection is None:
            return await answer()
        fault = request.fault = injection.fault
        exchange.injection = injection
        match fault.kind:
            case "refuse":
                headers = {name: value for name, value in fault.headers if value is not None}
                if fault.body is not None:
                    return Response(status=fault.status, headers=headers, body=fault.body)
                response = RefusalError(fault.status, fault.text).response(self.behaviour)
                response.headers |= headers
                return response
            case "no_space":
                await exchange.read()
                if request.step in STREAMS:
                    return await begun(_one(error_frame(_FULL)))
                raise RefusalError(500, _FULL)
            case "restart":
                self._api.events.forget()
                self._server.drop_connections()
                raise ClientLeftError("the daemon restarted")
            case _:
                response = await answer()
        if fault.kind == "in_stream_error":
            if response.stream is None:
                raise RefusalError(fault.status or 500, fault.text)
            response.stream = _ended_by(response.stream, fault)
        elif fault.kind == "lie":
            _lie(response, fault)
        return response


async def _one(piece: bytes) -> AsyncGenerator[bytes, None]:
    yield piece


async def _ended_by(stream: AsyncGenerator[bytes, None], fault: Fault) -> AsyncGenerator[bytes, None]:
    """Yield the first frames of a stream, and then an error."""
    count = 0
    try:
        async for each in stream:
            if count == fault.after:
                break
            yield each
            count += 1
        detail = {"message": fault.text, **({"code": fault.status} if fault.status else {})}
        yield json.dumps({"errorDetail": detail, "error": fault.text}).encode() + b"\r\n"
    finally:
        await stream.aclose()


def _lie(response: Response, fault: Fault) -> None:
    """Let an answer say another digest, or have another byte."""
    other = digest_of(b"another content").encode()

    async def lying(stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        sent = 0
        try:
            async for each in stream:
                piece = bytearray(_DIGEST.sub(rb"\g<1>" + other, each) if fault.text == "digest" else each)
                if fault.text == "body" and sent <= fault.after < sent + len(piece):
                    piece[fault.after - sent] ^= 1
                sent += len(piece)
                yield bytes(piece)
        finally:
            await stream.aclose()

    if response.stream is not None:
        response.stream = lying(response.stream)

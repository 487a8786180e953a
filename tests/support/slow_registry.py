"""A registry on 127.0.0.1 whose one image never quite arrives, or that refuses every push."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from .tars import tar_of

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class SlowRegistry:
    """Serves the image `address/slow:1`, whose layer trickles until `finish` is set.

    While `failing` is a status, it is the answer to everything but the question for the API's version.
    `open_blobs` is how many downloads of the layer go on: 0 once the Engine has ended every pull of it.
    """

    def __init__(self) -> None:
        self.address = ""
        self.open_blobs = 0
        self.blobs_begun = 0
        self.finish = asyncio.Event()
        self.failing: int | None = None
        layer = tar_of({"data": os.urandom(1 << 20)})
        self._layer = gzip.compress(layer, 1)
        self._config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(self._config),
                    "digest": _digest(self._config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(self._layer),
                        "digest": _digest(self._layer),
                    }
                ],
            }
        ).encode()
        app = web.Application(middlewares=[self._fail])
        app.router.add_get("/v2/", self._answer_version)
        app.router.add_get("/v2/slow/manifests/{reference}", self._answer_manifest)
        app.router.add_get("/v2/slow/blobs/{digest}", self._answer_blob)
        app.router.add_post("/v2/{name}/blobs/uploads/", self._refuse)
        # handler_cancellation: a download that the Engine gives up shows as a cancelled handler.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)

    @property
    def image(self) -> str:
        return f"{self.address}/slow:1"

    @property
    def digest(self) -> str:
        return _digest(self.manifest)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        self._socket = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, self._socket).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An Engine may connect at the very end. What asyncio has accepted, but not yet made a transport of when the
        # server closes, it forgets to close (CPython 3.11): so first no more is accepted.
        asyncio.get_running_loop().remove_reader(self._socket)
        for _ in range(10):
            await asyncio.sleep(0)
        await self._runner.cleanup()

    @web.middleware
    async def _fail(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.failing is None or request.path == "/v2/":
            return await handler(request)
        code = "TOOMANYREQUESTS" if self.failing == 429 else "UNKNOWN"
        return web.json_response({"errors": [{"code": code, "message": "not now"}]}, status=self.failing)

    async def _answer_version(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _answer_manifest(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self.manifest, content_type=MANIFEST_TYPE, headers={"Docker-Content-Digest": self.digest}
        )

    async def _answer_blob(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["digest"] == _digest(self._config):
            return web.Response(body=self._config)
        response = web.StreamResponse(headers={"Content-Length": str(len(self._layer))})
        await response.prepare(request)
        self.open_blobs += 1
        self.blobs_begun += 1
        try:
            sent = 0
            # A trickle, not silence: Docker 20.10 reads on after a cancelled pull, and hangs up at the next bytes.
            while not self.finish.is_set() and sent < len(self._layer) // 2:
                await response.write(self._layer[sent : sent + 256])
                sent += 256
                await asyncio.sleep(0.01)
            await self.finish.wait()
            await response.write(self._layer[sent:])
            return response
        finally:
            self.open_blobs -= 1

    async def _refuse(self, _: web.Request) -> web.Response:
        # 401 without a challenge. With the code's standard message, Docker 20.10 does not recognise the code as
        # final, and retries for 50 seconds.
        error = {"code": "UNAUTHORIZED", "message": "no pushing here"}
        return web.json_response({"errors": [error]}, status=401)

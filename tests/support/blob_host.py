"""The other host that a registry redirects to for its blobs, as registries on an object store do."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

from aiodocker_images.testing._listening import tcp_listener

from .web_server import WebServer


class BlobHost:
    """Serves the directory `storage`, Range included, at `url` on another port of 127.0.0.1.

    Start it first, give its `url` to `engines.Registry(redirect=...)`, then set `storage` to that registry's.

    Attributes: `requests`, the method, path and headers of each request, from the first one on.
    """

    def __init__(self) -> None:
        self.url = ""
        self.storage: Path | None = None
        self.requests: list[tuple[str, str, CIMultiDict[str]]] = []
        app = web.Application()
        app.router.add_get("/{path:.*}", self._file)  # HEAD too
        self._app = app
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        listener = tcp_listener()
        await self._open.enter_async_context(WebServer(self._app, listener))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def _file(self, request: web.Request) -> web.FileResponse:
        self.requests.append((request.method, request.path, CIMultiDict(request.headers)))
        assert self.storage is not None
        file = (self.storage / request.match_info["path"]).resolve()
        if not file.is_relative_to(self.storage.resolve()) or not file.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(file)

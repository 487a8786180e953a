"""A daemon that reads requests with a server's own parser, and what they bring as an Engine does: what is lied to."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from aiohttp import web

from aiodocker_images.testing._listening import unix_listener

from .tars import tar_of
from .web_server import WebServer

API_VERSION: Final = "1.51"
MAX_BODY: Final = 1 << 30
ID: Final = "sha256:" + "ab" * 32
ARCHIVE: Final = tar_of({"manifest.json": "[]"})

# What it is sent is broken on purpose, and nobody wants to read of it.
_LOGGER: Final = logging.getLogger(__name__)
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False

_VERSION: Final = r"/{version:v1\.[0-9]+}"


@contextlib.asynccontextmanager
async def strict_daemon(socket: Path) -> AsyncGenerator[None, None]:
    """Listen at `socket`. What is no request gets status 400, and a body that is no tar 500, as Engines answer."""
    app = web.Application(client_max_size=MAX_BODY)
    app.add_routes(
        [
            web.get("/_ping", _ping),
            web.post(f"{_VERSION}/images/create", _create),
            web.post(f"{_VERSION}/images/{{name:.+}}/push", _push),
            web.post(f"{_VERSION}/images/load", _load),
            web.get(f"{_VERSION}/images/{{name:.+}}/get", _save),
            web.post(f"{_VERSION}/build", _build),
            web.get(f"{_VERSION}/events", _events),
        ]
    )
    async with WebServer(app, unix_listener(socket), logger=_LOGGER):
        yield


async def _ping(_: web.Request) -> web.Response:
    return web.Response(text="OK", headers={"Api-Version": API_VERSION})


async def _create(request: web.Request) -> web.Response:
    if "fromImage" in request.query:
        return _frames({"status": "Pulling from library/alpine", "id": "3.20"}, {"status": f"Digest: {ID}"}, PULLED)
    return await _taken(request, {"status": ID})


PULLED: Final = {"status": "Status: Downloaded newer image for alpine:3.20"}


async def _push(_: web.Request) -> web.Response:
    return _frames({"status": "Pushed", "id": "0123456789ab"}, {"aux": {"Tag": "3.20", "Digest": ID, "Size": 528}})


async def _load(request: web.Request) -> web.Response:
    return await _taken(request, {"stream": "Loaded image: alpine:3.20\n"})


async def _save(_: web.Request) -> web.Response:
    return web.Response(body=ARCHIVE, content_type="application/x-tar")


async def _build(request: web.Request) -> web.Response:
    return await _taken(request, {"aux": {"ID": ID}}, {"stream": "Successfully built abababababab\n"})


async def _events(_: web.Request) -> web.Response:
    return _frames({"Type": "image", "Action": "pull", "Actor": {"ID": "alpine:3.20"}, "time": 1, "timeNano": 1})


async def _taken(request: web.Request, *frames: object) -> web.Response:
    """Read the body to its end, and answer what it is worth."""
    try:
        with tarfile.open(fileobj=io.BytesIO(await request.read()), mode="r:") as archive:
            archive.getmembers()
    except tarfile.TarError as error:
        return web.json_response({"message": f"archive/tar: {error}"}, status=500)
    return _frames(*frames)


def _frames(*frames: object) -> web.Response:
    lines = "".join(json.dumps(frame) + "\r\n" for frame in frames)
    return web.Response(text=lines, content_type="application/json")

"""Every method that is cancelled while the Engine is silent ends, and leaves nothing. All methods are tried."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from aiodocker_images import ImageService, MirrorJob, RegistryAuth, StaticKeychain, mirror, transfer
from tests.conftest import Leftovers
from tests.support.scripted import Exchange, ScriptedDaemon

PATIENCE = 60.0
"""Seconds in which what takes a moment must have happened, on any machine."""

SOURCE = {"source": b"an archive"}
NEEDED: dict[str, dict[str, Any]] = {
    "request": {"method": "GET", "path": "/info"},
    "tag": {"source": "a", "target": "b"},
    "search": {"term": "word"},
    "login": {"auth": RegistryAuth(username="me", password="x")},
    "load": SOURCE,
    "load_stream": SOURCE,
    "import_image": SOURCE,
    "import_stream": SOURCE,
    "build": {"context": b"", "tags": "a"},
    "build_stream": {"context": b"", "tags": "a"},
}
WITHOUT_ENGINE = {"aclose", "end_with"}
METHODS = [
    name
    for name, _ in inspect.getmembers(ImageService, inspect.isfunction)
    if not name.startswith("_") and name not in WITHOUT_ENGINE
]


async def drained(stream: AsyncGenerator[object, None]) -> None:
    async for _ in stream:
        pass


async def call(images: ImageService, name: str, directory: Path) -> None:
    """Call a method with what it needs, and wait for its end."""
    if name == "mirror":
        await drained(mirror(images, [MirrorJob("a.example/a:1", "b.example/a:1")], retry=None))
        return
    if name == "transfer":
        await drained(transfer(images, images, "a", "b"))
        return
    method = getattr(images, name)
    needed = NEEDED.get(name, {})
    if name == "save":
        needed = {"to": directory / "image.tar"}
    parameters = inspect.signature(method).parameters
    if "reference" in parameters and parameters["reference"].default is inspect.Parameter.empty:
        needed = {"reference": "a", **needed}
    result: object = method(*(("a",) if "references" in parameters else ()), **needed)
    if inspect.isasyncgen(result):
        await drained(cast("AsyncGenerator[object, None]", result))
    elif inspect.isawaitable(result):
        await result


SILENT = ("before the ping", "after the ping", "in the middle of an answer")
CASES = [
    (name, silent)
    for name in (*METHODS, "mirror", "transfer")
    for silent in SILENT
    if (name, silent) != ("ping", "in the middle of an answer")  # which has no body
]


@pytest.mark.parametrize(("name", "silent"), CASES, ids=[f"{name}, {silent}" for name, silent in CASES])
async def test_a_method_that_is_cancelled_while_the_engine_is_silent_leaves_nothing(
    daemon: ScriptedDaemon, tmp_path: Path, leftovers: Leftovers, name: str, silent: str
) -> None:
    asked = asyncio.Event()

    async def never(exchange: Exchange) -> None:
        if silent == "in the middle of an answer":
            await exchange.head()
            await exchange.chunk(b" ")
        asked.set()
        await exchange.client_gone()

    daemon.api_version = "1.55"  # the first one that has every method
    daemon.otherwise = never
    if silent == "before the ping" or name == "ping":
        daemon.on("HEAD", "/_ping", never)
        daemon.on("GET", "/_ping", never)
    before = leftovers.now()
    async with ImageService(daemon.socket, keychain=StaticKeychain({})) as images:
        task = asyncio.create_task(call(images, name, tmp_path))
        async with asyncio.timeout(PATIENCE):
            waiting = asyncio.create_task(asked.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            assert not task.done(), task
            await waiting
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert list(tmp_path.iterdir()) == []
    await daemon.idle()
    await leftovers.settle(before, within=PATIENCE)

"""The guard knows what it needs of aiohttp, and leaves the reading to aiohttp where something of that is missing."""

from __future__ import annotations

import aiohttp
import pytest

from aiodocker_images import ImageService
from aiodocker_images._http import guard
from tests.support.scripted import ScriptedDaemon
from tests.unit.api.test_transfers import ARCHIVE, DIGEST, PULL, frames, save


def test_aiohttp_has_all_that_is_used_beside_its_documentation() -> None:
    assert guard.unknown_parts() == [], (
        f"aiohttp {aiohttp.__version__} changed what _http/guard.py and _http/response_body.py use: they read in"
        " aiohttp's own way now. Adapt them, and guard.USED."
    )


def test_what_a_new_aiohttp_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(aiohttp.StreamReader, "set_exception")
    monkeypatch.setitem(guard.USED, "aiohttp.client_proto:Gone", ("data_received",))
    assert guard.unknown_parts() == ["aiohttp:StreamReader.set_exception", "aiohttp.client_proto:Gone"]


async def test_without_a_part_of_aiohttp_answers_are_read_in_its_own_way(
    daemon: ScriptedDaemon, images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_UNKNOWN", ("aiohttp:StreamReader.set_exception",))
    monkeypatch.setattr(guard.Guard, "__init__", None)  # it would be called if there were a guard
    daemon.on("POST", "/images/create", frames(*PULL))
    daemon.on("GET", "/images/alpine:3.20/get", save)
    assert (await images.pull("alpine:3.20")).digest == DIGEST
    assert b"".join([chunk async for chunk in images.save_stream("alpine:3.20")]) == ARCHIVE

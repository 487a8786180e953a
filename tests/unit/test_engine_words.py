"""What counts as the Engine's word: its version, also after it was replaced, and the status that a call is given."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from aiodocker_images import (
    ArchiveError,
    FrameDecodeError,
    ImageService,
    RegistryAuth,
    UnsupportedAPIVersionError,
)
from tests.support.scripted import Exchange, ScriptedDaemon


def _another_engine_comes_up(daemon: ScriptedDaemon, version: str) -> None:
    """From now on the Engine speaks `version` alone, as after an upgrade, or the way back."""
    daemon.api_version = version

    async def answer(exchange: Exchange) -> None:
        spoken = exchange.target.split("/")[1].removeprefix("v")
        head = {"Api-Version": version, "Content-Type": "application/json"}
        if spoken == version:
            await exchange.answer(b"[]", 200, head)
            return
        which = "old. Minimum" if spoken < version else "new. Maximum"
        message = f"client version {spoken} is too {which} supported API version is {version}, please upgrade"
        await exchange.answer(json.dumps({"message": message}).encode(), 400, head)

    daemon.on("GET", "/images/json", answer)
    daemon.on("DELETE", "/images/alpine:latest", answer)


@pytest.mark.parametrize("version", ["1.44", "1.54"])
async def test_after_the_engine_is_replaced_its_own_api_version_is_spoken(
    daemon: ScriptedDaemon, images: ImageService, version: str
) -> None:
    """It refuses the other's version before it does anything, so the same call is sent once more."""
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([]))
    await images.list()
    _another_engine_comes_up(daemon, version)
    assert await images.remove("alpine") == []
    assert await images.list() == []
    assert [each.target.split("/")[1] for each in daemon.requests if each.method != "HEAD"] == [
        "v1.51",
        "v1.51",
        *[f"v{version}"] * 2,
    ]


async def test_a_version_that_the_caller_insists_on_is_kept(daemon: ScriptedDaemon) -> None:
    _another_engine_comes_up(daemon, "1.54")
    async with ImageService(daemon.socket, api_version="1.44") as images:
        with pytest.raises(UnsupportedAPIVersionError):
            await images.list()
    assert len(daemon.paths) == 1


@pytest.mark.parametrize("by_ping", [True, False])
async def test_a_newer_engine_is_noticed_by_any_answer_and_by_a_ping(
    daemon: ScriptedDaemon, images: ImageService, by_ping: bool
) -> None:
    """It would go on to understand the older version, without its newer features."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(b"[]", 200, {"Api-Version": daemon.api_version or ""})

    daemon.on("GET", "/images/json", answer)
    await images.list()
    daemon.api_version = "1.54"
    await (images.ping() if by_ping else images.list())
    await images.list(identity=True)
    await images.list()
    assert [each.target.split("/")[1] for each in daemon.requests if each.method != "HEAD"][-2:] == ["v1.54", "v1.54"]
    assert daemon.pings == 3 if by_ping else 2


async def test_a_daemon_that_contradicts_its_ping_is_asked_once_more_only(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer(b"[]", 200, {"Api-Version": "1.48"}))
    for _ in range(5):
        await images.list()
    assert daemon.pings == 2


LOGIN_PAGE = b"<html><body>Please log in</body></html>"

NO_SUCCESS: dict[str, tuple[Callable[[ImageService], Awaitable[object]], str, str]] = {
    "tag": (lambda images: images.tag("alpine", "b"), "POST", "/images/alpine:latest/tag"),
    "remove": (lambda images: images.remove("alpine"), "DELETE", "/images/alpine:latest"),
    "prune": (lambda images: images.prune(), "POST", "/images/prune"),
    "inspect": (lambda images: images.inspect("alpine"), "GET", "/images/alpine:latest/json"),
    "list": (lambda images: images.list(), "GET", "/images/json"),
    "login": (lambda images: images.login(RegistryAuth(username="u", password="p")), "POST", "/auth"),
    "pull": (lambda images: images.pull("alpine"), "POST", "/images/create"),
    "push": (lambda images: images.push("alpine"), "POST", "/images/alpine/push"),
    "load": (lambda images: images.load(b"x"), "POST", "/images/load"),
    "save": (lambda images: images.save("alpine", to="/dev/null"), "GET", "/images/alpine:latest/get"),
    "version": (lambda images: images.version(), "GET", "/version"),
}


@pytest.mark.parametrize(("call", "method", "path"), NO_SUCCESS.values(), ids=NO_SUCCESS)
@pytest.mark.parametrize(
    ("status", "body"), [(200, LOGIN_PAGE), (202, b""), (202, b"{}"), (204, b""), (206, b"[]")], ids=ascii
)
async def test_a_login_page_or_an_unexpected_2xx_is_not_the_engines_answer(
    daemon: ScriptedDaemon,
    images: ImageService,
    call: Callable[[ImageService], Awaitable[object]],
    method: str,
    path: str,
    status: int,
    body: bytes,
) -> None:
    daemon.on(method, path, lambda exchange: exchange.answer(body, status))
    if (method, status) == ("POST", 204) and path == "/auth":
        await call(images)  # the API's "no content": the credentials hold
        return
    with pytest.raises((FrameDecodeError, ArchiveError)) as caught:
        await call(images)
    if status != 200:
        assert f"has status {status}" in caught.value.message

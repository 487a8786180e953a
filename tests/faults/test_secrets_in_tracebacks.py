"""A cancellation or a timeout of an operation has no secret in its traceback, whose variables crash reporters show."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
import types
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import rich.pretty

from aiodocker_images import DockerError, DockerKeychain, ImageService, RegistryAuth, StaticKeychain
from aiodocker_images.testing._listening import listening, streams, unix_listener
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.stepwise import MOMENTS, Moment, Stepwise

SECRET = "Vl9s3cretQ"
AUTH = RegistryAuth(username="me", password=SECRET)
REGISTRY = "r.example:5000"
IMAGE = f"{REGISTRY}/app:1"
DIGEST = "sha256:" + "ab" * 32

Call = Callable[[ImageService], Awaitable[object]]

CALLS: dict[str, Call] = {
    "pull": lambda images: images.pull(IMAGE, auth=AUTH),
    "pull by the keychain": lambda images: images.pull(IMAGE),
    "push": lambda images: images.push(IMAGE, auth=AUTH),
    "push by the keychain": lambda images: images.push(IMAGE),
    "build": lambda images: images.build(io_context(), auths={REGISTRY: AUTH}),
    "build by the keychain": lambda images: images.build(io_context()),
    "search": lambda images: images.search("app", auth=AUTH),
    "inspect_distribution": lambda images: images.inspect_distribution(IMAGE, auth=AUTH),
    "inspect_distribution by the keychain": lambda images: images.inspect_distribution(IMAGE),
    "login": lambda images: images.login(RegistryAuth(username="me", password=SECRET, server_address=REGISTRY)),
    "list": lambda images: images.list(),
}


def io_context() -> Path:
    return Path(__file__).parent


def told(value: object, depth: int = 3) -> str:
    """Return all that a reporter could show of a variable: what it prints as, and what containers and objects hold."""
    text = repr(value) + rich.pretty.pretty_repr(value)
    if depth and isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        text += "".join(told(each, depth - 1) for pair in list(members.items()) for each in pair)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        text += "".join(told(each, depth - 1) for each in list(cast("Iterable[object]", value)))
    return text


def frames_of(error: BaseException) -> Generator[types.FrameType, None, None]:
    """Yield every frame that an exception, and what is behind it, has come through."""
    chain: list[BaseException] = [error]
    for each in chain:
        trace = each.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
        chain += [more for more in (each.__cause__, each.__context__) if more is not None and more not in chain]


def assert_nothing_shown(error: BaseException) -> None:
    secrets = (SECRET, *(base64.b64encode((" " * pad + SECRET).encode()).decode()[4:-4] for pad in range(3)))
    for frame in frames_of(error):
        if frame.f_code.co_filename == __file__ or "/support/" in frame.f_code.co_filename:
            continue  # who asks knows the secret
        for name, value in frame.f_locals.items():
            shown = told(value)
            assert not any(secret in shown for secret in secrets), f"{name} in {frame.f_code.co_qualname}"


@pytest.fixture
def scripted(daemon: ScriptedDaemon) -> ScriptedDaemon:
    async def frames(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        await exchange.frames(
            {"status": f"Digest: {DIGEST}"},
            {"status": "Status: Downloaded"},
            {"status": f"1: digest: {DIGEST} size: 5"},
            {"stream": "Successfully built " + DIGEST[7:]},
        )
        await exchange.end()

    async def document(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer_json({})

    async def documents(exchange: Exchange) -> None:
        await exchange.answer_json([])

    for path in ("/images/create", f"/images/{REGISTRY}/app/push", "/build"):
        daemon.on("POST", path, frames)
    daemon.on("POST", "/auth", document)
    daemon.on("GET", f"/distribution/{IMAGE}/json", document)
    daemon.on("GET", "/images/search", documents)
    daemon.on("GET", "/images/json", documents)
    return daemon


@pytest.fixture
def keychain(tmp_path: Path) -> DockerKeychain:
    """Credentials in the environment, as `DOCKER_AUTH_CONFIG` has them."""
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    environ = {
        "DOCKER_AUTH_CONFIG": json.dumps({"auths": {REGISTRY: {"auth": encoded}}}),
        "DOCKER_CONFIG": str(tmp_path),
        "REGISTRY_AUTH_FILE": str(tmp_path / "nowhere"),
    }
    return DockerKeychain(environ=environ)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_cancellation_at_any_await_point_carries_no_secret(
    scripted: ScriptedDaemon,
    keychain: DockerKeychain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    moment: Moment,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"Authorization": SECRET}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    met, at = True, 0
    while met:
        at += 1

        async def run() -> object:
            async with ImageService(scripted.socket, keychain=keychain) as images:
                return await CALLS[name](images)

        stepwise = Stepwise(run(), at, moment)

        async def watched(stepwise: Stepwise[Any] = stepwise) -> None:
            try:
                await stepwise
            except (asyncio.CancelledError, DockerError) as error:
                assert_nothing_shown(error)

        await asyncio.create_task(watched())
        met = stepwise.met
        await scripted.idle()
    assert at > 2


async def test_a_timeout_of_the_callers_carries_no_secret(daemon: ScriptedDaemon) -> None:
    """And what the caller was handling when it asked keeps its frames."""

    async def silent(exchange: Exchange) -> None:
        await exchange.client_gone()

    daemon.on("POST", "/images/create", silent)
    outer = None
    async with ImageService(daemon.socket, keychain=StaticKeychain({REGISTRY: AUTH})) as images:
        await images.ping()
        try:
            try:
                raise KeyError("what the caller was handling")  # noqa: TRY301 - it is to be handled here
            except KeyError as error:
                outer = error
                async with asyncio.timeout(0.2):
                    await images.pull(IMAGE)
        except TimeoutError as error:
            assert isinstance(error.__cause__, asyncio.CancelledError)
            assert_nothing_shown(error)
            functions = [frame.f_code.co_name for frame in frames_of(error.__cause__)]
            assert "_frames" in functions
        else:
            pytest.fail("it did not run out of time")
    assert outer is not None
    assert outer.__traceback__ is not None
    assert sys.exception() is None


async def test_a_ping_that_is_answered_with_no_http_carries_no_header(
    short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of aiohttp has the headers of the request, and so have the variables of its frames."""
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"Authorization": SECRET}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    asked = b""

    async def babble(connection: socket.socket) -> None:
        nonlocal asked
        async with streams(connection, limit=1 << 16) as (reader, writer):
            asked += await reader.readuntil(b"\r\n\r\n")
            writer.write(b"220 mail.example ESMTP\r\n\r\n")
            writer.close()
            await writer.wait_closed()

    path = short_path / "babble.sock"
    async with listening(babble, unix_listener(path)), ImageService(path) as images:
        with pytest.raises(DockerError) as caught:
            await images.ping()
    assert SECRET.encode() in asked
    assert_nothing_shown(caught.value)
    for error in (caught.value, caught.value.__cause__, caught.value.__context__):
        assert SECRET not in repr(error)

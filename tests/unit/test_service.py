"""The life of a service: opening, negotiating, waiting, closing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiodocker_images import (
    APIError,
    ConfigError,
    ContextNotFoundError,
    DaemonUnreachableError,
    FrameDecodeError,
    ImageService,
    ImageSummary,
    ServiceClosedError,
    StreamInterruptedError,
    StreamStalledError,
    UnsupportedAPIVersionError,
)
from aiodocker_images._http import transport as _transport
from aiodocker_images.testing._listening import listening, streams, tcp_listener
from tests.conftest import Leftovers
from tests.support.docker_contexts import write_context
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.tars import tar_of

IMAGE = {"Id": "sha256:" + "1" * 64, "RepoTags": ["alpine:3.20"]}
DONE = {"status": "Status: Downloaded newer image for alpine:3.20"}


async def answer_image(exchange: Exchange) -> None:
    await exchange.answer_json(IMAGE)


async def pull_for_ever(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.frames({"status": "Pulling fs layer", "id": "0123456789ab"})
    await exchange.client_gone()


def test_a_service_is_made_without_an_event_loop_and_without_io() -> None:
    service = ImageService("/nowhere/docker.sock", max_connections=1)
    assert str(service.endpoint) == "unix:///nowhere/docker.sock"
    assert repr(service) == "ImageService('unix:///nowhere/docker.sock')"
    asyncio.run(service.aclose())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"endpoint": "gopher://host"}, ConfigError),
        ({"api_version": "latest"}, ConfigError),
        ({"api_version": "1.24"}, UnsupportedAPIVersionError),
        ({"max_connections": 0}, ValueError),
        ({"idle_timeout": 0}, ValueError),
        ({"connect_timeout": -1}, ValueError),
    ],
    ids=["scheme", "version", "old version", "no streams", "no idling", "no connecting"],
)
def test_a_wrong_argument_raises_at_once(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ImageService(**options)  # type: ignore[arg-type]  # wrong on purpose


PINNED: dict[str, tuple[str | None, str, str]] = {
    "the variable": (None, "1.43", "v1.43"),
    "the argument beats it": ("1.44", "1.43", "v1.44"),
    "an empty one is none": (None, "", "v1.51"),
}


@pytest.mark.parametrize(("argument", "variable", "spoken"), PINNED.values(), ids=PINNED)
async def test_the_version_of_the_environment_is_spoken(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, argument: str | None, variable: str, spoken: str
) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", variable)
    daemon.on("GET", "/images/alpine:3.20/json", answer_image)
    async with ImageService(daemon.socket, api_version=argument) as images:
        await images.inspect("alpine:3.20")
    assert daemon.requests[-1].target.startswith(f"/{spoken}/")


def test_an_invalid_version_in_the_environment_is_a_named_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", "latest")
    with pytest.raises(
        ConfigError, match=r"^'latest' is not an Engine API version such as 1\.41 \(from DOCKER_API_VERSION\)$"
    ):
        ImageService()
    monkeypatch.setenv("DOCKER_API_VERSION", "1.24")
    with pytest.raises(UnsupportedAPIVersionError, match=r"this client \(from DOCKER_API_VERSION\) needs"):
        ImageService()


async def test_an_error_says_who_chose_the_endpoint(
    daemon: ScriptedDaemon, short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By status, in a stream, and where nothing answers; only what the caller gave itself needs no saying."""

    async def fail(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames({"error": "broken"})
        await exchange.end()

    daemon.on("POST", "/images/create", fail)
    path = write_context(tmp_path, "prod", Host=f"unix://{daemon.socket}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "prod")
    chosen = f'at unix://{daemon.socket} from context "prod" in {path})'
    async with ImageService() as images:
        for call in (images.pull("alpine"), images.inspect("alpine")):
            with pytest.raises(APIError) as caught:
                await call
            assert str(caught.value).endswith(chosen)
            assert str(pickle.loads(pickle.dumps(caught.value))).endswith(chosen)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{short_path}/nowhere.sock")
    async with ImageService() as images:
        with pytest.raises(DaemonUnreachableError) as unreachable:
            await images.ping()
        assert str(unreachable.value).endswith(f"(at unix://{short_path}/nowhere.sock from DOCKER_HOST)")
    async with ImageService(short_path / "nowhere.sock") as images:
        with pytest.raises(DaemonUnreachableError) as unreachable:
            await images.ping()
        assert str(unreachable.value).endswith(f"(at unix://{short_path}/nowhere.sock)")


async def test_the_headers_of_the_configuration_go_along(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the docker CLI; those of our own are our own, however they are spelt there."""
    headers = {"X-Tenant": "blue ü", "user-agent": "Mine/1.0", "ACCEPT-ENCODING": "gzip", "host": "x", "TE": "x"}
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": headers}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    daemon.on("GET", "/images/alpine:3.20/json", answer_image)
    async with ImageService(daemon.socket) as images:
        await images.inspect("alpine:3.20")
    for request in daemon.requests:
        assert request.headers["x-tenant"].encode("latin-1").decode() == "blue ü"
        assert request.headers["user-agent"].startswith("aiodocker-images/")
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["host"] == "docker"
        assert "te" not in request.headers


@pytest.mark.parametrize(
    "header", [{"X": "s3cret\r\nY: 1"}, {"X": "s3cret\0"}, {"X Y": "s3cret"}, {"": "s3cret"}, {"X:": "s3cret"}], ids=str
)
async def test_an_invalid_header_is_left_out_with_a_warning_without_its_value(
    daemon: ScriptedDaemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    header: dict[str, str],
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": header}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    async with ImageService(daemon.socket) as images:
        await images.ping()
    (message,) = caplog.messages
    assert message.startswith(f"'HttpHeaders' in {tmp_path}/config.json: ")
    assert "s3cret" not in message
    assert "s3cret" not in str(daemon.requests[-1].headers)


async def test_a_configuration_that_makes_no_sense_is_told_at_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "prod")
    async with ImageService() as images:
        with pytest.raises(
            ContextNotFoundError, match=r"^ping: there is no docker context 'prod' \(from DOCKER_CONTEXT\)"
        ):
            await images.ping()


async def test_a_named_pipe_is_dialled_by_its_windows_name(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loop that has pipes, as the default one of Windows does; here a socket stands in for the pipe."""
    loop = asyncio.get_running_loop()
    dialled: list[str] = []

    async def dial(factory: Callable[[], asyncio.Protocol], path: str) -> object:
        dialled.append(path)
        return await loop.create_unix_connection(factory, str(daemon.socket))

    monkeypatch.setattr(asyncio, "ProactorEventLoop", type(loop), raising=False)
    monkeypatch.setattr(loop, "create_pipe_connection", dial, raising=False)
    daemon.on("GET", "/images/alpine:3.20/json", answer_image)
    async with ImageService("npipe:////./pipe/docker_engine") as images:
        await images.inspect("alpine:3.20")
    assert set(dialled) == {r"\\.\pipe\docker_engine"}


async def test_a_named_pipe_needs_windows() -> None:
    async with ImageService("npipe:////./pipe/docker_engine") as images:
        with pytest.raises(ConfigError, match="needs Windows"):
            await images.ping()


async def test_a_base_path_leads_every_request(unused_tcp_port: int) -> None:
    """A proxy may offer an Engine under a path."""
    targets: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        targets.append(request.raw_path)
        return web.json_response([], headers={"Api-Version": "1.45"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        async with ImageService(f"tcp://127.0.0.1:{unused_tcp_port}/engines/one") as images:
            await images.list()
    finally:
        await runner.cleanup()
    assert targets == ["/engines/one/_ping", "/engines/one/v1.45/images/json"]


async def test_fifty_first_calls_make_one_ping(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("GET", "/images/alpine:3.20/json", answer_image)
    await asyncio.gather(*(images.inspect("alpine:3.20") for _ in range(50)))
    await images.inspect("alpine:3.20")
    assert daemon.pings == 1
    assert len(daemon.paths) == 51


async def test_fifty_first_calls_share_one_failing_ping(short_path: Path) -> None:
    """Each raises an exception of its own, which names its own operation, and the next call asks again."""
    path = short_path / "docker.sock"
    async with ImageService(path) as images:
        results = await asyncio.gather(*(images.inspect(f"image{n}") for n in range(50)), return_exceptions=True)
        assert {type(result) for result in results} == {DaemonUnreachableError}
        assert len({id(result) for result in results}) == 50
        assert [str(result).partition(":")[0] for result in results] == [f"inspect image{n}" for n in range(50)]
        async with ScriptedDaemon(path) as daemon:
            daemon.on("GET", "/images/alpine:3.20/json", answer_image)
            assert (await images.inspect("alpine:3.20")).id == IMAGE["Id"]


async def test_cancelling_the_first_caller_leaves_the_others_their_ping(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow_ping(exchange: Exchange) -> None:
        asked.set()
        await may_answer.wait()
        await exchange.answer(b"", headers={"Api-Version": "1.45"})

    daemon.on("HEAD", "/_ping", slow_ping)
    daemon.on("GET", "/images/alpine:3.20/json", answer_image)
    first = asyncio.create_task(images.inspect("alpine:3.20"))
    await asked.wait()
    second = asyncio.create_task(images.inspect("alpine:3.20"))
    await asyncio.sleep(0)
    first.cancel()
    may_answer.set()
    assert (await second).id == IMAGE["Id"]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert daemon.pings == 1


@pytest.mark.parametrize(
    ("theirs", "spoken"), [("1.41", "v1.41"), ("1.51", "v1.51"), ("1.56", "v1.56"), ("1.99", "v1.56")]
)
async def test_the_older_of_both_versions_is_spoken(short_path: Path, theirs: str, spoken: str) -> None:
    async with (
        ScriptedDaemon(short_path / "docker.sock", api_version=theirs) as daemon,
        ImageService(daemon.socket) as images,
    ):
        daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([]))
        await images.list()
        assert daemon.requests[-1].target.startswith(f"/{spoken}/")


async def test_a_daemon_too_old_is_an_error_that_names_both_versions(short_path: Path) -> None:
    async with (
        ScriptedDaemon(short_path / "docker.sock", api_version="1.40") as daemon,
        ImageService(daemon.socket) as images,
    ):
        with pytest.raises(UnsupportedAPIVersionError, match=r"^list: .*1\.41.*1\.40"):
            await images.list()
        assert daemon.paths == []


async def test_a_daemon_that_refuses_our_version_is_an_error_that_names_both(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    """It is asked again what it speaks, once for the same call: another one may have come up at the same socket."""

    async def refuse(exchange: Exchange) -> None:
        message = "client version 1.51 is too old. Minimum supported API version is 1.60, please upgrade your client"
        await exchange.answer_json({"message": message}, 400)

    daemon.on("GET", "/images/json", refuse)
    with pytest.raises(UnsupportedAPIVersionError, match=r"1\.60.*1\.51") as caught:
        await images.list()
    assert (caught.value.required, caught.value.actual) == ("1.60", "1.51")
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([]))
    await images.list()
    assert daemon.pings == 3


async def test_a_given_version_is_spoken_without_asking(daemon: ScriptedDaemon) -> None:
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([]))
    async with ImageService(daemon.socket, api_version="1.43") as images:
        await images.list()
    assert daemon.pings == 0
    assert daemon.requests[-1].target == "/v1.43/images/json"


async def test_a_ping_falls_back_to_get_where_head_is_refused(daemon: ScriptedDaemon, images: ImageService) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(b"", 403)

    daemon.on("HEAD", "/_ping", refuse)
    assert (await images.ping()).api_version == "1.51"


async def speak_no_http(exchange: Exchange) -> None:
    await exchange.send(b"220 mail.example ESMTP\r\n")
    exchange.cut()


async def no_engine(exchange: Exchange) -> None:
    await exchange.answer(b"<html>Welcome to nginx!</html>")


async def say_nonsense(exchange: Exchange) -> None:
    await exchange.answer(b"", headers={"Api-Version": "banana"})


@pytest.mark.parametrize(
    ("handler", "words"),
    [(speak_no_http, "does not speak HTTP"), (no_engine, "no Docker Engine"), (say_nonsense, "banana")],
    ids=["no http", "no engine", "no version"],
)
async def test_what_is_no_daemon_is_unreachable(
    daemon: ScriptedDaemon, images: ImageService, handler: Callable[[Exchange], Awaitable[None]], words: str
) -> None:
    daemon.on("HEAD", "/_ping", handler)
    daemon.on("GET", "/_ping", handler)
    with pytest.raises(DaemonUnreachableError, match=words) as caught:
        await images.inspect("alpine:3.20")
    assert str(caught.value).startswith("inspect alpine:3.20: ")
    assert str(daemon.socket) in str(caught.value)


async def test_no_daemon_no_socket_and_no_permission_are_told_apart(short_path: Path) -> None:
    plain = short_path / "file"
    plain.write_text("")
    silent = short_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(silent))  # and never listens
        for path, words in [
            (short_path / "absent.sock", "there is no such socket"),
            (plain, "not a socket"),
            (silent, "nothing listens"),
        ]:
            async with ImageService(path) as images:
                with pytest.raises(DaemonUnreachableError, match=words) as caught:
                    await images.pull("alpine")
            assert str(caught.value).startswith("pull alpine:latest: cannot connect: ")
            assert str(path) in str(caught.value)
            assert isinstance(caught.value, ConnectionError)
            assert isinstance(caught.value.__cause__, OSError)


async def test_an_error_names_who_chose_the_endpoint(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{short_path}/gone.sock")
    async with ImageService() as images:
        with pytest.raises(DaemonUnreachableError, match="DOCKER_HOST"):
            await images.ping()


async def test_tcp_reaches_a_daemon_and_a_closed_port_does_not(daemon: ScriptedDaemon) -> None:
    async def forward(connection: socket.socket) -> None:
        async with streams(connection, limit=1 << 16) as (reader, writer):
            await exchange(reader, writer)

    async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_daemon, to_daemon = await asyncio.open_unix_connection(daemon.socket)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
            target.close()

        await asyncio.gather(copy(reader, to_daemon), copy(from_daemon, writer))

    listener = tcp_listener()
    port = listener.getsockname()[1]
    async with listening(forward, listener):
        async with ImageService(f"tcp://127.0.0.1:{port}") as images:
            assert (await images.ping()).api_version == "1.51"
        await daemon.idle()
    async with ImageService(f"tcp://127.0.0.1:{port}") as images:
        with pytest.raises(DaemonUnreachableError, match=f"tcp://127.0.0.1:{port}"):
            await images.ping()


async def test_a_control_call_never_queues_behind_streams(daemon: ScriptedDaemon) -> None:
    """Streams wait for one of `max_connections` slots; pings and inspections pass them by."""
    daemon.on("POST", "/images/create", pull_for_ever)
    daemon.on("GET", "/images/alpine:3.20/json", answer_image)
    async with ImageService(daemon.socket, max_connections=2) as images, asyncio.timeout(10):
        pulls = [images.pull_stream("alpine:3.20") for _ in range(2)]
        for pull in pulls:
            await anext(pull)
        third = asyncio.create_task(images.pull("alpine:3.20"))
        await asyncio.gather(*(images.inspect("alpine:3.20") for _ in range(50)))
        await images.ping()
        assert daemon.paths.count("POST /images/create") == 2
        await pulls[0].aclose()
        while daemon.paths.count("POST /images/create") < 3:
            await asyncio.sleep(0.005)
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third
        await pulls[1].aclose()
        await daemon_has_no_pull(daemon)


async def daemon_has_no_pull(daemon: ScriptedDaemon) -> None:
    pulls = [exchange for exchange in daemon.requests if exchange.path == "/images/create"]
    async with asyncio.timeout(5):
        for pull in pulls:
            await pull.closed.wait()


async def test_two_hundred_streams_at_once_leave_control_calls_alone(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers
) -> None:
    daemon.on("POST", "/images/create", pull_for_ever)
    daemon.on("GET", "/images/alpine:3.20/json", answer_image)
    await images.inspect("alpine:3.20")
    before = leftovers.now()
    pulls = [images.pull_stream("alpine:3.20") for _ in range(200)]
    await asyncio.gather(*(anext(pull) for pull in pulls))
    assert (await images.inspect("alpine:3.20")).id == IMAGE["Id"]
    for pull in pulls:
        await pull.aclose()
    await leftovers.settle(before)


async def test_closing_the_service_ends_every_kind_of_call(daemon: ScriptedDaemon, leftovers: Leftovers) -> None:
    """Whoever waits for a frame, for the head of an answer, for a body or for a slot gets an error of ours."""
    waiting = asyncio.Event()

    async def answer_nothing(exchange: Exchange) -> None:
        waiting.set()
        await exchange.client_gone()

    async def answer_half(exchange: Exchange) -> None:
        await exchange.head(length=1000)
        await exchange.send(b'{"Id":')
        await exchange.client_gone()

    daemon.on("POST", "/images/create", pull_for_ever)
    daemon.on("POST", "/images/alpine/push", answer_nothing)
    daemon.on("GET", "/images/alpine:latest/json", answer_half)
    await asyncio.sleep(0)
    before = leftovers.now()
    images = ImageService(daemon.socket, max_connections=3)
    idle = images.pull_stream("idle")
    await anext(idle)
    seen = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(images.pull("alpine", on_progress=lambda _: seen.set())),
        asyncio.create_task(images.push("alpine")),
        asyncio.create_task(images.inspect("alpine")),
    ]
    await seen.wait()
    await waiting.wait()
    tasks.append(asyncio.create_task(images.pull("alpine")))  # queues for a slot
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await images.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [StreamInterruptedError] * 3 + [ServiceClosedError]
    assert all("closed" in str(result) for result in results)
    with pytest.raises(StreamInterruptedError, match="closed"):
        await anext(idle)
    await images.aclose()
    with pytest.raises(ServiceClosedError):
        await images.ping()
    await daemon.idle()
    await leftovers.settle(before)


async def test_closing_the_service_while_it_negotiates_interrupts_the_callers(daemon: ScriptedDaemon) -> None:
    asked = asyncio.Event()

    async def never(exchange: Exchange) -> None:
        asked.set()
        await exchange.client_gone()

    daemon.on("HEAD", "/_ping", never)
    images = ImageService(daemon.socket)
    callers = [asyncio.create_task(images.inspect("alpine")) for _ in range(3)]
    await asked.wait()
    async with asyncio.timeout(5):
        await images.aclose()
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [StreamInterruptedError] * 3


def test_a_service_stays_in_the_loop_it_was_opened_in(short_path: Path) -> None:
    images = ImageService(short_path / "absent.sock")

    async def ping() -> None:
        with pytest.raises(DaemonUnreachableError):
            await images.ping()

    async def ping_elsewhere() -> None:
        with pytest.raises(ServiceClosedError, match="another event loop"):
            await images.ping()

    async def main() -> None:
        await ping()
        await asyncio.to_thread(asyncio.run, ping_elsewhere())
        await images.aclose()

    asyncio.run(main())


async def test_a_silent_daemon_stalls_before_and_in_an_answer(daemon: ScriptedDaemon) -> None:
    async def say_nothing(exchange: Exchange) -> None:
        await exchange.client_gone()

    daemon.on("POST", "/images/create", pull_for_ever)
    daemon.on("GET", "/images/alpine:latest/json", say_nothing)
    async with ImageService(daemon.socket, idle_timeout=0.2) as images:
        with pytest.raises(StreamStalledError, match=r"^pull alpine:latest: .*0\.2 s") as caught:
            await images.pull("alpine")
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(StreamStalledError):
            await images.inspect("alpine")
        await daemon_has_no_pull(daemon)


async def test_a_slow_consumer_is_not_a_stalled_daemon(daemon: ScriptedDaemon) -> None:
    """While the consumer holds back, the daemon cannot send: only its own silence counts."""
    tar = tar_of({"layer.tar": b"x" * (12 << 20)})

    async def save(exchange: Exchange) -> None:
        await exchange.head()
        for start in range(0, len(tar), 1 << 20):
            await exchange.chunk(tar[start : start + (1 << 20)])
        await exchange.end()

    daemon.on("GET", "/images/alpine:latest/get", save)
    received = 0
    async with ImageService(daemon.socket, idle_timeout=0.3) as images:
        async for chunk in images.save_stream("alpine"):
            if not received:
                await asyncio.sleep(1)
            received += len(chunk)
    assert received == len(tar)


async def test_the_callers_own_timeout_passes_through(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/images/create", pull_for_ever)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.1):
            await images.pull("alpine")
    assert type(caught.value) is TimeoutError
    await daemon_has_no_pull(daemon)


async def test_a_control_answer_has_a_limit(
    daemon: ScriptedDaemon, images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport, "MAX_ANSWER", 1 << 20)

    async def endless(exchange: Exchange) -> None:
        await exchange.head()
        with contextlib.suppress(ConnectionError):
            while True:
                await exchange.chunk(b" " * 65536)

    daemon.on("GET", "/images/json", endless)
    with pytest.raises(FrameDecodeError, match="longer than 1 MiB"):
        await images.list()
    async with asyncio.timeout(5):
        while len(daemon.connections) > 1:  # that of the ping stays in the pool
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("body", [b"", b"null", b"5", b"[", b"[]", b"\xff", b'"' + b"[" * 100_000], ids=ascii)
async def test_an_answer_that_is_not_what_it_should_be_is_an_error_of_ours(
    daemon: ScriptedDaemon, images: ImageService, body: bytes
) -> None:
    daemon.on("GET", "/images/alpine:latest/json", lambda exchange: exchange.answer(body))
    with pytest.raises(FrameDecodeError, match="^inspect alpine:latest: ") as caught:
        await images.inspect("alpine")
    assert ("is empty" in caught.value.message) == (body == b"")


@pytest.mark.parametrize("created", [253402300799, 253402300800, -62167219200, 10**30, "", "today", {}], ids=ascii)
async def test_a_time_beyond_pythons_range_costs_one_field_and_a_warning(
    daemon: ScriptedDaemon, images: ImageService, caplog: pytest.LogCaptureFixture, created: object
) -> None:
    """Up to the last second of the year 9999, it has them."""
    answer = [{"Id": "sha256:odd", "Created": created, "Size": 5}, {"Id": "sha256:fine", "Created": 1714558272}]
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json(answer))
    odd, fine = await images.list()
    assert (odd.id, odd.size) == ("sha256:odd", 5)
    assert fine == ImageSummary(id="sha256:fine", created=datetime(2024, 5, 1, 10, 11, 12, tzinfo=UTC))
    warnings = [record.getMessage() for record in caplog.records]
    if created == 253402300799:
        assert odd.created == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        assert warnings == []
    else:
        assert odd.created is None
        (warning,) = warnings
        assert warning.startswith("list: ")
        assert "[0] ('sha256:odd').Created: " in warning


async def test_requests_share_kept_connections_and_changes_open_their_own(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    """A request that changes something cannot be repeated, so it must not meet a connection about to be closed."""
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([]))
    daemon.on("DELETE", "/images/alpine:latest", lambda exchange: exchange.answer_json([]))
    for _ in range(5):
        await images.list()
        await images.remove("alpine")
    by_writer: dict[int, list[str]] = {}
    for request in daemon.requests:
        by_writer.setdefault(id(request.writer.get_extra_info("socket")), []).append(request.method)
    shared = [methods for methods in by_writer.values() if "GET" in methods]
    assert shared == [["HEAD", *["GET"] * 5]]
    assert [request.keep_alive for request in daemon.requests if request.method == "DELETE"] == [False] * 5


async def cut_at_once(exchange: Exchange) -> None:
    exchange.cut()


SENT_ONCE: dict[str, tuple[str, Callable[[ImageService], Awaitable[object]]]] = {
    # The Engine may have removed it before the connection broke: it would not find it the second time.
    "remove": ("DELETE /images/alpine:latest", lambda images: images.remove("alpine")),
    "save": ("GET /images/alpine:latest/get", lambda images: anext(images.save_stream("alpine"))),
    "events": ("GET /events", lambda images: anext(images.events(reconnect=False))),
    "PUT": ("PUT /containers/x/archive", lambda images: images.request("PUT", "/containers/x/archive")),
}


@pytest.mark.parametrize(("request_line", "call"), SENT_ONCE.values(), ids=SENT_ONCE)
async def test_changes_and_streams_are_sent_once_even_if_the_connection_breaks(
    daemon: ScriptedDaemon,
    images: ImageService,
    request_line: str,
    call: Callable[[ImageService], Awaitable[object]],
) -> None:
    method, _, path = request_line.partition(" ")
    daemon.on(method, path, cut_at_once)
    with pytest.raises(StreamInterruptedError):
        await call(images)
    assert daemon.paths == [request_line]


async def test_a_daemon_that_restarts_is_met_again(short_path: Path) -> None:
    path = short_path / "docker.sock"
    async with ImageService(path) as images:
        for version in ("1.45", "1.51"):
            async with ScriptedDaemon(path, api_version=version) as daemon:
                daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([]))
                await images.list()
                assert daemon.requests[-1].target.startswith(f"/v{version}/")
            path.unlink(missing_ok=True)
            with pytest.raises(DaemonUnreachableError):
                await images.list()

"""The fake Engine where no real one is needed: its life, its faults, and what it says that it does not fake."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aiodocker_images import (
    APIError,
    DockerError,
    FrameDecodeError,
    ImageService,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    RegistryAuth,
    ServerError,
    StreamInterruptedError,
    UnauthorizedError,
)
from aiodocker_images.testing import (
    ENGINES,
    BasicAuth,
    FakeEngine,
    FakeRegistry,
    Fault,
    NotFakedError,
    TokenAuth,
    image,
    index,
    tar,
)
from tests.conftest import Leftovers

RECORDINGS = Path(__file__).parents[2] / "recordings"


@pytest.mark.parametrize("like", ENGINES)
async def test_an_image_goes_round_on_every_engine(like: str, tmp_path: Path, leftovers: Leftovers) -> None:
    before = leftovers.now()
    async with FakeEngine(like=like) as engine, ImageService(engine.host) as images:
        engine.registry.put("alpine:3.20", image())
        await images.pull("alpine:3.20")
        details = await images.inspect("alpine:3.20")
        assert engine.ids == [details.id]
        await images.tag("alpine:3.20", "ghcr.io/org/app:1")
        pushed = await images.push("ghcr.io/org/app:1")
        assert engine.registry.manifest("ghcr.io/org/app:1").digest == pushed.digest
        await images.save("alpine:3.20", to=tmp_path / "saved.tar")
        await images.remove("ghcr.io/org/app:1")
        await images.remove("alpine:3.20")
        assert engine.ids == []
        assert len((await images.load(tmp_path / "saved.tar")).references) == 1
        assert (await images.inspect("alpine:3.20")).root_fs == details.root_fs
        built = await images.build(tar({"Dockerfile": "FROM alpine:3.20\nLABEL a=b\nCOPY Dockerfile /\n"}), tags="b:1")
        assert built.id is not None
        config = (await images.inspect(built.id)).config
        assert config is not None
        assert config.labels["a"] == "b"
        usage = await images.disk_usage()
        assert usage.total_count
        assert (await images.prune(all=True)).removed
        assert engine.images == {}
    await leftovers.settle(before, within=30)


@pytest.mark.parametrize("operation", ["pull", "push", "load"])
@pytest.mark.parametrize("like", ["docker29", "docker29c"])
async def test_docker_29_says_what_was_recorded_of_it(like: str, operation: str, tmp_path: Path) -> None:
    """The shapes of its frames: it cannot be started here."""
    recorded = (RECORDINGS / like / f"{operation}.http").read_bytes().partition(b"\r\n\r\n")[2]
    said = [json.loads(line) for line in recorded.splitlines() if line.startswith(b"{")]
    shapes = {
        (frame.get("status"), *sorted(frame)) for frame in said if _of_layer(frame.get("status"), frame.get("id"))
    }
    async with FakeEngine(like=like) as engine, ImageService(engine.host) as images:
        engine.registry.put("app:1", image())
        frames = [frame async for frame in images.pull_stream("app:1")]
        if operation == "push":
            await images.push("app:1")
            frames = [frame async for frame in images.push_stream("app:1")]
        elif operation == "load":
            await images.save("app:1", to=tmp_path / "saved.tar")
            await images.remove("app:1")
            frames = [frame async for frame in images.load_stream(tmp_path / "saved.tar")]
    faked = {(frame.status, *_fields(frame)) for frame in frames if _of_layer(frame.status, frame.id)}
    assert faked == shapes


def _of_layer(status: str | None, layer: str | None) -> bool:
    return bool(layer) and not (status or "").startswith("Pulling from ")


def _fields(frame: object) -> list[str]:
    """The names of the fields that a frame has, as the Engine spells them."""
    names = {"status": "status", "id": "id", "progress": "progress", "progress_detail": "progressDetail"}
    return sorted(there for name, there in names.items() if getattr(frame, name, None) is not None)


FAULTS: list[tuple[Fault, type[DockerError]]] = [
    (Fault.refuse(401), UnauthorizedError),
    (Fault.refuse(429), RateLimitedError),
    (Fault.refuse(500), ServerError),
    (Fault.no_space(), NoSpaceError),
    (Fault.restart(), DockerError),
    (Fault.cut(after=100), StreamInterruptedError),
    (Fault.cut(after=2, of="frames"), StreamInterruptedError),
    (Fault.reset(after=100), StreamInterruptedError),
    (Fault.cut(after=10, of="response"), DockerError),
    (Fault.in_stream_error("toomanyrequests: slow down", after=1), RateLimitedError),
]


@pytest.mark.parametrize(("fault", "raised"), FAULTS, ids=[str(fault) for fault, _ in FAULTS])
async def test_a_fault_of_a_pull_is_met_once(fault: Fault, raised: type[DockerError], leftovers: Leftovers) -> None:
    before = leftovers.now()
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.registry.put("app:1", image())
        await images.ping()
        injection = engine.fail(fault, on="pull")
        with pytest.raises(raised):
            await images.pull("app:1")
        assert (injection.hits, engine.pending_faults) == (1, [])
        await images.pull("app:1")
    await leftovers.settle(before, within=30)


async def test_a_fault_lasts_as_long_as_its_block() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        with engine.fail(Fault.refuse(503), on="list", times=None) as injection:
            for _ in range(2):
                with pytest.raises(ServerError):
                    await images.list()
        assert injection.hits == 2
        assert await images.list() == []


async def test_a_stalled_pull_goes_on_when_it_is_released() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.registry.put("app:1", image())
        injection = engine.fail(Fault.stall(after=1, of="frames"), on="pull")
        pull = asyncio.create_task(images.pull("app:1"))
        await injection.reached()
        assert not pull.done()
        injection.release()
        await pull


async def test_a_pull_that_is_left_ends_on_the_engine(leftovers: Leftovers) -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.registry.put("app:1", image())
        injection = engine.fail(Fault.stall(after=1, of="frames"), on="pull")
        pull = asyncio.create_task(images.pull("app:1"))
        await injection.reached()
        pull.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pull
        await engine.idle(keep_alive=True)
        assert engine.images == {}


async def test_a_slow_pull_comes_to_its_end() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.registry.put("app:1", image())
        engine.fail(Fault.slow(chunk=50, pause=0), on="pull")
        await images.pull("app:1")


async def test_a_lie_about_a_digest_is_told() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        digest = engine.registry.put("app:1", image())
        engine.fail(Fault.lie(about="digest"), on="pull")
        assert (await images.pull("app:1")).digest not in {None, digest}


async def test_a_flipped_bit_in_a_frame_is_noticed() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.registry.put("app:1", image())
        engine.fail(Fault.lie(after=0), on="pull")
        with pytest.raises(FrameDecodeError):
            await images.pull("app:1")


async def test_a_fault_of_the_registry_reaches_who_pulls() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.registry.put("app:1", image())
        engine.registry.fail(Fault.refuse(429), on="GET manifest")
        with pytest.raises(RateLimitedError):
            await images.pull("app:1")
        engine.registry.fail(Fault.cut(after=10), on="GET blob")
        with pytest.raises(DockerError):
            await images.pull("app:1")
        await images.pull("app:1")


@pytest.mark.parametrize("auth", [BasicAuth("alice", "secret"), TokenAuth("alice", "secret")], ids=["basic", "token"])
async def test_the_credentials_of_a_pull_open_the_registry(auth: BasicAuth | TokenAuth) -> None:
    async with (
        FakeRegistry(auth=auth) as registry,
        FakeEngine(registry=registry) as engine,
        ImageService(engine.host) as images,
    ):
        registry.put("app:1", image())
        with pytest.raises(APIError):
            await images.pull("app:1")
        await images.pull("app:1", auth=RegistryAuth(username="alice", password="secret"))
        assert list(engine.images) == ["app:1"]


async def test_events_come_while_they_happen() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.put("app:1")
        async with contextlib.aclosing(images.events(since="1m")) as events:
            await images.tag("app:1", "app:2")
            event = await anext(events)
            assert (event.action, event.actor and event.actor.attributes["name"]) == ("tag", "app:2")
            coming = asyncio.ensure_future(anext(events))
            await images.remove("app:2")
            assert (await coming).action == "untag"


async def test_an_index_is_held_as_the_store_holds_it() -> None:
    async with FakeEngine("docker28c") as engine, ImageService(engine.host) as images:
        both = index()
        assert engine.put("both:1", both) == both.digest
        details = await images.inspect("both:1", manifests=True)
        assert [each.available for each in details.manifests] == [True, True]
        assert (await images.inspect("both:1", platform="linux/arm64")).architecture == "arm64"
        with pytest.raises(NotFoundError):
            await images.inspect("both:1", platform="linux/s390x")


async def test_an_engine_that_is_back_has_what_it_had() -> None:
    engine = FakeEngine()
    async with engine:
        engine.put("app:1")
    async with ImageService(engine.host) as images:
        with pytest.raises(DockerError):
            await images.ping()
        async with engine:
            assert [each.repo_tags for each in await images.list()] == [("app:1",)]


def test_it_is_served_in_a_thread_of_its_own_for_plain_tests() -> None:
    async def use(host: str) -> int:
        async with ImageService(host) as images:
            return len(await images.list())

    with FakeEngine() as engine:
        engine.put("app:1")
        assert asyncio.run(use(engine.host)) == 1
        assert engine.count("list") == 1


NOT_FAKED: list[tuple[str, Callable[[ImageService], object]]] = [
    ("RUN in a Dockerfile", lambda images: images.build(tar({"Dockerfile": "FROM scratch\nRUN true\n"}))),
    ("POST /.*containers/create", lambda images: images.request("POST", "/containers/create", json={})),
]


@pytest.mark.parametrize(("what", "ask"), NOT_FAKED, ids=[what for what, _ in NOT_FAKED])
async def test_what_is_not_faked_is_said_at_once_and_at_the_end(
    what: str, ask: Callable[[ImageService], object]
) -> None:
    async def asked(engine: FakeEngine) -> None:
        async with ImageService(engine.host) as images:
            call = ask(images)
            assert asyncio.iscoroutine(call)
            with pytest.raises(APIError, match="does not fake"):
                await call

    with pytest.raises(NotFakedError, match=what):
        async with FakeEngine() as engine:
            await asked(engine)
    async with FakeEngine(strict=False) as engine:
        await asked(engine)


def test_a_fault_or_a_step_or_an_engine_that_does_not_exist_is_refused() -> None:
    engine = FakeEngine()
    with pytest.raises(NotFakedError, match="lose_upload"):
        engine.fail(Fault.lose_upload())
    with pytest.raises(NotFakedError, match="its steps are ping, version"):
        engine.fail(Fault.cut(), on="GET manifest")
    with pytest.raises(ValueError, match="there are docker20, docker26"):
        FakeEngine(like="docker17")


async def test_a_build_without_what_it_copies_fails() -> None:
    async with FakeEngine() as engine, ImageService(engine.host) as images:
        engine.put("app:1")
        with pytest.raises(APIError, match="COPY failed"):
            await images.build(tar({"Dockerfile": "FROM app:1\nCOPY nope /\n"}))

"""Every operation is cancelled at every single one of its await points, and nothing is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from aiodocker_images import ImageService, RegistryAuth
from tests.conftest import Leftovers
from tests.support.answer_sweep import HANG
from tests.support.scripted import Exchange, Handler, ScriptedDaemon
from tests.support.stepwise import MOMENTS, Moment, cancelled_at
from tests.support.tally import INJECTED
from tests.support.tars import tar_of

ARCHIVE: Final = tar_of({"manifest.json": b"[]", "layer.tar": bytes(3 << 20)})  # several pieces, each way
DIGEST: Final = "sha256:" + "ab" * 32

Call = Callable[[ImageService, Path], Awaitable[object]]


def frames(*documents: object) -> Handler:
    async def handler(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        await exchange.frames(*documents)
        await exchange.end()

    return handler


async def get(exchange: Exchange) -> None:
    await exchange.head()
    for start in range(0, len(ARCHIVE), 1 << 19):
        await exchange.chunk(ARCHIVE[start : start + (1 << 19)])
    await exchange.end()
    await exchange.client_gone()  # who has all of it, then


async def create(exchange: Exchange) -> None:
    pulled = {"status": "Digest: " + DIGEST}, {"status": "Status: Downloaded"}
    await frames(*(pulled if "fromImage" in dict(exchange.query) else [{"status": DIGEST}]))(exchange)


async def inspect(exchange: Exchange) -> None:
    await exchange.answer_json({"Id": DIGEST})


@pytest.fixture
def scripted(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """A daemon that does everything right."""
    daemon.on("POST", "/images/create", create)
    daemon.on("POST", "/images/alpine/push", frames({"status": "x"}, {"status": f"1: digest: {DIGEST} size: 5"}))
    daemon.on("POST", "/images/load", frames({"stream": "Loaded image: alpine:1\n"}))
    daemon.on("POST", "/build", frames({"stream": "Step 1"}, {"stream": "Successfully built " + DIGEST[7:]}))
    daemon.on("GET", "/images/alpine:1/get", get)
    daemon.on("GET", "/images/alpine:1/json", inspect)
    daemon.on("GET", "/events", frames({"Action": "pull", "timeNano": 1}, {"Action": "tag", "timeNano": 2}))
    return daemon


async def pieces() -> AsyncGenerator[bytes, None]:
    for start in range(0, len(ARCHIVE), 1 << 20):
        await asyncio.sleep(0)
        yield ARCHIVE[start : start + (1 << 20)]


async def load_path(images: ImageService, directory: Path) -> object:
    return await images.load(directory / "given" / "image.tar")


async def load_pieces(images: ImageService, _: Path) -> object:
    return await images.load(pieces())


async def load_iterable(images: ImageService, _: Path) -> object:
    return await images.load(ARCHIVE[start : start + (1 << 20)] for start in range(0, len(ARCHIVE), 1 << 20))


async def save_to_path(images: ImageService, directory: Path) -> object:
    return await images.save("alpine:1", to=directory / "taken" / "image.tar", checksum=True)


async def save_stream(images: ImageService, _: Path) -> object:
    return sum([len(chunk) async for chunk in images.save_stream("alpine:1", chunk_size=100_000)])


async def build(images: ImageService, directory: Path) -> object:
    return await images.build(directory / "given")


async def events(images: ImageService, _: Path) -> object:
    return [event.action async for event in images.events(since=1, until=2, reconnect=False)]


CALLS: Final[dict[str, Call]] = {
    "pull": lambda images, _: images.pull("alpine:1", auth=RegistryAuth(username="a", password="b")),
    "push": lambda images, _: images.push("alpine:1"),
    "load of a path": load_path,
    "load of an async iterable": load_pieces,
    "load of an iterable": load_iterable,
    "import": lambda images, _: images.import_image(b"tar"),
    "save to a path": save_to_path,
    "save_stream": save_stream,
    "build": build,
    "events": events,
    "inspect": lambda images, _: images.inspect("alpine:1"),
    "ping": lambda images, _: images.ping(),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_cancelled_at_any_await_point_leaves_nothing(
    scripted: ScriptedDaemon, tmp_path: Path, leftovers: Leftovers, name: str, moment: Moment
) -> None:
    """It ends as cancelled, or with the whole result that it had already; with one slot, a kept one would hang."""
    call = CALLS[name]
    given, taken = tmp_path / "given", tmp_path / "taken"
    given.mkdir()
    taken.mkdir()
    (given / "image.tar").write_bytes(ARCHIVE)
    (given / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")

    async def run() -> object:
        async with ImageService(scripted.socket, max_connections=1) as images:
            return await call(images, tmp_path)

    async def run_again(images: ImageService) -> object:
        return await call(images, tmp_path)

    async with asyncio.timeout(HANG), ImageService(scripted.socket, max_connections=1) as images:
        expected = await run()
        await scripted.idle()
        (taken / "image.tar").unlink(missing_ok=True)
        before = leftovers.now()
        at, met, results = 0, True, 0
        while met:  # with a service that is opened, negotiates and is closed on the way
            at += 1
            met, result = await cancelled_at(run(), at, moment)
            results += result is not None
            assert result in (None, expected)
            left = [path.name for path in taken.iterdir()]
            assert left == [] or (left == ["image.tar"] and (taken / "image.tar").read_bytes() == ARCHIVE)
            (taken / "image.tar").unlink(missing_ok=True)
            await scripted.idle()
        assert at > 3
        INJECTED["scripted", name, "cancel"] += at - 1
        assert results >= 1  # the last one, that was not cancelled any more
        await leftovers.settle(before)
        assert await run_again(images) == expected
        await leftovers_of_service(scripted)
        before = leftovers.now()
        at, met = 0, True
        while met:  # and with one that is open already, and goes on
            at += 1
            met, result = await cancelled_at(run_again(images), at, moment)
            assert result in (None, expected)
            if at % 10 == 0:
                assert await run_again(images) == expected
        INJECTED["scripted", name, "cancel"] += at - 1
        assert await run_again(images) == expected
        await leftovers_of_service(scripted)
        await leftovers.settle(before)


async def leftovers_of_service(daemon: ScriptedDaemon) -> None:
    """Wait until the service has no connection but the one that it keeps for control calls."""
    while len(daemon.connections) > 1:
        await asyncio.sleep(0.002)

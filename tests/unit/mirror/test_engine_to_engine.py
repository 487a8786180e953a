"""transfer: from Engine to Engine, in small pieces and several at once, against scripted ones."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pickle
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from aiodocker_images import (
    ImageService,
    InvalidArgumentError,
    InvalidReferenceError,
    MirrorFailure,
    Reference,
    StreamInterruptedError,
    TransferOutcome,
    TransferProgress,
    transfer,
)
from tests.conftest import Leftovers
from tests.support.mirror_daemon import digest_of
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.tars import tar_of

ARCHIVE = tar_of({"manifest.json": "[]", "data": bytes(1 << 20)})
MANIFEST = "application/vnd.oci.image.index.v1+json"


class Ends:
    """Two scripted Engines, and services that talk to them."""

    def __init__(self, source: ScriptedDaemon, target: ScriptedDaemon) -> None:
        self.source_daemon, self.target_daemon = source, target
        self.source, self.target = ImageService(source.socket), ImageService(target.socket)
        self.loaded: list[bytes] = []

    def holds(self, daemon: ScriptedDaemon, name: str, content: str, manifests: tuple[str, ...] = ()) -> None:
        """Let an Engine have an image; with `manifests`, in a containerd store that has these of its platforms."""
        answer: dict[str, object] = {"Id": digest_of(content)}
        if manifests:
            answer["Descriptor"] = {"mediaType": MANIFEST, "digest": digest_of(content), "size": 1}
            answer["Manifests"] = [{"ID": digest_of(each), "Available": True} for each in manifests]

        async def inspect(exchange: Exchange) -> None:
            await exchange.answer_json(answer)

        async def save(exchange: Exchange) -> None:
            await exchange.head()
            for start in range(0, len(ARCHIVE), 1 << 16):
                await exchange.chunk(ARCHIVE[start : start + (1 << 16)])
            await exchange.end()

        daemon.on("GET", f"/images/{name}/json", inspect)
        daemon.on("GET", f"/images/{name}/get", save)

    async def load(self, exchange: Exchange) -> None:
        self.loaded.append(await exchange.body())
        await exchange.head()
        await exchange.frames({"stream": "Loaded image: app:1\n"})
        await exchange.end()


@pytest.fixture
async def ends(short_path: Path) -> AsyncGenerator[Ends, None]:
    async with (
        ScriptedDaemon(short_path / "source.sock") as source,
        ScriptedDaemon(short_path / "target.sock") as target,
    ):
        ends = Ends(source, target)
        target.on("POST", "/images/load", ends.load)
        async with ends.source, ends.target:
            yield ends


async def all_of(outcomes: AsyncGenerator[TransferOutcome, None]) -> dict[str, TransferOutcome]:
    return {outcome.reference: outcome async for outcome in outcomes}


async def test_an_archive_goes_whole_from_one_engine_to_the_other(ends: Ends) -> None:
    ends.holds(ends.source_daemon, "app:1", "content")
    outcome = (await all_of(transfer(ends.source, ends.target, "app:1")))["app:1"]
    assert (outcome.status, outcome.loaded, outcome.size, outcome.ok) == ("transferred", ("app:1",), len(ARCHIVE), True)
    assert [hashlib.sha256(body).digest() for body in ends.loaded] == [hashlib.sha256(ARCHIVE).digest()]


SIZES: list[tuple[str, dict[str, object], int | None]] = [
    ("a graph-driver store", {"Size": 5_000_000}, 5_000_000),
    ("a containerd store", {"Size": 9, "Manifests": [("a", True, 3), ("b", True, 4), ("c", False, 8)]}, 7),
    ("nothing said", {}, None),
]


@pytest.mark.parametrize(("answer", "expected"), [row[1:] for row in SIZES], ids=[row[0] for row in SIZES])
async def test_how_far_it_is_is_told(ends: Ends, answer: dict[str, object], expected: int | None) -> None:
    """From 0 to the whole archive, with what the source says of its size: of what is packed, in a containerd store."""
    ends.holds(ends.source_daemon, "app:1", "content")
    document: dict[str, object] = {"Id": digest_of("content"), **answer}
    if "Manifests" in answer:
        document["Descriptor"] = {"mediaType": MANIFEST, "digest": digest_of("content"), "size": 1}
        document["Manifests"] = [
            {"ID": name, "Available": there, "Size": {"Content": size, "Total": 99}}
            for name, there, size in cast("list[tuple[str, bool, int]]", answer["Manifests"])
        ]

    async def inspect(exchange: Exchange) -> None:
        await exchange.answer_json(document)

    ends.source_daemon.on("GET", "/images/app:1/json", inspect)
    told: list[tuple[str, int, int | None]] = []

    async def tell(progress: TransferProgress) -> None:
        await asyncio.sleep(0)
        told.append((progress.reference, progress.size, progress.expected))

    await all_of(transfer(ends.source, ends.target, "app:1", on_progress=tell))
    assert (told[0], told[-1]) == (("app:1", 0, expected), ("app:1", len(ARCHIVE), expected))
    assert [moved for _, moved, _ in told] == sorted(moved for _, moved, _ in told)
    assert len(told) > 2


HELD: list[tuple[str, str, tuple[str, ...], tuple[str, ...], str]] = [
    ("the same", "content", (), (), "skipped"),
    ("another", "other", (), (), "transferred"),
    ("the same platforms", "content", ("amd64", "arm64"), ("amd64", "arm64"), "skipped"),
    ("a platform less", "content", ("amd64", "arm64"), ("amd64",), "transferred"),
]


@pytest.mark.parametrize(
    ("content", "here", "there", "status"), [row[1:] for row in HELD], ids=[row[0] for row in HELD]
)
async def test_what_the_target_has_is_skipped(
    ends: Ends, content: str, here: tuple[str, ...], there: tuple[str, ...], status: str
) -> None:
    ends.holds(ends.source_daemon, "app:1", "content", here)
    ends.holds(ends.target_daemon, "app:1", content, there)
    outcomes = await all_of(transfer(ends.source, ends.target, Reference.parse("r.x/app"), "app:1", "app:1"))
    assert [outcome.status for name, outcome in outcomes.items() if name == "app:1"] == [status]
    assert len(ends.loaded) == (status == "transferred")


async def test_one_failure_harms_no_other_image(ends: Ends) -> None:
    """A missing image, and one whose archive is cut: each is an outcome of its own, and the rest arrives."""

    async def cut(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(ARCHIVE[: 1 << 18])
        exchange.cut()

    for name in ("one:1", "two:1", "cut:1"):
        ends.holds(ends.source_daemon, name, name)
    ends.source_daemon.on("GET", "/images/cut:1/get", cut)
    outcomes = await all_of(transfer(ends.source, ends.target, "one", "cut:1", "missing:1", "two:1", "one:1"))
    assert {name: outcome.error.kind if outcome.error else outcome.status for name, outcome in outcomes.items()} == {
        "one:latest": "NotFoundError",
        "one:1": "transferred",
        "two:1": "transferred",
        "cut:1": "StreamInterruptedError",
        "missing:1": "NotFoundError",
    }
    assert len(ends.loaded) == 2


async def test_so_many_go_at_once_and_no_more(ends: Ends) -> None:
    busy, most, go = 0, 0, asyncio.Event()

    async def load(exchange: Exchange) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await go.wait()
        await ends.load(exchange)
        busy -= 1

    ends.target_daemon.on("POST", "/images/load", load)
    names = [f"app:{number}" for number in range(6)]
    for name in names:
        ends.holds(ends.source_daemon, name, name)
    task = asyncio.create_task(all_of(transfer(ends.source, ends.target, *names, concurrency=3)))
    while busy < 3:
        await asyncio.sleep(0.005)
    await ends.target.ping()
    go.set()
    assert len(await task) == 6
    assert most == 3


async def test_a_slow_target_slows_the_source(ends: Ends) -> None:
    """While the target takes nothing, the source can send only what fits into buffers."""
    sent, size = 0, 64 << 20
    gone = asyncio.Event()

    async def save(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head()
        with contextlib.suppress(ConnectionError):
            while sent < size:
                await exchange.chunk(bytes(1 << 16))
                sent += 1 << 16

    async def take_nothing(exchange: Exchange) -> None:
        await gone.wait()
        exchange.cut()

    ends.holds(ends.source_daemon, "app:1", "content")
    ends.source_daemon.on("GET", "/images/app:1/get", save)
    ends.target_daemon.on("POST", "/images/load", take_nothing)
    task = asyncio.create_task(all_of(transfer(ends.source, ends.target, "app:1")))
    seen = -1
    while sent != seen or not sent:
        seen = sent
        await asyncio.sleep(0.3)
    assert 0 < sent < size // 4
    gone.set()
    assert {outcome.status for outcome in (await task).values()} == {"failed"}


@pytest.mark.parametrize("way", ["break", "aclose", "cancel"])
async def test_leaving_ends_both_sides(ends: Ends, leftovers: Leftovers, way: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never(exchange: Exchange) -> None:
        begun.set()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await exchange.body()
            await exchange.client_gone()
        ended.set()

    async def quick(exchange: Exchange) -> None:
        await (never if begun.is_set() or len(ends.loaded) else ends.load)(exchange)

    for name in ("one:1", "two:1"):
        ends.holds(ends.source_daemon, name, name)
    ends.target_daemon.on("POST", "/images/load", quick)
    before = leftovers.now()
    stream = transfer(ends.source, ends.target, "one:1", "two:1", concurrency=1)
    if way == "cancel":
        task = asyncio.create_task(all_of(stream))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async for _ in stream:
            break
        await begun.wait()
        await stream.aclose()
    await ended.wait()
    for service in (ends.source, ends.target):
        await service.aclose()
    for daemon in (ends.source_daemon, ends.target_daemon):
        await daemon.idle()
    await leftovers.settle(before)


async def test_closing_a_service_ends_a_transfer_whose_loop_was_left_by_a_break(
    ends: Ends, leftovers: Leftovers
) -> None:
    """Nobody closes the generator then before the services are closed, which wait for what is under way."""
    ended = asyncio.Event()

    async def never(exchange: Exchange) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await exchange.body()
            await exchange.client_gone()
        ended.set()

    for name in ("one:1", "two:1"):
        ends.holds(ends.source_daemon, name, name)
    before = leftovers.now()
    stream = transfer(ends.source, ends.target, "one:1", "two:1", concurrency=1)
    async for _ in stream:
        ends.target_daemon.on("POST", "/images/load", never)
        break
    await ends.target.aclose()
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "transfer"] == []
    with pytest.raises(StreamInterruptedError, match="the service was closed in the middle of the transfer"):
        await anext(stream)
    await ends.source.aclose()
    for daemon in (ends.source_daemon, ends.target_daemon):
        await daemon.idle()
    await leftovers.settle(before)


@pytest.mark.parametrize("which", ["source", "target"])
async def test_a_callback_may_close_a_service_and_ends_the_transfer_by_that(
    ends: Ends, leftovers: Leftovers, which: str
) -> None:
    """It is a part of what `aclose` waits for elsewhere, and would wait for itself."""
    closed: list[bool] = []

    async def close(_: TransferProgress) -> None:
        if not closed:
            closed.append(True)
            await getattr(ends, which).aclose()

    for name in ("one:1", "two:1"):
        ends.holds(ends.source_daemon, name, name)
    before = leftovers.now()
    with pytest.raises(StreamInterruptedError, match="the service was closed"):
        await all_of(transfer(ends.source, ends.target, "one:1", "two:1", concurrency=1, on_progress=close))
    for service in (ends.source, ends.target):
        await service.aclose()
    for daemon in (ends.source_daemon, ends.target_daemon):
        await daemon.idle()
    await leftovers.settle(before, within=30)


async def test_a_service_closed_before_the_first_step_of_a_transfer_ends_it(ends: Ends) -> None:
    """A task that is cancelled before it has begun runs none of its code, and tells nobody that it has ended."""
    stream = transfer(ends.source, ends.target, "one:1")
    first = asyncio.ensure_future(anext(stream))
    closing = asyncio.create_task(ends.source.aclose())  # it is next in turn, before the task that `first` makes
    with pytest.raises(StreamInterruptedError, match="the service was closed"):
        await first
    await closing


def test_what_makes_no_sense_is_refused_at_the_call(tmp_path: Path) -> None:
    one, other = ImageService(tmp_path / "one"), ImageService(tmp_path / "other")
    with pytest.raises(InvalidReferenceError):
        transfer(one, other, "App")
    with pytest.raises(InvalidArgumentError, match="concurrency must be 1 or more"):
        transfer(one, other, "app", concurrency=0)


async def test_nothing_comes_of_nothing(tmp_path: Path) -> None:
    assert await all_of(transfer(ImageService(tmp_path / "one"), ImageService(tmp_path / "other"))) == {}


def test_outcomes_go_through_json_and_pickle() -> None:
    failed = TransferOutcome(reference="app:1", status="failed", error=MirrorFailure("NotFoundError", "it is gone"))
    assert msgspec.json.decode(msgspec.json.encode(failed), type=TransferOutcome) == failed
    assert pickle.loads(pickle.dumps(failed)) == failed
    assert str(failed) == "failed: app:1: NotFoundError: it is gone"

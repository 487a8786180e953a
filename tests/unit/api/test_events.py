"""Image events from a daemon that is cut, dies, comes back, repeats itself and forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from email.utils import formatdate
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodocker_images import (
    DaemonUnreachableError,
    Event,
    EventActor,
    FrameDecodeError,
    ImageService,
    InvalidParameterError,
    ServiceClosedError,
    StreamInterruptedError,
    UnsupportedAPIVersionError,
)
from aiodocker_images._api.events import MAX_REMEMBERED, OVERLAP, REMEMBERED, SECOND, Position
from aiodocker_images._encoding import Filters
from tests.conftest import Leftovers
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.sweeps import examples, spread

NOW: Final = 1_700_000_000 * SECOND
DONE = {"status": "Status: Downloaded newer image for alpine:3.20"}

Document = Mapping[str, object]


def happened(seconds: float, action: str = "tag", name: str = "alpine:3.20") -> Document:
    """An event that long after NOW, as API 1.51 sends it: with the old fields that say the same again."""
    moment = NOW + round(seconds * SECOND)
    return {
        "status": action,
        "id": "sha256:1",
        "Type": "image",
        "Action": action,
        "Actor": {"ID": "sha256:1", "Attributes": {"name": name}},
        "scope": "local",
        "time": moment // SECOND,
        "timeNano": moment,
    }


# Two at the same time, one that was overtaken, and gaps that are longer than what a new connection asks for again.
STORY: Final[list[Document]] = [
    happened(1, "pull"),
    happened(2, "tag", "a"),
    happened(2, "tag", "b"),
    happened(2.000000300, "untag"),
    happened(2.000000100, "save"),
    happened(50, "push"),
    happened(200, "untag"),
    happened(200, "delete"),
]


def names(events: Sequence[Document]) -> list[tuple[object, object]]:
    return [(event["timeNano"], event["Action"]) for event in events]


def seen(events: Sequence[Event]) -> list[tuple[object, object]]:
    return [(event.time_nano, event.action) for event in events]


def moby(history: Sequence[Document], since: float) -> list[Document]:
    """Look back as moby does: from the end, and no further than to the first that is too old."""
    for index in range(len(history), 0, -1):
        if int(str(history[index - 1]["timeNano"])) < since:
            return list(history[index:])
    return list(history)


def podman(history: Sequence[Document], since: float) -> list[Document]:
    """Look back as Podman does: all that is later, and not as late."""
    return [event for event in history if int(str(event["timeNano"])) > since]


FRAMINGS: Final[dict[str, tuple[str, Callable[[Document], bytes]]]] = {
    "json": ("application/json", lambda event: json.dumps(event).encode() + b"\n"),
    "ndjson": ("application/x-ndjson", lambda event: json.dumps(event).encode() + b"\r\n"),
    "jsonl": ("application/jsonl", lambda event: json.dumps(event).encode() + b"\n"),
    "json-seq": ("application/json-seq", lambda event: b"\x1e" + json.dumps(event).encode() + b"\n"),
}


class Journal:
    """A daemon's events. Each answer is cut after so many bytes as `cuts` says, and those after the last are whole.

    `history` is what it remembers at the beginning of an answer. An answer ends if `until` was asked for, and
    else stays open for what `tell` says. `since` and `dates` have one entry per request.
    """

    def __init__(
        self,
        history: Sequence[Document] = (),
        *,
        cuts: Sequence[int] = (),
        framing: str = "json",
        look_back: Callable[[Sequence[Document], float], list[Document]] = moby,
    ) -> None:
        self.history = list(history)
        self.cuts = list(cuts)
        self.content_type, self.encode = FRAMINGS[framing]
        self.look_back = look_back
        self.now = NOW
        self.since: list[str | None] = []
        self.requests: list[dict[str, str]] = []
        self.watchers: list[Exchange] = []

    def head(self) -> bytes:
        date = formatdate(self.now // SECOND, usegmt=True)
        return (
            f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {self.content_type}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        ).encode()

    def chunk(self, event: Document) -> bytes:
        data = self.encode(event)
        return b"%x\r\n%s\r\n" % (len(data), data)

    async def __call__(self, exchange: Exchange) -> None:
        query = dict(exchange.query)
        self.requests.append(query)
        self.since.append(query.get("since"))
        past: list[Document] = []
        if "since" in query:
            seconds, _, rest = query["since"].partition(".")
            past = self.look_back(self.history, int(seconds) * SECOND + int(rest))
        wire = self.head() + b"".join(self.chunk(event) for event in past)
        if "until" in query:
            wire += b"0\r\n\r\n"
        if self.cuts:
            await exchange.send(wire[: self.cuts.pop(0)])
            exchange.writer.close()  # what was sent arrives, and then the end
            exchange.keep_alive = False
            return
        await exchange.send(wire)
        if "until" not in query:
            self.watchers.append(exchange)
            await exchange.client_gone()
            self.watchers.remove(exchange)

    async def tell(self, event: Document, *, remember: bool = True) -> None:
        """Let it happen, and say so to whoever watches."""
        if remember:
            self.history.append(event)
        for watcher in self.watchers:
            await watcher.send(self.chunk(event))

    async def watched(self, times: int = 1) -> None:
        """Return when somebody watches, after so many requests in all."""
        while len(self.since) < times or not self.watchers:
            await asyncio.sleep(0.002)

    def cut(self) -> None:
        for watcher in self.watchers:
            watcher.cut()


@pytest.fixture
def journal(daemon: ScriptedDaemon) -> Journal:
    journal = Journal()
    daemon.on("GET", "/events", journal)
    return journal


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a daemon to come back."""
    monkeypatch.setattr("aiodocker_images._api.events.FIRST_DELAY", 0.001)
    monkeypatch.setattr("aiodocker_images._api.events.MAX_DELAY", 0.01)


class Watch:
    """A task that collects events as long as they come; `error` is how it ended."""

    def __init__(self, images: ImageService, since: float | None = None, *, reconnect: bool = True) -> None:
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self._more = asyncio.Event()
        self.task = asyncio.create_task(self._collect(images, since, reconnect=reconnect))

    async def _collect(self, images: ImageService, since: float | None, *, reconnect: bool) -> None:
        try:
            async for event in images.events(since=since, reconnect=reconnect):
                self.events.append(event)
                self._more.set()
        except Exception as error:  # noqa: BLE001 - the tests look at it
            self.error = error

    async def until(self, count: int) -> list[tuple[object, object]]:
        """Return what was seen when there are so many."""
        async with asyncio.timeout(10):
            while len(self.events) < count:
                self._more.clear()
                await self._more.wait()
        return seen(self.events)

    async def ended(self) -> BaseException | None:
        async with asyncio.timeout(10):
            await self.task
        return self.error

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def test_events_are_typed_and_the_request_is_for_images(
    daemon: ScriptedDaemon, images: ImageService, journal: Journal
) -> None:
    journal.history = [happened(1.000000001, "pull")]
    journal.now = NOW + 2 * SECOND
    filters: Filters = {"event": ["pull", "tag"], "label": {"stage": "test"}}
    (event,) = [event async for event in images.events(since=0, until="1700000001.000000001", filters=filters)]
    assert event == Event(
        type="image",
        action="pull",
        actor=EventActor(id="sha256:1", attributes={"name": "alpine:3.20"}),
        scope="local",
        time=datetime.fromtimestamp(NOW // SECOND + 1, UTC),
        time_nano=NOW + SECOND + 1,
    )
    (query,) = journal.requests
    assert json.loads(query.pop("filters")) == {"type": ["image"], "event": ["pull", "tag"], "label": ["stage=test"]}
    assert query == {"since": "0.000000000", "until": "1700000001.000000001"}
    assert filters == {"event": ["pull", "tag"], "label": {"stage": "test"}}
    accepted = daemon.requests[-1].headers["accept"].split(", ")
    assert set(accepted) == {content_type for content_type, _ in FRAMINGS.values()}


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_every_framing_is_read(daemon: ScriptedDaemon, images: ImageService, framing: str) -> None:
    """What is live comes at once, too: an event does not wait for the next one to be complete."""
    journal = Journal(STORY, framing=framing)
    daemon.on("GET", "/events", journal)
    watch = Watch(images, since=0)
    assert await watch.until(len(STORY)) == names(STORY)
    await journal.tell(happened(300))
    assert len(await watch.until(len(STORY) + 1)) == len(STORY) + 1
    await watch.stop()


@pytest.mark.parametrize("framing", ["json", "json-seq"])
async def test_a_stream_cut_after_any_byte_gives_every_event_once(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers, framing: str
) -> None:
    story = STORY[2:6]
    journal = Journal(story, framing=framing)
    journal.now = NOW + 60 * SECOND
    daemon.on("GET", "/events", journal)
    await images.ping()
    before = leftovers.now()
    head = len(journal.head())
    for cut in spread(range(head, head + sum(len(journal.chunk(event)) for event in story) + 5), 60):
        journal.cuts = [cut]
        events = [event async for event in images.events(since=0, until=NOW / SECOND + 60)]
        assert seen(events) == names(story), cut
    await leftovers.settle(before)


async def collect(story: Sequence[Document], journal: Journal, first: int) -> list[Event]:
    """Read all of a story from a daemon whose first answer is cut somewhere after its head."""
    journal.cuts[:1] = [len(journal.head()) + cut for cut in journal.cuts[:1]]
    with tempfile.TemporaryDirectory(prefix="adi-", dir="/tmp") as directory:
        async with (
            ScriptedDaemon(Path(directory) / "docker.sock") as daemon,
            ImageService(daemon.socket) as images,
            asyncio.timeout(20),
        ):
            daemon.on("GET", "/events", journal)
            return [event async for event in images.events(since=first, until=NOW / SECOND + 1000)]


@pytest.mark.parametrize("look_back", [moby, podman], ids=["moby", "podman"])
@settings(max_examples=examples(25))
@given(
    cuts=st.lists(st.integers(0, 2500), max_size=8),
    skipped=st.integers(0, len(STORY) - 1),
    framing=st.sampled_from(sorted(FRAMINGS)),
)
def test_wherever_and_however_often_it_is_cut_the_story_is_the_same(
    look_back: Callable[[Sequence[Document], float], list[Document]], cuts: list[int], skipped: int, framing: str
) -> None:
    """Cut in heads, between events and in them, again and again, by daemons that look back in their own ways."""
    story = STORY[skipped:]
    journal = Journal(story, cuts=cuts, framing=framing, look_back=look_back)
    journal.now = NOW + 2000 * SECOND
    assert seen(asyncio.run(collect(story, journal, NOW // SECOND))) == names(story)


async def test_a_daemon_that_restarts_without_its_history_is_watched_again(
    short_path: Path, leftovers: Leftovers, caplog: pytest.LogCaptureFixture
) -> None:
    """What happens after its start and before the watcher is back comes too; one line in the log tells of it."""
    path = short_path / "docker.sock"
    before = leftovers.now()
    async with ImageService(path) as images:
        journal = Journal()
        async with ScriptedDaemon(path) as daemon:
            daemon.on("GET", "/events", journal)
            watch = Watch(images)
            await journal.watched()
            for event in STORY[:3]:
                await journal.tell(event)
            await watch.until(3)
        path.unlink(missing_ok=True)  # from Python 3.13 on, asyncio removes it
        await asyncio.sleep(0.1)  # it tries several times in vain
        journal = Journal(STORY[3:5])
        async with ScriptedDaemon(path, api_version="1.44") as daemon:
            daemon.on("GET", "/events", journal)
            await journal.watched()
            for event in STORY[5:]:
                await journal.tell(event)
            assert await watch.until(len(STORY)) == names(STORY)
            assert daemon.requests[-1].target.startswith("/v1.44/events?")
            # From the beginning of the watching, which was less than the overlap before.
            assert journal.since == [f"{NOW // SECOND}.000000000"]
            await watch.stop()
    warnings = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [(record.name, record.levelname) for record in warnings] == [("aiodocker_images", "WARNING")]
    assert str(path) in warnings[0].getMessage()
    await leftovers.settle(before)


async def test_a_break_before_the_first_event_resumes_where_the_watching_began(
    images: ImageService, journal: Journal
) -> None:
    """By the clock of the daemon, which may be another one than ours."""
    watch = Watch(images)
    await journal.watched()
    journal.cut()
    journal.history = [happened(-3), happened(0.5)]
    await journal.watched(2)
    assert journal.since == [None, f"{NOW // SECOND}.000000000"]
    assert await watch.until(1) == names([happened(0.5)])
    await watch.stop()


async def test_a_daemon_without_a_date_is_watched_by_our_clock(
    daemon: ScriptedDaemon, images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: NOW + 5 * SECOND + 7)
    journal = Journal()
    monkeypatch.setattr(journal, "head", lambda: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    daemon.on("GET", "/events", journal)
    watch = Watch(images)
    await journal.watched()
    journal.cut()
    await journal.watched(2)
    assert journal.since == [None, f"{NOW // SECOND + 5}.000000000"]
    await watch.stop()


async def test_an_event_from_the_history_and_live_comes_once(images: ImageService, journal: Journal) -> None:
    """A daemon of moby does that to a watcher who comes in the middle of it."""
    journal.history = [happened(1)]
    watch = Watch(images, since=0)
    await watch.until(1)
    await journal.tell(happened(1), remember=False)
    await journal.tell(happened(1, name="another"))
    await journal.tell(happened(1, "untag"))
    assert await watch.until(3) == names([happened(1), happened(1), happened(1, "untag")])
    assert [event.actor and event.actor.attributes["name"] for event in watch.events][:2] == ["alpine:3.20", "another"]
    await watch.stop()


async def test_a_daemon_whose_clock_was_set_back_is_asked_from_its_present(
    images: ImageService, journal: Journal
) -> None:
    """To ask it for its future would lose what happens until then."""
    watch = Watch(images)
    await journal.watched()
    await journal.tell(happened(0, "pull"))
    await watch.until(1)
    journal.now -= 3600 * SECOND
    journal.history = [happened(-3601)]
    journal.cut()
    await watch.until(2)
    # From the beginning, which now is in the future; then from what the daemon says that it is.
    assert journal.since == [None, f"{NOW // SECOND}.000000000", f"{NOW // SECOND - 3660}.000000000"]
    await journal.tell(happened(-3599, "untag"))
    assert await watch.until(3) == names([happened(0, "pull"), happened(-3601), happened(-3599, "untag")])
    await watch.stop()


async def end(exchange: Exchange) -> None:
    date = formatdate(NOW // SECOND, usegmt=True)
    await exchange.head(headers={"Date": date})
    await exchange.end()


async def test_an_end_is_the_end_only_where_one_was_asked_for(daemon: ScriptedDaemon, images: ImageService) -> None:
    """A daemon that shuts down ends its answers as cleanly as one that has come to `until`."""
    daemon.on("GET", "/events", end)
    assert [event async for event in images.events(until=NOW / SECOND)] == []
    assert [event async for event in images.events(until=NOW / SECOND + 0.9)] == []
    assert len(daemon.paths) == 2
    for until in (None, NOW / SECOND + 60):
        requests = len(daemon.paths)
        watch = asyncio.create_task(anext(images.events(until=until)))
        async with asyncio.timeout(60):
            while len(daemon.paths) <= requests + 1:
                await asyncio.sleep(0.01)
        assert not watch.done()
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch


async def test_without_reconnect_the_end_of_a_connection_is_an_interruption(
    daemon: ScriptedDaemon, images: ImageService, journal: Journal
) -> None:
    watch = Watch(images, reconnect=False)
    await journal.watched()
    await journal.tell(happened(1))
    await watch.until(1)
    journal.cut()
    assert isinstance(await watch.ended(), StreamInterruptedError)
    assert len(journal.since) == 1
    daemon.on("GET", "/events", end)
    with pytest.raises(StreamInterruptedError, match=r"^events: the daemon ended"):
        await anext(images.events(reconnect=False))
    assert [event async for event in images.events(until=NOW / SECOND, reconnect=False)] == []


async def test_a_first_connection_that_fails_is_an_error_at_once(
    daemon: ScriptedDaemon, images: ImageService, short_path: Path
) -> None:
    async with ImageService(short_path / "absent.sock") as absent:
        with pytest.raises(DaemonUnreachableError, match=r"^events: cannot connect"):
            await anext(absent.events())

    async def say_no_more(exchange: Exchange) -> None:
        await exchange.send(Journal().head()[:50])
        exchange.cut()

    daemon.on("GET", "/events", say_no_more)
    with pytest.raises(StreamInterruptedError):
        await anext(images.events())


async def test_after_a_break_a_refusal_ends_it_and_an_unready_daemon_does_not(
    daemon: ScriptedDaemon, images: ImageService, journal: Journal
) -> None:
    """A proxy answers 502 and 503 while the daemon behind it starts; a 4xx will be the same for ever."""
    answers = [502, 503]

    async def unready(exchange: Exchange) -> None:
        await exchange.answer_json({"message": "not yet"}, answers.pop(0))
        if not answers:
            daemon.on("GET", "/events", journal)

    watch = Watch(images)
    await journal.watched()
    daemon.on("GET", "/events", unready)
    journal.cut()
    await journal.watched(2)
    assert answers == []

    async def refuse(exchange: Exchange) -> None:
        await exchange.answer_json({"message": "no more"}, 400)

    daemon.on("GET", "/events", refuse)
    journal.cut()
    error = await watch.ended()
    assert isinstance(error, InvalidParameterError)
    assert str(error).startswith("events: no more")


async def test_a_daemon_that_comes_back_too_old_for_us_ends_it(
    daemon: ScriptedDaemon, images: ImageService, journal: Journal
) -> None:
    watch = Watch(images)
    await journal.watched()
    daemon.api_version = "1.40"
    journal.cut()
    assert isinstance(await watch.ended(), UnsupportedAPIVersionError)


@pytest.mark.parametrize(
    "garbage", [b"<html>", b'{"Type": x}\n', b"}\n", b"[1]\n"], ids=["html", "word", "brace", "array"]
)
async def test_what_is_no_event_is_an_error_at_once_and_not_asked_for_again(
    images: ImageService, journal: Journal, garbage: bytes
) -> None:
    """Even behind a good event in the same piece: the next piece may be a month away."""

    def spoilt(event: Document) -> bytes:
        return json.dumps(event).encode() + b"\n" + garbage

    journal.encode = spoilt
    watch = Watch(images)
    await journal.watched()
    await journal.tell(happened(1))
    assert isinstance(await watch.ended(), FrameDecodeError)
    assert seen(watch.events) == names([happened(1)])
    assert len(journal.since) == 1


async def test_closing_the_service_ends_a_watch_that_is_waiting(
    daemon: ScriptedDaemon, short_path: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers, journal: Journal
) -> None:
    before = leftovers.now()
    images = ImageService(daemon.socket)
    watch = Watch(images)
    await journal.watched()
    await images.aclose()
    assert isinstance(await watch.ended(), StreamInterruptedError)
    assert "closed" in str(watch.error)

    monkeypatch.setattr("aiodocker_images._api.events.FIRST_DELAY", 3600)
    monkeypatch.setattr("aiodocker_images._api.events.MAX_DELAY", 3600)
    images = ImageService(daemon.socket)
    watch = Watch(images)
    await journal.watched(2)
    journal.cut()
    while journal.watchers:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    assert not watch.task.done()
    await images.aclose()
    assert isinstance(await watch.ended(), StreamInterruptedError)
    assert str(watch.error).startswith("events: the service was closed")
    with pytest.raises(ServiceClosedError):
        await anext(images.events())
    await leftovers.settle(before)


async def test_a_silence_as_long_as_idle_timeout_is_a_break_that_nobody_notices(
    daemon: ScriptedDaemon, caplog: pytest.LogCaptureFixture, journal: Journal
) -> None:
    async with ImageService(daemon.socket, idle_timeout=0.1) as images:
        watch = Watch(images)
        await journal.watched(3)
        await journal.tell(happened(1))
        assert await watch.until(1) == names([happened(1)])
        await watch.stop()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_watching_takes_none_of_the_connections_of_streams(daemon: ScriptedDaemon, journal: Journal) -> None:
    async def pull(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames(DONE)
        await exchange.end()

    daemon.on("POST", "/images/create", pull)
    async with ImageService(daemon.socket, max_connections=1) as images, asyncio.timeout(10):
        watches = [Watch(images) for _ in range(3)]
        await journal.watched(3)
        await images.pull("alpine:3.20")
        for watch in watches:
            await watch.stop()


async def test_a_slow_consumer_does_not_hold_the_daemon_up(
    daemon: ScriptedDaemon, images: ImageService, journal: Journal
) -> None:
    """Docker skips events for a connection that takes none for a tenth of a second."""
    count = 5000  # more than a mebibyte
    events = [happened(number / 1000, name="x" * 100) for number in range(count)]
    stream = images.events()
    first = asyncio.create_task(anext(stream))
    await journal.watched()
    async with asyncio.timeout(10):
        for event in events:
            await journal.tell(event)
    received = [await first]
    async for one in stream:
        received.append(one)
        if len(received) == count:
            break
    await stream.aclose()
    assert seen(received) == names(events)


WayOut = Callable[[ImageService], Awaitable[None]]


async def leave_by_break(images: ImageService) -> None:
    async for _ in images.events(since=0):
        break


async def leave_by_exception(images: ImageService) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async for _ in images.events(since=0):
            raise ZeroDivisionError


async def leave_by_aclose(images: ImageService) -> None:
    stream = images.events(since=0)
    await anext(stream)
    await stream.aclose()


async def leave_by_cancel(images: ImageService) -> None:
    watch = Watch(images, since=0)
    await watch.until(1)
    await watch.stop()


async def leave_by_timeout(images: ImageService) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            async for _ in images.events(since=0):
                pass


async def leave_to_the_collector(images: ImageService) -> None:
    stream = images.events(since=0)
    await anext(stream)
    del stream


async def leave_unstarted(images: ImageService) -> None:
    stream = images.events(since=0)
    await stream.aclose()


WAYS_OUT: Final[list[WayOut]] = [
    leave_by_break,
    leave_by_exception,
    leave_by_aclose,
    leave_by_cancel,
    leave_by_timeout,
    leave_to_the_collector,
    leave_unstarted,
]


@pytest.mark.parametrize("leave", WAYS_OUT, ids=lambda way: way.__name__)
async def test_leaving_the_events_twenty_times_leaves_nothing(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers, journal: Journal, leave: WayOut
) -> None:
    journal.history = [happened(1)]
    await images.ping()
    before = leftovers.now()
    async with asyncio.timeout(20):
        for _ in range(20):
            await leave(images)
        while journal.watchers:
            await asyncio.sleep(0.002)
        await leftovers.settle(before)


async def test_leaving_while_the_daemon_is_away_leaves_nothing(short_path: Path, leftovers: Leftovers) -> None:
    path = short_path / "docker.sock"
    before = leftovers.now()
    async with ImageService(path) as images:
        journal = Journal()
        async with ScriptedDaemon(path) as daemon:
            daemon.on("GET", "/events", journal)
            watches = [Watch(images) for _ in range(3)]
            await journal.watched(3)
        await asyncio.sleep(0.05)
        for watch in watches:
            assert not watch.task.done()
            await watch.stop()
    await leftovers.settle(before)


MOMENTS: Final[list[tuple[datetime | float | str, str]]] = [
    (datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC), "1700000000.123456000"),
    (datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))), "1700000000.000000000"),
    (1700000000, "1700000000.000000000"),
    (1700000000.123456, "1700000000.123456000"),
    (0, "0.000000000"),
    (-0.5, "-1.500000000"),
    ("1700000000", "1700000000.000000000"),
    ("1700000000.000000001", "1700000000.000000001"),
    ("1700000000.5", "1700000000.500000000"),
    ("1700000000.0000000019", "1700000000.000000001"),
    ("2023-11-14T22:13:20Z", "1700000000.000000000"),
    ("2023-11-15T00:13:20.5+02:00", "1700000000.500000000"),
    ("10m", "1699999400.000000000"),
    ("1h30m", "1699994600.000000000"),
    ("1.5s", "1699999998.500000000"),
    ("-10m", "1700000600.000000000"),
    ("2ms3us4ns", "1699999999.997996996"),
]


@pytest.mark.parametrize(("moment", "sent"), MOMENTS, ids=[str(moment) for moment, _ in MOMENTS])
async def test_a_moment_is_sent_as_unix_time(
    images: ImageService, journal: Journal, monkeypatch: pytest.MonkeyPatch, moment: datetime | float | str, sent: str
) -> None:
    """The Engine itself understands nothing else: what the docker command takes is converted there, too."""
    monkeypatch.setattr("time.time_ns", lambda: NOW)
    journal.now = NOW + 1000 * SECOND
    assert [event async for event in images.events(since=moment, until=moment)] == []
    assert (journal.requests[0]["since"], journal.requests[0]["until"]) == (sent, sent)


NO_MOMENTS: Final[list[datetime | float | str]] = [
    datetime(2023, 11, 14),  # noqa: DTZ001 - naive on purpose
    float("nan"),
    float("inf"),
    "",
    "yesterday",
    "10 m",
    "10x",
    "m",
    "2023-11-14",
    "2023-11-14T22:13:20",
    "1700000000.",
    "٣",
]


@pytest.mark.parametrize("moment", NO_MOMENTS, ids=repr)
async def test_an_invalid_or_ambiguous_time_raises_at_the_call(
    images: ImageService, moment: datetime | float | str
) -> None:
    with pytest.raises(ValueError, match="since"):
        images.events(since=moment)
    with pytest.raises(ValueError, match="until"):
        images.events(until=moment)


async def test_until_alone_begins_with_all_the_past_even_after_a_break(images: ImageService, journal: Journal) -> None:
    journal.history = STORY
    journal.cuts = [len(journal.head()) + 10]
    journal.now = NOW + 1000 * SECOND
    assert seen([event async for event in images.events(until=NOW / SECOND + 500)]) == names(STORY)
    assert journal.since == ["0.000000000", "0.000000000"]


async def test_podman_is_asked_so_that_it_tells_all_until_the_end(
    daemon: ScriptedDaemon, images: ImageService, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman stops reading its log at `until`: for one in the past before it has read anything."""

    async def podman_ping(exchange: Exchange) -> None:
        await exchange.answer(b"", headers={"Api-Version": "1.44", "Server": "Libpod/5.8.6 (linux)"})

    daemon.on("HEAD", "/_ping", podman_ping)
    monkeypatch.setattr("time.time_ns", lambda: NOW)
    daemon.on("GET", "/events", end)
    assert [event async for event in images.events(until=NOW / SECOND - 10)] == []
    query = dict(daemon.requests[-1].query)
    assert (query["since"], query["stream"], "until" in query) == ("0.000000000", "false", False)
    daemon.on("GET", "/events", journal)
    journal.history = [happened(0), happened(0.5), happened(0.7)]
    journal.now = NOW + 2 * SECOND
    assert len([event async for event in images.events(until=NOW / SECOND + 0.5)]) == 2
    assert journal.requests[-1]["until"] == "1700000002.500000000"


FILTERS: Final = [
    (None, {"type": ["image"]}),
    ({"type": "image"}, {"type": ["image"]}),
    ({"type": ["image"]}, {"type": ["image"]}),
    ({"event": "delete"}, {"event": ["delete", "remove"], "type": ["image"]}),
    ({"event": ["tag", "delete"]}, {"event": ["tag", "delete", "remove"], "type": ["image"]}),
    (
        {"event": "tag", "image": "alpine:3.20"},
        {"event": ["tag"], "image": ["alpine:3.20", "docker.io/library/alpine:3.20"], "type": ["image"]},
    ),
    (
        {"image": ["docker.io/a/b", "127.0.0.1:5000/c"]},
        {"image": ["docker.io/a/b", "a/b", "127.0.0.1:5000/c"], "type": ["image"]},
    ),
    ({"image": f"sha256:{'1' * 64}"}, {"image": [f"sha256:{'1' * 64}", "1" * 64], "type": ["image"]}),
    ({"image": "1" * 64}, {"image": ["1" * 64, f"sha256:{'1' * 64}"], "type": ["image"]}),
    ({"image": "No Name"}, {"image": ["No Name"], "type": ["image"]}),
]


@pytest.mark.parametrize(("filters", "sent"), FILTERS, ids=[str(filters) for filters, _ in FILTERS])
async def test_filters_are_those_of_the_caller_and_images_alone(
    images: ImageService, journal: Journal, filters: dict[str, str | list[str]] | None, sent: dict[str, list[str]]
) -> None:
    """Podman filters deletions by another name than it gives them, and spells images in another way than Docker."""
    copy = None if filters is None else dict(filters)
    assert [event async for event in images.events(until=0, filters=filters)] == []
    assert json.loads(journal.requests[0]["filters"]) == sent
    assert filters == copy


@pytest.mark.parametrize("kind", ["container", ["image", "container"], []], ids=str)
def test_events_of_another_type_raise_at_the_call(kind: str | list[str]) -> None:
    with pytest.raises(ValueError, match="type"):
        ImageService("/nowhere/docker.sock").events(filters={"type": kind})


def test_only_events_that_a_new_connection_can_repeat_are_remembered() -> None:
    """That is the last minute, however much it brought, and as many events as a whole history of moby's has."""
    position = Position(0)
    position.begin(NOW)
    slow = [Event(action="tag", time_nano=NOW + number * SECOND) for number in range(3 * REMEMBERED)]
    latest = slow[-1].time_nano + SECOND
    fast = [Event(action="tag", time_nano=latest + number * SECOND // 1000) for number in range(3 * REMEMBERED)]
    assert all(position.is_new(event) for event in slow)
    assert not any(position.is_new(event) for event in slow[-REMEMBERED:])
    assert all(position.is_new(event) for event in fast)
    since = fast[-1].time_nano - OVERLAP
    assert position.since == since
    assert not any(position.is_new(event) for event in fast)
    remembered = [event for event in slow if event.time_nano >= since]
    assert remembered
    assert not any(position.is_new(event) for event in remembered)
    assert position.is_new(slow[0])


def test_events_of_one_moment_are_not_remembered_without_end() -> None:
    """Nor is what they say: of the 100 MB of these, hashes are kept."""

    def tagged(number: int) -> Event:
        actor = EventActor(id=f"{number:x}", attributes={"name": "x" * 1000})
        return Event(action="tag", time_nano=NOW, actor=actor)

    position = Position(0)
    position.begin(NOW)
    tracemalloc.start()
    try:
        for number in range(MAX_REMEMBERED + 100):
            assert position.is_new(tagged(number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 400 * MAX_REMEMBERED
    assert not position.is_new(tagged(MAX_REMEMBERED + 99))


def test_an_event_without_nanoseconds_is_placed_by_its_seconds() -> None:
    position = Position(0)
    position.begin(NOW)
    assert position.is_new(Event(action="tag", time=datetime.fromtimestamp(NOW // SECOND, UTC)))
    assert position.since == NOW - OVERLAP
    assert position.is_new(Event(action="untag"))  # nor even seconds: all of the past is asked for
    assert position.since == 0

"""The journal of a mirror run: it survives a kill at every point, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import stat
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiodocker_images import ConfigError, ImageService, MirrorJob, MirrorOutcome, Retry, mirror
from aiodocker_images._mirror import journal as _journal
from aiodocker_images._mirror.journal import Journal
from aiodocker_images._mirror.records import (
    HEADER,
    Began,
    Done,
    Ended,
    Held,
    Lent,
    Pulling,
    Record,
    Returned,
    Settled,
    decode,
    encode,
)
from tests.support.mirror_daemon import MirrorDaemon, State, answers, canonical, digest_of
from tests.support.scripted import ScriptedDaemon
from tests.support.sweeps import spread

A, B, C = "a.example/", "b.example/", "c.example/"
JOBS = [
    MirrorJob(f"{A}new:1", f"{B}new"),
    MirrorJob(f"{A}new:1", f"{C}new"),
    MirrorJob(f"{A}moved:1", f"{B}moved"),
    MirrorJob(f"{A}same:1", f"{B}same"),
]


def prepare(engine: MirrorDaemon) -> None:
    """Two images are new to the Engine, one has moved since, one is there; a target's name is somebody's, too."""
    for name in ("new", "moved", "same"):
        engine.publish(f"{A}{name}:1", f"{name} content")
    engine.has(f"{A}moved:1", "old content")
    engine.has(f"{A}same:1", "same content")
    engine.has(f"{C}new:1", "somebody's")


async def run(images: ImageService, journal: Path, jobs: list[MirrorJob] = JOBS) -> list[MirrorOutcome]:
    retry = Retry(attempts=2, initial=0, jitter=0)
    return [outcome async for outcome in mirror(images, jobs, concurrency=1, retry=retry, journal=journal)]


@dataclasses.dataclass
class Point:
    """Where a run may be killed: what the journal and the Engine have then."""

    journal: bytes
    state: State


async def points_of_a_run(directory: Path, **kind: bool) -> tuple[list[Point], State, State]:
    """Every point of one run: before and after each request, and between and in the middle of the journal's lines."""
    journal, seen = directory / "journal", list[Point]()
    async with ScriptedDaemon(directory / "first.sock") as daemon, ImageService(daemon.socket) as images:
        engine = MirrorDaemon(daemon, **kind)
        prepare(engine)
        before = engine.snapshot()

        async def watch(_: str) -> None:
            seen.append(Point(journal.read_bytes(), engine.snapshot()))

        engine.watch = watch
        assert {outcome.status for outcome in await run(images, journal)} == {"mirrored"}
        seen.append(Point(journal.read_bytes(), engine.snapshot()))
        points = [Point(b"", before), Point(HEADER[:20], before)]
        for one, other in itertools.pairwise(seen):
            points.append(one)
            written = one.journal
            for line in other.journal.removeprefix(one.journal).splitlines(keepends=True):
                points.append(Point(written + line[: len(line) // 2], one.state))
                written += line
                points.append(Point(written, one.state))
        return [*points, seen[-1]], before, engine.snapshot()


KINDS = {
    "containerd store": {"graph": False, "compares": True},
    "graph-driver store": {"graph": True, "compares": True},
    "no distribution inspect": {"graph": False, "compares": False},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_a_restart_after_a_kill_anywhere_finishes_and_restores_everything(
    short_path: Path, kind: dict[str, bool]
) -> None:
    """What the journal says is done is not pulled again, and the Engine is as it was before the first run."""
    points, before, after = await points_of_a_run(short_path, **kind)
    assert len(points) > 80
    journal = short_path / "journal"
    for number, point in spread([*enumerate(points)], 16):
        journal.write_bytes(point.journal)
        async with ScriptedDaemon(short_path / f"{number}.sock") as daemon, ImageService(daemon.socket) as images:
            engine = MirrorDaemon(daemon, **kind)
            engine.state = point.state
            done = {job for job in JOBS if f'"target":"{job.target}"'.encode() in b"".join(whole_lines(point.journal))}
            outcomes = await run(images, journal)
            ended = b'"ended"' in point.journal.splitlines()[-1] if point.journal else False
            assert {outcome.job for outcome in outcomes} == set(JOBS), number
            assert all(outcome.ok for outcome in outcomes), (number, outcomes)
            if kind["compares"] or not ended:
                assert {outcome.job for outcome in outcomes if outcome.status == "skipped"} >= done, number
                pulled = {entry.removeprefix("pull ") for entry in engine.log if entry.startswith("pull ")}
                assert pulled <= {canonical(job.source) for job in JOBS if job not in done}, number
            assert engine.state.remote == after.remote, number
            assert (engine.state.local, engine.state.images) == (before.local, before.images), number


def whole_lines(journal: bytes) -> list[bytes]:
    return [line for line in journal.splitlines(keepends=True) if line.endswith(b"\n")]


async def test_a_failed_job_alone_is_done_again(short_path: Path) -> None:
    async with ScriptedDaemon(short_path / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        engine = MirrorDaemon(daemon, graph=True)
        prepare(engine)
        engine.trouble[f"push {B}moved:1"] = [answers(403, "denied: not today")]
        journal = short_path / "journal"
        assert [o.status for o in await run(images, journal)].count("failed") == 1
        engine.log.clear()
        again = {outcome.job.target: outcome.status for outcome in await run(images, journal)}
        assert again.pop(f"{B}moved:1") == "mirrored"
        assert set(again.values()) == {"skipped"}
        assert engine.count("pull") == 1


async def test_a_later_run_does_what_has_changed_since(short_path: Path) -> None:
    """A source that moved, and a target that somebody else pushed to."""
    async with ScriptedDaemon(short_path / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        engine = MirrorDaemon(daemon, graph=True)
        prepare(engine)
        journal = short_path / "journal"
        await run(images, journal)
        engine.publish(f"{A}moved:1", "newer content")
        engine.publish(f"{C}new:1", "somebody else's")
        outcomes = {outcome.job: outcome.status for outcome in await run(images, journal)}
        assert [outcomes[job] for job in JOBS] == ["skipped", "mirrored", "mirrored", "skipped"]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_another_engine_is_not_given_back_what_it_never_lent(short_path: Path, kind: dict[str, bool]) -> None:
    """A journal of a run that was killed on one Engine makes no difference to another at the same address."""
    async with ScriptedDaemon(short_path / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        engine = MirrorDaemon(daemon, **kind)
        engine.identity = "another"
        mine = engine.has(f"{A}new:1", "mine")
        engine.has("mirror.aiodocker-images.invalid/0:pulled-1", "mine")
        before = engine.snapshot()
        records: list[Record] = [
            Began("elsewhere"),
            Lent(canonical(f"{A}new:1"), mine),
            Held("mirror.aiodocker-images.invalid/0:pulled-1", mine),
        ]
        journal = short_path / "journal"
        async with Journal(journal) as writing:
            await writing.note(*records)
        await run(images, journal, [])
        assert engine.state == before
        state, _, _ = decode(journal.read_bytes(), "it")
        assert state.engines["elsewhere"].records() == [records[2], records[1]]


@pytest.mark.parametrize("kind", list(KINDS.values())[:2], ids=list(KINDS)[:2])
async def test_an_image_that_others_pulled_since_outlives_the_killed_run(
    short_path: Path, kind: dict[str, bool]
) -> None:
    """A containerd store that is to remove a digest removes all tags of the repository that have it as well."""
    async with ScriptedDaemon(short_path / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        engine = MirrorDaemon(daemon, **kind)
        image = engine.has(f"{A}new:1", "pulled by somebody")
        digested = f"{A}new@{engine.state.images[image]}"
        if kind["graph"]:
            engine.state.local[digested] = image
        journal = short_path / "journal"
        async with Journal(journal) as writing:
            await writing.note(Began(engine.identity), Pulling(digested))
        await run(images, journal, [])
        assert engine.state.local == {canonical(f"{A}new:1"): image}
        assert list(engine.state.images) == [image]
        assert decode(journal.read_bytes(), "it")[0].engines == {}


async def test_what_a_container_came_to_need_of_a_killed_pull_is_left(short_path: Path) -> None:
    async with ScriptedDaemon(short_path / "docker.sock") as daemon, ImageService(daemon.socket) as images:
        engine = MirrorDaemon(daemon, graph=True)
        digested = f"{A}new@{engine.publish(f'{A}new:1')}"
        engine.move(digested, engine.has(f"{A}new:1", f"{A}new:1"))
        del engine.state.local[canonical(f"{A}new:1")]
        engine.trouble[f"remove {digested}"] = [answers(409, "conflict: unable to remove: container x is using it")]
        journal = short_path / "journal"
        async with Journal(journal) as writing:
            await writing.note(Began(engine.identity), Pulling(digested))
        await run(images, journal, [])
        assert list(engine.state.local) == [digested]
        assert decode(journal.read_bytes(), "it")[0].engines == {}


# What is a journal


NO_JOURNALS: list[tuple[str, bytes, str]] = [
    ("text", b"hello\n", "is not a journal of mirror"),
    ("text without a line", b"hello", "is not a journal of mirror"),
    ("binary", b"\x7fELF\x00\n\xff", "is not a journal of mirror"),
    ("another version", HEADER.replace(b"2", b"1"), "or of another version"),
    ("no record", HEADER + b"{}\n", "line 2: this is no record"),
    ("no JSON", HEADER + b'{"type":"ended"}\n\n{"type":"ended"}\n', "line 3: this is no record"),
    ("another record", HEADER + b'{"type":"paid"}\n', "line 2"),
    ("no job", HEADER + b'{"type":"done","job":{"source":"A","target":"b"}}\n', "line 2"),
    ("deep", HEADER + b"[" * 100_000 + b"\n", "line 2"),
]


@pytest.mark.parametrize(("content", "text"), [row[1:] for row in NO_JOURNALS], ids=[row[0] for row in NO_JOURNALS])
async def test_what_is_no_journal_is_refused_and_left_as_it_is(
    images: ImageService, daemon: ScriptedDaemon, tmp_path: Path, content: bytes, text: str
) -> None:
    MirrorDaemon(daemon)
    journal = tmp_path / "journal"
    journal.write_bytes(content)
    for dry_run in (False, True):
        with pytest.raises(ConfigError, match=text):
            await anext(mirror(images, JOBS, journal=journal, dry_run=dry_run))
    assert journal.read_bytes() == content
    assert daemon.paths == []


async def test_what_cannot_be_a_journal_is_refused(images: ImageService, tmp_path: Path) -> None:
    """A directory, a missing directory, a pipe that nobody would ever write to, a name with a null."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing" / "journal", tmp_path / "pipe", Path("a\0b")):
        with pytest.raises(ConfigError, match=r"^the journal "):
            await anext(mirror(images, JOBS, journal=path))


async def test_a_journal_is_one_runs_at_a_time(images: ImageService, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    MirrorDaemon(daemon)
    async with Journal(tmp_path / "journal"):
        with pytest.raises(ConfigError, match="in use by another run"):
            await anext(mirror(images, JOBS, journal=tmp_path / "journal"))
    assert await run(images, tmp_path / "journal", []) == []
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o600


async def test_a_journal_that_cannot_be_written_stops_the_run(
    images: ImageService, daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done that it would not tell; and what was half written is cut away."""
    engine = MirrorDaemon(daemon)
    prepare(engine)
    write, journal = os.write, tmp_path / "journal"

    def full(descriptor: int, data: bytes) -> int:
        if b'"lent"' in data:
            write(descriptor, data[:10])
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        await run(images, journal)
    assert (engine.count("push"), engine.state.remote.get(f"{B}new:1")) == (0, None)
    assert journal.read_bytes().endswith(b"}\n")
    monkeypatch.undo()
    assert {outcome.status for outcome in await run(images, journal)} == {"mirrored"}


async def test_a_long_journal_is_rewritten_without_what_no_longer_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_journal, "SPARE_RECORDS", 10)
    path = tmp_path / "journal"
    done = Done(JOBS[0], digest_of("a"), digest_of("b"))
    async with Journal(path) as journal:
        for _ in range(20):
            await journal.note(Began("x"), Lent("a"), Returned("a"), Settled(), done, Ended())
        await journal.note(Began("x"), Lent("b", "id"), Held("c", "other"), done)
        before = journal.state
    path.chmod(0o640)
    async with Journal(path) as journal:
        assert vars(journal.state) == vars(before)
        with contextlib.suppress(ConfigError):
            async with Journal(path):
                pytest.fail("the new file is locked as well")
        await journal.note(Ended())
    assert path.read_bytes().count(b"\n") == 6
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["journal"]


class SlowDisk:
    """Writes a journal when it may, and not more if it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.writes = 0
        self.full = False
        write = os.write

        def slow(descriptor: int, data: bytes) -> int:
            self.writes += 1
            self.begun.set()
            self.go.wait()
            if self.full:
                raise OSError(28, "No space left on device")
            return write(descriptor, data)

        # Not os.write itself, by which asyncio wakes its loop.
        monkeypatch.setattr(_journal, "os", SimpleNamespace(**{**vars(os), "write": slow}))

    async def takes(self, notes: Sequence[Coroutine[Any, Any, None]]) -> list[asyncio.Task[None]]:
        """Note the first, and while the disk is at it, the others."""
        tasks = [asyncio.create_task(notes[0])]
        await asyncio.to_thread(self.begun.wait)
        tasks += [asyncio.create_task(note) for note in notes[1:]]
        await asyncio.sleep(0)
        return tasks


async def test_what_many_note_at_once_is_on_the_disk_in_two_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that come while the disk is at work wait for one write for all of them, a cancelled one or not."""
    async with Journal(tmp_path / "journal") as journal:
        disk = SlowDisk(monkeypatch)
        noted: list[Record] = [Pulling(str(number)) for number in range(9)]
        tasks = await disk.takes([journal.note(record) for record in noted])
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        disk.go.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError)
        assert ended[1:] == [None] * 8
        assert disk.writes == 2
        monkeypatch.undo()
    lines = (tmp_path / "journal").read_bytes().splitlines()[1:]
    assert [msgspec.json.decode(line, type=Record) for line in lines] == noted


async def test_a_disk_that_is_full_fails_all_that_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Journal(tmp_path / "journal") as journal:
        disk = SlowDisk(monkeypatch)
        disk.full = True
        tasks = await disk.takes([journal.note(Pulling(str(number))) for number in range(5)])
        tasks[0].cancel()
        disk.go.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError, *[ConfigError] * 4]
        with pytest.raises(ConfigError, match="No space left"):
            await journal.note(Ended())
        assert disk.writes == 1
        monkeypatch.undo()


# Properties


names = st.sampled_from(["a", "b", "c"])
ids = st.none() | st.sampled_from(["1", "2"])
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Began, st.sampled_from(["x", "y"])),
    st.builds(Lent, names, st.sampled_from(["", "1", "2"]), ids, ids),
    st.builds(Held, names, st.sampled_from(["1", "2"]), st.booleans()),
    st.builds(Pulling, names),
    st.builds(Returned, names),
    st.builds(Done, st.sampled_from(JOBS), ids, ids),
    st.just(Settled()),
    st.just(Ended()),
)


def encoded(content: list[Record]) -> bytes:
    return HEADER + b"".join(map(encode, content))


@given(st.lists(records))
def test_the_fewest_records_say_the_same(content: list[Record]) -> None:
    """Whatever a run that comes next would want to know."""
    state, count, whole = decode(encoded(content), "it")
    assert (count, whole) == (len(content), len(encoded(content)))
    again, fewer, _ = decode(encoded(state.records()), "it")
    assert fewer <= min(len(content) + 4, state.count())
    assert (again.done, again.in_this_run) == (state.done, state.in_this_run)
    assert again.engines == state.engines


@given(st.lists(records), st.data())
def test_a_torn_last_line_is_as_if_it_were_not_there(content: list[Record], data: st.DataObject) -> None:
    whole = encoded(content)
    cut = data.draw(st.integers(0, len(whole)))
    state, count, size = decode(whole[:cut], "it")
    assert size == whole[:cut].rfind(b"\n") + 1
    assert count == max(whole[:cut].count(b"\n") - 1, 0)
    expected, _, _ = decode(whole[:size], "it")
    assert vars(state) == vars(expected)


@given(st.binary() | st.binary().map(lambda data: HEADER + data) | st.binary().map(lambda data: HEADER + data + b"\n"))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_a_journal_or_a_configuration_error(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        decode(data, "it")

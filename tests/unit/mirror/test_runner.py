"""mirror: what is asked, moved, tried again, given back and told, with an Engine that does as it is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from aiodocker_images import (
    DockerError,
    ImageService,
    InvalidPlatformError,
    InvalidReferenceError,
    MirrorFailure,
    MirrorJob,
    MirrorOutcome,
    MirrorProgress,
    MirrorStatus,
    MirrorSummary,
    NotGivenBackError,
    Retry,
    StreamInterruptedError,
    mirror,
)
from tests.conftest import Leftovers
from tests.support.mirror_daemon import MirrorDaemon, answers, canonical, cut, digest_of, fails_in_stream
from tests.support.scripted import Exchange, Handler, ScriptedDaemon

AT_ONCE = Retry(initial=0, jitter=0)
A, B, C = "a.example/", "b.example/", "c.example/"


@pytest.fixture
def engine(daemon: ScriptedDaemon) -> MirrorDaemon:
    return MirrorDaemon(daemon)


async def all_of(outcomes: AsyncGenerator[MirrorOutcome, None]) -> dict[str, MirrorOutcome]:
    """Every outcome, by its target's path and tag."""
    return {outcome.job.target.partition("/")[2]: outcome async for outcome in outcomes}


def statuses(outcomes: dict[str, MirrorOutcome]) -> dict[str, MirrorStatus]:
    return {name: outcome.status for name, outcome in outcomes.items()}


def waiting_for(event: asyncio.Event, then: Callable[[str, Exchange], Awaitable[None]], name: str) -> Handler:
    async def handler(exchange: Exchange) -> None:
        await event.wait()
        await then(name, exchange)

    return handler


# What is to be done


JOBS: list[tuple[str, str, str, str]] = [
    ("alpine", "r.example/a", "alpine:latest", "r.example/a:latest"),
    ("docker.io/library/alpine:3", "r.example/a", "alpine:3", "r.example/a:3"),
    ("alpine:3", "r.example/a:4", "alpine:3", "r.example/a:4"),
    (f"r.example/b@{digest_of('x')}", "user/a:1", f"r.example/b@{digest_of('x')}", "user/a:1"),
]


@pytest.mark.parametrize(("source", "target", "kept_source", "kept_target"), JOBS)
def test_a_job_s_names_are_those_that_docker_shows(
    source: str, target: str, kept_source: str, kept_target: str
) -> None:
    job = MirrorJob(source, target, "LINUX/amd64")
    assert (job.source, job.target, job.platform) == (kept_source, kept_target, "linux/amd64")
    assert MirrorJob(job.source, job.target, job.platform) == job


NO_JOBS: list[tuple[str, str, str | None, type[Exception], str]] = [
    ("Alpine", "r.example/a", None, InvalidReferenceError, "lower-case"),
    ("alpine", "-x", None, InvalidReferenceError, "not a"),
    ("alpine", f"r.example/a@{digest_of('x')}", None, InvalidReferenceError, "has a digest"),
    (f"alpine@{digest_of('x')}", "r.example/a", None, InvalidReferenceError, "needs a tag"),
    ("alpine", "docker.io/library/alpine:latest", None, InvalidReferenceError, "to itself"),
    ("alpine", "r.example/a", "a/b/c/d", InvalidPlatformError, "not a platform"),
]


@pytest.mark.parametrize(("source", "target", "platform", "error", "text"), NO_JOBS)
def test_what_makes_no_sense_is_no_job(
    source: str, target: str, platform: str | None, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        MirrorJob(source, target, platform)


def test_outcomes_go_through_json_and_pickle_and_say_the_truth_in_words() -> None:
    job = MirrorJob("alpine:3", "r.example/a", "linux/arm64")
    mirrored = MirrorOutcome(job=job, status="mirrored", digest_preserved=False, because="of a test", elapsed=1.5)
    failed = MirrorOutcome(job=job, status="failed", attempts=3, error=MirrorFailure("NotFoundError", "it is gone"))
    for outcome in (mirrored, failed):
        assert msgspec.json.decode(msgspec.json.encode(outcome), type=MirrorOutcome) == outcome
        assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert mirrored.digest_note == "digest preserved: no, because of a test"
    assert str(mirrored) == "mirrored: alpine:3 -> r.example/a:3 (linux/arm64): digest preserved: no, because of a test"
    assert str(failed) == "failed: alpine:3 -> r.example/a:3 (linux/arm64): NotFoundError: it is gone"
    summary = MirrorSummary.of([mirrored, failed])
    assert (summary.ok, summary.failures, summary.count("mirrored")) == (False, (failed,), 1)
    assert str(summary) == f"1 mirrored, 1 failed\n{failed}"
    assert (MirrorSummary.of([mirrored]).ok, str(MirrorSummary.of([]))) == (True, "nothing to do")


NO_RUNS: list[tuple[str, Callable[[ImageService], object], str]] = [
    ("two to one", lambda images: mirror(images, [MirrorJob("a", "r.x/a"), MirrorJob("b", "r.x/a")]), "two jobs write"),
    ("chain", lambda images: mirror(images, [MirrorJob("a", "r.x/a"), MirrorJob("r.x/a", "r.y/a")]), "the source of"),
    ("concurrency", lambda images: mirror(images, [], concurrency=0), "concurrency must be 1 or more, not 0"),
    ("per registry", lambda images: mirror(images, [], per_registry={"r.x": 0}), "per_registry must be 1 or more"),
    ("platform", lambda images: mirror(images, [], platforms=["a/b/c/d"]), "not a platform"),
    ("attempts", lambda images: mirror(images, [], retry=Retry(attempts=0)), "attempts must be 1 or more"),
    ("wait", lambda images: mirror(images, [], retry=Retry(initial=float("nan"))), "initial must be 0 seconds or more"),
]


@pytest.mark.parametrize(("call", "text"), [row[1:] for row in NO_RUNS], ids=[row[0] for row in NO_RUNS])
def test_what_cannot_be_done_is_refused_at_the_call(call: Callable[[ImageService], object], text: str) -> None:
    with pytest.raises(DockerError, match=text):
        call(ImageService("/nowhere.sock"))


def test_tenacity_and_distributed_are_imported_only_for_mirroring() -> None:
    code = (
        "import sys\n"
        "sys.modules.update({'tenacity': None, 'distributed': None, 'dask': None})\n"
        "from aiodocker_images import ConfigError, ImageService, MirrorJob, MirrorPlan, mirror, transfer\n"
        "transfer(ImageService('/x'), ImageService('/y'))\n"
        "try:\n"
        "    mirror(ImageService('/x'), [])\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "mirroring needs tenacity: pip install 'aiodocker-images[mirror]'\n"


# What is asked and moved


async def test_jobs_of_one_source_share_one_pull_and_nothing_stays(images: ImageService, engine: MirrorDaemon) -> None:
    digest = engine.publish(f"{A}app:1")
    jobs = [MirrorJob(f"{A}app:1", f"{registry}app") for registry in (B, C)]
    outcomes = [outcome async for outcome in mirror(images, jobs)]
    assert [(o.status, o.source_digest, o.target_digest, o.digest_preserved, o.attempts) for o in outcomes] == [
        ("mirrored", digest, digest, True, 1)
    ] * 2
    assert {outcome.job for outcome in outcomes} == set(jobs)
    assert (engine.count("pull"), engine.count("push")) == (1, 2)
    assert engine.state.remote == {canonical(f"{registry}app:1"): digest for registry in (A, B, C)}
    assert (engine.state.local, engine.state.images) == ({}, {})


async def test_what_is_there_is_skipped_without_a_byte_moved(images: ImageService, engine: MirrorDaemon) -> None:
    for name in ("one", "two"):
        engine.publish(f"{A}{name}:1", name)
    engine.publish(f"{B}one:1", "one")
    engine.publish(f"{B}two:1", "another")
    outcomes = await all_of(mirror(images, [MirrorJob(f"{A}{name}:1", f"{B}{name}") for name in ("one", "two")]))
    assert statuses(outcomes) == {"one:1": "skipped", "two:1": "mirrored"}
    assert outcomes["one:1"].because == "the digests are equal"
    assert outcomes["one:1"].digest_preserved
    # The two registries are asked together; which of the two requests arrives first is not ours to say.
    assert sorted(entry for entry in engine.log if "one" in entry) == [f"look {A}one:1", f"look {B}one:1"]


async def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(
    images: ImageService, engine: MirrorDaemon, tmp_path: Path
) -> None:
    for name in ("there", "other", "missing"):
        engine.publish(f"{A}{name}:1", name)
    engine.publish(f"{B}there:1", "there")
    engine.publish(f"{B}other:1", "something else")
    before = engine.snapshot()
    jobs = [MirrorJob(f"{A}{name}:1", f"{B}{name}") for name in ("there", "other", "missing", "nowhere")]
    outcomes = await all_of(mirror(images, jobs, dry_run=True, journal=tmp_path / "journal"))
    assert {name: (outcome.status, outcome.because) for name, outcome in outcomes.items()} == {
        "there:1": ("skipped", "the digests are equal"),
        "other:1": ("planned", "the target has another digest"),
        "missing:1": ("planned", "the target is not there"),
        "nowhere:1": ("failed", None),
    }
    assert {entry.partition(" ")[0] for entry in engine.log} == {"look"}
    assert (engine.state, list(tmp_path.iterdir())) == (before, [])


async def test_one_failure_harms_no_other_job(images: ImageService, engine: MirrorDaemon) -> None:
    for name in ("one", "two", "three"):
        engine.publish(f"{A}{name}:1")
    engine.trouble[f"push {B}two:1"] = [answers(500, "denied: requested access to the resource is denied")]
    jobs = [MirrorJob(f"{A}{name}:1", f"{B}{name}") for name in ("one", "two", "three", "four")]
    outcomes = await all_of(mirror(images, jobs, retry=AT_ONCE))
    assert statuses(outcomes) == {"one:1": "mirrored", "two:1": "failed", "three:1": "mirrored", "four:1": "failed"}
    assert {name: o.error.kind for name, o in outcomes.items() if o.error} == {
        "two:1": "ForbiddenError",
        "four:1": "NotFoundError",
    }
    assert (engine.state.local, engine.state.images) == ({}, {})


async def test_frames_come_with_their_job_and_step(images: ImageService, engine: MirrorDaemon) -> None:
    engine.publish(f"{A}app:1")
    seen: list[tuple[MirrorJob, str, str | None]] = []

    async def see(progress: MirrorProgress) -> None:
        await asyncio.sleep(0)
        seen.append((progress.job, progress.step, progress.frame.status))

    job = MirrorJob(f"{A}app:1", f"{B}app")
    await all_of(mirror(images, [job], on_progress=see))
    assert seen[0] == (job, "pull", "Pulling from x")
    assert (job, "push", "Pushed") in seen


@pytest.mark.parametrize(
    ("concurrency", "per_registry", "most"),
    [(3, None, 3), (1, None, 1), (8, 2, 2), (8, {"a.example": 1, "b.example": 1}, 2), (8, {"z.example": 1}, 8)],
)
async def test_transfers_are_bounded_and_control_calls_are_not(
    images: ImageService, engine: MirrorDaemon, concurrency: int, per_registry: int | dict[str, int] | None, most: int
) -> None:
    """While all transfers stand still, the most that may are under way, and a ping and a list are answered."""
    names = [f"app{number}:1" for number in range(8)]
    go = asyncio.Event()
    for name in names:
        engine.publish(f"{A}{name}")
        engine.trouble[f"pull {A}{name}"] = [waiting_for(go, engine.pull, f"{A}{name}")]
    jobs = [MirrorJob(f"{A}{name}", f"{B}{name}") for name in names]
    task = asyncio.create_task(all_of(mirror(images, jobs, concurrency=concurrency, per_registry=per_registry)))
    pulling = most if per_registry != {"a.example": 1, "b.example": 1} else 1
    while len(engine.busy) < pulling or engine.count("look") < 16:
        await asyncio.sleep(0.005)
    await images.ping()
    await images.list()
    assert len(engine.busy) == pulling
    go.set()
    assert set(statuses(await task).values()) == {"mirrored"}
    assert engine.most_busy <= most


async def test_tags_of_one_image_go_into_a_repository_one_after_the_other(
    images: ImageService, engine: MirrorDaemon
) -> None:
    """The next one finds the layers there; into other repositories they go meanwhile."""
    go = asyncio.Event()
    engine.publish(f"{A}app:1")
    targets = [f"{B}app:1", f"{B}app:2", f"{B}app:3", f"{C}app:1"]
    for name in targets:
        engine.trouble[f"push {name}"] = [waiting_for(go, engine.push, name)]
    task = asyncio.create_task(all_of(mirror(images, [MirrorJob(f"{A}app:1", name) for name in targets])))
    while engine.count("push") < 2:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert {entry.partition("/")[0] for entry in engine.busy} == {"push b.example", "push c.example"}
    assert len(engine.busy) == 2
    go.set()
    await task
    assert engine.count("push") == 4


async def test_images_do_not_pile_up_on_the_engine_before_their_pushes(
    images: ImageService, engine: MirrorDaemon
) -> None:
    """Pushes that are held up hold up pulls: no more images are begun than twice what may be transferred at once."""
    go = asyncio.Event()
    for number in range(9):
        engine.publish(f"{A}app{number}:1")
        engine.trouble[f"push {B}app{number}:1"] = [waiting_for(go, engine.push, f"{B}app{number}:1")]
    jobs = [MirrorJob(f"{A}app{number}:1", f"{B}app{number}") for number in range(9)]
    task = asyncio.create_task(all_of(mirror(images, jobs, concurrency=3, per_registry={"b.example": 1})))
    while engine.count("push") < 1 or engine.count("pull") < 6:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)
    assert (engine.count("push"), engine.count("pull")) == (1, 6)
    go.set()
    assert set(statuses(await task).values()) == {"mirrored"}


# What is tried again


PASSING: list[tuple[str, Handler]] = [
    ("429", answers(429, "slow down")),
    ("toomanyrequests with 500", answers(500, "toomanyrequests: You have reached your pull rate limit.")),
    ("500", answers(500, "received unexpected HTTP status: 502 Bad Gateway")),
    ("in the stream", fails_in_stream("something broke")),
    ("cut", cut),
]
FINAL: list[tuple[str, Handler, str]] = [
    ("400", answers(400, "invalid reference format"), "InvalidParameterError"),
    ("401", answers(401, "unauthorized: incorrect username or password"), "UnauthorizedError"),
    ("401 with 500", answers(500, "Head: unauthorized: authentication required"), "UnauthorizedError"),
    ("403", answers(403, "denied: not you"), "ForbiddenError"),
    ("404", answers(404, "manifest unknown"), "NotFoundError"),
    ("404 in the stream", fails_in_stream("manifest for a:1 not found: manifest unknown"), "NotFoundError"),
]
STEPS = ["pull", "push"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("handler", [row[1] for row in PASSING], ids=[row[0] for row in PASSING])
async def test_what_may_pass_is_tried_again(
    images: ImageService, engine: MirrorDaemon, step: str, handler: Handler
) -> None:
    """The step alone: a push that failed does not pull again."""
    engine.publish(f"{A}app:1")
    name = {"pull": A, "push": B}[step] + "app:1"
    engine.trouble[f"{step} {name}"] = [handler, handler]
    (outcome,) = (await all_of(mirror(images, [MirrorJob(f"{A}app:1", f"{B}app")], retry=AT_ONCE))).values()
    assert (outcome.status, outcome.attempts) == ("mirrored", 3)
    assert (engine.count("pull"), engine.count("push")) == ((3, 1) if step == "pull" else (1, 3))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("handler", "kind"), [row[1:] for row in FINAL], ids=[row[0] for row in FINAL])
async def test_what_will_not_pass_is_not_tried_again(
    images: ImageService, engine: MirrorDaemon, step: str, handler: Handler, kind: str
) -> None:
    engine.publish(f"{A}app:1")
    name = {"pull": A, "push": B}[step] + "app:1"
    engine.trouble[f"{step} {name}"] = [handler]
    (outcome,) = (await all_of(mirror(images, [MirrorJob(f"{A}app:1", f"{B}app")], retry=AT_ONCE))).values()
    assert outcome.error is not None
    assert (outcome.status, outcome.error.kind, outcome.attempts) == ("failed", kind, 1)
    assert engine.log.count(f"{step} {name}") == 1
    assert (engine.state.local, engine.state.images) == ({}, {})


@pytest.mark.parametrize(("retry", "tries"), [(None, 1), (Retry(attempts=3, initial=0, jitter=0), 3)])
async def test_a_step_is_tried_as_often_as_is_said(
    images: ImageService, engine: MirrorDaemon, retry: Retry | None, tries: int
) -> None:
    engine.publish(f"{A}app:1")
    engine.trouble[f"pull {A}app:1"] = [answers(500, "broken")] * 9
    (outcome,) = (await all_of(mirror(images, [MirrorJob(f"{A}app:1", f"{B}app")], retry=retry))).values()
    assert (outcome.status, outcome.attempts, engine.count("pull")) == ("failed", tries, tries)


async def test_a_rate_limit_pauses_its_registry_and_no_other(images: ImageService, engine: MirrorDaemon) -> None:
    """After the first one nothing more is asked of that registry, and what has to do with others is done."""
    for number in range(4):
        engine.publish(f"{A}app{number}:1")
        engine.publish(f"{C}app{number}:1")
        engine.trouble[f"pull {A}app{number}:1"] = [answers(429, "toomanyrequests: slow down")] * 9
    met = asyncio.Event()

    async def watch(entry: str) -> None:
        if entry.startswith(f"pull {A}"):
            met.set()
        elif entry.startswith(f"look {C}"):  # else the others may all have ended by then
            await met.wait()

    engine.watch = watch
    limited = [MirrorJob(f"{A}app{number}:1", f"{B}a{number}") for number in range(4)]
    others = [MirrorJob(f"{C}app{number}:1", f"{B}c{number}") for number in range(4)]
    outcomes: list[MirrorOutcome] = []
    patient = Retry(initial=3600, maximum=3600)
    async with contextlib.aclosing(mirror(images, limited + others, concurrency=1, retry=patient)) as stream:
        async for outcome in stream:
            outcomes.append(outcome)
            if len(outcomes) == 4:
                break
    assert {outcome.job for outcome in outcomes} == set(others)
    assert len([entry for entry in engine.log if entry.startswith(f"pull {A}")]) == 1


async def test_images_for_a_registry_that_is_paused_hold_up_no_other_s(
    images: ImageService, engine: MirrorDaemon
) -> None:
    """None is pulled for it any more, and those that are on the Engine take no room from what others are for."""
    jobs: list[MirrorJob] = []
    for number in range(6):
        engine.publish(f"{A}app{number}:1")
        engine.trouble[f"push {B}app{number}:1"] = [answers(429, "toomanyrequests: slow down")] * 9
        jobs += [MirrorJob(f"{A}app{number}:1", f"{B}app{number}")]
    for number in range(6):
        engine.publish(f"{A}other{number}:1")
        jobs += [MirrorJob(f"{A}other{number}:1", f"{C}other{number}")]
    patient = Retry(initial=3600, maximum=3600)
    ended: list[str] = []
    async with contextlib.aclosing(mirror(images, jobs, concurrency=2, retry=patient)) as stream:
        async for outcome in stream:
            ended.append(outcome.job.target)
            if len(ended) == 6:
                break
    assert set(ended) == {f"{C}other{number}:1" for number in range(6)}
    assert len([entry for entry in engine.log if entry.startswith(f"push {B}")]) <= 2
    assert len([entry for entry in engine.log if entry.startswith(f"pull {A}app")]) <= 4


async def test_an_engine_that_went_away_and_came_back_is_asked_again(short_path: Path) -> None:
    async with ScriptedDaemon(short_path / "docker.sock") as daemon:
        engine = MirrorDaemon(daemon)
        engine.publish(f"{A}app:1")

        async def hang_up(exchange: Exchange) -> None:
            exchange.cut()

        for entry in ("list", f"inspect {A}app:1", f"tag {B}app:1", f"remove {A}app:1"):
            engine.trouble[entry] = [hang_up]
        async with ImageService(daemon.socket) as images:
            (outcome,) = (await all_of(mirror(images, [MirrorJob(f"{A}app:1", f"{B}app")], retry=AT_ONCE))).values()
        assert outcome.status == "mirrored"
        assert (engine.state.local, engine.state.images) == ({}, {})


# What was there and what was not


async def test_what_was_on_the_engine_is_there_after_and_nothing_else(
    images: ImageService, engine: MirrorDaemon
) -> None:
    """Names come back to the image that they had, and what a pull left without a name is removed."""
    engine.publish(f"{A}same:1", "same")
    engine.publish(f"{A}moved:1", "new")
    engine.publish(f"{A}new:1", "brand new")
    engine.has(f"{A}same:1", "same")
    engine.has(f"{A}moved:1", "old")
    engine.has(f"{B}moved:1", "yet another")
    engine.has("localhost/mine:1", "brand new")
    before = engine.snapshot()
    outcomes = await all_of(mirror(images, [MirrorJob(f"{A}{n}:1", f"{B}{n}") for n in ("same", "moved", "new")]))
    assert set(statuses(outcomes).values()) == {"mirrored"}
    assert (engine.state.local, engine.state.images) == (before.local, before.images)
    assert {engine.state.remote[canonical(f"{B}{name}:1")] for name in ("same", "moved", "new")} == {
        digest_of("same"),
        digest_of("new"),
        digest_of("brand new"),
    }


async def test_keep_leaves_the_engine_as_pulls_and_tags_would(images: ImageService, engine: MirrorDaemon) -> None:
    engine.publish(f"{A}app:1", "new")
    engine.has(f"{A}app:1", "old")
    await all_of(mirror(images, [MirrorJob(f"{A}app:1", f"{B}app")], keep=True))
    assert {engine.state.images[image] for image in engine.state.local.values()} == {digest_of("new")}
    assert set(engine.state.local) == {canonical(f"{A}app:1"), canonical(f"{B}app:1")}


async def test_an_image_that_a_container_came_to_need_is_left(images: ImageService, engine: MirrorDaemon) -> None:
    engine.publish(f"{A}app:1")
    engine.trouble["remove own:pulled-1"] = [answers(409, "conflict: unable to remove: container x is using it")]
    outcomes = await all_of(mirror(images, [MirrorJob(f"{A}app:1", f"{B}app")]))
    assert statuses(outcomes) == {"app:1": "mirrored"}
    assert engine.state.local == {}
    assert set(engine.state.images.values()) == {digest_of(f"{A}app:1")}


async def test_what_cannot_be_given_back_is_raised_at_the_end(images: ImageService, engine: MirrorDaemon) -> None:
    """The outcomes come before; an Engine that keeps our images is no success."""
    engine.publish(f"{A}app:1")
    engine.publish(f"{A}other:1")
    engine.trouble["remove own:pulled-1"] = [answers(500, "broken")] * 99
    outcomes: list[MirrorOutcome] = []
    with pytest.raises(NotGivenBackError, match=r"pulled-1: .*broken") as raised:
        jobs = [MirrorJob(f"{A}{name}:1", f"{B}{name}") for name in ("app", "other")]
        async for outcome in mirror(images, jobs, retry=AT_ONCE, concurrency=1):
            outcomes.append(outcome)  # noqa: PERF401 - what came before the exception counts
    assert [outcome.status for outcome in outcomes] == ["mirrored"] * 2
    assert list(engine.state.local) == list(raised.value.names)


async def test_a_full_disk_stops_everything_with_what_to_do(images: ImageService, engine: MirrorDaemon) -> None:
    """The job that met it has failed, the others are stopped, and what was borrowed is given back."""
    go = asyncio.Event()
    for number in range(6):
        engine.publish(f"{A}app{number}:1")
    engine.trouble[f"pull {A}app1:1"] = [fails_in_stream("failed to register layer: no space left on device")]
    engine.trouble[f"pull {A}app2:1"] = [waiting_for(go, engine.pull, f"{A}app2:1")]
    engine.has(f"{A}app2:1", "mine")
    before = engine.snapshot()
    jobs = [MirrorJob(f"{A}app{number}:1", f"{B}app{number}") for number in range(6)]
    outcomes = await all_of(mirror(images, jobs, concurrency=3, retry=AT_ONCE))
    assert outcomes["app1:1"].error is not None
    assert outcomes["app1:1"].error.kind == "NoSpaceError"
    assert "Free some space" in outcomes["app1:1"].error.message
    stopped = {name for name, outcome in outcomes.items() if outcome.status == "stopped"}
    assert "app2:1" in stopped
    assert statuses(outcomes) == {f"app{n}:1": outcomes[f"app{n}:1"].status for n in range(6)}
    assert {outcome.ok for outcome in outcomes.values() if outcome.status in {"failed", "stopped"}} == {False}
    assert (engine.state.local, engine.state.images) == (before.local, before.images)


# Ways out


async def leave_by_break(stream: AsyncGenerator[MirrorOutcome, None]) -> None:
    async for _ in stream:
        break


async def leave_by_aclose(stream: AsyncGenerator[MirrorOutcome, None]) -> None:
    await anext(stream)
    await stream.aclose()


async def leave_by_exception(stream: AsyncGenerator[MirrorOutcome, None]) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with contextlib.aclosing(stream):
            async for _ in stream:
                raise ZeroDivisionError


async def leave_by_cancel(stream: AsyncGenerator[MirrorOutcome, None]) -> None:
    first = asyncio.Event()

    async def run() -> None:
        async for _ in stream:
            first.set()

    task = asyncio.create_task(run())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_timeout(stream: AsyncGenerator[MirrorOutcome, None]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            async for _ in stream:
                pass


WAYS_OUT = [leave_by_break, leave_by_aclose, leave_by_exception, leave_by_cancel, leave_by_timeout]


@pytest.mark.parametrize("stuck", ["pull", "push", "inspect", "look", "tag"])
@pytest.mark.parametrize("leave", WAYS_OUT, ids=[way.__name__ for way in WAYS_OUT])
async def test_leaving_in_any_way_ends_everything_and_leaves_nothing(
    daemon: ScriptedDaemon,
    engine: MirrorDaemon,
    leftovers: Leftovers,
    tmp_path: Path,
    leave: Callable[[AsyncGenerator[MirrorOutcome, None]], Awaitable[None]],
    stuck: str,
) -> None:
    """No task, no connection, no file, no name and no image; and the journal can be opened again."""

    async def never(exchange: Exchange) -> None:
        await exchange.client_gone()

    for number in range(4):
        engine.publish(f"{A}app{number}:1")
    engine.has(f"{A}app1:1", "mine")
    prefix = A if stuck in {"pull", "look"} else B
    for number in range(1, 4):
        engine.trouble[f"{stuck} {prefix}app{number}:1"] = [never]
    before, journal = engine.snapshot(), tmp_path / "journal"
    jobs = [MirrorJob(f"{A}app{number}:1", f"{B}app{number}") for number in range(4)]
    open_before = leftovers.now()
    async with ImageService(daemon.socket) as images:
        await leave(mirror(images, jobs, journal=journal))
        while any(task.get_name() == "mirror" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)  # after a break the generator is closed by the loop, soon
        assert (engine.state.local, engine.state.images) == (before.local, before.images)
        assert not engine.busy
    await daemon.idle()
    await leftovers.settle(open_before)
    engine.trouble.clear()
    async with ImageService(daemon.socket) as images:
        assert set(statuses(await all_of(mirror(images, jobs, journal=journal))).values()) <= {"mirrored", "skipped"}


async def test_a_callback_may_close_the_service_and_the_run_gives_all_back_first(
    daemon: ScriptedDaemon, engine: MirrorDaemon, leftovers: Leftovers
) -> None:
    for number in range(3):
        engine.publish(f"{A}app{number}:1")
    engine.has(f"{A}app1:1", "mine")
    before, open_before = engine.snapshot(), leftovers.now()
    jobs = [MirrorJob(f"{A}app{number}:1", f"{B}app{number}") for number in range(3)]
    pushed: list[object] = []
    async with ImageService(daemon.socket) as images:

        async def close(progress: MirrorProgress) -> None:
            if progress.step == "push" and not pushed:
                pushed.append(progress)
                await images.aclose()

        with pytest.raises(StreamInterruptedError, match="the service was closed"):
            await all_of(mirror(images, jobs, on_progress=close))
    assert pushed
    assert (engine.state.local, engine.state.images) == (before.local, before.images)
    await daemon.idle()
    await leftovers.settle(open_before, within=30)


# The truth about digests


async def test_a_changed_digest_is_told_with_its_reason(images: ImageService, daemon: ScriptedDaemon) -> None:
    engine = MirrorDaemon(daemon, graph=True)
    digest = engine.publish(f"{A}app:1")
    engine.publish(f"{A}multi:1")
    engine.indexes[f"{A}multi:1"] = ["linux/amd64", "linux/arm64"]
    outcomes = await all_of(mirror(images, [MirrorJob(f"{A}{name}:1", f"{B}{name}") for name in ("app", "multi")]))
    store = "the Engine's graph-driver store writes a manifest of its own"
    changed = digest_of(f"changed {digest}")
    assert outcomes["app:1"].digest_note == f"digest preserved: no, because {store}"
    assert (outcomes["app:1"].source_digest, outcomes["app:1"].target_digest) == (
        digest,
        changed,
    )
    one = "only linux/amd64 of the source's 2 platforms went"
    assert outcomes["multi:1"].digest_note == f"digest preserved: no, because {one} and {store}"


async def test_a_changed_digest_can_be_a_failure(images: ImageService, daemon: ScriptedDaemon) -> None:
    """Where it is sure beforehand, nothing is moved; else the target says what it is."""
    engine = MirrorDaemon(daemon, graph=True)
    for name in ("app", "multi"):
        engine.publish(f"{A}{name}:1")
    engine.indexes[f"{A}multi:1"] = ["linux/amd64", "linux/arm64"]
    jobs = [MirrorJob(f"{A}{name}:1", f"{B}{name}") for name in ("app", "multi")]
    outcomes = await all_of(mirror(images, jobs, require_digest=True))
    assert statuses(outcomes) == {"app:1": "failed", "multi:1": "failed"}
    errors = {name: outcome.error for name, outcome in outcomes.items()}
    assert errors["app:1"] is not None
    assert errors["multi:1"] is not None
    assert {error.kind for error in errors.values() if error} == {"DigestChanged"}
    assert errors["app:1"].message.endswith("the target has the other digest now")
    assert errors["multi:1"].message.endswith("nothing was moved")
    assert [entry for entry in engine.log if "multi" in entry and entry.startswith("p")] == []


PLATFORMS: list[tuple[str, bool, object, str | None, list[str | None], str | None]] = [
    ("all, containerd", False, "all", None, ["linux/amd64", "linux/arm64"], None),
    ("all listed, containerd", False, ["linux/arm64", "linux/amd64"], None, ["linux/arm64", "linux/amd64"], None),
    ("one, containerd", False, ["linux/arm64"], None, ["linux/arm64"], "linux/arm64"),
    ("a job's own, containerd", False, "all", "linux/arm64", ["linux/arm64"], "linux/arm64"),
    ("none, containerd", False, (), None, [None], None),
    ("all, graph driver", True, "all", None, [None], None),
    ("listed, graph driver", True, ["linux/arm64", "linux/amd64"], None, ["linux/arm64"], None),
    ("a job's own, graph driver", True, "all", "linux/arm64", ["linux/arm64"], None),
]


@pytest.mark.parametrize(
    ("graph", "platforms", "own", "pulled", "pushed"), [row[1:] for row in PLATFORMS], ids=[row[0] for row in PLATFORMS]
)
async def test_the_platforms_that_the_store_can_hold_go(
    images: ImageService,
    daemon: ScriptedDaemon,
    graph: bool,
    platforms: list[str],
    own: str | None,
    pulled: list[str | None],
    pushed: str | None,
) -> None:
    engine = MirrorDaemon(daemon, graph=graph)
    engine.publish(f"{A}multi:1")
    engine.indexes[f"{A}multi:1"] = ["linux/amd64", "linux/arm64"]
    await all_of(mirror(images, [MirrorJob(f"{A}multi:1", f"{B}multi", own)], platforms=platforms))
    asked = [dict(each.query).get("platform") for each in daemon.requests if each.path == "/images/create"]
    assert asked == pulled
    (push,) = [dict(each.query).get("platform") for each in daemon.requests if each.path.endswith("/push")]
    architecture = None if push is None else msgspec.json.decode(push, type=dict[str, str])
    assert architecture == (None if pushed is None else {"os": "linux", "architecture": "arm64"})


async def test_an_engine_without_distribution_inspect_is_told_of_and_works(
    images: ImageService, daemon: ScriptedDaemon
) -> None:
    engine = MirrorDaemon(daemon, compares=False)
    engine.publish(f"{A}app:1")
    job = MirrorJob(f"{A}app:1", f"{B}app")
    (planned,) = (await all_of(mirror(images, [job], dry_run=True))).values()
    assert planned.because == "the digests cannot be compared: this Engine has no distribution inspect"
    for _ in range(2):
        assert statuses(await all_of(mirror(images, [job]))) == {"app:1": "mirrored"}
    assert engine.count("pull") == 2


async def test_a_layer_is_uploaded_to_a_registry_once_at_a_time(images: ImageService, engine: MirrorDaemon) -> None:
    """What shares a layer with a push under way waits for it, and then they all go at once; others go meanwhile."""
    base, go = digest_of("base"), asyncio.Event()
    names = [f"app{number}:1" for number in range(4)]
    for name in names:
        digest = engine.publish(f"{A}{name}")
        engine.layers[digest] = [base, digest_of(name)] if name != "app3:1" else [digest_of(name)]
        engine.trouble[f"push {B}{name}"] = [waiting_for(go, engine.push, f"{B}{name}")]
    jobs = [MirrorJob(f"{A}{name}", f"{B}{name}") for name in names]
    task = asyncio.create_task(all_of(mirror(images, jobs)))
    while engine.count("push") < 2:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert f"push {canonical(f'{B}app3:1')}" in engine.busy
    assert len(engine.busy) == 2
    go.set()
    assert set(statuses(await task).values()) == {"mirrored"}

"""mirror and transfer with real Engines: between two registries, and from one Engine to another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import aiohttp
import bcrypt
import pytest

import engines
from aiodocker_images import (
    ImageService,
    MirrorJob,
    MirrorOutcome,
    MirrorProgress,
    PlatformMismatchError,
    RegistryAuth,
    Retry,
    StaticKeychain,
    mirror,
    transfer,
)
from tests.conftest import by_engine, engine_is
from tests.support.oci_archives import MultiPlatformImage
from tests.support.small_engine import SmallEngine
from tests.support.tars import root_file_system

PODMAN = engine_is("podman")
CONTAINERD_STORE = engine_is("docker28c")
ACCEPTED = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
GRAPH_STORE = "the Engine's graph-driver store writes a manifest of its own"


@pytest.fixture(scope="module")
def target() -> Generator[str, None, None]:
    """The address of a second registry."""
    with engines.Registry() as registry:
        yield registry.address


@pytest.fixture
async def before(engine: ImageService) -> AsyncGenerator[set[tuple[str, tuple[str, ...]]], None]:
    """What the Engine has: at the end of the test it must have that and nothing else."""
    names = await all_names(engine)
    yield names
    assert await all_names(engine) == names


async def until_nothing_comes(engine: ImageService) -> None:
    """Return when the Engine has ended the pulls of a killed program, which it may do a moment after that."""
    before, now = set[tuple[str, tuple[str, ...]]](), await all_names(engine)
    while before != now:
        await asyncio.sleep(1)
        before, now = now, await all_names(engine)


async def all_names(engine: ImageService) -> set[tuple[str, tuple[str, ...]]]:
    return {(image.id, tuple(sorted(image.repo_tags))) for image in await engine.list(all=True)}


async def publish(engine: ImageService, *names: str, size: int = 1 << 16) -> dict[str, str]:
    """Make images, push them, and remove them again; return their digests."""
    digests: dict[str, str] = {}
    for name in names:
        await engine.import_image(root_file_system(size), reference=name)
        digests[name] = (await engine.push(name)).digest or ""
        await engine.remove(name)
    return digests


async def digest_in(registry: str, name: str) -> str | None:
    """The digest that a registry has for a name, asked without an Engine."""
    repository, _, tag = name.removeprefix(f"{registry}/").rpartition(":")
    accepted = ", ".join(ACCEPTED)
    url = f"http://{registry}/v2/{repository}/manifests/{tag}"
    async with aiohttp.ClientSession() as session, session.head(url, headers={"Accept": accepted}) as response:
        return response.headers.get("Docker-Content-Digest")


async def all_of(outcomes: AsyncGenerator[MirrorOutcome, None]) -> dict[str, MirrorOutcome]:
    return {outcome.job.target: outcome async for outcome in outcomes}


@pytest.mark.engine
async def test_images_go_from_registry_to_registry_and_the_engine_is_as_before(
    engine: ImageService, registry: str, target: str, before: object, tmp_path: Path
) -> None:
    """A dry run first, then the real one, and a second one that finds everything there."""
    word = f"mirror-{secrets.token_hex(4)}"
    names = [f"{registry}/{word}/app{number}:1" for number in range(3)]
    digests = await publish(engine, *names)
    pinned = f"{registry}/{word}/app0@{digests[names[0]]}"
    jobs = [MirrorJob(name, name.replace(registry, target)) for name in names]
    jobs += [MirrorJob(names[1], f"{target}/{word}/again:2"), MirrorJob(pinned, f"{target}/{word}/pinned:1")]
    missing = MirrorJob(f"{registry}/{word}/missing:1", f"{target}/{word}/missing")

    planned = await all_of(mirror(engine, [*jobs, missing], dry_run=True))
    assert {planned[job.target].status for job in jobs} == {"planned"}
    assert planned[missing.target].status == by_engine("failed", podman="planned")
    assert [await digest_in(target, job.target) for job in jobs] == [None] * 5

    journal = tmp_path / "journal"
    done = await all_of(mirror(engine, [*jobs, missing], journal=journal))
    assert {done[job.target].status for job in jobs} == {"mirrored"}
    failed = done[missing.target]
    assert failed.error is not None
    assert (failed.status, failed.error.kind, failed.attempts) == ("failed", "NotFoundError", 1)
    for job in jobs:
        outcome, source = done[job.target], digests.get(job.source, digests[names[0]])
        assert await digest_in(target, job.target) == outcome.target_digest
        # These were made by the same Engine: it makes the same manifest of the same image again.
        assert (outcome.source_digest, outcome.target_digest, outcome.digest_preserved) == (source, source, True)

    again = await all_of(mirror(engine, [*jobs, missing], journal=journal))
    assert {again[job.target].status for job in jobs} == {"skipped"}
    assert again[missing.target].status == "failed"


@pytest.mark.engine
async def test_the_truth_about_the_digests_of_several_platforms(
    engine: ImageService, registry: str, target: str, before: object
) -> None:
    """The containerd store brings an index over as it is; through the others one platform goes, in a new manifest."""
    word = f"mirror-{secrets.token_hex(4)}"
    both = MultiPlatformImage(f"{registry}/{word}:1")
    await both.upload(registry)
    whole, arm = MirrorJob(both.name, f"{target}/{word}"), MirrorJob(both.name, f"{target}/{word}:arm", "linux/arm64")
    done = await all_of(mirror(engine, [whole, arm], platforms="all"))
    assert [outcome for outcome in done.values() if outcome.status != "mirrored"] == []
    for job in (whole, arm):
        assert await digest_in(target, job.target) == done[job.target].target_digest
    if CONTAINERD_STORE:
        assert done[whole.target].digest_note == "digest preserved: yes"
        assert done[whole.target].target_digest == both.digest
        assert done[arm.target].target_digest == both.manifests["linux/arm64"]
    else:
        of = by_engine("2 platforms", podman="platforms")
        one = f"only linux/amd64 of the source's {of} went"
        assert done[whole.target].digest_note == f"digest preserved: no, because {one} and {GRAPH_STORE}"
    of = by_engine("2 platforms", podman="platforms")
    assert f"because only linux/arm64 of the source's {of} went" in done[arm.target].digest_note

    strict = await all_of(mirror(engine, [MirrorJob(both.name, f"{target}/{word}:strict")], require_digest=True))
    (outcome,) = strict.values()
    assert outcome.error is not None
    assert (outcome.status, outcome.error.kind) == ("failed", "DigestChanged")
    if not PODMAN:  # where only the push tells
        assert await digest_in(target, outcome.job.target) is None


@pytest.mark.engine
async def test_names_come_back_to_the_images_that_they_had(
    engine: ImageService, registry: str, target: str, before: object
) -> None:
    """A source's name that is somebody's older image, a target's that is another, and an image without a name."""
    word = f"mirror-{secrets.token_hex(4)}"
    source, job_target = f"{registry}/{word}:1", f"{target}/{word}:1"
    await publish(engine, source)
    for name in (source, job_target):
        await engine.import_image(root_file_system(), reference=name)
    mine = await all_names(engine)
    done = await all_of(mirror(engine, [MirrorJob(source, job_target)]))
    assert done[job_target].status == "mirrored"
    assert await all_names(engine) == mine
    for name in (source, job_target):
        await engine.remove(name)


@pytest.mark.engine
async def test_an_image_for_another_platform_than_the_one_asked_for_is_a_failure(
    engine: ImageService, registry: str, target: str, before: object
) -> None:
    """Of an image of one platform an Engine pulls that, whatever was asked for; nothing of it reaches the target."""
    name = f"{registry}/mirror-{secrets.token_hex(4)}:1"
    await publish(engine, name)
    with pytest.raises(PlatformMismatchError, match="linux/amd64, not for linux/arm64") as raised:
        await engine.pull(name, platform="linux/arm64")
    assert (raised.value.wanted, raised.value.actual) == ("linux/arm64", "linux/amd64")
    assert (await engine.pull(name, platform="linux/amd64")).platform == "linux/amd64"
    await engine.remove(name)
    job = MirrorJob(name, name.replace(registry, target), "linux/arm64")
    (outcome,) = (await all_of(mirror(engine, [job]))).values()
    assert outcome.error is not None
    assert (outcome.status, outcome.error.kind) == ("failed", "PlatformMismatchError")
    assert await digest_in(target, job.target) is None


@pytest.mark.once
async def test_two_programs_with_the_same_jobs_leave_nothing_and_fail_none(
    engine: ImageService, registry: str, target: str, before: object
) -> None:
    word = f"mirror-{secrets.token_hex(4)}"
    names = [f"{registry}/{word}/app{number}:1" for number in range(4)]
    await publish(engine, *names)
    jobs = [MirrorJob(name, name.replace(registry, target)) for name in names]
    async with ImageService(engine.endpoint) as other:
        both = await asyncio.gather(all_of(mirror(engine, jobs)), all_of(mirror(other, jobs)))
    assert [outcome for done in both for outcome in done.values() if not outcome.ok] == []


@pytest.mark.engine
async def test_attestations_go_with_their_index(
    engine: ImageService, registry: str, target: str, before: object
) -> None:
    """Through a containerd store; no other replaces an index by less unless that is asked for."""
    name = f"{registry}/mirror-{secrets.token_hex(4)}:1"
    image = MultiPlatformImage(name, attested=True)
    await image.upload(registry)
    job = MirrorJob(name, name.replace(registry, target))
    if CONTAINERD_STORE:
        (outcome,) = (await all_of(mirror(engine, [job], platforms="all", require_digest=True))).values()
        assert outcome.digest_note == "digest preserved: yes"
        assert await digest_in(target, job.target) == image.digest
    elif not PODMAN:  # which cannot say what the target has
        older = MultiPlatformImage(job.target, attested=True)
        await older.upload(target)
        for dry_run in (True, False):
            (outcome,) = (await all_of(mirror(engine, [job], platforms="all", dry_run=dry_run))).values()
            assert outcome.error is not None
            assert (outcome.status, outcome.error.kind) == ("failed", "TargetNarrowed")
            assert "linux/arm64 and the attestations" in outcome.error.message
        assert await digest_in(target, job.target) == older.digest
        (outcome,) = (await all_of(mirror(engine, [job], narrow=True))).values()
        assert outcome.status == "mirrored"


@pytest.mark.engine
async def test_a_target_that_refuses_the_credentials_fails_before_anything_is_pulled(
    engine: ImageService, engine_host: str, registry: str, before: object
) -> None:
    """A dry run and a run say the same; to Podman, which cannot ask what the target has, the push tells it."""
    word = f"mirror-{secrets.token_hex(4)}"
    names = [f"{registry}/{word}/app{number}:1" for number in range(3)]
    await publish(engine, *names)
    users = f"me:{bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}\n"
    with engines.Registry(htpasswd=users) as guarded:
        jobs = [MirrorJob(name, name.replace(registry, guarded.address)) for name in names]
        keychain = StaticKeychain({guarded.address: RegistryAuth(username="me", password="wrong")})
        async with ImageService(engine_host, keychain=keychain) as images:
            for dry_run in (True, False):
                steps: list[str] = []

                def told(progress: MirrorProgress, steps: list[str] = steps) -> None:
                    steps.append(progress.step)

                run = mirror(images, jobs, dry_run=dry_run, retry=None, on_progress=told)
                outcomes = await all_of(run)
                if PODMAN and dry_run:
                    assert {outcome.status for outcome in outcomes.values()} == {"planned"}
                    continue
                kinds = {outcome.error.kind for outcome in outcomes.values() if outcome.error is not None}
                assert ({outcome.status for outcome in outcomes.values()}, kinds) == ({"failed"}, {"UnauthorizedError"})
                assert PODMAN or not steps


@pytest.mark.engine
async def test_keep_keeps(engine: ImageService, registry: str, target: str, before: object) -> None:
    word = f"mirror-{secrets.token_hex(4)}"
    source = f"{registry}/{word}:1"
    await publish(engine, source)
    await all_of(mirror(engine, [MirrorJob(source, f"{target}/{word}")], keep=True))
    for name in (source, f"{target}/{word}:1"):
        await engine.inspect(name)
        await engine.remove(name)


@pytest.mark.engine
async def test_images_go_from_engine_to_engine(engine: ImageService, engine_name: str, before: object) -> None:
    """Names, ids and contents arrive; a second time there is nothing to do; a missing one is an outcome."""
    names = [f"localhost/transfer-{secrets.token_hex(4)}:1" for _ in range(3)]
    for name in names:
        await engine.import_image(root_file_system(4 << 20), reference=name)
    with engines.Engine(engine_name) as other:
        async with ImageService(other.host) as there:
            outcomes = {o.reference: o async for o in transfer(engine, there, *names, "localhost/missing:1")}
            assert [outcomes[name].status for name in names] == ["transferred"] * 3
            assert [outcomes[name].loaded for name in names] == [(name,) for name in names]
            assert min(outcomes[name].size for name in names) > 4 << 20
            failed = outcomes["localhost/missing:1"].error
            assert failed is not None
            assert failed.kind == "NotFoundError"
            for name in names:
                assert (await there.inspect(name)).id == (await engine.inspect(name)).id
            assert {o.status async for o in transfer(engine, there, *names)} == {"skipped"}
    for name in names:
        await engine.remove(name)


@pytest.mark.once
@pytest.mark.parametrize(("first", "second"), [("docker28", "docker28c"), ("docker28c", "docker28")])
async def test_an_image_is_not_sent_again_where_the_store_gives_it_another_id(first: str, second: str) -> None:
    name = f"localhost/transfer-{secrets.token_hex(4)}:1"
    content = root_file_system()
    changes = ["CMD sh", "ENV A=b", "LABEL c=d", "EXPOSE 80"]
    with engines.Engine(first) as one, engines.Engine(second) as other:
        async with ImageService(one.host) as here, ImageService(other.host) as there:
            await here.import_image(content, reference=name, message="made by a test", changes=changes)
            assert [o.status async for o in transfer(here, there, name)] == ["transferred"]
            assert (await here.inspect(name)).id != (await there.inspect(name)).id
            assert [o.status async for o in transfer(here, there, name)] == ["skipped"]
            assert [o.status async for o in transfer(there, here, name)] == ["skipped"]
            # Another configuration over the same layers is another image.
            await here.import_image(content, reference=name, message="made by a test", changes=[*changes, "ENV A=c"])
            assert [o.status async for o in transfer(here, there, name)] == ["transferred"]
            config = (await there.inspect(name)).config
            assert config is not None
            assert config.env == ("A=c",)


# About no Engine in particular


MIRRORING = """
import asyncio, sys
from aiodocker_images import ImageService, MirrorJob, mirror

async def main(host, journal, *names):
    jobs = [MirrorJob(*name.split("=")) for name in names]
    async with ImageService(host) as images:
        async for outcome in mirror(images, jobs, concurrency=2, journal=journal):
            print(outcome.job.target, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.once
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_killed_program_started_again_does_what_is_left(
    engine: ImageService, engine_host: str, registry: str, target: str, before: object, tmp_path: Path, after: int
) -> None:
    """SIGKILL after some outcomes: what is done is not pulled again, and the Engine is as before in the end."""
    word = f"mirror-{secrets.token_hex(4)}"
    names = [f"{registry}/{word}/app{number}:1" for number in range(6)]
    await publish(engine, *names, size=8 << 20)
    jobs = [MirrorJob(name, name.replace(registry, target)) for name in names]
    journal = tmp_path / "journal"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MIRRORING, engine_host, str(journal), *(f"{job.source}={job.target}" for job in jobs)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    printed = [(await process.stdout.readline()).decode().strip() for _ in range(after)]
    while not after and (not journal.exists() or b"pull" not in journal.read_bytes()):
        await asyncio.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await until_nothing_comes(engine)

    done = await all_of(mirror(engine, jobs, concurrency=2, journal=journal))
    assert {outcome.ok for outcome in done.values()} == {True}
    assert set(printed) <= {target for target, outcome in done.items() if outcome.status == "skipped"}
    assert "mirrored" in {outcome.status for outcome in done.values()}
    for job in jobs:
        assert await digest_in(target, job.target) == await digest_in(registry, job.source)


@pytest.mark.once
async def test_leaving_in_the_middle_leaves_nothing_on_the_engine(
    engine: ImageService, registry: str, target: str, before: object
) -> None:
    word = f"mirror-{secrets.token_hex(4)}"
    names = [f"{registry}/{word}/app{number}:1" for number in range(4)]
    await publish(engine, *names, size=16 << 20)
    jobs = [MirrorJob(name, name.replace(registry, target)) for name in names]
    async with contextlib.aclosing(mirror(engine, jobs, concurrency=3)) as outcomes:
        async for _ in outcomes:
            break


@pytest.mark.once
async def test_a_registry_that_is_away_for_a_while_is_waited_for(
    engine: ImageService, registry: str, before: object
) -> None:
    """The push fails until the registry is there: pulled once, and done in the end."""
    name = f"{registry}/mirror-{secrets.token_hex(4)}:1"
    await publish(engine, name)
    with engines.Registry() as away:
        away.kill()
        job = MirrorJob(name, name.replace(registry, away.address))
        patient = Retry(attempts=60, initial=0.5, maximum=0.5, jitter=0)
        task = asyncio.create_task(all_of(mirror(engine, [job], retry=patient)))
        await asyncio.sleep(1)
        await asyncio.to_thread(away.start)
        (outcome,) = (await task).values()
        assert outcome.status == "mirrored"
        assert outcome.attempts > 1
        assert await digest_in(away.address, job.target) == outcome.target_digest


@pytest.mark.engine
async def test_a_full_engine_stops_with_what_to_do(
    engine: ImageService, engine_name: str, registry: str, target: str, before: object
) -> None:
    """The image that does not fit has failed, what was not begun is stopped, and the Engine is empty again."""
    word = f"mirror-{secrets.token_hex(4)}"
    large, *small = [f"{registry}/{word}/app{number}:1" for number in range(4)]
    await publish(engine, large, size=96 << 20)
    await publish(engine, *small)
    jobs = [MirrorJob(name, name.replace(registry, target)) for name in (large, *small)]
    with SmallEngine(engine_name) as little:
        async with ImageService(little.host) as images:
            done = await all_of(mirror(images, jobs, concurrency=1))
            assert await images.list(all=True) == []
    failed = [outcome for outcome in done.values() if outcome.status == "failed"]
    assert [outcome.job.source for outcome in failed] == [large]
    assert failed[0].error is not None
    assert failed[0].error.kind == "NoSpaceError"
    assert "Free some space" in failed[0].error.message
    assert {done[job.target].status for job in jobs[1:]} <= {"mirrored", "stopped"}

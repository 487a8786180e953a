"""Copies while registries break, lie, refuse and fall silent: in the end the target is right, or what it was before."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from aiodocker_images import (
    DigestMismatchError,
    DockerError,
    NoSpaceError,
    NotFoundError,
    RegistryConfig,
    RegistryUnreachableError,
    ServerError,
    StreamStalledError,
)
from aiodocker_images.testing import (
    BEHAVIOURS,
    Behaviour,
    FakeRegistry,
    Fault,
    TokenAuth,
    image,
    index,
    layer,
    random_bytes,
)
from tests.support.sweeps import spread

from .conftest import Opened

pytestmark = pytest.mark.usefixtures("each_reader")

READS = ("HEAD manifest", "GET manifest", "GET blob")
WRITES = ("HEAD manifest", "POST upload", "PUT upload", "PUT manifest")
LIKE = ("oci", "distribution 2.8", "crane", "ociserver", "pulp")


@pytest.mark.parametrize("step", READS)
async def test_what_is_read_may_break_at_every_byte(opened: Opened, step: str) -> None:
    size = {"GET blob": 400, "GET manifest": image().size, "HEAD manifest": 1}[step]
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        for after in spread(range(0, size, 7), 12):
            made = image(layers=[layer({"a": str(after)}, compress=False)])
            source.put("app:1", made)
            injected = source.fail(Fault.cut(after=after), on=step)
            await registries.copy(source.name("app:1"), target.name(f"app{after}:1"))
            assert injected.hits == 1
            assert target.has(f"app{after}", made)


@pytest.mark.parametrize("like", LIKE)
@pytest.mark.parametrize("step", WRITES)
async def test_what_is_written_may_break_in_any_answer(opened: Opened, like: str, step: str) -> None:
    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        for after in spread(range(0, 120, 17), 3):
            made = image(layers=[layer({"a": str(after)})])
            source.put("app:1", made)
            injected = target.fail(Fault.cut(after=after, of="response"), on=step)
            await registries.copy(source.name("app:1"), target.name(f"app{after}:1"))
            assert injected.hits == 1
            assert target.has(f"app{after}", made)
        target.forget_uploads()  # those whose Location never came


@pytest.mark.parametrize("like", LIKE)
@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_an_upload_may_break_at_every_byte(opened: Opened, like: str, fault: str) -> None:
    made = image(layers=[layer({"a": "1"}, compress=False)])
    size = made.layers[0].size
    breaks = Fault.cut if fault == "cut" else Fault.reset
    async with FakeRegistry() as source, FakeRegistry(like) as target:
        source.put("app:1", made)
        for after in spread([*range(8), *range(8, size, 997), size - 1, size], 5):
            async with opened(source, target) as registries:
                injected = target.fail(breaks(after=after, of="request"), on="PUT upload")
                await registries.copy(source.name("app:1"), target.name(f"app{after}:1"))
                assert injected.hits == 1
                assert target.has(f"app{after}", made)
                target.forget_uploads()


@pytest.mark.parametrize("step", WRITES)
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_the_target_refuses_for_now_is_sent_again_as_it_was(opened: Opened, step: str, status: int) -> None:
    made = index(indent=3)
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        injected = target.fail(Fault.refuse(status, retry_after=0), on=step, times=3)
        result = await registries.copy(source.name("app:1"), target.name("app:1"))
        assert injected.hits == 3
        assert result.retries >= 3
        assert (result.digest, target.tags("app")) == (made.digest, {"1": made.digest})
        assert target.has("app", made)


@pytest.mark.parametrize("step", READS)
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_the_source_refuses_for_now_is_asked_for_again(opened: Opened, step: str, status: int) -> None:
    made = index()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        source.fail(Fault.refuse(status, retry_after=0), on=step, times=3)
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)


async def test_a_blob_that_breaks_goes_on_while_its_upload_stays_open(opened: Opened) -> None:
    big = layer(size=3_000_000)
    made = image(layers=[big])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        source.fail(Fault.cut(after=1_000_000), on="GET blob", reference=big.digest, times=3)
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)
        assert [each.headers.get("range") is None for each in source.asked("GET blob", reference=big.digest)].count(
            True
        ) == 1
        assert target.count("PUT upload") == 2


@pytest.mark.parametrize("like", LIKE)
@pytest.mark.parametrize("after", [0, 100, -1])
async def test_a_lie_never_becomes_a_blob(opened: Opened, like: str, after: int) -> None:
    big = layer(size=300_000)
    made = image(layers=[big])
    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        source.put("app:1", made)
        lie = Fault.lie(after=after if after >= 0 else big.size - 1)
        source.fail(lie, on="GET blob", reference=big.digest)
        # Once it may have been a proxy or a disk.
        await registries.copy(source.name("app:1"), target.name("one:1"))
        assert target.has("one", made)
        target.remove_blob("one", big.digest)
        target.remove("one:1")

    async with FakeRegistry() as source, FakeRegistry(like) as target, opened(source, target) as registries:
        source.put("app:1", made)
        old = target.put("two:1", image(indent=1))
        before = target.blobs()
        source.fail(lie, on="GET blob", reference=big.digest, times=None)
        with pytest.raises(DigestMismatchError, match=source.name("app")) as caught:
            await registries.copy(source.name("app:1"), target.name("two:1"))
        assert caught.value.endpoint == source.host
        assert caught.value.expected == big.digest
        assert source.count("GET blob", reference=big.digest) == 2
        assert target.tags("two") == {"1": old}
        assert target.blobs() <= before | {made.config.digest}


@pytest.mark.parametrize("step", ["GET blob", "PUT upload"])
async def test_a_registry_that_falls_silent_is_noticed(opened: Opened, step: str) -> None:
    made = image(layers=[layer(size=3_000_000)])
    async with FakeRegistry() as source, FakeRegistry() as target:
        async with opened(source, target, idle_timeout=0.3) as registries:
            source.put("app:1", made)
            silent = source if step == "GET blob" else target
            silent.fail(Fault.stall(after=100, of="body" if step == "GET blob" else "request"), on=step)
            await registries.copy(source.name("app:1"), target.name("one:1"))
            assert target.has("one", made)
            source.fail(Fault.stall(of="response"), on="GET manifest", times=None)
            with pytest.raises(StreamStalledError):
                await registries.copy(source.name("app:1"), target.name("two:1"))
        target.forget_uploads()


@pytest.mark.parametrize("uses", [1, 2, 3, 5, 8])
async def test_tokens_that_die_in_mid_copy_are_renewed(opened: Opened, uses: int) -> None:
    made = index(attestations=True)
    auth = TokenAuth("alice", "secret", uses=uses)
    async with FakeRegistry(auth=auth) as source, FakeRegistry(auth=auth) as target:
        async with opened(source, target) as registries:
            source.put("app:1", made)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)
            target.forget_uploads()


@pytest.mark.parametrize("lifetime", [0.5])
async def test_tokens_that_live_shorter_than_promised_are_renewed(opened: Opened, lifetime: float) -> None:
    made = image(layers=[layer(size=1_000_000)])
    auth = TokenAuth("alice", "secret", lifetime=lifetime)
    async with FakeRegistry(auth=auth) as source, FakeRegistry(auth=auth) as target:
        async with opened(source, target) as registries:
            source.put("app:1", made)
            source.fail(Fault.slow(chunk=100_000, pause=lifetime / 2), on="GET blob")
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)
            target.forget_uploads()


LOCATIONS = {
    "relative": dataclasses.replace(BEHAVIOURS["oci"], relative_location=True),
    "absolute": dataclasses.replace(BEHAVIOURS["oci"], relative_location=False),
    "with a state": dataclasses.replace(BEHAVIOURS["oci"], location_state="exact"),
    "without": dataclasses.replace(BEHAVIOURS["oci"], location_state="none"),
}


@pytest.mark.parametrize("like", LOCATIONS.values(), ids=LOCATIONS)
@pytest.mark.parametrize("chunk_size", [None, 1 << 16])
async def test_the_latest_location_is_used_byte_for_byte(
    opened: Opened, like: Behaviour, chunk_size: int | None
) -> None:
    made = image(layers=[layer(size=200_000)])
    async with FakeRegistry() as source, FakeRegistry(like) as target:
        configs = {target.host: RegistryConfig(chunk_size=chunk_size)}
        async with opened(source, target, registries=configs) as registries:
            source.put("app:1", made)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)
            assert bool(target.count("PATCH upload")) == (chunk_size is not None)


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://u:p@elsewhere.example/", "/a b"])
async def test_a_location_that_leads_nowhere_is_a_clear_error(opened: Opened, location: str) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", image())
        target.fail(Fault.location(location), on="POST upload", times=None)
        with pytest.raises(RegistryUnreachableError, match="not an address"):
            await registries.copy(source.name("app:1"), target.name("app:1"))
        target.forget_uploads()


async def test_an_upload_that_leads_to_another_host_gets_no_credentials(opened: Opened) -> None:
    auth = TokenAuth("alice", "secret")
    async with FakeRegistry() as source, FakeRegistry(auth=auth) as target, FakeRegistry(strict=False) as other:
        async with opened(source, target, other) as registries:
            source.put("app:1", image())
            target.fail(Fault.location(host=other.host), on="POST upload", times=None)
            with pytest.raises(DockerError):
                await registries.copy(source.name("app:1"), target.name("app:1"))
            assert other.requests
            assert not any(each.authorized for each in other.requests)
            target.forget_uploads()


@pytest.mark.parametrize("like", ["oci", "distribution 2.8", "crane", "ecr"])
async def test_a_registry_may_want_chunks(opened: Opened, like: str) -> None:
    big = layer(size=300_000)
    made = image(layers=[big])
    async with FakeRegistry() as source, FakeRegistry(like) as target:
        target.create("app")
        configs = {target.host: RegistryConfig(chunk_size=1 << 16)}
        async with opened(source, target, registries=configs) as registries:
            source.put("app:1", made)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)
            assert target.count("PATCH upload") >= 5


async def test_chunks_are_as_long_as_the_registry_says(opened: Opened) -> None:
    made = image(layers=[layer(size=300_000)])
    like = dataclasses.replace(BEHAVIOURS["oci"], chunk_minimum=100_000)
    async with FakeRegistry() as source, FakeRegistry(like) as target:
        async with opened(source, target, registries={target.host: RegistryConfig(chunk_size=1 << 16)}) as registries:
            source.put("app:1", made)
            await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.has("app", made)


async def test_a_blob_that_is_too_large_for_one_request_goes_in_chunks(opened: Opened) -> None:
    made = image(layers=[layer(size=300_000)])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.fail(Fault.refuse(413), on="PUT upload")
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)
        assert target.count("PATCH upload") == 1


async def test_an_upload_session_that_is_lost_is_begun_anew(opened: Opened) -> None:
    made = image()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.fail(Fault.lose_upload(), on="PUT upload", times=2)
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)


async def test_a_full_disk_is_told_and_not_tried_again(opened: Opened) -> None:
    made = image(layers=0)
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        target.fail(Fault.no_space(), on="PUT upload", times=None)
        with pytest.raises(NoSpaceError) as caught:
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert caught.value.endpoint == target.host
        assert target.count("PUT upload") == 1


async def test_a_target_that_restarts_in_mid_copy_gets_the_image_all_the_same(opened: Opened) -> None:
    made = index(attestations=True)
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        for step in WRITES:
            target.fail(Fault.restart(), on=step)
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)


async def test_a_blob_that_is_missing_at_the_source_costs_the_target_nothing(opened: Opened) -> None:
    made = image()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        source.remove_blob("app", made.layers[0].digest)
        with pytest.raises(NotFoundError, match="BLOB_UNKNOWN") as caught:
            await registries.copy(source.name("app:1"), target.name("app:1"))
        assert caught.value.endpoint == source.host
        assert target.tags("app") == {}
        assert target.count("PUT upload") <= 1


async def test_a_target_that_always_fails_is_left_as_it_was(opened: Opened) -> None:
    made = index()
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        old = target.put("app:1", image(indent=1))
        for step in ("POST upload", "PUT upload", "PUT manifest"):
            with target.fail(Fault.refuse(503), on=step, times=None):
                with pytest.raises(ServerError):
                    await registries.copy(source.name("app:1"), target.name("app:1"))
            assert target.tags("app") == {"1": old}
        await registries.copy(source.name("app:1"), target.name("app:1"))
        assert target.has("app", made)


@pytest.mark.parametrize("step", ["GET manifest", "GET blob", "POST upload", "PUT upload", "PUT manifest"])
async def test_a_copy_that_is_cancelled_anywhere_leaves_nothing(opened: Opened, step: str) -> None:
    made = image(layers=[layer(size=500_000)])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        fake = source if step.startswith("GET") else target
        stalled = fake.fail(Fault.stall(of="response"), on=step)
        copying = asyncio.create_task(registries.copy(source.name("app:1"), target.name("app:1")))
        await stalled.reached()
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        stalled.release()
        if step == "POST upload":  # its Location never came
            await target.idle(keep_alive=True)
            target.forget_uploads()
        assert target.tags("app") == {} or step == "PUT manifest"


async def test_a_source_does_not_run_ahead_of_a_target_that_takes_nothing(opened: Opened) -> None:
    data = random_bytes(64 << 20)  # the sockets' own buffers take up to 16 MiB
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        big = layer({"data": data}, compress=False)
        source.put("app:1", image(layers=[big]))
        stalled = target.fail(Fault.stall(after=1000, of="request"), on="PUT upload", times=2)
        copying = asyncio.create_task(registries.copy(source.name("app:1"), target.name("app:1")))
        try:
            await stalled.reached(1)
            before = -1
            while (now := sum(each.bytes_out for each in source.asked("GET blob"))) != before:
                before = now
                await asyncio.sleep(0.3)
            assert now < len(data) / 2
        finally:
            stalled.release()
        await copying

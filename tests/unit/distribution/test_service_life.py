"""A service ends: in mid-copy, from another loop or process, or because nobody closed it. Nothing of it is left."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
from collections.abc import Callable

import pytest

from aiodocker_images import DockerError, RegistryConfig, RegistryService, ServiceClosedError, StaticKeychain
from aiodocker_images._distribution import unfinished, uploads
from aiodocker_images.testing import BasicAuth, FakeRegistry, Fault, TokenAuth, image, index, layer
from tests.conftest import Leftovers

from .conftest import ALICE, AT_ONCE, Opened

AUTHS = {"open": None, "password": BasicAuth("alice", "secret"), "token": TokenAuth("alice", "secret")}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer to give an upload up than a user would be kept waiting."""
    monkeypatch.setattr(uploads, "CANCEL_SECONDS", 60.0)
    for module in (uploads, unfinished):
        monkeypatch.setattr(module, "OPENING_SECONDS", 60.0)


@pytest.mark.parametrize("auth", AUTHS.values(), ids=AUTHS)
@pytest.mark.parametrize("chunk_size", [None, 1 << 16])
async def test_closing_in_mid_copy_gives_the_uploads_up(
    opened: Opened, auth: BasicAuth | TokenAuth | None, chunk_size: int | None
) -> None:
    made = image(layers=[layer(size=300_000), layer(size=200_000), layer(size=100_000)])
    async with FakeRegistry() as source, FakeRegistry(auth=auth) as target:
        configs = {target.host: RegistryConfig(chunk_size=chunk_size)}
        async with opened(source, target, registries=configs) as registries:
            source.put("app:1", made)
            step = "PATCH upload" if chunk_size else "PUT upload"
            stalled = target.fail(Fault.stall(after=100, of="request"), on=step, times=None)
            copying = asyncio.create_task(registries.copy(source.name("app:1"), target.name("app:1")))
            await stalled.reached(3)
            assert len(target.uploads) >= 3
            await registries.aclose()
            assert target.uploads == []
            with pytest.raises(DockerError):
                await copying
        assert target.tags("app") == {}


async def test_closing_gives_up_a_session_that_was_just_being_opened(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", image(layers=0))
        slow = target.fail(Fault.stall(after=20, of="response", seconds=0.2), on="POST upload")
        copying = asyncio.create_task(registries.copy(source.name("app:1"), target.name("app:1")))
        await slow.reached()
        await registries.aclose()
        with pytest.raises(DockerError):
            await copying
        assert target.uploads == []


async def test_closing_does_not_wait_for_a_registry_that_will_not_cancel_uploads(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", image(layers=0))
        stalled = target.fail(Fault.stall(after=1, of="request"), on="PUT upload")
        refused = target.fail(Fault.refuse(405), on="DELETE upload")
        copying = asyncio.create_task(registries.copy(source.name("app:1"), target.name("app:1")))
        await stalled.reached()
        await registries.aclose()
        with pytest.raises(DockerError):
            await copying
        assert refused.hits == 1
        target.forget_uploads()


async def test_a_callback_may_close_the_service_that_copies(opened: Opened) -> None:
    made = image(layers=[layer(size=2_000_000)])
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)

        async def close(_: object) -> None:
            await registries.aclose()

        with pytest.raises(DockerError):
            await registries.copy(source.name("app:1"), target.name("app:1"), on_progress=close)
        assert target.uploads == []
        assert target.tags("app") == {}


@pytest.mark.parametrize("leave", ["stream", "break", "exception"])
async def test_a_stream_of_a_copy_that_is_left_leaves_no_upload(opened: Opened, leave: str) -> None:
    made = index(image(layers=[layer(size=2_000_000)]), image(layers=[layer(size=1_000_000)], platform="linux/arm64"))
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target) as registries:
        source.put("app:1", made)
        stream = registries.copy_stream(source.name("app:1"), target.name("app:1"))
        if leave == "stream":
            await anext(stream)
            await registries.aclose()
            with pytest.raises(DockerError):
                async for _ in stream:
                    pass
        elif leave == "break":
            async for _ in stream:
                break
            await stream.aclose()
        else:
            with pytest.raises(ZeroDivisionError):
                await _fail_in(stream)
            await stream.aclose()
        await target.idle(keep_alive=True)
        assert target.uploads == []


async def _fail_in(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]
        raise ZeroDivisionError


def _used(fake: FakeRegistry) -> tuple[RegistryService, asyncio.Runner]:
    """A service that has a connection open, and its loop."""
    runner = asyncio.Runner()
    registries = RegistryService(keychain=StaticKeychain({fake.host: ALICE}), retry=AT_ONCE)
    runner.run(registries.digest(fake.name("app:1")))
    assert fake.connections == 1
    return registries, runner


def _wait(done: Callable[[], bool]) -> None:
    limit = threading.Event()
    for _ in range(3000):
        if done():
            return
        limit.wait(0.01)
    raise AssertionError("it did not happen in 30 s")


@pytest.mark.parametrize("loop", ["stopped", "closed"])
def test_a_service_of_a_loop_that_does_not_run_is_closed_from_another(loop: str) -> None:
    with FakeRegistry() as fake:
        fake.put("app:1", image())
        registries, runner = _used(fake)
        if loop == "closed":
            runner.close()
        asyncio.run(registries.aclose())
        _wait(lambda: not fake.connections)
        with pytest.raises(ServiceClosedError):
            asyncio.run(registries.digest(fake.name("app:1")))
        runner.close()


def test_a_service_is_closed_from_another_thread_while_its_loop_runs() -> None:
    with FakeRegistry() as source, FakeRegistry() as target:
        source.put("app:1", image(layers=[layer(size=300_000)]))
        stalled = target.fail(Fault.stall(after=100, of="request"), on="PUT upload", times=None)
        registries = RegistryService(keychain=StaticKeychain({}), retry=AT_ONCE)
        failures: list[BaseException] = []

        def copy() -> None:
            try:
                asyncio.run(registries.copy(source.name("app:1"), target.name("app:1")))
            except DockerError as error:
                failures.append(error)

        thread = threading.Thread(target=copy)
        thread.start()
        _wait(lambda: stalled.hits > 0)
        asyncio.run(registries.aclose())
        thread.join(60)
        assert len(failures) == 1
        _wait(lambda: not target.uploads and not source.connections and not target.connections)


def test_a_fork_closes_its_copies_of_the_connections_and_not_its_parents() -> None:
    with FakeRegistry() as fake:
        fake.put("app:1", image())
        registries, runner = _used(fake)

        def child() -> None:
            asyncio.run(registries.aclose())

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        # The parent's connection still works, and is used again.
        runner.run(registries.digest(fake.name("app:1")))
        assert fake.connections == 1
        runner.run(registries.aclose())
        runner.close()


async def test_a_service_that_nobody_closed_is_told_by_its_own_name(leftovers: Leftovers) -> None:
    before = leftovers.now()
    async with FakeRegistry() as fake:
        fake.put("app:1", image())
        services = [RegistryService(keychain=StaticKeychain({}))]
        await services[0].digest(fake.name("app:1"))
        with pytest.warns(ResourceWarning, match="RegistryService was never closed"):
            services.clear()
        await fake.idle()
    await leftovers.settle(before)


def test_a_service_that_was_never_used_need_not_be_closed(recwarn: pytest.WarningsRecorder) -> None:
    RegistryService()
    gc.collect()
    assert not [each for each in recwarn if each.category is ResourceWarning]

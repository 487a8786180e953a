"""A service for each test, and a look at what is left when it is closed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import pytest

from aiodocker_images import Keychain, RegistryAuth, RegistryConfig, RegistryService, Retry, StaticKeychain
from aiodocker_images._distribution import repository
from aiodocker_images.testing import FakeRegistry
from tests.conftest import Leftovers

AT_ONCE = Retry(attempts=5, initial=0, jitter=0)
"""New attempts without waiting: tests need not be slow to see them."""

ALICE = RegistryAuth(username="alice", password="secret")

Opened = Callable[..., AbstractAsyncContextManager[RegistryService]]


@pytest.fixture(params=[0, 1 << 62], ids=["the own reader", "aiohttp's reader"])
def each_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every blob, however small, in one of the two ways."""
    monkeypatch.setattr(repository, "LARGE", request.param)


@pytest.fixture
def opened(leftovers: Leftovers) -> Opened:
    """Open a service to fake registries, and check when it is closed that nothing of it is left, here or there.

    It knows alice's password for the registries that it is given; `options` are those of `RegistryService`.
    """

    @contextlib.asynccontextmanager
    async def service(
        *fakes: FakeRegistry,
        auth: RegistryAuth | None = ALICE,
        keychain: Keychain | None = None,
        registries: Mapping[str, RegistryConfig] | None = None,
        retry: Retry = AT_ONCE,
        idle_timeout: float | None = 60,
        concurrency: int = 6,
    ) -> AsyncGenerator[RegistryService, None]:
        before = leftovers.now()
        known = {fake.host: auth for fake in fakes} if auth is not None else {}
        async with RegistryService(
            keychain=keychain or StaticKeychain(known),
            registries=registries,
            retry=retry,
            idle_timeout=idle_timeout,
            concurrency=concurrency,
        ) as registries_service:
            yield registries_service
        for fake in fakes:
            await fake.idle()
            # crane's registry knows no way to give an upload up.
            if all(each.status < 300 for each in fake.asked("DELETE upload")):
                assert fake.uploads == []
        await leftovers.settle(before)

    return service

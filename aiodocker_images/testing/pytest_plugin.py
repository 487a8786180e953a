"""The fixtures of the testing kit, which pytest finds by itself once the package is installed.

They work in coroutine tests of pytest-asyncio (in either mode) and of anyio, and in tests that are not coroutines.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aiodocker_images import ImageService

    from .engine import FakeEngine
    from .registry import FakeRegistry


@pytest.fixture
def fake_engine(request: pytest.FixtureRequest) -> Iterator[FakeEngine]:
    """Serve a `FakeEngine` until the test ends.

    Its options are given with
    `@pytest.mark.parametrize("fake_engine", [{"like": "podman"}], indirect=True)`.
    """
    from .engine import FakeEngine  # noqa: PLC0415 - pytest starts without asyncio where no test uses it

    with FakeEngine(**getattr(request, "param", {})) as engine:
        yield engine


@pytest.fixture
def images(request: pytest.FixtureRequest, fake_engine: FakeEngine) -> ImageService:
    """Return an `ImageService` that talks to `fake_engine`, without anybody's credentials.

    A test that is a coroutine function finds it open, and it is closed when the test ends, in the test's own loop. Any
    other test closes it itself: `async with images:`.
    """
    from aiodocker_images import ImageService, StaticKeychain  # noqa: PLC0415 - as above

    service = ImageService(fake_engine.host, keychain=StaticKeychain({}))
    node: Any = request.node
    test = getattr(node, "obj", None)
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def closing(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 - the test's own
            async with service:
                await test(*arguments, **named)

        node.obj = closing
    return service


@pytest.fixture
def fake_registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    """Serve a `FakeRegistry` until the test ends.

    Its options are given with
    `@pytest.mark.parametrize("fake_registry", [{"like": "crane"}], indirect=True)`.
    """
    from .registry import FakeRegistry  # noqa: PLC0415 - pytest starts without asyncio where no test uses it

    with FakeRegistry(**getattr(request, "param", {})) as registry:
        yield registry

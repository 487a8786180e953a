"""The fixtures of the testing kit, which pytest finds by itself once the package is installed.

They work in coroutine tests of pytest-asyncio (in either mode) and of anyio, and in tests that are not coroutines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .registry import FakeRegistry


@pytest.fixture
def fake_registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    """Serve a `FakeRegistry` until the test ends.

    Its options are given with
    `@pytest.mark.parametrize("fake_registry", [{"like": "crane"}], indirect=True)`.
    """
    from .registry import FakeRegistry  # noqa: PLC0415 - pytest starts without asyncio where no test uses it

    with FakeRegistry(**getattr(request, "param", {})) as registry:
        yield registry

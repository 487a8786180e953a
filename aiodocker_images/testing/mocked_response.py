"""What a test gives to aioresponses, so that its answers work with every aiohttp."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import Mock

import aiohttp
from yarl import URL


class MockedResponse(aiohttp.ClientResponse):
    """An answer that aioresponses can make: `mock.get(url, response_class=MockedResponse)`.

    aiohttp requires an argument since 3.14 that aioresponses 0.7.8 does not give.
    """

    def __init__(self, method: str, url: URL, **given: Any) -> None:  # noqa: ANN401 - aiohttp's own arguments
        needs_writer = "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters
        more: dict[str, Any] = {"stream_writer": Mock(output_size=0)} if needs_writer else {}
        super().__init__(method, url, **given, **more)

"""An aiohttp application on a socket, none of whose connections outlives it."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.log import server_logger

from aiodocker_images.testing._listening import Listener


class WebServer:
    """Serves an application at a listening socket, which it closes."""

    def __init__(
        self, app: web.Application, listener: socket.socket, *, logger: logging.Logger = server_logger
    ) -> None:
        self._runner = web.AppRunner(app, access_log=None, logger=logger)
        self._listening = listener
        self._listener = Listener(self._accept)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        self._listener.listen(self._listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listener.stop()
        await self._runner.cleanup()
        for _ in range(3):  # closed transports close their sockets in a later turn of the loop
            await asyncio.sleep(0)

    async def _accept(self, connection: socket.socket) -> None:
        server = self._runner.server
        assert server is not None
        await asyncio.get_running_loop().connect_accepted_socket(server, connection)

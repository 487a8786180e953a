"""The body of a request: what an upload yields, as aiohttp takes it, and how it is let go of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from ._archive import ArchiveUpload
from ._threads import outlast, retrieve
from .errors import StreamStalledError

__all__ = ["Body"]


class Body(aiohttp.Payload):
    """A request body that takes its chunks from an upload, remembers what failed, and can be waited for."""

    def __init__(self, upload: ArchiveUpload, *, idle_timeout: float | None, on_failure: Callable[[], None]) -> None:
        super().__init__(upload, content_type="application/x-tar")
        self._size = upload.size  # known: sent as Content-Length; None: in HTTP chunks
        self._upload = upload
        self._idle_timeout = idle_timeout
        self._on_failure = on_failure
        self._transport: asyncio.WriteTransport | None = None
        self._settled: asyncio.Future[None] | None = None
        self.failure: Exception | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's signature
        raise TypeError("an upload is read once, by the connection")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002 - the upload ends at its size by itself
        self._settled = asyncio.get_running_loop().create_future()
        transport = getattr(writer, "transport", None)  # in the abstract class only since aiohttp 3.14
        self._transport = transport if isinstance(transport, asyncio.WriteTransport) else None
        if (task := asyncio.current_task()) is not None:
            # aiohttp leaves it there if the connection ends just before the last chunk, and asyncio would report
            # it as lost; who reads the answer hears of that end by himself.
            task.add_done_callback(retrieve)
        try:
            async with contextlib.aclosing(self._upload.chunks()) as chunks:
                await self._pump(chunks, writer)
        finally:
            self._settled.set_result(None)

    async def _pump(self, chunks: AsyncGenerator[bytes, None], writer: AbstractStreamWriter) -> None:
        while True:
            try:
                chunk = await anext(chunks, None)
            except Exception as error:
                self._fail(error)
                raise
            if chunk is None:
                return
            try:
                async with asyncio.timeout(self._idle_timeout):
                    await writer.write(chunk)
            except TimeoutError as error:
                if error.errno is None:  # ETIMEDOUT of a TCP connection is a TimeoutError, too
                    self._fail(StreamStalledError(f"the daemon took nothing for {self._idle_timeout:g} s"))
                raise

    def _fail(self, failure: Exception) -> None:
        self.failure = failure
        # The daemon may have begun to answer and now waits for the rest of the body, as we for the rest of
        # the answer: without this nobody would ever end it.
        self._on_failure()

    async def abandon(self) -> None:
        """Drop the connection with what is still unsent, and wait until the source is let go."""
        if self._transport is not None:
            # close() would first try to send what is buffered, to a daemon that may never take it.
            self._transport.abort()
        if self._settled is not None:
            await outlast(self._settled)

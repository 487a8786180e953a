"""The sessions that blobs are uploaded in (distribution specification, "Pushing blobs"), one request each."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncGenerator, Callable
from typing import Final

from yarl import URL

from aiodocker_images._aio.threads import outlast
from aiodocker_images.errors import DigestMismatchError, DockerError, StreamInterruptedError

from .digests import is_digest
from .hosts import resolve_location
from .registry import Call, Reply
from .repository import STORED, Repository
from .tokens import Scopes, pull_scopes
from .transport import Body
from .unfinished import OPENING_SECONDS

__all__ = ["Upload", "Uploads"]

CANCEL_SECONDS: Final = 5.0
"""Seconds that a registry may take to hear that an upload is given up; it would find out by itself."""

MAX_CHUNK_MINIMUM: Final = 1 << 30
"""Bytes of the largest `OCI-Chunk-Min-Length` that is believed: a chunk is held in memory."""


@dataclasses.dataclass(slots=True, eq=False)
class Upload:
    """An open session: where its next request goes, which each answer changes, and how small a chunk may be."""

    url: URL = dataclasses.field(repr=False)
    chunk_minimum: int = 0


class Uploads:
    """The uploads to one repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._registry = repository.registry
        self._unfinished = repository.registry.unfinished

    async def start(self, *, mount: str = "", origin: str = "") -> Upload | None:
        """Open a session; None if the blob `mount` was mounted from the repository `origin` instead.

        POST /v2/<name>/blobs/uploads/
        """
        query = f"?mount={mount}&from={origin}" if mount else ""
        call = self._repository.call("POST", f"blobs/uploads/{query}", expected=frozenset({201, 202}))
        if origin not in {"", self._repository.path}:
            # The only token for two repositories: mounting reads from the other one.
            call = dataclasses.replace(call, scopes=self._repository.scopes + pull_scopes(origin))
        opening = asyncio.create_task(self._open(call), name="open an upload")
        self._unfinished.opening(opening)
        try:
            await asyncio.wait({opening})
        except asyncio.CancelledError:
            # The registry may have opened a session by now, and its answer alone says which.
            await outlast(asyncio.create_task(self._give_up(opening), name="give an upload up that is being opened"))
            raise
        return opening.result()

    async def _open(self, call: Call) -> Upload | None:
        reply = await self._registry.fetch(call)
        if reply.status == 201 and "?mount=" in call.path:
            return None
        upload = Upload(self._next(reply))
        self._note_minimum(upload, reply)
        self._unfinished.undo[upload] = functools.partial(self._delete, upload)
        return upload

    async def _give_up(self, opening: asyncio.Task[Upload | None]) -> None:
        """Wait a moment for the answer to a request that opens a session, and give that session up."""
        await asyncio.wait({opening}, timeout=OPENING_SECONDS)
        if not opening.done():
            opening.cancel()
            await asyncio.wait({opening})
        if not opening.cancelled() and opening.exception() is None and (upload := opening.result()) is not None:
            await self.cancel(upload)

    def _next(self, reply: Reply) -> URL:
        """Return where the next request of a session goes: always the latest `Location`."""
        with self._registry.located():
            return resolve_location(reply.url, reply.headers.get("Location", ""))

    def _note_minimum(self, upload: Upload, reply: Reply) -> None:
        minimum = reply.headers.get("OCI-Chunk-Min-Length", "")
        if minimum.isascii() and minimum.isdigit() and len(minimum) < 12:
            upload.chunk_minimum = min(int(minimum), MAX_CHUNK_MINIMUM) or upload.chunk_minimum

    async def put(
        self, upload: Upload, digest: str, size: int, content: Callable[[], AsyncGenerator[bytes, None]]
    ) -> None:
        """Send a whole blob and end the session. PUT <location>?digest=<digest>.

        Another attempt, after a 401 or a 429, calls `content` again. Raises what `content` raises.
        """
        bodies: list[Body] = []

        def body() -> Body:
            bodies.append(Body(content(), size))
            return bodies[-1]

        call = self._ending(upload, digest)
        reply = await self._registry.fetch(dataclasses.replace(call, body=body, repeat=False))
        if not bodies[-1].complete:
            raise StreamInterruptedError(
                f"{self._repository.name} answered before it had all of {digest}", endpoint=self._registry.name
            )
        self._ended(upload, reply, digest)

    async def patch(self, upload: Upload, position: int, chunk: bytes) -> None:
        """Send a part of a blob, from the byte `position` on. PATCH <location>."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{position}-{position + len(chunk) - 1}",
        }
        call = self._call("PATCH", upload.url, STORED, headers)
        reply = await self._registry.fetch(dataclasses.replace(call, body=chunk, repeat=False))
        if reply.headers.get("Location"):
            upload.url = self._next(reply)
        self._note_minimum(upload, reply)

    async def finish(self, upload: Upload, digest: str, position: int, rest: bytes) -> None:
        """End a session with the last chunk, from the byte `position` on. PUT <location>?digest=<digest>."""
        call = dataclasses.replace(self._ending(upload, digest), body=rest, repeat=False)
        if rest:
            call.headers["Content-Range"] = f"{position}-{position + len(rest) - 1}"
        self._ended(upload, await self._registry.fetch(call), digest)

    def _ending(self, upload: Upload, digest: str) -> Call:
        separator = "&" if upload.url.raw_query_string else "?"
        url = URL(f"{upload.url.with_fragment(None)}{separator}digest={digest}", encoded=True)
        return self._call("PUT", url, STORED, {"Content-Type": "application/octet-stream"})

    def _call(self, method: str, url: URL, expected: frozenset[int], headers: dict[str, str]) -> Call:
        scopes: Scopes = self._repository.scopes
        # The path is what errors name; the URL itself may be signed.
        return Call(method=method, path=url.raw_path, url=url, scopes=scopes, expected=expected, headers=headers)

    def _ended(self, upload: Upload, reply: Reply, digest: str) -> None:
        """Note that a session has ended; raise `DigestMismatchError` if the blob has another digest there."""
        self._unfinished.undo.pop(upload, None)
        stored = reply.headers.get("Docker-Content-Digest", "")
        if is_digest(stored) and stored.partition(":")[0] == digest.partition(":")[0] and stored != digest:
            raise DigestMismatchError(
                f"{self._repository.name} stored the blob {digest} under the digest {stored}",
                expected=digest,
                actual=stored,
                who=self._repository.name,
                endpoint=self._registry.name,
            )

    async def cancel(self, upload: Upload) -> None:
        """Give a session up. Whether that succeeds does not matter."""
        if upload in self._unfinished.undo:
            await outlast(asyncio.create_task(self._delete(upload), name="cancel an upload"))
        else:  # the service was closed, which gives all of them up
            await self._unfinished.undone()

    async def _delete(self, upload: Upload) -> None:
        """DELETE <location>."""
        call = self._call("DELETE", upload.url, frozenset({200, 202, 204, 404}), {})
        with contextlib.suppress(DockerError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._registry.fetch(dataclasses.replace(call, repeat=False))
        self._unfinished.undo.pop(upload, None)

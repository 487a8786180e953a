"""A client that sends a registry exactly what a test says, and shows exactly what came back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from aiodocker_images.testing import Blob, Manifest
from aiodocker_images.testing.content import INDEXES, MANIFESTS

MANIFEST_TYPES = ", ".join(sorted(MANIFESTS | INDEXES))


@dataclass(frozen=True)
class Answer:
    """What a registry answered; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:  # noqa: ANN401 - any document
        return msgspec.json.decode(self.body)

    @property
    def codes(self) -> list[str]:
        """The codes of the error document."""
        return [each["code"] for each in self.json["errors"]]


class RegistryClient:
    """Talks to the registry at `url`. No redirect is followed, and a path that is given is sent as it is."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._session = aiohttp.ClientSession(headers=dict(headers or {}), auto_decompress=False)
        # By itself, aiohttp (3.14) sends a GET, HEAD, PUT or DELETE again if the connection breaks before the answer.
        self._session._retry_connection = False  # pyright: ignore[reportPrivateUsage]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request to a path, or to a whole URL, and return the answer."""
        url = URL(path if "://" in path else self.url + path, encoded=True)
        async with self._session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
            answer = {name.lower(): value for name, value in response.headers.items()}
            body = b""
            try:
                body = await response.read()
            except aiohttp.ClientPayloadError:
                if response.status != 416:  # which distribution 2.8.2 sends with the length of the blob
                    raise
            return Answer(response.status, answer, body)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def push_blob(self, repository: str, blob: Blob) -> Answer:
        """Upload a blob with POST and PUT."""
        opened = await self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        return await self.finish(opened, blob.digest, blob.data)

    async def finish(self, opened: Answer, digest: str, body: bytes = b"") -> Answer:
        """End the upload that an answer's Location is about."""
        location = opened.headers["location"]
        joined = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        return await self.ask("PUT", joined, body=body, headers={"Content-Type": "application/octet-stream"})

    async def push_manifest(self, repository: str, manifest: Manifest, reference: str = "") -> Answer:
        """Upload a manifest under its digest, or a tag."""
        path = f"/v2/{repository}/manifests/{reference or manifest.digest}"
        return await self.ask("PUT", path, body=manifest.data, headers={"Content-Type": manifest.media_type})

    async def push(self, repository: str, content: Manifest, tag: str = "") -> None:
        """Upload an image or an index with all that it refers to."""
        for blob in content.all_blobs().values():
            assert (await self.push_blob(repository, blob)).status == 201
        for each in content.walk():
            assert (await self.push_manifest(repository, each, tag if each is content else "")).status == 201

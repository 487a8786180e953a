"""One repository of a registry: the requests of the distribution API that are about it, one method each.

Names and digests were checked before they come here (`Reference`, `Descriptor`), so they are safe in a path.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import (
    DigestMismatchError,
    ForbiddenError,
    FrameDecodeError,
    InvalidParameterError,
    NotFoundError,
    RegistryUnreachableError,
)
from aiodocker_images.models import Descriptor

from .digests import DigestCheck, compute_digest, is_digest
from .hosts import resolve_location
from .manifests import ACCEPT, MAX_MANIFEST_SIZE, OCI_INDEX, Manifest, is_media_type
from .paging import next_page
from .registry import Call, Registry, Reply
from .tokens import delete_scopes, pull_scopes, push_scopes
from .transport import Answer

__all__ = ["Repository", "referrers_tag"]

MAX_PAGE: Final = 32 << 20
"""Bytes of one page of tags; 100,000 tags of 128 characters are 13 MB."""

MAX_PAGES: Final = 10_000
"""Pages of one list; Quay's have 50 tags."""

MAX_TAGS: Final = 1_000_000
"""Tags of one repository, which are remembered so that each is told once."""

MAX_REFERRERS: Final = 10_000
"""Referrers of one manifest; an index of them under a tag cannot have more either."""

PAGE_SIZE: Final = 1000
"""Tags that are asked for with one request: ECR refuses more."""

LARGE: Final = 1 << 20
"""Bytes of a blob from which on it is read past aiohttp's reader: with smaller ones that saves nothing."""

OK: Final = frozenset({200})
STORED: Final = frozenset({200, 201, 202, 204})
"""What says that something was stored: crane's registry says 204, others have said 200 and 202."""


UNKNOWN_API: Final = frozenset({200, 400, 404, 405, 501})
"""How registries answer the referrers API, and what those say that have never heard of it."""


def referrers_tag(digest: str) -> str:
    """Return the tag under which clients keep the referrers of a manifest (at most 128 characters)."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


_TAGS: Final = msgspec.json.Decoder(_Tags)


class Repository:
    """A repository by its path ("library/alpine"); `writes` and `deletes` say what else than reading it is for."""

    def __init__(self, registry: Registry, path: str, *, writes: bool = False, deletes: bool = False) -> None:
        self.registry = registry
        self.path = path
        self.scopes = delete_scopes(path) if deletes else push_scopes(path) if writes else pull_scopes(path)

    @property
    def name(self) -> str:
        """The repository with its registry, as errors and results name it."""
        return f"{self.registry.name}/{self.path}"

    def call(self, method: str, rest: str, *, expected: frozenset[int] = OK, **headers: str) -> Call:
        """Return a request about something in this repository; `accept=` and the like become headers."""
        named = {name.title().replace("_", "-"): value for name, value in headers.items()}
        return Call(method=method, path=f"/v2/{self.path}/{rest}", scopes=self.scopes, expected=expected, headers=named)

    async def head_manifest(self, tag_or_digest: str) -> Descriptor | None:
        """Return what a tag or digest points to, None if there is no such manifest.

        The digest is "" if the registry does not say. HEAD /v2/<name>/manifests/<reference>.
        """
        call = self.call("HEAD", f"manifests/{tag_or_digest}", expected=frozenset({200, 404, 405}), accept=ACCEPT)
        reply = await self.registry.fetch(call)
        if reply.status == 404:
            return None
        digest = reply.headers.get("Docker-Content-Digest", "")
        if reply.status == 405 or not is_digest(digest):
            digest = ""
        media_type = reply.headers.get("Content-Type", "").partition(";")[0].strip()
        size = reply.headers.get("Content-Length", "")
        return Descriptor(
            digest=digest,
            media_type=media_type if is_media_type(media_type) else "",
            size=int(size) if size.isascii() and size.isdigit() and len(size) < 16 else None,
        )

    async def get_manifest(self, tag_or_digest: str, *, media_type: str = "") -> Manifest:
        """Return a manifest; `media_type` is what its parent says of it. GET /v2/<name>/manifests/<reference>.

        Raises `DigestMismatchError` if it is not what its digest, or the registry's own header, says.
        """
        reply = await self.registry.fetch(
            self.call("GET", f"manifests/{tag_or_digest}", accept=ACCEPT), limit=MAX_MANIFEST_SIZE
        )
        with self.registry.located():
            return self._checked_manifest(reply, tag_or_digest, media_type)

    def _checked_manifest(self, reply: Reply, tag_or_digest: str, media_type: str) -> Manifest:
        expected = tag_or_digest if is_digest(tag_or_digest) else None
        said = reply.headers.get("Content-Type", "")
        self._check_is_api(reply)
        header = reply.headers.get("Docker-Content-Digest", "")
        if is_digest(header) and header != expected:
            actual = compute_digest(reply.body, header.partition(":")[0])
            if actual != header:
                raise DigestMismatchError(
                    f"{self.name} says that its manifest {tag_or_digest} has the digest {header}, but it has {actual}",
                    expected=header,
                    actual=actual,
                    who=self.name,
                )
        return Manifest.parse(reply.body, said or media_type, digest=expected, who=self.name)

    def _check_is_api(self, reply: Reply) -> None:
        if reply.headers.get("Content-Type", "").startswith("text/html"):
            raise RegistryUnreachableError(
                f"{reply.url.authority} answers with a web page: it does not speak the distribution API (/v2/)"
            )

    async def put_manifest(self, manifest: Manifest, tag_or_digest: str) -> Reply:
        """Store a manifest, byte for byte. PUT /v2/<name>/manifests/<reference>.

        Raises `DigestMismatchError` if the registry stored it under another digest.
        """
        call = self.call("PUT", f"manifests/{tag_or_digest}", expected=STORED, content_type=manifest.media_type)
        reply = await self.registry.fetch(dataclasses.replace(call, body=manifest.data))
        with self.registry.located():
            self._check_stored(reply, manifest)
        return reply

    def _check_stored(self, reply: Reply, manifest: Manifest) -> None:
        stored = reply.headers.get("Docker-Content-Digest", "")
        if (
            is_digest(stored)
            and stored.partition(":")[0] == manifest.digest.partition(":")[0]
            and stored != manifest.digest
        ):
            raise DigestMismatchError(
                f"{self.name} stored the manifest {manifest.digest} under the digest {stored}",
                expected=manifest.digest,
                actual=stored,
                who=self.name,
            )

    async def delete_manifest(self, tag_or_digest: str) -> None:
        """Remove a manifest, or only a tag where the registry can. DELETE /v2/<name>/manifests/<reference>."""
        await self.registry.fetch(
            self.call("DELETE", f"manifests/{tag_or_digest}", expected=frozenset({200, 202, 204}))
        )

    async def has_blob(self, digest: str) -> bool:
        """Whether a blob is there. HEAD /v2/<name>/blobs/<digest>."""
        call = self.call("HEAD", f"blobs/{digest}", expected=frozenset({200, 404}))
        return (await self.registry.fetch(call)).status == 200

    def open_blob(self, blob: Descriptor, start: int = 0) -> contextlib.AbstractAsyncContextManager[Answer]:
        """Return the answer with a blob: status 200, or 206 or 416 if not from the first byte on.

        GET /v2/<name>/blobs/<digest>.
        """
        if start:
            expected = frozenset({200, 206, 416})
            call = self.call("GET", f"blobs/{blob.digest}", expected=expected, range=f"bytes={start}-")
        else:
            call = self.call("GET", f"blobs/{blob.digest}")
        return self.registry.open(dataclasses.replace(call, large=blob.size is None or blob.size >= LARGE))

    async def read_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return a small blob whole. Raises `DigestMismatchError` and, for one over the limit, `FrameDecodeError`."""
        reply = await self.registry.fetch(self.call("GET", f"blobs/{descriptor.digest}"), limit=limit)
        check = DigestCheck(descriptor.digest, descriptor.size, who=self.name)
        with self.registry.located():
            check.update(reply.body)
            check.finish()
        return reply.body

    async def tag_pages(self) -> AsyncGenerator[list[str], None]:
        """Yield the tags, page by page, in the registry's order, each once. GET /v2/<name>/tags/list."""
        call: Call | None = self.call("GET", f"tags/list?n={PAGE_SIZE}", accept="application/json")
        seen: set[str] = set()
        asked: set[str] = set()
        for _ in range(MAX_PAGES):
            if call is None:
                return
            try:
                reply = await self.registry.fetch(call, limit=MAX_PAGE)
            except InvalidParameterError:
                if asked:
                    raise
                # It does not like the number: then as many as it likes.
                call = self.call("GET", "tags/list", accept="application/json")
                reply = await self.registry.fetch(call, limit=MAX_PAGE)
            asked.add(str(reply.url))
            # distribution 2.8: unsorted, `n` ignored, and null instead of an empty list.
            with self.registry.located():
                fresh = [tag for tag in dict.fromkeys(self._tags(reply)) if tag not in seen]
                seen.update(fresh)
                if len(seen) > MAX_TAGS:
                    raise FrameDecodeError(f"{self.name} has more than {MAX_TAGS} tags")
            if fresh:
                yield fresh
            link = next_page([reply.headers.get("Link", "")])
            # Pulp 2.30 has a link on the last page, too: what brings nothing new is the end.
            call = None
            if link is not None and fresh:
                url = resolve_location(reply.url, link)
                if str(url) not in asked:
                    call = dataclasses.replace(self.call("GET", "tags/list", accept="application/json"), url=url)
        if call is not None:
            raise FrameDecodeError(f"the tags of {self.name} have more than {MAX_PAGES} pages")

    async def is_empty(self) -> bool:
        """Whether there is no such repository, or no tag in it. GET /v2/<name>/tags/list."""
        try:
            reply = await self.registry.fetch(
                self.call("GET", "tags/list?n=1", expected=frozenset({200, 404})), limit=MAX_PAGE
            )
        except ForbiddenError as error:
            return error.status == 401  # Pulp 2.30: there is no such repository
        return reply.status == 404 or not self._tags(reply)

    async def referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the manifests that name this one as their subject.

        GET /v2/<name>/referrers/<digest>, or the index that clients keep under the tag "sha256-<hex>" where the
        registry does not have that (distribution specification, "Listing Referrers" and "Referrers Tag Schema").
        """
        call: Call | None = self.call("GET", f"referrers/{digest}", expected=UNKNOWN_API, accept=OCI_INDEX)
        found: dict[str, Descriptor] = {}
        asked: set[str] = set()
        while call is not None:
            reply = await self.registry.fetch(call, limit=MAX_MANIFEST_SIZE)
            html = reply.headers.get("Content-Type", "").startswith("text/html")
            if reply.status != 200 or (html and not asked):
                return await self.tagged_referrers(digest)
            asked.add(str(reply.url))
            with self.registry.located():
                page = Manifest.parse(reply.body, OCI_INDEX, who=self.name).manifests
                fresh = [each for each in page if each.digest not in found]
                found.update((each.digest, each) for each in fresh)
                if len(found) > MAX_REFERRERS:
                    raise FrameDecodeError(f"{self.name} lists more than {MAX_REFERRERS} referrers of {digest}")
                link = next_page([reply.headers.get("Link", "")])
                url = resolve_location(reply.url, link) if link is not None and fresh else None
            # A later page that is refused is a failure: what came before it is not all there is.
            more = url is not None and str(url) not in asked
            call = dataclasses.replace(call, url=url, expected=OK) if more else None
        return tuple(found.values())

    async def tagged_referrers(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the manifests of the fallback index, which a registry without the referrers API has as a tag."""
        try:
            return (await self.get_manifest(referrers_tag(digest))).manifests
        except NotFoundError:
            return ()

    def _tags(self, reply: Reply) -> list[str]:
        self._check_is_api(reply)
        try:
            return _TAGS.decode(reply.body).tags or []
        except UNDECODABLE as error:
            failure = FrameDecodeError(f"the list of tags of {self.name} is not what it should be: {error}")
        raise failure

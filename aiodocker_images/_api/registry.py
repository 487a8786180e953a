"""The operations that ask a registry through the Engine: search, inspect_distribution, login."""

from __future__ import annotations

import builtins
import contextlib
from typing import Final, cast

import msgspec
from msgspec import field

from aiodocker_images._arguments import check_mapping, check_number, wrong
from aiodocker_images._encoding import Filters, Query, encode_filters, encode_json, path_segment
from aiodocker_images._http.call import Call
from aiodocker_images._struct import Nullable
from aiodocker_images.credentials import RegistryAuth, auth_document, check_auth
from aiodocker_images.errors import FrameDecodeError, InvalidReferenceError, NotFoundError, named
from aiodocker_images.models import DistributionInspect, LoginResult, SearchResult
from aiodocker_images.reference import DOCKER_HUB, Reference
from aiodocker_images.results import UpdateCheck

from .images import Images, digests_of

__all__ = ["Registry"]


class _Found(SearchResult, frozen=True, kw_only=True):
    """A search result in the API's shape, or in that of Podman 5.8, with names of its own and "[OK]" for true."""

    podman_name: Nullable[str] = field(default="", name="Name")
    podman_description: Nullable[str] = field(default="", name="Description")
    podman_stars: Nullable[int] = field(default=0, name="Stars")
    podman_official: Nullable[str] = field(default="", name="Official")
    podman_automated: Nullable[str] = field(default="", name="Automated")

    def result(self) -> SearchResult:
        """Return what both shapes say."""
        return SearchResult(
            name=self.name or self.podman_name,
            description=self.description or self.podman_description,
            star_count=self.star_count or self.podman_stars,
            is_official=self.is_official or bool(self.podman_official),
            is_automated=self.is_automated or bool(self.podman_automated),
        )


_FOUND: Final = msgspec.json.Decoder(list[_Found])
_DISTRIBUTION: Final = msgspec.json.Decoder(DistributionInspect)
_LOGIN: Final = msgspec.json.Decoder(LoginResult)


class Registry(Images):
    """The part of `ImageService` that is about registries."""

    async def search(
        self,
        term: str,
        *,
        limit: int | None = None,
        filters: Filters | None = None,
        auth: RegistryAuth | None = None,
    ) -> builtins.list[SearchResult]:
        """Search Docker Hub for repositories, or the registry that the term begins with ("127.0.0.1:5000/word").

        `limit` is 25 by default, and at most 100. `filters` are `stars` (a number) and `is-official` (a bool).
        The registry must have the search of the first registry API, `/v1/search`, as Docker Hub does.

        Raises `InvalidParameterError`, `ServerError` and every other `DockerError`; from Podman a `NotFoundError`
        if nothing is found. GET /images/search (API 1.41).
        """
        if not isinstance(cast("object", term), str):
            raise wrong("term", term, "a str")
        check_auth(auth)
        check_number("limit", limit)
        query: Query = (("term", term),)
        if limit is not None:
            query += (("limit", str(limit)),)
        check_mapping("filters", filters, '{"stars": 10}')
        if filters:
            query += (("filters", encode_filters(filters)),)
        call = Call(verb="search", subject=named(term), method="GET", path="/images/search", query=query)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._transport.located(call))
            found = await self._transport.fetch(await self._authorized(call, _registry_of(term), auth, stack), _FOUND)
        return [each.result() for each in found]

    async def inspect_distribution(
        self, reference: str | Reference, *, auth: RegistryAuth | None = None
    ) -> DistributionInspect:
        """Ask the registry for an image's digest and platforms, without pulling it.

        `auth` beats the keychain.

        Raises `InvalidReferenceError`, `NotFoundError` (Podman has no such endpoint: always),
        `UnauthorizedError` (Docker's answer for a missing image, too) and every other `DockerError`.
        GET /distribution/{name}/json (API 1.41).
        """
        check_auth(auth)
        image = Reference.parse(reference).with_default_tag()
        call = Call(
            verb="inspect_distribution",
            subject=image.familiar,
            method="GET",
            path=f"/distribution/{path_segment(str(image))}/json",
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._transport.located(call))
            return await self._transport.fetch(
                await self._authorized(call, image.domain, auth, stack, repository=image.path), _DISTRIBUTION
            )

    async def check_for_update(self, reference: str | Reference, *, auth: RegistryAuth | None = None) -> UpdateCheck:
        """Ask the registry whether it has another image under this name than the Engine, without pulling it.

        Without a tag or digest it is `latest`. `auth` beats the keychain.

        Raises as `inspect_distribution` does: with Podman, which cannot ask a registry, `NotFoundError`.
        GET /distribution/{name}/json, then GET /images/{name}/json (API 1.41).
        """
        image = reference if isinstance(reference, Reference) else Reference.parse(reference)
        image = image.with_default_tag()
        there = await self.inspect_distribution(image, auth=auth)
        latest = there.descriptor.digest if there.descriptor is not None else ""
        if not latest:
            raise FrameDecodeError(
                "the Engine's answer has no digest of the image", operation=f"check_for_update {image.familiar}"
            )
        held: tuple[str, ...] = ()
        with contextlib.suppress(NotFoundError):
            held = digests_of(await self.inspect(image), image)
        return UpdateCheck(reference=str(image), latest=latest, held=held)

    async def login(self, auth: RegistryAuth) -> LoginResult:
        """Let the Engine check credentials with the registry that `auth.server_address` names, or Docker Hub.

        Nothing is stored, neither here nor in the Engine: give `auth` to the operations, or a keychain to the
        service, or let `docker login` store it, where `DockerKeychain` finds it.

        Raises `UnauthorizedError` and every other `DockerError`. POST /auth (API 1.41).
        """
        if not isinstance(cast("object", auth), RegistryAuth):
            raise wrong("auth", auth, "a RegistryAuth(username=…, password=…)")
        call = Call(
            verb="login",
            subject=named(auth.server_address or DOCKER_HUB),
            method="POST",
            path="/auth",
            document=encode_json(auth_document(auth, DOCKER_HUB)),
            statuses=(200, 204),
        )
        body = await self._transport.fetch_bytes(call)
        return self._transport.decode(call, body or b"{}", _LOGIN)  # 204 No Content is a success as well


def _registry_of(term: str) -> str:
    try:
        return Reference.parse(term).domain
    except InvalidReferenceError:
        return DOCKER_HUB

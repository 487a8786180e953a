"""The operations on images that the Engine has: list, inspect, tag, remove."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Final

import msgspec

from ._operation import Operator
from ._query import Filters, Query, encode_filters, encode_platforms, flags, path_segment
from ._transport import Call
from .errors import InvalidReferenceError
from .models import ImageInspect, ImageSummary, Platform, RemovedImage
from .reference import Reference, name_or_id

__all__ = ["Images"]

_INSPECT: Final = msgspec.json.Decoder(ImageInspect)
_SUMMARIES: Final = msgspec.json.Decoder(list[ImageSummary])
_REMOVED: Final = msgspec.json.Decoder(list[RemovedImage])


class Images(Operator):
    """The local part of `ImageService`."""

    async def inspect(
        self,
        reference: str | Reference,
        *,
        platform: str | Platform | None = None,
        manifests: bool = False,
    ) -> ImageInspect:
        """Return everything that the Engine knows of an image.

        `platform` selects one of a multi-platform image (API 1.49), `manifests` adds all of them (API 1.48);
        the Engine takes one of both.

        Raises `InvalidReferenceError`, `NotFoundError` and every other `DockerError`.
        GET /images/{name}/json (API 1.41).
        """
        name = name_or_id(reference)
        query, parameters = flags(manifests=manifests), ("manifests",) * manifests
        if platform is not None:
            query += encode_platforms([Platform.parse(platform)])
            parameters += ("platform",)
        call = Call(
            operation=f"inspect {name}",
            method="GET",
            path=f"/images/{path_segment(name)}/json",
            query=query,
            parameters=parameters,
        )
        return await self._transport.fetch(call, _INSPECT)

    async def tag(self, source: str | Reference, target: str | Reference) -> None:
        """Give an image another name; `target` without a tag gets `latest`, and takes it from another image.

        Raises `InvalidReferenceError` (for a target with a digest, too), `NotFoundError` and every other
        `DockerError`. POST /images/{name}/tag (API 1.41).
        """
        name = name_or_id(source)
        image = target if isinstance(target, Reference) else Reference.parse(target)
        if image.digest is not None:
            raise InvalidReferenceError(f"{image.familiar!r}: an image is tagged by name, not by digest")
        image = image.with_default_tag()
        call = Call(
            operation=f"tag {name} as {image.familiar}",
            method="POST",
            path=f"/images/{path_segment(name)}/tag",
            query=(("repo", image.name), ("tag", image.tag or "")),
        )
        await self._transport.fetch_bytes(call)

    async def remove(
        self,
        reference: str | Reference,
        *,
        force: bool = False,
        noprune: bool = False,
        platforms: Iterable[str | Platform] = (),
    ) -> builtins.list[RemovedImage]:
        """Remove a name from an image, and with its last name the image and the layers nobody else needs.

        `force` removes an image that a stopped container uses or that has several names; `noprune` keeps
        untagged parents. `platforms` removes only these of a multi-platform image (API 1.50).

        Raises `InvalidReferenceError`, `NotFoundError`, `ConflictError` (in use) and every other
        `DockerError`. DELETE /images/{name} (API 1.41).
        """
        name = name_or_id(reference)
        if isinstance(platforms, str | Platform):
            platforms = (platforms,)
        chosen = encode_platforms((Platform.parse(platform) for platform in platforms), name="platforms")
        call = Call(
            operation=f"remove {name}",
            method="DELETE",
            path=f"/images/{path_segment(name)}",
            query=flags(force=force, noprune=noprune) + chosen,
            parameters=("platforms",) if chosen else (),
        )
        return await self._transport.fetch(call, _REMOVED)

    # Defined last: after it, `list` in this class's annotations would mean the method.
    async def list(
        self,
        reference: str | None = None,
        *,
        all: bool = False,  # noqa: A002 - the Engine's own name
        filters: Filters | None = None,
        digests: bool = False,
        shared_size: bool = False,
        manifests: bool = False,
        identity: bool = False,
    ) -> builtins.list[ImageSummary]:
        """List the images that the Engine has.

        `reference` is a name or a pattern ("alpine", "127.0.0.1:5000/*:1.*"), a short form of
        `filters={"reference": …}`. `all` includes intermediate layers. `filters` maps names to a bool, a
        number, a text, a sequence of them, or a mapping (`{"label": {"stage": "test"}}`). `digests` asks
        older Engines for `repo_digests`. `shared_size` computes that field (API 1.42), `manifests` adds
        those of multi-platform images (API 1.47), `identity` what is verified about them (API 1.54).

        Raises `InvalidParameterError` for an unknown filter, and every other `DockerError`.
        GET /images/json (API 1.41).
        """
        chosen = dict(filters or {})
        if reference is not None:
            chosen["reference"] = reference
        query: Query = (("filters", encode_filters(chosen)),) if chosen else ()
        query += flags(all=all, digests=digests, shared_size=shared_size, manifests=manifests, identity=identity)
        gated = {"shared_size": shared_size, "manifests": manifests, "identity": identity}
        call = Call(
            operation=f"list {reference}" if reference is not None else "list",
            method="GET",
            path="/images/json",
            query=query,
            parameters=tuple(name for name, wanted in gated.items() if wanted),
        )
        return await self._transport.fetch(call, _SUMMARIES)

"""The operations on images that the Engine has: list, inspect, history, tag, remove, prune and the rest."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from aiodocker_images._arguments import check_flag, check_mapping, check_text, texts
from aiodocker_images._encoding import (
    Filters,
    Query,
    encode_filters,
    encode_platforms,
    flags,
    parse_platforms,
    path_segment,
)
from aiodocker_images._http.call import Call
from aiodocker_images._struct import Model, Nullable
from aiodocker_images.api_version import first_version
from aiodocker_images.errors import FrameDecodeError, InvalidReferenceError, NotFoundError, named
from aiodocker_images.models import (
    Attestation,
    HistoryItem,
    ImageDiskUsage,
    ImageInspect,
    ImageSummary,
    Platform,
    PruneReport,
    RemovedImage,
)
from aiodocker_images.reference import Reference, name_or_id

from .operation import Operator

__all__ = ["Images", "digests_of"]

_INSPECT: Final = msgspec.json.Decoder(ImageInspect)
_SUMMARIES: Final = msgspec.json.Decoder(list[ImageSummary], strict=False)  # for its UnixTime
_REMOVED: Final = msgspec.json.Decoder(list[RemovedImage])
_HISTORY: Final = msgspec.json.Decoder(list[HistoryItem])
_ATTESTATIONS: Final = msgspec.json.Decoder(list[Attestation])
_PRUNED: Final = msgspec.json.Decoder(PruneReport)


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

        Raises `InvalidReferenceError`, `NotFoundError` (also for a platform that the Engine does not hold),
        `FrameDecodeError` for an answer without an image in it, and every other `DockerError`.
        GET /images/{name}/json (API 1.41).
        """
        name = name_or_id(reference)
        query, parameters = flags(manifests=manifests), ("manifests",) * manifests
        if platform is not None:
            query += encode_platforms([Platform.parse(platform)])
            parameters += ("platform",)
        call = Call(
            verb="inspect",
            subject=name,
            method="GET",
            path=f"/images/{path_segment(name)}/json",
            query=query,
            parameters=parameters,
        )
        answer = await self._transport.fetch(call, _INSPECT)
        if not answer.id:
            with self._transport.located(call):
                raise FrameDecodeError("the answer has no image in it: no id")
        if platform is not None and _is_hollow(answer):
            with self._transport.located(call):
                message = f"the Engine does not hold this image for {platform}"
                raise NotFoundError(message, method=call.method, path=call.path)
        return answer

    async def exists(self, reference: str | Reference, *, platform: str | Platform | None = None) -> bool:
        """Return whether the Engine has an image, by its name or id.

        `platform` asks for that one of a multi-platform image (API 1.49).

        Raises what `inspect` raises, but `NotFoundError`. GET /images/{name}/json (API 1.41).
        """
        try:
            await self.inspect(reference, platform=platform)
        except NotFoundError:
            return False
        return True

    async def history(
        self, reference: str | Reference, *, platform: str | Platform | None = None
    ) -> builtins.list[HistoryItem]:
        """Return the steps in the making of an image, the newest first.

        `platform` selects one of a multi-platform image (API 1.48).

        Raises `InvalidReferenceError`, `NotFoundError` and every other `DockerError`.
        GET /images/{name}/history (API 1.41).
        """
        name = name_or_id(reference)
        chosen = () if platform is None else encode_platforms([Platform.parse(platform)])
        call = Call(
            verb="history",
            subject=name,
            method="GET",
            path=f"/images/{path_segment(name)}/history",
            query=chosen,
            parameters=("platform",) if chosen else (),
        )
        return await self._transport.fetch(call, _HISTORY)

    async def attestations(
        self,
        reference: str | Reference,
        *,
        platform: str | Platform | None = None,
        types: str | Iterable[str] = (),
        statement: bool = False,
    ) -> builtins.list[Attestation]:
        """Return the in-toto statements attached to an image, such as its provenance.

        `platform` selects the variant, by default the daemon's own; `types` are predicate type URIs, any of
        which will do; `statement` asks for the documents themselves.

        Raises `UnsupportedAPIVersionError`, `NotFoundError`, `ServerError` (the graph-driver store keeps no
        attestations) and every other `DockerError`. GET /images/{name}/attestations (API 1.55).
        """
        name = name_or_id(reference)
        chosen = () if platform is None else encode_platforms([Platform.parse(platform)])
        wanted = texts("types", types)
        call = Call(
            verb="attestations",
            subject=name,
            method="GET",
            path=f"/images/{path_segment(name)}/attestations",
            query=(*chosen, *(("type", uri) for uri in wanted), *flags(statement=statement)),
            parameters=("attestations",),
        )
        return await self._transport.fetch(call, _ATTESTATIONS)

    async def tag(self, source: str | Reference, target: str | Reference) -> None:
        """Give an image another name; `target` without a tag gets `latest`, and takes it from another image.

        Raises `InvalidReferenceError` (for a target with a digest, too), `NotFoundError` and every other
        `DockerError`. POST /images/{name}/tag (API 1.41).
        """
        name = name_or_id(source)
        image = Reference.parse(target)
        if image.digest is not None:
            raise InvalidReferenceError(f"{image.familiar!r}: an image is tagged by name, not by digest")
        image = image.with_default_tag()
        call = Call(
            verb="tag",
            subject=f"{name} as {image.familiar}",
            method="POST",
            path=f"/images/{path_segment(name)}/tag",
            query=(("repo", image.name), ("tag", image.tag or "")),
            statuses=(201,),
        )
        await self._transport.fetch_bytes(call)

    async def remove(
        self,
        reference: str | Reference,
        *,
        force: bool = False,
        no_prune: bool = False,
        platforms: Iterable[str | Platform] = (),
    ) -> builtins.list[RemovedImage]:
        """Remove a name from an image, and with its last name the image and the layers nobody else needs.

        `force` removes an image that a stopped container uses or that has several names; `no_prune` keeps
        untagged parents. `platforms` removes only these of a multi-platform image, under all of its names, and
        needs `force` (API 1.50).

        Raises `InvalidReferenceError`, `NotFoundError`, `ConflictError` (in use) and every other
        `DockerError`. DELETE /images/{name} (API 1.41).
        """
        name = name_or_id(reference)
        check_flag("no_prune", no_prune)
        chosen = encode_platforms(parse_platforms(platforms), name="platforms")
        call = Call(
            verb="remove",
            subject=name,
            method="DELETE",
            path=f"/images/{path_segment(name)}",
            query=flags(force=force, noprune=no_prune) + chosen,
            parameters=("platforms",) if chosen else (),
        )
        return await self._transport.fetch(call, _REMOVED)

    async def prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - the Engine's own name
        filters: Filters | None = None,
    ) -> PruneReport:
        """Remove images that no container uses: those without a name, or with `all` those with one, too.

        `filters` narrow it by `until` and `label`, as in `list`.

        Raises `InvalidParameterError` for an unknown filter, `ConflictError` while another prune runs, and
        every other `DockerError`. POST /images/prune (API 1.41).
        """
        check_flag("all", all)
        check_mapping("filters", filters, '{"label": "stage=test"}')
        chosen: Filters = {"dangling": not all, **(filters or {})}
        call = Call(verb="prune", method="POST", path="/images/prune", query=(("filters", encode_filters(chosen)),))
        return await self._transport.fetch(call, _PRUNED)

    async def disk_usage(self, *, verbose: bool = False) -> ImageDiskUsage:
        """Return the disk that images take; `verbose` asks for the images one by one, too.

        An Engine below API 1.52 has no figures for all of them: they are computed from its list as the docker
        CLI computes them.

        Raises every `DockerError`. GET /system/df?type=image (API 1.41; below 1.42 the Engine computes the
        usage of containers, volumes and the build cache in vain).
        """
        check_flag("verbose", verbose)
        version = await self._transport.versions.negotiated()
        query: Query = () if version < first_version("disk_usage", "type") else (("type", "image"),)
        if version >= first_version("disk_usage", "verbose"):
            query += flags(verbose=verbose)
        call = Call(verb="disk_usage", method="GET", path="/system/df", query=query)
        answer = await self._transport.fetch(call, _DISK_USAGE)
        if (usage := answer.image_usage) is None:
            return _usage_of(answer)
        # Docker 29 leaves out what is 0.
        zeros = {name: 0 for name in _COUNTS if getattr(usage, name) is None}
        return msgspec.structs.replace(usage, **zeros)

    # Defined last: after it, `list` in this class's annotations would mean the method.
    async def list(
        self,
        reference: str | Reference | None = None,
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
        number, a text, a sequence of them, or a mapping (`{"label": {"stage": "test"}}`). `digests` changes
        nothing: every Engine of the API that is spoken here lists `repo_digests`. `shared_size` computes that
        field (API 1.42), `manifests` adds those of multi-platform images (API 1.47), `identity` adds them with
        what is verified about each (API 1.54).

        Raises `InvalidParameterError` for an unknown filter, and every other `DockerError`.
        GET /images/json (API 1.41).
        """
        check_mapping("filters", filters, '{"label": "stage=test"}')
        chosen = dict(filters or {})
        if reference is not None:
            reference = reference.familiar if isinstance(reference, Reference) else reference
            check_text("reference", reference)
            chosen["reference"] = reference
        query: Query = (("filters", encode_filters(chosen)),) if chosen else ()
        # Podman 5.8 answers a list with `digests` with nothing at all, and Docker ignores it since 1.41 at least.
        check_flag("digests", digests)
        # Docker 29 refuses `identity` alone: identities are fields of the manifests.
        query += flags(all=all, shared_size=shared_size, manifests=manifests or identity, identity=identity)
        gated = {"shared_size": shared_size, "manifests": manifests, "identity": identity}
        call = Call(
            verb="list",
            subject=named(reference) if reference is not None else "",
            method="GET",
            path="/images/json",
            query=query,
            parameters=tuple(name for name, wanted in gated.items() if wanted),
        )
        return await self._transport.fetch(call, _SUMMARIES)


class _DiskUsage(Model, frozen=True, kw_only=True):
    """The answer in both shapes: one figure of each kind since API 1.52, the images themselves before."""

    image_usage: ImageDiskUsage | None = None
    layers_size: int | None = None
    images: Nullable[tuple[ImageSummary, ...]] = ()


_DISK_USAGE: Final = msgspec.json.Decoder(_DiskUsage, strict=False)  # for that of its images


def digests_of(image: ImageInspect, name: Reference) -> tuple[str, ...]:
    """Return the digests that an image has in the repository of `name`."""
    found: list[str] = []
    for each in image.repo_digests:
        repository, _, digest = each.partition("@")
        with contextlib.suppress(InvalidReferenceError):
            if digest and Reference.parse(repository).name == name.name:
                found.append(digest)
    return tuple(found)


_COUNTS: Final = ("active_count", "total_count", "reclaimable", "total_size")


def _is_hollow(image: ImageInspect) -> bool:
    """Whether an answer has nothing of an image but its names.

    So answers Docker 29 (containerd store, API 1.56) about a platform that the image has in its registry, but that
    was not pulled. Docker 28.5 answers with status 404.
    """
    root = image.root_fs
    return root is not None and not (root.layers or image.os or image.architecture or image.size)


def _usage_of(answer: _DiskUsage) -> ImageDiskUsage:
    used = [image for image in answer.images if image.containers > 0]
    own = sum(image.size - image.shared_size for image in used if image.shared_size >= 0)
    total = answer.layers_size
    return ImageDiskUsage(
        active_count=len(used),
        total_count=len(answer.images),
        reclaimable=None if total is None else total - own,
        total_size=total,
        items=answer.images,
    )

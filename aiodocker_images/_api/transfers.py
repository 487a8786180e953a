"""The operations that move images: pull, push, load, save, import, each as a coroutine and as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias, cast, get_args

import msgspec

from aiodocker_images._aio.callbacks import check_callback, tell
from aiodocker_images._archive.compression import ArchiveCompression, compression_of
from aiodocker_images._archive.image_names import AnnouncedImages
from aiodocker_images._archive.streams import ArchiveSource, ArchiveTarget, check_source, check_target, open_sink
from aiodocker_images._archive.tar_check import TarCheck
from aiodocker_images._arguments import check_count, check_flag, texts, wrong
from aiodocker_images._encoding import Query, encode_filters, encode_platforms, parse_platforms, path_segment
from aiodocker_images._http.call import Call
from aiodocker_images._http.transport import Transport
from aiodocker_images._struct import Model, Nullable
from aiodocker_images.api_version import first_version
from aiodocker_images.credentials import RegistryAuth
from aiodocker_images.errors import (
    FrameDecodeError,
    InvalidArgumentError,
    InvalidParameterError,
    InvalidReferenceError,
    NotFoundError,
    PlatformMismatchError,
    StreamInterruptedError,
    UnsupportedAPIVersionError,
)
from aiodocker_images.models import ImageInspect, Platform
from aiodocker_images.progress import OnProgress, ProgressFrame, SaveProgress
from aiodocker_images.reference import Reference, is_long, name_or_id
from aiodocker_images.results import ImportResult, LoadResult, PullResult, PushResult, SaveResult

from .images import Images, digests_of
from .operation import Operation, chosen_platform
from .outcomes import ImportOutcome, LoadOutcome, PullOutcome, PushOutcome

__all__ = ["ArchiveCompression", "PullPolicy", "Transfers"]

PullPolicy: TypeAlias = Literal["always", "missing", "never"]

_URL_SCHEMES: Final = ("http://", "https://")
_INSPECT: Final = msgspec.json.Decoder(ImageInspect)

MAX_TAGS_SHOWN: Final = 10
"""Tags that an error names; a repository may have thousands."""


class _TaggedImage(Model, frozen=True, kw_only=True, rename="pascal"):
    repo_tags: Nullable[tuple[str, ...]] = ()


_TAGGED_IMAGES: Final = msgspec.json.Decoder(tuple[_TaggedImage, ...])


class Transfers(Images):
    """The transferring part of `ImageService`."""

    async def pull(
        self,
        reference: str | Reference,
        *,
        platform: str | Platform | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
        policy: PullPolicy = "always",
        on_progress: OnProgress[ProgressFrame] | None = None,
    ) -> PullResult:
        """Pull an image from its registry.

        Without a tag or digest it is `latest`; with `all_tags`, every tag of the repository. `platform`
        ("linux/arm64") selects one of a multi-platform image; the default is `DOCKER_DEFAULT_PLATFORM`, or else the
        daemon's own. `policy` "missing" pulls only what the Engine does not have, and "never" pulls nothing: it
        raises `NotFoundError` for what is not there. `auth` beats the keychain. `on_progress`, a function or a
        coroutine function, is called with each progress frame.

        Raises `PlatformMismatchError` if the image that came is not for the `platform` that was asked for,
        `InvalidReferenceError`, `InvalidPlatformError`, `NotFoundError`, `UnauthorizedError`,
        `ForbiddenError`, `RateLimitedError`, `NoSpaceError`, `StreamInterruptedError` and every other
        `DockerError`. POST /images/create?fromImage (API 1.41).
        """
        operation = _pull(self._transport, reference, platform, auth, all_tags=all_tags)
        if not isinstance(cast("object", policy), str):
            raise wrong("policy", policy, "'always', 'missing' or 'never'")
        if policy not in get_args(PullPolicy):
            raise InvalidArgumentError(f"policy must be one of {', '.join(get_args(PullPolicy))}, not {policy!r}")
        if policy != "always":
            if all_tags:
                raise InvalidArgumentError(f"with all_tags, the policy {policy!r} has no meaning: name a tag")
            if (held := await self._held(_transferable(reference, all_tags=False), platform)) is not None:
                return held
            if policy == "never":
                call = operation.call
                with self._transport.located(call):
                    message = "the Engine does not have this image, and it is not to be pulled"
                    raise NotFoundError(message, method=call.method, path=call.path)
        return await self._run(operation, on_progress)

    async def _held(self, image: Reference, platform: str | Platform | None) -> PullResult | None:
        """Return what a pull would come to that finds everything there; None if the Engine does not have the image."""
        wanted = chosen_platform(platform)
        try:
            found = await self.inspect(image)
            if wanted is not None and not Platform.parse(wanted).matches(found.platform):
                if await self._transport.versions.negotiated() < first_version("inspect", "platform"):
                    return None  # such an Engine has one platform of an image
                await self.inspect(image, platform=wanted)
        except NotFoundError:
            return None
        digest = image.digest or next(iter(digests_of(found, image)), None)
        return PullResult(reference=str(image), digest=digest, up_to_date=True)

    def pull_stream(
        self,
        reference: str | Reference,
        *,
        platform: str | Platform | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
    ) -> AsyncGenerator[ProgressFrame, None]:
        """Pull an image and yield its progress; see `pull`.

        The pull is complete when the generator ends without an exception. Leaving it earlier ends the pull.
        """
        return self._frames(_pull(self._transport, reference, platform, auth, all_tags=all_tags))

    async def push(
        self,
        reference: str | Reference,
        *,
        platform: str | Platform | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
        on_progress: OnProgress[ProgressFrame] | None = None,
    ) -> PushResult:
        """Push an image to the registry that its name says.

        Without a tag it is `latest`; with `all_tags`, every local tag of the repository. `platform` pushes
        one of a multi-platform image alone (API 1.46). `auth` and `on_progress` as in `pull`.

        Raises `InvalidReferenceError` (for a digest, too: a push names a tag), `UnsupportedAPIVersionError`,
        `NotFoundError`, `UnauthorizedError`, `ForbiddenError`, `StreamInterruptedError` and every other
        `DockerError`. POST /images/{name}/push (API 1.41).
        """
        return await self._run(self._push(reference, platform, auth, all_tags=all_tags), on_progress)

    def push_stream(
        self,
        reference: str | Reference,
        *,
        platform: str | Platform | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
    ) -> AsyncGenerator[ProgressFrame, None]:
        """Push an image and yield its progress; see `push`. Leaving the generator ends the push."""
        return self._frames(self._push(reference, platform, auth, all_tags=all_tags))

    def _push(
        self, reference: str | Reference, platform: str | Platform | None, auth: RegistryAuth | None, *, all_tags: bool
    ) -> Operation[PushResult]:
        operation = _push(reference, platform, auth, all_tags=all_tags)
        return replace(operation, verify=self._verify_all_tags) if all_tags else operation

    async def _verify_all_tags(self, operation: Operation[PushResult]) -> None:
        """Raise `StreamInterruptedError` if the Engine has tags of the repository that the response does not name."""
        result = operation.outcome.result()
        name = Reference.parse(result.reference)
        query = (("filters", encode_filters({"reference": [name.familiar_name]})),)
        images = await self._transport.fetch(
            Call(verb="push", subject=name.familiar, method="GET", path="/images/json", query=query), _TAGGED_IMAGES
        )
        local = {tag.rpartition(":")[2] for image in images for tag in image.repo_tags if _is_of(tag, name)}
        if missing := sorted(local - {pushed.tag for pushed in result.tags}):
            shown = ", ".join(missing[:MAX_TAGS_SHOWN]) + (" …" if len(missing) > MAX_TAGS_SHOWN else "")
            raise StreamInterruptedError(
                f"the response ended before all tags of {name.familiar_name} were pushed; it does not name {shown}"
            )

    async def load(
        self,
        source: ArchiveSource,
        *,
        platforms: Iterable[str | Platform] = (),
        quiet: bool = False,
        on_progress: OnProgress[ProgressFrame] | None = None,
    ) -> LoadResult:
        """Load images from a tar as `save` and `docker save` write it, gzip, bzip2, xz or zstd compressed or not.

        Docker 20.10 cannot read zstd: for it the archive is expanded on the way, with Python 3.14 or the extra `zstd`.

        `source` is a path, bytes, a file opened for reading bytes, or an iterable or async iterable of bytes;
        a str is a path. `platforms` loads only these of a multi-platform archive (API 1.48, several: 1.52).
        `quiet` asks the daemon for no progress.

        Raises `LocalFileError` for a file that cannot be read, before anything is sent if it cannot be
        opened; what an iterable raises, as it is; `InvalidArchiveError` for an archive that the Engine cannot read;
        `StreamInterruptedError`, also if the Engine does not name every image that the archive announces;
        `NoSpaceError` and every other `DockerError`.
        POST /images/load (API 1.41).
        """
        return await self._run(_load(source, platforms, quiet=quiet), on_progress)

    def load_stream(
        self, source: ArchiveSource, *, platforms: Iterable[str | Platform] = (), quiet: bool = False
    ) -> AsyncGenerator[ProgressFrame, None]:
        """Load images and yield the progress; see `load`."""
        return self._frames(_load(source, platforms, quiet=quiet))

    async def import_image(
        self,
        source: ArchiveSource,
        *,
        reference: str | Reference | None = None,
        changes: str | Iterable[str] = (),
        message: str | None = None,
        platform: str | Platform | None = None,
        on_progress: OnProgress[ProgressFrame] | None = None,
    ) -> ImportResult:
        """Make an image of the tar of a root file system.

        `source` as in `load`, or an http(s) URL that the daemon fetches. The image is named `reference`
        ("app:1.0"; without a tag it is `latest`), and without it has only its id. `changes` are Dockerfile
        instructions (`CMD ["/bin/sh"]`), `message` the image's comment, `platform` what the image
        says that it runs on (API 1.42), by default `DOCKER_DEFAULT_PLATFORM`.

        Raises as `load` does, and `InvalidReferenceError`. POST /images/create?fromSrc (API 1.41).
        """
        return await self._run(
            _import(source, reference, changes=changes, message=message, platform=platform),
            on_progress,
        )

    def import_stream(
        self,
        source: ArchiveSource,
        *,
        reference: str | Reference | None = None,
        changes: str | Iterable[str] = (),
        message: str | None = None,
        platform: str | Platform | None = None,
    ) -> AsyncGenerator[ProgressFrame, None]:
        """Make an image of the tar of a root file system and yield the progress; see `import_image`."""
        return self._frames(_import(source, reference, changes=changes, message=message, platform=platform))

    async def save(
        self,
        *references: str | Reference,
        to: ArchiveTarget,
        platforms: Iterable[str | Platform] = (),
        compression: ArchiveCompression | Literal["none"] | None = None,
        checksum: bool = False,
        on_progress: OnProgress[SaveProgress] | None = None,
    ) -> SaveResult:
        """Save images with their names, layers and history to one tar, which `load` reads.

        `to` is a path or a file opened for writing bytes. A path is written to a temporary neighbour, flushed
        to the disk and renamed, with mode 0600 or that of the file it replaces: whatever fails, no half
        archive stands there. `checksum` computes the sha256 of the bytes on the way. `platforms` as in `load`.
        `on_progress` is called with a `SaveProgress`, the number of bytes received so far, each time some come.

        A path that ends in .gz or .tgz is compressed by gzip, .bz2, .tbz and .tbz2 by bzip2, .xz and .txz by xz, and
        .zst, .zstd and .tzst by zstd, which needs Python 3.14 or the extra `zstd`; the result names the `compression`.
        `compression` chooses one whatever the path, or "none", and is needed for a file object.

        Raises `LocalFileError` for a target that cannot be written (a full disk, too), before anything is
        sent if it cannot be created; `ArchiveError` if the daemon reported an error inside the tar or ended
        it early; `NotFoundError`, `StreamInterruptedError` and every other `DockerError`.
        GET /images/{name}/get, GET /images/get?names= (API 1.41).
        """
        call = _save(references, platforms)
        check_target(to)
        check_callback(on_progress)
        check_flag("checksum", checksum)
        compressed = compression_of(to, compression)
        with self._transport.located(call):
            async with open_sink(to, checksum=checksum, compression=compressed) as sink:
                async with contextlib.aclosing(self._archive(call)) as chunks:
                    async for chunk in chunks:
                        await sink.write((chunk,))
                        if on_progress is not None:
                            await tell(on_progress, SaveProgress(size=sink.size))
                await sink.commit()
                return SaveResult(size=sink.written, digest=sink.digest, compression=compressed)

    def save_stream(
        self,
        *references: str | Reference,
        chunk_size: int | None = None,
        platforms: Iterable[str | Platform] = (),
    ) -> AsyncGenerator[bytes, None]:
        """Yield the tar that `save` would write, in pieces as they come or of at most `chunk_size` bytes.

        The archive is whole when the generator ends without an exception; see `save` for what it raises.
        """
        check_count("chunk_size", chunk_size)
        chunks = self._archive(_save(references, platforms))
        return chunks if chunk_size is None else _resized(chunks, chunk_size)

    async def _archive(self, call: Call) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a tar; return only if it is whole."""
        async with self._transport.open(call) as live, contextlib.aclosing(live.chunks()) as chunks:
            check = TarCheck()
            async for chunk in chunks:
                check.feed(chunk)
                yield chunk
            check.finish()


def _pull(
    transport: Transport,
    reference: str | Reference,
    platform: str | Platform | None,
    auth: RegistryAuth | None,
    *,
    all_tags: bool,
) -> Operation[PullResult]:
    image = _transferable(reference, all_tags=all_tags)
    # Without a tag the daemon pulls them all.
    query: Query = (("fromImage", image.name), ("tag", image.tag_or_digest or ""))
    if chosen := chosen_platform(platform):
        query += (("platform", chosen),)
    call = Call(verb="pull", subject=image.familiar, method="POST", path="/images/create", query=query)
    outcome = PullOutcome(image)
    return Operation(
        call=call,
        outcome=outcome,
        registry=image.domain,
        repository=image.path,
        auth=auth,
        verify=_platform_check(transport, image, Platform.parse(chosen), outcome) if chosen and not all_tags else None,
    )


def _platform_check(
    transport: Transport, image: Reference, wanted: Platform, outcome: PullOutcome
) -> Callable[[Operation[PullResult]], Awaitable[None]]:
    """Return what compares the platform that a pull brought with the one that was asked for.

    Of an image of one platform an Engine pulls that, whatever was asked for; only 28.5 says so, in a warning.
    """
    call = Call(
        verb="inspect", subject=image.familiar, method="GET", path=f"/images/{path_segment(image.familiar)}/json"
    )
    of_platform = replace(call, query=encode_platforms([wanted]), parameters=("platform",))

    async def check(_: Operation[PullResult]) -> None:
        try:
            found = await transport.fetch(call, _INSPECT)
            if found.descriptor is not None and not wanted.accepts(found.platform):
                # A containerd store may have several, and tells of its own first.
                with contextlib.suppress(NotFoundError, InvalidParameterError, UnsupportedAPIVersionError):
                    one = await transport.fetch(of_platform, _INSPECT)
                    found = one if one.architecture else found
        except (NotFoundError, FrameDecodeError):
            return  # removed by somebody, or too odd to be read
        came = found.platform
        if came.architecture and not wanted.accepts(came):
            raise PlatformMismatchError.of(str(wanted), str(came))
        outcome.came(str(came))

    return check


def _push(
    reference: str | Reference, platform: str | Platform | None, auth: RegistryAuth | None, *, all_tags: bool
) -> Operation[PushResult]:
    image = _transferable(reference, all_tags=all_tags)
    if image.digest is not None:
        raise InvalidReferenceError(f"{image.familiar!r} cannot be pushed by digest: name a tag")
    # Podman would push localhost/x/app in place of docker.io/x/app by its short name.
    name = image.name if is_long(reference) else image.familiar_name
    query: Query = () if image.tag is None else (("tag", image.tag),)
    parameters: tuple[str, ...] = ()
    if platform is not None:
        query += encode_platforms([Platform.parse(platform)])
        parameters = ("platform",)
    call = Call(
        verb="push",
        subject=image.familiar,
        method="POST",
        path=f"/images/{path_segment(name)}/push",
        query=query,
        parameters=parameters,
    )
    return Operation(
        call=call,
        outcome=PushOutcome(image),
        registry=image.domain,
        repository=image.path,
        auth=auth,
        header_if_anonymous=True,
    )


def _load(source: ArchiveSource, platforms: Iterable[str | Platform], *, quiet: bool) -> Operation[LoadResult]:
    check_source(source)
    check_flag("quiet", quiet)
    chosen, parameters = _chosen_platforms(platforms)
    query: Query = (("quiet", "true" if quiet else "false"), *chosen)  # quiet is the daemon's default
    call = Call(verb="load", method="POST", path="/images/load", query=query, parameters=parameters)
    announced = AnnouncedImages()
    return Operation(call=call, outcome=LoadOutcome(lambda: announced.fewest), source=source, announced=announced)


def _import(
    source: ArchiveSource,
    reference: str | Reference | None,
    *,
    changes: str | Iterable[str],
    message: str | None,
    platform: str | Platform | None,
) -> Operation[ImportResult]:
    query: Query = ()
    named_as = ""
    if reference is not None:
        image = Reference.parse(reference)
        if image.digest is not None:
            raise InvalidReferenceError(f"{image.familiar!r}: an import is named by a tag, not by a digest")
        image = image.with_default_tag()
        query += (("repo", image.name), ("tag", image.tag or ""))
        named_as = image.familiar
    query += tuple(("changes", change) for change in texts("changes", changes))
    if message is not None:
        query += (("message", message),)
    parameters: tuple[str, ...] = ()
    if chosen := chosen_platform(platform):
        query += (("platform", chosen),)
        parameters = ("platform",)
    from_url = isinstance(source, str) and source.startswith(_URL_SCHEMES)
    if not from_url:
        check_source(source)
    call = Call(
        verb="import",
        subject=named_as,
        method="POST",
        path="/images/create",
        query=(("fromSrc", str(source) if from_url else "-"), *query),
        parameters=parameters,
    )
    return Operation(call=call, outcome=ImportOutcome(), source=None if from_url else source)


def _save(references: Sequence[str | Reference], platforms: Iterable[str | Platform]) -> Call:
    if not references:
        raise InvalidReferenceError("name at least one image to save")
    names = [name_or_id(reference) for reference in references]
    chosen, parameters = _chosen_platforms(platforms)
    several = len(names) > 1
    return Call(
        verb="save",
        subject=", ".join(names),
        method="GET",
        path="/images/get" if several else f"/images/{path_segment(names[0])}/get",
        query=(*(("names", name) for name in names if several), *chosen),
        parameters=parameters,
        archive=True,
    )


def _is_of(tag: str, repository: Reference) -> bool:
    """Whether an Engine's name of an image is a tag of this repository; its filter also finds others' of that path."""
    try:
        return Reference.parse(tag).name == repository.name
    except InvalidReferenceError:
        return False


def _transferable(reference: str | Reference, *, all_tags: bool) -> Reference:
    check_flag("all_tags", all_tags)
    image = Reference.parse(reference)
    if not all_tags:
        return image.with_default_tag()
    if image.tag_or_digest is not None:
        raise InvalidReferenceError(f"{image.familiar!r}: with all_tags, name the repository alone")
    return image


def _chosen_platforms(platforms: Iterable[str | Platform]) -> tuple[Query, tuple[str, ...]]:
    chosen = parse_platforms(platforms)
    parameters = () if not chosen else ("platforms",) if len(chosen) == 1 else ("several_platforms",)
    return encode_platforms(chosen), parameters


async def _resized(chunks: AsyncGenerator[bytes, None], size: int) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            for start in range(0, len(chunk), size):
                yield chunk[start : start + size]

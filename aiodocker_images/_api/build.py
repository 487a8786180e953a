"""The operations that build: build, as a coroutine and as a stream, and prune_build_cache."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence, Sized
from typing import Final, Unpack, cast, get_args

import msgspec

from aiodocker_images._archive.build_context import context_path
from aiodocker_images._archive.streams import ArchiveSource, check_source
from aiodocker_images._arguments import check_flag, check_mapping, check_number, check_text, texts, wrong
from aiodocker_images._encoding import Filters, Query, encode_filters, encode_json, flags
from aiodocker_images._http.call import Call
from aiodocker_images.api_version import first_version
from aiodocker_images.credentials import check_auths, registry_config_header
from aiodocker_images.errors import InvalidArgumentError, InvalidReferenceError
from aiodocker_images.models import BuildCachePruneReport
from aiodocker_images.progress import OnProgress, ProgressFrame
from aiodocker_images.reference import Reference
from aiodocker_images.results import BuildResult

from .build_options import Builder, BuildOptions, Ulimit
from .build_output import StepOutput
from .build_source import is_remote, must_be_inside, with_source
from .operation import REGISTRY_CONFIG, Operation, Operator, chosen_platform
from .outcomes import BuildOutcome

__all__ = ["Build"]

# What BuildKit ignores.
_CLASSIC: Final = (
    "memory",
    "memory_swap",
    "cpu_shares",
    "cpu_period",
    "cpu_quota",
    "cpuset_cpus",
    "cpuset_mems",
    "cgroup_parent",
    "isolation",
)
_QUERY_NAMES: Final = {"memory_swap": "memswap"}  # the others are ours without the _

_PRUNED: Final = msgspec.json.Decoder(BuildCachePruneReport)


class Build(Operator):
    """The building part of `ImageService`."""

    async def build(
        self,
        context: ArchiveSource,
        *,
        on_progress: OnProgress[ProgressFrame] | None = None,
        **options: Unpack[BuildOptions],
    ) -> BuildResult:
        """Build an image from a context: the files that its Dockerfile may copy. `options` are those of `BuildOptions`.

        `context` is the path of a directory, which is sent as a tar without what its `.dockerignore` leaves out;
        a tar in any form that `load` takes, sent as it is; or a text that begins like a URL (`http://`,
        `https://`, `git://`, `git@`, `github.com/`), which the Engine fetches: a tar, a repository, or a
        Dockerfile alone. A directory that is called so is given as a `Path`.

        What is built: `dockerfile` is its path in the context ("Dockerfile" by default), `target` the stage to end
        with, `build_args` the values of its ARGs (None: as if it were not given, but the classic builder warns of
        one that no ARG asks for), `platform` ("linux/arm64") what it runs on, by default
        `DOCKER_DEFAULT_PLATFORM`. `tags` name the image, and without any it has only its id; `labels` are added to
        it, and `squash` makes one layer of its own ones (experimental Engines).

        How: `pull` looks for newer base images, `no_cache` runs every step again, `cache_from` are images to take
        steps from. `quiet` asks for no output but the id. The classic builder keeps the containers of its steps
        without `remove_intermediate`, and removes those of a failed build, too, with `force_remove`.

        The `proxies` of the docker CLI's config.json are build_args, too, as with the docker CLI and docker-py: where
        `build_args` names the same (with None: without a value), that counts.

        What RUN gets: `network_mode` ("none", "host", or a network), `extra_hosts` ({"name": "address"}, or
        "name:address" each), `shm_size` bytes of /dev/shm, `ulimits`. Of the classic builder alone: `memory` and
        `memory_swap` in bytes (both together; -1: no limit), `cpu_shares`, `cpu_period` and `cpu_quota` in
        microseconds, `cpuset_cpus` and `cpuset_mems` ("0-2,4"), `cgroup_parent`, and on Windows `isolation` and
        `security_opt`.

        `builder="buildkit"` builds with BuildKit, without the session that the docker CLI opens beside the
        request: so there are no secrets, no ssh, no output to local files, and no base image of a registry that
        asks for a login or a token, as Docker Hub does ("no active sessions"), unless it was pulled before.
        `outputs` are for it, in the API's words: `[{"Type": "moby", "Attrs": {…}}]`, or, before Docker 25,
        `[{"Type": "cacheonly"}]` for no image.

        `auths` maps registries ("docker.io", "127.0.0.1:5000") to the credentials for base images. Without it, the
        classic builder gets all that the keychain knows (see `ListingKeychain`), as the docker CLI does it, for
        which registries a Dockerfile needs is not known here; an empty mapping sends nothing.

        Podman builds in its own way: it takes no notice of `builder`, `network_mode` and `isolation`, and refuses
        `extra_hosts` and `ulimits` in Docker's form.

        Raises `BuildStepError` for a failed step, with the end of its output, and `ServerError` for other failures;
        `InvalidParameterError` for a Dockerfile that cannot be read; `LocalFileError` for a context that cannot,
        or that changes meanwhile; `ConfigError` for a pattern in a `.dockerignore`; ValueError for a combination
        that the builder would ignore; `InvalidReferenceError`, `StreamInterruptedError` and every other
        `DockerError`. POST /build (API 1.41; with BuildKit, `shm_size` and `ulimits`: 1.42).
        """
        return await self._run(_build(context, options, self._host), on_progress)

    def build_stream(
        self,
        context: ArchiveSource,
        **options: Unpack[BuildOptions],
    ) -> AsyncGenerator[ProgressFrame, None]:
        """Build an image and yield what the builder says; see `build`. Leaving the generator ends the build.

        The output is in `stream`. Frames of BuildKit have a `BuildTrace` in `aux`, and in `stream` the same as
        text.
        """
        return self._frames(_build(context, options, self._host))

    def _host(self) -> str:
        return str(self._transport.endpoint)

    async def prune_build_cache(
        self,
        *,
        all: bool = False,  # noqa: A002 - the Engine's own name
        filters: Filters | None = None,
        reserved_space: int | None = None,
        max_used_space: int | None = None,
        min_free_space: int | None = None,
    ) -> BuildCachePruneReport:
        """Remove what BuildKit keeps of earlier builds: what is not in use, with `all` also what images share.

        `reserved_space` bytes are kept in any case; `max_used_space` is what may remain, and `min_free_space`
        what shall be free on the disk (both API 1.48). `filters` narrow it: `until` ("24h"), `id`, `parent`,
        `type`, `description`, and `inuse`, `shared`, `private` with an empty sequence.

        Raises `UnsupportedAPIVersionError`, `NotFoundError` (Podman has no such endpoint) and every other
        `DockerError`. POST /build/prune (API 1.41).
        """
        check_flag("all", all)
        check_mapping("filters", filters, '{"until": "24h"}')
        for name, size in (
            ("reserved_space", reserved_space),
            ("max_used_space", max_used_space),
            ("min_free_space", min_free_space),
        ):
            check_number(name, size)
        version = await self._transport.versions.negotiated()
        # Renamed, with the same meaning.
        reserved = (
            "keep-storage" if version < first_version("prune_build_cache", "reserved_space") else "reserved-space"
        )
        gated = {"max_used_space": max_used_space, "min_free_space": min_free_space}
        sizes = {reserved: reserved_space} | {name.replace("_", "-"): size for name, size in gated.items()}
        query = flags(all=all) + tuple((name, str(size)) for name, size in sizes.items() if size is not None)
        if filters:
            query += (("filters", encode_filters(filters)),)
        call = Call(
            verb="prune_build_cache",
            method="POST",
            path="/build/prune",
            query=query,
            parameters=tuple(name for name, size in gated.items() if size is not None),
        )
        return await self._transport.fetch(call, _PRUNED)


def _build(context: ArchiveSource, options: BuildOptions, host: Callable[[], str]) -> Operation[BuildResult]:
    if unknown := sorted(set(options) - set(BuildOptions.__annotations__)):
        raise TypeError(f"build has no option {unknown[0]!r}")
    _check_types(options)
    remote = is_remote(context)
    if not remote:
        check_source(context)
    builder = options.get("builder", "classic")
    if not isinstance(cast("object", builder), str):
        raise wrong("builder", builder, "'classic' or 'buildkit'")
    if builder not in get_args(Builder):
        raise InvalidArgumentError(f"builder must be one of {get_args(Builder)}, not {builder!r}")
    limits = cast("Mapping[str, str | int | None]", options)
    classic = _given({name: limits.get(name) for name in _CLASSIC}) + tuple(
        ("security_opt", option) for option in texts("security_opt", options.get("security_opt", ()))
    )
    limited = tuple(options.get("ulimits", ()))
    shm_size, auths = options.get("shm_size"), options.get("auths")
    outputs, quiet = options.get("outputs", ()), options.get("quiet", False)
    if builder == "classic" and outputs:
        raise InvalidArgumentError("outputs are for builder='buildkit': the classic builder ignores them")
    if builder == "buildkit" and (classic or auths):
        ignored = ", ".join([*dict(classic), *(["auths"] if auths else [])])
        raise InvalidArgumentError(f"BuildKit ignores {ignored}: leave that out, or build with builder='classic'")
    tags, dockerfile = options.get("tags", ()), options.get("dockerfile")
    names = _tags(tags)
    path = dockerfile if dockerfile is None or isinstance(dockerfile, bytes) else context_path(dockerfile)
    if (path is not None and not isinstance(context, str | os.PathLike)) or remote:
        must_be_inside(path)
    build_args = dict(options.get("build_args") or {})
    query: Query = (
        *_given(
            {
                "remote": str(context) if remote else None,
                "dockerfile": path if isinstance(path, str) else None,
                "target": options.get("target"),
                "platform": chosen_platform(options.get("platform")),
                "networkmode": options.get("network_mode"),
                "shmsize": shm_size,
                "version": "2" if builder == "buildkit" else None,
            }
        ),
        *(("t", str(name)) for name in names),
        *(("extrahosts", host) for host in _hosts(options.get("extra_hosts", ()))),
        *_documents(
            {
                "buildargs": build_args,
                "labels": dict(options.get("labels") or {}),
                "cachefrom": texts("cache_from", options.get("cache_from", ())),
                "ulimits": limited,
                "outputs": outputs,
            }
        ),
        *flags(
            q=quiet,
            nocache=options.get("no_cache"),
            pull=options.get("pull"),
            forcerm=options.get("force_remove"),
            squash=options.get("squash"),
        ),
        *(() if options.get("remove_intermediate", True) else (("rm", "false"),)),
        *((_QUERY_NAMES.get(name, name.replace("_", "")), value) for name, value in classic),
    )
    gated = {"buildkit_shm_size": shm_size is not None, "buildkit_ulimits": bool(limited)}
    call = Call(
        verb="build",
        subject=names[0].familiar if names else "",
        method="POST",
        path="/build",
        query=query,
        headers={REGISTRY_CONFIG: registry_config_header(auths)} if auths else {},
        parameters=tuple(name for name, given in gated.items() if given and builder == "buildkit"),
    )
    return Operation(
        call=call,
        outcome=_outcome(outputs, quiet=quiet),
        source=None if remote else context,
        complete=functools.partial(
            with_source,
            dockerfile=path,
            buildkit=builder == "buildkit",
            compress=options.get("compress", False),
            build_args=build_args,
            host=host,
        ),
        output=StepOutput(),
        whole_keychain=builder == "classic" and auths is None,
    )


_FLAGS: Final = ("pull", "no_cache", "quiet", "remove_intermediate", "force_remove", "squash", "compress")
_NUMBERS: Final = ("memory", "memory_swap", "cpu_shares", "cpu_period", "cpu_quota", "shm_size")
_TEXTS: Final = ("target", "network_mode", "cpuset_cpus", "cpuset_mems", "cgroup_parent", "isolation")


def _check_types(options: BuildOptions) -> None:
    """Raise TypeError for an option of a wrong type, which the Engine would be sent in some form."""
    given = cast("Mapping[str, object]", options)
    for names, check in ((_FLAGS, check_flag), (_NUMBERS, check_number), (_TEXTS, check_text)):
        for name in names:
            if name in given:
                check(name, given[name])
    for name in ("build_args", "labels"):
        check_mapping(name, given.get(name), '{"name": "value"}')
        for key, value in cast("Mapping[object, object]", given.get(name) or {}).items():
            if not isinstance(key, str):
                raise wrong(f"each name of {name}", key, "a str")
            check_text(f"each value of {name}", value)
    check_auths("auths", given.get("auths"))
    for name, kind, words in (("ulimits", Ulimit, "an Ulimit(…)"), ("outputs", Mapping, 'a mapping: {"Type": "moby"}')):
        values = given.get(name, ())
        if not isinstance(values, Iterable):
            raise wrong(name, values, f"several, each {words}")
        if not isinstance(values, Collection):
            continue  # read once, where it is used
        for value in cast("Collection[object]", values):
            if not isinstance(value, kind):
                raise wrong(f"each of {name}", value, words)


def _tags(tags: str | Reference | Iterable[str | Reference]) -> list[Reference]:
    if isinstance(tags, str | Reference):
        tags = (tags,)
    if not isinstance(cast("object", tags), Iterable):
        raise wrong("tags", tags, "the name of an image, or several")
    return [_tag(tag) for tag in tags]


def _outcome(outputs: Sequence[Mapping[str, object]], *, quiet: bool) -> BuildOutcome:
    types = [output.get("Type") for output in outputs]
    return BuildOutcome(quiet=quiet, image=not types or "moby" in types or "image" in types)


def _tag(tag: str | Reference) -> Reference:
    image = Reference.parse(tag)
    if image.digest is not None:
        raise InvalidReferenceError(f"{image.familiar!r}: a build is named by a tag, not by a digest")
    return image.with_default_tag()


def _hosts(hosts: Mapping[str, str] | Iterable[str]) -> tuple[str, ...]:
    """Return names and addresses in the API's form; the docker CLI takes name=address, and [address], too."""
    if isinstance(hosts, Mapping):
        pairs = list(cast("Mapping[str, str]", hosts).items())
    else:
        pairs = [host.partition("=" if "=" in host else ":")[::2] for host in texts("extra_hosts", hosts)]
    for name, address in pairs:
        if not name or not address:
            raise InvalidArgumentError(
                f"each of extra_hosts must be a name and an address, not {f'{name}:{address}'!r}"
            )
    return tuple(f"{name}:{_without_brackets(address)}" for name, address in pairs)


def _without_brackets(address: str) -> str:
    return address[1:-1] if len(address) > 2 and address[0] == "[" and address[-1] == "]" else address


def _given(values: Mapping[str, str | int | None]) -> Query:
    return tuple((name, str(value)) for name, value in values.items() if value is not None)


def _documents(values: Mapping[str, Sized]) -> Query:
    return tuple((name, encode_json(value).decode()) for name, value in values.items() if len(value))

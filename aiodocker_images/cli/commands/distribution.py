"""The commands that need no Engine, but only registries: copy, tags, digest, manifest."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Annotated, Final, TypeVar

import msgspec
import typer

from aiodocker_images import (
    ConfigError,
    CopyResult,
    CopyStep,
    DockerArchive,
    OCILayout,
    OnProgress,
    ProgressDetail,
    ProgressFrame,
    Reference,
    RegistryConfig,
    RegistryService,
    TagSelection,
)
from aiodocker_images.cli import exits
from aiodocker_images.cli.jobs import Job, Result, run_jobs
from aiodocker_images.cli.options import JSONFrames, Platforms, Quiet, each_of
from aiodocker_images.cli.reports import document_of, report_for, say_json
from aiodocker_images.cli.session import session_of, usage
from aiodocker_images.cli.terminal import clean, is_terminal, say, say_bytes
from aiodocker_images.cli.units import size

__all__ = ["copy", "digest", "manifest", "tags"]

T = TypeVar("T")

End = str | OCILayout | DockerArchive

SHORT_DIGEST: Final = len("sha256:") + 12

_STORES: Final[dict[str, type[OCILayout | DockerArchive]]] = {"oci": OCILayout, "docker-archive": DockerArchive}

_STATUSES: Final = {
    "moving": "Copying",
    "moved": "Copied",
    "mounted": "Mounted from another repository",
    "there": "Already exists",
    "left": "Left where its URLs say",
}

PlainHTTP = Annotated[
    list[str],
    typer.Option(
        "--plain-http",
        metavar="HOST[:PORT]",
        help="A registry that speaks http, without encryption; may be repeated.",
        default_factory=list,
        show_default=False,
    ),
]


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="NAME[:TAG|@DIGEST], or oci: or docker-archive:.")],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The same; one that ends in / keeps the source's path below it.")
    ],
    *,
    platforms: Platforms,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="With --platform: leave the index, and so its digest, as it is.")
    ] = False,
    referrers: Annotated[
        bool, typer.Option("--referrers", help="Also what refers to the image: signatures, SBOMs, attestations.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Ask the registry at the end whether it has the image.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Copy what the target seems to have, too.")] = False,
    plain_http: PlainHTTP,
    quiet: Quiet = False,
    as_json: JSONFrames = False,
) -> None:
    """Copy an image with all its platforms from one registry to another, without an Engine.

    oci:PATH[:NAME] is an OCI layout, a directory or a tar, and docker-archive:PATH[:NAME] is the tar of `docker save`.
    A repository of Docker Hub that has such a name is docker.io/library/oci. What the target has is not moved again,
    and the tag is written last.

    For example: aiodocker-images copy alpine:3.20 registry.example/mirror/
    """
    chosen = each_of(platforms)
    if sparse and not chosen:
        raise typer.BadParameter("--sparse needs a --platform to choose")
    start, end = _end_of(source), _target_of(target, source)
    service = _open(plain_http)
    job = Job(clean(end if isinstance(end, str) else target), "Copying")

    async def one(_: Job, on_frame: Callable[[ProgressFrame], None]) -> Result:
        def on_progress(step: CopyStep) -> None:
            if as_json:
                say_json({"image": job.name, **document_of(step)})
            else:
                on_frame(_frame(step))

        tell: OnProgress[CopyStep] = on_progress
        copied = await service.copy(
            start,
            end,
            platforms=chosen or "all",
            sparse=sparse,
            force=force,
            verify=verify,
            referrers=referrers,
            on_progress=tell,
        )
        return _result(copied, copied.target if isinstance(end, str) else target)

    report = report_for([job], quiet=quiet, as_json=as_json)
    session_of(context).finish(_run(service, lambda _: run_jobs([job], one, report, concurrency=1)))


def tags(
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="NAME of a repository, without a tag.")],
    *,
    match: Annotated[
        list[str],
        typer.Option(
            "--match",
            metavar="GLOB",
            help="Only those that match one of these; may be repeated.",
            default_factory=list,
            show_default=False,
        ),
    ],
    semver: Annotated[
        str | None, typer.Option("--semver", metavar="RANGE", help="Only versions in a range: '>=3.18', '^1.2'.")
    ] = None,
    newest: Annotated[
        int | None, typer.Option("--newest", min=1, metavar="N", help="Only so many, the highest versions first.")
    ] = None,
    without: Annotated[
        list[str],
        typer.Option(
            "--without",
            metavar="GLOB",
            help="None that match one of these; may be repeated.",
            default_factory=list,
            show_default=False,
        ),
    ],
    plain_http: PlainHTTP,
    as_json: Annotated[bool, typer.Option("--json", help="All in one list of JSON.")] = False,
) -> None:
    """List the tags of a repository in its registry, a line each.

    For example: aiodocker-images tags alpine --semver '>=3.18' --newest 5
    """
    with _configured():
        TagSelection(match=match, semver=semver, newest=newest, without=without)

    async def listed(service: RegistryService) -> list[str]:
        return await service.tags(repository, match=match, semver=semver, newest=newest, without=without)

    found = _run(_open(plain_http), listed)
    if as_json:
        say_json(found)
    else:
        say("".join(f"{clean(tag)}\n" for tag in found))


def digest(
    reference: Annotated[str, typer.Argument(metavar="NAME[:TAG]", help="An image in a registry.")],
    *,
    plain_http: PlainHTTP,
) -> None:
    """Print the digest that an image has in its registry. Registries do not count that as a pull.

    For example: aiodocker-images digest alpine:3.20
    """
    say(f"{_run(_open(plain_http), lambda service: service.digest(reference))}\n")


def manifest(
    reference: Annotated[str, typer.Argument(metavar="NAME[:TAG|@DIGEST]", help="An image in a registry.")],
    *,
    pretty: Annotated[bool, typer.Option("--pretty", help="Make it readable, as it is on a terminal.")] = False,
    plain_http: PlainHTTP,
) -> None:
    """Print the manifest or index of an image: byte for byte, unless it goes to a terminal.

    For example: aiodocker-images manifest alpine:3.20 | sha256sum
    """
    data = _run(_open(plain_http), lambda service: service.manifest(reference)).data
    if pretty or is_terminal(sys.stdout):
        say(f"{msgspec.json.format(data, indent=2).decode()}\n")
    else:
        say_bytes(data)


@contextmanager
def _configured() -> Generator[None, None, None]:
    """Turn what the library says of options that make no sense into a usage error. For calls that send nothing yet."""
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(error.message) from error


def _open(plain_http: list[str]) -> RegistryService:
    """Return a service, which sends nothing yet."""
    with _configured():
        return RegistryService(registries={host: RegistryConfig(plain_http=True) for host in each_of(plain_http)})


def _run(service: RegistryService, work: Callable[[RegistryService], Awaitable[T]]) -> T:
    """Run a coroutine function on a service that is closed after it. Raises `Stopped` for a signal."""

    async def on_service() -> T:
        async with service:
            return await work(service)

    return exits.run(on_service)


def _end_of(text: str) -> End:
    """Read a name, oci:PATH[:NAME] or docker-archive:PATH[:NAME]; a path ends at the first colon."""
    kind, _, rest = text.partition(":")
    store = _STORES.get(kind)
    if store is None:
        return text
    path, _, name = rest.partition(":")
    if not path:
        raise typer.BadParameter(f"{kind}: needs a path behind it")
    with usage():
        return store(path, name or None)


def _target_of(target: str, source: str) -> End:
    end, start = _end_of(target), _end_of(source)
    if isinstance(end, str) and end.endswith("/"):
        if not isinstance(start, str):
            raise typer.BadParameter(f"a target that ends in / needs a source in a registry, not {clean(source)[:80]}")
        return f"{end}{Reference.parse(start).path}"
    return end


def _frame(step: CopyStep) -> ProgressFrame:
    """Return a step of a copy as displays know those of Engines."""
    short = step.digest.partition(":")[2][:12]
    if step.kind != "blob":
        return ProgressFrame(status=f"Copied the manifest {short}")
    detail = ProgressDetail(current=step.current, total=step.total)
    return ProgressFrame(id=short, status=_STATUSES[step.status], progress_detail=detail)


def _result(copied: CopyResult, target: str) -> Result:
    """Say what a copy came to; `target` is written so that the next command line can take it."""
    target = clean(target)
    lines = [f"Digest: {copied.digest}"]
    if copied.source_digest != copied.digest:
        lines.append(f"Source digest: {copied.source_digest}")
    if copied.skipped:
        summary = f"{copied.digest[:SHORT_DIGEST]}  up to date"
        lines.append(f"Status: {copied.because}")
    else:
        summary = f"{copied.digest[:SHORT_DIGEST]}  copied"
        lines.append(
            f"Status: {size(copied.bytes_moved, 3)} moved, {size(copied.bytes_mounted, 3)} mounted,"
            f" {size(copied.bytes_there, 3)} there before"
        )
    if copied.referrers:
        lines.append(f"Referrers: {len(copied.referrers)}")
    return Result(lines=(*lines, target), quiet_lines=(target,), summary=summary, data=copied)

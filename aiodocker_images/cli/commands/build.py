"""The command that builds: build."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from aiodocker_images import APIError, BuildResult, ImageService, ProgressFrame, Ulimit
from aiodocker_images._api.build_source import is_remote
from aiodocker_images.cli.jobs import Job
from aiodocker_images.cli.options import JSONFrames, OnePlatform, Quiet
from aiodocker_images.cli.reports import PlainReport, document_of, say_json
from aiodocker_images.cli.session import session_of, usage
from aiodocker_images.cli.stdin_context import read_context, read_dockerfile
from aiodocker_images.cli.terminal import archive_input, clean, note, say, say_output, visible
from aiodocker_images.cli.units import bytes_of

__all__ = ["build"]

_ULIMIT = re.compile(r"([a-z]+)=(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?", re.ASCII)


def build(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="PATH|URL|-", help="What the Dockerfile may copy; `-`: a tar, or a Dockerfile."),
    ],
    *,
    tags: Annotated[
        list[str],
        typer.Option(
            "--tag",
            "-t",
            metavar="NAME[:TAG]",
            help="A name; may be repeated.",
            default_factory=list,
            show_default=False,
        ),
    ],
    dockerfile: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="PATH/Dockerfile by default.")
    ] = None,
    build_args: Annotated[
        list[str],
        typer.Option(
            "--build-arg",
            metavar="NAME[=VALUE]",
            help="Of an ARG; without a value, that of the environment.",
            default_factory=list,
            show_default=False,
        ),
    ],
    labels: Annotated[
        list[str],
        typer.Option(
            "--label", metavar="NAME=VALUE", help="Added to the image.", default_factory=list, show_default=False
        ),
    ],
    target: Annotated[str | None, typer.Option("--target", metavar="STAGE", help="The stage to end with.")] = None,
    platform: OnePlatform = None,
    pull: Annotated[bool, typer.Option("--pull", help="Look for newer base images.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step again.")] = False,
    cache_from: Annotated[
        list[str],
        typer.Option(
            "--cache-from",
            metavar="IMAGE",
            help="Take steps from it; may be repeated.",
            default_factory=list,
            show_default=False,
        ),
    ],
    network: Annotated[
        str | None, typer.Option("--network", metavar="MODE", help="Of RUN: none, host, a network.")
    ] = None,
    hosts: Annotated[
        list[str],
        typer.Option(
            "--add-host",
            metavar="NAME=ADDRESS",
            help="For RUN; may be repeated.",
            default_factory=list,
            show_default=False,
        ),
    ],
    shm_size: Annotated[str | None, typer.Option("--shm-size", metavar="SIZE", help="Of /dev/shm: 64m.")] = None,
    ulimits: Annotated[
        list[str],
        typer.Option(
            "--ulimit",
            metavar="NAME=SOFT[:HARD]",
            help="For RUN: nofile=1024.",
            default_factory=list,
            show_default=False,
        ),
    ],
    memory: Annotated[str | None, typer.Option("--memory", "-m", metavar="SIZE", help="At most, for RUN.")] = None,
    memory_swap: Annotated[
        str | None, typer.Option("--memory-swap", metavar="SIZE", help="And with swap; -1: no limit.")
    ] = None,
    cpu_shares: Annotated[int | None, typer.Option("--cpu-shares", "-c", metavar="N", help="Its weight.")] = None,
    cpu_period: Annotated[int | None, typer.Option("--cpu-period", metavar="MICROS", help="Of the quota.")] = None,
    cpu_quota: Annotated[int | None, typer.Option("--cpu-quota", metavar="MICROS", help="In each period.")] = None,
    cpuset_cpus: Annotated[str | None, typer.Option("--cpuset-cpus", metavar="LIST", help="Where: 0-3, 0,1.")] = None,
    cpuset_mems: Annotated[str | None, typer.Option("--cpuset-mems", metavar="LIST", help="Memory nodes: 0,1.")] = None,
    cgroup_parent: Annotated[str | None, typer.Option("--cgroup-parent", metavar="CGROUP", help="For RUN.")] = None,
    isolation: Annotated[str | None, typer.Option("--isolation", metavar="KIND", help="For RUN, on Windows.")] = None,
    security_opt: Annotated[
        list[str],
        typer.Option(
            "--security-opt", metavar="OPTION", help="For RUN, on Windows.", default_factory=list, show_default=False
        ),
    ],
    remove: Annotated[bool, typer.Option("--rm/--no-rm", help="Remove the containers of its steps.")] = True,
    force_rm: Annotated[bool, typer.Option("--force-rm", help="And those of a failed build.")] = False,
    compress: Annotated[bool, typer.Option("--compress", help="Send a directory compressed by gzip.")] = False,
    squash: Annotated[bool, typer.Option("--squash", help="Make one layer of its own (experimental Engines).")] = False,
    builder: Annotated[
        Literal["classic", "buildkit"], typer.Option("--builder", help="The Engine's first builder, or BuildKit.")
    ] = "classic",
    id_file: Annotated[str | None, typer.Option("--iidfile", metavar="FILE", help="Write the id to it.")] = None,
    quiet: Quiet = False,
    as_json: JSONFrames = False,
) -> None:
    """Build an image of a directory, an archive on standard input, or a URL that the Engine fetches."""
    session = session_of(context)
    # As with the docker CLI, a directory called like a URL (github.com/x/y, in a GOPATH) is that directory.
    local = Path(source).is_dir() or not is_remote(source)
    given: str | Path | Iterable[bytes] = Path(source) if local else source
    inside: str | bytes | None = dockerfile
    if source == "-":
        if dockerfile == "-":
            raise typer.BadParameter("the context and the Dockerfile cannot both be on standard input")
        given = read_context(archive_input())
    elif dockerfile is not None and local:
        inside = _dockerfile(Path(source), dockerfile)
    if id_file is not None:
        _clear(id_file)
    steps = PlainReport(several=False)
    job = Job(tags[0] if tags else clean(source), "Building")

    def on_progress(frame: ProgressFrame) -> None:
        if as_json:
            say_json(document_of(frame))
        elif not quiet and frame.stream:
            say_output(frame.stream)
        elif not quiet:
            steps.frame(job, frame)  # of a base image that is pulled

    async def built(service: ImageService) -> BuildResult:
        with usage():
            return await service.build(
                given,
                dockerfile=inside,
                tags=tags,
                build_args=dict(_build_arg(each) for each in build_args),
                labels=dict(_label(each) for each in labels),
                target=target,
                platform=platform,
                pull=pull,
                no_cache=no_cache,
                cache_from=[image for names in cache_from for image in names.split(",") if image],
                network_mode=network,
                extra_hosts=hosts,
                shm_size=None if shm_size is None else bytes_of(shm_size),
                ulimits=[_ulimit(each) for each in ulimits],
                memory=None if memory is None else bytes_of(memory),
                memory_swap=-1 if memory_swap == "-1" else None if memory_swap is None else bytes_of(memory_swap),
                cpu_shares=cpu_shares,
                cpu_period=cpu_period,
                cpu_quota=cpu_quota,
                cpuset_cpus=cpuset_cpus,
                cpuset_mems=cpuset_mems,
                cgroup_parent=cgroup_parent,
                isolation=isolation,
                security_opt=security_opt,
                remove_intermediate=remove,
                force_remove=force_rm,
                squash=squash,
                compress=compress,
                builder=builder,
                quiet=quiet,
                on_progress=on_progress,
            )

    try:
        result = session.run(built)
    except APIError as error:
        if quiet:
            # What the failed step said, which nobody has seen yet.
            for line in error.message.splitlines()[1:]:
                note(visible(line))
        raise
    if id_file is not None and result.id is not None:
        try:
            Path(id_file).write_text(result.id, encoding="ascii")
        except OSError:
            say(f"{result.id}\n")  # or nobody would learn it
            raise
    if as_json:
        say(f"{msgspec.json.encode({'result': result}).decode()}\n")
    elif quiet and result.id is not None:
        say(f"{result.id}\n")
    elif builder == "buildkit" and result.id is not None:
        say(f"{result.id}\n")  # the classic builder has said it: Successfully built


def _dockerfile(context: Path, dockerfile: str) -> str | bytes:
    """Return a Dockerfile as the service takes it: from here, as to the docker CLI, or from the context's top."""
    if dockerfile == "-":
        return read_dockerfile(archive_input())
    here = Path(dockerfile).absolute()
    if not here.exists() and (context / dockerfile).exists():
        here = (context / dockerfile).absolute()
    # The user has named it: so a link is followed wherever it leads.
    return str(here.resolve()) if context.is_dir() else dockerfile


def _clear(id_file: str) -> None:
    """Remove the id of an earlier build, and see that another can be written, while nothing is lost by it."""
    path = Path(id_file)
    try:
        if path.is_symlink():  # /dev/stdout is one
            if path.is_file():
                path.write_bytes(b"")
        elif path.is_file():
            path.unlink()
        if not path.exists():
            path.touch()
            path.unlink()
    except OSError as error:
        raise typer.BadParameter(f"--iidfile {id_file[:200]!r}: {error.strerror or error}") from None


def _build_arg(given: str) -> tuple[str, str | None]:
    name, equals, value = given.partition("=")
    return (name, value) if equals else (name, os.environ.get(name))


def _label(given: str) -> tuple[str, str]:
    name, _, value = given.partition("=")
    return name, value


def _ulimit(given: str) -> Ulimit:
    match = _ULIMIT.fullmatch(given)
    if match is None:
        raise ValueError(f"{given[:80]!r} is not a limit such as nofile=1024 or nofile=1024:2048")
    return Ulimit(name=match[1], soft=int(match[2]), hard=int(match[3] or match[2]))

"""The commands for many images: mirror, transfer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import typer

from aiodocker_images import (
    DockerKeychain,
    Endpoint,
    ImageService,
    MirrorJob,
    MirrorOutcome,
    MirrorPlan,
    MirrorProgress,
    MirrorSummary,
    Reference,
    Retry,
    TransferOutcome,
    TransferProgress,
)
from aiodocker_images import transfer as transfer_images
from aiodocker_images._mirror.options import DEFAULT_CONCURRENCY
from aiodocker_images.cli import exits
from aiodocker_images.cli.jobs import Job, Report, Result
from aiodocker_images.cli.options import Concurrency, Images, Platforms, Quiet, each_of
from aiodocker_images.cli.reports import report_for
from aiodocker_images.cli.session import session_of
from aiodocker_images.cli.terminal import PROGRAM, clean, note, say
from aiodocker_images.cli.units import size
from aiodocker_images.reference import name_or_id

__all__ = ["mirror", "transfer"]

JSONOutcomes = Annotated[bool, typer.Option("--json", help="Each outcome as a line of JSON.")]


def mirror(
    context: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE... TARGET]", help="A target that ends in / keeps the sources' paths below it."),
    ] = None,
    *,
    plan_file: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="A plan instead: a TOML file.")
    ] = None,
    platforms: Platforms,
    all_platforms: Annotated[bool, typer.Option("--all-platforms", help="All of a multi-platform image.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Say what would happen, and write nothing.")] = False,
    journal: Annotated[
        str | None, typer.Option("--journal", metavar="FILE", help="Notes what is done: a restart does what is left.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave on the Engine what was pulled.")] = False,
    require_digest: Annotated[
        bool, typer.Option("--require-digest", help="Let a digest that the Engine changed be a failure.")
    ] = False,
    narrow: Annotated[
        bool, typer.Option("--narrow", help="Let a target have fewer platforms than it has, or no attestations.")
    ] = False,
    attempts: Annotated[
        int | None, typer.Option("--attempts", min=1, max=1000, metavar="N", help="How often a step is tried.")
    ] = None,
    per_registry: Annotated[
        int | None, typer.Option("--per-registry", min=1, metavar="N", help="So many at once with one registry.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", "-j", min=1, max=1000, metavar="N", help=f"So many at once; {DEFAULT_CONCURRENCY}."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: JSONOutcomes = False,
) -> None:
    """Mirror images from registries to others: what is there already is not moved again.

    Each outcome is a line on standard output; with -q it is the target's name, if it is there now.
    """
    session = session_of(context)
    if (plan_file is None) == (not images):
        raise typer.BadParameter("name sources and a target, or a plan")
    plan = asyncio.run(MirrorPlan.read(plan_file)) if plan_file is not None else MirrorPlan(jobs=_jobs(images or []))
    chosen: tuple[str, ...] | Literal["all"] = "all" if all_platforms else tuple(each_of(platforms))
    plan = msgspec.structs.replace(
        plan,
        concurrency=concurrency or plan.concurrency,
        per_registry=per_registry or plan.per_registry,
        platforms=chosen or plan.platforms,
        keep=keep or plan.keep,
        require_digest=require_digest or plan.require_digest,
        narrow=narrow or plan.narrow,
        journal=journal or plan.journal,
        retry=Retry(attempts=attempts) if attempts is not None else plan.retry,
    )
    shown = {job: Job(str(job), "Comparing", phases=2) for job in plan.jobs}
    report: Report = report_for(list(shown.values()), quiet=quiet or as_json, as_json=False)
    outcomes: list[MirrorOutcome] = []

    def on_progress(progress: MirrorProgress) -> None:
        on_its_way = shown[progress.job]
        verb = {"pull": "Pulling", "push": "Pushing"}[progress.step]
        if on_its_way.state == "waiting":
            on_its_way.state, on_its_way.begun = "running", time.monotonic()
        if on_its_way.verb != verb and "push" in (progress.step, on_its_way.verb.lower()[:4]):
            on_its_way.next_phase(verb)
        on_its_way.verb = verb
        on_its_way.tracker.update(progress.frame)
        report.frame(on_its_way, progress.frame)

    async def mirrored(service: ImageService) -> None:
        stream = plan.mirror(service, dry_run=dry_run, on_progress=on_progress)
        async with contextlib.aclosing(stream):
            async for outcome in stream:
                outcomes.append(outcome)
                ended = shown[outcome.job]
                _ended(ended, ok=outcome.ok, words=_words(outcome))
                if as_json:
                    say(f"{msgspec.json.encode(outcome).decode()}\n")
                elif outcome.ok:
                    report.ended(ended, Result(lines=(clean(str(outcome)),), quiet_lines=(outcome.job.target,)))

    session.run(lambda service: report.run(mirrored(service)), keychain=plan.keychain(DockerKeychain()))
    summary = MirrorSummary.of(outcomes)
    for failure in summary.failures:
        note(f"{PROGRAM}: {clean(str(failure))}")
    if not quiet:
        note(str(summary).partition("\n")[0])
    _leave([outcome.ok for outcome in outcomes])


def transfer(
    context: typer.Context,
    images: Images,
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="The other Engine, as in --host.")] = None,
    to_context: Annotated[
        str | None, typer.Option("--to-context", metavar="NAME", help="The other Engine, by a docker context.")
    ] = None,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    quiet: Quiet = False,
    as_json: JSONOutcomes = False,
) -> None:
    """Bring images from the Engine straight into another: through this process, and through no file.

    Each outcome is a line on standard output; with -q it is the image's name, if it is there now.
    """
    session = session_of(context)
    if (to is None) == (to_context is None):
        raise typer.BadParameter("name the other Engine: --to or --to-context")
    endpoint = Endpoint.resolve(to) if to_context is None else Endpoint.from_context(to_context)
    shown = {name: Job(name, "Transferring") for name in map(name_or_id, images)}
    report: Report = report_for(list(shown.values()), quiet=quiet or as_json, as_json=False)
    outcomes: list[TransferOutcome] = []

    def on_progress(progress: TransferProgress) -> None:
        on_its_way = shown[progress.reference]
        if on_its_way.state == "waiting":
            on_its_way.state, on_its_way.begun = "running", time.monotonic()
        on_its_way.moved, on_its_way.expected = progress.size, progress.expected or 0

    async def transferred(source: ImageService, target: ImageService) -> None:
        stream = transfer_images(source, target, *images, concurrency=concurrency, on_progress=on_progress)
        async with contextlib.aclosing(stream):
            async for outcome in stream:
                outcomes.append(outcome)
                words = outcome.status if outcome.error is None else clean(outcome.error.message)
                _ended(shown[outcome.reference], ok=outcome.ok, words=words)
                if as_json:
                    say(f"{msgspec.json.encode(outcome).decode()}\n")
                elif outcome.ok:
                    moved = f"  {size(outcome.size, 3)} in {outcome.elapsed:.1f}s" if outcome.size else ""
                    lines = (f"{clean(str(outcome))}{moved}",)
                    report.ended(shown[outcome.reference], Result(lines=lines, quiet_lines=(outcome.reference,)))

    async def between(source: ImageService) -> None:
        async with ImageService(endpoint) as target:
            await report.run(transferred(source, target))

    session.run(between)
    for failure in outcomes:
        if not failure.ok:
            note(f"{PROGRAM}: {clean(str(failure))}")
    _leave([outcome.ok for outcome in outcomes])


def _ended(job: Job, *, ok: bool, words: str) -> None:
    job.state, job.ended, job.summary = "done" if ok else "failed", time.monotonic(), words
    job.begun = job.begun or job.ended


def _jobs(images: Sequence[str]) -> tuple[MirrorJob, ...]:
    """Return the jobs of `SOURCE... TARGET`, where the last is the target of all."""
    if len(images) < 2:
        raise typer.BadParameter("name sources and then a target")
    *sources, target = images
    if target.endswith("/"):
        return tuple(MirrorJob(source, f"{target}{Reference.parse(source).path}") for source in sources)
    if len(sources) > 1:
        raise typer.BadParameter(f"the target of several sources ends in /, and {target[:80]!r} does not")
    return (MirrorJob(sources[0], target),)


def _words(outcome: MirrorOutcome) -> str:
    if outcome.error is not None:
        return clean(outcome.error.message)
    return f"{outcome.status}  {outcome.digest_note}" if outcome.status == "mirrored" else outcome.status


def _leave(done: Sequence[bool]) -> None:
    if not all(done):
        raise typer.Exit(exits.SOME_FAILED if any(done) else exits.FAILED)

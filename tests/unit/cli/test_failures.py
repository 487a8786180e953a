"""How a command line fails: what is said, by which exit status, and never with a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import json
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aiodocker_images import DockerError, errors
from aiodocker_images.cli import exits
from aiodocker_images.cli.app import main
from aiodocker_images.cli.failures import MAX_HEADLINE, advice, headline, status_of, status_of_all
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.sweeps import examples

WHERE: dict[str, Any] = {"operation": "pull app:1", "endpoint": "unix:///x.sock"}


def not_found(verb: str) -> DockerError:
    """An error that the operation has met."""
    error = errors.NotFoundError("no such", status=404, operation=f"{verb} app:1")
    error.verb = verb
    return error


# Each class, what is said of it in the second line (the beginning; None: nothing), and the exit status alone.
FAILURES: list[tuple[DockerError, str | None, int]] = [
    (errors.DockerError("boom", **WHERE), None, 1),
    (errors.DaemonUnreachableError("nobody answers", **WHERE), "Is the Engine running?", 1),
    (errors.APIError("boom", status=418, **WHERE), None, 1),
    (errors.InvalidParameterError("bad", status=400, **WHERE), None, 1),
    (errors.UnauthorizedError("who?", status=401, **WHERE), "Log in", 1),
    (errors.ForbiddenError("no", status=403, **WHERE), "Whoever owns", 1),
    (not_found("pull"), "Check the name", 1),
    (not_found("remove"), "`aiodocker-images ls`", 1),
    (not_found("build"), None, 1),
    (errors.ConflictError("in use", status=409, **WHERE), "Remove what uses it", 1),
    (errors.TagImmutableError("moved", status=409, **WHERE), "Push another tag", 1),
    (errors.RegistryUnreachableError("nobody answers", **WHERE), None, 1),
    (errors.RateLimitedError("slow down", status=429, **WHERE), "Wait", 1),
    (errors.NoSpaceError("no space left on device", **WHERE), "Make room", 1),
    (errors.ServerError("boom", status=500, **WHERE), None, 1),
    (errors.BuildStepError("RUN x returned 1", exit_code=1, **WHERE), None, 1),
    (errors.StreamInterruptedError("cut", **WHERE), "The Engine may have restarted.", 1),
    (errors.StreamStalledError("stalled", **WHERE), "The Engine may have restarted.", 1),
    (errors.FrameDecodeError("no JSON", **WHERE), "That is not how an Engine answers", 1),
    (errors.ArchiveError("no tar", **WHERE), None, 1),
    (errors.LocalFileError.of(OSError(28, "No space left on device"), "cannot write 'x'"), None, 1),
    (errors.UnsupportedAPIVersionError("x", required="1.48", actual="1.41", **WHERE), "Leave that option out", 1),
    (errors.InvalidReferenceError("'X' is not an image reference"), None, 2),
    (errors.InvalidPlatformError("'x' is not a platform"), None, 2),
    (errors.InvalidArchiveError("not a tar", status=400, **WHERE), None, 1),
    (errors.ServiceClosedError("closed"), None, 1),
    (errors.DigestMismatchError("other content", expected="sha256:1", actual="sha256:2"), None, 1),
    (errors.PlatformMismatchError("another platform", wanted="linux/arm64", actual="linux/amd64"), None, 1),
    (errors.NotGivenBackError("names are left", names=("app:1",)), None, 1),
    (errors.UnsupportedManifestError("schema 1"), None, 1),
    (errors.InvalidArgumentError("half a surrogate pair"), None, 2),
    (errors.ConfigError("no endpoint"), None, 1),
    (errors.CredentialHelperError("no helper", helper="docker-credential-x"), None, 1),
    (errors.ContextNotFoundError("no context"), "`aiodocker-images endpoint`", 1),
]


@pytest.mark.parametrize(("error", "second", "status"), FAILURES, ids=[type(row[0]).__name__ for row in FAILURES])
def test_a_failure_is_a_line_that_says_what_and_one_that_says_what_to_do(
    error: DockerError, second: str | None, status: int
) -> None:
    assert error.message in headline(error)
    assert "\n" not in headline(error)
    told = advice(error)
    assert told is None if second is None else (told or "").startswith(second)
    assert status_of(error) == status


# The same classes where no Engine takes part.
REGISTRY_FAILURES = [
    (errors.NotFoundError("no such", status=404), "Check the name"),
    (errors.NotFoundError("lacks a part", status=404, code="MANIFEST_BLOB_UNKNOWN"), None),
    (errors.UnauthorizedError("who?", status=401), "Log in"),
    (errors.ForbiddenError("no", status=403), "Whoever owns"),
    (errors.RateLimitedError("slow down", status=429), "Wait"),
    (errors.TagImmutableError("moved", status=409), "Name another tag"),
    (errors.NoSpaceError("no space left on device"), "Make room in the registry."),
    (errors.StreamInterruptedError("cut"), "Run it again"),
    (errors.FrameDecodeError("no JSON"), None),
    (errors.RegistryUnreachableError("nobody answers"), None),
]


@pytest.mark.parametrize("verb", ["copy", "tags", "digest", "manifest"])
@pytest.mark.parametrize(
    ("error", "second"),
    REGISTRY_FAILURES,
    ids=[f"{type(row[0]).__name__} {row[0].message}" for row in REGISTRY_FAILURES],
)
def test_what_to_do_about_a_registry_does_not_speak_of_an_engine(
    error: DockerError, second: str | None, verb: str
) -> None:
    error.verb = verb
    told = advice(error)
    assert told is None if second is None else (told or "").startswith(second)
    assert "Engine" not in (told or "")


def test_every_error_of_the_library_is_in_the_table() -> None:
    family = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DockerError)}
    assert {type(row[0]) for row in FAILURES} == family


def test_a_very_long_error_is_truncated_and_cannot_control_the_terminal() -> None:
    line = headline(errors.ServerError("<html>\n\x1b[2J" + "x" * 10_000, operation="pull app:1"))
    assert len(line) == MAX_HEADLINE
    assert line.startswith("pull app:1: <html> \\x1b[2J")


def test_the_status_of_several_says_whether_any_is_done() -> None:
    failed, misnamed = errors.ServerError("x"), errors.InvalidReferenceError("x")
    assert status_of_all([None, None]) == exits.DONE
    assert status_of_all([failed]) == exits.FAILED
    assert status_of_all([failed, failed]) == exits.FAILED
    assert status_of_all([misnamed, failed]) == exits.FAILED
    assert status_of_all([None, failed]) == exits.SOME_FAILED


async def run(*arguments: str) -> int:
    """Run a command line in a thread: the daemon answers in this one."""
    return await asyncio.to_thread(main, arguments)


# An answer of the Engine with a status, and how a pull ends that gets it.
ANSWERS = [
    (400, "invalid reference", 1, ""),
    (401, "unauthorized", 1, "Log in with"),
    (403, "denied", 1, "Whoever owns"),
    (404, "manifest unknown", 1, "Check the name"),
    (409, "conflict", 1, "Remove what"),
    (429, "toomanyrequests: slow", 1, "Wait before"),
    (500, "no space left on device", 1, "Make room"),
    (500, "it broke", 1, ""),
    (503, "not now", 1, ""),
]


@pytest.mark.parametrize(
    ("status", "message", "expected", "second"), ANSWERS, ids=[f"{row[0]} {row[1]}" for row in ANSWERS]
)
@pytest.mark.parametrize("in_band", [False, True], ids=["by status", "in the stream"])
async def test_what_the_engine_refuses_is_told_in_one_or_two_lines(
    daemon: ScriptedDaemon,
    capsys: pytest.CaptureFixture[str],
    status: int,
    message: str,
    expected: int,
    second: str,
    in_band: bool,
) -> None:
    async def create(exchange: Exchange) -> None:
        if in_band:
            await exchange.head()
            await exchange.frames({"errorDetail": {"code": status, "message": message}, "error": message})
            await exchange.end()
        else:
            await exchange.answer_json({"message": message}, status)

    daemon.on("POST", "/images/create", create)
    assert await run("-H", str(daemon.socket), "pull", "-q", "app:1") == expected
    out, err = capsys.readouterr()
    first, *rest = err.splitlines()
    assert first == f"aiodocker-images: pull app:1: {message}"
    assert [line[: len(second)] for line in rest] == ([second] if second else [])
    assert out == ""


async def test_of_several_the_others_are_done_and_the_same_advice_is_given_once(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    async def create(exchange: Exchange) -> None:
        if dict(exchange.query)["tag"] == "good":
            await exchange.head()
            await exchange.frames({"status": "Status: Image is up to date for app:good"})
            await exchange.end()
        else:
            await exchange.answer_json({"message": "manifest unknown"}, 404)

    daemon.on("POST", "/images/create", create)
    assert await run("-H", str(daemon.socket), "pull", "-q", "app:bad", "app:good", "app:worse") == 3
    out, err = capsys.readouterr()
    assert out == "docker.io/library/app:good\n"
    assert [line.partition(": ")[2].partition(": ")[0] for line in err.splitlines()[:2]] == [
        "pull app:bad",
        "pull app:worse",
    ]
    assert err.count("Check the name") == 1
    assert await run("-H", str(daemon.socket), "pull", "-q", "app:bad", "app:worse") == 1


async def test_as_json_an_error_is_a_line_too(daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("-H", str(daemon.socket), "pull", "--json", "app:1") == 1
    assert json.loads(capsys.readouterr().out) == {
        "image": "app:1",
        "failed": {"error": "NotFoundError", "message": "pull app:1: page not found"},
    }


async def test_rm_by_force_takes_no_offence_at_what_is_not_there(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("-H", str(daemon.socket), "rm", "-f", "app:1") == 0
    assert "page not found" in capsys.readouterr().err
    assert await run("-H", str(daemon.socket), "rm", "app:1") == 1


async def test_a_failed_quiet_build_shows_what_the_step_said(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def build(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        await exchange.frames({"stream": "Step 1/1 : RUN x\n"}, {"stream": "no \x1b[91mx\n"})
        await exchange.frames({"errorDetail": {"code": 1, "message": "RUN x returned 1"}})
        await exchange.end()

    daemon.on("POST", "/build", build)
    (tmp_path / "Dockerfile").write_text("FROM x\nRUN x\n")
    assert await run("-H", str(daemon.socket), "build", "-q", str(tmp_path)) == 1
    assert capsys.readouterr().err.splitlines() == [
        "Step 1/1 : RUN x",
        "no x",
        "aiodocker-images: build: RUN x returned 1",
    ]


# What makes no sense, and the beginning of what is said of it. Nothing is sent.
MISUSES = [
    ("nonsense", "aiodocker-images: No such command 'nonsense'."),
    ("--nonsense", "aiodocker-images: No such option: --nonsense"),
    ("pull", "aiodocker-images pull: Missing argument"),
    ("pull -x", "aiodocker-images pull: No such option: -x"),
    ("pull -- -x", "aiodocker-images: '-x' is not an image reference"),
    ("pull app:1 UPPER", "aiodocker-images: 'UPPER' is not an image reference"),
    ("pull --platform what app", "aiodocker-images: 'what' is not a platform"),
    ("pull -j 0 app", "aiodocker-images pull: Invalid value for '--concurrency'"),
    ("pull -a app:1", "aiodocker-images: 'app:1': with all_tags, name the repository alone"),
    ("push app@sha256:" + "a" * 64, "aiodocker-images: 'app@sha256:"),
    ("inspect -- -f", "aiodocker-images: '-f' is not an image reference"),
    ("inspect app:1 <none>:<none> b", "aiodocker-images: '<none>:<none>' is not an image reference"),
    ("rm app:1 <none>:<none> b", "aiodocker-images: '<none>:<none>' is not an image reference"),
    ("tag app:1 b:2 b@sha256:" + "a" * 64, "aiodocker-images: 'b@sha256:"),
    ("push app:1 app@sha256:" + "a" * 64, "aiodocker-images: 'app@sha256:"),
    ("pull -a app b:1", "aiodocker-images: 'b:1': with all_tags, name the repository alone"),
    ("push -a app b:1", "aiodocker-images: 'b:1': with all_tags, name the repository alone"),
    ("save -o x.tar app:1 <none>:<none>", "aiodocker-images: '<none>:<none>' is not an image reference"),
    ("transfer --to /x app:1 <none>:<none>", "aiodocker-images: '<none>:<none>' is not an image reference"),
    ("mirror app:1 <none>:<none> reg.example/x/", "aiodocker-images: '<none>:<none>' is not an image reference"),
    ("pull --quiet=maybe app", "aiodocker-images: Invalid value: --quiet is true or false, not 'maybe'"),
    ("pull -a --policy never app", "aiodocker-images pull: Invalid value: --all-tags always asks the registry"),
    ("rm ../version", "aiodocker-images: '../version' is not an image reference"),
    ("tag app:1 -- -b", "aiodocker-images: '-b' is not an image reference"),
    ("ls --filter dangling", "aiodocker-images ls: Invalid value: a filter is name=value, not 'dangling'"),
    ("save app --json", "aiodocker-images save: Invalid value: --json writes to standard output"),
    ("events --since 2026-01-01T00:00:00", "aiodocker-images events: Invalid value: "),
    ("events --filter type=container", "aiodocker-images events: Invalid value: "),
    ("build --shm-size big .", "aiodocker-images build: Invalid value: 'big' is not a size"),
    ("build -f - -", "aiodocker-images build: Invalid value: the context and the Dockerfile cannot both be"),
    ("build --builder buildkit -m 1g .", "aiodocker-images build: Invalid value: BuildKit ignores memory"),
    ("build --builder other .", "aiodocker-images build: Invalid value for '--builder'"),
    ("build --ulimit nofile .", "aiodocker-images build: Invalid value: 'nofile' is not a limit such as nofile=1024"),
    ("mirror", "aiodocker-images mirror: Invalid value: name sources and a target, or a plan"),
    ("mirror --plan x.toml app reg.example/x/", "aiodocker-images mirror: Invalid value: name sources and a target"),
    ("mirror app:1", "aiodocker-images mirror: Invalid value: name sources and then a target"),
    ("mirror app:1 b:1 reg.example/x", "aiodocker-images mirror: Invalid value: the target of several sources ends"),
    ("mirror app:1 app:1", "aiodocker-images: 'app:1' would be mirrored to itself"),
    ("mirror app:1 -- -x/", "aiodocker-images: '-x/library/app' is not an image reference"),
    ("transfer app:1", "aiodocker-images transfer: Invalid value: name the other Engine"),
    ("transfer --to /x --to-context y app:1", "aiodocker-images transfer: Invalid value: name the other Engine"),
    ("transfer --to /x UPPER", "aiodocker-images: 'UPPER' is not an image reference"),
    ("login -u ann", "aiodocker-images login: Invalid value: standard input is no terminal"),
    ("login --password-stdin", "aiodocker-images login: Invalid value: --password-stdin needs a --username"),
    ("login -p secret", "aiodocker-images login: No such option: -p"),
]


@pytest.mark.parametrize(("line", "said"), MISUSES, ids=[row[0] for row in MISUSES])
async def test_what_makes_no_sense_is_said_before_anything_is_sent(
    daemon: ScriptedDaemon,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    line: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    (tmp_path / "Dockerfile").touch()
    assert await run("-H", str(daemon.socket), *line.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith(said)
    assert len(err.splitlines()) <= 2
    assert (out, daemon.paths) == ("", [])


# A command line with a template, and the status with which the docker CLI ends: before anything is asked.
BAD_TEMPLATES = [
    ("ls --format {{range.}}", 1, "unexpected EOF"),
    ("ls --format {{.ID|nope}}", 1, 'function "nope" not defined'),
    ("history --format {{.ID app", 1, "unclosed action"),
    ("search --format {{if}} app", 1, "missing value for if"),
    ("df --format {{end}}", 1, "unexpected {{end}}"),
    ("df -v --format {{end}}", 1, "unexpected {{end}}"),
    ("inspect --format raw{{ app", 64, "unclosed action"),
    ("version -f {{$x}}", 64, 'undefined variable "$x"'),
    ("events --format {{break}}", 64, "{{break}} outside {{range}}"),
]


@pytest.mark.parametrize(("line", "status", "said"), BAD_TEMPLATES, ids=[row[0] for row in BAD_TEMPLATES])
async def test_a_template_that_cannot_be_read_is_told_before_anything_is_sent(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str], line: str, status: int, said: str
) -> None:
    assert await run("-H", str(daemon.socket), *line.split()) == status
    out, err = capsys.readouterr()
    assert err == f"aiodocker-images: template parsing error: template: :1: {said}\n"
    assert (out, daemon.paths) == ("", [])


async def test_an_event_template_that_asks_for_what_no_event_has_is_told_before_anything_is_sent(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("-H", str(daemon.socket), "events", "--format", "{{.Nope}}") == 64
    said = 'template: :1:2: executing "" at <.Nope>: can\'t evaluate field Nope in type *events.Message'
    assert capsys.readouterr() == ("", f"aiodocker-images: template parsing error: {said}\n")
    assert daemon.paths == []


async def test_host_and_context_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("-H", "/x.sock", "-c", "prod", "ls") == 2
    assert "take either --host or --context" in capsys.readouterr().err


async def test_a_context_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("-c", "no-such-context", "ls") == 1
    assert "no-such-context" in capsys.readouterr().err


async def test_a_traceback_is_shown_only_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await run("-H", "/no/such.sock", "ls") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert await run("--debug", "-H", "/no/such.sock", "ls") == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("AIODOCKER_IMAGES_DEBUG", "1")
    assert await run("-H", "/no/such.sock", "ls") == 1
    assert "Traceback" in capsys.readouterr().err


class DaemonThread:
    """A scripted daemon in a thread of its own: for tests that are no coroutines."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with ScriptedDaemon(self.socket):
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def elsewhere(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path, None, None]:
    """A daemon that knows nothing, an empty directory, nobody's home, and nothing on standard input."""
    monkeypatch.chdir(short_path)
    monkeypatch.setenv("HOME", str(short_path))
    with DaemonThread(short_path / "docker.sock") as daemon, Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield daemon.socket


WORDS = (
    *("pull", "push", "load", "save", "import", "build", "ls", "images", "inspect", "history", "tag", "rm", "rmi"),
    *("mirror", "transfer", "--to", "--plan", "--dry-run"),
    *("prune", "search", "login", "df", "events", "endpoint", "ping", "version", "-q", "-a", "-f", "-o", "-i", "-t"),
    *("-j", "-u", "-m", "-c", "-v", "-D", "-h", "--", "-", ".", "--json", "--format", "json", "--filter", "a=b", "app"),
    *("app:1", "--platform", "linux/arm64", "--help", "--version", "--no-trunc", "--since", "1m", "--until", "0s"),
    *("--password-stdin", "--build-arg", "--file", "--limit", "5", "--digests", "--all", "--context", "{{.ID}}", ""),
)
# No path out of the empty directory: some of these commands write files.
ARGUMENTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=8).filter(lambda text: "/" not in text), max_size=7)


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ARGUMENTS)
@example(["pull", "app", "\udcff"])
@example(["save", "-o", "-", "app"])
@example(["events", "--until", "0s"])
@example(["import", "-", "app"])
def test_any_command_line_ends_in_a_documented_status_without_a_traceback(
    elsewhere: Path, arguments: list[str]
) -> None:
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["-H", str(elsewhere), *arguments])
    assert status in (exits.DONE, exits.FAILED, exits.USAGE, exits.SOME_FAILED)
    said = err.getvalue()
    assert "error of this program" not in said
    assert "Traceback" not in said or "-D" in arguments or any("--d" in each for each in arguments)
    assert status == 0 or said.startswith(("aiodocker-images", "WARNING!", "Username"))

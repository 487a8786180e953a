"""The program as a person and a shell meet it: terminals, pipes, signals. On a scripted daemon."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.tars import tar_of
from tests.support.terminals import PROGRAM, Terminal

pytestmark = pytest.mark.program

COLOUR = re.compile(rb"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9]+)*m")

LAYER = "0123456789ab"


def downloading(current: int) -> dict[str, object]:
    return {"id": LAYER, "status": "Downloading", "progressDetail": {"current": current, "total": 10_000_000}}


class Endless:
    """What the daemon does when it gets to work and never ends it; it notes that it did, and that the client left."""

    def __init__(self, daemon: ScriptedDaemon) -> None:
        self.begun = asyncio.Event()
        self.left = asyncio.Event()
        daemon.on("POST", "/images/create", self._pull)
        daemon.on("POST", "/build", self._build)
        daemon.on("POST", "/images/load", self._upload)
        daemon.on("GET", "/images/app:1/get", self._save)
        daemon.on("GET", "/events", self._events)

    async def _ended(self, exchange: Exchange) -> None:
        self.begun.set()
        await exchange.client_gone()
        self.left.set()

    async def _pull(self, exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames({"id": "1", "status": "Pulling from app"}, downloading(5_000_000))
        await self._ended(exchange)

    async def _build(self, exchange: Exchange) -> None:
        self.begun.set()
        try:
            await exchange.body()
            await exchange.head()
            await exchange.frames({"stream": "Step 1/1 : FROM scratch\n"})
            await self._ended(exchange)
        finally:
            self.left.set()  # in the middle of its context, too

    async def _upload(self, exchange: Exchange) -> None:
        await exchange.reader.read(1)
        await self._ended(exchange)

    async def _save(self, exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(tar_of({"a": b"x" * 10_000})[:5_000])
        await self._ended(exchange)

    async def _events(self, exchange: Exchange) -> None:
        await exchange.head()
        await self._ended(exchange)


async def completed(
    daemon: ScriptedDaemon,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
    given: bytes | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the program without a terminal."""
    return await finished(
        [*PROGRAM, "-H", str(daemon.socket), *arguments],
        environment=environment,
        stdin=stdin,
        stdout=stdout,
        given=given,
    )


async def finished(
    line: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
    given: bytes | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run any program to its end, in a thread: the daemon answers in this one."""

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            line,
            env={**os.environ, **(environment or {})},
            stdin=None if given is not None else stdin or subprocess.DEVNULL,
            input=given,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=50,
            check=False,
        )

    return await asyncio.to_thread(run)


LONG: list[tuple[str, str]] = [
    ("pull", "pull app:1 b:2"),
    ("save to a file", "save -o {dir}/out.tar app:1"),
    ("load", "load -i {dir}/in.tar"),
    ("load from a pipe", "load -i {dir}/pipe"),
    ("import", "import {dir}/endless app:1"),
    ("build", "build {dir}/context"),
    ("events", "events"),
    ("build of a pipe", "build - < {dir}/pipe"),
]

ENDINGS: list[tuple[str, Callable[[Terminal], None], int]] = [
    ("Ctrl-C", lambda terminal: terminal.press("\x03"), signal.SIGINT),
    ("SIGTERM", lambda terminal: terminal.send(signal.SIGTERM), signal.SIGTERM),
    ("SIGHUP", lambda terminal: terminal.send(signal.SIGHUP), signal.SIGHUP),
]


@pytest.mark.parametrize(("line"), [row[1] for row in LONG], ids=[row[0] for row in LONG])
@pytest.mark.parametrize(("end", "number"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS])
async def test_a_signal_ends_the_work_and_restores_the_terminal(
    daemon: ScriptedDaemon, tmp_path: Path, line: str, end: Callable[[Terminal], None], number: int
) -> None:
    endless = Endless(daemon)
    (tmp_path / "in.tar").write_bytes(os.urandom(8 << 20))
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\n")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "endless")
    before = sorted(tmp_path.rglob("*"))
    writers = [os.open(tmp_path / name, os.O_RDWR) for name in ("pipe", "endless")]
    program, _, source = line.format(dir=tmp_path).partition(" < ")
    try:
        for writer in writers:
            os.write(writer, b"\x1f\x8b" + b"x" * 1000)  # what begins like an archive
        stdin = os.open(source, os.O_RDONLY) if source else None
        with Terminal("-H", str(daemon.socket), *program.split(), stdin=stdin) as terminal:
            if stdin is not None:
                os.close(stdin)
            if "pull" in line:
                await terminal.shows("Downloading")
            else:
                await asyncio.wait_for(endless.begun.wait(), 30)
            end(terminal)
            status = await terminal.ended()
            assert status == -number, terminal.text
            assert terminal.is_as_before()
            assert terminal.lines[-1].endswith(f"aiodocker-images: stopped by {signal.Signals(number).name}")
            await asyncio.wait_for(endless.left.wait(), 30)
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        for writer in writers:
            os.close(writer)


async def test_a_shell_sees_130_after_ctrl_c_and_143_after_sigterm(daemon: ScriptedDaemon) -> None:
    endless = Endless(daemon)
    shell = ("/bin/sh", "-c", 'trap "" INT; "$@"; echo "status $?"', "sh")
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        endless.begun.clear()
        # `trap "" INT` would be inherited as ignored; Python's own start-up is what a login shell gives it.
        restore = [
            sys.executable,
            "-c",
            f"import os,signal,sys; signal.signal({int(number)}, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
        ]
        line = [*restore, *PROGRAM, "-H", str(daemon.socket), "pull", "app:1"]
        with Terminal(*shell[1:], *line, program=shell[:1]) as terminal:
            await asyncio.wait_for(endless.begun.wait(), 30)
            children = Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children").read_text().split()
            os.kill(int(children[0]), number)
            await terminal.ended()
            assert terminal.lines[-1] == f"status {status}"


async def test_a_second_ctrl_c_does_not_wait_for_what_does_not_end(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    """A thread reads from a socket on standard input that says nothing: that cannot be given up."""
    endless = Endless(daemon)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with Terminal("-H", str(daemon.socket), "load", stdin=theirs.fileno()) as terminal:
            ours.send(b"x")
            await asyncio.wait_for(endless.begun.wait(), 30)
            terminal.press("\x03")
            await asyncio.sleep(0.3)
            assert terminal.process.poll() is None
            terminal.press("\x03")
            assert await terminal.ended() == 130
            assert terminal.is_as_before()


async def test_sigint_that_a_script_ignores_stays_ignored(daemon: ScriptedDaemon) -> None:
    release = asyncio.Event()

    async def create(exchange: Exchange) -> None:
        await exchange.head()
        await release.wait()
        await exchange.frames({"status": "Status: Image is up to date for app:1"})
        await exchange.end()

    daemon.on("POST", "/images/create", create)
    shell = ("/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh")
    with Terminal(*shell[1:], *PROGRAM, "-H", str(daemon.socket), "pull", "-q", "app:1", program=shell[:1]) as terminal:
        while "POST /images/create" not in daemon.paths:
            await asyncio.sleep(0.01)
        terminal.press("\x03")
        await asyncio.sleep(0.2)
        release.set()
        assert await terminal.ended() == 0


async def pulled(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.frames({"id": "1", "status": "Pulling from app"})
    for current in range(0, 10_000_000, 1_000_000):
        await exchange.frames(downloading(current))
    await exchange.frames(
        {"id": LAYER, "status": "Pull complete"},
        {"status": f"Digest: sha256:{'a' * 64}"},
        {"status": "Status: Downloaded newer image for app:1"},
    )
    await exchange.end()


async def test_in_pipes_there_are_plain_lines_and_no_escape_codes(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/images/create", pulled)
    colourful = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-256color", "PY_COLORS": "1"}
    run = await completed(daemon, "pull", "app:1", environment=colourful)
    assert run.returncode == 0
    assert run.stdout.decode().splitlines() == [
        f"Digest: sha256:{'a' * 64}",
        "Status: Downloaded newer image for app:1",
        "docker.io/library/app:1",
    ]
    assert run.stderr.decode().splitlines() == [
        "1: Pulling from app",
        f"{LAYER}: Downloading",
        f"{LAYER}: Pull complete",
    ]
    several = await completed(daemon, "pull", "app:1", "app:2", environment=colourful)
    assert min(several.stderr.decode().splitlines()) == f"app:1: {LAYER}: Downloading"
    for line in ("--help", "pull --help", "pull", "ls", "nonsense"):
        run = await completed(daemon, *line.split(), environment=colourful)
        assert b"\x1b" not in run.stdout + run.stderr


async def test_progress_goes_to_standard_error_and_the_result_to_standard_output(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.on("POST", "/images/create", pulled)
    with (tmp_path / "out").open("wb") as out:
        with Terminal("-H", str(daemon.socket), "pull", "app:1", "app:2", stdout=out) as terminal:
            assert await terminal.ended() == 0
            assert terminal.lines[0].startswith("✓ app:1  sha256:aaaaaaaaaaaa  new")
    assert (tmp_path / "out").read_text().count("docker.io/library/app:") == 2


async def test_a_dumb_terminal_gets_plain_lines(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/images/create", pulled)
    with Terminal("-H", str(daemon.socket), "pull", "app:1", environment={"TERM": "dumb"}) as terminal:
        assert await terminal.ended() == 0
        assert b"\x1b" not in terminal.written
        assert terminal.lines[-1] == "docker.io/library/app:1"


async def test_no_color_draws_without_colours(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/images/create", pulled)
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal("-H", str(daemon.socket), "pull", "app:1", environment=environment) as terminal:
            assert await terminal.ended() == 0
            assert bool(COLOUR.search(terminal.written)) == coloured
            assert terminal.lines[0].startswith("✓ app:1")


async def test_where_unicode_is_not_known_nothing_breaks(daemon: ScriptedDaemon) -> None:
    daemon.on("POST", "/images/create", pulled)
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    with Terminal("-H", str(daemon.socket), "pull", "app:1", "h\u00e9:1", environment=environment) as terminal:
        assert await terminal.ended() == 2
        assert "is not an image reference" in terminal.text
    with Terminal("-H", str(daemon.socket), "pull", "app:1", environment=environment) as terminal:
        assert await terminal.ended() == 0
        assert terminal.lines[0].startswith("+ app:1")


async def test_a_registry_cannot_control_the_terminal(daemon: ScriptedDaemon) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jgone"

    async def create(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames({"id": evil, "status": evil, "progressDetail": {"current": 1, "total": 2}})
        await exchange.frames({"id": LAYER, "status": f"Downloading {evil}"}, {"errorDetail": {"message": evil}})
        await exchange.end()

    daemon.on("POST", "/images/create", create)
    for term in ("xterm-256color", "dumb"):
        with Terminal("-H", str(daemon.socket), "pull", "app:1", environment={"TERM": term}) as terminal:
            assert await terminal.ended() == 1
            assert b"\x1b]0" not in terminal.written
            assert b"\x1b[2J" not in terminal.written


async def test_what_a_build_says_keeps_its_colours_only_on_a_terminal(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    async def build(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        await exchange.frames(
            {"stream": "\x1b[91mred\x1b[0m \x1b[2J\x1b]0;x\x07here\n"}, {"stream": "Successfully built 1\n"}
        )
        await exchange.frames({"aux": {"ID": f"sha256:{'a' * 64}"}})
        await exchange.end()

    daemon.on("POST", "/build", build)
    (tmp_path / "Dockerfile").touch()
    assert (await completed(daemon, "build", str(tmp_path))).stdout == b"red here\nSuccessfully built 1\n"
    with Terminal("-H", str(daemon.socket), "build", str(tmp_path)) as terminal:
        await terminal.ended()
        assert b"\x1b[91mred\x1b[0m here" in terminal.written
    with Terminal("-H", str(daemon.socket), "build", str(tmp_path), environment={"NO_COLOR": "1"}) as terminal:
        await terminal.ended()
        assert b"\x1b" not in terminal.written


async def whole_archive(exchange: Exchange) -> None:
    await exchange.answer(tar_of({"data": b"x" * 3_000_000}))


async def test_nobody_reading_ends_it_quietly(daemon: ScriptedDaemon) -> None:
    async def images(exchange: Exchange) -> None:
        await exchange.answer_json([{"Id": f"sha256:{'a' * 64}", "RepoTags": [f"app:{number}"]} for number in range(9)])

    daemon.on("GET", "/images/json", images)
    daemon.on("GET", "/images/app:1/get", whole_archive)
    for line in ("ls", "ls -q", "save app:1", "--help", "endpoint"):
        reader, writer = os.pipe()
        os.close(reader)
        run = await completed(daemon, *line.split(), stdout=writer)
        os.close(writer)
        assert (line, run.returncode, run.stderr) == (line, -signal.SIGPIPE, b"")


async def test_output_that_cannot_be_written_is_a_failure(daemon: ScriptedDaemon) -> None:
    daemon.on("GET", "/images/app:1/get", whole_archive)
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - it is no file
        run = await completed(daemon, "endpoint", stdout=full)
        assert run.returncode == 1
        assert run.stderr == b"aiodocker-images: cannot write to standard output: No space left on device\n"
        run = await completed(daemon, "save", "app:1", stdout=full)
        assert run.returncode == 1
        assert b"No space left on device" in run.stderr
    closed = ("/bin/sh", "-c", '"$@" >&-', "sh", *PROGRAM, "endpoint")
    run = await finished(closed)
    assert (run.returncode, run.stderr) == (1, b"aiodocker-images: standard output is closed\n")


async def test_save_writes_where_the_shell_wants_it(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    archive = tar_of({"data": b"x" * 3_000_000})
    daemon.on("GET", "/images/app:1/get", whole_archive)
    assert (await completed(daemon, "save", "app:1")).stdout == archive
    target = tmp_path / "out"
    for line, content in ((">", archive), (">>", archive + archive)):
        command = ("/bin/sh", "-c", f'"$@" {line} {target}', "sh", *PROGRAM, "-H", str(daemon.socket), "save", "app:1")
        assert (await finished(command)).returncode == 0
        assert target.read_bytes() == content
    run = await completed(daemon, "save", "app:1", "-o", str(target))
    assert (run.stdout, run.stderr, target.read_bytes()) == (b"", b"", archive)


async def test_save_refuses_a_terminal_and_load_does_not_wait_for_one(daemon: ScriptedDaemon) -> None:
    for line, said in (
        ("save app:1", "refusing to write an archive to a terminal"),
        ("load", "standard input is a terminal"),
    ):
        with Terminal("-H", str(daemon.socket), *line.split()) as terminal:
            assert await terminal.ended() == 2
            assert said in terminal.text
    assert daemon.paths == []


async def test_load_reads_standard_input_from_where_it_stands(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    bodies: list[bytes] = []

    async def load(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.head()
        await exchange.frames({"stream": "Loaded image: app:1\n"})
        await exchange.end()

    daemon.on("POST", "/images/load", load)
    archive = os.urandom(300_000)
    (tmp_path / "x.tar").write_bytes(b"12345" + archive)
    for arguments in ([], ["-i", "-"]):
        with (tmp_path / "x.tar").open("rb", buffering=0) as file:
            file.read(5)
            run = await completed(daemon, "load", *arguments, stdin=file)
        assert run.stdout == b"Loaded image: app:1\n"
    run = await completed(daemon, "load", given=archive)
    assert run.returncode == 0
    assert bodies == [archive] * 3


async def test_build_takes_an_archive_or_a_dockerfile_from_standard_input(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    async def build(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.head()
        await exchange.frames({"aux": {"ID": f"sha256:{'a' * 64}"}}, {"stream": "Successfully built aaaaaaaaaaaa\n"})
        await exchange.end()

    daemon.on("POST", "/build", build)
    archive = tar_of({"Dockerfile": "FROM scratch\n", "data": os.urandom(300_000)})
    for context in (archive, gzip.compress(archive), b"\0" * 1024):
        assert (await completed(daemon, "build", "-", given=context)).returncode == 0
        assert bodies[-1] == context
    for dockerfile in (b"FROM scratch\n", b"FROM scratch\n" + b"# long\n" * 1000, b""):
        (tmp_path / "Dockerfile").write_bytes(dockerfile)
        with (tmp_path / "Dockerfile").open("rb") as file:
            assert (await completed(daemon, "build", "-", stdin=file)).returncode == 0
        with tarfile.open(fileobj=io.BytesIO(bodies[-1])) as made:
            inside = made.extractfile("Dockerfile")
            assert inside is not None
            assert inside.read() == dockerfile
    run = await completed(daemon, "build", "-", given=b"x" * 5_000_000)
    assert (run.returncode, b"too long for a Dockerfile" in run.stderr) == (1, True)


async def test_a_failed_save_leaves_no_file(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    async def save(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(tar_of({"data": b"x" * 30_000})[:20_000])
        exchange.cut()

    daemon.on("GET", "/images/app:1/get", save)
    run = await completed(daemon, "save", "app:1", "-o", str(tmp_path / "out"))
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 2
    assert list(tmp_path.iterdir()) == [daemon.socket] or daemon.socket not in tmp_path.iterdir()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("columns", [20, 40, 200])
async def test_it_fits_a_terminal_of_any_width(daemon: ScriptedDaemon, columns: int) -> None:
    daemon.on("POST", "/images/create", pulled)
    name = "registry.example:5000/a/rather/long/name/of/an/image"
    with Terminal("-H", str(daemon.socket), "pull", f"{name}:1", f"{name}:2", columns=columns) as terminal:
        assert await terminal.ended() == 0
        assert len(terminal.lines) == 3
        assert terminal.lines[0].startswith("✓ ")


async def test_prune_asks_and_takes_no_for_an_answer(daemon: ScriptedDaemon) -> None:
    async def prune(exchange: Exchange) -> None:
        await exchange.answer_json({"ImagesDeleted": None, "SpaceReclaimed": 0})

    daemon.on("POST", "/images/prune", prune)
    for keys, status, requests in (("n\r", 1, 0), ("\x04", 1, 0), ("y\r", 0, 1)):
        with Terminal("-H", str(daemon.socket), "prune") as terminal:
            await terminal.shows("[y/N]")
            terminal.press(keys)
            assert await terminal.ended() == status, terminal.text
        assert len(daemon.paths) == requests
    run = await completed(daemon, "prune", given=b"")
    assert (run.returncode, len(daemon.paths)) == (1, 1)


async def test_a_password_is_asked_for_without_showing_it(daemon: ScriptedDaemon) -> None:
    bodies: list[bytes] = []

    async def auth(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.answer_json({"Status": "Login Succeeded"})

    daemon.on("POST", "/auth", auth)
    with Terminal("-H", str(daemon.socket), "login", "-u", "ann") as terminal:
        await terminal.has_written(b"Password: ")  # its space comes when the terminal no longer shows what is typed
        terminal.press("s3cret\r")
        assert await terminal.ended() == 0
        assert b"s3cret" not in terminal.written
        assert terminal.is_as_before()
    assert b"s3cret" in bodies[0]
    with Terminal("-H", str(daemon.socket), "login", "-u", "ann") as terminal:
        await terminal.has_written(b"Password: ")  # its space comes when the terminal no longer shows what is typed
        terminal.press("\x03")
        assert await terminal.ended() == -signal.SIGINT
        assert terminal.is_as_before()


def test_the_library_does_without_the_command_line_and_ls_without_rich() -> None:
    code = "import sys, aiodocker_images; print({'typer', 'rich', 'click'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"set()\n"
    code = (
        "import sys; from aiodocker_images.__main__ import main; main(['-H', '/no/such.sock', 'ls']);"
        "print({'rich', 'pydantic'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], stderr=subprocess.DEVNULL) == b"set()\n"


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['typer'] = None; from aiodocker_images.__main__ import main; sys.exit(main(['ls']))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (
        1,
        "aiodocker-images: the command line is an extra: pip install 'aiodocker-images[cli]'\n",
    )


async def test_names_are_completed_from_the_engine(daemon: ScriptedDaemon) -> None:
    async def images(exchange: Exchange) -> None:
        await exchange.answer_json([{"RepoTags": ["app:1", "app:2", "other:1"]}])

    daemon.on("GET", "/images/json", images)
    environment = {
        "_AIODOCKER_IMAGES_COMPLETE": "complete_bash",
        "COMP_WORDS": "aiodocker-images rm app",
        "COMP_CWORD": "2",
        "DOCKER_HOST": f"unix://{daemon.socket}",
    }
    assert (await completed(daemon, environment=environment)).stdout.split() == [b"app:1", b"app:2"]
    gone = await completed(daemon, environment={**environment, "DOCKER_HOST": "unix:///no/such.sock"})
    assert (gone.stdout.strip(), gone.stderr) == (b"", b"")

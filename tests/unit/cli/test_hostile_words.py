"""Whatever an Engine says: nothing of it controls the terminal that a command writes to."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path

import pytest

from aiodocker_images.cli.app import Program, main
from aiodocker_images.testing import FakeRegistry, Fault, image
from tests.support.scripted import Exchange, Handler, ScriptedDaemon
from tests.support.tars import tar_of

ID = f"sha256:{'ab' * 32}"
# It clears the screen, sets the title and the clipboard, rings, goes back in the line, and turns the reading around.
HOSTILE = "hostile\x1b[2J\x1b]0;title\x07\x1b]52;c;eA==\x1b\\\r\x08\x9b31m\x7f\u202e\u2066"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# What programs in a build draw their bars with stays.
BAR = re.compile(r"\x1b\[[0-9;]*m|[\r\x08]")

# For each command the lines that an Engine answers in hostile words, and those that it refuses in hostile words.
ANSWERED = [
    "pull app:1",
    "pull --json app:1",
    "push app:1",
    "push --json app:1",
    "load -i {tar}",
    "load -q -i {tar}",
    "load --json -i {tar}",
    "import {tar} app:1",
    "build {dir}",
    "build --json {dir}",
    "ls --no-trunc",
    "ls -q --no-trunc",
    "ls --format json",
    "ls --no-trunc --format {{{{.ID}}}}",
    "inspect app:1",
    "inspect --format json app:1",
    "inspect --format {{{{.Config.Labels}}}} app:1",
    "history --no-trunc app:1",
    "history -q --no-trunc app:1",
    "history --no-trunc --format {{{{.CreatedBy}}}} app:1",
    "rm app:1",
    "prune -f",
    "search --no-trunc word",
    "search --no-trunc --format json word",
    "search --no-trunc --format {{{{.Description}}}} word",
    "login -u ann --password-stdin",
    "df -v --format json",
    "events --until 2",
    "events --until 2 --format json",
    "events --until 2 --format {{{{.Actor.Attributes}}}}",
    "version",
    "version --format json",
    "version --format {{{{.Server.Version}}}}",
]
ASKING_REGISTRIES = [
    "copy {host}/app:1 {host}/other:1",
    "copy --json {host}/app:1 {host}/other:1",
    "tags {host}/app",
    "manifest {host}/app:1",
]
REFUSED = [
    *("pull app:1", "push app:1", "load -i {tar}", "save app:1 -o {out}", "import {tar} app:1", "build {dir}"),
    *("build -q {dir}", "ls", "inspect app:1", "history app:1", "tag app:1 b:2", "rm app:1", "prune -f"),
    *(
        "mirror --attempts 1 app:1 localhost:1/x/",
        "transfer --to {socket} app:1",
        "search word",
        "login -u ann --password-stdin",
    ),
    *("df", "events --until 2", "version"),
]


class Screen(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def script(daemon: ScriptedDaemon) -> None:
    """Let every operation succeed in hostile words."""

    def answer(document: object) -> Handler:
        async def handler(exchange: Exchange) -> None:
            await exchange.body()
            await exchange.answer_json(document)

        return handler

    def frames(*documents: object) -> Handler:
        async def handler(exchange: Exchange) -> None:
            await exchange.body()
            await exchange.head()
            await exchange.frames(*documents)
            await exchange.end()

        return handler

    summary = {"Id": f"sha256:{HOSTILE}", "RepoTags": [f"{HOSTILE}:1"], "Created": 1, "Size": 1}
    labels = {HOSTILE: HOSTILE}
    answers: dict[tuple[str, str], object] = {
        ("GET", "/images/json"): [summary],
        ("GET", "/images/app:1/json"): {"Id": ID, "Config": {"Labels": labels}},
        ("GET", "/images/app:1/history"): [{"Id": HOSTILE, "Created": 1, "CreatedBy": HOSTILE, "Comment": HOSTILE}],
        ("DELETE", "/images/app:1"): [{"Untagged": HOSTILE}, {"Deleted": HOSTILE}],
        ("POST", "/images/prune"): {"ImagesDeleted": [{"Deleted": HOSTILE}], "SpaceReclaimed": 5},
        ("GET", "/images/search"): [{"name": HOSTILE, "description": HOSTILE, "star_count": 7}],
        ("GET", "/system/df"): {"LayersSize": 10, "Images": [summary]},
        ("GET", "/version"): {
            "Version": HOSTILE,
            "Os": HOSTILE,
            "Platform": {"Name": HOSTILE},
            "Components": [{"Name": HOSTILE, "Version": HOSTILE}],
        },
        ("POST", "/auth"): {"Status": HOSTILE},
    }
    event = {"Type": "image", "Action": HOSTILE, "Actor": {"ID": HOSTILE, "Attributes": labels}, "timeNano": 1}
    progress = {"status": HOSTILE, "id": HOSTILE}
    streams: dict[tuple[str, str], tuple[object, ...]] = {
        ("POST", "/images/create"): (progress, {"status": f"Status: Image is up to date for {HOSTILE}"}),
        ("POST", "/images/app/push"): (progress, {"aux": {"Tag": "1", "Digest": ID, "Size": 5}}),
        ("POST", "/images/load"): (progress, {"stream": f"Loaded image: {HOSTILE}\n"}),
        ("POST", "/build"): (
            {"stream": f"{HOSTILE}\n"},
            {"aux": {"ID": ID}},
            {"stream": f"Successfully built {ID[7:19]}\n"},
        ),
        ("GET", "/events"): (event,),
    }
    for (method, path), document in answers.items():
        daemon.on(method, path, answer(document))
    for (method, path), documents in streams.items():
        daemon.on(method, path, frames(*documents))


async def refuse(exchange: Exchange) -> None:
    await exchange.body()
    await exchange.answer_json({"message": HOSTILE}, 500)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "x.tar").write_bytes(tar_of({"a": "b"}))
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\n")
    return {"tar": str(tmp_path / "x.tar"), "out": str(tmp_path / "out.tar"), "dir": str(tmp_path / "context")}


async def shown(*arguments: str) -> str:
    """Run a command line on a terminal whose lines cannot be drawn again: the live display has tests of its own."""
    screen = Screen()
    with pytest.MonkeyPatch.context() as patch:  # pytest sets them between a fixture and its test
        patch.setenv("TERM", "dumb")
        for name in ("stdout", "stderr"):
            patch.setattr(f"sys.{name}", screen)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"secret")))  # of login
        await asyncio.to_thread(main, arguments)
    return screen.getvalue()


@pytest.mark.parametrize("line", ANSWERED)
async def test_no_answer_of_an_engine_controls_the_terminal(
    daemon: ScriptedDaemon, places: dict[str, str], line: str
) -> None:
    script(daemon)
    words = line.format(socket=daemon.socket, **places).split()
    written = await shown("-H", str(daemon.socket), *words)
    assert "hostile" in written
    assert not CONTROL.search(BAR.sub("", written) if line == "build {dir}" else written)
    assert "error of this program" not in written


@pytest.mark.parametrize("line", REFUSED)
@pytest.mark.parametrize("debug", [False, True])
async def test_no_refusal_of_an_engine_controls_the_terminal(
    daemon: ScriptedDaemon, places: dict[str, str], line: str, debug: bool
) -> None:
    daemon.otherwise = refuse
    words = line.format(socket=daemon.socket, **places).split()
    written = await shown(*["--debug"] * debug, "-H", str(daemon.socket), *words)
    assert "hostile" in written
    assert not CONTROL.search(written)
    assert "error of this program" not in written


@pytest.mark.parametrize("line", ASKING_REGISTRIES)
@pytest.mark.parametrize("debug", [False, True])
async def test_no_refusal_of_a_registry_controls_the_terminal(line: str, debug: bool) -> None:
    async with FakeRegistry() as fake:
        fake.put("app:1", image())
        fake.fail(Fault.refuse(403, code="DENIED", message=HOSTILE), on="GET", times=None)
        written = await shown(*["--debug"] * debug, *line.format(host=fake.host).split())
        await fake.idle()
    assert "hostile" in written
    assert not CONTROL.search(written)
    assert "error of this program" not in written


def test_every_command_is_met_with_hostile_words() -> None:
    met = {line.split()[0] for line in (*ANSWERED, *REFUSED, *ASKING_REGISTRIES)}
    # `ping` shows headers, in which HTTP lets no control character stand, `endpoint` asks nobody, and `digest` shows
    # what was found to be a digest, as `outdated` does beside what was found to be a name.
    assert met | {"ping", "endpoint", "digest", "outdated"} == {each.name for each in Program.listed}


async def test_a_program_that_reads_the_output_gets_the_words_as_they_are(
    daemon: ScriptedDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    script(daemon)
    line = ["-H", str(daemon.socket), "events", "--until", "2", "--format", "{{.Actor.ID}}"]
    assert await asyncio.to_thread(main, line) == 0
    assert capsys.readouterr().out == f"{HOSTILE}\n"


async def test_json_on_a_terminal_is_still_json(daemon: ScriptedDaemon) -> None:
    script(daemon)
    written = await shown("-H", str(daemon.socket), "inspect", "app:1")
    assert json.loads(written)[0]["Config"]["Labels"] == {HOSTILE: HOSTILE}

"""What a command line asks the Engine for: flags to requests, and answers to what scripts read."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aiodocker_images import ConfigError
from aiodocker_images.cli.app import Program, app
from aiodocker_images.cli.session import Session
from tests.support.scripted import Exchange, Handler, ScriptedDaemon
from tests.support.tars import tar_of

ID = f"sha256:{'ab' * 32}"
DIGEST = f"sha256:{'cd' * 32}"
PLATFORM = '{"os":"linux","architecture":"arm64"}'

# A command line, and the requests that come of it: method, path, and the query without what is always there.
REQUESTS: list[tuple[str, list[tuple[str, Mapping[str, str | list[str]]]]]] = [
    ("ls", [("GET /images/json", {})]),
    ("images", [("GET /images/json", {})]),
    ("ls -a --digests", [("GET /images/json", {"all": "true"})]),
    ("ls app:1.*", [("GET /images/json", {"filters": '{"reference":["app:1.*"]}'})]),
    (
        "ls --filter dangling=true -f label=a=b -f label=c",
        [("GET /images/json", {"filters": '{"dangling":["true"],"label":["a=b","c"]}'})],
    ),
    ("pull app", [("POST /images/create", {"fromImage": "docker.io/library/app", "tag": "latest"})]),
    ("pull -q app:1", [("POST /images/create", {"fromImage": "docker.io/library/app", "tag": "1"})]),
    ("pull app:1 app:1", [("POST /images/create", {"fromImage": "docker.io/library/app", "tag": "1"})]),
    ("pull --policy missing app:1", [("GET /images/docker.io/library/app:1/json", {})]),
    ("pull --policy=always app:1", [("POST /images/create", {"fromImage": "docker.io/library/app", "tag": "1"})]),
    ("ls --all=true --digests=false", [("GET /images/json", {"all": "true"})]),
    ("ls -a -a=false", [("GET /images/json", {})]),
    ("ls -qa=T", [("GET /images/json", {"all": "true"})]),
    ("rm --force=0 --no-prune=1 app:1", [("DELETE /images/app:1", {"noprune": "true"})]),
    ("build --rm=false --pull=true {dir}", [("POST /build", {"rm": "false", "pull": "true"})]),
    ("ls --filter label=--all=true", [("GET /images/json", {"filters": '{"label":["--all=true"]}'})]),
    ("import -m --quiet=true {tar}", [("POST /images/create", {"fromSrc": "-", "message": "--quiet=true"})]),
    ("pull -a app", [("POST /images/create", {"fromImage": "docker.io/library/app", "tag": ""})]),
    (
        "pull --platform linux/arm64 app",
        [
            (
                "POST /images/create",
                {"fromImage": "docker.io/library/app", "tag": "latest", "platform": "linux/arm64"},
            ),
            ("GET /images/app:latest/json", {}),  # whether the image that came is for that platform
        ],
    ),
    ("push localhost:5000/app:1", [("POST /images/localhost:5000/app/push", {"tag": "1"})]),
    (
        "push -a localhost:5000/app",
        [
            ("POST /images/localhost:5000/app/push", {}),
            ("GET /images/json", {"filters": '{"reference":["localhost:5000/app"]}'}),
        ],
    ),
    (
        "push --platform linux/arm64 localhost:5000/app:1",
        [("POST /images/localhost:5000/app/push", {"tag": "1", "platform": PLATFORM})],
    ),
    ("load -i {tar}", [("POST /images/load", {"quiet": "false"})]),
    ("load {tar}", [("POST /images/load", {"quiet": "false"})]),
    ("load --input {tar} --platform linux/arm64", [("POST /images/load", {"quiet": "false", "platform": PLATFORM})]),
    ("save -o {out} app:1", [("GET /images/app:1/get", {})]),
    ("save app:1 b:2 --output {out}", [("GET /images/get", {"names": ["app:1", "b:2"]})]),
    ("save -o {out} app:1 --platform linux/arm64", [("GET /images/app:1/get", {"platform": PLATFORM})]),
    (
        "import -c USER=x -c CMD=y -m hello --platform linux/arm64 {tar} app:1",
        [
            (
                "POST /images/create",
                {
                    "fromSrc": "-",
                    "repo": "docker.io/library/app",
                    "tag": "1",
                    "changes": ["USER=x", "CMD=y"],
                    "message": "hello",
                    "platform": "linux/arm64",
                },
            )
        ],
    ),
    ("import http://127.0.0.1/x.tar", [("POST /images/create", {"fromSrc": "http://127.0.0.1/x.tar"})]),
    ("history app:1", [("GET /images/app:1/history", {})]),
    ("history --platform linux/arm64 app:1", [("GET /images/app:1/history", {"platform": PLATFORM})]),
    ("inspect app:1", [("GET /images/app:1/json", {})] * 2),
    ("inspect --platform linux/arm64 app:1", [("GET /images/app:1/json", {"platform": PLATFORM})] * 2),
    ("tag app:1 b:2", [("POST /images/app:1/tag", {"repo": "docker.io/library/b", "tag": "2"})]),
    (
        "tag app:1 b:2 c",
        [
            ("POST /images/app:1/tag", {"repo": "docker.io/library/b", "tag": "2"}),
            ("POST /images/app:1/tag", {"repo": "docker.io/library/c", "tag": "latest"}),
        ],
    ),
    ("rm app:1", [("DELETE /images/app:1", {})]),
    ("rmi -f --no-prune app:1", [("DELETE /images/app:1", {"force": "true", "noprune": "true"})]),
    ("rm --platform linux/arm64 app:1", [("DELETE /images/app:1", {"platforms": PLATFORM})]),
    ("prune -f", [("POST /images/prune", {"filters": '{"dangling":["true"]}'})]),
    (
        "prune -f -a --filter until=24h",
        [("POST /images/prune", {"filters": '{"dangling":["false"],"until":["24h"]}'})],
    ),
    ("search --limit 5 word", [("GET /images/search", {"term": "word", "limit": "5"})]),
    (
        "search -f stars=3 word",
        [("GET /images/search", {"term": "word", "filters": '{"stars":["3"]}'})],
    ),
    ("df", [("GET /system/df", {"type": "image"})]),
    (
        "events --since 1 --until 2 -f event=pull",
        [
            (
                "GET /events",
                {"since": "1.000000000", "until": "2.000000000", "filters": '{"event":["pull"],"type":["image"]}'},
            )
        ],
    ),
    ("version", [("GET /version", {})]),
    (
        "build -t app:1 -t b --build-arg A=b --label l=m --target t --no-cache --network none --shm-size 64m {dir}",
        [
            (
                "POST /build",
                {
                    "t": ["docker.io/library/app:1", "docker.io/library/b:latest"],
                    "buildargs": '{"A":"b"}',
                    "labels": '{"l":"m"}',
                    "target": "t",
                    "nocache": "true",
                    "networkmode": "none",
                    "shmsize": str(64 << 20),
                },
            )
        ],
    ),
    ("build --pull {dir}", [("POST /build", {"pull": "true"})]),
    ("build -q -f {dir}/Other {dir}", [("POST /build", {"q": "true", "dockerfile": "Other"})]),
    ("build -f Other {dir}", [("POST /build", {"dockerfile": "Other"})]),
    (
        "build -m 1g --no-rm --force-rm {dir}",
        [("POST /build", {"memory": str(1 << 30), "rm": "false", "forcerm": "true"})],
    ),
    (
        (
            "build -m 1g --memory-swap -1 -c 512 --cpu-period 1000 --cpu-quota 500 --cpuset-cpus 0-1 --cpuset-mems 0"
            " --cgroup-parent x --ulimit nofile=1024 --ulimit core=0:-1 {dir}"
        ),
        [
            (
                "POST /build",
                {
                    "memory": str(1 << 30),
                    "memswap": "-1",
                    "cpushares": "512",
                    "cpuperiod": "1000",
                    "cpuquota": "500",
                    "cpusetcpus": "0-1",
                    "cpusetmems": "0",
                    "cgroupparent": "x",
                    "ulimits": ('[{"Name":"nofile","Soft":1024,"Hard":1024},{"Name":"core","Soft":0,"Hard":-1}]'),
                },
            )
        ],
    ),
    ("build https://127.0.0.1/x.tar", [("POST /build", {"remote": "https://127.0.0.1/x.tar"})]),
]


def script(daemon: ScriptedDaemon) -> None:
    """Let every operation succeed in the fewest words."""

    def answer(document: object, status: int = 200) -> Handler:
        async def handler(exchange: Exchange) -> None:
            await exchange.body()
            await exchange.answer_json(document, status)

        return handler

    def frames(*documents: object) -> Handler:
        async def handler(exchange: Exchange) -> None:
            await exchange.body()
            await exchange.head()
            await exchange.frames(*documents)
            await exchange.end()

        return handler

    async def create(exchange: Exchange) -> None:
        ended = (
            {"status": ID} if dict(exchange.query).get("fromSrc") else {"status": "Status: Image is up to date for x"}
        )
        await frames({"status": "Pulling from x", "id": "1"}, ended)(exchange)

    async def archive(exchange: Exchange) -> None:
        await exchange.answer(tar_of({"manifest.json": "[]"}))

    summary = {"Id": ID, "RepoTags": ["app:1"], "RepoDigests": [f"app@{DIGEST}"], "Created": 1, "Size": 1234567}
    daemon.on("GET", "/images/json", answer([summary]))
    daemon.on("POST", "/images/create", create)
    for name in ("localhost:5000/app", "app"):
        daemon.on("POST", f"/images/{name}/push", frames({"aux": {"Tag": "1", "Digest": DIGEST, "Size": 5}}))
    daemon.on("POST", "/images/load", frames({"stream": "Loaded image: app:1\n"}))
    daemon.on("GET", "/images/app:1/get", archive)
    daemon.on("GET", "/images/get", archive)
    for name in ("app:1", "docker.io/library/app:1"):
        daemon.on("GET", f"/images/{name}/json", answer({"Id": ID, "New": {"Field": [1, None]}}))
    daemon.on(
        "GET", "/images/app:1/history", answer([{"Id": ID, "Created": 1700000000, "CreatedBy": "RUN x", "Size": 5}])
    )
    daemon.on("POST", "/images/app:1/tag", answer({}, 201))
    daemon.on("DELETE", "/images/app:1", answer([{"Untagged": "app:1"}, {"Deleted": ID}]))
    daemon.on("POST", "/images/prune", answer({"ImagesDeleted": [{"Deleted": ID}], "SpaceReclaimed": 5}))
    daemon.on("GET", "/images/search", answer([{"name": "app", "description": "An \x1b[31mapp\n", "star_count": 7}]))
    daemon.on("GET", "/system/df", answer({"LayersSize": 10, "Images": [summary]}))
    daemon.on("GET", "/version", answer({"Version": "28.5", "ApiVersion": "1.51", "Components": [{"Name": "Engine"}]}))
    daemon.on("POST", "/auth", answer({"Status": "Login Succeeded"}))
    daemon.on("POST", "/build", frames({"aux": {"ID": ID}}, {"stream": f"Successfully built {ID[7:19]}\n"}))
    event = {"Type": "image", "Action": "tag", "Actor": {"ID": ID, "Attributes": {"name": "a"}}, "timeNano": 1000000001}
    daemon.on("GET", "/events", frames(event))


async def invoke(daemon: ScriptedDaemon, *arguments: str, given: bytes | None = None) -> Result:
    """Run a command line on the scripted daemon, in a thread: the daemon is in this one."""
    script(daemon)
    full = ["-H", str(daemon.socket), *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, full, input=given, obj=Session(), catch_exceptions=False)


COMMANDS = sorted(name for each in Program.listed for name in (each.name, *each.aliases))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_nothing_of_how_it_is_made(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], obj=Session())
    assert result.exit_code == 0
    assert re.match(rf"Usage: \S+ {command}\b", result.stdout)
    assert "<class '" not in result.stdout


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "x.tar").write_bytes(tar_of({"a": "b"}))
    (tmp_path / "context").mkdir()
    for name in ("Dockerfile", "Other"):
        (tmp_path / "context" / name).write_text("FROM scratch\n")
    return {"tar": str(tmp_path / "x.tar"), "out": str(tmp_path / "out.tar"), "dir": str(tmp_path / "context")}


@pytest.mark.parametrize(("line", "expected"), REQUESTS, ids=[row[0] for row in REQUESTS])
async def test_a_command_line_becomes_these_requests(
    daemon: ScriptedDaemon,
    places: dict[str, str],
    line: str,
    expected: list[tuple[str, Mapping[str, str | list[str]]]],
) -> None:
    result = await invoke(daemon, *line.format(**places).split())
    assert result.exit_code == 0, result.output
    sent: list[tuple[str, dict[str, str | list[str]]]] = []
    for exchange in daemon.requests:
        if exchange.path == "/_ping":
            continue
        query: dict[str, list[str]] = {}
        for name, value in exchange.query:
            query.setdefault(name, []).append(value)
        single = {name: values if len(values) > 1 else values[0] for name, values in query.items()}
        sent.append((f"{exchange.method} {exchange.path}", single))
    assert sent == [(request, dict(query)) for request, query in expected]


# What scripts read on standard output.
OUTPUT: list[tuple[str, str]] = [
    ("ls -q", "abababababab\n"),
    ("ls -q --no-trunc", f"{ID}\n"),
    ("ls --format {{{{.Repository}}}}:{{{{.Tag}}}}", "app:1\n"),
    ("ls --format {{{{.Digest}}}}", f"{DIGEST}\n"),
    ("history -q app:1", "abababababab\n"),
    ("history --no-human --format {{{{.Size}}}},{{{{.CreatedBy}}}} app:1", "5,RUN x\n"),
    ("history --human=false --format {{{{.Size}}}},{{{{.CreatedBy}}}} app:1", "5,RUN x\n"),
    ("history --no-human=false --format {{{{.Size}}}} app:1", "5B\n"),
    ("ls -q=false --format {{{{.Tag}}}}", "1\n"),
    ("--debug=false ls -q", "abababababab\n"),
    (
        "search --format {{{{json.}}}} x".replace("json.", "json ."),
        '{"Description":"An \\u001b[31mapp ","IsOfficial":"false","Name":"app","StarCount":"7"}\n',
    ),
    ("pull -q app:1", "docker.io/library/app:1\n"),
    ("pull app:1", "Status: Image is up to date for app:1\ndocker.io/library/app:1\n"),
    ("push -q localhost:5000/app:1", "localhost:5000/app:1\n"),
    ("push localhost:5000/app:1", f"1: digest: {DIGEST} size: 5\n"),
    ("load -i {tar}", "Loaded image: app:1\n"),
    ("load -q -i {tar}", "Loaded image: app:1\n"),
    ("import {tar} app:1", f"{ID}\n"),
    ("rm app:1", f"Untagged: app:1\nDeleted: {ID}\n"),
    ("prune -f", f"Deleted Images:\ndeleted: {ID}\n\nTotal reclaimed space: 5B\n"),
    ("search --no-trunc --format {{{{.Description}}}} x", "An \x1b[31mapp \n"),
    ("df --format {{{{.Size}}}}", "10B\n"),
    ("inspect -f {{{{.Id}}}} app:1", f"{ID}\n"),
    ("inspect -f {{{{json.New}}}} app:1".replace("json.", "json ."), '{"Field":[1,null]}\n'),
    ("inspect -f {{{{.New.Field}}}} app:1", "[1 <nil>]\n"),
    ("build -q {dir}", f"{ID}\n"),
    ("build {dir}", "Successfully built abababababab\n"),
    ("ping", "Scripted speaks API 1.51\n"),
    ("version -f {{{{.Server.Version}}}}", "28.5\n"),
]


@pytest.mark.parametrize(("line", "expected"), OUTPUT, ids=[row[0] for row in OUTPUT])
async def test_standard_output_is_what_scripts_expect(
    daemon: ScriptedDaemon, places: dict[str, str], line: str, expected: str
) -> None:
    words = line.format(**places).replace("{{json ", "{{json\0").split()
    result = await invoke(daemon, *(word.replace("\0", " ") for word in words))
    assert (result.exit_code, result.stdout) == (0, expected)


async def test_json_is_a_line_for_each_frame_and_one_for_the_result(daemon: ScriptedDaemon) -> None:
    result = await invoke(daemon, "pull", "--json", "app:1", "app:2")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    for image in ("app:1", "app:2"):
        mine = [line for line in lines if line["image"] == image]
        assert mine[0] == {"image": image, "id": "1", "status": "Pulling from x"}
        assert mine[-1]["result"]["up_to_date"] is True
    assert len(lines) == 6


async def test_inspect_shows_what_is_newer_than_this_library(daemon: ScriptedDaemon) -> None:
    result = await invoke(daemon, "inspect", "app:1")
    assert json.loads(result.stdout) == [{"Id": ID, "New": {"Field": [1, None]}}]


async def test_ls_as_json_has_the_names_of_the_docker_cli(daemon: ScriptedDaemon) -> None:
    result = await invoke(daemon, "ls", "--format", "json")
    row = json.loads(result.stdout)
    assert set(row) == {
        *("Containers", "CreatedAt", "CreatedSince", "Digest", "ID"),
        *("Repository", "SharedSize", "Size", "Tag", "UniqueSize", "VirtualSize"),
    }
    assert (row["Repository"], row["Tag"], row["Size"], row["SharedSize"]) == ("app", "1", "1.23MB", "N/A")


async def test_a_password_comes_by_standard_input_and_goes_to_the_engine_alone(daemon: ScriptedDaemon) -> None:
    bodies: list[bytes] = []
    script(daemon)

    async def auth(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.answer_json({"Status": "Login Succeeded"})

    daemon.on("POST", "/auth", auth)
    line = ["-H", str(daemon.socket), "login", "reg.example:5000", "-u", "ann", "--password-stdin"]
    result = await asyncio.to_thread(CliRunner().invoke, app, line, input=b"s\xc3\xa9cret \r\n", obj=Session())
    assert result.exit_code == 0
    assert json.loads(bodies[0]) == {"username": "ann", "password": "sécret ", "serveraddress": "reg.example:5000"}
    assert result.stdout == "Login Succeeded\n"
    assert "cret" not in result.output


async def test_stored_credentials_are_checked_without_a_question(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    auths = {"reg.example:5000": {"auth": base64.b64encode(b"ann:s3cret").decode()}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    bodies: list[bytes] = []

    async def auth(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.answer_json({"Status": "Login Succeeded"})

    daemon.on("POST", "/auth", auth)
    line = ["-H", str(daemon.socket), "login", "reg.example:5000"]
    result = await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session())
    assert (result.exit_code, result.stderr) == (0, "Checking the stored credentials of ann.\n")
    assert json.loads(bodies[0])["password"] == "s3cret"


async def test_prune_uses_the_configured_filters_that_do_not_contradict_options(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pruneFilters": ["until=24h", "label!=keep", "label!=mine"]}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    result = await invoke(daemon, "prune", "-f", "--filter", "label=mine")
    assert result.exit_code == 0, result.output
    assert json.loads(dict(daemon.requests[-1].query)["filters"]) == {
        "dangling": ["true"],
        "label": ["mine"],
        "label!": ["keep"],
        "until": ["24h"],
    }


async def test_prune_removes_nothing_if_the_configured_filters_are_unreadable(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"pruneFilters": "until=24h"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    script(daemon)
    line = ["-H", str(daemon.socket), "prune", "-f"]
    result = await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session())
    assert (type(result.exception), daemon.requests) == (ConfigError, [])


async def test_a_build_arg_without_a_value_is_that_of_the_environment(
    daemon: ScriptedDaemon, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "value")
    await invoke(daemon, "build", "--build-arg", "HERE", "--build-arg", "NOWHERE", places["dir"])
    assert dict(daemon.requests[-1].query)["buildargs"] == '{"HERE":"value","NOWHERE":null}'


async def test_the_id_of_a_build_goes_to_a_file(daemon: ScriptedDaemon, places: dict[str, str], tmp_path: Path) -> None:
    await invoke(daemon, "build", "--iidfile", str(tmp_path / "id"), places["dir"])
    assert (tmp_path / "id").read_text() == ID


async def test_the_id_of_an_earlier_build_is_gone_when_a_build_fails(
    daemon: ScriptedDaemon, places: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "id").write_text("sha256:old")
    script(daemon)

    async def fail(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        await exchange.frames({"errorDetail": {"message": "it failed"}, "error": "it failed"})
        await exchange.end()

    daemon.on("POST", "/build", fail)
    line = ["-H", str(daemon.socket), "build", "--iidfile", str(tmp_path / "id"), places["dir"]]
    assert (await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session())).exit_code == 1
    assert not (tmp_path / "id").exists()


async def test_an_unwritable_id_file_is_reported_before_the_build(
    daemon: ScriptedDaemon, places: dict[str, str], tmp_path: Path
) -> None:
    script(daemon)
    line = ["-H", str(daemon.socket), "build", "--iidfile", str(tmp_path / "nowhere/id"), places["dir"]]
    result = await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session())
    assert (result.exit_code, daemon.requests) == (2, [])
    assert "No such file" in result.output


async def test_the_id_goes_through_a_link_that_stays(
    daemon: ScriptedDaemon, places: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "id").write_text("old")
    (tmp_path / "link").symlink_to("id")
    await invoke(daemon, "build", "--iidfile", str(tmp_path / "link"), places["dir"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "id").read_text() == ID


async def test_a_directory_that_is_called_like_a_repository_is_built_where_it_is(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docker CLI looks for a directory first, too; without one the Engine fetches the repository."""
    monkeypatch.chdir(tmp_path)
    await invoke(daemon, "build", "github.com/x/y")
    assert dict(daemon.requests[-1].query)["remote"] == "github.com/x/y"
    (tmp_path / "github.com/x/y").mkdir(parents=True)
    (tmp_path / "github.com/x/y/Dockerfile").write_text("FROM scratch")
    await invoke(daemon, "build", "github.com/x/y")
    assert "remote" not in dict(daemon.requests[-1].query)


async def test_images_to_take_steps_from_may_be_joined_by_commas(
    daemon: ScriptedDaemon, places: dict[str, str]
) -> None:
    await invoke(daemon, "build", "--cache-from", "a,b:1", "--cache-from", "c", places["dir"])
    assert dict(daemon.requests[-1].query)["cachefrom"] == '["a","b:1","c"]'


async def test_a_dockerfile_may_be_a_link_or_standard_input(
    daemon: ScriptedDaemon, places: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "shared").write_text("FROM scratch")
    (Path(places["dir"]) / "link").symlink_to(tmp_path / "shared")
    for given in (str(tmp_path / "shared"), f"{places['dir']}/link"):
        await invoke(daemon, "build", "-f", given, places["dir"])
        assert dict(daemon.requests[-1].query)["dockerfile"].startswith(".dockerfile.")
    line = ["-H", str(daemon.socket), "build", "-f", "-", places["dir"]]
    result = await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session(), input=b"FROM scratch")
    assert result.exit_code == 0, result.output
    assert dict(daemon.requests[-1].query)["dockerfile"].startswith(".dockerfile.")


async def test_several_images_are_pulled_so_many_at_once(daemon: ScriptedDaemon) -> None:
    script(daemon)
    running = most = 0

    async def create(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        await exchange.head()
        await exchange.frames({"status": "Status: Downloaded newer image for x"})
        await exchange.end()

    for at_once in (1, 3):
        most = 0
        daemon.on("POST", "/images/create", create)
        line = ["-H", str(daemon.socket), "pull", "-q", "-j", str(at_once), *(f"app:{number}" for number in range(9))]
        result = await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session())
        assert result.exit_code == 0
        assert most == at_once


async def test_pushes_to_one_repository_are_serial_and_to_several_parallel(daemon: ScriptedDaemon) -> None:
    """Whatever shares its layers finds them there; another repository does not wait."""
    script(daemon)
    running: list[str] = []
    most = 0
    met = asyncio.Event()

    def push(name: str) -> Handler:
        async def handle(exchange: Exchange) -> None:
            nonlocal most
            running.append(name)
            most = max(most, running.count(name))
            if len(set(running)) > 1:
                met.set()
            await met.wait()
            running.remove(name)
            await exchange.head()
            await exchange.frames({"aux": {"Tag": "1", "Digest": DIGEST, "Size": 5}})
            await exchange.end()

        return handle

    for name in ("app", "other"):
        daemon.on("POST", f"/images/{name}/push", push(name))
    line = ["-H", str(daemon.socket), "push", "-q", "app:1", "app:2", "app:3", "other:1"]
    result = await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session())
    assert (result.exit_code, met.is_set(), most) == (0, True, 1)
    assert len(result.output.splitlines()) == 4


async def test_only_images_are_inspected_whatever_the_type_is_called(daemon: ScriptedDaemon) -> None:
    assert (await invoke(daemon, "inspect", "--type", "image", "app:1")).exit_code == 0
    asked = len(daemon.requests)
    result = await invoke(daemon, "inspect", "--type=container", "app:1")
    assert (result.exit_code, len(daemon.requests)) == (2, asked)


async def test_the_configuration_may_be_in_another_directory(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/nowhere")  # is put back after the test
    (tmp_path / "config.json").write_text('{"HttpHeaders": {"X-Site": "here"}}')
    script(daemon)
    line = ["-H", str(daemon.socket), "--config", str(tmp_path), "tag", "app:1", "app:2"]
    assert (await asyncio.to_thread(CliRunner().invoke, app, line, obj=Session())).exit_code == 0
    assert daemon.requests[-1].headers["x-site"] == "here"

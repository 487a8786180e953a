"""The command line against a real Engine, in a real pseudo-terminal, and beside the real docker CLI."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import engines
from aiodocker_images import ImageService
from aiodocker_images.testing import FakeRegistry, index
from tests.conftest import by_engine
from tests.support.slow_registry import SlowRegistry
from tests.support.tars import root_file_system, tar_of
from tests.support.terminals import PROGRAM, Terminal

LAYER_SIZE = 3_000_000
DIGEST = r"sha256:[0-9a-f]{64}"


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


async def run(*line: str, given: bytes | None = None, environment: Mapping[str, str] | None = None) -> Ran:
    """Run a program of ours, or with an absolute path another one, without a terminal."""
    whole = line if line[0].startswith("/") else (*PROGRAM, *line)

    def finished() -> subprocess.CompletedProcess[bytes]:
        environ = {**os.environ, **(environment or {})}
        return subprocess.run(whole, input=given, capture_output=True, timeout=90, check=False, env=environ)

    done = await asyncio.to_thread(finished)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
async def names(engine: ImageService, registry: str) -> AsyncGenerator[list[str], None]:
    """Two names in the registry, whose images nobody has; what is left of them on the Engine is removed."""
    repository = f"cli-{secrets.token_hex(4)}"
    made = [f"{registry}/{repository}:{number}" for number in (1, 2)]
    yield made
    for image in await engine.list():
        for name in image.repo_tags:
            if repository in name:
                await engine.remove(name, force=True)


@pytest.fixture
async def pushed(engine: ImageService, names: list[str]) -> list[str]:
    """The names, with an image each in the registry, and none on the Engine."""
    for name in names:
        await engine.import_image(root_file_system(LAYER_SIZE), reference=name)
        await engine.push(name)
        await engine.remove(name)
    return names


@pytest.mark.engine
async def test_the_whole_way_of_an_image_from_a_tar_to_another_name(
    names: list[str], tmp_path: Path, registry: str
) -> None:
    """import, tag, push, rm, pull, inspect, save and load: every output is what scripts expect."""
    first, second = names
    imported = await run("import", "-c", 'CMD ["/bin/sh"]', "-", first, given=root_file_system())
    assert (imported.status, re.fullmatch(f"{DIGEST}\n", imported.out) is not None) == (0, True), imported.err
    assert (await run("tag", first, second)).status == 0
    pushed = await run("push", "-q", first, second)
    assert (pushed.status, sorted(pushed.out.split())) == (0, names), pushed.err
    listed = await run("ls", "--format", "{{.Repository}}:{{.Tag}}", first.rpartition(":")[0])
    assert set(listed.out.split()) == set(names)
    removed = await run("rm", *names)
    assert removed.status == 0
    assert all(f"Untagged: {name}\n" in removed.out for name in names)
    pulled = await run("pull", *names)
    assert pulled.status == 0, pulled.err
    assert sorted(line for line in pulled.out.split() if line in names and "/" in line).count(first) >= 1
    document = json.loads((await run("inspect", first)).out)
    assert document[0]["Config"]["Cmd"] == ["/bin/sh"]
    saved = await run("save", "-o", str(tmp_path / "out.tar"), first, second)
    assert (saved.status, saved.out, saved.err) == (0, "", "")
    await run("rm", *names)
    loaded = await run("load", "-i", str(tmp_path / "out.tar"))
    assert loaded.status == 0
    assert sorted(loaded.out.splitlines()) == [f"Loaded image: {name}" for name in names]
    used = await run("df", "--format", "{{.Type}}")
    assert used.out == "Images\n"
    missing = await run("pull", f"{registry}/no/such:1")
    assert (missing.status, missing.out) == (1, "")
    assert 1 <= len([line for line in missing.err.splitlines() if "Pulling" not in line]) <= 2


@pytest.mark.engine
async def test_the_display_ends_with_the_digests(pushed: list[str]) -> None:
    with Terminal("pull", *pushed, columns=100) as terminal:
        assert await terminal.ended() == 0
        assert terminal.is_as_before()
        for line, name in zip(terminal.lines, pushed, strict=False):
            assert re.match(rf"✓ {re.escape(name)}  {by_engine('sha256:[0-9a-f]{12}  new', podman='new')}", line), line
        assert re.match(r"Total ━+ 100%  ", terminal.lines[2]), terminal.text
        assert len(terminal.lines) == 3


@pytest.mark.engine
async def test_the_display_shows_each_layer_while_it_comes(engine: ImageService) -> None:
    """A layer that trickles: one of a fast registry may be there before it was ever drawn."""
    layer = re.compile(r"^  [0-9a-f]{12} (Download|Pull|Copy)", re.MULTILINE)
    async with SlowRegistry() as slow:
        with Terminal("pull", slow.image, columns=100) as terminal:
            await asyncio.to_thread(terminal.until, lambda: layer.search(terminal.text) is not None)
            slow.finish()
            assert await terminal.ended() == 0
            assert terminal.lines[0].startswith(f"✓ {slow.image}  ")
        await engine.remove(slow.image)


@pytest.mark.once
async def test_a_pull_is_ended_on_the_engine_by_ctrl_c(engine: ImageService) -> None:
    async with SlowRegistry() as slow:
        with Terminal("pull", slow.image) as terminal:
            await terminal.shows("Downloading")
            terminal.press("\x03")
            assert await terminal.ended() == -signal.SIGINT
            assert terminal.is_as_before()
            assert terminal.lines[-1] == "aiodocker-images: stopped by SIGINT"
        async with asyncio.timeout(30):
            while slow.open_blobs:
                await asyncio.sleep(0.05)
        assert slow.blobs_begun > 0
    assert slow.image not in {name for image in await engine.list() for name in image.repo_tags}


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
async def test_a_save_that_is_stopped_leaves_nothing_and_a_load_loads_nothing(
    engine: ImageService, names: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    name = names[0]
    await engine.import_image(root_file_system(80_000_000), reference=name)
    target = tmp_path / "out.tar"
    for line in (("save", "-o", str(target), name), ("load", "-i", str(target))):
        with Terminal(*line) as terminal:
            await terminal.shows("Total")
            terminal.send(number)
            status = await terminal.ended()
            # Fast as it is, it may have been done already.
            assert status in (-number, 0), terminal.text
            assert terminal.is_as_before()
        if line[0] == "save":
            assert [path.name for path in tmp_path.iterdir()] == ([] if status else ["out.tar"])
            await engine.save(name, to=target)
            await engine.remove(name)


@pytest.mark.once
async def test_a_build_is_shown_and_ended_by_ctrl_c(engine: ImageService, names: list[str], tmp_path: Path) -> None:
    shutil.copy(engines.busybox(), tmp_path / "busybox")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/sh\nRUN sleep 60\n")
    with Terminal("build", "-t", names[0], "--network", "none", str(tmp_path)) as terminal:
        await terminal.shows("RUN sleep 60")
        await terminal.shows("Running in")
        terminal.press("\x03")
        assert await terminal.ended() == -signal.SIGINT
        assert terminal.lines[-1].endswith("aiodocker-images: stopped by SIGINT")
    assert names[0] not in {name for image in await engine.list() for name in image.repo_tags}


def image_of_2024(name: str) -> bytes:
    """Make an archive of an image whose age is the same to two programs that run one after the other."""
    layer = root_file_system(1_234_567)
    created = "2024-05-01T10:11:12Z"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"Cmd": ["/bin/sh", "-c", "a  b"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": created, "comment": "hello  there"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files: dict[str, bytes | str] = {"config.json": json.dumps(config), "layer.tar": layer}
    return tar_of({**files, "manifest.json": json.dumps(manifest)})


# What both command lines are asked.
BOTH = [
    "images -q",
    "images -q --no-trunc",
    "images --format {{.Repository}}|{{.Tag}}|{{.ID}}|{{.Size}}",
    "images --digests --format {{.Repository}}|{{.Digest}}|{{.Size}}",
    "images --filter dangling=true -q",
    "images --filter reference={name}",
    "images --no-trunc --digests {name}",
    "images {name}",
    "images no-such-image",
    "history {name}",
    "history --no-trunc {name}",
    "history -q {name}",
    "history --format {{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}} {name}",
    "history --format table|{{.ID}}|{{.Comment}} {name}",
    "inspect {name}",
    "inspect --format {{.Id}} {name}",
    "inspect --format {{.RepoTags}}|{{.Config.Cmd}}|{{.Architecture}}|{{.Size}}|{{.Config.Env}} {name}",
    "inspect --format {{json|.RootFS.Layers}} {name} {name}",
    "events --since 10m --until 0s --filter event=tag",
]


@pytest.mark.once
async def test_it_writes_what_the_docker_cli_writes(engine: ImageService, names: list[str]) -> None:
    docker = str(engines.docker_cli())
    await engine.load(image_of_2024(names[0]))
    await engine.tag(names[0], names[1])
    await engine.build(tar_of({"Dockerfile": f"FROM {names[0]}\nLABEL {'long' * 20}=x\n"}))
    for template in BOTH:
        line = [word.format(name=names[0]) if "{name}" in word else word for word in template.split()]
        line = [word.replace("|", " ", 1) if "{{json" in word or word.startswith("table") else word for word in line]
        theirs, ours = await run(docker, *line), await run(*line)
        for _ in range(10):
            if sorted(theirs.out.splitlines()) == sorted(ours.out.splitlines()):
                break  # docker's `--until 0s` leaves out the events of this second
            theirs, ours = await run(docker, *line), await run(*line)
        assert ours.status == theirs.status
        assert sorted(ours.out.splitlines()) == sorted(theirs.out.splitlines()), template


@pytest.mark.once
async def test_its_json_has_what_the_docker_clis_has(engine: ImageService, names: list[str]) -> None:
    docker = str(engines.docker_cli())
    await engine.import_image(root_file_system(), reference=names[0])
    # Those of images alone: the container of a build before may end late. And in whole seconds: docker's `--until 0s`
    # leaves out what came in this one.
    events = ["events", "--filter", "type=image", "--since", "10m", "--until", str(int(time.time()) + 1)]
    for line in (["images", names[0]], ["history", names[0]], events):
        theirs: dict[str, Any] = json.loads((await run(docker, *line, "--format", "{{json .}}")).out.splitlines()[-1])
        ours: dict[str, Any] = json.loads((await run(*line, "--format", "json")).out.splitlines()[-1])
        known = set(theirs)
        assert set(ours) == known
        assert {name: ours[name] for name in known if "Since" not in name} == {
            name: theirs[name] for name in known if "Since" not in name
        }


@pytest.mark.once
async def test_the_same_scripts_do_the_same(names: list[str], tmp_path: Path, engine: ImageService) -> None:
    """Archives, digests and ids of one command line are the other's."""
    docker = str(engines.docker_cli())
    name = names[0]
    (tmp_path / "root.tar").write_bytes(root_file_system())
    assert (await run("import", str(tmp_path / "root.tar"), name)).status == 0
    pushed = [await run(program, "push", name) if program else await run("push", name) for program in ("", docker)]
    assert pushed[0].out.splitlines()[-1] == pushed[1].out.splitlines()[-1]
    for save, load in (((), (docker,)), ((docker,), ())):
        archive = await asyncio.to_thread(subprocess.check_output, [*(save or PROGRAM), "save", name], timeout=60)
        await engine.remove(name)
        loaded = await run(*load, "load", given=archive)
        assert loaded.out == f"Loaded image: {name}\n"
    await engine.remove(name)
    ours = (await run("pull", name)).out.splitlines()
    await engine.remove(name)
    theirs = (await run(docker, "pull", name)).out.splitlines()
    assert ours == theirs[-3:]


@pytest.mark.once
async def test_login_asks_the_registry_and_stores_nothing(registry: str, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "docker")}
    checked = await run("login", registry, "-u", "ann", "--password-stdin", given=b"secret\n", environment=environment)
    assert (checked.status, checked.out, checked.err) == (0, "Login Succeeded\n", "Nothing was stored.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
async def test_mirror_moves_what_is_not_there_and_skips_what_is(
    pushed: list[str], registry: str, engine: ImageService
) -> None:
    line = ("mirror", *pushed, f"{registry}/mirrored/")
    planned = await run(*line, "--dry-run")
    assert (planned.status, [each.split(":")[0] for each in planned.out.splitlines()]) == (0, ["planned", "planned"])
    done = await run(*line)
    assert done.status == 0, done.err
    assert [each.split(":")[0] for each in done.out.splitlines()] == ["mirrored", "mirrored"]
    assert "2 mirrored" in done.err
    again = await run(*line, "-q")
    targets = [f"{registry}/mirrored/{name.rpartition('/')[2]}" for name in pushed]
    assert (again.status, sorted(again.out.split()), again.err) == (0, targets, "")
    some = await run("mirror", pushed[0], f"{registry}/no-such:1", f"{registry}/mirrored/", "--json")
    assert some.status == 3
    assert {json.loads(each)["status"] for each in some.out.splitlines()} == {"skipped", "failed"}
    assert not {name for image in await engine.list() for name in image.repo_tags} & {*pushed, *targets}


@pytest.mark.once
async def test_a_mirror_is_drawn_image_by_image(pushed: list[str], registry: str) -> None:
    with Terminal("mirror", *pushed, f"{registry}/drawn/", columns=120) as terminal:
        assert await terminal.ended() == 0
        assert terminal.is_as_before()
        assert [line[:1] for line in terminal.lines[:3]] == ["✓", "✓", "T"]
        assert terminal.lines[-1] == "2 mirrored"


@pytest.mark.once
async def test_a_plan_is_read_and_its_mistakes_are_told_with_their_line(
    pushed: list[str], registry: str, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'targets = ["{registry}/planned/"]\n[[source]]\nimages = ["{pushed[0]}"]\n')
    done = await run("mirror", "--plan", str(plan))
    assert (done.status, done.out.startswith("mirrored: ")) == (0, True)
    plan.write_text('targets = ["x/"]\n[[source]]\nimages = ["UPPER"]\n')
    wrong = await run("mirror", "--plan", str(plan))
    assert (wrong.status, "line 3" in wrong.err, len(wrong.err.splitlines())) == (1, True, 1)


@pytest.mark.once
async def test_transfer_brings_images_into_another_engine(engine_name: str, pushed: list[str]) -> None:
    await run("pull", "-q", *pushed)
    with engines.Engine(engine_name) as other:
        moved = await run("transfer", "--to", other.host, *pushed, "no-such-image")
        assert moved.status == 3
        assert [line.split(" ")[0] for line in moved.out.splitlines()] == ["transferred:", "transferred:"]
        assert "no-such-image" in moved.err
        there = await run("-H", other.host, "ls", "--format", "{{.Repository}}:{{.Tag}}")
        assert set(there.out.split()) == set(pushed)
        again = await run("transfer", "-q", "--to", other.host, *pushed)
        assert (again.status, sorted(again.out.split())) == (0, pushed)


@pytest.mark.once
async def test_a_transfer_is_drawn_image_by_image(engine_name: str, pushed: list[str]) -> None:
    await run("pull", "-q", *pushed)
    with engines.Engine(engine_name) as other, Terminal("transfer", "--to", other.host, *pushed) as terminal:
        assert await terminal.ended() == 0
        assert terminal.is_as_before()
        assert [line[:1] for line in terminal.lines] == ["✓", "✓", "T"]
        assert "Total " in terminal.lines[-1]


@pytest.mark.once
async def test_endpoint_says_what_is_chosen_and_why(engine_host: str) -> None:
    assert (await run("endpoint")).out == f"{engine_host} (from DOCKER_HOST)\n"
    assert (await run("-H", "/x.sock", "endpoint")).out == "unix:///x.sock (from argument)\n"


@pytest.mark.once
async def test_an_image_goes_from_one_real_registry_through_a_tar_to_another(tmp_path: Path) -> None:
    """copy, tags, digest and manifest, while no Engine can be reached."""
    nowhere = {"DOCKER_HOST": "unix:///no/such/engine.sock"}
    made, tar = index(attestations=True), tmp_path / "images.tar"
    with FakeRegistry() as source, engines.Registry() as first, engines.CraneRegistry() as second:
        source.put("app:1.0", made)
        for line in (
            ("copy", "-q", "--verify", source.name("app:1.0"), f"{first.address}/copies/"),
            ("copy", "-q", f"{first.address}/copies/app:1.0", f"oci:{tar}:app:1.0"),
            ("copy", "-q", "--verify", f"oci:{tar}", f"{second.address}/back:2.0"),
        ):
            done = await run(*line, environment=nowhere)
            assert (done.err, done.status) == ("", 0)
        assert done.out == f"{second.address}/back:2.0\n"
        assert (await run("digest", f"{second.address}/back:2.0", environment=nowhere)).out == f"{made.digest}\n"
        assert (await run("tags", f"{second.address}/back", environment=nowhere)).out == "2.0\n"
        raw = await run("manifest", f"{second.address}/back:2.0", environment=nowhere)
        assert raw.out.encode() == made.data

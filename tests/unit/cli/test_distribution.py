"""copy, tags, digest and manifest: on fake registries, and without any Engine."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from aiodocker_images import DockerArchive, OCILayout
from aiodocker_images.cli.app import main
from aiodocker_images.testing import (
    BEHAVIOURS,
    BasicAuth,
    FakeRegistry,
    Fault,
    artifact,
    docker_archive,
    image,
    index,
    layer,
    oci_archive,
)
from tests.conftest import Leftovers
from tests.support.terminals import PROGRAM, Terminal

APP = index(attestations=True, indent=3)
BIG = image([layer(size=3_000_000)])
EXAMPLE = Path(__file__).parents[3] / "examples/copy_images.py"


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers) -> AsyncGenerator[FakeRegistry, None]:
    """A registry with an image; no Engine could be reached. Nothing is left here or there after the test."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/engine.sock")
    before = leftovers.now()
    async with FakeRegistry() as registry:
        registry.put("app:1", APP)
        yield registry
        await registry.idle()
        assert registry.uploads == []
    await leftovers.settle(before)


async def run(*arguments: str) -> int:
    """Run a command line in a thread: the registry answers in this one."""
    return await asyncio.to_thread(main, arguments)


async def finished(*line: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a process of its own, with pipes for its output."""
    return await asyncio.to_thread(subprocess.run, [*PROGRAM, *line], capture_output=True, timeout=50, check=False)


# copy


async def test_copy_says_the_digest_what_was_moved_and_the_name(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("copy", fake.name("app:1"), fake.name("other:2")) == 0
    out, err = capsys.readouterr()
    first, status, name = out.splitlines()
    assert (first, name) == (f"Digest: {APP.digest}", fake.name("other:2"))
    assert re.fullmatch(r"Status: 0B moved, \S+B mounted, 0B there before", status)
    assert fake.has("other", APP)
    assert fake.tags("other") == {"2": APP.digest}
    told = err.splitlines()
    blob = next(iter(APP.all_blobs())).partition(":")[2][:12]
    assert f"{blob}: Mounted from another repository" in told
    assert f"Copied the manifest {APP.digest[7:19]}" in told
    assert len(told) == len(set(told)) == len(APP.all_blobs()) + len(list(APP.walk()))


async def test_a_second_copy_moves_nothing_unless_it_is_forced(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("copy", "-q", fake.name("app:1"), fake.name("other:2"))
    assert await run(*line) == 0
    assert capsys.readouterr() == (f"{fake.name('other:2')}\n", "")
    written = fake.count("PUT manifest")
    assert await run(*line) == 0
    assert fake.count("PUT manifest") == written
    assert await run(*line[:1], *line[2:]) == 0
    assert "Status: the target has the same digest\n" in capsys.readouterr().out
    assert await run(*line, "--force") == 0
    assert fake.count("PUT manifest") == 2 * written


async def test_a_target_ending_in_a_slash_keeps_the_sources_path_and_tag(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.put("team/app:7", APP)
    assert await run("copy", "-q", fake.name("team/app:7"), fake.name("mirror/")) == 0
    assert capsys.readouterr().out == f"{fake.name('mirror/team/app:7')}\n"
    assert fake.tags("mirror/team/app") == {"7": APP.digest}


async def test_some_platforms_make_a_new_index_and_with_sparse_the_index_stays(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    source, platform = fake.name("app:1"), ("--platform", "linux/arm64")
    assert await run("copy", source, fake.name("some:1"), *platform) == 0
    narrowed = fake.tags("some")["1"]
    assert narrowed != APP.digest
    assert capsys.readouterr().out.splitlines()[:2] == [f"Digest: {narrowed}", f"Source digest: {APP.digest}"]
    document = json.loads(fake.manifest("some:1").data)
    assert {each["platform"]["architecture"] for each in document["manifests"]} == {"arm64", "unknown"}
    assert await run("copy", source, fake.name("sparse:1"), *platform, "--sparse") == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("MANIFEST_BLOB_UNKNOWN: blob unknown to registry")
    async with FakeRegistry(dataclasses.replace(BEHAVIOURS["oci"], missing_child=0)) as generous:
        assert await run("copy", source, generous.name("sparse:1"), *platform, "--sparse") == 0
        assert generous.tags("sparse") == {"1": APP.digest}
        assert len(generous.manifests("sparse")) < len(list(APP.walk()))
        await generous.idle()


async def test_referrers_come_along_if_they_are_asked_for(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = artifact("application/vnd.example.signature", {"sig": b"signed"}, subject=APP)
    fake.put("app:1", APP, signature)
    assert await run("copy", fake.name("app:1"), fake.name("plain:1")) == 0
    assert signature.digest not in fake.manifests("plain")
    capsys.readouterr()
    assert await run("copy", fake.name("app:1"), fake.name("signed:1"), "--referrers") == 0
    assert signature.digest in fake.manifests("signed")
    assert "Referrers: 1\n" in capsys.readouterr().out


async def test_verify_asks_the_target_at_the_end(fake: FakeRegistry) -> None:
    assert await run("copy", "-q", fake.name("app:1"), fake.name("other:1")) == 0
    assert fake.requests[-1].step == "PUT manifest"
    assert await run("copy", "-q", fake.name("app:1"), fake.name("other:2"), "--verify") == 0
    assert fake.requests[-1].step == "HEAD manifest"


async def test_as_json_each_step_and_the_result_are_lines(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    target = fake.name("other:2")
    assert await run("copy", "--json", fake.name("app:1"), target) == 0
    out, err = capsys.readouterr()
    assert err == ""
    *steps, last = [json.loads(line) for line in out.splitlines()]
    assert {each["image"] for each in [*steps, last]} == {target}
    assert {(each["kind"], each["status"]) for each in steps} == {("blob", "mounted"), ("manifest", "moved")}
    assert {each["digest"] for each in steps} == {*APP.all_blobs(), *(each.digest for each in APP.walk())}
    assert last["result"]["digest"] == APP.digest
    assert (last["result"]["source"], last["result"]["target"]) == (fake.name("app:1"), target)
    assert await run("copy", "--json", fake.name("no:1"), target) == 1
    assert json.loads(capsys.readouterr().out)["failed"]["error"] == "NotFoundError"


@pytest.mark.parametrize("place", ["images", "images.tar"])
async def test_an_oci_layout_is_a_target_and_a_source(
    fake: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    layout = str(tmp_path / place)
    assert await run("copy", fake.name("app:1"), f"oci:{layout}:kept:1") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"oci:{layout}:kept:1"
    assert [each.descriptor.digest for each in await OCILayout(layout).images()] == [APP.digest]
    assert await run("copy", f"oci:{layout}:kept:1", fake.name("back:2")) == 0
    assert await run("copy", f"oci:{layout}", fake.name("alone:3")) == 0
    assert fake.has("back", APP)
    assert fake.tags("alone") == {"3": APP.digest}
    assert await run("copy", f"oci:{layout}:absent", fake.name("back:4")) == 1


async def test_a_docker_archive_is_a_target_and_a_source(fake: FakeRegistry, tmp_path: Path) -> None:
    made, written, read = image(), tmp_path / "written.tar", tmp_path / "read.tar"
    fake.put("one:1", made)
    assert await run("copy", fake.name("one:1"), f"docker-archive:{written}:kept:1") == 0
    assert await DockerArchive(written).names() == ("kept:1",)
    assert await run("copy", f"docker-archive:{written}", fake.name("back:1")) == 0
    assert fake.has("back", made)
    await asyncio.to_thread(read.write_bytes, docker_archive(made, "a:1", "b:1"))
    assert await run("copy", f"docker-archive:{read}:b:1", fake.name("old:1")) == 0
    assert json.loads(fake.manifest("old:1").data)["config"]["digest"] == made.config.digest
    await asyncio.to_thread(read.write_bytes, oci_archive(APP, "docker.io/library/app:1"))
    assert await run("copy", f"oci:{read}:app:1", fake.name("new:1")) == 0
    assert fake.has("new", APP)


MISUSES = [
    ("copy a:1", "copy: Missing argument"),
    ("copy a:1 UPPER", ": 'UPPER' is not an image reference"),
    ("copy UPPER a/", ": 'UPPER' is not an image reference"),
    ("copy a:1 b:1 --sparse", "copy: Invalid value: --sparse needs a --platform"),
    ("copy a:1 b:1 --platform what", ": 'what' is not a platform"),
    ("copy a:1 oci:", "copy: Invalid value: oci: needs a path behind it"),
    ("copy docker-archive::a b:1", "copy: Invalid value: docker-archive: needs a path behind it"),
    ("copy oci:x b/", "copy: Invalid value: a target that ends in / needs a source in a registry"),
    ("copy a:1 b:1 --plain-http A!", "copy: Invalid value: 'A!' is not a registry"),
    ("tags a --semver what", "tags: Invalid value: "),
    ("tags a --newest 0", "tags: Invalid value for '--newest'"),
    ("tags UPPER", ": 'UPPER' is not an image reference"),
    ("digest UPPER", ": 'UPPER' is not an image reference"),
    ("manifest UPPER", ": 'UPPER' is not an image reference"),
]


@pytest.mark.parametrize(("line", "said"), MISUSES, ids=[row[0] for row in MISUSES])
def test_what_makes_no_sense_is_told_with_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, list(tmp_path.iterdir())) == ("", [])
    assert said in err.splitlines()[0]


@pytest.mark.parametrize("command", ["tags", "digest", "manifest", "copy"])
async def test_what_is_not_there_and_what_is_forbidden_are_told_with_status_1(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    target = (fake.name("x:1"),) if command == "copy" else ()
    assert await run(command, fake.name("no/such"), *target) == 1
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith(f"aiodocker-images: {command} {fake.name('no/such')}")
    assert second == "Check the name and the tag; a private image needs a `docker login`, too."
    async with FakeRegistry(auth=BasicAuth()) as guarded:
        assert await run(command, guarded.name("app"), *target) == 1
        await guarded.idle()
    assert capsys.readouterr().err.splitlines()[1].startswith("Log in with `docker login`")


async def test_plain_http_is_spoken_where_a_command_line_asks_for_it(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory of certificates asks for TLS even on the loopback interface, which has none without it."""
    (tmp_path / "docker/certs.d" / fake.host).mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    plain = ("--plain-http", "other.example", "--plain-http", fake.host)
    for line in (
        ("digest", fake.name("app:1")),
        ("manifest", fake.name("app:1")),
        ("tags", fake.name("app")),
        ("copy", fake.name("app:1"), fake.name("other:1")),
    ):
        assert await run(*line, *plain) == 0
    capsys.readouterr()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.program
async def test_a_signal_ends_a_copy_and_leaves_nothing_of_it(
    fake: FakeRegistry, tmp_path: Path, number: signal.Signals
) -> None:
    """The source stalls in the middle of a layer. The upload is given up, and so is the tar that is written."""
    fake.put("big:1", BIG)
    async with FakeRegistry() as other:
        for target in (other.name("big:1"), f"oci:{tmp_path / 'images.tar'}"):
            # Far behind the first megabyte: what is reported lags behind what was sent by a few pieces.
            fake.fail(Fault.stall(after=2_500_000), on="GET blob", reference=BIG.layers[0].digest)
            with Terminal("copy", fake.name("big:1"), target) as terminal:
                await terminal.shows("Copying")
                await terminal.shows("MB/3MB")
                if number == signal.SIGINT:
                    terminal.press("\x03")
                else:
                    terminal.send(number)
                assert await terminal.ended() == -number, terminal.text
                assert terminal.is_as_before()
                assert terminal.lines[-1] == f"aiodocker-images: stopped by {number.name}"
        await other.idle()
        assert (other.uploads, other.images) == ([], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.program
async def test_on_a_terminal_the_display_ends_with_the_digest(fake: FakeRegistry) -> None:
    fake.put("big:1", BIG)
    async with FakeRegistry() as other:
        with Terminal("copy", fake.name("big:1"), other.name("big:1"), columns=100) as terminal:
            assert await terminal.ended() == 0
            assert terminal.is_as_before()
            assert re.match(rf"✓ {other.name('big:1')}  {BIG.digest[:19]}  copied  3MB in", terminal.lines[0])
            assert terminal.lines[-1] == other.name("big:1")
        await other.idle()


# tags


TAGS = ["3.18", "3.20.1", "3.19", "edge", "latest", f"sha256-{'a' * 64}.sig"]
CHOSEN = [
    ("", sorted(TAGS)),
    ("--match 3.*", ["3.18", "3.19", "3.20.1"]),
    ("--match 3.18 --match e*", ["3.18", "edge"]),
    ("--semver >=3.19", ["3.19", "3.20.1"]),
    ("--newest 2", ["3.20.1", "3.19"]),
    ("--semver <3.20 --newest 1", ["3.19"]),
    ("--without 3.* --without edge", ["latest"]),
]


@pytest.mark.parametrize(("options", "expected"), CHOSEN, ids=[row[0] or "all" for row in CHOSEN])
async def test_tags_are_chosen_by_rules_and_listed_a_line_each(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str], options: str, expected: list[str]
) -> None:
    for tag in TAGS:
        fake.put(f"tagged:{tag}", APP)
    assert await run("tags", fake.name("tagged"), *options.split()) == 0
    assert capsys.readouterr().out.splitlines() == expected
    assert await run("tags", fake.name("tagged"), *options.split(), "--json") == 0
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.program
async def test_if_nobody_reads_the_tags_the_program_ends_without_a_word(fake: FakeRegistry) -> None:
    def closed() -> tuple[int, bytes]:
        line = [*PROGRAM, "tags", fake.name("app")]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            assert program.stdout is not None
            program.stdout.close()
            return program.wait(50), program.stderr.read() if program.stderr is not None else b"?"

    assert await asyncio.to_thread(closed) == (-signal.SIGPIPE, b"")


# digest and manifest


async def test_digest_prints_the_digest_and_reads_no_manifest(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("digest", fake.name("app:1")) == 0
    assert capsys.readouterr() == (f"{APP.digest}\n", "")
    assert fake.count("GET manifest") == 0


@pytest.mark.program
async def test_manifest_gives_the_bytes_as_they_are_and_readable_where_asked(fake: FakeRegistry) -> None:
    raw = await finished("manifest", fake.name("app:1"))
    assert (raw.returncode, raw.stdout, raw.stderr) == (0, APP.data, b"")
    compact = image()
    fake.put("app:2", compact)
    pretty = await finished("manifest", fake.name(f"app@{compact.digest}"), "--pretty")
    assert json.loads(pretty.stdout) == json.loads(compact.data)
    assert pretty.stdout.startswith(b'{\n  "schemaVersion": 2,\n')
    assert pretty.stdout.endswith(b"}\n")


@pytest.mark.program
async def test_a_manifest_cannot_control_the_terminal_and_still_says_the_same(fake: FakeRegistry) -> None:
    hostile = "\x1b[2J\x07 \x9b2J \u202e!\x7f"
    made = image(annotations={"org.example": hostile})
    data = json.dumps(json.loads(made.data), ensure_ascii=False).encode()
    fake.put("app:3", made)
    fake.put_manifest("app:3", data, made.media_type)
    raw = await finished("manifest", fake.name("app:3"))
    assert raw.stdout == data
    pretty = await finished("manifest", fake.name("app:3"), "--pretty")
    assert json.loads(pretty.stdout)["annotations"] == {"org.example": hostile}
    with Terminal("manifest", fake.name("app:3"), columns=100, rows=60) as terminal:
        assert await terminal.ended() == 0
        assert r'"org.example": "\u001b[2J\u0007 \u009b2J \u202e!\u007f"' in terminal.text
        assert not set(terminal.written.decode()) & {"\x1b", "\x07", "\x9b", "\u202e", "\x7f"}


# The example


@pytest.mark.program
async def test_the_example_copies_the_newest_tags_and_nothing_twice(fake: FakeRegistry) -> None:
    for number in range(1, 6):
        fake.put(f"many:1.{number}", image([{"number": str(number)}]))
    line = [sys.executable, "-W", "error", "-X", "dev", str(EXAMPLE), fake.name("many"), fake.name("few"), ">=1"]
    for moved in (True, False):
        done = await asyncio.to_thread(
            subprocess.run, line, capture_output=True, text=True, timeout=50, check=False, env=dict(os.environ)
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert ("blob sha256:" in done.stdout) == moved
        ends = [text for text in done.stdout.splitlines() if not text.startswith("  ")]
        assert ends == [
            f"{fake.name('few')}:{tag}: {fake.tags('many')[tag]}, 0 bytes moved" for tag in ("1.5", "1.4", "1.3")
        ]
    assert sorted(fake.tags("few")) == ["1.3", "1.4", "1.5"]

"""Templates and formats: this command line and docker's (28.5) are given the same, and write the same."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shlex
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import engines
from aiodocker_images import ImageService
from aiodocker_images.cli.app import app
from aiodocker_images.cli.session import Session
from tests.conftest import engine_is
from tests.support.tars import root_file_system, tar_of

# @name is an image, and @repository its name without the tag. What both write is compared line by line in any order:
# docker has the rows of an image in no order.
INSPECT = r"""
{{.ID}}
{{.Id}} {{.RepoTags}} {{len .RepoDigests}}
{{json .RepoTags}} {{json .Config.Cmd}} {{json .Config.Labels}} {{json .RootFS.Layers}}
{{json .Os}} {{json .Size}} {{json .RootFS}}
{{.Config.Env}} {{.Config.Cmd}} {{.Config.Labels}} {{.Config.ExposedPorts}} {{.Config.Volumes}}
{{.Config.OnBuild}} {{.Config.Shell}} {{json .Config.OnBuild}} {{.Config.Healthcheck}} {{.Config.WorkingDir}}|
{{.Config.Labels.vendor}} {{index .Config.Labels "a.b"}} {{.Config.Labels.nope}} {{index .Config.Labels "nope"}}|
{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}
{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$e}}{{end}}
{{range .Config.Env}}{{println .}}{{end}}
{{range $p, $_ := .Config.ExposedPorts}}{{$p}} {{else}}none{{end}}
{{join .Config.Cmd " "}} {{upper .Os}} {{lower .Architecture}} {{title .Os}} {{slice .ID 7 19}} {{truncate .ID 15}}
{{index (split .ID ":") 1}} {{len .RootFS.Layers}} {{index .RootFS.Layers 0}} {{pad .Os 1 2}}|
{{printf "%-10s|%5d|%q|%x|%v|%T" .Os .Size .Architecture .Os .Config.Env .Size}}
{{if eq .Os "linux"}}yes{{else if eq .Os "windows"}}no{{else}}?{{end}} {{with .Author}}{{.}}{{else}}nobody{{end}}
{{if and (eq .Os "linux") (gt .Size 100) (not .Config.Tty)}}x{{end}}
{{$os := .Os}}{{with .Config}}{{$os}}/{{$.Architecture}} {{.User}}{{end}}
{{- /* a comment */ -}} {{.Os -}}   /   {{- .Architecture}}
{{define "x"}}<{{.}}>{{end}}{{template "x" .Os}}{{block "y" .}}{{.Architecture}}{{end}}
{{html .Comment}} {{js .Comment}} {{urlquery .Comment}} {{json .Comment}} {{.Comment}}
{{.Created}} {{.Variant}}|{{.OsVersion}}|{{.Author}}|{{.DockerVersion}}
{{.Nope}}
{{.Config.Nope.X}}
{{.Os.X}}
{{index .RepoTags 99}}
{{upper .Config}}
{{foo}}
{{.Os
{{if .Os}}
plain text
"""
LINES = [
    *(f"image inspect -f {shlex.quote(each)} @name" for each in INSPECT.split("\n") if each),
    "image inspect -f {{.Os}} @name @name",
    "image inspect -f {{.Os}} no/such:image",
    "image ls @name --format json",
    "image ls @name --format '{{json .}}'",
    "image ls @repository --format table",
    "image ls @repository --format raw",
    "image ls @repository --format raw --digests",
    "image ls @repository -q --format raw",
    "image ls @repository --digests",
    "image ls @repository --no-trunc",
    "image ls @repository --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.Digest}}'",
    "image ls @repository --format '{{.CreatedAt}}|{{.CreatedSince}}|{{.VirtualSize}}'",
    "image ls @repository --format 'table {{.ID}}\\t{{.Tag}}\\t{{.CreatedAt}}'",
    "image ls @repository --format 'table {{.ID}}\\t{{.Tag}}' --digests",
    "image ls @repository --format 'table {{upper .Tag}} {{printf \"%20s\" .Size}}\\t{{.Nope2}}'",
    "image ls @repository --format 'table {{.Repository}}\\n{{.Tag}}\\t{{.ID}}\\t{{.Size}}'",
    "image ls @repository --format '{{.Nope}}'",
    "image ls @repository --format '{{.Tag'",
    "image ls @repository --format text",
    "image ls no/such --format 'table {{.Tag}}\\t{{.ID}}'",
    "image ls no/such --format '{{.Nope}}'",
    "image ls @repository -q --format '{{.Tag}}'",
    "history @name --format json",
    "history @name --format '{{json .}}'",
    "history @name --format raw",
    "history @name --human=false --no-trunc",
    "history @name --format 'table {{.ID}}\\t{{.Size}}\\t{{.Comment}}'",
    "history @name --format '{{.CreatedAt}} {{printf \"%.8s\" .CreatedBy}} {{.Size}}'",
    "history @name --format '{{.Tags}}'",
    "version --format '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}'",
    "version --format '{{json .Server.Components}}'",
    "version --format '{{json .Server}}'",
    "version --format '{{range .Server.Components}}{{.Name}}={{.Version}} {{end}}'",
    "version --format '{{.Server.Os}}/{{.Server.Arch}}{{\"\\t\"}}{{.Server.Platform.Name}}'",
    "version --format '{{.Server.Nope}}'",
    "version --format '{{.Server'",
    "events --since @since --until @until --filter type=image --format '{{.Status}} {{.ID}}'",
    "events --since @since --until @until --filter type=image --format '{{json .}}'",
    "events --since @since --until @until --filter type=image --format json",
    "events --since @since --until @until --filter type=image --format '{{.Type}} {{.Action}} {{.Actor.ID}}'",
    "events --since @since --until @until --filter type=image --format '{{.Actor.Attributes.name}} {{.Time}}'",
    "events --since @since --until @until --filter type=image --format '{{.Scope}}{{.From}}'",
    "events --since @since --until @until --format '{{.Nope}}'",
    "events --since @since --until @until --format '{{.Type'",
]


def docker(*line: str) -> tuple[int, list[str]]:
    """Run docker's command line; return its exit status and the lines that it writes."""
    whole = (str(engines.newest_docker_cli()), *line)
    done = subprocess.run(whole, capture_output=True, timeout=90, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, sorted(done.stdout.decode().split("\n"))


def ours(*line: str) -> tuple[int, list[str]]:
    """Run ours, in this process, whose start would take longer than all the rest."""
    done = CliRunner().invoke(app, line[1:] if line[0] in ("image", "system") else line, obj=Session())
    return done.exit_code, sorted(done.stdout.split("\n"))


@pytest.fixture
async def image(engine: ImageService, registry: str) -> AsyncGenerator[str, None]:
    """An image with two names, whose age is the same to two programs that run one after the other."""
    repository = f"{registry}/templates-{secrets.token_hex(4)}"
    layer, created = root_file_system(1_234_567), "2024-05-01T10:11:12Z"
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "comment": "a <b> & 'c' é",
        "config": {
            "Cmd": ["/bin/sh", "-c", "a  b"],
            "Env": ["A=b", "C=d e"],
            "Labels": {"vendor": "me", "a.b": "c <d>"},
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": created, "created_by": "COPY <x> & y", "comment": "hello  there"}],
    }
    names = [f"{repository}:1", f"{repository}:two"]
    manifest = [{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]
    await engine.load(
        tar_of({"config.json": json.dumps(config), "layer.tar": layer, "manifest.json": json.dumps(manifest)})
    )
    yield names[0]
    for name in names:
        await engine.remove(name, force=True)


@pytest.mark.engine
@pytest.mark.parametrize("command", ["image inspect", "image ls", "history", "version", "events"])
async def test_both_command_lines_write_the_same(image: str, engine: ImageService, command: str) -> None:
    since, repository = int(time.time()), image.rpartition(":")[0]
    await engine.tag(image, f"{repository}:three")
    await engine.remove(f"{repository}:three")
    # Up to a time that has not come yet: docker waits until then, and has seen all that happened before.
    places = {"@name": image, "@repository": repository, "@since": str(since), "@until": str(int(time.time()) + 2)}
    wrong: list[str] = []
    lines = [line for line in LINES if line.startswith(f"{command} ")]
    assert lines
    for line in lines:
        words = [places.get(word, word) for word in shlex.split(line)]
        theirs, mine = await asyncio.to_thread(docker, *words), await asyncio.to_thread(ours, *words)
        if engine_is("podman") and command == "events":
            # Podman leaves some out, at random, of events that are over; here they are asked for until all are there.
            if theirs[0] != mine[0] or not set(theirs[1]) <= set(mine[1]):
                wrong.append(f"{words}\n  docker {theirs}\n  here   {mine}")
        elif theirs != mine:
            wrong.append(f"{words}\n  docker {theirs}\n  here   {mine}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.engine
async def test_the_document_of_an_image_is_the_same(image: str) -> None:
    """In whole; the docker CLI leaves `<`, `>` and `&` in the form that an Engine has given them."""
    for more in ([], ["-f", "json"]):
        found: list[str] = []
        for program in (docker, ours):
            status, lines = await asyncio.to_thread(program, "image", "inspect", image, *more)
            assert status == 0
            text = "\n".join(lines)
            found.append(text.replace(r"\u003c", "<").replace(r"\u003e", ">").replace(r"\u0026", "&"))
        assert found[0] == found[1]


@pytest.mark.engine
async def test_the_disk_usage_of_images_is_the_line_that_docker_writes(image: str) -> None:
    wanted = "{{.Type}} {{.TotalCount}} {{.Size}} {{.Reclaimable}} {{.Active}}"
    theirs = await asyncio.to_thread(docker, "system", "df", "--format", wanted)
    mine = await asyncio.to_thread(ours, "df", "--format", wanted)
    assert [line for line in theirs[1] if line.startswith("Images")] == [line for line in mine[1] if line]
    listed = "{{range .Images}}{{.ID}} {{.Repository}} {{.Tag}} {{.Size}}\n{{end}}"
    theirs = await asyncio.to_thread(docker, "system", "df", "-v", "--format", listed)
    mine = await asyncio.to_thread(ours, "df", "-v", "--format", listed)
    if not engine_is("podman"):  # of which docker's command line shows the tag as repository
        assert mine == theirs
        assert any(f" {image.rpartition(':')[0]} " in line for line in mine[1])


@pytest.mark.engine
async def test_the_format_of_lists_in_the_configuration_counts(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"imagesFormat": "table {{.Tag}}\\t{{.Repository}}"}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for more in ([], ["-q"], ["--format", "{{.ID}}"], ["--digests"]):
        line = ["image", "ls", image.rpartition(":")[0], *more]
        assert await asyncio.to_thread(ours, *line) == await asyncio.to_thread(docker, *line)

"""The README's Python runs as it is printed, in its order, in one directory, on a real Engine."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

import engines
from aiodocker_images import ImageService
from tests.support.tars import root_file_system

pytestmark = pytest.mark.once

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def hub_host(registry: str) -> Generator[str, None, None]:
    """The address of an Engine for which the private registry stands in for Docker Hub."""
    with engines.Engine(config={"registry-mirrors": [f"http://{registry}"]}) as engine:
        yield engine.host


async def fill_the_registry(engine_host: str, name: str) -> str | None:
    async with ImageService(engine_host) as images:
        await images.import_image(root_file_system(), reference=name)
        pushed = await images.push(name)
        await images.remove(name)
    return pushed.digest


async def remove(host: str, *names: str) -> None:
    async with ImageService(host) as images:
        for name in names:
            await images.remove(name)


def test_every_python_block_runs_as_printed(engine_host: str, hub_host: str, registry: str, tmp_path: Path) -> None:
    digest = asyncio.run(fill_the_registry(engine_host, f"{registry}/library/alpine:3.20"))
    environment = os.environ | {"DOCKER_HOST": hub_host, "REGISTRY": registry}
    (tmp_path / "Dockerfile").write_text("FROM alpine:3.20\nLABEL made=here\n")
    printed: list[str] = []
    for block in BLOCKS:
        if "pull_stream" in block:  # of an image that is there, there is no progress to print
            asyncio.run(remove(hub_host, "alpine:3.20", f"{registry}/mirror/alpine:3.20"))
        run = subprocess.run(
            [sys.executable, "-W", "error", "-X", "dev", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, f"{block}\n{run.stderr}"
        assert run.stderr == ""
        printed.append(run.stdout)
    pull, push, archive, credentials, stream, build, events, copy, mirroring, endpoint, error = printed
    assert pull == f"{digest} is new\n"
    assert str(digest) in push
    assert re.fullmatch(r"[1-9]\d* sha256:[0-9a-f]{64}\n\('alpine:3\.20',\) \(\)\n", archive)
    assert credentials == "RegistryAuth(username='robot', password=***)\n"
    assert re.search(r"^[0-9a-f]{12} Pull complete 1\.0$", stream, re.MULTILINE)
    assert re.search(r"^Step 1/2 : FROM alpine:3\.20\n(.*\n)*built sha256:[0-9a-f]{64}\n\Z", build)
    assert re.search(r"^\S+ \S+ tag sha256:[0-9a-f]{64}$", events, re.MULTILINE)
    assert re.fullmatch(rf"\['3\.20'\]\n{digest} 0 [1-9]\d*\nTrue\n", copy)
    assert f"mirrored {registry}/copies/alpine:3.20 digest preserved: yes\n" in mirroring
    assert "\n1 mirrored, 1 failed\nfailed: alpine:no-such-tag -> " in mirroring
    assert endpoint == f"{hub_host} (from DOCKER_HOST)\n"
    assert error.startswith(f"not there: pull {registry}/mirror/alpine:no-such-tag: manifest ")

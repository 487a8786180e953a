"""The Python of the README and of the site's pages runs as it is printed, in its order, on a real Engine."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

import engines
from aiodocker_images import ImageService
from tests.support.tars import root_file_system

pytestmark = pytest.mark.once

ROOT: Final = Path(__file__).parents[2]
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# These have tests of their own: what is printed in them is tests of pytest.
OTHERWISE_TESTED: Final = {"testing.md", "testing-your-code.md"}

# A block is a whole program, or what stands in a coroutine, after the blocks above it on its page.
RUNNER: Final = """
import ast, asyncio, os, sys
from aiodocker_images import ImageService, RegistryService

async def main():
    async with ImageService() as images, RegistryService() as registries:
        names = {"__name__": "page", "images": images, "registries": registries, "registry": os.environ["REGISTRY"]}
        for number, block in enumerate(sys.argv[1:]):
            print(f"--- {number}", flush=True)
            code = compile(block, f"block {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if result is not None:
                await result

asyncio.run(main())
"""


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


PAGES: Final = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.name not in OTHERWISE_TESTED and blocks(page)
]  # fmt: skip


@pytest.fixture
def hub_host(registry: str) -> Generator[str, None, None]:
    """The address of an Engine for which the private registry stands in for Docker Hub."""
    with engines.Engine(config={"registry-mirrors": [f"http://{registry}"]}) as engine:
        yield engine.host


async def fill_the_registry(engine_host: str, *names: str) -> str | None:
    async with ImageService(engine_host) as images:
        await images.import_image(root_file_system(), reference=names[0])
        for name in names[1:]:
            await images.tag(names[0], name)
        digests = {(await images.push(name)).digest for name in names}
        for name in names:
            await images.remove(name)
    (digest,) = digests
    return digest


async def prepare(host: str, pulled: str | None) -> None:
    """Have alpine:3.20 on the Engine or not, so that a pull of it does something or a push can."""
    async with ImageService(host) as images:
        for image in await images.list():
            await images.remove(image.id, force=True)
        if pulled is not None:
            await images.pull(pulled)


def run(code: str, *arguments: str, host: str, registry: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=directory,
        env=os.environ | {"DOCKER_HOST": host, "REGISTRY": registry},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def test_every_python_block_runs_as_printed(engine_host: str, hub_host: str, registry: str, tmp_path: Path) -> None:
    digest = asyncio.run(
        fill_the_registry(engine_host, f"{registry}/library/alpine:3.20", f"{registry}/mirror/alpine:3.20")
    )
    printed: dict[str, str] = {}
    for page in PAGES:
        directory = tmp_path / page.stem
        directory.mkdir()
        (directory / "Dockerfile").write_text("FROM alpine:3.20\nLABEL made=here\n")
        pulls_first = page.name in ("README.md", "getting-started.md", "progress.md", "pull-and-push.md")
        asyncio.run(prepare(hub_host, None if pulls_first else "alpine:3.20"))
        snippets = blocks(page)
        if snippets[0].startswith("import asyncio\n"):  # a whole program
            printed[page.name] = run(snippets.pop(0), host=hub_host, registry=registry, directory=directory)
            assert printed[page.name] == f"{digest} is new\n"
        if page.name in ("credentials.md", "registries.md", "mirroring.md"):
            asyncio.run(tag_and_push(hub_host, f"{registry}/mirror/alpine:3.20"))
        printed[page.name] = run(RUNNER, *snippets, host=hub_host, registry=registry, directory=directory)
    readme, copying = printed["README.md"], printed["registries.md"]
    assert re.search(r"^\d+ \('alpine:3\.20',\)$", readme, re.MULTILINE)
    assert re.search(r"^built sha256:[0-9a-f]{64}$", readme, re.MULTILINE)
    assert f"mirrored {registry}/copies/alpine:3.20 digest preserved: yes\n" in readme
    assert f"not there: pull {registry}/mirror/alpine:no-such-tag: manifest " in readme
    assert re.search(r"^[0-9a-f]{12} Pull complete 1\.0$", printed["progress.md"], re.MULTILINE)
    assert "\nStep 1/2 : FROM alpine:3.20\n" in printed["build.md"]
    assert re.search(r"^built sha256:[0-9a-f]{64}\n\Z", printed["build.md"], re.MULTILINE)
    assert re.search(r"^\S+ \S+ tag sha256:[0-9a-f]{64}$", printed["events.md"], re.MULTILINE)
    assert re.search(rf"^\['3\.20'\]\n{digest} \d+ \d+\nTrue\n\Z", copying, re.MULTILINE)
    # The README's block has put it there already.
    assert "\n1 skipped, 1 failed\nfailed: alpine:no-such-tag -> " in printed["mirroring.md"]
    assert printed["credentials.md"].endswith("RegistryAuth(username='robot', password=***)\n")
    assert f"{hub_host} (from DOCKER_HOST)\n" in printed["connecting.md"]


async def tag_and_push(host: str, name: str) -> None:
    async with ImageService(host) as images:
        await images.tag("alpine:3.20", name)

"""`outdated` compares what the Engine has with what registries have, and pulls nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from aiodocker_images import ImageService
from aiodocker_images.cli.app import main
from aiodocker_images.testing import FakeEngine, FakeRegistry, Fault, image
from tests.conftest import Leftovers


class Site:
    """An Engine that has pulled app:1 and app:2, of which the second is another one in the registry by now."""

    def __init__(self, engine: FakeEngine, registry: FakeRegistry) -> None:
        self.engine = engine
        self.registry = registry
        self.same, self.other = registry.name("app:1"), registry.name("app:2")

    async def run(self, *arguments: str) -> int:
        """Run the command in a thread: Engine and registry are in this one."""
        return await asyncio.to_thread(main, ["-H", self.engine.host, "outdated", *arguments])


@pytest.fixture(params=["docker28", "docker28c", "podman"])
async def site(request: pytest.FixtureRequest, leftovers: Leftovers) -> AsyncGenerator[Site, None]:
    before = leftovers.now()
    async with FakeRegistry() as registry, FakeEngine(like=request.param) as engine:
        site = Site(engine, registry)
        registry.put("app:1", image())
        registry.put("app:2", image())
        async with ImageService(engine.host) as images:
            await images.pull(site.same)
            await images.pull(site.other)
        registry.put("app:2", image([{"etc/motd": "new"}]))
        yield site
        await engine.idle()
        await registry.idle()
    await leftovers.settle(before)


async def test_the_images_that_are_others_in_the_registry_are_shown(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    pulls = site.engine.count("pull")
    assert await site.run() == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["IMAGE", "HELD", "LATEST"]
    name, held, latest = line.split()
    assert name == site.other
    assert held.startswith("sha256:")
    assert latest != held
    assert site.engine.count("pull") == pulls


async def test_quiet_has_names_alone_and_json_has_all_that_is_known(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await site.run("-q") == 0
    assert capsys.readouterr().out == f"{site.other}\n"
    assert await site.run("--json", "--all", site.same, site.other) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["reference"], each["update_available"]) for each in found] == [(site.same, False), (site.other, True)]
    assert found[0]["latest"] in found[0]["held"]


async def test_an_image_that_the_engine_does_not_have_is_outdated(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.registry.put("app:3", image())
    assert await site.run(site.registry.name("app:3")) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == [site.registry.name("app:3"), "-"]


async def test_a_failure_for_one_image_leaves_the_others(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.registry.fail(Fault.refuse(403, code="DENIED"), on="manifest", times=None, reference="1")
    assert await site.run("-q") == 3
    written = capsys.readouterr()
    assert written.out == f"{site.other}\n"
    assert "aiodocker-images: digest " in written.err


async def test_nothing_to_show_is_no_failure(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert await site.run(site.same) == 0
    assert capsys.readouterr().out == ""

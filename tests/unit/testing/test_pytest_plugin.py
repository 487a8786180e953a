"""The pytest plugin: found without configuration, in every kind of test, and for nothing where no test uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.program

COROUTINE_TEST = """
    import asyncio, pytest
    from aiodocker_images.testing import image

    {mark}
    async def test_it(fake_registry):
        fake_registry.put("app:1.0", image())
        host, port = fake_registry.host.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v2/app/manifests/1.0 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        assert (await reader.read()).endswith(image().data)
        writer.close()
        await writer.wait_closed()
        await fake_registry.idle()
"""

ENGINE_TEST = """
    import pytest
    from aiodocker_images import ImageService
    from aiodocker_images.testing import image

    opened = []

    {mark}
    async def test_it(fake_engine, images):
        opened.append(images)
        fake_engine.registry.put("alpine:3.20", image())
        await images.pull("alpine:3.20")
        assert list(fake_engine.images) == ["alpine:3.20"]

    {mark}
    async def test_the_service_was_closed_in_the_loop_of_its_test():
        with pytest.raises(Exception, match="closed"):
            await opened[0].ping()

    class TestIt:
        {mark}
        @pytest.mark.parametrize("fake_engine", [{{"like": "podman"}}], indirect=True)
        async def test_a_method(self, images):
            assert (await images.ping()).server.startswith("Libpod/")

    def test_a_plain_one_closes_it_itself(images):
        import asyncio
        async def use():
            async with images:
                return await images.list()
        assert asyncio.run(use()) == []
"""

PLAIN_TEST = """
    import urllib.request, pytest

    @pytest.mark.parametrize("fake_registry", [{"like": "crane"}], indirect=True)
    def test_it(fake_registry):
        assert fake_registry.behaviour.name == "crane"
        assert urllib.request.urlopen(fake_registry.url + "/v2/").status == 200

    def test_nothing_but_the_plugin_is_imported(request):
        import sys
        assert "aiodocker_images.testing.pytest_plugin" in sys.modules
        assert "aiodocker_images.testing.registry" in sys.modules  # the test above
"""

UNUSED = """
    def test_it():
        import sys
        assert "aiodocker_images.testing.pytest_plugin" in sys.modules
        kit = "aiodocker_images.testing."
        assert not {"aiohttp", "msgspec", kit + "registry", kit + "engine"} & set(sys.modules)
"""


def run(directory: Path, test: str, *options: str) -> str:
    """Run pytest on one file, with the plugins that are installed and no configuration but an empty one."""
    lines = test.strip("\n").splitlines()
    (directory / "test_it.py").write_text("\n".join(line.removeprefix("    ") for line in lines))
    # pytest-asyncio 1.x itself warns where its default scope is not configured.
    (directory / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings =\n error\n ignore:The configuration option .asyncio_default_fixture_loop_scope\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", ("--asyncio-mode=auto",)),
        ("@pytest.mark.asyncio", ("--asyncio-mode=strict",)),
        ("@pytest.mark.anyio", ("-p", "no:asyncio", "-p", "anyio")),
    ],
    ids=["pytest-asyncio auto", "pytest-asyncio strict", "anyio"],
)
def test_the_fixture_works_in_coroutine_tests(tmp_path: Path, mark: str, options: tuple[str, ...]) -> None:
    test = COROUTINE_TEST.format(mark=mark)
    if "anyio" in mark:
        test += "\n    @pytest.fixture\n    def anyio_backend():\n        return 'asyncio'\n"
    assert "1 passed" in run(tmp_path, test, *options)


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", ("--asyncio-mode=auto",)),
        ("@pytest.mark.asyncio", ("--asyncio-mode=strict",)),
        ("@pytest.mark.anyio", ("-p", "no:asyncio", "-p", "anyio")),
    ],
    ids=["pytest-asyncio auto", "pytest-asyncio strict", "anyio"],
)
def test_a_service_on_a_fake_engine_is_there_and_is_closed(tmp_path: Path, mark: str, options: tuple[str, ...]) -> None:
    test = ENGINE_TEST.format(mark=mark)
    if "anyio" in mark:
        test += "\n    @pytest.fixture\n    def anyio_backend():\n        return 'asyncio'\n"
    assert "4 passed" in run(tmp_path, test, *options)


def test_the_fixture_works_in_plain_tests_and_takes_options(tmp_path: Path) -> None:
    assert "2 passed" in run(tmp_path, PLAIN_TEST)


def test_pytest_starts_with_nothing_of_it_but_the_plugin(tmp_path: Path) -> None:
    assert "1 passed" in run(tmp_path, UNUSED, "-p", "no:asyncio")

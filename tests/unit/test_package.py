"""The package itself: what its import brings, and what it has."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import aiodocker_images

EXTRAS = ("rich", "uvloop")


def imported(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has after the code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


PACKAGE = importlib.import_module("aiodocker_images")
HOMES: tuple[str, ...] = PACKAGE._HOMES
NAMES = {
    name: f"aiodocker_images.{home}"
    for home in HOMES
    for name in importlib.import_module(f"aiodocker_images.{home}").__all__
}


def test_every_public_name_has_one_home() -> None:
    assert sorted([*NAMES, "__version__"]) == PACKAGE.__all__
    assert sum(len(importlib.import_module(f"aiodocker_images.{home}").__all__) for home in HOMES) == len(NAMES)
    assert set(PACKAGE.__all__) <= set(dir(aiodocker_images))


def test_checkers_and_editors_read_the_same_homes() -> None:
    tree = ast.parse(Path(aiodocker_images.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    assert {node.module for node in imports if node.names[0].name == "*"} == set(HOMES)


@pytest.mark.parametrize(("name", "home"), NAMES.items(), ids=NAMES)
def test_a_public_name_is_what_its_home_has(name: str, home: str) -> None:
    """Looked for again, as at its first use."""
    if name in vars(aiodocker_images):
        delattr(aiodocker_images, name)
    assert getattr(aiodocker_images, name) is getattr(importlib.import_module(home), name)


@pytest.mark.program
def test_a_module_of_public_names_is_there_without_its_import() -> None:
    imported("import aiodocker_images; assert aiodocker_images.errors.DockerError; aiodocker_images.service")


@pytest.mark.parametrize(
    "before",
    ["", "from aiodocker_images import MirrorJob", "import aiodocker_images._mirror", "import aiodocker_images.cli"],
)
@pytest.mark.program
def test_mirror_is_the_function_whatever_was_imported_before(before: str) -> None:
    imported(f"{before}\nfrom aiodocker_images import mirror\nassert not hasattr(mirror, '__path__')\nmirror.__code__")


def test_no_public_name_is_also_that_of_a_module() -> None:
    """One would hide the other: `import aiodocker_images.x.y as z` takes what the package has for x."""
    modules = {module.name for module in pkgutil.iter_modules(aiodocker_images.__path__)}
    assert not modules & set(PACKAGE.__all__)


@pytest.mark.program
def test_what_is_for_a_cluster_is_there_without_what_the_extra_brings() -> None:
    modules = imported("from aiodocker_images import mirror_on_cluster\nmirror_on_cluster.__code__")
    assert not modules & {"distributed", "dask", "tenacity"}


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="'aiodocker_images' has no attribute 'no_such_name'"):
        _ = aiodocker_images.no_such_name  # type: ignore[attr-defined]  # the point


def test_what_asks_for_a_private_name_imports_nothing() -> None:
    """As inspect and doctest do, for `__wrapped__`."""
    modules = imported("import aiodocker_images\nassert not hasattr(aiodocker_images, '__wrapped__')")
    assert {module for module in modules if module.startswith("aiodocker_images.")} == {"aiodocker_images._version"}


@pytest.mark.program
def test_a_public_name_is_imported_with_what_it_needs_alone() -> None:
    """Not even aiohttp for a reference."""
    modules = imported("from aiodocker_images import Reference")
    assert "aiodocker_images.reference" in modules
    assert not modules & {"aiohttp", "msgspec", "asyncio"}


@pytest.mark.program
def test_a_star_brings_every_public_name() -> None:
    imported(
        "from aiodocker_images import *\nimport aiodocker_images\nfor name in aiodocker_images.__all__: eval(name)"
    )


@pytest.mark.program
def test_the_service_brings_nothing_that_an_extra_brings() -> None:
    modules = imported("from aiodocker_images import *")
    assert "aiohttp" in modules
    assert not modules & set(EXTRAS)

"""CONTRIBUTING's map names every folder and file at the top of the package, and each file says what is in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import aiodocker_images

PACKAGE = Path(aiodocker_images.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
ROW = re.compile(r"^\| (`[^|]+`) \| ([^|]+) \|$", re.MULTILINE)


def mapped() -> list[str]:
    """Return the folders and files that the map names."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    table = text.partition("| in `aiodocker_images` | what is in it |")[2].partition("\n\n")[0]
    return [name for names, _ in ROW.findall(table) for name in re.findall("`([^`]+)`", names)]


def test_the_map_names_each_folder_and_each_file_at_the_top_once() -> None:
    folders = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert sorted(mapped()) == sorted(folders | files)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_the_first_line_of_each_file_says_what_is_in_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    first = docstring.splitlines()[0]
    assert len(first.split()) >= 4, first
    assert first.endswith((".", ":")), first

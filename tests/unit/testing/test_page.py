"""The pages about testing: their examples run as printed, and they name every fault, registry and Engine there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from aiodocker_images.testing import BEHAVIOURS, ENGINES, Fault
from aiodocker_images.testing.engine import KINDS

pytestmark = pytest.mark.program

DOCS: Final = Path(__file__).parents[3] / "docs"
PAGE: Final = (DOCS / "testing.md").read_text(encoding="utf-8")
ENGINE_PAGE: Final = (DOCS / "testing-your-code.md").read_text(encoding="utf-8")
EXAMPLES: Final = [
    (page, number, block)
    for page, text in (("registry", PAGE), ("engine", ENGINE_PAGE))
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("block", [block for *_, block in EXAMPLES], ids=[f"{page} {at}" for page, at, _ in EXAMPLES])
def test_the_example_runs_as_printed(tmp_path: Path, block: str) -> None:
    (tmp_path / "test_it.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^[1-9][0-9]* passed", ended.stdout, re.MULTILINE), ended.stdout + ended.stderr


def test_every_fault_of_a_registry_is_named() -> None:
    made = {name for name, member in vars(Fault).items() if isinstance(member, classmethod)}
    assert {name for name in made if f"`{name}(" not in PAGE} == {"in_stream_error"}  # which is an Engine's


def test_every_fault_of_an_engine_is_named() -> None:
    assert [name for name in KINDS if f"`{name}(" not in ENGINE_PAGE] == []


def test_every_registry_is_named() -> None:
    assert [name for name in BEHAVIOURS if f'"{name}"' not in PAGE] == []


def test_every_engine_is_named() -> None:
    assert [name for name in ENGINES if f'"{name}"' not in ENGINE_PAGE] == []

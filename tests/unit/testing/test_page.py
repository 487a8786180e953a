"""The page about testing: its example runs as printed, and it names every fault and every registry there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiodocker_images.testing import BEHAVIOURS, Fault

pytestmark = pytest.mark.program

PAGE = (Path(__file__).parents[3] / "docs" / "testing.md").read_text(encoding="utf-8")


def test_the_example_runs_as_printed(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_it.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_every_fault_of_a_registry_is_named() -> None:
    made = {name for name, member in vars(Fault).items() if isinstance(member, classmethod)}
    assert {name for name in made if f"`{name}(" not in PAGE} == {"in_stream_error"}  # which is an Engine's


def test_every_registry_is_named() -> None:
    assert [name for name in BEHAVIOURS if f'"{name}"' not in PAGE] == []

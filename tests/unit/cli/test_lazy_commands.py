"""Commands are listed as they describe themselves, and imported when they are called."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from aiodocker_images.cli.app import Program

LISTED = {each.name: each for each in Program.listed}


@pytest.mark.parametrize("name", LISTED)
def test_a_command_is_listed_with_the_first_paragraph_of_its_docstring(name: str) -> None:
    module, _, function = LISTED[name].place.partition(".")
    documentation = inspect.getdoc(getattr(import_module(f"aiodocker_images.cli.commands.{module}"), function))
    assert documentation is not None
    assert LISTED[name].summary == " ".join(documentation.split("\n\n")[0].split())


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        pytest.param(["--version"], {}, id="version"),
        pytest.param(["--help"], {}, id="help"),
        pytest.param(
            [],
            {"_AIODOCKER_IMAGES_COMPLETE": "complete_bash", "COMP_WORDS": "aiodocker-images pu", "COMP_CWORD": "1"},
            id="completion of a command",
        ),
    ],
)
def test_what_needs_no_engine_imports_neither_http_nor_the_display(
    arguments: list[str], environment: dict[str, str]
) -> None:
    code = (
        "import sys\n"
        "from aiodocker_images.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*(sorted(name for name in sys.modules if '.' not in name)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ("push" if environment else "aiodocker-images") in done.stdout
    assert {"typer", "aiodocker_images"} <= {*done.stderr.split()}
    assert not {"aiohttp", "rich", "asyncio", "msgspec", "yarl"} & {*done.stderr.split()}

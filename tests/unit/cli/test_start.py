"""How the program begins and ends: Ctrl-C before and after there is anything to do."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support.terminals import Terminal

pytestmark = pytest.mark.program

# What is imported, and by which command line.
IMPORTS = {
    "aiodocker_images.cli": "--help",
    "typer": "--help",
    "aiodocker_images.cli.commands.images": "ls --help",
    "asyncio": "ls --help",
    "aiohttp": "ls --help",
    "ssl": "ls --help",
    "msgspec": "ls --help",
    "aiodocker_images.cli.commands.mirror": "mirror --help",
}


@pytest.mark.parametrize(("module", "line"), IMPORTS.items())
def test_ctrl_c_while_it_begins_ends_it_without_a_word(module: str, line: str) -> None:
    """Whatever is just being imported: by the signal itself, so that a shell's loop ends, too."""
    code = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from aiodocker_images.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_at_any_moment_shows_nothing_of_the_program_s_inside() -> None:
    """A traceback through `main`, that is; before that begins, Python itself may show one."""
    for hundredths in range(0, 60, 3):
        with Terminal("-H", "/no/such.sock", "ls") as terminal:
            time.sleep(hundredths / 100)
            terminal.send(signal.SIGINT)
            with contextlib.suppress(AssertionError):
                terminal.wait()
            shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.written.decode())  # Python 3.13 colours tracebacks
            # The first lines of the module itself can be hit too, where no program can do anything about it yet.
            assert "in main" not in shown
            assert f"{os.sep}cli{os.sep}" not in shown
            assert terminal.process.returncode in {-signal.SIGINT, 130, 1}, shown


@pytest.mark.parametrize("ignored", [True, False], ids=["ignored", "not ignored"])
def test_a_signal_that_is_ignored_stays_so(ignored: bool) -> None:
    """As a script's `&` has it."""
    code = (
        f"import signal\nsignal.signal(signal.SIGINT, signal.{'SIG_IGN' if ignored else 'default_int_handler'})\n"
        "from aiodocker_images.__main__ import main\nmain(['-H', '/no/such.sock', 'ls'])\n"
        "print(signal.getsignal(signal.SIGINT).name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == ("SIG_IGN\n" if ignored else "SIG_DFL\n")

"""A stand-in for OpenSSH's ssh that does as a test says: forwards, refuses, stays silent, dies."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

_PROGRAM = r"""
import os, pathlib, signal, socket, sys, threading, time

home = pathlib.Path(__file__).parent
behaviour = (home / "behaviour").read_text()
arguments = sys.argv[1:]
with (home / "calls").open("a") as log:
    log.write(repr((os.getpid(), arguments, os.getcwd())) + "\n")


def forward(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(listener):
    while True:
        here, _ = listener.accept()
        if behaviour == "refuses connections":
            os.write(2, b"channel 2: open failed: connect failed: No such file or directory\n")
            here.close()
            continue
        there = socket.socket(socket.AF_UNIX)
        there.connect((home / "daemon").read_text())
        for pair in ((here, there), (there, here)):
            threading.Thread(target=forward, args=pair, daemon=True).start()


if behaviour == "denies":
    os.write(2, b"Welcome to the machine!\n\nme@remote: Permission denied (publickey).\n")
    sys.exit(255)
if behaviour == "prompts":
    os.write(2, b"password: ")
    try:
        open("/dev/tty").readline()
    except OSError as error:
        os.write(2, b"\nno terminal\n")
    sys.exit(255)
if behaviour == "ignores the end":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if behaviour in ("is silent", "ignores the end"):
    while True:
        time.sleep(60)
if behaviour == "never stops talking":
    while True:
        os.write(2, b"x" * 65536)
        os.write(1, b"x" * 65536)
if behaviour != "makes no socket":
    local, _, remote = arguments[arguments.index("-L") + 1].partition(":")
    listener = socket.socket(socket.AF_UNIX)
    if "StreamLocalBindUnlink=yes" in arguments and os.path.exists(local):
        os.unlink(local)
    listener.bind(local)
    listener.listen(128)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
os.write(2, b"docker: command not found\n")
if behaviour == "has a talkative shell":
    os.write(1, b"Hello!\nunix:///not/this one.sock\n" + b"x" * 300_000 + b"\n\n")
elif behaviour.startswith("unix://"):
    os.write(1, behaviour.encode() + b"\n\n")
else:
    os.write(1, b"\n")
while os.read(0, 65536):
    pass
os.unlink(local)
"""


class FakeSSH:
    """A directory with the program, to be put on the PATH. `calls` has what it was called with."""

    def __init__(self, directory: Path, daemon: Path) -> None:
        self.directory = directory
        program = directory / "ssh"
        program.write_text(f"#!{sys.executable} -IS\n{_PROGRAM}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (directory / "daemon").write_text(str(daemon))
        self.behave("forwards")

    def behave(self, behaviour: str) -> None:
        """Say how it is to behave from its next start on; `unix://…` is what the remote docker CLI names."""
        (self.directory / "behaviour").write_text(behaviour)

    @property
    def calls(self) -> list[tuple[int, list[str], str]]:
        """The process, the arguments and the working directory of each start."""
        log = self.directory / "calls"
        # What repr() wrote.
        return [eval(line) for line in log.read_text().splitlines()] if log.exists() else []

    def assert_gone(self) -> None:
        """Fail unless every process that was started has ended and was waited for, and its directory is removed."""
        for pid, _, directory in self.calls:
            assert not Path(f"/proc/{pid}").exists()
            assert not Path(directory).exists()

    def wait_until_gone(self, *, within: float = 10) -> None:
        """Return when every process has ended by itself: its owner is no more, and cannot wait for it."""
        until = time.monotonic() + within
        while any(_runs(pid) for pid, _, _ in self.calls):
            assert time.monotonic() < until, "ssh still runs"
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Without anybody to wait for it, it may stay as a zombie.
    return ") Z " not in Path(f"/proc/{pid}/stat").read_text()

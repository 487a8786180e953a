"""Programs are run to their end or killed, and nothing of them is left: no process, descriptor or task."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiodocker_images._aio.program import MAX_INPUT, Ended, ProgramError, find_program, run_program
from tests.conftest import Leftovers

MARK = "TEST_PROGRAM_MARK"  # the variable that every process of a test's program carries


@pytest.fixture
def environ() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], MARK: secrets.token_hex(8)}


def running(environ: dict[str, str]) -> list[str]:
    """List the command lines of the processes that carry the mark and are no zombies."""
    mark, found = f"{MARK}={environ[MARK]}".encode(), list[str]()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


async def nothing_runs(environ: dict[str, str]) -> None:
    """Fail unless all processes are gone soon: init reaps what a killed program had started."""
    async with asyncio.timeout(5):
        while running(environ) or any(thread.name.startswith("wait for") for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


async def shell(
    script: str, environ: dict[str, str], *, time_limit: float = 30, max_output: int = 1 << 16, stdin: bytes = b""
) -> Ended:
    return await run_program(
        ("/bin/sh", "-c", script), environ=environ, time_limit=time_limit, max_output=max_output, stdin=stdin
    )


ENDS: dict[str, tuple[str, int, bytes, bytes]] = {
    "output": ("echo out; echo err >&2", 0, b"out\n", b"err\n"),
    "input": ("cat", 0, b"the input", b""),
    "input by its name": ("cat /dev/stdin", 0, b"the input", b""),
    "input not read": ("exit 3", 3, b"", b""),
    "input closed": ("exec <&-; sleep 0.1; echo out", 0, b"out\n", b""),
    "a signal": ("kill -TERM $$", -15, b"", b""),
    "output closed": ("exec >&- 2>&-; sleep 0.1; exit 4", 4, b"", b""),
    "as much as it may write": ("head -c 65536 /dev/zero", 0, b"\0" * 65536, b""),
    "a child that holds the output": ("sleep 1000 & echo out", 0, b"out\n", b""),
    "a child in a session of its own that does": ("setsid sleep 1000 & sleep 0.2; echo out", 0, b"out\n", b""),
    "no terminal": ("{ echo password: >/dev/tty; } 2>/dev/null || echo none", 0, b"none\n", b""),
    "a background process": ("(trap '' TERM HUP INT; sleep 1000) >/dev/null 2>&1 & echo out", 0, b"out\n", b""),
}


@pytest.mark.parametrize(("script", "status", "output", "errors"), ENDS.values(), ids=ENDS)
async def test_a_program_is_run_to_its_end(
    environ: dict[str, str], leftovers: Leftovers, script: str, status: int, output: bytes, errors: bytes
) -> None:
    before = leftovers.now()
    ended = await shell(script, environ, stdin=b"the input")
    assert (ended.status, ended.output, ended.errors) == (status, output, errors)
    if "setsid" in script:  # what has left the session is nobody's any more, as when a daemon is started
        assert running(environ) == ["sleep 1000 "]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={environ[MARK]}".encode() in (process / "environ").read_bytes():
                    os.kill(int(process.name), 9)
    await nothing_runs(environ)
    await leftovers.settle(before)


KILLED: dict[str, tuple[str, float, str]] = {
    "slow": ("sleep 1000", 0.3, "did not end within 0.3 seconds"),
    "slow, with children": ("sleep 1000 & sleep 1000 | sleep 1000", 0.3, "did not end within 0.3 seconds"),
    "deaf to signals": ("trap '' TERM INT HUP; while :; do sleep 0.1; done", 0.3, "did not end within 0.3 seconds"),
    "stopped": ("kill -STOP $$", 0.3, "did not end within 0.3 seconds"),
    "endless output": ("exec cat /dev/zero", 30, "wrote more than 65536 bytes"),
    "endless errors": ("exec cat /dev/zero >&2", 30, "wrote more than 65536 bytes"),
    "endless both": ("cat /dev/zero & exec cat /dev/zero >&2", 30, "wrote more than 65536 bytes"),
    "a byte too much": ("head -c 65000 /dev/zero; head -c 537 /dev/zero >&2; sleep 1000", 30, "more than 65536 bytes"),
    "endless output of a child": ("cat /dev/zero & wait", 30, "wrote more than 65536 bytes"),
}


@pytest.mark.parametrize(("script", "time_limit", "reason"), KILLED.values(), ids=KILLED)
async def test_a_program_that_goes_too_far_is_killed_with_all_it_started(
    environ: dict[str, str], leftovers: Leftovers, script: str, time_limit: float, reason: str
) -> None:
    before = leftovers.now()
    with pytest.raises(ProgramError, match=reason):
        await shell(script, environ, time_limit=time_limit)
    await nothing_runs(environ)
    await leftovers.settle(before)


@pytest.mark.parametrize("script", ["sleep 1000", "trap '' TERM; sleep 1000 & sleep 1000", "cat /dev/zero"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, None], ids=str)
async def test_a_cancelled_caller_leaves_nothing(
    environ: dict[str, str], leftovers: Leftovers, script: str, steps: int | None
) -> None:
    """At whatever step it is cancelled, and however often."""
    before = leftovers.now()
    task = asyncio.create_task(shell(script, environ, max_output=1 << 40))
    if steps is None:
        while "sleep 1000 " not in running(environ) and "cat /dev/zero " not in running(environ):
            await asyncio.sleep(0.01)
    else:
        for _ in range(steps):
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_runs(environ)
    await leftovers.settle(before)


@pytest.mark.parametrize("steps", [*range(8), None], ids=str)
def test_the_end_of_the_loop_in_the_middle_leaves_nothing(environ: dict[str, str], steps: int | None) -> None:
    """`asyncio.run` cancels all tasks that are left, those that the caller has never seen too."""

    async def begin() -> None:
        running_shell = asyncio.create_task(shell("sleep 1000 & sleep 1000", environ))
        if steps is None:
            while "sleep 1000 " not in running(environ):
                await asyncio.sleep(0.01)
        else:
            for _ in range(steps):
                await asyncio.sleep(0)
        assert not running_shell.done()

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one syscall
    asyncio.run(begin())
    asyncio.run(nothing_runs(environ))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - one syscall


async def test_a_timeout_of_the_caller_passes_as_it_is(environ: dict[str, str]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await shell("sleep 1000", environ)
    await nothing_runs(environ)


async def test_a_program_gets_the_environment_that_is_given_and_no_descriptor(environ: dict[str, str]) -> None:
    ended = await run_program(("/usr/bin/env",), environ={"A": "b", MARK: "x"}, time_limit=30, max_output=1 << 16)
    assert sorted(ended.output.decode().split()) == ["A=b", f"{MARK}=x"]
    inheritable = os.open("/dev/null", os.O_RDONLY)
    try:
        os.set_inheritable(inheritable, True)
        ended = await run_program(("/bin/ls", "/proc/self/fd"), environ=environ, time_limit=30, max_output=1 << 16)
    finally:
        os.close(inheritable)
    assert ended.output.split() == [b"0", b"1", b"2", b"3"]  # the last is the directory itself


async def test_many_at_a_time_are_kept_apart(environ: dict[str, str], leftovers: Leftovers) -> None:
    before = leftovers.now()
    ended = await asyncio.gather(*(shell(f"cat; exit {number}", environ, stdin=b"%d" % number) for number in range(40)))
    assert [(each.status, each.output) for each in ended] == [(number, b"%d" % number) for number in range(40)]
    await leftovers.settle(before)


def test_a_loop_in_another_thread_runs_programs_as_well(environ: dict[str, str]) -> None:
    ended: list[Ended] = []
    thread = threading.Thread(target=lambda: ended.append(asyncio.run(shell("echo out", environ))))
    thread.start()
    thread.join(30)
    assert [each.output for each in ended] == [b"out\n"]


def _not_runnable(directory: Path) -> Iterator[tuple[str, Path, str]]:
    def made(name: str, content: bytes) -> Path:
        path = directory / name
        path.write_bytes(content)
        path.chmod(0o755)
        return path

    yield "no interpreter", made("lost", b"#!/no/such/interpreter\n"), "cannot be run: No such file or directory"
    yield "no program at all", made("text", b"just text\n"), "cannot be run: Exec format error"
    yield "a directory", directory, "cannot be run: Permission denied"
    yield "absent", directory / "absent", "cannot be run: No such file or directory"


async def test_what_cannot_be_run_says_why(tmp_path: Path, environ: dict[str, str], leftovers: Leftovers) -> None:
    before = leftovers.now()
    for _ in range(2):
        for _, path, reason in _not_runnable(tmp_path):
            with pytest.raises(ProgramError, match=f"^{reason}$"):
                await run_program((str(path),), environ=environ, time_limit=30, max_output=1)
        with pytest.raises(ProgramError, match="^cannot be run: "):
            await run_program(("/bin/true",), environ={"A": "b\0"}, time_limit=30, max_output=1)
        with pytest.raises(ProgramError, match="512 bytes"):
            await shell("cat", environ, stdin=b"x" * (MAX_INPUT + 1))
    await leftovers.settle(before)


async def test_a_program_that_cannot_be_waited_for_is_not_left_to_itself(
    environ: dict[str, str], leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = leftovers.now()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ProgramError, match="^cannot be run: can't start new thread$"):
        await shell("sleep 1000", environ)
    await nothing_runs(environ)
    await leftovers.settle(before)


async def test_a_program_reaped_by_somebody_else_counts_as_ended(environ: dict[str, str]) -> None:
    """As an application does that waits for any child of the process."""
    task = asyncio.create_task(shell("echo out; exec sleep 0.2", environ))
    while not running(environ):
        await asyncio.sleep(0.01)
    os.waitpid(-1, 0)  # noqa: ASYNC222 - in the thread of the loop, so that it comes first
    assert (await task).output == b"out\n"


def test_what_a_program_wrote_is_not_shown() -> None:
    assert repr(Ended(1, b"s3cret", b"s3cret")) == "Ended(status=1)"


def test_a_program_is_found_on_the_given_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory, mode in (("plain", 0o644), ("first", 0o755), ("second", 0o755)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "tool").write_text("#!/bin/sh\n")
        (tmp_path / directory / "tool").chmod(mode)
    (tmp_path / "odd/tool").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "first")
    monkeypatch.setenv("PATH", str(tmp_path / "second"))

    def path(*names: str) -> dict[str, str]:
        return {"PATH": os.pathsep.join(str(tmp_path / name) for name in names)}

    assert find_program("tool", path("odd", "plain", "first", "second")) == str(tmp_path / "first/tool")
    for environ in (
        {},
        {"PATH": ""},
        {"PATH": f".{os.pathsep}{os.pathsep}../first"},
        path("odd", "none"),
        {"PATH": "\0"},
    ):
        with pytest.raises(ProgramError, match="^is not on PATH$"):
            find_program("tool", environ)
    with pytest.raises(ProgramError, match="^is not executable: .*/plain/tool$"):
        find_program("tool", path("none", "plain", "odd"))


async def test_the_loop_goes_on_while_a_program_runs(tmp_path: Path, environ: dict[str, str]) -> None:
    """The program waits for what the loop does meanwhile."""
    task = asyncio.create_task(shell(f"until test -e {tmp_path}/go; do sleep 0.01; done; echo out", environ))
    while not running(environ):
        await asyncio.sleep(0.01)
    (tmp_path / "go").touch()
    assert (await task).output == b"out\n"

"""The plain ways work where the calls of Linux are missing: here these are taken away. Windows itself was not run."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import io
import os
import select
import signal
import socket
import sys
import tarfile
from asyncio.trsock import TransportSocket
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from aiodocker_images import ImageService
from aiodocker_images._aio.program import ProgramError, find_program, run_program
from aiodocker_images._archive.build_context import ContextDirectory
from aiodocker_images._archive.files import InputFile, OutputFile
from aiodocker_images._mirror import journal
from aiodocker_images._mirror.journal import Journal
from aiodocker_images._system.directories import entry_mode
from aiodocker_images._system.files import copy_in_kernel, open_file, read_at, write_at
from aiodocker_images._system.locks import DirectoryLock, FileLock
from aiodocker_images._system.names import relative_to
from aiodocker_images._system.replacing import Replacement
from aiodocker_images._system.signals import StopSignals, end_process
from aiodocker_images._system.sockets import hung_up, receive
from aiodocker_images._system.users import home_directory
from aiodocker_images.errors import ConfigError
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.tars import tar_of

MISSING = (
    *("pread", "pwrite", "writev", "sendfile", "copy_file_range", "posix_fadvise", "fchmod", "fchown", "fork"),
    *("killpg", "waitid", "major", "O_NONBLOCK", "O_NOCTTY", "O_NOFOLLOW", "O_DIRECTORY"),
)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what Windows lacks; a file that this process has open is not replaced there."""
    for name in MISSING:
        monkeypatch.delattr(os, name)
    monkeypatch.delattr(select, "poll")
    monkeypatch.delattr(fcntl, "flock")
    monkeypatch.delattr(signal, "pthread_sigmask")
    real = os.replace

    def replace(source: str, target: str) -> None:
        opened = {str(each.resolve()) for each in Path("/proc/self/fd").iterdir()}
        if {os.path.realpath(source), os.path.realpath(target)} & opened:
            raise PermissionError(errno.EACCES, "it is open")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def test_a_place_in_a_file_is_read_and_written_and_its_position_stays(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb+", buffering=0) as file:
        file.write(b"abcdef")
        assert write_at(file.fileno(), b"XY", 1) == 2
        assert read_at(file.fileno(), 3, 1) == b"XYd"
        assert file.tell() == 6
        assert copy_in_kernel(file.fileno(), file.fileno(), 1, 0, 6) == 0


def test_a_file_is_saved_and_read_back(tmp_path: Path) -> None:
    target = tmp_path / "x.tar"
    target.write_bytes(b"old")
    output = OutputFile(str(target))
    assert output.open()
    assert output.write([b"one", b"two"])
    output.prepare()
    output.commit()
    assert [each.name for each in tmp_path.iterdir()] == ["x.tar"]
    file = InputFile(str(target))
    assert file.open() == 6
    assert not file.sendable
    assert file.read(10) == b"onetwo"
    file.close()


def test_a_target_that_another_program_has_open_is_replaced_when_that_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InUseError(PermissionError):
        winerror = 32

    real, refused = os.replace, list[str]()

    def replace(source: str, target: str) -> None:
        if len(refused) < 2:
            refused.append(target)
            raise InUseError(errno.EACCES, "in use")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    replacement = Replacement(tmp_path / "x")
    os.write(replacement.descriptor, b"new")
    replacement.close()
    replacement.commit()
    assert (len(refused), (tmp_path / "x").read_bytes()) == (2, b"new")


@pytest.mark.parametrize("name", ["NUL", "con.tar", "COM1", "alpine:3.20.tar", "a?", "dot."])
def test_a_name_that_windows_gives_to_no_file_is_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OSError, match="Windows has no files of such a name"):
        Replacement(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


async def test_one_run_at_a_time_has_a_journal_and_it_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    async with Journal(path):
        with pytest.raises(ConfigError, match="in use by another run"):
            await Journal(path).__aenter__()
    content, first = path.read_bytes(), path.stat().st_ino
    monkeypatch.setattr(journal, "SPARE_RECORDS", -5)
    async with Journal(path):
        assert (path.read_bytes(), path.stat().st_ino == first) == (content, False)
    assert [each.name for each in tmp_path.iterdir()] == ["journal"]


def test_locks_are_held_by_one_and_given_back(tmp_path: Path) -> None:
    first, second = DirectoryLock(str(tmp_path)), DirectoryLock(str(tmp_path))
    assert (first.held, second.held) == (True, False)
    second.release()
    first.release()
    one, other = FileLock(tmp_path / "x"), FileLock(tmp_path / "x")
    assert (one.take(0), other.take(0)) == (True, False)
    one.release()
    assert other.take(0)
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_a_context_is_walked_by_paths(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/file").write_bytes(b"data")
    (tmp_path / "Dockerfile").write_bytes(b"FROM scratch\n")
    (tmp_path / "link").symlink_to("below/file")
    pieces = ContextDirectory(str(tmp_path), dockerfile=None).pieces()
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.getnames() == ["Dockerfile", "below", "below/file", "link"]
        assert tar.getmember("link").linkname == "below/file"


def test_files_of_a_windows_context_may_be_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry_mode(0o100666) == 0o666
    monkeypatch.setattr(sys, "platform", "win32")
    assert (entry_mode(0o100666), entry_mode(0o100444)) == (0o755, 0o555)


def test_paths_below_a_directory_have_slashes() -> None:
    assert relative_to(PureWindowsPath("C:\\Src\\a\\b"), PureWindowsPath("c:\\src")) == "a/b"
    assert relative_to(PureWindowsPath("D:\\a"), PureWindowsPath("C:\\")) is None
    assert relative_to(PurePosixPath("/a/b"), PurePosixPath("/a")) == "b"


async def test_a_program_is_listened_to_by_threads() -> None:
    ended = await run_program(
        ["/bin/sh", "-c", "cat; echo oh >&2; exit 3"], environ={}, time_limit=60, max_output=100, stdin=b"in"
    )
    assert (ended.status, ended.output, ended.errors) == (3, b"in", b"oh\n")


async def test_a_program_that_writes_too_much_is_killed() -> None:
    with pytest.raises(ProgramError, match="wrote more than 100 bytes"):
        await run_program(["/bin/cat", "/dev/zero"], environ={}, time_limit=60, max_output=100)


def test_programs_of_windows_end_with_exe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-x.exe"
    program.touch(0o755)
    monkeypatch.setattr(sys, "platform", "win32")
    assert find_program("docker-credential-x", {"PATH": str(tmp_path)}) == str(program)
    assert home_directory({"HOME": "/no", "USERPROFILE": "/home"}) == Path("/home")


def test_a_process_ends_with_the_status_of_the_signal() -> None:
    with pytest.raises(SystemExit) as caught:
        end_process(2)
    assert caught.value.code == 130


async def test_a_signal_reaches_a_loop_that_takes_no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
    before = signal.getsignal(signal.SIGTERM)
    heard: list[int] = []
    signals = StopSignals()
    signals.listen(heard.append)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            while not heard:
                await asyncio.sleep(0.005)
    finally:
        signals.restore()
    assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_socket_has_got_is_received_and_a_hang_up_is_left_to_reading() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"early")
        assert receive(TransportSocket(here), 100) == b"early"
        with pytest.raises(BlockingIOError):
            receive(TransportSocket(here), 100)
        there.close()
        assert not hung_up(here.fileno())
        assert receive(TransportSocket(here), 100) == b""


async def test_without_unix_sockets_an_address_of_one_is_a_wrong_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    async with ImageService("unix:///var/run/docker.sock") as images:
        with pytest.raises(ConfigError, match="unix sockets"):
            await images.ping()


def test_a_directory_that_cannot_be_opened_is_told_from_a_file_that_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    with pytest.raises(PermissionError):
        open_file(tmp_path / "file")


async def test_an_image_is_saved_to_a_path_and_loaded_from_it(
    daemon: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    archive = tar_of({"manifest.json": b'[{"RepoTags":["app:1"]}]', "layer": b"x" * (3 << 20)})
    loaded: list[bytes] = []

    async def save(exchange: Exchange) -> None:
        await exchange.answer(archive)

    async def load(exchange: Exchange) -> None:
        loaded.append(await exchange.body())
        await exchange.head()
        await exchange.frames({"stream": "Loaded image: app:1\n"})
        await exchange.end()

    daemon.on("GET", "/images/app:1/get", save)
    daemon.on("POST", "/images/load", load)
    path = tmp_path / "app.tar"
    assert (await images.save("app:1", to=path)).size == len(archive)
    assert path.read_bytes() == archive
    assert (await images.load(path)).references == ("app:1",)
    assert loaded == [archive]

"""A directory becomes the tar that Docker would send of it: all that is in it, nothing else, in little memory."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import stat
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodocker_images._archive.build_context import MAX_IGNORE_FILE, ContextDirectory, context_path
from aiodocker_images.errors import ConfigError, LocalFileError


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def packed(root: Path, dockerfile: str | None = None) -> dict[str, tarfile.TarInfo]:
    """Read the tar of a directory with the standard library's eyes."""
    data = b"".join(ContextDirectory(str(root), dockerfile=dockerfile).pieces())
    assert len(data) % tarfile.BLOCKSIZE == 0
    assert data.endswith(bytes(2 * tarfile.BLOCKSIZE))
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        members = archive.getmembers()
        for member in members:
            if member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                assert content.read() == (root / member.name).read_bytes()
    assert len({member.name for member in members}) == len(members)
    return {member.name: member for member in members}


FILES = {"Dockerfile": "FROM scratch", "a": "1", "b/c": "2", "b/d/e": "3", "b/d/f.md": "4", "z.md": "5"}
EVERYTHING = {*FILES, "b", "b/d"}

IGNORED: list[tuple[str, set[str]]] = [
    ("", {*EVERYTHING, ".dockerignore"}),
    ("b", {"Dockerfile", ".dockerignore", "a", "z.md"}),
    ("*", {"Dockerfile", ".dockerignore"}),
    ("**", {"Dockerfile", ".dockerignore"}),
    ("Dockerfile\n.dockerignore\n", {*EVERYTHING, ".dockerignore"}),
    ("**/*.md", {"Dockerfile", ".dockerignore", "a", "b", "b/c", "b/d", "b/d/e"}),
    # A directory that is left out is sent for the sake of what is kept in it, so that it keeps its mode.
    ("*\n!b/d/e", {"Dockerfile", ".dockerignore", "b", "b/d", "b/d/e"}),
    ("*\n!**/*.md", {"Dockerfile", ".dockerignore", "b", "b/d", "b/d/f.md", "z.md"}),
    ("b\n!b/d", {"Dockerfile", ".dockerignore", "a", "b", "b/d", "b/d/e", "b/d/f.md", "z.md"}),
    ("b/**", {"Dockerfile", ".dockerignore", "a", "b", "z.md"}),
    ("b/*\n!b/x", {"Dockerfile", ".dockerignore", "a", "b", "z.md"}),
]


@pytest.mark.parametrize(
    ("content", "expected"), IGNORED, ids=lambda each: ascii(each) if isinstance(each, str) else ""
)
def test_the_dockerignore_decides_what_is_sent(tmp_path: Path, content: str, expected: set[str]) -> None:
    tree(tmp_path, {**FILES, ".dockerignore": content})
    assert set(packed(tmp_path)) == expected


def test_without_a_dockerignore_everything_is_sent_in_order(tmp_path: Path) -> None:
    names = list(packed(tree(tmp_path, FILES)))
    assert set(names) == EVERYTHING
    assert names.index("b") < names.index("b/c") < names.index("b/d") < names.index("b/d/e")


def test_the_dockerfiles_own_ignore_file_is_preferred(tmp_path: Path) -> None:
    tree(tmp_path, {**FILES, "b/Dockerfile": "", ".dockerignore": "a", "b/Dockerfile.dockerignore": "*.md\nb"})
    assert set(packed(tmp_path, "b/Dockerfile")) == {".dockerignore", "Dockerfile", "a", "b", "b/Dockerfile"}
    assert "a" not in packed(tmp_path)


def test_a_dockerfile_in_small_letters_is_found(tmp_path: Path) -> None:
    tree(tmp_path, {"dockerfile": "FROM scratch", ".dockerignore": "*"})
    assert ContextDirectory(str(tmp_path), dockerfile=None).dockerfile == "dockerfile"
    assert set(packed(tmp_path)) == {"dockerfile", ".dockerignore"}


def test_kinds_and_modes_are_kept_and_owners_are_not(tmp_path: Path) -> None:
    """Links stay links, wherever they lead; sockets have no place in a tar."""
    tree(tmp_path, {"Dockerfile": "", "run.sh": "#!/bin/sh", "empty": "", "secret/key": "k"})
    (tmp_path / "run.sh").chmod(0o4755)
    (tmp_path / "secret").chmod(0o700)
    (tmp_path / "void").mkdir(mode=0o1777)
    (tmp_path / "void").chmod(0o1777)
    (tmp_path / "outside").symlink_to("/etc")
    (tmp_path / "dangling").symlink_to("nowhere/é")
    os.link(tmp_path / "run.sh", tmp_path / "secret/same")
    os.mkfifo(tmp_path / "fifo", 0o640)
    os.utime(tmp_path / "empty", (1, 1234567890.9))
    if os.geteuid() == 0:
        os.chown(tmp_path / "empty", 1234, 4321)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        members = packed(tmp_path)
    assert set(members) == {
        "Dockerfile", "dangling", "empty", "fifo", "outside", "run.sh", "secret", "secret/key", "secret/same", "void",
    }  # fmt: skip
    assert members["run.sh"].mode == 0o4755
    assert members["secret"].mode == 0o700
    assert (members["void"].type, members["void"].mode) == (tarfile.DIRTYPE, 0o1777)
    assert (members["outside"].type, members["outside"].linkname) == (tarfile.SYMTYPE, "/etc")
    assert members["dangling"].linkname == "nowhere/é"
    assert (members["secret/same"].type, members["secret/same"].linkname) == (tarfile.LNKTYPE, "run.sh")
    assert (members["fifo"].type, stat.S_IMODE(members["fifo"].mode)) == (tarfile.FIFOTYPE, 0o640)
    assert (members["empty"].size, members["empty"].mtime) == (0, 1234567890)
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members.values()} == {(0, 0, "", "")}


def test_a_hard_link_to_what_is_left_out_is_a_file(tmp_path: Path) -> None:
    tree(tmp_path, {"Dockerfile": "", "a": "content", ".dockerignore": "a"})
    os.link(tmp_path / "a", tmp_path / "b")
    os.link(tmp_path / "a", tmp_path / "c")
    members = packed(tmp_path)
    assert (members["b"].type, members["b"].size) == (tarfile.REGTYPE, 7)
    assert (members["c"].type, members["c"].linkname) == (tarfile.LNKTYPE, "b")


def test_the_context_may_be_named_through_a_link(tmp_path: Path) -> None:
    tree(tmp_path / "real", FILES)
    (tmp_path / "link").symlink_to("real")
    assert set(packed(tmp_path / "link")) == EVERYTHING


NAME = st.binary(min_size=1, max_size=120).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@settings(max_examples=40)
@given(st.sets(NAME, max_size=4), NAME)
def test_names_of_any_bytes_come_through(
    tmp_path_factory: pytest.TempPathFactory, names: set[bytes], deep: bytes
) -> None:
    root = tmp_path_factory.mktemp("context")
    (root / "Dockerfile").touch()
    directory = root / "d" / os.fsdecode(deep)
    directory.mkdir(parents=True)
    for name in names:
        (directory / os.fsdecode(name)).write_bytes(name)
    prefix = os.fsdecode(b"d/" + deep)
    assert set(packed(root)) == {"Dockerfile", "d", prefix, *(f"{prefix}/{os.fsdecode(name)}" for name in names)}


def test_a_deep_tree_needs_no_recursion(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").touch()
    here = tmp_path
    for _ in range(300):
        here /= "d"
    here.mkdir(parents=True)
    assert len(packed(tmp_path)) == 301


def test_a_file_of_200_mib_takes_the_memory_of_a_piece(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").touch()
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(200 << 20)
    total = longest = 0
    tracemalloc.start()
    try:
        for piece in ContextDirectory(str(tmp_path), dockerfile=None).pieces():
            total, longest = total + len(piece), max(longest, len(piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == (200 << 20) + 4 * tarfile.BLOCKSIZE
    assert longest == 1 << 20
    assert peak < 4 << 20


def vanish(path: Path) -> None:
    path.unlink()


def shrink(path: Path) -> None:
    os.truncate(path, 1 << 20)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def become_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("listed", vanish, "No such file"),
    ("stat", vanish, "No such file"),
    ("stat", become_a_link, "Too many levels of symbolic links"),
    ("stat", become_a_fifo, "it was replaced"),
    ("stat", become_a_directory, "it was replaced"),
    ("header", shrink, "it shrank while it was read, and ended 1048576 bytes early"),
    ("header", grow, "it grew while it was read, over its 2097152 bytes"),
]


@pytest.mark.parametrize(
    ("when", "change", "message"), CHANGES, ids=lambda each: getattr(each, "__name__", str(each))[:20]
)
def test_a_tree_that_changes_meanwhile_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    change: Callable[[Path], None],
    message: str,
) -> None:
    """Each change is made at the one step of the walk that it can catch: none is hidden in a good-looking tar."""
    tree(tmp_path, {"Dockerfile": "", "file": "x" * (2 << 20)})
    directory = ContextDirectory(str(tmp_path), dockerfile=None)
    before = descriptors()
    pieces = directory.pieces()
    real = os.stat

    def changing(path: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if path == "file" and when == "listed":
            change(tmp_path / "file")
        result = real(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if path == "file" and when == "stat":
            change(tmp_path / "file")
        return result

    monkeypatch.setattr("aiodocker_images._archive.build_context.os.stat", changing)
    with pytest.raises(LocalFileError, match=re.escape(message)) as caught:
        for piece in pieces:
            if when == "header" and piece.startswith(b"file\0"):
                change(tmp_path / "file")
    assert caught.value.filename == f"{tmp_path}/file"
    assert descriptors() == before


def test_a_directory_swapped_for_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, {"in/Dockerfile": "", "in/d/file": "inside", "out/file": "outside"})
    real = os.stat

    def swapping(path: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        result = real(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if path == "d":
            (tmp_path / "in/d").rename(tmp_path / "moved")
            (tmp_path / "in/d").symlink_to("../out")
        return result

    monkeypatch.setattr("aiodocker_images._archive.build_context.os.stat", swapping)
    with pytest.raises(LocalFileError) as caught:
        list(ContextDirectory(str(tmp_path / "in"), dockerfile=None).pieces())
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)


def leave_at(stop: int, pieces: Iterable[bytes]) -> None:
    for number, _ in enumerate(pieces):
        if number == stop:
            return


@pytest.mark.parametrize("stop", range(6))
def test_leaving_the_pieces_closes_every_descriptor(tmp_path: Path, stop: int) -> None:
    tree(tmp_path, {"Dockerfile": "x", "a/b/c": "y" * (3 << 20)})
    before = descriptors()
    pieces = ContextDirectory(str(tmp_path), dockerfile=None).pieces()
    leave_at(stop, pieces)
    pieces.close()
    assert descriptors() == before


@pytest.mark.parametrize("name", ["Dockerfile", "build/Dockerfile.dev"])
def test_a_dockerfile_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(LocalFileError, match="the context has no such Dockerfile") as caught:
        ContextDirectory(str(tmp_path), dockerfile=None if name == "Dockerfile" else name)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, f"{tmp_path}/{name}")


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_long(path: Path) -> None:
    path.write_bytes(b"a\n" * MAX_IGNORE_FILE)


UNREADABLE: list[Callable[[Path], None]] = [make_directory, make_fifo, make_long]


@pytest.mark.parametrize("make", UNREADABLE)
def test_a_dockerignore_that_cannot_be_read_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "Dockerfile").touch()
    make(tmp_path / ".dockerignore")
    with pytest.raises(LocalFileError) as caught:
        ContextDirectory(str(tmp_path), dockerfile=None)
    assert caught.value.filename == f"{tmp_path}/.dockerignore"


def test_a_bad_pattern_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, {"Dockerfile": "", ".dockerignore": "a\n["})
    with pytest.raises(ConfigError):
        ContextDirectory(str(tmp_path), dockerfile=None)


INSIDE = {"Dockerfile": "Dockerfile", "./a/../b": "b", "a//b/": "a/b", "..a": "..a", "a/..b": "a/..b"}
OUTSIDE = ["", ".", "..", "../Dockerfile", "a/../../b", "/Dockerfile", "//x", "a/.."]


@pytest.mark.parametrize(("given_path", "path"), INSIDE.items())
def test_a_dockerfile_in_the_context_is_tidied(given_path: str, path: str) -> None:
    assert context_path(given_path) == path
    assert context_path(Path(given_path)) == context_path(str(Path(given_path)))


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_dockerfile_outside_of_the_context_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="must be a file in the context"):
        context_path(path)

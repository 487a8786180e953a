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

from aiodocker_images._archive.build_context import ContextDirectory, context_path
from aiodocker_images._archive.context_files import MAX_IGNORE_FILE
from aiodocker_images.errors import ConfigError, LocalFileError
from tests.support.sweeps import examples

EMPTY: Mapping[str, str] = {}


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def packed(
    root: Path, dockerfile: str | bytes | None = None, *, buildkit: bool = False, written: Mapping[str, str] = EMPTY
) -> dict[str, tarfile.TarInfo]:
    """Read the tar of a directory with the standard library's eyes. `written` are the files that it changes."""
    directory = ContextDirectory(str(root), dockerfile=dockerfile, buildkit=buildkit)
    data = b"".join(directory.pieces())
    added = {name.replace("DOCKERFILE", directory.dockerfile): text for name, text in written.items()}
    assert len(data) % tarfile.BLOCKSIZE == 0
    assert data.endswith(bytes(2 * tarfile.BLOCKSIZE))
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        members = archive.getmembers()
        for member in members:
            if member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                if member.name in added:
                    expected = added[member.name].replace("DOCKERFILE", directory.dockerfile).encode()
                else:
                    expected = (root / member.name).read_bytes()
                assert content.read() == expected
    assert added.keys() <= {member.name for member in members}
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
    members = packed(tmp_path, "b/Dockerfile", written={".dockerignore": "a\nb/Dockerfile\n"})
    assert set(members) == {".dockerignore", "Dockerfile", "a", "b", "b/Dockerfile"}
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


@settings(max_examples=examples(40))
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


# What the Engine must find in .dockerignore, so that it hides what these rules leave out, and nothing else.
OWN_RULES: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"Dockerfile.dockerignore": "*.md"}, {}),
    ({"Dockerfile.dockerignore": "Dockerfile*"}, {".dockerignore": ".dockerignore\nDockerfile\n"}),
    ({"Dockerfile.dockerignore": "*\n!a"}, {".dockerignore": ".dockerignore\nDockerfile\n"}),
    ({"Dockerfile.dockerignore": "Dockerfile", ".dockerignore": "a"}, {".dockerignore": "a\nDockerfile\n"}),
    ({"Dockerfile.dockerignore": ".*", ".dockerignore": "a"}, {".dockerignore": ".dockerignore\n"}),
    ({"Dockerfile.dockerignore": "*", ".dockerignore": "a"}, {".dockerignore": ".dockerignore\nDockerfile\n"}),
]


@pytest.mark.parametrize(("files", "written"), OWN_RULES, ids=lambda each: ascii(each)[:40])
def test_the_engine_hides_what_the_dockerfiles_own_ignore_file_leaves_out(
    tmp_path: Path, files: dict[str, str], written: dict[str, str]
) -> None:
    tree(tmp_path, {"Dockerfile": "FROM scratch", "a": "1", **files})
    packed(tmp_path, written=written)


def test_a_dockerfile_named_like_a_pattern_hides_only_itself(tmp_path: Path) -> None:
    tree(tmp_path, {"D[1]*": "FROM scratch", "D[1]*.dockerignore": "D*"})
    packed(tmp_path, "D[1]*", written={".dockerignore": ".dockerignore\nD\\[1\\]\\*\n"})


def test_buildkit_gets_no_dockerignore_that_is_left_out(tmp_path: Path) -> None:
    """It hides nothing that is in a tar: `COPY .` would take it."""
    tree(tmp_path, {"Dockerfile": "FROM scratch", "a": "1", ".dockerignore": ".*"})
    assert set(packed(tmp_path, buildkit=True)) == {"Dockerfile", "a"}
    assert set(packed(tmp_path)) == {"Dockerfile", "a", ".dockerignore"}
    (tmp_path / ".dockerignore").write_text("b")
    assert set(packed(tmp_path, buildkit=True)) == {"Dockerfile", "a", ".dockerignore"}


@pytest.mark.parametrize("instruction", ["COPY . /", "ADD Docker* /x", "COPY a $x /", "RUN --mount=target=/x true"])
def test_buildkit_does_not_copy_a_dockerfile_that_is_left_out(tmp_path: Path, instruction: str) -> None:
    tree(tmp_path, {"Dockerfile": f"FROM scratch\n{instruction}", "a": "1", ".dockerignore": "Dockerfile"})
    with pytest.raises(ConfigError, match="BuildKit would copy the Dockerfile into the image"):
        packed(tmp_path, buildkit=True)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /")
    assert set(packed(tmp_path, buildkit=True)) == {"Dockerfile", "a", ".dockerignore"}


def links_out(tmp_path: Path, name: str) -> Path:
    """Make a context in which `name` is a link to a file beside the context, and one to a directory there."""
    tree(tmp_path, {"secret/key": "root:x:0:0\n[", "in/Dockerfile": "FROM scratch", "in/a": "1"})
    (tmp_path / "in" / name).unlink(missing_ok=True)
    (tmp_path / "in" / name).symlink_to("../secret/key")
    (tmp_path / "in/secret").symlink_to("../secret")
    return tmp_path / "in"


LINKED = [
    (".dockerignore", None),
    ("Dockerfile.dockerignore", None),
    ("Dockerfile", None),
    ("Dockerfile", "Dockerfile"),
    ("other", "secret/key"),
    (".dockerignore", b"FROM scratch"),
]


@pytest.mark.parametrize(("name", "dockerfile"), LINKED, ids=str)
def test_a_link_that_leads_out_of_the_context_is_never_followed(
    tmp_path: Path, name: str, dockerfile: str | bytes | None
) -> None:
    root = links_out(tmp_path, name)
    before = descriptors()
    with pytest.raises(LocalFileError, match="a symbolic link that leads out of the context") as caught:
        packed(root, dockerfile)
    assert "x:0:0" not in str(caught.value)
    assert descriptors() == before


def test_a_dangling_link_out_of_the_context_reveals_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", {"Dockerfile": "FROM scratch"})
    (root / ".dockerignore").symlink_to("/nowhere/at/all")
    with pytest.raises(LocalFileError, match="leads out of the context"):
        packed(root)


def test_links_that_stay_in_the_context_are_followed(tmp_path: Path) -> None:
    """The Dockerfile is named as what it leads to, as by the docker CLI: the link itself may be left out."""
    tree(tmp_path, {"d/Dockerfile.real": "FROM scratch", "d/ignore": "a\nDockerfile\n", "a": "1", "b": "2"})
    (tmp_path / "Dockerfile").symlink_to("e/Dockerfile.real")
    (tmp_path / "e").symlink_to(tmp_path / "d")
    (tmp_path / ".dockerignore").symlink_to("d/ignore")
    assert ContextDirectory(str(tmp_path), dockerfile=None).dockerfile == "d/Dockerfile.real"
    assert set(packed(tmp_path)) == {".dockerignore", "b", "d", "d/Dockerfile.real", "d/ignore", "e"}


def test_a_dangling_link_in_the_context_is_as_no_file(tmp_path: Path) -> None:
    tree(tmp_path, {"Dockerfile": "FROM scratch"})
    (tmp_path / ".dockerignore").symlink_to("nowhere")
    assert set(packed(tmp_path)) == {".dockerignore", "Dockerfile"}


@pytest.mark.parametrize("relative", [True, False])
def test_a_dockerfile_outside_of_the_context_is_sent_and_hidden(tmp_path: Path, relative: bool) -> None:
    root = tree(tmp_path / "in", {"a": "1", "b": "2", ".dockerignore": "b"})
    tree(tmp_path, {"shared/Dockerfile": "FROM scratch"})
    (tmp_path / "link").symlink_to("shared/Dockerfile")
    named = "../link" if relative else f"{tmp_path}/link"
    written = {"DOCKERFILE": "FROM scratch", ".dockerignore": "b\nDOCKERFILE\n"}
    members = set(packed(root, named, written=written))
    (name,) = members - {"a", ".dockerignore"}
    assert re.fullmatch(r"\.dockerfile\.[0-9a-f]{20}", name)


def test_a_dockerfile_that_is_given_as_its_content_is_sent_and_hidden(tmp_path: Path) -> None:
    tree(tmp_path, {"a": "1"})
    written = {"DOCKERFILE": "FROM scratch", ".dockerignore": ".dockerignore\nDOCKERFILE\n"}
    assert len(packed(tmp_path, b"FROM scratch", written=written)) == 3


def test_an_absolute_path_into_the_context_is_that_file(tmp_path: Path) -> None:
    tree(tmp_path, {"in/b/Dockerfile": "FROM scratch"})
    (tmp_path / "link").symlink_to("in")
    directory = ContextDirectory(str(tmp_path / "in"), dockerfile=f"{tmp_path}/link/b/Dockerfile")
    assert directory.dockerfile == "b/Dockerfile"


def test_what_a_file_gets_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    """A log grows all the time; Docker sends what was there, too."""
    tree(tmp_path, {"Dockerfile": "", "log": "x" * (2 << 20)})
    data = b""
    for piece in ContextDirectory(str(tmp_path), dockerfile=None).pieces():
        if piece.startswith(b"log\0"):
            grow(tmp_path / "log")
        data += piece
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("log").size == 2 << 20
        assert archive.getnames() == ["Dockerfile", "log"]


def test_capabilities_of_programs_are_kept(tmp_path: Path) -> None:
    """`setcap cap_net_raw+ep ping`: where this process may not set them, there are none to keep."""
    tree(tmp_path, {"Dockerfile": "", "ping": "x"})
    capability = b"\x01\x00\x00\x02\x00\x20" + bytes(14)
    os.setxattr(tmp_path / "ping", "security.capability", capability)
    stored = os.getxattr(tmp_path / "ping", "security.capability")
    headers = packed(tmp_path)["ping"].pax_headers
    assert headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == stored


TIDIED = {
    "Dockerfile": "Dockerfile",
    "./a/../b": "b",
    "a//b/": "a/b",
    "..a": "..a",
    "a/..b": "a/..b",
    "a/../../b": "../b",
    "/a/./b": "/a/b",
}


@pytest.mark.parametrize(("given_path", "path"), TIDIED.items())
def test_the_path_of_a_dockerfile_is_tidied(given_path: str, path: str) -> None:
    assert context_path(given_path) == path
    assert context_path(Path(given_path)) == context_path(str(Path(given_path)))


@pytest.mark.parametrize("path", ["", ".", "..", "../..", "/", "a/.."])
def test_a_directory_is_refused_as_a_dockerfile(path: str) -> None:
    with pytest.raises(ValueError, match="the Dockerfile must be a file"):
        context_path(path)

"""Members of a tar are found without unpacking it, and what a tar claims leads nowhere else."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodocker_images import ArchiveError
from aiodocker_images._distribution import tar_members
from aiodocker_images._distribution.tar_members import END, Member, header, padding, scan
from tests.support.sweeps import examples


def members(data: bytes, tmp_path: Path) -> dict[str, bytes | str]:
    """Return the content of each member, or where a link leads."""
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = scan(descriptor, str(path))
        return {name: each.link or os.pread(descriptor, each.size, each.offset) for name, each in found.items()}
    finally:
        os.close(descriptor)


def tar(*added: tarfile.TarInfo, data: bytes = b"content", tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for member in added:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = kind
    found.linkname = link
    return found


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_are_read_in_each_format(tmp_path: Path, tar_format: int) -> None:
    names = ["a", "./dotted", "d/" * 60 + "x"]
    if tar_format != tarfile.USTAR_FORMAT:  # where no part of a name has more than 100 characters
        names.append(f"blobs/sha512/{'0' * 128}")
    data = tar(*map(member, names), member("d", tarfile.DIRTYPE), tar_format=tar_format)
    assert members(data, tmp_path) == {name.removeprefix("./"): b"content" for name in names}


def test_a_link_is_told_from_a_file_and_has_no_content(tmp_path: Path) -> None:
    data = tar(member("a"), member("b", tarfile.SYMTYPE, "../a"), member("c", tarfile.LNKTYPE, "a"))
    assert members(data, tmp_path) == {"a": b"content", "b": "../a", "c": "a"}


def test_the_later_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    data = tar(member("a"), data=b"old")[: 2 * 512] + tar(member("a"), data=b"new")
    assert members(data, tmp_path) == {"a": b"new"}


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", ".//../a", ".."])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_a_name_that_leads_out_of_the_tar_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    with pytest.raises(ArchiveError, match="leads out of it"):
        members(tar(member(name, kind, "x")), tmp_path)


@pytest.mark.parametrize("cut", [1, 511, 512, 513, 518, 600, 1023, 1024])
def test_a_tar_that_was_cut_is_not_whole(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ArchiveError, match="not a whole tar"):
        members(tar(member("a"), member("b"))[:cut], tmp_path)


@pytest.mark.parametrize("data", [b"", b"x" * 5000, b'{"message":"no such image"}'])
def test_what_is_not_a_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArchiveError, match="not a whole tar"):
        members(data, tmp_path)


def test_a_compressed_tar_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="gzip"):
        members(gzip.compress(tar(member("a"))), tmp_path)


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    found = member("a")
    found.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with pytest.raises(ArchiveError, match="sparse"):
        members(tar(found), tmp_path)


def test_headers_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "MAX_EXTENDED_HEADER", 1024)
    with pytest.raises(ArchiveError, match="extended header"):
        members(tar(member("n" * 2000)), tmp_path)
    monkeypatch.setattr(tar_members, "MAX_MEMBERS", 2)
    with pytest.raises(ArchiveError, match="more than 2 members"):
        members(tar(member("a"), member("b"), member("c")), tmp_path)


def test_a_size_beyond_the_file_is_refused(tmp_path: Path) -> None:
    for size in (1 << 20, 1 << 40, (1 << 62)):
        with pytest.raises(ArchiveError, match="not a whole tar"):
            members(header("a", size) + END, tmp_path)


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=300), st.binary(max_size=1500))
@settings(max_examples=examples(50))
def test_what_is_written_here_is_read_here_and_by_tarfile(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    data = header(name, len(content)) + content + padding(len(content)) + END
    assert members(data, tmp_path_factory.mktemp("t")) == {name: content}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (found,) = archive.getmembers()
        assert found.name == name


@given(st.data())
@settings(max_examples=examples(200))
def test_any_bytes_are_members_or_our_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(tar(member("a" * 120), member("b", tarfile.SYMTYPE, "a"), member("c")))
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, 3000))
        whole[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        found = members(bytes(whole), tmp_path_factory.mktemp("t"))
    except ArchiveError:
        return
    assert not any(name.startswith("/") or ".." in name.split("/") for name in found)


def test_a_member_is_a_place_in_a_file() -> None:
    assert Member(512, 7) == (512, 7, None)

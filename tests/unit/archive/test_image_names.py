"""The images that an archive announces: found in any pieces, by a walk through a file, and never an error of ours."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._archive.image_names import MAX_MANIFEST, AnnouncedImages


def tar(*members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's name
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def archive(manifest: object, *, name: str = "manifest.json") -> bytes:
    return tar(
        ("a" * 150 + "/layer.tar", bytes(70_000)), (name, json.dumps(manifest).encode()), ("repositories", b"{}")
    )


TWO = [{"Config": "a.json", "RepoTags": ["a:1", "a:2"]}, {"Config": "b.json", "RepoTags": ["b:1"]}]

ARCHIVES = {
    "names": (archive(TWO), 3),
    "behind a dot": (archive(TWO, name="./manifest.json"), 3),
    "GNU": (tar(("manifest.json", json.dumps(TWO).encode()), format=tarfile.GNU_FORMAT), 3),
    "one name of two platforms": (archive([{"RepoTags": ["a:1"]}, {"RepoTags": ["a:1"]}]), 1),
    "no names": (archive([{"RepoTags": None}, {"Config": "a.json"}]), 1),
    "no images": (archive([]), 0),
    "an OCI layout": (archive(TWO, name="index.json"), None),
    "another folder's": (archive(TWO, name="x/manifest.json"), None),
    "an object": (archive({"RepoTags": ["a:1"]}), None),
    "broken": (tar(("manifest.json", b"[{")), None),
    "an empty one": (tar(("manifest.json", b"")), None),
    "too large": (tar(("manifest.json", bytes(MAX_MANIFEST + 1))), None),
    "compressed": (gzip.compress(archive(TWO)), None),
    "not a tar": (b"x" * 5_000, None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("size", [1 << 20, 700, 512, 13])
@pytest.mark.parametrize(("data", "fewest"), ARCHIVES.values(), ids=ARCHIVES)
def test_the_number_of_images_is_read_as_the_bytes_pass_by(data: bytes, fewest: int | None, size: int) -> None:
    announced = AnnouncedImages()
    for start in range(0, len(data), size):
        announced.feed(data[start : start + size])
    assert announced.fewest == fewest


@pytest.mark.parametrize(("data", "fewest"), ARCHIVES.values(), ids=ARCHIVES)
def test_the_number_of_images_is_found_in_a_file_which_stays_where_it_was(
    tmp_path: Path, data: bytes, fewest: int | None
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file:
        announced = AnnouncedImages()
        announced.scan(file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
    assert announced.fewest == fewest


@given(st.lists(st.binary(max_size=2_000)))
def test_no_bytes_make_the_reading_fail(pieces: Sequence[bytes]) -> None:
    announced = AnnouncedImages()
    for piece in pieces:
        announced.feed(piece)
    assert announced.fewest is None

"""What is one whole tar, and what the daemon wrote where a tar should be."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._archive.tar_check import MAX_ERROR_DOCUMENT, MAX_EXTENDED_HEADER, MAX_PADDING, TarCheck
from aiodocker_images.errors import ArchiveError

BLOCK = 512
END = bytes(2 * BLOCK)
MESSAGE = 'read /var/lib/docker/overlay2/x: {"error: input/output error'

# Up to Docker 28 the fields stood in the order of the Go struct, since then in the order of the alphabet.
ERROR_DOCUMENTS = {
    "old": json.dumps({"errorDetail": {"message": MESSAGE}, "error": MESSAGE}).encode() + b"\r\n",
    "new": json.dumps({"error": MESSAGE, "errorDetail": {"code": 5, "message": MESSAGE}}).encode() + b"\r\n",
    "bare": json.dumps({"error": MESSAGE}).encode(),
}


def tar(members: dict[str, int], format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 -- tarfile's own word
    """Build a tar, up to and including the two zero blocks."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, size in members.items():
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"\x01" * size))
    data = file.getvalue().rstrip(b"\0")
    whole = (len(data) + BLOCK - 1) // BLOCK * BLOCK
    return data.ljust(whole, b"\0") + END


def header(name: str, size: int, kind: bytes = b"0", size_field: bytes | None = None) -> bytes:
    """Build one header, with a size field of choice."""
    block = bytearray(BLOCK)
    block[: len(name)] = name.encode()
    block[124:136] = size_field if size_field is not None else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(key: str, value: str, kind: bytes = b"x") -> bytes:
    """Build a pax header of one record, which states its own length."""
    rest = f" {key}={value}\n"
    length = next(n for n in itertools.count(len(rest)) if len(str(n)) + len(rest) == n)
    record = f"{length}{rest}".encode()
    return header("pax", len(record), kind) + padded(record)


def check(*pieces: bytes | bytearray | memoryview) -> None:
    watch = TarCheck()
    for piece in pieces:
        watch.feed(piece)
    watch.finish()


def failure(*pieces: bytes | bytearray | memoryview) -> str:
    with pytest.raises(ArchiveError) as caught:
        check(*pieces)
    return caught.value.message


TWO = tar({"first": 1000, "second": 700})
SECOND = BLOCK + 1024  # where the header of `second` begins

LINK = header("link", 4096, b"2")
BASE_256 = header("big", 0, size_field=b"\x80" + (2000).to_bytes(11, "big"))
PAX_SIZE = pax("size", "2000") + header("big", 0)

WHOLE = {
    "two members": TWO,
    "a member of no bytes": tar({"empty": 0}),
    "padded to 10 KiB, as Python and GNU tar do": TWO + bytes(10240 - len(TWO) % 10240),
    "a long name, by pax": tar({"long/" * 60 + "é": 10, "b": 3}),
    "a long name, by GNU": tar({"long/" * 60 + "é": 10, "b": 3}, tarfile.GNU_FORMAT),
    "a name with a ustar prefix": tar({"directory/" * 12 + "name": 10}, tarfile.USTAR_FORMAT),
    "a symbolic link, whose size field counts no data": LINK + END,
    "a size in base-256": BASE_256 + bytes(2048) + END,
    "a size in a pax header": PAX_SIZE + bytes(2048) + END,
    "a global pax header": pax("comment", "x", b"g") + header("a", 0) + END,
    "an extended header of no bytes": header("x", 0, b"x") + header("a", 0) + END,
    "a size in digits with spaces": header("a", 0, size_field=b"       1750 ") + bytes(1024) + END,
    "a size field of zeros": header("a", 0, size_field=bytes(12)) + END,
    "a size that is a power of 8": header("a", 512) + bytes(512) + END,
    "a layer that holds the daemon's error document": padded(header("layer", BLOCK))
    + padded(ERROR_DOCUMENTS["old"])
    + END,
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("size", [1, 511, 512, 513, 1 << 20])
def test_a_whole_tar_passes_however_it_is_split(data: bytes, size: int) -> None:
    check(*(data[start : start + size] for start in range(0, len(data), size)))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_bytes_is_read(kind: type[bytes | bytearray | memoryview]) -> None:
    check(kind(TWO))


def test_the_tar_of_another_writer_passes(tmp_path: Path) -> None:
    (tmp_path / ("n" * 150)).write_bytes(b"x" * 5000)
    (tmp_path / "link").symlink_to("n" * 150)
    (tmp_path / "hard").hardlink_to(tmp_path / ("n" * 150))
    program = shutil.which("tar")
    assert program
    made = subprocess.run([program, "-C", tmp_path, "-cf", "-", "."], stdout=subprocess.PIPE, check=True)
    check(made.stdout)


BROKEN = {
    "nothing": (b"", "the archive is empty: not one byte came"),
    "only zeros": (END, "the archive is empty: a tar without members"),
    "no tar": (b"<html>" * 200, "the archive is not a tar"),
    "less than a header": (b"hello", "the archive is not a tar"),
    "gzip": (gzip.compress(TWO), "the archive is not a tar"),
    "gzip of some length": (gzip.compress(TWO, 0), "the archive is not a tar: it is compressed with gzip"),
    "in the data": (TWO[: BLOCK + 300], "ended 300 bytes into member 'first' of 1000 bytes"),
    "in the padding": (TWO[: BLOCK + 1010], "ended 1000 bytes into member 'first' of 1000 bytes"),
    "at a boundary": (TWO[:SECOND], "ended after member 'first', without the end-of-archive blocks"),
    "in a header": (TWO[: SECOND + 100], "ended inside of a header, after member 'first'"),
    "without an end": (TWO[: -len(END)], "ended after member 'second', without the end-of-archive blocks"),
    "with half an end": (TWO[:-BLOCK], "ended after member 'second', without the end-of-archive blocks"),
    "with less than an end": (TWO[:-1], "ended inside of a header, after member 'second'"),
    "in a pax header": (PAX_SIZE[: BLOCK + 3], "ended inside of a header, after 0 members"),
    "in a member sized by pax": (PAX_SIZE + bytes(1500), "ended 1500 bytes into member 'big' of 2000 bytes"),
    "in a member sized in base-256": (BASE_256 + bytes(7), "ended 7 bytes into member 'big' of 2000 bytes"),
    "a wrong checksum": (
        TWO[:SECOND] + b"X" + TWO[SECOND + 1 :],
        "after member 'first' stands no header of a member",
    ),
    "a negative size": (header("a", 0, size_field=b"\xff" * 12) + END, "the archive is not a tar"),
    "a size that is no number": (header("a", 0, size_field=b"0x10       \0") + END, "the archive is not a tar"),
    "a member after one zero block": (
        TWO[:SECOND] + bytes(BLOCK) + TWO[SECOND:],
        "one zero block after member 'first', then something else",
    ),
    "text behind the end": (TWO + b"panic", "behind its end stands something that is not padding"),
    "a pax header that is garbage": (header("x", 5, b"x") + padded(b"9 a=b"), "a malformed pax header"),
    "a pax size that is garbage": (pax("size", "-1") + header("a", 0) + END, "a malformed pax header"),
    "a pax size of 5000 digits": (pax("size", "9" * 5000) + header("a", 0) + END, "a malformed pax header"),
    "an endless pax header": (header("x", MAX_EXTENDED_HEADER + 1, b"x"), "an extended header of 1048577 bytes"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("size", [1, 512, 1 << 20])
def test_what_is_no_whole_tar_is_named(data: bytes, message: str, size: int) -> None:
    assert message in failure(*(data[start : start + size] for start in range(0, len(data), size)))


@given(cut=st.integers(0, len(TWO) - 1))
def test_no_truncation_passes(cut: int) -> None:
    failure(TWO[:cut])


@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=5),
    format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    length=st.integers(1, 90),
    cuts=st.lists(st.integers(0, 20_000), max_size=8),
)
def test_every_tar_passes_at_every_split(sizes: list[int], format: int, length: int, cuts: list[int]) -> None:  # noqa: A002 - tarfile's word
    data = tar({str(number) * length: size for number, size in enumerate(sizes)}, format)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    check(*(data[start:end] for start, end in itertools.pairwise(edges)))


@given(data=st.binary(max_size=3000))
def test_no_bytes_raise_before_an_error_document_could_have_followed(data: bytes) -> None:
    TarCheck().feed(data)


ENDLESS = {
    "no tar": b"x" * 4096,
    "no tar, in single bytes": b"x",
    "zeros": bytes(4096),
    "half a header": TWO[:BLOCK] + bytes(1000) + TWO[:100],
    "newlines": b"\n" * 100,
}


@pytest.mark.parametrize("behind", [b"", TWO], ids=["alone", "behind a whole tar"])
@pytest.mark.parametrize("piece", ENDLESS.values(), ids=ENDLESS)
def test_what_is_no_tar_and_has_no_end_is_refused_soon(piece: bytes, behind: bytes) -> None:
    watch = TarCheck()
    watch.feed(behind)
    with pytest.raises(ArchiveError):
        for _ in range((MAX_PADDING + MAX_ERROR_DOCUMENT) // len(piece) + 3):
            watch.feed(piece)


def test_an_archive_may_be_padded_up_to_the_limit() -> None:
    check(TWO, bytes(MAX_PADDING - len(TWO)))


CUTS = {
    "instead of a tar": 0,
    "in a header": 100,
    "in the data": BLOCK + 300,
    "near the end of the data": BLOCK + 995,
    "at a boundary": SECOND,
    "after the members": len(TWO) - len(END),
    "behind the end, where containerd's exporter puts it": len(TWO),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("document", ERROR_DOCUMENTS.values(), ids=ERROR_DOCUMENTS.keys())
@pytest.mark.parametrize("size", [1, 4096])
def test_the_daemons_own_message_is_raised(cut: int, document: bytes, size: int) -> None:
    data = TWO[:cut] + document
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    assert failure(*pieces) == f"the daemon failed while it wrote the archive: {MESSAGE}"


def test_the_message_is_found_behind_much_data() -> None:
    start = header("layer", 1 << 30)
    assert MESSAGE in failure(start, bytes(3 << 20), bytes(10), ERROR_DOCUMENTS["old"])
    assert MESSAGE in failure(start + bytes(3 << 20) + ERROR_DOCUMENTS["old"])


NO_DOCUMENTS = {
    "within the data": ERROR_DOCUMENTS["old"] + b"more data",
    "half of it": ERROR_DOCUMENTS["old"][:-4],
    "of another shape": b'{"error":5}',
    "without a message": b'{"error":"","errorDetail":{}}',
    "no UTF-8": b'{"error":"\xff"}',
    "over the limit": json.dumps({"error": "x" * MAX_ERROR_DOCUMENT}).encode(),
    "a thousand beginnings": b'{"error' * 1000,
}


@pytest.mark.parametrize("document", NO_DOCUMENTS.values(), ids=NO_DOCUMENTS.keys())
def test_what_only_resembles_an_error_document_is_not_taken_for_one(document: bytes) -> None:
    assert "bytes into member 'layer'" in failure(header("layer", 1 << 30) + document)


def test_a_document_nested_without_end_is_no_way_to_break_the_reader() -> None:
    """Whether it is read to its end depends on the Python; the archive is broken in any case."""
    assert failure(header("layer", 1 << 30) + b'{"error":"x","aux":' + b"[" * 5000 + b"]" * 5000 + b"}")


@pytest.mark.parametrize("size", [0, 1, 1000, MAX_ERROR_DOCUMENT, MAX_ERROR_DOCUMENT + 1, 1 << 20])
def test_memory_is_bounded_whatever_the_size_of_the_pieces(size: int) -> None:
    watch = TarCheck()
    watch.feed(header("layer", 1 << 40))
    tracemalloc.start()
    try:
        for _ in range(min(200_000, (4 << 20) // max(size, 1))):
            watch.feed(bytes(size))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 16 * MAX_ERROR_DOCUMENT


def test_a_long_name_is_shortened_in_the_message() -> None:
    message = failure(tar({"n" * 5000: 100})[: -len(END) - BLOCK])
    assert "member 'nnnn" in message
    assert len(message) < 400

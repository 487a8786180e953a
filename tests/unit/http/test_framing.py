"""Bodies in chunks, of a length and without either: the bytes that were meant, however they are cut into pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._http.framing import MAX_LINE, MAX_OVERHEAD, Framing, FramingError, framing_of

CHUNKED: tuple[list[str], list[str]] = (["chunked"], [])


def framing(transfer_encoding: list[str], content_length: list[str]) -> Framing:
    found = framing_of(transfer_encoding, content_length)
    assert found is not None
    return found


def fed(body: Framing, *pieces: bytes) -> bytes:
    return b"".join(body.feed(bytearray(piece), len(piece)) for piece in pieces)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


sizes = st.one_of(st.integers(1, 20), st.integers(1, 70_000))
extensions = st.sampled_from([b"", b";", b" ", b"\t ; a=b", b';a="0"'])


@given(
    chunks=st.lists(st.tuples(sizes, extensions, st.booleans()), max_size=6),
    again=st.integers(1, 4),
    trailers=st.lists(st.sampled_from([b"A: b", b"0", b"X:"]), max_size=3),
    behind=st.binary(max_size=5),
    at=st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_chunks_bring_their_data_however_they_come(
    chunks: list[tuple[int, bytes, bool]], again: int, trailers: list[bytes], behind: bytes, at: list[int]
) -> None:
    """Each chunk `again` times, for of those of one size in a row only the first's line is taken apart."""
    data, wire = b"", b""
    for number, (size, extension, capital) in enumerate(chunk for chunk in chunks for _ in range(again)):
        piece = bytes((number + index) % 256 for index in range(size))
        data += piece
        wire += (b"%X" if capital else b"%x") % size + extension + b"\r\n" + piece + b"\r\n"
    whole = wire + b"0\r\n" + b"".join(trailer + b"\r\n" for trailer in trailers) + b"\r\n"
    body = framing(*CHUNKED)
    assert fed(body, *cut(whole, at)) == data
    assert body.ended
    # And what comes behind is nobody's, in the same piece.
    body = framing(*CHUNKED)
    assert fed(body, whole + behind) == data
    assert body.ended


# Chunks of one size come in a row, with one line before them or with others.
WHOLE = (
    b"3\r\nabc\r\n10;x\r\n0123456789abcdef\r\n"
    b"2\r\nAB\r\n2\r\nCD\r\n2\r\nEF\r\n02\r\nGH\r\n2;\r\n\r\n\r\n0\r\nT: r\r\n\r\n"
)
DATA = b"abc0123456789abcdefABCDEFGH\r\n"


def test_the_end_has_come_with_the_last_byte_alone() -> None:
    for end in range(len(WHOLE)):
        body = framing(*CHUNKED)
        assert DATA.startswith(fed(body, WHOLE[:end]))
        assert not body.ended
        assert fed(body, WHOLE[end:]) == DATA[len(fed(framing(*CHUNKED), WHOLE[:end])) :]
        assert body.ended


@given(place=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255), at=st.lists(st.integers(0, 100), max_size=4))
def test_a_changed_byte_brings_other_data_or_is_refused_wherever_it_is_cut(
    place: int, byte: int, at: list[int]
) -> None:
    """Never another exception, and the same whether it comes in pieces or whole."""
    changed = WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :]
    outcomes: list[object] = []
    for pieces in ([changed], cut(changed, at)):
        body = framing(*CHUNKED)
        try:
            data = fed(body, *pieces)
        except FramingError:
            outcomes.append(FramingError)
        else:
            outcomes.append((data, body.ended))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "wire",
    [
        b"x",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 1\r\n",
        b"1\n",
        b"1 1\r\n",
        b"00000000000000001",
        b"1\r\nab",
        b"1\r\na\n",
        b"1\r\na\r\r",
        b"1\r\na\r\nz",
        b"1;\r;",
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_what_is_no_chunk_is_refused_as_soon_as_it_is_seen(wire: bytes, size: int) -> None:
    body = framing(*CHUNKED)
    with pytest.raises(FramingError, match="no size of a chunk"):
        fed(body, *(wire[start : start + size] for start in range(0, len(wire), size)))


@pytest.mark.parametrize("size", [100, 65536])
@pytest.mark.parametrize(
    ("begin", "flood", "limit"),
    [
        (b"5;", b"x", MAX_LINE),
        (b"5", b" ", MAX_LINE),
        (b"1\r\na\r\n5;", b"x", MAX_LINE),
        (b"0\r\nX: ", b"x", MAX_LINE),
        (b"0\r\n", b"X: y\r\n", MAX_OVERHEAD),
    ],
)
def test_what_stands_beside_the_data_is_bounded(begin: bytes, flood: bytes, limit: int, size: int) -> None:
    body = framing(*CHUNKED)
    fed(body, begin)
    piece = flood * (size // len(flood))
    with pytest.raises(FramingError, match="bytes stands between chunks|bring the answer no further"):
        fed(body, *itertools.repeat(piece, limit // len(piece) + 2))


@given(data=st.binary(max_size=100), behind=st.binary(max_size=5), at=st.lists(st.integers(0, 200), max_size=5))
def test_a_body_of_a_length_ends_there(data: bytes, behind: bytes, at: list[int]) -> None:
    body = framing([], [str(len(data))])
    assert body.ended is (not data)
    assert fed(body, *cut(data, at)) == data
    assert body.ended
    assert not body.ends_with_connection
    assert fed(framing([], [f" {len(data)}"]), data + behind) == data


def test_a_body_without_a_frame_ends_with_the_connection() -> None:
    body = framing([], [])
    assert fed(body, b"ab", b"", b"c") == b"abc"
    assert not body.ended
    assert body.ends_with_connection
    assert not framing(*CHUNKED).ends_with_connection


@pytest.mark.parametrize(
    ("transfer_encoding", "content_length"),
    [
        (["gzip, chunked"], []),
        (["chunked", "chunked"], []),
        (["chunked"], ["5"]),
        ([""], []),
        ([], ["5", "5"]),
        ([], ["5, 5"]),
        ([], ["-5"]),
        ([], ["+5"]),
        ([], ["0x5"]),
        ([], ["\N{ARABIC-INDIC DIGIT FIVE}"]),
        ([], [""]),
        ([], ["9" * 20]),
    ],
)
def test_any_other_framing_is_not_known(transfer_encoding: list[str], content_length: list[str]) -> None:
    assert framing_of(transfer_encoding, content_length) is None

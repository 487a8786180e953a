"""Bytes become frames: however they are split, whatever stands between them, and in linear time."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiodocker_images._api.json_stream import MAX_FRAME, MAX_SILENCE, FrameDecoder
from aiodocker_images.errors import DockerError, FrameDecodeError, StreamInterruptedError


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Enough fields to see text, numbers and nested values arrive."""

    id: str | None = None
    status: str | None = None
    current: int | None = None
    aux: Any = None


def read(pieces: list[bytes], *, max_frame: int = MAX_FRAME) -> tuple[list[Frame], type[DockerError] | None]:
    """Feed the pieces and finish; return the frames and the class of the error that ended them."""
    decoder = FrameDecoder(Frame, max_frame=max_frame)
    frames: list[Frame] = []
    try:
        for piece in pieces:
            frames += decoder.feed(piece)
        frames += decoder.finish()
    except DockerError as error:
        return frames, type(error)
    return frames, None


def split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


A, B = Frame(id="a"), Frame(id="b")
NESTED = Frame(aux={"a": [{"b": "}{][", "c": '\\"'}, []], "d": {}})

STREAMS: dict[str, tuple[bytes, list[Frame]]] = {
    "nothing": (b"", []),
    "blank": (b"\r\n \t\n\x1e\n\n", []),
    "LF": (b'{"id":"a"}\n{"id":"b"}\n', [A, B]),
    "CR LF, as moby": (b'{"id":"a"}\r\n{"id":"b"}\r\n', [A, B]),
    "no last newline": (b'{"id":"a"}\n{"id":"b"}', [A, B]),
    "no separator": (b'{"id":"a"}{"id":"b"}', [A, B]),
    "several on a line": (b'{"id":"a"} {"id":"b"}{"id":"a"}\n{"id":"b"}\n', [A, B, A, B]),
    "blank lines": (b'\n\n{"id":"a"}\n\r\n\n{"id":"b"}\n\n', [A, B]),
    "record separators": (b'\x1e{"id":"a"}\n\x1e{"id":"b"}\n', [A, B]),
    "record separators alone": (b'\x1e{"id":"a"}\x1e{"id":"b"}', [A, B]),
    "frames over several lines": (b'{\n  "id":\r\n "a"\n}\n{"id":\n"b"}\n', [A, B]),
    "empty frames": (b"{}\r\n{ }{\n}", [Frame(), Frame(), Frame()]),
    "nested": (json.dumps({"aux": NESTED.aux}).encode() + b"\n", [NESTED]),
    "nulls and unknown fields": (b'{"id":null,"new":[{"x":"}"}],"status":"s"}\n', [Frame(status="s")]),
    "escapes": (
        rb'{"id":"\"\\","status":"\\\\\"{\u007b\n"}{"id":"a"}',
        [Frame(id='"\\', status='\\\\"{{\n'), A],
    ),
    "not ASCII": ('{"status":"Grüße, 世界 🐳"}\n'.encode(), [Frame(status="Grüße, 世界 🐳")]),
    "line separators in a string": (
        '{"id":"\u2028\u2029\u0085"}\n'.encode(),
        [Frame(id="\u2028\u2029\u0085")],
    ),
    "braces and newlines in strings": (rb'{"id":"}{"}{"id":"\n"}', [Frame(id="}{"), Frame(id="\n")]),
}

# One value of a frame is odd: it is read as far as can be, or costs its own field.
ODD: dict[str, tuple[bytes, list[Frame]]] = {
    "bad UTF-8": (b'{"id":"a"}\n{"id":"b\xff"}\n', [A, Frame(id="b\ufffd")]),
    "bad UTF-8 in an untyped value": (b'{"id":"a","aux":["\xc3("]}\n', [A]),
    "half of a surrogate pair": (
        rb'{"id":"\ud800","status":"\ud83d\udc33\udc33\\ud800"}',
        [Frame(id="\ufffd", status="\U0001f433\ufffd\\ud800")],
    ),
    "a number for a text": (b'{"id":"a"}\n{"id":7}\n{"id":"b"}\n', [A, Frame(id="7"), B]),
    "a list for a text": (b'{"id":["x"],"status":"s"}\n{"id":"b"}\n', [Frame(status="s"), B]),
    "a number out of range": (b'{"id":"a","aux":1e999}\n', [A]),
}
STREAMS.update(ODD)

# What ends each of them, after the frames that come before the fault.
FAULTY: dict[str, tuple[bytes, list[Frame], type[DockerError]]] = {
    "half a frame": (b'{"id":"a"}\n{"id":', [A], StreamInterruptedError),
    "half a string": (b'{"id":"a"}\n{"id":"b', [A], StreamInterruptedError),
    "half an escape": (b'{"id":"a"}{"id":"\\', [A], StreamInterruptedError),
    "half a character": (b'{"id":"\xf0\x9f\x90', [], StreamInterruptedError),
    "an open brace": (b"{", [], StreamInterruptedError),
    "text": (b'{"id":"a"}\n{"id":"b"}\nbad gateway\n', [A, B], FrameDecodeError),
    "text first": (b"<html>", [], FrameDecodeError),
    "a byte order mark": (b'\xef\xbb\xbf{"id":"a"}', [], FrameDecodeError),
    "commas between": (b'{"id":"a"},{"id":"b"}', [A], FrameDecodeError),
    "a closing brace": (b'{"id":"a"}}\n', [A], FrameDecodeError),
    "an array": (b'{"id":"a"}\n[1]\n{"id":"b"}\n', [A], FrameDecodeError),
    "an array of frames": (b'[{"id":"a"}]\n', [], FrameDecodeError),
    "a string": (b'"{}"\n', [], FrameDecodeError),
    "a number": (b'{"id":"a"}7', [A], FrameDecodeError),
    "null": (b"null\n", [], FrameDecodeError),
    "a vertical tab between": (b'{"id":"a"}\x0b{"id":"b"}', [A], FrameDecodeError),
    "bad JSON": (b'{"id":"a"}{"id":b}\n', [A], FrameDecodeError),
    "crossed brackets": (b'{"aux":[}]\n', [], FrameDecodeError),
    "a bad escape": (rb'{"id":"a"}{"id":"\q"}', [A], FrameDecodeError),
    "a line cut inside a string": (b'{"id":"a\n{"id":"b"}\n', [], FrameDecodeError),
    "NUL in a string": (b'{"id":"a"}\n{"id":"\x00"}\n', [A], FrameDecodeError),
    "deep nesting": (b'{"aux":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n", [], FrameDecodeError),
    "deep nesting in an unknown field": (
        b'{"x":' + b"[" * 600_000 + b"]" * 600_000 + b"}\n",  # Python 3.14 follows 200,000
        [],
        FrameDecodeError,
    ),
}


@pytest.mark.parametrize(("data", "frames"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_every_separator_and_every_size_of_piece_gives_the_same_frames(
    data: bytes, frames: list[Frame], size: int
) -> None:
    assert read(split(data, size)) == (frames, None)


@pytest.mark.parametrize(("data", "frames", "error"), FAULTY.values(), ids=FAULTY)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_frames_before_a_fault_are_delivered_before_its_error(
    data: bytes, frames: list[Frame], error: type[DockerError], size: int
) -> None:
    assert read(split(data, size)) == (frames, error)


@pytest.mark.parametrize("data", [b'{"id":"a"}', b'{"id":"a"}\x1e', b'\n{"id":"a"}\n{'], ids=repr)
def test_a_complete_frame_is_delivered_without_waiting_for_what_follows(data: bytes) -> None:
    assert FrameDecoder(Frame).feed(data) == [A]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_can_be_fed_and_reused_afterwards(kind: type[Any]) -> None:
    decoder = FrameDecoder(Frame)
    buffer = bytearray(b'{"id":"a"}\n{"id":')
    assert decoder.feed(kind(buffer)) == [A]
    buffer[:] = b"x" * len(buffer)
    assert decoder.feed(kind(b'"b"}')) == [B]


def test_an_empty_piece_changes_nothing_not_even_after_half_an_escape() -> None:
    assert read([b"", b'{"id":"\\', b"", b'""}', b""]) == ([Frame(id='"')], None)


def test_untyped_values_own_their_bytes() -> None:
    """A struct may keep raw JSON: the next frame must not overwrite it."""

    class Raw(msgspec.Struct):
        aux: msgspec.Raw

    decoder = FrameDecoder(Raw)
    frames = decoder.feed(b'{"aux":[1,2')
    frames += decoder.feed(b"]}")
    frames += decoder.feed(b'{"aux":{"x":1}}')
    assert [bytes(frame.aux) for frame in frames] == [b"[1,2]", b'{"x":1}']


# --- errors


def test_an_error_after_good_frames_waits_for_the_next_call_and_then_stays() -> None:
    decoder = FrameDecoder(Frame)
    assert decoder.feed(b'{"id":"a"}\n{"id":"b"}\ngarbage') == [A, B]
    for _ in range(2):
        with pytest.raises(FrameDecodeError, match="garbage"):
            decoder.feed(b'{"id":"a"}\n')
    with pytest.raises(FrameDecodeError, match="garbage"):
        decoder.finish()


LONG = b"g" * 10_000


@pytest.mark.parametrize(
    "data",
    [LONG, b'{"id":' + LONG + b"}", b'{"id":"' + LONG + b"\n", b'{"id":"' + LONG],
    ids=["no object", "bad JSON", "control character", "half"],
)
def test_an_error_quotes_a_short_excerpt(data: bytes) -> None:
    decoder = FrameDecoder(Frame)
    with pytest.raises((FrameDecodeError, StreamInterruptedError)) as caught:
        decoder.finish() if decoder.feed(data) == [] else None
    quoted = re.search(r"b'(.*)'", caught.value.message)
    assert quoted is not None
    assert "gggg" in quoted[1]
    assert len(quoted[1]) <= 82  # 80 bytes, of which a newline shows as two characters


@pytest.mark.parametrize("name", ["bad JSON", "a bad escape", "deep nesting"])
def test_the_cause_of_a_refused_frame_is_kept(name: str) -> None:
    decoder = FrameDecoder(Frame)
    with pytest.raises(FrameDecodeError) as caught:
        decoder.finish() if decoder.feed(FAULTY[name][0]) else None
    assert isinstance(caught.value.__cause__, msgspec.DecodeError | UnicodeDecodeError | RecursionError)


# --- limits


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("tail", [b"\n", b"", b'\n{"id":"a"}\n'], ids=["newline", "none", "more"])
def test_a_frame_may_have_as_many_bytes_as_the_limit_and_not_one_more(size: int, tail: bytes) -> None:
    frame = b'{"id":"%s"}' % (b"x" * 91)
    assert len(frame) == 100
    more = [A] if b"a" in tail else []
    assert read(split(frame + tail, size), max_frame=100) == ([Frame(id="x" * 91), *more], None)
    assert read(split(frame + tail, size), max_frame=99) == ([], FrameDecodeError)


@pytest.mark.parametrize("opening", [b'{"id":"', b'{"aux":[', b"{"], ids=["string", "array", "object"])
def test_the_limit_holds_as_soon_as_it_is_passed_though_no_end_ever_comes(opening: bytes) -> None:
    decoder = FrameDecoder(Frame, max_frame=1000)
    assert decoder.feed(opening + b" " * (1000 - len(opening))) == []
    with pytest.raises(FrameDecodeError, match="more than 1000 bytes"):
        decoder.feed(b" ")


def test_the_limit_applies_to_frames_not_to_pieces_or_whitespace() -> None:
    data = b"\n".join([b'{"id":"a"}', b" " * 5000, b'{"id":"b"}'] * 10)
    assert read([data], max_frame=20) == ([A, B] * 10, None)


@pytest.mark.parametrize("frame", [b'{"id":"a"}', b'{"current":1,"id":null}'])
@pytest.mark.parametrize("nothing", [b"\r\n", b" ", b"\x1e", b"{}", b'{"x":1}\n', b'{"id":null,"aux":""} '])
def test_what_says_nothing_has_a_limit_that_each_frame_renews(nothing: bytes, frame: bytes) -> None:
    decoder = FrameDecoder(Frame)
    pieces = [nothing * (65536 // len(nothing))] * (MAX_SILENCE // 65536)
    for _ in range(2):
        for piece in pieces:
            decoder.feed(piece)
        assert len(decoder.feed(frame)) == 1
    with pytest.raises(FrameDecodeError, match="say nothing"):
        for piece in [*pieces, *pieces]:
            decoder.feed(piece)


def test_a_frame_at_hand_is_no_silence() -> None:
    decoder = FrameDecoder(Frame)
    decoder.feed(b'{"id":"')
    for _ in range(3 * MAX_SILENCE // 65536):
        assert decoder.feed(b"x" * 65536) == []
    assert len(decoder.feed(b'"}')) == 1


@pytest.mark.parametrize("size", [1 << 16, 1 << 26], ids=["64 KiB pieces", "one piece"])
def test_a_frame_of_2_mib_works_and_one_over_the_default_limit_does_not(size: int) -> None:
    text = "x" * (2 << 20)
    assert read(split(b'{"status":"%s"}\r\n' % text.encode(), size)) == ([Frame(status=text)], None)
    assert read(split(b'{"status":"%s"}\r\n' % (b"x" * MAX_FRAME), size)) == ([], FrameDecodeError)


# --- work


class CountingDecoder(FrameDecoder[Frame]):
    """Counts the bytes that the scanner goes over, and those that are kept."""

    scanned = 0

    @property
    def kept(self) -> int:
        """Bytes of the frame at hand."""
        return len(self._pending)

    def _scan(self, chunk: bytes, start: int) -> int:
        end = super()._scan(chunk, start)
        self.scanned += end - start
        return end


def deep(size: int) -> bytes:
    """Make a frame of about `size` bytes, full of what the scanner stops at."""
    return b'{"aux":[' + b",".join([rb'{"a":"\"\\"}'] * (size // 13)) + b"]}"


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_no_byte_of_a_frame_in_pieces_is_scanned_twice(size: int) -> None:
    data = deep(20_000) * 3
    decoder = CountingDecoder(Frame)
    frames = [frame for piece in split(data, size) for frame in decoder.feed(piece)]
    assert len(frames) == 3
    assert decoder.scanned == len(data)


def test_a_frame_of_5_mib_in_pieces_of_1_kib_takes_linear_time() -> None:
    """Scanning anew with each of 5120 pieces would go over 13 GiB."""
    (frame,), error = read(split(deep(5 << 20), 1024))
    assert error is None
    assert len(frame.aux) == (5 << 20) // 13


def test_whole_lines_never_meet_the_scanner() -> None:
    decoder = CountingDecoder(Frame)
    assert decoder.feed(b'{"id":"a"}\r\n{"id":"b"}\r\n' * 1000) == [A, B] * 1000
    assert decoder.scanned == 0


def test_only_the_frames_cut_by_the_ends_of_a_piece_are_scanned() -> None:
    line = b'{"id":"a"}\n'
    decoder = CountingDecoder(Frame)
    frames = decoder.feed(b'{"id"') + decoder.feed(b':"a"}\n' + line * 1000 + b'{"id":') + decoder.feed(b'"a"}\n')
    assert frames == [A] * 1002
    assert decoder.scanned == 2 * len(b'{"id":"a"}')


def test_what_follows_a_delivered_frame_is_not_kept() -> None:
    """A daemon that sends blank lines to keep a connection alive costs no memory."""
    decoder = CountingDecoder(Frame)
    for _ in range(100):
        assert decoder.feed(b'{"id":"a"}\n' + b"\n" * 1000) == [A]
        assert decoder.kept == 0


# --- properties

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OPTIONAL_TEXT = st.none() | st.text()
FRAMES = st.builds(Frame, id=OPTIONAL_TEXT, status=OPTIONAL_TEXT, current=st.none() | st.integers(), aux=VALUES)
SEPARATORS = st.text(alphabet="\n\r \t\x1e", max_size=4).map(str.encode)
NOISE = st.sampled_from([*(data for data, _, _ in list(FAULTY.values())[:26]), b"\\", b'"', b"{", b"}", b"\xff"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Frame], bytes]:
    """Frames as an Engine might write them: indented or not, escaped or not, whatever stands between them."""
    frames = draw(st.lists(FRAMES, max_size=6))
    data = draw(SEPARATORS)
    for frame in frames:
        value = msgspec.to_builtins(frame)
        indent, ascii_only = draw(st.sampled_from([None, 0, 2])), draw(st.booleans())
        data += json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode() + draw(SEPARATORS)
    return frames, data


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut `data` into pieces, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(streams(), st.data())
def test_any_split_of_a_good_stream_gives_its_frames(stream: tuple[list[Frame], bytes], data: st.DataObject) -> None:
    frames, raw = stream
    assert read(data.draw(pieces(raw))) == (frames, None)


@given(streams(), NOISE | st.binary(max_size=20), st.data())
def test_any_split_of_any_stream_gives_the_same_frames_and_error(
    stream: tuple[list[Frame], bytes], noise: bytes, data: st.DataObject
) -> None:
    """With garbage somewhere and an end anywhere."""
    raw = stream[1]
    place, end = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, len(raw) + len(noise)))
    raw = (raw[:place] + noise + raw[place:])[:end]
    limit = data.draw(st.sampled_from([10, 40, MAX_FRAME]))
    expected = read(split(raw, 1), max_frame=limit)
    assert read([raw], max_frame=limit) == expected
    assert read(data.draw(pieces(raw)), max_frame=limit) == expected


@given(st.binary(max_size=100))
@example(b'{"id":"\\')
def test_no_bytes_raise_anything_but_our_errors(data: bytes) -> None:
    _, error = read([data, b"", b"\n"])
    assert error in {None, FrameDecodeError, StreamInterruptedError}

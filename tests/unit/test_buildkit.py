"""BuildKit's progress is read out of protocol buffers, as an Engine sent them and however they are cut."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images.buildkit import MAX_FIELDS, BuildLog, BuildStatus, BuildStep, BuildTrace, BuildWarning, read_trace
from aiodocker_images.errors import FrameDecodeError
from aiodocker_images.progress import ProgressFrame


def field(number: int, value: int | str | bytes) -> bytes:
    """Encode one field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % (1 << 64))
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(result) + bytes([value])


def frame(message: bytes) -> ProgressFrame:
    return ProgressFrame(id="moby.buildkit.trace", aux=base64.b64encode(message).decode())


# From Docker 20.10.24.
STEP = (
    "CokBCkdzaGEyNTY6OTVkZGViY2Q0ZDE5YWYxODM4MmM0ZjQxYjNlNjE5ZGY1NDdjNWEyN2JhMmQwYjFiZWUwMjVmY2VjNDI2N2MwORok"
    "W2ludGVybmFsXSBsb2FkIHJlbW90ZSBidWlsZCBjb250ZXh0KgsI4aeT2AYQhd3KBzILCOGnk9gGEPazqgk="
)
LOG = (
    "GmEKR3NoYTI1Njo4ZWQ5MTFiODhkYjM5M2U0MGJjYmViOWFlMTUwMWQzZjZiNmNkNTc0MjJlMWY1MGE5MWQxMTA4ZTNiYTcxYjMzEgwI"
    "4aeT2AYQocqqkQIYASIGaGVsbG8K"
)


def test_more_fields_than_any_message_has_are_an_error() -> None:
    """Each is two bytes here, and would be a step of its own."""
    assert read_trace(frame(b"\x0a\x00" * MAX_FIELDS)) is not None
    with pytest.raises(FrameDecodeError, match="fields"):
        read_trace(frame(b"\x0a\x00" * (MAX_FIELDS + 1)))


def test_a_step_and_its_output_are_read_as_docker_sends_them() -> None:
    trace = read_trace(ProgressFrame(id="moby.buildkit.trace", aux=STEP))
    assert trace == BuildTrace(
        steps=(
            BuildStep(
                digest="sha256:95ddebcd4d19af18382c4f41b3e619df547c5a27ba2d0b1bee025fcec4267c09",
                name="[internal] load remote build context",
                started=datetime(2026, 11, 24, 0, 1, 37, 15904, UTC),
                completed=datetime(2026, 11, 24, 0, 1, 37, 19569, UTC),
            ),
        )
    )
    trace = read_trace(ProgressFrame(id="moby.buildkit.trace", aux=LOG))
    assert trace is not None
    (log,) = trace.logs
    assert (log.stream, log.data) == (1, b"hello\n")


def test_every_field_is_read() -> None:
    stamp = field(1, 86400) + field(2, 1500)
    message = (
        field(1, field(1, "d") + field(2, "i") + field(2, "j") + field(3, "n") + field(4, 1) + field(7, "e"))
        + field(2, field(1, "s") + field(2, "d") + field(3, "n") + field(4, 5) + field(5, -1) + field(6, stamp))
        + field(2, field(7, stamp) + field(8, stamp))
        + field(3, field(1, "d") + field(2, stamp) + field(3, 2) + field(4, b"\xff"))
        + field(4, field(1, "d") + field(2, 3) + field(3, "short") + field(4, "1") + field(4, "2") + field(5, "url"))
        + field(99, "of a newer BuildKit")
        + varint(99 << 3 | 1)
        + bytes(8)
        + varint(99 << 3 | 5)
        + bytes(4)
    )
    when = datetime(1970, 1, 2, 0, 0, 0, 1, UTC)
    assert read_trace(frame(message)) == BuildTrace(
        steps=(BuildStep(digest="d", inputs=("i", "j"), name="n", cached=True, error="e"),),
        statuses=(
            BuildStatus(id="s", step="d", name="n", current=5, total=-1, timestamp=when),
            BuildStatus(started=when, completed=when),
        ),
        logs=(BuildLog(step="d", timestamp=when, stream=2, data=b"\xff"),),
        warnings=(BuildWarning(step="d", level=3, short="short", detail=("1", "2"), url="url"),),
    )


def test_other_frames_are_none_of_its() -> None:
    assert read_trace(ProgressFrame(id="moby.image.id", aux={"ID": "sha256:1"})) is None
    assert read_trace(ProgressFrame(id="moby.buildkit.trace")) is None
    assert read_trace(frame(b"")) == BuildTrace()


BROKEN = [
    "!",
    "Cg",
    base64.b64encode(field(1, "abc")[:-1]).decode(),
    base64.b64encode(b"\x80").decode(),
    base64.b64encode(b"\xff" * 11).decode(),
    base64.b64encode(varint(1 << 3 | 3)).decode(),
    base64.b64encode(field(1, field(5, field(1, 1 << 62)))).decode(),
    base64.b64encode(field(1, b"\x0a\x05")).decode(),
]


@pytest.mark.parametrize("aux", BROKEN)
def test_what_is_no_message_is_an_error(aux: str) -> None:
    with pytest.raises(FrameDecodeError, match="BuildKit's progress is not what it should be"):
        read_trace(ProgressFrame(id="moby.buildkit.trace", aux=aux))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_trace_or_an_error(message: bytes) -> None:
    try:
        trace = read_trace(frame(message))
    except FrameDecodeError:
        return
    assert isinstance(trace, BuildTrace)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_keep_their_sign(number: int) -> None:
    trace = read_trace(frame(field(2, field(4, number))))
    assert trace is not None
    assert trace.statuses[0].current == number

"""A whole answer of the Engine as the document that it should be, within bounds. Pure."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from aiodocker_images._lenient import decode_leniently
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.credentials import LOGGER
from aiodocker_images.errors import FrameDecodeError

__all__ = ["check_objects", "may_have_too_many_objects", "read_document"]

T = TypeVar("T")

_BACKSLASH: Final = ord("\\")

MAX_OBJECTS: Final = 4_000_000
"""JSON objects and arrays in an answer: two bytes make one, and each takes hundreds when it is decoded."""

# An escaped character, the end of a text, or opening braces.
_TOKEN: Final = re.compile(rb'\\.|"|[{\[]+', re.DOTALL)


def read_document(body: bytes, decoder: msgspec.json.Decoder[T], operation: str) -> T:
    """Decode an answer. A value in it that cannot be read costs its own field, and a warning in the log.

    Raises `FrameDecodeError` for what is not a document of this kind at all.
    """
    if not body:
        raise FrameDecodeError("the Engine's answer is empty, where a JSON document belongs")
    try:
        return decoder.decode(body)
    except UNDECODABLE as error:
        problem = error
    try:
        value, flaws = decode_leniently(body, decoder.type, strict=decoder.strict)
    except UNDECODABLE:
        raise FrameDecodeError(f"the Engine's answer is not what it should be: {problem}") from problem
    if flaws:
        LOGGER.warning("%s: what could not be read was left out of the answer: %s", operation, "; ".join(flaws))
    return value


def may_have_too_many_objects(body: bytes) -> bool:
    """Whether `check_objects` must have a look. Counting all braces is quick."""
    return len(body) > MAX_OBJECTS and body.count(b"{") + body.count(b"[") > MAX_OBJECTS


def check_objects(body: bytes) -> None:
    """Raise `FrameDecodeError` for more than `MAX_OBJECTS`. Takes seconds: braces in texts do not count."""
    count, in_text = 0, False
    for token in _TOKEN.finditer(body):
        if token[0] == b'"':
            in_text = not in_text
        elif not in_text and token[0][0] != _BACKSLASH:
            count += len(token[0])
            if count > MAX_OBJECTS:
                raise FrameDecodeError(f"the answer has more than {MAX_OBJECTS} objects and arrays")

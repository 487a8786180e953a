"""Answers of an Engine: JSON documents, frames of progress, and refusals in the words of its release."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Final

from ._exchange import Response
from .engine_behaviour import EngineBehaviour

JSON: Final = {"Content-Type": "application/json"}


class RefusalError(Exception):
    """A request that the Engine refuses: a status and its words. `cause` is what Podman says besides."""

    def __init__(self, status: int, message: str, *, cause: str = "", bare: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.cause = cause or message
        self.bare = bare

    def response(self, behaviour: EngineBehaviour) -> Response:
        """Return the answer."""
        document: dict[str, object] = {"message": self.message}
        if behaviour.podman and not self.bare:
            document = {"cause": self.cause, "message": self.message, "response": self.status}
        return json_response(document, status=self.status)


def not_faked(what: str) -> RefusalError:
    """Return the refusal of what is not faked; leaving the fake's block raises `NotFakedError` with these words."""
    return RefusalError(501, f"FakeEngine does not fake {what}")


def json_response(document: object, *, status: int = 200) -> Response:
    """Answer with a JSON document."""
    return Response(
        status=status, headers=dict(JSON), body=json.dumps(document, separators=(",", ":")).encode() + b"\n"
    )


def frame(document: object) -> bytes:
    """Return a frame as dockerd writes it, which ends each with CR LF."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\r\n"


def error_frame(message: str) -> bytes:
    """Return the frame of an error in the middle of a stream."""
    return frame({"errorDetail": {"message": message}, "error": message})


def status(text: str, layer: str = "", **detail: object) -> dict[str, object]:
    """Return the document of a frame about a layer, or about all."""
    return {"status": text, "progressDetail": detail, "id": layer} if layer else {"status": text}


async def begun(frames: AsyncGenerator[bytes, None], *, at_once: bool = True) -> Response:
    """Answer with a stream; a refusal before its first frame is raised, a later one ends the stream.

    With `at_once` false, the head is sent before there is anything to say, as that of events is.
    """
    first = await anext(frames, b"") if at_once else b""

    async def all_of_them() -> AsyncGenerator[bytes, None]:
        try:
            if first:
                yield first
            async for each in frames:
                yield each
        except RefusalError as refusal:
            yield error_frame(refusal.message)
        finally:
            await frames.aclose()

    return Response(headers=dict(JSON), stream=all_of_them())


def bar(behaviour: EngineBehaviour, text: str, layer: str, current: int, total: int) -> dict[str, object]:
    """Return the document of a frame with a bar, which older releases draw as text, too."""
    document: dict[str, object] = {"status": text, "progressDetail": {"current": current, "total": total}}
    if behaviour.progress_text:
        done, of = human(current), human(total)
        drawn = min(50, 50 * current // total) if total else 50
        line = "=" * drawn + (">" if drawn == 50 else ">" + " " * (49 - drawn))
        numbers = f"{done}/{of}" if current <= total else done
        document["progress"] = f"[{line}] {numbers:>8}"
    return document | {"id": layer}


def human(size: int) -> str:
    """Return a number of bytes as Docker prints it: four figures at most, and a unit of a thousand."""
    amount = float(size)
    units = ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and units[1:]:
        amount /= 1000
        del units[0]
    return f"{amount:.4g}{units[0]}"


def version_of(text: str) -> tuple[int, int]:
    """Return an API version as numbers, so that they can be compared."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)

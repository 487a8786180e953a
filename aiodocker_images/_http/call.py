"""One request to the Engine, as a value: what is asked, how errors name it, and how its answer is read. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aiodocker_images._encoding import Query, check_query

__all__ = ["ARCHIVE_BUFFER", "FRAME_BUFFER", "Call"]

FRAME_BUFFER: Final = 64 << 10
ARCHIVE_BUFFER: Final = 1 << 20
"""Bytes of an answer that wait to be read before no more is taken from the socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the Engine.

    `verb` ("pull") is what is done, and the key into the table of API versions; `subject` ("alpine:3.20") is what it is
    done to, for the reader of an error; empty if there is nothing to name.
    `path` is quoted and has no version. `parameters` are those that the table of versions may know. `archive`: the
    answer is an archive, and not frames or one document. `statuses` are those of success: another one, such as the
    202 or the login page of a proxy, is not the Engine's word that it was done; empty for any of 200 to 299.
    `buffer` is how many bytes of frames may wait to be read.
    """

    verb: str
    subject: str = ""
    method: str
    path: str
    query: Query = ()
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)  # may carry credentials
    parameters: tuple[str, ...] = ()
    archive: bool = False
    statuses: tuple[int, ...] = (200,)
    buffer: int = FRAME_BUFFER
    document: bytes | None = field(default=None, repr=False)  # a JSON body; may carry credentials

    def __post_init__(self) -> None:
        check_query(self.query)

    @property
    def operation(self) -> str:
        """How errors name it: "pull alpine:3.20"."""
        return f"{self.verb} {self.subject}" if self.subject else self.verb

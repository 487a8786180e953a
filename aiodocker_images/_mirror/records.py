"""The records of a journal, and what they say when they are taken in their order. Pure.

The first line of a journal names the format. Two kinds of facts are in it. What is done, so that a restart does only
what is left. And what is on an Engine because of a run: each name is noted before it is given to an image, so that
whoever comes next can take it away again. An Engine is known by its own identity, not by its address, which another
machine may have as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import ConfigError

from .jobs import MirrorJob

__all__ = [
    "HEADER",
    "Began",
    "Done",
    "Ended",
    "Held",
    "JournalState",
    "Lent",
    "Pulling",
    "Record",
    "Returned",
    "Settled",
    "decode",
    "encode",
]

HEADER: Final = b'{"journal":"aiodocker_images.mirror","version":2}\n'

MAX_DONE: Final = 100_000
"""How many jobs a journal remembers as done, the latest ones; a plan has at most that many."""


class Began(msgspec.Struct, frozen=True, tag="began"):
    """A run on the Engine `engine` begins."""

    engine: str


class Held(msgspec.Struct, frozen=True, tag="held"):
    """The image is about to get `name`, a name of the run's own. With `keep` it must outlive that name."""

    name: str
    image: str
    keep: bool = False


class Lent(msgspec.Struct, frozen=True, tag="lent"):
    """The name `name`, which is that of the image `was` or of none, is about to be moved to `image`.

    `held` is the run's own name for `was`. `image` is empty while a pull by tag is under way: it is not known then.
    `digested`: the image has a name with a digest in that repository already, which is not the run's.
    """

    name: str
    image: str = ""
    was: str | None = None
    held: str | None = None
    digested: bool = False


class Pulling(msgspec.Struct, frozen=True, tag="pulling"):
    """The image that the Engine does not have yet is about to be pulled by the name `name`, which has its digest."""

    name: str


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """The run has nothing more to do with this name."""

    name: str


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """Nothing of the run is left on the Engine."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The source was pushed as the target; these were their digests."""

    job: MirrorJob
    source_digest: str | None = None
    target_digest: str | None = None

    @property
    def digests(self) -> tuple[str | None, str | None]:
        """The source's and the target's."""
        return self.source_digest, self.target_digest


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """Nothing was left to be done: what comes next is another run."""


Record = Began | Held | Lent | Pulling | Returned | Settled | Done | Ended

_DECODER: Final = msgspec.json.Decoder(Record)
_ENCODER: Final = msgspec.json.Encoder()


def encode(record: Record) -> bytes:
    """Return the line of a record."""
    return _ENCODER.encode(record) + b"\n"


@dataclass(slots=True)
class OnEngine:
    """The names on one Engine that are there, or elsewhere than before, because of runs."""

    held: dict[str, Held] = field(default_factory=dict[str, Held])
    lent: dict[str, Lent] = field(default_factory=dict[str, Lent])
    pulling: dict[str, Pulling] = field(default_factory=dict[str, Pulling])

    def records(self) -> list[Record]:
        """Return the records that say this."""
        return [*self.held.values(), *self.lent.values(), *self.pulling.values()]


class JournalState:
    """What the records say when they are taken in their order."""

    def __init__(self) -> None:
        self.done: dict[MirrorJob, Done] = {}
        """What was ever done, the last time; the latest is the last."""
        self.in_this_run: set[MirrorJob] = set()
        """What was done since a run last had nothing left to do."""
        self.engines: dict[str, OnEngine] = {}
        """By identity: the Engines with a run that is not settled."""
        self._engine = ""

    def take(self, record: Record) -> None:
        """Take in the next record."""
        match record:
            case Began(engine=engine):
                self._engine = engine
                self.engines.setdefault(engine, OnEngine())
            case Held(name=name):
                self._here.held[name] = record
            case Lent(name=name):
                self._here.lent[name] = record
            case Pulling(name=name):
                self._here.pulling[name] = record
            case Returned(name=name):
                for names in (self._here.held, self._here.lent, self._here.pulling):
                    names.pop(name, None)
            case Settled():
                self.engines.pop(self._engine, None)
            case Done(job=job):
                self.done.pop(job, None)
                self.done[job] = record
                self.in_this_run.add(job)
                if len(self.done) > MAX_DONE:
                    oldest = next(iter(self.done))
                    del self.done[oldest]
                    self.in_this_run.discard(oldest)
            case Ended():
                self.in_this_run.clear()

    @property
    def _here(self) -> OnEngine:
        return self.engines.setdefault(self._engine, OnEngine())

    def count(self) -> int:
        """Return how many records `records` has at most."""
        names = sum(len(each.held) + len(each.lent) + len(each.pulling) + 1 for each in self.engines.values())
        return len(self.done) + 2 + names

    def records(self) -> list[Record]:
        """Return the fewest records that say the same."""
        old = [record for job, record in self.done.items() if job not in self.in_this_run]
        records: list[Record] = [*old, Ended()] if old else []
        records += [record for job, record in self.done.items() if job in self.in_this_run]
        # The Engine that the last run is on comes last: what follows is about it.
        for engine in sorted(self.engines, key=lambda engine: engine == self._engine):
            records += [Began(engine), *self.engines[engine].records()]
        return records


def decode(data: bytes, where: str) -> tuple[JournalState, int, int]:
    """Read a journal: return its state, how many records it has, and how many bytes of it are whole lines.

    Raises `ConfigError` for what is no journal of this format.
    """
    state, count = JournalState(), 0
    whole = data.rfind(b"\n") + 1
    if not whole:
        # Also what a kill left of the very first line.
        if not HEADER.startswith(data):
            raise ConfigError(f"{where} is not a journal of mirror()")
        return state, 0, 0
    header, *lines = data[: whole - 1].split(b"\n")
    if header != HEADER.rstrip():
        raise ConfigError(f"{where} is not a journal of mirror(), or of another version of it")
    for number, line in enumerate(lines, start=2):
        try:
            state.take(_DECODER.decode(line))
        except UNDECODABLE as error:
            raise ConfigError(f"{where}, line {number}: this is no record of a journal: {error}") from None
        count += 1
    return state, count, whole

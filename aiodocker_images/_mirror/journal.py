"""What a run did, in a file that outlives it: one JSON document in each line, on the disk before the next step.

The first line names the format. A line is whole or the last one: what a kill or a power cut tore off is cut away.
Two kinds of facts are in it. What is done, so that a restart does only what is left. And what was borrowed: a name
that is about to be given to an image, with what it named before, so that whoever comes next can give it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Final, Self

import msgspec

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import ConfigError, shown

from .jobs import MirrorJob

if sys.platform != "win32":
    import fcntl

__all__ = [
    "MAX_JOURNAL",
    "Began",
    "Borrowed",
    "Done",
    "Ended",
    "Journal",
    "JournalState",
    "Pulled",
    "Record",
    "Returned",
    "Settled",
]

MAX_JOURNAL: Final = 256 << 20
"""Bytes of a journal that is read; it is rewritten long before."""

SPARE_RECORDS: Final = 1000
"""How many records that no longer matter a journal may have before it is rewritten without them."""

_HEADER: Final = b'{"journal":"aiodocker_images.mirror","version":1}\n'


class Began(msgspec.Struct, frozen=True, tag="began"):
    """A run on the Engine at `endpoint` begins; `images` are the ids that it has."""

    endpoint: str
    images: tuple[str, ...] = ()


class Borrowed(msgspec.Struct, frozen=True, tag="borrowed"):
    """The local name `name`, which was that of the image `was` or of none, is about to be moved."""

    name: str
    was: str | None = None


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """The local name is what it was."""

    name: str


class Pulled(msgspec.Struct, frozen=True, tag="pulled"):
    """The image of this id was pulled."""

    image: str


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The Engine has what it had when the run began."""


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


Record = Began | Borrowed | Returned | Pulled | Settled | Done | Ended

_DECODER: Final = msgspec.json.Decoder(Record)
_ENCODER: Final = msgspec.json.Encoder()


class JournalState:
    """What the records say when they are taken in their order. Pure."""

    def __init__(self) -> None:
        self.done: dict[MirrorJob, Done] = {}
        """What was ever done, the last time."""
        self.in_this_run: set[MirrorJob] = set()
        """What was done since a run last had nothing left to do."""
        self.began: dict[str, Began] = {}
        """By endpoint: the run that is not settled."""
        self.borrowed: dict[str, dict[str, str | None]] = {}
        self.pulled: dict[str, set[str]] = {}
        self._endpoint = ""

    def take(self, record: Record) -> None:
        """Take in the next record."""
        match record:
            case Began(endpoint=endpoint):
                self._endpoint = endpoint
                # What a killed run pulled is on the Engine by now: the images that were there before are the first's.
                self.began.setdefault(endpoint, record)
            case Borrowed(name=name, was=was):
                self.borrowed.setdefault(self._endpoint, {}).setdefault(name, was)
            case Returned(name=name):
                self.borrowed.get(self._endpoint, {}).pop(name, None)
            case Pulled(image=image):
                self.pulled.setdefault(self._endpoint, set()).add(image)
            case Settled():
                for about in (self.began, self.borrowed, self.pulled):
                    about.pop(self._endpoint, None)
            case Done(job=job):
                self.done[job] = record
                self.in_this_run.add(job)
            case Ended():
                self.in_this_run.clear()

    def records(self) -> list[Record]:
        """Return the fewest records that say the same."""
        old = [record for job, record in self.done.items() if job not in self.in_this_run]
        records: list[Record] = [*old, Ended()] if old else []
        records += [self.done[job] for job in self.done if job in self.in_this_run]
        for endpoint, began in self.began.items():
            records.append(began)
            records += [Borrowed(name, was) for name, was in self.borrowed.get(endpoint, {}).items()]
            records += [Pulled(image) for image in sorted(self.pulled.get(endpoint, ()))]
        return records


def decode(data: bytes, where: str) -> tuple[JournalState, int, int]:
    """Read a journal: return its state, how many records it has, and how many bytes of it are whole lines.

    Raises `ConfigError` for what is no journal of this format. Pure.
    """
    state, count = JournalState(), 0
    whole = data.rfind(b"\n") + 1
    if not whole:
        # Also what a kill left of the very first line.
        if not _HEADER.startswith(data):
            raise ConfigError(f"{where} is not a journal of mirror()")
        return state, 0, 0
    header, *lines = data[: whole - 1].split(b"\n")
    if header != _HEADER.rstrip():
        raise ConfigError(f"{where} is not a journal of mirror(), or of another version of it")
    for number, line in enumerate(lines, start=2):
        try:
            state.take(_DECODER.decode(line))
        except UNDECODABLE as error:
            raise ConfigError(f"{where}, line {number}: this is no record of a journal: {error}") from None
        count += 1
    return state, count, whole


class Journal:
    """A journal that this process alone has open; without a path, one that is nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._size = 0
        self._writing = asyncio.Lock()
        self._unwritten: list[bytes] = []
        self._given = self._taken = 0
        self._failure: ConfigError | None = None
        self.state = JournalState()

    @classmethod
    async def read(cls, path: Path | None) -> Self:
        """Return a journal of what the file says, which will not be written; a missing file says nothing."""
        journal = cls(None)
        if path is not None:
            await in_thread(journal._read, path)
        return journal

    async def __aenter__(self) -> Self:
        """Open or make the file, and read it. Raises `ConfigError` if it is another's, in use, or no journal."""
        if self._path is not None:
            try:
                await in_thread(self._open, self._path)
            except BaseException:
                self._close()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def note(self, *records: Record) -> None:
        """Write records, and return when they are on the disk; raise `ConfigError` if one ever could not be."""
        self.check()
        if self._descriptor is not None:
            self._unwritten += (_ENCODER.encode(record) + b"\n" for record in records)
            self._given = number = self._given + 1
            async with self._writing:
                self.check()
                if number > self._taken:
                    # With all that others came to note meanwhile: a disk takes as long for one as for all.
                    data, self._taken = b"".join(self._unwritten), self._given
                    self._unwritten.clear()
                    await in_thread(self._append, self._descriptor, data)
        for record in records:
            self.state.take(record)

    def check(self) -> None:
        """Raise what made the file unwritable, if something did: nothing may be done that it does not tell."""
        if self._failure is not None:
            raise self._failure

    def _read(self, path: Path) -> None:
        with _explained(path):
            try:
                descriptor = _opened(path, os.O_RDONLY)
            except FileNotFoundError:
                return
            try:
                self.state, _, _ = decode(_content(descriptor), f"the journal {path}")
            finally:
                os.close(descriptor)

    def _open(self, path: Path) -> None:
        with _explained(path):
            self._descriptor = descriptor = self._locked(path)
            self.state, count, whole = decode(_content(descriptor), f"the journal {path}")
            os.ftruncate(descriptor, whole)
            self._size = whole
            if whole == 0:
                self._write(descriptor, _HEADER)
                _sync_directory(path)
            elif count > len(records := self.state.records()) + SPARE_RECORDS:
                self._rewrite(path, records)

    def _locked(self, path: Path) -> int:
        while True:
            descriptor = _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                _lock(descriptor, path)
                # Another may have rewritten it since it was opened.
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # noqa: PTH116 - beside its twin
                    return descriptor
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _rewrite(self, path: Path, records: list[Record]) -> None:
        """Put a journal of these records in the place of the old one, whole or not at all."""
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            _lock(descriptor, path)
            content = _HEADER + b"".join(_ENCODER.encode(record) + b"\n" for record in records)
            self._size = 0
            self._write(descriptor, content)
            if sys.platform != "win32":
                os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
            Path(name).replace(path)
        except BaseException:
            os.close(descriptor)
            Path(name).unlink(missing_ok=True)
            raise
        self._close()
        self._descriptor = descriptor
        _sync_directory(path)

    def _append(self, descriptor: int, data: bytes) -> None:
        try:
            self._write(descriptor, data)
        except ConfigError as error:
            self._failure = error  # also that of those who wait for it, and of a caller who was cancelled
            raise

    def _write(self, descriptor: int, data: bytes) -> None:
        with _explained(self._path):
            os.lseek(descriptor, 0, os.SEEK_END)
            written = 0
            try:
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError:
                # Half a line, and what is written behind it later, would be no journal any more.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._size)
                raise
            self._size += len(data)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _opened(path: Path, flags: int) -> int:
    # O_NONBLOCK: to open a FIFO would wait for ever for its other end.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"the journal {path} is not a file")
    return descriptor


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > MAX_JOURNAL:
        raise ConfigError(f"it has {size >> 20} MiB, and {MAX_JOURNAL >> 20} is the most of a journal")
    data = bytearray()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while len(data) < size and (piece := os.read(descriptor, size - len(data))):
        data += piece
    return bytes(data)


def _lock(descriptor: int, path: Path) -> None:
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"the journal {path} is in use by another run") from None


def _sync_directory(path: Path) -> None:
    if sys.platform != "win32":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextlib.contextmanager
def _explained(path: Path | None) -> Generator[None, None, None]:
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"the journal {path}: {error.strerror or error}") from error
    except ValueError as error:  # a null, or what the file system's encoding does not know
        raise ConfigError(f"the journal {shown(str(path))}: this is not the name of a file") from error

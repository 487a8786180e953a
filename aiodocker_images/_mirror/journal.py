"""What a run did, in a file that outlives it: one JSON document in each line, on the disk before the next step.

A line is whole or the last one: what a kill or a power cut tore off is cut away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final, Self

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._system.files import IrregularFileError, open_regular, sync_directory
from aiodocker_images._system.locks import FileLock
from aiodocker_images._system.replacing import Replacement
from aiodocker_images.errors import ConfigError, shown

from .records import HEADER, JournalState, Record, decode, encode

__all__ = ["MAX_JOURNAL", "Journal"]

MAX_JOURNAL: Final = 256 << 20
"""Bytes of a journal that is read; it is rewritten long before."""

SPARE_RECORDS: Final = 1000
"""How many records that no longer matter a journal may have before it is rewritten without them."""


class Journal:
    """A journal that this process alone has open; without a path, one that is nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._lock = FileLock(path or "")
        self._size = 0
        self._lines = 0
        self._writing = asyncio.Lock()
        self._unwritten: list[Record] = []
        self._given = self._taken = 0
        self._failure: ConfigError | None = None
        self.state = JournalState()

    @property
    def is_file(self) -> bool:
        """Whether what is noted outlives this process."""
        return self._path is not None

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
        self._unwritten += records
        if self._descriptor is None:
            self._take()
            return
        self._given = number = self._given + 1
        async with self._writing:
            self.check()
            if number > self._taken:
                # With all that others came to note meanwhile: a disk takes as long for one as for all.
                self._taken = self._given
                batch = self._take()
                await in_thread(self._append, b"".join(encode(record) for record in batch))
            self._lines += len(records)
            if self._lines > 2 * self.state.count() + SPARE_RECORDS:
                await in_thread(self._compact)

    def _take(self) -> list[Record]:
        """Take in what was not written yet, and return it."""
        batch, self._unwritten = self._unwritten, []
        for record in batch:
            self.state.take(record)
        return batch

    def _compact(self) -> None:
        """Rewrite the file in the middle of a run, without the records that no longer matter."""
        if self._path is not None:
            records = self.state.records()
            # If there is no room for a second file, the first one still says everything.
            with contextlib.suppress(ConfigError), _explained(self._path):
                self._rewrite(self._path, records)
            self._lines = len(records)

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
                self.state, _, _ = decode(_content(descriptor, path), f"the journal {path}")
            finally:
                os.close(descriptor)

    def _open(self, path: Path) -> None:
        with _explained(path):
            self._descriptor = descriptor = self._locked(path)
            self.state, count, whole = decode(_content(descriptor, path), f"the journal {path}")
            os.ftruncate(descriptor, whole)
            self._size, self._lines = whole, count
            if whole == 0:
                self._write(descriptor, HEADER)
                sync_directory(path.parent)
            elif count > len(records := self.state.records()) + SPARE_RECORDS:
                self._rewrite(path, records)
                self._lines = len(records)

    def _locked(self, path: Path) -> int:
        while True:
            descriptor = _opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            try:
                self._take_lock(descriptor, path)
                # Another may have rewritten it since it was opened.
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # noqa: PTH116 - beside its twin
                    return descriptor
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _take_lock(self, descriptor: int, path: Path) -> None:
        if not self._lock.take(descriptor):
            raise ConfigError(f"the journal {path} is in use by another run")

    def _rewrite(self, path: Path, records: list[Record]) -> None:
        """Put a journal of these records in the place of the old one, whole or not at all."""
        if self._descriptor is None:
            return
        replacement = Replacement(path)
        size = self._size
        try:
            self._take_lock(replacement.descriptor, path)
            content = HEADER + b"".join(encode(record) for record in records)
            self._size = 0
            self._write(replacement.descriptor, content)
            replacement.resemble(path.stat())
            replacement.commit_over(self._descriptor)
        except BaseException:
            self._size = size
            replacement.discard()
            raise

    def _append(self, data: bytes) -> None:
        try:
            if self._descriptor is not None:
                self._write(self._descriptor, data)
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
        self._lock.release()


def _opened(path: Path, flags: int) -> int:
    try:
        return open_regular(path, flags)
    except IrregularFileError:
        raise ConfigError(f"the journal {path} is not a file") from None


def _content(descriptor: int, path: Path) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > MAX_JOURNAL:
        raise ConfigError(f"the journal {path} has {size >> 20} MiB, and {MAX_JOURNAL >> 20} is the most of a journal")
    data = bytearray()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while len(data) < size and (piece := os.read(descriptor, size - len(data))):
        data += piece
    return bytes(data)


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

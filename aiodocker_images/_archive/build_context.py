"""A directory as the context of a build: walked, filtered by its `.dockerignore`, streamed as a tar. It blocks.

It is written to be read in a thread, piece by piece: nothing is copied or gathered, but for the names in the
directories on the way to the present file. Directories are opened one from another without following links, so
that whoever changes the tree meanwhile cannot lead the walk out of it.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

from .dockerignore import NO_PARENT, IgnoreRules, Inherited, read_patterns
from .files import failing

__all__ = ["MAX_IGNORE_FILE", "ContextDirectory", "context_path"]

MAX_IGNORE_FILE: Final = 1 << 20
"""Bytes of a `.dockerignore`; one with thousands of patterns is far shorter."""

_PIECE_SIZE: Final = 1 << 20

_IGNORE_FILE: Final = ".dockerignore"
_DOCKERFILES: Final = ("Dockerfile", "dockerfile")  # the Engine, too, looks for the second if there is no first
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY
_SPECIAL_TYPES: Final = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


def context_path(dockerfile: str | os.PathLike[str]) -> str:
    """Return the path of a Dockerfile inside the context, tidied; raise ValueError for one that leads out of it."""
    given = os.fspath(dockerfile)
    path = posixpath.normpath(given)
    if path in (".", "..") or path.startswith(("/", "../")):
        raise ValueError(f"the Dockerfile must be a file in the context, named relative to it, not {given!r}")
    return path


class ContextDirectory:
    """The directory `path` with its ignore rules, read at once; `pieces()` are its tar.

    `dockerfile` is the one that was named, or else the one that was found.

    The Dockerfile and `.dockerignore` are sent even where the rules leave them out: the Engine needs both, and
    hides them from the build by these rules itself. `<dockerfile>.dockerignore` takes the place of the other.

    Raises `LocalFileError` for what cannot be read (a Dockerfile that is not there, too), `ConfigError` for a
    pattern that is none.
    """

    def __init__(self, path: str, *, dockerfile: str | None) -> None:
        self._root = path
        names = _DOCKERFILES if dockerfile is None else (dockerfile,)
        present = next((name for name in names if os.path.lexists(self._path(name))), None)
        if present is None:
            with failing("read", self._path(names[0])):
                raise FileNotFoundError(errno.ENOENT, "the context has no such Dockerfile")
        self.dockerfile = present
        content = self._read(f"{present}{_IGNORE_FILE}")
        if content is None:
            content = self._read(_IGNORE_FILE) or b""
        self._rules = IgnoreRules(read_patterns(content), keep=(_IGNORE_FILE, present))

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield the tar, in pieces of at most 1 MiB; closing the generator closes what it opened.

        Raises `LocalFileError` for an entry that cannot be read, that vanishes, or that changes its size.
        """
        links: dict[tuple[int, int], str] = {}
        with failing("read", self._root):
            levels = [_opened("", os.open(self._root, _DIRECTORY), NO_PARENT)]
        try:
            while levels:
                level = levels[-1]
                name = next(level.names, None)
                if name is None:
                    os.close(levels.pop().descriptor)
                    continue
                path = f"{level.prefix}{name}"
                with failing("read", self._path(path)):
                    status = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
                ignored, inherited = self._rules.ignores(path, level.inherited)
                if stat.S_ISDIR(status.st_mode):
                    if ignored and not self._rules.may_keep_below(path):
                        continue
                    with failing("read", self._path(path)):
                        descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=level.descriptor)
                        levels.append(_opened(f"{path}/", descriptor, inherited))
                    levels[-1].header = _header(path, status, tarfile.DIRTYPE)
                    if not ignored:
                        yield from _headers(levels)
                elif not ignored:
                    yield from _headers(levels)
                    yield from self._entry(path, name, level.descriptor, status, links)
            yield _END
        finally:
            for level in levels:
                os.close(level.descriptor)

    def _entry(
        self, path: str, name: str, directory: int, status: os.stat_result, links: dict[tuple[int, int], str]
    ) -> Iterator[bytes]:
        """Yield what is no directory: a file with its data, a link, a device. Sockets are left out."""
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            key = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and key in links:
                yield _header(path, status, tarfile.LNKTYPE, links[key])
            else:
                yield from self._file(path, name, directory)
                if status.st_nlink > 1:
                    links[key] = path
        elif kind == stat.S_IFLNK:
            with failing("read", self._path(path)):
                target = os.readlink(name, dir_fd=directory)
            yield _header(path, status, tarfile.SYMTYPE, target)
        elif kind in _SPECIAL_TYPES:
            yield _header(path, status, _SPECIAL_TYPES[kind])

    def _file(self, path: str, name: str, directory: int) -> Iterator[bytes]:
        with failing("read", self._path(path)):
            # A FIFO that has taken the file's place would block the opening, and a link lead elsewhere.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            with failing("read", self._path(path)):
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EIO, "it was replaced while the context was read")
            yield _header(path, status, tarfile.REGTYPE)
            left = status.st_size
            while left:
                with failing("read", self._path(path)):
                    piece = os.read(descriptor, min(left, _PIECE_SIZE))
                    if not piece:
                        raise OSError(errno.EIO, f"it shrank while it was read, and ended {left} bytes early")
                left -= len(piece)
                yield piece
            with failing("read", self._path(path)):
                if os.read(descriptor, 1):
                    raise OSError(errno.EIO, f"it grew while it was read, over its {status.st_size} bytes")
        finally:
            os.close(descriptor)
        if padding := -status.st_size % tarfile.BLOCKSIZE:
            yield bytes(padding)

    def _read(self, name: str) -> bytes | None:
        """Return the content of a small file, None if there is none."""
        path = self._path(name)
        with failing("read", path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except FileNotFoundError:
                return None
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")
                content = b""
                while len(content) <= MAX_IGNORE_FILE and (piece := file.read(MAX_IGNORE_FILE)):
                    content += piece
        if len(content) > MAX_IGNORE_FILE:
            with failing("read", path):
                raise OSError(errno.EFBIG, f"it is longer than {MAX_IGNORE_FILE >> 20} MiB")
        return content

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"


@dataclass(slots=True)
class _Level:
    """A directory that the walk is in. `header` is None once it is sent: with the first entry that is, if ignored."""

    prefix: str
    descriptor: int
    names: Iterator[str]
    inherited: Inherited
    header: bytes | None = None


def _opened(prefix: str, descriptor: int, inherited: Inherited) -> _Level:
    try:
        names = sorted(os.listdir(descriptor), key=os.fsencode)
    except BaseException:
        os.close(descriptor)
        raise
    return _Level(prefix, descriptor, iter(names), inherited)


def _headers(levels: list[_Level]) -> Iterator[bytes]:
    for level in levels:
        if level.header is not None:
            header, level.header = level.header, None
            yield header


def _header(path: str, status: os.stat_result, kind: bytes, target: str = "") -> bytes:
    """Make the header of an entry. Its owner is root, as in the contexts that the docker CLI sends."""
    entry = tarfile.TarInfo(path)
    entry.type = kind
    entry.linkname = target
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.mtime = int(status.st_mtime)
    entry.size = status.st_size if kind == tarfile.REGTYPE else 0
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    # Bytes that are no UTF-8 go into the extended header as they are.
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

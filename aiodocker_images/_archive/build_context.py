"""A directory as the context of a build: walked, filtered by its `.dockerignore`, streamed as a tar. It blocks.

It is written to be read in a thread, piece by piece: nothing is copied or gathered, but for the names in the
directories on the way to the present file. Directories are opened one from another without following links, so
that whoever changes the tree meanwhile cannot lead the walk out of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import secrets
import stat
import sys
import tarfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from aiodocker_images._arguments import path_text
from aiodocker_images._system.directories import Directory, device_numbers, entry_mode
from aiodocker_images._system.names import relative_to, with_slashes
from aiodocker_images.errors import ConfigError, InvalidArgumentError, LocalFileError

from .context_files import MAX_DOCKERFILE, MAX_IGNORE_FILE, inside, read_inside, read_outside
from .dockerfile import file_entry, may_copy
from .dockerignore import NO_PARENT, IgnoreRules, Inherited, read_patterns
from .files import failing

__all__ = ["ContextDirectory", "context_path"]

_PIECE_SIZE: Final = 1 << 20

_IGNORE_FILE: Final = ".dockerignore"
_DOCKERFILES: Final = ("Dockerfile", "dockerfile")  # the Engine, too, looks for the second if there is no first
_SPECIAL_TYPES: Final = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}
_ADVICE: Final = "a .dockerignore can leave it out"
_CAPABILITY: Final = "security.capability"
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


def context_path(dockerfile: str | os.PathLike[str]) -> str:
    """Return the tidied path of a Dockerfile, absolute or relative to the context; raise for what is no file."""
    path = posixpath.normpath(with_slashes(path_text("dockerfile", dockerfile)))
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise InvalidArgumentError(f"the Dockerfile must be a file, not {os.fspath(dockerfile)!r}")
    return path


class ContextDirectory:
    """The directory `path` with its ignore rules, read at once; `pieces()` are its tar.

    `dockerfile` is its path, relative to the context or absolute, or its content, or None for the usual name. A
    content, and a file outside of the context, which only the caller can name, are sent under a name of their own.
    `self.dockerfile` is the name in the tar.

    The Dockerfile and `.dockerignore` are sent even where the rules leave them out: the Engine needs both, and
    hides them from the build by the rules that it finds. So these are changed where they are not those that count
    here: `<dockerfile>.dockerignore` takes the place of the other. BuildKit hides nothing that is in a tar: it gets
    no `.dockerignore` that is left out, and no Dockerfile that would copy itself.

    Raises `LocalFileError` for what cannot be read (a Dockerfile that is not there, too) and for a link that
    leads out of the context, `ConfigError` for a pattern that is none, and for what BuildKit would not hide.
    """

    def __init__(self, path: str, *, dockerfile: str | bytes | None, buildkit: bool = False) -> None:
        self._root = path
        named = self._named(dockerfile)
        own = shared = self._read(_IGNORE_FILE)
        if isinstance(named, bytes):
            self.dockerfile, added = f".dockerfile.{secrets.token_hex(10)}", named
        else:
            self.dockerfile, added = self._inside(named), None
            if (content := self._read(f"{named}{_IGNORE_FILE}")) is not None:
                own = content
        patterns = read_patterns(own or b"")
        self._rules = IgnoreRules(patterns, keep=(self.dockerfile,) if buildkit else (_IGNORE_FILE, self.dockerfile))
        # What is sent in the place of a file, or beside the files.
        self._written = {} if added is None else {self.dockerfile: added}
        rules = IgnoreRules(patterns)
        hidden = [name for name in (_IGNORE_FILE, self.dockerfile) if name in self._written or rules.leaves_out(name)]
        if buildkit:
            if self.dockerfile in hidden:
                self._must_not_copy_itself(added)
        elif added is not None or own is not shared:
            self._hide(hidden, shared, whole=own is shared)

    def _named(self, dockerfile: str | bytes | None) -> str | bytes:
        """Return the path of the Dockerfile in the context, or the content of one that is not in there."""
        if isinstance(dockerfile, bytes):
            return dockerfile
        if dockerfile is None:
            return next((name for name in _DOCKERFILES if os.path.lexists(self._path(name))), _DOCKERFILES[0])
        # A link in the context that leads out of it is no file that the caller has named, whatever way it is named.
        path = os.path.abspath(os.path.join(self._root, dockerfile))  # noqa: PTH100, PTH118 - of texts
        directory, name = os.path.split(path)
        here, there = os.path.abspath(self._root), os.path.realpath(self._root)  # noqa: PTH100 - of the same kind
        for file, top in ((PurePath(path), here), (PurePath(os.path.realpath(directory), name), there)):
            if (relative := relative_to(file, PurePath(top))) is not None:
                return relative
        return read_outside(path, MAX_DOCKERFILE)

    def _inside(self, name: str) -> str:
        """Return where a Dockerfile in the context is, behind its links."""
        with failing("read", self._path(name)):
            if not os.path.lexists(self._path(name)):
                raise FileNotFoundError(errno.ENOENT, "the context has no such Dockerfile")
        try:
            return inside(self._root, name)
        except LocalFileError as error:
            error.add_note("Give the path of the file that it leads to as the Dockerfile: it may be anywhere.")
            raise

    def _hide(self, hidden: Sequence[str], shared: bytes | None, *, whole: bool) -> None:
        """Write a `.dockerignore` by which the Engine hides just these; `whole`, the other rules of it count, too."""
        if self.dockerfile not in hidden and (shared is None or _IGNORE_FILE not in hidden):
            return
        kept = shared if whole or _IGNORE_FILE not in hidden else None
        lines = [_IGNORE_FILE.encode() if kept is None else kept]
        if self.dockerfile in hidden:
            lines.append(os.fsencode(re.sub(r"([\\*?\[\]!#])", r"\\\1", self.dockerfile)))
        self._written[_IGNORE_FILE] = b"\n".join([*lines, b""])

    def _must_not_copy_itself(self, content: bytes | None) -> None:
        """Raise `ConfigError` where BuildKit would copy a Dockerfile that is to be hidden."""
        if content is None:
            content = self._read(self.dockerfile, MAX_DOCKERFILE) or b""
        if may_copy(content, self.dockerfile):
            raise ConfigError(
                "BuildKit would copy the Dockerfile into the image, though .dockerignore leaves it out or it is not in"
                " the context: this needs the session that only the docker CLI opens. Name what is to be copied"
                " (COPY src /src), or build with builder='classic'"
            )

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield the tar, in pieces of at most 1 MiB; closing the generator closes what it opened.

        Raises `LocalFileError` for an entry that cannot be read, that vanishes, or that changes its size.
        """
        links: dict[tuple[int, int], str] = {}
        with failing("read", self._root):
            levels = [_opened("", Directory.open(self._root), NO_PARENT)]
        try:
            while levels:
                level = levels[-1]
                name = next(level.names, None)
                if name is None:
                    levels.pop().directory.close()
                    continue
                path = f"{level.prefix}{name}"
                with failing("read", self._path(path)):
                    status = level.directory.status(name)
                ignored, inherited = self._rules.ignores(path, level.inherited)
                if stat.S_ISDIR(status.st_mode):
                    if ignored and not self._rules.may_keep_below(path):
                        continue
                    with failing("read", self._path(path)):
                        levels.append(_opened(f"{path}/", level.directory.directory(name), inherited))
                    levels[-1].header = _header(path, status, tarfile.DIRTYPE)
                    if not ignored:
                        yield from _headers(levels)
                elif not ignored and path not in self._written:
                    yield from _headers(levels)
                    yield from self._entry(path, name, level.directory, status, links)
            for path, content in self._written.items():
                yield file_entry(path, content)
            yield _END
        finally:
            for level in levels:
                level.directory.close()

    def _entry(
        self, path: str, name: str, directory: Directory, status: os.stat_result, links: dict[tuple[int, int], str]
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
                target = with_slashes(directory.link(name))
            yield _header(path, status, tarfile.SYMTYPE, target)
        elif kind in _SPECIAL_TYPES:
            yield _header(path, status, _SPECIAL_TYPES[kind])

    def _file(self, path: str, name: str, directory: Directory) -> Iterator[bytes]:
        with failing("read", self._path(path)):
            # A FIFO that has taken the file's place would block the opening, and a link lead elsewhere.
            descriptor = directory.file(name)
        try:
            with failing("read", self._path(path)):
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EIO, f"it was replaced while the context was read; {_ADVICE}")
            yield _header(path, status, tarfile.REGTYPE, attributes=_capability(descriptor))
            left = status.st_size
            while left:
                with failing("read", self._path(path)):
                    piece = os.read(descriptor, min(left, _PIECE_SIZE))
                    if not piece:
                        raise OSError(
                            errno.EIO, f"it shrank while it was read, and ended {left} bytes early; {_ADVICE}"
                        )
                left -= len(piece)
                yield piece
            # What a log has got since is left out, as by Docker: the size is in the header already.
        finally:
            os.close(descriptor)
        if padding := -status.st_size % tarfile.BLOCKSIZE:
            yield bytes(padding)

    def _read(self, name: str, limit: int = MAX_IGNORE_FILE) -> bytes | None:
        return read_inside(self._root, name, limit)

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"


@dataclass(slots=True)
class _Level:
    """A directory that the walk is in. `header` is None once it is sent: with the first entry that is, if ignored."""

    prefix: str
    directory: Directory
    names: Iterator[str]
    inherited: Inherited
    header: bytes | None = None


def _opened(prefix: str, directory: Directory, inherited: Inherited) -> _Level:
    try:
        names = sorted(directory.names(), key=os.fsencode)
    except BaseException:
        directory.close()
        raise
    return _Level(prefix, directory, iter(names), inherited)


def _headers(levels: list[_Level]) -> Iterator[bytes]:
    for level in levels:
        if level.header is not None:
            header, level.header = level.header, None
            yield header


def _capability(descriptor: int) -> dict[str, str]:
    """Return the capabilities of a program (`setcap`) as an extended header has them, as the docker CLI sends them."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # it has none, or its file system knows none
            value = os.getxattr(descriptor, _CAPABILITY)
            return {f"SCHILY.xattr.{_CAPABILITY}": value.decode("utf-8", "surrogateescape")}
    return {}


def _header(
    path: str, status: os.stat_result, kind: bytes, target: str = "", attributes: Mapping[str, str] | None = None
) -> bytes:
    """Make the header of an entry. Its owner is root, as in the contexts that the docker CLI sends."""
    entry = tarfile.TarInfo(path)
    entry.pax_headers = dict(attributes or {})
    entry.type = kind
    entry.linkname = target
    entry.mode = entry_mode(status.st_mode)
    entry.mtime = int(status.st_mtime)
    entry.size = status.st_size if kind == tarfile.REGTYPE else 0
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry.devmajor, entry.devminor = device_numbers(status)
    # Bytes that are no UTF-8 go into the extended header as they are.
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

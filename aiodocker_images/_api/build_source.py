"""The source of a build as it is sent: the tar of a directory, an archive, or one made around a Dockerfile."""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._archive.build_context import ContextDirectory
from aiodocker_images._archive.context_files import MAX_DOCKERFILE
from aiodocker_images._archive.dockerfile import HEAD_SIZE, archive_around, is_archive
from aiodocker_images._archive.files import as_bytes, failing
from aiodocker_images._archive.streams import ArchiveSource
from aiodocker_images._dockercli.config import Environment, build_proxies
from aiodocker_images._encoding import encode_json
from aiodocker_images.errors import ConfigError

from .operation import Operation

__all__ = ["is_remote", "must_be_inside", "with_source"]

_REMOTE: Final = ("http://", "https://", "git://", "git@", "github.com/")
_PIECE: Final = 1 << 20
_GZIP: Final = 31  # of zlib's formats, with the largest window


class _Sent(NamedTuple):
    source: ArchiveSource
    dockerfile: str | None = None  # its name in a directory's tar


def is_remote(context: object) -> bool:
    """Whether a context is a text that begins like a URL, which the Engine fetches."""
    return isinstance(context, str) and context.startswith(_REMOTE)


async def with_source(
    operation: Operation[Any],
    *,
    dockerfile: str | bytes | None,
    buildkit: bool,
    compress: bool,
    build_args: Mapping[str, str | None],
    host: Callable[[], str],
) -> Operation[Any]:
    """Put what is sent in the place of what was given, and add the proxies that the docker CLI would add.

    A Dockerfile in the place of an archive (a file, bytes, a file object) is taken as such, as by the docker CLI
    and docker-py.
    """
    source = operation.source
    operation = _with_proxies(operation, build_args, await in_thread(build_proxies, Environment(os.environ), host()))
    if source is None:
        return operation
    if isinstance(source, str | os.PathLike):
        sent = await in_thread(_of_path, os.fspath(source), dockerfile, buildkit, compress)
    elif isinstance(source, bytes | bytearray | memoryview):
        head = bytes(memoryview(source).cast("B")[:HEAD_SIZE])
        sent = _Sent(source) if not head or is_archive(head) else _alone(bytes(source), dockerfile)
    elif callable(read := getattr(source, "read", None)) and not inspect.iscoroutinefunction(read):
        sent = await in_thread(_of_file, source, read, dockerfile)
    else:
        sent = _Sent(source)
    call = operation.call
    if sent.dockerfile is None:
        must_be_inside(dockerfile)
    elif sent.dockerfile != "Dockerfile" or dockerfile is not None:
        query = tuple(each for each in call.query if each[0] != "dockerfile")
        call = replace(call, query=(*query, ("dockerfile", sent.dockerfile)))
    return replace(operation, call=call, source=sent.source)


def _with_proxies(
    operation: Operation[Any], build_args: Mapping[str, str | None], proxies: Mapping[str, str]
) -> Operation[Any]:
    if not proxies:
        return operation
    arguments = encode_json({**proxies, **build_args}).decode()
    others = tuple(each for each in operation.call.query if each[0] != "buildargs")
    return replace(operation, call=replace(operation.call, query=(*others, ("buildargs", arguments))))


def must_be_inside(dockerfile: str | bytes | None) -> None:
    """Raise `ConfigError` for a Dockerfile that is not in the archive or repository that is the context."""
    if isinstance(dockerfile, bytes) or (dockerfile or "").startswith(("/", "../")):
        raise ConfigError("the Dockerfile must be in the context, and named relative to it, unless that is a directory")


def _of_path(path: str, dockerfile: str | bytes | None, buildkit: bool, compress: bool) -> _Sent:
    with failing("read", path):
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            directory = ContextDirectory(path, dockerfile=dockerfile, buildkit=buildkit)
            pieces = directory.pieces()
            return _Sent(_compressed(pieces) if compress else pieces, directory.dockerfile)
        if not stat.S_ISREG(status.st_mode):
            return _Sent(path)
        with Path(path).open("rb") as file:
            head = file.read(HEAD_SIZE)
            if not head or is_archive(head):  # the Engine refuses an empty one
                return _Sent(path)
            return _alone(_whole(head, file.read, path), dockerfile)


def _compressed(pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    compressor = zlib.compressobj(wbits=_GZIP)
    with contextlib.closing(pieces):
        for piece in pieces:
            yield compressor.compress(piece)
    yield compressor.flush()


def _of_file(file: ArchiveSource, read: Callable[[int], object], dockerfile: str | bytes | None) -> _Sent:
    """Look how a file object begins; one that cannot go back is then read through a generator."""
    name = str(getattr(file, "name", "<file object>"))
    with failing("read", name):
        stream = cast("io.BufferedIOBase", file)
        back = stream.tell() if _seekable(stream) else None
        head = b""
        while len(head) < HEAD_SIZE and (piece := as_bytes(read(HEAD_SIZE - len(head)) or b"")):
            head += piece
        if head and not is_archive(head):
            return _alone(_whole(head, lambda size: as_bytes(read(size) or b""), name), dockerfile)
        if back is None:
            return _Sent(_continued(head, read, name))
        stream.seek(back)
    return _Sent(file)


def _seekable(file: io.BufferedIOBase) -> bool:
    try:
        return bool(file.seekable())
    except AttributeError:  # an object that has no more than read()
        return False


def _continued(head: bytes, read: Callable[[int], object], name: str) -> Iterator[bytes]:
    yield head
    while True:
        with failing("read", name):
            piece = as_bytes(read(_PIECE) or b"")
        if not piece:
            return
        yield piece


def _whole(head: bytes, read: Callable[[int], bytes], name: str) -> bytes:
    content = bytearray(head)
    while len(content) <= MAX_DOCKERFILE and (piece := read(_PIECE)):
        content += piece
    if len(content) > MAX_DOCKERFILE:
        with failing("read", name):
            raise OSError(
                errno.EFBIG, f"it is not an archive, and too long for a Dockerfile ({MAX_DOCKERFILE >> 20} MiB)"
            )
    return bytes(content)


def _alone(content: bytes, dockerfile: str | bytes | None) -> _Sent:
    if dockerfile is not None:
        raise ConfigError("the context is a Dockerfile and not an archive, so that no other Dockerfile can be named")
    return _Sent(archive_around(content))

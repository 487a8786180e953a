"""How archives are compressed: which compression the ending of a name means, compressors, and zstd's expander."""

from __future__ import annotations

import bz2
import importlib
import lzma
import os
import zlib
from collections.abc import Generator
from typing import Any, Final, Literal, Protocol, TypeAlias, cast, get_args

from aiodocker_images._arguments import wrong
from aiodocker_images.errors import ArchiveError, InvalidArgumentError

__all__ = [
    "MAGIC_SIZE",
    "ArchiveCompression",
    "Compressor",
    "ZstdExpander",
    "compress",
    "compression_of",
    "compressor",
    "is_zstd",
]

ArchiveCompression: TypeAlias = Literal["gzip", "bzip2", "xz", "zstd"]

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

MAX_EXPANDED: Final = 1024 * 1024
"""Bytes that a step of expanding gives at most: some bytes of zstd can stand for gigabytes."""

MAGIC_SIZE: Final = 4
"""Bytes at the beginning of an archive that show its compression."""

_ENDINGS: Final[dict[str, ArchiveCompression]] = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".bz2": "bzip2",
    ".tbz": "bzip2",
    ".tbz2": "bzip2",
    ".xz": "xz",
    ".txz": "xz",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".tzst": "zstd",
}

_ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd")  # Python 3.14's own, and the same for older ones
_NO_ZSTD: Final = "zstd needs Python 3.14, or: pip install 'aiodocker-images[zstd]'"


class Compressor(Protocol):
    """One stream that is compressed."""

    def compress(self, data: bytes, /) -> bytes:
        """Take the next bytes, and return what is ready."""
        ...

    def flush(self) -> bytes:
        """End the stream, and return the rest."""
        ...


def is_zstd(start: bytes) -> bool:
    """Whether an archive that starts with these bytes is compressed by zstd, with one of pzstd's own frames or not."""
    return start.startswith(_ZSTD_MAGIC) or (start[1:MAGIC_SIZE] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50)


def compression_of(to: object, chosen: object) -> ArchiveCompression | None:
    """Return how an archive at `to` is compressed: as `chosen`, or else as the ending of a path says.

    Raises TypeError and `InvalidArgumentError` for a choice that is not one, and the latter where zstd is missing.
    """
    names = get_args(ArchiveCompression)
    found: ArchiveCompression | None = None
    if chosen is None:
        if isinstance(to, str | os.PathLike):
            path = os.fspath(cast("str | os.PathLike[str]", to))
            found = _ENDINGS.get(os.path.splitext(path)[1].lower())  # noqa: PTH122 - a PathLike need not be a Path
    elif not isinstance(chosen, str):
        raise wrong("compression", chosen, f"{', '.join(map(repr, names))}, 'none' or None")
    elif chosen != "none":
        if chosen not in names:
            raise InvalidArgumentError(f"compression must be one of {', '.join(names)} or none, not {chosen!r}")
        found = next(each for each in names if each == chosen)
    if found == "zstd" and _zstd() is None:
        raise InvalidArgumentError(f"cannot compress the archive: {_NO_ZSTD}")
    return found


def compressor(compression: ArchiveCompression) -> Compressor:
    """Return what compresses a stream; equal bytes become equal bytes, for no time is written into them."""
    match compression:
        case "gzip":
            return zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
        case "bzip2":
            return bz2.BZ2Compressor()
        case "xz":
            return lzma.LZMACompressor()
        case "zstd":
            module = _zstd()
            if module is None:
                raise InvalidArgumentError(f"cannot compress the archive: {_NO_ZSTD}")
            made: Compressor = module.ZstdCompressor()
            return made


def compress(stream: Compressor, chunks: list[bytes]) -> list[bytes]:
    """Return what is ready of a stream when it has taken these bytes."""
    return [stream.compress(chunk) for chunk in chunks]


class ZstdExpander:
    """Expand a stream of zstd of one or more frames: `expand()` each of its pieces, then `finish()`.

    Raises `ArchiveError` for what is not whole, and where zstd cannot be had.
    """

    def __init__(self) -> None:
        self._module = _zstd()
        if self._module is None:
            raise ArchiveError(f"the Engine cannot read zstd, and neither can this client: {_NO_ZSTD}")
        self._frame: Any = None

    def expand(self, piece: bytes) -> Generator[bytes, None, None]:
        """Yield what a piece stands for, in pieces of at most `MAX_EXPANDED` bytes."""
        while piece or (self._frame is not None and not self._frame.needs_input):
            if self._frame is None:
                self._frame = self._module.ZstdDecompressor()
            try:
                expanded = self._frame.decompress(piece, max_length=MAX_EXPANDED)
            except self._module.ZstdError as error:
                raise ArchiveError(f"the zstd data of the archive is broken: {error}") from error
            piece = b""
            if self._frame.eof:
                piece, self._frame = self._frame.unused_data, None
            if expanded:
                yield expanded

    def finish(self) -> None:
        """Say that the stream has ended."""
        if self._frame is not None:
            raise ArchiveError("the zstd data of the archive ends in the middle")


def _zstd() -> Any:  # noqa: ANN401 - a module that this Python need not have
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None

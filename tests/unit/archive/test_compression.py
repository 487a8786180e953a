"""Archives are compressed as their path ends, or as is asked for; zstd is expanded for Engines that cannot read it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import sys
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from aiodocker_images import ArchiveError, ImageService, InvalidArgumentError, LocalFileError, StreamInterruptedError
from aiodocker_images._archive.compression import ZstdExpander, compressor
from aiodocker_images._archive.streams import ArchiveSource
from tests.conftest import Leftovers
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.tars import tar_of

MIB = 1024 * 1024
LAYER = os.urandom(400_000) + bytes(3 * MIB)
ARCHIVE = tar_of({"manifest.json": b"[]", "layer.tar": LAYER})


def zstd(data: bytes) -> bytes:
    made = compressor("zstd")
    return made.compress(data) + made.flush()


def unzstd(data: bytes) -> bytes:
    expander = ZstdExpander()
    expanded = b"".join(expander.expand(data))
    expander.finish()
    return expanded


EXPAND: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "bzip2": bz2.decompress,
    "xz": lzma.decompress,
    "zstd": unzstd,
}
ENDINGS = {
    "x.tar.gz": "gzip",
    "x.tgz": "gzip",
    "X.TGZ": "gzip",
    "x.tar.bz2": "bzip2",
    "x.tbz2": "bzip2",
    "x.tar.xz": "xz",
    "x.txz": "xz",
    "x.tar.zst": "zstd",
    "x.zst": "zstd",
    "x.tzst": "zstd",
    "x.tar": None,
    "x": None,
    "gz": None,
    ".gz": None,
    "x.gz.tar": None,
}


async def save(exchange: Exchange) -> None:
    await exchange.head()
    for start in range(0, len(ARCHIVE), 100_000):
        await exchange.chunk(ARCHIVE[start : start + 100_000])
    await exchange.end()


@pytest.fixture
def saving(daemon: ScriptedDaemon) -> ScriptedDaemon:
    daemon.on("GET", "/images/alpine:3.20/get", save)
    return daemon


@pytest.mark.parametrize(("name", "kind"), ENDINGS.items(), ids=ENDINGS)
@pytest.mark.usefixtures("saving")
async def test_a_saved_archive_is_compressed_as_its_path_ends_and_the_result_says_so(
    daemon: ScriptedDaemon, tmp_path: Path, leftovers: Leftovers, name: str, kind: str | None
) -> None:
    seen: list[int] = []
    before = leftovers.now()
    async with ImageService(daemon.socket) as images:
        result = await images.save(
            "alpine:3.20", to=tmp_path / name, checksum=True, on_progress=lambda progress: seen.append(progress.size)
        )
    written = (tmp_path / name).read_bytes()
    assert (written if kind is None else EXPAND[kind](written)) == ARCHIVE
    assert result.compression == kind
    assert result.size == len(written)
    assert result.digest == f"sha256:{hashlib.sha256(written).hexdigest()}"
    assert seen[-1] == len(ARCHIVE), "progress counts what the Engine sent"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    await leftovers.settle(before, within=30)


@pytest.mark.usefixtures("saving")
async def test_a_chosen_compression_beats_the_ending_and_serves_file_objects(
    images: ImageService, tmp_path: Path
) -> None:
    plain = await images.save("alpine:3.20", to=tmp_path / "x.tar.gz", compression="none")
    assert ((tmp_path / "x.tar.gz").read_bytes(), plain.compression) == (ARCHIVE, None)
    for kind in ("gzip", "bzip2", "xz", "zstd"):
        file = io.BytesIO()
        result = await images.save("alpine:3.20", to=file, compression=kind)
        assert EXPAND[kind](file.getvalue()) == ARCHIVE
        assert (result.compression, result.size) == (kind, len(file.getvalue()))


@pytest.mark.usefixtures("saving")
async def test_equal_archives_become_equal_files(images: ImageService, tmp_path: Path) -> None:
    """No time and no name of a file is written into them."""
    digests = [(await images.save("alpine:3.20", to=tmp_path / f"{each}.tgz", checksum=True)).digest for each in "ab"]
    assert digests[0] == digests[1]


async def test_an_unknown_compression_is_refused_at_the_call(images: ImageService, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="compression must be one of gzip, bzip2, xz, zstd or none"):
        await images.save("alpine:3.20", to=tmp_path / "x", compression="lz4")  # type: ignore[arg-type]  # the point
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def _no_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an older Python without the extra."""
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("_no_zstd")
async def test_a_missing_zstd_is_told_before_anything_is_asked(
    saving: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"pip install 'aiodocker-images\[zstd\]'"):
        await images.save("alpine:3.20", to=tmp_path / "x.tar.zst")
    assert saving.requests == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
async def test_a_save_that_is_cut_leaves_no_compressed_file(
    daemon: ScriptedDaemon, tmp_path: Path, leftovers: Leftovers, kind: str
) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(ARCHIVE[:300_000])
        exchange.cut()

    daemon.on("GET", "/images/alpine:3.20/get", cut)
    before = leftovers.now()
    async with ImageService(daemon.socket) as images:
        with pytest.raises(StreamInterruptedError):
            await images.save("alpine:3.20", to=tmp_path / f"x.tar.{kind}")
    assert list(tmp_path.iterdir()) == []
    await leftovers.settle(before, within=30)


@pytest.mark.usefixtures("saving")
async def test_a_full_disk_at_the_last_compressed_bytes_leaves_no_file(images: ImageService) -> None:
    with pytest.raises(LocalFileError):
        await images.save("alpine:3.20", to="/dev/full", compression="xz")


@pytest.mark.usefixtures("saving")
async def test_compression_runs_off_the_event_loop(
    images: ImageService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    real = zlib.compressobj

    class Recorded:
        def __init__(self, *, wbits: int) -> None:
            self._made = real(wbits=wbits)

        def compress(self, data: bytes) -> bytes:
            threads.add(threading.get_ident())
            return self._made.compress(data)

        def flush(self) -> bytes:
            threads.add(threading.get_ident())
            return self._made.flush()

    monkeypatch.setattr(zlib, "compressobj", Recorded)
    await images.save("alpine:3.20", to=tmp_path / "x.tgz")
    assert threads
    assert threading.get_ident() not in threads


# Loading: what the Engine is sent.


def loading(daemon: ScriptedDaemon) -> list[bytes]:
    """Let the daemon load anything; return the bodies that it gets."""
    bodies: list[bytes] = []

    async def load(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.head()
        await exchange.frames({"stream": "Loaded image: alpine:3.20\n"})
        await exchange.end()

    daemon.on("POST", "/images/load", load)
    daemon.on("POST", "/images/create", load)
    return bodies


def small_pieces(data: bytes) -> Iterator[bytes]:
    yield b""
    for start in range(10):
        yield data[start : start + 1]
    yield data[10:]


async def async_pieces(data: bytes) -> AsyncIterator[bytes]:
    for piece in small_pieces(data):
        yield piece


def sources(data: bytes, directory: Path) -> dict[str, ArchiveSource]:
    path = directory / "source"
    path.write_bytes(data)
    return {
        "path": path,
        "bytes": data,
        "file": io.BytesIO(data),
        "pieces": small_pieces(data),
        "async pieces": async_pieces(data),
    }


COMPRESSED = {
    "plain": ARCHIVE,
    "gzip": gzip.compress(ARCHIVE),
    "bzip2": bz2.compress(ARCHIVE),
    "xz": lzma.compress(ARCHIVE),
    "zstd": zstd(ARCHIVE),
    "zstd of several frames": zstd(ARCHIVE[:1000]) + zstd(b"") + zstd(ARCHIVE[1000:]),
    "zstd of pzstd": b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(ARCHIVE),
    "nothing": b"",
    "three bytes": b"\x28\xb5\x2f",
}


@pytest.mark.parametrize("version", ["1.41", "1.42"])
@pytest.mark.parametrize("kind", COMPRESSED)
async def test_only_zstd_is_expanded_and_only_for_an_engine_that_cannot_read_it(
    daemon: ScriptedDaemon, tmp_path: Path, leftovers: Leftovers, kind: str, version: str
) -> None:
    bodies = loading(daemon)
    before = leftovers.now()
    sent = COMPRESSED[kind]
    async with ImageService(daemon.socket, api_version=version) as images:
        given = sources(sent, tmp_path)
        for source in given.values():
            await images.load(source)
    expanded = ARCHIVE if kind.startswith("zstd") and version == "1.41" else sent
    for name, body in zip(given, bodies, strict=True):
        assert body == expanded, name
    await leftovers.settle(before, within=30)


BROKEN = {
    "cut": (zstd(ARCHIVE)[:-10], "ends in the middle"),
    "cut behind the first bytes": (zstd(ARCHIVE)[:4], "ends in the middle"),
    "changed": (zstd(ARCHIVE)[:4] + b"\xff" * 3000, "is broken"),
    "followed by something else": (zstd(ARCHIVE) + b"something else", "is broken"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_broken_zstd_is_an_archive_error_where_it_is_expanded(
    daemon: ScriptedDaemon, tmp_path: Path, leftovers: Leftovers, kind: str
) -> None:
    loading(daemon)
    before = leftovers.now()
    data, words = BROKEN[kind]
    async with ImageService(daemon.socket, api_version="1.41") as images:
        for name, source in sources(data, tmp_path).items():
            with pytest.raises(ArchiveError, match=f"^load: the zstd data of the archive .*{words}"):
                await images.load(source)
            assert name
    await leftovers.settle(before, within=30)


@pytest.mark.usefixtures("_no_zstd")
async def test_a_missing_zstd_is_an_archive_error_of_the_load_that_needs_it(daemon: ScriptedDaemon) -> None:
    bodies = loading(daemon)
    compressed = b"\x28\xb5\x2f\xfd" + bytes(50)
    async with ImageService(daemon.socket, api_version="1.41") as images:
        with pytest.raises(ArchiveError, match=r"^load: .*pip install 'aiodocker-images\[zstd\]'"):
            await images.load(compressed)
        await images.load(gzip.compress(ARCHIVE))
    async with ImageService(daemon.socket, api_version="1.42") as images:
        await images.load(compressed)
    assert bodies == [gzip.compress(ARCHIVE), compressed]


def test_a_bomb_is_expanded_in_bounded_memory() -> None:
    made = compressor("zstd")
    zeros = bytes(MIB)
    bomb = b"".join(made.compress(zeros) for _ in range(512)) + made.flush()
    assert len(bomb) < MIB
    tracemalloc.start()
    try:
        expander = ZstdExpander()
        sizes = [len(piece) for piece in expander.expand(bomb)]
        expander.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 512 * MIB
    assert max(sizes) <= MIB
    assert peak < 32 * MIB

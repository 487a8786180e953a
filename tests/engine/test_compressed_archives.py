"""Compressed archives are saved from and loaded into every real Engine; broken ones are archive errors."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import secrets
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from aiodocker_images import ArchiveError, ImageService, NotFoundError
from aiodocker_images._archive.compression import compressor
from tests.support.tars import root_file_system

pytestmark = pytest.mark.engine


def zstd(data: bytes) -> bytes:
    made = compressor("zstd")
    return made.compress(data) + made.flush()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.fixture
async def image(engine: ImageService) -> AsyncGenerator[str, None]:
    """An image of its own, which is gone afterwards."""
    name = f"localhost/compressed-{secrets.token_hex(4)}:1"
    await engine.import_image(root_file_system(), reference=name)
    yield name
    with contextlib.suppress(NotFoundError):
        await engine.remove(name)


@pytest.mark.parametrize("ending", COMPRESS)
async def test_what_is_saved_compressed_loads_again(
    engine: ImageService, image: str, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"image.tar.{ending}"
    saved = await engine.save(image, to=path)
    assert saved.compression is not None
    assert saved.size == path.stat().st_size
    before = await engine.inspect(image)
    await engine.remove(image)
    assert (await engine.load(path)).references == (image,)
    assert (await engine.inspect(image)).id == before.id
    await engine.load(path.read_bytes())


@pytest.mark.parametrize("ending", COMPRESS)
async def test_a_compressed_archive_that_is_cut_is_an_archive_error(
    engine: ImageService, image: str, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"image.tar.{ending}"
    await engine.save(image, to=path)
    await engine.remove(image)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) * 9 // 10):
        with pytest.raises(ArchiveError, match="^load: "):
            await engine.load(whole[:size])
    with pytest.raises(NotFoundError):
        await engine.inspect(image)


@pytest.mark.parametrize("ending", COMPRESS)
async def test_a_compressed_root_file_system_is_imported(engine: ImageService, image: str, ending: str) -> None:
    imported = await engine.import_image(COMPRESS[ending](root_file_system()), reference=image)
    assert (await engine.inspect(image)).id == imported.id

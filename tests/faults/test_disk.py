"""The disk below a save fails: it is read-only, or the target goes away while it is written."""

from __future__ import annotations

import asyncio
import errno
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from aiodocker_images import ImageService, LocalFileError
from tests.conftest import Leftovers
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.tars import tar_of

ARCHIVE = tar_of({"manifest.json": b"[]", "layer.tar": bytes(1 << 20)})


@pytest.fixture
def read_only(tmp_path: Path) -> Generator[Path, None, None]:
    """A directory on a file system that cannot be written to."""
    directory = tmp_path / "read-only"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


async def test_a_read_only_target_is_refused_before_anything_is_sent(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers, read_only: Path
) -> None:
    before = leftovers.now()
    with pytest.raises(LocalFileError) as caught:
        await images.save("alpine:1", to=read_only / "image.tar")
    assert caught.value.errno == errno.EROFS
    assert daemon.requests == []
    await leftovers.settle(before)


async def test_a_target_that_vanishes_while_it_is_written_is_our_error(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers, tmp_path: Path
) -> None:
    """The directory is removed with the temporary file in it: the archive can have no name any more."""
    target = tmp_path / "gone" / "image.tar"
    target.parent.mkdir()
    gone = asyncio.Event()

    async def get(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(ARCHIVE[:1000])
        shutil.rmtree(target.parent)
        gone.set()
        await exchange.chunk(ARCHIVE[1000:])
        await exchange.end()
        await exchange.client_gone()

    daemon.on("GET", "/images/alpine:1/get", get)
    await images.ping()
    before = leftovers.now()
    with pytest.raises(LocalFileError) as caught:
        await images.save("alpine:1", to=target)
    assert gone.is_set()
    assert caught.value.errno == errno.ENOENT
    assert not target.parent.exists()
    await leftovers.settle(before)

"""A caller's function hears of the progress of every operation, be it a plain function or a coroutine function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aiodocker_images import ImageService, OnProgress, ProgressFrame, SaveProgress
from tests.conftest import Leftovers
from tests.support.scripted import ScriptedDaemon
from tests.unit.api.test_transfers import ARCHIVE, DIGEST, IMPORT, LOAD, PULL, PUSH, frames, save

BUILD = [{"stream": "Step 1/1 : FROM scratch\n"}, {"stream": f"Successfully built {DIGEST[7:19]}\n"}]

Run = Callable[[ImageService, OnProgress[Any]], Awaitable[object]]

# Each operation, how it is run, and how often it has something to tell.
OPERATIONS: dict[str, tuple[Run, int]] = {
    "pull": (lambda images, told: images.pull("alpine:3.20", on_progress=told), len(PULL)),
    "push": (lambda images, told: images.push("alpine:3.20", on_progress=told), len(PUSH)),
    "load": (lambda images, told: images.load(ARCHIVE, on_progress=told), len(LOAD)),
    "import": (lambda images, told: images.import_image(b"", on_progress=told), len(IMPORT)),
    "build": (lambda images, told: images.build(ARCHIVE, on_progress=told), len(BUILD)),
}


@pytest.fixture
def scripted(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """A daemon that does what is asked, and says so."""
    daemon.on("POST", "/images/alpine/push", frames(*PUSH))
    daemon.on("POST", "/images/load", frames(*LOAD))
    daemon.on("POST", "/build", frames(*BUILD))
    daemon.on("GET", "/images/alpine:3.20/get", save)
    return daemon


@pytest.mark.parametrize("coroutine", [False, True], ids=["function", "coroutine function"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_each_frame_is_told_to_a_function_and_to_a_coroutine_function(
    scripted: ScriptedDaemon, images: ImageService, name: str, *, coroutine: bool
) -> None:
    scripted.on("POST", "/images/create", frames(*(IMPORT if name == "import" else PULL)))
    told: list[ProgressFrame] = []

    async def later(frame: ProgressFrame) -> None:
        await asyncio.sleep(0)
        told.append(frame)

    run, count = OPERATIONS[name]
    await run(images, later if coroutine else told.append)
    assert len(told) == count
    assert all(isinstance(frame, ProgressFrame) for frame in told)


@pytest.mark.parametrize("coroutine", [False, True], ids=["function", "coroutine function"])
async def test_a_save_tells_how_many_bytes_have_come(
    scripted: ScriptedDaemon, images: ImageService, tmp_path: Path, *, coroutine: bool
) -> None:
    assert scripted.socket
    told: list[SaveProgress] = []

    async def later(progress: SaveProgress) -> None:
        await asyncio.sleep(0)
        told.append(progress)

    await images.save("alpine:3.20", to=tmp_path / "a.tar", on_progress=later if coroutine else told.append)
    assert told[-1] == SaveProgress(size=len(ARCHIVE))
    assert [progress.size for progress in told] == sorted(progress.size for progress in told)


async def test_an_exception_of_an_async_callback_ends_the_operation(
    scripted: ScriptedDaemon, images: ImageService, leftovers: Leftovers
) -> None:
    scripted.on("POST", "/images/create", frames(*PULL))
    await images.ping()  # which opens the connection that is kept
    before = leftovers.now()

    async def fail(_: ProgressFrame) -> None:
        await asyncio.sleep(0)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await images.pull("alpine:3.20", on_progress=fail)
    await leftovers.settle(before)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_what_cannot_be_called_is_refused_before_anything_is_sent(
    scripted: ScriptedDaemon, images: ImageService, name: str
) -> None:
    wrong: Any = "print"
    with pytest.raises(TypeError, match="on_progress must be a function of one argument, or None, not str"):
        await OPERATIONS[name][0](images, wrong)
    assert scripted.requests == []

"""All the ways to leave a pull that has begun and would go on for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from aiodocker_images import ImageService, ProgressFrame

WayOut = Callable[[ImageService, str], Awaitable[None]]


async def leave_by_break(images: ImageService, name: str) -> None:
    async for _ in images.pull_stream(name):
        break


async def leave_by_exception(images: ImageService, name: str) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async for _ in images.pull_stream(name):
            raise ZeroDivisionError


async def leave_by_aclose(images: ImageService, name: str) -> None:
    stream = images.pull_stream(name)
    await anext(stream)
    await stream.aclose()


async def leave_by_cancel(images: ImageService, name: str) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(images.pull(name, on_progress=lambda _: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_timeout(images: ImageService, name: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await images.pull(name)


async def leave_by_exception_in_on_progress(images: ImageService, name: str) -> None:
    def fail(_: ProgressFrame) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await images.pull(name, on_progress=fail)


async def leave_to_the_collector(images: ImageService, name: str) -> None:
    stream = images.pull_stream(name)
    await anext(stream)
    del stream


async def leave_a_group(images: ImageService, name: str) -> None:
    """One task of a group fails, and the group cancels the others."""

    async def fail(begun: asyncio.Event) -> None:
        await begun.wait()
        raise ZeroDivisionError

    begun = asyncio.Event()
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(begun))
            group.create_task(images.pull(name, on_progress=lambda _: begun.set()))


WAYS_OUT: Final[list[WayOut]] = [
    leave_by_break,
    leave_by_exception,
    leave_by_aclose,
    leave_by_cancel,
    leave_by_timeout,
    leave_by_exception_in_on_progress,
    leave_to_the_collector,
    leave_a_group,
]

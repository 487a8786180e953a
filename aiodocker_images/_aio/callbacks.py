"""Call a function of the caller's with progress: a plain function, or a coroutine function, which is awaited."""

from __future__ import annotations

import inspect
from typing import TypeVar

from aiodocker_images.progress import OnProgress

__all__ = ["check_callback", "tell"]

T = TypeVar("T")


def check_callback(on_progress: object) -> None:
    """Raise TypeError for what cannot be called."""
    if on_progress is not None and not callable(on_progress):
        raise TypeError(f"on_progress must be a function of one argument, or None, not {type(on_progress).__name__}")


async def tell(on_progress: OnProgress[T], progress: T) -> None:
    """Call it, and wait for the coroutine that it may have returned. What it raises ends the operation."""
    returned = on_progress(progress)
    if returned is not None and inspect.isawaitable(returned):
        await returned

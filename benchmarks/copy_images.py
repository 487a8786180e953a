"""Copies images from one registry to another, as a user of the library would.

python -m benchmarks.copy_images SOURCE TARGET AT_ONCE NAME...
"""

from __future__ import annotations

import asyncio
import sys

from aiodocker_images import RegistryService


async def copy_images(source: str, target: str, at_once: int, names: list[str]) -> None:
    """Copy them, so many at once."""
    slots = asyncio.Semaphore(at_once)
    async with RegistryService() as registries:

        async def copy(name: str) -> None:
            async with slots:
                await registries.copy(f"{source}/{name}", f"{target}/{name}")

        await asyncio.gather(*map(copy, names))


if __name__ == "__main__":
    asyncio.run(copy_images(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))

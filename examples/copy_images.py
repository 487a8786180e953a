"""Copying between registries without an Engine: the newest tags of a repository, with a line for each step.

    python examples/copy_images.py alpine registry.example/mirror/alpine ">=3.18"

A second run moves nothing: what is there already costs two requests.
"""

from __future__ import annotations

import asyncio
import sys

from aiodocker_images import DockerError, RegistryService

NEWEST = 3


async def copy(registries: RegistryService, source: str, target: str) -> None:
    """Copy an image with all its platforms, and print what happens to each blob and manifest."""
    async for step in registries.copy_stream(source, target, verify=True):
        if step.result is None:
            print(f"  {step.kind} {step.digest[:19]} {step.status}, {step.done_bytes} of {step.all_bytes} bytes")
        else:
            print(f"{target}: {step.result.digest}, {step.result.bytes_moved} bytes moved")


async def main(source: str, target: str, versions: str) -> None:
    """Copy the newest versions of a repository to another."""
    async with RegistryService() as registries:
        for tag in await registries.tags(source, semver=versions, newest=NEWEST):
            await copy(registries, f"{source}:{tag}", f"{target}:{tag}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit('usage: copy_images.py SOURCE TARGET VERSIONS, such as "alpine registry.example/alpine >=3.18"')
    try:
        asyncio.run(main(*sys.argv[1:]))
    except DockerError as error:
        sys.exit(f"copy_images: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

"""Docker contexts, as the docker CLI writes them, and that CLI itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import engines


def write_context(
    directory: Path, name: str, *, files: tuple[str, ...] = (), meta: object = None, **endpoint: object
) -> Path:
    """Write a context as the docker CLI does, and return its meta.json."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    path = directory / "contexts/meta" / identity / "meta.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}} if meta is None else meta
    path.write_text(json.dumps(document))
    secrets = directory / "contexts/tls" / identity / "docker"
    secrets.mkdir(parents=True, exist_ok=True)
    for file in files:
        (secrets / file).touch()
    return path


async def run_docker(*arguments: str) -> None:
    """Run the real docker CLI with the environment of the test."""
    process = await asyncio.create_subprocess_exec(engines.docker_cli(), *arguments, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(60):
        assert await process.wait() == 0

"""The operations that stream, each as a job that can be done over and over on a real Engine, and checked."""

from __future__ import annotations

import contextlib
import secrets
import tarfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, cast

import aiohttp

from aiodocker_images import (
    BuildResult,
    Event,
    ImageService,
    ImportResult,
    LoadResult,
    NotFoundError,
    PullResult,
    PushResult,
    SaveResult,
)
from aiodocker_images.testing.content import MANIFESTS
from tests.conftest import by_engine

from .tars import root_file_system

MANIFEST_TYPES: Final = ", ".join(sorted(MANIFESTS))


class Job(ABC):
    """One operation on images of its own, named `image`. `service` reaches the Engine without a detour.

    `archive` is what the job keeps for its source: `size` bytes of it cannot be compressed.
    """

    name: str
    writes_body = False  # whether the request has a body
    creates = False  # whether its success adds `image` to the Engine
    names = False  # whether it is the request that names `image`

    def __init__(self, service: ImageService, registry: str, directory: Path, *, size: int) -> None:
        self._repository = f"{registry}/{self.name}-{secrets.token_hex(4)}"
        self._turn = 1
        self.image = f"{self._repository}:{self._turn}"
        self._service = service
        self._directory = directory
        self._size = size

    async def set_up(self) -> None:  # noqa: B027 - for most jobs, but not a must
        """Make, once, what the job needs."""

    async def prepare(self) -> None:
        """Bring the Engine to where the job begins."""
        if self.creates:
            await self.remove()
        if self.names:
            # For a request that was broken off near its end, an Engine may still be at work: not for this name.
            self._turn += 1
            self.image = f"{self._repository}:{self._turn}"

    def named_before(self, name: str) -> bool:
        """Tell whether that was the name of `image` in an earlier run."""
        return name.startswith(f"{self._repository}:") and name != self.image

    @abstractmethod
    async def run(self, images: ImageService) -> object:
        """Do the job."""

    @abstractmethod
    async def check(self, result: object) -> None:
        """Fail unless `result` is what the job comes to, and the Engine has it."""

    async def check_after(self) -> None:
        """Fail unless the Engine and the disk are as they were, or as success makes them."""
        # Not by a list: on Docker 28.5's containerd store it fails while other images are being removed.
        try:
            found = await self._service.inspect(self.image)
        except NotFoundError:
            assert self.creates
        else:
            assert self.image in found.repo_tags

    async def remove(self) -> None:
        """Take the image from the Engine."""
        with contextlib.suppress(NotFoundError):
            await self._service.remove(self.image, force=True)

    async def _new_image(self) -> None:
        await self._service.import_image(root_file_system(self._size), reference=self.image)

    async def _exists(self, image_id: str | None) -> bool:
        found = await self._service.inspect(self.image)
        return image_id is not None and found.id == image_id


class Pull(Job):
    name = "pull"
    creates = True

    async def set_up(self) -> None:
        await self._new_image()
        self._digest = (await self._service.push(self.image)).digest

    async def run(self, images: ImageService) -> object:
        return await images.pull(self.image)

    async def check(self, result: object) -> None:
        assert isinstance(result, PullResult)
        assert result.digest == by_engine(self._digest, podman=None)
        assert (await self._service.inspect(self.image)).id


class Push(Job):
    name = "push"

    async def prepare(self) -> None:
        """Make an image that is new to the registry, too."""
        await self.remove()
        await self._new_image()

    async def run(self, images: ImageService) -> object:
        return await images.push(self.image)

    async def check(self, result: object) -> None:
        assert isinstance(result, PushResult)
        assert result.digest is not None
        registry, _, name = self.image.removesuffix(":1").partition("/")
        async with (
            aiohttp.ClientSession(headers={"Accept": MANIFEST_TYPES}, raise_for_status=True) as session,
            session.head(f"http://{registry}/v2/{name}/manifests/1") as response,
        ):
            assert response.headers["Docker-Content-Digest"] == result.digest


class Load(Job):
    name = "load"
    writes_body = True
    creates = True

    async def set_up(self) -> None:
        await self._new_image()
        self._archive = self._directory / "load.tar"
        await self._service.save(self.image, to=self._archive)

    async def run(self, images: ImageService) -> object:
        return await images.load(self._archive)

    async def check(self, result: object) -> None:
        assert result == LoadResult(references=(self.image,))
        assert (await self._service.inspect(self.image)).id


class Save(Job):
    name = "save"

    async def set_up(self) -> None:
        await self._new_image()
        self._target = self._directory / "saved" / "save.tar"
        self._target.parent.mkdir()

    async def prepare(self) -> None:
        self._target.unlink(missing_ok=True)

    async def run(self, images: ImageService) -> object:
        return await images.save(self.image, to=self._target)

    async def check(self, result: object) -> None:
        assert result == SaveResult(size=self._target.stat().st_size)
        with tarfile.open(self._target) as archive:
            assert "manifest.json" in archive.getnames()

    async def check_after(self) -> None:
        await super().check_after()
        assert {*self._target.parent.iterdir()} <= {self._target}


class Import(Job):
    name = "import"
    writes_body = True
    creates = True
    names = True

    async def set_up(self) -> None:
        self._archive = root_file_system(self._size)

    async def run(self, images: ImageService) -> object:
        return await images.import_image(self._archive, reference=self.image)

    async def check(self, result: object) -> None:
        assert isinstance(result, ImportResult)
        assert await self._exists(result.id)


class Build(Job):
    name = "build"
    writes_body = True
    creates = True
    names = True

    async def set_up(self) -> None:
        self._context = self._directory / "context"
        self._context.mkdir()
        (self._context / "Dockerfile").write_text("FROM scratch\nCOPY data /\n")
        (self._context / "data").write_bytes(secrets.token_bytes(self._size))

    async def run(self, images: ImageService) -> object:
        return await images.build(self._context, tags=self.image, no_cache=True)

    async def check(self, result: object) -> None:
        assert isinstance(result, BuildResult)
        assert await self._exists(result.id)


class Events(Job):
    name = "events"

    async def set_up(self) -> None:
        self._since = time.time() - 1
        await self._new_image()
        self._id = (await self._service.inspect(self.image)).id
        self._until = time.time()

    async def run(self, images: ImageService) -> object:
        filters = {"image": self.image}
        events = images.events(since=self._since, until=self._until, filters=filters, reconnect=False)
        return tuple([event async for event in events])

    async def check(self, result: object) -> None:
        actors = [event.actor for event in cast("tuple[Event, ...]", result)]
        assert self._id.removeprefix("sha256:") in {actor.id.removeprefix("sha256:") for actor in actors if actor}


JOBS: Final[tuple[type[Job], ...]] = (Pull, Push, Load, Save, Import, Build, Events)

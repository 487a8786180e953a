"""A registry or token server that sends more than a limit allows causes an error of ours, and can be used again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from aiodocker_images import FrameDecodeError, NotFoundError, RegistryService
from aiodocker_images._http.refusals import MAX_PLAIN_TEXT
from aiodocker_images.testing import FakeRegistry, Fault, TokenAuth, image

from .conftest import Opened

MIB = 1 << 20

Read = Callable[[RegistryService, str], Awaitable[object]]

LONG: dict[str, tuple[str, int, Read]] = {
    "a manifest": ("GET manifest", 4 * MIB, RegistryService.manifest),
    "a configuration": ("GET blob", 8 * MIB, RegistryService.image),
    "a page of tags": ("GET tags", 32 * MIB, lambda registries, name: registries.tags(name.removesuffix(":1"))),
    "a token": ("GET token", MIB, RegistryService.digest),
}


@pytest.mark.parametrize(("step", "limit", "read"), LONG.values(), ids=LONG)
async def test_a_longer_answer_than_its_limit_is_an_error(opened: Opened, step: str, limit: int, read: Read) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", image())
        injected = fake.fail(Fault.refuse(200, body=b" " * (limit + 1)), on=step, times=None)
        with pytest.raises(FrameDecodeError, match=f"longer than {limit} bytes"):
            await read(registries, fake.name("app:1"))
        injected.remove()
        await read(registries, fake.name("app:1"))


async def test_of_a_long_error_text_the_beginning_is_shown(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        fake.fail(Fault.refuse(404, body=b"x" * (8 * MIB)), on="GET manifest")
        with pytest.raises(NotFoundError) as caught:
            await registries.manifest(fake.name("app:1"))
        assert caught.value.message == f"{'x' * MAX_PLAIN_TEXT}…"

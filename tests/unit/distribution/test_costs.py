"""What moving a blob costs, in pieces and connections: each piece is a turn of everything between two registries."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from aiodocker_images.testing import FakeRegistry, Fault, image, layer, random_bytes

from .conftest import Opened

MIB = 1 << 20


async def test_a_blob_comes_in_few_pieces_from_a_registry_that_is_ahead(opened: Opened) -> None:
    data = random_bytes(16 * MIB)
    async with FakeRegistry() as fake, opened(fake) as registries:
        digest = fake.put_blob("app", data)
        got = bytearray()
        pieces = 0
        async with contextlib.aclosing(registries.blob_stream(fake.name("app"), digest)) as stream:
            async for piece in stream:
                got += piece
                pieces += 1
                while fake.asked("GET blob")[0].bytes_out < min(len(data), len(got) + 4 * MIB):
                    await asyncio.sleep(0.001)
        assert got == data
        assert pieces <= 4 * 16  # asyncio alone reads 256 KiB at once, and aiohttp gives what came


@pytest.mark.usefixtures("each_reader")
async def test_a_connection_is_used_again_after_a_blob(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", image())
        blobs = [random_bytes(3 * MIB), b"", random_bytes(2 * MIB), b"small"]
        for data in (*blobs, *blobs):
            digest = fake.put_blob("app", data)
            assert b"".join([piece async for piece in registries.blob_stream(fake.name("app"), digest)]) == data
            await registries.digest(fake.name("app:1"))
        assert len({each.connection for each in fake.requests}) == 1


@pytest.mark.usefixtures("each_reader")
async def test_a_redirect_and_a_refusal_of_a_blob_leave_the_connection_usable(opened: Opened) -> None:
    async with FakeRegistry(redirect=True) as fake, opened(fake) as registries:
        data = random_bytes(2 * MIB)
        digest = fake.put_blob("app", data)
        fake.fail(Fault.refuse(503), on="GET blob")
        for _ in range(3):
            assert b"".join([piece async for piece in registries.blob_stream(fake.name("app"), digest)]) == data
        by_server: dict[str, set[int]] = {}
        for each in fake.requests:
            by_server.setdefault(each.server, set()).add(each.connection)
        assert [len(used) for used in by_server.values()] == [1, 1]


@pytest.mark.usefixtures("each_reader")
async def test_a_blob_of_a_copy_takes_one_connection_at_each_end(opened: Opened) -> None:
    async with FakeRegistry() as source, FakeRegistry() as target, opened(source, target, concurrency=1) as registries:
        for number in range(3):
            source.put(f"app:{number}", image(layers=[layer({"data": random_bytes(2 * MIB)}, compress=False)]))
            await registries.copy(source.name(f"app:{number}"), target.name(f"app:{number}"))
        for fake in (source, target):
            # The configuration and the layer of an image move at once.
            assert len({each.connection for each in fake.requests}) <= 2

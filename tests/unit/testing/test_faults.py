"""Each fault does to an answer or to a request what its name says, as often as it was told to, and leaves nothing."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator

import aiohttp
import pytest

from aiodocker_images.testing import FakeRegistry, Fault, NotFakedError, image, layer
from tests.conftest import Leftovers
from tests.support.registry_client import RegistryClient

BLOB = layer(size=100_000)
APP = image([BLOB])
PATH = f"/v2/app/blobs/{BLOB.digest}"


@pytest.fixture
async def registry(leftovers: Leftovers) -> AsyncGenerator[FakeRegistry, None]:
    before = leftovers.now()
    async with FakeRegistry() as registry:
        registry.put("app:1.0", APP)
        yield registry
        await registry.idle()
    await leftovers.settle(before)


@pytest.fixture
async def client(registry: FakeRegistry) -> AsyncGenerator[RegistryClient, None]:
    async with RegistryClient(registry.url) as client:
        yield client


async def raw(registry: FakeRegistry, request: bytes) -> tuple[bytes, bool]:
    """Send bytes and return all that comes until the connection ends, and whether it ended with a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(registry.host.partition(":")[2]))
    writer.write(request)
    received, reset = bytearray(), False
    try:
        while data := await reader.read(1 << 16):
            received += data
    except ConnectionResetError:
        reset = True
    writer.close()
    return bytes(received), reset


GET = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


async def test_refuse_answers_as_often_as_it_was_told_to(registry: FakeRegistry, client: RegistryClient) -> None:
    injection = registry.fail(Fault.refuse(429, retry_after=3), on="GET manifest", times=2)
    answers = [await client.get("/v2/app/manifests/1.0") for _ in range(3)]
    assert [each.status for each in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert answers[0].codes == ["TOOMANYREQUESTS"]
    assert injection.done
    assert [str(each.fault) for each in registry.asked("GET manifest")] == ["refuse 429", "refuse 429", "None"]


async def test_refuse_says_when_to_come_back_as_a_date(registry: FakeRegistry, client: RegistryClient) -> None:
    moment = datetime.datetime(2026, 11, 26, 12, 0, tzinfo=datetime.UTC)
    registry.fail(Fault.refuse(503, retry_after=moment))
    assert (await client.get("/v2/")).headers["retry-after"] == "Thu, 26 Nov 2026 12:00:00 GMT"


async def test_refuse_has_the_code_and_message_that_it_is_told(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.refuse(400, code="TAG_INVALID", message="immutable"), on="HEAD manifest")
    registry.fail(Fault.refuse(400, code="TAG_INVALID", message="immutable"), on="tags")
    answer = await client.get("/v2/app/tags/list")
    assert answer.json == {"errors": [{"code": "TAG_INVALID", "message": "immutable", "detail": None}]}
    assert (await client.ask("HEAD", "/v2/app/manifests/1.0")).status == 400


async def test_html_is_a_page_with_the_status_of_success(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.html(), on="manifest")
    answer = await client.get("/v2/app/manifests/1.0")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.body.startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize("after", [0, 1, 1000, BLOB.size - 1, BLOB.size])
async def test_cut_sends_so_many_bytes_of_the_body_and_closes(registry: FakeRegistry, after: int) -> None:
    registry.fail(Fault.cut(after=after), on="GET blob")
    received, reset = await raw(registry, GET)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {BLOB.size}".encode() in head
    assert (body, reset) == (BLOB.data[:after], False)
    assert (await raw(registry, GET))[0].endswith(BLOB.data)


async def test_cut_can_be_at_any_byte_of_the_whole_answer(registry: FakeRegistry) -> None:
    whole, _ = await raw(registry, GET)
    for after in (0, 1, 17, 200, len(whole) - 1):
        registry.fail(Fault.cut(after=after, of="response"), on="GET blob")
        assert (await raw(registry, GET))[0] == whole[:after]


async def test_reset_is_one_that_tcp_tells_of(registry: FakeRegistry) -> None:
    registry.fail(Fault.reset(after=1000), on="GET blob")
    received, reset = await raw(registry, GET)
    assert reset
    assert received.endswith(BLOB.data[:1000])


async def test_a_request_is_cut_in_its_body_and_its_upload_goes_on_where_it_was(
    registry: FakeRegistry, client: RegistryClient
) -> None:
    new = layer(size=300_000, seed=1)
    opened = await client.ask("POST", "/v2/app/blobs/uploads/")
    registry.fail(Fault.cut(after=70_000, of="request"), on="PATCH")
    with pytest.raises(aiohttp.ClientError):
        await client.ask("PATCH", opened.headers["location"], body=new.data)
    assert [each.size for each in registry.uploads] == [70_000]
    status = await client.get(opened.headers["location"])
    assert (status.status, status.headers["range"]) == (204, "0-69999")
    rest = new.data[70_000:]
    headers = {"Content-Range": f"70000-{new.size - 1}"}
    answer = await client.ask("PATCH", status.headers["location"], body=rest, headers=headers)
    assert (await client.finish(answer, new.digest)).status == 201
    assert registry.blob(new.digest) == new.data


async def test_a_cut_upload_is_lost_where_a_registry_does_not_keep_it(leftovers: Leftovers) -> None:
    async with (
        FakeRegistry(like="distribution 2.8") as registry,
        RegistryClient(registry.url) as client,
    ):
        opened = await client.ask("POST", "/v2/app/blobs/uploads/")
        registry.fail(Fault.reset(after=10, of="request"), on="PUT upload")
        with pytest.raises(aiohttp.ClientError):
            await client.finish(opened, BLOB.digest, BLOB.data)
        assert registry.uploads == []
        assert (await client.get(opened.headers["location"])).codes == ["BLOB_UPLOAD_UNKNOWN"]


async def test_stall_holds_a_download_until_it_is_released(registry: FakeRegistry, client: RegistryClient) -> None:
    stall = registry.fail(Fault.stall(after=500), on="GET blob")
    download = asyncio.create_task(client.get(PATH))
    await stall.reached()
    assert not download.done()
    assert [each.done for each in registry.asked("GET blob")] == [False]
    stall.release()
    assert (await download).body == BLOB.data


async def test_stall_ends_when_the_client_leaves(registry: FakeRegistry) -> None:
    stall = registry.fail(Fault.stall(), on="GET blob")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(registry.host.partition(":")[2]))
    writer.write(GET)
    await stall.reached()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    await registry.idle()


@pytest.mark.parametrize("size", [10_000, 64 << 20], ids=["in the buffers", "more than the buffers hold"])
async def test_stall_holds_an_upload_until_the_client_leaves(
    registry: FakeRegistry, client: RegistryClient, size: int
) -> None:
    opened = await client.ask("POST", "/v2/app/blobs/uploads/")
    stall = registry.fail(Fault.stall(after=1000, of="request"), on="PUT upload")
    _, writer = await asyncio.open_connection("127.0.0.1", int(registry.host.partition(":")[2]))
    target = opened.headers["location"].removeprefix(registry.url)
    writer.write(f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size))
    await stall.reached()
    assert (registry.requests[-1].bytes_in, registry.requests[-1].done) == (1000, False)
    writer.transport.abort()
    await client.__aexit__(None, None, None)
    await registry.idle()
    assert [each.size for each in registry.uploads] == [1000]


async def test_slow_comes_whole_in_small_pieces(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.slow(chunk=10_000, pause=0.001), on="GET blob")
    assert (await client.get(PATH)).body == BLOB.data
    registry.fail(Fault.slow(chunk=10_000, pause=0.001, of="request"), on="PUT upload")
    assert (await client.push_blob("other", BLOB)).status == 201


async def test_lie_changes_one_byte_of_the_body_or_the_digest(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.lie(after=7), on="GET blob")
    body = (await client.get(PATH)).body
    assert [at for at, (got, right) in enumerate(zip(body, BLOB.data, strict=True)) if got != right] == [7]
    registry.fail(Fault.lie(about="digest"), on="manifest")
    answer = await client.get("/v2/app/manifests/1.0")
    assert answer.body == APP.data
    assert answer.headers["docker-content-digest"] not in {APP.digest, ""}


async def test_duplicate_sends_bytes_twice(registry: FakeRegistry) -> None:
    registry.fail(Fault.duplicate(after=10, length=5), on="GET blob")
    received, _ = await raw(registry, GET)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {BLOB.size}".encode() in head
    assert body == BLOB.data[:15] + BLOB.data[10:]


@pytest.mark.parametrize("off_by", [-10, 10])
async def test_content_length_declares_another_length(registry: FakeRegistry, off_by: int) -> None:
    registry.fail(Fault.content_length(off_by), on="GET blob")
    received, _ = await raw(registry, GET)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {BLOB.size + off_by}\r\n".encode() in head + b"\r\n"
    assert body == BLOB.data


async def test_header_is_changed_or_left_out(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.header("docker-content-digest", None), on="manifest")
    assert "docker-content-digest" not in (await client.get("/v2/app/manifests/1.0")).headers
    registry.fail(Fault.header("Content-Type", "text/plain"), on="manifest")
    assert (await client.get("/v2/app/manifests/1.0")).headers["content-type"] == "text/plain"


async def test_location_leads_elsewhere(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.location(scheme="https", host="evil.example"), on="POST upload")
    registry.fail(Fault.location("/v2/../x?a=%2F"), on="POST upload")
    first, second = [await client.ask("POST", "/v2/app/blobs/uploads/") for _ in range(2)]
    assert first.headers["location"].startswith("https://evil.example/v2/app/blobs/uploads/")
    assert second.headers["location"] == "/v2/../x?a=%2F"
    with pytest.raises(ValueError, match="say where to"):
        Fault.location()


async def test_link_loop_leads_to_the_same_page(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.link_loop(), on="tags", times=None)
    answer = await client.get("/v2/app/tags/list?n=1")
    assert answer.headers["link"] == '</v2/app/tags/list?n=1>; rel="next"'


async def test_lose_upload_forgets_the_session(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.lose_upload(), on="PUT upload")
    assert (await client.push_blob("app", BLOB)).codes == ["BLOB_UPLOAD_UNKNOWN"]
    assert registry.uploads == []


async def test_no_space_fails_as_a_full_disk_does(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.fail(Fault.no_space(), on="PUT upload")
    answer = await client.push_blob("other", BLOB)
    assert (answer.status, answer.codes) == (500, ["UNKNOWN"])
    assert registry.blobs("other") == set()


async def test_restart_drops_every_connection_and_upload(registry: FakeRegistry, client: RegistryClient) -> None:
    await client.ask("POST", "/v2/app/blobs/uploads/")
    registry.fail(Fault.restart(), on="GET blob")
    with pytest.raises(aiohttp.ClientError):
        await client.get(PATH)
    assert registry.uploads == []
    assert (await client.get(PATH)).body == BLOB.data


async def test_a_fault_is_skipped_aimed_and_ended(registry: FakeRegistry, client: RegistryClient) -> None:
    other = layer(seed=9)
    registry.put_blob("app", other)
    registry.fail(Fault.refuse(500), on="GET blob", reference=BLOB.digest, skip=1)
    assert [(await client.get(PATH)).status for _ in range(3)] == [200, 500, 200]
    with registry.fail(Fault.refuse(500), on="blob", reference=BLOB.digest, times=None) as injection:
        assert [(await client.get(PATH)).status for _ in range(3)] == [500, 500, 500]
        assert (await client.get(f"/v2/app/blobs/{other.digest}")).status == 200
    assert (await client.get(PATH)).status == 200
    assert injection.hits == 3
    left = registry.fail(Fault.refuse(500), on="tags")
    assert registry.pending_faults == [left]
    registry.clear_faults()
    assert registry.pending_faults == []


async def test_of_two_faults_that_fit_the_one_named_first_comes_first(
    registry: FakeRegistry, client: RegistryClient
) -> None:
    registry.fail(Fault.refuse(429), on="blob", times=2)
    registry.fail(Fault.refuse(503))
    assert [(await client.get(PATH)).status for _ in range(4)] == [429, 429, 503, 200]


async def test_what_cannot_be_faked_is_a_clear_error(registry: FakeRegistry) -> None:
    with pytest.raises(NotFakedError, match="FakeRegistry does not fake 'in_stream_error'; its faults are content_"):
        registry.fail(Fault.in_stream_error("no space left on device"))
    with pytest.raises(NotFakedError, match="no step 'PUSH blob'; its steps are GET base"):
        registry.fail(Fault.cut(), on="PUSH blob")
    with pytest.raises(ValueError, match="times must be at least 1"):
        registry.fail(Fault.cut(), times=0)
    with pytest.raises(ValueError, match="not the status of an answer: 42"):
        Fault.refuse(42)


async def test_a_big_upload_that_is_refused_learns_why(registry: FakeRegistry, client: RegistryClient) -> None:
    """The connection is closed, but not before the client has read the answer."""
    registry.fail(Fault.refuse(429), on="PUT upload")
    opened = await client.ask("POST", "/v2/app/blobs/uploads/")
    location = opened.headers["location"].removeprefix(registry.url)
    head = f"PUT {location}&digest={BLOB.digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 30}\r\n\r\n".encode()
    received, reset = await raw(registry, head + bytes(1 << 20))
    assert received.startswith(b"HTTP/1.1 429")
    assert not reset

"""Pull, push, load, save and import, against a daemon that is cut, stalls, contradicts and is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from aiodocker_images import (
    APIError,
    ArchiveError,
    DockerError,
    FrameDecodeError,
    ImageService,
    ImportResult,
    InvalidArchiveError,
    InvalidPlatformError,
    InvalidReferenceError,
    LoadResult,
    LocalFileError,
    NoSpaceError,
    NotFoundError,
    ProgressFrame,
    PullResult,
    PushResult,
    RateLimitedError,
    RegistryAuth,
    ServerError,
    StaticKeychain,
    StreamInterruptedError,
    StreamStalledError,
    TransferredTag,
    UnauthorizedError,
)
from aiodocker_images.credentials import registry_auth_header
from tests.conftest import Leftovers
from tests.support.scripted import Exchange, Handler, ScriptedDaemon
from tests.support.ways_out import WAYS_OUT, WayOut

DIGEST = "sha256:" + "ab" * 32
Frame = Mapping[str, object]

PULL: list[Frame] = [
    {"status": "Pulling from library/alpine", "id": "3.20"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "0123456789ab"},
    {"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "id": "0123456789ab"},
    {"status": "Pull complete", "progressDetail": {}, "id": "0123456789ab"},
    {"status": f"Digest: {DIGEST}"},
    {"status": "Status: Downloaded newer image for alpine:3.20"},
]
PUSH: list[Frame] = [
    {"status": "The push refers to repository [docker.io/library/alpine]"},
    {"status": "Pushed", "progressDetail": {}, "id": "0123456789ab"},
    {"status": f"3.20: digest: {DIGEST} size: 528"},
]
LOAD: list[Frame] = [{"stream": "Loaded image: alpine:3.20\n"}, {"stream": "Loaded image ID: " + DIGEST + "\n"}]
IMPORT: list[Frame] = [{"status": DIGEST}]


def tar(*members: tuple[str, int]) -> bytes:
    """Make a tar of files of the given sizes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, size in members:
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    return file.getvalue()


ARCHIVE = tar(("manifest.json", 100), ("layer.tar", 300_000))


def frames(*documents: object, read_body: bool = True) -> Handler:
    """Answer with frames, once the request's body is read."""

    async def handler(exchange: Exchange) -> None:
        if read_body:
            await exchange.body()
        await exchange.head()
        await exchange.frames(*documents)
        await exchange.end()

    return handler


async def save(exchange: Exchange) -> None:
    await exchange.head()
    for start in range(0, len(ARCHIVE), 50_000):
        await exchange.chunk(ARCHIVE[start : start + 50_000])
    await exchange.end()


@pytest.fixture
def scripted(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """A daemon that does everything right."""
    daemon.on("POST", "/images/create", frames(*PULL))
    daemon.on("POST", "/images/alpine/push", frames(*PUSH))
    daemon.on("POST", "/images/load", frames(*LOAD))
    daemon.on("GET", "/images/alpine:3.20/get", save)
    return daemon


async def test_each_operation_returns_what_its_frames_said(
    scripted: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    seen: list[ProgressFrame] = []
    assert await images.pull("alpine:3.20", on_progress=seen.append) == PullResult(
        reference="docker.io/library/alpine:3.20", digest=DIGEST, tags=(TransferredTag(tag="3.20", digest=DIGEST),)
    )
    assert [frame.status for frame in seen] == [frame["status"] for frame in PULL]
    assert await images.push("alpine:3.20") == PushResult(
        reference="docker.io/library/alpine:3.20",
        digest=DIGEST,
        size=528,
        tags=(TransferredTag(tag="3.20", digest=DIGEST, size=528),),
    )
    assert await images.load(ARCHIVE) == LoadResult(references=("alpine:3.20",), ids=(DIGEST,))
    result = await images.save("alpine:3.20", to=tmp_path / "alpine.tar", checksum=True)
    assert (tmp_path / "alpine.tar").read_bytes() == ARCHIVE
    assert (result.size, result.digest) == (len(ARCHIVE), f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}")
    scripted.on("POST", "/images/create", frames(*IMPORT))
    assert await images.import_image(ARCHIVE, reference="rootfs") == ImportResult(id=DIGEST)


async def test_each_stream_yields_the_same_frames_that_its_twin_folds(
    scripted: ScriptedDaemon, images: ImageService
) -> None:
    assert [frame.status async for frame in images.pull_stream("alpine:3.20")] == [f["status"] for f in PULL]
    assert [frame.status async for frame in images.push_stream("alpine:3.20")] == [f["status"] for f in PUSH]
    assert [frame.stream async for frame in images.load_stream(ARCHIVE)] == [f["stream"] for f in LOAD]
    assert b"".join([chunk async for chunk in images.save_stream("alpine:3.20")]) == ARCHIVE
    small = [chunk async for chunk in images.save_stream("alpine:3.20", chunk_size=1000)]
    assert b"".join(small) == ARCHIVE
    assert max(map(len, small)) == 1000
    scripted.on("POST", "/images/create", frames(*IMPORT))
    assert [frame.status async for frame in images.import_stream(ARCHIVE)] == [DIGEST]


REFUSED: list[tuple[Callable[[ImageService], object], type[Exception]]] = [
    (lambda images: images.pull_stream("../containers"), InvalidReferenceError),
    (lambda images: images.pull_stream("alpine:3", all_tags=True), InvalidReferenceError),
    (lambda images: images.pull_stream("alpine", platform="linux/"), InvalidPlatformError),
    (lambda images: images.push_stream("Alpine"), InvalidReferenceError),
    (lambda images: images.push_stream(f"alpine@{DIGEST}"), InvalidReferenceError),
    (lambda images: images.load_stream(5), TypeError),  # type: ignore[arg-type]  # the point
    (lambda images: images.save_stream(), InvalidReferenceError),
    (lambda images: images.save_stream("a?x"), InvalidReferenceError),
    (lambda images: images.save_stream("alpine", chunk_size=0), ValueError),
    (lambda images: images.import_stream(b"", reference="a b"), InvalidReferenceError),
    (lambda images: images.import_stream(b"", reference="a:b\r\nc"), InvalidReferenceError),
    (lambda images: images.import_stream(b"", changes=[3]), TypeError),  # type: ignore[list-item]  # the point
]


@pytest.mark.parametrize(("call", "error"), REFUSED, ids=range(len(REFUSED)))
def test_a_wrong_argument_of_a_stream_raises_at_the_call(
    call: Callable[[ImageService], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(ImageService("/nowhere/docker.sock"))


FAILURES: list[tuple[Frame, type[APIError], int | None]] = [
    ({"errorDetail": {"message": "manifest unknown: manifest unknown"}, "error": "x"}, NotFoundError, None),
    ({"errorDetail": {"code": 404, "message": "gone"}, "error": "gone"}, NotFoundError, 404),
    ({"errorDetail": {"message": "toomanyrequests: slow down"}, "error": "x"}, RateLimitedError, None),
    ({"error": "write /var/lib/docker/x: no space left on device"}, NoSpaceError, None),
    ({"errorDetail": {"message": "unauthorized: authentication required"}}, UnauthorizedError, None),
    ({"errorDetail": {}}, ServerError, None),
]


@pytest.mark.parametrize(("frame", "error", "status"), FAILURES, ids=[each[1].__name__ for each in FAILURES])
async def test_an_error_in_the_stream_raises_the_same_class_as_a_status(
    scripted: ScriptedDaemon, images: ImageService, frame: Frame, error: type[APIError], status: int | None
) -> None:
    """The frames before it are delivered; what comes after it cannot make it a success."""
    scripted.on("POST", "/images/create", frames(*PULL[:3], frame, PULL[5]))
    seen: list[ProgressFrame] = []
    with pytest.raises(DockerError) as caught:
        await images.pull("alpine:3.20", on_progress=seen.append)
    assert type(caught.value) is error
    assert isinstance(caught.value, APIError)
    assert caught.value.status == status
    assert len(seen) == 3
    assert str(caught.value).startswith("pull alpine:3.20: ")
    assert "POST /images/create" in str(caught.value)


@pytest.mark.parametrize("pieces", [PULL[:-1], PULL[:3], []], ids=["no status line", "half", "nothing"])
async def test_a_politely_ended_answer_without_the_last_word_is_an_interruption(
    scripted: ScriptedDaemon, images: ImageService, pieces: list[Frame]
) -> None:
    scripted.on("POST", "/images/create", frames(*pieces))
    with pytest.raises(StreamInterruptedError, match=r"^pull alpine:3\.20: .*without saying"):
        await images.pull("alpine:3.20")
    with pytest.raises(StreamInterruptedError):
        async for _ in images.pull_stream("alpine:3.20"):
            pass


async def test_garbage_and_a_frame_over_the_limit_raise(scripted: ScriptedDaemon, images: ImageService) -> None:
    async def garbage(exchange: Exchange) -> None:
        await exchange.answer(b"<html>502 Bad Gateway</html>")

    scripted.on("POST", "/images/create", garbage)
    with pytest.raises(FrameDecodeError, match=r"^pull alpine:3\.20: .*502 Bad Gateway"):
        await images.pull("alpine:3.20")


async def test_a_framing_fault_is_an_interruption_without_any_timeout(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers
) -> None:
    """The parser of aiohttp in C closes the connection, and would leave who reads the body waiting for ever."""

    async def lie(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames(PULL[0])
        await started.wait()
        await exchange.send(b'5\r\n{"id":"more than five bytes"}\r\n')
        await exchange.client_gone()

    started = asyncio.Event()
    daemon.on("POST", "/images/create", lie)
    await images.ping()
    before = leftovers.now()
    async with asyncio.timeout(10):
        with pytest.raises(StreamInterruptedError, match=r"^pull alpine:3\.20: the connection .* in mid-answer: "):
            await images.pull("alpine:3.20", on_progress=lambda _: started.set())
    await leftovers.settle(before)


async def test_an_upload_cut_before_its_last_chunk_fails_in_the_caller_alone(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    """The failure stays in a task of aiohttp's, where asyncio would report it as one that nobody retrieved."""

    async def hang_up(exchange: Exchange) -> None:
        await exchange.reader.readuntil(b"piece\r\n")
        taken.set()
        await exchange.client_gone()

    async def pieces(steps: int) -> AsyncGenerator[bytes, None]:
        yield b"a piece"
        await taken.wait()
        daemon.requests[-1].cut()
        for _ in range(steps):
            await asyncio.sleep(0)

    taken = asyncio.Event()
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    daemon.on("POST", "/images/load", hang_up)
    for steps in range(12):  # in one of them the connection is closed, and nobody has been told yet
        taken.clear()
        with pytest.raises(StreamInterruptedError):
            await images.load(pieces(steps))
    gc.collect()
    await asyncio.sleep(0)
    assert reported == []


async def test_a_frame_of_two_mebibytes_arrives_whole(scripted: ScriptedDaemon, images: ImageService) -> None:
    text = "x" * (2 << 20)
    scripted.on("POST", "/images/create", frames({"status": text}, *PULL))
    assert (await anext(images.pull_stream("alpine:3.20"))).status == text


async def pull_for_ever(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.frames(*PULL[:2])
    await exchange.client_gone()


@pytest.mark.parametrize("leave", WAYS_OUT, ids=lambda way: way.__name__)
async def test_leaving_a_pull_twenty_times_leaves_nothing(
    daemon: ScriptedDaemon, leftovers: Leftovers, leave: WayOut
) -> None:
    """With five slots the sixth pull would hang on a slot that was kept; the daemon sees each one go."""
    daemon.on("POST", "/images/create", pull_for_ever)
    async with ImageService(daemon.socket, max_connections=5) as images, asyncio.timeout(20):
        await images.ping()
        before = leftovers.now()
        for _ in range(20):
            await leave(images, "alpine:3.20")
        for exchange in daemon.requests:
            if exchange.path == "/images/create":
                await exchange.closed.wait()
        await leftovers.settle(before)


async def test_leaving_a_save_or_a_load_leaves_nothing(
    daemon: ScriptedDaemon, leftovers: Leftovers, tmp_path: Path
) -> None:
    """Neither connection nor task nor file, nor what the daemon has not taken of an upload."""
    chunk = bytes(1 << 20)
    layer = tarfile.TarInfo("layer.tar")
    layer.size = 1 << 40

    async def save_for_ever(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(layer.tobuf(tarfile.GNU_FORMAT))
        with contextlib.suppress(ConnectionError):
            while True:
                await exchange.chunk(chunk)
        exchange.closed.set()

    taking = asyncio.Event()

    async def take_nothing(exchange: Exchange) -> None:
        taking.set()
        await exchange.writer.wait_closed() if exchange.writer.is_closing() else None
        await asyncio.sleep(0.2)
        await exchange.client_gone()

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield chunk

    daemon.on("GET", "/images/alpine:3.20/get", save_for_ever)
    daemon.on("POST", "/images/load", take_nothing)
    async with ImageService(daemon.socket, max_connections=5) as images, asyncio.timeout(20):
        await images.ping()
        before = leftovers.now()
        for _ in range(6):
            async for _ in images.save_stream("alpine:3.20"):
                break
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await images.save("alpine:3.20", to=tmp_path / "image.tar")
            taking.clear()
            load = asyncio.create_task(images.load(endless()))
            await taking.wait()
            load.cancel()
            with pytest.raises(asyncio.CancelledError):
                await load
        assert list(tmp_path.iterdir()) == []
        await leftovers.settle(before)


async def test_an_early_answer_to_an_upload_is_heard(daemon: ScriptedDaemon, images: ImageService) -> None:
    """A daemon that sees garbage at once says so while the upload goes on, lingers, and hangs up."""

    async def refuse_early(exchange: Exchange) -> None:
        await exchange.reader.readexactly(512)
        await exchange.head()
        await exchange.frames({"errorDetail": {"message": "archive/tar: invalid tar header"}, "error": "x"})
        await exchange.end()
        await asyncio.sleep(0.1)
        exchange.cut()

    async def gibibytes() -> AsyncGenerator[bytes, None]:
        for _ in range(4096):
            yield b"garbage!" * (1 << 17)

    daemon.on("POST", "/images/load", refuse_early)
    with pytest.raises(InvalidArchiveError, match="^load: archive/tar: invalid tar header"):
        await images.load(gibibytes())


async def test_an_early_status_to_an_upload_is_heard(daemon: ScriptedDaemon, images: ImageService) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer_json({"message": "no space left on device"}, 500)
        await asyncio.sleep(0.1)
        exchange.cut()

    daemon.on("POST", "/images/load", refuse)
    with pytest.raises(NoSpaceError):
        await images.load(bytes(64 << 20))


async def test_a_known_size_goes_as_content_length_and_an_unknown_one_in_chunks(
    daemon: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    async def load(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.head()
        await exchange.frames(*LOAD)
        await exchange.end()

    daemon.on("POST", "/images/load", load)
    path = tmp_path / "image.tar"
    path.write_bytes(ARCHIVE)

    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(ARCHIVE), 10_000):
            yield ARCHIVE[start : start + 10_000]

    def iterator() -> Iterator[bytes]:
        yield ARCHIVE

    with path.open("rb") as file:
        for source in (path, str(path), ARCHIVE, bytearray(ARCHIVE), memoryview(ARCHIVE), file, io.BytesIO(ARCHIVE)):
            await images.load(source)
            assert daemon.requests[-1].headers["content-length"] == str(len(ARCHIVE))
            assert daemon.requests[-1].headers["content-type"] == "application/x-tar"
    for unsized in (pieces(), iterator(), [ARCHIVE]):
        await images.load(unsized)
        assert daemon.requests[-1].headers["transfer-encoding"] == "chunked"
    assert bodies == [ARCHIVE] * 10


async def test_a_wrong_path_raises_before_a_request(
    scripted: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    for call in (
        images.load(tmp_path / "absent.tar"),
        images.load(tmp_path),
        images.import_image(str(tmp_path / "absent.tar"), reference="rootfs"),
        images.save("alpine:3.20", to=tmp_path / "absent" / "image.tar"),
        images.save("alpine:3.20", to=tmp_path),
    ):
        with pytest.raises(LocalFileError, match=r"^(load|import rootfs:latest|save alpine:3\.20): ") as caught:
            await call
        assert isinstance(caught.value, OSError)
        assert caught.value.errno is not None
    assert scripted.requests == []


async def test_a_source_that_fails_ends_the_load_with_its_own_exception(
    daemon: ScriptedDaemon, images: ImageService, leftovers: Leftovers
) -> None:
    """Even when the daemon has begun to answer and waits for the rest, as a daemon that shows progress does."""

    async def answer_and_wait(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames({"status": "Loading layer", "id": "0123456789ab"})
        await exchange.client_gone()

    async def wait_first(exchange: Exchange) -> None:
        await exchange.client_gone()

    async def failing() -> AsyncGenerator[bytes, None]:
        yield ARCHIVE[:1000]
        await asyncio.sleep(0.05)
        raise KeyError("mine")

    class FailingFile(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    await images.ping()
    before = leftovers.now()
    for handler in (answer_and_wait, wait_first):
        daemon.on("POST", "/images/load", handler)
        async with asyncio.timeout(5):
            with pytest.raises(KeyError, match="mine"):
                await images.load(failing())
            with pytest.raises(LocalFileError, match="Input/output error"):
                await images.load(FailingFile())
    await leftovers.settle(before)


async def test_a_daemon_that_takes_nothing_stalls_an_upload(daemon: ScriptedDaemon) -> None:
    async def take_nothing(exchange: Exchange) -> None:
        await asyncio.sleep(30)

    daemon.on("POST", "/images/load", take_nothing)
    async with ImageService(daemon.socket, idle_timeout=0.2) as images, asyncio.timeout(10):
        with pytest.raises(StreamStalledError, match="took nothing"):
            await images.load(bytes(64 << 20))


async def test_a_source_that_is_slow_is_not_a_stalled_daemon(daemon: ScriptedDaemon) -> None:
    async def slow() -> AsyncGenerator[bytes, None]:
        for _ in range(3):
            yield b"x" * 512
            await asyncio.sleep(0.3)

    daemon.on("POST", "/images/load", frames(*LOAD))
    async with ImageService(daemon.socket, idle_timeout=0.2) as images:
        assert await images.load(slow()) == LoadResult(references=("alpine:3.20",), ids=(DIGEST,))


def error_in_tar(at: int) -> bytes:
    document = {"errorDetail": {"message": "open layer.tar: no such file"}, "error": "open layer.tar: no such file"}
    return ARCHIVE[:at] + json.dumps(document).encode() + b"\r\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (error_in_tar(1024), "open layer.tar: no such file"),
        (error_in_tar(1536 + 1000), "open layer.tar: no such file"),
        (error_in_tar(0), "open layer.tar: no such file"),
        (ARCHIVE[:1024], "not a whole tar"),
        (ARCHIVE[:5000], "not a whole tar"),
        (b"", "is empty"),
        (b"<html>502 Bad Gateway</html>" * 50, "tar"),
    ],
    ids=["error at a member", "error in a member", "only an error", "cut at a member", "cut in one", "empty", "html"],
)
async def test_what_is_no_whole_tar_leaves_no_file(
    daemon: ScriptedDaemon, images: ImageService, tmp_path: Path, body: bytes, words: str
) -> None:
    """The file that was there stays as it was."""

    async def save_broken(exchange: Exchange) -> None:
        await exchange.head()
        if body:
            await exchange.chunk(body)
        await exchange.end()

    daemon.on("GET", "/images/alpine:3.20/get", save_broken)
    target = tmp_path / "image.tar"
    target.write_text("the old one")
    with pytest.raises(ArchiveError, match=words) as caught:
        await images.save("alpine:3.20", to=target)
    assert str(caught.value).startswith("save alpine:3.20: ")
    assert [path.name for path in tmp_path.iterdir()] == ["image.tar"]
    assert target.read_text() == "the old one"
    with pytest.raises(ArchiveError, match=words):
        async for _ in images.save_stream("alpine:3.20"):
            pass


async def test_a_save_goes_to_a_device_or_a_file_object_as_it_is(
    scripted: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    device = os.stat(os.devnull)  # noqa: PTH116 - no path of ours
    assert (await images.save("alpine:3.20", to=os.devnull)).size == len(ARCHIVE)
    assert os.stat(os.devnull).st_ino == device.st_ino  # noqa: PTH116 - no path of ours
    file = io.BytesIO()
    assert (await images.save("alpine:3.20", to=file)).size == len(ARCHIVE)
    assert file.getvalue() == ARCHIVE


async def test_explicit_credentials_win_and_an_anonymous_push_says_so(scripted: ScriptedDaemon) -> None:
    keychain = StaticKeychain({"docker.io": RegistryAuth(username="from", password="keychain")})
    async with ImageService(scripted.socket, keychain=keychain) as images:
        await images.pull("alpine:3.20")
        by_keychain = scripted.requests[-1].headers["x-registry-auth"]
        await images.pull("alpine:3.20", auth=RegistryAuth(username="explicit", password="one"))
        explicit = scripted.requests[-1].headers["x-registry-auth"]
        await images.pull("quay.io/alpine:3.20")
        assert "x-registry-auth" not in scripted.requests[-1].headers
    assert by_keychain != explicit
    async with ImageService(scripted.socket) as images:
        await images.pull("alpine:3.20")
        assert "x-registry-auth" not in scripted.requests[-1].headers
        await images.push("alpine:3.20")
        assert scripted.requests[-1].headers["x-registry-auth"] == "e30="


async def test_credentials_are_in_no_exception_nor_behind_one(daemon: ScriptedDaemon, images: ImageService) -> None:
    """Neither in its own text, nor in its cause or context: aiohttp's errors can show the request's headers."""

    async def speak_no_http(exchange: Exchange) -> None:
        await exchange.send(b"220 mail.example ESMTP\r\n")
        exchange.cut()

    async def cut(exchange: Exchange) -> None:
        exchange.cut()

    async def cut_in_the_body(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(b"zz\r\n")

    async def refuse(exchange: Exchange) -> None:
        await exchange.answer_json({"message": "unauthorized: bad credentials"}, 401)

    auth = RegistryAuth(username="somebody", password="hunter2-hunter2", identity_token="token-token")
    header = registry_auth_header(auth, "docker.io")
    for handler in (speak_no_http, cut, cut_in_the_body, refuse):
        daemon.on("POST", "/images/create", handler)
        with pytest.raises(DockerError) as caught:
            await images.pull("alpine:3.20", auth=auth)
        assert daemon.requests[-1].headers["x-registry-auth"] == header
        behind: list[BaseException] = [caught.value]
        for error in behind:
            behind += [each for each in (error.__cause__, error.__context__) if each is not None and each not in behind]
        told = " ".join(f"{error} {error!r} {error.args} {vars(error)}" for error in behind)
        assert not any(secret in told for secret in ("hunter2-hunter2", "token-token", header))


async def test_no_name_reaches_another_endpoint(daemon: ScriptedDaemon, images: ImageService) -> None:
    names = [
        "../containers",
        "a/../../containers/x?force=1",
        "%2e%2e",
        "a b",
        "a?x",
        "a#x",
        "a\r\nX: y",
        "a\0",
        "-a",
        "a" * 300,
    ]
    for name in names:
        for call in (images.inspect, images.remove, images.pull, images.push):
            with pytest.raises(InvalidReferenceError):
                await call(name)
        with pytest.raises(InvalidReferenceError):
            await images.save("alpine", name, to=os.devnull)
        with pytest.raises(InvalidReferenceError):
            await images.tag("alpine", name)
        with pytest.raises(InvalidReferenceError):
            await images.tag(name, "alpine")
    assert daemon.requests == []

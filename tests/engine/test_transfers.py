"""The main job on a real Engine, and what goes wrong there: the daemon, the registry, the archive, the disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import os
import secrets
import subprocess
import tarfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import engines
from aiodocker_images import (
    APIError,
    ConflictError,
    DaemonUnreachableError,
    DockerError,
    ImageService,
    InvalidArchiveError,
    InvalidParameterError,
    InvalidReferenceError,
    LocalFileError,
    NoSpaceError,
    NotFoundError,
    ProgressFrame,
    ProgressTracker,
    ServerError,
    StreamInterruptedError,
    UnauthorizedError,
)
from aiodocker_images.testing import FakeRegistry, Fault
from tests.conftest import Leftovers, by_engine, engine_is
from tests.support.slow_registry import SlowRegistry
from tests.support.small_engine import SmallEngine
from tests.support.tars import root_file_system
from tests.support.ways_out import WAYS_OUT, WayOut

pytestmark = pytest.mark.engine


@pytest.fixture
async def image(engine: ImageService, registry: str) -> AsyncGenerator[str, None]:
    """The name of a new small image of the Engine, in the registry's domain but not pushed."""
    name = f"{registry}/image-{secrets.token_hex(4)}:1.0"
    await engine.import_image(root_file_system(), reference=name)
    yield name
    with contextlib.suppress(NotFoundError):
        await engine.remove(name, force=True)


async def all_names(engine: ImageService) -> set[tuple[str, tuple[str, ...]]]:
    """What the Engine has: compared before and after, it shows that a failure left nothing."""
    return {(image.id, image.repo_tags) for image in await engine.list(all=True)}


async def test_an_image_goes_to_the_registry_and_comes_back_the_same(
    engine: ImageService, registry: str, tmp_path: Path
) -> None:
    """Import, tag, push, remove, pull, save, remove, load: one id and one digest all the way."""
    name = f"localhost/round-{secrets.token_hex(4)}"
    before = await all_names(engine)
    imported = await engine.import_image(
        root_file_system(),
        reference=f"{name}:imported",
        changes=['CMD ["/bin/sh"]', "ENV A=b"],
        message="made by a test",
    )
    repository = name.replace("localhost", registry)
    tagged = f"{repository}:1.0"
    await engine.tag(f"{name}:imported", tagged)
    details = await engine.inspect(tagged)
    assert details.id == imported.id
    assert set(details.repo_tags) == {f"{name}:imported", tagged}
    assert details.comment == "made by a test"
    assert details.config is not None
    assert (details.config.cmd, details.config.env) == (("/bin/sh",), ("A=b",))
    assert details.created is not None
    assert details.os == "linux"

    pushed = await engine.push(tagged)
    assert pushed.digest is not None
    assert pushed.digest.startswith("sha256:")
    assert pushed.size
    assert pushed.size > 100

    removed = [step for image in (f"{name}:imported", tagged) for step in await engine.remove(image)]
    assert imported.id in {step.deleted for step in removed}
    assert await all_names(engine) == before

    frames: list[ProgressFrame] = []
    pulled = await engine.pull(tagged, on_progress=frames.append)
    told = by_engine(pushed.digest, podman=None)  # Podman names neither the digest nor what was there before
    assert (pulled.digest, pulled.up_to_date) == (told, False)
    assert "Pulling fs layer" in {frame.status for frame in frames}
    if not engine_is("docker28c", "podman"):  # which count the bytes of slow downloads only
        assert any(frame.progress_detail and frame.progress_detail.total for frame in frames)
    again = await engine.pull(tagged)
    assert (again.digest, again.up_to_date) == (told, by_engine(True, podman=False))
    pinned = f"{repository}@{pushed.digest}"
    by_digest = await engine.pull(pinned)
    assert by_digest.digest == pushed.digest
    for reference in (tagged, pinned, f"{tagged}@{pushed.digest}", imported.id, imported.id[7:19]):
        assert (await engine.inspect(reference)).id == imported.id

    target = tmp_path / "image.tar"
    saved = await engine.save(tagged, to=target, checksum=True)
    assert saved.size == target.stat().st_size
    assert saved.digest == f"sha256:{hashlib.sha256(target.read_bytes()).hexdigest()}"
    with tarfile.open(target) as archive:
        assert "manifest.json" in archive.getnames()
    await engine.remove(tagged, force=True)
    loaded = await engine.load(target)
    assert loaded.references == (tagged,)
    assert (await engine.inspect(tagged)).id == imported.id
    await engine.remove(tagged)
    if engine_is("podman"):  # for which the pull by digest made a name, that stays
        await engine.remove(pinned)
    assert await all_names(engine) == before


async def test_the_streams_tell_what_happens_and_the_tracker_reads_it(
    engine: ImageService, registry: str, image: str
) -> None:
    """On the way out and back the overall fraction never goes back, and is 1 at the end."""
    pushing = ProgressTracker()
    async for frame in engine.push_stream(image):
        pushing.update(frame)
    archive = b"".join([chunk async for chunk in engine.save_stream(image, chunk_size=4096)])
    await engine.remove(image)
    pulling, fractions = ProgressTracker(), list[float]()
    async for frame in engine.pull_stream(image):
        pulling.update(frame)
        fractions.append(pulling.fraction or 0.0)
    pulling.finish()
    assert fractions == sorted(fractions)
    assert pulling.fraction == 1.0
    # Podman pulls the image's configuration as one more layer, and says nothing of those that it pushes and loads.
    assert (len(pulling.layers), len(pushing.layers)) == by_engine((1, 1), podman=(2, 0))
    assert all(layer.done for layer in pulling.layers.values())
    done = f"Status: Downloaded newer image for {image}"
    assert pulling.status == by_engine(done, podman=None)
    await engine.remove(image)
    loading = ProgressTracker()
    async for frame in engine.load_stream(archive):
        loading.update(frame)
    assert len(loading.layers) == by_engine(1, docker28c=0, podman=0)
    assert (await engine.inspect(image)).repo_tags == (image,)


async def test_every_form_of_source_and_target_works(engine: ImageService, tmp_path: Path) -> None:
    root = root_file_system()
    path = tmp_path / "rootfs.tar"
    path.write_bytes(root)
    name = f"localhost/forms-{secrets.token_hex(4)}:1"

    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(root), 1000):
            yield root[start : start + 1000]

    ids, made = set[str](), set[str]()
    with path.open("rb") as file:
        for source in (path, str(path), root, file, io.BytesIO(root), pieces(), [root]):
            result = await engine.import_image(source, reference=name)
            made.add(result.id)
            layers = (await engine.inspect(result.id)).root_fs
            assert layers is not None
            ids.update(layers.layers)
    assert len(ids) == 1
    buffer = io.BytesIO()
    saved = await engine.save(name, to=buffer)
    assert saved.size == len(buffer.getvalue())
    buffer.seek(0)
    assert (await engine.load(buffer)).references == (name,)
    await engine.remove(name)
    for leftover in await engine.list(filters={"dangling": True}):
        if leftover.id in made:  # others may be in use by the container of a build that failed
            await engine.remove(leftover.id)


async def test_the_engine_fetches_an_import_from_a_url(engine: ImageService) -> None:
    root = root_file_system()

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=root)

    app = web.Application()
    app.router.add_get("/rootfs.tar", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/rootfs.tar"
        result = await engine.import_image(url)
        assert (await engine.inspect(result.id)).repo_tags == ()
        await engine.remove(result.id)
        # Podman does not look at the status, and takes the page that says 404 for the archive.
        with pytest.raises(DockerError, match=by_engine("^import: .*404", podman="^import: .*unexpected EOF")):
            await engine.import_image(url + ".gz")
    finally:
        await runner.cleanup()


async def test_several_images_go_into_one_tar_with_their_names(engine: ImageService, registry: str) -> None:
    names = [f"{registry}/several-{secrets.token_hex(4)}:{n}" for n in range(3)]
    for name in names:
        await engine.import_image(root_file_system(), reference=name)
    archive = b"".join([chunk async for chunk in engine.save_stream(*names)])
    for name in names:
        await engine.remove(name)
    assert sorted((await engine.load(archive)).references) == sorted(names)
    assert {image.repo_tags for image in await engine.list(f"{registry}/several-*")} == {(name,) for name in names}
    for name in names:
        await engine.remove(name)


async def test_list_filters(engine: ImageService, image: str) -> None:
    (summary,) = await engine.list(image)
    assert summary.repo_tags == (image,)
    assert summary.size > 1 << 16
    assert summary.created is not None
    assert await engine.list("no-such-image") == []
    assert [each.id for each in await engine.list(filters={"reference": [image]})] == [summary.id]
    with pytest.raises(by_engine(InvalidParameterError, podman=ServerError), match="nonsense"):
        await engine.list(filters={"nonsense": True})


async def test_no_name_removes_a_container(engine: ImageService, engine_host: str, image: str) -> None:
    """Neither checked, nor forced through to the wire quoted: the container is there afterwards."""
    connector = aiohttp.UnixConnector(engine_host.removeprefix("unix://"))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.post("http://d/containers/create", json={"Image": image, "Cmd": ["x"]}) as response:
            container = (await response.json())["Id"]
        try:
            for name in (
                f"../containers/{container}?force=1",
                f"a/../../containers/{container}",
                f"..%2fcontainers%2f{container}",
                f"x/%2e%2e/containers/{container}",
                f"x\r\nDELETE /containers/{container} HTTP/1.1",
            ):
                with pytest.raises(InvalidReferenceError):
                    await engine.remove(name, force=True)
            with pytest.raises(ConflictError, match=f"^remove {image}: "):
                await engine.remove(image)
            async with session.get(f"http://d/containers/{container}/json") as response:
                assert response.status == 200
        finally:
            async with session.delete(f"http://d/containers/{container}?force=1") as response:
                assert response.status == 204


ON_A_MISSING_IMAGE: dict[str, Callable[[ImageService, str], Awaitable[object]]] = {
    "inspect": lambda engine, name: engine.inspect(name),
    "remove": lambda engine, name: engine.remove(name),
    "tag": lambda engine, name: engine.tag(name, "other"),
    "save": lambda engine, name: engine.save(name, to=io.BytesIO()),
    "pull": lambda engine, name: engine.pull(name),
    "push": lambda engine, name: engine.push(name),
}


@pytest.mark.parametrize("call", ON_A_MISSING_IMAGE.values(), ids=ON_A_MISSING_IMAGE)
async def test_a_missing_image_is_not_found(
    engine: ImageService, registry: str, call: Callable[[ImageService, str], Awaitable[object]]
) -> None:
    name = f"{registry}/missing:1"
    with pytest.raises(NotFoundError) as caught:
        await call(engine, name)
    assert name in str(caught.value)
    assert str(engine.endpoint) in str(caught.value)


async def test_a_missing_tag_of_a_known_repository_is_not_found(engine: ImageService, image: str) -> None:
    await engine.push(image)
    with pytest.raises(
        NotFoundError, match=by_engine(r"^pull .*:2\.0: .*manifest", docker28c=r"^pull .*:2\.0: .*not found")
    ):
        await engine.pull(image.replace(":1.0", ":2.0"))


async def test_a_registry_that_is_down_is_an_error_of_the_daemon(engine: ImageService) -> None:
    before = await all_names(engine)
    with pytest.raises(APIError, match=r"^pull 127\.0\.0\.1:1/nothing:latest: .*connection refused"):
        await engine.pull("127.0.0.1:1/nothing")
    assert await all_names(engine) == before


async def test_a_registry_that_refuses_a_push_is_unauthorized(engine: ImageService, image: str) -> None:
    async with FakeRegistry() as refusing:
        # 401 without a challenge. With the code's standard message, Docker 20.10 does not recognise the code as
        # final, and retries for 50 seconds.
        refusing.fail(Fault.refuse(401, message="no pushing here"), on="POST upload", times=None)
        name = refusing.name("refused:1")
        await engine.tag(image, name)
        # The containerd store passes on the registry's words without its code, UNAUTHORIZED.
        with pytest.raises(
            by_engine(UnauthorizedError, docker28c=ServerError), match=f"^push {name}: .*no pushing here"
        ):
            await engine.push(name)
        await engine.remove(name)


async def test_a_layer_corrupted_in_the_registry_fails_the_pull(engine: ImageService) -> None:
    """The Engine has an older image under that name, which must not pass for the new one."""
    with engines.Registry() as registry:
        name = f"{registry.address}/corrupt:1"
        await engine.import_image(root_file_system(), reference=name)
        await engine.push(name)
        await engine.remove(name)
        blobs = sorted(registry.storage.rglob("data"), key=lambda path: path.stat().st_size)
        layer = blobs[-1]
        layer.write_bytes(bytes(layer.stat().st_size))
        old = await engine.import_image(root_file_system(), reference=name)
        with pytest.raises(APIError, match=f"^pull {name}: "):
            await engine.pull(name)
        assert (await engine.inspect(name)).id == old.id
        await engine.remove(name)


def truncated(archive: bytes) -> bytes:
    return archive[: len(archive) // 2]


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda _: b"garbage!" * 1000,
    "much garbage": lambda _: os.urandom(64 << 20),
    "a tar of something else": lambda _: root_file_system(),
    "truncated": truncated,
}


@pytest.mark.parametrize("spoil", GARBAGE.values(), ids=GARBAGE)
async def test_loading_no_image_archive_is_an_error_in_the_engines_words(
    engine: ImageService, image: str, leftovers: Leftovers, spoil: Callable[[bytes], bytes]
) -> None:
    archive = b"".join([chunk async for chunk in engine.save_stream(image)])
    await engine.remove(image)
    before, open_before = await all_names(engine), leftovers.now()
    with pytest.raises(InvalidArchiveError, match="^load: ") as caught:
        await engine.load(spoil(archive))
    assert not isinstance(caught.value, ConnectionError)
    assert await all_names(engine) == before
    await leftovers.settle(open_before)


async def test_the_daemons_own_words_are_heard_however_early_it_hangs_up(engine: ImageService) -> None:
    """asyncio drops what is still to be read when a send fails: so nothing is sent to who has hung up."""  # noqa: D403 - its name is written so
    garbage = os.urandom(16 << 20)
    for _ in range(30):
        with pytest.raises(InvalidArchiveError, match="^load: "):
            await engine.load(garbage)


async def test_an_empty_archive_loads_nothing(engine: ImageService) -> None:
    """Whatever the Engine makes of it, no image appears and no success names one."""
    before = await all_names(engine)
    for empty in (b"", bytes(1024)):
        try:
            result = await engine.load(empty)
        except InvalidArchiveError as error:
            assert str(error).startswith("load: ")
        else:
            assert result.references == result.ids == ()
    assert await all_names(engine) == before


@pytest.mark.parametrize("leave", WAYS_OUT, ids=lambda way: way.__name__)
async def test_leaving_a_pull_twenty_times_ends_the_engines_work(
    engine_host: str, leftovers: Leftovers, leave: WayOut
) -> None:
    """The registry sees the Engine give up the layer each time, though five slots are all there are."""
    async with ImageService(engine_host, max_connections=5) as images, asyncio.timeout(60):
        names = await all_names(images)
        before = leftovers.now()

        async with SlowRegistry() as registry:
            for _ in range(20):
                await leave(images, registry.image)
            pull = asyncio.create_task(images.pull(registry.image))
            while not registry.open_blobs:  # the slot and the Engine are there for a pull as at first
                await asyncio.sleep(0.01)
            pull.cancel()
            await registry_is_left(registry)
            assert await all_names(images) == names
            registry.finish()
            assert (await images.pull(registry.image)).digest == by_engine(registry.digest, podman=None)
            await images.remove(registry.image)
        # Only now, for an Engine may keep connections to the registry, whose other ends are in this process.
        await leftovers.settle(before)


async def registry_is_left(registry: SlowRegistry) -> None:
    while registry.open_blobs:
        await asyncio.sleep(0.01)


async def test_closing_the_service_in_a_pull_interrupts_it(engine_host: str) -> None:
    async with SlowRegistry() as registry, asyncio.timeout(30):
        images = ImageService(engine_host)
        begun = asyncio.Event()
        pull = asyncio.create_task(images.pull(registry.image, on_progress=lambda _: begun.set()))
        await begun.wait()
        await images.aclose()
        with pytest.raises(StreamInterruptedError, match="closed"):
            await pull
        await registry_is_left(registry)


async def test_a_daemon_killed_in_a_pull_interrupts_it_and_is_met_again(engine_name: str, leftovers: Leftovers) -> None:
    """An Engine of this test's own, because nothing else could use it meanwhile."""
    own = engines.Engine(engine_name)
    try:
        await asyncio.to_thread(own.start)
        before = leftovers.now()
        async with SlowRegistry() as registry, ImageService(own.host) as images, asyncio.timeout(90):
            stream = images.pull_stream(registry.image)
            await anext(stream)
            await asyncio.to_thread(own.kill)
            with pytest.raises(StreamInterruptedError, match=f"^pull {registry.image}: .*{own.socket}"):
                async for _ in stream:
                    pass
            with pytest.raises(DaemonUnreachableError, match="nothing listens"):
                await images.list()
            await asyncio.to_thread(own.start)
            assert await images.list() == []
            registry.finish()
            assert (await images.pull(registry.image)).digest == by_engine(registry.digest, podman=None)
        await leftovers.settle(before)
    finally:
        await asyncio.to_thread(own.stop)


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path, None, None]:
    """A file system of one MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


async def test_a_full_disk_leaves_no_archive(engine: ImageService, small_disk: Path, leftovers: Leftovers) -> None:
    name = f"large-{secrets.token_hex(4)}:1"
    await engine.import_image(root_file_system(8 << 20), reference=name)
    names, before = await all_names(engine), leftovers.now()
    (small_disk / "image.tar").write_text("the old one")
    with pytest.raises(LocalFileError, match=f"^save {name}: ") as caught:
        await engine.save(name, to=small_disk / "image.tar")
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in small_disk.iterdir()] == ["image.tar"]
    assert (small_disk / "image.tar").read_text() == "the old one"
    assert await all_names(engine) == names
    await leftovers.settle(before)
    await engine.remove(name)


async def test_an_engine_with_a_full_disk_says_so(small_engine: engines.Engine) -> None:
    """A load that does not fit is a NoSpaceError, and the Engine has what it had."""
    async with ImageService(small_engine.host) as images:
        with pytest.raises(NoSpaceError):
            await images.import_image(root_file_system(96 << 20), reference="too-large:1")
        assert await images.list(all=True) == []


@pytest.fixture
def small_engine(engine_name: str) -> Generator[engines.Engine, None, None]:
    with SmallEngine(engine_name) as engine:
        yield engine


async def test_a_socket_of_another_users_is_permission_denied(engine_host: str) -> None:
    os.seteuid(65534)
    try:
        async with ImageService(engine_host) as images:
            with pytest.raises(DaemonUnreachableError, match="permission denied"):
                await images.list()
    finally:
        os.seteuid(0)


async def test_the_engine_says_what_it_is(engine: ImageService) -> None:
    ping, version = await engine.ping(), await engine.version()
    assert ping.api_version == version.api_version
    assert ping.os_type == version.os == "linux"
    assert version.version
    assert version.components

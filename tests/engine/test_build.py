"""Builds on a real Engine: every form of context, both builders, what fails, and what is left by who leaves."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

import engines
from aiodocker_images import (
    APIError,
    BuildStepError,
    ConfigError,
    ImageService,
    InvalidParameterError,
    LocalFileError,
    NotFoundError,
    ProgressFrame,
    RegistryAuth,
    ServerError,
    UnauthorizedError,
)
from aiodocker_images._api.build_options import Builder
from aiodocker_images.buildkit import BuildTrace
from tests.conftest import Leftovers
from tests.support.tars import tar_of

pytestmark = pytest.mark.engine

ENGINE = os.environ.get("ENGINE", "")
PODMAN = ENGINE == "podman"
BUILDERS: Final[tuple[Builder, ...]] = ("classic", "buildkit")

both_builders = pytest.mark.parametrize("builder", BUILDERS)


@pytest.fixture
async def engine(engine: ImageService) -> AsyncGenerator[ImageService, None]:
    """The real Engine, which is left without the remains of builds."""
    yield engine
    await engine.request("POST", "/containers/prune")  # the classic builder keeps that of a step that failed
    await engine.prune()


@pytest.fixture
async def tag(engine: ImageService) -> AsyncGenerator[str, None]:
    """A name for what a test builds."""
    name = f"built-{secrets.token_hex(4)}:1"
    yield name
    for image in await engine.list(all=True):
        if name in {each.removeprefix("docker.io/library/").removeprefix("localhost/") for each in image.repo_tags}:
            await engine.remove(image.id, force=True)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A directory, new to every Engine's cache, with a busybox in it."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "unique").write_text(secrets.token_hex(16))
    shutil.copy(engines.busybox(), directory / "busybox")
    (directory / "busybox").chmod(0o755)
    return directory


async def files_of(engine: ImageService, image: str) -> dict[str, tarfile.TarInfo]:
    """Return what the layers of an image hold, by name."""
    saved = io.BytesIO(b"".join([chunk async for chunk in engine.save_stream(image)]))
    found: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(fileobj=saved) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            data = content.read() if content is not None else b""
            try:
                with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as layer:
                    found |= {each.name.removeprefix("./").rstrip("/"): each for each in layer}
            except tarfile.ReadError:
                continue
    return found


@both_builders
async def test_a_directory_is_built_as_its_dockerfile_says(
    engine: ImageService, context: Path, tag: str, builder: Builder
) -> None:
    """Modes, links, hard links and names of any bytes arrive; what the .dockerignore leaves out does not."""
    (context / "Dockerfile").write_text(
        "FROM scratch AS first\nARG WHAT=nothing\nARG UNSET=default\nCOPY . /\nLABEL what=$WHAT unset=$UNSET\n"
        "FROM first\nCOPY nowhere /\n"
    )
    rules = "# comment\n*\n!unique\n!in\nin/out\n!**/*.keep\nin/deep\n!in/deep/er\n"
    # BuildKit would copy the Dockerfile, too, and so it is not asked to where that is to be left out.
    (context / ".dockerignore").write_text(rules + "!Dockerfile\n" * (builder == "buildkit"))
    for name in ("in/out", "in/script", "in/deep/not", "in/deep/er/yes", "other/a.keep", "other/b"):
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (context / "in/script").chmod(0o751)
    (context / "in").chmod(0o711)
    (context / "in/link").symlink_to("/etc/passwd")
    os.link(context / "in/script", context / "in/z-hard")
    strange = os.fsdecode(b"bad\xff\xc3\xa9")
    (context / "in" / strange).touch()
    frames: list[ProgressFrame] = []
    result = await engine.build(
        context,
        tags=[tag, f"{tag}-too"],
        target="first",
        build_args={"WHAT": "a b", **({} if PODMAN else {"UNSET": None})},  # Podman takes None for ""
        labels={"from": "outside"},
        builder=builder,
        on_progress=frames.append,
    )
    assert result.id is not None
    details = await engine.inspect(tag)
    assert details.id == result.id == (await engine.inspect(f"{tag}-too")).id
    assert details.config is not None
    labels = dict(details.config.labels or {})
    assert {name: labels[name] for name in ("what", "unset", "from")} == {
        "what": "a b", "unset": "default", "from": "outside",
    }  # fmt: skip
    files = await files_of(engine, tag)
    sent = {name for name in files if name.split("/")[0] in ("in", "other", "unique", "busybox")}
    kept = {"other", "other/a.keep"}
    # Podman applies a .dockerignore that it gets once more, and does not look into "other" for what the last
    # exception keeps.
    assert sent == (set[str]() if PODMAN and builder == "classic" else kept) | {
        "unique", "in", "in/script", "in/z-hard", "in/link", f"in/{strange}", "in/deep", "in/deep/er",
        "in/deep/er/yes",
    }  # fmt: skip
    assert files["in/script"].mode & 0o7777 == 0o751
    assert files["in"].mode & 0o7777 == 0o711
    assert files["in/link"].linkname == "/etc/passwd"
    assert {(each.uid, each.gid) for each in files.values()} == {(0, 0)}
    said = "".join(frame.stream or "" for frame in frames)
    assert "COPY . /" in said
    traced = any(isinstance(frame.aux, BuildTrace) for frame in frames)
    assert traced is (builder == "buildkit" and not PODMAN)
    await engine.remove(f"{tag}-too")


HIDDEN: list[dict[str, str]] = [
    {".dockerignore": "Dockerfile\n.dockerignore\n"},
    {".dockerignore": "*\n!unique\n"},
    {"Dockerfile.dockerignore": "Dockerfile*\n"},
    {"Dockerfile.dockerignore": "*\n!unique\n", ".dockerignore": "in\n"},
]


@pytest.mark.parametrize("files", HIDDEN, ids=" and ".join)
async def test_a_dockerfile_that_is_left_out_is_not_in_the_image(
    engine: ImageService, context: Path, tag: str, files: dict[str, str]
) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /src/\n")
    for name, text in files.items():
        (context / name).write_text(text)
    await engine.build(context, tags=tag)
    found = {name for name in await files_of(engine, tag) if name.startswith("src/")}
    assert "src/unique" in found
    assert {"src/Dockerfile", "src/.dockerignore", "src/Dockerfile.dockerignore"} & found == set()


async def test_an_ignored_dockerfile_is_not_sent_to_buildkit(engine: ImageService, context: Path, tag: str) -> None:
    (context / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /src/\n")
    with pytest.raises(ConfigError, match="BuildKit would copy the Dockerfile into the image"):
        await engine.build(context, tags=tag, builder="buildkit")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY uniq* .dockerignor[e] /src/\n")
    await engine.build(context, tags=tag, builder="buildkit")
    assert {name for name in await files_of(engine, tag) if name.startswith("src/")} == {"src/unique"}


@pytest.mark.parametrize("form", ["path", "content", "link"])
async def test_a_dockerfile_from_elsewhere_builds_and_is_not_in_the_image(
    engine: ImageService, context: Path, tag: str, form: str
) -> None:
    text = "FROM scratch\nCOPY . /src/\n"
    (context.parent / "elsewhere").write_text(text)
    (context.parent / "link").symlink_to("elsewhere")
    forms: dict[str, str | bytes] = {
        "path": "../elsewhere",
        "content": text.encode(),
        "link": str(context.parent / "link"),
    }
    await engine.build(context, tags=tag, dockerfile=forms[form])
    found = {name for name in await files_of(engine, tag) if name.startswith("src/")}
    assert found == {"src/unique", "src/busybox"}


@both_builders
async def test_the_words_of_a_command_do_not_make_its_failure_a_registrys(
    engine: ImageService, context: Path, builder: Builder
) -> None:
    words = "toomanyrequests: no space left on device, unauthorized: manifest unknown; denied: x"
    (context / "Dockerfile").write_text(
        f"FROM scratch\nCOPY busybox /bin/sh\nCOPY unique /\nRUN echo '{words}'; exit 7\n"
    )
    with pytest.raises(BuildStepError) as caught:
        await engine.build(context, builder=builder, network_mode="none")
    assert (caught.value.exit_code, caught.value.status) == (7, None)


async def test_a_dockerfile_alone_builds(engine: ImageService, tag: str) -> None:
    text = f"FROM scratch\nLABEL unique={secrets.token_hex(16)}\n"
    result = await engine.build(io.BytesIO(text.encode()), tags=tag)
    assert (await engine.inspect(tag)).id == result.id


@both_builders
async def test_every_form_of_a_tar_and_a_quiet_build(
    engine: ImageService, tmp_path: Path, tag: str, builder: Builder
) -> None:
    data = tar_of({"docker/file": "FROM scratch\nCOPY unique /\n", "unique": secrets.token_hex(16)})
    (tmp_path / "context.tar").write_bytes(data)

    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    layers = set[str]()
    for source in (data, tmp_path / "context.tar", str(tmp_path / "context.tar"), io.BytesIO(data), pieces(), [data]):
        result = await engine.build(source, dockerfile="docker/file", tags=tag, quiet=source is data, builder=builder)
        assert result.id is not None
        details = await engine.inspect(result.id)
        assert details.root_fs is not None
        layers.update(details.root_fs.layers)
    assert len(layers) == 1


@both_builders
async def test_the_engine_fetches_a_remote_context(engine: ImageService, tag: str, builder: Builder) -> None:
    """A Dockerfile alone, or a tar. Podman's compatible API knows no `remote`."""
    label = secrets.token_hex(8)

    async def serve(request: web.Request) -> web.Response:
        if request.path == "/Dockerfile":
            return web.Response(text=f"FROM scratch\nLABEL fetched={label}\n")
        return web.Response(body=tar_of({"other": f"FROM scratch\nLABEL fetched={label}\n"}))

    app = web.Application()
    app.router.add_get("/{name}", serve)
    async with serving(app) as address:
        for name, dockerfile in (("Dockerfile", None), ("context.tar", "other")):
            build = engine.build(f"http://{address}/{name}", dockerfile=dockerfile, tags=tag, builder=builder)
            if PODMAN:
                with pytest.raises(ServerError):
                    await build
                continue
            await build
            config = (await engine.inspect(tag)).config
            assert config is not None
            assert (config.labels or {})["fetched"] == label


class serving:  # noqa: N801 - used as a function
    """Serve an application on 127.0.0.1; gives its address."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


@both_builders
async def test_no_cache_runs_every_step_again(engine: ImageService, context: Path, tag: str, builder: Builder) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY unique /\nLABEL a=b\n")

    async def after_copy(*, no_cache: bool) -> str:
        frames: list[ProgressFrame] = []
        await engine.build(context, tags=tag, no_cache=no_cache, builder=builder, on_progress=frames.append)
        # BuildKit loads the context in steps of its own, and may know it again.
        return "".join(frame.stream or "" for frame in frames).lower().partition("copy unique /")[2]

    word = "using cache" if builder == "classic" or PODMAN else "cached"
    assert word not in await after_copy(no_cache=False)
    assert word in await after_copy(no_cache=False)
    assert word not in await after_copy(no_cache=True)


@both_builders
async def test_a_failed_run_is_an_error_with_its_output(
    engine: ImageService, context: Path, tag: str, builder: Builder
) -> None:
    """Whoever may not raise limits cannot run a container with Podman: there it fails as well, in other words."""
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY unique /\nRUN echo one; echo two >&2; echo $((1 + 2)); exit 3\n"
    )
    with pytest.raises(BuildStepError) as caught:
        await engine.build(context, tags=tag, network_mode="none", builder=builder)
    message = caught.value.message
    assert "RUN echo one; echo two" in message
    if not PODMAN:
        head, *output = message.splitlines()
        assert "3" in head
        assert {"one", "two", "3"} <= set(output)
        assert caught.value.exit_code == 3
    with pytest.raises(NotFoundError):
        await engine.inspect(tag)


@both_builders
async def test_a_run_gets_its_limits(engine: ImageService, context: Path, tag: str, builder: Builder) -> None:
    """As in the test before, Podman's containers may not run here: what is asked is that it says so."""
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY unique /\nRUN echo hosts: $(cat /etc/hosts)\n"
    )
    frames: list[ProgressFrame] = []
    build = engine.build(
        context,
        tags=tag,
        network_mode="none",
        extra_hosts={"elsewhere": "192.0.2.7"},
        builder=builder,
        on_progress=frames.append,
    )
    if PODMAN:
        with pytest.raises(APIError, match="extrahosts"):
            await build
        return
    await build
    said = "".join(frame.stream or "" for frame in frames)
    assert "192.0.2.7 elsewhere" in said.replace("\t", " ")


@both_builders
async def test_a_copy_of_nothing_is_an_error_with_its_step(
    engine: ImageService, context: Path, builder: Builder
) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nothing-here /\n")
    with pytest.raises(APIError) as caught:
        await engine.build(context, builder=builder)
    assert "COPY nothing-here /" in caught.value.message


async def test_a_dockerfile_that_is_none_is_refused(engine: ImageService, context: Path) -> None:
    with pytest.raises(LocalFileError, match="no such Dockerfile"):
        await engine.build(context)
    (context / "Dockerfile").write_text("FROMM scratch\n")
    with pytest.raises(ServerError if PODMAN else InvalidParameterError):
        await engine.build(context)
    with pytest.raises(APIError):
        await engine.build(b"this is no tar" * 100)


async def test_base_images_come_with_the_credentials_given(
    engine: ImageService, registry: str, context: Path, tag: str
) -> None:
    """BuildKit would ask for them over a session; without one, it says so."""
    (context / "Dockerfile").write_text("FROM scratch\nCOPY unique /\n")
    path = f"base-{secrets.token_hex(4)}"
    pushed = f"{registry}/{path}:1"
    await engine.build(context, tags=pushed)
    await engine.push(pushed)
    await engine.remove(pushed, force=True)

    async def guard(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Basic dXNlcjpzZWNyZXQ=":  # user:secret
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        raise web.HTTPTemporaryRedirect(f"http://{registry}{request.path_qs}")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", guard)
    async with serving(app) as address:
        base = tar_of({"Dockerfile": f"FROM {address}/{path}:1\nLABEL a=b\n"})
        if PODMAN:
            # It takes only those registries for insecure that its configuration lists.
            with pytest.raises(APIError):
                await engine.build(base)
            return
        with pytest.raises(UnauthorizedError):
            await engine.build(base)
        with pytest.raises(ServerError, match="no active sessions"):
            await engine.build(base, builder="buildkit")
        auth = {address: RegistryAuth(username="user", password="secret")}
        assert (await engine.build(base, tags=tag, auths=auth)).id == (await engine.inspect(tag)).id
        assert (await engine.build(base, tags=tag, builder="buildkit")).id == (await engine.inspect(tag)).id
        await engine.remove(f"{address}/{path}:1", force=True)


async def test_leaving_a_build_ends_the_engines_work(engine: ImageService, context: Path, leftovers: Leftovers) -> None:
    """The Engine stops reading, closes the connection, and no image comes of it."""
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    with (context / "endless").open("wb") as file:
        file.truncate(1 << 40)
    await engine.ping()
    images = {image.id for image in await engine.list(all=True)}
    before = leftovers.now()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await engine.build(context)
    await leftovers.settle(before)
    assert {image.id for image in await engine.list(all=True)} == images


async def test_the_build_cache_is_pruned(engine: ImageService, context: Path, tag: str) -> None:
    """Podman has no such endpoint."""
    if PODMAN:
        with pytest.raises(NotFoundError):
            await engine.prune_build_cache()
        return
    (context / "Dockerfile").write_text("FROM scratch\nCOPY unique /\n")
    await engine.build(context, tags=tag, builder="buildkit")
    kept = await engine.prune_build_cache(all=True, reserved_space=1 << 40)
    assert kept.removed == ()
    await engine.remove(tag)
    pruned = await engine.prune_build_cache(all=True)
    assert pruned.removed
    assert (await engine.prune_build_cache(all=True)).removed == ()
    with pytest.raises(APIError):
        await engine.prune_build_cache(filters={"nonsense": "x"})

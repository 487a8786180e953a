"""Build and its cache, against a daemon that fails, is cut and is left: parameters, contexts, output, errors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import io
import json
import tarfile
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aiodocker_images import (
    APIError,
    BuildResult,
    BuildStepError,
    ConfigError,
    ImageService,
    InvalidParameterError,
    InvalidPlatformError,
    InvalidReferenceError,
    LocalFileError,
    ProgressFrame,
    Reference,
    RegistryAuth,
    ServerError,
    StreamInterruptedError,
    UnsupportedAPIVersionError,
)
from aiodocker_images._api.build_options import Ulimit
from aiodocker_images._api.build_output import MAX_STEP_LINES, MAX_STEP_NAME, MAX_STEP_OUTPUT, MAX_STEPS, StepOutput
from aiodocker_images.buildkit import BuildTrace
from tests.conftest import Leftovers
from tests.support.scripted import Exchange, Handler, ScriptedDaemon
from tests.support.tars import tar_of
from tests.unit.test_buildkit import field

ID = "sha256:" + "ab" * 32
Frame = Mapping[str, object]

BUILT: list[Frame] = [
    {"stream": "Step 1/1 : FROM scratch"},
    {"stream": "\n"},
    {"stream": " ---> \n"},
    {"aux": {"ID": ID}},
    {"stream": "Successfully built abababababab\n"},
]


def frames(*documents: object) -> Handler:
    """Answer with frames, once the context is read."""

    async def handler(exchange: Exchange) -> None:
        exchange.writer.transport.set_write_buffer_limits(0)  # what the end of the connection would drop
        await exchange.body()
        await exchange.head()
        await exchange.frames(*documents)
        await exchange.end()

    return handler


CONTEXT = tar_of({"Dockerfile": "FROM scratch"})


@pytest.fixture
def scripted(daemon: ScriptedDaemon) -> ScriptedDaemon:
    """A daemon that builds whatever comes."""
    daemon.on("POST", "/build", frames(*BUILT))
    return daemon


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The smallest context."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch")
    return tmp_path / "context"


Build = Callable[[ImageService], Awaitable[BuildResult]]

PARAMETERS: list[tuple[str, Build, list[tuple[str, str]]]] = [
    ("nothing", lambda images: images.build(CONTEXT), []),
    (
        "names",
        lambda images: images.build(CONTEXT, tags=["a", Reference.parse("127.0.0.1:5000/b:1")]),
        [("t", "docker.io/library/a:latest"), ("t", "127.0.0.1:5000/b:1")],
    ),
    ("one name", lambda images: images.build(CONTEXT, tags="a:1"), [("t", "docker.io/library/a:1")]),
    (
        "what",
        lambda images: images.build(CONTEXT, dockerfile="./b/../Dockerfile", target="last", platform="linux/arm64"),
        [("dockerfile", "Dockerfile"), ("target", "last"), ("platform", "linux/arm64")],
    ),
    (
        "documents",
        lambda images: images.build(
            CONTEXT,
            build_args={"A": "b c", "N": None},
            labels={"l": "é"},
            cache_from=["a:1", "b"],
            ulimits=[Ulimit(name="nofile", soft=1, hard=2)],
        ),
        [
            ("buildargs", '{"A":"b c","N":null}'),
            ("labels", '{"l":"é"}'),
            ("cachefrom", '["a:1","b"]'),
            ("ulimits", '[{"Name":"nofile","Soft":1,"Hard":2}]'),
        ],
    ),
    (
        "flags",
        lambda images: images.build(
            CONTEXT, no_cache=True, pull=True, force_remove=True, squash=True, remove_intermediate=False
        ),
        [("nocache", "true"), ("pull", "true"), ("forcerm", "true"), ("squash", "true"), ("rm", "false")],
    ),
    (
        "hosts",
        lambda images: images.build(CONTEXT, extra_hosts={"a": "::1", "b": "host-gateway"}, network_mode="none"),
        [("networkmode", "none"), ("extrahosts", "a:::1"), ("extrahosts", "b:host-gateway")],
    ),
    (
        "hosts as the docker CLI takes them",
        lambda images: images.build(CONTEXT, extra_hosts=["a=1.2.3.4", "b:[::1]", "c=[::1]", "d:::1", "e=::1"]),
        [("extrahosts", host) for host in ("a:1.2.3.4", "b:::1", "c:::1", "d:::1", "e:::1")],
    ),
    (
        "hosts as texts",
        lambda images: images.build(CONTEXT, extra_hosts=["a:1.2.3.4", "a:1.2.3.5"]),
        [("extrahosts", "a:1.2.3.4"), ("extrahosts", "a:1.2.3.5")],
    ),
    (
        "limits",
        lambda images: images.build(
            CONTEXT,
            memory=1 << 30,
            memory_swap=-1,
            cpu_shares=512,
            cpu_period=100_000,
            cpu_quota=50_000,
            cpuset_cpus="0-2,4",
            cpuset_mems="0",
            shm_size=1 << 26,
            cgroup_parent="/builds",
            isolation="hyperv",
            security_opt=["credentialspec=file://a.json"],
        ),
        [
            ("shmsize", "67108864"),
            ("memory", "1073741824"),
            ("memswap", "-1"),
            ("cpushares", "512"),
            ("cpuperiod", "100000"),
            ("cpuquota", "50000"),
            ("cpusetcpus", "0-2,4"),
            ("cpusetmems", "0"),
            ("cgroupparent", "/builds"),
            ("isolation", "hyperv"),
            ("securityopt", "credentialspec=file://a.json"),
        ],
    ),
    (
        "BuildKit",
        lambda images: images.build(CONTEXT, builder="buildkit", outputs=[{"Type": "moby", "Attrs": {"a": "b"}}]),
        [("version", "2"), ("outputs", '[{"Type":"moby","Attrs":{"a":"b"}}]')],
    ),
]


@pytest.mark.parametrize(("build", "query"), [each[1:] for each in PARAMETERS], ids=[each[0] for each in PARAMETERS])
async def test_parameters_are_sent_as_the_daemon_reads_them(
    scripted: ScriptedDaemon, images: ImageService, build: Build, query: list[tuple[str, str]]
) -> None:
    assert await build(images) == BuildResult(id=ID)
    request = scripted.requests[-1]
    assert request.query == query
    assert request.headers["content-type"] == "application/x-tar"
    assert "x-registry-config" not in request.headers


async def test_a_quiet_build_says_only_its_id(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/build", frames({"stream": f"{ID}\n"}))
    assert await images.build(CONTEXT, quiet=True) == BuildResult(id=ID)
    assert daemon.requests[-1].query == [("q", "true")]


REMOTE = [
    "http://127.0.0.1:1/context.tar",
    "https://a.example/b.git#main:dir",
    "git://a.example/b",
    "git@a.example:b.git",
    "github.com/a/b",
]


@pytest.mark.parametrize("url", REMOTE)
async def test_a_url_is_the_daemons_to_fetch(scripted: ScriptedDaemon, images: ImageService, url: str) -> None:
    assert await images.build(url, dockerfile="a/Dockerfile") == BuildResult(id=ID)
    request = scripted.requests[-1]
    assert request.query == [("remote", url), ("dockerfile", "a/Dockerfile")]
    assert request.headers.get("content-length", "0") == "0"
    assert "transfer-encoding" not in request.headers


async def test_a_path_is_a_directory_or_a_tar_whatever_it_is_called(
    daemon: ScriptedDaemon, images: ImageService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar is sent as it is, and with its length; a directory as the tar that it becomes, in chunks."""
    bodies: list[tuple[bytes, str | None]] = []

    async def keep(exchange: Exchange) -> None:
        bodies.append((await exchange.body(), exchange.headers.get("content-length")))
        await exchange.head()
        await exchange.frames(*BUILT)
        await exchange.end()

    daemon.on("POST", "/build", keep)
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "github.com/a"
    there.mkdir(parents=True)
    (there / "Dockerfile").write_text("FROM scratch")
    (there / "left-out").touch()
    (there / ".dockerignore").write_text("left-out")
    (tmp_path / "context.tar").write_bytes(CONTEXT)

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield CONTEXT[:100]
        yield CONTEXT[100:]

    for context in (Path("github.com/a"), str(there), Path("context.tar"), "context.tar", CONTEXT, pieces()):
        assert await images.build(context) == BuildResult(id=ID)
    for body, length in bodies[:2]:
        assert length is None
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            assert archive.getnames() == [".dockerignore", "Dockerfile"]
    assert bodies[2:] == [(CONTEXT, "10240")] * 3 + [(CONTEXT, None)]


DOCKERFILE = b"FROM scratch\n"


def in_a_file(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


class OnlyRead:
    """A file object that has no more than it must have, and cannot go back."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 100))


GIVEN: list[Callable[[bytes, Path], Any]] = [
    lambda content, _: content,
    lambda content, _: bytearray(content),
    lambda content, _: memoryview(content),
    lambda content, _: io.BytesIO(content),
    lambda content, _: OnlyRead(content),
    in_a_file,
    lambda content, path: str(in_a_file(content, path)),
]


@pytest.mark.parametrize("given", GIVEN, ids=range(len(GIVEN)))
async def test_a_dockerfile_in_the_place_of_the_context_is_taken_as_one(
    daemon: ScriptedDaemon, images: ImageService, tmp_path: Path, given: Callable[[bytes, Path], Any]
) -> None:
    """As by docker-py's `fileobj`, and by the docker CLI on standard input; an archive stays what it is."""
    bodies: list[bytes] = []

    async def keep(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.head()
        await exchange.frames(*BUILT)
        await exchange.end()

    daemon.on("POST", "/build", keep)
    for content in (DOCKERFILE, DOCKERFILE * 100, CONTEXT):
        await images.build(given(content, tmp_path / "given"))
    assert bodies[2] == CONTEXT
    for content, body in zip((DOCKERFILE, DOCKERFILE * 100), bodies, strict=False):
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            assert archive.getnames() == ["Dockerfile"]
            file = archive.extractfile("Dockerfile")
            assert file is not None
            assert file.read() == content


async def test_a_file_object_is_read_from_where_it_is(
    daemon: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    async def keep(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.head()
        await exchange.frames(*BUILT)
        await exchange.end()

    daemon.on("POST", "/build", keep)
    with in_a_file(b"before" + CONTEXT, tmp_path / "file").open("rb") as file:
        file.seek(6)
        await images.build(file)
        assert not file.closed
    assert bodies == [CONTEXT]


async def test_what_is_neither_archive_nor_dockerfile_is_an_error(
    scripted: ScriptedDaemon, images: ImageService, tmp_path: Path
) -> None:
    for given in (io.BytesIO(b"x" * (5 << 20)), in_a_file(b"x" * (5 << 20), tmp_path / "file")):
        with pytest.raises(LocalFileError, match="not an archive, and too long for a Dockerfile"):
            await images.build(given)
    with pytest.raises(ConfigError, match="no other Dockerfile can be named"):
        await images.build(DOCKERFILE, dockerfile="b/Dockerfile")
    with pytest.raises(ConfigError, match="must be in the context"):
        await images.build(in_a_file(CONTEXT, tmp_path / "context.tar"), dockerfile="../Dockerfile")
    assert "/build" not in [request.path for request in scripted.requests]


async def test_a_dockerfile_from_elsewhere_is_named_to_the_engine(
    scripted: ScriptedDaemon, images: ImageService, directory: Path
) -> None:
    in_a_file(DOCKERFILE, directory.parent / "elsewhere")
    for dockerfile in ("../elsewhere", directory.parent / "elsewhere", DOCKERFILE):
        await images.build(directory, dockerfile=dockerfile)
        ((name, value),) = scripted.requests[-1].query
        assert (name, value[:12]) == ("dockerfile", ".dockerfile.")
    await images.build(directory, dockerfile=directory / "Dockerfile")
    assert scripted.requests[-1].query == [("dockerfile", "Dockerfile")]


async def test_proxies_of_the_docker_cli_are_arguments_of_a_build(
    scripted: ScriptedDaemon, images: ImageService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the caller names count instead, also without a value."""
    proxies = {"default": {"httpProxy": "http://p:1", "noProxy": "a"}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    await images.build(CONTEXT, build_args={"HTTP_PROXY": "http://mine", "no_proxy": None})
    (arguments,) = [value for name, value in scripted.requests[-1].query if name == "buildargs"]
    assert json.loads(arguments) == {
        "HTTP_PROXY": "http://mine",
        "http_proxy": "http://p:1",
        "NO_PROXY": "a",
        "no_proxy": None,
    }


async def test_a_directory_is_compressed_if_that_is_wanted(
    daemon: ScriptedDaemon, images: ImageService, directory: Path
) -> None:
    bodies: list[bytes] = []

    async def keep(exchange: Exchange) -> None:
        bodies.append(await exchange.body())
        await exchange.head()
        await exchange.frames(*BUILT)
        await exchange.end()

    daemon.on("POST", "/build", keep)
    await images.build(directory, compress=True)
    with tarfile.open(fileobj=io.BytesIO(bodies[0]), mode="r:gz") as archive:
        assert archive.getnames() == ["Dockerfile"]


async def test_a_dockerfile_in_small_letters_is_named(
    scripted: ScriptedDaemon, images: ImageService, directory: Path
) -> None:
    """Not every Engine looks for it by itself."""
    (directory / "Dockerfile").rename(directory / "dockerfile")
    await images.build(directory)
    assert scripted.requests[-1].query == [("dockerfile", "dockerfile")]


REFUSED: list[tuple[Callable[[ImageService], object], type[Exception]]] = [
    (lambda images: images.build_stream(5), TypeError),  # type: ignore[arg-type]  # the point
    (lambda images: images.build_stream("a\0b"), ValueError),
    (lambda images: images.build_stream(b"", tags="A"), InvalidReferenceError),
    (lambda images: images.build_stream(b"", tags=["a", f"b@{ID}"]), InvalidReferenceError),
    (lambda images: images.build_stream(b"", platform="linux/a/b/c"), InvalidPlatformError),
    (lambda images: images.build_stream(b"", dockerfile="../Dockerfile"), ValueError),
    (lambda images: images.build_stream(b"", dockerfile=b"FROM scratch"), ValueError),
    (lambda images: images.build_stream("https://a.example/b", dockerfile="/Dockerfile"), ValueError),
    (lambda images: images.build_stream(".", dockerfile=".."), ValueError),
    (lambda images: images.build_stream(b"", outputs=[{"Type": "moby"}]), ValueError),
    (lambda images: images.build_stream(b"", builder="buildkit", memory=1), ValueError),
    (lambda images: images.build_stream(b"", builder="buildkit", security_opt=["a"]), ValueError),
    (lambda images: images.build_stream(b"", builder="buildkit", auths={"a.example": RegistryAuth()}), ValueError),
    (lambda images: images.build_stream(b"", builder="kaniko"), ValueError),  # type: ignore[arg-type]  # the point
]


@pytest.mark.parametrize(("call", "error"), REFUSED, ids=range(len(REFUSED)))
def test_a_wrong_argument_raises_at_the_call(call: Callable[[ImageService], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call(ImageService("/nowhere/docker.sock"))


def test_what_buildkit_ignores_is_named() -> None:
    with pytest.raises(ValueError, match="BuildKit ignores memory, cpuset_mems, auths: leave that out"):
        ImageService("/nowhere/docker.sock").build_stream(
            b"", builder="buildkit", memory=1, cpuset_mems="0", auths={"a.example": RegistryAuth()}
        )


async def test_a_context_that_cannot_be_read_sends_nothing(
    scripted: ScriptedDaemon, images: ImageService, directory: Path
) -> None:
    with pytest.raises(LocalFileError, match=r"^build a:latest: cannot read .*/nothing'"):
        await images.build(directory / "nothing", tags="a")
    with pytest.raises(LocalFileError, match="the context has no such Dockerfile"):
        await images.build(directory, dockerfile="Dockerfile.dev")
    (directory / ".dockerignore").write_text("[")
    with pytest.raises(ConfigError, match="^build: "):
        await images.build(directory)
    assert scripted.paths == []


async def test_a_context_that_fails_on_the_way_ends_the_build(
    daemon: ScriptedDaemon, images: ImageService, directory: Path, leftovers: Leftovers
) -> None:
    """The daemon sees a cut request, never a whole one that lacks a file."""
    changed, whole = asyncio.Event(), asyncio.Event()

    async def read(exchange: Exchange) -> None:
        await changed.wait()
        await exchange.body()
        whole.set()

    daemon.on("POST", "/build", read)
    for number in range(40):
        (directory / f"large{number:02}").write_bytes(bytes(1 << 20))
    await images.ping()
    before = leftovers.now()
    task = asyncio.create_task(images.build(directory))
    while not daemon.paths:
        await asyncio.sleep(0.005)
    (directory / "large39").unlink()  # far more than any buffer holds is before it
    changed.set()
    with pytest.raises(LocalFileError, match=r"^build: cannot read .*/large39'") as caught:
        await task
    assert caught.value.errno == errno.ENOENT
    await leftovers.settle(before)
    assert not whole.is_set()


CREDENTIALS = {
    "docker.io": RegistryAuth(username="user", password="pässword>?"),
    "https://index.docker.io/v1/": RegistryAuth(username="again", password="pass:word"),
    "127.0.0.1:5000": RegistryAuth(identity_token="token"),
}


async def test_build_credentials_are_sent_under_the_names_the_daemon_looks_up(
    scripted: ScriptedDaemon, images: ImageService
) -> None:
    for registry, given in CREDENTIALS.items():
        stream = images.build_stream(CONTEXT, auths={registry: given})
        secret = given.password or given.identity_token
        assert secret not in repr(stream)
        async for _ in stream:
            pass
    headers = [request.headers["x-registry-config"] for request in scripted.requests if request.path == "/build"]
    assert not set("+/") & set("".join(headers))
    hub = "https://index.docker.io/v1/"
    assert [json.loads(base64.urlsafe_b64decode(header)) for header in headers] == [
        {hub: {"username": "user", "password": "pässword>?", "serveraddress": hub}},
        {hub: {"username": "again", "password": "pass:word", "serveraddress": hub}},
        {"127.0.0.1:5000": {"identitytoken": "token", "serveraddress": "127.0.0.1:5000"}},
    ]


FAILED_RUN: list[Frame] = [
    {"stream": "Step 1/2 : FROM scratch"},
    {"stream": "\n"},
    {"stream": "of another step\n"},
    {"stream": "Step 2/2 : RUN false"},
    {"stream": "\n"},
    {"stream": " ---> Running in 0123456789ab\n"},
    {"stream": "hel"},
    {"stream": "lo\n"},
    {"stream": "\x1b[91merr\n\x1b[0m"},
    {
        "errorDetail": {"code": 3, "message": "The command '/bin/sh -c false' returned a non-zero code: 3"},
        "error": "The command '/bin/sh -c false' returned a non-zero code: 3",
    },
]


async def test_a_failed_step_is_an_error_with_its_output(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/build", frames(*FAILED_RUN, *BUILT))
    seen: list[ProgressFrame] = []
    with pytest.raises(BuildStepError) as caught:
        await images.build(CONTEXT, tags="a", on_progress=seen.append)
    assert (caught.value.status, caught.value.exit_code) == (None, 3)
    assert caught.value.message == (
        "The command '/bin/sh -c false' returned a non-zero code: 3\n"
        "Step 2/2 : RUN false\n ---> Running in 0123456789ab\nhello\nerr"
    )
    assert str(caught.value).startswith(f"build a:latest: {caught.value.message} (POST /build, at ")
    assert caught.value.args == (caught.value.message,)
    assert len(seen) == len(FAILED_RUN) - 1


@pytest.mark.parametrize("step", ["STEP 2/2: RUN x", "[2/3] STEP 1/9: RUN x"])
async def test_podmans_steps_are_known(daemon: ScriptedDaemon, images: ImageService, step: str) -> None:
    error = {"errorDetail": {"message": "exit status 3"}, "error": "exit status 3"}
    daemon.on("POST", "/build", frames({"stream": "before\n"}, {"stream": f"{step}\n"}, {"stream": "out\n"}, error))
    with pytest.raises(APIError) as caught:
        await images.build(CONTEXT)
    assert caught.value.message == f"exit status 3\n{step}\nout"


async def test_only_the_end_of_much_output_is_in_the_error(daemon: ScriptedDaemon, images: ImageService) -> None:
    lines = [{"stream": f"{number}\n"} for number in range(50_000)]
    daemon.on("POST", "/build", frames(*FAILED_RUN[:6], *lines, FAILED_RUN[-1]))
    with pytest.raises(APIError) as caught:
        await images.build(CONTEXT)
    assert caught.value.message.splitlines()[1:] == [str(n) for n in range(50_000 - MAX_STEP_LINES, 50_000)]
    daemon.on("POST", "/build", frames({"stream": "x" * (1 << 20)}, {"stream": "y"}, FAILED_RUN[-1]))
    with pytest.raises(APIError) as caught:
        await images.build(CONTEXT)
    assert caught.value.message.splitlines()[1] == "x" * (MAX_STEP_OUTPUT - 1) + "y"


async def test_a_refused_dockerfile_is_an_invalid_parameter(daemon: ScriptedDaemon, images: ImageService) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer_json({"message": "dockerfile parse error line 1: unknown instruction: FROMM"}, 400)

    daemon.on("POST", "/build", refuse)
    with pytest.raises(InvalidParameterError, match=r"^build: dockerfile parse error line 1: .* \(POST /build, status"):
        await images.build(CONTEXT)


@pytest.mark.parametrize("end", range(len(BUILT)))
async def test_an_end_without_the_last_word_is_an_interruption(
    daemon: ScriptedDaemon, images: ImageService, end: int
) -> None:
    daemon.on("POST", "/build", frames(*BUILT[:end]))
    with pytest.raises(StreamInterruptedError, match="without saying that the build was done"):
        await images.build(CONTEXT)


def trace(*fields: bytes) -> Frame:
    return {"id": "moby.buildkit.trace", "aux": base64.b64encode(b"".join(fields)).decode()}


def step(
    digest: str, name: str, *, cached: bool = False, error: str = "", started: bool = True, completed: bool = False
) -> bytes:
    stamp = (field(5, field(1, 1)) if started else b"") + (field(6, field(1, 2)) if completed else b"")
    return field(
        1, field(1, digest) + field(3, name) + field(4, int(cached)) + stamp + (field(7, error) if error else b"")
    )


def log(digest: str, data: bytes) -> bytes:
    return field(3, field(1, digest) + field(3, 1) + field(4, data))


async def test_buildkits_progress_is_typed_and_readable(daemon: ScriptedDaemon, images: ImageService) -> None:
    """The steps are numbered as they begin, and a character that is cut between two frames is put together."""
    daemon.on(
        "POST",
        "/build",
        frames(
            trace(step("b", "[2/2] RUN b", started=False)),
            trace(step("a", "[1/2] COPY a /"), step("a", "[1/2] COPY a /", cached=True)),
            trace(step("b", "[2/2] RUN b"), log("b", "é".encode()[:1])),
            trace(log("b", "é".encode()[1:] + b"\n")),
            trace(field(4, field(1, "b") + field(3, "careful"))),
            {"id": "moby.image.id", "aux": {"ID": ID}},
            trace(),
        ),
    )
    seen: list[ProgressFrame] = []
    assert await images.build(CONTEXT, builder="buildkit", on_progress=seen.append) == BuildResult(id=ID)
    assert [frame.stream for frame in seen] == [
        None,
        "#1 [1/2] COPY a /\n#1 CACHED\n",
        "#2 [2/2] RUN b\n",
        "#2 é\n",
        "WARNING: careful\n",
        None,
        None,
    ]
    traces = [frame.aux for frame in seen if isinstance(frame.aux, BuildTrace)]
    assert len(traces) == 6
    assert [each.name for each in traces[1].steps] == ["[1/2] COPY a /"] * 2


async def test_the_lines_of_steps_that_run_side_by_side_are_told_apart(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    """A line comes whole, and a step that ends without a line's end has one all the same."""
    daemon.on(
        "POST",
        "/build",
        frames(
            trace(step("a", "RUN a"), step("b", "RUN b")),
            trace(log("a", b"one "), log("b", b"1\n2"), log("a", b"two\nthree")),
            trace(step("a", "RUN a", completed=True), log("a", b"!")),
            trace(log("a", b"late")),
            trace(log("b", b"x" * 5000)),
            trace(step("b", "RUN b", error="exit code: 3")),
            {"id": "moby.image.id", "aux": {"ID": ID}},
        ),
    )
    seen: list[str | None] = []
    await images.build(CONTEXT, builder="buildkit", on_progress=lambda frame: seen.append(frame.stream))
    assert seen == [
        "#1 RUN a\n#2 RUN b\n",
        "#2 1\n#1 one two\n",
        "#1 three!\n",
        "#1 late\n",
        f"#2 2{'x' * 5000}\n",
        "#2 ERROR: exit code: 3\n",
        None,
    ]


async def test_a_failed_step_of_buildkits_is_an_error_with_its_own_output(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    """Not with the output of what ran beside it, and was cancelled."""
    error = {"errorDetail": {"message": "failed to solve: exit code: 3"}, "error": "failed to solve: exit code: 3"}
    daemon.on(
        "POST",
        "/build",
        frames(
            trace(step("a", "RUN a"), step("b", "RUN b")),
            trace(log("a", b"of a\n"), log("b", b"of b\n"), log("a", b"more\n")),
            trace(step("b", "RUN b", error="context canceled"), step("a", "RUN a", error="exit code: 3")),
            error,
        ),
    )
    with pytest.raises(ServerError) as caught:
        await images.build(CONTEXT, builder="buildkit")
    assert caught.value.message == "failed to solve: exit code: 3\nRUN a\nof a\nmore"


def test_what_is_remembered_of_steps_without_end_is_bounded() -> None:
    """All that there is to show still comes, and the error has the end of what a failed one said."""
    output = StepOutput()
    tracemalloc.start()
    try:
        for number in range(MAX_STEPS + MAX_STEPS // 4):
            reported = step(f"sha256:{number}", "n" * 50_000, error="e" * 50_000)
            frame = msgspec.convert(trace(reported, log(f"sha256:{number}", b"x" * 1000)), ProgressFrame)
            assert (output.read(frame).stream or "").startswith(f"#{number + 1} nnn")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < MAX_STEPS * 3 * MAX_STEP_NAME
    error = ServerError("it failed")
    output.explain(error)
    assert error.message.endswith("x" * 1000)
    assert len(error.message) < MAX_STEP_OUTPUT + 100


async def test_a_build_without_an_image_has_no_id(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/build", frames(trace(step("a", "RUN a"))))
    outputs = [{"Type": "cacheonly"}]
    assert await images.build(CONTEXT, builder="buildkit", outputs=outputs) == BuildResult(id=None)


GATED: list[tuple[str, Build]] = [
    ("shm_size", lambda images: images.build(CONTEXT, builder="buildkit", shm_size=1)),
    ("ulimits", lambda images: images.build(CONTEXT, builder="buildkit", ulimits=[Ulimit(name="a", soft=1, hard=1)])),
]


@pytest.mark.parametrize(("name", "build"), GATED, ids=[each[0] for each in GATED])
async def test_what_an_old_buildkit_ignores_is_refused(short_path: Path, name: str, build: Build) -> None:
    async with ScriptedDaemon(short_path / "old.sock", api_version="1.41") as old, ImageService(old.socket) as images:
        with pytest.raises(UnsupportedAPIVersionError, match=f"'{name} with BuildKit' of build needs Engine API 1.42"):
            await build(images)
        assert old.paths == []


async def never_ending(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.frames(BUILT[0])
    await exchange.client_gone()


async def leave_by_break(images: ImageService, context: Path) -> None:
    async for _ in images.build_stream(context):
        break


async def leave_by_aclose(images: ImageService, context: Path) -> None:
    stream = images.build_stream(context)
    await anext(stream)
    await stream.aclose()


async def leave_by_cancel(images: ImageService, context: Path) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(images.build(context, on_progress=lambda _: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_exception_in_on_progress(images: ImageService, context: Path) -> None:
    def fail(_: ProgressFrame) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await images.build(context, on_progress=fail)


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_aclose, leave_by_cancel, leave_by_exception_in_on_progress])
async def test_leaving_a_build_ends_it_and_closes_the_context(
    daemon: ScriptedDaemon,
    images: ImageService,
    directory: Path,
    leftovers: Leftovers,
    leave: Callable[[ImageService, Path], Awaitable[None]],
) -> None:
    """The daemon answers while the context, far bigger than any buffer, is still being sent."""
    daemon.on("POST", "/build", never_ending)
    with (directory / "large").open("wb") as file:
        file.truncate(1 << 30)
    await images.ping()
    before = leftovers.now()
    for _ in range(5):
        await leave(images, directory)
    async with asyncio.timeout(5):
        for request in daemon.requests:
            if request.path == "/build":
                await request.closed.wait()
    await leftovers.settle(before)


async def test_leaving_a_build_closes_the_users_iterable(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/build", never_ending)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            closed.set()

    async with contextlib.aclosing(images.build_stream(endless())) as stream:
        await anext(stream)
    assert closed.is_set()


PRUNED = {"CachesDeleted": ["a", "b"], "SpaceReclaimed": 5}


async def answer_pruned(exchange: Exchange) -> None:
    await exchange.answer_json(PRUNED)


async def test_the_cache_is_pruned(daemon: ScriptedDaemon, images: ImageService) -> None:
    daemon.on("POST", "/build/prune", answer_pruned)
    report = await images.prune_build_cache(
        all=True, filters={"until": "24h", "inuse": ()}, reserved_space=1, max_used_space=2, min_free_space=3
    )
    assert (report.removed, report.space_reclaimed) == (("a", "b"), 5)
    query = dict(daemon.requests[-1].query)
    assert msgspec.json.decode(query.pop("filters")) == {"until": ["24h"], "inuse": []}
    assert query == {"all": "true", "reserved-space": "1", "max-used-space": "2", "min-free-space": "3"}
    await images.prune_build_cache()
    assert daemon.requests[-1].query == []


async def test_an_old_daemon_gets_the_old_name_and_no_unknown_one(short_path: Path) -> None:
    async with ScriptedDaemon(short_path / "old.sock", api_version="1.47") as old, ImageService(old.socket) as images:
        old.on("POST", "/build/prune", answer_pruned)
        await images.prune_build_cache(reserved_space=1)
        assert old.requests[-1].query == [("keep-storage", "1")]
        with pytest.raises(UnsupportedAPIVersionError, match="'max_used_space' of prune_build_cache needs"):
            await images.prune_build_cache(max_used_space=1)
        with pytest.raises(UnsupportedAPIVersionError, match="'min_free_space' of prune_build_cache needs"):
            await images.prune_build_cache(min_free_space=1)
        assert old.paths == ["POST /build/prune"]

"""Each call sends one request with the exact method, path, query and headers that the Engine reads."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tarfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aioresponses import aioresponses
from yarl import URL

from aiodocker_images import (
    ImageService,
    InvalidPlatformError,
    InvalidReferenceError,
    Platform,
    Reference,
    RegistryAuth,
    StaticKeychain,
    UnsupportedAPIVersionError,
)
from aiodocker_images.testing import MockedResponse

NOWHERE = "unix:///nowhere.sock"
NEWEST = "1.56"

DIGEST = "sha256:" + "a1" * 32
ID = "b2" * 32


@dataclass(frozen=True)
class Sent:
    """One request as it would go out."""

    method: str
    url: URL
    headers: dict[str, str] = field(repr=False)

    @property
    def path(self) -> str:
        """The path as it stands in the request line, without the version."""
        version, path = self.url.raw_path.split("/", 2)[1:]
        assert version.startswith("v1.")
        return f"/{path}"

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query as the Engine's own parser reads it, which refuses a semicolon."""
        text = self.url.raw_query_string
        assert ";" not in text
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True) if text else []


class Wire:
    """Answers every request with `body`, or with that of the path in `bodies`, and keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.body = b""
        self.bodies = {"/images/load": b'{"stream":"Loaded image: a:1"}'}

    @property
    def only(self) -> Sent:
        """The one request, but for the questions that follow it: which platform came, which tags there are."""
        (sent,) = self.sent[:1] if all(each.method == "GET" for each in self.sent[1:]) else self.sent
        return sent


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Stand in for the network, and note each request before aioresponses does, which sorts the query."""
    wire = Wire()
    mock: Any = aioresponses()  # typed in part only
    with mock:
        mocked: Any = vars(aiohttp.ClientSession)["_request"]

        async def request(session: aiohttp.ClientSession, method: str, url: URL, **options: Any) -> Any:  # noqa: ANN401 - as aiohttp's
            headers: dict[str, str] = {**session.headers, **(options.get("headers") or {})}
            wire.sent.append(Sent(method, url, headers))
            status = 201 if url.path.endswith("/tag") else 200
            body = next((each for path, each in wire.bodies.items() if url.path.endswith(path)), wire.body)
            mock.add(url, method, status=status, body=body, response_class=MockedResponse)
            return await mocked(session, method, url)  # not the body: aioresponses would copy it, and all behind it

        with monkeypatch.context() as patch:
            patch.setattr(aiohttp.ClientSession, "_request", request)
            yield wire


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    return file.getvalue()


Call = Callable[[ImageService], Awaitable[object]]
Row = tuple[Call, str, str, list[tuple[str, str]]]

NO_IMAGES = b"[]"
OBJECT = b"{}"
IMAGE = b'{"Id":"sha256:' + b"1" * 64 + b'"}'
PULLED = b'{"status":"Status: Image is up to date for x"}'
PUSHED = b'{"aux":{"Tag":"x","Digest":"%s","Size":1}}' % DIGEST.encode()
IMPORTED = b'{"status":"%s"}' % DIGEST.encode()
TAR = _tar()


def platform_json(**parts: str) -> str:
    return json.dumps(parts, separators=(",", ":"))


ARM = Platform(os="linux", architecture="arm64", variant="v8")
ARM_JSON = platform_json(os="linux", architecture="arm64", variant="v8")
AMD_JSON = platform_json(os="linux", architecture="amd64")

# What a call may name an image by, and what stands for it in the path.
NAMES = [
    ("ubuntu", "ubuntu:latest"),
    ("ubuntu:24.04", "ubuntu:24.04"),
    ("library/ubuntu", "ubuntu:latest"),
    ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
    ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu:latest"),
    ("user/app:1", "user/app:1"),
    ("localhost/app", "localhost/app:latest"),
    ("localhost:5000/x@" + DIGEST, "localhost:5000/x@" + DIGEST),
    ("localhost:5000/x:y@" + DIGEST, "localhost:5000/x:y@" + DIGEST),
    ("[::1]:5000/x:y", "%5B::1%5D:5000/x:y"),
    ("registry.example/a/b/c/d:T_1.x-y", "registry.example/a/b/c/d:T_1.x-y"),
    (ID, ID),
    ("sha256:" + ID, "sha256:" + ID),
    (ID[:12], ID[:12]),
    ("sha256:b2", "sha256:b2"),
]

LOCAL: dict[str, tuple[Callable[[ImageService, str], Awaitable[object]], str, str, bytes]] = {
    "inspect": (lambda images, name: images.inspect(name), "GET", "/images/{}/json", IMAGE),
    "tag": (lambda images, name: images.tag(name, "x:1"), "POST", "/images/{}/tag", b""),
    "remove": (lambda images, name: images.remove(name), "DELETE", "/images/{}", NO_IMAGES),
    "save": (lambda images, name: drained(images.save_stream(name)), "GET", "/images/{}/get", TAR),
}


async def drained(chunks: AsyncGenerator[object, None]) -> None:
    async for _ in chunks:
        pass


@pytest.mark.parametrize(("name", "segment"), NAMES, ids=[name for name, _ in NAMES])
@pytest.mark.parametrize(("call", "method", "path", "body"), LOCAL.values(), ids=LOCAL)
async def test_an_image_is_named_in_the_path_by_what_the_engine_knows_it_as(
    wire: Wire,
    call: Callable[[ImageService, str], Awaitable[object]],
    method: str,
    path: str,
    body: bytes,
    name: str,
    segment: str,
) -> None:
    wire.body = body
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await call(images, name)
    assert (wire.only.method, wire.only.path) == (method, path.format(segment))


ODD = 'a+b&c=d;e%41 f/?#"ü'

CALLS: dict[str, tuple[bytes, Row]] = {
    "version": (OBJECT, (lambda images: images.version(), "GET", "/version", [])),
    # list
    "list": (NO_IMAGES, (lambda images: images.list(), "GET", "/images/json", [])),
    "list of a name": (
        NO_IMAGES,
        (lambda images: images.list("alpine"), "GET", "/images/json", [("filters", '{"reference":["alpine"]}')]),
    ),
    "list of a pattern": (
        NO_IMAGES,
        (
            lambda images: images.list("[::1]:5000/*:1.?", filters={"dangling": False}),
            "GET",
            "/images/json",
            [("filters", '{"dangling":["false"],"reference":["[::1]:5000/*:1.?"]}')],
        ),
    ),
    "list by odd labels": (
        NO_IMAGES,
        (
            lambda images: images.list(filters={"label": {ODD: ODD}}),
            "GET",
            "/images/json",
            [("filters", json.dumps({"label": [f"{ODD}={ODD}"]}, separators=(",", ":"), ensure_ascii=False))],
        ),
    ),
    "list with everything": (
        NO_IMAGES,
        (
            lambda images: images.list(all=True, digests=True, shared_size=True, manifests=True, identity=True),
            "GET",
            "/images/json",
            [(name, "true") for name in ("all", "shared-size", "manifests", "identity")],
        ),
    ),
    "list of no filter": (NO_IMAGES, (lambda images: images.list(filters={}), "GET", "/images/json", [])),
    # inspect
    "inspect a platform": (
        IMAGE,
        (
            lambda images: images.inspect("a:1", platform="linux/arm64/v8"),
            "GET",
            "/images/a:1/json",
            [("platform", ARM_JSON)],
        ),
    ),
    "inspect the manifests": (
        IMAGE,
        (lambda images: images.inspect("a:1", manifests=True), "GET", "/images/a:1/json", [("manifests", "true")]),
    ),
    "inspect a Reference": (
        IMAGE,
        (lambda images: images.inspect(Reference.parse("a:1")), "GET", "/images/docker.io/library/a:1/json", []),
    ),
    # tag
    "tag": (
        b"",
        (
            lambda images: images.tag(ID, "[::1]:5000/x:y"),
            "POST",
            f"/images/{ID}/tag",
            [("repo", "[::1]:5000/x"), ("tag", "y")],
        ),
    ),
    "tag without a tag": (
        b"",
        (
            lambda images: images.tag("a:1", "b"),
            "POST",
            "/images/a:1/tag",
            [("repo", "docker.io/library/b"), ("tag", "latest")],
        ),
    ),
    # remove
    "remove with everything": (
        NO_IMAGES,
        (
            lambda images: images.remove("a:1", force=True, no_prune=True, platforms=["linux/amd64", ARM]),
            "DELETE",
            "/images/a:1",
            [("force", "true"), ("noprune", "true"), ("platforms", AMD_JSON), ("platforms", ARM_JSON)],
        ),
    ),
    "remove one platform": (
        NO_IMAGES,
        (
            lambda images: images.remove("a:1", platforms="linux/amd64"),
            "DELETE",
            "/images/a:1",
            [("platforms", AMD_JSON)],
        ),
    ),
    # pull
    "pull": (
        PULLED,
        (
            lambda images: images.pull("ubuntu"),
            "POST",
            "/images/create",
            [("fromImage", "docker.io/library/ubuntu"), ("tag", "latest")],
        ),
    ),
    "pull of a user's": (
        PULLED,
        (
            lambda images: images.pull("user/app:1"),
            "POST",
            "/images/create",
            [("fromImage", "docker.io/user/app"), ("tag", "1")],
        ),
    ),
    "pull by digest": (
        PULLED,
        (
            lambda images: images.pull("localhost:5000/x@" + DIGEST),
            "POST",
            "/images/create",
            [("fromImage", "localhost:5000/x"), ("tag", DIGEST)],
        ),
    ),
    "pull by tag and digest": (
        PULLED,
        (
            lambda images: images.pull("localhost:5000/x:y@" + DIGEST),
            "POST",
            "/images/create",
            [("fromImage", "localhost:5000/x"), ("tag", DIGEST)],
        ),
    ),
    "pull over IPv6": (
        PULLED,
        (
            lambda images: images.pull("[::1]:5000/x:y"),
            "POST",
            "/images/create",
            [("fromImage", "[::1]:5000/x"), ("tag", "y")],
        ),
    ),
    "pull of all tags": (
        PULLED,
        (
            lambda images: images.pull("localhost:5000/x", all_tags=True),
            "POST",
            "/images/create",
            [("fromImage", "localhost:5000/x"), ("tag", "")],
        ),
    ),
    "pull of a platform": (
        PULLED,
        (
            lambda images: images.pull("a:1", platform=ARM),
            "POST",
            "/images/create",
            [("fromImage", "docker.io/library/a"), ("tag", "1"), ("platform", "linux/arm64/v8")],
        ),
    ),
    # push
    "push": (PUSHED, (lambda images: images.push("user/app"), "POST", "/images/user/app/push", [("tag", "latest")])),
    "push over IPv6": (
        PUSHED,
        (lambda images: images.push("[::1]:5000/x:y"), "POST", "/images/%5B::1%5D:5000/x/push", [("tag", "y")]),
    ),
    "push of a platform": (
        PUSHED,
        (
            lambda images: images.push("localhost:5000/x:1", platform="linux/amd64"),
            "POST",
            "/images/localhost:5000/x/push",
            [("tag", "1"), ("platform", AMD_JSON)],
        ),
    ),
    # load
    "load": (OBJECT, (lambda images: images.load(TAR), "POST", "/images/load", [("quiet", "false")])),
    "load quietly": (
        OBJECT,
        (lambda images: images.load(TAR, quiet=True), "POST", "/images/load", [("quiet", "true")]),
    ),
    "load of platforms": (
        OBJECT,
        (
            lambda images: images.load(TAR, platforms=("linux/amd64", ARM)),
            "POST",
            "/images/load",
            [("quiet", "false"), ("platform", AMD_JSON), ("platform", ARM_JSON)],
        ),
    ),
    # save
    "save of a platform": (
        TAR,
        (
            lambda images: drained(images.save_stream("a:1", platforms="linux/amd64")),
            "GET",
            "/images/a:1/get",
            [("platform", AMD_JSON)],
        ),
    ),
    "save of several": (
        TAR,
        (
            lambda images: drained(images.save_stream("ubuntu", "[::1]:5000/x:y", ID, platforms=[ARM])),
            "GET",
            "/images/get",
            [("names", "ubuntu:latest"), ("names", "[::1]:5000/x:y"), ("names", ID), ("platform", ARM_JSON)],
        ),
    ),
    # import
    "import": (IMPORTED, (lambda images: images.import_image(TAR), "POST", "/images/create", [("fromSrc", "-")])),
    "import with everything": (
        IMPORTED,
        (
            lambda images: images.import_image(
                TAR,
                reference="localhost:5000/x:y",
                changes=['CMD ["/bin/sh"]', "ENV A=b;c&d"],
                message=ODD,
                platform="linux/arm64/v8",
            ),
            "POST",
            "/images/create",
            [
                ("fromSrc", "-"),
                ("repo", "localhost:5000/x"),
                ("tag", "y"),
                ("changes", 'CMD ["/bin/sh"]'),
                ("changes", "ENV A=b;c&d"),
                ("message", ODD),
                ("platform", "linux/arm64/v8"),
            ],
        ),
    ),
    "import with a tag in the name": (
        IMPORTED,
        (
            lambda images: images.import_image(TAR, reference="x:y"),
            "POST",
            "/images/create",
            [("fromSrc", "-"), ("repo", "docker.io/library/x"), ("tag", "y")],
        ),
    ),
    "import from a URL": (
        IMPORTED,
        (
            lambda images: images.import_image("http://127.0.0.1:1/root.tar?a=b&c=d#e", reference="x"),
            "POST",
            "/images/create",
            [
                ("fromSrc", "http://127.0.0.1:1/root.tar?a=b&c=d#e"),
                ("repo", "docker.io/library/x"),
                ("tag", "latest"),
            ],
        ),
    ),
}


@pytest.mark.parametrize(("body", "row"), CALLS.values(), ids=CALLS)
async def test_a_call_sends_one_request(wire: Wire, body: bytes, row: Row) -> None:
    call, method, path, query = row
    wire.body = body
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await call(images)
    sent = wire.only
    assert (sent.method, sent.path, sent.query) == (method, path, query)
    assert sent.url.raw_path.startswith("/v1.56/")
    assert sent.url.origin() == URL("http://docker")


async def test_a_push_of_all_tags_asks_afterwards_which_there_are(wire: Wire) -> None:
    wire.body, wire.bodies["/images/json"] = PUSHED, b'[{"RepoTags":["localhost:5000/x:x"]}]'
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await images.push("localhost:5000/x", all_tags=True)
    assert [(sent.method, sent.path, sent.query) for sent in wire.sent] == [
        ("POST", "/images/localhost:5000/x/push", []),
        ("GET", "/images/json", [("filters", '{"reference":["localhost:5000/x"]}')]),
    ]


STREAMS: dict[str, tuple[Call, Call, bytes]] = {
    "pull": (
        lambda images: images.pull("a:1", platform=ARM),
        lambda images: drained(images.pull_stream("a:1", platform=ARM)),
        PULLED,
    ),
    "push": (lambda images: images.push("a:1"), lambda images: drained(images.push_stream("a:1")), PUSHED),
    "load": (
        lambda images: images.load(TAR, quiet=True),
        lambda images: drained(images.load_stream(TAR, quiet=True)),
        OBJECT,
    ),
    "import": (
        lambda images: images.import_image(TAR, reference="a:1", message="x"),
        lambda images: drained(images.import_stream(TAR, reference="a:1", message="x")),
        IMPORTED,
    ),
}


@pytest.mark.parametrize(("coroutine", "stream", "body"), STREAMS.values(), ids=STREAMS)
async def test_a_stream_sends_what_its_twin_sends(wire: Wire, coroutine: Call, stream: Call, body: bytes) -> None:
    wire.body = body
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await coroutine(images)
        await stream(images)
    one, other = (sent for sent in wire.sent if sent.method == wire.sent[0].method)
    assert one == other


async def test_save_to_a_file_sends_what_its_stream_sends(wire: Wire, tmp_path: Path) -> None:
    wire.body = TAR
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await images.save("a:1", to=tmp_path / "a.tar", checksum=True)
        await drained(images.save_stream("a:1"))
    one, other = wire.sent
    assert one == other


# As with the docker CLI: what makes an image takes the variable, what names one does not.
BY_DEFAULT: dict[str, tuple[Call, bytes, str | None]] = {
    "pull": (lambda images: images.pull("a:1"), PULLED, "linux/arm64"),
    "pull of another": (lambda images: images.pull("a:1", platform="linux/amd64"), PULLED, "linux/amd64"),
    "import": (lambda images: images.import_image(TAR), IMPORTED, "linux/arm64"),
    "build": (lambda images: images.build(TAR), b'{"stream":"Successfully built 0123456789ab\\n"}', "linux/arm64"),
    "push": (lambda images: images.push("localhost:5000/x:1"), PUSHED, None),
    "load": (lambda images: images.load(TAR), b'{"stream":"Loaded image: x"}', None),
    "inspect": (lambda images: images.inspect("a:1"), IMAGE, None),
}


@pytest.mark.parametrize(("call", "body", "platform"), BY_DEFAULT.values(), ids=BY_DEFAULT)
async def test_the_default_platform_of_the_environment_is_honoured(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, call: Call, body: bytes, platform: str | None
) -> None:
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    wire.body = body
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await call(images)
    assert dict(wire.only.query).get("platform") == platform


@pytest.mark.parametrize(
    ("default", "sent"),
    [
        ("arm64", "linux/arm64"),
        ("linux/x86_64", "linux/amd64"),
        ("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64"),
    ],
)
async def test_a_default_platform_is_sent_whole_and_by_its_usual_names(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, default: str, sent: str
) -> None:
    """The version and the features of a system are part of it."""
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", default)
    wire.body = PULLED
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await images.pull("a:1")
    assert dict(wire.only.query)["platform"] == sent


async def test_a_default_platform_that_is_none_is_refused_by_name(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "intel")
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        with pytest.raises(
            InvalidPlatformError, match=r"'intel' is not a platform .* \(from DOCKER_DEFAULT_PLATFORM\)$"
        ):
            await images.pull("a:1")
    assert wire.sent == []


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:2375", "tcp://[::1]:80", "http://docker.example"])
async def test_a_request_goes_to_the_endpoint(wire: Wire, endpoint: str) -> None:
    wire.body = NO_IMAGES
    async with ImageService(endpoint, api_version="1.41") as images:
        await images.list()
        assert str(wire.only.url) == str(images.endpoint.base_url).rstrip("/") + "/v1.41/images/json"


async def test_requests_are_signed_by_the_library(wire: Wire) -> None:
    wire.body = NO_IMAGES
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        await images.list()
    assert wire.only.headers["User-Agent"].startswith("aiodocker-images/")


ME = RegistryAuth(username="me", password="pässword")
KEYCHAIN = StaticKeychain({"docker.io": RegistryAuth(username="hub"), "localhost:5000": RegistryAuth(username="local")})
ANONYMOUS: dict[str, str] = {}
HUB = "https://index.docker.io/v1/"

# keychain, call, body, and what X-Registry-Auth carries; None: there is no such header.
WITH_CREDENTIALS: dict[str, tuple[StaticKeychain | None, Call, bytes, dict[str, str] | None]] = {
    "pull, nobody": (None, lambda images: images.pull("a:1"), PULLED, None),
    "pull, explicit": (
        None,
        lambda images: images.pull("a:1", auth=ME),
        PULLED,
        {"username": "me", "password": "pässword", "serveraddress": HUB},
    ),
    "pull, keychain, the Hub": (
        KEYCHAIN,
        lambda images: images.pull("me/a:1"),
        PULLED,
        {"username": "hub", "serveraddress": HUB},
    ),
    "pull, keychain, another registry": (
        KEYCHAIN,
        lambda images: images.pull("localhost:5000/a:1"),
        PULLED,
        {"username": "local", "serveraddress": "localhost:5000"},
    ),
    "pull, keychain, an unknown registry": (KEYCHAIN, lambda images: images.pull("[::1]:5000/a:1"), PULLED, None),
    "pull, explicit beats the keychain": (
        KEYCHAIN,
        lambda images: images.pull("[::1]:5000/a:1", auth=ME),
        PULLED,
        {"username": "me", "password": "pässword", "serveraddress": "[::1]:5000"},
    ),
    "push, nobody": (None, lambda images: images.push("a:1"), PUSHED, ANONYMOUS),
    "push, keychain, an unknown registry": (KEYCHAIN, lambda images: images.push("[::1]/a:1"), PUSHED, ANONYMOUS),
    "push, explicit": (
        KEYCHAIN,
        lambda images: images.push("index.docker.io/me/a", auth=ME),
        PUSHED,
        {"username": "me", "password": "pässword", "serveraddress": HUB},
    ),
    "push, keychain": (
        KEYCHAIN,
        lambda images: images.push("localhost:5000/a"),
        PUSHED,
        {"username": "local", "serveraddress": "localhost:5000"},
    ),
    "load": (KEYCHAIN, lambda images: images.load(TAR), OBJECT, None),
    "import": (KEYCHAIN, lambda images: images.import_image(TAR, reference="a"), IMPORTED, None),
    "list": (KEYCHAIN, lambda images: images.list("a"), NO_IMAGES, None),
    "inspect": (KEYCHAIN, lambda images: images.inspect("a"), IMAGE, None),
    "tag": (KEYCHAIN, lambda images: images.tag("a", "b"), b"", None),
    "remove": (KEYCHAIN, lambda images: images.remove("a"), NO_IMAGES, None),
    "save": (KEYCHAIN, lambda images: drained(images.save_stream("a")), TAR, None),
    "version": (KEYCHAIN, lambda images: images.version(), OBJECT, None),
}


@pytest.mark.parametrize(("keychain", "call", "body", "credentials"), WITH_CREDENTIALS.values(), ids=WITH_CREDENTIALS)
async def test_credentials_go_to_their_own_registry_and_nowhere_else(
    wire: Wire, keychain: StaticKeychain | None, call: Call, body: bytes, credentials: dict[str, str] | None
) -> None:
    wire.body = body
    async with ImageService(NOWHERE, api_version=NEWEST, keychain=keychain) as images:
        await call(images)
    header = wire.only.headers.get("X-Registry-Auth")
    assert (None if header is None else json.loads(base64.urlsafe_b64decode(header))) == credentials


# The oldest version that knows what the call needs.
GATED: dict[str, tuple[str, Call, bytes]] = {
    "import platform": ("1.42", lambda images: images.import_image(TAR, platform=ARM), IMPORTED),
    "list shared_size": ("1.42", lambda images: images.list(shared_size=True), NO_IMAGES),
    "push platform": ("1.46", lambda images: images.push("a", platform=ARM), PUSHED),
    "list manifests": ("1.47", lambda images: images.list("a", manifests=True), NO_IMAGES),
    "inspect manifests": ("1.48", lambda images: images.inspect("a", manifests=True), IMAGE),
    "load platforms": ("1.48", lambda images: images.load(TAR, platforms=[ARM]), OBJECT),
    "save platforms": ("1.48", lambda images: drained(images.save_stream("a", platforms=[ARM])), TAR),
    "save several images' platforms": (
        "1.48",
        lambda images: drained(images.save_stream("a", "b", platforms=[ARM])),
        TAR,
    ),
    "inspect platform": ("1.49", lambda images: images.inspect("a", platform=ARM), IMAGE),
    "remove platforms": ("1.50", lambda images: images.remove("a", platforms=[ARM]), NO_IMAGES),
    "load several platforms": ("1.52", lambda images: images.load(TAR, platforms=[ARM, "linux/amd64"]), OBJECT),
    "save several platforms": (
        "1.52",
        lambda images: drained(images.save_stream("a", platforms=[ARM, "linux/amd64"])),
        TAR,
    ),
    "list identity": ("1.54", lambda images: images.list(identity=True), NO_IMAGES),
}


@pytest.mark.parametrize(("first", "call", "body"), GATED.values(), ids=GATED)
async def test_a_parameter_unknown_to_the_api_version_is_refused_unsent(
    wire: Wire, first: str, call: Call, body: bytes
) -> None:
    wire.body = body
    older = f"1.{int(first.removeprefix('1.')) - 1}"
    async with ImageService(NOWHERE, api_version=older) as images:
        with pytest.raises(UnsupportedAPIVersionError) as caught:
            await call(images)
    assert (caught.value.required, caught.value.actual) == (first, older)
    assert wire.sent == []
    async with ImageService(NOWHERE, api_version=first) as images:
        await call(images)
    assert wire.only.url.raw_path.startswith(f"/v{first}/")


UNGATED: list[tuple[Call, bytes]] = [
    (lambda images: images.list("a", all=True, digests=True, filters={"dangling": True}), NO_IMAGES),
    (lambda images: images.inspect("a", manifests=False), IMAGE),
    (lambda images: images.remove("a", force=True, no_prune=True, platforms=()), NO_IMAGES),
    (lambda images: images.pull("a", platform=ARM), PULLED),
]


@pytest.mark.parametrize(("call", "body"), UNGATED, ids=["list", "inspect", "remove", "pull"])
async def test_what_every_version_knows_is_sent_to_the_oldest(wire: Wire, call: Call, body: bytes) -> None:
    wire.body = body
    async with ImageService(NOWHERE, api_version="1.41") as images:
        await call(images)
    assert wire.only.url.raw_path.startswith("/v1.41/")


ESCAPES = [
    "../containers",
    "a/../../containers/x?force=1",
    "%2e%2e",
    "a b",
    "a?x",
    "a#x",
    "a\r\nb",
    "a\0",
    "-a",
    "a" * 300,
]

REFUSED: dict[str, Callable[[ImageService, str], Awaitable[object]]] = {
    "inspect": lambda images, name: images.inspect(name),
    "tag": lambda images, name: images.tag(name, "x"),
    "tag as": lambda images, name: images.tag("x", name),
    "remove": lambda images, name: images.remove(name),
    "pull": lambda images, name: images.pull(name),
    "push": lambda images, name: images.push(name),
    "import": lambda images, name: images.import_image(TAR, reference=name),
    "import with a tag": lambda images, name: images.import_image(TAR, reference=f"x:{name}/"),
    "save": lambda images, name: drained(images.save_stream(name)),
    "save of several": lambda images, name: drained(images.save_stream("x", name)),
}


@pytest.mark.parametrize("name", [*ESCAPES, "a\0", "a" * 300], ids=ascii)
@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
async def test_what_is_no_name_is_refused_before_anything_is_sent(
    wire: Wire, call: Callable[[ImageService, str], Awaitable[object]], name: str
) -> None:
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        with pytest.raises(InvalidReferenceError):
            await call(images, name)
    assert wire.sent == []


MISUSES: dict[str, tuple[Call, type[Exception]]] = {
    "tag by digest": (lambda images: images.tag("a", "b@" + DIGEST), InvalidReferenceError),
    "tag as an id": (lambda images: images.tag("a", ID), InvalidReferenceError),
    "push by digest": (lambda images: images.push("a@" + DIGEST), InvalidReferenceError),
    "push of an id": (lambda images: images.push(ID), InvalidReferenceError),
    "pull of an id": (lambda images: images.pull("sha256:" + ID), InvalidReferenceError),
    "pull of all tags and one": (lambda images: images.pull("a:1", all_tags=True), InvalidReferenceError),
    "push of all tags and one": (lambda images: images.push("a:1", all_tags=True), InvalidReferenceError),
    "import by digest": (lambda images: images.import_image(TAR, reference="a@" + DIGEST), InvalidReferenceError),
    "save of nothing": (lambda images: drained(images.save_stream()), InvalidReferenceError),
    "save in no pieces": (lambda images: drained(images.save_stream("a", chunk_size=0)), ValueError),
    "pull of no platform": (lambda images: images.pull("a", platform="intel"), InvalidPlatformError),
    "push of no platform": (lambda images: images.push("a", platform=""), InvalidPlatformError),
    "inspect no platform": (lambda images: images.inspect("a", platform="x y/z"), InvalidPlatformError),
    "load of no platform": (lambda images: images.load(TAR, platforms=["linux/"]), InvalidPlatformError),
    "remove no platform": (lambda images: images.remove("a", platforms="intel"), InvalidPlatformError),
}


@pytest.mark.parametrize(("call", "error"), MISUSES.values(), ids=MISUSES)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    wire: Wire, call: Call, error: type[Exception]
) -> None:
    async with ImageService(NOWHERE, api_version=NEWEST) as images:
        with pytest.raises(error):
            await call(images)
    assert wire.sent == []


def test_a_stream_is_refused_at_the_call_and_not_at_the_first_frame() -> None:
    images = ImageService(NOWHERE, api_version=NEWEST)
    with pytest.raises(InvalidReferenceError):
        images.pull_stream("../containers")
    with pytest.raises(InvalidReferenceError):
        images.push_stream("a@" + DIGEST)
    with pytest.raises(InvalidPlatformError):
        images.load_stream(TAR, platforms="x")
    with pytest.raises(InvalidReferenceError):
        images.import_stream(TAR, reference="a b")
    with pytest.raises(InvalidReferenceError):
        images.save_stream()
    asyncio.run(images.aclose())

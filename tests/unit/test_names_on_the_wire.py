"""Whatever the arguments are: no call reaches another endpoint than its own, or puts anything into a header.

Each public method of `ImageService` is called with texts of all kinds in all places, and a daemon notes the request as
it comes. Either the call is refused, and nothing is sent; or one request comes, to the operation's own endpoint, with
the headers of every such request, and the arguments arrive in its query as they were given.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import APIError, DockerError, ImageService, InvalidArgumentError, Platform, RegistryAuth, Ulimit
from aiodocker_images.credentials import registry_auth_header
from tests.support.scripted import Exchange, ScriptedDaemon

HOSTILE: Final = [
    "",
    " ",
    ".",
    "..",
    "/",
    "//",
    "-",
    "--all",
    "../containers",
    "../../v1.41/containers/json",
    "..%2fcontainers",
    "%2e%2e/containers",
    "%2e%2e%2fcontainers",
    "..%252fcontainers",
    "..\\containers",
    "alpine/../../containers/json",
    "alpine/./x",
    "alpine//x",
    "/alpine",
    "alpine/",
    "alpine?force=1",
    "alpine&force=1",
    "alpine;force=1",
    "alpine#x",
    "alpine:3.20 HTTP/1.1\r\nX-Registry-Auth: e30=\r\n\r\nGET /containers/json",
    "alpine\r\nX-Header: x",
    "alpine\n",
    "\talpine",
    "alpine\0",
    "%0d%0aX-Header:%20x",
    "%00",
    "alpine\u2028x",
    "alpine\x85x",
    "\uff41\uff4c\uff50\uff49\uff4e\uff45",
    "alpine\uff1a\uff11",
    "al\u200bpine",
    "ALPINE",
    "\u017f",
    "\ud800",
    "alpine\udcff",
    "\U0010ffff",
    "http://evil.example/x",
    "https://user:secret@evil.example/",
    "//evil.example/x",
    "git@evil.example:x",
    "file:///etc/passwd",
    "unix:///var/run/docker.sock",
    "http://127.0.0.1:2375/containers/json",
    "http://x/\r\nX-Header: x",
    "{}",
    '{"a":["b"]}',
    '"',
    "'",
    "$(id)",
    "`id`",
    "a+b c%20d",
    "+",
    "%",
    "%zz",
    "=",
    "a=b&c=d",
    "sha256:",
    "sha256:" + "a" * 64,
    "a" * 64,
    "@sha256:" + "a" * 64,
    "alpine@sha256:../../x",
    "[::1]:5000/alpine",
    "[::1]/../x",
    "a" * 300,
    "a/" * 200 + "a",
    "x" * 20_000,
    "ü" * 5000,
]
NAMES: Final = [
    "alpine",
    "alpine:3.20",
    "user/app",
    "localhost:5000/a/b:x",
    "docker.io/library/alpine@sha256:" + "0" * 64,
]

# st.text() leaves surrogates out.
ANY: Final = st.text(st.characters(exclude_categories=()), max_size=30)
TEXTS: Final = st.sampled_from(HOSTILE) | ANY
REFERENCES: Final = (
    st.sampled_from(NAMES)
    | TEXTS
    | st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "/", ":", "@", "?", "#", "%2f"]), TEXTS).map("".join)
    | st.from_regex(r"[a-z0-9./:@_-]{1,20}", fullmatch=True)
)
TAGS: Final = st.sampled_from(["latest", "1.0"]) | TEXTS
PLATFORMS: Final = (
    st.sampled_from(["linux/amd64", "linux/arm64/v8"])
    | TEXTS
    | st.tuples(TEXTS, TEXTS).map("/".join)
    | st.builds(Platform, os=TEXTS, architecture=TEXTS, variant=TEXTS, os_version=TEXTS)
)
AUTHS: Final = st.builds(
    RegistryAuth, username=TEXTS, password=TEXTS, identity_token=TEXTS, registry_token=TEXTS, server_address=TEXTS
)
FILTERS: Final = st.dictionaries(
    TEXTS, TEXTS | st.lists(TEXTS, max_size=2) | st.dictionaries(TEXTS, TEXTS, max_size=2) | st.booleans(), max_size=3
)
MAPPINGS: Final = st.dictionaries(TEXTS, TEXTS, max_size=3)
LISTS: Final = st.lists(TEXTS, max_size=3)

TAR: Final = b"x" * 512
REFERENCE: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._:/@-]|%5B|%5D)*|%5B[0-9a-fA-F:]+%5D(?:[A-Za-z0-9._:/@-])*)"
SHARED: Final = {"host", "user-agent", "accept", "accept-encoding"}
ALONE: Final = SHARED | {"connection"}
POST: Final = ALONE | {"content-type", "content-length"}

Draw = Callable[[Any], Any]
Call = Callable[[ImageService], Awaitable[object]]
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Planned:
    """A call, and what must arrive: texts of the query as they are, filters and documents as JSON, who it is."""

    call: Call
    exact: Pairs = field(default_factory=Pairs)
    documents: Mapping[str, object] = field(default_factory=dict[str, object])
    auth: RegistryAuth | None = None
    body: object = None


@dataclass(frozen=True)
class Endpoint:
    """Where a method's request goes, what else its query may name, and the headers that it has."""

    method: str
    path: str
    query: str
    headers: set[str]
    plan: Callable[[Draw], Planned]
    credentials: str = ""  # the header that goes along if there are any; with "!", in any case


async def exhaust(stream: AsyncGenerator[Any, None]) -> None:
    async with contextlib.aclosing(stream) as items:
        async for _ in items:
            pass


def drawn(draw: Draw, **options: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Draw some of the options, and leave out the others."""
    return {name: draw(strategy) for name, strategy in options.items() if draw(st.booleans())}


def called(name: str, *arguments: object, **options: object) -> Call:
    """Call a method by its name, and run it to its end if it is a stream."""

    async def call(images: ImageService) -> None:
        result = getattr(images, name)(*arguments, **options)
        if isinstance(result, AsyncGenerator):
            await exhaust(cast("AsyncGenerator[object, None]", result))
        else:
            await result

    return call


def wire_filters(filters: Mapping[str, Any]) -> dict[str, list[str]]:
    """Write filters as the API has them."""

    def values(value: Any) -> list[str]:  # noqa: ANN401 - as the API's own users write them
        if isinstance(value, bool):
            return ["true" if value else "false"]
        if isinstance(value, dict):
            texts = cast("dict[str, str]", value)
            return [f"{key}={text}" if text else key for key, text in texts.items()]
        return cast("list[str]", value) if isinstance(value, list) else [str(value)]

    return {name: values(value) for name, value in filters.items()}


def plan_transfer(name: str) -> Callable[[Draw], Planned]:
    def plan(draw: Draw) -> Planned:
        options = drawn(draw, platform=PLATFORMS, auth=AUTHS, all_tags=st.booleans())
        return Planned(called(name, draw(REFERENCES), **options), auth=options.get("auth"))

    return plan


def plan_load(name: str) -> Callable[[Draw], Planned]:
    return lambda draw: Planned(called(name, TAR, **drawn(draw, platforms=st.lists(PLATFORMS, max_size=2))))


def plan_import(name: str) -> Callable[[Draw], Planned]:
    def plan(draw: Draw) -> Planned:
        url = draw(st.none() | TEXTS.map("http://{}".format))
        options = drawn(draw, reference=REFERENCES, changes=LISTS, message=TEXTS, platform=PLATFORMS)
        exact = [("fromSrc", "-" if url is None else url)]
        exact += [("changes", change) for change in options.get("changes", ())]
        exact += [("message", options["message"])] if "message" in options else []
        return Planned(called(name, TAR if url is None else url, **options), exact=exact)

    return plan


def plan_save(name: str) -> Callable[[Draw], Planned]:
    def plan(draw: Draw) -> Planned:
        options = drawn(draw, platforms=st.lists(PLATFORMS, max_size=2))
        if name == "save":
            options["to"] = io.BytesIO()
        return Planned(called(name, *draw(st.lists(REFERENCES, min_size=1, max_size=2)), **options))

    return plan


def plan_list(draw: Draw) -> Planned:
    options = drawn(draw, filters=FILTERS, all=st.booleans(), digests=st.booleans())
    reference = draw(st.none() | TEXTS)
    filters = wire_filters(options.get("filters", {})) | ({} if reference is None else {"reference": [reference]})
    return Planned(called("list", reference, **options), documents={"filters": filters} if filters else {})


def plan_image(name: str, **options: st.SearchStrategy[Any]) -> Callable[[Draw], Planned]:
    def plan(draw: Draw) -> Planned:
        chosen = drawn(draw, **options)
        exact = [("type", text) for text in chosen.get("types", ())]
        return Planned(called(name, draw(REFERENCES), **chosen), exact=exact)

    return plan


def plan_tag(draw: Draw) -> Planned:
    return Planned(called("tag", draw(REFERENCES), draw(REFERENCES)))


def plan_prune(draw: Draw) -> Planned:
    filters = draw(FILTERS)
    return Planned(
        called("prune", filters=filters), documents={"filters": {"dangling": ["true"]} | wire_filters(filters)}
    )


def plan_prune_build_cache(draw: Draw) -> Planned:
    filters = draw(FILTERS)
    documents = {"filters": wire_filters(filters)} if filters else {}
    return Planned(called("prune_build_cache", filters=filters), documents=documents)


def plan_search(draw: Draw) -> Planned:
    term, options = draw(TEXTS), drawn(draw, filters=FILTERS, auth=AUTHS)
    documents = {"filters": wire_filters(options["filters"])} if options.get("filters") else {}
    return Planned(called("search", term, **options), [("term", term)], documents, options.get("auth"))


def plan_distribution(draw: Draw) -> Planned:
    options = drawn(draw, auth=AUTHS)
    return Planned(called("inspect_distribution", draw(REFERENCES), **options), auth=options.get("auth"))


def plan_check_for_update(draw: Draw) -> Planned:
    options = drawn(draw, auth=AUTHS)
    return Planned(called("check_for_update", draw(REFERENCES), **options), auth=options.get("auth"))


def plan_login(draw: Draw) -> Planned:
    auth = draw(AUTHS)
    return Planned(called("login", auth), body=auth)


def as_sent(host: str) -> str:
    """Return a host and its address in the API's form: the docker CLI takes name=address and [address], too."""
    name, address = host.split("=" if "=" in host else ":", 1) if "=" in host or ":" in host else (host, "")
    bracketed = len(address) > 2 and address.startswith("[") and address.endswith("]")
    return f"{name}:{address[1:-1] if bracketed else address}"


def plan_build(name: str) -> Callable[[Draw], Planned]:
    def plan(draw: Draw) -> Planned:
        remote = draw(st.none() | st.tuples(st.sampled_from(["http://", "git@", "github.com/"]), TEXTS).map("".join))
        options = drawn(
            draw,
            tags=st.lists(REFERENCES, max_size=2),
            target=TEXTS,
            build_args=st.dictionaries(TEXTS, st.none() | TEXTS, max_size=2),
            labels=MAPPINGS,
            platform=PLATFORMS,
            cache_from=LISTS,
            network_mode=TEXTS,
            extra_hosts=LISTS,
            cpuset_cpus=TEXTS,
            cpuset_mems=TEXTS,
            cgroup_parent=TEXTS,
            isolation=TEXTS,
            security_opt=LISTS,
            ulimits=st.lists(st.builds(Ulimit, name=TEXTS, soft=st.just(1), hard=st.just(1)), max_size=2),
            auth=st.dictionaries(TEXTS, AUTHS, max_size=2),
            dockerfile=TEXTS,
        )
        names = {"network_mode": "networkmode", "cgroup_parent": "cgroupparent"}
        texts = ("target", "network_mode", "cpuset_cpus", "cpuset_mems", "cgroup_parent", "isolation")
        exact = [(names.get(n, n).replace("_", ""), options[n]) for n in texts if n in options]
        exact += [] if remote is None else [("remote", remote)]
        exact += [("extrahosts", as_sent(host)) for host in options.get("extra_hosts", ())]
        exact += [("securityopt", text) for text in options.get("security_opt", ())]
        documents = {
            key: options[n]
            for n, key in (("build_args", "buildargs"), ("labels", "labels"), ("cache_from", "cachefrom"))
            if options.get(n)
        }
        return Planned(called(name, TAR if remote is None else remote, **options), exact, documents)

    return plan


def plan_events(draw: Draw) -> Planned:
    options = drawn(draw, filters=FILTERS, since=TEXTS, until=TEXTS)
    return Planned(called("events", reconnect=False, **options))


def plan_nothing(name: str) -> Callable[[Draw], Planned]:
    return lambda _: Planned(called(name))


def plan_request(draw: Draw) -> Planned:
    path = draw(st.sampled_from(["/info", "/images/json", "/images/a:1/json"]) | TEXTS | TEXTS.map("/{}".format))
    query = draw(st.lists(st.tuples(TEXTS, TEXTS), max_size=2))
    document = draw(st.none() | MAPPINGS)
    return Planned(called("request", "POST", path, query=query, document=document), exact=query, body=document)


CREATE: Final = "fromImage|fromSrc|tag|repo|changes|message|platform"
BUILD: Final = (
    "remote|dockerfile|target|platform|networkmode|t|extrahosts|buildargs|labels|cachefrom|ulimits|cpusetcpus"
    "|cpusetmems|cgroupparent|isolation|securityopt"
)

ENDPOINTS: Final[dict[str, Endpoint]] = {
    "pull": Endpoint("POST", "/images/create", CREATE, POST, plan_transfer("pull"), "x-registry-auth"),
    "pull_stream": Endpoint("POST", "/images/create", CREATE, POST, plan_transfer("pull_stream"), "x-registry-auth"),
    "push": Endpoint(
        "POST", f"/images/{REFERENCE}/push", "tag|platform", POST, plan_transfer("push"), "x-registry-auth!"
    ),
    "push_stream": Endpoint(
        "POST", f"/images/{REFERENCE}/push", "tag|platform", POST, plan_transfer("push_stream"), "x-registry-auth!"
    ),
    "load": Endpoint("POST", "/images/load", "quiet|platform", POST, plan_load("load")),
    "load_stream": Endpoint("POST", "/images/load", "quiet|platform", POST, plan_load("load_stream")),
    "import_image": Endpoint("POST", "/images/create", CREATE, POST, plan_import("import_image")),
    "import_stream": Endpoint("POST", "/images/create", CREATE, POST, plan_import("import_stream")),
    "save": Endpoint("GET", f"/images/(?:{REFERENCE}/)?get", "names|platform", ALONE, plan_save("save")),
    "save_stream": Endpoint("GET", f"/images/(?:{REFERENCE}/)?get", "names|platform", ALONE, plan_save("save_stream")),
    "list": Endpoint("GET", "/images/json", "filters|all|digests", SHARED, plan_list),
    "inspect": Endpoint(
        "GET", f"/images/{REFERENCE}/json", "platform", SHARED, plan_image("inspect", platform=PLATFORMS)
    ),
    "exists": Endpoint(
        "GET", f"/images/{REFERENCE}/json", "platform", SHARED, plan_image("exists", platform=PLATFORMS)
    ),
    "history": Endpoint(
        "GET", f"/images/{REFERENCE}/history", "platform", SHARED, plan_image("history", platform=PLATFORMS)
    ),
    "attestations": Endpoint(
        "GET",
        f"/images/{REFERENCE}/attestations",
        "platform|type",
        SHARED,
        plan_image("attestations", platform=PLATFORMS, types=LISTS),
    ),
    "tag": Endpoint("POST", f"/images/{REFERENCE}/tag", "repo|tag", POST, plan_tag),
    "remove": Endpoint(
        "DELETE",
        f"/images/{REFERENCE}",
        "platforms|force",
        ALONE | {"content-length"},
        plan_image("remove", platforms=st.lists(PLATFORMS, max_size=2), force=st.booleans()),
    ),
    "prune": Endpoint("POST", "/images/prune", "filters", POST, plan_prune),
    "prune_build_cache": Endpoint("POST", "/build/prune", "filters", POST, plan_prune_build_cache),
    "search": Endpoint("GET", "/images/search", "term|filters", SHARED, plan_search, "x-registry-auth"),
    "inspect_distribution": Endpoint(
        "GET", f"/distribution/{REFERENCE}/json", "", SHARED, plan_distribution, "x-registry-auth"
    ),
    "check_for_update": Endpoint(
        "GET", f"/distribution/{REFERENCE}/json", "", SHARED, plan_check_for_update, "x-registry-auth"
    ),
    "login": Endpoint("POST", "/auth", "", POST, plan_login),
    "build": Endpoint("POST", "/build", BUILD, POST, plan_build("build"), "x-registry-config"),
    "build_stream": Endpoint("POST", "/build", BUILD, POST, plan_build("build_stream"), "x-registry-config"),
    "disk_usage": Endpoint("GET", "/system/df", "type|verbose", SHARED, plan_nothing("disk_usage")),
    "version": Endpoint("GET", "/version", "", SHARED, plan_nothing("version")),
    "events": Endpoint("GET", "/events", "filters|since|until", ALONE, plan_events),
    "request": Endpoint("POST", "/(?:[A-Za-z0-9._:@/-]|%5B|%5D)+", ".*", POST, plan_request),
}


class Wire:
    """A daemon that finds nothing, and a service that asks it; for as many calls as a test likes."""

    def __init__(self, runner: asyncio.Runner, daemon: ScriptedDaemon, images: ImageService) -> None:
        self._runner = runner
        self._daemon = daemon
        self._images = images

    def send(self, call: Call) -> tuple[Exception | None, list[Exchange]]:
        """Make a call; return what it raised, and the requests that came."""
        self._daemon.requests.clear()

        async def run() -> Exception | None:
            try:
                await call(self._images)
            except Exception as error:  # noqa: BLE001 - which ones may come is what the test is about
                return error
            return None

        error = self._runner.run(run())
        # An `until` of events asks first which Engine it is.
        requests = [each for each in self._daemon.requests if each.head_lines[0] != "HEAD /_ping HTTP/1.1"]
        return error, requests


@pytest.fixture(scope="module")
def wire() -> Generator[Wire, None, None]:
    with tempfile.TemporaryDirectory(prefix="adi-", dir="/tmp") as directory, asyncio.Runner() as runner:
        daemon = ScriptedDaemon(Path(directory, "docker.sock"))
        runner.run(daemon.__aenter__())
        images = ImageService(daemon.socket, api_version="1.56")
        try:
            yield Wire(runner, daemon, images)
        finally:
            runner.run(images.aclose())
            runner.run(daemon.__aexit__(None, None, None))


def is_ours(error: Exception) -> bool:
    """Tell whether a refusal is a `DockerError`, or says plainly that an argument is of a wrong kind or value."""
    return isinstance(error, DockerError) or type(error) in (TypeError, ValueError)


def assert_only_its_own(endpoint: Endpoint, planned: Planned, exchange: Exchange) -> None:
    request, *lines = exchange.head_lines
    assert re.fullmatch(rf"{endpoint.method} /v1\.56[!-~]+ HTTP/1\.1", request)
    version_and_path, _, _ = exchange.target.partition("?")
    assert re.fullmatch(rf"/v1\.56{endpoint.path}", version_and_path)
    assert "#" not in exchange.target
    plain = unquote(unquote(version_and_path))
    assert not {"", ".", ".."} & set(plain.split("/")[1:])

    names = [line.partition(":")[0].lower() for line in lines]
    expected = set(endpoint.headers)
    credentials = endpoint.credentials.rstrip("!")
    if credentials and (endpoint.credentials.endswith("!") or credentials in names):
        expected.add(credentials)
    assert sorted(names) == sorted(expected)
    assert all(re.fullmatch(r"[A-Za-z-]+: [ -~]+", line) for line in lines)

    query = exchange.query
    assert all(re.fullmatch(endpoint.query, name, re.DOTALL) for name, _ in query)
    for name in {name for name, _ in planned.exact}:
        assert [text for key, text in query if key == name] == [text for key, text in planned.exact if key == name]
    for name, document in planned.documents.items():
        (text,) = (text for key, text in query if key == name)
        assert json.loads(text) == document
    if planned.body is not None:
        assert exchange.headers["content-type"] == "application/json"
    if planned.auth is not None:
        sent = json.loads(base64.urlsafe_b64decode(exchange.headers[credentials]))
        given = (planned.auth.username, planned.auth.password, planned.auth.identity_token, planned.auth.registry_token)
        assert tuple(sent.get(key, "") for key in ("username", "password", "identitytoken", "registrytoken")) == given
        assert not planned.auth.server_address or sent["serveraddress"] == planned.auth.server_address


@pytest.mark.parametrize("name", ENDPOINTS)
@given(data=st.data())
def test_a_call_is_refused_or_reaches_its_own_endpoint_alone(wire: Wire, name: str, data: st.DataObject) -> None:
    endpoint = ENDPOINTS[name]
    planned = endpoint.plan(data.draw)
    error, requests = wire.send(planned.call)
    if not requests:
        assert error is not None
        assert is_ours(error), repr(error)
        assert not isinstance(error, APIError)
        return
    assert isinstance(error, APIError) or (name == "exists" and error is None), repr(error)  # it says False
    (exchange,) = requests
    assert_only_its_own(endpoint, planned, exchange)


def test_every_public_method_has_its_endpoint_here() -> None:
    """A new one fails this test until it has a row in the table, or a reason to be left out."""
    sends_nothing = {"aclose", "end_with", "endpoint"}
    outside_of_versions = {"ping"}  # it has no argument
    public = {name for name in dir(ImageService) if not name.startswith("_")}
    assert public == set(ENDPOINTS) | sends_nothing | outside_of_versions


@given(method=TEXTS | st.sampled_from(["GET", "get", "CONNECT", "BREW", "GET /x HTTP/1.1"]))
def test_a_method_that_is_given_is_one_word_of_letters(wire: Wire, method: str) -> None:
    error, requests = wire.send(called("request", method, "/info"))
    if requests:
        (exchange,) = requests
        assert exchange.head_lines[0] == f"{method.upper()} /v1.56/info HTTP/1.1"
        assert re.fullmatch(r"[A-Za-z]+", method)
        assert method.upper() != "CONNECT"
    else:
        assert type(error) is InvalidArgumentError


@given(path=TEXTS)
def test_a_text_as_a_source_is_a_path_and_never_a_body(wire: Wire, path: str) -> None:
    """There is no such file, and nothing is sent."""
    for call in (called("load", path), called("load_stream", path), called("import_image", path)):
        if path.startswith(("http://", "https://")) or os.path.exists(path):  # noqa: PTH110 - a NUL may be in it
            continue
        error, requests = wire.send(call)
        assert requests == []
        assert error is not None
        assert is_ours(error)


@given(version=TEXTS | st.from_regex(r"v?[0-9]{1,4}\.[0-9]{1,4}.?", fullmatch=True))
def test_an_api_version_that_is_none_is_refused_at_once(version: str) -> None:
    try:
        ImageService("/nowhere/docker.sock", api_version=version)
    except DockerError:
        pass
    else:
        assert re.fullmatch(r"v?[0-9]{1,4}\.[0-9]{1,4}", version, re.ASCII)


@given(auth=AUTHS)
def test_credentials_that_cannot_be_sent_are_not_in_the_error(auth: RegistryAuth) -> None:
    """Nor in what it came of: a UnicodeEncodeError holds the whole text."""
    try:
        registry_auth_header(auth, "docker.io")
    except InvalidArgumentError as error:
        assert error.__cause__ is None
        assert error.__context__ is None
        assert not auth.password or len(auth.password) < 3 or auth.password not in str(error)

"""The fake Engine answers as the real one does that it is told to be like: the same requests, the same answers.

Each scenario sends its requests to the Engine under test and to a `FakeEngine` that is told to be like it, and what
they answered must be equal.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from aiodocker_images.testing import (
    FakeEngine,
    FakeRegistry,
    Fault,
    Manifest,
    docker_archive,
    image,
    index,
    oci_archive,
    tar,
)
from tests.conftest import Leftovers
from tests.support.engine_witness import Answer, Facts, Witness, ask

pytestmark = pytest.mark.engine

ONE: Final = image(
    [{"a": "a" * 1000}, {"b/c": "b" * 5000}],
    config={"Labels": {"stage": "test"}, "Env": ["A=b"], "Cmd": ["/a"]},
    format="docker",
)
TWO: Final = image([{"a": "a" * 1000}, {"d": "d"}], format="docker")
BOTH: Final = index()
LIED: Final = image([{"e": "e"}], format="docker")  # the containerd store of 28.5 cannot pull it any more afterwards
TAR: Final = {"Content-Type": "application/x-tar"}
NOBODY: Final = {"X-Registry-Auth": "e30="}

VOLATILE: Final = frozenset({"Downloading", "Extracting", "Verifying Checksum", "Waiting", "Pushing", "Loading layer"})
"""What an Engine says or leaves out, and how often, as the speed of its disk has it."""


def known() -> dict[str, str]:
    """Return names for the digests of all that is in the registry."""
    names: dict[str, str] = {}
    for name, content in {"ONE": ONE, "TWO": TWO, "BOTH": BOTH, "LIED": LIED}.items():
        names.setdefault(content.digest, name)
        for manifest in content.walk():
            names.setdefault(manifest.digest, f"{name} {manifest.platform}")
            for number, blob in enumerate(manifest.blobs):
                names.setdefault(blob.digest, f"{name} {manifest.platform} blob {number}")
                names.setdefault(blob.diff_id, f"{name} {manifest.platform} layer {number}")
    names.pop("", None)
    return names


class Scene:
    """An Engine, the registry that it pulls from, and what a scenario noted of it."""

    def __init__(self, name: str, witness: Witness, registry: FakeRegistry) -> None:
        self.engine = name
        self.podman, self.containerd = name == "podman", name == "docker28c"
        self.registry = registry
        self.host = registry.host
        self.see = witness
        self.get, self.note = witness.ask, witness.note
        self.others: set[str] = set()

    async def pull(self, name: str, tag: str, **more: str) -> Answer:
        query = {"fromImage": f"{self.host}/{name}", **({"tag": tag} if tag else {}), **more}
        return await self.get("POST", "/images/create", query.items())

    async def tag(self, name: str, repository: str, tag: str) -> Answer:
        query = {"repo": f"{self.host}/{repository}", "tag": tag}
        return await self.get("POST", f"/images/{self.host}/{name}/tag", query.items())

    async def push(self, name: str, tag: str) -> Answer:
        return await self.get("POST", f"/images/{self.host}/{name}/push", [("tag", tag)], headers=NOBODY)

    async def inspect(self, name: str, *query: tuple[str, str]) -> dict[str, Any]:
        return shape((await self.get("GET", f"/images/{self.host}/{name}/json", query)).json)

    async def listed(self, filters: Mapping[str, Sequence[str]], *query: tuple[str, str]) -> list[dict[str, Any]]:
        pairs = [("filters", json.dumps(filters)), *query]
        answer = await self.get("GET", "/images/json", pairs)
        found = sorted(map(shape, answer.json), key=lambda each: str(each["Id"]))
        return [each for each in found if "dangling" not in filters or each["Id"] not in self.others]

    async def look_around(self) -> None:
        """Take notice of images without a name that somebody else has left on the Engine."""
        answer = await self.get("GET", "/images/json", [("filters", '{"dangling":["true"]}')])
        self.others = {each["Id"] for each in answer.json}

    async def remove(self, name: str) -> None:
        answer = await self.get("DELETE", f"/images/{name if name.startswith('sha256:') else f'{self.host}/{name}'}")
        self.note(f"remove {name}", [answer.status, answer.json])

    async def load(self, archive: bytes, **query: str) -> Answer:
        return await self.get("POST", "/images/load", query.items(), body=archive, headers=TAR)

    async def build(self, dockerfile: str, **files: str) -> Answer:
        content: dict[str, bytes | str] = {"Dockerfile": dockerfile, **files}
        return await self.get("POST", "/build", [("t", f"{self.host}/built:1")], body=tar(content), headers=TAR)

    async def clean_up(self) -> None:
        """Remove every image with a name in the registry."""
        for summary in (await self.get("GET", "/images/json")).json:
            for name in summary["RepoTags"] or summary["RepoDigests"] or ():
                if name.startswith(self.host):
                    await self.get("DELETE", f"/images/{name}", [("force", "1")])
        await self.get("POST", "/images/prune")


def shape(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what another machine or time changes: paths, moments, and the order of names."""
    found = dict(document)
    for key in ("RepoTags", "RepoDigests", "History", "Names", "Tags"):
        if isinstance(found.get(key), list):
            found[key] = sorted(found[key])
    if (driver := found.get("GraphDriver")) is not None:
        found["GraphDriver"] = [driver["Name"], sorted(driver["Data"] or ())]
    if (isinstance(created := found.get("Created"), int) and abs(created - time.time()) < 3600) or (
        isinstance(created, str) and not created.startswith("2024-05-01")
    ):
        found["Created"] = "now"
    if (tagged := found.get("Metadata")) is not None:
        found["Metadata"] = tagged["LastTagTime"].startswith("0001")
    if "ContainerConfig" in found:
        found["ContainerConfig"] = sorted(found["ContainerConfig"])
    return found


def story(answer: Answer) -> list[object]:
    """Return what frames say: of each layer by itself, as layers come at the same time, and then of the whole."""
    layers: dict[str, list[object]] = {}
    rest = list[object]()
    for frame in answer.frames:
        layer = frame.get("id")
        if not layer or frame["status"].startswith("Pulling from"):
            rest.append(frame)
        elif frame["status"] not in VOLATILE:
            layers.setdefault(layer, []).append([frame["status"], sorted(frame["progressDetail"])])
    told = {layer: sorted(map(str, said)) for layer, said in sorted(layers.items())}
    for said in told.values():
        # Docker 26.1 on a busy machine leaves out what a layer was before it was complete.
        if any("Pull complete" in each for each in said):
            said[:] = [each for each in said if "Download complete" not in each]
    return [answer.status, answer.headers.get("content-type"), told, rest]


async def an_engine_introduces_itself(on: Scene) -> None:
    for method in ("GET", "HEAD"):
        answer = await on.see.unversioned(method, "/_ping")
        names = ("api-version", "builder-version", "docker-experimental", "ostype", "server", "swarm")
        told = {name: answer.headers.get(name) for name in (*names, "libpod-api-version", "content-type")}
        on.note(f"{method} ping", [answer.status, told, answer.body.decode()])
    version = (await on.get("GET", "/version")).json
    on.note("version", [version[each] for each in ("Version", "ApiVersion", "MinAPIVersion", "Os", "Arch")])
    on.note("components", [version["Components"][0]["Name"], version["Components"][0]["Version"]])
    newer = await on.see.unversioned("GET", "/v1.99/images/json")
    on.note("too new a version", [newer.status, newer.body.decode() if newer.status == 400 else None])
    info = (await on.get("GET", "/info")).json
    on.note("info", [info[each] for each in ("Driver", "ServerVersion", "OSType", "Architecture")])


async def images_are_missing(on: Scene) -> None:
    name = f"{on.host}/none:1"
    tag = {"repo": f"{on.host}/x", "tag": "1"}.items()
    for what, method, path, query in (
        ("inspect", "GET", f"/images/{name}/json", ()),
        ("history", "GET", f"/images/{name}/history", ()),
        ("tag", "POST", f"/images/{name}/tag", tag),
        ("remove", "DELETE", f"/images/{name}", ()),
        ("save", "GET", f"/images/{name}/get", ()),
        ("save of several", "GET", "/images/get", [("names", name)]),
        ("an id", "GET", f"/images/sha256:{'0' * 64}/json", ()),
        ("a short name", "GET", "/images/nope-nope/json", ()),
        ("removal of a short name", "DELETE", "/images/nope-nope", ()),
        ("an unknown filter", "GET", "/images/json", [("filters", '{"nonsense":["1"]}')]),
        ("prune by an unknown filter", "POST", "/images/prune", [("filters", '{"nonsense":["1"]}')]),
        ("broken filters", "GET", "/images/json", [("filters", "{nonsense")]),
        ("inspect_distribution", "GET", f"/distribution/{name}/json", ()),
    ):
        on.see.note_error(what, await on.get(method, path, query))
    answer = await on.push("none", "1")
    on.note("push", [answer.status, answer.body.decode().strip()])
    on.see.note_error("pull of no repository", await on.pull("none", "1"))
    on.see.note_error("pull of no tag", await on.pull("app", "none"))
    nowhere = await on.get("POST", "/images/create", [("fromImage", "127.0.0.1:1/app"), ("tag", "1")])
    on.see.note_error("pull from no registry", nowhere)
    answer = await on.pull("both", "1", platform="linux/s390x")
    on.note("pull for no platform", [answer.status, answer.frames])


async def an_image_is_pulled_and_removed(on: Scene) -> None:
    on.note("pull", story(await on.pull("app", "1")))
    on.note("pull again", story(await on.pull("app", "1")))
    on.note("inspect", await on.inspect("app:1"))
    history = (await on.get("GET", f"/images/{on.host}/app:1/history")).json
    on.note("history", [shape(each) for each in history])
    on.note("list", await on.listed({"reference": [f"{on.host}/app:1"]}))
    for repository, tag in (("other", "x"), ("app", "2")):
        on.note(f"tag {tag}", (await on.tag("app:1", repository, tag)).status)
    on.note("inspect with three names", await on.inspect("app:1"))
    image_id = (await on.inspect("app:1"))["Id"]
    short = await on.get("GET", f"/images/{image_id.removeprefix('sha256:')[:12]}/json")
    on.note("by a short id", short.json["Id"])
    for filters in (
        {"label": ["stage=test"]},
        {"label": ["stage=other"]},
        {"label": ["stage"]},
        {"dangling": ["true"]},
    ):
        on.note(f"list by {filters}", [each["Id"] for each in await on.listed(filters)])
    on.note("list by repository", [each["Id"] for each in await on.listed({"reference": [f"{on.host}/*"]})])
    refused = await on.get("DELETE", f"/images/{image_id}")
    on.note("remove by id, with several names", refused.status)
    await on.remove("other:x")
    await on.remove("app:2")
    on.note("inspect afterwards", await on.inspect("app:1"))
    on.note("pull of an image that shares a layer", story(await on.pull("two", "1")))
    await on.remove("app:1")
    await on.remove("two:1")
    on.note("list afterwards", await on.listed({"reference": [f"{on.host}/*"]}))


async def an_image_is_pulled_by_digest(on: Scene) -> None:
    on.note("pull", story(await on.pull("app", ONE.digest)))
    on.note("inspect", await on.inspect(f"app@{ONE.digest}"))
    on.note("list", await on.listed({"reference": [f"{on.host}/app"]}))
    on.note("list of those without a name", [each["Id"] for each in await on.listed({"dangling": ["true"]})])
    await on.remove(f"app@{ONE.digest}")


async def an_index_is_pulled(on: Scene) -> None:
    on.note("pull", story(await on.pull("both", "1")))
    on.note("inspect", await on.inspect("both:1"))
    on.note("inspect with manifests", await on.inspect("both:1", ("manifests", "1")))
    on.note("list", await on.listed({"reference": [f"{on.host}/both"]}, ("manifests", "1"), ("shared-size", "1")))
    on.note("pull of another platform", story(await on.pull("both", "1", platform="linux/arm64")))
    on.note("inspect afterwards", await on.inspect("both:1"))
    await on.remove("both:1")


async def all_tags_are_pulled(on: Scene) -> None:
    answer = await on.pull("tags", "")
    if on.podman:
        on.see.note_error("pull", answer)
        return
    on.note("pull", story(answer))
    await on.remove("tags:1")
    await on.remove("tags:2")


async def an_image_is_pushed(on: Scene) -> None:
    await on.pull("app", "1")
    await on.tag("app:1", "out", "3")
    on.note("push", story(await on.push("out", "3")))
    on.note("push again", story(await on.push("out", "3")))
    pushed = on.registry.manifest("out:3")
    on.note("manifest", [pushed.media_type, len(pushed.data), pushed.document])
    on.note("digests", (await on.inspect("out:3"))["RepoDigests"])
    answer = await on.get("GET", f"/distribution/{on.host}/out:3/json")
    on.note("inspect_distribution", [answer.status, answer.json if answer.status == 200 else None])


def in_archive(archive: bytes) -> list[object]:
    """Return what an archive says is in it."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        names = file.getnames()
        member = file.extractfile("manifest.json")
        assert member is not None
        entries: list[dict[str, Any]] = json.load(member)
    images = [[each["Config"], each["RepoTags"], len(each["Layers"])] for each in entries]
    return [images, "index.json" in names, "oci-layout" in names]


async def archives_are_saved_and_loaded(on: Scene) -> None:
    await on.pull("app", "1")
    answer = await on.get("GET", f"/images/{on.host}/app:1/get")
    on.note("save", [answer.status, answer.headers["content-type"], in_archive(answer.body)])
    await on.get("DELETE", f"/images/{on.host}/app:1")
    loaded = await on.load(answer.body)
    on.note("load", [loaded.status, loaded.headers["content-type"], loaded.frames])
    on.note("inspect", (await on.inspect("app:1"))["Id"])
    await on.get("DELETE", f"/images/{on.host}/app:1")
    on.note("load with progress", story(await on.load(answer.body, quiet="0")))
    await on.remove("app:1")


async def archives_of_others_are_loaded(on: Scene) -> None:
    answer = await on.load(docker_archive(TWO, f"{on.host}/l:1", f"{on.host}/l:2"))
    on.note("load of an older archive", [answer.status, answer.frames])
    found = await on.inspect("l:1")
    on.note("inspect", {key: found[key] for key in ("RepoTags", "RepoDigests", "RootFS", "Config", "Os")})
    await on.remove("l:1")
    await on.remove("l:2")
    nameless = await on.load(docker_archive(TWO))
    on.note("load without a name", [nameless.status, nameless.frames])
    answer = await on.load(oci_archive(TWO, f"{on.host}/o:1"))
    on.note("load of a layout", [answer.status, sorted(answer.frames[0])])
    garbage = await on.load(b"garbage" * 1000)
    on.note("load of garbage", [garbage.status, garbage.frames if not on.podman else None])
    other = await on.load(tar({"a": "b"}))
    on.note("load of another tar", [other.status, sorted(other.frames[0])])


async def a_root_file_system_is_imported(on: Scene) -> None:
    query = [("fromSrc", "-"), ("repo", f"{on.host}/imp"), ("tag", "1"), ("message", "why")]
    query += [("changes", 'CMD ["/x"]'), ("changes", "LABEL stage=imp"), ("changes", "EXPOSE 80")]
    answer = await on.get("POST", "/images/create", query, body=tar({"f": "f" * 100}))
    on.note("import", [answer.status, answer.frames])
    found = await on.inspect("imp:1")
    found.pop("Size")  # with Podman and the containerd store, that of a config with a time in it
    on.note("inspect", {key: value for key, value in found.items() if key not in {"Descriptor", "ContainerConfig"}})
    history = (await on.get("GET", f"/images/{on.host}/imp:1/history")).json
    on.note("history", [shape(each) for each in history])
    nothing = await on.get("POST", "/images/prune", [("filters", '{"label":["stage=imp"]}')])
    on.note("prune of those without a name", nothing.json)
    pruned = await on.get("POST", "/images/prune", [("filters", '{"dangling":["false"],"label":["stage=imp"]}')])
    on.note("prune", pruned.json["ImagesDeleted"])
    garbage = await on.get("POST", "/images/create", [("fromSrc", "-")], body=b"garbage" * 1000)
    on.note("import of garbage", [garbage.status, "invalid tar header" in garbage.json["message"]])


def steps(answer: Answer) -> list[object]:
    """Return what a build says without the ids of its containers and warnings about the machine."""
    lines = [frame.get("stream", frame) for frame in answer.frames]
    return [
        "Running" if "Running in" in str(line) else "Removed" if "intermediate container" in str(line) else line
        for line in lines
        if "[Warning]" not in str(line)
    ]


async def an_image_is_built(on: Scene) -> None:
    await on.pull("app", "1")
    dockerfile = f'FROM {on.host}/app:1\nLABEL a=b c="d e"\nENV X=y\nCOPY data /\nCMD ["/b"]\n'
    on.note("build", steps(await on.build(dockerfile, data="data")))
    if not on.containerd:
        found = await on.inspect("built:1")
        on.note("inspect", {key: found[key] for key in ("RepoTags", "Config", "Architecture", "Os", "RootFS")})
    history = (await on.get("GET", f"/images/{on.host}/built:1/history")).json
    on.note("history", [[each["CreatedBy"], each["Size"]] for each in history] if not on.podman else len(history))
    on.note("build again", steps(await on.build(dockerfile, data="data")))
    answer = await on.get("DELETE", f"/images/{on.host}/built:1")
    deleted = [step for step in answer.json if "Deleted" in step]
    on.note("remove", [answer.status, len(deleted)])
    missing = await on.build(f"FROM {on.host}/app:1\nCOPY nope /\n")
    on.note("build without what is copied", steps(missing) if not on.podman else missing.status)
    if not on.podman:
        nonsense = await on.build(f"FROM {on.host}/app:1\nNONSENSE nope\n")
        on.note("build of nonsense", [nonsense.status, nonsense.json])
        nowhere = await on.build(f"FROM {on.host}/none:1\n")
        on.note("build from nothing", [nowhere.status, nowhere.frames])


async def a_registry_refuses(on: Scene) -> None:
    if on.podman:
        return  # it tries again, for a minute
    for status in (401, 403, 429, 500, 503):
        with on.registry.fail(Fault.refuse(status, message="said the test"), times=None):
            on.see.note_error(f"pull, {status}", await on.pull("app", "1"))
    with on.registry.fail(Fault.refuse(429, message="said the test"), on="blob", times=None):
        on.note("pull, 429 for blobs", (await on.pull("app", "1")).frames[-1])
    with on.registry.fail(Fault.lie(), on="GET blob", times=None):
        answer = await on.pull("lied", "1")
        # The containerd store fetches config and layers at the same time, and says what is wrong with the first.
        words = str(answer.frames[-1]["error"])
        on.note("pull of other bytes", "commit failed: unexpected commit digest" if "commit failed" in words else words)


async def everything_is_told(on: Scene) -> None:
    if on.podman:
        return  # its log says each line a moment later, and another one each time
    since = time.time_ns()
    await on.pull("app", "1")
    await on.tag("app:1", "evt", "3")
    await on.push("evt", "3")
    archive = (await on.get("GET", f"/images/{on.host}/evt:3/get")).body
    await on.get("DELETE", f"/images/{on.host}/evt:3")
    await on.get("DELETE", f"/images/{on.host}/app:1")
    await on.load(archive)
    await on.get("DELETE", f"/images/{on.host}/evt:3")
    await on.get(
        "POST", "/images/create", [("fromSrc", "-"), ("repo", f"{on.host}/imp"), ("tag", "1")], body=tar({"f": "f"})
    )
    query = [("since", f"{since // 10**9}.{since % 10**9:09}"), ("until", f"{time.time():.9f}")]
    answer = await on.get("GET", "/events", [*query, ("filters", '{"type":["image"]}')])
    told = [[each["Action"], each["Actor"], each["Type"], each["scope"], sorted(each)] for each in answer.frames]
    on.note("events", [answer.headers["content-type"], told])


async def the_disk_is_used(on: Scene) -> None:
    await on.pull("app", "1")
    await on.pull("two", "1")
    usage = (await on.get("GET", "/system/df", [("type", "image")])).json
    mine = {each["Id"]: shape(each) for each in usage["Images"]}
    ids = [(await on.inspect(name))["Id"] for name in ("app:1", "two:1")]
    for image_id in ids:
        on.note(f"usage of {image_id}", mine[image_id.removeprefix("sha256:") if on.podman else image_id])


SCENARIOS: Final[tuple[Callable[[Scene], Awaitable[None]], ...]] = (
    an_engine_introduces_itself,
    images_are_missing,
    an_image_is_pulled_and_removed,
    an_image_is_pulled_by_digest,
    an_index_is_pulled,
    all_tags_are_pulled,
    an_image_is_pushed,
    archives_are_saved_and_loaded,
    archives_of_others_are_loaded,
    a_root_file_system_is_imported,
    an_image_is_built,
    a_registry_refuses,
    everything_is_told,
    the_disk_is_used,
)


async def witnessed(scenario: Callable[[Scene], Awaitable[None]], engine: str, host: str) -> Facts:
    """Run a scenario on one Engine with a registry of its own, and return what it noted."""
    socket = Path(host.removeprefix("unix://"))
    version = (await ask(socket, "GET", "/_ping")).headers["api-version"]
    contents: dict[str, Manifest] = {
        "app:1": ONE,
        "two:1": TWO,
        "both:1": BOTH,
        "lied:1": LIED,
        "tags:1": ONE,
        "tags:2": TWO,
    }
    async with FakeRegistry() as registry:
        for name, content in contents.items():
            registry.put(name, content)
        witness = Witness(socket, version=version, words={registry.host: "REGISTRY"}, known=known())
        scene = Scene(engine, witness, registry)
        await scene.look_around()
        try:
            await scenario(scene)
        finally:
            with contextlib.suppress(ConnectionError):
                await scene.clean_up()
    return witness.facts


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
async def test_the_fake_answers_as_the_engine_does(
    engine_name: str, engine_host: str, leftovers: Leftovers, scenario: Callable[[Scene], Awaitable[None]]
) -> None:
    real = await witnessed(scenario, engine_name, engine_host)
    before = leftovers.now()
    async with FakeEngine(like=engine_name, strict=False) as fake:
        faked = await witnessed(scenario, engine_name, fake.host)
        await fake.idle()
    await leftovers.settle(before, within=30)
    assert real.keys() == faked.keys()
    assert real or engine_name == "podman"
    shown = {fact: (real[fact], faked[fact]) for fact in real if real[fact] != faked[fact]}
    assert not shown, "\n".join(f"{fact}:\n  real {ours[0]}\n  fake {ours[1]}" for fact, ours in shown.items())

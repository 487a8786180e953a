"""The fake registry answers as the real one does that it is told to be like: the same requests, the same answers.

Each scenario sends its requests to a real registry and to the fake, and what they answered must be equal, apart from
what is named in `DIFFERENCES` with its reason. A difference that is named but is not there fails as well.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Final

import pytest

import engines
from aiodocker_images.testing import BEHAVIOURS, FakeRegistry, artifact, image, index, layer
from aiodocker_images.testing.content import INDEXES, MANIFESTS, OCI_INDEX
from tests.support.registry_client import MANIFEST_TYPES, Answer, RegistryClient

pytestmark = pytest.mark.once

LIKE: Final = {"distribution": "distribution 2.8", "crane": "crane", "ociserver": "ociserver"}
"""What the fake is told to be like for each of `engines.REGISTRIES`."""

LAYER: Final = layer(size=1000)
APP: Final = image([LAYER])
BOTH: Final = index(attestations=True)
NOWHERE: Final = f"sha256:{'0' * 64}"
BINARY: Final = {"Content-Type": "application/octet-stream"}

Facts = dict[str, dict[str, object]]


class Witness:
    """Asks a registry, and notes what there is to compare of its answers.

    Of a registry that does not sort tags, their order is not compared: it is that of its file system.
    """

    def __init__(self, client: RegistryClient, *, tags_sorted: bool) -> None:
        self.facts: Facts = {}
        self.client = client
        self.tags_sorted = tags_sorted

    async def ask(
        self, name: str, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return self.note(name, await self.client.ask(method, path, body=body, headers=headers))

    def note(self, name: str, answer: Answer) -> Answer:
        assert name not in self.facts
        facts: dict[str, object] = {"status": answer.status}
        for header in ("docker-content-digest", "range", "content-range", "link", "oci-subject", "oci-filters-applied"):
            if header in answer.headers:
                facts[header] = answer.headers[header]
        if (location := answer.headers.get("location")) is not None:
            facts["location"] = self._shape(location)
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status < 300 and answer.body:
            is_list = answer.body.startswith((b'{"name"', b'{"repositories"'))
            facts["content-type"] = media_type
            body: Any = answer.json if is_list or media_type == OCI_INDEX else answer.body
            if is_list and not self.tags_sorted and body.get("tags"):
                body["tags"].sort()
            facts["body"] = body
        elif answer.body.startswith(b"{"):
            facts["codes"] = answer.codes
        self.facts[name] = facts
        return answer

    def _shape(self, location: str) -> str:
        """Return a Location without what is another one each time."""
        shape = location.replace(self.client.url, "URL")
        shape = re.sub(r"(uploads/)[^?]+", r"\1ID", shape)
        return re.sub(r"\?.*", "?QUERY", shape)


Scenario = Callable[[Witness], Awaitable[None]]


async def nothing_there(see: Witness) -> None:
    await see.ask("base", "GET", "/v2/")
    await see.ask("manifest", "GET", "/v2/none/manifests/1.0")
    await see.ask("HEAD manifest", "HEAD", "/v2/none/manifests/1.0")
    await see.ask("tags", "GET", "/v2/none/tags/list")
    await see.ask("blob", "GET", f"/v2/none/blobs/{NOWHERE}")
    await see.ask("HEAD blob", "HEAD", f"/v2/none/blobs/{NOWHERE}")
    await see.ask("delete manifest", "DELETE", f"/v2/none/manifests/{NOWHERE}")
    await see.ask("delete blob", "DELETE", f"/v2/none/blobs/{NOWHERE}")
    await see.ask("bad digest", "GET", "/v2/none/blobs/sha256:xyz")
    await see.ask("upload", "PATCH", "/v2/none/blobs/uploads/00000000-0000-4000-8000-000000000000", body=b"x")


async def an_image_is_pushed(see: Witness) -> None:
    opened = await see.ask("open", "POST", "/v2/app/blobs/uploads/")
    see.note("put", await see.client.finish(opened, LAYER.digest, LAYER.data))
    await see.client.push_blob("app", APP.config)
    see.note("manifest by tag", await see.client.push_manifest("app", APP, "1.0"))
    see.note("manifest again", await see.client.push_manifest("app", APP, "1.0"))
    see.note("manifest by digest", await see.client.push_manifest("app", APP))
    await see.ask("HEAD by tag", "HEAD", "/v2/app/manifests/1.0", headers={"Accept": MANIFEST_TYPES})
    await see.ask("HEAD by digest", "HEAD", f"/v2/app/manifests/{APP.digest}", headers={"Accept": MANIFEST_TYPES})
    await see.ask("GET", "GET", "/v2/app/manifests/1.0", headers={"Accept": MANIFEST_TYPES})
    await see.ask("another tag", "GET", "/v2/app/manifests/2.0", headers={"Accept": MANIFEST_TYPES})


async def an_index_is_asked_for(see: Witness) -> None:
    await see.client.push("app", BOTH, "1.0")
    for name, accepted in {
        "all": MANIFEST_TYPES,
        "its own": BOTH.media_type,
        "anything": "*/*",
        "indexes": ", ".join(sorted(INDEXES)),
        "manifests": ", ".join(sorted(MANIFESTS)),
    }.items():
        await see.ask(name, "GET", "/v2/app/manifests/1.0", headers={"Accept": accepted})
        await see.ask(f"HEAD {name}", "HEAD", "/v2/app/manifests/1.0", headers={"Accept": accepted})


async def a_blob_is_read_in_parts(see: Witness) -> None:
    await see.client.push_blob("app", LAYER)
    path = f"/v2/app/blobs/{LAYER.digest}"
    await see.ask("whole", "GET", path)
    await see.ask("HEAD", "HEAD", path)
    last = LAYER.size - 1
    for given in ("5-9", "5-", "-5", "0-", f"0-{last}", f"5-{last + 100}", f"{last + 1}-", f"{last + 100}-", "9-5"):
        await see.ask(given, "GET", path, headers={"Range": f"bytes={given}"})


async def a_blob_is_mounted(see: Witness) -> None:
    await see.client.push_blob("base", LAYER)
    path = f"/v2/app/blobs/uploads/?mount={LAYER.digest}"
    await see.ask("hit", "POST", f"{path}&from=base")
    await see.ask("there", "HEAD", f"/v2/app/blobs/{LAYER.digest}")
    await see.ask("from itself", "POST", f"/v2/base/blobs/uploads/?mount={LAYER.digest}&from=base")
    await see.ask("from itself, not there", "POST", f"/v2/base/blobs/uploads/?mount={NOWHERE}&from=base")
    await see.ask("miss", "POST", f"/v2/app/blobs/uploads/?mount={NOWHERE}&from=base")
    await see.ask("from nowhere", "POST", f"/v2/third/blobs/uploads/?mount={LAYER.digest}&from=none")
    await see.ask("without from", "POST", f"/v2/fourth/blobs/uploads/?mount={LAYER.digest}")


async def a_blob_is_uploaded_in_chunks(see: Witness) -> None:
    opened = await see.ask("open", "POST", "/v2/app/blobs/uploads/")
    first = await see.ask(
        "first", "PATCH", opened.headers["location"], body=LAYER.data[:400], headers=BINARY | {"Content-Range": "0-399"}
    )
    status = await see.ask("status", "GET", first.headers["location"])
    where = status.headers.get("location", first.headers["location"])
    rest = LAYER.data[400:]
    headers = BINARY | {"Content-Range": f"400-{LAYER.size - 1}"}
    second = await see.ask("second", "PATCH", where, body=rest, headers=headers)
    see.note("end", await see.client.finish(second, LAYER.digest))
    await see.ask("whole", "GET", f"/v2/app/blobs/{LAYER.digest}")
    await see.ask("after its end", "PATCH", second.headers["location"], body=b"x", headers=BINARY)


async def a_blob_is_streamed_and_ended(see: Witness) -> None:
    opened = await see.client.ask("POST", "/v2/app/blobs/uploads/")
    patched = await see.ask("all", "PATCH", opened.headers["location"], body=LAYER.data, headers=BINARY)
    see.note("end", await see.client.finish(patched, LAYER.digest))


async def an_upload_goes_wrong(see: Witness) -> None:
    opened = await see.client.ask("POST", "/v2/app/blobs/uploads/")
    see.note("wrong digest", await see.client.finish(opened, NOWHERE, LAYER.data))
    opened = await see.client.ask("POST", "/v2/app/blobs/uploads/")
    see.note("bad digest", await see.client.finish(opened, "sha256:xyz", LAYER.data))
    opened = await see.client.ask("POST", "/v2/app/blobs/uploads/")
    headers = BINARY | {"Content-Range": "100-199"}
    await see.ask("out of order", "PATCH", opened.headers["location"], body=bytes(100), headers=headers)
    opened = await see.client.ask("POST", "/v2/app/blobs/uploads/")
    await see.ask("cancelled", "DELETE", opened.headers["location"])
    await see.ask("then", "GET", opened.headers["location"])


async def a_blob_comes_with_its_post(see: Witness) -> None:
    path = f"/v2/app/blobs/uploads/?digest={LAYER.digest}"
    await see.ask("single", "POST", path, body=LAYER.data, headers=BINARY)
    await see.ask("there", "HEAD", f"/v2/app/blobs/{LAYER.digest}")


async def a_manifest_is_refused(see: Witness) -> None:
    see.note("missing blobs", await see.client.push_manifest("app", APP, "1.0"))
    see.note("missing children", await see.client.push_manifest("app", BOTH, "1.0"))
    await see.client.push_blob("app", LAYER)
    await see.client.push_blob("app", APP.config)
    path = "/v2/app/manifests"
    headers = {"Content-Type": APP.media_type}
    await see.ask("wrong digest", "PUT", f"{path}/{NOWHERE}", body=APP.data, headers=headers)
    await see.ask("no JSON", "PUT", f"{path}/2.0", body=b"{", headers=headers)
    unknown = {"Content-Type": "application/vnd.example.unknown+json"}
    await see.ask("unknown type", "PUT", f"{path}/3.0", body=b'{"schemaVersion": 2}', headers=unknown)
    await see.ask("bad tag", "PUT", f"{path}/.x", body=APP.data, headers=headers)
    await see.ask("tags then", "GET", "/v2/app/tags/list")


async def tags_are_listed(see: Witness) -> None:
    await see.client.push("app", APP, "b")
    for tag in ("a", "d", "c", "B", "1"):
        await see.client.push_manifest("app", APP, tag)
    await see.ask("all", "GET", "/v2/app/tags/list")
    await see.ask("two", "GET", "/v2/app/tags/list?n=2")
    await see.ask("after", "GET", "/v2/app/tags/list?n=2&last=b")
    await see.ask("after the last", "GET", "/v2/app/tags/list?last=d")
    await see.ask("as many as there are", "GET", "/v2/app/tags/list?n=6")
    await see.ask("catalog", "GET", "/v2/_catalog")


async def referrers_are_listed(see: Witness) -> None:
    await see.client.push("app", APP, "1.0")
    await see.ask("none", "GET", f"/v2/app/referrers/{APP.digest}")
    signature = artifact("application/vnd.example.signature", {"sig": b"x"}, subject=APP, annotations={"by": "me"})
    for blob in signature.blobs:
        await see.client.push_blob("app", blob)
    see.note("put", await see.client.push_manifest("app", signature))
    await see.ask("one", "GET", f"/v2/app/referrers/{APP.digest}")
    await see.ask("of a type", "GET", f"/v2/app/referrers/{APP.digest}?artifactType=a/b")
    await see.ask("of nothing", "GET", f"/v2/app/referrers/{NOWHERE}")


async def things_are_deleted(see: Witness) -> None:
    await see.client.push("app", APP, "1.0")
    await see.client.push_manifest("app", APP, "2.0")
    await see.ask("tag", "DELETE", "/v2/app/manifests/1.0")
    await see.ask("tags then", "GET", "/v2/app/tags/list")
    await see.ask("tag that is not there", "DELETE", "/v2/app/manifests/9.0")
    await see.ask("manifest", "DELETE", f"/v2/app/manifests/{APP.digest}")
    await see.ask("manifest then", "HEAD", "/v2/app/manifests/2.0", headers={"Accept": MANIFEST_TYPES})
    await see.ask("tags in the end", "GET", "/v2/app/tags/list")
    await see.ask("manifest again", "DELETE", f"/v2/app/manifests/{APP.digest}")
    await see.ask("blob", "DELETE", f"/v2/app/blobs/{LAYER.digest}")
    await see.ask("blob then", "HEAD", f"/v2/app/blobs/{LAYER.digest}")
    await see.ask("blob again", "DELETE", f"/v2/app/blobs/{LAYER.digest}")


SCENARIOS: Final[tuple[Scenario, ...]] = (
    nothing_there, an_image_is_pushed, an_index_is_asked_for, a_blob_is_read_in_parts, a_blob_is_mounted,
    a_blob_is_uploaded_in_chunks, a_blob_is_streamed_and_ended, an_upload_goes_wrong, a_blob_comes_with_its_post,
    a_manifest_is_refused, tags_are_listed, referrers_are_listed, things_are_deleted,
)  # fmt: skip

CODE: Final = "the status is the same; the real one names another error code"
SNIFFED: Final = "the real one guesses the media type of a blob from its bytes"
ANY_UPLOAD: Final = "the real one opens an upload with whatever id it is asked for"

DIFFERENCES: Final[Mapping[tuple[str, str, str], str]] = {
    ("distribution", "nothing_there", "upload"): CODE,
    ("crane", "nothing_there", "delete blob"): "the real one answers 500 where there is nothing to delete",
    ("crane", "nothing_there", "bad digest"): CODE,
    ("crane", "nothing_there", "upload"): ANY_UPLOAD,
    ("crane", "a_blob_is_read_in_parts", "whole"): SNIFFED,
    ("crane", "a_blob_is_read_in_parts", "0-1209"): SNIFFED,
    (
        "crane",
        "a_blob_is_read_in_parts",
        "9-5",
    ): "the real one sends the whole rest as a range that ends before it begins",
    ("crane", "a_blob_is_uploaded_in_chunks", "whole"): SNIFFED,
    ("crane", "a_blob_is_uploaded_in_chunks", "after its end"): ANY_UPLOAD,
    ("crane", "an_upload_goes_wrong", "bad digest"): CODE,
    ("crane", "an_upload_goes_wrong", "out of order"): CODE,
    ("crane", "a_manifest_is_refused", "missing children"): CODE,
    ("crane", "tags_are_listed", "after the last"): "the real one begins again after the last tag, if `n` is not given",
    ("crane", "referrers_are_listed", "none"): CODE,
    ("crane", "referrers_are_listed", "one"): CODE,
    ("crane", "referrers_are_listed", "of a type"): CODE,
    ("crane", "referrers_are_listed", "of nothing"): CODE,
    ("crane", "things_are_deleted", "blob again"): "the real one answers 500 where there is nothing to delete",
    ("ociserver", "nothing_there", "bad digest"): CODE,
    ("ociserver", "nothing_there", "upload"): "the real one answers 500 for an upload that it does not know",
    ("ociserver", "a_blob_is_read_in_parts", "1210-"): "the real one answers 206 with nothing at the end of a blob",
    ("ociserver", "a_blob_is_read_in_parts", "1309-"): "the real one answers 500 beyond the end of a blob",
    ("ociserver", "a_blob_is_uploaded_in_chunks", "after its end"): ANY_UPLOAD,
    ("ociserver", "an_upload_goes_wrong", "bad digest"): CODE,
    ("ociserver", "an_upload_goes_wrong", "out of order"): CODE,
    ("ociserver", "a_manifest_is_refused", "no JSON"): "the real one answers 500 to what is not JSON",
    ("ociserver", "a_manifest_is_refused", "bad tag"): CODE,
}
"""What the fake answers otherwise, by (registry, scenario, request), with the reason."""


@pytest.fixture(params=LIKE)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def real(kind: str) -> Generator[str, None, None]:
    """The URL of a real registry with nothing in it."""
    with engines.REGISTRIES[kind]() as registry:
        yield registry.url


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_the_fake_answers_as_the_real_one_does(kind: str, real: str, scenario: Scenario) -> None:
    tags_sorted = BEHAVIOURS[LIKE[kind]].tags_sorted
    async with RegistryClient(real) as client:
        truth = Witness(client, tags_sorted=tags_sorted)
        await scenario(truth)
    async with FakeRegistry(like=LIKE[kind], strict=False) as fake, RegistryClient(fake.url) as client:
        told = Witness(client, tags_sorted=tags_sorted)
        await scenario(told)
    known = {name for registry, where, name in DIFFERENCES if (registry, where) == (kind, scenario.__name__)}
    assert {name: facts for name, facts in told.facts.items() if name not in known} == {
        name: facts for name, facts in truth.facts.items() if name not in known
    }
    assert [name for name in known if told.facts[name] == truth.facts[name]] == []


def test_every_real_registry_is_faked() -> None:
    assert LIKE.keys() == engines.REGISTRIES.keys()

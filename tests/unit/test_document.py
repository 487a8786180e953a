"""Answers and results as JSON documents: by `to_dict`, by msgspec, and in the responses of web frameworks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal, get_args, get_origin

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError

import aiodocker_images
from aiodocker_images import DockerError, ImageInspect, ImageSummary, NotFoundError, PullResult, TransferredTag
from aiodocker_images._document import Document

DOCUMENTS: list[type[Document]] = [
    each
    for each in (getattr(aiodocker_images, name) for name in dir(aiodocker_images) if not name.startswith("_"))
    if isinstance(each, type) and issubclass(each, Document)
]
BY_TYPE: dict[object, type[Document]] = {each: each for each in DOCUMENTS}
STATUSES = {400, 403, 404, 409, 422, 429, 500, 501, 502, 503, 504, 507}


def value_of(kind: object) -> object:
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if document := BY_TYPE.get(kind):
        return made(document)
    plain: dict[str, Any] = {"str": "text", "int": 7, "bool": True, "float": 0.5}
    return next((value for name, value in plain.items() if name in str(kind)), None)


def made(kind: type[Document]) -> Document:
    return kind(**{field.name: value_of(field.type) for field in msgspec.structs.fields(kind) if field.required})


def test_what_services_return_is_a_document() -> None:
    assert {"ImageSummary", "ImageInspect", "PullResult", "CopyResult", "ProgressFrame", "BuildResult"} <= {
        each.__name__ for each in DOCUMENTS
    }


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_is_read_back_as_the_same_struct(kind: type[Document]) -> None:
    document = made(kind)
    assert json.loads(json.dumps(document.to_dict())) == json.loads(document.to_json())
    assert msgspec.json.decode(document.to_json(), type=kind) == document


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_pydantic_reads_writes_and_describes_it(kind: type[Document]) -> None:
    adapter = TypeAdapter[Document](kind)
    document = made(kind)
    assert adapter.validate_python(document) is document
    assert adapter.validate_json(document.to_json()) == document
    assert json.loads(adapter.dump_json(document)) == json.loads(document.to_json())
    schema = adapter.json_schema()
    described = schema["$defs"][kind.__name__] if "$ref" in schema else schema
    assert {*json.loads(document.to_json())} <= {*described["properties"]}
    assert "#/$defs" not in json.dumps(described)


def test_names_are_the_engines_and_times_are_text() -> None:
    image = ImageInspect(id="sha256:1", created=datetime(2024, 5, 1, tzinfo=UTC))
    assert image.to_dict()["Id"] == "sha256:1"
    assert image.to_dict()["Created"] == "2024-05-01T00:00:00Z"
    properties = TypeAdapter(ImageInspect).json_schema()["properties"]
    assert properties["Created"] == {"type": ["string", "null"], "format": "date-time", "default": None}


def test_pydantic_refuses_what_is_not_such_a_document() -> None:
    with pytest.raises(ValidationError, match="Expected `str`, got `int`"):
        TypeAdapter(PullResult).validate_python({"reference": 1})


async def test_fastapi_answers_with_a_list_of_images_and_describes_it() -> None:
    app = FastAPI()

    @app.get("/images")
    async def images() -> list[ImageSummary]:
        return [ImageSummary(id="sha256:1", repo_tags=("app:1",))]

    @app.get("/pull")
    async def pull() -> PullResult:
        return PullResult(reference="app:1", tags=(TransferredTag(tag="1"),))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        listed = (await client.get("/images")).json()
        pulled = (await client.get("/pull")).json()
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert [(each["Id"], each["RepoTags"]) for each in listed] == [("sha256:1", ["app:1"])]
    assert pulled["tags"] == [{"tag": "1", "digest": None, "size": None, "instead_of_index": None}]
    assert {"ImageSummary", "PullResult"} <= {*schemas}
    assert schemas["PullResult"]["properties"]["up_to_date"] == {"type": "boolean", "default": False}


def every(kind: type[DockerError]) -> list[type[DockerError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in every(sub))]


@pytest.mark.parametrize("kind", every(DockerError))
def test_every_error_has_a_status_that_a_backend_may_answer(kind: type[DockerError]) -> None:
    assert kind.http_status in STATUSES


def test_an_error_in_a_stream_has_the_same_status_as_one_by_status() -> None:
    assert (
        NotFoundError("manifest unknown").http_status == NotFoundError("no such image", status=404).http_status == 404
    )

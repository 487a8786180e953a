"""An odd value costs its own field: every field of every model is tried with every kind of JSON value."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec
import pytest

from aiodocker_images import ImageInspect, ImageService, ImageSummary, ProgressFrame, models
from aiodocker_images._lenient import MAX_FLAWS, decode_leniently
from aiodocker_images._struct import Model
from aiodocker_images.errors import FrameDecodeError
from aiodocker_images.progress import ErrorDetail
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.unit.test_models import ANSWERS, Document, assert_as_declared

T = TypeVar("T")

ODDITIES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 10**30, 253402300800, -62167219200, 1e300),
    *("", "text", "5", "true", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-23:00"),
    *([], [None], [5], ["a", None, {}], [[]], [{}], {}, {"a": None}, {"a": 5}, {"a": {"b": []}}, {"": [1]}),
]
ZERO_TIMES = ("0001-01-01T00:00:00+14:00",)
BESIDE = "sha256:" + "5" * 64


def decode(document: object, kind: type[T], *, strict: bool = True) -> tuple[T, list[str]]:
    return decode_leniently(json.dumps(document).encode(), kind, strict=strict)


@pytest.mark.parametrize("model", ANSWERS.values(), ids=ANSWERS)
def test_an_odd_value_in_any_field_of_any_model_costs_no_other_field(model: type[Model]) -> None:
    for field in msgspec.structs.fields(model):
        for odd in ODDITIES:
            others = {each.encode_name: None for each in msgspec.structs.fields(model)}
            decoded, flaws = decode({**others, field.encode_name: odd}, model, strict=False)
            assert_as_declared(decoded)
            for other in msgspec.structs.fields(model):
                if other.name != field.name:
                    assert getattr(decoded, other.name) == getattr(model(), other.name), (field.name, odd)
            for flaw in flaws:
                assert flaw.startswith(field.encode_name), (odd, flaw)
            if odd in (None, "", [], {}, *ZERO_TIMES):
                continue
            # What is lost is reported.
            assert flaws or getattr(decoded, field.name) not in (None, (), {}, ""), (
                field,
                odd,
            )


@pytest.mark.parametrize("odd", ODDITIES, ids=repr)
def test_a_list_loses_nothing_else(odd: object) -> None:
    for field in msgspec.structs.fields(ImageSummary):
        answer = [{"Id": BESIDE, "Size": 1}, {"Id": "sha256:odd", field.encode_name: odd}, {"Id": BESIDE, "Size": 2}]
        before, between, after = decode(answer, list[ImageSummary], strict=False)[0]
        assert (before, after) == (ImageSummary(id=BESIDE, size=1), ImageSummary(id=BESIDE, size=2))
        assert field.name == "id" or between.id == "sha256:odd"


@pytest.mark.parametrize("odd", [None, 5, "x", [], True])
def test_what_is_not_an_image_at_all_is_left_out_of_a_list_and_reported(odd: object) -> None:
    images, flaws = decode([{"Id": BESIDE}, odd], list[ImageSummary], strict=False)
    assert images == [ImageSummary(id=BESIDE)]
    assert flaws == ["[1]: expected an object of ImageSummary"]


READ_AS_MEANT: list[tuple[type[Model], dict[str, Any], Model]] = [
    (ImageSummary, {"Size": "77", "SharedSize": 5.0, "Id": 7}, ImageSummary(size=77, shared_size=5, id="7")),
    (ImageSummary, {"RepoTags": [5, None, "a"]}, ImageSummary(repo_tags=("5", "a"))),
    (
        ImageSummary,
        {"Labels": {"a": None, "b": 5, "c": True, "d": [], "e": "x"}},
        ImageSummary(labels={"a": "", "b": "5", "c": "true", "e": "x"}),
    ),
    (
        models.ImageConfig,
        {"Entrypoint": "sh", "ArgsEscaped": "true"},
        models.ImageConfig(entrypoint=("sh",), args_escaped=True),
    ),
    (models.ImageConfig, {"ArgsEscaped": 1, "Env": {}}, models.ImageConfig(args_escaped=True)),
    (
        models.SearchResult,
        {"star_count": "12", "is_official": "True"},
        models.SearchResult(star_count=12, is_official=True),
    ),
]


@pytest.mark.parametrize(("model", "document", "meant"), READ_AS_MEANT)
def test_numbers_and_flags_given_as_strings_are_read_as_meant(
    model: type[Model], document: dict[str, Any], meant: Model
) -> None:
    assert decode(document, model)[0] == meant


def test_a_loss_names_the_image_and_the_field() -> None:
    manifest: Document = {"ID": "sha256:m", "Descriptor": {"size": {}}, "Kind": "image"}
    answer: list[Document] = [{"Id": "sha256:a", "Manifests": [manifest]}]
    _, flaws = decode(answer, list[ImageSummary])
    (flaw,) = flaws
    assert flaw.startswith("[0] ('sha256:a').Manifests[0] ('sha256:m').Descriptor.size: ")


def test_a_report_of_many_losses_is_short() -> None:
    sizes: list[Document] = [{"Size": {}}]
    images, flaws = decode(sizes * 1000, list[ImageSummary])
    assert len(images) == 1000
    assert len(flaws) == MAX_FLAWS + 1
    assert flaws[-1] == "and 900 more"


def test_a_name_in_a_report_cannot_write_to_a_terminal() -> None:
    answer: list[Document] = [{"Id": "\x1b[2J", "Size": {}}]
    (flaw,) = decode(answer, list[ImageSummary])[1]
    assert flaw.startswith("[0] ('\\x1b[2J').Size: ")


@pytest.mark.parametrize("odd", [5, "x", [], {"message": {}}, {"message": []}], ids=repr)
async def test_a_failure_that_cannot_be_read_is_a_failure_all_the_same(
    daemon: ScriptedDaemon, images: ImageService, odd: object
) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames({"status": "Pulling"}, {"errorDetail": odd}, {"status": "Status: Downloaded newer image"})
        await exchange.end()

    daemon.on("POST", "/images/create", answer)
    with pytest.raises(FrameDecodeError, match="pull alpine:latest: not a frame: errorDetail"):
        await images.pull("alpine")


def test_a_text_of_an_error_that_is_a_number_is_kept() -> None:
    frame, flaws = decode({"error": 5, "errorDetail": {"message": 7, "code": "401"}}, ProgressFrame)
    assert (frame.failure, frame.error_detail, flaws) == ("7", ErrorDetail(message="7", code=401), [])


def test_no_text_of_digits_takes_long() -> None:
    assert decode({"Size": "9" * 5_000_000}, ImageInspect)[0].size == 0


async def test_null_is_an_empty_list(daemon: ScriptedDaemon, images: ImageService) -> None:
    """History of an image without one is null on Docker 28.5 and 29 with the containerd store."""
    for method, path in (
        *(("GET", "/images/json"), ("GET", "/images/alpine:latest/history"), ("DELETE", "/images/alpine:latest")),
        ("GET", "/images/search"),
    ):
        daemon.on(method, path, lambda exchange: exchange.answer(b"null\n"))
    daemon.on("POST", "/images/prune", lambda exchange: exchange.answer(b'{"ImagesDeleted":null}'))
    daemon.on("POST", "/build/prune", lambda exchange: exchange.answer(b'{"CachesDeleted":null,"SpaceReclaimed":5}'))
    assert await images.list() == []
    assert await images.history("alpine") == []
    assert await images.remove("alpine") == []
    assert await images.search("alpine") == []
    assert (await images.prune()).removed == ()
    assert (await images.prune_build_cache()).space_reclaimed == 5


async def test_braces_in_texts_are_no_objects(daemon: ScriptedDaemon, images: ImageService) -> None:
    label = "{[" * 2_100_000 + '\\"'
    daemon.on("GET", "/images/json", lambda exchange: exchange.answer_json([{"Labels": {"a": label}}]))
    (image,) = await images.list()
    assert image.labels == {"a": label}

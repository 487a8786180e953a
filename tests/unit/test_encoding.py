"""Query parameters take the forms that the Engine reads."""

from __future__ import annotations

import json
from types import MappingProxyType
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._encoding import Filters, FilterValue, encode_filters, encode_platforms, flags, path_segment
from aiodocker_images.models import Platform

DIGEST = "sha256:" + "a1" * 32

PATHS = [
    ("ubuntu", "ubuntu"),
    ("ubuntu:24.04", "ubuntu:24.04"),
    ("user/app:1", "user/app:1"),
    ("a__b/c-d.e:T_1-x.y", "a__b/c-d.e:T_1-x.y"),
    ("localhost:5000/x@" + DIGEST, "localhost:5000/x@" + DIGEST),
    ("[::1]:5000/x:y", "%5B::1%5D:5000/x:y"),
    (DIGEST, DIGEST),
]


@pytest.mark.parametrize(("name", "segment"), PATHS)
def test_a_name_is_quoted_where_a_path_needs_it(name: str, segment: str) -> None:
    assert path_segment(name) == segment


@given(st.text())
def test_no_text_ends_the_path_early(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    segment = path_segment(name)
    assert unquote(segment) == name
    assert not set(segment) & set("?#\\% []\r\n\0") - {"%"}


FLAGS: list[tuple[dict[str, bool | None], tuple[tuple[str, str], ...]]] = [
    ({}, ()),
    ({"all": True}, (("all", "true"),)),
    ({"all": False}, ()),
    ({"all": None}, ()),
    ({"shared_size": True}, (("shared-size", "true"),)),
    ({"all": True, "digests": False, "shared_size": True}, (("all", "true"), ("shared-size", "true"))),
]


@pytest.mark.parametrize(("given_flags", "query"), FLAGS, ids=str)
def test_a_flag_is_sent_if_it_is_set(given_flags: dict[str, bool | None], query: tuple[tuple[str, str], ...]) -> None:
    assert flags(**given_flags) == query


FILTERS: list[tuple[Filters, dict[str, list[str]]]] = [
    ({}, {}),
    ({"dangling": True}, {"dangling": ["true"]}),
    ({"dangling": False}, {"dangling": ["false"]}),
    ({"dangling": [True, False]}, {"dangling": ["true", "false"]}),
    ({"until": 1700000000}, {"until": ["1700000000"]}),
    ({"until": 0}, {"until": ["0"]}),
    ({"until": "24h"}, {"until": ["24h"]}),
    ({"reference": ["alpine", "127.0.0.1:5000/*:1.*"]}, {"reference": ["alpine", "127.0.0.1:5000/*:1.*"]}),
    ({"reference": ("alpine",)}, {"reference": ["alpine"]}),
    ({"reference": []}, {"reference": []}),
    ({"label": "stage"}, {"label": ["stage"]}),
    ({"label": {"stage": "test"}}, {"label": ["stage=test"]}),
    ({"label": {"stage": "test", "seen": ""}}, {"label": ["stage=test", "seen"]}),
    ({"label": MappingProxyType({"a": "b=c"})}, {"label": ["a=b=c"]}),
    ({"label": {}}, {"label": []}),
    ({"label": {"größe": "„x“"}}, {"label": ["größe=„x“"]}),
    ({"before": 'x"y\\z'}, {"before": ['x"y\\z']}),
    ({"a": ["x", 1, True]}, {"a": ["x", "1", "true"]}),
    ({"dangling": True, "label": {"k": "v"}}, {"dangling": ["true"], "label": ["k=v"]}),
]


@pytest.mark.parametrize(("filters", "document"), FILTERS, ids=str)
def test_every_kind_of_filter_becomes_a_list_of_texts(filters: Filters, document: dict[str, list[str]]) -> None:
    assert json.loads(encode_filters(filters)) == document


SIMPLE: st.SearchStrategy[FilterValue] = st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), SIMPLE | st.lists(st.booleans() | st.integers())))
def test_filters_stay_as_they_were(filters: dict[str, FilterValue]) -> None:
    before = repr(filters)
    document = json.loads(encode_filters(filters))
    assert repr(filters) == before
    assert list(document) == list(filters)
    assert all(isinstance(text, str) for texts in document.values() for text in texts)


PLATFORMS: list[tuple[list[Platform], list[dict[str, object]]]] = [
    ([], []),
    ([Platform(os="linux", architecture="amd64")], [{"os": "linux", "architecture": "amd64"}]),
    (
        [Platform(os="linux", architecture="arm", variant="v7"), Platform(os="linux", architecture="s390x")],
        [{"os": "linux", "architecture": "arm", "variant": "v7"}, {"os": "linux", "architecture": "s390x"}],
    ),
    (
        [Platform(os="windows", architecture="amd64", os_version="10.0.17763", os_features=("win32k",))],
        [{"os": "windows", "architecture": "amd64", "os.version": "10.0.17763", "os.features": ["win32k"]}],
    ),
]


@pytest.mark.parametrize(("platforms", "documents"), PLATFORMS, ids=str)
def test_each_platform_is_a_json_object_under_the_same_name(
    platforms: list[Platform], documents: list[dict[str, object]]
) -> None:
    query = encode_platforms(iter(platforms), name="platforms")
    assert [name for name, _ in query] == ["platforms"] * len(platforms)
    assert [json.loads(text) for _, text in query] == documents
    assert [name for name, _ in encode_platforms(platforms)] == ["platform"] * len(platforms)

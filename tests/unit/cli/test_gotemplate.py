"""Go's template language: what docker CLI 28.5 makes of a table of templates, and what keeps a template in bounds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiodocker_images.cli.commands.images import fill
from aiodocker_images.cli.documents import typed_event, typed_image, typed_version
from aiodocker_images.cli.gotemplate import template as limits
from aiodocker_images.cli.gotemplate.parsing import MAX_NESTING
from aiodocker_images.cli.gotemplate.printing import as_json, printed, sprintf
from aiodocker_images.cli.gotemplate.template import Template, TemplateError
from aiodocker_images.cli.gotemplate.values import MAX_TEXT, CallError, Duration, Int64, Moment, untyped

# What `docker inspect -f TEMPLATE` (28.5.2) answered about a document: the template, the exit status, and what was
# written, or else the error. Text is part of the document in each form that JSON and Go's types have for it.
RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "go_templates.json").read_text(encoding="utf-8"))
DOCUMENT: dict[str, Any] = RECORDED["document"]
VECTORS: list[tuple[str, int, str]] = RECORDED["vectors"]


@pytest.mark.parametrize(("text", "status", "expected"), VECTORS, ids=[row[0][:60] for row in VECTORS])
def test_a_template_comes_to_what_the_docker_cli_makes_of_it(text: str, status: int, expected: str) -> None:
    if status == 0:
        assert fill(Template(text), DOCUMENT) == expected
        return
    with pytest.raises(TemplateError) as caught:
        fill(Template(text), DOCUMENT)
    assert _place(f"template parsing error: {caught.value}") == _place(expected)


def _place(error: str) -> str:
    """Return what an error says of the place: the line of what cannot be read, the part of what cannot be done."""
    return error.partition(">: ")[0] if "executing" in error else ":".join(error.split(":")[:3])


def test_what_is_wrong_is_told_in_the_words_of_go() -> None:
    told: dict[str, str] = {
        "{{.Os.Foo}}": 'executing "" at <.Os.Foo>: can\'t evaluate field Foo in type string',
        "{{upper 5}}": 'executing "" at <5>: expected string; found 5',
        "{{upper}}": 'executing "" at <upper>: wrong number of args for upper: want 1 got 0',
        "{{len 5}}": 'executing "" at <len 5>: error calling len: len of type int',
        "{{.Config.Labels.a.b.c.d}}": "at <.Config.Labels.a.b.c.d>: can't evaluate field b in type string",
    }
    for text, words in told.items():
        with pytest.raises(TemplateError) as caught:
            fill(Template(text), DOCUMENT)
        assert str(caught.value).endswith(words)
    with pytest.raises(TemplateError, match='^template: :3: function "foo" not defined$'):
        Template("\n\n{{foo}}")
    with pytest.raises(TemplateError, match=r'^template: version:2:6: executing "version" at <\.X\.Y>: '):
        Template("é\né{{.X.Y}}", name="version").execute(untyped({"X": "x"}))


def test_a_field_that_the_engine_leaves_out_is_empty_and_not_missing() -> None:
    image = typed_image({"Id": "sha256:1", "RepoTags": None, "Config": {"Labels": {"a": "1"}}})
    text = "{{.RepoTags}} {{.Config.Volumes}} {{.Config.Labels.b}} {{.Size}} [{{.Author}}] {{.Descriptor}}"
    assert Template(text).execute(image) == "[] map[] <no value> 0 [] <nil>"
    assert Template("{{json .RepoTags}} {{json .Config}}").execute(image) == 'null {"Labels":{"a":"1"}}'
    event = typed_event({"status": "tag", "id": "x", "Actor": {"Attributes": {"name": "app"}}})
    assert Template("{{.Status}} {{.ID}} {{.Actor.Attributes.name}} {{.From}}").execute(event) == "tag x app "
    version = typed_version({"Client": {}, "Server": {"ApiVersion": "1.51", "Platform": {"Name": "D"}}})
    assert Template("{{.Server.APIVersion}} {{.Server.Platform.Name}}").execute(version) == "1.51 D"
    nobody = typed_version({"Client": {"Version": "1"}, "Server": None})
    assert Template("{{if .Server}}x{{else}}none{{end}} {{.Server}}").execute(nobody) == "none <nil>"


def test_an_odd_value_costs_that_field_alone() -> None:
    odd = typed_image({"Id": 5, "RepoTags": "x", "Config": [1], "Size": "big", "RootFS": 7, "Os": "linux"})
    text = "{{.ID}} {{.RepoTags}} {{.Config}} {{.Size}} {{.RootFS}} {{.Os}}"
    assert Template(text).execute(odd) == "5 x [1] big 7 linux"


def test_more_is_understood_than_docker_28_does() -> None:
    """Numbers of untyped documents are texts where one is wanted; `join` takes maps, as docker 29's does."""
    assert fill(Template("{{upper .New.N}}"), {"New": {"N": 12}}) == "12"
    assert fill(Template('{{join .Config.Labels ","}}'), {"Config": {"Labels": {"b": "2", "a": "1"}}}) == "1,2"
    assert fill(Template('{{truncate "héé" 2}}'), {}) == "h\ufffd"


def test_times_lengths_of_time_and_numbers_are_written_as_go_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert printed(Moment("2024-05-01T10:11:12.5+02:00")) == "2024-05-01 10:11:12.5 +0200 CEST"
        assert printed(Moment("2024-05-01T10:11:12.5+03:00")) == "2024-05-01 10:11:12.5 +0300 +0300"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert printed(Moment("0001-01-01T00:00:00Z")) == "0001-01-01 00:00:00 +0000 UTC"
    assert printed(Moment("9999-99-99T00:00:00+01:00")) == "9999-99-99 00:00:00 +0100 +0100"
    assert printed(Moment("soon")) == "soon"
    lengths = [0, 1, 1500, 2_000_000, 1_500_000_000, 90_000_000_000, 3_600_000_000_000, -61_000_000_000]
    assert [printed(Duration(each)) for each in lengths] == [
        *("0s", "1ns", "1.5µs", "2ms", "1.5s", "1m30s", "1h0m0s", "-1m1s"),
    ]
    assert [printed(each) for each in (1.0, 0.1, 1e6, 123456789.5, 1e-5, 1e21, -2.5, 0.0)] == [
        *("1", "0.1", "1e+06", "1.234567895e+08", "1e-05", "1e+21", "-2.5", "0"),
    ]
    assert [as_json(each) for each in (1.0, 1e6, 1e20, 1e21, 1e-6, 1e-7)] == [
        *("1", "1000000", "100000000000000000000", "1e+21", "0.000001", "1e-07"),
    ]
    assert sprintf("%T %T %T %v", [Int64(5), 5, untyped(5), None]) == "int64 int json.Number <nil>"


ENDLESS = [
    "{{range 1000000000}}{{end}}",
    "{{range 1000000}}{{range 1000000}}{{end}}{{end}}",
    '{{$x := "aaaaaaaaaaaaaaaa"}}{{range 60}}{{$x = print $x $x}}{{end}}',
    '{{$x := pad "a" 9000000 0}}{{range 1000000}}{{len $x}}{{end}}',
    '{{$x := split (pad "a" 900000 0) ""}}{{range 1000000}}{{$y := join $x ""}}{{end}}',
    '{{$x := split (pad "a" 900000 0) ""}}{{printf "%1000000s" $x}}',
    f"{{{{printf {'%[1]1000000d' * 1000!r} 1}}}}".replace("'", '"'),
    '{{pad "a" 2000000000 0}}',
    '{{define "a"}}{{template "a"}}{{template "a"}}{{end}}{{template "a"}}',
    f"{'{{if true}}' * (MAX_NESTING + 1)}{'{{end}}' * (MAX_NESTING + 1)}",
    f"{{{{{'(' * 5000}1{')' * 5000}}}}}",
    "x" * (limits.MAX_TEMPLATE + 1),
    "{{range .}}{{json $}}{{end}}",
]


@pytest.mark.parametrize("text", ENDLESS, ids=[row[:40] for row in ENDLESS])
def test_a_template_that_would_never_end_or_fill_the_memory_is_given_up(text: str) -> None:
    many = untyped({str(number): "x" * 5000 for number in range(2000)})
    with pytest.raises(TemplateError) as caught:
        Template(text).execute(many)
    assert sum(map(len, caught.value.written)) <= limits.MAX_OUTPUT


def test_blocks_and_values_may_be_as_deep_as_the_limit_says() -> None:
    depth = MAX_NESTING
    assert Template(f"{'{{if true}}' * depth}x{'{{end}}' * depth}").execute(None) == "x"
    assert Template(f"{{{{{'(' * depth}1{')' * depth}}}}}").execute(None) == "1"
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TemplateError, match="nested too deeply"):
        fill(Template("{{.New}}"), {"New": deep})


def test_a_function_gives_up_before_it_makes_too_long_a_text() -> None:
    with pytest.raises(CallError, match="longer than 16 MiB"):
        sprintf("%1000000d" * 17, [1] * 17)
    assert len(sprintf("%1000000d", [1])) == 1_000_000 <= MAX_TEXT
    assert sprintf("%1000001d", [1]) == "%!(BADWIDTH)1"


PIECES = [*"{}.$|()\"'`-:=,% abx15\\/*\n", "{{", "}}", "range ", "end", "if ", "print ", "$x := "]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
@example("{{`}}")
@example("{{- -}}")
@example("{{- }}")
@example("{{.-}}")
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        written = Template(text).execute(untyped({"a": "1", "b": [1, {"x": None}]}))
    except TemplateError as error:
        assert str(error).startswith("template: ")
    else:
        assert "{{" in text or written == text


@given(
    st.text(),
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
    ),
)
def test_printf_writes_something_for_any_template_and_values(text: str, values: list[Any]) -> None:
    written = sprintf(text, [untyped(each) for each in values])
    assert "%" in text or written.startswith(text)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    )
)
def test_json_of_any_document_is_that_document(document: Any) -> None:  # noqa: ANN401 - of any type
    assert json.loads(as_json(untyped(document))) == document
    assert json.loads(as_json(untyped(document), html_safe=True)) == document

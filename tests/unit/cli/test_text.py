"""Sizes, ages, tables and templates as the docker CLI has them."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import ImageSummary
from aiodocker_images.cli.commands.images import image_rows
from aiodocker_images.cli.documents import row
from aiodocker_images.cli.gotemplate.values import TemplateError
from aiodocker_images.cli.tables import Listing, aligned, shortened
from aiodocker_images.cli.terminal import clean, visible
from aiodocker_images.cli.units import age, bytes_of, clock, duration, from_nanoseconds, size

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

# By go-units, which the docker CLI writes sizes with.
SIZES = [
    (0, 3, "0B"),
    (999, 3, "999B"),
    (1000, 3, "1kB"),
    (1024, 4, "1.024kB"),
    (3_374_123, 3, "3.37MB"),
    (3_374_123, 4, "3.374MB"),
    (77_800_000, 3, "77.8MB"),
    (999_999, 3, "1e+03kB"),
    (1_130_000_000, 3, "1.13GB"),
    (10**25, 4, "10YB"),
    (10**28, 4, "1e+04YB"),
]


@pytest.mark.parametrize(("count", "digits", "text"), SIZES, ids=[f"{row[0]} {row[1]}" for row in SIZES])
def test_a_size_is_written_as_the_docker_cli_does(count: int, digits: int, text: str) -> None:
    assert size(count, digits) == text


DURATIONS = [
    (0.9, "Less than a second"),
    (1.5, "1 second"),
    (59, "59 seconds"),
    (60, "About a minute"),
    (119, "About a minute"),
    (120, "2 minutes"),
    (3599, "59 minutes"),
    (3600, "About an hour"),
    (5399, "About an hour"),
    (5400, "2 hours"),
    (47.4 * 3600, "47 hours"),
    (47.5 * 3600, "2 days"),
    (13 * 86400, "13 days"),
    (14 * 86400, "2 weeks"),
    (59 * 86400, "8 weeks"),
    (60 * 86400, "2 months"),
    (729 * 86400, "24 months"),
    (730 * 86400, "2 years"),
    (-5, "Less than a second"),
]


@pytest.mark.parametrize(("seconds", "text"), DURATIONS, ids=[row[1] for row in DURATIONS])
def test_a_duration_is_written_as_the_docker_cli_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_that_is_not_known_is_not_invented() -> None:
    assert age(None, NOW) == "N/A"
    assert age(NOW - timedelta(hours=3), NOW) == "3 hours ago"


def test_the_times_of_events_have_nine_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    for zone, text in (("UTC", "2023-11-14T22:13:20.000000001Z"), ("XXX-05:30", "2023-11-15T03:43:20.000000001+05:30")):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert from_nanoseconds(1_700_000_000_000_000_001) == text
    monkeypatch.undo()
    time.tzset()


READ = [("64m", 64 << 20), ("1g", 1 << 30), ("1.5k", 1536), ("10", 10), ("7b", 7), ("2GiB", 2 << 30), ("3 MB", 3 << 20)]


@pytest.mark.parametrize(("text", "count"), READ, ids=[row[0] for row in READ])
def test_a_size_is_read_as_the_docker_cli_does(text: str, count: int) -> None:
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1mm", "1e3", "٣m"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        bytes_of(text)


def test_time_left_has_hours_only_if_it_takes_some() -> None:
    assert (clock(5), clock(125), clock(3725)) == ("00:05", "02:05", "1:02:05")


def test_columns_are_laid_out_as_by_the_docker_cli() -> None:
    rows = "REPOSITORY\tTAG\tSIZE\n127.0.0.1:5000/c\t2\t3B\né\t\t\n"
    assert aligned(rows, 10, 3) == (
        "REPOSITORY         TAG       SIZE\n127.0.0.1:5000/c   2         3B\né                            \n"
    )


def test_a_column_ends_where_a_line_does_not_have_it() -> None:
    assert aligned("long long\tb\tc\nx\ny\tz\tw\nno tab", 2, 1) == "long long b c\nx\ny z w\nno tab"


@given(st.text(alphabet="ab\t\n", max_size=60))
def test_lining_up_changes_nothing_but_blanks(text: str) -> None:
    found = aligned(text, 3, 1)
    assert [line.split() for line in found.split("\n")] == [line.split() for line in text.split("\n")]


ROWS = [row("*rows", {"ID": "1", "Name": "a b"}), row("*rows", {"ID": "2", "Name": "<none>"})]
HEADINGS = {"ID": "THE ID", "Name": "NAME"}
WRITTEN: list[tuple[str, str | None]] = [
    ("", "THE ID    NAME\n1         a b\n2         <none>\n"),
    ("table", "THE ID    NAME\n1         a b\n2         <none>\n"),
    ("json", '{"ID":"1","Name":"a b"}\n{"ID":"2","Name":"\\u003cnone\\u003e"}\n'),
    ("{{json .}}", '{"ID":"1","Name":"a b"}\n{"ID":"2","Name":"\\u003cnone\\u003e"}\n'),
    ("text", "text\ntext\n"),
    ("raw", "id 1\n\nid 2\n\n"),
    ('table {{upper .Name}}={{.ID | printf "%3s"}}', "NAME=THE ID\nA B=  1\n<NONE>=  2\n"),
    ("table {{.Name}}\\t{{len .ID}}", "NAME      6\na b       1\n<none>    1\n"),
    ("table {{slice .ID 0 1}} {{.Missing}}", None),
    ("{{.Name}}-{{ .ID }}", "a b-1\n<none>-2\n"),
    ("{{json .Name}}", '"a b"\n"<none>"\n'),
    ("table {{.Name}}\\t{{.ID}}", "NAME      THE ID\na b       1\n<none>    2\n"),
    ("{{.ID}}\\n{{.Name}}", "1\na b\n2\n<none>\n"),
]


@pytest.mark.parametrize(("chosen", "text"), WRITTEN, ids=[row[0] or "default" for row in WRITTEN])
def test_rows_are_written_as_chosen(chosen: str, text: str | None) -> None:
    listing = Listing(chosen, ("ID", "Name"), HEADINGS, raw="id {{.ID}}\n")
    if text is None:
        with pytest.raises(TemplateError, match="can't evaluate field Missing in type \\*rows"):
            listing.write(ROWS)
    else:
        assert listing.write(ROWS) == text


def test_what_would_break_the_columns_is_written_out() -> None:
    broken = [row("*rows", {"ID": "1\t2", "Name": "a\nb"})]
    assert Listing("table", ("ID", "Name"), HEADINGS).write(broken) == "THE ID    NAME\n1\\t2      a\\nb\n"
    assert Listing("{{.ID}} {{.Name}}", (), HEADINGS).write(broken) == "1\t2 a\nb\n"


@given(st.text(), st.integers(1, 60))
def test_a_shortened_text_is_no_longer_than_it_may_be(text: str, width: int) -> None:
    cut = shortened(text, width)
    assert len(cut) <= max(width, 1)
    assert cut == text or cut.endswith("…")


@given(st.text())
def test_text_from_outside_cannot_control_a_terminal(text: str) -> None:
    for shown in (clean(text), visible(text)):
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)


# An image's tags and digests, whether digests are asked for, and its rows as the docker CLI has them.
IMAGES: list[tuple[list[str], list[str], str, list[tuple[str, str, str]]]] = [
    ([], [], "", [("<none>", "<none>", "<none>")]),
    (["a:1", "a:2"], [], "", [("a", "1", "<none>"), ("a", "2", "<none>")]),
    (["a:1"], ["a@{d}"], "", [("a", "1", "<none>")]),
    (["a:1"], ["a@{d}"], "shown", [("a", "1", "{d}")]),
    (["a:1"], ["a@{d}", "b@{d}"], "shown", [("a", "1", "{d}"), ("b", "<none>", "")]),
    (["a:1"], ["a@{d}", "b@{d}"], "rows", [("a", "1", "{d}"), ("b", "<none>", "{d}")]),
    ([], ["b@{d}"], "", [("b", "<none>", "")]),
    (["docker.io/library/a:1", "r.io/x/y:z"], [], "", [("a", "1", "<none>"), ("r.io/x/y", "z", "<none>")]),
    (["nonsense:!"], [], "", [("<none>", "<none>", "<none>")]),
]


@pytest.mark.parametrize(("tags", "digests", "asked", "rows"), IMAGES)
def test_an_image_has_the_rows_that_the_docker_cli_gives_it(
    tags: list[str], digests: list[str], asked: str, rows: list[tuple[str, str, str]]
) -> None:
    digest = f"sha256:{'ab' * 32}"
    summary = ImageSummary(
        id=digest,
        repo_tags=tuple(tags),
        repo_digests=tuple(each.format(d=digest) for each in digests),
        created=NOW,
        size=5,
    )
    found = image_rows(summary, NOW, digests=bool(asked), own_rows=asked == "rows", truncate=True)
    assert [tuple(each.members[name] for name in ("Repository", "Tag", "Digest")) for each in found] == [
        (repository, tag, text.format(d=digest)) for repository, tag, text in rows
    ]


def test_a_size_that_is_no_number_of_bytes_is_still_written() -> None:
    assert size(math.inf) == "infYB"

"""Versions are ordered, and ranges read, as those who write them for Helm, npm and Docker tags expect."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import ConfigError
from aiodocker_images._distribution.versions import Version, VersionRange, parse_version


def version(tag: str) -> Version:
    found = parse_version(tag)
    assert found is not None, tag
    return found


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("3.20.1", "3.20.1"),
        ("v1.2.3", "1.2.3"),
        ("V1.2.3", "1.2.3"),
        ("3.20", "3.20.0"),
        ("3", "3.0.0"),
        ("20.04", "20.4.0"),  # semantic versioning allows no leading zero; Ubuntu does not ask
        ("1.2.3-rc.1", "1.2.3-rc.1"),
        ("3.20-slim", "3.20.0-slim"),
        ("1.0.0--x.0", "1.0.0--x.0"),
        ("20240329", "20240329"),
        ("2024.03.29", "2024.3.29"),
    ],
)
def test_a_tag_may_be_a_version(tag: str, text: str) -> None:
    assert str(version(tag)) == text


@pytest.mark.parametrize(
    "tag",
    ["latest", "", "v", "1.", ".1", "1.2.3.4", "1.2.3-", "1.2.3-a..b", "1_2", "1.2.3_b", "x", "1.x", "-1", "1 ", "1\n"],
)
def test_other_tags_are_not_versions(tag: str) -> None:
    assert parse_version(tag) is None


def test_digits_of_other_scripts_are_not_a_version() -> None:
    assert parse_version("٣.٢") is None


def test_the_order_is_that_of_semantic_versioning() -> None:
    ordered = [
        "20231231",  # a date is older than any version
        "20240329",
        "0.0.1-0",
        "0.0.1",
        "1.0.0-0",
        "1.0.0-2",
        "1.0.0-10",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.9",
        "1.10",
        "2",
        "10",
    ]
    versions = [version(each) for each in ordered]
    assert versions == sorted(versions)
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize("tag", ["20240329", "202403291230", "19991231"])
def test_a_date_is_in_no_range(tag: str) -> None:
    assert version(tag).is_date
    assert not any(VersionRange(text).has(version(tag)) for text in (">=3.18", "*", ">=0-0"))


@pytest.mark.parametrize("tag", ["20241329", "2024", "99999999", "20240300"])
def test_other_numbers_are_versions(tag: str) -> None:
    assert not version(tag).is_date
    assert VersionRange(">=3.18").has(version(tag))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        # From the documentation of npm's ranges and of Masterminds/semver, and what Docker's tags make of them.
        (">=3.18", "3.18 3.18.0 v3.18.1 3.20 4", "3.17.9 3 3.19-rc1 3.18-slim"),
        (">3.18", "3.19 4.0.0", "3.18 3.18.5 3.17"),
        (">3", "4 4.0.1", "3 3.9.9"),
        (">3.18.1", "3.18.2 3.19", "3.18.1 3.18"),
        ("<3.18", "3.17.9 3 0.1", "3.18 3.18.1 3.18-rc1"),
        ("<=3.18", "3.18 3.18.9 3.17", "3.19 3.19-rc1"),
        ("<=3", "3.99.9 2", "4"),
        ("<=3.18.1", "3.18.1 3.18", "3.18.2"),
        ("=3.18", "3.18 3.18.7", "3.19 3.17"),
        ("3.18", "3.18 3.18.7", "3.19 3.17"),
        ("==1.2.3", "1.2.3 v1.2.3", "1.2.4"),
        ("1.2.3", "1.2.3", "1.2.4 1.2"),
        ("!=1.2.3", "1.2.4 1.2.2", "1.2.3"),
        ("!=1.2", "1.3 1.1.9", "1.2 1.2.5"),
        ("1.x", "1 1.0 1.99.3", "2 0.9 1.5-rc"),
        ("1.X", "1.5", "2"),
        ("1.*", "1.5", "2"),
        ("1.2.x", "1.2 1.2.9", "1.3"),
        ("1.x.3", "1.7.5", "2.0.3"),
        ("*", "0 1.2.3 99", "1-rc"),
        ("x", "0 1.2.3", "1-rc"),
        (">=*", "0 5", "1-rc"),
        ("<*", "", "0 1 5"),
        (">*", "", "0 1 5"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3 1.2.2 2.2.3"),
        ("~1.2", "1.2 1.2.9", "1.3 1.1"),
        ("~1", "1 1.9.9", "2 0.9"),
        ("~>1.2.3", "1.2.3 1.2.9", "1.3"),
        ("~0.2.3", "0.2.3 0.2.9", "0.3"),
        ("^1.2.3", "1.2.3 1.9", "2 1.2.2 2.0.0-rc1"),
        ("^1.2", "1.2 1.9.9", "2 1.1.9"),
        ("^1", "1 1.9.9", "2 0.9"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3 0.2.2 1"),
        ("^0.2", "0.2 0.2.9", "0.3 1"),
        ("^0.0.3", "0.0.3", "0.0.4 0.1"),
        ("^0.0", "0.0 0.0.9", "0.1 1"),
        ("^0", "0 0.9.9", "1"),
        ("^1.x", "1 1.9", "2"),
        (">=1 <2 || 3.x", "1 1.9 3 3.9", "2 2.5 4"),
        (">=1,<2", "1 1.9", "2 0"),
        (">= 1.2 , < 1.4", "1.2 1.3", "1.4 1.1"),
        ("1.2 - 1.4", "1.2 1.3 1.4 1.4.9", "1.5 1.1.9"),
        ("1.2.3 - 2.3.4", "1.2.3 2.3.4", "2.3.5 1.2.2"),
        ("1.2.3 - 2", "2.9.9 1.2.3", "3"),
        ("1 - 2 || 4 - 5", "1 2.5 4 5.1", "3 6"),
        ("  >=1  ", "1", "0.9"),
        ("=>1", "1 2", "0.9"),
        ("=<1", "1 1.5 0.9", "2"),
        (">=1.2.3+build", "1.2.3", "1.2.2"),
        # Prereleases are in a range that names one, and then all of them are.
        (">=3.18-0", "3.18 3.18-rc1 3.19-slim 4.0.0-beta", "3.17.9-rc1"),
        (">=1.2.3-beta.2", "1.2.3-beta.2 1.2.3-beta.10 1.2.3 2.0.0-rc.1", "1.2.3-beta.1 1.2.3-alpha"),
        (">=1-0 <2", "1.5-rc1 1.9.9", "2.0.0-rc1 2"),
        (">=1-0 <2.0.0", "1.5-rc1 2.0.0-rc1", "2"),
        ("^1.2.3-beta.2", "1.2.3-beta.4 1.5 1.6-rc1", "2 2.0.0-rc1 1.2.3-beta.1"),
        ("~1.2.3-beta.2", "1.2.3-beta.4 1.2.9", "1.3 1.3.0-rc1"),
        ("1.2.3-rc.1", "1.2.3-rc.1", "1.2.3 1.2.3-rc.2"),
        (">=1-0 || 3.x", "1.1-rc 3.1-rc", "0.9-rc"),
        ("3.x || >=9", "3.1", "3.1-rc 9-rc"),
    ],
)
def test_a_range_has_what_its_readers_expect(text: str, inside: str, outside: str) -> None:
    versions = VersionRange(text)
    found = {tag: versions.has(version(tag)) for tag in (*inside.split(), *outside.split())}
    assert found == dict.fromkeys(inside.split(), True) | dict.fromkeys(outside.split(), False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ">=",
        "latest",
        ">=1 ||",
        "|| 1",
        "1 |",
        ">>1",
        ">=1.2.3.4",
        "1..2",
        "1.2-",
        "~^1",
        "1 - >2",
        "1 -",
        ">=1 and <2",
        "^v",
        "(1)",
        ">=1;<2",
        "1.2.3_4",
        "9" * 1001,
    ],
)
def test_what_is_not_a_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        VersionRange(text)


_NUMBERS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
_PRERELEASES = st.sampled_from(["", "", "-0", "-rc.1", "-rc.2", "-alpha"])


def _written(numbers: tuple[int, ...], prerelease: str) -> str:
    return ".".join(map(str, numbers)) + prerelease


def _cut(numbers: tuple[int, ...], count: int) -> str:
    return ".".join(map(str, numbers[:count]))


_TAGS = st.builds(_written, _NUMBERS, _PRERELEASES)
_PARTIAL = st.builds(_cut, _NUMBERS, st.integers(1, 3))


@given(_TAGS, _TAGS)
def test_comparisons_with_whole_versions_are_the_order(tag: str, limit: str) -> None:
    """With prereleases asked for by `>=0-0`, which excludes nothing else."""
    a, b = version(tag), version(limit)

    def holds(operator: str) -> bool:
        return VersionRange(f"{operator}{limit} >=0-0").has(a)

    assert holds(">=") == (a >= b)
    assert holds(">") == (a > b)
    assert holds("<=") == (a <= b)
    assert holds("<") == (a < b)
    assert holds("=") == (a == b)
    assert holds("!=") == (a != b)


@given(_TAGS, _PARTIAL)
def test_a_partial_version_divides_all_others_into_below_inside_and_above(tag: str, limit: str) -> None:
    a = version(tag)
    if a.key[3] == 0:
        assert not VersionRange(limit).has(a)
        return
    below, inside, above = (VersionRange(f"{operator}{limit}").has(a) for operator in ("<", "=", ">"))
    assert [below, inside, above].count(True) == 1
    assert VersionRange(f"<={limit}").has(a) == (below or inside)
    assert VersionRange(f">={limit}").has(a) == (inside or above)
    assert VersionRange(f"!={limit}").has(a) == (not inside)


@given(
    _TAGS,
    st.lists(st.tuples(st.sampled_from(["", "<", "<=", ">", ">=", "~", "^", "!="]), _PARTIAL), min_size=1, max_size=3),
)
def test_a_comma_is_and_and_two_bars_are_or(tag: str, parts: list[tuple[str, str]]) -> None:
    texts = list(itertools.starmap("{}{}".format, parts))
    each = [VersionRange(text).has(version(tag)) for text in texts]
    for blank in (" ", ",", ", "):
        assert VersionRange(blank.join(texts)).has(version(tag)) == all(each)
    assert VersionRange("||".join(texts)).has(version(tag)) == any(each)


@given(st.text("0123456789.xX*<>=~^!-|, vab+", max_size=30))
def test_any_text_is_a_range_or_our_error(text: str) -> None:
    try:
        found = VersionRange(text)
    except ConfigError:
        return
    found.has(version("1.2.3-rc.1"))


@pytest.mark.parametrize(
    "text", ["-" * 100_000, "1." * 50_000, "1-" + "a." * 50_000, "1-" + "-" * 100_000 + "_", "9" * 100_000]
)
def test_long_tags_and_ranges_are_read_in_linear_time(text: str) -> None:
    """Each of these would not end in this test's time if any of the expressions went back and tried again."""
    if not text.isdigit():
        assert parse_version(text + "_") is None
    with pytest.raises(ConfigError):
        VersionRange(text)

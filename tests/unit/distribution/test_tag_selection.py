"""Tags are chosen by rules that combine, and each decision has its reason."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import ConfigError
from aiodocker_images._distribution.patterns import RegexPattern
from aiodocker_images._distribution.tag_selection import TagSelection

SIGNATURE = f"sha256-{'a' * 64}.sig"
ALPINE = ["20240329", "3", "3.18", "3.18.5", "3.19", "3.20", "3.20.1", "3.21.0-rc1", "edge", "latest", SIGNATURE]


def chosen(tags: list[str], **rules: Any) -> list[str]:  # noqa: ANN401 - what the class is called with
    return list(TagSelection(**rules).select(tags).tags)


def test_without_rules_all_images_are_chosen_in_their_order() -> None:
    assert chosen(ALPINE) == ALPINE[:-1]


def test_names_are_chosen_exactly_and_alone_if_there_is_no_other_rule() -> None:
    """A list of tags is what a plan had before there were rules: those, and no others."""
    result = TagSelection(names=["latest", "3.20", "3.99"]).select(ALPINE)
    assert result.tags == ("3.20", "latest")
    assert result.missing == ("3.99",)


def test_names_are_added_to_what_the_rules_choose() -> None:
    assert chosen(ALPINE, names="edge", match="3.18*") == ["edge", "3.18", "3.18.5"]
    assert chosen(ALPINE, names="edge", semver=">=3.18", newest=1) == ["edge", "3.20.1"]


def test_globs_and_expressions_match_whole_tags_and_any_one_is_enough() -> None:
    assert chosen(ALPINE, match="3.1*") == ["3.18", "3.18.5", "3.19"]
    assert chosen(ALPINE, match=["edge", "lat*"]) == ["edge", "latest"]
    assert chosen(ALPINE, regex=r"3\.\d\d") == ["3.18", "3.19", "3.20"]
    assert chosen(ALPINE, regex=[r"3\.\d\d", "e.*"]) == ["3.18", "3.19", "3.20", "edge"]


def test_a_tag_must_meet_every_rule() -> None:
    assert chosen(ALPINE, match="3.*", regex=r".*\.5", semver="<3.20") == ["3.18.5"]
    assert chosen(ALPINE, match="3.2*", semver="<3.20") == []


def test_a_range_chooses_versions_and_neither_dates_nor_prereleases() -> None:
    assert chosen(ALPINE, semver=">=3.18") == ["3.18", "3.18.5", "3.19", "3.20", "3.20.1"]
    assert chosen(ALPINE, semver=">=3.20-0") == ["3.20", "3.20.1", "3.21.0-rc1"]


def test_the_newest_are_the_highest_versions_and_come_first() -> None:
    assert chosen(ALPINE, newest=3) == ["3.21.0-rc1", "3.20.1", "3.20"]
    assert chosen(ALPINE, newest=3, semver="*") == ["3.20.1", "3.20", "3.19"]
    assert chosen(["1.9", "1.10", "1.2"], newest=2) == ["1.10", "1.9"]
    assert chosen(["20240101", "20250101", "20230101"], newest=2) == ["20250101", "20240101"]
    assert chosen(["1"], newest=5) == ["1"]


def test_the_denied_are_never_chosen_and_do_not_count_as_newest() -> None:
    assert chosen(ALPINE, without="*-rc*", newest=2) == ["3.20.1", "3.20"]
    assert chosen(ALPINE, names="latest", without="latest") == []
    assert chosen(ALPINE, without=["3*", "[el]*", "2024????"]) == []


def test_tags_of_signatures_are_not_images_but_may_be_named() -> None:
    assert chosen(ALPINE, match="*sig") == []
    assert chosen(ALPINE, names=SIGNATURE) == [SIGNATURE]


def test_what_is_not_a_tag_is_never_chosen() -> None:
    assert chosen(["ok", "", "-x", "a/b", "x" * 129, "é", "a b"]) == ["ok"]


def test_a_tag_that_is_listed_twice_is_chosen_once() -> None:
    assert chosen(["1", "2", "1"]) == ["1", "2"]


def test_each_decision_has_its_reason() -> None:
    tags = [*ALPINE, "bad tag", "3.20-denied"]
    result = TagSelection(names="edge", match="[23e]*", semver=">=3.19", newest=2, without="*denied").select(tags)
    assert {tag: reason for tag, _, reason in result.decisions} == {
        "20240329": "it is a date, which is in no range of versions",
        "3": "its version is not in '>=3.19'",
        "3.18": "its version is not in '>=3.19'",
        "3.18.5": "its version is not in '>=3.19'",
        "3.19": "it is older than the newest 2",
        "3.20": "it matches '[23e]*', it is version 3.20.0 in '>=3.19', it is number 2 of the newest",
        "3.20.1": "it matches '[23e]*', it is version 3.20.1 in '>=3.19', it is number 1 of the newest",
        "3.21.0-rc1": "it is a prerelease, for which '>=3.19' does not ask",
        "edge": "it is chosen by name",
        "latest": "it does not match '[23e]*'",
        SIGNATURE: "it holds a signature or referrers, and is not an image",
        "bad tag": "it is not a valid tag",
        "3.20-denied": "it is excluded by '*denied'",
    }
    assert {tag for tag, is_chosen, _ in result.decisions if is_chosen} == set(result.tags)
    assert {each.reason for each in TagSelection().select(["1"]).decisions} == {"all images are chosen"}
    assert {each.reason for each in TagSelection(newest=1).select(["x"]).decisions} == {"it is not a version"}


@pytest.mark.parametrize(
    "rules",
    [
        {"names": "a b"},
        {"names": "3.*"},
        {"names": 5},
        {"match": [5]},
        {"match": "["},
        {"regex": "("},
        {"without": "["},
        {"semver": "latest"},
        {"semver": ""},
        {"semver": 3},
        {"newest": 0},
        {"newest": -1},
        {"newest": True},
        {"newest": "5"},
    ],
)
def test_rules_that_make_no_sense_are_refused_at_once(rules: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TagSelection(**rules)


def test_a_selection_is_read_from_a_document() -> None:
    document = {"semver": ">=3.18", "without": ["*-rc*"], "newest": 5, "match": "3.*"}
    read = msgspec.convert(document, TagSelection)
    assert read == TagSelection(semver=">=3.18", without=["*-rc*"], newest=5, match="3.*")
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"newst": 5}, TagSelection)


_TAGS = st.lists(
    st.builds("{}.{}{}".format, st.integers(0, 9), st.integers(0, 30), st.sampled_from(["", "-rc1", ".7", "-slim"]))
    | st.sampled_from(["latest", "edge", SIGNATURE, "20240329"])
    | st.text(max_size=4),
    max_size=40,
)
_RULES = st.fixed_dictionaries(
    {},
    optional={
        "names": st.lists(st.sampled_from(["latest", "1.1", "gone"]), max_size=2),
        "match": st.sampled_from(["1.*", ["2.*", "*-slim"], "*"]),
        "regex": st.sampled_from([r"\d\.\d+", "(a|a)*b", ".*"]),
        "semver": st.sampled_from([">=2", "^1.2", "1.x || >=5-0", "*"]),
        "newest": st.integers(1, 5),
        "without": st.sampled_from(["*-rc*", ["2.*", "latest"]]),
    },
)


@given(_TAGS, _RULES)
def test_a_selection_keeps_its_promises(tags: list[str], rules: dict[str, Any]) -> None:
    selection = TagSelection(**rules)
    result = selection.select(tags)
    assert set(result.tags) <= set(tags)
    assert len(set(result.tags)) == len(result.tags)
    assert [each.tag for each in result.decisions] == list(dict.fromkeys(tags))
    assert {each.tag for each in result.decisions if each.chosen} == set(result.tags)
    assert all(each.reason for each in result.decisions)
    assert not set(result.tags) & set(
        TagSelection(match=selection.without).select(tags).tags if selection.without else ()
    )
    if selection.newest is not None:
        assert len(set(result.tags) - set(selection.names)) <= selection.newest
    # What was chosen would be chosen again, and nothing that was not is needed for that.
    assert set(selection.select(result.tags).tags) == set(result.tags)
    # Another order of the same tags changes no decision.
    mixed = random.Random(7).sample(tags, len(tags))
    assert set(selection.select(mixed).tags) == set(result.tags)


def test_a_hundred_thousand_tags_are_chosen_from_with_few_steps_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted: the sets of steps that a pattern makes are few, however many tags there are."""
    made = 0
    reach = RegexPattern.reach

    def counted(self: RegexPattern, going: set[int], *, at_start: bool, at_end: bool) -> set[int]:
        nonlocal made
        made += 1
        return reach(self, going, at_start=at_start, at_end=at_end)

    monkeypatch.setattr(RegexPattern, "reach", counted)
    tags = [f"{major}.{minor}.{patch}-alpine" for major in range(10) for minor in range(100) for patch in range(100)]
    selection = TagSelection(match="[0-9]*-alpine", regex=r"\d+\.\d+\.\d+(-(alpine|slim))?", without="0.*", newest=5)
    assert selection.select(tags).tags == tuple(f"9.99.{patch}-alpine" for patch in range(99, 94, -1))
    assert made < 1000

"""Regular expressions mean what Python's `re` says, globs what Go's does, and no pattern takes more than its time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodocker_images import ConfigError
from aiodocker_images._distribution import patterns
from aiodocker_images._distribution.patterns import GlobPattern, RegexPattern, parse_regex
from tests.support.sweeps import examples

# Expressions over few letters, so that texts over them match often. One thing is never repeated twice in a row, which
# Python reads as something else.
_ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\.", "1", "[b-z.]", r"\w", "^", "$", "()", r"[\d-]"])
_REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}", "{1,}", "*?", "+?", "{,2}"])


def _repeated(parts: tuple[str, str]) -> str:
    return parts[0] if parts[0] in {"^", "$"} else "".join(parts)  # Python repeats no bare anchor


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    sequence = st.lists(st.tuples(inner, _REPEATS).map(_repeated), min_size=1, max_size=3).map("".join)
    return st.lists(sequence, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})")


_EXPRESSIONS = st.recursive(_ATOMS, _wider, max_leaves=6)
_TEXTS = st.text("ab1.-", max_size=6)


@given(_EXPRESSIONS, st.lists(_TEXTS, min_size=1, max_size=8))
@settings(max_examples=examples(500))
def test_an_expression_matches_what_python_says(text: str, tags: list[str]) -> None:
    expected = re.compile(text, re.ASCII)
    pattern = parse_regex(text)
    for tag in tags:
        assert pattern.matches(tag) == bool(expected.fullmatch(tag)), (text, tag)


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        (r"3\.\d+", ["3.20", "3.1"], ["3.20-rc", "13.20", "3."]),
        (r".*-alpine\d*", ["1-alpine", "1-alpine3"], ["alpine", "1-alpinex"]),
        (r"^v?[0-9]+$", ["v1", "22"], ["v", "v1.2"]),
        (r"(?P<major>\d+)(?:\.\d+){2}", ["1.2.3"], ["1.2"]),
        (r"(?i)LATEST|Edge", ["latest", "LaTeSt", "EDGE"], ["lates"]),
        (r"[\w.-]+", ["a_b.c-d"], [""]),
        (r"a{2,3}b{0}c", ["aac", "aaac"], ["ac", "aabc", "aaaac"]),
        (r"", [""], ["a"]),
        (r"|a", ["", "a"], ["b"]),
        (r"\Aa\Z", ["a"], ["b"]),
        (r"a\-b\+", ["a-b+"], ["a-bb"]),
        (r"[]a]", ["]", "a"], ["b"]),
        (r"[^]a]", ["b"], ["]", "a"]),
        (r"(?<x>a)", ["a"], ["x"]),
        (r"\W", ["-"], ["a"]),
        (r"a$b|c", ["c"], ["ab"]),
    ],
)
def test_expressions_are_those_of_python_and_go(text: str, yes: list[str], no: list[str]) -> None:
    pattern = parse_regex(text)
    assert [pattern.matches(each) for each in (*yes, *no)] == [True] * len(yes) + [False] * len(no)


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("3.*", ["3.20", "3."], ["3", "13.2"]),
        ("*-rc*", ["1-rc", "1-rc.2"], ["1rc"]),
        ("v?", ["v1"], ["v", "v12"]),
        ("[0-9].[^0-9]", ["1.x"], ["1.1"]),
        ("[^a]", ["b"], ["a"]),
        (r"a\*", ["a*"], ["ab"]),
        ("", [""], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("(a|b)", ["(a|b)"], ["a"]),
    ],
)
def test_globs_are_those_of_docker(text: str, yes: list[str], no: list[str]) -> None:
    pattern = GlobPattern(text)
    assert [pattern.matches(each) for each in (*yes, *no)] == [True] * len(yes) + [False] * len(no)


@pytest.mark.parametrize(
    "text",
    [
        "(",
        ")",
        "a)",
        "[a",
        "[]",
        "*",
        "+a",
        "a**",
        "a{",
        "a{x}",
        "a{2,1}",
        "a{99999}",
        "a{1",
        "\\",
        "[b-a]",
        r"[\d-z]x\1",
        r"(a)\1",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)",
        "(?>a)",
        "(?P=x)",
        "(?P<x",
        r"\bx",
        r"\p{L}",
        "a++",
        "a(?i)",
        "(" * 60 + ")" * 60,
        "a" * 1001,
        "(a{999}){999}",
        "((){999}){999}",
        "(((a*)*){999}){999}",
    ],
)
def test_what_is_not_an_expression_of_bounded_cost_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_regex(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["[", "[a", "[!a]", "\\", "[b-a]", "*" * 1001])
def test_what_is_not_a_glob_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        GlobPattern(text)


# Each of these takes exponential time, or nearly so, where a failed try is gone back on.
EVIL = [
    "(a|a)*b",
    "(a*)*b",
    "(a+)+b",
    "(a|aa)+b",
    "(.*)*.*b",
    "(a?){60}a{60}b",
    "(.*a){20}b",
    ".*a.{100}b",
    "((a*)*)*b",
    "(x+x+)+y|(a|a|a|a)*c",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
]


@pytest.mark.parametrize("text", EVIL)
def test_no_pattern_takes_more_than_steps_times_characters(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: how many steps are looked at for a text that fails at its last character."""
    looked_at = 0
    reach = RegexPattern.reach

    def counted(self: RegexPattern, going: set[int], *, at_start: bool, at_end: bool) -> set[int]:
        nonlocal looked_at
        reached = reach(self, going, at_start=at_start, at_end=at_end)
        looked_at += len(reached)
        return reached

    monkeypatch.setattr(RegexPattern, "reach", counted)
    pattern = parse_regex(text)
    for length in (10, 128, 5000):
        looked_at = 0
        assert not pattern.matches("a" * length + "!")
        # Twice a character: once on, once for the end.
        assert looked_at <= 2 * (length + 2) * len(pattern.steps)


def test_a_pattern_of_exponentially_many_sets_keeps_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.*a.{12}` needs a set for each of the 4096 ways in which the last characters were an a or not."""
    monkeypatch.setattr(patterns, "MAX_KEPT", 500)
    pattern = parse_regex(".*a.{12}")
    expected = re.compile(".*a.{12}")
    for number in range(1 << 13):
        tag = f"{number:013b}".replace("0", "a").replace("1", "b")
        assert pattern.matches(tag) == bool(expected.fullmatch(tag))
        assert sum(len(each.steps) + 1 for each in pattern.sets.values()) <= 500 + len(pattern.steps) + 1


def test_the_sets_of_a_common_pattern_are_kept() -> None:
    pattern = parse_regex(r"\d+\.\d+(-alpine)?")
    assert pattern.matches("3.20")
    kept = len(pattern.sets)
    assert pattern.matches("17.4")
    assert len(pattern.sets) == kept


@given(st.text(max_size=40))
@settings(max_examples=examples(500))
def test_any_text_is_a_pattern_or_our_error(text: str) -> None:
    for parse in (parse_regex, GlobPattern):
        try:
            pattern = parse(text)
        except ConfigError:
            continue
        pattern.matches("3.20-alpine")


@given(st.text("ab(){}[]*+?|.^$\\,-1234567890:<>P=!", max_size=40))
@settings(max_examples=examples(800))
def test_any_text_of_special_characters_is_a_pattern_or_our_error(text: str) -> None:
    try:
        pattern = parse_regex(text)
    except ConfigError:
        return
    assert len(pattern.steps) <= patterns.MAX_PROGRAM
    pattern.matches("ab" * 64)

"""A pattern matches what Go's `filepath.Match` and moby's matcher of `.dockerignore` match, at a low cost."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiodocker_images._glob import Glob

# From the tests of Go's path/filepath and of moby/patternmatcher.
MATCHES: list[tuple[str, str, bool]] = [
    ("abc", "abc", True),
    ("*", "abc", True),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "abc", True),
    ("a*", "ab/c", False),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^b-d]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("a?b", "a☺b", True),
    ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False),
    ("a[^a][^a][^a]b", "a☺b", False),
    ("[a-ζ]*", "δ", True),
    ("*[a-ζ]", "A", False),
    ("a?b", "a/b", False),
    ("a*b", "a/b", False),
    ("[\\]a]", "]", True),
    ("[\\-]", "-", True),
    ("[x\\-]", "x", True),
    ("[x\\-]", "-", True),
    ("[x\\-]", "z", False),
    ("[\\-x]", "x", True),
    ("[\\-x]", "a", False),
    ("*x", "xxx", True),
    ("**", "dir/file", True),
    ("**/**", "dir/file", True),
    ("dir/**", "dir/dir2/file", True),
    ("**/dir2/**", "dir/dir2/dir3/file", True),
    ("**/file*txt", "dir/dir/file.txt", True),
    ("**/file*.txt*", "dir/dir/file.txt", True),
    ("**/**/*.txt", "dir/dir/file.txt", True),
    ("**/**/*.txt2", "dir/dir/file.txt", False),
    ("a**/*.txt", "a/dir/dir/file.txt", True),
    ("a/*.txt", "a/dir/file.txt", False),
    ("a/*.txt**", "a/file.txt", True),
    ("abc/**", "abc", False),
    ("a(b)c/d*", "a(b)c/def", True),
    ("a.|)$(}+{b*", "a.|)$(}+{bc", True),
    ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", True),
    # A negated class takes a slash there, and so the name before it need not reach as far as it could.
    ("*[^q]*", "a/b", True),
    ("**/a**/b", "a/ab", True),
]


@pytest.mark.parametrize(("pattern", "text", "expected"), MATCHES, ids=ascii)
def test_a_pattern_matches_what_it_matches_in_docker(pattern: str, text: str, expected: bool) -> None:
    assert Glob(pattern).matches(text) is expected


BAD = ("[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[b-a]", "*[", "[Local-Only]", "[\\")


@pytest.mark.parametrize("pattern", BAD)
def test_what_docker_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\[|it ends too early"):
        Glob(pattern)


def moby(pattern: str) -> str:
    """Make the regular expression that moby makes of a pattern which has no backslash in it."""

    def parts() -> Iterator[str]:
        rest = pattern
        while rest:
            char, rest = rest[0], rest[1:]
            if char == "*" and rest.startswith("*"):
                rest = rest[1:].removeprefix("/")
                yield "(.*/)?" if rest else ".*"
            elif char == "*":
                yield "[^/]*"
            elif char == "?":
                yield "[^/]"
            elif char in "[]^-":
                yield char if char != "^" or pattern[: len(pattern) - len(rest)].endswith("[^") else "\\^"
            else:
                yield re.escape(char)

    return "".join(parts())


TOKEN = st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "[a]", "[^a]", "[a-b]", "[^/]", ".", "\n"])


@given(st.lists(TOKEN, max_size=7).map("".join), st.text(st.sampled_from("aab//.\n"), max_size=7))
@example("**/**/*", "a/b")
@example("***", "")
@example("*a**/?", "ba/b")
def test_any_pattern_matches_as_mobys_regular_expression(pattern: str, text: str) -> None:
    """Short ones: the standard library's engine takes backtracking's time for it."""
    assert Glob(pattern).matches(text) is bool(re.fullmatch(moby(pattern), text))


class Counted(str):
    """A text that counts how often one of its characters is looked at."""

    __slots__ = ("steps",)
    steps: int

    def __iter__(self) -> Iterator[str]:
        self.steps = 0
        for char in str.__iter__(self):
            self.steps += 1
            yield char


HARD: list[tuple[str, str]] = [
    ("*a" * 200 + "*[b]", "a" * 4000 + "/"),
    ("?*" * 200 + "[b]", "a" * 4000),
    ("**/a" * 200 + "*/[x]", "a/" * 4000 + "y"),
    ("**/*" * 200 + "*[x]", "a/" * 4000 + "y"),
    ("a**" * 200 + "[^/]?", "a/" * 4000),
    ("*[^b]" * 200 + "*", "a/" * 4000),
]


@pytest.mark.parametrize(("pattern", "text"), HARD, ids=lambda each: each[:8])
def test_each_character_of_a_text_is_looked_at_once(pattern: str, text: str) -> None:
    counted = Counted(text)
    Glob(pattern).matches(counted)
    assert 0 < counted.steps <= len(text)


def test_a_text_that_is_shorter_than_a_pattern_is_not_even_looked_at() -> None:
    """A line of a `.dockerignore` may be 1 MiB long, and what is prepared of one grows with its square."""
    counted = Counted("a" * 4096)
    assert not Glob("*a" * (1 << 19)).matches(counted)
    assert not hasattr(counted, "steps")

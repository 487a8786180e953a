"""What a `.dockerignore` leaves out is what Docker leaves out: patterns, exceptions, and the order that decides."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._archive.dockerignore import NO_PARENT, IgnoreRules, read_patterns
from aiodocker_images.errors import ConfigError


def ignored(patterns: Sequence[str], path: str, keep: Sequence[str] = ()) -> bool:
    """Walk down to the path, as a walk through the directory does."""
    rules, inherited, result = IgnoreRules(patterns, keep=keep), NO_PARENT, False
    names = path.split("/")
    for depth in range(1, len(names) + 1):
        result, inherited = rules.ignores("/".join(names[:depth]), inherited)
    return result


READ: list[tuple[bytes, list[str]]] = [
    (b"", []),
    (b"a\nb\n", ["a", "b"]),
    (b"a\r\nb\r\n", ["a", "b"]),
    (b"\xef\xbb\xbfa\nb", ["a", "b"]),
    (b"# a comment\na\n#b", ["a"]),
    (b" # a pattern, not a comment", ["# a pattern, not a comment"]),
    (b"\n  \n\t\na\n\n", ["a"]),
    (b"  a b \t", ["a b"]),
    (b"/a\n/a/b/\n//c", ["a", "a/b", "c"]),
    (b"./a\na/./b\na/../b\na//b\n", ["a", "a/b", "b", "a/b"]),
    (b"!a\n! /b\n !c", ["!a", "!b", "!c"]),
    (b"/\n.\n", ["/", "."]),
    (b"../a", ["../a"]),
    (b"caf\xc3\xa9\nbad\xff", ["café", "bad\udcff"]),
    (b"a\x0bb", ["a\x0bb"]),
]


@pytest.mark.parametrize(("content", "patterns"), READ, ids=lambda each: ascii(each)[:30])
def test_a_file_is_read_line_by_line(content: bytes, patterns: list[str]) -> None:
    assert read_patterns(content) == patterns


MATCHES: list[tuple[str, str, bool]] = [
    # plain names, and what is in them
    ("a", "a", True),
    ("a", "a/b/c", True),
    ("a", "b/a", False),
    ("a", "ab", False),
    ("a/b", "a/b", True),
    ("a/b", "a/b/c", True),
    ("a/b", "a", False),
    ("a.b", "a.b", True),
    ("a.b", "aXb", False),
    ("a(b)|c+{d}$^", "a(b)|c+{d}$^", True),
    ("/", "a", False),
    (".", "a", False),
    # one name's wildcards
    ("*", "a", True),
    ("*", "a/b", True),
    ("*.go", "a.go", True),
    ("*.go", "a/b.go", False),
    ("*/b.go", "a/b.go", True),
    ("*/b.go", "a/a/b.go", False),
    ("a*", "a", True),
    ("a*c", "a/c", False),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("a?c", "aéc", True),
    ("*.?", "a+(b).c", True),
    # any number of directories
    ("**", "a", True),
    ("**", "a/b", True),
    ("**/*", "a/b", True),
    ("**/a", "a", True),
    ("**/a", "x/y/a", True),
    ("**/a", "x/a/y", True),
    ("**/a", "x/ba", False),
    ("**a", "x/ba", True),
    ("**.go", "x/y/a.go", True),
    ("**/*.go", "a.go", True),
    ("**/*.go", "x/y/a.go", True),
    ("**/*.go", "x/y/a.goo", False),
    ("a/**", "a/b/c", True),
    ("a/**", "a", False),
    ("a/**", "ab/c", False),
    ("a**", "ab/c", True),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "a/xb", False),
    ("a**/*.txt", "a/x/y.txt", True),
    ("a**/*.txt", "ab/y.txt", True),
    ("**/a/**", "x/a/y", True),
    ("**/a/**", "x/a", False),
    ("**/**/**/a", "x/a", True),
    ("***", "a", True),
    ("****", "a/b", True),
    # classes
    ("a[b-d]e", "ace", True),
    ("a[b-d]e", "aae", False),
    ("a[^b-d]e", "aze", True),
    ("a[^b-d]e", "ace", False),
    ("[a-cx-z]", "y", True),
    ("[!a]", "!", True),  # no negation, unlike in a shell
    ("[!a]", "b", False),
    ("[[]", "[", True),
    ("[&&x]", "&", True),
    ("[\\]]", "]", True),
    ("[\\-x]", "-", True),
    ("[*]", "*", True),
    ("[a-a]]", "a]", True),
    ("a]", "a]", True),
    # a backslash makes the next character plain
    ("\\*", "*", True),
    ("\\*", "a", False),
    ("\\*\\*", "**", True),
    ("\\*\\*", "*", False),
    ("\\?\\?", "??", True),
    ("\\a", "a", True),
    ("a\\\\b", "a\\b", True),
    # bytes that are no UTF-8, and what would end or begin a line of a regular expression
    ("bad?", "bad\udcff", True),
    ("*", "a\nb", True),
    ("a", "a\n", False),
    ("a*", "a\n", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), MATCHES, ids=ascii)
def test_a_pattern_leaves_out_what_docker_leaves_out(pattern: str, path: str, expected: bool) -> None:
    assert ignored([pattern], path) is expected


ORDER: list[tuple[list[str], str, bool]] = [
    (["*", "!a"], "a", False),
    (["*", "!a"], "b", True),
    (["*", "!a"], "a/b", False),
    (["!a", "*"], "a", True),
    (["a", "!a", "a"], "a", True),
    (["a", "!a/b"], "a/b", False),
    (["a", "!a/b"], "a/c", True),
    (["a", "!a/b", "a/b/c"], "a/b/c", True),
    (["a", "!a/b", "a/b/c"], "a/b/d", False),
    (["*.md", "!README*.md", "README-secret.md"], "README.md", False),
    (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
    (["*.md", "README-secret.md", "!README*.md"], "README-secret.md", False),
    (["**", "!**/*.go"], "a/b/c.go", False),
    (["**", "!**/*.go"], "a/b/c.md", True),
    (["!a"], "b", False),
    ([], "a", False),
    # As in moby's walks: a rule that decided nothing for a directory does not come back for its entries.
    (["a", "!a/b/c", "a/b"], "a/b/c", False),
]


@pytest.mark.parametrize(("patterns", "path", "expected"), ORDER, ids=ascii)
def test_the_last_pattern_that_matches_decides(patterns: list[str], path: str, expected: bool) -> None:
    assert ignored(patterns, path) is expected


BAD = [
    "[]a]",
    "[-]",
    "[x-]",
    "[-x]",
    "[a-b-c]",
    "[",
    "[^",
    "[^bc",
    "[^]",
    "a[",
    "a\\",
    "[b-a]",
    "!",
    "!/",
    "![",
    "**/[",
]


@pytest.mark.parametrize("pattern", BAD)
def test_what_is_no_pattern_is_an_error_that_shows_it(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        IgnoreRules(read_patterns(pattern.encode()))
    assert ascii(pattern.removeprefix("!").removesuffix("/") or "!") in str(caught.value)
    assert "in a .dockerignore" in str(caught.value)


def test_what_is_kept_is_kept_by_its_very_name() -> None:
    assert not ignored(["**"], "a/[x]*", keep=["a/[x]*"])
    assert ignored(["**"], "a/x", keep=["a/[x]*"])


BELOW: list[tuple[list[str], str, bool]] = [
    (["*"], "a", False),
    (["*", "!a/b"], "a", True),
    (["*", "!a/b/c"], "a/b", True),
    (["*", "!a/b"], "ab", False),
    (["*", "!a/**"], "b", False),
    (["*", "!a/*"], "a", True),
    (["*", "!**/b"], "a", True),
    (["*", "!x?z/b"], "a", True),
]


@pytest.mark.parametrize(("patterns", "directory", "expected"), BELOW, ids=ascii)
def test_a_directory_is_looked_into_where_an_exception_can_be_in_it(
    patterns: list[str], directory: str, expected: bool
) -> None:
    assert IgnoreRules(patterns).may_keep_below(directory) is expected


NAME = st.text(st.sampled_from("ab.*?[]^\\!-\n"), min_size=1, max_size=4)
PATH = st.lists(NAME.filter(lambda name: name != "."), min_size=1, max_size=4).map("/".join)


@given(PATH)
def test_any_path_is_matched_by_its_own_name_escaped(path: str) -> None:
    """A class of one member, unlike a backslash, hides the meaning of spaces, slashes and ! at the start, too."""
    names = (re.sub(r"(.)", r"[\\\1]", name, flags=re.DOTALL) for name in path.split("/"))
    assert ignored(["/".join(names)], path)


@given(st.lists(PATH, max_size=4), PATH)
def test_any_text_is_a_pattern_or_an_error(patterns: list[str], path: str) -> None:
    try:
        result = ignored(patterns, path)
    except ConfigError:
        return
    assert ignored([*patterns, "**"], path)
    assert not ignored([*patterns, "**"], path, keep=[path])
    assert result in (True, False)


def test_the_message_about_a_bad_pattern_quotes_only_its_beginning() -> None:
    with pytest.raises(ConfigError) as caught:
        IgnoreRules(["a" * 500 + "["])
    assert len(str(caught.value)) < 200

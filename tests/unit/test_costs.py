"""Whatever a user, a registry or an Engine says, to match and to read it costs no more than a low power of its size.

No time is measured. The lines of Python that run are counted; what runs in C, such as a regular expression, is tried in
a program of its own, which ends within a limit that anything of a higher cost would exceed by hours.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest

from aiodocker_images import (
    DockerError,
    Endpoint,
    FrameDecodeError,
    MirrorPlan,
    Platform,
    ProgressFrame,
    Reference,
    TagSelection,
)
from aiodocker_images._api.json_stream import FrameDecoder
from aiodocker_images._archive.dockerfile import may_copy
from aiodocker_images._archive.dockerignore import IgnoreRules, read_patterns
from aiodocker_images._distribution.challenges import parse_challenges
from aiodocker_images._distribution.paging import next_page
from aiodocker_images._distribution.patterns import parse_regex
from aiodocker_images._distribution.refusals import read_errors, retry_after
from aiodocker_images._distribution.versions import VersionRange, parse_version
from aiodocker_images._dockercli.config import JSONConfig
from aiodocker_images._encoding import encode_filters
from aiodocker_images._glob import Glob
from aiodocker_images._http.build_failures import build_error
from aiodocker_images._http.documents import check_objects
from aiodocker_images._http.refusals import api_error_class, plain_text, read_error, version_refused
from aiodocker_images._lenient import decode_leniently
from aiodocker_images.cli.gotemplate.template import Template
from aiodocker_images.cli.gotemplate.values import untyped
from aiodocker_images.cli.terminal import clean
from aiodocker_images.models import ImageSummary
from tests.support import expressions

HANG = 90.0
"""Seconds after which a program that needs one or two is taken for one that hangs."""


def test_no_regular_expression_hangs_on_a_text_that_was_made_to_fail_it() -> None:
    """Each is tried on repetitions of all that it repeats, as it is used: fullmatch, match, search, sub, finditer.

    Every place in the package that makes one is found in the source, and the program fails for one that it cannot try:
    an expression is made when its module is imported, or is written where it is used.
    """
    program = [sys.executable, "-m", "tests.support.expressions", "1000"]
    try:
        ended = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, timeout=HANG, check=False)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"this expression hangs: {(error.stdout or b'').decode().splitlines()[-1:]}")
    assert ended.returncode == 0, ended.stderr.decode()
    *tried, last = ended.stdout.splitlines()
    assert last == b"all"
    assert len(tried) >= len(expressions.uses()) > 100


@dataclass(frozen=True)
class Matcher:
    """Something that reads or matches; `run` does it with an input of about a size that was made against it.

    `power` is the highest one of the size that its cost may grow with.
    """

    name: str
    run: Callable[[int], object]
    power: int = 1


def glob(pattern: str, text: str) -> object:
    return Glob(pattern).matches(text)


def ignored(content: str, path: str) -> object:
    return IgnoreRules(read_patterns(content.encode())).leaves_out(path)


def frame(data: bytes) -> object:
    decoder = FrameDecoder(ProgressFrame)
    fed = decoder.feed(data)
    return [*fed, *decoder.finish()]


def frames_byte_by_byte(data: bytes) -> object:
    decoder = FrameDecoder(ProgressFrame)
    return [decoder.feed(data[at : at + 1]) for at in range(len(data))]


def template(text: str) -> object:
    return Template(text).execute(untyped({"a": "b"}))


def odd_images(data: bytes) -> object:
    return decode_leniently(b"[" + data + b"{}]", tuple[ImageSummary, ...])


MATCHERS: list[Matcher] = [
    Matcher("glob: stars", lambda n: glob("*a" * 12 + "b", "a" * n)),
    Matcher("glob: as many stars as letters", lambda n: glob("*a" * n + "b", "a" * n), 2),
    Matcher("glob: question marks and stars", lambda n: glob("?*" * n + "b", "a" * n), 2),
    Matcher("glob: classes", lambda n: glob("*[a-z]" * 12 + "[0-9]", "a" * n)),
    Matcher("glob: directories", lambda n: glob("**/a/" * 12 + "b", "a/" * n)),
    Matcher("ignore rules: stars", lambda n: ignored("*a" * 12 + "b", "a" * n)),
    Matcher("ignore rules: question marks", lambda n: ignored("?*" * 12 + "b", "a" * n)),
    Matcher("ignore rules: directories", lambda n: ignored("**/*a*/" * 12 + "b", "aa/" * n), 2),
    Matcher("ignore rules: many of them", lambda n: ignored("a*b\n!a*c\n" * n, "a" * 50)),
    Matcher("ignore rules: dots", lambda n: ignored("./" * n + "a", "a")),
    Matcher("dockerfile: sources", lambda n: may_copy(b"COPY " + b"*a" * 12 + b"b /\n" * n, "a" * 60)),
    Matcher("dockerfile: continued lines", lambda n: may_copy(b"RUN a \\\n" * n, "a")),
    Matcher("dockerfile: one long line", lambda n: may_copy(b"COPY " + b"a " * n, "a")),
    Matcher("a name: components", lambda n: Reference.parse("a/" * n + "a")),
    Matcher("a name: joints", lambda n: Reference.parse("a-" * n + "!")),
    Matcher("a name: colons", lambda n: Reference.parse("a:" * n)),
    Matcher("a name: digests", lambda n: Reference.parse("a@sha256:" + "a" * n)),
    Matcher("a platform: features", lambda n: Platform.parse("windows(1" + "+a" * n + "!")),
    Matcher("a platform: escapes", lambda n: Platform.parse("windows(" + "%41" * n + "%)/amd64")),
    Matcher("an endpoint", lambda n: Endpoint.parse("tcp://" + "a." * n + ":x")),
    Matcher("an endpoint: a path", lambda n: Endpoint.parse("ssh://a" + "/a" * n + "/..")),
    Matcher("a challenge: parameters", lambda n: parse_challenges(["Bearer " + 'a="b",' * n])),
    Matcher("a challenge: commas", lambda n: parse_challenges(["," * n + "!"])),
    Matcher("a challenge: quotes", lambda n: parse_challenges(['Bearer a="' + '\\"' * n])),
    Matcher("a challenge: spaces", lambda n: parse_challenges(["Bearer" + " " * n + "=" + " " * n + "!"])),
    Matcher("links: openings", lambda n: next_page(["<" * n])),
    Matcher("links: many", lambda n: next_page(['<a>; rel="prev", ' * n])),
    Matcher("links: spaces", lambda n: next_page(["<a>;" + " " * n + "rel=" + "a " * n]), 2),
    Matcher("a pause", lambda n: retry_after("1" * n + "x")),
    Matcher("errors of a registry", lambda n: read_errors(b'{"errors":[' + b'{"code":"A"},' * n + b"{}]}")),
    Matcher("a version", lambda n: parse_version("1." * n + "x")),
    Matcher("a range of versions", lambda n: VersionRange(">=1 " * n)),
    Matcher("a range of versions: alternatives", lambda n: VersionRange("1 || " * n + "1")),
    Matcher("tags: an expression", lambda n: parse_regex("(a*)*b").matches("a" * n)),
    Matcher("tags: choices", lambda n: parse_regex("(a|a|aa)*$").matches("a" * n + "b")),
    Matcher("tags: options", lambda n: parse_regex("a?" * 20 + "a" * 20).matches("a" * n)),
    Matcher("tags: many", lambda n: TagSelection(match=("*a" * 12 + "b",)).select("a" * 60 + str(i) for i in range(n))),
    Matcher("a JSON file: openings", lambda n: JSONConfig.parse("{" * n, "a file")),
    Matcher("a JSON file: text behind it", lambda n: JSONConfig.parse("{}" + "}" * n, "a file")),
    Matcher("a JSON file: quotes", lambda n: JSONConfig.parse('{"a":"' + '\\"' * n, "a file")),
    Matcher("filters", lambda n: encode_filters({"label": ["*a" * 12] * n})),
    Matcher("a frame: openings", lambda n: frame(b"{" * n)),
    Matcher("a frame: quotes", lambda n: frame(b'{"a":"' + b'\\"' * n)),
    Matcher("a frame: many", lambda n: frame(b'{"status":"a"}' * n)),
    Matcher("a frame: many, byte by byte", lambda n: frames_byte_by_byte(b'{"status":"a"}' * n)),
    Matcher("an error: its class", lambda n: api_error_class(500, "toomanyrequests " * n)),
    Matcher("an error: its class, status texts", lambda n: api_error_class(None, "status code 4" * n)),
    Matcher("an error: HTML", lambda n: plain_text(b"<style" * n)),
    Matcher("an error: tags", lambda n: plain_text(b"<a>" * n)),
    Matcher("an error: a document", lambda n: read_error(500, "X", b'{"message":' * n)),
    Matcher("an error: versions", lambda n: version_refused("client version 1" + ".1" * n)),
    Matcher("a failed build", lambda n: build_error(None, 'process "' + '\\"' * n, None)),
    Matcher("a failed build: solving", lambda n: build_error(None, "rpc error: code = a desc = " * n, None)),
    Matcher("a document: objects", lambda n: check_objects(b"[" * n)),
    Matcher(
        "an odd document", lambda n: decode_leniently(b"[" + b'{"Created":"x"},' * n + b"{}]", tuple[ImageSummary, ...])
    ),
    Matcher("words for a terminal", lambda n: clean("\x1b[" * n + "\x1b]" * n)),
    Matcher("a template: braces", lambda n: template("{{" * n)),
    Matcher("a template: fields", lambda n: template("{{.a}}" * n)),
    Matcher("a template: spaces", lambda n: template("{{" + " " * n + "!}}")),
    Matcher("a plan: a typo at its end", lambda n: MirrorPlan.parse("[[image]]\nsource = 'a'\n" * n + "typo = 1\n")),
    Matcher("a plan: brackets", lambda n: MirrorPlan.parse("a = " + "[" * min(n, 300))),
]


class Counter:
    """Counts the lines of Python that run."""

    def __init__(self) -> None:
        self.lines = 0

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ANN401 - as in sys.settrace
        if event == "line":
            self.lines += 1
        return self.trace


def lines_of(matcher: Matcher, size: int) -> int:
    counter, before = Counter(), sys.gettrace()
    with contextlib.suppress(DockerError, ValueError, FrameDecodeError, msgspec.DecodeError, RecursionError):
        sys.settrace(counter.trace)
        try:
            matcher.run(size)
        finally:
            sys.settrace(before)
    return counter.lines


@pytest.mark.parametrize("matcher", MATCHERS, ids=[each.name for each in MATCHERS])
def test_what_is_matched_and_read_costs_a_low_power_of_its_size(matcher: Matcher) -> None:
    lines_of(matcher, 10)  # what is made once, at the first need of it
    small, middle, large = (lines_of(matcher, size) for size in (50, 100, 200))
    assert middle <= 2**matcher.power * small + 2000
    assert large <= 2**matcher.power * middle + 2000


PROGRAM = """
import contextlib, sys
from tests.unit.test_costs import MATCHERS
for matcher in MATCHERS:
    print(matcher.name, flush=True)
    with contextlib.suppress(Exception):
        matcher.run(int(sys.argv[1]) if matcher.power == 1 else int(sys.argv[1]) // 20)
print("all")
"""


def test_nothing_that_is_matched_or_read_hangs() -> None:
    program = [sys.executable, "-c", PROGRAM, "5000"]
    try:
        ended = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, timeout=HANG, check=False)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"this hangs: {(error.stdout or b'').decode().splitlines()[-1:]}")
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stdout.splitlines()[-1] == b"all"

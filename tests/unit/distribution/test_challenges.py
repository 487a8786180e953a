"""How `WWW-Authenticate` is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._distribution.challenges import Challenge, parse_challenges

READ = {
    'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"': [
        Challenge(
            "bearer",
            {"realm": "https://auth.example/token", "service": "registry", "scope": "repository:a/b:pull,push"},
        )
    ],
    'Basic realm="Registry Realm"': [Challenge("basic", {"realm": "Registry Realm"})],
    "Basic": [Challenge("basic")],
    'Bearer realm=https://a/t , service = "s"': [Challenge("bearer", {"realm": "https://a/t", "service": "s"})],
    'Basic realm="a, Bearer realm=b", Bearer realm="c"': [
        Challenge("basic", {"realm": "a, Bearer realm=b"}),
        Challenge("bearer", {"realm": "c"}),
    ],
    r'Bearer realm="quoted \" and \\"': [Challenge("bearer", {"realm": r'quoted " and \ '.strip()})],
    'Bearer realm="first",realm="second"': [Challenge("bearer", {"realm": "first"})],
    'Bearer realm="never ends': [Challenge("bearer"), Challenge("realm")],
    "": [],
    "=": [],
    "\x00": [],
}


@pytest.mark.parametrize(("header", "challenges"), READ.items())
def test_a_header_is_read_as_challenges(header: str, challenges: list[Challenge]) -> None:
    assert parse_challenges([header]) == challenges


def test_several_headers_are_read_in_their_order() -> None:
    assert [each.scheme for each in parse_challenges(["Negotiate", 'Basic realm="r"'])] == ["negotiate", "basic"]


def test_the_scopes_of_a_challenge_are_separated_by_spaces() -> None:
    (challenge,) = parse_challenges(['Bearer realm="r",scope="repository:a:pull repository:b:pull"'])
    assert challenge.scopes == ("repository:a:pull", "repository:b:pull")


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(header: str) -> None:
    for challenge in parse_challenges([header]):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize("part", ['"', "a=", 'a="', "\\", " ", ",", 'a="\\'])
def test_a_long_header_takes_linear_time(part: str) -> None:
    assert len(parse_challenges([part * 1_000_000])) <= 8 << 10

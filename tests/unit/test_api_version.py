"""Versions are ordered as versions are, and a parameter is known from its version on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images.api_version import MAXIMUM, MINIMUM, APIVersion, first_version, negotiated, require
from aiodocker_images.errors import ConfigError, UnsupportedAPIVersionError

NUMBER = st.integers(0, 9999)
VERSION = st.builds(APIVersion, NUMBER, NUMBER)

READ = [
    ("1.41", (1, 41)),
    ("v1.41", (1, 41)),
    ("1.9", (1, 9)),
    ("1.100", (1, 100)),
    ("2.0", (2, 0)),
    ("01.041", (1, 41)),
    ("9999.9999", (9999, 9999)),
]


@pytest.mark.parametrize(("text", "parts"), READ)
def test_a_version_is_two_numbers(text: str, parts: tuple[int, int]) -> None:
    assert APIVersion.parse(text) == parts


UNREADABLE = ["", "1", "1.", ".41", "1.41.0", "v", "V1.41", "vv1.41", " 1.41", "1.41 ", "1.41\n", "1,41", "-1.41"]
ODD = ["1.-41", "1.4x", "latest", "auto", "1.41-rc1", "1.12345", "1e1.1", "1.41\0", "1_0.4"]
FOREIGN_DIGITS = ["\u0661.\u0664\u0661", "1.\uff14\uff11"]


@pytest.mark.parametrize("text", [*UNREADABLE, *ODD, *FOREIGN_DIGITS], ids=ascii)
def test_nothing_else_is_a_version(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        APIVersion.parse(text)
    assert repr(text) in str(caught.value)


@given(VERSION)
def test_a_version_survives_its_text(version: APIVersion) -> None:
    assert APIVersion.parse(str(version)) == version
    assert APIVersion.parse(f"v{version}") == version


@given(VERSION, VERSION)
def test_versions_are_ordered_by_number_and_not_by_letter(one: APIVersion, other: APIVersion) -> None:
    assert (one < other) == ((one.major, one.minor) < (other.major, other.minor))


def test_1_9_is_older_than_1_41() -> None:
    assert APIVersion.parse("1.9") < APIVersion.parse("1.41") < APIVersion.parse("1.100") < APIVersion.parse("2.0")


NEGOTIATED = [
    ("1.41", "1.41"),  # Docker 20.10
    ("1.45", "1.45"),  # Docker 26
    ("1.51", "1.51"),  # Docker 28
    ("1.55", "1.55"),
    ("1.56", "1.56"),
    ("1.57", "1.56"),
    ("1.400", "1.56"),
    ("2.0", "1.56"),
]


@pytest.mark.parametrize(("daemon", "spoken"), NEGOTIATED)
def test_the_older_of_both_versions_is_spoken(daemon: str, spoken: str) -> None:
    assert str(negotiated(APIVersion.parse(daemon))) == spoken


@pytest.mark.parametrize("daemon", ["1.40", "1.24", "0.99", "1.9"])
def test_a_daemon_below_the_floor_is_refused_with_both_versions_named(daemon: str) -> None:
    with pytest.raises(UnsupportedAPIVersionError) as caught:
        negotiated(APIVersion.parse(daemon))
    assert str(caught.value) == f"this client needs Engine API 1.41 or newer, but this connection speaks {daemon}"
    assert caught.value.actual == daemon


@given(VERSION)
def test_what_is_negotiated_is_spoken_by_both(daemon: APIVersion) -> None:
    try:
        spoken = negotiated(daemon)
    except UnsupportedAPIVersionError:
        assert daemon < MINIMUM
    else:
        assert MINIMUM <= spoken <= min(MAXIMUM, daemon)


def test_a_parameter_is_refused_below_its_version_and_from_it_on_is_not() -> None:
    """Which parameter came when is for the contract's tests to say."""
    version = first_version("push", "platform")
    require("push", "platform", version)
    require("push", "platform", MAXIMUM)
    older = version._replace(minor=version.minor - 1)
    with pytest.raises(UnsupportedAPIVersionError) as caught:
        require("push", "platform", older)
    error = caught.value
    assert (error.feature, error.required, error.actual) == ("'platform' of push", str(version), str(older))


@pytest.mark.parametrize(("operation", "parameter"), [("pull", "platform"), ("list", "all"), ("push", "tag")])
def test_what_every_version_knows_is_never_refused(operation: str, parameter: str) -> None:
    assert first_version(operation, parameter) == MINIMUM
    require(operation, parameter, MINIMUM)

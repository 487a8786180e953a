"""How a registry's error answers become our errors."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from aiodocker_images import (
    APIError,
    ConflictError,
    ForbiddenError,
    InvalidParameterError,
    NoSpaceError,
    NotFoundError,
    RateLimit,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
)
from aiodocker_images._distribution.refusals import rate_limit, read_errors, refusal, retry_after, says_immutable


def errors(*each: dict[str, object]) -> bytes:
    return json.dumps({"errors": each}).encode()


CLASSES = {
    (400, "MANIFEST_INVALID"): InvalidParameterError,
    (401, "UNAUTHORIZED"): UnauthorizedError,
    (403, "DENIED"): ForbiddenError,
    (404, "MANIFEST_UNKNOWN"): NotFoundError,
    (405, "UNSUPPORTED"): APIError,
    (409, "CONFLICT"): ConflictError,
    (413, "SIZE_INVALID"): APIError,
    (429, "TOOMANYREQUESTS"): RateLimitedError,
    (403, "TOOMANYREQUESTS"): RateLimitedError,
    (500, "UNKNOWN"): ServerError,
    (502, "UNAUTHORIZED"): ServerError,
    (507, "UNKNOWN"): NoSpaceError,
}


@pytest.mark.parametrize(("status", "code"), CLASSES)
def test_status_and_code_choose_the_class(status: int, code: str) -> None:
    error = refusal(status, "Reason", {}, errors({"code": code, "message": "told"}), challenged=True)
    assert type(error) is CLASSES[status, code]
    assert (error.status, error.code, error.message) == (status, code, f"{code}: told")


def test_a_401_without_a_challenge_refuses_the_credentials() -> None:
    assert type(refusal(401, None, {}, b"", challenged=False)) is ForbiddenError


def test_a_full_disk_of_the_registry_is_told_by_its_words() -> None:
    body = errors({"code": "UNKNOWN", "message": "unknown error", "detail": "write: no space left on device"})
    assert type(refusal(500, None, {}, body, challenged=False)) is NoSpaceError


def test_a_full_disk_of_distribution_2_8_is_known_by_its_error_number() -> None:
    detail = {"DriverName": "filesystem", "Enclosed": {"Op": "write", "Path": "/var/lib/registry", "Err": 28}}
    body = errors({"code": "UNKNOWN", "message": "unknown error", "detail": detail})
    assert type(refusal(500, None, {}, body, challenged=False)) is NoSpaceError


MESSAGES = {
    errors({"code": "A", "message": "one"}, {"code": "B", "message": "two"}): ("A", "A: one; B: two"),
    errors({"code": "A", "message": "one", "detail": "more"}): ("A", "A: one (more)"),
    errors({"code": "A", "message": "one", "detail": {"x": 1}}): ("A", "A: one"),
    errors({"code": 7, "message": None}): (None, '{"errors": [{"code": 7, "message": null}]}'),
    b'{"errors": null}': (None, '{"errors": null}'),
    b"<html><style>x</style><h1>Bad Gateway</h1></html>": (None, "Bad Gateway"),
    b"plain  words\n": (None, "plain words"),
    b"\x00\x01": (None, ""),
    b"": (None, ""),
    b'{"errors": [' + b"[" * 100_000: (None, None),
}


@pytest.mark.parametrize(("body", "expected"), MESSAGES.items())
def test_the_body_of_an_error_is_read_in_any_form(body: bytes, expected: tuple[str | None, str | None]) -> None:
    code, message = read_errors(body)
    assert code == expected[0]
    if expected[1] is None:
        assert len(message) <= 2001
    else:
        assert message == expected[1]


def test_a_refusal_without_words_has_the_reason_of_its_status_line() -> None:
    assert refusal(418, "I'm a teapot", {}, b"", challenged=False).message == "I'm a teapot"


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    assert retry_after("3") == 3.0
    assert retry_after(" 0.5 ") == 0.5
    later = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
    assert later is not None
    assert 90 < later <= 100
    assert retry_after(format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)) == 0.0


@pytest.mark.parametrize("value", [None, "", "soon", "-1", "1e9", "9" * 400, "٣", "Thu, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_none(value: str | None) -> None:
    assert retry_after(value) is None


def test_the_pulls_that_are_left_are_read_as_docker_hub_tells_them() -> None:
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
    assert rate_limit(headers) == RateLimit(limit=100, remaining=76, window=21600)
    assert rate_limit({"ratelimit-remaining": "7"}) == RateLimit(remaining=7)
    assert rate_limit({"ratelimit-limit": "much"}) is None


@pytest.mark.parametrize(
    ("status", "message", "immutable"),
    [
        (400, "TAG_INVALID: The image tag '1' already exists and cannot be overwritten: the tag is immutable", True),
        (412, "PRECONDITION: Failed to process request due to '1' configured as immutable.", True),
        (400, "MANIFEST_INVALID: manifest invalid", False),
        (500, "immutable", False),
    ],
)
def test_a_tag_that_must_not_be_moved_is_told_by_the_words_of_registries(
    status: int, message: str, immutable: bool
) -> None:
    assert says_immutable(APIError(message, status=status)) is immutable

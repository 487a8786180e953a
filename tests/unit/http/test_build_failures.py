"""The class of a failed build is decided by who speaks: not by words of its own commands, files and lines."""

from __future__ import annotations

import pytest

from aiodocker_images import (
    APIError,
    BuildStepError,
    ForbiddenError,
    InvalidParameterError,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
)
from aiodocker_images._http.build_failures import build_error

WORDS = [
    "no space left on device",
    "toomanyrequests: slow down",
    "unauthorized: authentication required",
    "manifest unknown",
    "denied: requested access to the resource is denied",
    "pull access denied for x",
    "status code: 429",
    'says "denied: x": too many requests',
    "x' returned a non-zero code: 5",
    '" did not complete successfully: exit code: 5',
]

# What each builder says of a process that ended with 3.
STEPS = {
    "classic": ("The command '/bin/sh -c echo {}; exit 3' returned a non-zero code: 3", 3),
    "BuildKit": ('process "/bin/sh -c echo {}; exit 3" did not complete successfully: exit code: 3', None),
    "BuildKit, wrapped": (
        'failed to solve: process "/bin/sh -c echo {}; exit 3" did not complete successfully: exit code: 3',
        None,
    ),
    "BuildKit of 20.10": ("executor failed running [/bin/sh -c echo {}; exit 3]: exit code: 3", None),
    "BuildKit of 20.10, wrapped": (
        "failed to solve: rpc error: code = Unknown desc = executor failed running [/bin/sh -c echo {}]: exit code: 3",
        None,
    ),
    "Podman": ('building at STEP "RUN echo {}; exit 3": while running runtime: exit status 3', None),
    "Podman 3": ('error building at STEP "RUN echo {}": error while running runtime: exit status 3', None),
}


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(("message", "code"), STEPS.values(), ids=STEPS)
def test_the_words_of_a_command_do_not_decide_the_class(message: str, code: int | None, words: str) -> None:
    error = build_error(None, message.format(words), code)
    assert type(error) is BuildStepError
    assert (error.exit_code, error.status) == (3, None)
    assert error.message == message.format(words)


def test_a_long_command_is_no_other() -> None:
    error = build_error(
        None, f"The command '/bin/sh -c {'toomanyrequests: x ' * 10000}' returned a non-zero code: 1", 1
    )
    assert type(error) is BuildStepError


OTHERS: list[tuple[str, type[APIError]]] = [
    # of files and lines, by Docker 20.10 to 29
    ("COPY failed: file not found in build context or excluded by .dockerignore: stat toomanyrequests: x", ServerError),
    ("COPY failed: stat no space left on device: file does not exist", ServerError),
    ("dockerfile parse error line 1: unknown instruction: UNAUTHORIZED:", ServerError),
    ('failed to calculate checksum of ref a::b: "/toomanyrequests: x": not found', NotFoundError),
    ('failed to solve: failed to read dockerfile: open "no space left on device": no such file', ServerError),
    # of the daemon's disk
    ("COPY failed: write /var/lib/docker/x: no space left on device", NoSpaceError),
    ("Error processing tar file(exit status 1): write /a: no space left on device", NoSpaceError),
    ('process "/bin/sh -c denied: x" did not complete successfully: write /x: no space left on device', NoSpaceError),
    ('process "/bin/sh -c denied: x" did not complete successfully: context canceled', ServerError),
    # of registries
    ("toomanyrequests: You have reached your pull rate limit.", RateLimitedError),
    ("failed to solve: unexpected status code https://r.example/v2/x/manifests/1: 429 Too Many Requests - Server",
     RateLimitedError),
    ("pull access denied for x, repository does not exist or may require 'docker login': denied: x", NotFoundError),
    ("manifest for busybox:none not found: manifest unknown: manifest unknown", NotFoundError),
    ('Head "https://r.example/v2/x/manifests/1": unauthorized: authentication required', UnauthorizedError),
    ("failed to solve: r.example/x: failed to authorize: failed to fetch oauth token: unexpected status: 403 Forbidden",
     ForbiddenError),
    ("creating build container: reading manifest 1 in r.example/x: manifest unknown", NotFoundError),
]  # fmt: skip


@pytest.mark.parametrize(("message", "cls"), OTHERS, ids=[message[:40] for message, _ in OTHERS])
def test_what_registries_and_disks_say_decides_it(message: str, cls: type[APIError]) -> None:
    assert type(build_error(None, message, None)) is cls


def test_a_status_counts_where_the_builder_speaks() -> None:
    error = build_error(400, "dockerfile parse error line 1: unknown instruction: DENIED:", None)
    assert (type(error), error.status) == (InvalidParameterError, 400)


def test_a_code_is_a_status_only_where_it_cannot_be_an_exit_code() -> None:
    assert build_error(None, "it failed", 127).status is None
    assert build_error(None, "it failed", 500).status == 500


def test_a_build_that_needs_a_session_is_told_what_to_do() -> None:
    error = build_error(None, "failed to solve: x: failed to do request: no active sessions", None)
    assert "Pull the base images first, build with builder='classic'" in error.message

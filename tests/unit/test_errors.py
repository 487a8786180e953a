"""The errors are one family: drawn as they are, told apart by what daemons really say, and fit to travel."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import errors
from aiodocker_images.errors import (
    APIError,
    ArchiveFileError,
    ConflictError,
    CredentialHelperError,
    DigestMismatchError,
    DockerError,
    ForbiddenError,
    InvalidParameterError,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
    UnsupportedAPIVersionError,
    api_error_class,
)

DEFINED: dict[str, type[DockerError]] = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, DockerError) and cls.__module__ == errors.__name__
}
WITH_MORE = (UnsupportedAPIVersionError, CredentialHelperError, DigestMismatchError)  # than a message
PLAIN = [cls for cls in DEFINED.values() if cls not in WITH_MORE]
ANSWERS = [cls for cls in PLAIN if issubclass(cls, APIError)]

_DRAWN = re.compile(r"(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+Error)(?:\((?P<foreign>\w+)\))?(?:\s|$)")


def drawn() -> dict[str, tuple[str, str | None]]:
    """Read the tree in the docstring: the parent of each class, and the foreign base in parentheses."""
    tree: dict[str, tuple[str, str | None]] = {}
    branch: list[tuple[int, str]] = [(-1, "Exception")]
    for line in (inspect.getdoc(errors) or "").splitlines():
        if match := _DRAWN.match(line):
            depth = len(match["indent"])
            branch = [each for each in branch if each[0] < depth]
            tree[match["name"]] = branch[-1][1], match["foreign"]
            branch.append((depth, match["name"]))
    return tree


def test_the_tree_in_the_docstring_is_the_family() -> None:
    real = {
        name: (cls.__bases__[0].__name__, cls.__bases__[1].__name__ if len(cls.__bases__) > 1 else None)
        for name, cls in DEFINED.items()
    }
    assert drawn() == real


def test_every_class_is_exported_and_nothing_else() -> None:
    assert sorted(errors.__all__) == sorted(DEFINED)


def test_every_class_says_what_it_means() -> None:
    assert [name for name, cls in DEFINED.items() if not cls.__doc__] == []


SPOKEN = [
    (DockerError("it failed"), "it failed"),
    (DockerError("it failed", operation="pull app:1"), "pull app:1: it failed"),
    (DockerError("it failed", endpoint="unix:///d.sock"), "it failed (at unix:///d.sock)"),
    (
        DockerError("it failed", operation="pull app:1", endpoint="unix:///d.sock"),
        "pull app:1: it failed (at unix:///d.sock)",
    ),
    (APIError("no", status=404), "no (status 404)"),
    (APIError("no", method="GET"), "no"),
    (APIError("no", path="/images/json"), "no"),
    (APIError("no", method="GET", path="/images/json"), "no (GET /images/json)"),
    (
        NotFoundError(
            "No such image: app:1",
            status=404,
            method="GET",
            path="/images/app:1/json",
            operation="inspect app:1",
            endpoint="tcp://127.0.0.1:2375",
        ),
        "inspect app:1: No such image: app:1 (GET /images/app:1/json, status 404, at tcp://127.0.0.1:2375)",
    ),
    (
        UnsupportedAPIVersionError("'platform' of push", required="1.46", actual="1.41", endpoint="unix:///d.sock"),
        "'platform' of push needs Engine API 1.46, but this connection speaks 1.41 (at unix:///d.sock)",
    ),
    (
        ArchiveFileError.of(OSError(errno.ENOENT, "No such file or directory", "/x.tar"), "cannot read '/x.tar'"),
        "cannot read '/x.tar': No such file or directory",
    ),
    (CredentialHelperError("docker-credential-x failed", helper="docker-credential-x"), "docker-credential-x failed"),
    (DigestMismatchError("r.example gave sha256:b", expected="sha256:a", actual="sha256:b"), "r.example gave sha256:b"),
    (ArchiveFileError.of(OSError("odd"), "cannot read '/x.tar'"), "cannot read '/x.tar': odd"),
]


@pytest.mark.parametrize(("error", "text"), SPOKEN, ids=[text for _, text in SPOKEN])
def test_an_error_says_the_operation_what_happened_and_where(error: DockerError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("cls", PLAIN)
def test_every_class_says_its_message(cls: type[DockerError]) -> None:
    """OSError and its kind print themselves in their own way, which must not win."""
    error = cls("it failed", operation="pull app:1", endpoint="unix:///d.sock")
    assert str(error) == "pull app:1: it failed (at unix:///d.sock)"
    assert error.args == ("it failed",)


def _fields(error: DockerError) -> Mapping[str, object]:
    own = {name: getattr(error, name) for name in ("errno", "strerror", "filename") if hasattr(error, name)}
    return vars(error) | own | {"args": error.args, "str": str(error), "class": type(error)}


def _one_of(cls: type[DockerError]) -> DockerError:
    if cls is UnsupportedAPIVersionError:
        error: DockerError = UnsupportedAPIVersionError("a thing", required="1.46", actual="1.41", operation="push a:1")
    elif issubclass(cls, APIError):
        error = cls("no", status=418, method="GET", path="/x", operation="inspect a:1", endpoint="unix:///d.sock")
    elif cls is DigestMismatchError:
        error = DigestMismatchError(
            "it failed", expected="sha256:a", actual=None, who="r.example", operation="copy a:1"
        )
    elif cls is CredentialHelperError:
        error = CredentialHelperError("it failed", helper="docker-credential-x", exit_status=3, operation="pull a:1")
    elif cls is ArchiveFileError:
        error = ArchiveFileError.of(OSError(errno.ENOSPC, "No space left on device", "/x.tar"), "cannot write")
    else:
        error = cls("it failed", operation="load", endpoint="unix:///d.sock")
    error.add_note("and a note")
    return error


@pytest.mark.parametrize("cls", DEFINED.values())
def test_every_error_crosses_a_process_border_whole(cls: type[DockerError]) -> None:
    error = _one_of(cls)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert _fields(pickle.loads(pickle.dumps(error, protocol))) == _fields(error)


@pytest.mark.parametrize("cls", DEFINED.values())
def test_every_error_can_be_copied(cls: type[DockerError]) -> None:
    error = _one_of(cls)
    for duplicate in (copy.copy(error), copy.deepcopy(error)):
        assert duplicate is not error
        assert _fields(duplicate) == _fields(error)


def test_a_copy_is_located_without_the_original() -> None:
    error = DockerError("it failed")
    duplicate = copy.copy(error)
    duplicate.operation = "pull app:1"
    assert error.operation is None


def test_a_file_error_keeps_what_code_for_an_oserror_reads() -> None:
    cause = PermissionError(errno.EACCES, "Permission denied", "/x.tar")
    error = ArchiveFileError.of(cause, "cannot write '/x.tar'")
    assert (error.errno, error.strerror, error.filename) == (errno.EACCES, "Permission denied", "/x.tar")


HUB = "registry-1.docker.io"
DIGEST = "sha256:401" + "0" * 58 + "404"

# What is said, as in the sources of moby and Podman and in answers of registries, and the class, whether it
# comes in a frame without a code or with status 500.
MESSAGES: list[tuple[str, type[APIError]]] = [
    # Docker's graph drivers, of any age: pull.
    ("manifest for alpine:nope not found: manifest unknown: manifest unknown", NotFoundError),
    ("manifest for 127.0.0.1:5000/app:1 not found: manifest unknown: OCI index found, but", NotFoundError),
    ("repository 127.0.0.1:5000/nope not found: name unknown: repository name not known to registry", NotFoundError),
    (
        (
            "pull access denied for nope/nope, repository does not exist or may require 'docker login':"
            " denied: requested access to the resource is denied"
        ),
        NotFoundError,
    ),
    ("no matching manifest for linux/s390x in the manifest list entries", NotFoundError),
    ("unauthorized: authentication required", UnauthorizedError),
    (f'Get "https://{HUB}/v2/": unauthorized: incorrect username or password', UnauthorizedError),
    ('Head "http://127.0.0.1:5000/v2/app/manifests/1": no basic auth credentials', UnauthorizedError),
    ("unauthorized: access to the requested resource is not authorized", UnauthorizedError),
    (
        (
            "toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and"
            " upgrading: https://www.docker.com/increase-rate-limit"
        ),
        RateLimitedError,
    ),
    ("toomanyrequests: Rate exceeded", RateLimitedError),
    ("received unexpected HTTP status: 429 Too Many Requests", RateLimitedError),
    ("received unexpected HTTP status: 500 Internal Server Error", ServerError),
    ("received unexpected HTTP status: 403 Forbidden", ForbiddenError),
    ('error parsing HTTP 404 response body: unexpected end of JSON input: ""', NotFoundError),
    ("error parsing HTTP 403 response body: invalid character '<': \"<html>403 Forbidden</html>\"", ForbiddenError),
    ("error parsing HTTP 429 response body: no error details found in HTTP response body", RateLimitedError),
    ("write /var/lib/docker/tmp/GetImageBlob123: no space left on device", NoSpaceError),
    ("failed to register layer: write /bin/busybox: No space left on device", NoSpaceError),
    ("failed to register layer: write /bin/busybox: disk quota exceeded", NoSpaceError),
    ('Get "http://127.0.0.1:5000/v2/": dial tcp 127.0.0.1:5000: connect: connection refused', ServerError),
    ('Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host', ServerError),
    ('Get "https://registry.example/v2/": net/http: request canceled (Client.Timeout exceeded)', ServerError),
    ("filesystem layer verification failed for digest " + DIGEST, ServerError),
    ("unexpected EOF", ServerError),
    # Push.
    ("denied: requested access to the resource is denied", ForbiddenError),
    ("An image does not exist locally with the tag: 127.0.0.1:5000/nope", NotFoundError),
    ("tag does not exist: 127.0.0.1:5000/nope:1", NotFoundError),
    ("blob unknown: blob unknown to registry", NotFoundError),
    (
        f"error from registry: provided digest did not match uploaded content\nblob unknown to registry - {DIGEST}",
        ServerError,
    ),
    ("denied: permission_denied: write_package", ForbiddenError),
    ("denied: denied", ForbiddenError),
    ("denied: access forbidden", ForbiddenError),
    ("name unknown: The repository with name 'a' does not exist in the registry with id '1'", NotFoundError),
    # Docker's containerd store.
    ('failed to resolve reference "127.0.0.1:5000/app:nope": 127.0.0.1:5000/app:nope: not found', NotFoundError),
    (
        (
            'failed to resolve reference "docker.io/nope/nope:latest": pull access denied, repository does not exist or'
            " may require authorization: server message: insufficient_scope: authorization failed"
        ),
        NotFoundError,
    ),
    (
        (
            'failed to resolve reference "127.0.0.1:5000/a:1": pull access denied, repository does not exist or may'
            " require authorization: authorization failed: no basic auth credentials"
        ),
        UnauthorizedError,
    ),
    (
        (
            "push access denied, repository does not exist or may require authorization: authorization failed:"
            " no basic auth credentials"
        ),
        UnauthorizedError,
    ),
    (
        (
            "push access denied, repository does not exist or may require authorization: server message:"
            " insufficient_scope: authorization failed"
        ),
        ForbiddenError,
    ),
    (
        (
            "push access denied, repository does not exist or may require authorization: server message:"
            " invalid_token: authorization failed"
        ),
        UnauthorizedError,
    ),
    ("error from registry: requested access to the resource is denied", ForbiddenError),
    ("error from registry: too many requests", RateLimitedError),
    ("error from registry: authentication required - no such user", UnauthorizedError),
    ("error from registry: The repository with name 'a' in registry with id '1' does not exist", NotFoundError),
    ("error from registry: permission_denied: write_package", ForbiddenError),  # without the code, DENIED
    # As 28.5.2 sent them.
    ("error from registry: no pushing here", ServerError),  # without the code, UNAUTHORIZED: it cannot be told
    (
        (
            'failed to resolve reference "127.0.0.1:1/x:2": failed to do request: Head'
            ' "https://127.0.0.1:1/v2/x/manifests/2": dial tcp 127.0.0.1:1: connect: connection refused'
        ),
        ServerError,
    ),
    (
        (
            f'failed to ingest "blobs/sha256/{DIGEST[7:]}": short read: expected 13664387 bytes but got 6834688:'
            " unexpected EOF"
        ),
        ServerError,
    ),
    ("unrecognized image format", ServerError),
    ("unexpected status from HEAD request to http://127.0.0.1:5000/v2/a/b: 401 Unauthorized", UnauthorizedError),
    ("unexpected status from PUT request to http://127.0.0.1:5000/v2/a/b: 403 Forbidden", ForbiddenError),
    ("unexpected status from GET request to http://127.0.0.1:5000/v2/a/b: 500 Internal Server Error", ServerError),
    ("failed to copy: write /var/lib/containerd/ingest/1/data: no space left on device: unknown", NoSpaceError),
    # Podman.
    (
        "failed to find image docker.io/library/nope:latest: docker.io/library/nope:latest: image not known",
        NotFoundError,
    ),
    (
        "initializing source docker://127.0.0.1:5000/a:1: reading manifest 1 in 127.0.0.1:5000/a: manifest unknown",
        NotFoundError,
    ),
    ("unable to retrieve auth token: invalid username/password: unauthorized: incorrect", UnauthorizedError),
    ("initializing source docker://127.0.0.1:5000/a:1: too many requests to registry", RateLimitedError),
    ("reading manifest 1 in registry.example/a: requested access to the resource is denied", ForbiddenError),
    ('reading manifest 1 in registry.example/a: StatusCode: 403, "<html>..."', ForbiddenError),
    ('pinging container registry 127.0.0.1:1: Get "http://127.0.0.1:1/v2/": connect: connection refused', ServerError),
    # As 5.8.6 sent them.
    (
        (
            "writing blob: initiating layer upload to /v2/refused/blobs/uploads/ in 127.0.0.1:36561: unauthorized:"
            " no pushing here"
        ),
        UnauthorizedError,
    ),
    ("connection refused", ServerError),
    (
        (
            "failed to load image: payload does not match any of the supported image formats:\n"
            " * oci: open /var/tmp/api_load.tar1298318490/index.json: not a directory\n"
            " * oci-archive: loading index: open /var/tmp/container_images_oci3881749778/index.json:"
            " no such file or directory\n"
            ' * docker-archive: loading tar component "manifest.json": file does not exist\n'
            " * dir: open /var/tmp/api_load.tar1298318490/manifest.json: not a directory"
        ),
        ServerError,
    ),
    (
        'invalid image filter "nonsense": must be in the format "filter=value or filter!=value"',
        ServerError,
    ),
    # What a local file system or a broken archive says is none of a registry's refusals.
    ("failed to register layer: mkdir /a: permission denied", ServerError),
    ("open /var/lib/docker/tmp/docker-import-1/repositories: no such file or directory", ServerError),
    ("invalid archive: file does not exist", ServerError),
    ("invalid archive: does not contain a manifest.json", ServerError),
    ("Error processing tar file(exit status 1): unexpected EOF", ServerError),
    ("archive/tar: invalid tar header", ServerError),
    ("", ServerError),
    # Names and numbers that look like words of a refusal.
    ("failed to export user/denied:1: broken pipe", ServerError),
    ("failed to export denied:latest: broken pipe", ServerError),
    ("failed to export app:denied because of a broken pipe", ServerError),
    ("failed to export my-denied-app:1: broken pipe", ServerError),
    ("failed to export forbidden: x", ForbiddenError),  # cannot be told from a refusal
    ("failed to export forbidden@" + DIGEST, ServerError),
    ("failed to export registry.forbidden.example/app:1", ServerError),
    ("failed to export unauthorized/app:1: broken pipe", ServerError),
    ("failed to export user/unauthorized: broken pipe", ServerError),
    ("failed to export user/toomanyrequests: broken pipe", ServerError),
    ("failed to export toomanyrequests:latest, broken pipe", ServerError),
    ("failed to export notfound:1: broken pipe", ServerError),
    ("failed to export app:401: broken pipe", ServerError),
    ("failed to export app@" + DIGEST + ": broken pipe", ServerError),
    ("dial tcp 127.0.0.1:401: connect: connection refused", ServerError),
    ("read 401 of 403 bytes: unexpected EOF", ServerError),
    ("An image does not exist locally with the tag: unauthorized", NotFoundError),
    ("An image does not exist locally with the tag: toomanyrequests", NotFoundError),
    ("tag does not exist: denied:latest", NotFoundError),
]


@pytest.mark.parametrize("status", [None, 500, 502, 503, 1, 127, 255])
@pytest.mark.parametrize(("message", "cls"), MESSAGES, ids=[message[:70] or "empty" for message, _ in MESSAGES])
def test_a_status_that_tells_nothing_leaves_it_to_the_text(
    status: int | None, message: str, cls: type[APIError]
) -> None:
    assert api_error_class(status, message) is cls


@pytest.mark.parametrize(
    "word", ["tag ", "image ", "repository ", "manifest for x ", "toomanyrequests", "denied", "status code: "]
)
def test_a_message_of_megabytes_is_classified_within_the_timeout_of_a_test(word: str) -> None:
    """Some patterns go back and forth: of 16 MiB they would not be through in a day."""
    assert issubclass(api_error_class(500, word * ((16 << 20) // len(word))), APIError)


def test_both_ends_of_a_long_message_tell_its_class() -> None:
    assert api_error_class(500, "no such image: " + "x" * 100_000) is NotFoundError
    assert api_error_class(500, "x" * 100_000 + ": no space left on device") is NoSpaceError
    assert api_error_class(500, "x" * 10_000 + " no space left on device " + "x" * 10_000) is ServerError


STATUSES: list[tuple[int, type[APIError]]] = [
    (304, APIError),
    (400, InvalidParameterError),
    (401, UnauthorizedError),
    (403, ForbiddenError),
    (404, NotFoundError),
    (405, APIError),
    (409, ConflictError),
    (413, APIError),
    (429, RateLimitedError),
    (500, ServerError),
    (501, ServerError),
    (503, ServerError),
    (507, NoSpaceError),
    (599, ServerError),
]


@pytest.mark.parametrize(("status", "cls"), STATUSES)
def test_each_status_has_its_class(status: int, cls: type[APIError]) -> None:
    assert api_error_class(status, "it failed") is cls


# The status speaks of what the daemon did, the text may quote what somebody else said.
CONTRADICTIONS: list[tuple[int, str, type[APIError]]] = [
    (404, "pull access denied for a/b, repository does not exist or may require 'docker login': denied", NotFoundError),
    (409, "conflict: unable to delete 3f5 (must be forced) - image is being used by container a4", ConflictError),
    (409, "conflict: unable to remove repository reference denied:latest (must force)", ConflictError),
    (409, "image docker.io/library/a:1 is in use: image used by 5d: image is in use by a container", ConflictError),
    (400, "invalid reference format: repository name (library/Unauthorized) must be lowercase", InvalidParameterError),
    (403, "unauthorized: authentication required", ForbiddenError),
    (401, "denied: requested access to the resource is denied", UnauthorizedError),
    (404, "No such image: toomanyrequests:latest", NotFoundError),
    (404, "No such image: user/toomanyrequests:1", NotFoundError),
    (404, "No such image: 401", NotFoundError),
    (405, "denied: by policy", APIError),
    (404, "toomanyrequests: too many failed login attempts for username or IP address", RateLimitedError),
    (400, "failed to copy: httpReadSeeker: 429 Too Many Requests - You have reached your rate limit", RateLimitedError),
    (404, "write /var/lib/docker/tmp/x: no space left on device", NoSpaceError),
    (409, "write /var/lib/docker/tmp/x: no space left on device", NoSpaceError),
]


@pytest.mark.parametrize(
    ("status", "message", "cls"),
    CONTRADICTIONS,
    ids=[f"{status} {message[:60]}" for status, message, _ in CONTRADICTIONS],
)
def test_a_telling_status_outweighs_all_but_a_rate_limit_and_a_full_disk(
    status: int, message: str, cls: type[APIError]
) -> None:
    assert api_error_class(status, message) is cls


@given(st.none() | st.integers(), st.text())
def test_whatever_is_said_has_a_class(status: int | None, message: str) -> None:
    assert api_error_class(status, message) in ANSWERS


WORD = st.sampled_from(
    ["denied", "forbidden", "unauthorized", "toomanyrequests", "notfound", "401", "403", "404", "429"]
)


@given(WORD, WORD, WORD, st.sampled_from(["{}/{}:{}", "{}.example/{}:{}", "{}-{}:{}", "127.0.0.1:401/{}_{}:{}"]))
def test_no_tagged_name_is_taken_for_a_refusal(one: str, two: str, three: str, form: str) -> None:
    name = form.format(one, two, three)
    assert api_error_class(None, f"failed to export {name}: broken pipe") is ServerError
    assert api_error_class(None, f'failed to export "{name}"') is ServerError

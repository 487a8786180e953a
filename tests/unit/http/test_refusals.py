"""An error answer and an error frame become the class and the message that they mean, whoever wrote their words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._http.refusals import MAX_PLAIN_TEXT, api_error_class, read_error, version_refused
from aiodocker_images.errors import (
    APIError,
    ConflictError,
    ForbiddenError,
    InvalidParameterError,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
)

ANSWERS = {APIError, *APIError.__subclasses__()}

# status, reason, body, and the status and message that are read of it
BODIES: dict[str, tuple[int, str | None, bytes, int, str]] = {
    "Docker": (404, "Not Found", b'{"message":"No such image: a:1"}\n', 404, "No such image: a:1"),
    "Podman": (
        500,
        "Internal Server Error",
        b'{"cause":"image not known","message":"a:1: image not known","response":500}',
        500,
        "a:1: image not known",
    ),
    "Podman, which means another status": (
        500,
        "Internal Server Error",
        b'{"cause":"image not known","message":"a:1: image not known","response":404}',
        404,
        "a:1: image not known",
    ),
    "Podman, only a cause": (
        500,
        None,
        b'{"cause":"image not known","message":"","response":500}',
        500,
        "image not known",
    ),
    "a response that is no error": (500, None, b'{"message":"x","response":200}', 500, "x"),
    "a response that is no status": (500, None, b'{"message":"x","response":0}', 500, "x"),
    "a response beyond statuses": (500, None, b'{"message":"x","response":99999999999999999999}', 500, "x"),
    "a frame": (
        500,
        "Internal Server Error",
        b'{"errorDetail":{"message":"denied: no"},"error":"denied: no","progressDetail":{}}\n',
        500,
        "denied: no",
    ),
    "a frame of API 1.52": (500, None, b'{"errorDetail":{"code":1,"message":"denied: no"}}', 500, "denied: no"),
    "an older frame": (500, None, b'{"error":"denied: no"}', 500, "denied: no"),
    "an empty errorDetail": (500, None, b'{"errorDetail":{},"error":"denied: no"}', 500, "denied: no"),
    "blanks around": (500, None, b'{"message":"  no \\n"}', 500, "no"),
    "null": (500, "Internal Server Error", b'{"message":null,"errorDetail":null}', 500, "Internal Server Error"),
    "an empty message": (500, "Internal Server Error", b'{"message":""}', 500, "Internal Server Error"),
    "an empty object": (500, "Internal Server Error", b"{}", 500, "Internal Server Error"),
    "empty": (503, "Service Unavailable", b"", 503, "Service Unavailable"),
    "blank": (503, "Service Unavailable", b" \r\n", 503, "Service Unavailable"),
    "empty, no reason": (503, "", b"", 503, "the daemon gave no reason"),
    "empty, reason unknown": (503, None, b"", 503, "the daemon gave no reason"),
    "plain text": (404, "Not Found", b"Not Found\n", 404, "Not Found"),
    "plain text of two lines": (404, None, b"page\r\n  not found\n", 404, "page not found"),
    "plain text, not ASCII": (400, None, "größer".encode(), 400, "größer"),
    "plain text cut inside a letter": (400, None, "größer ü".encode()[:-1], 400, "größer"),
    "HTML": (
        502,
        "Bad Gateway",
        (
            b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title><style>h1 > b {x}</style></head>\n"
            b"<body><h1>Bad  Gateway</h1><script>if (1 < 2) {}</script></body></html>"
        ),
        502,
        "502 Bad Gateway Bad Gateway",
    ),
    "HTML without words": (502, "Bad Gateway", b"<html></html>", 502, "Bad Gateway"),
    "latin-1": (400, "Bad Request", b"gr\xf6\xdfer als", 400, "Bad Request"),
    "binary": (500, "Internal Server Error", b"\x1f\x8b\x08\x00\x00\xff\xfe", 500, "Internal Server Error"),
    "binary in ASCII": (500, "Internal Server Error", b"PK\x03\x04\x00\x00", 500, "Internal Server Error"),
    "a message that is a number": (500, None, b'{"message": 5}', 500, '{"message": 5}'),
    "a message that is an object": (500, None, b'{"message":{"a":"no"}}', 500, '{"message":{"a":"no"}}'),
    "a response that is a text": (
        500,
        None,
        b'{"message":"no","response":"404"}',
        500,
        '{"message":"no","response":"404"}',
    ),
    "an errorDetail that is a text": (500, None, b'{"errorDetail":"no"}', 500, '{"errorDetail":"no"}'),
    "a list": (500, None, b'["no"]', 500, '["no"]'),
    "a text": (500, None, b'"no"', 500, '"no"'),
    "half a document": (500, None, b'{"message":"No such im', 500, '{"message":"No such im'),
    "not UTF-8, where no field of ours is": (500, "No", b'{"\x80":"x","response":404}', 404, "No"),
    "not UTF-8, beside a message": (500, "No", b'{"\x80":"x","message":"no"}', 500, "no"),
    "two frames": (500, None, b'{"status":"x"}\n{"error":"no"}\n', 500, '{"status":"x"} {"error":"no"}'),
    "a registry's own document": (
        401,
        None,
        b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
        401,
        '{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
    ),
}


@pytest.mark.parametrize(("status", "reason", "body", "meant", "message"), BODIES.values(), ids=BODIES)
def test_the_body_of_an_error_answer_gives_its_message(
    status: int, reason: str | None, body: bytes, meant: int, message: str
) -> None:
    assert read_error(status, reason, body) == (meant, message)


DEEP = [b"[" * 60_000, b'{"a":' * 12_000, b'{"message":' + b"[" * 50_000]


@pytest.mark.parametrize("body", DEEP, ids=["lists", "objects", "in the message"])
def test_nesting_without_end_is_no_way_to_break_the_reader(body: bytes) -> None:
    status, message = read_error(500, "Internal Server Error", body)
    assert status == 500
    assert message


@pytest.mark.parametrize("body", [b"x" * 60_000, b"<p>" + b"word " * 10_000], ids=["text", "HTML"])
def test_a_page_in_place_of_a_message_is_cut(body: bytes) -> None:
    _, message = read_error(500, None, body)
    assert len(message) == MAX_PLAIN_TEXT + 1
    assert message.endswith("…")


@pytest.mark.parametrize(
    "piece", [b"<", b"< ", b"<style ", b"<style>", b"<script></script ", b"</style", b"<a <b "], ids=repr
)
def test_a_page_of_beginnings_is_read_within_the_timeout_of_a_test(piece: bytes) -> None:
    """Of linear cost: the limit of a body hides a quadratic one, but sixteen times as much does not."""
    _, message = read_error(500, "Internal Server Error", b"<" + piece * ((1 << 20) // len(piece)))
    assert message


def test_a_style_that_has_no_end_hides_only_what_is_behind_it() -> None:
    assert read_error(502, None, b"<h1>Bad Gateway</h1><style>h1 {x}")[1] == "Bad Gateway"


def test_a_reason_that_is_no_text_becomes_one() -> None:
    assert read_error(500, "gr\udcf6\udcdfer", b"")[1] == "gr\ufffd\ufffder"


DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["message", "cause", "response", "error", "errorDetail", "x"]), inner)
    ),
)


@given(st.binary() | DOCUMENT.map(lambda document: json.dumps(document).encode()))
def test_whatever_the_body_is_there_is_a_message(body: bytes) -> None:
    status, message = read_error(500, "Internal Server Error", body)
    assert 400 <= status <= 599
    assert message == message.strip()
    assert message


REFUSALS: list[tuple[str, tuple[str, str] | None]] = [
    ("client version 1.55 is too new. Maximum supported API version is 1.51", ("1.51", "1.55")),
    ("client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade", ("1.44", "1.41")),
    ("No such image: a:1", None),
    ("client version is too new", None),
    ("", None),
]


@pytest.mark.parametrize(("message", "versions"), REFUSALS)
def test_a_refused_version_is_recognised_with_both_numbers(message: str, versions: tuple[str, str] | None) -> None:
    error = version_refused(message)
    assert (error and (error.required, error.actual)) == versions


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

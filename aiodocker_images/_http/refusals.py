"""What an error answer means: its status, its code and its words, as one of our errors. Pure.

An error comes as an answer with an error status, or as a frame in the middle of a stream that began with status 200.
Both are read here, and both become the same class.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import (
    APIError,
    ConflictError,
    ForbiddenError,
    FrameDecodeError,
    InvalidArchiveError,
    InvalidParameterError,
    NoSpaceError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
    UnsupportedAPIVersionError,
    shown,
)
from aiodocker_images.progress import ErrorDocument

__all__ = [
    "BY_STATUS",
    "MAX_PLAIN_TEXT",
    "api_error_class",
    "ends_of",
    "no_success",
    "plain_text",
    "read_error",
    "version_refused",
    "whole_text",
]

MAX_PLAIN_TEXT: Final = 2000
"""Characters of an error that is no JSON; a proxy's page can be long."""

_MAX_LOOKED_AT = 2048
"""Characters at each end of a message that tell its class: a registry's words are wrapped, but not for ever."""

# Of linear cost: what begins and has no end is passed over once.
_TAG = re.compile(r"<(?:style|script)\b.*?(?:</(?:style|script)>|\Z)|<[^<>]*>", re.DOTALL | re.IGNORECASE)
_VERSION_REFUSED = re.compile(
    r"client version (?P<ours>[0-9.]+) is too (?:old|new)\."
    r" (?:Minimum|Maximum) supported API version is (?P<theirs>[0-9.]+)"
)

BY_STATUS: dict[int, type[APIError]] = {
    400: InvalidParameterError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitedError,
    507: NoSpaceError,
}


def _status_text(status: int) -> str:
    """Match a status of the registry's as moby and Podman put it into words."""
    return rf"\b(?:HTTP|status(?: ?code)?):? {status}\b"


# The daemon passes on what registries and file systems told it as text: with status 500, or in a frame
# without a code. That text names images, too: a word counts only where it is no part of a name such as
# user/denied:1 or forbidden@sha256:….
_NO_NAME = r"(?<![\w./:@-])(?:{})(?![\w/@-]|[.:]\S)"

# True whatever the status: old daemons send them with 500, some with 400 or 404.
_ALWAYS: tuple[tuple[re.Pattern[str], type[APIError]], ...] = (
    (
        re.compile(
            rf"(?<![\w./:@-])toomanyrequests:\s|\btoo many requests\b|\brate limit|{_status_text(429)}", re.IGNORECASE
        ),
        RateLimitedError,
    ),
    (re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE), NoSpaceError),
)

# In the order of their weight: a message can hold several of them.
_BY_TEXT: tuple[tuple[re.Pattern[str], type[APIError]], ...] = (
    (
        re.compile(
            r"authentication required|no basic auth credentials|incorrect username or password"
            r"|invalid username/password|\binvalid_token\b",
            re.IGNORECASE,
        ),
        UnauthorizedError,
    ),
    # Distribution 2.8, of two uploads of one layer at once, which then lacks both: "blob unknown" comes along.
    (re.compile(r"provided digest did not match uploaded content", re.IGNORECASE), ServerError),
    # The containerd store's words for what a graph driver calls "denied: requested access …".
    (re.compile(r"push access denied", re.IGNORECASE), ForbiddenError),
    (
        re.compile(
            # The first goes with status 404: registries do not tell a secret repository from none.
            r"pull access denied|manifest unknown|\bname unknown|repository name not known|no such image"
            r"|image not known|no matching manifest for|(?:manifest for|repository) \S+ not found|: not found$"
            r"|\bblob unknown\b|\b(?:image|manifest|reference|repository|tag)\b[^:\n]* does not exist"
            rf"|{_status_text(404)}",
            re.IGNORECASE,
        ),
        NotFoundError,
    ),
    (
        re.compile(rf"{_NO_NAME.format('unauthorized')}|authorization failed|{_status_text(401)}", re.IGNORECASE),
        UnauthorizedError,
    ),
    (
        # "permission denied" is what the daemon's own operating system says.
        re.compile(
            rf"(?<!permission ){_NO_NAME.format('denied|forbidden|permission_denied')}|{_status_text(403)}",
            re.IGNORECASE,
        ),
        ForbiddenError,
    ),
)


# The words of Docker 20.10 to 29 (both stores) and Podman 5.8 for an archive that they cannot load or import. They are
# those of Go's readers and of their own: of the compression, the tar, its JSON documents, and what is missing in it.
_ARCHIVE = re.compile(
    r"\barchive/tar: |\bunexpected EOF\b|\bunexpected end of JSON input\b"
    r"|invalid character .{1,9} (?:looking|after|in) "
    r"|cannot unmarshal |unrecognized image format|(?:does not match|matches?) any of the supported image formats"
    r"|\binvalid (?:archive|manifest|diffID|tar header|layer|symlink|checksum|header)\b|one or more images are required"
    r"|/docker-import-\d+/|\buntar\b|Error processing tar file|image config \S+ not found|image might be filtered out"
    r"|(?:flate|gzip|zlib|bzip2|lzma|xz|zstd)\b[^\n]{0,40}(?:corrupt|invalid|malformed)|\bxz: \(stdin\): "
    r"|unknown dictionary|invalid (?:input|magic|block|window)|magic (?:number )?mismatch|\bOCI layout\b|\boci-layout\b"
    r"|\bindex\.json\b|\bmanifest\.json\b|layers from manifest|number of layers|layer digests?\b"
    r"|\b(?:unexpected|mismatched) (?:media ?type|digest|size)|duplicates of file paths",
    re.IGNORECASE,
)


def api_error_class(status: int | None, message: str, *, archive: bool = False) -> type[APIError]:
    """Choose the class for what the daemon said: by its status if that is telling, by its text if not.

    `archive`: the Engine was reading an archive that it had been sent.
    """
    message = ends_of(message)
    if cls := _class_by_text(_ALWAYS, message):
        return cls
    if archive and status in {None, 400, 404, 500} and _ARCHIVE.search(message):
        return InvalidArchiveError
    if status is not None and status in BY_STATUS:
        return BY_STATUS[status]
    # The code of a frame may be the exit code of a process, 1 to 255.
    if status is None or status < 300 or status >= 500:
        return _class_by_text(_BY_TEXT, message) or ServerError
    return APIError


def ends_of(message: str) -> str:
    """Return what tells the class of a message: a frame may hold megabytes, and some patterns go back and forth."""
    if len(message) > 2 * _MAX_LOOKED_AT:
        return f"{message[:_MAX_LOOKED_AT]}\n{message[-_MAX_LOOKED_AT:]}"
    return message


def _class_by_text(table: tuple[tuple[re.Pattern[str], type[APIError]], ...], message: str) -> type[APIError] | None:
    return next((cls for pattern, cls in table if pattern.search(message)), None)


class _ErrorDocument(ErrorDocument, frozen=True):
    """The body of an error answer: an error document of the API, or one frame of a stream that failed at once.

    `response` is Podman's: the status that it means where it sends 500.
    """

    message: str | None = None
    cause: str | None = None
    response: int | None = None


def read_error(status: int, reason: str | None, body: bytes) -> tuple[int, str]:
    """Return the status and the message of an error answer, whatever form its body has."""
    try:
        document = msgspec.json.decode(body, type=_ErrorDocument)
    except UNDECODABLE:
        message = plain_text(body)
    else:
        message = (document.message or document.words or document.cause or "").strip()
        if not message and _says_something(body):
            message = plain_text(body)  # somebody else's document, as of a proxy or an authorization plugin
        # Podman answers 500 with "response": 404 to a save of a missing image.
        if document.response is not None and 400 <= document.response <= 599:
            status = document.response
    return status, message or whole_text(reason or "") or "the daemon gave no reason"


def _says_something(document: bytes) -> bool:
    """Tell whether anything but nothings is in a JSON document, which may be broken where no field of ours is."""
    try:
        return any(msgspec.json.decode(document, type=dict[str, object]).values())
    except UNDECODABLE:
        return True


def whole_text(text: str) -> str:
    """Replace what aiohttp could not decode of a head, and what no log could encode."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def plain_text(body: bytes) -> str:
    """Make a message of a body that is no document of ours: a proxy's words or page; empty for binary data."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        # A cut inside a letter is no reason to throw away the rest.
        text = body[: error.start].decode() if error.end == len(body) else ""
    if any(ord(letter) < 32 and not letter.isspace() for letter in text):
        return ""
    if text.lstrip().startswith("<"):
        text = _TAG.sub(" ", text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_PLAIN_TEXT else f"{text[:MAX_PLAIN_TEXT]}…"


def no_success(status: int, expected: tuple[int, ...], body: bytes) -> FrameDecodeError:
    """Make the error for an answer with a status of success that the Engine does not give to this call."""
    said = shown(plain_text(body)) if body else "nothing"
    return FrameDecodeError(
        f"an Engine answers this with status {' or '.join(map(str, expected))}; the answer has status {status} and says"
        f" {said}"
    )


def version_refused(message: str) -> UnsupportedAPIVersionError | None:
    """Recognise the daemon's answer to a request in an API version that it does not speak."""
    if match := _VERSION_REFUSED.search(message):
        return UnsupportedAPIVersionError("this daemon", required=match["theirs"], actual=match["ours"])
    return None

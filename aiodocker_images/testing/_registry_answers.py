"""Answers that a registry gives in several places: JSON, errors, and blobs whole or in part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from ._exchange import Request, Response
from ._store import StoredManifest
from .behaviour import Behaviour

ERROR_CODES: Final[Mapping[int, str]] = {
    400: "UNSUPPORTED",
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    429: "TOOMANYREQUESTS",
    503: "UNAVAILABLE",
}
"""The code that an error document names for a status, where the fault does not say which; otherwise UNKNOWN."""

_RANGE: Final = re.compile(r"bytes=([0-9]*)-([0-9]*)")


def blob_response(request: Request, data: bytes, behaviour: Behaviour, headers: dict[str, str]) -> Response:
    """Answer with a blob, or with the range of it that is asked for."""
    headers = {"Content-Type": "application/octet-stream", **headers}
    if behaviour.ranges == "none":
        return Response(headers=headers, body=data)
    headers["Accept-Ranges"] = "bytes"
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or match.groups() == ("", ""):
        return Response(headers=headers, body=data)
    first, last = match.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(len(data), int(last) + 1) if first and last else len(data)
    supported = {
        "all": True,
        "forward": bool(first),
        "closed": bool(first and last) and int(last) < len(data),
    }[behaviour.ranges]
    if not supported or start >= end:
        return _unsatisfiable(data, behaviour, headers, beyond=start >= len(data))
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(status=206, headers=headers, body=data[start:end])


def _unsatisfiable(data: bytes, behaviour: Behaviour, headers: dict[str, str], *, beyond: bool) -> Response:
    if behaviour.ranges != "all":
        return error(416, "BLOB_UNKNOWN" if behaviour.ranges == "closed" else "UNKNOWN", "not a range of this blob")
    headers["Content-Type"] = "text/plain; charset=utf-8"
    if beyond:  # as Go's http.ServeContent does: a range that ends before it begins is invalid, and no more is said
        headers["Content-Range"] = f"bytes */{len(data)}"
    if behaviour.wrong_length_416:
        headers["Content-Length"] = str(len(data))
    return Response(status=416, headers=headers, body=b"invalid range: failed to overlap\n")


def referrer(manifest: StoredManifest, *, bare: bool) -> dict[str, object]:
    """Return the descriptor that the list of referrers has of a manifest."""
    document = manifest.document
    config = [str(each.get("mediaType", "")) for each in manifest.descriptors("config")]
    entry: dict[str, object] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.data),
    }
    if not bare:
        entry["artifactType"] = document.get("artifactType") or "".join(config)
        entry["annotations"] = document.get("annotations")
    return {name: value for name, value in entry.items() if value}


def document(
    body: object, *, status: int = 200, media_type: str = "application/json", headers: dict[str, str] | None = None
) -> Response:
    """Answer with JSON."""
    return Response(
        status=status, headers={"Content-Type": media_type, **(headers or {})}, body=json.dumps(body).encode()
    )


def error(status: int, code: str, message: str, detail: object = None) -> Response:
    """Answer with the error document of the specification."""
    return document({"errors": [{"code": code, "message": message, "detail": detail}]}, status=status)


def unknown_parts(status: int, digests: Sequence[str]) -> Response:
    """Answer to a manifest of which parts are missing."""
    if status == 500:
        return error(500, "UNKNOWN", "a part of the manifest is unknown")
    parts = [
        {"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": {"digest": digest}}
        for digest in digests
    ]
    return document({"errors": parts}, status=status)


def unsupported(status: int) -> Response:
    """Answer to a method that is not there."""
    return error(status, "NAME_INVALID" if status == 400 else "UNKNOWN", "the method is not supported here")


def not_found() -> Response:
    """Answer as Go's router does for a path that it does not know."""
    return Response(status=404, headers={"Content-Type": "text/plain; charset=utf-8"}, body=b"404 page not found\n")

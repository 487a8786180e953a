"""What a registry's error answers mean: its own codes and words, in our errors; and how long it asks to wait. Pure."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from aiodocker_images._http.refusals import BY_STATUS, MAX_PLAIN_TEXT, plain_text
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import APIError, ForbiddenError, NoSpaceError, RateLimitedError, ServerError

from .results import RateLimit

__all__ = ["MAX_ERROR_BODY", "rate_limit", "read_errors", "refusal", "retry_after", "says_immutable"]

MAX_ERROR_BODY: Final = 64 << 10
"""Bytes that are read of the body of an error answer; a message is far shorter."""

MAX_ERRORS: Final = 20
"""Errors that are shown of one answer: a refused manifest can name each of its blobs."""

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_NO_SPACE: Final = re.compile(r"no space left on device|disk quota exceeded|quota (?:is )?exceeded", re.IGNORECASE)
# distribution 2.8 says "unknown error", and in the detail the number that Linux has for a full disk.
_ENOSPC: Final = re.compile(rb'"Err"\s*:\s*28\b')
# Harbor: 412 "configured as immutable"; ECR: 400 TAG_INVALID "... because the tag is immutable"; Artifact Registry:
# 400 "... tag ... is immutable"; GitLab and Quay have words of their own.
_IMMUTABLE: Final = re.compile(
    r"immutable|cannot be overwritten|can't be overwritten|overwrit\w+ is not allowed|tag \S+ already exists",
    re.IGNORECASE,
)
_LIMIT: Final = re.compile(r"\s*(\d{1,9})\s*(?:;\s*w=(\d{1,9}))?\s*")


class _Error(msgspec.Struct):
    code: Any = None
    message: Any = None
    detail: Any = None


class _Errors(msgspec.Struct):
    errors: list[_Error] | None = None


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Read `ratelimit-limit: 100;w=21600` and `ratelimit-remaining`; None if there is nothing of the kind."""
    limit = _LIMIT.fullmatch(headers.get("ratelimit-limit", ""))
    remaining = _LIMIT.fullmatch(headers.get("ratelimit-remaining", ""))
    if limit is None and remaining is None:
        return None
    window = next((int(each[2]) for each in (limit, remaining) if each is not None and each[2]), None)
    return RateLimit(
        limit=int(limit[1]) if limit else None, remaining=int(remaining[1]) if remaining else None, window=window
    )


def retry_after(value: str | None) -> float | None:
    """Return how many seconds `Retry-After` asks to wait: a number or a date; None if it says nothing."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text[:100])
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def read_errors(body: bytes) -> tuple[str | None, str]:
    """Return the first code and the whole message of the body of an error answer, whatever form it has."""
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors or []
    except UNDECODABLE:
        return None, plain_text(body)
    codes = [each.code for each in errors if isinstance(each.code, str) and _CODE.fullmatch(each.code)]
    told = [text for each in errors[:MAX_ERRORS] if (text := _told(each))]
    return (codes[0] if codes else None), _cut("; ".join(dict.fromkeys(told))) or plain_text(body)


def _told(error: _Error) -> str:
    code = error.code if isinstance(error.code, str) else ""
    message = error.message if isinstance(error.message, str) else ""
    detail = error.detail if isinstance(error.detail, str) else ""
    words = ": ".join(part for part in (code, message) if part)
    return f"{words} ({detail})" if detail and detail not in words else words


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_PLAIN_TEXT else f"{text[:MAX_PLAIN_TEXT]}…"


def refusal(status: int, reason: str | None, headers: Mapping[str, str], body: bytes, *, challenged: bool) -> APIError:
    """Make the error of an error answer. `challenged` says whether it names how to log in."""
    code, message = read_errors(body)
    cls = BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    if code == "TOOMANYREQUESTS":
        cls = RateLimitedError
    elif status >= 400 and (_NO_SPACE.search(message) or (status >= 500 and _ENOSPC.search(body))):
        cls = NoSpaceError
    elif status == 401 and not challenged:
        # Pulp 2.30 answers so for a repository that is not there, and GCR for a scope that is too small: nobody could
        # log in for that.
        cls = ForbiddenError
    text = message or " ".join((reason or "").split())[:MAX_PLAIN_TEXT] or "the registry gave no reason"
    error = cls(text, status=status, code=code)
    if isinstance(error, RateLimitedError):
        error.retry_after = retry_after(headers.get("Retry-After"))
    return error


def says_immutable(error: APIError) -> bool:
    """Whether a refusal of a tag says that it must not be moved."""
    return error.status in {400, 403, 409, 412} and bool(_IMMUTABLE.search(error.message))

"""The faults that a fake Engine or a fake registry can be told to have.

    registry.fail(Fault.refuse(429, retry_after=3), on="GET manifest", times=2)
    registry.fail(Fault.cut(after=1 << 20), on="GET blob")
    with registry.fail(Fault.refuse(503), times=None):  # for as long as the block runs
        ...

A `Fault` says what goes wrong; `fail()` says where and how often, and returns an `Injection`, which tells whether it
has happened and can end it.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

FaultKind = Literal[
    "refuse", "cut", "reset", "stall", "slow", "lie", "duplicate", "content_length", "header", "location", "link_loop",
    "lose_upload", "no_space", "restart", "in_stream_error",
]  # fmt: skip

Place = Literal["body", "response", "request", "frames"]
"""What `after` counts: the bytes of the response's body, of the whole response with its head, or of the request's body,
or the messages of a stream of progress (Engines)."""

LOGIN_PAGE: Final = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form></form></body></html>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that can go wrong. Made with the class methods, each of which says what it does.

    `after` is a number of bytes, `of` what they are bytes of; with `of="frames"` it is a number of progress messages.
    A body that is shorter meets the fault at its end.
    """

    kind: FaultKind
    after: int = 0
    of: Place = "body"
    status: int = 0
    headers: tuple[tuple[str, str | None], ...] = ()
    body: bytes | None = None
    length: int = 0
    seconds: float | None = None
    text: str = ""
    code: str = ""

    def __post_init__(self) -> None:
        if self.after < 0:
            raise ValueError(f"after must not be negative: {self.after}")

    @classmethod
    def refuse(
        cls,
        status: int,
        *,
        code: str | None = None,
        message: str = "refused by the test",
        retry_after: float | datetime.datetime | str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Self:
        """Answer with `status` before the request's body is read.

        The body is an error document of the kind that the server sends (OCI's `{"errors": [...]}` with `code` and
        `message`, or the Engine's `{"message": ...}`), or `body` as it is. `retry_after` is a number of seconds, a
        time (sent as an HTTP date), or the text of the header.
        """
        if not 200 <= status <= 599:
            raise ValueError(f"not the status of an answer: {status}")
        pairs: dict[str, str | None] = dict(headers or {})
        if isinstance(retry_after, datetime.datetime):
            pairs["Retry-After"] = email.utils.format_datetime(retry_after.astimezone(datetime.UTC), usegmt=True)
        elif retry_after is not None:
            pairs["Retry-After"] = str(retry_after)
        return cls(kind="refuse", status=status, headers=tuple(pairs.items()), body=body, code=code or "", text=message)

    @classmethod
    def html(cls, status: int = 200, body: bytes = LOGIN_PAGE) -> Self:
        """Answer with a page in HTML, as a captive portal or a proxy's login does."""
        return cls.refuse(status, headers={"Content-Type": "text/html; charset=utf-8"}, body=body)

    @classmethod
    def cut(cls, after: int = 0, *, of: Place = "body") -> Self:
        """Close the connection when `after` bytes have been sent (of="request": received)."""
        return cls(kind="cut", after=after, of=of)

    @classmethod
    def reset(cls, after: int = 0, *, of: Place = "body") -> Self:
        """Do as `cut` does, but with a TCP reset; on a unix socket, which has none, the two are the same."""
        return cls(kind="reset", after=after, of=of)

    @classmethod
    def stall(cls, after: int = 0, *, of: Place = "body", seconds: float | None = None) -> Self:
        """Send (or read) nothing more after `after` bytes, with the connection open.

        Goes on after `seconds`, or when `Injection.release()` is called; ends when the client leaves.
        """
        return cls(kind="stall", after=after, of=of, seconds=seconds)

    @classmethod
    def slow(cls, *, chunk: int = 1024, pause: float = 0.01, of: Place = "body") -> Self:
        """Send (or read) `chunk` bytes at a time, with `pause` seconds after each, until `Injection.release()`."""
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1: {chunk}")
        return cls(kind="slow", length=chunk, seconds=pause, of=of)

    @classmethod
    def lie(cls, *, about: Literal["body", "digest"] = "body", after: int = 0) -> Self:
        """Send a body in which one bit of the byte at `after` is flipped, or a header with another digest."""
        return cls(kind="lie", after=after, text=about)

    @classmethod
    def duplicate(cls, after: int = 0, *, length: int = 1) -> Self:
        """Send `length` bytes of the body, from `after` on, twice; Content-Length stays."""
        return cls(kind="duplicate", after=after, length=length)

    @classmethod
    def content_length(cls, off_by: int) -> Self:
        """Declare a body longer (or, with a negative number, shorter) than the one that is sent, then close."""
        return cls(kind="content_length", length=off_by)

    @classmethod
    def header(cls, name: str, value: str | None) -> Self:
        """Send another value of a header, or with None leave that header out."""
        return cls(kind="header", headers=((name, value),))

    @classmethod
    def location(cls, to: str | None = None, *, scheme: str | None = None, host: str | None = None) -> Self:
        """Send another Location: `to` as it is, or the right one with another scheme or host."""
        if to is None and scheme is None and host is None:
            raise ValueError("say where to: to=, scheme= or host=")
        return cls(kind="location", headers=(("to", to), ("scheme", scheme), ("host", host)))

    @classmethod
    def link_loop(cls) -> Self:
        """Send a `Link` to a next page that is this page again (registries)."""
        return cls(kind="link_loop")

    @classmethod
    def lose_upload(cls) -> Self:
        """Forget the upload session that the request is about, and say that it is unknown (registries)."""
        return cls(kind="lose_upload")

    @classmethod
    def no_space(cls) -> Self:
        """Fail as the server does when its disk is full, after the request's body is read."""
        return cls(kind="no_space")

    @classmethod
    def restart(cls) -> Self:
        """Drop every connection and what a restart forgets, such as upload sessions; what is stored stays."""
        return cls(kind="restart")

    @classmethod
    def in_stream_error(cls, message: str, *, code: int | None = None, after: int = 0) -> Self:
        """End a stream of progress messages with an error message after `after` of them (Engines)."""
        return cls(kind="in_stream_error", text=message, status=code or 0, after=after)

    def __str__(self) -> str:
        """Return the fault's name and where it happens."""
        amount = f"{self.after} frames" if self.of == "frames" else f"{self.after} bytes of the {self.of}"
        where = f" after {amount}" if self.kind in {"cut", "reset", "stall"} else ""
        return f"{self.kind}{f' {self.status}' if self.status else ''}{where}"


class NotFakedError(Exception):
    """A test asked a fake for something that it does not do; the text says what, and what there is instead."""


@dataclass(eq=False)
class Injection:
    """A fault that `fail()` set up: where it applies and what has become of it.

    `hits` counts the requests that met it. Leaving it as a context manager removes it.
    """

    fault: Fault
    step: str | None
    reference: str | None
    times: int | None
    skip: int = 0
    hits: int = 0
    removed: bool = False
    _released: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def done(self) -> bool:
        """Whether it will not happen any more: it happened as often as it was to, or was removed."""
        return self.removed or (self.times is not None and self.hits >= self.times)

    @property
    def released(self) -> bool:
        """Whether `release()` was called."""
        return self._released.is_set()

    def release(self) -> None:
        """Let what a `stall` holds up go on, and what is `slow` go on at full speed."""
        self._released.set()

    def remove(self) -> None:
        """Do not let it happen any more; what it holds up goes on."""
        self.removed = True
        self.release()

    async def reached(self, hits: int = 1) -> None:
        """Wait until `hits` requests have met it."""
        while self.hits < hits:  # noqa: ASYNC110 - the fake may be served in another thread
            await asyncio.sleep(0.002)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class Faults:
    """The faults that a fake has been told to have, in the order in which they were named.

    `steps` are the names of what can fail ("GET manifest"); `kinds` are the faults that this fake can have.
    """

    def __init__(self, owner: str, steps: tuple[str, ...], kinds: frozenset[FaultKind]) -> None:
        self._owner = owner
        self._steps = steps
        self._kinds = kinds
        self._injections: list[Injection] = []

    def add(
        self,
        fault: Fault,
        on: str | None,
        times: int | None,
        skip: int,
        reference: str | None,
    ) -> Injection:
        """Have `fault` meet `times` requests of the step `on` that name `reference`, after the first `skip` of them."""
        if fault.kind not in self._kinds:
            raise NotFakedError(
                f"{self._owner} does not fake {fault.kind!r}; its faults are {', '.join(sorted(self._kinds))}."
            )
        if on is not None:
            self.check_step(on)
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1, or None for every time: {times}")
        injection = Injection(fault, on, reference, times, skip)
        self._injections.append(injection)
        return injection

    def check_step(self, on: str) -> None:
        """Raise `NotFakedError` unless `on` names a step, a method or a noun."""
        if not any(on == step or on in step.split() for step in self._steps):
            raise NotFakedError(f"{self._owner} has no step {on!r}; its steps are {', '.join(self._steps)}.")

    def take(self, step: str, reference: str) -> Injection | None:
        """Return the first that applies to a request, and count it; one request meets one fault at most."""
        for injection in tuple(self._injections):
            on = injection.step
            if injection.done or not (on is None or on == step or on in step.split()):
                continue
            if injection.reference not in (None, reference):
                continue
            if injection.skip:
                injection.skip -= 1
                continue
            injection.hits += 1
            return injection
        return None

    def clear(self) -> None:
        """Remove all of them."""
        for injection in self._injections:
            injection.remove()
        self._injections.clear()

    def pending(self) -> list[Injection]:
        """Return those that have not happened as often as they were to; those without an end are not among them."""
        return [each for each in self._injections if not each.done and each.times is not None]


def altered(fault: Fault, headers: Mapping[str, str]) -> dict[str, str]:
    """Return an answer's headers as the fault changes them."""
    changed = dict(headers)
    for name, value in fault.headers:
        for known in [each for each in changed if each.lower() == name.lower()]:
            del changed[known]
        if value is not None:
            changed[name] = value
    return changed

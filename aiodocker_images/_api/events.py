"""Image events: a subscription that goes on through restarts of the daemon, with every event once."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias, cast

from aiodocker_images._arguments import check_flag, check_mapping, wrong
from aiodocker_images._encoding import Filters, FilterValue, Query, encode_filters
from aiodocker_images._http.call import Call
from aiodocker_images.errors import (
    DaemonUnreachableError,
    InvalidArgumentError,
    InvalidReferenceError,
    ServerError,
    StreamInterruptedError,
    StreamStalledError,
)
from aiodocker_images.models import Event, EventActor
from aiodocker_images.reference import Reference

from .json_stream import FrameDecoder
from .operation import Operator

__all__ = ["Timestamp"]

Timestamp: TypeAlias = "datetime | float | str"

ACCEPT: Final = "application/jsonl, application/x-ndjson, application/json-seq, application/json"
"""The framings of events: API 1.52 and 1.53 brought the first three, and all before is called plain JSON."""

EVENT_BUFFER: Final = 4 << 20
"""Bytes of events that wait for a slow consumer. moby skips an event that a connection does not take in 0.1 s."""

SECOND: Final = 1_000_000_000  # all times in here are nanoseconds, most of them of the daemon's clock

OVERLAP: Final = 60 * SECOND
"""How far before the last event a new connection begins; what was seen of it is dropped.

The last event's own time would lose events: those that happened at the same time (Podman takes `since` as
exclusive, and rounds it), those that were overtaken (daemons look at the clock first and queue then: Podman
tells an untag before the delete that is some microseconds older, and moby's search of its history stops at
the first event that is too old), and those of a daemon whose clock was set back a little.
"""

REMEMBERED: Final = 256
"""Events that are remembered at least: moby's history has no more, so that none of them is repeated."""

MAX_REMEMBERED: Final = 100_000
"""Events that are remembered at most, whatever times they have: for all of the overlap, over a thousand a second."""

GRACE: Final = SECOND
"""How long Podman is let read its log at least, which it looks at four times a second."""

FIRST_DELAY: Final = 0.1
MAX_DELAY: Final = 10.0
"""Seconds between attempts to connect again; they double from the first to the last."""

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_TIME = re.compile(r"([0-9]+)(?:\.([0-9]{1,9})[0-9]*)?")
_DURATION = re.compile(r"(-?)((?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+)")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)([a-zµ]+)")
_UNITS: Final = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}

_logger = logging.getLogger("aiodocker_images")

_Identity: TypeAlias = "tuple[int, int]"  # its moment, and a hash of the rest, which may be megabytes


class Events(Operator):
    """The watching part of `ImageService`."""

    def events(
        self,
        *,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        filters: Filters | None = None,
        reconnect: bool = True,
    ) -> AsyncGenerator[Event, None]:
        """Yield what happens to images, as it happens.

        `since` asks for the past as well, as far as the Engine remembers it. `until` is when the generator
        ends, by default never; alone it begins with all of the past. Both are aware datetimes, seconds since
        the epoch, or text as the docker command takes it: RFC 3339 with a time zone, seconds
        ("1700000000.000000001"), or how long ago ("10m", "1h30m") by this machine's clock. `filters` are
        `image`, `event`, `label` and the Engine's others, in the forms that `list` takes; Docker does not look
        at one that it does not know. An image is its id or its name: which events have the name differs, and
        all of them have the id.

        The request is sent at the first `anext`. To miss nothing between a `list` and the events, take a moment
        that is certainly before the list as `since`: `datetime.now(UTC) - timedelta(minutes=1)`.

        When the connection ends, as when the daemon restarts, it is opened again, again and again if need be,
        and goes on where it was: no event twice and none left out. Left out is only what the Engine cannot say
        any more: Docker remembers its last 256 events, of containers and all, until it ends, and skips what a
        consumer has not taken when some megabytes wait for it. Without `since`, events of the last second
        before the beginning may come after the first such break.

        Docker's actions on images are among others pull, push, tag, untag, delete, load, save and import. Podman
        says `loadfromarchive` for load, only tag for an import, and has no labels in these events.

        A service with an `idle_timeout` takes as long a silence for such a break; without one, it is the
        operating system that notices when a remote machine is gone. Events never wait for one of
        `max_connections`.

        Raises `InvalidArgumentError` for a moment without a time zone and for a `type` other than image;
        `DaemonUnreachableError` if there is no daemon at the beginning; with `reconnect=False`
        `StreamInterruptedError` when the connection ends; `InvalidParameterError` for an `until` before
        `since`, `FrameDecodeError` and every other `DockerError`. GET /events (API 1.41).
        """
        check_flag("reconnect", reconnect)
        start, end = _nanoseconds("since", since), _nanoseconds("until", until)
        query: Query = (("filters", encode_filters(_image_filters(filters))),)
        if end is not None and start is None:
            start = 0  # with an end alone, the Engine begins with all the past that it knows
        call = Call(
            verb="events",
            method="GET",
            path="/events",
            query=query,
            headers={"Accept": ACCEPT},
            buffer=EVENT_BUFFER,
        )
        return self._watch(call, Position(start), end, reconnect=reconnect)

    async def _watch(
        self, call: Call, position: Position, end: int | None, *, reconnect: bool
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of one connection after the other, until the end."""
        delay = FIRST_DELAY
        with self._transport.located(call):
            while True:
                began, answers = time.monotonic(), position.answers
                try:
                    async with contextlib.aclosing(self._connection(call, position, end)) as events:
                        async for event in events:
                            delay = FIRST_DELAY
                            yield event
                        return
                # A 5xx is what stands before a daemon that is just starting: a proxy, or a desktop's relay.
                except (DaemonUnreachableError, StreamInterruptedError, ServerError) as error:
                    if not reconnect or not position.answers or self._transport.closed:
                        raise
                    if position.answers > answers and time.monotonic() - began > MAX_DELAY:
                        delay = FIRST_DELAY
                    # One line for each time that the daemon is away, and none for the silences of `idle_timeout`.
                    quiet = delay > FIRST_DELAY or isinstance(error, StreamStalledError)
                    _logger.log(logging.DEBUG if quiet else logging.WARNING, "watching events again: %s", error)
                # Not all who watch a daemon should come back at the same time.
                await self._transport.pause(delay * random.uniform(0.5, 1))  # noqa: S311 - no secret
                delay = min(delay * 2, MAX_DELAY)
                self._transport.versions.forget()  # another daemon may have come up there

    async def _connection(self, call: Call, position: Position, end: int | None) -> AsyncGenerator[Event, None]:
        """Yield the new events of one connection; return only at the end, raise for a connection that ended."""
        call = replace(call, query=call.query + await self._bounds(position.since, end))
        async with (
            self._transport.open(call, slot=False) as live,
            contextlib.aclosing(live.chunks()) as chunks,
        ):
            began, now = time.monotonic_ns(), _daemon_time(live.header("Date"))
            if not position.begin(now):
                raise StreamInterruptedError("the daemon's clock was set back; asking again from what it says now")
            decoder = FrameDecoder(Event)
            async for chunk in chunks:
                for event in decoder.feed(chunk):
                    if position.is_new(event) and (end is None or _moment(event) <= end):
                        yield event
                decoder.feed(b"")  # raises at once what would else wait for the next event
            decoder.finish()
            # The daemon ends the answer at the end that was asked for, but also when it ends itself. Its Date is
            # in whole seconds: it may be up to one second later there.
            if end is None or now + SECOND + time.monotonic_ns() - began < end:
                raise StreamInterruptedError("the daemon ended the stream of events")

    async def _bounds(self, since: int | None, end: int | None) -> Query:
        """Encode both ends, so that this daemon tells all that is between them."""
        query: Query = () if since is None else (("since", _unix_time(since)),)
        if end is None:
            return query
        if not (await self._transport.ping()).server.startswith("Libpod/"):
            return (*query, ("until", _unix_time(end)))
        # Podman 5.8 stops reading its log file when `until` comes, wherever it is; for one in the past, at once.
        if end + GRACE < time.time_ns():
            return (*query, ("stream", "false"))
        return (*query, ("until", _unix_time(end + 2 * GRACE)))


class Position:
    """What was seen of the events, and where to go on. Times are nanoseconds of the daemon's clock.

    `start` is where the caller wants to begin; None is the present. `answers` counts the connections made.
    """

    def __init__(self, start: int | None) -> None:
        self._start = start
        self._now = 0  # the latest time that the daemon is known to have had
        self._last: int | None = None
        self._seen: OrderedDict[_Identity, None] = OrderedDict()
        self.answers = 0

    @property
    def since(self) -> int | None:
        """Where the next connection is to begin; None is the present, 0 all that the daemon remembers."""
        if self._last is None or self._start is None:
            return self._start
        return max(self._start, self._last - OVERLAP)

    def begin(self, now: int) -> bool:
        """Take the time of an answer; return False if it must be asked for again, the clock having been set back.

        It would lack events: those that moby remembers since then, and on Podman all until the clock is where
        it was.
        """
        self.answers += 1
        if self._start is None:
            self._start = now
        known, self._now = self._now, now
        if now + OVERLAP >= known:
            return True
        self._last, self._start = now, min(self._start, now - OVERLAP)
        return False

    def is_new(self, event: Event) -> bool:
        """Remember an event; return whether it was not seen before.

        A daemon can even repeat one in the same answer: moby puts an event into the history first and sends it
        then to those who watch, so that a watcher who comes in between gets it from both.
        """
        moment = _moment(event)
        actor = event.actor or EventActor()
        identity = (moment, hash((event.action, actor.id, frozenset(actor.attributes.items()))))
        if identity in self._seen:
            return False
        self._seen[identity] = None
        self._last = moment
        self._now = max(self._now, moment)
        while (count := len(self._seen)) > REMEMBERED and (
            count > MAX_REMEMBERED or abs(next(iter(self._seen))[0] - moment) > OVERLAP
        ):
            self._seen.popitem(last=False)
        return True


def _image_filters(filters: Filters | None) -> Filters:
    """Add what the Engines need to understand filters alike; the values of one filter are joined by "or"."""
    check_mapping("filters", filters, '{"image": "alpine"}')
    chosen: dict[str, FilterValue] = dict(filters or {})
    if chosen.get("type", "image") not in ("image", ["image"], ("image",)):
        raise InvalidArgumentError(f"these are the events of images: the type cannot be {chosen['type']!r}")
    chosen["type"] = "image"
    if "delete" in (actions := _texts(chosen.get("event", ()))):
        # Podman calls it `remove` when it filters, and `delete` when it answers. Docker's images know no `remove`.
        chosen["event"] = [*actions, "remove"]
    if names := _texts(chosen.get("image", ())):
        chosen["image"] = [*dict.fromkeys(form for name in names for form in _forms(name))]
    return chosen


def _texts(value: FilterValue) -> list[str]:
    return [str(value)] if isinstance(value, bool | int | str) else [str(item) for item in value]


def _forms(name: str) -> tuple[str, ...]:
    """Spell an image as each Engine does: Docker familiarly and with sha256:, Podman in full and without."""
    if found := _ID.fullmatch(name):
        return name, f"sha256:{found[1]}", found[1]
    try:
        reference = Reference.parse(name)
    except InvalidReferenceError:
        return (name,)
    return name, reference.familiar, str(reference)


def _moment(event: Event) -> int:
    return event.time_nano or (0 if event.time is None else _since_epoch("time", event.time))


def _daemon_time(date: str | None) -> int:
    """Return the time of an answer by its Date header, or by our own clock if it has none."""
    try:
        return int(parsedate_to_datetime(date or "").timestamp()) * SECOND
    except (ValueError, OverflowError):
        return time.time_ns() // SECOND * SECOND


def _unix_time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, SECOND)
    return f"{seconds}.{rest:09}"


def _nanoseconds(name: str, moment: Timestamp | None) -> int | None:
    """Convert a moment of the caller's; the Engine itself takes nothing but Unix time."""
    match moment:
        case None:
            return None
        case str():
            return _read_moment(name, moment)
        case datetime():
            return _since_epoch(name, moment)
        case _:
            if not isinstance(cast("object", moment), int | float) or isinstance(moment, bool):
                raise wrong(name, moment, "a datetime, seconds since the epoch, or a text such as '10m'")
            if not math.isfinite(moment):
                raise InvalidArgumentError(f"{name} is not a valid time: {moment}")
            return int(Decimal(str(moment)) * SECOND)  # the decimal that the caller sees, without its binary tail


def _read_moment(name: str, text: str) -> int:
    if found := _UNIX_TIME.fullmatch(text):
        return int(found[1]) * SECOND + int((found[2] or "").ljust(9, "0"))
    if found := _DURATION.fullmatch(text):
        ago = sum(int(Decimal(number) * _UNITS[unit]) for number, unit in _DURATION_PART.findall(found[2]))
        return time.time_ns() + (ago if found[1] else -ago)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{name} is not a valid time: {text[:80]!r}") from error
    return _since_epoch(name, moment)


def _since_epoch(name: str, moment: datetime) -> int:
    if moment.tzinfo is None:
        raise InvalidArgumentError(f"{name} needs a time zone: {moment.isoformat()} is another moment everywhere")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000

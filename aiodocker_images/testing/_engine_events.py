"""The events of a fake Engine: what happened to images, as each kind of Engine tells it, and those who watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from aiodocker_images.reference import Reference

from ._engine_answers import frame
from ._engine_store import Image
from .engine_behaviour import EngineBehaviour

_REMEMBERED: Final = 256  # as moby's history
_POLL: Final = 0.005  # events may come from another thread than the one that serves


class EventLog:
    """What has happened. A kind of event is said by a method that knows how each Engine says it."""

    def __init__(self, behaviour: EngineBehaviour) -> None:
        self._as = behaviour
        self._events: list[dict[str, Any]] = []
        self._told = 0
        self.ended = False

    def tell(self, action: str, image_id: str, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Note that something happened now."""
        now = time.time_ns()
        if self._events:
            now = max(now, self._events[-1]["timeNano"] + 1)
        attributes: dict[str, str] = {**(labels or {}), "name": name}
        if self._as.podman:
            image_id, attributes = image_id.removeprefix("sha256:"), {"image": "", "name": name, "podId": ""}
        actor = {"ID": image_id, "Attributes": attributes}
        event = {"Type": "image", "Action": action, "Actor": actor, "scope": "local", "time": now // 10**9}
        if self._as.release < 29:
            event = {"status": action, "id": image_id, **event}
        self._events.append(event | {"timeNano": now})
        self._told += 1
        del self._events[:-_REMEMBERED]

    def forget(self) -> None:
        """Forget what happened, as a restart does."""
        self._events.clear()
        self._told = 0

    def about(self, action: str, image: Image, name: str = "", *, labels: bool = True) -> None:
        """Tell of an image by its id; Docker names it by its id, too, where no `name` is given."""
        self.tell(action, image.id, name or image.id, image.main.labels if labels else None)

    def pulled(self, image: Image, reference: Reference) -> None:
        """Tell of a pull."""
        if self._as.podman:
            self.about("pull", image, str(reference))
        else:
            self.tell("pull", reference.familiar, reference.familiar_name, image.main.labels)

    def pushed(self, image: Image, reference: Reference) -> None:
        """Tell of a push."""
        if self._as.podman:
            self.about("push", image, str(reference))
        else:
            self.tell("push", reference.familiar, reference.familiar_name, image.main.labels)

    async def watch(
        self, since: float | None, until: float | None, filters: Mapping[str, list[str]]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events that a watcher wants, until the end."""
        told = self._told if since is None else self._told - len(self._events)
        while True:
            new = self._events[len(self._events) - (self._told - told) :] if told < self._told else []
            told = self._told
            for event in new:
                moment = event["timeNano"] / 10**9
                if (
                    (since is None or moment >= since)
                    and (until is None or moment <= until)
                    and _wanted(event, filters)
                ):
                    yield frame(event)
            if self.ended or (until is not None and time.time() >= until):
                return
            await asyncio.sleep(_POLL)


def _wanted(event: Mapping[str, Any], filters: Mapping[str, list[str]]) -> bool:
    actor = event["Actor"]
    names = {actor["ID"], actor["Attributes"]["name"], *map(_without_tag, (actor["Attributes"]["name"], actor["ID"]))}
    labels: Mapping[str, str] = actor["Attributes"]
    checks: dict[str, Callable[[str], bool]] = {
        "type": lambda value: value == "image",
        "event": lambda value: value == event["Action"],
        "image": lambda value: value in names,
        "label": lambda value: value in labels or value in {f"{key}={text}" for key, text in labels.items()},
    }
    return all(any(checks[name](value) for value in values) for name, values in filters.items() if name in checks)


def _without_tag(text: str) -> str:
    return text.rpartition(":")[0] if not text.startswith("sha256:") else text

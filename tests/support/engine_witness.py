"""Sends plain requests to an Engine's socket, and notes what two Engines must have in common of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

Facts = dict[str, object]

_HEX = re.compile(r"(?:sha256:)?\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One whole answer. `headers` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever it is
        return json.loads(self.body)

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The JSON documents of a stream, one after the other."""
        decoder, text, frames = json.JSONDecoder(), self.body.decode(), list[dict[str, Any]]()
        while text := text.strip():
            frame, end = decoder.raw_decode(text)
            frames.append(frame)
            text = text[end:]
        return frames


async def ask(
    socket: Path,
    method: str,
    path: str,
    query: Iterable[tuple[str, str]] = (),
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a connection of its own, and read the answer to its end."""
    target = quote(path) + ("?" + urlencode(list(query)) if query else "")
    # Not "Connection: close": what an Engine refuses before it has read all would be lost with the connection.
    lines = [f"{method} {target} HTTP/1.1", "Host: docker"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append(f"Content-Length: {len(body or b'')}")
    reader, writer = await asyncio.open_unix_connection(socket, limit=1 << 24)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        async with asyncio.timeout(120):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.strip().split("\r\n")
            found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            received = bytearray()
            if found.get("transfer-encoding") == "chunked":
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    received += (await reader.readexactly(size + 2))[:-2]
            elif method != "HEAD":
                received += await reader.readexactly(int(found.get("content-length", 0)))
        return Answer(status=int(first.split(" ")[1]), headers=found, body=bytes(received))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Witness:
    """Asks one Engine, and keeps facts by name.

    What differs from run to run is replaced: ids and digests by their names in `known`, or by a number in the order
    in which they were first seen, and texts as `words` says.
    """

    def __init__(self, socket: Path, *, version: str, words: Mapping[str, str], known: Mapping[str, str]) -> None:
        self.facts: Facts = {}
        self._socket = socket
        self._version = version
        self._words = dict(words)
        self._ids = {digest.removeprefix("sha256:"): name for digest, name in known.items()}

    async def ask(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask in the API version of the Engine."""
        return await ask(self._socket, method, f"/v{self._version}{path}", query, body=body, headers=headers)

    async def unversioned(self, method: str, path: str) -> Answer:
        return await ask(self._socket, method, path)

    def note(self, name: str, fact: object) -> None:
        assert name not in self.facts
        self.facts[name] = self._plain(fact)

    def note_error(self, name: str, answer: Answer) -> None:
        """Note a refusal: its status and its words."""
        assert answer.status >= 400, answer
        self.note(name, [answer.status, answer.json.get("message") if answer.body.startswith(b"{") else None])

    def _plain(self, fact: object) -> object:
        if isinstance(fact, str):
            for word, instead in self._words.items():
                fact = fact.replace(word, instead)
            return _HEX.sub(self._named, fact)
        if isinstance(fact, dict):
            return {self._plain(key): self._plain(value) for key, value in cast("dict[object, object]", fact).items()}
        if isinstance(fact, list | tuple):
            return [self._plain(each) for each in cast("Iterable[object]", fact)]
        return fact

    def _named(self, match: re.Match[str]) -> str:
        text = match[0]
        prefix = "sha256:" if text.startswith("sha256:") else ""
        text = text.removeprefix("sha256:")
        if len(text) == 12:
            whole = next((each for each in self._ids if each.startswith(text)), None)
            return f"{self._ids[whole]}[:12]" if whole else "UNKNOWN[:12]"
        name = self._ids.setdefault(text, f"ID{sum(each.startswith('ID') for each in self._ids.values())}")
        return f"{prefix}{name}"

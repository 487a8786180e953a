"""How a fake Engine talks with registries: over HTTP on 127.0.0.1, and what it makes of a refusal."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from aiodocker_images.reference import Reference

from ._engine_answers import RefusalError
from .content import DOCKER_INDEX, DOCKER_MANIFEST, INDEXES, OCI_INDEX, OCI_MANIFEST, Blob, digest_of
from .engine_behaviour import EngineBehaviour

_ACCEPT: Final = f"{DOCKER_MANIFEST}, {DOCKER_INDEX}, {OCI_INDEX}, {OCI_MANIFEST}"
_LOOPBACK: Final = re.compile(r"(?:127\.[0-9.]+|localhost|\[::1\])(?::([0-9]+))?")
_PARAMETER: Final = re.compile(r'([a-z]+)="([^"]*)"')
_MAX_HEAD: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A registry's answer. `headers` have names in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def error(self) -> tuple[str, str]:
        """The code and the message of the first error; both empty if it has none."""
        with contextlib.suppress(ValueError, LookupError, TypeError):
            first: dict[str, Any] = json.loads(self.body)["errors"][0]
            return str(first.get("code", "")), str(first.get("message", ""))
        return "", ""


async def exchange(host: str, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
    """Send one request on a connection of its own; raises OSError or EOFError if there is no whole answer."""
    name, _, port = host.rpartition(":")
    reader, writer = await asyncio.open_connection(name.strip("[]"), int(port), limit=_MAX_HEAD)
    try:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.rstrip("\r\n").split("\r\n")
        found = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in rest)}
        length = found.get("content-length")
        data = b""
        if method != "HEAD":
            data = await (reader.read(-1) if length is None else reader.readexactly(int(length)))
        _, status, *reason = first.split(" ", 2)
        return Reply(status=int(status), reason=" ".join(reason), headers=found, body=data)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Remote:
    """One repository in a registry, as one operation of the Engine sees it.

    A name with a port of 127.0.0.1 is asked for there; all others are in `own`, the address of the registry behind the
    Engine, under the name that people type. `auth` is the X-Registry-Auth of the request.
    """

    def __init__(self, reference: Reference, own: str, auth: str, behaviour: EngineBehaviour) -> None:
        loopback = _LOOPBACK.fullmatch(reference.domain)
        self.reference = reference
        self.host = reference.domain if loopback and loopback[1] else own
        domain, _, _ = reference.domain.partition(":")
        familiar = reference.familiar_name if reference.domain == "docker.io" else f"{domain}/{reference.path}"
        self.repository = reference.path if self.host != own or loopback else familiar
        self._credentials = _credentials(auth)
        self._headers: dict[str, str] = {}
        self._as = behaviour

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        """Send a request about the repository, with credentials if the registry asks for them."""
        target = f"/v2/{self.repository}/{path}"
        try:
            reply = await exchange(self.host, method, target, {**(headers or {}), **self._headers}, body)
            if reply.status == 401 and (challenge := reply.headers.get("www-authenticate", "")):
                await self._authenticate(challenge, method, target)
                reply = await exchange(self.host, method, target, {**(headers or {}), **self._headers}, body)
        except (EOFError, asyncio.LimitOverrunError) as error:
            raise RefusalError(500, f'{method.title()} "http://{self.host}{target}": EOF', bare=True) from error
        except OSError as error:
            raise self._unreachable(target) from error
        return reply

    def _unreachable(self, target: str) -> RefusalError:
        words = f"dial tcp {self.host}: connect: connection refused"
        if self._as.podman:
            return RefusalError(500, "connection refused", bare=True)
        if self._as.store == "containerd":
            request = f'failed to do request: Head "https://{self.host}{target}": {words}'
            return RefusalError(500, f'failed to resolve reference "{self.reference.familiar}": {request}')
        return RefusalError(500, f'Get "http://{self.host}/v2/": {words}')

    async def _authenticate(self, challenge: str, method: str, target: str) -> None:
        scheme, _, rest = challenge.partition(" ")
        basic = None
        if self._credentials.get("username"):
            pair = f"{self._credentials['username']}:{self._credentials.get('password', '')}"
            basic = f"Basic {base64.b64encode(pair.encode()).decode()}"
        if scheme.lower() == "basic":
            if basic is None:
                raise self._no_credentials(method, target)
            self._headers = {"Authorization": basic}
            return
        parameters: dict[str, str] = dict(_PARAMETER.findall(rest))
        realm = urlsplit(parameters.get("realm", ""))
        scope = f"service={quote(parameters.get('service', ''))}&scope={quote(parameters.get('scope', ''))}"
        headers = {} if basic is None else {"Authorization": basic}
        reply = await exchange(realm.netloc, "GET", f"{realm.path}?{scope}", headers)
        if reply.status == 200:
            document: dict[str, str] = json.loads(reply.body)
            self._headers = {"Authorization": f"Bearer {document.get('token') or document.get('access_token')}"}

    def _no_credentials(self, method: str, target: str) -> RefusalError:
        if self._as.store == "containerd":
            words = "pull access denied, repository does not exist or may require authorization"
            name = self.reference.familiar
            return RefusalError(
                404, f'failed to resolve reference "{name}": {words}: authorization failed: no basic auth credentials'
            )
        return RefusalError(500, f'{method.title()} "http://{self.host}{target}": no basic auth credentials', bare=True)

    # What is asked for

    async def tags(self) -> list[str]:
        """Return the repository's tags."""
        reply = await self.ask("GET", "tags/list")
        if reply.status != 200:
            raise self._refused(reply, "tags/list")
        return list(json.loads(reply.body).get("tags") or [])

    async def manifest(self, what: str, *, plain: bool = False) -> Blob:
        """Return a manifest or index by its tag or digest; a refusal has `plain` the registry's words alone."""
        reply = await self.ask("GET", f"manifests/{what}", {"Accept": _ACCEPT})
        code, message = reply.error
        if plain and code:
            raise RefusalError(reply.status, f"{code.lower().replace('_', ' ')}: {message}")
        if reply.status != 200:
            raise self._refused(reply, f"manifests/{what}")
        found = Blob(data=reply.body, media_type=reply.headers.get("content-type", ""))
        if what.startswith("sha256:") and found.digest != what:
            raise RefusalError(500, f"manifest verification failed for digest {what}")
        return found

    def _refused(self, reply: Reply, target: str) -> RefusalError:
        """Put a refused request for a manifest into the words of the Engine."""
        code, message = reply.error
        words = f"{code.lower().replace('_', ' ')}: {message}" if code else ""
        name = self.reference.familiar
        if self._as.store == "containerd":
            if reply.status == 404:
                return RefusalError(404, f'failed to resolve reference "{name}": {name}: not found')
            what = f"{reply.status} {reply.reason}"
            where = f"http://{self.host}/v2/{self.repository}/{target}"
            words = f"unexpected status from HEAD request to {where}: {what}"
            return RefusalError(500, f'unknown: failed to resolve reference "{name}": {words}')
        if self._as.podman:
            return RefusalError(404 if reply.status == 404 else 500, words or reply.reason, bare=True)
        if reply.status >= 500 or not words:
            return RefusalError(500, f"received unexpected HTTP status: {reply.status} {reply.reason}")
        denied = f"pull access denied for {self.reference.familiar_name}, repository does not exist or may require"
        prefix = {
            "NAME_UNKNOWN": f"repository {self.reference.familiar_name} not found: ",
            "MANIFEST_UNKNOWN": f"manifest for {name} not found: ",
            "DENIED": f"{denied} 'docker login': ",
        }.get(code, "")
        status = 404 if prefix else reply.status if self._as.release >= 28 else 500
        return RefusalError(status, prefix + words)

    async def blob(self, wanted: Mapping[str, Any], *, config: bool = False) -> Blob:
        """Return what a descriptor describes; the diff id is left out."""
        digest = str(wanted["digest"])
        reply = await self.ask("GET", f"blobs/{digest}")
        if reply.status in {302, 307}:
            location = urlsplit(reply.headers["location"])
            reply = await exchange(
                location.netloc.replace("localhost", "127.0.0.1"), "GET", f"{location.path}?{location.query}", {}
            )
        code, message = reply.error
        if reply.status != 200:
            words = f"{code.lower()}: {message}" if code else f"received unexpected HTTP status: {reply.status}"
            if self._as.store == "containerd":
                raise RefusalError(500, f"error from registry: {message or reply.reason}")
            failed = f"download failed after attempts=1: {words}"
            raise RefusalError(500, f"error pulling image configuration: {failed}" if config else words, bare=True)
        if digest_of(reply.body) != digest:
            raise RefusalError(500, self._wrong(digest, digest_of(reply.body), config=config), bare=True)
        return Blob(data=reply.body, media_type=str(wanted["mediaType"]))

    def _wrong(self, digest: str, found: str, *, config: bool) -> str:
        if self._as.store == "containerd":
            kind = "config" if config else "layer"
            failed = f"commit failed: unexpected commit digest {found}, expected {digest}: failed precondition"
            return f'failed commit on ref "{kind}-{digest}": {failed}'
        if config:
            return f"error pulling image configuration: image config verification failed for digest {digest}"
        return f"filesystem layer verification failed for digest {digest}"

    # What is pushed

    async def push_blob(self, blob: Blob, mount_from: str = "") -> str:
        """Upload a blob unless it is there; return "there", "mounted" or "pushed"."""
        if (await self._pushing("HEAD", f"blobs/{blob.digest}", allowed={200, 307, 404})).status != 404:
            return "there"
        mount = f"?mount={blob.digest}&from={mount_from}" if mount_from else ""
        opened = await self._pushing("POST", f"blobs/uploads/{mount}", allowed={201, 202}, body=b"")
        if opened.status == 201:
            return "mounted"
        location = urlsplit(opened.headers["location"])
        query = f"{location.query}&" if location.query else ""
        path = f"{location.path}?{query}digest={blob.digest}".removeprefix(f"/v2/{self.repository}/")
        headers = {"Content-Type": "application/octet-stream"}
        await self._pushing("PUT", path, allowed={201}, headers=headers, body=blob.data)
        return "pushed"

    async def push_manifest(self, manifest: Blob, what: str) -> None:
        """Upload a manifest under a tag or its digest."""
        headers = {"Content-Type": manifest.media_type}
        await self._pushing("PUT", f"manifests/{what}", allowed={201}, headers=headers, body=manifest.data)

    async def has_manifest(self, what: str) -> bool:
        """Tell whether the repository has a manifest."""
        return (await self._pushing("HEAD", f"manifests/{what}", allowed={200, 404})).status == 200

    async def _pushing(
        self,
        method: str,
        path: str,
        *,
        allowed: set[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        reply = await self.ask(method, path, headers, body)
        if reply.status in allowed:
            return reply
        code, message = reply.error
        words = f"{code.lower().replace('_', ' ')}: {message}" if code else ""
        if self._as.store == "containerd" and message:
            words = f"error from registry: {message}"
        raise RefusalError(500, words or f"received unexpected HTTP status: {reply.status} {reply.reason}", bare=True)


def is_index(blob: Blob) -> bool:
    """Tell whether a manifest is an index."""
    return blob.media_type in INDEXES


def _credentials(auth: str) -> dict[str, str]:
    if not auth:
        return {}
    with contextlib.suppress(ValueError):
        return dict(json.loads(base64.urlsafe_b64decode(auth + "=" * (-len(auth) % 4))))
    return {}

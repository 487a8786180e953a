"""A registry in the test's own process, which can be looked into and told to fail.

    async with FakeRegistry() as registry:
        registry.put("app:1.0", index())
        registry.fail(Fault.cut(after=1000), on="GET blob")
        ...                                         # pull f"{registry.host}/app:1.0"
        assert registry.count("GET blob") == 3
        await registry.idle()                       # no connection is open any more
        assert registry.uploads == []

It is a real server on 127.0.0.1 with real state, so any client can be tested with it, an Engine or a command too.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from ._distribution_api import STEPS, UNKNOWN, DistributionAPI, locate, needs
from ._exchange import ClientLeftError, Exchange, Request, Response
from ._registry_answers import ERROR_CODES, blob_response, document, error, not_found
from ._server import Server
from ._serving import Serving
from ._store import Store, StoredManifest, Upload
from .auth import Auth, Gate, Grant
from .behaviour import Behaviour, behaviour_of
from .content import Blob, Manifest, digest_of
from .faults import Fault, FaultKind, Faults

KINDS: Final[frozenset[FaultKind]] = frozenset(
    {
        *("refuse", "cut", "reset", "stall", "slow", "lie", "duplicate", "content_length", "header", "location"),
        *("link_loop", "lose_upload", "no_space", "restart"),
    }
)

REGISTRY: Final = "registry"
TOKENS: Final = "tokens"
STORAGE: Final = "storage"

_IDLE_POLL: Final = 0.002


class FakeRegistry(Serving):
    """An OCI registry on 127.0.0.1, open to everybody unless `auth` says otherwise.

    `async with` serves it in the running loop; a plain `with` serves it in a thread of its own, for tests that are
    not coroutines. Entered again, it serves what it had on the port it had: a registry that was down and is back.

    Args:
        like: Which registry it behaves as: a name in `BEHAVIOURS`, or a `Behaviour`.
        auth: `BasicAuth` or `TokenAuth`; None lets everybody in.
        redirect: Whether blobs are redirected to another host with a signed URL, as registries do that keep their
            blobs in a cloud's storage.
        tls: The TLS of the registry itself; its token server and storage stay without.
        strict: Whether leaving the block raises `NotFakedError` if something was asked that the fake does not know.
            Otherwise such requests are just answered with 404.

    Attributes:
        requests: Every request that came, in order, those to the token server and to the storage too.
        host: "127.0.0.1:PORT", what names of images begin with; known once it is served.
    """

    def __init__(
        self,
        like: str | Behaviour = "oci",
        *,
        auth: Auth | None = None,
        redirect: bool = False,
        tls: ssl.SSLContext | None = None,
        strict: bool = True,
    ) -> None:
        super().__init__(Faults("FakeRegistry", STEPS, KINDS), strict=strict, refusal=404)
        self.behaviour = behaviour_of(like)
        self._redirects = redirect
        self._store = Store()
        self._server = Server(REGISTRY, self, self.requests, tls=tls)
        self._tokens = Server(TOKENS, self, self.requests)
        # Under another name than the registry's: to clients in Go, another port alone is not another host, and they
        # send the registry's credentials there.
        self._storage = Server(STORAGE, self, self.requests, known_as="localhost")
        self._gate = Gate(auth, lambda: self._tokens.url)
        self._api = DistributionAPI(
            self._store, self.behaviour, lambda: self._server.url, self._signed_url, self._gate.may
        )

    # Life

    async def _start(self) -> None:
        for server in self._servers:
            await server.start()

    async def _stop(self) -> None:
        for server in self._servers:
            await server.stop()

    @property
    def _servers(self) -> tuple[Server, Server, Server]:
        return self._server, self._tokens, self._storage

    # Where it is

    @property
    def host(self) -> str:
        """Host and port, as names of images begin: "127.0.0.1:PORT"."""
        return self._server.host

    @property
    def url(self) -> str:
        """The registry's URL, "http://127.0.0.1:PORT", or https with `tls`."""
        return self._server.url

    @property
    def token_host(self) -> str:
        """Host and port of the token server."""
        return self._tokens.host

    @property
    def storage_host(self) -> str:
        """Host and port that blobs are redirected to."""
        return self._storage.host

    def name(self, image: str) -> str:
        """Return the whole name of an image in this registry: "127.0.0.1:PORT/app:1.0" for "app:1.0"."""
        return f"{self.host}/{image}"

    # What is in it

    def put(self, name: str, content: Manifest, *more: Manifest) -> str:
        """Store an image or index, with all that it refers to, as "app:1.0" (or "app", by its digest alone).

        `more`, such as referrers of it, goes into the same repository without a tag. Returns the digest.
        """
        repository, tag, _ = _split(name)
        self._store.put(repository, content, tag)
        for each in more:
            self._store.put(repository, each)
        return content.digest

    def put_blob(self, repository: str, data: bytes | Blob, *, digest: str = "") -> str:
        """Store a blob and return its digest; with `digest`, under that one, right or wrong."""
        return self._store.put_blob(repository, data if isinstance(data, bytes) else data.data, digest)

    def put_manifest(self, name: str, data: bytes, media_type: str, *, digest: str = "") -> str:
        """Store a manifest as it is, without what it refers to, and return its digest.

        With `digest`, it is stored under that one, right or wrong: indexes that contain each other can be made so.
        """
        repository, tag, _ = _split(name)
        stored = StoredManifest(data=data, media_type=media_type, digest=digest or digest_of(data))
        self._store.put_manifest(repository, stored, tag)
        return stored.digest

    def tag(self, name: str, *tags: str) -> None:
        """Give the manifest that "app:1.0" or "app@sha256:..." names more tags."""
        found, repository = self.manifest(name), _split(name)[0]
        self._store.repositories[repository].tags.update(dict.fromkeys(tags, found.digest))

    def create(self, repository: str) -> None:
        """Make an empty repository."""
        self._store.create(repository).known = True

    def remove(self, name: str) -> None:
        """Remove the tag that "app:1.0" names, or the manifest that "app@sha256:..." names."""
        found = self.manifest(name)
        repository, tag, _ = _split(name)
        if tag:
            del self._store.repositories[repository].tags[tag]
        else:
            self._store.remove_manifest(repository, found.digest)

    def remove_blob(self, repository: str, digest: str) -> None:
        """Remove a blob from a repository."""
        self._store.remove_blob(repository, digest)

    @property
    def images(self) -> dict[str, str]:
        """The digests of all tagged manifests, by names such as "app:1.0"."""
        return {
            f"{repository}:{tag}": digest
            for repository, there in sorted(self._store.repositories.items())
            for tag, digest in sorted(there.tags.items())
        }

    @property
    def repositories(self) -> list[str]:
        """The names of all repositories."""
        return sorted(self._store.repositories)

    def tags(self, repository: str) -> dict[str, str]:
        """Return the digests that the tags of a repository name; empty if there is none."""
        there = self._store.repositories.get(repository)
        return dict(there.tags) if there is not None else {}

    def manifest(self, name: str) -> StoredManifest:
        """Return the manifest that "app:1.0" or "app@sha256:..." names; raises KeyError if there is none."""
        repository, tag, digest = _split(name)
        found = self._store.find_manifest(repository, digest or tag or "latest")
        if found is None:
            raise KeyError(f"no manifest {name!r} in the fake registry; it has {', '.join(self.images) or 'no tags'}")
        return found

    def manifests(self, repository: str) -> list[str]:
        """Return the digests of a repository's manifests, with and without tags."""
        there = self._store.repositories.get(repository)
        return sorted(there.manifests) if there is not None else []

    def blob(self, digest: str) -> bytes:
        """Return a blob, whichever repository it is in; raises KeyError if there is none."""
        try:
            return self._store.blobs[digest]
        except KeyError:
            raise KeyError(f"no blob {digest} in the fake registry") from None

    def blobs(self, repository: str | None = None) -> set[str]:
        """Return the digests of the blobs of a repository, or of all."""
        if repository is None:
            return set(self._store.blobs)
        there = self._store.repositories.get(repository)
        return set(there.blobs) if there is not None else set()

    def has(self, repository: str, content: Manifest) -> bool:
        """Tell whether a repository has this manifest or index and all that it refers to, byte for byte."""
        there = self._store.repositories.get(repository)
        return (
            there is not None
            and all(
                (stored := there.manifests.get(each.digest)) and stored.data == each.data for each in content.walk()
            )
            and all(
                digest in there.blobs and self._store.blobs[digest] == each.data
                for digest, each in content.all_blobs().items()
            )
        )

    # What was asked, and what is open

    @property
    def grants(self) -> list[Grant]:
        """The tokens that the token server gave, and for what."""
        return self._gate.grants

    @property
    def connections(self) -> int:
        """How many connections are open, those to the token server and to the storage too."""
        return sum(len(server.connections) for server in self._servers)

    @property
    def uploads(self) -> list[Upload]:
        """The upload sessions that are open."""
        return list(self._store.uploads.values())

    # What goes wrong

    def revoke_tokens(self) -> None:
        """Accept none of the tokens that were given so far, whatever they promised."""
        self._gate.revoke()

    def forget_uploads(self) -> None:
        """Lose every upload session."""
        self._store.uploads.clear()

    # How it answers

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a request; the servers call this."""
        request = exchange.request
        if request.server == TOKENS:
            return await self._answer_token(exchange)
        if request.server == STORAGE:
            return await self._answer_storage(exchange)
        if self.behaviour.version == 1:
            return self._answer_v1(request)
        locate(request)
        response = self._gate.refusal(request, needs(request))
        if response is None and request.step == UNKNOWN:
            self._unfaked.append(f"{request.method} {request.path}")
            response = not_found()
        if response is None:
            response = await self._with_fault(exchange, lambda: self._api.answer(exchange))
        response.headers.setdefault("Docker-Distribution-Api-Version", "registry/2.0")
        return response

    async def _answer_token(self, exchange: Exchange) -> Response:
        exchange.request.step = f"{exchange.request.method} token"
        return await self._with_fault(exchange, lambda: self._gate.token(exchange))

    async def _answer_storage(self, exchange: Exchange) -> Response:
        request = exchange.request
        request.step = f"{request.method} storage"
        request.reference = request.path.removeprefix("/signed/")

        async def send() -> Response:
            if request.authorized:  # as S3 does, which takes it for a second signature
                return Response(status=400, body=b"Only one auth mechanism allowed")
            found = self._store.blobs.get(request.reference)
            if found is None or request.raw_query != _SIGNATURE:
                return Response(status=403, body=b"SignatureDoesNotMatch")
            return blob_response(request, found, self.behaviour, {})

        return await self._with_fault(exchange, send)

    def _answer_v1(self, request: Request) -> Response:
        request.step = f"{request.method} base" if request.path in {"/v2/", "/v2"} else UNKNOWN
        if request.path == "/v1/_ping":
            return document(True, headers={"X-Docker-Registry-Version": "0.9.1"})
        return Response(status=404, headers={"Content-Type": "text/html"}, body=_V1_NOT_FOUND)

    async def _with_fault(self, exchange: Exchange, answer: Callable[[], Awaitable[Response]]) -> Response:
        """Answer, with the fault that this request is to meet."""
        request = exchange.request
        injection = self._faults.take(request.step, request.reference)
        if injection is None:
            return await answer()
        fault = request.fault = injection.fault
        exchange.injection = injection
        if fault.kind == "refuse":
            return _refusal(fault)
        if fault.kind == "no_space":
            await exchange.read()
            self._store.uploads.pop(request.reference, None)
            # As distribution 2.8 says it: errno 28 is ENOSPC.
            detail = {"DriverName": "filesystem", "Enclosed": {"Op": "write", "Path": "/var/lib/registry", "Err": 28}}
            return error(500, "UNKNOWN", "unknown error", detail)
        if fault.kind == "restart":
            self._store.uploads.clear()
            for server in self._servers:
                server.drop_connections()
            raise ClientLeftError("the registry restarted")
        if fault.kind == "lose_upload":
            self._store.uploads.pop(request.reference, None)
        response = await answer()
        if fault.kind == "lie" and fault.text == "digest":
            response.headers["Docker-Content-Digest"] = digest_of(b"another content")
        elif fault.kind == "link_loop":
            response.headers["Link"] = f'<{request.target}>; rel="next"'
        elif fault.kind == "location" and "Location" in response.headers:
            response.headers["Location"] = _elsewhere(fault, response.headers["Location"], self.url)
        return response

    def _signed_url(self, digest: str) -> str:
        return f"{self._storage.url}/signed/{digest}?{_SIGNATURE}" if self._redirects else ""


_SIGNATURE: Final = "X-Expires=300&X-Name=a%20b~c%3A1&X-Signature=ab%2Fcd%2Bef%3D%3D"
"""A query that is another one when a client decodes and encodes it: the storage wants it as it is."""

_V1_NOT_FOUND: Final = b"<!DOCTYPE HTML>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"


def _refusal(fault: Fault) -> Response:
    headers = {name: value for name, value in fault.headers if value is not None}
    if fault.body is not None:
        return Response(status=fault.status, headers=headers, body=fault.body)
    response = error(fault.status, fault.code or ERROR_CODES.get(fault.status, "UNKNOWN"), fault.text)
    response.headers |= headers
    return response


def _elsewhere(fault: Fault, location: str, url: str) -> str:
    """Return the Location that the fault has instead of the right one."""
    wanted = dict(fault.headers)
    if (to := wanted["to"]) is not None:
        return to
    parts = urlsplit(location if "://" in location else url + location)
    return urlunsplit(parts._replace(scheme=wanted["scheme"] or parts.scheme, netloc=wanted["host"] or parts.netloc))


def _split(name: str) -> tuple[str, str, str]:
    """Return the repository, the tag and the digest of a name without a host; each may be empty but the first."""
    rest, _, digest = name.partition("@")
    repository, colon, tag = rest.rpartition(":")
    return (repository, tag, digest) if colon else (rest, "", digest)

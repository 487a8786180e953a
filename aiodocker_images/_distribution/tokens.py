"""Who we are at one registry: what it asked for, and the tokens of its token server, one for each set of scopes.

A registry that has challenged once is not sent a request without credentials again. A token belongs to its scopes
alone: tokens of merged scopes grow until registries refuse their headers (ACR, Quay, load balancers). Credentials come
from the keychain at each token request, because they may rotate.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar
from urllib.parse import urlencode

import msgspec
from yarl import URL

from aiodocker_images._aio.shared_runs import SharedRuns
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.credentials import Keychain, RegistryAuth, find_credentials
from aiodocker_images.errors import FrameDecodeError, InvalidArgumentError, UnauthorizedError, shown

from .challenges import Challenge

__all__ = [
    "Ask",
    "Authorization",
    "Authorizer",
    "Scopes",
    "TokenRequest",
    "delete_scopes",
    "pull_scopes",
    "push_scopes",
]

K = TypeVar("K")
V = TypeVar("V")

Scopes = tuple[str, ...]

DEFAULT_LIFE: Final = 60.0
"""Seconds that a token is good for whose server does not say (token specification)."""

EARLY: Final = 0.1
"""The part of a token's life before its end in which it is renewed already: a request takes some time."""

MAX_EARLY: Final = 15.0
"""Seconds of it, at most."""

MAX_SCOPES: Final = 1000
"""Tokens, and passwords of repositories, that are kept; a run over many repositories would keep every one of them."""

CLIENT_ID: Final = "aiodocker-images"

_TOKEN: Final = re.compile(r"[!-~]{1,65536}")  # what a header can carry; tokens of Azure have thousands of characters


def pull_scopes(path: str) -> Scopes:
    """Return what reading from a repository takes."""
    return (f"repository:{path}:pull",)


def push_scopes(path: str) -> Scopes:
    """Return what writing to a repository takes."""
    return (f"repository:{path}:pull,push",)


def delete_scopes(path: str) -> Scopes:
    """Return what removing from a repository takes."""
    return (f"repository:{path}:pull,push,delete",)


@dataclass(frozen=True, slots=True)
class Authorization:
    """The value of a request's `Authorization` header, shown to nobody. `until` is in the loop's time."""

    value: str = field(repr=False)
    until: float = float("inf")


class _TokenAnswer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to a token server; all but its method may carry credentials, or names of users."""

    method: Literal["GET", "POST"]
    url: URL = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


Ask = Callable[[TokenRequest], Awaitable[bytes]]
"""Sends a request to a token server. Raises unless the answer is 200; returns its body."""


class Authorizer:
    """The authorizations for one registry; `origin` is its own URL, `ask` reaches its token server."""

    def __init__(self, registry: str, origin: URL, keychain: Keychain, ask: Ask) -> None:
        self._registry = registry
        self._origin = origin
        self._keychain = keychain
        self._ask = ask
        self._scheme: Literal["", "basic", "bearer"] = ""
        self._realm: URL | None = None
        self._service = ""
        self._basic: dict[str, Authorization | None] = {}  # by repository: they may differ
        self._tokens: dict[Scopes, Authorization] = {}
        self._asked_for: dict[Scopes, Scopes] = {}  # where the registry wants other scopes than ours
        self._runs = SharedRuns()

    async def current(self, scopes: Scopes) -> Authorization | None:
        """Return what to send with a request: nothing as long as the registry has not asked for anything."""
        if self._scheme == "basic":
            repository = _repository(scopes)
            return self._basic[repository] if repository in self._basic else await self._password(repository)
        if self._scheme == "":
            return None
        known = self._tokens.get(scopes)
        if known is not None and known.until > asyncio.get_running_loop().time():
            return known
        return await self._token(scopes)

    async def renew(self, scopes: Scopes, refused: Authorization | None, challenges: Sequence[Challenge]) -> bool:
        """Take notice of a refusal of what was sent; return whether there is something else to send now."""
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if (bearer := by_scheme.get("bearer")) is not None and "realm" in bearer.parameters:
            self._learn(bearer, scopes, refused)
            if self._tokens.get(scopes) in {None, refused}:
                self._tokens.pop(scopes, None)
                await self._token(scopes)
            return True
        if "basic" in by_scheme:
            self._scheme = "basic"
            basic = await self._password(_repository(scopes))
            return basic is not None and basic != refused
        if self._scheme == "bearer" and refused is not None:
            if self._tokens.get(scopes) == refused:
                del self._tokens[scopes]
                await self._token(scopes)
            return True
        return False

    async def token_of_its_own(self, scopes: Scopes) -> Authorization:
        """Return a token that no other request has used or waits for."""
        return await self._fetch_token(scopes)

    def _learn(self, challenge: Challenge, scopes: Scopes, refused: Authorization | None) -> None:
        realm = _realm(challenge.parameters["realm"], self._origin, self._registry)
        if realm != self._realm:
            self._tokens.clear()
        self._scheme, self._realm, self._service = "bearer", realm, challenge.parameters.get("service", "")
        # Our own scopes say what is needed. Only if a token for them was refused do the registry's words count.
        if refused is not None and challenge.scopes and set(challenge.scopes) != set(scopes):
            self._asked_for[scopes] = challenge.scopes

    async def _token(self, scopes: Scopes) -> Authorization:
        return await self._runs.share((scopes,), lambda: self._new_token(scopes))

    async def _new_token(self, scopes: Scopes) -> Authorization:
        authorization = await self._fetch_token(scopes)
        _remember(self._tokens, scopes, authorization)
        return authorization

    async def _fetch_token(self, scopes: Scopes) -> Authorization:
        auth = await find_credentials(self._keychain, self._registry, _repository(scopes))
        if auth is not None and auth.registry_token:
            authorization = Authorization(f"Bearer {_checked(auth.registry_token)}")
        else:
            before = asyncio.get_running_loop().time()
            found = _read_token(await self._request_token(auth, self._asked_for.get(scopes, scopes)))
            if found is None:
                raise FrameDecodeError(
                    f"the token server {self._realm_name()} of {self._registry} sent no usable token"
                )
            authorization = Authorization(f"Bearer {found.value}", before + found.until)
        return authorization

    async def _request_token(self, auth: RegistryAuth | None, scopes: Scopes) -> bytes:
        if self._realm is None:
            raise RuntimeError("a token is asked for after a challenge")
        service = [("service", self._service)] if self._service else []
        if auth is not None and auth.identity_token:
            form = [*service, ("client_id", CLIENT_ID), ("grant_type", "refresh_token"), ("scope", " ".join(scopes))]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return await self._ask(TokenRequest("POST", self._realm, headers, _form(form, auth)))
        # One parameter for each scope: Pulp 2.30 grants nothing for two in one.
        query = [*service, *(("scope", scope) for scope in scopes)]
        if auth is not None and auth.username:
            query.append(("account", auth.username))
        separator = "&" if self._realm.raw_query_string else "?"
        url = URL(f"{self._realm}{separator}{urlencode(query)}", encoded=True)
        return await self._ask(
            TokenRequest("GET", url, _basic(auth) if auth and (auth.username or auth.password) else {})
        )

    async def _password(self, repository: str) -> Authorization | None:
        return await self._runs.share(("basic", repository), lambda: self._new_basic(repository))

    async def _new_basic(self, repository: str) -> Authorization | None:
        auth = await find_credentials(self._keychain, self._registry, repository)
        known = auth is not None and (auth.username or auth.password)
        authorization = Authorization(_basic(auth)["Authorization"]) if auth is not None and known else None
        _remember(self._basic, repository, authorization)
        return authorization

    def _realm_name(self) -> str:
        return self._realm.authority if self._realm is not None else ""


def _repository(scopes: Scopes) -> str:
    """Return the repository that credentials are needed for; "" for the registry as a whole.

    A mount has the scopes of two repositories. The first is the one that is written to.
    """
    return scopes[0].split(":")[1] if scopes else ""


def _remember(known: dict[K, V], key: K, value: V) -> None:
    known.pop(key, None)
    while len(known) >= MAX_SCOPES:
        del known[next(iter(known))]
    known[key] = value


def _realm(text: str, origin: URL, registry: str) -> URL:
    """Return the URL of a token server; raise `UnauthorizedError` for one that credentials must not be sent to."""
    try:
        realm = URL(text, encoded=True) if text.isascii() and text.isprintable() and " " not in text else None
        usable = realm is not None and realm.scheme in {"http", "https"} and bool(realm.host) and realm.user is None
    except ValueError:
        realm, usable = None, False
    if realm is None or not usable:
        raise UnauthorizedError(f"{registry} names a token server that is not an address: {shown(text)}", status=401)
    if realm.scheme == "http" and origin.scheme == "https":
        raise UnauthorizedError(
            f"{registry} speaks https, but its token server {shown(str(realm.authority))} does not:"
            " no credentials are sent there",
            status=401,
        )
    return realm.with_fragment(None)


def _read_token(body: bytes) -> Authorization | None:
    """Return a token and how long to use it; None if there is none, for an exception would hold the body."""
    try:
        answer = msgspec.json.decode(body, type=_TokenAnswer)
    except UNDECODABLE:
        return None
    token = answer.token or answer.access_token or ""
    if not _TOKEN.fullmatch(token):
        return None
    life = DEFAULT_LIFE if answer.expires_in is None else max(0.0, answer.expires_in)
    return Authorization(token, life - min(life * EARLY, MAX_EARLY))


def _basic(auth: RegistryAuth) -> dict[str, str]:
    try:
        return {"Authorization": "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()}
    except UnicodeEncodeError:
        pass
    raise InvalidArgumentError("the credentials have half of a surrogate pair in them, which UTF-8 cannot say")


def _form(form: Sequence[tuple[str, str]], auth: RegistryAuth) -> bytes:
    try:
        return urlencode([*form, ("refresh_token", auth.identity_token)]).encode()
    except UnicodeEncodeError:
        pass
    raise InvalidArgumentError("the identity token has half of a surrogate pair in it, which UTF-8 cannot say")


def _checked(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise InvalidArgumentError("the registry token has characters that no header can carry")
    return token

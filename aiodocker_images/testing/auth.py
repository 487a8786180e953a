"""Who may use a fake registry: everybody, those with a password, or those with a token of its token server.

FakeRegistry(auth=BasicAuth("alice", "secret"))
FakeRegistry(auth=TokenAuth("alice", "secret", uses=8))  # each token is accepted eight times
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl

from ._exchange import Exchange, Request, Response

Access = Callable[[str, str, str], bool]
"""Says whether an account ("" for nobody) may do an action ("pull", "push", "delete") to a repository."""

SERVICE: Final = "fake-registry"
IDENTITY_TOKEN: Final = "an identity token of the fake registry"  # noqa: S105 - opens nothing


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What the token server gave, and for what: `how` is "anonymous", "basic", "password" or "refresh_token"."""

    account: str
    how: str
    scopes: tuple[str, ...]


@dataclass
class BasicAuth:
    """A user name and a password that come with each request.

    With `challenge=False`, a 401 does not say how to authenticate.
    """

    username: str = "user"
    password: str = field(default="password", repr=False)
    challenge: bool = True


@dataclass
class TokenAuth:
    """Bearer tokens, which the token server of the fake gives to who has the password or the identity token.

    Attributes:
        expires_in: The seconds that the token server promises; None to promise nothing, which means 60.
        lifetime: The seconds that a token is really accepted; None for as long as was promised.
        uses: How often a token is accepted; None for any number of times.
        token_field: In which fields the token comes: "token", "access_token" or "both".
        anonymous: The actions that nobody in particular may do, such as ("pull",).
        allow: Says what an account may do; without, who has the password may do everything.
        challenge: Whether a 401 says where the token server is.
        oauth2: Whether the token server answers POST as well as GET.
        spaces: Whether several scopes are accepted in one parameter, with spaces between; otherwise such a
            parameter grants nothing.
        identity_token: The refresh token, which is given to who asks with `offline_token=true`.
    """

    username: str = "user"
    password: str = field(default="password", repr=False)
    expires_in: float | None = 300
    lifetime: float | None = None
    uses: int | None = None
    token_field: Literal["token", "access_token", "both"] = "both"  # noqa: S105 - a field's name
    anonymous: Sequence[str] = ()
    allow: Access | None = field(default=None, repr=False)
    challenge: bool = True
    oauth2: bool = True
    spaces: bool = False
    identity_token: str = field(default=IDENTITY_TOKEN, repr=False)


Auth = BasicAuth | TokenAuth


@dataclass
class _Token:
    account: str
    access: frozenset[tuple[str, str]]  # (repository, action)
    ends: float
    uses: int | None


class Gate:
    """Lets requests in or not, and gives tokens. `grants` are those that were given."""

    def __init__(self, auth: Auth | None, realm: Callable[[], str]) -> None:
        self.grants: list[Grant] = []
        self._auth = auth
        self._realm = realm
        self._tokens: dict[str, _Token] = {}
        self._numbers = itertools.count(1)

    def revoke(self) -> None:
        """Accept none of the tokens that were given so far."""
        self._tokens.clear()

    def refusal(self, request: Request, needed: Sequence[tuple[str, str]]) -> Response | None:
        """Return the 401 for a request that needs these (repository, action), or None if it may be done."""
        auth = self._auth
        if auth is None:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if isinstance(auth, BasicAuth):
            if scheme.lower() == "basic" and _pair(given) == (auth.username, auth.password):
                return None
            return _unauthorized('Basic realm="fake registry"' if auth.challenge else None)
        token = self._tokens.get(given) if scheme.lower() == "bearer" else None
        alive = token is not None and time.monotonic() < token.ends and token.uses != 0
        if token is not None and alive:
            if set(needed) <= token.access:
                if token.uses is not None:
                    token.uses -= 1
                return None
            return _unauthorized(self._challenge(auth, needed, "insufficient_scope"))
        return _unauthorized(self._challenge(auth, needed, "invalid_token" if given else ""))

    def may(self, request: Request, repository: str, action: str) -> bool:
        """Tell whether the token of a request that was let in also covers this: the other repository of a mount."""
        if not isinstance(self._auth, TokenAuth):
            return True
        token = self._tokens.get(request.headers.get("authorization", "").partition(" ")[2])
        return token is not None and (repository, action) in token.access

    async def token(self, exchange: Exchange) -> Response:
        """Answer as a token server."""
        request, auth = exchange.request, self._auth
        if not isinstance(auth, TokenAuth) or (request.method == "POST" and not auth.oauth2):
            return Response(status=404, headers={"Content-Type": "text/plain"}, body=b"404 page not found\n")
        if request.method == "POST":
            form = dict(parse_qsl((await exchange.read()).decode()))
            how = form.get("grant_type", "")
            if how == "refresh_token":
                known = form.get("refresh_token") == auth.identity_token
            else:
                known = how == "password" and _same(auth, (form.get("username", ""), form.get("password", "")))
            scopes = form.get("scope", "").split()
            offline = form.get("access_type") == "offline"
        else:
            pair = _pair(request.headers.get("authorization", "").partition(" ")[2])
            how = "basic" if request.authorized else "anonymous"
            known = not request.authorized or _same(auth, pair)
            parameters = parse_qsl(request.raw_query)
            scopes = [scope for name, scope in parameters if name == "scope"]
            if auth.spaces:
                scopes = [each for scope in scopes for each in scope.split()]
            offline = ("offline_token", "true") in parameters
        if not known:
            return _json(401, {"details": "incorrect username or password"})
        account = "" if how == "anonymous" else auth.username
        self.grants.append(Grant(account=account, how=how, scopes=tuple(scopes)))
        return _json(200, self._document(auth, account, scopes, offline=offline))

    def _document(self, auth: TokenAuth, account: str, scopes: Sequence[str], *, offline: bool) -> dict[str, object]:
        lifetime = auth.lifetime if auth.lifetime is not None else auth.expires_in or 60
        access = {
            (scope.split(":")[1], action)
            for scope in scopes
            if scope.count(":") == 2 and " " not in scope
            for action in scope.split(":")[2].split(",")
            if self._allowed(auth, account, scope.split(":")[1], action)
        }
        token = f"fake-token-{next(self._numbers)}"
        self._tokens[token] = _Token(account, frozenset(access), time.monotonic() + lifetime, auth.uses)
        document: dict[str, object] = {}
        if auth.token_field in {"token", "both"}:
            document["token"] = token
        if auth.token_field in {"access_token", "both"}:
            document["access_token"] = token
        if auth.expires_in is not None:
            document["expires_in"] = auth.expires_in
        if offline and account:
            document["refresh_token"] = auth.identity_token
        return document

    @staticmethod
    def _allowed(auth: TokenAuth, account: str, repository: str, action: str) -> bool:
        if auth.allow is not None:
            return auth.allow(account, repository, action)
        return bool(account) or action in auth.anonymous

    def _challenge(self, auth: TokenAuth, needed: Sequence[tuple[str, str]], error: str) -> str | None:
        if not auth.challenge:
            return None
        fields = [f'realm="{self._realm()}/token"', f'service="{SERVICE}"']
        by_repository: dict[str, list[str]] = {}
        for repository, action in needed:
            by_repository.setdefault(repository, []).append(action)
        if by_repository:
            scopes = [f"repository:{name}:{','.join(actions)}" for name, actions in by_repository.items()]
            fields.append(f'scope="{" ".join(scopes)}"')
        if error:
            fields.append(f'error="{error}"')
        return f"Bearer {','.join(fields)}"


def _same(auth: TokenAuth, pair: tuple[str, str] | None) -> bool:
    return pair == (auth.username, auth.password)


def _pair(encoded: str) -> tuple[str, str] | None:
    """Return the user name and password of a Basic header."""
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None


def _unauthorized(challenge: str | None) -> Response:
    error = {"code": "UNAUTHORIZED", "message": "authentication required", "detail": None}
    response = _json(401, {"errors": [error]})
    if challenge is not None:
        response.headers["WWW-Authenticate"] = challenge
    return response


def _json(status: int, document: object) -> Response:
    return Response(status=status, headers={"Content-Type": "application/json"}, body=json.dumps(document).encode())

"""A token server on 127.0.0.1: who has credentials gets tokens that a private registry accepts."""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import jwt
import trustme
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from aiodocker_images.testing._listening import tcp_listener

from .docker_home import basic
from .web_server import WebServer

ISSUER: Final = "tests"
SERVICE: Final = "a private registry"


class TokenServer:
    """Gives tokens for what is asked to `username` with `password`, and to the bearer of `identity_token`.

    `registry` is what a registry must be told of it; `grants` is how each token was asked for.
    """

    def __init__(self, directory: Path) -> None:
        self.username = "somebody"
        self.password = secrets.token_urlsafe()
        self.identity_token = secrets.token_urlsafe()
        self.grants: list[str] = []
        self.registry: dict[str, str] = {}
        authority = trustme.CA()
        self._bundle = directory / "roots.pem"
        authority.cert_pem.write_to_path(self._bundle)
        certificate = authority.issue_cert("tokens.example")
        self._key = certificate.private_key_pem.bytes()
        chain = [x509.load_pem_x509_certificate(pem.bytes()) for pem in certificate.cert_chain_pems]
        self._chain = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]
        app = web.Application()
        app.router.add_get("/token", self._by_password)
        app.router.add_post("/token", self._by_form)
        self._app = app
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        listener = tcp_listener()
        await self._open.enter_async_context(WebServer(self._app, listener))
        self.registry = {
            "realm": f"http://127.0.0.1:{listener.getsockname()[1]}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self._bundle),
        }
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    def token(self, scopes: Sequence[str]) -> str:
        """Make a token for scopes such as repository:name:pull,push."""
        access = [scope.split(":") for scope in scopes]
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": self.username,
            "aud": SERVICE,
            "nbf": now - 60,
            "iat": now,
            "exp": now + 3600,
            "jti": secrets.token_hex(8),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in access],
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._chain})

    async def _by_password(self, request: web.Request) -> web.Response:
        self.grants.append("password" if "Authorization" in request.headers else "nobody")
        scopes = [scope for each in request.query.getall("scope", []) for scope in each.split()]
        if "Authorization" not in request.headers:
            return web.json_response({"token": self.token([])})  # nobody may nothing
        if request.headers["Authorization"] != f"Basic {basic(self.username, self.password)}":
            return web.json_response({"details": "incorrect username or password"}, status=401)
        answer = {"token": self.token(scopes)}
        if request.query.get("offline_token") == "true":
            answer["refresh_token"] = self.identity_token
        return web.json_response(answer)

    async def _by_form(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.grants.append(form.get("grant_type", ""))
        if form.get("grant_type") == "password":
            known = (form.get("username"), form.get("password")) == (self.username, self.password)
        else:
            known = form.get("refresh_token") == self.identity_token
        if not known:
            return web.json_response({"details": "invalid token"}, status=401)
        return web.json_response(
            {"access_token": self.token(form.get("scope", "").split()), "refresh_token": self.identity_token}
        )

"""Who we are at a registry: credentials, where they come from, and the header that carries them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from ._query import encode_json

__all__ = ["Keychain", "RegistryAuth", "StaticKeychain", "auth_document", "registry_auth_header"]

DOCKER_HUB: Final = "docker.io"

# What `docker login` stores the Hub's credentials under, and what the daemon compares with.
DOCKER_HUB_SERVER: Final = "https://index.docker.io/v1/"

_SECRETS: Final = ("password", "identity_token", "registry_token")


class RegistryAuth(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Credentials for one registry: a user name and password, an identity token, or a registry token.

    `server_address` is filled in from the image's name where it is empty. No secret is shown in the repr.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server_address: str = ""

    def __repr__(self) -> str:
        given = [f"{name}=***" for name in _SECRETS if getattr(self, name)]
        shown = [f"username={self.username!r}"] if self.username else []
        where = [f"server_address={self.server_address!r}"] if self.server_address else []
        return f"RegistryAuth({', '.join(shown + given + where)})"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # A struct's own would show the secrets to rich, whose tracebacks print local variables.
        given = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, "***" if name in _SECRETS else value) for name, value in given if value]


@runtime_checkable
class Keychain(Protocol):
    """Anything that finds the credentials for a registry; asked anew for each operation."""

    async def resolve(self, registry: str) -> RegistryAuth | None:
        """Return the credentials for `registry` ("docker.io", "127.0.0.1:5000"), or None to go anonymously."""
        ...


class StaticKeychain:
    """A keychain of a mapping from registry to credentials."""

    def __init__(self, credentials: Mapping[str, RegistryAuth]) -> None:
        self._credentials = dict(credentials)

    def __repr__(self) -> str:
        return f"StaticKeychain({sorted(self._credentials)})"

    async def resolve(self, registry: str) -> RegistryAuth | None:
        """Return the credentials given for `registry`."""
        return self._credentials.get(registry)


def auth_document(auth: RegistryAuth, registry: str) -> dict[str, str]:
    """Return credentials as the API's AuthConfig; `registry` is whose they are if they do not say so."""
    fields = {
        "username": auth.username,
        "password": auth.password,
        "identitytoken": auth.identity_token,
        "registrytoken": auth.registry_token,
        "serveraddress": auth.server_address or (DOCKER_HUB_SERVER if registry == DOCKER_HUB else registry),
    }
    return {name: value for name, value in fields.items() if value}


def registry_auth_header(auth: RegistryAuth | None, registry: str) -> str:
    """Encode credentials for X-Registry-Auth: base64url with padding, as the daemon decodes it.

    Without credentials it is the encoding of `{}`, which push requires to be there.
    """
    document = {} if auth is None else auth_document(auth, registry)
    return base64.urlsafe_b64encode(encode_json(document)).decode("ascii")

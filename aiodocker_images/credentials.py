"""Who we are at a registry: credentials, keychains that find them, and the headers that carry them."""

from __future__ import annotations

import base64
import inspect
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from ._arguments import check_mapping, wrong
from ._encoding import encode_json
from .errors import CredentialHelperError
from .reference import DOCKER_HUB, DOCKER_HUB_HOST, LEGACY_DOCKER_HUB

__all__ = ["Keychain", "ListingKeychain", "MultiKeychain", "RegistryAuth", "RepositoryKeychain", "StaticKeychain"]

T = TypeVar("T")

LOGGER: Final = logging.getLogger(__package__)

# What `docker login` stores the Hub's credentials under, and what the daemon compares with.
DOCKER_HUB_SERVER: Final = f"https://{LEGACY_DOCKER_HUB}/v1/"

_DOCKER_HUB_HOSTS: Final = frozenset({DOCKER_HUB, LEGACY_DOCKER_HUB, DOCKER_HUB_HOST})
_API_PATHS: Final = frozenset({"v1", "v2"})  # of addresses that were stored without a scheme
_TOKEN_USER: Final = "<token>"  # noqa: S105 - a user name: the docker CLI's mark of an identity token
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

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not isinstance(getattr(self, name), str):
                raise wrong(name, getattr(self, name), "a str")

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


@runtime_checkable
class RepositoryKeychain(Keychain, Protocol):
    """A keychain whose credentials may differ from one repository to another in the same registry."""

    async def resolve(self, registry: str, repository: str = "") -> RegistryAuth | None:
        """Return the credentials for a repository ("library/alpine") of `registry`; "" for the registry as a whole."""
        ...


@runtime_checkable
class ListingKeychain(Keychain, Protocol):
    """A keychain that can say all it knows: a build with the classic builder sends that, as the docker CLI does."""

    async def resolve_all(self) -> Mapping[str, RegistryAuth]:
        """Return the credentials for every registry that there are any for."""
        ...


class StaticKeychain:
    """A keychain of a mapping from registry to credentials. An empty one: everything goes anonymously."""

    def __init__(self, credentials: Mapping[str, RegistryAuth]) -> None:
        check_auths("credentials", credentials)
        self._names = sorted(credentials)
        self._credentials = dict(credentials)

    def __repr__(self) -> str:
        return f"StaticKeychain({self._names})"

    async def resolve(self, registry: str, repository: str = "") -> RegistryAuth | None:
        """Return the credentials given for `registry`, or for the part of it that `repository` is in."""
        closest = by_closeness(registry_name(registry), self._credentials, repository)
        return closest[0][1] if closest else None

    async def resolve_all(self) -> Mapping[str, RegistryAuth]:
        """Return the credentials given."""
        return _by_registry(self._credentials)


class MultiKeychain:
    """Several keychains, asked in turn: the first that has credentials for a registry wins.

    One whose credential helper fails does not stop the next; its error is raised if no other has any.
    """

    def __init__(self, *keychains: Keychain) -> None:
        for keychain in keychains:
            check_keychain(keychain)
        self._keychains = keychains

    def __repr__(self) -> str:
        return f"MultiKeychain({', '.join(type(keychain).__name__ for keychain in self._keychains)})"

    async def resolve(self, registry: str, repository: str = "") -> RegistryAuth | None:
        """Return the credentials of the first keychain that has any. Raises what a keychain raises."""
        failure: CredentialHelperError | None = None
        for keychain in self._keychains:
            try:
                auth = await find_credentials(keychain, registry, repository)
            except CredentialHelperError as error:
                failure = failure or error
                continue
            if auth is not None:
                return auth
        if failure is not None:
            raise failure
        return None

    async def resolve_all(self) -> Mapping[str, RegistryAuth]:
        """Return what the keychains know that can say it. Raises what a keychain raises."""
        found: dict[str, RegistryAuth] = {}
        for keychain in self._keychains:
            if isinstance(keychain, ListingKeychain):
                try:
                    known = await keychain.resolve_all()
                except CredentialHelperError as error:
                    LOGGER.warning("some credentials cannot be had: %s", error)
                    continue
                found = _by_registry(known) | found
        return found


def check_auth(auth: object) -> None:
    """Raise TypeError for what are no credentials. They are not shown."""
    if auth is not None and not isinstance(auth, RegistryAuth):
        raise wrong("auth", auth, "a RegistryAuth(username=…, password=…) or None")


def check_auths(name: str, auths: object) -> None:
    """Raise TypeError for what is no mapping from registries to credentials."""
    check_mapping(name, auths, '{"docker.io": RegistryAuth(…)}')
    for registry, auth in cast("Mapping[object, object]", auths or {}).items():
        if not isinstance(registry, str):
            raise wrong(f"each registry of {name}", registry, "a str")
        if not isinstance(auth, RegistryAuth):
            raise wrong(f"each value of {name}", auth, "a RegistryAuth(username=…, password=…)")


def check_keychain(keychain: object) -> None:
    """Raise TypeError for what cannot be asked for credentials."""
    if keychain is not None and not callable(getattr(keychain, "resolve", None)):
        raise wrong(
            "keychain", keychain, "an object with an async method resolve(registry), such as StaticKeychain({…})"
        )


def registry_name(address: str) -> str:
    """Return the registry that an address names: its host and port, and "docker.io" for all names of Docker Hub."""
    _, scheme, rest = address.partition("://")
    # The docker CLI of old stored URLs, and takes them still.
    host = (rest if scheme else address).partition("/")[0].rpartition("@")[2]
    return DOCKER_HUB if host in _DOCKER_HUB_HOSTS else host


def server_of(registry: str) -> str:
    """Return what the docker CLI calls a registry in its files, to credential helpers, and to the daemon."""
    return DOCKER_HUB_SERVER if registry == DOCKER_HUB else registry


def by_closeness(registry: str, entries: Mapping[str, T], repository: str = "") -> list[tuple[str, T]]:
    """Return the entries for an image, or for a registry as a whole without a `repository`; the closest come first.

    An entry for a part of the registry ("registry.example/team", as Podman has them) is for the repositories in it
    alone, and is closer the longer it is. Behind it come those that name the registry exactly, then those that name
    it otherwise (as a URL).
    """
    parts: list[tuple[str, T]] = []
    whole: list[tuple[str, T]] = []
    for name, entry in entries.items():
        if registry_name(name) != registry:
            continue
        part = _part_of(name)
        if not part:
            whole.append((name, entry))
        elif f"{repository}/".startswith(f"{part}/"):
            parts.append((name, entry))
    exact = [(name, entries[name]) for name in dict.fromkeys((server_of(registry), registry)) if name in entries]
    names = {name for name, _ in exact}
    parts.sort(key=lambda each: len(_part_of(each[0])), reverse=True)
    return parts + exact + [each for each in whole if each[0] not in names]


def _part_of(name: str) -> str:
    """Return the part of a registry that a name means, "" for all of it: a URL means all, and so does its end."""
    part = "" if "://" in name else name.partition("/")[2].strip("/")
    return "" if part in _API_PATHS else part


async def find_credentials(keychain: Keychain, registry: str, repository: str) -> RegistryAuth | None:
    """Ask a keychain for the credentials for a repository; one that knows only registries is asked for that."""
    if "repository" in inspect.signature(keychain.resolve).parameters:
        return await cast("RepositoryKeychain", keychain).resolve(registry, repository=repository)
    return await keychain.resolve(registry)


def closest_by_registry(entries: Mapping[str, T]) -> dict[str, tuple[str, T]]:
    """Return the closest entry for each registry as a whole; one that has entries for its parts alone is left out."""
    by_registry: dict[str, dict[str, T]] = {}  # each is looked through once, however many registries there are
    for name, entry in entries.items():
        by_registry.setdefault(registry_name(name), {})[name] = entry
    closest = {registry: by_closeness(registry, of_it) for registry, of_it in by_registry.items()}
    return {registry: found[0] for registry, found in closest.items() if found}


def _by_registry(credentials: Mapping[str, RegistryAuth]) -> dict[str, RegistryAuth]:
    return {registry: auth for registry, (_, auth) in closest_by_registry(credentials).items()}


def registry_auth(username: str, secret: str) -> RegistryAuth | None:
    """Return the credentials of a user name and a secret, None if both are empty."""
    if username == _TOKEN_USER:
        return RegistryAuth(identity_token=secret) if secret else None
    return RegistryAuth(username=username, password=secret) if username or secret else None


def auth_document(auth: RegistryAuth, registry: str) -> dict[str, str]:
    """Return credentials as the API's AuthConfig; `registry` is whose they are if they do not say so."""
    server = auth.server_address or registry
    fields = {
        "username": auth.username,
        "password": auth.password,
        "identitytoken": auth.identity_token,
        "registrytoken": auth.registry_token,
        # Under another of the Hub's names the daemon would take the credentials for somebody else's.
        "serveraddress": DOCKER_HUB_SERVER if registry_name(server) == DOCKER_HUB else server,
    }
    return {name: value for name, value in fields.items() if value}


def registry_auth_header(auth: RegistryAuth | None, registry: str) -> str:
    """Encode credentials for X-Registry-Auth: base64url with padding, as the daemon decodes it.

    Without credentials it is the encoding of `{}`, which push requires to be there. Raises `InvalidArgumentError` for
    credentials that are no text.
    """
    return _header({} if auth is None else auth_document(auth, registry))


def registry_config_header(credentials: Mapping[str, RegistryAuth]) -> str:
    """Encode credentials for X-Registry-Config: as X-Registry-Auth, but several, each under its registry's name."""
    # The Engine knows no parts of registries: what the caller gives for one is for all of it.
    named = {registry_name(name): auth for name, auth in credentials.items()} | _by_registry(credentials)
    return _header({server_of(registry): auth_document(auth, registry) for registry, auth in named.items()})


def _header(document: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(encode_json(document)).decode("ascii")

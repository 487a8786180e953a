"""`DockerKeychain`: the credentials that the docker CLI would use, from its files, its helpers, and Podman's."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec

from aiodocker_images._aio.shared_runs import SharedRuns
from aiodocker_images._aio.threads import in_thread
from aiodocker_images._arguments import check_given, check_mapping, check_seconds
from aiodocker_images._system.users import home_directory, user_id
from aiodocker_images.credentials import (
    LOGGER,
    RegistryAuth,
    by_closeness,
    closest_by_registry,
    registry_auth,
    registry_name,
    server_of,
)
from aiodocker_images.errors import ConfigError, CredentialHelperError, shown, without_frames

from .config import Environment, JSONConfig, config_directory, usable_config, warn_once
from .credential_helpers import CredentialHelpers

__all__ = ["DockerKeychain"]

DEFAULT_HELPER_TIMEOUT: Final = 30.0

MAX_LISTING_RUNS: Final = 8
"""Helpers that run at the same time to say all that is known."""


class DockerKeychain:
    """The keychain of the docker CLI's user; `ImageService` has one unless it is given another.

    Asked in turn: `DOCKER_AUTH_CONFIG`; in `$DOCKER_CONFIG/config.json` (~/.docker) the credential helper for the
    registry (`credHelpers`, or else `credsStore`), then `auths`; `credHelpers` and `auths` of Podman's auth.json
    (`REGISTRY_AUTH_FILE`, or else that in XDG_RUNTIME_DIR, then that in XDG_CONFIG_HOME). The first of them that has
    credentials for the registry is used, and in it the entry that is closest to the image: a key for a part of a
    registry ("registry.example/team") counts for the repositories in that part alone, the longest one first. A helper
    that fails does not hide `auths` and what is behind it.

    All of it is read, and helpers are run, again for each operation: tokens rotate. Operations that begin at once
    share what is found.

    `environ` stands in for the environment, the helpers' too. A helper that takes more than `helper_timeout`
    seconds is killed.
    """

    def __init__(
        self, *, environ: Mapping[str, str] | None = None, helper_timeout: float = DEFAULT_HELPER_TIMEOUT
    ) -> None:
        check_mapping("environ", environ, "os.environ")
        check_given("helper_timeout", helper_timeout, "a number of seconds")
        check_seconds("helper_timeout", helper_timeout)
        self._environ = environ
        self._helpers = CredentialHelpers(helper_timeout)
        self._looks = SharedRuns()

    def __repr__(self) -> str:
        return "DockerKeychain()"

    async def resolve(self, registry: str, repository: str = "") -> RegistryAuth | None:
        """Return the credentials for `registry`, or for the part of it that `repository` is in; None without any.

        A file that makes no sense is left out with a warning, as by the docker CLI. Raises `CredentialHelperError`
        if the helper for this registry fails and no entry is found either, and `ConfigError` for an entry for it
        that makes no sense.
        """
        try:
            return await self._find(registry_name(registry), repository, self._environment())
        except ConfigError as error:
            failure = without_frames(error)
        raise failure

    async def resolve_all(self) -> Mapping[str, RegistryAuth]:
        """Return the credentials for every registry that any file or helper names.

        What fails is logged, and costs only the registries it was about.
        """
        try:
            return await self._find_all(self._environment())
        except ConfigError as error:
            failure = without_frames(error)
        raise failure

    def _environment(self) -> Environment:
        return Environment(os.environ if self._environ is None else self._environ)

    async def _find(self, registry: str, repository: str, environ: Environment) -> RegistryAuth | None:
        failure: CredentialHelperError | None = None
        found = await self._look(tuple(_sources(environ)), registry, repository)
        while isinstance(found, _Helped):
            source = found.source
            try:
                auth = await self._helpers.get(source.helper(registry, repository), source.server(registry), environ)
            except CredentialHelperError as error:
                failure, auth = failure or error, None
            if auth is None:
                auth = await in_thread(source.entry, registry, repository)
            if auth is None:
                found = await self._look(found.behind, registry, repository)
            elif failure is None:
                return auth
            else:
                found = auth
        if failure is not None:
            if found is None:
                raise failure
            LOGGER.warning("other credentials are used for %s: %s", registry, failure)
        return found

    async def _look(self, sources: _Sources, registry: str, repository: str) -> RegistryAuth | _Helped | None:
        # This is done for every pull. So it is one turn of a thread, unless a helper is in the way, and one turn for
        # many pulls that begin at once.
        return await self._looks.share(
            (registry, repository, len(sources)), lambda: in_thread(_look, sources, registry, repository)
        )

    async def _find_all(self, environ: Environment) -> dict[str, RegistryAuth]:
        sources: list[_Source] = []
        registries: dict[str, None] = {}
        stored: dict[_Source, Mapping[str, str]] = {}
        for read in _sources(environ):
            if (source := await in_thread(read)) is not None:
                sources.append(source)
                stored[source] = await self._stored(source, environ)
                registries |= dict.fromkeys((*stored[source], *await in_thread(source.registries)))
        running = asyncio.Semaphore(MAX_LISTING_RUNS)

        async def ask(source: _Source, registry: str) -> RegistryAuth | None:
            helper, store = source.helper(registry), stored[source]
            if not helper or (helper == source.store and registry not in store):  # which has said all it has
                return None
            async with running:
                return await self._helpers.get(helper, store.get(registry, source.server(registry)), environ)

        async def find(registry: str) -> RegistryAuth | None:
            try:
                for source in sources:
                    auth = await ask(source, registry) or await in_thread(source.entry, registry)
                    if auth is not None:
                        return auth
            except CredentialHelperError as error:
                for source in sources:
                    if (auth := await in_thread(_entry_or_none, source, registry)) is not None:
                        return auth
                LOGGER.warning("no credentials for %s: %s", registry, error)
            except ConfigError as error:
                LOGGER.warning("no credentials for %s: %s", registry, error)
            return None

        async with asyncio.TaskGroup() as group:
            finding = {registry: group.create_task(find(registry)) for registry in registries}
        return {registry: auth for registry, task in finding.items() if (auth := task.result()) is not None}

    async def _stored(self, source: _Source, environ: Environment) -> Mapping[str, str]:
        """Return the registries that the `credsStore` of a source has credentials for, by the store's names."""
        if not source.store:
            return {}
        try:
            names = {server: server for server in await self._helpers.list(source.store, environ)}
        except ConfigError as error:
            LOGGER.warning("no credentials from the credential store: %s", error)
            return {}
        # Beside the Hub's credentials, Docker Desktop's store has more for the Hub, under longer addresses.
        return {registry: server for registry, (server, _) in closest_by_registry(names).items()}


class _Source:
    """One place where credentials are: `DOCKER_AUTH_CONFIG`, the docker CLI's file, or Podman's."""

    def __init__(self, config: JSONConfig, *, helpers: bool = False, podman: bool = False) -> None:
        self._config = config
        self._may_run = helpers
        self._podman = podman

    @property
    def store(self) -> str:
        """The helper for every registry that has none of its own, "" if there is none."""
        return (self._config.usable("credsStore", str) or "") if self._may_run and not self._podman else ""

    def helper(self, registry: str, repository: str = "") -> str:
        """Return the name of the credential helper for a registry, or for a part of it; "" if there is none."""
        for _, helper in by_closeness(registry, self._helpers(), repository):
            # An empty one sends the docker CLI to `auths`, past its store.
            return helper
        return self.store

    def server(self, registry: str) -> str:
        """Return what a helper knows a registry as: Podman's store the Hub's credentials under its short name."""
        return registry if self._podman else server_of(registry)

    def entry(self, registry: str, repository: str = "") -> RegistryAuth | None:
        """Return the credentials in the closest entry for a registry; raise `ConfigError` for one without sense."""
        auths = self._auths()
        for name, _ in by_closeness(registry, auths, repository):
            # Not the name itself: there may be a user and a password in it.
            where = f"the entry for {shown(registry)} in {self._config.where}"
            if (auth := _entry(auths[name], where)) is not None:
                return auth
        return None

    def registries(self) -> list[str]:
        """Return the registries that there are entries or helpers for."""
        return [registry_name(name) for name in (*self._helpers(), *self._auths())]

    def _helpers(self) -> Mapping[str, str]:
        return self._config.usable_texts("credHelpers") if self._may_run else {}

    def _auths(self) -> Mapping[str, msgspec.Raw]:
        return self._config.usable("auths", dict[str, msgspec.Raw]) or {}


_Sources: TypeAlias = Sequence[Callable[[], _Source | None]]


class _Helped(NamedTuple):
    """A source whose helper is to be asked, and those behind it."""

    source: _Source
    behind: _Sources


def _entry_or_none(source: _Source, registry: str) -> RegistryAuth | None:
    try:
        return source.entry(registry)
    except ConfigError as error:
        LOGGER.warning("no credentials for %s: %s", registry, error)
        return None


def _look(sources: _Sources, registry: str, repository: str) -> RegistryAuth | _Helped | None:
    """Return the credentials for a registry, or the next source whose helper is to be asked first; in a thread."""
    for number, read in enumerate(sources, 1):
        if (source := read()) is None:
            continue
        if source.helper(registry, repository):
            return _Helped(source, sources[number:])
        if (auth := source.entry(registry, repository)) is not None:
            return auth
    return None


def _entry(raw: msgspec.Raw, where: str) -> RegistryAuth | None:
    if (data := bytes(raw)) == b"null":
        return None
    entry = JSONConfig.parse(data, where)
    username, password = entry.member("username", str) or "", entry.member("password", str) or ""
    if encoded := entry.member("auth", str):
        username, password = _decoded(encoded, where)
    plain = registry_auth(username, password) or RegistryAuth()
    auth = msgspec.structs.replace(
        plain,
        identity_token=entry.member("identitytoken", str) or plain.identity_token,
        registry_token=entry.member("registrytoken", str) or "",
    )
    return auth if auth != RegistryAuth() else None


def _decoded(encoded: str, where: str) -> tuple[str, str]:
    """Read `auth`: the base64 of user:password."""
    try:
        # What the docker CLI reads it with takes no notice of line ends, and insists on the padding.
        text = base64.b64decode(encoded.replace("\r", "").replace("\n", ""), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        username, separator, password = "", "", ""
    else:
        username, separator, password = text.partition(":")
    if not separator or not username:
        # Outside of the handler: the exception of a decoder holds the text.
        raise ConfigError(f"'auth' in {where} makes no sense: it is no base64 of user:password")
    return username, password.strip("\0")


def _sources(environ: Environment) -> Iterator[Callable[[], _Source | None]]:
    """List what reads each source, in their order; to be called in a thread."""
    yield functools.partial(_environment, environ)
    if (directory := config_directory(environ)) is not None:
        yield functools.partial(_file, directory / "config.json", podman=False)
    for path in podman_files(environ):
        yield functools.partial(_file, path, podman=True)


def _environment(environ: Environment) -> _Source | None:
    where = "DOCKER_AUTH_CONFIG"
    if text := environ.get(where):
        try:
            return _Source(JSONConfig.parse(text, where))
        except ConfigError as error:  # the docker CLI warns, too, and goes on with its file
            warn_once(where, f"{error.message}; it is left out")
    return None


def _file(path: Path, *, podman: bool) -> _Source | None:
    config = usable_config(path)
    return None if config is None else _Source(config, helpers=True, podman=podman)


def podman_files(environ: Environment | Mapping[str, str]) -> Iterator[Path]:
    """List where Podman keeps credentials; it looks for a registry in one after the other."""
    if given := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(given)
        return
    if sys.platform == "linux":
        if runtime := environ.get("XDG_RUNTIME_DIR"):
            yield Path(runtime, "containers/auth.json")
        elif (user := user_id()) is not None:
            yield Path(f"/run/containers/{user}/auth.json")
    if config := environ.get("XDG_CONFIG_HOME"):
        yield Path(config, "containers/auth.json")
    elif (home := home_directory(environ)) is not None:
        yield Path(home, ".config/containers/auth.json")

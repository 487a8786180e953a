"""Plans: a TOML file of what to mirror, and how.

targets = ["registry.example.com/mirror/"]   # ends in "/": the source's path follows; else a repository
platforms = ["linux/amd64"]                  # or "all"; these and more are the options of mirror()
concurrency = 8
per_registry = 4                             # or a table: {"docker.io" = 2}
journal = "mirror.journal"                   # beside this file

[[source]]
prefix = "docker.io/library/"                # before each of the names
images = ["alpine", "busybox:1.36"]
tags = ["3.19", "3.20"]                      # of each image that has none

[[source]]
images = ["quay.io/team/app"]
platform = "linux/arm64"
targets = ["registry.example.com/app"]       # instead of those above

[credentials."registry.example.com"]
username_env = "MIRROR_USER"                 # names of environment variables: no secret stands in a plan
password_env = "MIRROR_PASSWORD"

[credentials."quay.io"]
keychain = "docker.io"                       # whose entry in the service's own keychain is used

[retry]
attempts = 5                                 # initial, maximum, jitter: seconds
"""

from __future__ import annotations

import bisect
import functools
import os
import re
import tomllib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

import msgspec

from aiodocker_images._aio.threads import in_thread
from aiodocker_images._system.files import read_regular
from aiodocker_images.credentials import Keychain, RegistryAuth
from aiodocker_images.errors import ConfigError, InvalidArgumentError, InvalidReferenceError, shown
from aiodocker_images.models import Platform
from aiodocker_images.progress import OnProgress
from aiodocker_images.reference import Reference
from aiodocker_images.service import ImageService

from .entry import mirror
from .jobs import MirrorJob, MirrorOutcome, MirrorProgress, Retry, checked_target
from .options import DEFAULT_CONCURRENCY, Options, checked_jobs, checked_platforms
from .toml_lines import Path as TomlPath
from .toml_lines import line_of

__all__ = ["CredentialNames", "MirrorPlan"]

MAX_PLAN: Final = 4 << 20
"""Bytes of a plan."""

MAX_JOBS: Final = 100_000
"""Jobs that a plan may come to: images times tags times targets."""

T = TypeVar("T")
P = TypeVar("P", bound="MirrorPlan")

_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_ANY: Final = Reference("docker.io", "library/any")
_UNKNOWN: Final = re.compile(r"unknown field `(.+)`")
_NO_SECRETS: Final = "a plan holds no secrets, it names where they are"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class CredentialNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the credentials for a registry are: names of environment variables, or of a keychain's entry."""

    username_env: str | None = None
    password_env: str | None = None
    identity_token_env: str | None = None
    registry_token_env: str | None = None
    keychain: str | None = None

    def variables(self) -> dict[str, str]:
        """Return the names of the variables by the field of the credentials that they fill."""
        named = {
            "username": self.username_env,
            "password": self.password_env,
            "identity_token": self.identity_token_env,
            "registry_token": self.registry_token_env,
        }
        return {field: variable for field, variable in named.items() if variable is not None}


class _Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    images: list[str]
    prefix: str = ""
    tags: list[str] = []
    targets: list[str] | None = None
    platform: str | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: list[_Source]
    targets: list[str] = []
    platforms: list[str] | Literal["all"] = []
    concurrency: int = DEFAULT_CONCURRENCY
    per_registry: int | dict[str, int] | None = None
    keep: bool = False
    require_digest: bool = False
    narrow: bool = False
    journal: str | None = None
    retry: dict[str, object] = {}
    credentials: dict[str, object] = {}


class MirrorPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan says: the jobs, the options of `mirror`, and where credentials are, never these themselves."""

    jobs: tuple[MirrorJob, ...]
    concurrency: int = DEFAULT_CONCURRENCY
    per_registry: int | Mapping[str, int] | None = None
    platforms: tuple[str, ...] | Literal["all"] = ()
    keep: bool = False
    require_digest: bool = False
    narrow: bool = False
    journal: str | None = None
    retry: Retry = Retry()
    credentials: Mapping[str, CredentialNames] = {}

    @classmethod
    async def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plan; its journal is relative to it. Raises `ConfigError`, which names the line."""
        file = Path(path)
        plan = await in_thread(cls.parse, await in_thread(_content, file), name=str(file))
        if plan.journal is None:
            return plan
        return msgspec.structs.replace(plan, journal=str(file.parent / plan.journal))

    @classmethod
    def parse(cls, data: bytes | str, *, name: str = "the plan") -> Self:
        """Read the text of a plan; `name` is what errors call it. Raises `ConfigError`, which names the line."""
        try:
            text = data if isinstance(data, str) else data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{name}, line {line}: this is not UTF-8") from None
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{name} is not TOML: {error}") from None
        except RecursionError:
            raise ConfigError(f"{name} is nested too deeply") from None
        return _Reader(text, name).read(document, cls)

    def keychain(self, fallback: Keychain | None = None) -> Keychain | None:
        """Return a keychain of the credentials that the plan names, and `fallback` for all others.

        Give it to the `ImageService` that does the plan. Variables are read for each operation anew. Raises
        `ConfigError` for a variable that is not set, or an entry of a keychain that there is none of.
        """
        if not self.credentials:
            return fallback
        for registry, names in self.credentials.items():
            if names.keychain is not None and fallback is None:
                raise ConfigError(f"the credentials for {registry} are in a keychain, and the plan was given none")
            _from_environment(registry, names)
        return _PlanKeychain(self.credentials, fallback)

    def mirror(
        self,
        images: ImageService,
        *,
        dry_run: bool = False,
        on_progress: OnProgress[MirrorProgress] | None = None,
    ) -> AsyncGenerator[MirrorOutcome, None]:
        """Do the plan; see the function `mirror`."""
        return mirror(
            images,
            self.jobs,
            concurrency=self.concurrency,
            per_registry=self.per_registry,
            retry=self.retry,
            platforms=self.platforms,
            dry_run=dry_run,
            journal=self.journal,
            keep=self.keep,
            require_digest=self.require_digest,
            narrow=self.narrow,
            on_progress=on_progress,
        )


class _PlanKeychain:
    """Resolves what the plan names, and asks the fallback for the rest."""

    def __init__(self, credentials: Mapping[str, CredentialNames], fallback: Keychain | None) -> None:
        self._credentials = dict(credentials)
        self._fallback = fallback

    def __repr__(self) -> str:
        return f"MirrorPlan.keychain({sorted(self._credentials)})"

    async def resolve(self, registry: str) -> RegistryAuth | None:
        names = self._credentials.get(registry)
        if names is not None and names.keychain is None:
            return _from_environment(registry, names)
        entry = registry if names is None or names.keychain is None else names.keychain
        return None if self._fallback is None else await self._fallback.resolve(entry)


def _from_environment(registry: str, names: CredentialNames) -> RegistryAuth:
    values: dict[str, str] = {}
    for field, variable in names.variables().items():
        value = os.environ.get(variable)
        if not value:
            raise ConfigError(f"the credentials for {registry} are in {variable}, which is not set")
        values[field] = value
    return RegistryAuth(**values)


class _Reader:
    """Turns a document into a plan; whatever is wrong is said with the line that it is in."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name

    def read(self, document: dict[str, object], cls: type[P]) -> P:
        plan = self._convert(document, _Document, ())
        limits = plan.per_registry if isinstance(plan.per_registry, dict) else {}
        for registry in limits:
            self._registry(registry, ("per_registry", registry))
        if plan.journal is not None and (not plan.journal or "\0" in plan.journal):
            raise self._error(("journal",), "this is not the name of a file")
        self._checked(("concurrency",), lambda: Options(concurrency=plan.concurrency))
        self._checked(("per_registry",), lambda: Options(per_registry=plan.per_registry))
        return cls(
            jobs=self._jobs(plan),
            concurrency=plan.concurrency,
            per_registry=plan.per_registry,
            platforms=self._checked(("platforms",), lambda: checked_platforms(plan.platforms)),
            keep=plan.keep,
            require_digest=plan.require_digest,
            narrow=plan.narrow,
            journal=plan.journal,
            retry=self._convert(plan.retry, Retry, ("retry",)),
            credentials={registry: self._names(registry, given) for registry, given in plan.credentials.items()},
        )

    def _jobs(self, plan: _Document) -> tuple[MirrorJob, ...]:
        jobs: list[MirrorJob] = []
        places: list[TomlPath] = []
        for number, source in enumerate(plan.source):
            targets = plan.targets if source.targets is None else source.targets
            if source.platform is not None:
                self._checked(("source", number, "platform"), functools.partial(Platform.parse, source.platform))
            for position, tag in enumerate(source.tags):
                self._tag(tag, ("source", number, "tags", position))
            within: TomlPath = () if source.targets is None else ("source", number)
            for position, target in enumerate(targets):
                name = f"{target}{_ANY.path}" if target.endswith("/") else target
                self._checked((*within, "targets", position), functools.partial(checked_target, name))
            if not targets:
                raise self._error(("source", number), "this source has no target, and the plan has none for all")
            for position, image in enumerate(source.images):
                place: TomlPath = ("source", number, "images", position)
                count = len(jobs) + max(len(source.tags), 1) * len(targets)
                if count > MAX_JOBS:
                    raise self._error(place, f"the plan comes to more than {MAX_JOBS} jobs")
                jobs += self._checked(place, functools.partial(_jobs_of, source, image, targets))
                places += [place] * (len(jobs) - len(places))
        try:
            return checked_jobs(jobs)
        except InvalidArgumentError as error:
            # The first job that does not go with those before it.
            broken = bisect.bisect_left(range(len(jobs) + 1), True, key=lambda count: not _go_together(jobs[:count]))
            raise self._error(places[broken - 1], error.message) from None

    def _tag(self, tag: str, place: TomlPath) -> None:
        try:
            _ANY.with_tag(tag)
        except InvalidReferenceError:
            pattern = bool(set(tag) & set("*?["))
            hint = "a plan has no patterns, each tag is named" if pattern else "of letters, digits, '_', '.' and '-'"
            raise self._error(place, f"{shown(tag)} is not a tag: {hint}") from None

    def _names(self, registry: str, given: object) -> CredentialNames:
        place: TomlPath = ("credentials", registry)
        self._registry(registry, place)
        names = self._convert(given, CredentialNames, place, hint=_NO_SECRETS)
        variables = names.variables()
        for field, variable in variables.items():
            if not _VARIABLE.fullmatch(variable):
                # Not shown: it may be the secret itself.
                raise self._error(
                    (*place, f"{field}_env"), f"this is not the name of an environment variable: {_NO_SECRETS}"
                )
        if (names.keychain is None) == (not variables):
            raise self._error(place, "either the names of environment variables are needed, or `keychain`")
        if names.keychain is not None:
            self._registry(names.keychain, (*place, "keychain"))
        if "password" in variables and "username" not in variables:
            raise self._error(place, "a password needs a user name: username_env")
        return names

    def _registry(self, name: str, place: TomlPath) -> None:
        domain = self._checked(place, lambda: Reference.parse(f"{name}/x").domain)
        if domain != name:
            raise self._error(place, f"{shown(name)} is not a registry such as docker.io or 127.0.0.1:5000")

    def _convert(self, value: object, kind: type[T], base: TomlPath, *, hint: str = "") -> T:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            steps = tuple(
                int(index) if index else name for name, index in _STEP.findall(where.rstrip("`")) if name or index
            )
            if unknown := _UNKNOWN.search(message):
                steps = (*steps, unknown[1])
            raise self._error((*base, *steps), f"{message}{f': {hint}' if hint else ''}") from None

    def _checked(self, place: TomlPath, make: Callable[[], T]) -> T:
        try:
            return make()
        except (ConfigError, InvalidArgumentError) as error:
            raise self._error(place, error.message) from None

    def _error(self, place: TomlPath, message: str) -> ConfigError:
        what = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
        return ConfigError(f"{self._name}, line {line_of(self._text, place)}{f', {what}' if what else ''}: {message}")


def _jobs_of(source: _Source, image: str, targets: Iterable[str]) -> list[MirrorJob]:
    named = Reference.parse(source.prefix + image)
    tagged = (
        [named] if named.tag_or_digest is not None or not source.tags else [named.with_tag(tag) for tag in source.tags]
    )
    return [
        MirrorJob(
            str(reference),
            f"{target}{reference.path}" if target.endswith("/") else target,
            source.platform,
        )
        for reference in tagged
        for target in targets
    ]


def _go_together(jobs: Iterable[MirrorJob]) -> bool:
    try:
        checked_jobs(jobs)
    except InvalidArgumentError:
        return False
    return True


def _content(file: Path) -> bytes:
    try:
        content = read_regular(file, MAX_PLAN)
    except OSError as error:
        raise ConfigError(f"the plan {file}: {error.strerror or error}") from error
    except ValueError:
        raise ConfigError(f"{shown(str(file))} is not the name of a file") from None
    if len(content) > MAX_PLAN:
        raise ConfigError(f"the plan {file} is longer than {MAX_PLAN >> 20} MiB")
    return content

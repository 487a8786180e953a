"""Parse, check and print the names of images: the grammar and the Docker Hub rules of Docker's references.

    reference  = name [":" tag] ["@" digest]
    name       = domain "/" path                      an omitted domain is Docker Hub
    domain     = (host name | "[" IPv6 "]") [":" port]
    path       = component {"/" component}            at most 255 characters; lower case

What this module lets through is safe to put into the path of a URL: it consists of ASCII letters, digits
and `. _ - : / @ [ ]`, begins with no dash, and has no empty, `.` or `..` segment.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import NoReturn

from .errors import InvalidReferenceError, shown

__all__ = ["Reference"]

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
MAX_PATH = 255  # characters, Docker Hub's "library/" included, the domain not
MAX_TAG = 128

LEGACY_DOCKER_HUB = "index.docker.io"
DOCKER_HUB_HOST = "registry-1.docker.io"  # which answers the distribution API
_OFFICIAL = "library"  # the namespace on Docker Hub of images with a one-word name
DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}  # hex digits

# Character classes are spelled out, for \w and \d match full-width letters and digits too; patterns are
# applied with fullmatch, for $ matches before a final newline. What follows a repetition never begins like what
# is repeated, so that no text takes more than linear time. Possessive quantifiers would say so, but match too
# much in CPython 3.11.0 to 3.11.4 (python/cpython#106052).
_WORD = r"[a-z0-9]+"
_JOINT = r"(?:\.|__?|-+)"
_LABEL = r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_HOST_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_IPV6 = r"\[[A-Fa-f0-9:]+\]"
_PORT = r":[0-9]+"

_DOMAIN = re.compile(rf"(?:{_HOST_NAME}|{_IPV6})(?:{_PORT})?")
_COMPONENT = re.compile(rf"{_WORD}(?:{_JOINT}{_WORD})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LOWER_HEX = re.compile(r"[a-f0-9]+")
_FULL_ID = re.compile(r"[a-f0-9]{64}")
_PREFIXED_ID = re.compile(r"sha256:[a-f0-9]{1,64}")
_ID = re.compile(r"(?:sha256:)?[a-f0-9]{1,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image: a repository, and perhaps a tag, a digest, or both.

    `domain` is the registry with its port ("docker.io", "localhost:5000"), `path` the repository in it
    ("library/ubuntu"), `digest` an algorithm and lower-case hex ("sha256:9f86…"). No invalid reference
    exists: constructing one raises `InvalidReferenceError`, or `TypeError` for a part that is not a str.
    `str(reference)` is the canonical text, "docker.io/library/ubuntu:24.04"; parsed, it is equal again.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", _exact_str(self.domain, "a reference's domain"))
        object.__setattr__(self, "path", _exact_str(self.path, "a reference's path"))
        if self.tag is not None:
            object.__setattr__(self, "tag", _exact_str(self.tag, "a reference's tag"))
        if self.digest is not None:
            object.__setattr__(self, "digest", _exact_str(self.digest, "a reference's digest"))
        if flaw := _flaw(self.domain, self.path, self.tag, self.digest):
            _refuse(str(self), flaw)

    @classmethod
    def parse(cls, text: str | Reference) -> Reference:
        """Parse what a user types: "ubuntu", "user/app:1.2", "localhost:5000/app@sha256:…".

        A name without a registry is on Docker Hub. A missing tag stays None (see `with_default_tag`).
        Raises `InvalidReferenceError`, for an image id (64 hex digits, or `sha256:` and hex digits) too,
        and `TypeError` for anything but a str.
        """
        if isinstance(text, Reference):
            return text
        text = _exact_str(text, "an image reference")
        if not text:
            _refuse(text, "it is empty")
        if text.strip() != text:
            _refuse(text, "there is white space around it")
        if "://" in text:
            _refuse(text, f"it is a URL: leave out {shown(text[: text.index('://') + 3])}")
        if _FULL_ID.fullmatch(text) or _PREFIXED_ID.fullmatch(text):
            # sha256:<hex> could be an image "sha256" of Docker Hub, but no Engine lets one be tagged so.
            _refuse(text, "it is an image id, and a name is needed here")

        name, at, digest = text.partition("@")
        domain, path = _split_domain(name)
        path, colon, tag = path.partition(":")
        if domain == DOCKER_HUB and "/" not in path:
            path = f"{_OFFICIAL}/{path}"
        parts = domain, path, tag if colon else None, digest if at else None
        # The constructor would find a flaw too, but could not show the text as it was typed.
        if flaw := _flaw(*parts):
            _refuse(text, flaw)
        return cls(*parts)

    @property
    def name(self) -> str:
        """The repository with its registry: "docker.io/library/ubuntu"."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker's own UI shows it: "ubuntu", "user/app", "localhost:5000/app".

        A name on Docker Hub that would be read as something else without its "docker.io/" keeps it.
        """
        if self.domain != DOCKER_HUB:
            return self.name
        namespace, _, rest = self.path.partition("/")
        if namespace == _OFFICIAL and "/" not in rest:
            reads_as_id = rest == "sha256" or _FULL_ID.fullmatch(rest)
            return self.name if reads_as_id else rest
        return self.name if _is_domain(namespace) else self.path

    @property
    def familiar(self) -> str:
        """The whole reference as Docker's own UI shows it: "ubuntu:24.04"; parsed, it is equal again."""
        return _join(self.familiar_name, self.tag, self.digest)

    @property
    def tag_or_digest(self) -> str | None:
        """What selects the image in its repository: the digest if there is one, for it outweighs the tag."""
        return self.digest or self.tag

    def with_tag(self, tag: str) -> Reference:
        """Return this reference with the given tag, its digest kept."""
        return dataclasses.replace(self, tag=tag)

    def with_digest(self, digest: str) -> Reference:
        """Return this reference with the given digest, its tag kept."""
        return dataclasses.replace(self, digest=digest)

    def with_default_tag(self) -> Reference:
        """Return this reference with the tag "latest" if it has neither tag nor digest, else as it is."""
        return self.with_tag(DEFAULT_TAG) if self.tag_or_digest is None else self

    def name_only(self) -> Reference:
        """Return this reference without tag and digest."""
        return dataclasses.replace(self, tag=None, digest=None)

    def __str__(self) -> str:
        return _join(self.name, self.tag, self.digest)


def name_or_id(image: str | Reference) -> str:
    """Return what stands for `image` in `/images/{name}/…`, where the Engine takes a name or an id.

    An id, or the beginning of one, passes as it is: 1 to 64 lower-case hex digits, with or without `sha256:`
    (Podman takes `sha256:` only with all 64). A bare hex word such as "cafe" may be a name as well: the
    Engine decides. A name gets the tag "latest" if it has neither tag nor digest. A `Reference` is always a
    name. Raises `InvalidReferenceError`, and `TypeError` for anything but a str or a `Reference`.
    """
    if isinstance(image, Reference):
        return str(image.with_default_tag())
    return _name_or_id(_exact_str(image, "an image"))


@functools.lru_cache(maxsize=1024)
def _name_or_id(text: str) -> str:
    if _ID.fullmatch(text):
        return text
    reference = Reference.parse(text).with_default_tag()
    return str(reference) if is_long(text) else reference.familiar


def is_long(image: str | Reference) -> bool:
    """Say whether a name is given with Docker Hub's domain, as one of any other registry is.

    To Docker, long and short names are the same. Podman looks for a short one in several places, localhost/ first and
    Docker Hub last, and for a long one only where it says: what is short stays short, and what is long stays long.
    A `Reference` is always long.
    """
    return isinstance(image, Reference) or image.startswith((f"{DOCKER_HUB}/", f"{LEGACY_DOCKER_HUB}/"))


def _split_domain(name: str) -> tuple[str, str]:
    domain, slash, path = name.partition("/")
    if not slash or not _is_domain(domain):
        return DOCKER_HUB, name
    return (DOCKER_HUB if domain == LEGACY_DOCKER_HUB else domain), path


def _is_domain(component: str) -> bool:
    """Say whether a first component is a registry, valid or not, and no namespace on Docker Hub."""
    return component == "localhost" or "." in component or ":" in component or component != component.lower()


def _join(name: str, tag: str | None, digest: str | None) -> str:
    tag_text = "" if tag is None else f":{tag}"
    digest_text = "" if digest is None else f"@{digest}"
    return f"{name}{tag_text}{digest_text}"


def _flaw(domain: str, path: str, tag: str | None, digest: str | None) -> str | None:
    return (
        _domain_flaw(domain)
        or _path_flaw(domain, path)
        or (None if tag is None else _tag_flaw(tag))
        or (None if digest is None else digest_flaw(digest))
    )


def _domain_flaw(domain: str) -> str | None:
    # To Docker, a name such as my_reg.local/app has no registry, as host names have no '_', but is a name all the same.
    if not _DOMAIN.fullmatch(domain) and not ("." in domain and _COMPONENT.fullmatch(domain)):
        return (
            f"{shown(domain)} is not a registry: a host name of letters, digits, '-' and '.',"
            " or an IPv6 address in brackets, and perhaps ':' with a port number"
        )
    if not _is_domain(domain):
        return f"{shown(domain)} is a namespace on Docker Hub: a registry has a '.' or ':', or is 'localhost'"
    if domain == LEGACY_DOCKER_HUB:
        return f"the registry of Docker Hub is {DOCKER_HUB!r}"
    return None


def _path_flaw(domain: str, path: str) -> str | None:
    if len(path) > MAX_PATH:
        return f"the repository name is {len(path)} characters long, and {MAX_PATH} is the most"
    components = path.split("/")
    for component in components:
        if not component:
            return "the repository name, or a part of it between slashes, is empty"
        if not _COMPONENT.fullmatch(component):
            if component.isascii() and _COMPONENT.fullmatch(component.lower()):
                return f"repository names are lower-case, and {shown(component)} is not"
            return (
                f"{shown(component)} is not a part of a repository name: lower-case letters and digits,"
                " with single '.', '_', '__' or any number of '-' between them"
            )
    if domain == DOCKER_HUB and len(components) == 1:
        return f"one-word names on Docker Hub are under {_OFFICIAL + '/'!r}"
    return None


def is_tag(text: str) -> bool:
    """Whether `text` is a tag that a reference can have."""
    return _tag_flaw(text) is None


def _tag_flaw(tag: str) -> str | None:
    if not tag:
        return "the tag is empty"
    if len(tag) > MAX_TAG:
        return f"the tag is {len(tag)} characters long, and {MAX_TAG} is the most"
    if not _TAG.fullmatch(tag):
        return f"the tag {shown(tag)} is not made of letters, digits, '_', '.' and '-', the first no '.' or '-'"
    return None


def digest_flaw(digest: str) -> str | None:
    """Return why `digest` is not a digest ("sha256:9f86…"), or None if it is one."""
    algorithm, colon, encoded = digest.partition(":")
    if not colon:
        return f"the digest {shown(digest)} is not an algorithm, ':' and hex digits"
    length = DIGEST_LENGTHS.get(algorithm)
    if length is None:
        return f"the digest's algorithm {shown(algorithm)} is none of {', '.join(DIGEST_LENGTHS)}"
    if len(encoded) != length:
        return f"a {algorithm} digest has {length} hex digits, and this one has {len(encoded)} characters"
    if not _LOWER_HEX.fullmatch(encoded):
        return "a digest is written in lower-case hex digits"
    return None


def _exact_str(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    # A subclass, such as a member of an Enum, can put something else into an f-string than what was checked.
    return str.__str__(value)


def _refuse(text: str, flaw: str) -> NoReturn:
    raise InvalidReferenceError(f"{shown(text)} is not an image reference: {flaw}")

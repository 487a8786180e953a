"""An operating system and an architecture, read and written as the docker CLI and containerd do. Pure."""

from __future__ import annotations

import platform
import re
import sys
from typing import cast
from urllib.parse import quote, unquote

from ._arguments import wrong
from ._struct import Model, Nullable
from .errors import InvalidPlatformError

__all__ = ["Platform"]

# The grammar of containerd's platforms, as the docker CLI and the Engine read them:
#   os ["(" [version] {"+" feature} ")"] ["/" architecture ["/" variant]]     or an architecture alone
_PART = r"[A-Za-z0-9_.-]+"
_OPTION = r"[A-Za-z0-9_.%-]"
_PLATFORM = re.compile(
    rf"(?P<os>[A-Za-z0-9_-]+)(?:\((?P<version>{_OPTION}*)(?P<features>(?:\+{_OPTION}+)*)\))?"
    rf"(?:/(?P<architecture>{_PART})(?:/(?P<variant>{_PART}))?)?",
    re.ASCII,
)
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")

# Go's, which containerd knows.
_SYSTEMS = frozenset(
    {
        *(
            "aix",
            "android",
            "darwin",
            "dragonfly",
            "freebsd",
            "hurd",
            "illumos",
            "ios",
            "js",
            "linux",
            "nacl",
            "netbsd",
        ),
        *("openbsd", "plan9", "solaris", "windows", "zos"),
    }
)
_ARCHITECTURES = frozenset(
    {
        *(
            "386",
            "amd64",
            "amd64p32",
            "arm",
            "armbe",
            "arm64",
            "arm64be",
            "ppc64",
            "ppc64le",
            "loong64",
            "mips",
            "mipsle",
        ),
        *("mips64", "mips64le", "mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x", "sparc"),
        *("sparc64", "wasm"),
    }
)
# Other names of an architecture, and the variant that each implies; None leaves it as it is.
_ALIASES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_VARIANTS = {
    ("amd64", "v1"): "",
    ("arm64", "8"): "v8",
    ("arm64", "v8.0"): "v8",
    ("arm64", "9"): "v9",
    ("arm64", "9.0"): "v9",
    ("arm64", "v9.0"): "v9",
    ("arm", "5"): "v5",
    ("arm", "6"): "v6",
    ("arm", "7"): "v7",
    ("arm", "8"): "v8",
}
_MEANT_VARIANTS = {"arm64": "v8", "arm": "v7"}  # where none is written
_LOCAL_SYSTEM = "windows" if sys.platform == "win32" else "linux"  # a Mac's Engines run Linux


def _normal(architecture: str, variant: str) -> tuple[str, str]:
    """Return an architecture and its variant by the names that Go has for them."""
    architecture, implied = _ALIASES.get(architecture, (architecture, None))
    variant = variant if implied is None else implied
    return architecture, _VARIANTS.get((architecture, variant), variant)


class Platform(
    Model,
    frozen=True,
    kw_only=True,
    rename={"os_version": "os.version", "os_features": "os.features"},
    omit_defaults=True,
):
    """An operating system and an architecture, such as linux/arm64/v8."""

    os: Nullable[str] = ""
    architecture: Nullable[str] = ""
    variant: Nullable[str] = ""
    os_version: Nullable[str] = ""
    os_features: Nullable[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, text: str | Platform) -> Platform:
        """Read a platform as the docker CLI does: "linux/arm64/v8", "arm64", "linux", "windows(10.0.17763)/amd64".

        Other names, such as "x86_64" and "aarch64", become Go's. What is left out is that of this machine. Raises
        `InvalidPlatformError`.
        """
        if isinstance(text, Platform):
            return text
        if not isinstance(cast("object", text), str):
            raise wrong("a platform", text, "a str or a Platform")
        match = _PLATFORM.fullmatch(text)
        if match is None or not _ESCAPES.fullmatch(text):
            raise _no_platform(text)
        os, architecture, variant = ((part or "").lower() for part in match.group("os", "architecture", "variant"))
        os = "darwin" if os == "macos" else os
        if architecture:
            architecture, normal = _normal(architecture, variant)
            # Without a variant, ARM of 32 bits is left at that: it means the seventh.
            variant = normal if variant or (architecture, normal) != ("arm", "v7") else ""
        elif os in _SYSTEMS:
            architecture, _ = _normal(platform.machine().lower(), "")
        else:
            architecture, variant = _normal(os, "")
            variant = "" if (architecture, variant) == ("arm", "v7") else variant
            if match["version"] is not None or architecture not in _ARCHITECTURES:
                raise _no_platform(text)
            os = _LOCAL_SYSTEM
        features = (match["features"] or "").split("+")[1:]
        return cls(
            os=os,
            architecture=architecture,
            variant=variant,
            os_version=unquote(match["version"] or ""),
            os_features=tuple(unquote(feature) for feature in features),
        )

    def matches(self, other: Platform) -> bool:
        """Whether `other` is the platform that this one asks for, as containerd matches what `--platform` says.

        "linux/arm64" means "linux/arm64/v8", "linux/arm" means "linux/arm/v7"; an `os_version` must be equal if there
        is one here.
        """
        return _meant(self) == _meant(other) and self.os_version in {"", other.os_version}

    def accepts(self, image: Platform) -> bool:
        """Return whether an image for `image` is what was asked for by this platform.

        A processor of a later variant runs what is made for an earlier one: arm/v7 accepts arm/v6. Windows 10.0.17763
        accepts 10.0.17763.1234, a build of it, and an image that says no version.
        """
        if (self.os, self.architecture) != (image.os, image.architecture):
            return False
        if self.os_version and image.os_version and not f"{image.os_version}.".startswith(f"{self.os_version}."):
            return False
        ours, theirs = _variant_number(self.variant), _variant_number(image.variant)
        return ours is None or theirs is None or theirs <= ours

    def __str__(self) -> str:
        options = "+".join([_escaped(self.os_version), *sorted(map(_escaped, self.os_features))])
        system = f"{self.os}({options})" if options else self.os
        return "/".join(part for part in (system, self.architecture, self.variant) if part)


def _variant_number(variant: str) -> int | None:
    number = variant.removeprefix("v")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 4 else None


def _no_platform(text: str) -> InvalidPlatformError:
    return InvalidPlatformError(f"{text[:80]!r} is not a platform such as linux/amd64 or linux/arm64/v8")


def _escaped(option: str) -> str:
    return quote(option, safe="").replace("~", "%7E")


def _meant(platform: Platform) -> tuple[str, str, str]:
    """Return the parts of a platform by which it is compared, whoever wrote it."""
    os, architecture, variant = platform.os.lower(), platform.architecture.lower(), platform.variant.lower()
    architecture, variant = _normal(architecture, variant)
    return "darwin" if os == "macos" else os, architecture, variant or _MEANT_VARIANTS.get(architecture, "")

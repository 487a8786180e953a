"""`TagSelection`: which tags of a repository are meant, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, cast

import msgspec

from aiodocker_images.errors import ConfigError, shown
from aiodocker_images.reference import is_tag

from .patterns import GlobPattern, RegexPattern, parse_regex
from .versions import Version, VersionRange, parse_version

__all__ = ["SelectedTags", "TagDecision", "TagSelection"]

Texts = str | Sequence[str]

_NO_IMAGE: Final = ("sha256-", "sha384-", "sha512-")
"""How tags begin that hold signatures, or lists of referrers: they belong to the image of that digest."""


class TagDecision(NamedTuple):
    """Whether a tag was chosen, and why, in words."""

    tag: str
    chosen: bool
    reason: str


class SelectedTags(NamedTuple):
    """`tags` are the chosen ones, `decisions` is about every tag, `missing` are names that were not among them."""

    tags: tuple[str, ...]
    decisions: tuple[TagDecision, ...]
    missing: tuple[str, ...]


class TagSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules that choose tags. Without any, all tags are chosen that are images.

    `names` are tags that are chosen whatever the other rules say, and alone if there is none of these. Any other tag
    must meet each of these rules that is given: `match`, one or more globs, of which one has to match ("3.*"); `regex`,
    one or more regular expressions, of which one has to match the whole tag; and `semver`, a range of versions
    (">=3.18", "^1.2", "1.x || 3.x"). `newest` is how many of those are chosen, the newest versions; what is not a
    version is then not chosen.

    `without` are globs of tags that are never chosen, not even by name, and do not count as newest.

    "3.20" and "v3.20.0" are versions. Prereleases, and so variants such as "3.20-slim" too, are in a range only if it
    names one (">=3.18-0"). A date such as "20240329" is in no range, and older than any other version. Tags that begin
    with "sha256-" hold signatures and referrers, and are chosen only by name.

    The time is proportional to the number of tags and rules, whatever the patterns are. Raises `ConfigError`.
    """

    names: Texts = ()
    match: Texts = ()
    regex: Texts = ()
    semver: str | None = None
    newest: int | None = None
    without: Texts = ()

    def __post_init__(self) -> None:
        for field in ("names", "match", "regex", "without"):
            msgspec.structs.force_setattr(self, field, _texts(field, getattr(self, field)))
        _check_rest(self.newest, self.semver)
        for name in self.names:
            if not is_tag(name):
                raise ConfigError(f"{shown(name)} is not a tag; globs belong into match")
        _Rules(self)

    def select(self, tags: Iterable[str]) -> SelectedTags:
        """Choose from the tags of a repository: first those chosen by name, then the others.

        They are in the order of `tags`, or the newest first if `newest` is given.
        """
        listed = tuple(dict.fromkeys(tags))
        rules = _Rules(self)
        refusals = [rules.refusal(tag) for tag in listed]
        chosen = [tag for tag, refusal in zip(listed, refusals, strict=True) if refusal is None]
        named = [tag for tag in chosen if tag in rules.names]
        others = [tag for tag in chosen if tag not in rules.names]
        places: dict[str, int] = {}
        if self.newest is not None:
            ranked = sorted(((rules.versions[tag], tag) for tag in others), reverse=True)
            others = [tag for _, tag in ranked[: self.newest]]
            places = {tag: place for place, tag in enumerate(others, 1)}
        kept = {*named, *others}
        decisions: list[TagDecision] = []
        for tag, refusal in zip(listed, refusals, strict=True):
            if tag in kept:
                decisions.append(TagDecision(tag, True, rules.reason(tag, places.get(tag))))
            else:
                decisions.append(TagDecision(tag, False, refusal or rules.too_old))
        missing = tuple(name for name in self.names if name not in frozenset(listed))
        return SelectedTags((*named, *others), tuple(decisions), missing)


class _Rules:
    """The rules of a selection, ready for use. Sentences that are said of many tags are made once."""

    def __init__(self, selection: TagSelection) -> None:
        self.names = frozenset(selection.names)
        self.versions: dict[str, Version] = {}  # of the tags that no rule refused
        self.too_old = f"it is older than the newest {selection.newest}"
        self._without = [GlobPattern(each) for each in selection.without]
        matches = ([GlobPattern(each) for each in selection.match], [parse_regex(each) for each in selection.regex])
        self._matches = [
            (patterns, f"it does not match {' or '.join(shown(each.text) for each in patterns)}")
            for patterns in matches
            if patterns
        ]
        self._named_only = bool(self.names) and not (
            selection.match or selection.regex or selection.semver or selection.newest
        )
        self._ranked = selection.newest is not None
        self._range = VersionRange(selection.semver) if selection.semver is not None else None
        self._range_text = shown(selection.semver or "")
        self._outside = f"its version is not in {self._range_text}"
        self._prerelease = f"it is a prerelease, for which {self._range_text} does not ask"

    def refusal(self, tag: str) -> str | None:
        """Return why a tag is not chosen, None if only the number of the newest can be against it."""
        if not is_tag(tag):
            return "it is not a valid tag"
        excluded = _first(self._without, tag)
        if excluded is not None:
            return f"it is excluded by {shown(excluded)}"
        if tag in self.names:
            return None
        if self._named_only:
            return "it is not chosen by name, and there is no other rule"
        if tag.startswith(_NO_IMAGE):
            return "it holds a signature or referrers, and is not an image"
        for patterns, refusal in self._matches:
            if _first(patterns, tag) is None:
                return refusal
        if self._range is None and not self._ranked:
            return None
        version = parse_version(tag)
        if version is None:
            return "it is not a version"
        if self._range is not None and not self._range.has(version):
            if version.is_date:
                return "it is a date, which is in no range of versions"
            return self._prerelease if self._range.has(version, prereleases=True) else self._outside
        self.versions[tag] = version
        return None

    def reason(self, tag: str, place: int | None) -> str:
        """Return why a tag is chosen; `place` is its place among the newest."""
        if tag in self.names:
            return "it is chosen by name"
        reasons = [f"it matches {shown(_first(patterns, tag) or '')}" for patterns, _ in self._matches]
        version = self.versions.get(tag)
        if version is not None:
            reasons.append(f"it is version {version}{f' in {self._range_text}' if self._range else ''}")
        if place is not None:
            reasons.append(f"it is number {place} of the newest")
        return ", ".join(reasons) or "all images are chosen"


def _first(patterns: Sequence[GlobPattern | RegexPattern], tag: str) -> str | None:
    """Return the text of the first pattern that matches, None if none does."""
    for each in patterns:
        if each.matches(tag):
            return each.text
    return None


def _check_rest(newest: object, semver: object) -> None:
    if newest is not None and (not isinstance(newest, int) or isinstance(newest, bool) or newest < 1):
        raise ConfigError(f"newest must be a number of tags, 1 or more, not {newest!r}")
    if semver is not None and not isinstance(semver, str):
        raise ConfigError(f"semver must be a range of versions as text, not {type(semver).__name__}")


def _texts(field: str, value: object) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise ConfigError(f"{field} must be text, or several in a list, not {type(value).__name__}")
    checked: list[str] = []
    for text in cast("list[object]", texts):
        if not isinstance(text, str):
            raise ConfigError(f"{field} must be text, or several in a list, and one of them is {type(text).__name__}")
        checked.append(text)
    return tuple(checked)

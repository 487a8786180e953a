"""Whether an image came to its target with the digest that it had at its source, and if not, why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiodocker_images.models import DistributionInspect, ImageInspect, Platform
from aiodocker_images.reference import Reference

__all__ = [
    "DigestTruth",
    "digest_of",
    "has_attestations",
    "is_index",
    "missing_platforms",
    "pulled_digests",
    "told_platforms",
    "truth",
    "what_is_lost",
]

INDEXES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)

DigestTruth = tuple[bool | None, str | None]


def digest_of(found: DistributionInspect | None) -> str | None:
    """Return the digest that a registry names."""
    return found.descriptor.digest or None if found is not None and found.descriptor is not None else None


def is_index(found: DistributionInspect | None) -> bool:
    """Return whether the registry has an image of several platforms there."""
    return found is not None and found.descriptor is not None and found.descriptor.media_type in INDEXES


def told_platforms(found: DistributionInspect | None) -> tuple[Platform, ...]:
    """Return the platforms that a registry's image has; the attestations in an index call themselves unknown."""
    platforms = found.platforms if found is not None else ()
    return tuple(platform for platform in platforms if platform.os not in {"", "unknown"})


def has_attestations(found: DistributionInspect | None) -> bool:
    """Return whether a registry's index names more than images: attestations, as buildx adds them."""
    return is_index(found) and found is not None and len(told_platforms(found)) < len(found.platforms)


def what_is_lost(present: DistributionInspect | None, goes: Sequence[Platform], *, whole: bool) -> str:
    """Return what a target has that it would have no more, in words; "" for nothing.

    `goes` are the platforms that would be there then, `whole` says that the source's index goes as it is.
    """
    lost = [str(platform) for platform in missing_platforms(present, goes)] if is_index(present) else []
    if has_attestations(present) and not whole:
        lost.append("the attestations")
    return " and ".join(filter(None, (", ".join(lost[:-1]), *lost[-1:])))


def missing_platforms(found: DistributionInspect | None, chosen: Sequence[Platform]) -> tuple[Platform, ...]:
    """Return the platforms of the registry's image that are none of the chosen ones."""
    return tuple(one for one in told_platforms(found) if not any(_same(one, other) for other in chosen))


def _same(one: Platform, other: Platform) -> bool:
    # linux/arm64 and linux/arm64/v8 are one.
    variants = {one.variant, other.variant} - {""}
    return (one.os, one.architecture) == (other.os, other.architecture) and len(variants) < 2


def pulled_digests(told: str | None, image: ImageInspect, source: Reference) -> frozenset[str]:
    """Return the digests that the source may have: the one that the Engine told, or else all that it names.

    Podman 5.8 tells none, and of an image of several platforms it names two: its own, and that of them all.
    """
    if known := told or source.digest:
        return frozenset({known})
    names = (name.rpartition("@") for name in image.repo_digests)
    return frozenset(digest for name, _, digest in names if name == source.name)


def truth(
    before: frozenset[str], after: str | None, *, found: DistributionInspect | None, image: ImageInspect, went: str
) -> DigestTruth:
    """Say whether the digest was preserved, and if not, why; None for what cannot be known.

    `before` are the digests that the source may have had, `went` is the platform that was pushed.
    """
    if after is None or not before or (len(before) > 1 and after in before):
        return None, f"the Engine does not tell the digest of the {'target' if after is None else 'source'}"
    if after in before:
        return True, None
    reasons: list[str] = []
    platforms = told_platforms(found)
    if is_index(found) or len(platforms) > 1:
        of = f" of the source's {len(platforms)} platforms" if len(platforms) > 1 else ", without the index around it,"
        reasons.append(f"only {went or 'one platform'}{of} went")
    elif len(before) > 1:
        reasons.append(f"only {went or 'one platform'} of the source's platforms went")
    if image.descriptor is None:
        # An Engine with the containerd store describes the manifest that it has; the others have none to keep.
        reasons.append("the Engine's graph-driver store writes a manifest of its own")
    return False, " and ".join(reasons) or "the Engine pushed another manifest than it pulled"

"""Where a copy goes from and to, by the names that the caller gives. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from aiodocker_images.credentials import registry_name
from aiodocker_images.errors import InvalidReferenceError, named
from aiodocker_images.reference import Reference

from .digests import is_digest
from .stores import StoredImages

__all__ = ["Ends", "told"]


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a copy goes from and to."""

    source: Reference | StoredImages
    target: Reference | StoredImages

    @classmethod
    def parse(cls, source: str | Reference | StoredImages, target: str | Reference | StoredImages) -> Self:
        """Check both names. Raises `InvalidReferenceError`."""
        start, end = _named(source), _named(target)
        if isinstance(end, Reference):
            if end.digest is not None:
                raise InvalidReferenceError(f"{end.familiar!r} cannot be copied to: it has a digest, name a tag")
            if end.tag is None and isinstance(start, Reference):
                # Without a tag at either end the image is there by its digest alone.
                end = end if start.tag is None and start.digest else end.with_tag(start.with_default_tag().tag or "")
            end = end if end.tag is not None or isinstance(start, Reference) else end.with_default_tag()
        return cls(start.with_default_tag() if isinstance(start, Reference) else start, end)

    @property
    def registries(self) -> list[str]:
        """The registries among them."""
        return [registry_name(each.domain) for each in (self.source, self.target) if isinstance(each, Reference)]

    @property
    def name(self) -> str | None:
        """What the image is called in a target that says nothing else."""
        if isinstance(self.source, Reference):
            return str(self.source) if self.source.tag else None
        name = None if self.source.name is None else str(self.source.name)
        return None if name is None or is_digest(name) else name

    def __str__(self) -> str:
        return f"copy {told(self.source)} to {told(self.target)}"


def _named(end: str | Reference | StoredImages) -> Reference | StoredImages:
    return Reference.parse(end) if isinstance(end, str) else end


def told(end: Reference | StoredImages) -> str:
    """Return an end of a copy as results and errors name it."""
    if isinstance(end, Reference):
        return end.familiar
    name = getattr(end, "name", None)
    return named(f"{getattr(end, 'path', end)}{f':{name}' if name else ''}")

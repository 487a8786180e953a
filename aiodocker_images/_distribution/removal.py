"""Removing a tag, without what other tags of the repository have."""

from __future__ import annotations

from typing import Final

from aiodocker_images._aio.together import together
from aiodocker_images.errors import APIError, ConflictError, NotFoundError, shown
from aiodocker_images.reference import is_tag

from .repository import Repository

__all__ = ["remove"]

MAX_ASKED: Final = 10_000
"""Tags that are asked for their digests before one image is removed; each costs a request."""

_UNSUPPORTED: Final = frozenset({400, 404, 405, 501})
"""What registries answer that cannot remove a tag alone; distribution 2.8 says 400, of an invalid digest."""


async def remove(repository: Repository, tag: str | None, digest: str | None, *, only_tag: bool) -> None:
    """Remove `tag`, or without one the image of `digest`; if `only_tag`, nothing that another tag has."""
    found = await repository.head_manifest(tag or digest or "")
    if found is None:
        name = f"{repository.name}{f':{tag}' if tag else f'@{digest}'}"
        raise NotFoundError(f"there is no {name}", status=404, endpoint=repository.registry.name)
    # Without a tag it is the caller's digest, whatever the registry says about it.
    digest = digest or found.digest or (await repository.get_manifest(tag or "")).digest
    if tag is not None and only_tag:
        try:
            await repository.delete_manifest(tag)
        except APIError as error:
            if error.status not in _UNSUPPORTED:
                raise
        else:
            return
    if only_tag:
        await _check_alone(repository, tag, digest)
    await repository.delete_manifest(digest)


async def _check_alone(repository: Repository, tag: str | None, digest: str) -> None:
    """Raise `ConflictError` if another tag has the image."""
    others: list[str] = []
    async for page in repository.tag_pages():
        others += [each for each in page if each != tag]
        if len(others) > MAX_ASKED:
            raise ConflictError(
                f"{repository.name} has more than {MAX_ASKED} tags: which of them have {digest} is not looked for",
                endpoint=repository.registry.name,
            )
    having: list[str] = []

    async def ask(other: str) -> None:
        if not is_tag(other):  # nothing to put into a request: whatever it is, it counts as the same
            having.append(shown(other))
            return
        found = await repository.head_manifest(other)
        # A registry that does not tell digests is not asked for all of its manifests: then it counts as the same.
        if found is not None and found.digest in {"", digest}:
            having.append(other)

    await together([ask(other) for other in others])
    if having:
        raise ConflictError(
            f"{repository.name} cannot remove a tag alone, and {digest} is also {', '.join(sorted(having)[:10])}:"
            " only_tag=False removes it with all of its tags",
            endpoint=repository.registry.name,
        )

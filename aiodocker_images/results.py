"""What operations come to, gathered from their progress: frozen structs. Pure."""

from __future__ import annotations

from ._document import Document

__all__ = [
    "BuildResult",
    "ImportResult",
    "LoadResult",
    "PullResult",
    "PushResult",
    "SaveResult",
    "TransferredTag",
    "UpdateCheck",
]


class Result(Document, frozen=True, kw_only=True):
    """What an operation came to, gathered from its progress."""


class TransferredTag(Result, frozen=True, kw_only=True):
    """One tag of a repository that was pulled or pushed: its name, and what the Engine said of its manifest.

    `digest` and `size` (bytes, of a push) are None where the Engine names none. `instead_of_index` as in `PushResult`.
    """

    tag: str
    digest: str | None = None
    size: int | None = None
    instead_of_index: str | None = None


class PullResult(Result, frozen=True, kw_only=True):
    """`digest` of the manifest or index, None where the Engine names none (Podman). `up_to_date`: nothing was new.

    With `all_tags`, `reference` has no tag, `digest` is the last tag's, and `up_to_date` means all of them. `tags` are
    those that were pulled, each with its digest; Podman does not tell them. `platform` is that of the image that came,
    if one was asked for and the Engine can say it, and `warnings` what the Engine warned of.
    """

    reference: str
    digest: str | None = None
    up_to_date: bool = False
    tags: tuple[TransferredTag, ...] = ()
    platform: str | None = None
    warnings: tuple[str, ...] = ()


class PushResult(Result, frozen=True, kw_only=True):
    """`digest` and `size` (bytes) of the manifest in the registry; of the last tag with `all_tags`.

    `tags` are those that were pushed, each with its digest. `instead_of_index` is the digest of the index that the
    name stands for, if the Engine does not hold all of its platforms and therefore pushed one manifest in its place
    (containerd store, API 1.46): the registry then has that platform alone.
    """

    reference: str
    digest: str | None = None
    size: int | None = None
    tags: tuple[TransferredTag, ...] = ()
    instead_of_index: str | None = None


class UpdateCheck(Result, frozen=True, kw_only=True):
    """Whether a registry has another image under a name than the Engine.

    `latest` is the digest that the name has in the registry. `held` are the digests by which the Engine knows its own
    image of that name: empty if it has none, or one that was built or imported and never pushed or pulled.
    """

    reference: str
    latest: str
    held: tuple[str, ...] = ()

    @property
    def update_available(self) -> bool:
        """Whether a pull would bring something new."""
        return self.latest not in self.held


class LoadResult(Result, frozen=True, kw_only=True):
    """The names that the archive brought, in familiar form, and the ids of images in it that had no name."""

    references: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


class SaveResult(Result, frozen=True, kw_only=True):
    """`size` of the archive in bytes; `digest` ("sha256:…") of its bytes with `checksum=True`, else None.

    `compression` is "gzip", "bzip2", "xz" or "zstd", or None for a tar as it is; `size` and `digest` are then those of
    the compressed bytes.
    """

    size: int
    digest: str | None = None
    compression: str | None = None


class ImportResult(Result, frozen=True, kw_only=True):
    """The id of the new image."""

    id: str


class BuildResult(Result, frozen=True, kw_only=True):
    """The id of the image that was built; None if the build made none (an output elsewhere)."""

    id: str | None = None

"""Digests of content: computed, checked while the bytes pass, and compared with what was promised. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from aiodocker_images.errors import DigestMismatchError, FrameDecodeError, UnsupportedManifestError, shown
from aiodocker_images.reference import DIGEST_LENGTHS, digest_flaw

__all__ = ["ALGORITHMS", "DigestCheck", "check_digest", "compute_digest", "is_digest"]

ALGORITHMS: Final = tuple(DIGEST_LENGTHS)
"""The algorithms that a digest may have: sha256, and the longer ones that the OCI image specification allows."""


def is_digest(text: str) -> bool:
    """Whether `text` is an algorithm that is known here, a colon and hex digits of its length.

    A digest for which this is true is safe in the path of a URL or of a file.
    """
    return digest_flaw(text) is None


def check_digest(text: str, what: str) -> str:
    """Return `text` if it is a digest; `what` has it ("a layer").

    Raises `UnsupportedManifestError` for an algorithm that is not known here, `FrameDecodeError` for anything else.
    """
    flaw = digest_flaw(text)
    if flaw is None:
        return text
    algorithm, colon, encoded = text.partition(":")
    if colon and encoded and algorithm not in DIGEST_LENGTHS and algorithm.islower() and algorithm.isalnum():
        raise UnsupportedManifestError(f"{what} has a digest of an unknown algorithm: {flaw}")
    raise FrameDecodeError(f"{what} has no valid digest: {flaw}")


def compute_digest(data: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of `data`, such as "sha256:9f86…"."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class DigestCheck:
    """Compares bytes with the digest and the size that were promised for them, while they pass.

    `update()` takes the bytes in order. `finish()` raises `DigestMismatchError` if they were not what was promised.
    `size` None means that only the digest is known. `who` is named in the error: the registry or the file that
    sent the bytes.
    """

    __slots__ = ("_hash", "digest", "seen", "size", "who")

    def __init__(self, digest: str, size: int | None = None, *, who: str = "") -> None:
        self.digest = digest
        self.size = size
        self.who = who
        self.seen = 0
        self._hash = hashlib.new(digest.partition(":")[0])

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes; raises `DigestMismatchError` as soon as there are more than promised."""
        self.seen += len(data)
        if self.size is not None and self.seen > self.size:
            raise DigestMismatchError(
                f"{self._from()} more than the {self.size} bytes of {self.digest}",
                expected=self.digest,
                actual=None,
                who=self.who,
            )
        self._hash.update(data)

    @property
    def complete(self) -> bool:
        """Whether as many bytes passed as were promised."""
        return self.size is not None and self.seen == self.size

    @property
    def actual(self) -> str:
        """The digest of all that passed so far."""
        return f"{self.digest.partition(':')[0]}:{self._hash.hexdigest()}"

    def finish(self) -> None:
        """Raise `DigestMismatchError` unless size and digest of all that passed are the promised ones."""
        if self.size is not None and self.seen != self.size:
            raise DigestMismatchError(
                f"{self._from()} {self.seen} bytes, and {self.digest} has {self.size}",
                expected=self.digest,
                actual=None,
                who=self.who,
            )
        actual = self.actual
        if actual != self.digest:
            raise DigestMismatchError(
                f"{self._from()} content of digest {actual} instead of {self.digest}",
                expected=self.digest,
                actual=actual,
                who=self.who,
            )

    def _from(self) -> str:
        return f"{shown(self.who)} gave" if self.who else "the source gave"

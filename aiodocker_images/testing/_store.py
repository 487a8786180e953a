"""What a fake registry holds: blobs once, and repositories with manifests, tags and upload sessions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import msgspec

from .content import DOCKER_MANIFEST, INDEXES, OCI_MANIFEST, Manifest, digest_of

KNOWN_TYPES: Final = INDEXES | {OCI_MANIFEST, DOCKER_MANIFEST}


@dataclass(frozen=True, kw_only=True)
class StoredManifest:
    """A manifest as a registry holds it: exactly the bytes that were put, with the media type they were put as."""

    data: bytes = field(repr=False)
    media_type: str
    digest: str

    @property
    def document(self) -> dict[str, Any]:
        """The parsed JSON; empty if it is not a JSON object."""
        try:
            return msgspec.json.decode(self.data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}

    def descriptors(self, name: str) -> list[dict[str, Any]]:
        """Return the descriptors in a field that is an array, or one descriptor; nothing if they are malformed."""
        value = self.document.get(name)
        try:
            one = msgspec.convert(value, dict[str, Any])
        except msgspec.ValidationError:
            one = {}
        try:
            found = [one] if one else msgspec.convert(value, list[dict[str, Any]])
        except msgspec.ValidationError:
            return []
        return [each for each in found if isinstance(each.get("digest"), str)]

    @property
    def subject(self) -> str:
        """The digest of what this manifest refers to, or an empty text."""
        return next((str(each["digest"]) for each in self.descriptors("subject")), "")


@dataclass(eq=False, kw_only=True)
class Upload:
    """An upload session that is open. `size` is how many bytes have arrived."""

    repository: str
    id: str
    data: bytearray = field(default_factory=bytearray, repr=False)
    turns: int = 0

    @property
    def size(self) -> int:
        """The bytes that have arrived."""
        return len(self.data)

    @property
    def state(self) -> str:
        """What must come back in the query: it has what a client would change that decodes and encodes it."""
        return f"_state={self.id[:8]}%2F{self.turns}%3d~+a%20b"

    def is_known_by(self, query: str, state: Literal["none", "decoded", "exact"]) -> bool:
        """Tell whether a query has brought the latest state back, as a registry wants it."""
        if state == "decoded":
            return parse_qsl(self.state)[0] in parse_qsl(query)
        return state == "none" or self.state in query.split("&")


@dataclass(eq=False)
class Repository:
    """One repository: its tags by name, its manifests by digest, and the digests of its blobs.

    `known` says whether it has ever had a manifest, or was made by itself: with blobs alone, registries do not know it.
    `outlived` are manifests that were deleted and have tags all the same.
    """

    tags: dict[str, str] = field(default_factory=dict[str, str])
    manifests: dict[str, StoredManifest] = field(default_factory=dict[str, StoredManifest])
    blobs: set[str] = field(default_factory=set[str])
    outlived: dict[str, StoredManifest] = field(default_factory=dict[str, StoredManifest])
    known: bool = False


class Store:
    """Everything that a registry holds."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, Upload] = {}

    def create(self, repository: str) -> Repository:
        """Return the repository, which is made if it is not there."""
        return self.repositories.setdefault(repository, Repository())

    def known(self, repository: str) -> Repository | None:
        """Return the repository if there is one as far as clients can tell."""
        there = self.repositories.get(repository)
        return there if there is not None and there.known else None

    def put_blob(self, repository: str, data: bytes, digest: str = "") -> str:
        """Store a blob in a repository and return its digest."""
        digest = digest or digest_of(data)
        self.blobs[digest] = data
        self.create(repository).blobs.add(digest)
        return digest

    def put_manifest(self, repository: str, manifest: StoredManifest, tag: str = "") -> None:
        """Store a manifest in a repository, and let the tag be its name."""
        there = self.create(repository)
        there.known = True
        there.manifests[manifest.digest] = manifest
        if tag:
            there.tags[tag] = manifest.digest

    def put(self, repository: str, content: Manifest, tag: str = "") -> None:
        """Store a manifest with all that it refers to."""
        for blob in content.all_blobs().values():
            self.put_blob(repository, blob.data)
        for each in content.walk():
            stored = StoredManifest(data=each.data, media_type=each.media_type, digest=each.digest)
            self.put_manifest(repository, stored, tag if each is content else "")

    def find_manifest(self, repository: str, reference: str) -> StoredManifest | None:
        """Return a manifest by its tag or digest."""
        there = self.repositories.get(repository)
        if there is None:
            return None
        if (tagged := there.tags.get(reference)) is not None:
            return there.manifests.get(tagged) or there.outlived.get(tagged)
        return there.manifests.get(reference)

    def find_blob(self, repository: str, digest: str, *, anywhere: bool = False) -> bytes | None:
        """Return a blob that is in the repository, or `anywhere`."""
        there = self.repositories.get(repository)
        return self.blobs.get(digest) if anywhere or (there is not None and digest in there.blobs) else None

    def remove_manifest(self, repository: str, digest: str, *, keep_tags: bool = False) -> None:
        """Remove a manifest and, unless `keep_tags`, all tags of it."""
        there = self.repositories[repository]
        removed = there.manifests.pop(digest)
        if keep_tags:
            there.outlived[digest] = removed
            return
        for tag in [tag for tag, named in there.tags.items() if named == digest]:
            del there.tags[tag]

    def remove_blob(self, repository: str, digest: str) -> None:
        """Take a blob out of a repository, and forget it if no other has it."""
        self.create(repository).blobs.discard(digest)
        if not any(digest in each.blobs for each in list(self.repositories.values())):
            self.blobs.pop(digest, None)

    def referrers(self, repository: str, digest: str) -> list[StoredManifest]:
        """Return the manifests whose subject this digest is."""
        there = self.repositories.get(repository)
        return [each for each in list(there.manifests.values()) if each.subject == digest] if there else []

    def open_upload(self, repository: str) -> Upload:
        """Open an upload session."""
        upload = Upload(repository=repository, id=secrets.token_hex(16))
        self.uploads[upload.id] = upload
        return upload

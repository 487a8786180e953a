"""How registries differ: what a `FakeRegistry` does where the standard leaves a choice, or a real one ignores it.

`FakeRegistry(like="distribution 2.8")` behaves as that program does; the contract tests of this project run against
the program and against the fake. `dataclasses.replace(BEHAVIOURS["crane"], ranges=True)` changes a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a registry does; the defaults are those of a registry that follows OCI distribution 1.1 in everything.

    Names of sections are those of the distribution specification.

    Attributes:
        name: What this is.
        mounts: Whether `POST ?mount=&from=` mounts a blob that is there.
        mount_miss: The answer when it is not: 202 with an upload session, as the standard says, or 404.
        single_post: Whether `POST ?digest=` with the blob as its body stores it; otherwise a session is opened and
            the body is lost.
        patch_status: The answer to a PATCH: 202, as the standard says, or 204 or 201.
        relative_location: Whether `Location` is a path rather than a URL.
        location_state: Whether the `Location` of an upload has a query that changes with each answer and must come
            back: "none", "decoded" (Docker's Engine sends it back encoded in another way, and registries accept
            that), or "exact", byte for byte.
        created_location: Whether the 201 to a blob or a manifest has a `Location`.
        resumable: Whether an upload session survives a connection that breaks in the middle of a body.
        checks_range: Whether a PATCH whose Content-Range does not continue the upload is answered with 416.
        upload_status: Whether GET of an upload says how far it is; otherwise it is answered with 400.
        upload_cancel: The answer to DELETE of an upload: 204 and it is gone, or 400 or 405.
        chunk_minimum: Bytes that each chunk but the last must have, told as OCI-Chunk-Min-Length; 0 for none.
        strict_accept: Whether an index is 404 for those whose Accept does not name its type.
        any_media_type: Whether manifests of unknown media types are stored.
        checks_manifests: Whether a manifest that is not JSON is refused, and a tag that is not one.
        content_digest: Whether answers have Docker-Content-Digest.
        ranges: Which Range is honoured by GET of a blob: "all", those that begin with a number ("forward"), those
            with both ends within the blob ("closed"), or "none".
        blobs_shared: Whether a blob that is in one repository is in all of them.
        empty_base: Whether the answer to GET /v2/ has no body, rather than "{}".
        text_json: Whether lists of tags and repositories are declared as text/plain.
        names_unknown: For which nouns a missing repository is NAME_UNKNOWN, rather than MANIFEST_UNKNOWN and
            BLOB_UNKNOWN.
        wrong_length_416: Whether a 416 declares the blob's length, and sends less.
        tags_sorted: Whether tags are listed in lexical order; otherwise in the order in which they were put.
        null_lists: Whether an empty list of tags or referrers is null.
        paging: Whether `n` and `last` are honoured.
        page_size: The most that one page has, whatever `n` is; 0 for no such limit.
        link: Whether a page that is not the last has a `Link`.
        tight_link: Whether there is no space in it.
        link_on_last_page: Whether the last page has a `Link`, to a page that is empty.
        absolute_link: Whether `Link` has a URL rather than a path.
        referrers: Whether there is the referrers API: "full", "bare" (its entries have neither artifactType nor
            annotations, and the filter is ignored), or "none".
        delete: Whether manifests and blobs can be deleted.
        delete_tag: Whether a tag can be deleted by itself.
        tags_outlive_manifest: Whether tags stay when their manifest is deleted by its digest, and still serve it.
        subject_answered: Whether the answer to a manifest with a subject has `OCI-Subject`.
        missing_child: The answer to an index of which a manifest is missing; 0 to store it.
        missing_blob: The answer to a manifest of which a blob is missing; 0 to store it.
        checks_digest: Whether a manifest under a digest that is not its own is refused.
        repositories_must_exist: Whether nothing can be pushed to a repository that `create()` did not make.
        immutable_tags: Whether a tag that is there cannot be put again with another manifest.
        missing_repository: The answer for a repository that is not there: 404, or 401 without a challenge.
        redirect: The status of redirects of blobs, if the registry redirects.
        version: 2, or 1 for a registry that only speaks the API of before 2015.
    """

    name: str = "oci"
    mounts: bool = True
    mount_miss: Literal[202, 404] = 202
    single_post: bool = True
    patch_status: Literal[201, 202, 204] = 202
    relative_location: bool = False
    location_state: Literal["none", "decoded", "exact"] = "decoded"
    created_location: bool = True
    resumable: bool = True
    checks_range: bool = True
    upload_status: bool = True
    upload_cancel: Literal[204, 400, 405] = 204
    chunk_minimum: int = 0
    strict_accept: bool = False
    any_media_type: bool = True
    checks_manifests: bool = True
    content_digest: bool = True
    ranges: Literal["all", "forward", "closed", "none"] = "all"
    blobs_shared: bool = False
    empty_base: bool = False
    text_json: bool = False
    names_unknown: tuple[Literal["manifest", "blob"], ...] = ("manifest", "blob")
    wrong_length_416: bool = False
    tags_sorted: bool = True
    null_lists: bool = False
    paging: bool = True
    page_size: int = 0
    link: bool = True
    tight_link: bool = False
    link_on_last_page: bool = False
    absolute_link: bool = False
    referrers: Literal["full", "bare", "none"] = "full"
    delete: bool = True
    delete_tag: bool = True
    tags_outlive_manifest: bool = False
    missing_child: Literal[0, 400, 404, 500] = 404
    subject_answered: bool = True
    missing_blob: Literal[0, 400, 404, 500] = 404
    checks_digest: bool = True
    repositories_must_exist: bool = False
    immutable_tags: bool = False
    missing_repository: Literal[401, 404] = 404
    redirect: Literal[302, 307] = 307
    version: Literal[1, 2] = 2


_OCI: Final = Behaviour()

BEHAVIOURS: Final[Mapping[str, Behaviour]] = {
    "oci": _OCI,
    "strict": replace(_OCI, name="strict", location_state="exact", strict_accept=True),
    "distribution 2.8": replace(
        _OCI,
        name="distribution 2.8",
        single_post=False,
        resumable=False,
        checks_range=False,
        strict_accept=True,
        any_media_type=False,
        wrong_length_416=True,  # 2.8.2; it is right in 2.8.3
        names_unknown=(),
        tags_sorted=False,
        null_lists=True,
        paging=False,
        referrers="none",
        subject_answered=False,
        delete_tag=False,
        missing_child=400,
        missing_blob=400,
    ),
    "crane": replace(
        _OCI,
        name="crane",
        mounts=False,
        patch_status=204,
        relative_location=True,
        location_state="none",
        created_location=False,
        upload_status=False,
        upload_cancel=400,
        ranges="closed",
        blobs_shared=True,
        empty_base=True,
        text_json=True,
        names_unknown=("manifest",),
        link=False,
        referrers="none",
        subject_answered=False,
        tags_outlive_manifest=True,
        checks_manifests=False,
        missing_blob=0,
        checks_digest=False,
    ),
    "ociserver": replace(
        _OCI,
        name="ociserver",
        mount_miss=404,
        relative_location=True,
        location_state="none",
        upload_cancel=405,
        ranges="forward",
        empty_base=True,
        text_json=True,
        null_lists=True,
        tight_link=True,
        referrers="bare",
        tags_outlive_manifest=True,
        missing_child=500,
        missing_blob=500,
    ),
    "pulp": replace(
        _OCI,
        name="pulp",
        mount_miss=404,
        relative_location=True,
        location_state="none",
        link_on_last_page=True,
        missing_repository=401,
        redirect=302,
        referrers="none",
        subject_answered=False,
    ),
    "ecr": replace(
        _OCI,
        name="ecr",
        patch_status=201,
        repositories_must_exist=True,
        page_size=1000,
        referrers="none",
        subject_answered=False,
        missing_blob=400,
        missing_child=400,
    ),
    "quay": replace(_OCI, name="quay", page_size=50, absolute_link=True),
    "ghcr": replace(_OCI, name="ghcr", relative_location=True, referrers="none", subject_answered=False),
    "v1": replace(_OCI, name="v1", version=1),
}
"""The registries that the fake knows by name."""


def behaviour_of(like: str | Behaviour) -> Behaviour:
    """Return a behaviour by its name."""
    if isinstance(like, Behaviour):
        return like
    try:
        return BEHAVIOURS[like]
    except KeyError:
        known = ", ".join(repr(name) for name in BEHAVIOURS)
        raise ValueError(f"no registry is faked by the name {like!r}; there are {known}") from None

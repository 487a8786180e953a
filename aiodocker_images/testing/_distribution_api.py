"""The API of a registry as a fake one has it: what each request of the OCI distribution specification does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal
from urllib.parse import quote, urlencode

from ._exchange import ClientLeftError, Exchange, Request, Response
from ._registry_answers import blob_response, document, error, not_found, referrer, unknown_parts, unsupported
from ._store import KNOWN_TYPES, Store, StoredManifest, Upload
from .behaviour import Behaviour
from .content import INDEXES, OCI_INDEX, digest_of

STEPS: Final = (
    "GET base", "GET catalog", "GET tags", "GET referrers",
    "GET manifest", "HEAD manifest", "PUT manifest", "DELETE manifest",
    "GET blob", "HEAD blob", "DELETE blob",
    "POST upload", "GET upload", "PATCH upload", "PUT upload", "DELETE upload",
    "GET token", "POST token", "GET storage", "HEAD storage",
)  # fmt: skip
"""What can be asked of a fake registry, its token server and its storage, by the names that faults and counts use."""

UNKNOWN: Final = "unknown"
MAX_MANIFEST: Final = 4 << 20  # what the standard asks registries to accept at least, and most accept at most
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*")
_CONTENT_RANGE: Final = re.compile(r"([0-9]+)-([0-9]+)")


def locate(request: Request) -> None:
    """Find out what a request asks for: its step, repository and reference."""
    path = request.path
    if path in {"/v2", "/v2/"}:
        noun = "base"
    elif path == "/v2/_catalog":
        noun = "catalog"
    else:
        noun = UNKNOWN
        rest = path.removeprefix("/v2/") if path.startswith("/v2/") else ""
        if rest.endswith("/tags/list"):
            noun, request.repository = "tags", rest.removesuffix("/tags/list")
        else:
            for part, name in (
                ("/blobs/uploads", "upload"),
                ("/manifests/", "manifest"),
                ("/referrers/", "referrers"),
                ("/blobs/", "blob"),
            ):
                if part in rest:
                    request.repository, _, reference = rest.rpartition(part)
                    request.reference = reference.strip("/")
                    noun = name
                    break
        if noun != UNKNOWN and not all(_COMPONENT.fullmatch(each) for each in request.repository.split("/")):
            noun = UNKNOWN
    step = f"{request.method} {noun}"
    request.step = step if step in STEPS else UNKNOWN


def needs(request: Request) -> list[tuple[str, str]]:
    """Return the repositories and actions that a request needs."""
    if not request.repository:
        return []
    actions = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}.get(request.method, ("pull", "push"))
    if request.step in {"GET upload", "DELETE upload"}:
        actions = ("pull", "push")
    return [(request.repository, action) for action in actions]


class DistributionAPI:
    """Answers what `locate` has found out.

    `url` is what absolute Locations begin with; `redirect` returns where a blob is to be had instead, or nothing;
    `may` says whether a request may also do an action to another repository.
    """

    def __init__(
        self,
        store: Store,
        behaviour: Behaviour,
        url: Callable[[], str],
        redirect: Callable[[str], str],
        may: Callable[[Request, str, str], bool],
    ) -> None:
        self._store = store
        self._as = behaviour
        self._url = url
        self._redirect = redirect
        self._may = may

    async def answer(self, exchange: Exchange) -> Response:
        """Answer a request of the registry's API."""
        request = exchange.request
        method, noun = request.step.split(" ")
        if noun == "upload":
            return await self._upload(exchange)
        if noun == "manifest":
            return await self._put_manifest(exchange) if method == "PUT" else self._manifest(request)
        answers = {
            "base": self._base,
            "catalog": self._catalog,
            "tags": self._tags,
            "referrers": self._referrers,
            "blob": self._blob,
        }
        return answers[noun](request)

    def _base(self, _: Request) -> Response:
        return Response() if self._as.empty_base else document({})

    def _catalog(self, request: Request) -> Response:
        names, headers = self._page(
            request, sorted(name for name, there in self._store.repositories.items() if there.known), "/v2/_catalog"
        )
        return document({"repositories": names}, media_type=self._list_type, headers=headers)

    def _tags(self, request: Request) -> Response:
        there = self._store.known(request.repository)
        if there is None:
            return self._no_repository(request, "NAME_UNKNOWN")
        tags = list(there.tags)
        if self._as.tags_sorted:
            tags.sort()
        names, headers = self._page(request, tags, f"/v2/{request.repository}/tags/list")
        body = {"name": request.repository, "tags": self._listed(names)}
        return document(body, media_type=self._list_type, headers=headers)

    @property
    def _list_type(self) -> str:
        return "text/plain; charset=utf-8" if self._as.text_json else "application/json"

    def _listed(self, items: Sequence[object]) -> Sequence[object] | None:
        return None if not items and self._as.null_lists else items

    def _page(self, request: Request, items: list[str], path: str) -> tuple[list[str], dict[str, str]]:
        """Return what is on the page that is asked for, and the `Link` to the next one."""
        if not self._as.paging:
            return items, {}
        query = request.query
        if last := query.get("last", ""):
            items = items[items.index(last) + 1 :] if last in items else [each for each in items if each > last]
        wanted = int(query["n"]) if query.get("n", "").isdecimal() else self._as.page_size or len(items)
        size = min(wanted, self._as.page_size or wanted)
        page, more = items[:size], len(items) > size
        if not self._as.link or not page or not (more or self._as.link_on_last_page):
            return page, {}
        return page, self._link(path, {"last": page[-1], "n": str(size)})

    def _link(self, path: str, query: dict[str, str]) -> dict[str, str]:
        prefix = self._url() if self._as.absolute_link else ""
        space = "" if self._as.tight_link else " "
        return {"Link": f'<{prefix}{path}?{urlencode(query, quote_via=quote)}>;{space}rel="next"'}

    def _referrers(self, request: Request) -> Response:
        if self._as.referrers == "none":
            return not_found()
        query = request.query
        found = self._store.referrers(request.repository, request.reference)
        bare = self._as.referrers == "bare"
        entries = [referrer(each, bare=bare) for each in found]
        headers: dict[str, str] = {}
        if (wanted := query.get("artifactType")) and not bare:
            entries = [each for each in entries if each.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        if self._as.page_size:
            entries.sort(key=lambda entry: str(entry["digest"]))
            entries = [each for each in entries if str(each["digest"]) > query.get("last", "")]
            if len(entries) > self._as.page_size:
                entries = entries[: self._as.page_size]
                more = {**({"artifactType": wanted} if wanted else {}), "last": str(entries[-1]["digest"])}
                headers |= self._link(f"/v2/{request.repository}/referrers/{request.reference}", more)
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._listed(entries)}
        return document(body, media_type=OCI_INDEX, headers=headers)

    def _manifest(self, request: Request) -> Response:
        found = self._store.find_manifest(request.repository, request.reference)
        if request.method == "DELETE":
            return self._delete_manifest(request, found)
        if found is None and self._store.known(request.repository) is None:
            return self._no_repository(request, self._unknown("manifest", "MANIFEST_UNKNOWN"))
        accepted = request.headers.get("accept", "")
        if found is None or (
            self._as.strict_accept and found.media_type in INDEXES - {""} and found.media_type not in accepted
        ):
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown", {"unknown": request.reference})
        return Response(
            headers={"Content-Type": found.media_type, **self._digest(found.digest)}
            | ({"Content-Length": str(len(found.data))} if request.method == "HEAD" else {}),
            body=found.data,
        )

    def _unknown(self, noun: Literal["manifest", "blob"], code: str) -> str:
        return "NAME_UNKNOWN" if noun in self._as.names_unknown else code

    def _delete_manifest(self, request: Request, found: StoredManifest | None) -> Response:
        is_tag = not _DIGEST.fullmatch(request.reference)
        if not self._as.delete:
            return error(405, "UNSUPPORTED", "The operation is unsupported.")
        if is_tag and not self._as.delete_tag:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        if found is None:
            known = self._store.known(request.repository) is not None
            return error(404, "MANIFEST_UNKNOWN" if known else self._unknown("manifest", "MANIFEST_UNKNOWN"), "unknown")
        if is_tag:
            del self._store.repositories[request.repository].tags[request.reference]
        else:
            keep_tags = self._as.tags_outlive_manifest
            self._store.remove_manifest(request.repository, request.reference, keep_tags=keep_tags)
        return Response(status=202)

    async def _put_manifest(self, exchange: Exchange) -> Response:
        request = exchange.request
        data = await exchange.read()
        digest = digest_of(data)
        reference, is_tag = request.reference, not _DIGEST.fullmatch(request.reference)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        manifest = StoredManifest(data=data, media_type=media_type, digest=digest)
        if refusal := self._refuse_manifest(request, manifest, is_tag=is_tag):
            return refusal
        if not is_tag and not self._as.checks_digest:
            manifest = StoredManifest(data=data, media_type=media_type, digest=reference)
        self._store.put_manifest(request.repository, manifest, reference if is_tag else "")
        headers = self._made(f"/v2/{request.repository}/manifests/{digest}", digest)
        if self._as.subject_answered and manifest.subject:
            headers["OCI-Subject"] = manifest.subject
        return Response(status=201, headers=headers)

    def _refuse_manifest(self, request: Request, manifest: StoredManifest, *, is_tag: bool) -> Response | None:
        """Return why a manifest is not accepted, or None."""
        name, reference = request.repository, request.reference
        if self._as.repositories_must_exist and name not in self._store.repositories:
            return self._must_exist(name)
        if is_tag and self._as.checks_manifests and not _TAG.fullmatch(reference):
            return not_found()
        if len(manifest.data) > MAX_MANIFEST:
            return error(413, "SIZE_INVALID", "the manifest is over 4 MiB")
        if (self._as.checks_manifests and not manifest.document) or (
            not self._as.any_media_type and manifest.media_type not in KNOWN_TYPES
        ):
            return error(400, "MANIFEST_INVALID", "manifest invalid", f"unsupported or broken: {manifest.media_type}")
        if not is_tag and reference != manifest.digest and self._as.checks_digest:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        there = self._store.repositories.get(name)
        blobs = {
            str(each["digest"])
            for field in ("config", "layers")
            for each in manifest.descriptors(field)
            if not each.get("urls")
        }
        children = {str(each["digest"]) for each in manifest.descriptors("manifests")}
        missing = sorted(blobs - (there.blobs if there else set()))
        if missing and self._as.missing_blob:
            return unknown_parts(self._as.missing_blob, missing)
        missing = sorted(children - set(there.manifests if there else ()))
        if missing and self._as.missing_child:
            return unknown_parts(self._as.missing_child, missing)
        if (
            self._as.immutable_tags
            and is_tag
            and there
            and there.tags.get(reference, manifest.digest) != manifest.digest
        ):
            text = (
                f"The image tag '{reference}' already exists in the '{name}' repository and cannot be overwritten "
                "because the repository is immutable."
            )
            return error(400, "TAG_INVALID", text)
        return None

    def _blob(self, request: Request) -> Response:
        digest = request.reference
        if not _DIGEST.fullmatch(digest):
            return error(400, "DIGEST_INVALID", "invalid digest")
        found = self._store.find_blob(request.repository, digest, anywhere=self._as.blobs_shared)
        if found is None and request.repository not in self._store.repositories:
            return self._no_repository(request, self._unknown("blob", "BLOB_UNKNOWN"))
        if found is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry", {"digest": digest})
        if request.method == "DELETE":
            if not self._as.delete:
                return error(405, "UNSUPPORTED", "The operation is unsupported.")
            self._store.remove_blob(request.repository, digest)
            return Response(status=202)
        if where := self._redirect(digest):
            return Response(status=self._as.redirect, headers={"Location": where})
        return blob_response(request, found, self._as, self._digest(digest))

    async def _upload(self, exchange: Exchange) -> Response:
        request = exchange.request
        if request.method == "POST":
            return await self._open_upload(exchange)
        upload = self._store.uploads.get(request.reference)
        if upload is None or upload.repository != request.repository:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if not upload.is_known_by(request.raw_query, self._as.location_state):
            return error(
                404, "BLOB_UPLOAD_INVALID", "blob upload invalid", "the Location's query did not come back as it was"
            )
        if request.method == "DELETE" and self._as.upload_cancel == 204:
            del self._store.uploads[upload.id]
            return Response(status=204)
        if request.method == "DELETE":
            return unsupported(self._as.upload_cancel)
        if request.method == "GET":
            return self._progress(upload, 204) if self._as.upload_status else unsupported(400)
        if refusal := self._refuse_chunk(request, upload):
            return refusal
        try:
            while data := await exchange.some():
                upload.data += data
        except ClientLeftError:
            if not self._as.resumable:
                self._store.uploads.pop(upload.id, None)
            raise
        if request.method == "PATCH":
            upload.turns += 1
            return self._progress(upload, self._as.patch_status)
        return self._finish_upload(request, upload)

    def _refuse_chunk(self, request: Request, upload: Upload) -> Response | None:
        given = request.headers.get("content-range", "").removeprefix("bytes ")
        if not given or not self._as.checks_range:
            return None
        match = _CONTENT_RANGE.match(given)
        if match is None or int(match[1]) != upload.size:
            return error(416, "BLOB_UPLOAD_INVALID", "the chunk does not continue the upload")
        if request.method == "PATCH" and int(match[2]) - int(match[1]) + 1 < self._as.chunk_minimum:
            return error(416, "SIZE_INVALID", f"chunks must have {self._as.chunk_minimum} bytes at least")
        return None

    async def _open_upload(self, exchange: Exchange) -> Response:
        request, name = exchange.request, exchange.request.repository
        if self._as.repositories_must_exist and name not in self._store.repositories:
            return self._must_exist(name)
        query = request.query
        mounted, source = query.get("mount", ""), query.get("from", "")
        if mounted and source and self._as.mounts:
            found = self._store.find_blob(source, mounted) if self._may(request, source, "pull") else None
            if found is not None:
                self._store.put_blob(name, found, mounted)
                return self._created(name, mounted)
            if self._as.mount_miss == 404:
                known = source in self._store.repositories
                return error(404, "BLOB_UNKNOWN" if known else "NAME_UNKNOWN", "blob unknown to registry")
        if (digest := query.get("digest", "")) and self._as.single_post:
            data = await exchange.read()
            if digest != digest_of(data):
                return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            self._store.put_blob(name, data)
            return self._created(name, digest)
        await exchange.read()
        upload = self._store.open_upload(name)
        response = self._progress(upload, 202)
        if self._as.chunk_minimum:
            response.headers["OCI-Chunk-Min-Length"] = str(self._as.chunk_minimum)
        return response

    def _finish_upload(self, request: Request, upload: Upload) -> Response:
        digest = request.query.get("digest", "")
        data = bytes(upload.data)
        if not _DIGEST.fullmatch(digest):
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content", "digest missing")
        del self._store.uploads[upload.id]
        if digest != digest_of(data):
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self._store.put_blob(upload.repository, data)
        return self._created(upload.repository, digest)

    def _progress(self, upload: Upload, status: int) -> Response:
        path = f"/v2/{upload.repository}/blobs/uploads/{upload.id}"
        query = f"?{upload.state}" if self._as.location_state != "none" else ""
        headers = {
            "Location": self._place(path) + query,
            "Range": f"0-{max(0, upload.size - 1)}",
            "Docker-Upload-UUID": upload.id,
        }
        return Response(status=status, headers=headers)

    def _created(self, repository: str, digest: str) -> Response:
        return Response(status=201, headers=self._made(f"/v2/{repository}/blobs/{digest}", digest))

    def _made(self, path: str, digest: str) -> dict[str, str]:
        """Return the headers of the answer to what was stored."""
        location = {"Location": self._place(path)} if self._as.created_location else {}
        return location | self._digest(digest)

    def _place(self, path: str) -> str:
        return path if self._as.relative_location else self._url() + path

    def _digest(self, digest: str) -> dict[str, str]:
        return {"Docker-Content-Digest": digest} if self._as.content_digest else {}

    def _no_repository(self, request: Request, code: str) -> Response:
        if self._as.missing_repository == 401:
            return error(401, "UNAUTHORIZED", "authentication required")
        return error(404, code, "repository name not known to registry", {"name": request.repository})

    def _must_exist(self, name: str) -> Response:
        return error(404, "NAME_UNKNOWN", f"The repository with name '{name}' does not exist in the registry")

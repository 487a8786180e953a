"""What the frames of an operation say of its result, and whether they say that it came to its end. Pure.

HTTP tells when an answer was cut, but a proxy between may end it politely. So an operation whose Engine always
says a last word (all but load) is only complete when that word was seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

import msgspec

from aiodocker_images.buildkit import TRACE
from aiodocker_images.errors import FrameDecodeError, InvalidReferenceError, StreamInterruptedError
from aiodocker_images.progress import ProgressFrame
from aiodocker_images.reference import Reference
from aiodocker_images.results import BuildResult, ImportResult, LoadResult, PullResult, PushResult, TransferredTag

__all__ = [
    "MAX_LOADED",
    "MAX_TAGS",
    "BuildOutcome",
    "ImportOutcome",
    "LoadOutcome",
    "Outcome",
    "PullOutcome",
    "PushOutcome",
]

MAX_LOADED = 100_000
"""Names and ids in the result of a load; an archive has a few."""

MAX_LOADED_SIZE = 16 << 20
"""Characters of the lines that name them: a name has at most some hundred."""

MAX_TAGS = 100_000
"""Tags of one repository in the result of a pull or push; further ones are not named."""

MAX_WARNINGS = 100
"""Warnings in the result of a pull; an Engine has one at most."""

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

_OF_LAYERS = frozenset({"Downloading", "Extracting", "Waiting"})  # what nearly all frames of Docker's pulls say

_FETCHED = frozenset({"Download complete", "Pull complete"})

_DIGEST = r"[A-Za-z0-9_+.-]+:[0-9a-fA-F]{32,}"
_PULLED_DIGEST = re.compile(rf"Digest: ({_DIGEST})")
_PUSHED = re.compile(rf"(\S+): digest: ({_DIGEST})? size: (\d{{1,19}})", re.ASCII)
_IMPORTED = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_BUILT = re.compile(r"Successfully built ([0-9a-f]{12,64})")
_LOADED = re.compile(r"Loaded image(?P<id> ID)?: (?P<names>.+)")
_ID = re.compile(r"sha256:[0-9a-f]{64}")


class Outcome(Protocol[R_co]):
    """Gathers the result of one operation from its frames."""

    def update(self, frame: ProgressFrame) -> None:
        """Take in one frame, which reports no error."""
        ...

    def result(self) -> R_co:
        """Return the result at the end of the stream; raise `StreamInterruptedError` if it is not complete."""
        ...


class _Ended(Generic[R]):
    """Holds a result from the moment that the Engine said its last word."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._ended: R | None = None

    def result(self) -> R:
        if self._ended is None:
            raise StreamInterruptedError(
                f"the daemon's answer ended without saying that the {self._operation} was done"
            )
        return self._ended


class PullOutcome(_Ended[PullResult]):
    """Docker ends the pull of each tag with "Digest: …" and "Status: …", Podman with "Download complete"."""

    def __init__(self, reference: Reference) -> None:
        super().__init__("pull")
        self._reference = str(reference)
        self._digest: str | None = reference.digest
        self._tag: str | None = None
        self._tags: dict[str, TransferredTag] = {}
        self._new = False
        self._docker = False
        self._warnings: list[str] = []

    def came(self, platform: str) -> None:
        """Note the platform of the image that is there now."""
        if self._ended is not None:
            self._ended = msgspec.structs.replace(self._ended, platform=platform)

    def update(self, frame: ProgressFrame) -> None:
        """Note the digest and the last word."""
        status = frame.status or ""
        if self._docker and status in _OF_LAYERS:
            return
        if status.startswith("Pulling from "):  # never said by Podman
            self._docker = True
            self._tag, self._ended = frame.id, None  # one more tag that must come to its end
        elif status in _FETCHED and self._docker:
            # The containerd store says that an image is up to date if its index is, though another platform came.
            self._new = True
        elif match := _PULLED_DIGEST.fullmatch(status):
            self._digest = match[1]
            if self._tag and ":" not in self._tag and len(self._tags) < MAX_TAGS:  # a pull by digest has that there
                self._tags[self._tag] = TransferredTag(tag=self._tag, digest=match[1])
        elif status.startswith("WARNING: "):
            # Of a platform that did not come, 28.5 warns after its last word.
            if len(self._warnings) < MAX_WARNINGS:
                self._warnings.append(status.removeprefix("WARNING: "))
            if self._ended is not None:
                self._ended = self._result(new=self._new)
        elif status.startswith("Status: "):
            self._docker = True
            self._new = self._new or not status.startswith("Status: Image is up to date")
            self._ended = self._result(new=self._new)
        elif not self._docker:
            # Podman's last frame has the image's id in place of a layer's, but else looks like those of the
            # layers, which others follow.
            self._ended = self._result(new=True) if status == "Download complete" and frame.id else None

    def result(self) -> PullResult:
        """Return the result, with all the tags: to gather them at each frame would be quadratic work."""
        return msgspec.structs.replace(super().result(), tags=tuple(self._tags.values()))

    def _result(self, *, new: bool) -> PullResult:
        return PullResult(
            reference=self._reference,
            digest=self._digest,
            up_to_date=not new,
            warnings=tuple(self._warnings),
        )


class PushOutcome(_Ended[PushResult]):
    """The graph-driver store and newer Podmans end with `aux`, the containerd store with a line of text only."""

    def __init__(self, reference: Reference) -> None:
        super().__init__("push")
        self._reference = str(reference)
        self._tag = reference.tag
        self._tags: dict[str, TransferredTag] = {}
        self._index: str | None = None

    def update(self, frame: ProgressFrame) -> None:
        """Note the manifest's digest and size."""
        if (index := _index_not_pushed(frame.aux)) is not None:
            self._index = index
        elif _names_digest(frame.aux):
            try:
                pushed = msgspec.convert(frame.aux, _PushedAux)
            except msgspec.ValidationError as error:
                raise FrameDecodeError(f"the daemon's digest of the push is not what it should be: {error}") from error
            self._end(pushed.tag or self._tag, pushed.digest, pushed.size)
        elif match := _PUSHED.fullmatch(frame.status or ""):
            self._end(match[1], match[2], int(match[3]))

    def _end(self, tag: str | None, digest: str | None, size: int | None) -> None:
        digest = digest or None
        if tag is not None and (tag in self._tags or len(self._tags) < MAX_TAGS):
            known = self._tags.get(tag)  # the graph-driver store says it as text and as `aux`
            index = self._index or (known.instead_of_index if known is not None else None)
            self._tags[tag] = TransferredTag(tag=tag, digest=digest, size=size, instead_of_index=index)
        self._index, index = None, self._index or (self._ended.instead_of_index if self._ended is not None else None)
        self._ended = PushResult(
            reference=self._reference,
            digest=digest,
            size=size,
            instead_of_index=index,
        )

    def result(self) -> PushResult:
        """Return the result, with all the tags."""
        return msgspec.structs.replace(super().result(), tags=tuple(self._tags.values()))


def _index_not_pushed(aux: object) -> str | None:
    """Return the digest of the index in whose place one manifest is pushed; None if it is not that `aux`."""
    if not isinstance(aux, dict):
        return None
    fields = cast("dict[str, object]", aux)
    index = fields.get("originalIndex")
    if fields.get("manifestPushedInsteadOfIndex") is not True or not isinstance(index, dict):
        return None
    digest = cast("dict[str, object]", index).get("digest")
    return digest if isinstance(digest, str) else None


def _names_digest(aux: object) -> bool:
    return isinstance(aux, dict) and "Digest" in aux


class _PushedAux(msgspec.Struct, rename="pascal"):
    tag: str | None = None
    digest: str | None = None
    size: int | None = None


class ImportOutcome(_Ended[ImportResult]):
    """The last status is the new image's id: with `sha256:` from Docker, without it from Podman."""

    def __init__(self) -> None:
        super().__init__("import")

    def update(self, frame: ProgressFrame) -> None:
        """Note the id."""
        status = frame.status or ""
        if _IMPORTED.fullmatch(status):
            self._ended = ImportResult(id=f"sha256:{status.removeprefix('sha256:')}")


class LoadOutcome:
    """Each image of the archive is named in a line of `stream`; one with no image in it ends without a word.

    `fewest` is the number of names that there must be, or None if the archive did not show it.
    """

    def __init__(self, fewest: Callable[[], int | None] = lambda: None) -> None:
        self._references: list[str] = []
        self._ids: list[str] = []
        self._fewest = fewest
        self._size = 0

    def update(self, frame: ProgressFrame) -> None:
        """Note the names and ids; Podman lists all in one line, and says "ID" of none."""
        text = frame.stream or ""
        if "Loaded image" not in text:
            return
        self._size += len(text)
        if self._size > MAX_LOADED_SIZE:
            raise FrameDecodeError(f"the names of the loaded images are longer than {MAX_LOADED_SIZE >> 20} MiB")
        for line in text.splitlines():
            if match := _LOADED.fullmatch(line.strip()):
                for name in match["names"].split(","):
                    if match["id"] or _ID.fullmatch(name.strip()):
                        self._ids.append(name.strip())
                    else:
                        self._references.append(_familiar(name.strip()))
                    if len(self._ids) + len(self._references) > MAX_LOADED:
                        raise FrameDecodeError(f"the daemon says that it loaded more than {MAX_LOADED} images")

    def result(self) -> LoadResult:
        """Return what was loaded; raise `StreamInterruptedError` if names are missing that the archive announced."""
        told, fewest = len({*self._references, *self._ids}), self._fewest()
        if told < (1 if fewest is None else fewest):
            images = "no image" if fewest is None else f"{told} of the {fewest} images of the archive"
            raise StreamInterruptedError(f"the response ended before the load was complete: it names {images}")
        return LoadResult(references=tuple(self._references), ids=tuple(self._ids))


def _familiar(name: str) -> str:
    """Return a name as Docker shows it; Podman writes "docker.io/library/" out."""
    try:
        return Reference.parse(name).familiar
    except InvalidReferenceError:
        return name


class BuildOutcome(_Ended[BuildResult]):
    """An `aux` with the id comes first, in a build of several stages one for each; then "Successfully built …".

    BuildKit ends with the `aux` alone. A quiet build says the id and nothing else. `image` is whether one is made
    at all: where not, the end has no word.
    """

    def __init__(self, *, quiet: bool = False, image: bool = True) -> None:
        super().__init__("build")
        self._quiet = quiet
        self._id: str | None = None
        self._buildkit = False
        if not image:
            self._ended = BuildResult()

    def update(self, frame: ProgressFrame) -> None:
        """Note the id and the last word."""
        text = (frame.stream or "").strip()
        aux: object = frame.aux
        if frame.id == TRACE:
            self._buildkit = True  # and what it may show as text is a step's own
        elif isinstance(aux, dict):
            image_id = cast("dict[str, object]", aux).get("ID")
            self._id = image_id if isinstance(image_id, str) and image_id else self._id
            # A squashing classic builder sends that `id`, too, before its last word.
            if self._id is not None and self._buildkit and frame.id == "moby.image.id":
                self._ended = BuildResult(id=self._id)
        elif match := _BUILT.fullmatch(text):
            self._ended = BuildResult(id=self._id or match[1])
        elif self._quiet and _IMPORTED.fullmatch(text):
            self._ended = BuildResult(id=f"sha256:{text.removeprefix('sha256:')}")

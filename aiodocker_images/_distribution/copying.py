"""One image from a source to a target: what is brought, and in which order.

    resolve both -> equal? then nothing -> the manifest -> for an index: each child, of which likewise -> blobs
    -> the manifest of each child -> the name, last

What is in the target already is not brought, and a copy that fails leaves the name as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiodocker_images._aio.shared_runs import SharedRuns
from aiodocker_images._aio.together import together
from aiodocker_images.errors import APIError, DigestMismatchError, NotFoundError, UnsupportedManifestError
from aiodocker_images.models import Descriptor, Platform

from .image_config import MAX_CONFIG, read_platform
from .manifests import MAX_DEPTH, Manifest, is_foreign, platform_matches
from .planned import PlannedTarget
from .registry import count_blob
from .results import CopyResult, CopyStatus, CopyStep
from .slots import Slots
from .source import RegistrySource
from .stores import ImageSource, ImageTarget
from .target import RegistryTarget

__all__ = ["Copy", "LatestSteps", "Options", "Report"]

MAX_MANIFESTS: Final = 10_000
"""Manifests of one copy: an index of thousands is somebody's mistake, or an attack."""

MAX_BYTES: Final = 32 << 20
"""Bytes of the manifests of one copy, which are held in memory at once; 10,000 usual ones have 20 MB."""

STEP: Final = 256 << 10
"""Bytes of a blob between two reports of its progress."""

_LACKING: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})

Report = Callable[[CopyStep], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to copy. `registries` are those that a blob needs a slot of, `copy_foreign` means layers that have URLs."""

    platforms: tuple[Platform, ...] | None = None  # None: all
    sparse: bool = False
    force: bool = False
    resumed: bool = False  # an earlier copy to the same target was ended before its end
    copy_foreign: bool = False
    referrers: bool = False
    artifact_types: frozenset[str] = frozenset()  # of referrers; empty: all
    registries: frozenset[str] = frozenset()


class Copy:
    """One copy, which is run once."""

    def __init__(
        self, source: ImageSource, target: ImageTarget, options: Options, slots: Slots, report: Report | None
    ) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._slots = slots
        self._progress = _Progress(report)
        self._runs = SharedRuns()
        self._manifests: set[str] = set()
        self._left: dict[str, None] = {}
        self._referrers: dict[str, None] = {}
        self._left_tags: dict[str, None] = {}
        self._asked: set[str] = set()
        self._met: set[str] = set()
        self._bytes = 0  # of manifests
        self._looks = False  # whether children may be there already

    async def run(self) -> CopyResult:
        """Copy, and return what it came to."""
        wanted, present = await self._resolved()
        platforms = self._options.platforms
        there = self._is_there(present, wanted.digest)
        if platforms is None and there and not self._options.referrers:
            return self._result(wanted.digest, wanted.digest, because="the target has the same digest")
        read = await self._source.manifest(wanted)
        top, children = await self._chosen(read)
        if self._is_there(present, top.digest):
            await self._bring_referrers(top, children)
            return self._result(top.digest, read.digest, because="the target has the same digest")
        self._target.check(top)
        self._looks = (present is not None or self._options.resumed) and not self._options.force
        await self._bring_all(top, children)
        self._manifests.add(top.digest)
        await self._progress.told("manifest", "moved", top.descriptor)
        await self._bring_referrers(top, children)
        return self._result(top.digest, read.digest)

    async def _resolved(self) -> tuple[Descriptor, Descriptor | None]:
        found: list[Descriptor] = []
        present: list[Descriptor | None] = []

        async def source() -> None:
            found.append(await self._source.resolve())

        async def target() -> None:
            present.append(await self._target.resolve())

        await together([source(), target()])
        return found[0], present[0]

    def _is_there(self, present: Descriptor | None, digest: str) -> bool:
        return present is not None and present.digest == digest and not self._options.force

    async def _chosen(self, read: Manifest) -> tuple[Manifest, tuple[Descriptor, ...]]:
        """Return the manifest that the target is to have, and which of its children."""
        platforms = self._options.platforms
        if platforms is None:
            return read, read.children
        if not read.is_index:
            await self._check_platform(read, platforms)
            return read, ()
        subset = read.subset(platforms)
        if self._options.sparse:
            return read, subset.children
        return subset, subset.children

    async def _check_platform(self, manifest: Manifest, platforms: Sequence[Platform]) -> None:
        """Raise `NotFoundError` unless an image that is no part of an index is of one of the platforms."""
        config = manifest.config
        if config is None or (config.size or 0) > MAX_CONFIG:
            return
        async with contextlib.aclosing(self._source.blob(config)) as pieces:
            platform = read_platform(b"".join([piece async for piece in pieces]))
        if platform is not None and not any(platform_matches(wanted, platform) for wanted in platforms):
            raise NotFoundError(f"{self._source.who} has the platform {platform} alone")

    async def _bring_all(self, top: Manifest, children: Sequence[Descriptor]) -> None:
        try:
            await self._bring(top, children, 0)
            await self._target.write_name(top)
        except APIError as error:
            forget = getattr(self._target, "forget", None)
            if error.code not in _LACKING or forget is None:
                raise
            # What was known to be there is there no longer: once more, and nothing is believed.
            forget(self._progress.blobs)
            self._runs = SharedRuns()
            self._manifests.clear()
            self._bytes = 0
            self._progress.restart()
            await self._bring(top, children, 0)
            await self._target.write_name(top)

    async def _bring(self, manifest: Manifest, children: Sequence[Descriptor], depth: int) -> None:
        """Bring all that a manifest refers to."""
        if depth > MAX_DEPTH:
            raise UnsupportedManifestError(f"the indexes of {self._source.who} are nested more than {MAX_DEPTH} deep")
        if manifest.kind == "schema1" and not manifest.blobs:
            raise UnsupportedManifestError(f"the manifest {manifest.digest} of {self._source.who} has no layers")
        blobs = [blob for blob in manifest.blobs if not self._leaves(blob)]
        for blob in manifest.blobs:
            if self._leaves(blob):
                self._left[blob.digest] = None
        self._progress.expect(blobs)
        self._check_size(manifest, children)
        work = [self._blob_once(blob) for blob in blobs]
        work += [self._child_once(child, depth + 1) for child in children]
        await together(work)

    def _check_size(self, manifest: Manifest, children: Sequence[Descriptor]) -> None:
        """Count what is still to be brought, before any of it is begun: each manifest may name thousands of others."""
        self._met.update(child.digest for child in children)
        self._bytes += manifest.size
        if len(self._met) > MAX_MANIFESTS:
            raise UnsupportedManifestError(f"{self._source.who} has more than {MAX_MANIFESTS} manifests in one index")
        if self._bytes > MAX_BYTES:
            raise UnsupportedManifestError(f"the manifests of {self._source.who} have more than {MAX_BYTES} bytes")

    async def _bring_referrers(self, top: Manifest, children: Sequence[Descriptor]) -> None:
        """Bring what refers to the image: signatures and SBOMs, of an index and of each of its parts."""
        if not self._options.referrers:
            return
        self._looks = True
        subjects = [top.digest, *(child.digest for child in children)]
        for depth in range(MAX_DEPTH):
            await together([self._of_subject(subject, depth) for subject in subjects])
            # What is signed may be a signature.
            subjects = [each for each in self._referrers if each not in self._asked]
            if not subjects:
                return

    async def _of_subject(self, subject: str, depth: int) -> None:
        self._asked.add(subject)
        for descriptor in await self._source.referrers(subject):
            if not self._options.artifact_types or descriptor.artifact_type in self._options.artifact_types:
                await self._child_once(descriptor, depth + 1)
                self._referrers[descriptor.digest] = None
        if isinstance(self._source, RegistrySource) and isinstance(self._target, RegistryTarget | PlannedTarget):
            for tag, descriptor in (await self._source.signatures(subject)).items():
                manifest = await self._source.manifest(descriptor)
                await self._bring(manifest, manifest.children, depth + 1)
                if await self._target.write_tag(manifest, tag):
                    self._manifests.add(descriptor.digest)
                    self._referrers[descriptor.digest] = None
                else:
                    self._left_tags[tag] = None

    def _leaves(self, blob: Descriptor) -> bool:
        return is_foreign(blob) and not self._options.copy_foreign

    # Each once for each digest; who needs it at the same time waits for it. What is a manifest in one place may be a
    # blob in another, and has to be stored as both.

    async def _blob_once(self, blob: Descriptor) -> None:
        if blob.digest not in self._progress.done:
            await self._runs.share(("blob", blob.digest), lambda: self._blob(blob))

    async def _child_once(self, child: Descriptor, depth: int) -> None:
        if child.digest not in self._manifests:
            await self._runs.share(("manifest", child.digest), lambda: self._child(child, depth))

    async def _child(self, descriptor: Descriptor, depth: int) -> None:
        if self._looks and await self._target.has_manifest(descriptor):
            self._manifests.add(descriptor.digest)
            await self._progress.told("manifest", "there", descriptor)
            return
        manifest = await self._source.manifest(descriptor)
        await self._bring(manifest, manifest.children, depth)
        await self._target.write_manifest(manifest)
        self._manifests.add(descriptor.digest)
        await self._progress.told("manifest", "moved", descriptor)

    async def _blob(self, descriptor: Descriptor) -> None:
        try:
            written = await self._target.write_blob(descriptor, lambda: self._content(descriptor))
        except DigestMismatchError:
            # A proxy may have broken it, or a disk: once more, and then it is the source that lies.
            written = await self._target.write_blob(descriptor, lambda: self._content(descriptor))
        await self._progress.finished(descriptor, written)

    async def _content(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        async with self._slots.hold(self._options.registries, descriptor.size):
            self._progress.begun(descriptor)
            async with contextlib.aclosing(self._source.blob(descriptor)) as pieces:
                async for piece in pieces:
                    await self._progress.moved(descriptor, len(piece))
                    yield piece

    def _result(self, digest: str, source_digest: str, *, because: str = "") -> CopyResult:
        sums = self._progress.sums
        return CopyResult(
            source=self._source.who,
            target=self._target.who,
            digest=digest,
            source_digest=source_digest,
            skipped=bool(because),
            because=because,
            manifests=len(self._manifests),
            blobs=len(self._progress.done),
            bytes_moved=sums["moved"],
            bytes_mounted=sums["mounted"],
            bytes_there=sums["there"],
            left_foreign=tuple(self._left),
            referrers=tuple(self._referrers),
            left_tags=tuple(self._left_tags),
        )


class _Progress:
    """What has become of the blobs so far, and whom it is told to."""

    def __init__(self, report: Report | None) -> None:
        self._report = report
        self.restart()

    def restart(self) -> None:
        """Forget what was done."""
        self.blobs: dict[str, Descriptor] = {}
        self.done: set[str] = set()
        self.sums: dict[str, int] = {"moved": 0, "mounted": 0, "there": 0}
        self._current: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._all = self._done = 0

    def expect(self, blobs: Sequence[Descriptor]) -> None:
        """Note blobs that are to be brought."""
        for blob in blobs:
            if blob.digest not in self.blobs:
                self.blobs[blob.digest] = blob
                self._all += blob.size or 0

    def begun(self, blob: Descriptor) -> None:
        """Note that a blob is read from its first byte, perhaps once more."""
        self._done -= self._current.get(blob.digest, 0)
        self._current[blob.digest] = self._told[blob.digest] = 0

    async def moved(self, blob: Descriptor, size: int) -> None:
        """Note that some more of a blob has come."""
        self._done += size
        self._current[blob.digest] += size
        if self._report is not None and self._current[blob.digest] - self._told[blob.digest] >= STEP:
            self._told[blob.digest] = self._current[blob.digest]
            await self.told("blob", "moving", blob, self._current[blob.digest])

    async def finished(self, blob: Descriptor, status: CopyStatus) -> None:
        """Note that a blob is in the target."""
        size = blob.size if blob.size is not None else self._current.get(blob.digest, 0)
        self._done += size - self._current.pop(blob.digest, 0)
        self.done.add(blob.digest)
        self.sums[status] += size
        count_blob(status, size)
        await self.told("blob", status, blob, size)

    async def told(self, kind: str, status: CopyStatus, what: Descriptor, current: int | None = None) -> None:
        """Report a step."""
        if self._report is None:
            return
        step = CopyStep(
            kind="blob" if kind == "blob" else "manifest",
            status=status,
            digest=what.digest,
            current=(what.size or 0) if current is None else current,
            total=what.size,
            done_bytes=self._done,
            all_bytes=self._all,
        )
        await self._report(step)


class LatestSteps:
    """Steps for somebody who may be busy: of each blob that is moving, the latest one alone waits."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, bool], CopyStep] = {}
        self._changed = asyncio.Event()
        self._closed = False

    async def put(self, step: CopyStep) -> None:
        """Add a step."""
        key = step.digest, step.status == "moving"
        self._waiting.pop(key, None)
        if not key[1]:
            self._waiting.pop((step.digest, True), None)
        self._waiting[key] = step
        self._changed.set()

    def close(self) -> None:
        """Note that no more steps come."""
        self._closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncGenerator[CopyStep, None]:
        """Yield the steps until there are no more."""
        while True:
            while self._waiting:
                yield self._waiting.pop(next(iter(self._waiting)))
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()

"""The frames that Engines really send give the right result, and an end without the last word gives none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._api.outcomes import BuildOutcome, ImportOutcome, LoadOutcome, Outcome, PullOutcome, PushOutcome
from aiodocker_images.errors import DockerError, FrameDecodeError, StreamInterruptedError
from aiodocker_images.progress import ProgressFrame
from aiodocker_images.reference import Reference
from aiodocker_images.results import BuildResult, ImportResult, LoadResult, PullResult, PushResult, TransferredTag

R = TypeVar("R")

DIGEST = "sha256:" + "1a" * 32
OTHER = "sha256:" + "2b" * 32
ID = "3c" * 32

Frames = list[dict[str, Any]]


def outcome_of(outcome: Outcome[R], frames: Iterable[Mapping[str, Any]]) -> R:
    """Decode the frames from their JSON, as they come, and return the result."""
    for frame in frames:
        outcome.update(msgspec.json.decode(msgspec.json.encode(frame), type=ProgressFrame))
    return outcome.result()


def layer(status: str, layer_id: str = "aaaaaaaaaaaa", **detail: object) -> dict[str, Any]:
    return {"status": status, "progressDetail": detail, "id": layer_id}


GRAPH_DRIVER_PULL: Frames = [
    {"status": "Pulling from library/alpine", "id": "3.20"},
    layer("Pulling fs layer"),
    layer("Downloading", current=1, total=2),
    layer("Verifying Checksum"),
    layer("Download complete"),
    layer("Extracting", current=2, total=2),
    layer("Pull complete"),
    {"status": f"Digest: {DIGEST}"},
    {"status": "Status: Downloaded newer image for alpine:3.20"},
]
GRAPH_DRIVER_UP_TO_DATE: Frames = [
    {"status": "Pulling from library/alpine", "id": "3.20"},
    {"status": f"Digest: {DIGEST}"},
    {"status": "Status: Image is up to date for alpine:3.20"},
]
CONTAINERD_PULL: Frames = [
    {"status": "Pulling from library/alpine", "id": "3.20"},
    layer("Pulling fs layer"),
    layer("Downloading", current=1, total=2),
    layer("Download complete", hidecounts=True),
    layer("Extracting", current=1, units="s"),
    layer("Pull complete", hidecounts=True),
    {"status": f"Digest: {DIGEST}"},
    {"status": "Status: Downloaded newer image for alpine:3.20"},
]
PODMAN_PULL: Frames = [
    layer("Pulling fs layer"),
    layer("Downloading", current=1, total=2),
    layer("Download complete"),
    layer("Pulling fs layer", "bbbbbbbbbbbb"),
    layer("Download complete", "bbbbbbbbbbbb"),
    layer("Download complete", ID[:12]),
]
PODMAN_5_8_6_ALL_THERE: Frames = [
    layer("Already exists"),
    layer("Pulling fs layer", ID[:12]),
    layer("Download complete", ID[:12]),
    layer("Download complete", ID[:12]),
]
ALL_TAGS: Frames = [
    {"status": "Pulling from app", "id": "1"},
    {"status": f"Digest: {OTHER}"},
    {"status": "Status: Downloaded newer image for 127.0.0.1:5000/app:1"},
    {"status": "Pulling from app", "id": "2"},
    {"status": f"Digest: {DIGEST}"},
    {"status": "Status: Image is up to date for 127.0.0.1:5000/app:2"},
]
ALL_TAGS_IN_ONE: Frames = [  # a graph driver says how it was once for all of them
    {"status": "Pulling from app", "id": "1"},
    {"status": f"Digest: {OTHER}"},
    {"status": "Pulling from app", "id": "2"},
    {"status": f"Digest: {DIGEST}"},
    {"status": "Status: Image is up to date for 127.0.0.1:5000/app"},
]

ALPINE = "docker.io/library/alpine:3.20"
APP = "127.0.0.1:5000/app"
PINNED = f"{APP}@{DIGEST}"

BOTH_TAGS = (TransferredTag(tag="1", digest=OTHER), TransferredTag(tag="2", digest=DIGEST))

TAG_3_20 = (TransferredTag(tag="3.20", digest=DIGEST),)

PULLS: dict[str, tuple[str, Frames, PullResult]] = {
    "graph driver": (ALPINE, GRAPH_DRIVER_PULL, PullResult(reference=ALPINE, digest=DIGEST, tags=TAG_3_20)),
    "graph driver, up to date": (
        ALPINE,
        GRAPH_DRIVER_UP_TO_DATE,
        PullResult(reference=ALPINE, digest=DIGEST, tags=TAG_3_20, up_to_date=True),
    ),
    "containerd store": (ALPINE, CONTAINERD_PULL, PullResult(reference=ALPINE, digest=DIGEST, tags=TAG_3_20)),
    "Podman": (ALPINE, PODMAN_PULL, PullResult(reference=ALPINE)),
    "Podman 5.8.6, all there": (ALPINE, PODMAN_5_8_6_ALL_THERE, PullResult(reference=ALPINE)),
    "Podman, by digest": (PINNED, PODMAN_PULL, PullResult(reference=PINNED, digest=DIGEST)),
    "all tags": (APP, ALL_TAGS, PullResult(reference=APP, digest=DIGEST, tags=BOTH_TAGS)),
    "all tags, all there": (
        APP,
        ALL_TAGS_IN_ONE,
        PullResult(reference=APP, digest=DIGEST, up_to_date=True, tags=BOTH_TAGS),
    ),
    "containerd store, another platform of an index that is up to date": (
        ALPINE,
        [*CONTAINERD_PULL[:-1], {"status": "Status: Image is up to date for alpine:3.20"}],
        PullResult(reference=ALPINE, digest=DIGEST, tags=TAG_3_20),
    ),
    "by digest, none reported": (
        PINNED,
        [{"status": "Status: Image is up to date for 127.0.0.1:5000/app@" + DIGEST}],
        PullResult(reference=PINNED, digest=DIGEST, up_to_date=True),
    ),
    "a digest of another length": (
        ALPINE,
        [{"status": "Digest: sha512:" + "a" * 128}, GRAPH_DRIVER_PULL[-1]],
        PullResult(reference=ALPINE, digest="sha512:" + "a" * 128),
    ),
    "a digest that is none": (
        ALPINE,
        [{"status": "Digest: soup"}, GRAPH_DRIVER_PULL[-1]],
        PullResult(reference=ALPINE),
    ),
    "a warning besides": (
        ALPINE,
        [{"status": "WARNING: …"}, {"stream": "x"}, {}, *GRAPH_DRIVER_PULL],
        PullResult(reference=ALPINE, digest=DIGEST, tags=TAG_3_20, warnings=("…",)),
    ),
}


@pytest.mark.parametrize(("reference", "frames", "result"), PULLS.values(), ids=PULLS)
def test_a_pull_results_in_the_digest_and_whether_anything_was_new(
    reference: str, frames: Frames, result: PullResult
) -> None:
    assert outcome_of(PullOutcome(Reference.parse(reference)), frames) == result


GRAPH_DRIVER_PUSH: Frames = [
    {"status": "The push refers to repository [127.0.0.1:5000/app]"},
    layer("Preparing"),
    layer("Pushing", current=1, total=2),
    layer("Pushed"),
    {"status": f"1: digest: {DIGEST} size: 405"},
    {"progressDetail": {}, "aux": {"Tag": "1", "Digest": DIGEST, "Size": 405}},
]
CONTAINERD_PUSH: Frames = [
    {"status": "The push refers to repository [127.0.0.1:5000/app]"},
    layer("Unavailable"),
    layer("Pushing", current=1, total=2),
    layer("Pushed"),
    {"status": f"1: digest: {DIGEST} size: 405"},
]
INSTEAD_OF_INDEX: Frames = [
    *CONTAINERD_PUSH[:-1],
    {
        "aux": {
            "manifestPushedInsteadOfIndex": True,
            "originalIndex": {"digest": OTHER, "size": 999},
            "selectedManifest": {"digest": DIGEST, "size": 405},
        }
    },
    CONTAINERD_PUSH[-1],
]
PODMAN_PUSH: Frames = [
    {"status": "The push refers to repository [127.0.0.1:5000/app:1]", "progressDetail": {}},
    layer("Pushed"),
    {
        "status": f"1: digest: {DIGEST} size: 405",
        "progressDetail": {},
        "aux": {"Tag": "1", "Digest": DIGEST, "Size": 405},
    },
]
PODMAN_PUSH_WITHOUT_DIGEST: Frames = [
    *PODMAN_PUSH[:-1],
    {"status": "1: digest:  size: 405", "aux": {"Tag": "1", "Digest": "", "Size": 405}},
]
PODMAN_5_8_6_PUSH: Frames = [
    {"status": "The push refers to repository [127.0.0.1:5000/app:1]"},
    {"status": f"1: digest: {DIGEST} size: 405"},
]
DOCKER_28_5_2_CONTAINERD_PUSH: Frames = [
    {"status": "The push refers to repository [127.0.0.1:5000/app]"},
    layer("Waiting"),
    layer("Layer already exists"),
    {"status": f"1: digest: {DIGEST} size: 405"},
]
TAG = TransferredTag(tag="1", digest=DIGEST, size=405)
PUSHED = PushResult(reference=f"{APP}:1", digest=DIGEST, size=405, tags=(TAG,))
WITHOUT_DIGEST = PushResult(reference=f"{APP}:1", size=405, tags=(TransferredTag(tag="1", size=405),))

PUSHES: dict[str, tuple[Frames, PushResult]] = {
    "graph driver": (GRAPH_DRIVER_PUSH, PUSHED),
    "containerd store": (CONTAINERD_PUSH, PUSHED),
    "containerd store, a manifest of an index": (
        INSTEAD_OF_INDEX,
        PushResult(
            reference=f"{APP}:1",
            digest=DIGEST,
            size=405,
            tags=(TransferredTag(tag="1", digest=DIGEST, size=405, instead_of_index=OTHER),),
            instead_of_index=OTHER,
        ),
    ),
    "containerd store of Docker 28.5.2, nothing new": (DOCKER_28_5_2_CONTAINERD_PUSH, PUSHED),
    "Podman": (PODMAN_PUSH, PUSHED),
    "Podman 5.8.6": (PODMAN_5_8_6_PUSH, PUSHED),
    "Podman, no digest known": (PODMAN_PUSH_WITHOUT_DIGEST, WITHOUT_DIGEST),
    "older Podman, no digest known": ([{"status": "1: digest:  size: 405"}], WITHOUT_DIGEST),
    "several tags": (
        [{"status": f"0: digest: {OTHER} size: 7"}, *GRAPH_DRIVER_PUSH],
        PushResult(
            reference=f"{APP}:1",
            digest=DIGEST,
            size=405,
            tags=(TransferredTag(tag="0", digest=OTHER, size=7), TAG),
        ),
    ),
    "aux without a size": (
        [{"aux": {"Digest": DIGEST}}],
        PushResult(reference=f"{APP}:1", digest=DIGEST, tags=(TransferredTag(tag="1", digest=DIGEST),)),
    ),
    "aux of nulls": (
        [{"aux": {"Tag": None, "Digest": None, "Size": None}}],
        PushResult(reference=f"{APP}:1", tags=(TransferredTag(tag="1"),)),
    ),
    "aux of another kind": ([{"aux": [1]}, {"aux": "x"}, {"aux": {"ID": DIGEST}}, *CONTAINERD_PUSH], PUSHED),
}


@pytest.mark.parametrize(("frames", "result"), PUSHES.values(), ids=PUSHES)
def test_a_push_results_in_the_digest_and_size_of_the_manifest(frames: Frames, result: PushResult) -> None:
    assert outcome_of(PushOutcome(Reference.parse(f"{APP}:1")), frames) == result


MALFORMED_AUX: list[dict[str, Any]] = [
    {"Digest": 5, "Size": 405},
    {"Digest": DIGEST, "Size": "405"},
    {"Digest": DIGEST, "Size": 1.5},
    {"Digest": DIGEST, "Size": True},
    {"Digest": {"sha256": "x"}},
    {"Digest": []},
]


@pytest.mark.parametrize("aux", MALFORMED_AUX, ids=str)
def test_a_digest_of_a_wrong_type_is_an_error_of_ours_with_its_cause(aux: dict[str, Any]) -> None:
    with pytest.raises(FrameDecodeError, match="digest of the push") as caught:
        outcome_of(PushOutcome(Reference.parse(f"{APP}:1")), [{"aux": aux}])
    assert isinstance(caught.value.__cause__, msgspec.ValidationError)


IMPORTS: dict[str, Frames] = {
    "Docker": [{"status": f"sha256:{ID}"}],
    "Docker, from a URL": [
        {"status": "Downloading from http://127.0.0.1:1/root.tar"},
        {"status": "Importing", "progressDetail": {"current": 1, "total": 2}},
        {"status": f"sha256:{ID}"},
    ],
    "older Podman": [{"status": ID, "progress": "", "progressDetail": {}, "id": ID}],
    "Podman 5.8.6": [{"status": f"sha256:{ID}", "progress": "", "progressDetail": {}, "id": f"sha256:{ID}"}],
}


@pytest.mark.parametrize("frames", IMPORTS.values(), ids=IMPORTS)
def test_an_import_results_in_the_id_with_its_algorithm(frames: Frames) -> None:
    assert outcome_of(ImportOutcome(), frames) == ImportResult(id=f"sha256:{ID}")


LOADS: dict[str, tuple[Frames, LoadResult]] = {
    "graph driver": (
        [layer("Loading layer", current=1, total=2), {"stream": "Loaded image: alpine:3.20\n"}],
        LoadResult(references=("alpine:3.20",)),
    ),
    "several names": (
        [{"stream": "Loaded image: alpine:3.20\n"}, {"stream": "Loaded image: 127.0.0.1:5000/app:1\n"}],
        LoadResult(references=("alpine:3.20", "127.0.0.1:5000/app:1")),
    ),
    "without a name": ([{"stream": f"Loaded image ID: sha256:{ID}\n"}], LoadResult(ids=(f"sha256:{ID}",))),
    "several without a name, in one frame": (
        [{"stream": f"Loaded image ID: sha256:{ID}\nLoaded image ID: {DIGEST}\n"}],
        LoadResult(ids=(f"sha256:{ID}", DIGEST)),
    ),
    "both": (
        [{"stream": "Loaded image: a:1\n"}, {"stream": f"Loaded image ID: {DIGEST}\n"}],
        LoadResult(references=("a:1",), ids=(DIGEST,)),
    ),
    "Podman 5.8.6": (
        [{"stream": "Loaded image: docker.io/library/alpine:3.20,127.0.0.1:5000/app:1"}],
        LoadResult(references=("alpine:3.20", "127.0.0.1:5000/app:1")),
    ),
    "Podman 5.8.6, without a name": (
        [{"stream": f"Loaded image: sha256:{ID}"}],
        LoadResult(ids=(f"sha256:{ID}",)),
    ),
    "Podman, blanks between": ([{"stream": "Loaded image: a:1, b:1"}], LoadResult(references=("a:1", "b:1"))),
    "not a name": ([{"stream": "Loaded image: -"}], LoadResult(references=("-",))),
    "a name that is used again": (
        [
            {"stream": "The image a:1 already exists, renaming the old one with ID x to empty string\n"},
            {"stream": "Loaded image: a:1\n"},
        ],
        LoadResult(references=("a:1",)),
    ),
}


@pytest.mark.parametrize(("frames", "result"), LOADS.values(), ids=LOADS)
def test_a_load_results_in_names_and_ids(frames: Frames, result: LoadResult) -> None:
    assert outcome_of(LoadOutcome(), frames) == result


def test_the_load_of_an_archive_without_images_names_none() -> None:
    assert outcome_of(LoadOutcome(lambda: 0), []) == LoadResult()


@pytest.mark.parametrize(
    ("frames", "fewest", "told"),
    [
        ([], None, "names no image"),
        ([{"status": "x"}], None, "names no image"),
        ([], 3, "names 0 of the 3 images"),
        ([{"stream": "Loaded image: a:1\n"}], 3, "1 of the 3 images"),
        ([{"stream": "Loaded image: a:1\n"}, {"stream": "Loaded image: a:1\n"}], 2, "1 of the 2 images"),
    ],
)
def test_a_load_that_names_fewer_images_than_its_archive_is_not_complete(
    frames: Frames, fewest: int | None, told: str
) -> None:
    with pytest.raises(StreamInterruptedError, match=told):
        outcome_of(LoadOutcome(lambda: fewest), frames)


def test_the_names_of_loaded_images_have_a_limit_in_characters() -> None:
    outcome = LoadOutcome()
    frame = ProgressFrame(stream="Loaded image: " + "a" * (1 << 20))
    with pytest.raises(FrameDecodeError, match="longer than 16 MiB"):
        for _ in range(17):
            outcome.update(frame)


OUTCOMES: dict[str, Callable[[], Outcome[object]]] = {
    "pull": lambda: PullOutcome(Reference.parse(ALPINE)),
    "push": lambda: PushOutcome(Reference.parse(f"{APP}:1")),
    "import": ImportOutcome,
    "build": BuildOutcome,
}

CUT: list[tuple[str, Frames]] = [
    ("pull", []),
    *(("pull", GRAPH_DRIVER_PULL[:end]) for end in range(1, len(GRAPH_DRIVER_PULL))),
    *(("pull", GRAPH_DRIVER_UP_TO_DATE[:end]) for end in range(1, len(GRAPH_DRIVER_UP_TO_DATE))),
    *(("pull", CONTAINERD_PULL[:end]) for end in range(1, len(CONTAINERD_PULL))),
    *(("pull", PODMAN_PULL[:end]) for end in (1, 2, 4)),  # the end of a layer cannot be told from that of the pull
    ("push", []),
    *(("push", GRAPH_DRIVER_PUSH[:end]) for end in range(1, 5)),
    *(("push", CONTAINERD_PUSH[:end]) for end in range(1, len(CONTAINERD_PUSH))),
    ("push", PODMAN_5_8_6_PUSH[:1]),
    *(("push", INSTEAD_OF_INDEX[:end]) for end in range(1, len(INSTEAD_OF_INDEX))),
    ("push", [{"status": f"1: digest: {DIGEST} size: many"}]),
    ("push", [{"status": f"1: digest: {DIGEST} size: {'9' * 5000}"}]),
    ("push", [{"status": "1: digest: soup size: 405"}]),
    ("push", [{"status": f"1: digest: {DIGEST} size: ٤"}]),
    ("import", []),
    ("import", IMPORTS["Docker, from a URL"][:2]),
    ("import", [{"status": "sha256:"}]),
    ("import", [{"status": f"sha256:{ID[:-1]}"}]),
    ("import", [{"id": f"sha256:{ID}"}]),
]


@pytest.mark.parametrize(("operation", "frames"), CUT)
def test_an_end_without_the_last_word_is_an_interruption(operation: str, frames: Frames) -> None:
    with pytest.raises(StreamInterruptedError) as caught:
        outcome_of(OUTCOMES[operation](), frames)
    assert str(caught.value) == f"the daemon's answer ended without saying that the {operation} was done"


def built(image_id: str, **more: object) -> dict[str, Any]:
    return {"aux": {"ID": image_id}, **more}


def said(text: str) -> dict[str, Any]:
    return {"stream": text}


SHORT = f"Successfully built {ID[:12]}\n"
TRACE_FRAME: dict[str, Any] = {"id": "moby.buildkit.trace", "aux": ""}
BUILT: dict[str, tuple[Outcome[BuildResult], Frames, str | None]] = {
    "Docker": (
        BuildOutcome(),
        [said("Step 1/1 : FROM scratch"), built(f"sha256:{ID}"), said(SHORT), said("Successfully tagged a:1\n")],
        f"sha256:{ID}",
    ),
    "Docker, two stages": (BuildOutcome(), [built(OTHER), built(f"sha256:{ID}"), said(SHORT)], f"sha256:{ID}"),
    "Docker, squashed": (
        BuildOutcome(),
        [built(OTHER), built(f"sha256:{ID}", id="moby.image.id"), said(SHORT)],
        f"sha256:{ID}",
    ),
    "a build in a step of a build": (
        BuildOutcome(),
        [said("Successfully built 0123456789ab\n"), built(f"sha256:{ID}"), said(SHORT)],
        f"sha256:{ID}",
    ),
    "without aux": (BuildOutcome(), [said("Successfully built 0123456789ab\n")], "0123456789ab"),
    "Docker, quiet": (BuildOutcome(quiet=True), [said(f"sha256:{ID}\n")], f"sha256:{ID}"),
    "Podman, quiet": (BuildOutcome(quiet=True), [said(f"{ID}\n")], f"sha256:{ID}"),
    "BuildKit": (
        BuildOutcome(),
        [TRACE_FRAME, built(f"sha256:{ID}", id="moby.image.id"), TRACE_FRAME],
        f"sha256:{ID}",
    ),
    "BuildKit, no image": (BuildOutcome(image=False), [TRACE_FRAME], None),
}


@pytest.mark.parametrize(("outcome", "frames", "image_id"), BUILT.values(), ids=BUILT)
def test_a_build_gives_the_id_of_its_last_image(
    outcome: Outcome[BuildResult], frames: Frames, image_id: str | None
) -> None:
    assert outcome_of(outcome, frames) == BuildResult(id=image_id)


NOT_BUILT: list[Frames] = [
    [built(f"sha256:{ID}")],
    [built(f"sha256:{ID}", id="moby.image.id")],
    [TRACE_FRAME],
    [TRACE_FRAME, built("", id="moby.image.id")],
    [said(f"sha256:{ID}\n")],
    [said("Successfully built a-python-package-1.0\n")],
    [{**TRACE_FRAME, "stream": "Successfully built 0123456789ab\n"}],
]


@pytest.mark.parametrize("frames", NOT_BUILT)
def test_what_a_step_says_is_no_end_of_the_build(frames: Frames) -> None:
    with pytest.raises(StreamInterruptedError):
        outcome_of(BuildOutcome(), frames)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Digest", "Size", "Tag", "x"]), inner),
    max_leaves=8,
)
TEXTS = st.sampled_from(
    [
        "Loaded image: a",
        "Loaded image ID: ,",
        "Loaded image: \n",
        "Status: ",
        f"Digest: {DIGEST}",
        f"1: digest: {DIGEST} size: 1",
        ID,
        "Download complete",
        "Pulling from x",
    ]
)
FRAME = st.builds(
    ProgressFrame,
    id=st.none() | st.text(),
    status=st.none() | TEXTS | st.text(),
    stream=st.none() | TEXTS | st.text(),
    aux=JSON,
)


@given(st.sampled_from([*OUTCOMES.values(), LoadOutcome]), st.lists(FRAME))
def test_whatever_comes_gives_a_result_or_an_error_of_ours(
    make: Callable[[], Outcome[object]], frames: list[ProgressFrame]
) -> None:
    outcome = make()
    with contextlib.suppress(DockerError):
        for frame in frames:
            outcome.update(frame)
        assert outcome.result() is not None


def test_a_step_that_prints_the_last_word_does_not_choose_the_image() -> None:
    """What docker-py's own client once fell for: a Dockerfile that says the builder's words itself."""
    outcome = BuildOutcome()
    for frame in (
        ProgressFrame(stream="Step 2/3 : CMD echo Successfully built abcd1234abcd\n"),
        ProgressFrame(stream="Step 3/3 : RUN echo Successfully built abcd1234abcd\n"),
        ProgressFrame(stream="Successfully built abcd1234abcd\n"),
        ProgressFrame(aux={"ID": "sha256:" + "1" * 64}),
        ProgressFrame(stream="Successfully built 111111111111\n"),
    ):
        outcome.update(frame)
    assert outcome.result().id == "sha256:" + "1" * 64

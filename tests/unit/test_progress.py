"""Frames read what Engines send, and the tracker makes bars of them that neither lie nor run backwards."""

from __future__ import annotations

import io
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress, TaskID

from aiodocker_images.progress import (
    MAX_LAYERS,
    ErrorDetail,
    LayerProgress,
    ProgressDetail,
    ProgressFrame,
    ProgressTracker,
)

DIGEST = "sha256:" + "7" * 64

# One layer that is there already, one small enough to leave no progress, one that shows everything.
GRAPH_DRIVER_PULL = b"""
{"status":"Pulling from library/python","id":"3.13-slim"}
{"status":"Already exists","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Pulling fs layer","progressDetail":{},"id":"cccccccccccc"}
{"status":"Waiting","progressDetail":{},"id":"cccccccccccc"}
{"status":"Downloading","progressDetail":{"current":250,"total":250},"progress":"[==>] 250B/250B","id":"bbbbbbbbbbbb"}
{"status":"Verifying Checksum","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Download complete","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":2000,"total":10000},"id":"cccccccccccc"}
{"status":"Downloading","progressDetail":{"current":9000,"total":10000},"id":"cccccccccccc"}
{"status":"Verifying Checksum","progressDetail":{},"id":"cccccccccccc"}
{"status":"Download complete","progressDetail":{},"id":"cccccccccccc"}
{"status":"Extracting","progressDetail":{"current":250,"total":250},"id":"bbbbbbbbbbbb"}
{"status":"Pull complete","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Extracting","progressDetail":{"current":4000,"total":10000},"id":"cccccccccccc"}
{"status":"Extracting","progressDetail":{"current":10000,"total":10000},"id":"cccccccccccc"}
{"status":"Pull complete","progressDetail":{},"id":"cccccccccccc"}
{"status":"Digest: %(digest)s"}
{"status":"Status: Downloaded newer image for python:3.13-slim"}
""" % {b"digest": DIGEST.encode()}

# The download counts bytes, the extraction seconds. One layer is in the store, but not extracted yet.
CONTAINERD_PULL = b"""
{"status":"Pulling from library/redis","id":"8"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Already exists","progressDetail":{"hidecounts":true},"id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":1048576,"total":3000000},"id":"aaaaaaaaaaaa"}
{"status":"Download complete","progressDetail":{"hidecounts":true},"id":"aaaaaaaaaaaa"}
{"status":"Extracting","progressDetail":{"current":1,"units":"s"},"id":"bbbbbbbbbbbb"}
{"status":"Pull complete","progressDetail":{"hidecounts":true},"id":"bbbbbbbbbbbb"}
{"status":"Extracting","progressDetail":{"current":1,"units":"s"},"id":"aaaaaaaaaaaa"}
{"status":"Extracting","progressDetail":{"current":17,"units":"s"},"id":"aaaaaaaaaaaa"}
{"status":"Pull complete","progressDetail":{"hidecounts":true},"id":"aaaaaaaaaaaa"}
{"status":"Digest: %(digest)s"}
{"status":"Status: Downloaded newer image for redis:8"}
""" % {b"digest": DIGEST.encode()}

UP_TO_DATE_PULL = b"""
{"status":"Pulling from library/alpine","id":"3.20"}
{"status":"Digest: %(digest)s"}
{"status":"Status: Image is up to date for alpine:3.20"}
""" % {b"digest": DIGEST.encode()}

# moby shows the broken download as full when it closes it, then resumes at byte 600 and counts only the rest.
RETRYING_PULL = b"""
{"status":"Pulling from library/alpine","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":600,"total":1000},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":1000,"total":1000},"id":"aaaaaaaaaaaa"}
{"status":"Retrying in 2 seconds","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Retrying in 1 second","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":100,"total":400},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":400,"total":400},"id":"aaaaaaaaaaaa"}
{"status":"Download complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Status: Downloaded newer image for alpine:latest"}
"""

# Sizes can be -1, and the last blob is the image's configuration, named once more at the end.
PODMAN_PULL = b"""
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":4000,"total":-1},"progress":"     4kB","id":"bbbbbbbbbbbb"}
{"status":"Download complete","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":500,"total":4000},"id":"aaaaaaaaaaaa"}
{"status":"Download complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"dddddddddddd"}
{"status":"Download complete","progressDetail":{},"id":"dddddddddddd"}
{"status":"Download complete","progressDetail":{},"id":"dddddddddddd"}
"""

# The tar of a layer is bigger than the sum of its files, which is its total.
GRAPH_DRIVER_PUSH = b"""
{"status":"The push refers to repository [127.0.0.1:5000/app]"}
{"status":"Preparing","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Preparing","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Preparing","progressDetail":{},"id":"cccccccccccc"}
{"status":"Waiting","progressDetail":{},"id":"cccccccccccc"}
{"status":"Layer already exists","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Mounted from library/alpine","progressDetail":{},"id":"cccccccccccc"}
{"status":"Pushing","progressDetail":{"current":512,"total":3000},"id":"aaaaaaaaaaaa"}
{"status":"Pushing","progressDetail":{"current":4096,"total":3000},"id":"aaaaaaaaaaaa"}
{"status":"Pushed","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"1.0: digest: %(digest)s size: 528"}
{"progressDetail":{},"aux":{"Tag":"1.0","Digest":"%(digest)s","Size":528}}
""" % {b"digest": DIGEST.encode()}

PODMAN_PUSH = b"""
{"status":"The push refers to repository [127.0.0.1:5000/app:1.0]"}
{"status":"Preparing","id":"aaaaaaaaaaaa"}
{"status":"Pushing","progressDetail":{"current":512,"total":3000},"id":"aaaaaaaaaaaa"}
{"status":"Layer already exists","id":"bbbbbbbbbbbb"}
{"status":"Pushed","id":"aaaaaaaaaaaa"}
{"status":"1.0: digest: %(digest)s size: 528","aux":{"Tag":"1.0","Digest":"%(digest)s","Size":528}}
""" % {b"digest": DIGEST.encode()}

# The layers come one by one, and nothing says that one is done but its bytes.
LOAD = b"""
{"status":"Loading layer","progressDetail":{"current":32768,"total":100000},"id":"aaaaaaaaaaaa"}
{"status":"Loading layer","progressDetail":{"current":100000,"total":100000},"id":"aaaaaaaaaaaa"}
{"status":"Loading layer","progressDetail":{"current":512,"total":512},"id":"bbbbbbbbbbbb"}
{"stream":"Loaded image: alpine:3.20\\n"}
"""

IMPORT = b"""
{"status":"Downloading from http://127.0.0.1/rootfs.tar"}
{"status":"Importing","progressDetail":{"current":500,"total":2000}}
{"status":"Importing","progressDetail":{"current":2000,"total":2000}}
{}
{"status":"%(digest)s"}
""" % {b"digest": DIGEST.encode()}

PODMAN_IMPORT = b"""
{"status":"%(id)s","progress":"","progressDetail":{},"id":"%(id)s"}
""" % {b"id": b"7" * 64}

# Docker 28.5.2, containerd store, a layer of 400 MiB: the frame that says "Download complete" is not always sent.
CONTAINERD_28_5_2_PULL = b"""
{"status":"Pulling from app","id":"1"}
{"status":"Pulling fs layer","progressDetail":{},"id":"a418ca1fd63d"}
{"status":"Downloading","progressDetail":{"current":30408704,"total":419463097},"id":"a418ca1fd63d"}
{"status":"Downloading","progressDetail":{"current":404750336,"total":419463097},"id":"a418ca1fd63d"}
{"status":"Extracting","progressDetail":{"current":1,"units":"s"},"progress":"1 s","id":"a418ca1fd63d"}
{"status":"Pull complete","progressDetail":{"hidecounts":true},"id":"a418ca1fd63d"}
{"status":"Digest: %(digest)s"}
{"status":"Status: Downloaded newer image for 127.0.0.1:5000/app:1"}
""" % {b"digest": DIGEST.encode()}

# The same layer out again: its bytes, and not the tar's.
CONTAINERD_28_5_2_PUSH = b"""
{"status":"The push refers to repository [127.0.0.1:5000/app]"}
{"status":"Pushing","progressDetail":{"current":17825792,"total":419463097},"id":"a418ca1fd63d"}
{"status":"Pushing","progressDetail":{"current":417333248,"total":419463097},"id":"a418ca1fd63d"}
{"status":"Pushed","progressDetail":{},"id":"a418ca1fd63d"}
{"status":"1: digest: %(digest)s size: 407"}
""" % {b"digest": DIGEST.encode()}

# Podman 5.8.6, of an image that is there: the configuration is fetched all the same.
PODMAN_5_8_6_PULL = b"""
{"status":"Already exists","progressDetail":{},"id":"b36a7a273fc5"}
{"status":"Pulling fs layer","progressDetail":{},"id":"5066c1231100"}
{"status":"Download complete","progressDetail":{},"id":"5066c1231100"}
{"status":"Download complete","progressDetail":{},"id":"5066c1231100"}
"""

PODMAN_5_8_6_PUSH = b"""
{"status":"The push refers to repository [127.0.0.1:5000/app:1]"}
{"status":"1: digest: %(digest)s size: 402"}
""" % {b"digest": DIGEST.encode()}

PODMAN_5_8_6_IMPORT = b"""
{"status":"%(digest)s","progress":"","progressDetail":{},"id":"%(digest)s"}
""" % {b"digest": DIGEST.encode()}

SEQUENCES = {
    "graph driver pull": GRAPH_DRIVER_PULL,
    "containerd pull": CONTAINERD_PULL,
    "pull up to date": UP_TO_DATE_PULL,
    "retrying pull": RETRYING_PULL,
    "Podman pull": PODMAN_PULL,
    "graph driver push": GRAPH_DRIVER_PUSH,
    "Podman push": PODMAN_PUSH,
    "load": LOAD,
    "import": IMPORT,
    "Podman import": PODMAN_IMPORT,
    "containerd pull 28.5.2": CONTAINERD_28_5_2_PULL,
    "containerd push 28.5.2": CONTAINERD_28_5_2_PUSH,
    "Podman pull 5.8.6, all there": PODMAN_5_8_6_PULL,
    "Podman push 5.8.6": PODMAN_5_8_6_PUSH,
    "Podman import 5.8.6": PODMAN_5_8_6_IMPORT,
}


def frames_of(lines: bytes) -> list[ProgressFrame]:
    return msgspec.json.Decoder(ProgressFrame).decode_lines(lines)


def track(lines: bytes) -> ProgressTracker:
    tracker = ProgressTracker()
    for frame in frames_of(lines):
        tracker.update(frame)
    return tracker


def frame(
    status: str | None,
    layer: str | None = "a",
    current: float | None = None,
    total: float | None = None,
    units: str = "",
) -> ProgressFrame:
    detail = ProgressDetail(current=current, total=total, units=units)
    return ProgressFrame(id=layer, status=status, progress_detail=detail)


# --- frames


def test_a_frame_has_dockers_fields_under_names_of_words() -> None:
    (read,) = frames_of(
        b'{"id":"a","status":"s","progress":"[>]","stream":"t","error":"e","aux":{"ID":"i"},'
        b'"errorDetail":{"code":7,"message":"m"},'
        b'"progressDetail":{"current":1,"total":2,"start":3,"hidecounts":true,"units":"s"}}'
    )
    assert read == ProgressFrame(
        id="a",
        status="s",
        progress="[>]",
        stream="t",
        error="e",
        aux={"ID": "i"},
        error_detail=ErrorDetail(code=7, message="m"),
        progress_detail=ProgressDetail(current=1, total=2, start=3, hide_counts=True, units="s"),
    )


@pytest.mark.parametrize("kind", [ProgressFrame, ProgressDetail, ErrorDetail], ids=lambda kind: kind.__name__)
def test_every_field_may_be_missing_or_null_and_unknown_ones_are_ignored(kind: type[msgspec.Struct]) -> None:
    nulls = dict.fromkeys((field.encode_name for field in msgspec.structs.fields(kind)), None)
    assert msgspec.json.decode(msgspec.json.encode({**nulls, "newField": {"a": [1]}}), type=kind) == kind()
    assert msgspec.json.decode(b"{}", type=kind) == kind()


@pytest.mark.parametrize("number", [0, -1, 1.5, 2.0, 2**63, 2**64, 10**30])
def test_numbers_beyond_those_of_docker_are_read(number: float) -> None:
    (read,) = frames_of(b'{"progressDetail":{"current":%s,"total":%s}}' % ((str(number).encode(),) * 2))
    assert read.progress_detail == ProgressDetail(current=number, total=number)


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        (b'{"status":"Downloading"}', None),
        (b'{"error":""}', None),
        (b'{"error":null,"errorDetail":null}', None),
        (b'{"error":"old","errorDetail":{"code":404,"message":"new"}}', "new"),
        (b'{"errorDetail":{"message":"no space left on device"}}', "no space left on device"),
        (b'{"error":"format error"}', "format error"),
        (b'{"error":"old","errorDetail":{}}', "old"),
        (b'{"error":"","errorDetail":{}}', "the daemon reported an error without a message"),
        (b'{"errorDetail":{"code":1}}', "the daemon reported an error without a message"),
    ],
)
def test_a_frame_is_a_failure_if_it_has_an_error_detail_or_an_error_text(line: bytes, failure: str | None) -> None:
    assert frames_of(line)[0].failure == failure


@pytest.mark.parametrize(("units", "counts"), [(None, True), ("", True), ("bytes", True), ("s", False)])
def test_numbers_are_bytes_unless_another_unit_is_named(units: str | None, counts: bool) -> None:
    assert ProgressDetail(units=units).counts_bytes is counts


# --- sequences


@pytest.mark.parametrize(
    ("lines", "ids"),
    [
        (GRAPH_DRIVER_PULL, ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"]),
        (CONTAINERD_PULL, ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]),
        (UP_TO_DATE_PULL, []),
        (RETRYING_PULL, ["aaaaaaaaaaaa"]),
        (PODMAN_PULL, ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "dddddddddddd"]),
        (GRAPH_DRIVER_PUSH, ["aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"]),
        (PODMAN_PUSH, ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]),
        (LOAD, ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]),
        (IMPORT, [""]),
        (PODMAN_IMPORT, []),
        (CONTAINERD_28_5_2_PULL, ["a418ca1fd63d"]),
        (CONTAINERD_28_5_2_PUSH, ["a418ca1fd63d"]),
        (PODMAN_5_8_6_PULL, ["b36a7a273fc5", "5066c1231100"]),
        (PODMAN_5_8_6_PUSH, []),
        (PODMAN_5_8_6_IMPORT, []),
    ],
    ids=SEQUENCES,
)
def test_layers_appear_in_frame_order_and_exclude_tags_and_image_ids(lines: bytes, ids: list[str]) -> None:
    assert list(track(lines).layers) == ids


@pytest.mark.parametrize(
    ("lines", "downloaded", "total"),
    [
        (GRAPH_DRIVER_PULL, 10250, 10250),
        (CONTAINERD_PULL, 3000000, 3000000),
        (UP_TO_DATE_PULL, 0, 0),
        (RETRYING_PULL, 1000, 1000),
        (PODMAN_PULL, 8000, 8000),
        (GRAPH_DRIVER_PUSH, 4096, 4096),
        (PODMAN_PUSH, 3000, 3000),
        (LOAD, 100512, 100512),
        (IMPORT, 2000, 2000),
        (PODMAN_IMPORT, 0, 0),
        (CONTAINERD_28_5_2_PULL, 419463097, 419463097),
        (CONTAINERD_28_5_2_PUSH, 419463097, 419463097),
        (PODMAN_5_8_6_PULL, 0, 0),
        (PODMAN_5_8_6_PUSH, 0, 0),
        (PODMAN_5_8_6_IMPORT, 0, 0),
    ],
    ids=SEQUENCES,
)
def test_the_bytes_are_those_that_moved(lines: bytes, downloaded: int, total: int) -> None:
    tracker = track(lines)
    assert (tracker.downloaded, tracker.total) == (downloaded, total)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (GRAPH_DRIVER_PULL, "Status: Downloaded newer image for python:3.13-slim"),
        (CONTAINERD_PULL, "Status: Downloaded newer image for redis:8"),
        (UP_TO_DATE_PULL, "Status: Image is up to date for alpine:3.20"),
        (RETRYING_PULL, "Status: Downloaded newer image for alpine:latest"),
        (PODMAN_PULL, None),
        (GRAPH_DRIVER_PUSH, f"1.0: digest: {DIGEST} size: 528"),
        (PODMAN_PUSH, f"1.0: digest: {DIGEST} size: 528"),
        (LOAD, "Loaded image: alpine:3.20"),
        (IMPORT, DIGEST),
        (PODMAN_IMPORT, "7" * 64),
        (CONTAINERD_28_5_2_PULL, "Status: Downloaded newer image for 127.0.0.1:5000/app:1"),
        (CONTAINERD_28_5_2_PUSH, f"1: digest: {DIGEST} size: 407"),
        (PODMAN_5_8_6_PULL, None),
        (PODMAN_5_8_6_PUSH, f"1: digest: {DIGEST} size: 402"),
        (PODMAN_5_8_6_IMPORT, DIGEST),
    ],
    ids=SEQUENCES,
)
def test_the_status_is_the_last_message_that_is_not_about_a_layer(lines: bytes, status: str | None) -> None:
    assert track(lines).status == status


def test_the_line_with_the_tag_is_a_status() -> None:
    assert track(b'{"status":"Pulling from library/alpine","id":"latest"}').status == "Pulling from library/alpine"


@pytest.mark.parametrize("lines", SEQUENCES.values(), ids=SEQUENCES)
def test_the_whole_is_done_when_finish_says_so_and_not_before(lines: bytes) -> None:
    tracker = track(lines)
    assert tracker.fraction is None or tracker.fraction < 1
    tracker.finish()
    assert tracker.fraction == 1
    assert all(layer.done and layer.fraction == 1 for layer in tracker.layers.values())


def test_what_a_broken_download_moved_counts_again_when_it_resumes() -> None:
    tracker = ProgressTracker()
    bytes_after: list[tuple[int, int]] = []
    for step in frames_of(RETRYING_PULL):
        tracker.update(step)
        bytes_after.append((tracker.downloaded, tracker.total))
    assert bytes_after[2:8] == [(600, 1000), (1000, 1000), (0, 1000), (0, 1000), (700, 1000), (1000, 1000)]


def test_an_import_without_an_id_is_a_part_and_a_status() -> None:
    tracker = track(b'{"status":"Importing","progressDetail":{"current":500,"total":2000}}')
    assert tracker.status == tracker.layers[""].status == "Importing"


def test_absurd_numbers_are_cut_to_those_of_docker() -> None:
    tracker = track(
        b'{"id":"a","status":"Downloading","progressDetail":{"current":1%s,"total":1%s}}' % ((b"0" * 400,) * 2)
    )
    assert tracker.downloaded == tracker.total == 2**63 - 1


# The state of one layer, `current`, `total`, `fraction` and `done`, after each of its frames.
State = tuple[int | None, int | None, float | None, bool]

LAYERS: dict[str, list[tuple[ProgressFrame, State]]] = {
    "pull": [
        (frame("Pulling fs layer"), (None, None, 0.0, False)),
        (frame("Waiting"), (None, None, 0.0, False)),
        (frame("Downloading", total=1000), (0, 1000, 0.0, False)),
        (frame("Downloading", current=500, total=1000), (500, 1000, 0.375, False)),
        (frame("Downloading", current=1000, total=1000), (1000, 1000, 0.75, False)),
        (frame("Verifying Checksum"), (1000, 1000, 0.75, False)),
        (frame("Download complete"), (1000, 1000, 0.75, False)),
        (frame("Extracting", current=500, total=1000), (500, 1000, 0.875, False)),
        (frame("Extracting", current=1000, total=1000), (1000, 1000, 1.0, False)),
        (frame("Pull complete"), (1000, 1000, 1.0, True)),
    ],
    "a tiny layer": [
        (frame("Pulling fs layer"), (None, None, 0.0, False)),
        (frame("Pull complete"), (None, None, 1.0, True)),
    ],
    "never announced": [(frame("Extracting", current=1, total=4), (1, 4, 0.8125, False))],
    "already there": [(frame("Already exists"), (None, None, 1.0, True))],
    "already there, but not extracted": [
        (frame("Already exists"), (None, None, 1.0, True)),
        (frame("Extracting", current=3, units="s"), (None, None, 0.75, False)),
        (frame("Pull complete"), (None, None, 1.0, True)),
    ],
    "seconds are no bytes": [
        (frame("Download complete"), (None, None, 0.75, False)),
        (frame("Extracting", current=30, total=60, units="s"), (None, None, 0.75, False)),
    ],
    "total unknown": [
        (frame("Downloading", current=700), (700, None, None, False)),
        (frame("Downloading", current=900, total=0), (900, None, None, False)),
        (frame("Downloading", current=950, total=-1), (950, None, None, False)),
        (frame("Download complete"), (950, 950, 0.75, False)),
    ],
    "total grows": [
        (frame("Pushing", current=50, total=100), (50, 100, 0.5, False)),
        (frame("Pushing", current=50, total=200), (50, 200, 0.25, False)),
        (frame("Pushed"), (200, 200, 1.0, True)),
    ],
    "more than the total": [
        (frame("Pushing", current=300, total=100), (300, 300, 1.0, False)),
        (frame("Pushed"), (300, 300, 1.0, True)),
    ],
    "negative numbers": [
        (frame("Downloading", current=-5, total=-5), (None, None, None, False)),
        (frame("Downloading", current=-5, total=10), (0, 10, 0.0, False)),
    ],
    "fractions": [(frame("Pushing", current=2.5, total=5.0), (2, 5, 0.4, False))],
    "starts again": [
        (frame("Downloading", current=60, total=100), (60, 100, 0.45, False)),
        (frame("Retrying in 5 seconds"), (None, 100, 0.0, False)),
        (frame("Downloading", current=10, total=100), (10, 100, 0.075, False)),
    ],
    "resumes twice": [
        (frame("Downloading", current=60, total=100), (60, 100, 0.45, False)),
        (frame("Retrying in 1 second"), (None, 100, 0.0, False)),
        (frame("Downloading", current=20, total=40), (80, 100, 0.6, False)),
        (frame("Retrying in 10 seconds"), (None, 100, 0.0, False)),
        (frame("Downloading", current=20, total=20), (100, 100, 0.75, False)),
    ],
    "resumes, and sends more than the rest": [
        (frame("Downloading", current=60, total=100), (60, 100, 0.45, False)),
        (frame("Retrying in 1 second"), (None, 100, 0.0, False)),
        (frame("Downloading", current=45, total=40), (105, 105, 0.75, False)),
        (frame("Downloading", current=46, total=40), (106, 106, 0.75, False)),
    ],
    "resumes, then starts again without a total": [
        (frame("Downloading", current=60, total=100), (60, 100, 0.45, False)),
        (frame("Retrying in 1 second"), (None, 100, 0.0, False)),
        (frame("Downloading", current=20, total=40), (80, 100, 0.6, False)),
        (frame("Retrying in 10 seconds"), (None, 100, 0.0, False)),
        (frame("Downloading", current=10), (10, 100, 0.075, False)),
    ],
    "extraction disagrees with the download": [
        (frame("Downloading", current=100, total=100), (100, 100, 0.75, False)),
        (frame("Extracting", current=150, total=200), (100, 100, 0.9375, False)),
        (frame("Extracting", current=300, total=200), (100, 100, 1.0, False)),
    ],
    "a push that starts again resumes nothing": [
        (frame("Pushing", current=150, total=100), (150, 150, 1.0, False)),
        (frame("Retrying in 1 second"), (None, 150, 0.0, False)),
        (frame("Pushing", current=10, total=100), (10, 100, 0.1, False)),
    ],
    "mounted": [
        (frame("Preparing"), (None, None, 0.0, False)),
        (frame("Mounted from library/alpine"), (None, None, 1.0, True)),
    ],
    "pushed under a second tag": [
        (frame("Pushing", current=10, total=100), (10, 100, 0.1, False)),
        (frame("Pushed"), (100, 100, 1.0, True)),
        (frame("Preparing"), (100, 100, 1.0, True)),
        (frame("Layer already exists"), (100, 100, 1.0, True)),
    ],
    "loaded": [
        (frame("Loading layer", current=1, total=4), (1, 4, 0.25, False)),
        (frame("Loading layer", current=4, total=4), (4, 4, 1.0, True)),
    ],
    "an unknown word with bytes": [
        (frame("Transmogrifying", current=1, total=4), (1, 4, 0.25, False)),
        (frame("Transmogrifying", current=4, total=4), (4, 4, 1.0, True)),
    ],
    "an unknown word about a known layer": [
        (frame("Downloading", current=60, total=100), (60, 100, 0.45, False)),
        (frame("Thinking"), (60, 100, 0.45, False)),
    ],
}


@pytest.mark.parametrize("steps", LAYERS.values(), ids=LAYERS)
def test_a_layer_goes_through_its_phases(steps: list[tuple[ProgressFrame, State]]) -> None:
    tracker = ProgressTracker()
    for step, state in steps:
        tracker.update(step)
        layer = tracker.layers["a"]
        current, total, fraction, done = state
        assert (layer.id, layer.status) == ("a", step.status)
        assert (layer.current, layer.total, layer.done) == (current, total, done)
        assert layer.fraction == (None if fraction is None else pytest.approx(fraction))


@pytest.mark.parametrize(
    "step",
    [
        ProgressFrame(),
        ProgressFrame(id="a"),
        ProgressFrame(id="moby.image.id", aux={"ID": DIGEST}),
        ProgressFrame(progress_detail=ProgressDetail(), aux={"Tag": "1.0"}),
        ProgressFrame(stream="\n"),
        ProgressFrame(error="gone", error_detail=ErrorDetail(message="gone")),
        ProgressFrame(id="a", progress_detail=ProgressDetail(current=7, units="s")),
    ],
    ids=repr,
)
def test_a_frame_without_progress_changes_nothing(step: ProgressFrame) -> None:
    tracker = ProgressTracker()
    before = [frame("Pushing", current=1, total=4), ProgressFrame(status="The push refers to repository [app]")]
    for earlier in before:
        tracker.update(earlier)
    state = (dict(tracker.layers), tracker.status, tracker.fraction, tracker.downloaded, tracker.total)
    tracker.update(step)
    assert (dict(tracker.layers), tracker.status, tracker.fraction, tracker.downloaded, tracker.total) == state


# --- the whole

WHOLES: dict[str, list[tuple[ProgressFrame, float | None]]] = {
    "the mean of layers, by size": [
        (frame("Pulling fs layer", "a"), 0.0),
        (frame("Pulling fs layer", "b"), 0.0),
        (frame("Downloading", "a", current=100, total=900), 100 / 900 * 0.75 / 2),  # b weighs as much as a
        (frame("Downloading", "b", current=100, total=100), 150 / 1000),
        (frame("Pull complete", "b"), 175 / 1000),
        (frame("Pull complete", "a"), 0.999),
    ],
    "what exists weighs nothing": [
        (frame("Already exists", "a"), None),
        (frame("Pulling fs layer", "b"), 0.0),
        (frame("Downloading", "b", current=500, total=1000), 0.375),
    ],
    "a layer that turns out to exist weighs nothing any more": [
        (frame("Preparing", "a"), 0.0),
        (frame("Preparing", "b"), 0.0),
        (frame("Pushing", "a", current=50, total=100), 0.25),
        (frame("Mounted from app", "b"), 0.5),
    ],
    "a layer that moved and then exists keeps its weight": [
        (frame("Preparing", "a"), 0.0),
        (frame("Preparing", "b"), 0.0),
        (frame("Pushing", "a", current=1000, total=1000), 0.5),
        (frame("Layer already exists", "a"), 0.5),
        (frame("Pushing", "b", current=500, total=1000), 0.75),
    ],
    "a restart makes it stand, not go back": [
        (frame("Downloading", "a", current=800, total=1000), 0.6),
        (frame("Retrying in 5 seconds", "a"), 0.6),
        (frame("Downloading", "a", current=100, total=1000), 0.6),
        (frame("Downloading", "a", current=900, total=1000), 0.675),
    ],
    "a layer announced late makes it stand": [
        (frame("Downloading", "a", current=800, total=1000), 0.6),
        (frame("Pulling fs layer", "b"), 0.6),
        (frame("Pull complete", "b"), 0.8),
    ],
    "unknown sizes": [
        (frame("Pulling fs layer", "a"), 0.0),
        (frame("Downloading", "a", current=5), 0.0),
        (frame("Pulling fs layer", "b"), 0.0),
        (frame("Download complete", "b"), 0.375),
        (frame("Pull complete", "b"), 0.5),
    ],
    "a load announces no layers": [
        (frame("Loading layer", "a", current=5, total=5), None),
        (frame("Loading layer", "b", current=1, total=5), None),
    ],
    "an import": [
        (frame("Importing", "", current=5, total=10), 0.5),
        (frame("Importing", "", current=10, total=10), 0.999),
    ],
}


@pytest.mark.parametrize("steps", WHOLES.values(), ids=WHOLES)
def test_the_whole_is_known_from_its_layers(steps: list[tuple[ProgressFrame, float | None]]) -> None:
    tracker = ProgressTracker()
    for step, fraction in steps:
        tracker.update(step)
        assert tracker.fraction == (None if fraction is None else pytest.approx(fraction))


STATUSES = st.sampled_from(
    [
        "Pulling fs layer",
        "Preparing",
        "Waiting",
        "Unavailable",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
        "Pushing",
        "Pushed",
        "Already exists",
        "Layer already exists",
        "Loading layer",
        "Importing",
        "Retrying in 1 second",
        "Retrying in 15 seconds",
        "Mounted from library/alpine",
        "Pulling from library/alpine",
        "Status: Downloaded newer image for alpine:latest",
        "",
    ]
)
NUMBERS = (
    st.none() | st.integers(-10, 200) | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
)
FRAMES = st.builds(
    ProgressFrame,
    id=st.none() | st.sampled_from(["a", "b", "c", "latest", ""]),
    status=st.none() | STATUSES | st.text(max_size=5),
    progress_detail=st.none()
    | st.builds(ProgressDetail, current=NUMBERS, total=NUMBERS, units=st.sampled_from([None, "", "s"])),
    stream=st.none() | st.text(max_size=5),
)


@given(st.lists(FRAMES, max_size=60), st.booleans())
def test_overall_progress_never_goes_back_and_ends_only_with_finish(
    frames: list[ProgressFrame],
    finish: bool,
) -> None:
    tracker = ProgressTracker()
    before = 0.0
    for step in frames:
        tracker.update(step)
        if tracker.fraction is None:
            assert before == 0
        else:
            assert before <= tracker.fraction < 1
            before = tracker.fraction
    if finish:
        tracker.finish()
        assert tracker.fraction == 1
        for step in frames:
            tracker.update(step)
            assert tracker.fraction == 1


@given(st.lists(FRAMES, max_size=60))
def test_whatever_comes_the_numbers_make_sense(frames: Iterable[ProgressFrame]) -> None:
    tracker = ProgressTracker()
    for step in frames:
        tracker.update(step)
        assert 0 <= tracker.downloaded <= tracker.total
        assert len(tracker.layers) <= 5
        for layer_id, layer in tracker.layers.items():
            assert layer.id == layer_id
            assert layer.fraction is None or 0 <= layer.fraction <= 1
            assert layer.total is None or layer.total >= (layer.current or 0) >= 0
            assert not layer.done or layer.fraction == 1


class Recounted(ProgressTracker):
    """A tracker that can do its sums anew, to compare."""

    def sums(self) -> dict[str, float]:
        """Return every running sum."""
        names = ("_downloaded", "_total", "_sized", "_sized_work", "_sized_done", "_unsized", "_unsized_done")
        return {name: getattr(self, name) for name in names}

    def recounted(self) -> dict[str, float]:
        """Return the sums as a new tracker gets them from the layers as they stand."""
        anew = Recounted()
        for part in self._parts.values():
            anew._add(part, +1)
        return anew.sums()


@given(st.lists(FRAMES, max_size=60))
def test_the_running_sums_are_exactly_those_of_the_layers(frames: list[ProgressFrame]) -> None:
    """They are kept by differences, so that a frame costs the same with three layers and with three thousand."""
    tracker = Recounted()
    for step in frames:
        tracker.update(step)
    assert tracker.sums() == tracker.recounted()


# --- bars


def test_the_layers_are_a_live_view_that_nobody_can_write_to() -> None:
    tracker = ProgressTracker()
    layers = tracker.layers
    tracker.update(frame("Waiting"))
    assert layers["a"] == LayerProgress(id="a", status="Waiting", current=None, total=None, fraction=0, done=False)
    assert not hasattr(layers, "__setitem__")


def test_a_bar_per_layer_takes_five_lines_with_rich() -> None:
    tracker = ProgressTracker()
    bars = Progress(console=Console(file=io.StringIO()), auto_refresh=False)
    tasks: dict[str, TaskID] = {}
    for step in frames_of(GRAPH_DRIVER_PULL):
        tracker.update(step)
        for layer in tracker.layers.values():
            task = tasks.get(layer.id)
            if task is None:
                task = tasks[layer.id] = bars.add_task(layer.id, total=1)
            bars.update(task, completed=layer.fraction or 0, description=f"{layer.id} {layer.status}")
    assert [(task.description, task.percentage) for task in bars.tasks] == [
        ("aaaaaaaaaaaa Already exists", 100),
        ("bbbbbbbbbbbb Pull complete", 100),
        ("cccccccccccc Pull complete", 100),
    ]


def test_a_tracker_keeps_a_bounded_number_of_layers_and_counts_all_of_them() -> None:
    tracker = ProgressTracker()
    count = MAX_LAYERS + 500
    for number in range(count):
        detail = ProgressDetail(current=10, total=10)
        tracker.update(ProgressFrame(status="Downloading", id=f"layer{number}", progress_detail=detail))
    assert len(tracker.layers) == MAX_LAYERS
    assert next(iter(tracker.layers)) == "layer500"
    assert (tracker.downloaded, tracker.total) == (10 * count, 10 * count)
    tracker.finish()
    assert tracker.fraction == 1.0

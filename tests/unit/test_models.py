"""Answers of every age and shape decode, and no field is null that is not declared so."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import _platform, models
from aiodocker_images._struct import Model
from aiodocker_images.errors import InvalidPlatformError
from aiodocker_images.models import (
    Descriptor,
    EngineVersion,
    ImageInspect,
    ImageManifest,
    ImageSummary,
    Ping,
    Platform,
    RemovedImage,
    RootFS,
)

ID = "sha256:" + "1a" * 32
OTHER = "sha256:" + "2b" * 32
LAYER = "sha256:" + "3c" * 32

Document = dict[str, Any]

MODELS: dict[str, type[Model]] = {
    name: cls
    for name, cls in vars(models).items()
    if inspect.isclass(cls) and issubclass(cls, Model) and cls is not Model
}
ANSWERS = {name: cls for name, cls in MODELS.items() if cls is not Ping}  # a ping is no JSON


def _nullable_fields() -> dict[str, set[str]]:
    """Read from the source which fields are declared with None: at run time they all take it."""
    found: dict[str, set[str]] = {}
    for node in (*ast.parse(inspect.getsource(models)).body, *ast.parse(inspect.getsource(_platform)).body):
        if isinstance(node, ast.ClassDef) and node.name in MODELS:
            declared = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            found[node.name] = {
                ast.unparse(each.target)
                for each in declared
                if ast.unparse(each.annotation) in {"WireTime", "UnixTime"} or "None" in ast.unparse(each.annotation)
            }
    return found


NULLABLE = _nullable_fields()


def structs(value: object) -> Iterator[Model]:
    """Yield a struct and all that are in it."""
    if isinstance(value, Model):
        yield value
        for name in value.__struct_fields__:
            yield from structs(getattr(value, name))
    elif isinstance(value, tuple):
        for each in cast("tuple[object, ...]", value):
            yield from structs(each)


def assert_as_declared(value: object) -> None:
    for struct in structs(value):
        name = type(struct).__name__
        assert {each for each in struct.__struct_fields__ if getattr(struct, each) is None} <= NULLABLE[name], name


def test_some_fields_are_declared_nullable_and_some_not() -> None:
    """The source was really read."""
    assert NULLABLE["ImageSummary"] == {"created", "virtual_size", "descriptor"}
    assert NULLABLE["RootFS"] == set()
    assert NULLABLE["RemovedImage"] == {"untagged", "deleted"}
    assert set(NULLABLE) == set(MODELS)


@pytest.mark.parametrize("model", ANSWERS.values(), ids=ANSWERS)
def test_an_empty_answer_is_all_defaults(model: type[Model]) -> None:
    decoded = msgspec.json.decode(b"{}", type=model)
    assert decoded == model()
    assert_as_declared(decoded)


@pytest.mark.parametrize("model", ANSWERS.values(), ids=ANSWERS)
def test_null_is_the_same_as_nothing(model: type[Model]) -> None:
    nulls = {field.encode_name: None for field in msgspec.structs.fields(model)}
    assert msgspec.json.decode(json.dumps(nulls), type=model) == model()


@pytest.mark.parametrize("model", ANSWERS.values(), ids=ANSWERS)
def test_what_is_not_known_is_ignored(model: type[Model]) -> None:
    extra = b'{"NotYetInvented":{"a":[1]},"":null,"id_":5,"\\u00fc":[]}'
    assert msgspec.json.decode(extra, type=model) == model()


@pytest.mark.parametrize("model", ANSWERS.values(), ids=ANSWERS)
def test_every_model_says_what_it_is(model: type[Model]) -> None:
    assert model.__doc__


def test_defaults_are_not_shared() -> None:
    one, other = msgspec.json.decode(b'[{"Labels":null},{"Labels":null}]', type=list[ImageSummary])
    assert one.labels == {}
    assert one.labels is not other.labels


# As Docker 20.10 answers (API 1.41).
LIST_20: Document = {
    "Containers": -1,
    "Created": 1714558272,
    "Id": ID,
    "Labels": None,
    "ParentId": "",
    "RepoDigests": [f"127.0.0.1:5000/app@{OTHER}"],
    "RepoTags": ["127.0.0.1:5000/app:1", "app:latest"],
    "SharedSize": -1,
    "Size": 1234567,
    "VirtualSize": 1234567,
}
LIST_20_DANGLING: Document = LIST_20 | {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
INSPECT_20: Document = {
    "Id": ID,
    "RepoTags": ["app:latest"],
    "RepoDigests": [],
    "Parent": "",
    "Comment": "Imported from -",
    "Created": "2024-05-01T10:11:12.123456789Z",
    "Container": "",
    "ContainerConfig": {"Hostname": "", "Cmd": None, "Image": "", "Volumes": None, "Labels": None},
    "DockerVersion": "20.10.24+dfsg1",
    "Author": "",
    "Config": {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin"],
        "Cmd": ["/bin/sh"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Retries": 3},
        "ArgsEscaped": True,
        "Image": "",
        "Volumes": {"/data": {}},
        "WorkingDir": "/",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": {"stage": "test"},
        "Shell": ["/bin/sh", "-c"],
        "StopSignal": "SIGINT",
    },
    "Architecture": "arm",
    "Variant": "v7",
    "Os": "linux",
    "OsVersion": "",
    "Size": 1234567,
    "VirtualSize": 1234567,
    "GraphDriver": {"Data": {"MergedDir": "/m", "UpperDir": "/u", "WorkDir": "/w"}, "Name": "overlay2"},
    "RootFS": {"Type": "layers", "Layers": [LAYER]},
    "Metadata": {"LastTagTime": "2024-05-01T12:11:12.5+02:00"},
}
VERSION_20: Document = {
    "Platform": {"Name": ""},
    "Components": [
        {
            "Name": "Engine",
            "Version": "20.10.24+dfsg1",
            "Details": {"ApiVersion": "1.41", "Arch": "amd64", "Experimental": "false", "MinAPIVersion": "1.12"},
        },
        {"Name": "containerd", "Version": "1.6.20~ds1", "Details": {"GitCommit": "1.6.20~ds1-1"}},
    ],
    "Version": "20.10.24+dfsg1",
    "ApiVersion": "1.41",
    "MinAPIVersion": "1.12",
    "GitCommit": "5d6db84",
    "GoVersion": "go1.19.8",
    "Os": "linux",
    "Arch": "amd64",
    "KernelVersion": "6.1.0",
    "BuildTime": "2023-04-05T12:00:00.000000000+00:00",
}

# As Docker 28.5 answers with the containerd store (API 1.51), where manifests were asked for.
DESCRIPTOR: Document = {
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "digest": ID,
    "size": 856,
    "annotations": {"org.opencontainers.image.created": "2025-01-01T00:00:00Z"},
}
MANIFEST: Document = {
    "ID": OTHER,
    "Descriptor": {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": OTHER,
        "size": 405,
        "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
    },
    "Available": True,
    "Size": {"Total": 3000, "Content": 1000},
    "Kind": "image",
    "ImageData": {
        "Platform": {"architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "", "os.features": None},
        "Size": {"Unpacked": 2000},
        "Containers": ["c1"],
    },
}
ATTESTATION: Document = {
    "ID": LAYER,
    "Descriptor": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": LAYER, "size": 566},
    "Available": False,
    "Size": {"Content": 0, "Total": 0},
    "Kind": "attestation",
    "AttestationData": {"For": OTHER},
}
LIST_28: Document = {
    "Containers": 2,
    "Created": 1735689600,
    "Id": ID,
    "Labels": {"stage": "test"},
    "ParentId": "",
    "Descriptor": DESCRIPTOR,
    "Manifests": [MANIFEST, ATTESTATION],
    "RepoDigests": [f"app@{ID}"],
    "RepoTags": ["app:latest"],
    "SharedSize": 5,
    "Size": 3000,
}
INSPECT_28: Document = {
    "Id": ID,
    "RepoTags": ["app:latest"],
    "RepoDigests": [f"app@{ID}"],
    "Comment": "",
    "Created": "2025-01-01T00:00:00Z",
    "Config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
    "Architecture": "arm64",
    "Os": "linux",
    "Size": 3000,
    "GraphDriver": {"Data": None, "Name": "overlayfs"},
    "RootFS": {"Type": "layers", "Layers": [LAYER]},
    "Metadata": {"LastTagTime": "2025-01-01T00:00:00.000000001Z"},
    "Descriptor": DESCRIPTOR,
    "Manifests": [MANIFEST],
}
VERSION_28: Document = VERSION_20 | {
    "Version": "28.5.2",
    "ApiVersion": "1.51",
    "MinAPIVersion": "1.24",
    "Experimental": True,
    "Platform": {"Name": "Docker Engine - Community"},
}
PODMAN_VERSION: Document = {
    "Platform": {"Name": "linux/amd64/debian-13"},
    "Components": [{"Name": "Podman Engine", "Version": "5.8.0", "Details": {"APIVersion": "5.8.0"}}],
    "Version": "5.8.0",
    "ApiVersion": "1.44",
    "MinAPIVersion": "1.24",
    "Experimental": False,
}
PODMAN_LIST: Document = {
    "Id": ID,
    "ParentId": "",
    "RepoTags": None,
    "RepoDigests": [],
    "Created": 1735689600,
    "Size": 3000,
    "SharedSize": 0,
    "VirtualSize": 3000,
    "Labels": None,
    "Containers": 0,
    "Dangling": True,
    "Names": ["localhost/app:1"],
    "History": [],
}

SAMPLES: dict[str, tuple[type[Model], Document]] = {
    "list, Docker 20": (ImageSummary, LIST_20),
    "list, Docker 20, dangling": (ImageSummary, LIST_20_DANGLING),
    "list, Docker 28": (ImageSummary, LIST_28),
    "list, Podman": (ImageSummary, PODMAN_LIST),
    "inspect, Docker 20": (ImageInspect, INSPECT_20),
    "inspect, Docker 28": (ImageInspect, INSPECT_28),
    "version, Docker 20": (EngineVersion, VERSION_20),
    "version, Docker 28": (EngineVersion, VERSION_28),
    "version, Podman": (EngineVersion, PODMAN_VERSION),
    "manifest": (ImageManifest, MANIFEST),
    "attestation": (ImageManifest, ATTESTATION),
    "descriptor": (Descriptor, DESCRIPTOR),
}


def read(model: type[Model], document: object) -> Any:  # noqa: ANN401 - whatever the model is
    # As `ImageService.list` does, for the seconds in which a list tells times.
    return msgspec.json.decode(json.dumps(document), type=model, strict=model is not ImageSummary)


def test_an_old_list_is_read() -> None:
    image = read(ImageSummary, LIST_20)
    assert image == ImageSummary(
        id=ID,
        repo_tags=("127.0.0.1:5000/app:1", "app:latest"),
        repo_digests=(f"127.0.0.1:5000/app@{OTHER}",),
        created=datetime(2024, 5, 1, 10, 11, 12, tzinfo=UTC),
        size=1234567,
        virtual_size=1234567,
    )
    assert (image.shared_size, image.containers, image.manifests, image.descriptor) == (-1, -1, (), None)


def test_a_new_list_is_read() -> None:
    image = read(ImageSummary, LIST_28)
    assert (image.shared_size, image.containers, image.virtual_size, image.labels) == (5, 2, None, {"stage": "test"})
    assert image.descriptor.size == 856
    assert image.descriptor.annotations == {"org.opencontainers.image.created": "2025-01-01T00:00:00Z"}
    one, attestation = image.manifests
    assert (one.id, one.available, one.kind, one.size.total, one.size.content) == (OTHER, True, "image", 3000, 1000)
    assert str(one.image_data.platform) == str(one.descriptor.platform) == "linux/arm64/v8"
    assert (one.image_data.containers, one.image_data.size.unpacked) == (("c1",), 2000)
    assert attestation.attestation_data.for_ == OTHER
    assert attestation.image_data is None


def test_an_old_inspection_is_read() -> None:
    image = read(ImageInspect, INSPECT_20)
    assert (image.os, image.architecture, image.variant, image.docker_version) == (
        "linux",
        "arm",
        "v7",
        "20.10.24+dfsg1",
    )
    assert image.created == datetime(2024, 5, 1, 10, 11, 12, 123457, tzinfo=UTC)
    assert image.metadata.last_tag_time == datetime(2024, 5, 1, 10, 11, 12, 500000, tzinfo=UTC)
    assert image.root_fs == RootFS(type="layers", layers=(LAYER,))
    assert (image.graph_driver.name, image.graph_driver.data["UpperDir"]) == ("overlay2", "/u")
    config = image.config
    assert (config.cmd, config.entrypoint, config.env, config.shell) == (
        ("/bin/sh",),
        (),
        ("PATH=/bin",),
        ("/bin/sh", "-c"),
    )
    assert (config.exposed_ports, config.volumes, config.labels) == ({"80/tcp": {}}, {"/data": {}}, {"stage": "test"})
    assert (config.healthcheck.test, config.healthcheck.interval, config.healthcheck.timeout) == (
        ("CMD", "true"),
        10**9,
        None,
    )
    assert (config.args_escaped, config.stop_signal, config.on_build) == (True, "SIGINT", ())


def test_a_new_inspection_is_read() -> None:
    image = read(ImageInspect, INSPECT_28)
    assert (image.parent, image.docker_version, image.virtual_size) == ("", "", None)
    assert (image.graph_driver.name, image.graph_driver.data) == ("overlayfs", {})
    assert image.descriptor.digest == ID
    assert [manifest.id for manifest in image.manifests] == [OTHER]
    assert (image.config.user, image.config.labels, image.config.healthcheck) == ("", {}, None)


VERSIONS = [
    (VERSION_20, ("20.10.24+dfsg1", "1.41", "1.12", False, "", ["Engine", "containerd"])),
    (VERSION_28, ("28.5.2", "1.51", "1.24", True, "Docker Engine - Community", ["Engine", "containerd"])),
    (PODMAN_VERSION, ("5.8.0", "1.44", "1.24", False, "linux/amd64/debian-13", ["Podman Engine"])),
]


@pytest.mark.parametrize(("document", "parts"), VERSIONS, ids=["Docker 20", "Docker 28", "Podman"])
def test_a_version_is_read(document: Document, parts: tuple[object, ...]) -> None:
    version = read(EngineVersion, document)
    names = [component.name for component in version.components]
    assert (
        version.version,
        version.api_version,
        version.min_api_version,
        version.experimental,
        version.platform.name,
        names,
    ) == parts


REMOVALS = [
    ({"Untagged": "app:1"}, RemovedImage(untagged="app:1")),
    ({"Deleted": ID}, RemovedImage(deleted=ID)),
    ({"Untagged": None, "Deleted": ID}, RemovedImage(deleted=ID)),
]


@pytest.mark.parametrize(("document", "removed"), REMOVALS, ids=str)
def test_a_removal_is_read(document: Document, removed: RemovedImage) -> None:
    assert read(RemovedImage, document) == removed


# What is in these is no field of a model.
MAPS = {"annotations", "Labels", "Data", "Details", "ExposedPorts", "Volumes"}


def _with_nulls(document: object, draw: Callable[[st.SearchStrategy[str]], str]) -> object:
    """Null or leave out any of the fields, at any depth."""
    if isinstance(document, list):
        return [_with_nulls(each, draw) for each in cast("list[object]", document)]
    if not isinstance(document, dict):
        return document
    kept: Document = {}
    for name, value in cast("Document", document).items():
        match draw(st.sampled_from(["kept", "null", "left out"])):
            case "null":
                kept[name] = None
            case "kept":
                kept[name] = value if name in MAPS else _with_nulls(value, draw)
            case _:
                pass
    return kept


@given(st.data(), st.sampled_from(list(SAMPLES)))
def test_an_answer_with_any_of_its_fields_null_or_left_out_is_read(data: st.DataObject, name: str) -> None:
    model, document = SAMPLES[name]
    assert_as_declared(read(model, _with_nulls(document, data.draw)))


@pytest.mark.parametrize(("model", "document"), SAMPLES.values(), ids=SAMPLES)
def test_a_model_is_a_frozen_value_that_survives_copies(model: type[Model], document: Document) -> None:
    decoded = read(model, document)
    assert_as_declared(decoded)
    assert copy.deepcopy(decoded) == decoded
    assert pickle.loads(pickle.dumps(decoded)) == decoded
    assert decoded == read(model, document | {"NotYetInvented": 1})
    with pytest.raises(AttributeError):
        setattr(decoded, decoded.__struct_fields__[0], None)


@pytest.mark.parametrize(("model", "document"), SAMPLES.values(), ids=SAMPLES)
def test_a_model_survives_its_own_json(model: type[Model], document: Document) -> None:
    decoded = read(model, document)
    assert msgspec.json.decode(msgspec.json.encode(decoded), type=model) == decoded


MOMENT = datetime(2024, 5, 1, 10, 11, 12, tzinfo=UTC)

TIMES: list[tuple[object, datetime | None]] = [
    ("2024-05-01T10:11:12Z", MOMENT),
    ("2024-05-01T10:11:12.5Z", MOMENT.replace(microsecond=500000)),
    ("2024-05-01T10:11:12.123456789Z", MOMENT.replace(microsecond=123457)),
    ("2024-05-01T10:11:12.000000001Z", MOMENT),
    ("2024-05-01T12:11:12+02:00", MOMENT),
    ("2024-05-01T02:41:12.25-07:30", MOMENT.replace(microsecond=250000)),
    ("2024-05-01T10:11:12", MOMENT),
    (1714558272, MOMENT),
    (1714558272.5, MOMENT.replace(microsecond=500000)),
    ("1714558272", MOMENT),
    ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
    (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    (0, datetime(1970, 1, 1, tzinfo=UTC)),  # as Jib, Bazel and distroless date their images
    ("9999-12-31T22:59:59-01:00", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ("", None),
    (None, None),
    ("0001-01-01T00:00:00Z", None),
    ("0001-01-01T00:00:00+01:00", None),
    ("0001-01-01T00:00:00-08:00", None),
    (-62135596800, None),  # Go's zero time, as a list shows an image without a time
]


@pytest.mark.parametrize(("sent", "moment"), TIMES, ids=repr)
def test_a_time_is_read_in_each_of_its_forms(sent: object, moment: datetime | None) -> None:
    assert read(ImageInspect, {"Created": sent}).created == moment


@pytest.mark.parametrize(
    ("sent", "moment"),
    [
        (1714558272, MOMENT),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (253402300799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (None, None),
        (-62135596800, None),
        ("9999-12-31T22:59:59-01:00", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2024-05-01T10:11:12Z", MOMENT),  # as these models are written themselves
    ],
    ids=repr,
)
def test_a_list_tells_times_in_seconds(sent: object, moment: datetime | None) -> None:
    created = read(ImageSummary, {"Created": sent}).created
    assert created == moment
    assert (created and created.tzinfo) == (moment and UTC)


@pytest.mark.parametrize("sent", ["", "yesterday", "2024-05-01T10:11:12", 1e300, 10**30, True], ids=repr)
def test_what_is_no_time_of_a_list_is_a_decoding_error(sent: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(ImageSummary, {"Created": sent})


def test_a_time_is_in_utc() -> None:
    for sent, moment in TIMES:
        created = read(ImageInspect, {"Created": sent}).created
        assert (created and created.tzinfo) == (moment and UTC)


@pytest.mark.parametrize("sent", ["yesterday", "2024-13-01T00:00:00Z", 1e300, 10**30, True], ids=repr)
def test_what_is_no_time_is_a_decoding_error(sent: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(ImageInspect, {"Created": sent})


@given(st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis adds the zone
def test_any_time_is_read_back(moment: datetime) -> None:
    assert read(ImageInspect, {"Created": moment.isoformat()}).created == moment
    elsewhere = moment.astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    assert read(ImageInspect, {"Created": elsewhere.isoformat()}).created == moment


def test_a_time_given_to_the_constructor_is_kept() -> None:
    assert ImageSummary(created=MOMENT).created is MOMENT


HERE = Platform.parse("linux").architecture  # of this machine


def on_linux(architecture: str, variant: str = "", version: str = "", features: tuple[str, ...] = ()) -> Platform:
    return Platform(os="linux", architecture=architecture, variant=variant, os_version=version, os_features=features)


def on_windows(architecture: str, version: str = "", features: tuple[str, ...] = ()) -> Platform:
    return Platform(os="windows", architecture=architecture, os_version=version, os_features=features)


PLATFORMS: list[tuple[str, Platform, str]] = [
    ("linux/amd64", on_linux("amd64"), "linux/amd64"),
    ("linux/arm64", on_linux("arm64"), "linux/arm64"),
    ("linux/arm64/v8", on_linux("arm64", "v8"), "linux/arm64/v8"),
    ("linux/arm64/8", on_linux("arm64", "v8"), "linux/arm64/v8"),
    ("linux/arm64/v9.0", on_linux("arm64", "v9"), "linux/arm64/v9"),
    ("linux/aarch64", on_linux("arm64"), "linux/arm64"),
    ("linux/arm", on_linux("arm"), "linux/arm"),
    ("linux/arm/v7", on_linux("arm", "v7"), "linux/arm/v7"),
    ("linux/arm/7", on_linux("arm", "v7"), "linux/arm/v7"),
    ("linux/arm/v6", on_linux("arm", "v6"), "linux/arm/v6"),
    ("linux/armhf", on_linux("arm"), "linux/arm"),
    ("linux/armel", on_linux("arm", "v6"), "linux/arm/v6"),
    ("linux/amd64/v1", on_linux("amd64"), "linux/amd64"),
    ("linux/amd64/v3", on_linux("amd64", "v3"), "linux/amd64/v3"),
    ("linux/i386", on_linux("386"), "linux/386"),
    ("linux/s390x", on_linux("s390x"), "linux/s390x"),
    ("linux/x86_64", on_linux("amd64"), "linux/amd64"),
    ("Linux/AMD64", on_linux("amd64"), "linux/amd64"),
    ("Linux/x86-64", on_linux("amd64"), "linux/amd64"),
    ("macOS/arm64", Platform(os="darwin", architecture="arm64"), "darwin/arm64"),
    ("windows/amd64", on_windows("amd64"), "windows/amd64"),
    ("unknown/unknown", Platform(os="unknown", architecture="unknown"), "unknown/unknown"),
    ("wasi/wasm", Platform(os="wasi", architecture="wasm"), "wasi/wasm"),
    # An architecture alone is on Linux, and a system alone on this machine's architecture.
    ("arm", on_linux("arm"), "linux/arm"),
    ("armel", on_linux("arm", "v6"), "linux/arm/v6"),
    ("armhf", on_linux("arm"), "linux/arm"),
    ("arm64", on_linux("arm64"), "linux/arm64"),
    ("Aarch64", on_linux("arm64"), "linux/arm64"),
    ("amd64", on_linux("amd64"), "linux/amd64"),
    ("x86_64", on_linux("amd64"), "linux/amd64"),
    ("i386", on_linux("386"), "linux/386"),
    ("s390x", on_linux("s390x"), "linux/s390x"),
    ("linux", on_linux(HERE), f"linux/{HERE}"),
    ("macOS", Platform(os="darwin", architecture=HERE), f"darwin/{HERE}"),
    ("windows", on_windows(HERE), f"windows/{HERE}"),
    ("windows()", on_windows(HERE), f"windows/{HERE}"),
    ("windows(10.0.17763)", on_windows(HERE, "10.0.17763"), f"windows(10.0.17763)/{HERE}"),
    # A system may have a version, and features.
    ("windows(10.0.17763)/amd64", on_windows("amd64", "10.0.17763"), "windows(10.0.17763)/amd64"),
    (
        "windows(10.0.17763+win32k)/amd64",
        on_windows("amd64", "10.0.17763", ("win32k",)),
        "windows(10.0.17763+win32k)/amd64",
    ),
    ("linux(+gpu)/amd64", on_linux("amd64", features=("gpu",)), "linux(+gpu)/amd64"),
    ("linux(+simd+gpu)/amd64", on_linux("amd64", features=("simd", "gpu")), "linux(+gpu+simd)/amd64"),
    (
        "windows(10.0.17763%2Bbuild.42)/amd64",
        on_windows("amd64", "10.0.17763+build.42"),
        "windows(10.0.17763%2Bbuild.42)/amd64",
    ),
    ("windows(50%25done)/amd64", on_windows("amd64", "50%done"), "windows(50%25done)/amd64"),
    ("windows(1.0%28beta%29)/amd64", on_windows("amd64", "1.0(beta)"), "windows(1.0%28beta%29)/amd64"),
    ("windows(a%2Fb)/amd64", on_windows("amd64", "a/b"), "windows(a%2Fb)/amd64"),
    ("linux(+feat%2Bv2)/amd64", on_linux("amd64", features=("feat+v2",)), "linux(+feat%2Bv2)/amd64"),
]


@pytest.mark.parametrize(("text", "platform", "shown"), PLATFORMS, ids=[row[0] for row in PLATFORMS])
def test_a_platform_is_read_and_shown(text: str, platform: Platform, shown: str) -> None:
    assert Platform.parse(text) == platform
    assert str(platform) == shown
    assert str(Platform.parse(shown)) == shown
    assert Platform.parse(platform) is platform


NO_PLATFORMS = [
    "",
    "linux/",
    "/amd64",
    "linux//v8",
    "linux/arm64/v8/x",
    "linux/amd64/",
    "a b",
    "intel",
    "linux/a/b/c/d",
]
NO_PLATFORMS_EITHER = [
    *("*", "linux/*", "*/arm64", "linux/&", "linux/arm64/*", "a.b/amd64", "arm64()", "amd64(1)", "linux((1))/amd64"),
    *("linux(1/amd64", "linux1)/amd64", "linux(+)/amd64", "linux(1+)/amd64", "linux(%)/amd64", "linux(%2)/amd64"),
    *("linux(%zz)/amd64", "linux(1)x/amd64", "linux/amd64(1)", "linux(a b)/amd64"),
    " linux/amd64",
    "linux/amd64\n",
    "linux\\amd64",
    "linux/amd64?x=1",
    "a/\u0661",
    "a/b\0",
    "x" * 999,
]


@pytest.mark.parametrize("text", [*NO_PLATFORMS, *NO_PLATFORMS_EITHER], ids=ascii)
def test_nothing_else_is_a_platform(text: str) -> None:
    with pytest.raises(InvalidPlatformError, match="is not a platform such as linux/amd64 or linux/arm64/v8") as caught:
        Platform.parse(text)
    assert len(str(caught.value)) < 200


PART = st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True)
OPTION = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(
    st.builds(
        Platform,
        os=PART,
        architecture=PART,
        variant=PART | st.just(""),
        os_version=OPTION | st.just(""),
        os_features=st.lists(OPTION, max_size=3).map(tuple),
    )
)
def test_a_platform_survives_its_text(platform: Platform) -> None:
    read_back = Platform.parse(str(platform))
    assert (read_back.os_version, sorted(read_back.os_features)) == (platform.os_version, sorted(platform.os_features))
    assert Platform.parse(str(read_back)) == read_back


ENCODED: list[tuple[Platform, Mapping[str, object]]] = [
    (Platform(), {}),
    (Platform(os="linux", architecture="amd64"), {"os": "linux", "architecture": "amd64"}),
    (
        Platform(os="windows", architecture="amd64", variant="x", os_version="10.0.17763", os_features=("win32k",)),
        {
            "os": "windows",
            "architecture": "amd64",
            "variant": "x",
            "os.version": "10.0.17763",
            "os.features": ["win32k"],
        },
    ),
]


@pytest.mark.parametrize(("platform", "document"), ENCODED, ids=["empty", "plain", "full"])
def test_the_json_of_a_platform_is_that_of_oci(platform: Platform, document: Mapping[str, object]) -> None:
    assert json.loads(msgspec.json.encode(platform)) == document
    assert read(Platform, document) == platform


@pytest.mark.parametrize(
    ("asked", "came", "accepted"),
    [
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64", True),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763.1234)/amd64", True),
        ("windows(10.0.17763)/amd64", "windows/amd64", True),
        ("windows/amd64", "windows(10.0.20348.1)/amd64", True),
        ("windows(10.0.17763)/amd64", "windows(10.0.20348.1)/amd64", False),
        ("windows(10.0.177)/amd64", "windows(10.0.17763.1234)/amd64", False),
        ("windows(10.0.17763)/amd64", "linux/amd64", False),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/arm/v6", "linux/arm/v7", False),
    ],
)
def test_a_platform_accepts_images_for_its_own_and_earlier_variants(asked: str, came: str, accepted: bool) -> None:
    assert Platform.parse(asked).accepts(Platform.parse(came)) is accepted

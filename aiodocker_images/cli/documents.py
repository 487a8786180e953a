"""The documents that templates are filled in from, with the names and types that they have in the docker CLI (28.5).

Types matter: a field that an Engine leaves out is the empty value of its type, and `{{.RepoTags}}` without tags is
`[]`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, cast

from .gotemplate.values import Duration, Int64, List, Map, Moment, NilPointer, Struct, Value, truth, untyped

__all__ = ["row", "typed_event", "typed_image", "typed_version"]

Decoder: TypeAlias = Callable[[object], Value]
"""Turns a decoded JSON value into one of Go's; None is the empty value of the type. What is odd stays untyped."""


@dataclass(frozen=True)
class Field:
    """A field of a struct: its name in Go and in JSON, and whether JSON leaves it out if it is empty.

    `embedded`: its own fields are also those of the struct around it.
    """

    name: str
    decode: Decoder
    json: str = ""
    omitted: bool = False
    embedded: bool = False


def _text(value: object) -> Value:
    return "" if value is None else untyped(value)


def _integer(value: object) -> Value:
    if value is None:
        return Int64(0)
    return Int64(value) if type(value) is int else untyped(value)


def _duration(value: object) -> Value:
    if value is None:
        return Duration(0)
    return Duration(value) if type(value) is int else untyped(value)


def _flag(value: object) -> Value:
    return False if value is None else untyped(value)


def _moment(value: object) -> Value:
    return Moment(value or "0001-01-01T00:00:00Z") if value is None or isinstance(value, str) else untyped(value)


def _listed(type_name: str, of: Decoder) -> Decoder:
    def decode(value: object) -> Value:
        if value is None:
            return List((), f"[]{type_name}", nil=True)
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            return untyped(value)
        return List(map(of, cast("Sequence[object]", value)), f"[]{type_name}")

    return decode


def _mapped(type_name: str, of: Decoder) -> Decoder:
    def decode(value: object) -> Value:
        name = f"map[string]{type_name}"
        if value is None:
            return Map({}, name, zero=of(None), nil=True)
        if not isinstance(value, Mapping):
            return untyped(value)
        items = cast("Mapping[str, object]", value)
        return Map({key: of(each) for key, each in items.items()}, name, zero=of(None))

    return decode


def _struct(type_name: str, *fields: Field, pointer: bool = False) -> Decoder:
    def decode(value: object) -> Value:
        if value is None and pointer:
            return NilPointer(f"*{type_name}")
        if value is not None and not isinstance(value, Mapping):
            return untyped(value)
        return _decoded(type_name, fields, cast("Mapping[str, object]", value or {}))

    return decode


def _decoded(type_name: str, fields: tuple[Field, ...], document: Mapping[str, object]) -> Struct:
    # Go takes names in any case, and prefers one that is written as it should be.
    in_any_case = {name.lower(): value for name, value in document.items()}
    parts: dict[str, Value] = {}
    members: dict[str, Value] = {}
    for field in fields:
        name = field.json or field.name
        part = field.decode(document if field.embedded else document.get(name, in_any_case.get(name.lower())))
        parts[field.name] = members[field.name] = part
        if field.embedded and isinstance(part, Struct):
            members |= part.members
    return Struct(type_name, members, partial(_as_json, fields, parts), parts=parts)


def _as_json(fields: tuple[Field, ...], parts: Mapping[str, Value]) -> dict[str, Value]:
    document: dict[str, Value] = {}
    for field in fields:
        part = parts[field.name]
        if field.embedded and isinstance(part, Struct):
            document |= part.json()
        elif not field.omitted or truth(part):
            document[field.json or field.name] = part
    return document


_texts: Final = _listed("string", _text)
_text_map: Final = _mapped("string", _text)
_names: Final = _mapped("struct {}", _struct("struct {}"))

_platform: Final = (
    Field("Architecture", _text, "architecture"),
    Field("OS", _text, "os"),
    Field("OSVersion", _text, "os.version", omitted=True),
    Field("OSFeatures", _texts, "os.features", omitted=True),
    Field("Variant", _text, "variant", omitted=True),
)
_descriptor: Final = (
    Field("MediaType", _text, "mediaType"),
    Field("Digest", _text, "digest"),
    Field("Size", _integer, "size"),
    Field("URLs", _texts, "urls", omitted=True),
    Field("Annotations", _text_map, "annotations", omitted=True),
    Field("Data", _text, "data", omitted=True),
    Field("Platform", _struct("v1.Platform", *_platform, pointer=True), "platform", omitted=True),
    Field("ArtifactType", _text, "artifactType", omitted=True),
)
_health: Final = _struct(
    "v1.HealthcheckConfig",
    Field("Test", _texts, omitted=True),
    Field("Interval", _duration, omitted=True),
    Field("Timeout", _duration, omitted=True),
    Field("StartPeriod", _duration, omitted=True),
    Field("StartInterval", _duration, omitted=True),
    Field("Retries", _integer, omitted=True),
    pointer=True,
)
_config: Final = _struct(
    "v1.DockerOCIImageConfig",
    Field(
        "ImageConfig",
        _struct(
            "v1.ImageConfig",
            Field("User", _text, omitted=True),
            Field("ExposedPorts", _names, omitted=True),
            Field("Env", _texts, omitted=True),
            Field("Entrypoint", _texts, omitted=True),
            Field("Cmd", _texts, omitted=True),
            Field("Volumes", _names, omitted=True),
            Field("WorkingDir", _text, omitted=True),
            Field("Labels", _text_map, omitted=True),
            Field("StopSignal", _text, omitted=True),
            Field("ArgsEscaped", _flag, omitted=True),
        ),
        embedded=True,
    ),
    Field(
        "DockerOCIImageConfigExt",
        _struct(
            "v1.DockerOCIImageConfigExt",
            Field("Healthcheck", _health, omitted=True),
            Field("OnBuild", _texts, omitted=True),
            Field("Shell", _texts, omitted=True),
        ),
        embedded=True,
    ),
    pointer=True,
)
_manifest: Final = _struct(
    "image.ManifestSummary",
    Field("ID", _text),
    Field("Descriptor", _struct("v1.Descriptor", *_descriptor)),
    Field("Available", _flag),
    Field("Size", _struct("struct", Field("Content", _integer), Field("Total", _integer))),
    Field("Kind", _text),
    Field(
        "ImageData",
        _struct(
            "image.ImageProperties",
            Field("Platform", _struct("v1.Platform", *_platform)),
            Field("Size", _struct("struct", Field("Unpacked", _integer))),
            Field("Containers", _texts),
            pointer=True,
        ),
        omitted=True,
    ),
    Field("AttestationData", _struct("image.AttestationProperties", Field("For", _text), pointer=True), omitted=True),
)

typed_image: Final = _struct(
    "image.InspectResponse",
    Field("ID", _text, "Id"),
    Field("RepoTags", _texts),
    Field("RepoDigests", _texts),
    Field("Parent", _text),
    Field("Comment", _text),
    Field("Created", _text, omitted=True),
    Field("Container", _text, omitted=True),
    Field("ContainerConfig", _struct("container.Config", pointer=True), omitted=True),
    Field("DockerVersion", _text),
    Field("Author", _text),
    Field("Config", _config),
    Field("Architecture", _text),
    Field("Variant", _text, omitted=True),
    Field("Os", _text),
    Field("OsVersion", _text, omitted=True),
    Field("Size", _integer),
    Field("VirtualSize", _integer, omitted=True),
    Field("GraphDriver", _struct("storage.DriverData", Field("Data", _text_map), Field("Name", _text))),
    Field("RootFS", _struct("image.RootFS", Field("Type", _text, omitted=True), Field("Layers", _texts, omitted=True))),
    Field("Metadata", _struct("image.Metadata", Field("LastTagTime", _moment, omitted=True))),
    Field("Descriptor", _struct("v1.Descriptor", *_descriptor, pointer=True), omitted=True),
    Field("Manifests", _listed("image.ManifestSummary", _manifest), omitted=True),
)
"""GET /images/{name}/json."""

typed_event: Final = _struct(
    "*events.Message",
    Field("Status", _text, "status", omitted=True),
    Field("ID", _text, "id", omitted=True),
    Field("From", _text, "from", omitted=True),
    Field("Type", _text),
    Field("Action", _text),
    Field("Actor", _struct("events.Actor", Field("ID", _text), Field("Attributes", _text_map))),
    Field("Scope", _text, "scope", omitted=True),
    Field("Time", _integer, "time", omitted=True),
    Field("TimeNano", _integer, "timeNano", omitted=True),
)
"""A line of GET /events. `Status`, `ID` and `From` are older names, which Engines no longer send from API 1.52 on."""

_component: Final = _struct(
    "types.ComponentVersion",
    Field("Name", _text),
    Field("Version", _text),
    Field("Details", _text_map, omitted=True),
)
_server: Final = _struct(
    "types.Version",
    Field("Platform", _struct("struct { Name string }", Field("Name", _text)), omitted=True),
    Field("Components", _listed("types.ComponentVersion", _component), omitted=True),
    Field("Version", _text),
    Field("APIVersion", _text, "ApiVersion"),
    Field("MinAPIVersion", _text, omitted=True),
    Field("GitCommit", _text),
    Field("GoVersion", _text),
    Field("Os", _text),
    Field("Arch", _text),
    Field("KernelVersion", _text, omitted=True),
    Field("Experimental", _flag, omitted=True),
    Field("BuildTime", _text, omitted=True),
    pointer=True,
)
typed_version: Final = _struct(
    "system.versionInfo",
    Field(
        "Client",
        _struct(
            "system.clientVersion",
            Field(
                "Platform",
                _struct("system.platformInfo", Field("Name", _text, omitted=True), pointer=True),
                omitted=True,
            ),
            Field("Version", _text, omitted=True),
            Field("APIVersion", _text, "ApiVersion", omitted=True),
            Field("DefaultAPIVersion", _text, omitted=True),
            Field("GitCommit", _text, omitted=True),
            Field("GoVersion", _text, omitted=True),
            Field("Os", _text, omitted=True),
            Field("Arch", _text, omitted=True),
            Field("BuildTime", _text, omitted=True),
            Field("Context", _text),
        ),
    ),
    Field("Server", _server),
)
"""What `version` knows: of this program, in the place of the docker CLI's own, and GET /version."""


def row(type_name: str, members: Mapping[str, Value], as_json: Mapping[str, Value] | None = None) -> Struct:
    """Return a line of a listing as templates see it; JSON has the members in alphabetical order, or others."""
    shown = members if as_json is None else as_json
    return Struct(type_name, members, lambda: {name: shown[name] for name in sorted(shown)}, html_safe=True)

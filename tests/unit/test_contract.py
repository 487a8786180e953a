"""The contract with the Engine API: each image endpoint, parameter and field, and the first version that has it.

The tables are facts of the published API, versions 1.41 to 1.56. They were checked against it by a program that
lists every parameter of the image endpoints, and every field of their answers, in the description of v1.56, and
against its version history for what came when; a parameter or field that the description names and a table does
not would have shown as a difference. None did. Beyond the description, the tables have two parameters of a build that
daemons take (cpusetmems, ulimits), and the credentials of a search and a distribution inspection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from aiodocker_images import ImageService, RegistryAuth, Ulimit, UnsupportedAPIVersionError, api_version, models
from aiodocker_images._struct import Model
from tests.support.scripted import ScriptedDaemon

NOFILE = Ulimit(name="nofile", soft=1, hard=1)
AUTH = RegistryAuth(username="u", password="p")
ARM = "linux/arm64"
BOTH = ["linux/arm64", "linux/amd64"]

Send = Callable[[ImageService], Awaitable[object]]


async def drained(stream: AsyncGenerator[object, None]) -> None:
    async for _ in stream:
        pass


# Endpoint, parameter ("header:" before a header), first version, a call that sends it.
PARAMETERS: list[tuple[str, str, str, Send]] = [
    ("GET /images/json", "all", "1.41", lambda images: images.list(all=True)),
    ("GET /images/json", "filters", "1.41", lambda images: images.list("alpine")),
    ("GET /images/json", "shared-size", "1.42", lambda images: images.list(shared_size=True)),
    ("GET /images/json", "manifests", "1.47", lambda images: images.list(manifests=True)),
    ("GET /images/json", "identity", "1.54", lambda images: images.list(identity=True)),
    ("POST /images/create", "fromImage", "1.41", lambda images: images.pull("x")),
    ("POST /images/create", "tag", "1.41", lambda images: images.pull("x:b")),
    ("POST /images/create", "platform", "1.41", lambda images: images.pull("x", platform=ARM)),
    ("POST /images/create", "header:x-registry-auth", "1.41", lambda images: images.pull("x", auth=AUTH)),
    ("POST /images/create", "fromSrc", "1.41", lambda images: images.import_image(b"")),
    ("POST /images/create", "repo", "1.41", lambda images: images.import_image(b"", reference="a")),
    ("POST /images/create", "message", "1.41", lambda images: images.import_image(b"", message="m")),
    ("POST /images/create", "changes", "1.41", lambda images: images.import_image(b"", changes=["CMD x"])),
    # Known before, but only the operating system in it was looked at.
    ("POST /images/create", "platform", "1.42", lambda images: images.import_image(b"", platform=ARM)),
    ("GET /images/x:latest/json", "manifests", "1.48", lambda images: images.inspect("x", manifests=True)),
    ("GET /images/x:latest/json", "platform", "1.49", lambda images: images.inspect("x", platform=ARM)),
    ("GET /images/x:latest/history", "platform", "1.48", lambda images: images.history("x", platform=ARM)),
    ("GET /images/x:latest/attestations", "platform", "1.55", lambda images: images.attestations("x", platform=ARM)),
    ("GET /images/x:latest/attestations", "type", "1.55", lambda images: images.attestations("x", types=["t"])),
    ("GET /images/x:latest/attestations", "statement", "1.55", lambda images: images.attestations("x", statement=True)),
    ("POST /images/x/push", "tag", "1.41", lambda images: images.push("x")),
    ("POST /images/x/push", "header:x-registry-auth", "1.41", lambda images: images.push("x")),
    ("POST /images/x/push", "platform", "1.46", lambda images: images.push("x", platform=ARM)),
    ("POST /images/x:latest/tag", "repo", "1.41", lambda images: images.tag("x", "b")),
    ("POST /images/x:latest/tag", "tag", "1.41", lambda images: images.tag("x", "b")),
    ("DELETE /images/x:latest", "force", "1.41", lambda images: images.remove("x", force=True)),
    ("DELETE /images/x:latest", "noprune", "1.41", lambda images: images.remove("x", no_prune=True)),
    ("DELETE /images/x:latest", "platforms", "1.50", lambda images: images.remove("x", platforms=[ARM])),
    ("GET /images/search", "term", "1.41", lambda images: images.search("x")),
    ("GET /images/search", "limit", "1.41", lambda images: images.search("x", limit=1)),
    ("GET /images/search", "filters", "1.41", lambda images: images.search("x", filters={"stars": 1})),
    ("GET /images/search", "header:x-registry-auth", "1.41", lambda images: images.search("x", auth=AUTH)),
    ("POST /images/prune", "filters", "1.41", lambda images: images.prune()),
    ("GET /images/x:latest/get", "platform", "1.48", lambda images: images.save("x", to="/dev/null", platforms=[ARM])),
    ("GET /images/get", "names", "1.41", lambda images: images.save("x", "b", to="/dev/null")),
    ("GET /images/get", "platform", "1.52", lambda images: images.save("x", "b", to="/dev/null", platforms=BOTH)),
    ("POST /images/load", "quiet", "1.41", lambda images: images.load(b"")),
    ("POST /images/load", "platform", "1.48", lambda images: images.load(b"", platforms=[ARM])),
    ("POST /images/load", "platform", "1.52", lambda images: images.load(b"", platforms=BOTH)),
    (
        "GET /distribution/docker.io/library/x:latest/json",
        "header:x-registry-auth",
        "1.41",
        lambda images: images.inspect_distribution("x", auth=AUTH),
    ),
    ("POST /build", "dockerfile", "1.41", lambda images: images.build(b"", dockerfile="D")),
    ("POST /build", "t", "1.41", lambda images: images.build(b"", tags="x")),
    ("POST /build", "extrahosts", "1.41", lambda images: images.build(b"", extra_hosts={"h": "127.0.0.1"})),
    ("POST /build", "remote", "1.41", lambda images: images.build("https://127.0.0.1/context.tar")),
    ("POST /build", "q", "1.41", lambda images: images.build(b"", quiet=True)),
    ("POST /build", "nocache", "1.41", lambda images: images.build(b"", no_cache=True)),
    ("POST /build", "cachefrom", "1.41", lambda images: images.build(b"", cache_from=["x"])),
    ("POST /build", "pull", "1.41", lambda images: images.build(b"", pull=True)),
    ("POST /build", "rm", "1.41", lambda images: images.build(b"", remove_intermediate=False)),
    ("POST /build", "forcerm", "1.41", lambda images: images.build(b"", force_remove=True)),
    ("POST /build", "memory", "1.41", lambda images: images.build(b"", memory=1 << 30)),
    ("POST /build", "memswap", "1.41", lambda images: images.build(b"", memory=1 << 30, memory_swap=-1)),
    ("POST /build", "cpushares", "1.41", lambda images: images.build(b"", cpu_shares=512)),
    ("POST /build", "cpusetcpus", "1.41", lambda images: images.build(b"", cpuset_cpus="0")),
    ("POST /build", "cpusetmems", "1.41", lambda images: images.build(b"", cpuset_mems="0")),
    ("POST /build", "cpuperiod", "1.41", lambda images: images.build(b"", cpu_period=1000)),
    ("POST /build", "cpuquota", "1.41", lambda images: images.build(b"", cpu_quota=1000)),
    ("POST /build", "buildargs", "1.41", lambda images: images.build(b"", build_args={"A": "b"})),
    ("POST /build", "shmsize", "1.41", lambda images: images.build(b"", shm_size=1 << 20)),
    ("POST /build", "squash", "1.41", lambda images: images.build(b"", squash=True)),
    ("POST /build", "labels", "1.41", lambda images: images.build(b"", labels={"a": "b"})),
    ("POST /build", "networkmode", "1.41", lambda images: images.build(b"", network_mode="none")),
    ("POST /build", "platform", "1.41", lambda images: images.build(b"", platform=ARM)),
    ("POST /build", "target", "1.41", lambda images: images.build(b"", target="t")),
    ("POST /build", "header:content-type", "1.41", lambda images: images.build(b"")),
    ("POST /build", "header:x-registry-config", "1.41", lambda images: images.build(b"", auths={"docker.io": AUTH})),
    ("POST /build", "version", "1.41", lambda images: images.build(b"", builder="buildkit")),
    (
        "POST /build",
        "outputs",
        "1.41",
        lambda images: images.build(b"", builder="buildkit", outputs=[{"Type": "moby"}]),
    ),
    # Docker 20.10's BuildKit takes no notice of these two.
    ("POST /build", "shmsize", "1.42", lambda images: images.build(b"", builder="buildkit", shm_size=1 << 20)),
    ("POST /build", "ulimits", "1.42", lambda images: images.build(b"", builder="buildkit", ulimits=[NOFILE])),
    ("POST /build/prune", "all", "1.41", lambda images: images.prune_build_cache(all=True)),
    ("POST /build/prune", "filters", "1.41", lambda images: images.prune_build_cache(filters={"until": "1h"})),
    ("POST /build/prune", "max-used-space", "1.48", lambda images: images.prune_build_cache(max_used_space=1)),
    ("POST /build/prune", "min-free-space", "1.48", lambda images: images.prune_build_cache(min_free_space=1)),
    ("GET /events", "since", "1.41", lambda images: drained(images.events(since=1.0))),
    ("GET /events", "until", "1.41", lambda images: drained(images.events(until=1.0))),
    ("GET /events", "filters", "1.41", lambda images: drained(images.events())),
    ("POST /auth", "header:content-type", "1.41", lambda images: images.login(AUTH)),
]

# What is asked for only where it is known, and done without, or by its older name, where it is not.
OPTIONAL: list[tuple[str, str, str, Send]] = [
    ("POST /build/prune", "reserved-space", "1.48", lambda images: images.prune_build_cache(reserved_space=1)),
    ("GET /system/df", "type", "1.42", lambda images: images.disk_usage()),
    ("GET /system/df", "verbose", "1.52", lambda images: images.disk_usage(verbose=True)),
]


async def sent(directory: Path, version: str, send: Send) -> tuple[list[str], set[str], Exception | None]:
    """Make a call of a daemon that answers everything with 404: what went out, and what was raised."""
    directory.mkdir(exist_ok=True)
    async with (
        ScriptedDaemon(directory / f"{version}.sock", api_version=version) as daemon,
        ImageService(daemon.socket) as images,
    ):
        error: Exception | None = None
        try:
            await send(images)
        except Exception as caught:  # noqa: BLE001 - looked at by the test
            error = caught
        requests = [each for each in daemon.requests if each.path != "/_ping"]
        names = {name for each in requests for name, _ in each.query}
        names |= {f"header:{name}" for each in requests for name in each.headers}
        return daemon.paths, names, error


ROWS = [*PARAMETERS, *OPTIONAL]


@pytest.mark.parametrize(
    ("endpoint", "parameter", "first", "send"), ROWS, ids=[f"{row[0]} {row[1]} {row[2]}" for row in ROWS]
)
async def test_a_parameter_is_sent_from_its_first_version_on(
    short_path: Path, endpoint: str, parameter: str, first: str, send: Send
) -> None:
    for version in (first, "1.56"):
        paths, names, _ = await sent(short_path, version, send)
        assert paths == [endpoint]
        assert parameter in names


GATED = [row for row in PARAMETERS if row[2] != "1.41"]


@pytest.mark.parametrize(
    ("endpoint", "parameter", "first", "send"), GATED, ids=[f"{row[0]} {row[1]} {row[2]}" for row in GATED]
)
async def test_a_parameter_newer_than_the_api_raises_before_anything_is_sent(
    short_path: Path, endpoint: str, parameter: str, first: str, send: Send
) -> None:
    for minor in {41, int(first[2:]) - 1}:
        paths, _, error = await sent(short_path, f"1.{minor}", send)
        assert isinstance(error, UnsupportedAPIVersionError), f"{endpoint} {parameter}"
        assert (error.required, error.actual) == (first, f"1.{minor}")
        assert paths == []


async def test_every_row_of_the_version_table_is_in_the_contract(short_path: Path) -> None:
    """What no call of the contract is refused for is not tested, or is not needed."""
    refused = {
        error.feature
        for number, (_, _, _, send) in enumerate(GATED)
        if isinstance(error := (await sent(short_path / str(number), "1.41", send))[2], UnsupportedAPIVersionError)
    }
    optional = {"'type' of disk_usage", "'verbose' of disk_usage", "'reserved_space' of prune_build_cache"}
    words = api_version._WORDS  # pyright: ignore[reportPrivateUsage] - how they are named
    table = {
        operation if operation == parameter else f"{words.get(parameter, parameter)!r} of {operation}"
        for operation, parameter in api_version._FIRST_VERSIONS  # pyright: ignore[reportPrivateUsage] - all of it
    }
    assert refused | optional == table


@pytest.mark.parametrize(("endpoint", "parameter", "first", "send"), OPTIONAL, ids=[row[1] for row in OPTIONAL])
async def test_below_its_first_version_an_optional_parameter_is_left_out(
    short_path: Path, endpoint: str, parameter: str, first: str, send: Send
) -> None:
    paths, names, _ = await sent(short_path, f"1.{int(first[2:]) - 1}", send)
    assert paths == [endpoint]
    assert parameter not in names


# The API's name of a kind of answer, our model of it, and the fields that the description of v1.56 names; behind
# the bar what only older versions send.
FIELDS: list[tuple[str, type[Model], str]] = [
    (
        "ImageSummary",
        models.ImageSummary,
        "Id ParentId RepoTags RepoDigests Created Size SharedSize Labels Containers Manifests Descriptor | VirtualSize",
    ),
    (
        "ImageInspect",
        models.ImageInspect,
        (
            "Id Descriptor Manifests Identity RepoTags RepoDigests Comment Created Author Config Architecture Variant"
            " Os OsVersion Size GraphDriver RootFS Metadata | Parent DockerVersion VirtualSize"
        ),
    ),
    ("ImageInspect.RootFS", models.RootFS, "Type Layers"),
    ("ImageInspect.Metadata", models.ImageMetadata, "LastTagTime"),
    (
        "ImageConfig",
        models.ImageConfig,
        (
            "User ExposedPorts Env Cmd Healthcheck ArgsEscaped Volumes WorkingDir Entrypoint OnBuild Labels StopSignal"
            " Shell"
        ),
    ),
    ("HealthConfig", models.HealthConfig, "Test Interval Timeout Retries StartPeriod StartInterval"),
    ("DriverData", models.GraphDriver, "Name Data"),
    ("ImageManifestSummary", models.ImageManifest, "ID Descriptor Available Size Kind ImageData AttestationData"),
    ("ImageManifestSummary.Size", models.ManifestSize, "Total Content"),
    ("ImageManifestSummary.ImageData", models.ImageManifestData, "Platform Identity Containers Size"),
    ("ImageManifestSummary.ImageData.Size", models.UnpackedSize, "Unpacked"),
    ("ImageManifestSummary.AttestationData", models.AttestationData, "For"),
    (
        "OCIDescriptor",
        models.Descriptor,
        "mediaType digest size urls annotations data platform artifactType",
    ),
    ("OCIPlatform", models.Platform, "architecture os os.version os.features variant"),
    ("Identity", models.Identity, "Signature Pull Build"),
    ("BuildIdentity", models.BuildIdentity, "Ref CreatedAt"),
    ("PullIdentity", models.PullIdentity, "Repository"),
    (
        "SignatureIdentity",
        models.SignatureIdentity,
        "Name Timestamps KnownSigner DockerReference Signer SignatureType Error Warnings",
    ),
    ("SignatureTimestamp", models.SignatureTimestamp, "Type URI Timestamp"),
    (
        "SignerIdentity",
        models.SignerIdentity,
        (
            "CertificateIssuer SubjectAlternativeName Issuer BuildSignerURI BuildSignerDigest RunnerEnvironment"
            " SourceRepositoryURI SourceRepositoryDigest SourceRepositoryRef SourceRepositoryIdentifier"
            " SourceRepositoryOwnerURI SourceRepositoryOwnerIdentifier BuildConfigURI BuildConfigDigest BuildTrigger"
            " RunInvocationURI SourceRepositoryVisibilityAtSigning"
        ),
    ),
    ("ImageHistoryResponseItem", models.HistoryItem, "Id Created CreatedBy Tags Size Comment"),
    ("ImageDeleteResponseItem", models.RemovedImage, "Untagged Deleted"),
    ("ImagePruneResponse", models.PruneReport, "ImagesDeleted SpaceReclaimed"),
    ("BuildPruneResponse", models.BuildCachePruneReport, "CachesDeleted SpaceReclaimed"),
    ("ImageSearchResponseItem", models.SearchResult, "name description star_count is_official is_automated"),
    ("DistributionInspect", models.DistributionInspect, "Descriptor Platforms"),
    ("AttestationStatement", models.Attestation, "Descriptor PredicateType Statement"),
    ("EventMessage", models.Event, "Type Action Actor scope time timeNano"),
    ("EventActor", models.EventActor, "ID Attributes"),
    ("ImagesDiskUsage", models.ImageDiskUsage, "ActiveCount TotalCount Reclaimable TotalSize Items"),
    ("AuthResponse", models.LoginResult, "Status IdentityToken"),
    (
        "SystemVersion",
        models.EngineVersion,
        (
            "Platform Components Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion"
            " Experimental BuildTime"
        ),
    ),
    ("SystemVersion.Platform", models.EnginePlatform, "Name"),
    ("SystemVersion.Components", models.EngineComponent, "Name Version Details"),
]


@pytest.mark.parametrize(("name", "model", "fields"), FIELDS, ids=[row[0] for row in FIELDS])
def test_every_field_of_an_answer_has_its_place_and_nothing_else_has(
    name: str, model: type[Model], fields: str
) -> None:
    assert {info.encode_name for info in msgspec.structs.fields(model)} == set(fields.replace("|", "").split()), name


def test_every_model_of_an_answer_is_in_the_table() -> None:
    answers = {value for value in vars(models).values() if isinstance(value, type) and issubclass(value, Model)} - {
        Model,
        models.Ping,
    }
    assert {row[1] for row in FIELDS} == answers

"""The kinds of Engine there are: where the root directory of each comes from, and how its daemon is started in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .golang import built
from .packages import machine_release, program, unpacked
from .state import WITH_DOCKER

DEFAULT = "docker20"
INSTEAD = f"For the tests that need no Engine, type: make unit; or, {WITH_DOCKER}"
ANOTHER_PYTHON = "For a Python that is installed, type: make clean unit PYTHON=python3.15"
INSTALL = "For the tests that need no Engine, type: make unit"

# xz-utils: dockerd calls xz for layers. usr-is-merged: apt's other choice brings perl.
DOCKER_PACKAGES = ("docker.io", "xz-utils", "usr-is-merged")
# dash and coreutils: sh and what it calls, which every machine has and so none depends on. The server
# of OpenSSH 10.6 does not depend on the client.
SSH_PACKAGES = ("openssh-server", "openssh-client", "dash", "coreutils", "usr-is-merged")
OCISERVER_LIBRARIES = ("golang-github-cue-labs-oci-dev", "golang-github-opencontainers-image-spec-dev")
DOCKER_CONFIG: Mapping[str, object] = {
    "data-root": "/state/data",
    "hosts": ["unix:///state/docker.sock"],
    "bridge": "none",
    "iptables": False,
    "ip6tables": False,
    "ip-forward": False,  # it would be set for the whole machine
}


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One kind of Engine.

    `suite`: the Debian release, None for this machine's own; `packages`: the first one names the root directory.
    /state, to the daemon, is the state directory; `files` are put there. `config` is dockerd's daemon.json, empty
    for what is no dockerd. `environment` adds to the daemon's.
    """

    name: str
    what: str
    suite: str | None = None
    packages: tuple[str, ...] = DOCKER_PACKAGES
    command: tuple[str, ...] = ("dockerd", "--config-file=/state/daemon.json")
    config: Mapping[str, object] = field(default_factory=lambda: DOCKER_CONFIG)
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def docker(self) -> bool:
        """Whether its daemon is dockerd."""
        return bool(self.config)


# Docker takes every registry on a loopback address as insecure; Podman takes a pattern that matches any port there.
PODMAN_REGISTRIES = """
[[registry]]
prefix = "*.0.0.1"
insecure = true
"""
# No journal runs here, no container has a network, for it would be made in the machine's, and the limits are such as
# a machine may not raise.
PODMAN_CONTAINERS = """
[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
events_logger = "file"
"""

ENGINES: dict[str, EngineSpec] = {
    spec.name: spec
    for spec in (
        EngineSpec(
            name="docker20",
            what="Docker of this machine's Debian release (20.10 on Debian 12), graph-driver store",
        ),
        EngineSpec(name="docker26", what="Docker of Debian trixie (26.1), graph-driver store", suite="trixie"),
        EngineSpec(name="docker28", what="Docker of Debian forky (28.5), graph-driver store", suite="forky"),
        EngineSpec(
            name="docker28c",
            what="Docker of Debian forky (28.5), containerd image store",
            suite="forky",
            config={**DOCKER_CONFIG, "features": {"containerd-snapshotter": True}},
        ),
        EngineSpec(
            name="podman",
            what="Podman of Debian forky (5.8), its Docker-compatible API",
            suite="forky",
            packages=("podman", "usr-is-merged"),
            command=(
                "podman",
                "--root=/state/data",
                "--runroot=/run/containers/storage",
                "--cgroup-manager=cgroupfs",
                *("system", "service", "--time=0", "unix:///state/docker.sock"),
            ),
            config={},
            files={"registries.conf": PODMAN_REGISTRIES, "containers.conf": PODMAN_CONTAINERS},
            environment={
                "BUILDAH_ISOLATION": "chroot",  # crun, for one, does not take every machine's cgroups
                "CONTAINERS_REGISTRIES_CONF": "/state/registries.conf",
                "CONTAINERS_CONF_OVERRIDE": "/state/containers.conf",
            },
        ),
    )
}


def own_name(name: str) -> str:
    """Return the name of a kind of Engine, of two names for the same kind the one that says which release it is.

    The Docker of this machine's release is that of trixie on Debian 13, and tests go by the name.
    """
    spec = ENGINES[name]
    if spec.suite is None:
        own = replace(spec, suite=machine_release())
        for other in ENGINES.values():
            if replace(other, name=own.name, what=own.what) == own:
                return other.name
    return name


def root_directory(spec: EngineSpec) -> Path:
    """Return the root directory of a kind of Engine, which others of the same packages share."""
    return unpacked(spec.packages[0], spec.packages, INSTEAD, suite=spec.suite, whole=True)


def registry_program() -> Path:
    """Return the path of the registry of the distribution project."""
    return _tools() / "usr/bin/docker-registry"


def crane_program() -> Path:
    """Return the path of crane, of Debian forky: it needs the C library alone, and no new one."""
    return unpacked("crane", ("crane",), INSTALL, suite="forky", whole=False) / "usr/bin/crane"


def ociserver_program() -> Path:
    """Return the path of the OCI registry, which is built of cue-labs' Go library: 48 MB and half a minute, once."""
    return built(Path(__file__).with_name("ociserver.go"), OCISERVER_LIBRARIES, INSTALL)


def busybox() -> Path:
    """Return the path of a static busybox: one file that makes a root file system."""
    path = _tools() / "usr/bin/busybox"  # where it is from Debian 13 on
    return path if path.exists() else _tools() / "bin/busybox"


def docker_cli() -> Path:
    """Return the path of the docker command line program of this machine's Debian release, which runs here."""
    root = root_directory(ENGINES[DEFAULT])
    if not (root / "usr/bin/docker").exists():  # from Debian 13 on it has a package of its own
        root = unpacked("docker-cli", ("docker-cli",), INSTALL, whole=False)
    return root / "usr/bin/docker"


def newest_docker_cli() -> Path:
    """Return the path of the docker command line program of Debian forky (28.5), which runs here, too."""
    return unpacked("docker-cli", ("docker-cli",), INSTALL, suite="forky", whole=False) / "usr/bin/docker"


def ssh_root() -> Path:
    """Return the root directory of the ssh server, which has the client too, and the programs of a small machine."""
    return unpacked("openssh-server", SSH_PACKAGES, INSTALL, whole=True)


def python(version: str) -> Path:
    """Return the path of another Python, "3.15" or the like, of Debian forky: it runs here, and makes environments."""
    packages = (f"python{version}", "usr-is-merged")
    return program(unpacked(packages[0], packages, ANOTHER_PYTHON, suite="forky", whole=True), packages[0])


def prepare(name: str) -> None:
    """Download and unpack all that tests with the Engine `name` need, unless that was done before."""
    root_directory(ENGINES[name])
    _tools()
    docker_cli()
    newest_docker_cli()
    ssh_root()
    crane_program()
    ociserver_program()


def _tools() -> Path:
    return unpacked("tools", ("docker-registry", "busybox-static"), INSTEAD, whole=False)

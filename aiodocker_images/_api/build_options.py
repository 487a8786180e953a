"""The options of a build: the keyword arguments of `build` and `build_stream`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict

import msgspec

from aiodocker_images.credentials import RegistryAuth
from aiodocker_images.models import Platform
from aiodocker_images.reference import Reference

__all__ = ["BuildOptions", "Builder", "Ulimit"]

Builder = Literal["classic", "buildkit"]
"""What builds: the Engine's first builder, or BuildKit. Podman has one of its own and takes no notice."""


class Ulimit(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A limit for the processes of RUN: `name` ("nofile"), and how far it is set (`soft`) and may be set (`hard`)."""

    name: str
    soft: int
    hard: int


class BuildOptions(TypedDict, total=False):
    """The options of `build` and `build_stream`: each is a keyword argument there, and what is left out is the default.

    Options for several builds can be kept, and given as `**options`.
    """

    dockerfile: str | os.PathLike[str] | bytes | None
    """Its path, relative to the context; "Dockerfile" by default. For a directory also a path outside of it
    ("../Dockerfile", or an absolute one), or the content, as bytes."""
    tags: str | Reference | Iterable[str | Reference]
    """Names for the image. Without any it has only its id."""
    target: str | None
    """The stage to end with; by default the last."""
    build_args: Mapping[str, str | None] | None
    """Values of ARGs. None: as if it were not given, but the classic builder warns of one that no ARG asks for."""
    labels: Mapping[str, str] | None
    """Labels that are added to the image."""
    platform: str | Platform | None
    """What the image runs on ("linux/arm64"); by default `DOCKER_DEFAULT_PLATFORM`, or else the daemon's own."""
    pull: bool
    """Look for newer base images."""
    no_cache: bool
    """Run every step again."""
    cache_from: str | Iterable[str]
    """Images to take steps from."""
    quiet: bool
    """Ask for no output but the id."""
    remove_intermediate: bool
    """Whether the classic builder removes the containers of its steps; True by default."""
    force_remove: bool
    """Remove those of a failed build, too."""
    squash: bool
    """Make one layer of the image's own ones (experimental Engines)."""
    network_mode: str | None
    """The network of RUN: "none", "host", or a network's name."""
    extra_hosts: Mapping[str, str] | str | Iterable[str]
    """Host names for RUN: {"name": "address"}, or "name:address" or "name=address" each."""
    shm_size: int | None
    """Bytes of /dev/shm for RUN (with BuildKit: API 1.42)."""
    ulimits: Iterable[Ulimit]
    """Limits for the processes of RUN (with BuildKit: API 1.42)."""
    memory: int | None
    """Bytes of memory for RUN. Of the classic builder alone, as all that follow down to `security_opt`."""
    memory_swap: int | None
    """Bytes of memory and swap together; -1 for no limit."""
    cpu_shares: int | None
    """The weight of RUN against others."""
    cpu_period: int | None
    """The period of `cpu_quota`, in microseconds."""
    cpu_quota: int | None
    """CPU time for RUN in each period, in microseconds."""
    cpuset_cpus: str | None
    """The CPUs of RUN: "0-2,4"."""
    cpuset_mems: str | None
    """The memory nodes of RUN: "0-2,4"."""
    cgroup_parent: str | None
    """The control group that RUN's is made in."""
    isolation: str | None
    """How RUN is isolated, on Windows: "process" or "hyperv"."""
    security_opt: str | Iterable[str]
    """Security options of RUN, on Windows."""
    compress: bool
    """Send a directory as a tar that is compressed by gzip, for an Engine behind a slow network."""
    builder: Builder
    """What builds; "classic" by default."""
    outputs: Sequence[Mapping[str, object]]
    """BuildKit's outputs, in the API's words: `[{"Type": "moby", "Attrs": {…}}]`."""
    auths: Mapping[str, RegistryAuth] | None
    """Credentials for base images, by registry ("docker.io", "127.0.0.1:5000")."""

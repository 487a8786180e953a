"""Start private, throwaway Engines, registries and ssh servers, and leave nothing of them behind.

    python3 -m engines run docker20 -- COMMAND...   # COMMAND finds them in DOCKER_HOST and REGISTRY
    python3 -m engines run auto -- COMMAND...       # what these two name already, it uses; it starts the rest

    with engines.Engine("podman") as engine, engines.Registry() as registry:
        print(engine.host, registry.address)

    with engines.Registry(htpasswd=users, read_only=True) as guarded, engines.CraneRegistry() as other:
        print(guarded.url, other.url)

    tls = engines.ServerTLS(cert=cert, key=key, ca=ca)
    with engines.Engine(tls=tls) as engine, engines.SSHServer(engine) as server:
        print(engine.tls_address, server.host, server.port)

An Engine runs in a root directory unpacked from Debian packages that are never installed, and in mount and PID
namespaces of its own: it cannot see the machine's Docker or containerd, and the kernel ends all of it at once.
What a daemon writes is in one state directory, on which its owner holds a lock. If we are killed, a small process
that waits for that, or else the `sweep` of the next start, ends what runs in it and removes it.
"""

from .daemons import Engine, ServerTLS
from .kinds import DEFAULT, ENGINES, EngineSpec, busybox, docker_cli, newest_docker_cli, prepare
from .registries import REGISTRIES, CraneRegistry, OCIRegistry, Registry, RegistryDaemon
from .ssh import SSHServer, ssh_client, ssh_keygen
from .state import EngineError

__all__ = [
    "DEFAULT",
    "ENGINES",
    "REGISTRIES",
    "CraneRegistry",
    "Engine",
    "EngineError",
    "EngineSpec",
    "OCIRegistry",
    "Registry",
    "RegistryDaemon",
    "SSHServer",
    "ServerTLS",
    "busybox",
    "docker_cli",
    "newest_docker_cli",
    "prepare",
    "ssh_client",
    "ssh_keygen",
]

"""OpenSSH without an installation: a private server that has an Engine's socket, and the client programs."""

# ruff: noqa: S603 - to run programs is what this package is for

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .daemons import Engine
from .kinds import docker_cli, ssh_root
from .namespaces import isolated, require_root
from .packages import program
from .process import Daemon, children, with_descendants

# The first word on an option is the one that holds, so that what a test adds cannot break these.
_CONFIG = """
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
AuthenticationMethods publickey
StrictModes no
UsePAM no
PidFile none
LogLevel VERBOSE
"""
# What runs in the root directory. sshd runs itself again for every connection, so it wants its whole path.
_SSHD = """
mkdir -m 755 /run/sshd
ln -s /run /var/run
for path; do mkdir -p "${path%/*}"; ln -s /run/engine/docker.sock "$path"; done
sshd="/usr/sbin/sshd -f /etc/ssh/sshd_config"
# From OpenSSH 9.8 on, a log-in that is refused closes the port for a while to the address that it came from.
! $sshd -t -o PerSourcePenalties=no 2>/dev/null || sshd="$sshd -o PerSourcePenalties=no"
exec $sshd -D -e
"""


class SSHServer(Daemon):
    """A private OpenSSH server on 127.0.0.1, on a machine with the docker CLI and an Engine's socket. Needs root.

    Who has a key that was `authorize`d logs in as `root`, or as `user`, who may do nothing to the Engine. The socket
    of `engine`, which must be started first, is at /var/run/docker.sock and at the paths in `sockets`; without
    an Engine, nothing listens there. `config` adds lines to sshd_config.

    Attributes: `host` and `port`, 0 before the first start, the same from then on; `programs`, the directory of the
    machine's /usr/local/bin, where the docker CLI is, to put and remove programs.
    """

    def __init__(
        self, engine: Engine | None = None, *, sockets: Sequence[str] = (), config: Sequence[str] = ()
    ) -> None:
        super().__init__("The ssh server")
        self.host = "127.0.0.1"
        self.port = 0
        self.programs = self.state / "bin"
        self._engine = engine
        self._sockets = ("/var/run/docker.sock", *sockets)
        self._config = config
        self._files = self.state / "ssh"

    @property
    def host_key(self) -> str:
        """The line about the server for a known_hosts file."""
        kind, key, *_ = (self._files / "host_key.pub").read_text().split()
        return f"[{self.host}]:{self.port} {kind} {key}\n"

    @property
    def connections(self) -> int:
        """How many connections are open, whether or not somebody has logged in over them."""
        return len(children(self.pid))

    def authorize(self, public_key: str) -> None:
        """Let the owner of the key, a line as in a .pub file, log in as anybody, from now until `stop`."""
        with (self._files / "authorized_keys").open("a") as file:
            file.write(f"{public_key.strip()}\n")

    def _launch(self) -> None:
        require_root("a private ssh server")
        if not self._files.exists():
            self._set_up()
        address = self._serve_on_port(f"{self.host}:{self.port}" if self.port else "", self._launch_at)
        self.port = int(address.rpartition(":")[2])

    def _set_up(self) -> None:
        """Write what stays the same over restarts."""
        self._files.mkdir()
        self.programs.mkdir()
        (self.programs / "docker").symlink_to("/opt/docker")
        (self._files / "authorized_keys").touch()
        keygen = [str(ssh_keygen()), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self._files / "host_key")]
        subprocess.run(keygen, stdin=subprocess.DEVNULL, check=True)
        for directory in (self._files, self.programs):
            directory.chmod(0o755)  # for `user`
        (self._files / "authorized_keys").chmod(0o644)

    def _launch_at(self, address: str) -> None:
        lines = [f"ListenAddress {address}", *_CONFIG.split("\n"), *self._config]
        (self._files / "sshd_config").write_text("".join(f"{line}\n" for line in lines))
        shared = {self._files: "etc/ssh", self.programs: "usr/local/bin", docker_cli(): "opt/docker"}
        if self._engine is not None:
            shared[self._engine.state] = "run/engine"  # not the socket itself, which is another after a restart
        command = ["sh", "-euc", _SSHD, "sshd", *self._sockets]
        self._serve(isolated(ssh_root(), self.state, command, shared=shared), lambda: self._listens(address))

    def _listens(self, address: str) -> bool:
        if (listener := self._listener(address)) is not None:
            self._pid = listener
        return listener is not None

    def _processes(self) -> Iterator[int]:
        yield from with_descendants(self.pid)


def ssh_client() -> Path:
    """Return the path of an ssh program that works here: the machine's own, else one that is not installed."""
    return _own_or_unpacked("ssh")


def ssh_keygen() -> Path:
    """Return the path of an ssh-keygen program that works here, as `ssh_client` does."""
    return _own_or_unpacked("ssh-keygen")


def _own_or_unpacked(name: str) -> Path:
    return Path(own) if (own := shutil.which(name)) else program(ssh_root(), name)

"""The daemons: private Engines of every kind and private registries, with the life of a process each."""

# ruff: noqa: S603 - to run programs found on PATH is what this package is for

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from . import state
from .kinds import DEFAULT, ENGINES, registry_program, root_directory
from .state import END_TIMEOUT, STATE_MARK, EngineError

READY_TIMEOUT = 60.0
BECOME_ROOT = "Type: sudo make demo, or: DOCKER_HOST=unix:///var/run/docker.sock make demo"


class _Daemon(ABC):
    """A daemon and its state directory, which lasts from the first `start` to `stop`, over kills and restarts.

    Attributes: `state`, the directory; `log`, what the daemon wrote since its last start.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self.state = state.STATE_PARENT / f"adi-{secrets.token_hex(4)}"
        self.log = self.state / "log"
        self._lock: int | None = None
        self._heir: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The daemon's process; raises EngineError while there is none."""
        if self._pid is None:
            raise EngineError(f"{self._title} does not run.")
        return self._pid

    def start(self) -> None:
        """Start the daemon and wait until it serves; after `kill`, with the data and the address it had."""
        if self._process is not None and self._process.poll() is None:
            raise EngineError(f"{self._title} runs already.")
        self.kill()  # what a daemon that ended by itself may have left
        if self._lock is None:
            state.sweep()
            self._lock = state.claim(self.state)
            self._heir = state.start_heir(self.state)
        self._launch()

    def stop(self) -> None:
        """End the daemon and all it started, and remove all it wrote. May be called again."""
        self.kill()
        if self._lock is not None:
            state.destroy(self.state)
            os.close(self._lock)
            self._lock = None
        if self._heir is not None:
            self._heir.communicate(b"nothing is left")
            self._heir = None

    def kill(self) -> None:
        """End the daemon and all it started as SIGKILL does, and keep its data."""
        if self._process is not None:
            state.kill_all(self.state)
            self._process.wait()
            self._process = self._pid = None

    def pause(self) -> None:
        """Let the daemon do nothing: it keeps its connections and answers no more."""
        os.kill(self.pid, signal.SIGSTOP)
        # The threads stop one by one, and a thread that still runs may still answer.
        while not all(") T " in stat.read_text() for stat in Path(f"/proc/{self.pid}/task").glob("*/stat")):
            time.sleep(0.001)

    def resume(self) -> None:
        """Let the daemon go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Ask the daemon to end, as a service manager does, and start it again with the data it had."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.kill(self.pid, signal.SIGTERM)
                self.resume()
                self._process.wait(END_TIMEOUT)
        self.kill()
        self.start()

    @abstractmethod
    def _launch(self) -> None: ...

    def _serve(
        self, command: Sequence[str | Path], ready: Callable[[], bool], environment: Mapping[str, str] | None = None
    ) -> None:
        """Run the command until it is ready; raise EngineError if it ends before or takes too long."""
        # In a session of its own: a Ctrl-C at the terminal is for us, who then stop the daemon.
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", STATE_MARK: str(self.state), **(environment or {})}
        nothing = subprocess.DEVNULL
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd="/", env=variables, stdin=nothing, stdout=log, stderr=log, start_new_session=True
            )
        self._pid = self._process.pid
        deadline = time.monotonic() + READY_TIMEOUT
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise EngineError(f"{self._title} did not come up within {READY_TIMEOUT:.0f} s, or ended:\n{tail}")
            time.sleep(0.02)


# The first process of the namespaces, which stays as their init. The root must be a mount point, as dockerd remounts
# it to unpack layers; /sys/kernel/security is hidden lest dockerd load an AppArmor profile into the machine's kernel,
# and /dev/shm lest Podmans share their locks.
_INIT = """
image=$1 state=$2 root=$2/root; shift 2
mkdir -p "$root"
mount --bind "$image" "$root"
mount --rbind "$state" "$root/state"; umount --lazy "$root/state/root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
for path in run tmp opt var etc/docker dev/shm; do mount -t tmpfs tmpfs "$root/$path"; done
mkdir "$root/var/tmp"
[ ! -d /sys/kernel/security ] || mount -t tmpfs tmpfs "$root/sys/kernel/security"
for path in etc/hosts etc/resolv.conf etc/ssl/certs; do [ ! -e "/$path" ] || mount --bind "/$path" "$root/$path"; done
chroot "$root" "$@" &
wait $!
"""


class Engine(_Daemon):
    """A private Engine on a unix socket, without images and without networks. Needs root.

    Attributes: `name`, a key of ENGINES; `socket`, the path it serves on; `host`, the same for DOCKER_HOST;
    `data_root`. `config` adds to dockerd's daemon.json; Podman has none.
    """

    def __init__(self, name: str = DEFAULT, *, config: Mapping[str, object] | None = None) -> None:
        super().__init__(f"The Engine {name}")
        self.name = name
        self.socket = self.state / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.data_root = self.state / "data"
        self._config = config or {}
        if config and not ENGINES[name].docker:
            raise EngineError(f"The Engine {name} has no daemon.json to be configured by.")

    def _launch(self) -> None:
        if os.geteuid() != 0:
            raise EngineError(f"Starting a private Engine, {self.name}, needs root.\n{BECOME_ROOT}")
        spec = ENGINES[self.name]
        if spec.docker:
            config = {"cgroup-parent": f"/{self.state.name}", **spec.config, **self._config}
            (self.state / "daemon.json").write_text(json.dumps(config))
        for name, text in spec.files.items():
            (self.state / name).write_text(text)
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command: list[str | Path] = [
            *namespaces,
            "sh",
            "-euc",
            _INIT,
            "init",
            root_directory(spec),
            self.state,
            *spec.command,
        ]
        self._serve(command, self._answers, spec.environment)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            # The peer is the daemon itself, not the unshare that it descends from.
            self._pid, *_ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return b" 200 " in connection.recv(32)
        return False


class Registry(_Daemon):
    """A private registry on 127.0.0.1, open to everybody, which lets images be deleted.

    Attributes: `address`, host and port, empty before the first start; `storage`, the directory of its blobs.
    With `htpasswd`, the text of such a file (bcrypt alone), it is open to those in it; with `token` ("realm",
    "service", "issuer", "rootcertbundle") to those whom the server at "realm" gives tokens.
    """

    def __init__(self, *, htpasswd: str | None = None, token: Mapping[str, str] | None = None) -> None:
        super().__init__("The registry")
        self._htpasswd = htpasswd
        self._token = token
        self.address = ""
        self.storage = self.state / "storage"

    def _config(self) -> dict[str, object]:  # "tls" has its place here, in "http"
        auth: dict[str, object] = {}
        if self._htpasswd is not None:
            auth["htpasswd"] = {"realm": "a private registry", "path": str(self.state / "htpasswd")}
        if self._token is not None:
            auth["token"] = dict(self._token)
        return {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
            "http": {"addr": self.address},
            **({"auth": auth} if auth else {}),
        }

    def _launch(self) -> None:
        program, config = registry_program(), self.state / "config.yml"
        if self._htpasswd is not None:
            (self.state / "htpasswd").write_text(self._htpasswd)
        fixed = self.address != ""
        while True:
            if not fixed:
                with socket.create_server(("127.0.0.1", 0)) as free:
                    self.address = f"127.0.0.1:{free.getsockname()[1]}"
            config.write_text(json.dumps(self._config()))  # which is YAML too
            try:
                return self._serve([program, "serve", config], self._listens)
            except EngineError:
                if fixed or "address already in use" not in self.log.read_text():
                    raise

    def _listens(self) -> bool:
        # Its own word for it: on a port that was snatched from it, another would answer.
        return f"listening on {self.address}" in self.log.read_text()

"""Start private, throwaway Docker Engines and registries, and leave nothing of them behind.

    python3 engines.py run docker20 -- COMMAND...   # COMMAND finds them in DOCKER_HOST and REGISTRY
    python3 engines.py run auto -- COMMAND...       # what these two name already, it uses; it starts the rest

    with engines.Engine() as engine, engines.Registry() as registry:
        print(engine.host, registry.address)

An Engine runs in a root directory unpacked from Debian packages that are never installed, and in mount and PID
namespaces of its own: it cannot see the machine's Docker or containerd, and the kernel ends all of it at once.
What a daemon writes is in one state directory, on which its owner holds a lock. If we are killed, a small process
that waits for that, or else the `sweep` of the next start, ends what runs in it and removes it.
"""

# ruff: noqa: S603, S607 - to run programs found on PATH is what this module is for

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

DEFAULT = "docker20"
READY_TIMEOUT = 60.0
END_TIMEOUT = 30.0
# Short, because the path of a unix socket ends at 107 bytes; on a disk, because /tmp may be memory.
STATE_PARENT = Path("/var/tmp")  # noqa: S108 - what is made there is exclusive, and swept only if ours
STATE_MARK = "ENGINES_STATE"  # the variable that every process of a daemon carries
USE_ANOTHER_ENGINE = "To use an Engine that runs: DOCKER_HOST=unix:///var/run/docker.sock make demo"
USE_ANOTHER_REGISTRY = "To use a registry that runs, set REGISTRY, as in: REGISTRY=127.0.0.1:5000 make demo"
BECOME_ROOT = "Type: sudo make demo, or: DOCKER_HOST=unix:///var/run/docker.sock make demo"


class EngineError(Exception):
    """An Engine or a registry cannot be had: what is missing and, on a second line, what to type."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One kind of Engine: where its root directory comes from, and how its daemon is started in it.

    `suite`: the Debian release, None for this machine's own. `config`: adds to daemon.json. /state, to `command`,
    is the state directory.
    """

    name: str
    what: str
    packages: tuple[str, ...]
    suite: str | None = None
    command: tuple[str, ...] = ("dockerd", "--config-file=/state/daemon.json")
    config: Mapping[str, object] = field(default_factory=dict[str, object])


ENGINES: dict[str, EngineSpec] = {
    spec.name: spec
    for spec in (
        EngineSpec(
            name="docker20",
            what="Docker of this machine's Debian release (20.10 on Debian 12), graph-driver store",
            # xz-utils: dockerd calls xz for layers. usr-is-merged: apt's other choice brings perl.
            packages=("docker.io", "xz-utils", "usr-is-merged"),
        ),
    )
}


def busybox() -> Path:
    """Return the path of a static busybox: one file that makes a root file system."""
    return _tools() / "bin/busybox"


def prepare(name: str) -> None:
    """Download and unpack what the Engine `name` and a registry need, unless that was done before."""
    _root(ENGINES[name])
    _tools()


def _root(spec: EngineSpec) -> Path:
    if spec.suite is not None:
        raise EngineError(f"{spec.name}: a root directory of another release, {spec.suite}, is not made yet.")
    return _unpacked(spec.name, spec.packages, USE_ANOTHER_ENGINE, whole=True)


def _tools() -> Path:
    return _unpacked("tools", ("docker-registry", "busybox-static"), USE_ANOTHER_REGISTRY, whole=False)


def _unpacked(name: str, packages: Sequence[str], remedy: str, *, whole: bool) -> Path:
    """Return the directory of the unpacked packages; `whole`: with all they depend on, to chroot into."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    cache = Path(os.environ.get("ENGINES_CACHE") or Path(__file__).resolve().parent / ".cache/engines")
    cache /= f"{release.get('VERSION_CODENAME', 'unknown')}-{platform.machine()}"
    target = cache / name
    if target.exists():
        return target
    problem = f"Cannot fetch {' and '.join(packages)}"
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise EngineError(f"{problem}: this machine has no apt-get and dpkg-deb.\n{remedy}")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            sys.stderr.write(f"engines: fetching {', '.join(packages)}, once\n")
            partial = cache / "partial"
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            archives, unpacked = partial / "archives", partial / "unpacked"
            archives.mkdir(parents=True)
            if complaint := _download(packages, archives, cache / "lists", whole=whole):
                raise EngineError(f"{problem}: {complaint}\n{remedy}")
            if whole:
                _lay_out(unpacked)
            for archive in sorted(archives.glob("*.deb")):
                subprocess.run(["dpkg-deb", "--extract", archive, unpacked], check=True)
            unpacked.rename(target)
            shutil.rmtree(partial)
    return target


def _download(packages: Sequence[str], archives: Path, lists: Path, *, whole: bool) -> str:
    """Download the packages into `archives`, if need be by package lists of our own; return apt's complaint, or ""."""
    (archives / "status").touch()  # nothing is installed: so apt plans all that the packages depend on
    options = [f"Dir::State::status={archives}/status", f"Dir::Cache={archives}", "APT::Sandbox::User=root"]
    own_lists = [f"Dir::State::lists={lists}", "Acquire::GzipIndexes=true"]
    complaints: list[str] = []

    def apt(*arguments: str) -> subprocess.CompletedProcess[str]:
        settings = [f"--option={option}" for option in options + own_lists * lists.exists()]
        command = ["apt-get", "--assume-yes", *settings, *arguments]
        result = subprocess.run(command, cwd=archives, capture_output=True, text=True, check=False)
        complaints.extend(result.stderr.splitlines()[-1:])
        return result

    for attempt in range(4):
        complaints.clear()
        if attempt:  # the machine has no package lists, or old ones
            time.sleep(2 * (attempt - 1))
            lists.mkdir(exist_ok=True)
            apt("update")  # its status says little: one broken source of many fails it
        names = list(packages)
        if whole:
            plan = apt("install", "--simulate", "--no-install-recommends", *packages)
            names = re.findall(r"^Inst (\S+)", plan.stdout, re.MULTILINE)
        if names and apt("download", *names).returncode == 0:
            return ""
    return "; ".join(complaints) or "apt-get says nothing"


def _lay_out(root: Path) -> None:
    """Make what the root directory of a daemon needs besides packages."""
    for name in ("dev", "proc", "sys", "run", "tmp", "opt", "var", "state", "etc/docker", "etc/ssl/certs"):
        (root / name).mkdir(parents=True)
    for name in ("etc/hosts", "etc/resolv.conf"):
        (root / name).touch()
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        # A release whose packages fill only /usr needs these; one whose packages fill /lib replaces them.
        (root / name).symlink_to(f"usr/{name}")


def sweep() -> None:
    """Destroy the state directories whose owners ended without doing so, and all that runs in them."""
    for directory in STATE_PARENT.glob("adi-*"):
        # Not ours, its owner lives, or somebody else is at it: no business of this sweep.
        with contextlib.suppress(OSError, EngineError), contextlib.ExitStack() as closing:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            closing.callback(os.close, lock)
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _destroy(directory)


def _claim(directory: Path) -> int:
    """Make the state directory and return the descriptor whose lock says that its owner lives."""
    directory.mkdir(mode=0o700)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if directory.exists():
        return lock
    os.close(lock)
    return _claim(directory)  # a sweep was faster than the lock


def _destroy(directory: Path) -> None:
    _kill_all(directory)
    for pattern in (directory.name, f"*/{directory.name}"):  # cgroups, version 2 and 1, outlive containers
        for parent in Path("/sys/fs/cgroup").glob(pattern):
            for cgroup in sorted(parent.glob("**/"), reverse=True):
                cgroup.rmdir()
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if (point := line.split()[4]).startswith(f"{directory}/"):  # a disk, say, that a test put under a daemon
            subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(directory, ignore_errors=True)  # errors, lest two who are at it stop each other
    if directory.exists():
        raise EngineError(f"Cannot remove all of {directory}.")


def _kill_all(directory: Path) -> None:
    """Kill every process that carries the mark of the state directory, and wait until they are gone."""
    mark, deadline, alive = f"{STATE_MARK}={directory}".encode(), time.monotonic() + END_TIMEOUT, True
    while alive:
        alive = False
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # another user's, or gone
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    alive = True
                    if (process / "comm").read_text() != "unshare\n":  # which ends when its namespace is empty
                        os.kill(int(process.name), signal.SIGKILL)
        if alive and time.monotonic() > deadline:
            raise EngineError(f"Processes of {directory} do not end.")
        time.sleep(0.01 * alive)


class _Daemon(ABC):
    """A daemon and its state directory, which lasts from the first `start` to `stop`, over kills and restarts.

    Attributes: `state`, the directory; `log`, what the daemon wrote since its last start.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self.state = STATE_PARENT / f"adi-{secrets.token_hex(4)}"
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
            sweep()
            self._lock = _claim(self.state)
            heir = [sys.executable, "-I", __file__, "_inherit", str(self.state)]
            self._heir = subprocess.Popen(heir, stdin=subprocess.PIPE, start_new_session=True)
        self._launch()

    def stop(self) -> None:
        """End the daemon and all it started, and remove all it wrote. May be called again."""
        self.kill()
        if self._lock is not None:
            _destroy(self.state)
            os.close(self._lock)
            self._lock = None
        if self._heir is not None:
            self._heir.communicate(b"nothing is left")
            self._heir = None

    def kill(self) -> None:
        """End the daemon and all it started as SIGKILL does, and keep its data."""
        if self._process is not None:
            _kill_all(self.state)
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

    def _serve(self, command: Sequence[str | Path], ready: Callable[[], bool]) -> None:
        """Run the command until it is ready; raise EngineError if it ends before or takes too long."""
        # In a session of its own: a Ctrl-C at the terminal is for us, who then stop the daemon.
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", STATE_MARK: str(self.state)}
        nothing = subprocess.DEVNULL
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd="/", env=environment, stdin=nothing, stdout=log, stderr=log, start_new_session=True
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
# it to unpack layers; /sys/kernel/security is hidden lest dockerd load an AppArmor profile into the machine's kernel.
_INIT = """
image=$1 state=$2 root=$2/root; shift 2
mkdir -p "$root"
mount --bind "$image" "$root"
mount --rbind "$state" "$root/state"; umount --lazy "$root/state/root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
for path in run tmp opt var etc/docker; do mount -t tmpfs tmpfs "$root/$path"; done
[ ! -d /sys/kernel/security ] || mount -t tmpfs tmpfs "$root/sys/kernel/security"
for path in etc/hosts etc/resolv.conf etc/ssl/certs; do [ ! -e "/$path" ] || mount --bind "/$path" "$root/$path"; done
chroot "$root" "$@" &
wait $!
"""


class Engine(_Daemon):
    """A private Docker Engine on a unix socket, without images and without networks. Needs root.

    Attributes: `name`, a key of ENGINES; `socket`, the path it serves on; `host`, the same for DOCKER_HOST;
    `data_root`. `config` adds to its daemon.json.
    """

    def __init__(self, name: str = DEFAULT, *, config: Mapping[str, object] | None = None) -> None:
        super().__init__(f"The Engine {name}")
        self.name = name
        self.socket = self.state / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.data_root = self.state / "data"
        self._config: dict[str, object] = {
            "data-root": "/state/data",
            "hosts": ["unix:///state/docker.sock"],
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "ip-forward": False,  # it would be set for the whole machine
            "cgroup-parent": f"/{self.state.name}",
            **ENGINES[name].config,
            **(config or {}),
        }

    def _launch(self) -> None:
        if os.geteuid() != 0:
            raise EngineError(f"Starting a private Engine, {self.name}, needs root.\n{BECOME_ROOT}")
        spec = ENGINES[self.name]
        (self.state / "daemon.json").write_text(json.dumps(self._config))
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        self._serve([*namespaces, "sh", "-euc", _INIT, "init", _root(spec), self.state, *spec.command], self._answers)

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
    """

    def __init__(self) -> None:
        super().__init__("The registry")
        self.address = ""
        self.storage = self.state / "storage"

    def _config(self) -> dict[str, object]:  # "auth", and "tls" in "http", have their place here
        return {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}, "delete": {"enabled": True}},
            "http": {"addr": self.address},
        }

    def _launch(self) -> None:
        program, config = _tools() / "usr/bin/docker-registry", self.state / "config.yml"
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


def _run(name: str, command: Sequence[str], *, registry: bool = True) -> int:
    """Run the command with an Engine and a registry, end them, and return the command's exit status.

    By the name `auto`, only what DOCKER_HOST and REGISTRY do not name is started. ENGINE is a private Engine's kind.
    """
    environment = dict(os.environ)
    given = {variable for variable in ("DOCKER_HOST", "REGISTRY") if name == "auto" and environment.get(variable)}
    with contextlib.ExitStack() as daemons:
        if "DOCKER_HOST" not in given:
            engine = daemons.enter_context(Engine(DEFAULT if name == "auto" else name))
            for variable in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"):
                environment.pop(variable, None)  # they are about another Engine
            environment |= {"ENGINE": engine.name, "DOCKER_HOST": engine.host}
        if registry and "REGISTRY" not in given:
            environment["REGISTRY"] = daemons.enter_context(Registry()).address
        return _wait_for(command, environment)


def _wait_for(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command to its end, whatever signal comes; from then on signals wait until all is cleaned up."""
    # setpriv: if we are killed, the command is told to end.
    process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], env=environment)
    endings = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*endings, signal.SIGCHLD})
    while process.poll() is None:
        received = signal.sigwaitinfo({*endings, signal.SIGCHLD})
        # What the terminal sends, it sends to the command too; what another process sends (<= 0), to us alone.
        if received.si_signo in endings and received.si_code <= 0:
            process.send_signal(received.si_signo)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit status."""
    end = [*arguments, "--"].index("--")
    ours, command = arguments[:end], arguments[end + 1 :]
    parser = argparse.ArgumentParser(usage="engines.py run NAME [--no-registry] -- COMMAND... | prepare NAME | list")
    parser.add_argument("action", choices=("run", "prepare", "list"))
    parser.add_argument("name", choices=(*ENGINES, "auto"), nargs="?", default="auto")
    parser.add_argument("--registry", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(ours)
    if (options.action == "run") != bool(command):
        parser.error("run needs a COMMAND after --, and nothing else takes one")
    try:
        if options.action == "run":
            return _run(options.name, command, registry=options.registry)
        if options.action == "prepare":
            prepare(DEFAULT if options.name == "auto" else options.name)
        if options.action == "list":
            sys.stdout.writelines(f"{spec.name:12}{spec.what}\n" for spec in ENGINES.values())
    except (EngineError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] != ["_inherit"]:
        sys.exit(main(sys.argv[1:]))
    if not os.read(0, 1):  # the pipe closed without a word: its owner was killed
        _destroy(Path(sys.argv[2]))

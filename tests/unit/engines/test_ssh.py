"""The private ssh server, and the programs of ssh and Docker that are not installed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest

import engines
from engines import packages
from tests.support.probes import ask, listens, traces


class Client:
    """An ssh client that knows one server, by its directory of key, known_hosts and configuration."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "config"
        self._known_hosts = directory / "known_hosts"
        self._identity = directory / "id"
        self.program = engines.ssh_client()
        keygen = [str(engines.ssh_keygen()), "-q", "-t", "ed25519", "-N", "", "-f", str(self._identity)]
        subprocess.run(keygen, check=True)
        self.public_key = (directory / "id.pub").read_text()

    def meet(self, address: str, host_key: str) -> None:
        """Know the server from now on, by whatever name it is called."""
        host, port = address.split(":")
        self._known_hosts.write_text(host_key)
        options = {
            "HostName": host,
            "Port": port,
            "User": "root",
            "IdentityFile": self._identity,
            "UserKnownHostsFile": self._known_hosts,
            "BatchMode": "yes",
            "ConnectTimeout": "20",
        }
        self.config.write_text("".join(f"{key} {value}\n" for key, value in options.items()))

    def command(self, *arguments: str | Path) -> Sequence[str | Path]:
        return [self.program, "-F", self.config, *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command, nothing = self.command(*arguments), subprocess.DEVNULL
        return subprocess.run(command, stdin=nothing, capture_output=True, text=True, timeout=60, check=False)


def connected(server: engines.SSHServer, client: Client) -> Client:
    server.authorize(client.public_key)
    client.meet(f"{server.host}:{server.port}", server.host_key)
    return client


def until_listening(path: Path) -> Path:
    """Wait until somebody listens there, which is a moment after the file appears; the time limit is the test's."""
    while not any(line[3] == "00010000" and line[-1] == str(path) for line in unix_sockets()):
        time.sleep(0.01)
    return path


def unix_sockets() -> list[list[str]]:
    return [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], stdin: int | None = None, stdout: int | None = None, stderr: int | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """A program that is gone afterwards, also when the test fails.

    OpenSSH 9.2 misses a SIGTERM that comes between its look whether there was one and its wait for something to
    happen, which then takes minutes, so this is SIGKILL.
    """
    with subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def engine() -> Iterator[engines.Engine]:
    with engines.Engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def server(engine: engines.Engine) -> Iterator[engines.SSHServer]:
    with engines.SSHServer(engine, sockets=["/run/user/1000/podman/podman.sock"]) as server:
        yield server


@pytest.fixture
def client(server: engines.SSHServer, tmp_path: Path) -> Client:
    return connected(server, Client(tmp_path))


@pytest.mark.engine
def test_an_engine_is_reached_over_ssh(engine_name: str, tmp_path: Path, short_path: Path) -> None:
    """By the docker CLI on the other machine, and through a socket that ssh forwards, also after its restart."""
    with engines.Engine(engine_name) as engine, engines.SSHServer(engine) as server:
        client = connected(server, Client(tmp_path))
        version = json.loads(ask(engine, "GET", "/version"))["Version"]
        for _ in range(2):
            answer = client.run("there", "docker", "version", "--format", "{{.Server.Version}}")
            assert (answer.returncode, answer.stdout.strip()) == (0, version), answer.stderr
            engine.restart()
        local = short_path / "local.sock"
        with running(client.command("-N", "-L", f"{local}:/var/run/docker.sock", "there")):
            assert ask(until_listening(local), "GET", "/_ping") == b"OK"
            assert server.connections == 1
    assert [traces(daemon.state) for daemon in (server, engine)] == [[], []]


@pytest.mark.once
def test_the_socket_is_at_other_paths_too(client: Client) -> None:
    docker = ["docker", "--host", "unix:///run/user/1000/podman/podman.sock", "version", "--format", "{{.Server.Os}}"]
    assert client.run("there", *docker).stdout == "linux\n"


@pytest.mark.once
def test_another_user_may_nothing(client: Client) -> None:
    """Who logs in as `user` runs programs, and the Engine's socket is closed to them."""
    assert client.run("-l", "user", "there", "echo $(id -un) $HOME").stdout == "user /tmp\n"
    denied = client.run("-l", "user", "there", "docker", "version")
    assert (denied.returncode, "permission denied" in denied.stderr) == (1, True)


@pytest.mark.once
def test_only_an_authorized_key_logs_in(server: engines.SSHServer, tmp_path: Path) -> None:
    """Another key is refused, and so is a server that shows another key than it is known by."""
    stranger = Client(tmp_path)
    stranger.meet(f"{server.host}:{server.port}", server.host_key)
    refused = stranger.run("there", "true")
    assert (refused.returncode, "Permission denied (publickey)" in refused.stderr) == (255, True)
    connected(server, stranger)
    assert stranger.run("there", "true").returncode == 0
    host, kind, _ = server.host_key.split()
    stranger.meet(f"{server.host}:{server.port}", f"{host} {kind} {stranger.public_key.split()[1]}\n")
    assert "HOST IDENTIFICATION HAS CHANGED" in stranger.run("there", "true").stderr


@pytest.mark.once
def test_a_machine_may_lack_the_docker_cli(server: engines.SSHServer, client: Client) -> None:
    """What is in `programs` is on the machine's PATH, and what is not is not."""
    docker = server.programs / "docker"
    docker.rename(server.programs / "tractor")
    try:
        assert client.run("there", "docker", "version").returncode == 127
        assert client.run("there", "tractor", "--version").stdout.startswith("Docker version")
    finally:
        (server.programs / "tractor").rename(docker)


@pytest.mark.once
def test_a_server_without_an_engine_has_the_cli_alone(tmp_path: Path) -> None:
    with engines.SSHServer() as server:
        answer = connected(server, Client(tmp_path)).run("there", "docker", "version")
    assert (answer.returncode, "Cannot connect to the Docker daemon" in answer.stderr) == (1, True)


@pytest.mark.once
def test_a_server_is_configured_by_lines(engine: engines.Engine, tmp_path: Path, short_path: Path) -> None:
    """Lines of sshd_config, those for some alone too, hold: nothing is forwarded, and a command is forced."""
    lines = ["AllowStreamLocalForwarding no", "Match User user", "ForceCommand echo forced"]
    with engines.SSHServer(engine, config=lines) as server:
        client = connected(server, Client(tmp_path))
        assert client.run("-l", "user", "there", "true").stdout == "forced\n"
        assert client.run("there", "echo free").stdout == "free\n"
        local = short_path / "local.sock"
        with running(client.command("-N", "-L", f"{local}:/var/run/docker.sock", "there")):
            with pytest.raises(ConnectionError):
                ask(until_listening(local), "GET", "/_ping")


@pytest.mark.once
def test_a_server_that_cannot_start_says_why() -> None:
    broken = engines.SSHServer(config=["NoSuchOption yes"])
    with pytest.raises(engines.EngineError, match="Bad configuration option: NoSuchOption"), broken:
        pass
    assert traces(broken.state) == []


@pytest.mark.once
def test_a_server_whose_port_is_snatched_takes_another(snatched: list[str]) -> None:
    with engines.SSHServer() as server:
        assert len(snatched) == 1
        assert f"{server.host}:{server.port}" not in snatched


@pytest.mark.once
def test_a_server_keeps_its_address_and_its_key(server: engines.SSHServer, client: Client) -> None:
    """After a restart, or a kill and a start, who knew it and was known is so still; what ran has ended."""
    for interrupt in (server.restart, server.kill):
        with running(client.command("there", "echo up; exec sleep 60"), stdout=subprocess.PIPE) as session:
            assert session.stdout is not None
            assert session.stdout.readline() == b"up\n"
            before = server.pid, server.port, server.host_key
            interrupt()
            assert session.wait() == 255
        if interrupt == server.kill:
            assert not listens(f"{server.host}:{server.port}")
            server.start()
        assert (server.port, server.host_key) == before[1:]
        assert server.pid != before[0]
        assert client.run("there", "echo again").stdout == "again\n"


@pytest.mark.once
def test_a_paused_server_is_silent(server: engines.SSHServer, client: Client, short_path: Path) -> None:
    """Between pause and resume nothing answers: neither a connection that was open, nor a new one."""
    local = short_path / "local.sock"
    with running(client.command("-N", "-L", f"{local}:/var/run/docker.sock", "there")):
        assert ask(until_listening(local), "GET", "/_ping") == b"OK"
        server.pause()
        with pytest.raises(TimeoutError):
            ask(local, "GET", "/_ping", timeout=0.2)
        assert client.run("-o", "ConnectTimeout=1", "there", "true").returncode == 255
        server.resume()
        assert ask(local, "GET", "/_ping") == b"OK"


OWNER = """
import os, signal, sys
import engines
with engines.Engine(tcp=True) as engine, engines.SSHServer(engine) as server:
    server.authorize(sys.argv[1])
    print(engine.state, server.state, engine.tcp_address, f"{server.host}:{server.port}", flush=True)
    print(server.host_key, end="", flush=True)
    sys.stdin.readline()
    exec(sys.argv[2])
"""
WAYS_OUT: dict[str, tuple[str, int]] = {
    "success": ("pass", 0),
    "exception": ("1 / 0", 1),
    "exit": ("os._exit(3)", 3),
    **{
        kind.name: (f"os.kill(os.getpid(), signal.{kind.name}); signal.pause()", -kind)
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
    },
}


@pytest.mark.once
@pytest.mark.parametrize(("way", "status"), WAYS_OUT.values(), ids=WAYS_OUT)
def test_every_way_out_leaves_nothing(way: str, status: int, tmp_path: Path) -> None:
    """Whatever ends their owner while somebody is logged in, no process, mount, directory or open port stays."""
    client = Client(tmp_path)
    # A shell starts background jobs with SIGINT ignored, and nohup with SIGHUP, the tests perhaps among them.
    command = ["env", "--default-signal=INT,HUP", sys.executable, "-c", OWNER, client.public_key, way]
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        *directories, engine, server = owner.stdout.readline().decode().split()
        client.meet(server, owner.stdout.readline().decode())
        script = "sleep 60 </dev/null >/dev/null 2>&1 & echo up; exec sleep 60"
        with running(client.command("there", script), stdout=subprocess.PIPE) as session:
            assert session.stdout is not None
            assert session.stdout.readline() == b"up\n"
            owner.stdin.write(b"now\n")
            owner.stdin.flush()
            owner.stdout.read()  # whoever cleans up has it open until it is done
            assert owner.wait() == status
            assert session.wait() == 255
    assert [traces(Path(directory)) for directory in directories] == [[], []]
    assert (listens(engine), listens(server)) == (False, False)


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program is found on PATH, as on a machine without them."""
    monkeypatch.setenv("PATH", str(tmp_path / "none"))


@pytest.mark.once
@pytest.mark.usefixtures("bare_path")
def test_ssh_need_not_be_installed(server: engines.SSHServer, tmp_path: Path) -> None:
    """Where there is none, an unpacked one logs in, through a jump host too, for which it calls itself."""
    client = connected(server, Client(tmp_path))
    assert client.program.is_relative_to(os.environ.get("ENGINES_CACHE") or Path(__file__).parents[3])
    assert client.run("there", "echo in").stdout == "in\n"
    jump = client.run("-o", f"ProxyCommand={client.program} -F {client.config} -W %h:%p jump", "there", "echo in")
    assert (jump.stdout, jump.returncode) == ("in\n", 0), jump.stderr
    jump = client.run("-J", "jump", "there", "echo in")
    assert (jump.stdout, jump.returncode) == ("in\n", 0), jump.stderr


@pytest.mark.once
def test_the_machines_own_ssh_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "ssh"
    own.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert engines.ssh_client() == own
    assert engines.ssh_keygen() != tmp_path / "ssh-keygen"


@pytest.mark.once
@pytest.mark.usefixtures("bare_path")
def test_the_docker_cli_need_not_be_installed(engine: engines.Engine, tmp_path: Path) -> None:
    """It tells its version, reaches an Engine, and keeps contexts in files."""

    def docker(*arguments: str) -> str:
        environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": ""}
        command = [str(engines.docker_cli()), *arguments]
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    assert docker("--version").startswith("Docker version")
    docker("context", "create", "there", "--docker", f"host={engine.host}")
    (meta,) = tmp_path.glob("contexts/meta/*/meta.json")
    assert json.loads(meta.read_text())["Endpoints"]["docker"]["Host"] == engine.host
    assert docker("--context", "there", "version", "--format", "{{.Server.Os}}") == "linux\n"


def test_the_docker_cli_may_be_in_a_package_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Debian 13, whose docker.io has the daemon alone."""
    monkeypatch.setenv("ENGINES_CACHE", str(tmp_path))
    root = packages.unpacked_at("docker.io")
    program = packages.unpacked_at("docker-cli") / "usr/bin/docker"
    root.mkdir(parents=True)
    program.parent.mkdir(parents=True)
    program.touch()
    assert engines.docker_cli() == program


def test_a_client_of_a_moved_cache_is_made_anew(tmp_path: Path) -> None:
    """The script names directories, so it is another where these are; without a dynamic linker there is none."""
    linker = tmp_path / "before/lib/triplet/ld-linux-triplet.so.2"
    linker.parent.mkdir(parents=True)
    with pytest.raises(engines.EngineError, match="no dynamic linker"):
        packages.program(tmp_path / "before", "ssh")
    linker.symlink_to("/usr/bin/echo")
    for name in ("before", "after"):
        program = packages.program(tmp_path / name, "ssh")
        said = subprocess.run([program, "there"], stdout=subprocess.PIPE, text=True, check=True).stdout
        libraries = f"{tmp_path}/{name}/lib/triplet:{tmp_path}/{name}/usr/lib/triplet"
        assert said == f"--library-path {libraries} --argv0 {program} {tmp_path}/{name}/usr/bin/ssh there\n"
        assert list(program.parent.iterdir()) == [program]
        if name == "before":
            (tmp_path / "before").rename(tmp_path / "after")

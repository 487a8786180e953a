"""ssh:// with a real OpenSSH server and client: real Engines behind it, and everything that it refuses."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

import engines
from aiodocker_images import (
    DaemonUnreachableError,
    Endpoint,
    ImageService,
    ProgressFrame,
    StreamInterruptedError,
)
from tests.conftest import Leftovers
from tests.support.docker_contexts import run_docker
from tests.support.slow_registry import SlowRegistry
from tests.support.tars import root_file_system
from tests.support.ways_out import WAYS_OUT, WayOut

OTHER = "/run/other/docker.sock"
# sshd's default: the eleventh session of a connection is refused, and so is, at random, the eleventh log-in at a time.
SSHD_CONFIG = ("MaxSessions 10", "MaxStartups 10:30:100")


class Client:
    """A user of ssh: a directory with a key, the known hosts, a configuration, and an `ssh` that reads these."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "key"
        self.known_hosts = directory / "known_hosts"
        subprocess.run([engines.ssh_keygen(), "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.known_hosts.touch()
        # OpenSSH looks for a user's files where the user database says, whatever HOME is. exec, for the process's sake.
        (directory / "ssh").write_text(f'#!/bin/sh\nexec {engines.ssh_client()} -F {directory}/config "$@"\n')
        (directory / "ssh").chmod(stat.S_IRWXU)

    def configure(self, server: engines.SSHServer, *lines: str, user: str = "root") -> None:
        """Write the configuration: the host `remote` is the server."""
        (self.directory / "config").write_text(
            "\n".join(
                [
                    *lines,
                    f"UserKnownHostsFile {self.known_hosts}",
                    "GlobalKnownHostsFile /dev/null",
                    f"IdentityFile {self.key}",
                    "IdentitiesOnly yes",
                    "IdentityAgent none",
                    f"Host remote\n  HostName {server.host}\n  Port {server.port}\n  User {user}\n",
                ]
            )
        )

    def trust(self, server: engines.SSHServer) -> None:
        self.known_hosts.write_text(server.host_key)
        server.authorize(self.key.with_suffix(".pub").read_text())


@pytest.fixture(scope="module")
def docker(engine_name: str) -> Iterator[engines.Engine]:
    with engines.Engine(engine_name) as engine:
        yield engine


@pytest.fixture(scope="module")
def server(docker: engines.Engine) -> Iterator[engines.SSHServer]:
    with engines.SSHServer(docker, sockets=[OTHER], config=SSHD_CONFIG) as server:
        yield server


@pytest.fixture
def stranger(tmp_path: Path, server: engines.SSHServer, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Somebody whom the server does not know, and who does not know the server."""
    client = Client(tmp_path)
    client.configure(server)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return client


@pytest.fixture
def client(stranger: Client, server: engines.SSHServer) -> Client:
    stranger.trust(server)
    return stranger


async def until_disconnected(server: engines.SSHServer) -> None:
    async with asyncio.timeout(10):
        while server.connections:
            await asyncio.sleep(0.02)


@pytest.mark.engine
@pytest.mark.parametrize("path", ["", OTHER], ids=["the remote's own socket", "a named socket"])
async def test_an_image_goes_both_ways(
    server: engines.SSHServer, client: Client, tmp_path: Path, leftovers: Leftovers, path: str
) -> None:
    before = leftovers.now()
    name = f"localhost/ssh-{secrets.token_hex(4)}:1"
    async with ImageService(f"ssh://root@{server.host}:{server.port}{path}") as images:
        imported = await images.import_image(root_file_system(3 << 20), reference=name)
        await images.save(name, to=tmp_path / "image.tar")
        await images.remove(name)
        loaded = await images.load(tmp_path / "image.tar")
        assert loaded.references == (name,)
        assert (await images.inspect(name)).id == imported.id
        assert server.connections == 1
    await until_disconnected(server)
    await leftovers.settle(before)


@pytest.mark.engine
@pytest.mark.parametrize("leave", WAYS_OUT, ids=lambda way: way.__name__)
async def test_leaving_a_pull_ends_the_remote_engines_work(
    server: engines.SSHServer, client: Client, leftovers: Leftovers, leave: WayOut
) -> None:
    before = leftovers.now()
    async with ImageService("ssh://remote") as images, asyncio.timeout(60):
        await images.ping()
        async with SlowRegistry() as registry:
            for _ in range(3):
                await leave(images, registry.image)
            while registry.open_blobs:
                await asyncio.sleep(0.01)
        await images.ping()
    await until_disconnected(server)
    await leftovers.settle(before)


async def drained(stream: AsyncGenerator[ProgressFrame, None]) -> None:
    async for _ in stream:
        pass


@pytest.mark.once
async def test_twenty_streams_log_in_once(server: engines.SSHServer, client: Client) -> None:
    """Neither the sessions of a connection nor the log-ins at a time bound them."""
    async with SlowRegistry() as registry, ImageService("ssh://remote") as images:
        streams = [images.pull_stream(registry.image) for _ in range(20)]
        await asyncio.gather(*map(anext, streams))
        await images.ping()
        assert server.connections == 1
        registry.finish()
        await asyncio.gather(*map(drained, streams))
        await images.remove(registry.image)


def forwardings() -> list[str]:
    """What the ssh processes of this one forward."""
    found: list[str] = []
    for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        found += [words[index + 1] for index, word in enumerate(words) if word == "-L"]
    return found


@pytest.mark.once
async def test_without_a_path_it_is_where_the_remote_docker_cli_would_connect(
    docker: engines.Engine, stranger: Client
) -> None:
    """The real CLI says so itself, as `docker -H ssh://…` would ask it."""
    config = [f"SetEnv DOCKER_HOST=unix://{OTHER}", "AllowStreamLocalForwarding yes"]
    with engines.SSHServer(docker, sockets=[OTHER], config=config) as server:
        stranger.configure(server)
        stranger.trust(server)
        async with ImageService("ssh://remote") as images:
            await images.ping()
            assert forwardings() == [f"./docker.sock:{OTHER}"]


@pytest.mark.once
async def test_a_remote_without_the_docker_cli_is_reached_at_the_default_socket(
    server: engines.SSHServer, client: Client
) -> None:
    (server.programs / "docker").rename(server.programs / "gone")
    try:
        async with ImageService("ssh://remote") as images:
            await images.ping()
    finally:
        (server.programs / "gone").rename(server.programs / "docker")


def _forget_the_host(client: Client, _: engines.SSHServer) -> None:
    client.known_hosts.write_text("")


def _change_the_host_key(client: Client, server: engines.SSHServer) -> None:
    other = client.key.with_suffix(".pub").read_text().split()[1]
    client.known_hosts.write_text(f"[{server.host}]:{server.port} ssh-ed25519 {other}\n")


def _lose_the_key(client: Client, _: engines.SSHServer) -> None:
    client.key.unlink()


def _encrypt_the_key(client: Client, _: engines.SSHServer) -> None:
    subprocess.run([engines.ssh_keygen(), "-q", "-p", "-N", "s3cret", "-f", client.key], check=True)


def _be_nobody(client: Client, server: engines.SSHServer) -> None:
    client.configure(server, user="user")


REFUSED: dict[str, tuple[Callable[[Client, engines.SSHServer], None], str, str]] = {
    "an unknown host": (_forget_the_host, "", r"ssh does not get there: Host key verification failed\.; does 'ssh"),
    "another host": (_change_the_host_key, "", r"ssh does not get there: Host key verification failed\."),
    "no key": (_lose_the_key, "", r"ssh does not get there: .*Permission denied \(publickey\)"),
    "a passphrase": (_encrypt_the_key, "", r"ssh does not get there: .*Permission denied \(publickey\)"),
    "a user who may not": (
        _be_nobody,
        "",
        r"cannot connect: the remote socket did not take it \(channel .* failed.*\); is it there, may this user",
    ),
    "no such socket": (
        lambda client, server: None,
        "/run/nowhere.sock",
        r"cannot connect: the remote socket did not take it \(channel .* failed.*\); is it there, may this user",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize(("spoil", "path", "message"), REFUSED.values(), ids=REFUSED)
async def test_what_ssh_refuses_is_told_in_its_own_words_and_nobody_is_asked(
    server: engines.SSHServer,
    client: Client,
    leftovers: Leftovers,
    spoil: Callable[[Client, engines.SSHServer], None],
    path: str,
    message: str,
) -> None:
    spoil(client, server)
    before = leftovers.now()
    async with ImageService(Endpoint.resolve(environ={"DOCKER_HOST": f"ssh://remote{path}"})) as images:
        for call in (images.ping, images.list):
            with pytest.raises(DaemonUnreachableError, match=message) as caught:
                await call()
            assert str(caught.value).endswith(f"(at ssh://remote{path} from DOCKER_HOST)")
    await until_disconnected(server)
    await leftovers.settle(before)


@pytest.mark.once
async def test_a_server_that_forwards_no_sockets_says_so(docker: engines.Engine, stranger: Client) -> None:
    with engines.SSHServer(docker, config=["AllowStreamLocalForwarding no"]) as server:
        stranger.configure(server)
        stranger.trust(server)
        async with ImageService("ssh://remote") as images:
            with pytest.raises(DaemonUnreachableError, match=r"\(AllowStreamLocalForwarding\)\?"):
                await images.ping()


@pytest.mark.once
async def test_nobody_there_is_told(stranger: Client, unused_tcp_port: int, server: engines.SSHServer) -> None:
    async with ImageService(f"ssh://127.0.0.1:{unused_tcp_port}") as images:
        with pytest.raises(DaemonUnreachableError, match=r"Connection refused; does 'ssh -p \d+ 127\.0\.0\.1 true'"):
            await images.ping()
    server.pause()
    try:
        async with ImageService("ssh://remote", connect_timeout=0.5) as images:
            with pytest.raises(DaemonUnreachableError, match=r"no connection within 0\.5 s"):
                await images.ping()
    finally:
        server.resume()


@pytest.mark.once
async def test_a_cut_ends_the_streams_and_the_next_call_logs_in_again(
    docker: engines.Engine, stranger: Client, leftovers: Leftovers
) -> None:
    before = leftovers.now()
    with engines.SSHServer(docker) as server:
        stranger.configure(server)
        stranger.trust(server)
        async with ImageService("ssh://remote") as images, SlowRegistry() as registry:
            stream = images.pull_stream(registry.image)
            await anext(stream)
            await asyncio.to_thread(server.kill)
            with pytest.raises(StreamInterruptedError) as caught:
                async for _ in stream:
                    pass
            assert "the connection to the daemon ended in mid-answer" in str(caught.value)
            with pytest.raises(DaemonUnreachableError, match="Connection refused"):
                await images.ping()
            await asyncio.to_thread(server.start)
            await images.ping()
    await leftovers.settle(before)


OWNER = """
import asyncio
from aiodocker_images import ImageService

async def main():
    images = ImageService("ssh://remote")
    async for frame in images.events():
        pass

asyncio.run(main())
"""


@pytest.mark.once
async def test_ssh_ends_when_the_program_is_killed(server: engines.SSHServer, client: Client) -> None:
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER)
    async with asyncio.timeout(20):
        while not server.connections:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    await until_disconnected(server)


@pytest.mark.once
async def test_the_real_docker_cli_writes_the_contexts(
    server: engines.SSHServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each way of choosing one, as `docker --context` would."""
    configuration = tmp_path / "docker"
    monkeypatch.setenv("DOCKER_CONFIG", str(configuration))
    monkeypatch.delenv("DOCKER_HOST")

    await run_docker("context", "create", "over-ssh", "--docker", "host=ssh://remote")
    await run_docker("context", "use", "over-ssh")
    assert Endpoint.resolve().source.startswith('context "over-ssh" in ')
    async with ImageService() as images:
        await images.ping()
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert Endpoint.resolve().source == "default socket"
    monkeypatch.setenv("DOCKER_CONTEXT", "over-ssh")
    async with ImageService() as images:
        assert (await images.ping()).api_version

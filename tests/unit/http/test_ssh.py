"""One ssh process brings a remote Engine here, for as long as the service lives, and whatever becomes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aiodocker_images import DaemonUnreachableError, Endpoint, ImageService, ServiceClosedError, StreamInterruptedError
from aiodocker_images._http import ssh as _ssh
from tests.conftest import Leftovers
from tests.support.fake_ssh import FakeSSH
from tests.support.scripted import Exchange, ScriptedDaemon

REMOTE = "ssh://me@remote:2222/run/docker.sock"
DOWNLOADING = {"status": "Downloading", "id": "0123456789ab"}
DONE = {"status": "Status: Downloaded newer image for alpine:3.20"}
STAY = "echo; exec cat"


async def pull_for_ever(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.frames(DOWNLOADING)
    await exchange.client_gone()


async def pull(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.frames(*[DOWNLOADING] * 50, DONE)
    await exchange.end()


@pytest.fixture
def ssh(tmp_path: Path, daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch) -> FakeSSH:
    daemon.on("POST", "/images/create", pull)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return FakeSSH(tmp_path, daemon.socket)


async def test_ssh_is_called_without_a_shell_and_never_asks(ssh: FakeSSH) -> None:
    """Whatever the user's own configuration says: no prompt, no sharing, no other forwarding of ours."""
    async with ImageService(REMOTE) as images:
        await images.ping()
        ((_, arguments, directory),) = ssh.calls
        assert Path(directory).stat().st_mode & 0o777 == 0o700
    options = [arguments[index + 1] for index, word in enumerate(arguments) if word == "-o"]
    assert {"BatchMode=yes", "ControlPath=none", "ExitOnForwardFailure=no", "RemoteCommand=none"} <= set(options)
    assert not any("HostKey" in option or "KnownHosts" in option for option in options)
    tail = ["-L", "./docker.sock:/run/docker.sock", "-l", "me", "-p", "2222", "--", "remote", STAY]
    assert arguments[-len(tail) :] == tail


async def test_what_is_not_given_is_left_to_the_configuration_of_the_user(ssh: FakeSSH) -> None:
    async with ImageService("ssh://remote") as images:
        await images.ping()
    ((_, arguments, _),) = ssh.calls
    assert not {"-l", "-p"} & set(arguments)
    assert arguments[-3:-1] == ["--", "remote"]
    assert "./docker.sock:/var/run/docker.sock" in arguments


async def test_without_a_path_it_is_the_socket_that_the_remote_docker_cli_uses(ssh: FakeSSH) -> None:
    ssh.behave("unix:///run/user/1000/docker.sock")
    async with ImageService("ssh://remote") as images:
        await images.pull("alpine:3.20")
        (_, first, _), (_, second, _) = ssh.calls
        assert first[-1] == f"docker context inspect --format '{{{{.Endpoints.docker.Host}}}}'; {STAY}"
        assert "./docker.sock:/run/user/1000/docker.sock" in second
        assert second[-1] == STAY
    ssh.assert_gone()


@pytest.mark.parametrize(
    "named",
    ["unix:///var/run/docker.sock", "unix://a b", "unix:///a:b", "unix:///%h", "unix:///a/../b", "x", "unix://"],
)
async def test_what_the_remote_names_is_forwarded_to_only_if_it_is_a_plain_path(ssh: FakeSSH, named: str) -> None:
    ssh.behave(named if named.startswith("unix://") else f"unix://{named}")
    async with ImageService("ssh://remote") as images:
        await images.ping()
    ((_, arguments, _),) = ssh.calls
    assert "./docker.sock:/var/run/docker.sock" in arguments


async def test_a_talkative_shell_is_listened_to_within_bounds(ssh: FakeSSH, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ssh, "MAX_GREETING", 1 << 20)
    ssh.behave("has a talkative shell")
    async with ImageService("ssh://remote") as images:
        await images.ping()


async def test_twenty_streams_and_fifty_first_calls_share_one_ssh(ssh: FakeSSH) -> None:
    async with ImageService(REMOTE) as images:
        await asyncio.gather(*(images.pull("alpine:3.20") for _ in range(20)), *(images.ping() for _ in range(50)))
    assert len(ssh.calls) == 1


async def test_nothing_is_left_when_the_service_is_closed(ssh: FakeSSH, leftovers: Leftovers) -> None:
    before = leftovers.now()
    async with ImageService(REMOTE) as images:
        await images.pull("alpine:3.20")
    await images.aclose()
    ssh.assert_gone()
    await leftovers.settle(before)
    with pytest.raises(ServiceClosedError):
        await images.ping()


REFUSALS = {
    "denies": "ssh does not get there: me@remote: Permission denied (publickey).;"
    " does 'ssh -p 2222 me@remote true' work without being asked anything?",
    "prompts": "ssh does not get there: no terminal;",
    "makes no socket": "ssh does not get there: it made no socket for /run/docker.sock: docker: command not found;",
}


@pytest.mark.parametrize(("behaviour", "message"), REFUSALS.items(), ids=REFUSALS)
async def test_why_ssh_does_not_get_there_is_said_in_its_own_words(
    ssh: FakeSSH, leftovers: Leftovers, behaviour: str, message: str
) -> None:
    ssh.behave(behaviour)
    before = leftovers.now()
    async with ImageService(Endpoint.resolve(environ={"DOCKER_HOST": REMOTE})) as images:
        for _ in range(2):
            with pytest.raises(DaemonUnreachableError) as caught:
                await images.pull("alpine:3.20")
            assert message in str(caught.value)
            assert f"(at {REMOTE} from DOCKER_HOST)" in str(caught.value)
    ssh.assert_gone()
    await leftovers.settle(before)


@pytest.mark.parametrize("behaviour", ["is silent", "ignores the end", "never stops talking"])
async def test_connecting_takes_no_longer_than_it_may(ssh: FakeSSH, leftovers: Leftovers, behaviour: str) -> None:
    ssh.behave(behaviour)
    before = leftovers.now()
    async with ImageService(REMOTE, connect_timeout=0.3) as images:
        with pytest.raises(DaemonUnreachableError, match=r"no connection within 0\.3 s"):
            await images.ping()
    ssh.assert_gone()
    await leftovers.settle(before)


async def test_a_connection_that_the_remote_end_refuses_is_no_interruption(ssh: FakeSSH) -> None:
    ssh.behave("refuses connections")
    async with ImageService(REMOTE) as images:
        with pytest.raises(DaemonUnreachableError, match=r"\(channel 2: open failed: connect failed: No such file"):
            await images.ping()
    ssh.assert_gone()


async def test_without_ssh_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with ImageService(REMOTE) as images:
        with pytest.raises(
            DaemonUnreachableError, match="an ssh:// endpoint needs OpenSSH's ssh, which is not on PATH"
        ):
            await images.ping()


async def test_a_broken_tunnel_ends_the_streams_and_the_next_call_opens_another(
    ssh: FakeSSH, daemon: ScriptedDaemon
) -> None:
    daemon.on("POST", "/images/create", pull_for_ever)
    async with ImageService(REMOTE) as images:
        stream = images.pull_stream("alpine:3.20")
        await anext(stream)
        ((pid, _, _),) = ssh.calls
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(StreamInterruptedError):
            await anext(stream)
        await daemon.idle()
        await images.ping()
        assert len(ssh.calls) == 2
    ssh.assert_gone()


async def test_a_call_that_is_cancelled_while_ssh_connects_leaves_nothing(ssh: FakeSSH, leftovers: Leftovers) -> None:
    ssh.behave("is silent")
    before = leftovers.now()
    async with ImageService(REMOTE) as images:
        task = asyncio.create_task(images.ping())
        while not ssh.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ssh.behave("forwards")
        await images.ping()
    ssh.assert_gone()
    await leftovers.settle(before)


async def test_closing_the_service_while_ssh_connects_ends_both(ssh: FakeSSH, leftovers: Leftovers) -> None:
    ssh.behave("is silent")
    before = leftovers.now()
    images = ImageService(REMOTE)
    tasks = [asyncio.create_task(images.pull("alpine:3.20")) for _ in range(3)]
    while not ssh.calls:
        await asyncio.sleep(0.01)
    await images.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [StreamInterruptedError] * 3
    assert all("the service was closed in the middle of it" in str(result) for result in results)
    assert len(ssh.calls) == 1
    ssh.assert_gone()
    await leftovers.settle(before)


_CARELESS = """
import asyncio, os
from aiodocker_images import ImageService

async def main(steps):
    task = asyncio.create_task(ImageService({endpoint!r}).ping())
    for _ in range(steps):
        await asyncio.sleep(0)
    await asyncio.sleep(0.002 * max(0, steps - 20))
    while steps == 39 and not os.path.exists({calls!r}):
        await asyncio.sleep(0.005)

for steps in range(40):
    asyncio.run(main(steps))
    print(steps, flush=True)
"""


async def test_a_loop_that_ends_while_ssh_starts_ends_at_once(ssh: FakeSSH) -> None:
    """asyncio.run cancels every task, at whatever step; asyncio's own subprocesses then hang."""
    ssh.behave("is silent")
    script = _CARELESS.format(endpoint=REMOTE, calls=str(ssh.directory / "calls"))
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    async with asyncio.timeout(30):
        output, _ = await owner.communicate()
    assert output.split()[-1] == b"39"
    assert ssh.calls
    await asyncio.to_thread(ssh.wait_until_gone)
    ssh.assert_gone()


_OWNER = """
import asyncio, os, signal
from aiodocker_images import ImageService

async def main():
    images = ImageService({endpoint!r})
    await images.ping()
    print("open", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
async def test_ssh_ends_with_the_process_that_needs_it(ssh: FakeSSH, end: signal.Signals) -> None:
    """Its standard input closes, whatever ended the owner, and however carelessly that was written."""
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER.format(endpoint=REMOTE), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert owner.stdout is not None
    assert await owner.stdout.readline() == b"open\n"
    owner.send_signal(end)
    await owner.wait()
    await asyncio.to_thread(ssh.wait_until_gone)
    for _, _, directory in ssh.calls:
        assert not Path(directory, "docker.sock").exists()
        if end == signal.SIGKILL:
            Path(directory).rmdir()
        assert not Path(directory).exists()

"""A remote Engine's socket, brought here by the user's own OpenSSH: one ssh process, one forwarded socket.

One process serves all connections of a service. Twenty streams through one forwarding log in once and all arrive;
with `docker system dial-stdio`, which the docker CLI runs for each connection, they took four times as long, and
two to five of the twenty were lost: sshd drops log-ins at random while ten others are under way (MaxStartups
10:30:100). benchmarks/ssh_streams.py measures it.

The remote end runs `cat`: it ends when our end of its standard input closes, even if this process is killed, and
ssh ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiodocker_images._aio.program import Program, ProgramError, find_program
from aiodocker_images._aio.threads import in_thread, outlast
from aiodocker_images.endpoint import DEFAULT_SOCKET, SSH_PATH, SSHTarget
from aiodocker_images.errors import DaemonUnreachableError

__all__ = ["SSHTunnel"]

MAX_SAID: Final = 4096
"""Bytes that are kept of what ssh writes to its standard error, the last ones; a login banner comes first."""

MAX_GREETING: Final = 64 << 10
"""Bytes that the remote shell may write before it is ready: an `echo` in somebody's .bashrc, not a stream."""

_LOCAL_SOCKET: Final = "docker.sock"
_LONGEST_DIRECTORY: Final = 80  # the path of a unix socket ends at 104 bytes on macOS, 108 on Linux

# What the docker CLI of the remote user would connect to; an empty line says that this is all.
_ASK: Final = "docker context inspect --format '{{.Endpoints.docker.Host}}'; "
_STAY: Final = "echo; exec cat"

_GREETED: Final = re.compile(rb"(?:\A|\n)\r?\n")

_OPTIONS: Final = (
    "BatchMode=yes",  # never ask: nobody is there to answer
    "ControlPath=none",  # a shared connection would keep the forwarding when this process is gone
    "ExitOnForwardFailure=no",  # of the forwardings in the user's configuration, which another ssh may have already
    "StreamLocalBindUnlink=yes",  # what an earlier process of ours left
    "StreamLocalBindMask=0177",
    "RemoteCommand=none",
    "LogLevel=INFO",  # a refused forwarding is told at this level
)


class _SSH:
    """One ssh process: what it says, and when it is ready or has ended.

    The end of its standard input that is held here closes with this process, however that ends.
    """

    def __init__(self, command: Sequence[str], directory: str | None) -> None:
        self.said = bytearray()
        self.greeting = bytearray()
        self.heard = asyncio.Event()
        self.over = False
        readable, self._stdin = os.pipe()
        try:
            self.program = Program(command, environ=os.environ, stdin=readable, heard=self._hear, directory=directory)
        except BaseException:
            os.close(self._stdin)
            raise
        finally:
            os.close(readable)

    @property
    def open(self) -> bool:
        """Whether the tunnel is open: that its output ends shows before its own end."""
        return self.heard.is_set() and not self.over and not self.program.ended.is_set()

    async def ready(self) -> bool:
        """Wait until the remote shell is ready; False if ssh ends instead."""
        await self.heard.wait()
        if self.over:
            await self.program.finished()
        return not self.over

    def end(self) -> asyncio.Future[None]:
        """Kill it; the result is there when it is gone."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        return self.program.end()

    def abandon(self) -> None:
        """Kill it without the loop that it was started in, which is closed."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        self.program.abandon()

    def _hear(self, data: bytes, errors: bool) -> None:
        if errors:
            self.said += data
            del self.said[:-MAX_SAID]
            return
        self.greeting += data[: MAX_GREETING - len(self.greeting)]
        self.over = not data
        if self.over or _GREETED.search(self.greeting):
            self.heard.set()


class SSHTunnel:
    """Opens the tunnel when it is needed, again after it broke, and ends it."""

    def __init__(self, target: SSHTarget) -> None:
        self._target = target
        self._remote_path = target.path
        self._lock = asyncio.Lock()
        self._closed = False
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._ssh: _SSH | None = None

    @property
    def socket_path(self) -> str:
        """The local socket, where the Engine answers while the tunnel is open."""
        if self._directory is None:
            raise RuntimeError("open() comes first")
        return f"{self._directory.name}/{_LOCAL_SOCKET}"

    @property
    def said(self) -> str:
        """The last line that ssh wrote: why it ended, or why it refused a connection."""
        lines = self._ssh.said.decode(errors="replace").splitlines() if self._ssh else []
        told = [line.strip() for line in lines if line.strip()]
        return told[-1] if told else ""

    async def open(self, within: float | None) -> None:
        """Return when the tunnel is open; raise `DaemonUnreachableError` if it is not `within` so many seconds."""
        if self._is_open():
            return
        async with self._lock:
            if self._is_open():
                return
            if self._directory is None:
                self._directory = await in_thread(_private_directory)
            try:
                async with asyncio.timeout(within):
                    await self._end()  # what is left of one that broke
                    await self._start()
            except BaseException as error:
                await self._end()
                if isinstance(error, TimeoutError):
                    raise self._unreachable(f"no connection within {within} s") from None
                raise

    async def reopen(self, within: float | None) -> None:
        """Open it again after a connection through it failed: that shows sooner than the end of ssh does."""
        failed = self._ssh
        async with self._lock:
            if failed is self._ssh:
                await self._end()
        await self.open(within)

    async def aclose(self) -> None:
        """End ssh and remove its socket. Idempotent."""
        self._closed = True
        await self._end()  # which ends an open() under way as well
        async with self._lock:
            if self._directory is not None:
                await in_thread(self._directory.cleanup)
                self._directory = None

    def abandon(self) -> None:
        """Do the same without the loop that it was opened in, which is closed."""
        self._closed = True
        if self._ssh is not None:
            self._ssh.abandon()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _is_open(self) -> bool:
        return self._ssh is not None and self._ssh.open

    async def _start(self) -> None:
        path = self._remote_path or DEFAULT_SOCKET
        ssh = await self._run(path, _STAY if self._remote_path else _ASK + _STAY)
        if self._remote_path is None:
            self._remote_path = _socket_in(ssh.greeting) or path
            if self._remote_path != path:
                await self._end()
                ssh = await self._run(self._remote_path, _STAY)
        # Forwardings are set up before the remote command is run.
        if not await in_thread(Path(self.socket_path).is_socket):
            raise self._unreachable(f"it made no socket for {self._remote_path}: {self.said}")
        ssh.said.clear()  # a login banner; what comes now is about connections

    async def _run(self, path: str, command: str) -> _SSH:
        target = self._target
        options = [
            *("-T", "-x", "-a"),
            *(word for option in _OPTIONS for word in ("-o", option)),
            *("-L", f"./{_LOCAL_SOCKET}:{path}"),
            *(("-l", target.user) if target.user else ()),
            *(("-p", str(target.port)) if target.port else ()),
        ]
        try:
            program = await in_thread(find_program, "ssh", os.environ)
            if self._closed:
                raise self._unreachable("it was closed meanwhile")
            directory = None if self._directory is None else self._directory.name
            self._ssh = ssh = _SSH([program, *options, "--", target.host, command], directory)
        except ProgramError as error:
            raise DaemonUnreachableError(f"an ssh:// endpoint needs OpenSSH's ssh, which {error}") from error
        if not await ssh.ready():
            raise self._unreachable(self.said or f"it ended with status {ssh.program.status}")
        return ssh

    def _unreachable(self, reason: str) -> DaemonUnreachableError:
        target = self._target
        words = ["ssh", *(["-p", str(target.port)] if target.port else [])]
        words.append(f"{target.user}@{target.host}" if target.user else target.host)
        return DaemonUnreachableError(
            f"ssh does not get there: {reason}; does {' '.join([*words, 'true'])!r} work without being asked anything?"
        )

    async def _end(self) -> None:
        if self._ssh is not None:
            await outlast(self._ssh.end())


def _socket_in(greeting: bytes | bytearray) -> str | None:
    """Return the path of the remote socket, if the remote docker CLI named one that can be forwarded to."""
    for line in greeting.decode(errors="replace").split():
        scheme, _, path = line.partition("unix://")
        if not scheme and SSH_PATH.fullmatch(path):
            return path
    return None


def _private_directory() -> tempfile.TemporaryDirectory[str]:
    """Make a directory for the socket, which is as good as root on the remote machine: for this user alone."""
    places = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108 - the name is new
    for place in places:
        if place and len(place) < _LONGEST_DIRECTORY:
            with contextlib.suppress(OSError):
                return tempfile.TemporaryDirectory(prefix="adi-ssh-", dir=place, ignore_cleanup_errors=True)
    raise DaemonUnreachableError(f"no directory for the forwarded socket can be made in any of {places}")

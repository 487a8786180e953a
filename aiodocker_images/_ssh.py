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
import shutil
import tempfile
from pathlib import Path
from typing import Final

from ._threads import in_thread, outlast
from .endpoint import DEFAULT_SOCKET, SSH_PATH, SSHTarget
from .errors import DaemonUnreachableError

__all__ = ["SSHTunnel"]

MAX_SAID: Final = 4096
"""Bytes that are kept of what ssh writes to its standard error, the last ones; a login banner comes first."""

MAX_GREETING: Final = 64 << 10
"""Bytes that the remote shell may write before it is ready: an `echo` in somebody's .bashrc, not a stream."""

GRACE: Final = 2.0
"""Seconds that ssh has to end by itself before it is killed."""

_LOCAL_SOCKET: Final = "docker.sock"
_LONGEST_DIRECTORY: Final = 80  # the path of a unix socket ends at 104 bytes on macOS, 108 on Linux

# What the docker CLI of the remote user would connect to; an empty line says that this is all.
_ASK: Final = "docker context inspect --format '{{.Endpoints.docker.Host}}'; "
_STAY: Final = "echo; exec cat"

_OPTIONS: Final = (
    "BatchMode=yes",  # never ask: nobody is there to answer
    "ControlPath=none",  # a shared connection would keep the forwarding when this process is gone
    "ExitOnForwardFailure=no",  # of the forwardings in the user's configuration, which another ssh may have already
    "StreamLocalBindUnlink=yes",  # what an earlier process of ours left
    "StreamLocalBindMask=0177",
    "RemoteCommand=none",
    "LogLevel=INFO",  # a refused forwarding is told at this level
)


class _Process(asyncio.SubprocessProtocol):
    """Hears what ssh says, and when it ends. No task of its own is needed for that."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.greeting = bytearray()
        self.ready = asyncio.Event()  # or ended
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.broken = False

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self.greeting += data[: MAX_GREETING - len(self.greeting)]
            if self.greeting.startswith((b"\n", b"\r\n")) or b"\n\n" in self.greeting or b"\n\r\n" in self.greeting:
                self.ready.set()
        else:
            self.said += data
            del self.said[:-MAX_SAID]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        # Its end shows here at once, and as an exit only when a thread of asyncio's has waited for it.
        self.broken = True

    def process_exited(self) -> None:
        self.ready.set()
        if not self.exited.done():
            self.exited.set_result(None)


class SSHTunnel:
    """Opens the tunnel when it is needed, again after it broke, and ends it."""

    def __init__(self, target: SSHTarget) -> None:
        self._target = target
        self._remote_path = target.path
        self._lock = asyncio.Lock()
        self._closed = False
        self._directory: str | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._process: _Process | None = None

    @property
    def socket_path(self) -> str:
        """The local socket, where the Engine answers while the tunnel is open."""
        if self._directory is None:
            raise RuntimeError("open() comes first")
        return f"{self._directory}/{_LOCAL_SOCKET}"

    @property
    def said(self) -> str:
        """The last line that ssh wrote: why it ended, or why it refused a connection."""
        lines = self._process.said.decode(errors="replace").splitlines() if self._process else []
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
        broken = self._process
        async with self._lock:
            if broken is not None and self._process is broken:
                broken.broken = True
        await self.open(within)

    async def aclose(self) -> None:
        """End ssh and remove its socket. Again is harmless."""
        self._closed = True
        await self._end()  # which ends an open() under way as well
        async with self._lock:
            if self._directory is not None:
                await in_thread(shutil.rmtree, self._directory, ignore_errors=True)
                self._directory = None

    def _is_open(self) -> bool:
        return self._process is not None and self._process.ready.is_set() and not self._process.broken

    async def _start(self) -> None:
        path = self._remote_path or DEFAULT_SOCKET
        process = await self._run(path, _STAY if self._remote_path else _ASK + _STAY)
        if self._remote_path is None:
            self._remote_path = _socket_in(process.greeting) or path
            if self._remote_path != path:
                await self._end()
                process = await self._run(self._remote_path, _STAY)
        # Forwardings are set up before the remote command is run.
        if not await in_thread(Path(self.socket_path).is_socket):
            raise self._unreachable(f"it made no socket for {self._remote_path}: {self.said}")
        process.said.clear()  # a login banner; what comes now is about connections

    async def _run(self, path: str, command: str) -> _Process:
        target = self._target
        arguments = [
            *("-T", "-x", "-a"),
            *(word for option in _OPTIONS for word in ("-o", option)),
            *("-L", f"./{_LOCAL_SOCKET}:{path}"),
            *(("-l", target.user) if target.user else ()),
            *(("-p", str(target.port)) if target.port else ()),
            *("--", target.host, command),
        ]
        try:
            # In a session of its own it has no terminal to ask at, and gets no Ctrl-C that is meant for the program.
            transport, protocol = await asyncio.get_running_loop().subprocess_exec(
                _Process, "ssh", *arguments, cwd=self._directory, start_new_session=True
            )
        except OSError as error:
            raise DaemonUnreachableError(f"an ssh:// endpoint needs OpenSSH's ssh: {error.strerror}") from error
        self._transport, self._process = transport, protocol
        if self._closed:
            raise self._unreachable("it was closed meanwhile")
        await self._process.ready.wait()
        if self._process.exited.done():
            raise self._unreachable(self.said or f"it ended with status {transport.get_returncode()}")
        return self._process

    def _unreachable(self, reason: str) -> DaemonUnreachableError:
        target = self._target
        words = ["ssh", *(["-p", str(target.port)] if target.port else [])]
        words.append(f"{target.user}@{target.host}" if target.user else target.host)
        return DaemonUnreachableError(
            f"ssh does not get there: {reason}; does {' '.join([*words, 'true'])!r} work without being asked anything?"
        )

    async def _end(self) -> None:
        process, transport = self._process, self._transport
        if process is None or transport is None:
            return
        try:
            if not process.exited.done():
                with contextlib.suppress(ProcessLookupError):
                    transport.terminate()
                await outlast(asyncio.ensure_future(self._reaped(process, transport)))
        finally:
            transport.close()

    @staticmethod
    async def _reaped(process: _Process, transport: asyncio.SubprocessTransport) -> None:
        await asyncio.wait({process.exited}, timeout=GRACE)
        if not process.exited.done():
            with contextlib.suppress(ProcessLookupError):
                transport.kill()
            await process.exited


def _socket_in(greeting: bytes | bytearray) -> str | None:
    """Return the path of the remote socket, if the remote docker CLI named one that can be forwarded to."""
    for line in greeting.decode(errors="replace").split():
        scheme, _, path = line.partition("unix://")
        if not scheme and SSH_PATH.fullmatch(path):
            return path
    return None


def _private_directory() -> str:
    """Make a directory for the socket, which is as good as root on the remote machine: for this user alone."""
    places = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp is exclusive
    for place in places:
        if place and len(place) < _LONGEST_DIRECTORY:
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="adi-ssh-", dir=place)
    raise DaemonUnreachableError(f"no directory for the forwarded socket can be made in any of {places}")

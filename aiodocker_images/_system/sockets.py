"""Sockets: which kinds there are, and whether the other end of one is gone."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from asyncio.trsock import TransportSocket

__all__ = ["has_unix_sockets", "hung_up", "is_unix", "receive", "unix_socket"]


def has_unix_sockets() -> bool:
    """Whether Python knows unix sockets here; on Windows it does not."""
    return hasattr(socket, "AF_UNIX")


def unix_socket() -> socket.socket:
    """Make a unix socket. Raises OSError on a platform whose Python has no unix sockets."""
    if sys.platform != "win32" and hasattr(socket, "AF_UNIX"):
        return socket.socket(socket.AF_UNIX)
    raise OSError(errno.EAFNOSUPPORT, "this platform's Python has no unix sockets")


def is_unix(family: int) -> bool:
    """Whether an address family is that of unix sockets."""
    return sys.platform != "win32" and hasattr(socket, "AF_UNIX") and family == socket.AF_UNIX


def hung_up(descriptor: int, *, half: bool = False) -> bool:
    """Whether the other end of a socket has closed it, or with `half`, has closed its sending side.

    The second is known on Linux alone. Where nobody can tell, False: reading or writing tells it later.
    """
    if sys.platform != "win32" and hasattr(select, "poll"):
        half_closed: int = getattr(select, "POLLRDHUP", 0) if half else 0
        poll = select.poll()
        poll.register(descriptor, half_closed)  # the others are reported unasked
        wanted = select.POLLHUP | select.POLLERR | half_closed
        return any(event & wanted for _, event in poll.poll(0))
    return False


def receive(connection: TransportSocket, size: int) -> bytes:
    """Return what a transport's socket has got and the transport has not read. Raises OSError if there is nothing."""
    if sys.platform != "win32" and hasattr(os, "fork"):
        return os.read(connection.fileno(), size)
    # On Windows the number of a socket is not that of a file: some file may have the same.
    with socket.fromfd(connection.fileno(), connection.family, connection.type) as same:
        same.setblocking(False)
        return same.recv(size)

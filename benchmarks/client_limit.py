"""The least that can be done: system calls on large buffers, without a look at what comes. Nothing can be faster."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from .job import Job, Meter

BUFFER = 4 << 20


def _connected(job: Job) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    connection.connect(job.socket)
    return connection


def _receive(job: Job, request: str, meter: Meter, descriptor: int | None) -> None:
    into = memoryview(bytearray(BUFFER))
    with _connected(job) as connection, meter:
        connection.sendall(f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while received := connection.recv_into(into):
            if descriptor is not None:
                os.write(descriptor, into[:received])


def save_file(job: Job, meter: Meter) -> None:
    """Write what comes to a file, HTTP and all."""
    with Path(job.path).open("wb", buffering=0) as file:
        _receive(job, f"GET /images/{job.reference}/get", meter, file.fileno())


def save_nowhere(job: Job, meter: Meter) -> None:
    """Read what comes."""
    _receive(job, f"GET /images/{job.reference}/get", meter, None)


def frames(job: Job, meter: Meter) -> None:
    """Read what comes."""
    image, _, tag = job.reference.rpartition(":")
    _receive(job, f"POST /images/create?fromImage={image}&tag={tag}", meter, None)


def load_file(job: Job, meter: Meter) -> None:
    """Send a file with sendfile."""
    with _connected(job) as connection, Path(job.path).open("rb") as file, meter:
        size = os.fstat(file.fileno()).st_size
        connection.sendall(f"POST /images/load HTTP/1.1\r\nHost: l\r\nContent-Length: {size}\r\n\r\n".encode())
        connection.sendfile(file)
        connection.recv(BUFFER)


def load_iterable(job: Job, meter: Meter) -> None:
    """Send the same bytes over and over, with their length."""
    piece = bytes(1 << 20)
    with _connected(job) as connection, meter:
        connection.sendall(f"POST /images/load HTTP/1.1\r\nHost: l\r\nContent-Length: {job.size}\r\n\r\n".encode())
        for _ in range(job.size // len(piece)):
            connection.sendall(piece)
        connection.recv(BUFFER)


def checksum(job: Job, meter: Meter) -> None:
    """Hash as many bytes, in memory."""
    piece = bytes(BUFFER)
    digest = hashlib.sha256()
    with meter:
        for _ in range(job.size // BUFFER):
            digest.update(piece)

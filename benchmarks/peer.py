"""A daemon that costs nothing: a process on a unix socket that sends pre-built bytes, and reads what it is sent.

    python -m benchmarks.peer SOCKET [IMAGES]

It speaks as much HTTP as curl, the docker CLI, docker-py, aiodocker and we need. What it sends is in the name that it
is asked for:

    GET  /images/localhost/save:SIZE/get                            a tar of SIZE bytes, in HTTP chunks of 32 KiB
    POST /images/create?fromImage=localhost/each&tag=COUNT          COUNT frames, each in an HTTP chunk of its own
    POST /images/create?fromImage=localhost/packed&tag=COUNT        the same in HTTP chunks of 64 KiB
    POST /images/create?fromImage=localhost/large&tag=SIZE-PIECE    one frame of SIZE bytes in HTTP chunks of PIECE
    POST /images/create?fromImage=localhost/paced&tag=COUNT-STREAMS-SLICES-MILLISECONDS
        COUNT frames in SLICES, one every so many milliseconds, once STREAMS of these requests are open

An upload is read to its end and answered with one line. Whoever expects a "100 Continue" is sent one, as by an Engine,
unless "unheard" is in the path.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

BUFFER = 1 << 20
CHUNK = 32 << 10
PACK = 64 << 10
BLOCK = 1000  # frames that are built once and sent again and again
PATIENCE = 3.0  # for streams that never come: a client may have no more than so many connections

VERSION = "1.45"
HEAD = f"HTTP/1.1 200 OK\r\nApi-Version: {VERSION}\r\nOstype: linux\r\nServer: Docker/26.1.5 (linux)\r\n"
CHUNKED = f"{HEAD}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
END = b"0\r\n\r\n"
DIGEST = "sha256:" + "5e" * 32


def document(body: bytes) -> bytes:
    """Return a whole answer."""
    return f"{HEAD}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    """Return data as an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def image(number: int) -> dict[str, object]:
    """Return an image as `GET /images/json` shows it, in the size of real ones."""
    return {
        "Containers": -1,
        "Created": 1_714_557_132 + number,
        "Id": f"sha256:{number:064x}",
        "Labels": {"org.opencontainers.image.version": f"1.{number}", "maintainer": "somebody@example.org"},
        "ParentId": "",
        "RepoDigests": [f"registry.example.org/team/application-{number}@sha256:{number:064x}"],
        "RepoTags": [f"registry.example.org/team/application-{number}:1.{number}"],
        "SharedSize": -1,
        "Size": 77_126_432 + number,
    }


INSPECT = document(
    json.dumps(
        {
            "Id": DIGEST,
            "RepoTags": ["localhost/application:1.0", "registry.example.org/team/application:1.0"],
            "RepoDigests": [f"registry.example.org/team/application@{DIGEST}"],
            "Parent": "",
            "Comment": "buildkit.dockerfile.v0",
            "Created": "2024-05-01T10:11:12.123456789Z",
            "DockerVersion": "",
            "Author": "",
            "Config": {
                "Hostname": "",
                "User": "app",
                "ExposedPorts": {"8080/tcp": {}},
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
                "Cmd": ["serve", "--port", "8080"],
                "Entrypoint": ["/usr/bin/tini", "--"],
                "Volumes": {"/data": {}},
                "WorkingDir": "/app",
                "Labels": {f"org.example.label.{number}": "value" * 4 for number in range(12)},
            },
            "Architecture": "amd64",
            "Os": "linux",
            "Size": 77_126_432,
            "GraphDriver": {"Data": {"LowerDir": "/var/lib/docker/overlay2/" + "a" * 64}, "Name": "overlay2"},
            "RootFS": {"Type": "layers", "Layers": [f"sha256:{number:064x}" for number in range(8)]},
            "Metadata": {"LastTagTime": "2024-05-01T10:11:12.123456789Z"},
        }
    ).encode()
)
WHOLE = {
    "version": document(
        json.dumps({"Version": "26.1.5", "ApiVersion": VERSION, "MinAPIVersion": "1.24", "Os": "linux"}).encode()
    ),
    "info": document(b'{"ID":"peer","Name":"peer","OSType":"linux"}'),
}
LOADED = document(b'{"stream":"Loaded image: localhost/load:1\\n"}\r\n')


def frame(number: int) -> bytes:
    """Return a progress frame as dockerd sends them while it downloads."""
    shown = {
        "status": "Downloading",
        "progressDetail": {"current": number * 4096, "total": 77_126_432},
        "progress": f"[====>            ]  {number * 4.096:.1f}kB/77.13MB",
        "id": f"{number % 12:012x}",
    }
    return json.dumps(shown, separators=(",", ":")).encode() + b"\r\n"


FIRST = b'{"status":"Pulling from it","id":"latest"}\r\n'
LAST = f'{{"status":"Digest: {DIGEST}"}}\r\n{{"status":"Status: Downloaded newer image for it"}}\r\n'.encode()


@cache
def frames(count: int, *, packed: bool) -> bytes:
    """Return so many frames as HTTP chunks."""
    each = [frame(number) for number in range(count)]
    if not packed:
        return b"".join(map(chunk, each))
    joined = b"".join(each)
    return b"".join(chunk(joined[start : start + PACK]) for start in range(0, len(joined), PACK))


class Gate:
    """Opens when enough streams stand before it, or the last has stood there for too long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._standing = 0

    def wait(self, streams: int) -> int:
        """Wait for the others, and return as how many-th this one came."""
        with self._changed:
            place = self._standing
            self._standing += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._standing >= streams, PATIENCE)
        return place

    def leave(self) -> None:
        """Let go of the place."""
        with self._changed:
            self._standing -= 1


class Connection:
    """One client's connection, served by a thread."""

    def __init__(self, connection: socket.socket, images: bytes, gate: Gate, nowhere: int) -> None:
        self._socket = connection
        self._nowhere = nowhere
        self._images = images
        self._gate = gate
        self._buffer = bytearray()

    def serve(self) -> None:
        """Answer until the client closes, and leave nothing open."""
        with self._socket:
            try:
                while self._request():
                    pass
            except OSError:  # it has seen enough
                pass

    def _request(self) -> bool:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            data = self._socket.recv(64 << 10)
            if not data:
                return False
            self._buffer += data
        head = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        lower = head.lower()
        method, target, _ = head.split(" ", 2)
        if "\r\nexpect: 100-continue" in lower and "unheard" not in target:
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if length := re.search(r"\r\ncontent-length: *(\d+)", lower):
            self._discard(int(length[1]))
        elif "\r\ntransfer-encoding: chunked" in lower:
            self._discard_chunks()
        self._answer(method, unquote(target))
        return "\r\nconnection: close" not in lower

    def _discard(self, left: int) -> None:
        left -= len(self._buffer)
        self._buffer.clear()
        drain, fill = os.pipe()
        try:  # spliced to nowhere: nobody copies it
            fcntl.fcntl(fill, fcntl.F_SETPIPE_SZ, BUFFER)
            while left > 0:
                received = os.splice(self._socket.fileno(), fill, min(left, BUFFER))
                if not received:
                    raise ConnectionResetError
                left -= received
                while received:
                    received -= os.splice(drain, self._nowhere, received)
        finally:
            os.close(drain)
            os.close(fill)

    def _discard_chunks(self) -> None:
        # What is uploaded here never looks like the end of an HTTP body.
        into = bytearray(BUFFER)
        tail = bytes(self._buffer[-len(END) :])
        self._buffer.clear()
        while not tail.endswith(END):
            received = self._socket.recv_into(into)
            if not received:
                raise ConnectionResetError
            tail = tail[-len(END) :] + into[max(0, received - len(END)) : received]

    def _answer(self, method: str, target: str) -> None:
        path, _, query = target.partition("?")
        if found := re.search(r"localhost/save:(\d+)", target):
            self._save(int(found[1]))
        elif path.endswith("/images/load"):
            self._socket.sendall(LOADED)
        elif path.endswith("/images/create"):
            self._pull(query)
        elif path.endswith("/images/json"):
            self._socket.sendall(self._images)
        elif path.endswith("/_ping"):
            body = b"OK" if method == "GET" else b""
            self._socket.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        else:
            self._socket.sendall(WHOLE.get(path.rpartition("/")[2], INSPECT))

    def _save(self, size: int) -> None:
        member = tarfile.TarInfo("layer.tar")
        member.size = size
        head = f"{HEAD}Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        self._socket.sendall(head + chunk(member.tobuf(tarfile.GNU_FORMAT)))
        whole = chunk(bytes(CHUNK))
        for _ in range(size // CHUNK):  # one write each, as Go's server writes what a handler copies
            self._socket.sendall(whole)
        rest = -(-(size % CHUNK) // 512) * 512
        self._socket.sendall(chunk(bytes(rest + 1024)) + END)

    def _pull(self, query: str) -> None:
        found = re.search(r"fromImage=(?:[^&]*/)?(\w+)", query)
        kind = found[1] if found else ""
        numbers = [int(number) for number in re.findall(r"\d+", re.sub(r".*\btag=([\d-]+).*", r"\1", query))]
        if kind == "paced":
            self._paced(*numbers)
        elif kind == "large":
            self._large(*numbers)
        else:
            for data in self._frames(numbers[0], packed=kind == "packed"):
                self._socket.sendall(data)

    @staticmethod
    def _frames(count: int, *, packed: bool) -> Iterator[bytes]:
        yield CHUNKED + chunk(FIRST)
        yield from itertools.repeat(frames(BLOCK, packed=packed), count // BLOCK)
        yield frames(count % BLOCK, packed=packed) + chunk(LAST) + END

    def _large(self, size: int, piece: int) -> None:
        data = json.dumps({"status": "x" * (size - 13)}, separators=(",", ":")).encode() + b"\r\n"
        pieces = b"".join(chunk(data[start : start + piece]) for start in range(0, len(data), piece))
        self._socket.sendall(CHUNKED + pieces + chunk(LAST) + END)

    def _paced(self, count: int, streams: int, slices: int, milliseconds: int) -> None:
        data = frames(count // slices, packed=True)
        self._socket.sendall(CHUNKED + chunk(FIRST))
        place = self._gate.wait(streams)
        try:
            # They take turns, as pulls do that were not begun in the same instant.
            start = time.monotonic() + milliseconds / 1000 * (place % streams) / streams
            for turn in range(slices):
                time.sleep(max(0.0, start + turn * milliseconds / 1000 - time.monotonic()))
                self._socket.sendall(data)
            self._socket.sendall(chunk(LAST) + END)
        finally:
            self._gate.leave()


def main(path: Path, images: int) -> None:
    """Serve until the process is ended."""
    threading.stack_size(256 << 10)  # a thousand of them
    summaries = document(json.dumps([image(number) for number in range(images)]).encode())
    gate, nowhere = Gate(), os.open("/dev/null", os.O_WRONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4096)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=Connection(connection, summaries, gate, nowhere).serve, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10)

"""Twenty concurrent streams to a remote Engine: one forwarded socket against `docker system dial-stdio` for each.

    sudo .venv/bin/python -m benchmarks.ssh_streams [ROUNDS [MIB]]

Starts a private Engine and a private ssh server with OpenSSH's default limits, and saves an image of MIB MiB twenty
times at once, by turns in both ways. Prints seconds, how many of the streams came whole, and the log-ins they took.
"""

from __future__ import annotations

import asyncio
import os
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import engines
from aiodocker_images import ImageService
from tests.support.tars import root_file_system

STREAMS = 20
NAME = "localhost/benchmark:1"


async def forwarded(size: int) -> int:
    """Save through one ssh, as the library does; return how many came whole."""

    async def save(images: ImageService) -> bool:
        return sum([len(chunk) async for chunk in images.save_stream(NAME)]) >= size

    async with ImageService("ssh://remote") as images:
        results = await asyncio.gather(*(save(images) for _ in range(STREAMS)), return_exceptions=True)
    return results.count(True)


async def dialled(size: int) -> int:
    """Save through an ssh for each stream, as the docker CLI does; return how many came whole."""

    async def save() -> bool:
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-o", "ConnectTimeout=30", "-T", "--", "remote", "docker", "system", "dial-stdio"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 20,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"GET /images/{NAME}/get HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        received = 0
        while data := await process.stdout.read(1 << 20):
            received += len(data)
        process.stdin.close()
        await process.wait()
        return received >= size

    results = await asyncio.gather(*(save() for _ in range(STREAMS)), return_exceptions=True)
    return results.count(True)


WAYS: dict[str, Callable[[int], Awaitable[int]]] = {"forwarded": forwarded, "dial-stdio": dialled}


async def measure(server: engines.SSHServer, rounds: int, size: int) -> None:
    """Run both ways by turns and print what came of it."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(rounds):
        for name, save in WAYS.items():
            before = server.log.read_text().count("Accepted publickey")
            started = time.perf_counter()
            whole = await save(size)
            seconds[name].append(time.perf_counter() - started)
            logins = server.log.read_text().count("Accepted publickey") - before
            print(f"{turn}  {name:12}{seconds[name][-1]:7.2f} s  {whole:3} of {STREAMS} whole  {logins:3} log-ins")
    ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"forwarded / dial-stdio, median of {rounds}: {statistics.median(ratios):.2f} ({spread})")


async def main(rounds: int, mib: int) -> None:
    """Set everything up, measure, and leave nothing."""
    with (
        tempfile.TemporaryDirectory() as name,
        engines.Engine() as engine,
        engines.SSHServer(engine) as server,
    ):
        directory = Path(name)
        key = directory / "key"
        subprocess.run([engines.ssh_keygen(), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        server.authorize(key.with_suffix(".pub").read_text())
        (directory / "known_hosts").write_text(server.host_key)
        (directory / "config").write_text(
            f"UserKnownHostsFile {directory}/known_hosts\nIdentityFile {key}\nIdentitiesOnly yes\n"
            f"Host remote\n  HostName {server.host}\n  Port {server.port}\n  User root\n"
        )
        (directory / "ssh").write_text(f'#!/bin/sh\nexec {engines.ssh_client()} -F {directory}/config "$@"\n')
        (directory / "ssh").chmod(stat.S_IRWXU)
        os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"
        async with ImageService(engine.host) as images:
            await images.import_image(root_file_system(mib << 20), reference=NAME)
        await measure(server, rounds, mib << 20)


if __name__ == "__main__":
    asyncio.run(main(*(int(word) for word in [*sys.argv[1:], "7", "5"][:2])))

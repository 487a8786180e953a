"""Programs in Go that are in no package: built once, with Debian's compiler and from the libraries in its packages."""

# ruff: noqa: S603 - to run programs is what this package is for

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .packages import unpacked, unpacked_at
from .state import EngineError

SUITE = "forky"


def built(source: Path, libraries: Sequence[str], remedy: str) -> Path:
    """Return the path of the program in the Go file `source`, which needs packages of libraries. It is static.

    `remedy` says what to type if it cannot be had.
    """
    # A program of another version of the file has another name.
    target = unpacked_at(f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}", SUITE)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "build-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            compiler = unpacked("golang", ("golang-go", *libraries), remedy, suite=SUITE, whole=True)
            sys.stderr.write(f"engines: building {source.stem}, once\n")
            partial = target.parent / "partial-build"
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            partial.mkdir()
            _build(compiler, source, partial)
            (partial / source.stem).rename(target)
            for directory in (partial, compiler):  # 400 MB that nothing needs any more
                shutil.rmtree(directory)
    return target


def _build(compiler: Path, source: Path, directory: Path) -> None:
    environment = {
        "GOROOT": str(compiler / "usr/lib/go"),
        "GOPATH": str(compiler / "usr/share/gocode"),
        "GO111MODULE": "off",  # the libraries are where GOPATH says, not where a module proxy would have them
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "GOCACHE": str(directory / "cache"),
        "TMPDIR": str(directory),
        "PATH": "/usr/bin:/bin",
    }
    command = [
        str(compiler / "usr/lib/go/bin/go"),
        "build",
        "-trimpath",
        "-o",
        str(directory / source.stem),
        str(source),
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise EngineError(f"Cannot build {source.name}: {result.stderr[-2000:]}")

"""Debian's packages, downloaded and unpacked into directories of the cache; none is ever installed.

Which packages a root directory needs, apt plans as for an empty machine. Packages of another release come from the
mirror that this machine's own package sources name, and are accepted if Debian signed them.
"""

# ruff: noqa: S603, S607 - to run programs found on PATH is what this package is for

from __future__ import annotations

import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .state import EngineError

DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Podman looks for its home there; the ssh server needs a user of its own, and has one who is nobody to log in as.
USERS = """root:x:0:0:root:/run:/bin/sh
user:x:1000:1000::/tmp:/bin/sh
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
"""
# What a mirror may call the release of this machine, besides its codename.
RELEASE_ALIASES = frozenset({"oldstable", "stable", "testing", "unstable", "sid"})


def unpacked(name: str, packages: Sequence[str], remedy: str, *, suite: str | None = None, whole: bool) -> Path:
    """Return the directory of the unpacked packages; `whole`: with all they depend on, to chroot into.

    `suite` is the Debian release that they come from, None for this machine's own. `remedy` says what to type
    if they cannot be had.
    """
    release = machine_release()
    target = unpacked_at(name, suite)
    cache = target.parent
    if target.exists():
        return target
    problem = f"Cannot fetch {' and '.join(packages)}" + (f" of Debian {suite}" if suite else "")
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise EngineError(f"{problem}: this machine has no apt-get and dpkg-deb.\n{remedy}")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            sys.stderr.write(f"engines: fetching {', '.join(packages)}{f' of {suite}' if suite else ''}, once\n")
            partial = cache / "partial"
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was interrupted
            archives, content = partial / "archives", partial / "unpacked"
            archives.mkdir(parents=True)
            options = [f"Dir::State::status={archives}/status", f"Dir::Cache={archives}", "APT::Sandbox::User=root"]
            (archives / "status").touch()  # nothing is installed: so apt plans all that the packages depend on
            if suite is not None:
                if not (mirrors := _mirrors(release)):
                    raise EngineError(f"{problem}: this machine's package sources name no mirror of Debian.\n{remedy}")
                options += _only_from(suite, mirrors, archives / f"{suite}.sources")
            if complaint := _download(packages, archives, cache / "lists", options, whole=whole, fresh=bool(suite)):
                raise EngineError(f"{problem}: {complaint}\n{remedy}")
            if whole:
                _lay_out(content)
            for archive in sorted(archives.glob("*.deb")):
                subprocess.run(["dpkg-deb", "--extract", archive, content], check=True)
            content.rename(target)
            shutil.rmtree(partial)
    return target


def unpacked_at(name: str, suite: str | None = None) -> Path:
    """Return the directory that `unpacked` returns, whether or not it is there."""
    cache = Path(os.environ.get("ENGINES_CACHE") or Path(__file__).resolve().parents[1] / ".cache/engines")
    return cache / f"{suite or machine_release()}-{platform.machine()}" / name


def program(root: Path, name: str) -> Path:
    """Return a script that runs a program of the root directory with the libraries that are there."""
    # Its own dynamic linker too: that and the C library must be of one version.
    linker = next((root / "lib").glob("*/ld-linux*.so.*"), None)
    if linker is None:
        raise EngineError(f"There is no dynamic linker in {root}.")
    libraries = ":".join(str(root / directory / linker.parent.name) for directory in ("lib", "usr/lib"))
    command = shlex.join([str(linker), "--library-path", libraries])
    # ssh runs itself again, by the name that it was called by, for a jump host.
    script = f'#!/bin/sh\nexec {command} --argv0 "$0" {shlex.quote(str(root / "usr/bin" / name))} "$@"\n'
    wrapper = root / "wrappers" / name
    if not wrapper.exists() or wrapper.read_text() != script:  # the cache is new, or was moved
        wrapper.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=wrapper.parent, delete=False) as file:
            file.write(script)
        Path(file.name).chmod(0o755)
        Path(file.name).rename(wrapper)  # at once, for another process may be running it
    return wrapper


def machine_release() -> str:
    """Return the codename of this machine's release."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return release.get("VERSION_CODENAME", "unknown")


def _mirrors(release: str) -> list[str]:
    """Return where the machine's own release comes from, as apt reads it from whatever files and formats."""
    listing = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]
    targets = subprocess.run([*listing, "Created-By: Packages"], capture_output=True, text=True, check=False)
    named = [line.split() for line in targets.stdout.splitlines()]
    return [uri for uri, of, component in named if component == "main" and of in {release, *RELEASE_ALIASES}]


def _only_from(suite: str, mirrors: Sequence[str], sources: Path) -> list[str]:
    """Write a file of package sources for the suite alone; return the options that let apt read nothing else."""
    fields = {
        "Types": "deb",
        "URIs": " ".join(dict.fromkeys(mirrors)),
        "Suites": suite,
        "Components": "main",
        "Signed-By": str(DEBIAN_KEYRING),
        # A mirror that lags behind is good enough for Engines that are thrown away.
        "Check-Valid-Until": "no",
    }
    sources.write_text("".join(f"{field}: {value}\n" for field, value in fields.items()))
    return [
        f"Dir::Etc::SourceList={sources}",
        "Dir::Etc::SourceParts=-",
        "Dir::Etc::Preferences=-",
        "Dir::Etc::PreferencesParts=-",
        f"APT::Default-Release={suite}",
        "Acquire::Languages=none",
    ]


def _download(
    packages: Sequence[str], archives: Path, lists: Path, options: Sequence[str], *, whole: bool, fresh: bool
) -> str:
    """Download the packages into `archives`; return apt's complaint, or "".

    The machine's own package lists are tried first, unless `fresh`, then lists of our own.
    """
    own_lists = [f"Dir::State::lists={lists}", "Acquire::GzipIndexes=true"]
    complaints: list[str] = []

    def apt(*arguments: str) -> subprocess.CompletedProcess[str]:
        settings = [f"--option={option}" for option in [*options, *own_lists * lists.exists()]]
        command = ["apt-get", "--assume-yes", *settings, *arguments]
        result = subprocess.run(command, cwd=archives, capture_output=True, text=True, check=False)
        complaints.extend(result.stderr.splitlines()[-1:])
        return result

    for attempt in range(4):
        complaints.clear()
        if attempt or fresh:  # the machine has no package lists, or old ones, or those of another release
            time.sleep(2 * max(attempt - 1, 0))
            lists.mkdir(exist_ok=True)
            apt("update")  # its status says little: one broken source of many fails it
        names = list(packages)
        if whole:
            plan = apt("install", "--simulate", "--no-install-recommends", *packages)
            names = re.findall(r"^Inst (\S+)", plan.stdout, re.MULTILINE)
        if names and apt("download", *names).returncode == 0:
            return ""
    return "; ".join(complaints) or "apt-get says nothing"


def _lay_out(root: Path) -> None:
    """Make what the root directory of a daemon needs besides packages."""
    for name in ("dev", "proc", "sys", "run", "tmp", "opt", "var", "state"):
        (root / name).mkdir(parents=True)
    for name in ("etc/docker", "etc/ssl/certs", "usr/local/bin"):
        (root / name).mkdir(parents=True)
    for name in ("etc/hosts", "etc/resolv.conf"):
        (root / name).touch()
    (root / "etc/passwd").write_text(USERS)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        # A release whose packages fill only /usr needs these; one whose packages fill /lib replaces them.
        (root / name).symlink_to(f"usr/{name}")

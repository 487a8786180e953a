"""The namespaces that a daemon runs in: a root directory of its own, processes of its own, the machine's network."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from .state import WITH_DOCKER, EngineError

BECOME_ROOT = f"Type: sudo make demo, or sudo make test; or, {WITH_DOCKER}"

# The first process of the namespaces, which stays as their init. The root must be a mount point, as dockerd remounts
# it to unpack layers; /sys/kernel/security is hidden lest dockerd load an AppArmor profile into the machine's kernel,
# and /dev/shm lest Podmans share their locks.
_INIT = """
image=$1 state=$2 root=$2/root; shift 2
mkdir -p "$root"
mount --bind "$image" "$root"
mount --rbind "$state" "$root/state"; umount --lazy "$root/state/root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
for path in run tmp opt var etc/docker dev/shm; do mount -t tmpfs tmpfs "$root/$path"; done
mkdir "$root/var/tmp"
[ ! -d /sys/kernel/security ] || mount -t tmpfs tmpfs "$root/sys/kernel/security"
for path in etc/hosts etc/resolv.conf etc/ssl/certs; do [ ! -e "/$path" ] || mount --bind "/$path" "$root/$path"; done
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$root/$2"; elif [ ! -e "$root/$2" ]; then touch "$root/$2"; fi
  mount --bind "$1" "$root/$2"
  shift 2
done
shift
trap exit TERM
"""


def require_root(what: str) -> None:
    """Raise EngineError if we are not root, which `what` needs to be started."""
    if os.geteuid() != 0:
        raise EngineError(f"Starting {what} needs root.\n{BECOME_ROOT}")


def isolated(
    root: Path,
    state: Path,
    command: Sequence[str],
    *,
    beside: Sequence[str] = (),
    shared: Mapping[Path, str] | None = None,
) -> list[str | Path]:
    """Return the command line that runs the command in the root directory, in namespaces of its own. Needs root.

    To the command, /state is the state directory. `beside` is another command, whose end ends all. `shared` says
    which files and directories of the machine are seen where.
    """
    script = _INIT
    if beside:
        script += f'{{ chroot "$root" {shlex.join(beside)} || :; kill $$; }} &\n'
    script += f'chroot "$root" {shlex.join(command)} &\nwait $!\n'
    mounts = [word for source, target in (shared or {}).items() for word in (source, target)]
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*namespaces, "sh", "-euc", script, "init", root, state, *mounts, "--"]

"""A user's home for the docker CLI and Podman, made by a test: configuration files and credential helpers."""

from __future__ import annotations

import base64
import json
from pathlib import Path


def basic(username: str, password: str) -> str:
    """Encode credentials as the docker CLI does in `auth`."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()


class DockerHome:
    """`environ` names all that is in it, and nothing of the machine's but the standard programs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_json = path / "docker/config.json"
        self.runtime_auth_json = path / "run/containers/auth.json"
        self.home_auth_json = path / ".config/containers/auth.json"
        self.environ = {
            "PATH": f"{path}/bin:/usr/bin:/bin",
            "HOME": str(path),
            "DOCKER_CONFIG": str(path / "docker"),
            "XDG_RUNTIME_DIR": str(path / "run"),
        }
        (path / "bin").mkdir()

    def config(self, **members: object) -> None:
        """Write the docker CLI's file."""
        self.write(self.config_json, members)

    def write(self, path: Path, document: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))

    def helper(self, name: str, script: str, *, mode: int = 0o755) -> Path:
        """Write a credential helper in the shell's language; `read server` reads what it is asked for."""
        path = self.path / f"bin/docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)
        return path

    def store(self, name: str, credentials: dict[str, tuple[str, str]]) -> Path:
        """Write a helper that has these credentials, and says what it was asked in the file `asked`."""
        cases = "".join(
            f"'{server}') echo '{json.dumps({'ServerURL': server, 'Username': username, 'Secret': secret})}'; exit;;\n"
            for server, (username, secret) in credentials.items()
        )
        listed = json.dumps({server: username for server, (username, _) in credentials.items()})
        return self.helper(
            name,
            f"""read -r server
echo "{name} $1 $server" >>{self.path}/asked
if [ "$1" = list ]; then echo '{listed}'; exit; fi
case "$server" in
{cases}esac
echo 'credentials not found in native keychain'
exit 1""",
        )

    @property
    def asked(self) -> list[str]:
        """What the stores were asked: "name get server", in the order of it."""
        path = self.path / "asked"
        return path.read_text().splitlines() if path.exists() else []

"""Private registries: three implementations, because each one does things that the others do not."""

from __future__ import annotations

import json
import secrets
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .daemons import ServerTLS
from .kinds import crane_program, ociserver_program, registry_program
from .process import Daemon


class RegistryDaemon(Daemon):
    """A private registry on a port of 127.0.0.1. Needs no root.

    Attributes: `address`, "127.0.0.1:PORT", empty before the first start, the same from then on; `url`, the same with
    the scheme.
    """

    scheme = "http"

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.address = ""

    @property
    def url(self) -> str:
        """The registry's URL, without a slash at its end."""
        return f"{self.scheme}://{self.address}"

    def _launch(self) -> None:
        program = self._program()
        self.address = self._serve_on_port(self.address, lambda address: self._launch_at(program, address))

    def _launch_at(self, program: Path, address: str) -> None:
        self._serve([program, *self._arguments(address)], lambda: self._listener(address) is not None)

    @abstractmethod
    def _program(self) -> Path: ...

    @abstractmethod
    def _arguments(self, address: str) -> Sequence[str | Path]:
        """Return the arguments that let the program serve at the address; write the files that they name."""


class Registry(RegistryDaemon):
    """A private registry of the distribution project (2.8), open to everybody, which lets images be deleted.

    Its configuration can be varied:

    - `htpasswd`: the text of an htpasswd file (bcrypt only); only the users in it have access.
    - `token` ("realm", "service", "issuer", "rootcertbundle"): only those to whom the server at "realm" gives tokens
      have access.
    - `tls`: it serves https; with an authority in it, clients must show a certificate.
    - `read_only`: it answers 405 to uploads and deletions.
    - `relative_urls`: the `Location` headers have no scheme and host.
    - `redirect`: a GET or HEAD of a blob is answered with 307 to this URL and the path of the blob's file. The path
      within `storage` is what comes after the URL, so whoever serves that directory there completes the registry.
    - `proxy`: it mirrors the open registry at this URL, which must run before it starts. It accepts no uploads.
    - `storage`: the directory of another registry's blobs, to serve the same images in another way.

    Attributes: `storage`, the directory of its blobs.
    """

    def __init__(
        self,
        *,
        htpasswd: str | None = None,
        token: Mapping[str, str] | None = None,
        tls: ServerTLS | None = None,
        read_only: bool = False,
        relative_urls: bool = False,
        redirect: str | None = None,
        proxy: str | None = None,
        storage: Path | None = None,
    ) -> None:
        super().__init__("The registry")
        self.scheme = "https" if tls else "http"
        self.storage = storage or self.state / "storage"
        self._htpasswd = htpasswd
        self._token = token
        self._tls = tls
        self._read_only = read_only
        self._relative_urls = relative_urls
        self._redirect = redirect
        self._proxy = proxy
        # Uploads outlive a restart only if the registry signs their state with the same key before and after it.
        self._secret = secrets.token_hex()

    def _program(self) -> Path:
        return registry_program()

    def _arguments(self, address: str) -> Sequence[str | Path]:
        config = self.state / "config.yml"
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._config(address)))  # JSON is YAML too
        return ["serve", config]

    def _config(self, address: str) -> dict[str, object]:
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": self._read_only}},
            },
            "http": {
                "addr": address,
                "secret": self._secret,
                "relativeurls": self._relative_urls,
                **({"tls": self._tls_config(self._tls)} if self._tls else {}),
            },
        }
        if self._redirect is not None:
            config["middleware"] = {"storage": [{"name": "redirect", "options": {"baseurl": self._redirect}}]}
        if self._proxy is not None:
            config["proxy"] = {"remoteurl": self._proxy}
        if self._htpasswd is not None:
            path = self.state / "htpasswd"
            path.write_text(self._htpasswd)
            config["auth"] = {"htpasswd": {"realm": "a private registry", "path": str(path)}}
        if self._token is not None:
            config["auth"] = {"token": dict(self._token)}
        return config

    def _tls_config(self, tls: ServerTLS) -> dict[str, object]:
        pems = {name: str(self.state / f"{name}.pem") for name in tls.write(self.state)}
        authorities = {"clientcas": [pems["ca"]]} if "ca" in pems else {}
        return {"certificate": pems["cert"], "key": pems["key"], **authorities}


class CraneRegistry(RegistryDaemon):
    """The registry in `crane registry serve` (0.20), which keeps manifests and tags in memory.

    It differs from distribution: it never mounts a blob, answers 416 to a Range without an end ("bytes=7-"), does not
    say how far an upload is, has no referrers API, and lists tags without `Link`. With `disk`, blobs
    outlive a restart.
    """

    def __init__(self, *, disk: bool = False) -> None:
        super().__init__("The registry of crane")
        self._disk = disk

    def _program(self) -> Path:
        return crane_program()

    def _arguments(self, address: str) -> Sequence[str | Path]:
        arguments: list[str | Path] = ["registry", "serve", "--address", address]
        if self._disk:
            storage = self.state / "storage"
            storage.mkdir(exist_ok=True)
            arguments += ["--disk", storage]
        return arguments


class OCIRegistry(RegistryDaemon):
    """An OCI 1.1 registry in memory: the server of cue-labs' Go library. A restart empties it.

    It has the referrers API, pages of tags with `Link`, resumable uploads and uploads by a single POST. It can be
    varied to do as some public registries do:

    - `immutable_tags`: a tag cannot be moved, and a tagged manifest cannot be deleted.
    - `referrers=False`: it does not know the referrers API.
    - `single_post=False`: an upload by a single POST is refused.
    - `tag_digest=False`: the answer to a GET by tag has no `Docker-Content-Digest`.
    - `links=False`: it leaves out the `Link` header of lists that go on.
    - `max_page`: more tags than this in one page may not be asked for.
    """

    def __init__(
        self,
        *,
        immutable_tags: bool = False,
        referrers: bool = True,
        single_post: bool = True,
        tag_digest: bool = True,
        links: bool = True,
        max_page: int = 0,
    ) -> None:
        super().__init__("The OCI registry")
        flags = {
            "immutable-tags": immutable_tags,
            "no-referrers": not referrers,
            "no-single-post": not single_post,
            "no-tag-digest": not tag_digest,
            "no-links": not links,
        }
        self._options = [f"-{name}" for name, is_set in flags.items() if is_set]
        self._options.append(f"-max-page={max_page}")

    def _program(self) -> Path:
        return ociserver_program()

    def _arguments(self, address: str) -> Sequence[str | Path]:
        return [f"-address={address}", *self._options]


# Every implementation, by the name of its project.
REGISTRIES: Mapping[str, Callable[[], RegistryDaemon]] = {
    "distribution": Registry,
    "crane": CraneRegistry,
    "ociserver": OCIRegistry,
}

"""An endpoint is an address that requests can be sent to, or a clear error."""

from __future__ import annotations

import dataclasses
import os
import pickle
import pwd
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from aiodocker_images import endpoint
from aiodocker_images.endpoint import Endpoint, SSHTarget, TLSConfig
from aiodocker_images.errors import ConfigError

GOOD = [
    # text, URL, scheme, what requests are addressed to
    ("/var/run/docker.sock", "unix:///var/run/docker.sock", "unix", "http://docker"),
    ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock", "unix", "http://docker"),
    ("unix:///with a space/ü%41?#@x.sock", "unix:///with a space/ü%41?#@x.sock", "unix", "http://docker"),
    ("UNIX:///d.sock", "UNIX:///d.sock", "unix", "http://docker"),
    ("//d.sock", "unix:////d.sock", "unix", "http://docker"),
    ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375", "tcp", "http://127.0.0.1:2375"),
    ("tcp://127.0.0.1", "tcp://127.0.0.1", "tcp", "http://127.0.0.1:2375"),
    ("tcp://127.0.0.1:80", "tcp://127.0.0.1:80", "tcp", "http://127.0.0.1:80"),
    ("tcp://127.0.0.1:2375/", "tcp://127.0.0.1:2375/", "tcp", "http://127.0.0.1:2375"),
    ("TCP://Docker.Example:1", "TCP://Docker.Example:1", "tcp", "http://docker.example:1"),
    ("tcp://[::1]:2375", "tcp://[::1]:2375", "tcp", "http://[::1]:2375"),
    ("tcp://[fe80::1%eth0]", "tcp://[fe80::1%eth0]", "tcp", "http://[fe80::1%eth0]:2375"),
    ("tcp://[::ffff:127.0.0.1]", "tcp://[::ffff:127.0.0.1]", "tcp", None),
    ("tcp://docker_host:2375", "tcp://docker_host:2375", "tcp", "http://docker_host:2375"),
    ("tcp://bücher.example", "tcp://bücher.example", "tcp", "http://xn--bcher-kva.example:2375"),
    ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "http", "http://127.0.0.1:8080"),
    ("http://docker", "http://docker", "http", "http://docker:2375"),
    ("https://docker", "https://docker", "https", "https://docker:2376"),
    ("https://[::1]:443/", "https://[::1]:443/", "https", "https://[::1]:443"),
    ("127.0.0.1:2375", "tcp://127.0.0.1:2375", "tcp", "http://127.0.0.1:2375"),
    ("[::1]:1", "tcp://[::1]:1", "tcp", "http://[::1]:1"),
    ("tcp://proxy:80/engines/one/", "tcp://proxy:80/engines/one/", "tcp", "http://proxy:80/engines/one"),
    ("ssh://remote", "ssh://remote", "ssh", "http://docker"),
    ("ssh://me@remote:22/run/docker.sock", "ssh://me@remote:22/run/docker.sock", "ssh", "http://docker"),
    ("npipe:////./pipe/docker_engine", "npipe:////./pipe/docker_engine", "npipe", "http://docker"),
    # What is left out is the docker CLI's default, and white space around it does not count.
    ("unix://", "unix:///var/run/docker.sock", "unix", "http://docker"),
    ("npipe://", "npipe:////./pipe/docker_engine", "npipe", "http://docker"),
    ("tcp://", "tcp://localhost", "tcp", "http://localhost:2375"),
    ("tcp://:2375", "tcp://localhost:2375", "tcp", "http://localhost:2375"),
    ("tcp://:2376", "tcp://localhost:2376", "tcp", "http://localhost:2376"),
    ("tcp://:7777/path", "tcp://localhost:7777/path", "tcp", "http://localhost:7777/path"),
    (" tcp://:7777/path ", "tcp://localhost:7777/path", "tcp", "http://localhost:7777/path"),
    ("tcp://host:", "tcp://host", "tcp", "http://host:2375"),
    ("tcp://192.168:8080", "tcp://192.168:8080", "tcp", None),
    ("0.0.0.1:", "tcp://0.0.0.1", "tcp", "http://0.0.0.1:2375"),
    ("0.0.0.1:5555/path", "tcp://0.0.0.1:5555/path", "tcp", "http://0.0.0.1:5555/path"),
    ("[::1]:", "tcp://[::1]", "tcp", "http://[::1]:2375"),
    ("[::1]:5555/path", "tcp://[::1]:5555/path", "tcp", "http://[::1]:5555/path"),
    ("[0:0:0:0:0:0:0:1]:5555", "tcp://[0:0:0:0:0:0:0:1]:5555", "tcp", None),
    (":6666", "tcp://localhost:6666", "tcp", "http://localhost:6666"),
    (":6666/path", "tcp://localhost:6666/path", "tcp", "http://localhost:6666/path"),
    ("localhost", "tcp://localhost", "tcp", "http://localhost:2375"),
    ("localhost:", "tcp://localhost", "tcp", "http://localhost:2375"),
    ("localhost:5555/path", "tcp://localhost:5555/path", "tcp", "http://localhost:5555/path"),
    ("127.0.0.1", "tcp://127.0.0.1", "tcp", "http://127.0.0.1:2375"),
    ("[::1]", "tcp://[::1]", "tcp", "http://[::1]:2375"),
    ("\ttcp://127.0.0.1:2375\r\n", "tcp://127.0.0.1:2375", "tcp", "http://127.0.0.1:2375"),
    (" /var/run/docker.sock\n", "unix:///var/run/docker.sock", "unix", "http://docker"),
]


@pytest.mark.parametrize(("text", "url", "scheme", "base"), GOOD, ids=[row[0] for row in GOOD])
def test_an_address_is_read(text: str, url: str, scheme: str, base: str | None) -> None:
    read = Endpoint.parse(text)
    assert (read.url, str(read), read.scheme, read.source) == (url, url, scheme, "argument")
    if base is not None:
        assert read.base_url == URL(base)


def test_the_path_of_a_socket_is_taken_as_it_is() -> None:
    assert Endpoint.parse("unix:///with a space/ü%41?#@x.sock").socket_path == "/with a space/ü%41?#@x.sock"


SUPPORTED = "expected an absolute path, host:port, or one of unix://, npipe://, tcp://, http://, https://, ssh://"
ABSOLUTE = "a unix socket needs an absolute path, as in unix:///var/run/docker.sock"
NOTHING_BUT = "expected nothing but a host and a port"
PLAIN_PATH = "expected nothing but a host, a port and perhaps a plain path"
SSH_FORM = "expected ssh://user@host:port/path/to/docker.sock, all but the host optional"
PIPE_FORM = "a named pipe is written as in npipe:////./pipe/docker_engine"
PORT = "a port is a number from 1 to 65535"
BRACKETS = "an IPv6 address is written in brackets, as in tcp://[::1]:2375"
NO_HOST = "the host is missing, as in tcp://127.0.0.1:2375"

BAD = [
    ("", SUPPORTED),
    ("docker.sock", SUPPORTED),
    ("./docker.sock", SUPPORTED),
    ("localhost:x", SUPPORTED),
    ("127.0.0.1:99999", PORT),
    (r"\\.\pipe\docker_engine", SUPPORTED),
    (r"C:\docker.sock", SUPPORTED),
    ("fd://", SUPPORTED),
    ("file:///var/run/docker.sock", SUPPORTED),
    ("://127.0.0.1", SUPPORTED),
    ("unix:/var/run/docker.sock", SUPPORTED),
    ("unix://docker.sock", ABSOLUTE),
    ("unix://./docker.sock", ABSOLUTE),
    ("/docker\0.sock", "a path has no NUL"),
    ("unix:///docker\0.sock", "a path has no NUL"),
    ("tcp:///", NO_HOST),
    ("tcp:///var/run/docker.sock", NO_HOST),
    ("tcp://127.0.0.1:x", PORT),
    ("tcp://:port", PORT),
    ("tcp://127.0.0.1:99999", PORT),
    ("tcp://0.0.0.0:1234567890", PORT),
    ("tcp://127.0.0.1:-1", PORT),
    ("tcp://127.0.0.1:\u0663", PORT),
    ("something with spaces", SUPPORTED),
    ("udp://127.0.0.1:2375", SUPPORTED),
    ("unknown://", SUPPORTED),
    ("tcp:a.b.c.d", SUPPORTED),
    ("tcp:a.b.c.d/path", SUPPORTED),
    ("tcp://unix:///run/docker.sock", PLAIN_PATH),
    ("tcp://\u2100.example", "the host is not one that can be looked up"),
    ("tcp://127.0.0.1:0", "no daemon listens on port 0"),
    ("tcp://[::1", BRACKETS),
    ("tcp://::1", BRACKETS),
    ("::1", SUPPORTED),
    ("tcp://[::1]x", None),
    ("tcp://a b", "'a b' is not a host"),
    ("tcp://a\nb", "there is an unprintable character in it"),
    ("tcp://a%2fb", "'a%2fb' is not a host"),
    ("tcp://127.0.0.1/../x", PLAIN_PATH),
    ("tcp://127.0.0.1/a/..", PLAIN_PATH),
    ("tcp://127.0.0.1/./x", PLAIN_PATH),
    ("tcp://127.0.0.1/a%2e", PLAIN_PATH),
    ("tcp://127.0.0.1//x", PLAIN_PATH),
    ("tcp://127.0.0.1/a b", PLAIN_PATH),
    ("tcp://127.0.0.1?x=1", PLAIN_PATH),
    ("tcp://127.0.0.1/?x=1", PLAIN_PATH),
    ("tcp://127.0.0.1#x", PLAIN_PATH),
    ("https://127.0.0.1:2376/x?y", PLAIN_PATH),
    ("ssh://", SSH_FORM),
    ("ssh://-oProxyCommand=x", SSH_FORM),
    ("ssh://-oProxyCommand=x@host", SSH_FORM),
    ("ssh://me@-host", SSH_FORM),
    ("ssh://me;id@host", SSH_FORM),
    ("ssh://$(id)@host", SSH_FORM),
    ("ssh://host;id", SSH_FORM),
    ("ssh://host name", SSH_FORM),
    ("ssh://host:port", SSH_FORM),
    ("ssh://host:22x", SSH_FORM),
    ("ssh://host:0", "a port is a number from 1 to 65535"),
    ("ssh://host:65536", "a port is a number from 1 to 65535"),
    ("ssh://host/docker.sock:x", SSH_FORM),
    ("ssh://host/%h", SSH_FORM),
    ("ssh://host/${HOME}", SSH_FORM),
    ("ssh://host/a b", SSH_FORM),
    ("ssh://host//x", SSH_FORM),
    ("ssh://host/../x", SSH_FORM),
    ("ssh://host?x", SSH_FORM),
    ("ssh://host#x", SSH_FORM),
    ("ssh://host/x\ny", SSH_FORM),
    ("npipe://docker_engine", PIPE_FORM),
    ("npipe:////./pipe/", PIPE_FORM),
    ("npipe:////./pipe/a/b", PIPE_FORM),
    ("npipe:////server/pipe/docker_engine", PIPE_FORM),
    ("tcp://@127.0.0.1", NOTHING_BUT),
    ("tcp://127.0.0.1,127.0.0.2", None),
]


@pytest.mark.parametrize(("text", "reason"), BAD, ids=[ascii(text) for text, _ in BAD])
def test_what_is_no_address_is_refused_with_the_source_and_the_reason(text: str, reason: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(text, source="DOCKER_HOST")
    message = str(caught.value)
    assert "(from DOCKER_HOST) is no endpoint: " in message
    assert message.endswith(reason or message) or f"{reason}, and" in message


def test_a_message_stays_short() -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse("x" * 100_000)
    assert len(str(caught.value)) < 400


SECRETIVE = [
    "tcp://me:s3cret@host",
    "tcp://me:s3cret@host:2375",
    "tcp://me:s3cret@host:x",
    "tcp://me:s3cret@",
    "tcp://:s3cret@host",
    "tcp://s3cret@host",
    "tcp://me:s3/cret@host",
    "tcp://me:s3?s3cret@host",
    "tcp://me:s3#s3cret@host",
    "tcp://me:p@s3cret@host",
    "tcp://me:s3cret@ho\u2100st",  # decomposes to a slash, which the URL parser refuses by quoting the whole
    "tcp://me:s3cret@[::1",
    "ssh://me:s3cret@host",
    "ssh://me:s3cret@host:x",
    "ssh://:s3cret@host",
    "ssh://me:s3/cret@host",
    "ssh://me:p@s3cret@host",
    "npipe://me:s3cret@host",
    "https://me:s3cret@host:2376",
    "me:s3cret@host:2375",
    "me:s3cret@host://x",
    "://me:s3cret@host",
    "unix://me:s3cret@host",
]


@pytest.mark.parametrize("text", SECRETIVE, ids=ascii)
def test_a_password_in_an_address_is_refused_and_never_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(text)
    shown = "".join(traceback.format_exception(caught.value, chain=True)) + repr(caught.value)
    # The traceback of a test quotes no source line with the secret, which is a parameter.
    assert "s3cret" not in shown
    assert "s3/cret" not in shown


def test_an_endpoint_is_a_value() -> None:
    one = Endpoint.parse("/d.sock", source="DOCKER_HOST")
    assert one == Endpoint("unix:///d.sock", "DOCKER_HOST")
    assert one != Endpoint("unix:///d.sock")
    assert len({one, pickle.loads(pickle.dumps(one))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.url = "tcp://x"  # type: ignore[misc]  # that it fails is the claim


def test_no_endpoint_is_made_without_the_checks() -> None:
    with pytest.raises(ConfigError):
        Endpoint("ssh://-host")
    with pytest.raises(ConfigError):
        dataclasses.replace(Endpoint("tcp://host"), url="tcp://")


def _listening(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


@pytest.fixture
def places(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Where each default socket is looked for, in their order; none is there, and the user database knows no home."""

    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(endpoint, "DEFAULT_SOCKET", str(short_path / "var/docker.sock"))
    monkeypatch.setattr(endpoint, "PODMAN_SOCKET", str(short_path / "podman/podman.sock"))
    return {
        "docker": short_path / "var/docker.sock",
        "rootless docker": short_path / "run/docker.sock",
        "docker desktop": short_path / "home/.docker/run/docker.sock",
        "older docker desktop": short_path / "home/.docker/desktop/docker.sock",
        "rootless podman": short_path / "run/podman/podman.sock",
        "podman": short_path / "podman/podman.sock",
        "podman machine": short_path / "home/.local/share/containers/podman/machine/podman.sock",
    }


@pytest.fixture
def environ(short_path: Path) -> dict[str, str]:
    return {"HOME": str(short_path / "home"), "XDG_RUNTIME_DIR": str(short_path / "run")}


def test_the_default_sockets_are_tried_in_order(places: dict[str, Path], environ: dict[str, str]) -> None:
    for place in reversed(places.values()):
        _listening(place)
        found = Endpoint.resolve(environ=environ)
        assert (found.url, found.source) == (f"unix://{place}", "default socket")


def test_without_any_socket_the_default_one_is_named_in_the_error(
    places: dict[str, Path], environ: dict[str, str]
) -> None:
    assert Endpoint.resolve(environ=environ) == Endpoint(f"unix://{places['docker']}", "default socket")


@pytest.mark.parametrize("environ", [{}, {"HOME": "", "XDG_RUNTIME_DIR": ""}], ids=["unset", "empty"])
def test_a_bare_environment_is_enough(places: dict[str, Path], environ: dict[str, str]) -> None:
    assert Endpoint.resolve(environ=environ).socket_path == str(places["docker"])
    _listening(places["podman"])
    assert Endpoint.resolve(environ=environ).socket_path == str(places["podman"])


@pytest.mark.parametrize("directory", ["/" + "x" * 5000, "/dev/null", "relative\0"], ids=["too long", "a file", "NUL"])
def test_a_place_that_cannot_be_looked_into_is_passed_over(places: dict[str, Path], directory: str) -> None:
    _listening(places["podman"])
    found = Endpoint.resolve(environ={"HOME": "/dev/null", "XDG_RUNTIME_DIR": directory})
    assert found.socket_path == str(places["podman"])


def test_without_a_runtime_directory_it_is_the_usual_one(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services have no XDG_RUNTIME_DIR, and a rootless Engine runs all the same."""
    usual = f"/run/user/{os.getuid()}/docker.sock"

    real: Callable[..., os.stat_result] = os.stat

    def stat(path: str | os.PathLike[str], *, follow_symlinks: bool = True) -> os.stat_result:
        return real(places["docker"] if os.fspath(path) == usual else path, follow_symlinks=follow_symlinks)

    def access(path: str | os.PathLike[str], mode: int) -> bool:
        return os.fspath(path) == usual and bool(mode)

    _listening(places["docker"])
    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "access", access)
    assert Endpoint.resolve(environ={"HOME": "/dev/null"}).socket_path == usual


def test_a_socket_of_somebody_else_is_passed_over_for_one_of_ours(
    places: dict[str, Path], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _listening(places["docker"])
    real = os.access

    def access(path: str | os.PathLike[str], mode: int) -> bool:
        return os.fspath(path) != str(places["docker"]) and real(path, mode)

    monkeypatch.setattr(os, "access", access)
    assert Endpoint.resolve(environ=environ).socket_path == str(places["docker"])
    _listening(places["rootless docker"])
    found = Endpoint.resolve(environ=environ)
    assert found.socket_path == str(places["rootless docker"])
    assert f"{places['docker']}: not for this user" in found.considered


def test_a_place_that_may_not_be_looked_into_is_passed_over(
    places: dict[str, Path], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _listening(places["podman"])
    real: Callable[..., os.stat_result] = os.stat

    def stat(path: str | os.PathLike[str], *, follow_symlinks: bool = True) -> os.stat_result:
        if environ["HOME"] in os.fspath(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", stat)
    assert Endpoint.resolve(environ=environ).socket_path == str(places["podman"])


def test_a_relative_runtime_directory_is_an_error_and_no_guess(
    short_path: Path, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "docker" in places
    monkeypatch.chdir(short_path)
    _listening(Path("run/docker.sock"))
    with pytest.raises(ConfigError, match="needs an absolute path"):
        Endpoint.resolve(environ={"XDG_RUNTIME_DIR": "run"})


def test_docker_host_beats_the_default_sockets(places: dict[str, Path], environ: dict[str, str]) -> None:
    _listening(places["docker"])
    found = Endpoint.resolve(environ=environ | {"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert (found.url, found.source) == ("tcp://127.0.0.1:1", "DOCKER_HOST")


def test_an_empty_docker_host_is_none(places: dict[str, Path], environ: dict[str, str]) -> None:
    found = Endpoint.resolve(environ=environ | {"DOCKER_HOST": ""})
    assert found.socket_path == str(places["docker"])


def test_a_bad_docker_host_is_named_as_the_source(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"'fd://host' \(from DOCKER_HOST\) is no endpoint"):
        Endpoint.resolve(environ=environ | {"DOCKER_HOST": "fd://host"})


ARGUMENTS: list[tuple[str | Path | Endpoint, Endpoint]] = [
    ("tcp://127.0.0.1:2", Endpoint("tcp://127.0.0.1:2", "argument")),
    ("/d.sock", Endpoint("unix:///d.sock", "argument")),
    (Path("/d.sock"), Endpoint("unix:///d.sock", "argument")),
    (Endpoint("unix:///d.sock", "somewhere"), Endpoint("unix:///d.sock", "somewhere")),
]


@pytest.mark.parametrize(("argument", "expected"), ARGUMENTS, ids=str)
def test_the_argument_beats_docker_host(argument: str | Path | Endpoint, expected: Endpoint) -> None:
    assert Endpoint.resolve(argument, environ={"DOCKER_HOST": "tcp://127.0.0.1:1"}) == expected


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:3")
    assert Endpoint.resolve() == Endpoint("tcp://127.0.0.1:3", "DOCKER_HOST")


SSH: dict[str, SSHTarget] = {
    "ssh://remote": SSHTarget("remote"),
    "ssh://remote/": SSHTarget("remote"),
    "ssh://me@remote": SSHTarget("remote", "me"),
    "ssh://me@remote:2222": SSHTarget("remote", "me", 2222),
    "ssh://me@remote:2222/run/user/1000/docker.sock": SSHTarget("remote", "me", 2222, "/run/user/1000/docker.sock"),
    "ssh://remote/run/podman/podman.sock": SSHTarget("remote", path="/run/podman/podman.sock"),
    "ssh://me@example.com@remote.example": SSHTarget("remote.example", "me@example.com"),
    "ssh://[::1]:22": SSHTarget("::1", port=22),
    "SSH://my_host": SSHTarget("my_host"),
}


@pytest.mark.parametrize(("text", "target"), SSH.items(), ids=SSH)
def test_the_parts_of_an_ssh_address(text: str, target: SSHTarget) -> None:
    assert Endpoint.parse(text).ssh_target == target


def test_a_named_pipe_is_written_as_windows_does() -> None:
    assert Endpoint.parse("npipe:////./pipe/docker_engine").pipe_path == r"\\.\pipe\docker_engine"
    assert Endpoint.parse(r"npipe://\\.\pipe\docker_engine").pipe_path == r"\\.\pipe\docker_engine"


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    return tmp_path


def test_tls_verify_secures_tcp_with_the_files_of_the_cert_path(certificates: Path) -> None:
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    expected = TLSConfig(ca=certificates / "ca.pem", cert=certificates / "cert.pem", key=certificates / "key.pem")
    for host in ("tcp://127.0.0.1", "https://127.0.0.1"):
        given = Endpoint.resolve(environ=environ | {"DOCKER_HOST": host})
        assert given.tls == expected
        assert given.base_url == URL("https://127.0.0.1:2376")
        assert Endpoint.resolve(host, environ=environ).tls == expected


def test_without_a_certificate_path_the_files_are_beside_the_configuration(tmp_path: Path) -> None:
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": "tcp://127.0.0.1:1"}
    assert Endpoint.resolve(environ=environ).tls == TLSConfig(ca=tmp_path / "ca.pem")


def test_docker_tls_alone_verifies_nothing_and_still_shows_our_certificate(certificates: Path) -> None:
    environ = {"DOCKER_TLS": "1", "DOCKER_CERT_PATH": str(certificates), "DOCKER_HOST": "tcp://127.0.0.1"}
    tls = TLSConfig(cert=certificates / "cert.pem", key=certificates / "key.pem", verify=False)
    assert Endpoint.resolve(environ=environ).tls == tls
    assert Endpoint.resolve(environ=environ | {"DOCKER_TLS_VERIFY": "1"}).tls == TLSConfig(
        ca=certificates / "ca.pem", cert=certificates / "cert.pem", key=certificates / "key.pem"
    )


@pytest.mark.parametrize(
    "environ",
    [{}, {"DOCKER_TLS_VERIFY": ""}, {"DOCKER_CERT_PATH": "/x"}],
    ids=["nothing", "empty", "only the certificate path"],
)
def test_a_tcp_address_is_plain_unless_tls_is_asked_for(environ: dict[str, str]) -> None:
    plain = Endpoint.resolve("tcp://127.0.0.1", environ=environ)
    assert (plain.tls, str(plain.base_url)) == (None, "http://127.0.0.1:2375")


def test_https_is_verified_whatever_the_environment_says_less() -> None:
    assert Endpoint.resolve("https://h", environ={}).tls == TLSConfig()
    assert Endpoint("https://h").tls == TLSConfig()
    given = Endpoint.resolve("https://h", environ={"DOCKER_CERT_PATH": "/x"}).tls
    assert given == TLSConfig(ca=Path("/x/ca.pem"))


@pytest.mark.parametrize("text", ["unix:///d.sock", "http://h", "ssh://h", "npipe:////./pipe/x"])
def test_what_is_no_tls_endpoint_has_none(text: str) -> None:
    assert Endpoint(text, tls=TLSConfig()).tls is None
    assert Endpoint.resolve(text, environ={"DOCKER_TLS_VERIFY": "1", "DOCKER_CONFIG": "/nowhere"}).tls is None


def test_tls_without_a_host_means_this_machine(places: dict[str, Path]) -> None:
    """As the docker CLI does."""
    _listening(places["docker"])
    found = Endpoint.resolve(environ={"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/x"})
    assert (found.url, found.source) == ("tcp://localhost:2376", "DOCKER_TLS_VERIFY")
    assert found.tls == TLSConfig(ca=Path("/x/ca.pem"))


def test_an_endpoint_explains_what_it_chose_and_why(places: dict[str, Path], environ: dict[str, str]) -> None:
    _listening(places["rootless podman"])
    assert Endpoint.resolve(environ=environ).explain().splitlines() == [
        f"unix://{places['rootless podman']} (from default socket)",
        "  DOCKER_HOST: not set",
        "  DOCKER_CONTEXT: not set",
        f"  currentContext in {environ['HOME']}/.docker/config.json: not set",
        f"  {places['docker']}: not there",
        f"  {places['rootless docker']}: not there",
        f"  {places['docker desktop']}: not there",
        f"  {places['older docker desktop']}: not there",
        f"  {places['rootless podman']}: there",
    ]
    assert Endpoint.resolve("/d.sock").explain() == "unix:///d.sock (from argument)"


ADDRESS = st.builds(
    "{}{}".format,
    st.sampled_from(
        [
            "",
            "unix://",
            "unix:///",
            "tcp://",
            "http://",
            "https://h/",
            "TCP://[",
            "ssh://",
            "ssh://a@",
            "npipe:////./",
            "/",
        ]
    ),
    st.text(),
)


@given(st.text() | ADDRESS)
@example("tcp://\u2100")
@example("tcp://\ud800")
@example("tcp://xn--a")
@example("tcp://" + "a" * 64 + ".example")
@example("tcp://[fe80::1%]")
@example("tcp://\u00ad")
@example("tcp://a\tb")
def test_any_text_is_a_usable_endpoint_or_a_config_error(text: str) -> None:
    try:
        made = Endpoint.parse(text)
    except ConfigError:
        return
    base = made.base_url
    assert base.scheme == ("https" if made.scheme == "https" else "http")
    assert base.host
    assert base.path == base.raw_path
    assert not base.query_string
    assert not base.fragment
    assert base.port
    assert (made.scheme in ("unix", "npipe", "ssh")) == (base == URL("http://docker"))


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["directory", "file"])
def test_what_is_not_a_socket_at_a_default_place_is_passed_over(
    places: dict[str, Path], environ: dict[str, str], make: Callable[[Path], object]
) -> None:
    """Docker makes a directory of a path that it is told to mount and that is not there, a socket's, too."""
    places["docker"].parent.mkdir()
    make(places["docker"])
    _listening(places["podman"])
    found = Endpoint.resolve(environ=environ)
    assert found.socket_path == str(places["podman"])
    assert f"{places['docker']}: not a socket" in found.considered


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", " tcp://127.0.0.1:2375\n"])
def test_the_default_context_is_what_is_chosen_without_one(
    places: dict[str, Path], environ: dict[str, str], host: str
) -> None:
    _listening(places["docker"])
    assert Endpoint.from_context("default", environ=environ).socket_path == str(places["docker"])
    named = {**environ, "DOCKER_HOST": host}
    for found in (Endpoint.from_context("default", environ=named), Endpoint.resolve(environ=named)):
        assert (found.url, found.source) == ("tcp://127.0.0.1:2375", "DOCKER_HOST")


@pytest.mark.parametrize("host", ["", " ", "\r\n"], ids=ascii)
def test_a_blank_docker_host_names_nothing(places: dict[str, Path], environ: dict[str, str], host: str) -> None:
    _listening(places["docker"])
    assert Endpoint.resolve(environ={**environ, "DOCKER_HOST": host}).source == "default socket"

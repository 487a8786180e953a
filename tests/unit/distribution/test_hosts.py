"""How a host is reached, and where a `Location` leads."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import trustme
from yarl import URL

from aiodocker_images import ConfigError, RegistryConfig, RegistryUnreachableError, TLSConfig
from aiodocker_images._distribution.hosts import Hosts, resolve_location

BASE = URL("https://registry.example/v2/app/blobs/uploads/", encoded=True)

LOCATIONS = {
    "/v2/app/blobs/uploads/1?_state=a%2Fb==&x=%7e": "https://registry.example/v2/app/blobs/uploads/1?_state=a%2Fb==&x=%7e",
    "1?_state=x": "https://registry.example/v2/app/blobs/uploads/1?_state=x",
    "?_state=x": "https://registry.example/v2/app/blobs/uploads/?_state=x",
    "https://cdn.example/b?X-Sig=a%2Bb%2f": "https://cdn.example/b?X-Sig=a%2Bb%2f",
    "//cdn.example/b": "https://cdn.example/b",
    "http://registry.example/v2/1?u=http://x": "https://registry.example/v2/1?u=http://x",
    "/v2/1?u=http://x/y": "https://registry.example/v2/1?u=http://x/y",
}


@pytest.mark.parametrize(("location", "url"), LOCATIONS.items())
def test_a_location_is_followed_byte_for_byte_and_stays_https(location: str, url: str) -> None:
    assert str(resolve_location(BASE, location)) == url


@pytest.mark.parametrize(
    "location",
    [
        *("", "http://cdn.example/b", "ftp://registry.example/", "https://", "https://u:p@cdn.example/", "/a b", "/ü"),
        *("/\n", "https://[::1/", "/" + "a" * 20_000, "file:///etc/passwd"),
    ],
)
def test_a_location_that_must_not_be_followed_is_refused(location: str) -> None:
    with pytest.raises(RegistryUnreachableError):
        resolve_location(BASE, location)


BASES = {
    "docker.io": "https://registry-1.docker.io",
    "registry.example": "https://registry.example",
    "localhost:5000": "http://localhost:5000",
    "127.0.0.2:5000": "http://127.0.0.2:5000",
    "[::1]:5000": "http://[::1]:5000",
    "[2001:db8::1]:5000": "https://[2001:db8::1]:5000",
    "localhost.example:5000": "https://localhost.example:5000",
    "plain.example": "http://plain.example",
    "127.0.0.3:5000": "https://127.0.0.3:5000",
    "127.0.0.4:5000": "https://127.0.0.4:5000",
}


@pytest.mark.parametrize(("registry", "url"), BASES.items())
async def test_only_this_machine_is_asked_over_http_unless_a_setting_says_so(registry: str, url: str) -> None:
    configs = {
        "plain.example": RegistryConfig(plain_http=True),
        "127.0.0.3:5000": RegistryConfig(plain_http=False),
        "127.0.0.4:5000": RegistryConfig(tls=TLSConfig()),
    }
    assert str(await Hosts(configs).base(registry)) == url


@pytest.fixture
def certs_d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    directory = tmp_path / "docker" / "certs.d" / "127.0.0.1:5000"
    directory.mkdir(parents=True)
    return directory


async def test_a_certificate_directory_makes_even_localhost_use_https(certs_d: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(certs_d / "ca.crt")
    client = authority.issue_cert("client.example")
    client.private_key_and_cert_chain_pem.write_to_path(certs_d / "client.cert")
    client.private_key_pem.write_to_path(certs_d / "client.key")
    hosts = Hosts({})
    base = await hosts.base("127.0.0.1:5000")
    assert base.scheme == "https"
    tls = (await hosts.route(base)).tls
    assert tls is not None
    subjects = [dict(pair[0] for pair in each["subject"]) for each in tls.get_ca_certs()]  # type: ignore[misc]
    assert any("trustme" in str(subject) for subject in subjects)
    assert (await Hosts({}).route(URL("https://other.example/"))).tls is None


@pytest.mark.parametrize("name", ["ca.crt", "client.cert", "client.key"])
async def test_a_certificate_that_cannot_be_used_is_a_clear_error(certs_d: Path, name: str) -> None:
    (certs_d / name).write_text("not PEM")
    hosts = Hosts({})
    with pytest.raises(ConfigError, match=name):
        await hosts.route(await hosts.base("127.0.0.1:5000"))


async def test_the_environments_proxy_is_used_and_its_password_is_a_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ss@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example,.local")
    hosts = Hosts({})
    route = await hosts.route(URL("https://registry.example/"))
    assert route.proxy == URL("http://proxy.example:3128")
    assert route.proxy_headers == {"Proxy-Authorization": "Basic " + base64.b64encode(b"me:p@ss").decode()}
    assert "p@ss" not in repr(route)
    for outside in (
        "https://inside.example/",
        "https://x.local/",
        "https://127.0.0.1:5000/",
        "http://registry.example/",
    ):
        assert (await hosts.route(URL(outside))).proxy is None


async def test_a_proxy_that_is_not_an_address_is_an_error_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:secret@proxy.example")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        await Hosts({}).route(URL("https://registry.example/"))
    assert "secret" not in str(caught.value)

"""Credentials reach the daemon in the one form that it reads, and nobody else."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import pickle
import pprint
import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import rich.console
import rich.pretty
import rich.traceback
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._dockercli.keychain import DockerKeychain
from aiodocker_images.credentials import (
    Keychain,
    ListingKeychain,
    MultiKeychain,
    RegistryAuth,
    StaticKeychain,
    auth_document,
    registry_auth_header,
    registry_config_header,
    registry_name,
)

HUB = "https://index.docker.io/v1/"
TEXT = st.text(st.characters(codec="utf-8"))


def decoded(header: str) -> dict[str, Any]:
    """Read the header as strictly as the daemon: the URL's alphabet, with padding."""
    assert re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", header)
    assert len(header) % 4 == 0
    document: dict[str, Any] = json.loads(base64.urlsafe_b64decode(header))
    return document


CREDENTIALS = [
    (
        RegistryAuth(username="me", password="pw"),
        {"username": "me", "password": "pw", "serveraddress": "r.example"},
    ),
    (RegistryAuth(identity_token="it"), {"identitytoken": "it", "serveraddress": "r.example"}),
    (RegistryAuth(registry_token="rt"), {"registrytoken": "rt", "serveraddress": "r.example"}),
    (
        RegistryAuth(username="me", password="pw", identity_token="it", registry_token="rt"),
        {
            "username": "me",
            "password": "pw",
            "identitytoken": "it",
            "registrytoken": "rt",
            "serveraddress": "r.example",
        },
    ),
    (RegistryAuth(), {"serveraddress": "r.example"}),
    (
        RegistryAuth(username="größe", password='пароль 🔑 "\\\x01'),
        {"username": "größe", "password": 'пароль 🔑 "\\\x01', "serveraddress": "r.example"},
    ),
]


@pytest.mark.parametrize(("auth", "document"), CREDENTIALS, ids=str)
def test_the_header_has_what_is_given_under_the_names_of_the_engine(
    auth: RegistryAuth, document: dict[str, str]
) -> None:
    assert decoded(registry_auth_header(auth, "r.example")) == document


def test_the_header_without_credentials_is_an_empty_object() -> None:
    assert registry_auth_header(None, "r.example") == "e30="
    assert base64.b64decode("e30=") == b"{}"


@pytest.mark.parametrize(("password", "letter"), [("~~~", "-"), ("???", "_"), ("ÿÿÿ", "_"), ("\x7f>~", "-")])
def test_the_alphabet_is_that_of_urls(password: str, letter: str) -> None:
    """The daemon takes a header in the standard alphabet, with + and /, for none at all."""
    headers = [
        registry_auth_header(RegistryAuth(username="u" * shift, password=password * 3), "r.example")
        for shift in (1, 2, 3)
    ]
    assert any(letter in header for header in headers)
    assert not any(set(header) & set("+/") for header in headers)


@given(TEXT, TEXT, TEXT)
def test_whatever_the_credentials_are_the_daemon_reads_them(username: str, password: str, token: str) -> None:
    auth = RegistryAuth(username=username, password=password, identity_token=token)
    document = decoded(registry_auth_header(auth, "r.example"))
    assert document.get("username", "") == username
    assert document.get("password", "") == password
    assert document.get("identitytoken", "") == token


SERVERS = [
    ("docker.io", "", HUB),
    ("localhost", "", "localhost"),
    ("localhost:5000", "", "localhost:5000"),
    ("127.0.0.1:5000", "", "127.0.0.1:5000"),
    ("[::1]:5000", "", "[::1]:5000"),
    ("registry.example", "", "registry.example"),
    ("registry.example:443", "", "registry.example:443"),
    ("index.docker.io", "", HUB),
    ("registry-1.docker.io", "", HUB),
    ("docker.io", "docker.io", HUB),
    ("docker.io", "index.docker.io", HUB),
    ("docker.io", "https://registry-1.docker.io/v2/", HUB),
    ("r.example", "https://index.docker.io/v1/", HUB),
    ("r.example", "docker.io.example", "docker.io.example"),
    ("docker.io", "https://mirror.example/v1/", "https://mirror.example/v1/"),
    ("localhost:5000", "https://other.example", "https://other.example"),
]


@pytest.mark.parametrize(("registry", "own", "server"), SERVERS)
def test_the_server_address_is_the_registry_unless_the_credentials_say_one(
    registry: str, own: str, server: str
) -> None:
    auth = RegistryAuth(username="me", password="pw", server_address=own)
    assert decoded(registry_auth_header(auth, registry))["serveraddress"] == server


SECRETS = ("s3cret-pw", "s3cret-it", "s3cret-rt")
AUTH = RegistryAuth(
    username="me", password=SECRETS[0], identity_token=SECRETS[1], registry_token=SECRETS[2], server_address="r.example"
)


def _logged(value: object) -> str:
    record = logging.LogRecord("test", logging.ERROR, __file__, 1, "%s %r", (value, value), None)
    return logging.Formatter().format(record)


def _raise(value: object) -> None:
    raise ValueError(value)


def _raised(value: object) -> BaseException:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is what is tried
        _raise(value)
    return caught.value


def _rich_traceback(value: object) -> str:
    console = rich.console.Console(file=io.StringIO(), width=200, record=True)
    error = _raised(value)
    console.print(rich.traceback.Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
    return console.export_text()


SHOWN: dict[str, Callable[[object], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": format,
    "f-string": lambda value: f"{value} {value!r} {value!s} {value!a}",
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031 - the form is what is tried
    "list": lambda value: str([value, {"auth": value}]),
    "pprint": pprint.pformat,
    "logging": _logged,
    "exception": lambda value: "".join(traceback.format_exception(_raised(value))),
    "rich": rich.pretty.pretty_repr,
    "rich in a list": lambda value: rich.pretty.pretty_repr([value]),
    "rich traceback with locals": _rich_traceback,
}


@pytest.mark.parametrize("value", [AUTH, StaticKeychain({"r.example": AUTH})], ids=["auth", "keychain"])
@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_no_secret_is_shown(show: Callable[[object], str], value: object) -> None:
    text = show(value)
    assert "r.example" in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_the_repr_says_what_is_given() -> None:
    assert repr(AUTH) == (
        "RegistryAuth(username='me', password=***, identity_token=***, registry_token=***, server_address='r.example')"
    )
    assert repr(RegistryAuth()) == "RegistryAuth()"
    assert repr(RegistryAuth(identity_token="x")) == "RegistryAuth(identity_token=***)"
    assert rich.pretty.pretty_repr(RegistryAuth(username="me", password="x")) == (
        "RegistryAuth(username='me', password='***')"
    )


def test_credentials_are_values() -> None:
    same = RegistryAuth(username="me", password="x")
    assert RegistryAuth(username="me", password="x") == same
    assert RegistryAuth(username="me", password="y") != same
    assert len({same, copy.copy(same), pickle.loads(pickle.dumps(same))}) == 1
    with pytest.raises(AttributeError):
        same.password = "y"  # type: ignore[misc]  # that it fails is the claim


async def test_a_static_keychain_gives_what_it_was_made_of() -> None:
    credentials = {"docker.io": RegistryAuth(username="hub"), "localhost:5000": RegistryAuth(username="local")}
    keychain = StaticKeychain(credentials)
    credentials.clear()
    assert await keychain.resolve("docker.io") == RegistryAuth(username="hub")
    assert await keychain.resolve("localhost:5000") == RegistryAuth(username="local")
    assert await keychain.resolve("localhost") is None
    assert await keychain.resolve("registry.example") is None
    assert repr(keychain) == "StaticKeychain(['docker.io', 'localhost:5000'])"
    assert await keychain.resolve_all() == {
        "docker.io": RegistryAuth(username="hub"),
        "localhost:5000": RegistryAuth(username="local"),
    }


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io", HUB, "https://docker.io"])
async def test_a_static_keychain_knows_a_registry_by_all_its_names(name: str) -> None:
    auth = RegistryAuth(username="hub")
    assert await StaticKeychain({name: auth}).resolve("docker.io") == auth
    assert await StaticKeychain({name: auth}).resolve_all() == {"docker.io": auth}
    assert await StaticKeychain({"docker.io": auth}).resolve(name) == auth
    exact = RegistryAuth(username="exact")
    both = StaticKeychain({"http://r.example:5000/v2/": auth, "r.example:5000": exact, "https://r.example:5000": auth})
    assert await both.resolve("r.example:5000") == exact
    assert await both.resolve("r.example") is None


def test_the_build_header_names_each_registry_once_as_the_daemon_does() -> None:
    me, other = RegistryAuth(username="me", password="ÿÿÿ~~~???"), RegistryAuth(registry_token="rt")
    header = registry_config_header({"index.docker.io": other, HUB: me, "https://r.example:5000/v1/": other})
    assert decoded(header) == {
        HUB: {"username": "me", "password": "ÿÿÿ~~~???", "serveraddress": HUB},
        "r.example:5000": {"registrytoken": "rt", "serveraddress": "r.example:5000"},
    }


AUTHS = st.builds(RegistryAuth, username=TEXT, password=TEXT, identity_token=TEXT, registry_token=TEXT)


@given(st.dictionaries(TEXT, AUTHS))
def test_the_daemon_reads_credentials_of_registries_of_any_name(given: dict[str, RegistryAuth]) -> None:
    document = decoded(registry_config_header(given))
    assert {registry_name(name) for name in document} == {registry_name(name) for name in given}
    for name, auth in given.items():
        if sum(registry_name(each) == registry_name(name) for each in given) == 1:
            registry = registry_name(name)
            assert document[HUB if registry == "docker.io" else registry] == auth_document(auth, registry)


def test_a_keychain_is_whatever_can_resolve() -> None:
    class Mine:
        async def resolve(self, registry: str) -> RegistryAuth | None:
            return RegistryAuth(username=registry)

    assert isinstance(Mine(), Keychain)
    assert not isinstance(Mine(), ListingKeychain)
    assert not isinstance({}, Keychain)
    for ours in (StaticKeychain({}), MultiKeychain(), DockerKeychain()):
        assert isinstance(ours, Keychain)
        assert isinstance(ours, ListingKeychain)

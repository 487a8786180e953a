"""The keychain of the docker CLI's user: every place, every form of entry, every kind of broken one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import (
    ConfigError,
    CredentialHelperError,
    DockerKeychain,
    ListingKeychain,
    MultiKeychain,
    RegistryAuth,
    StaticKeychain,
)
from aiodocker_images._dockercli import keychain as dockerkeychain
from aiodocker_images._dockercli.config import JSONConfig, usable_config
from aiodocker_images._dockercli.keychain import podman_files
from tests.support.docker_home import DockerHome, basic

HUB = "https://index.docker.io/v1/"
R = "r.example:5000"


@pytest.fixture
def home(tmp_path: Path) -> DockerHome:
    return DockerHome(tmp_path)


@pytest.fixture
def keychain(home: DockerHome) -> DockerKeychain:
    return DockerKeychain(environ=home.environ)


def someone(name: str) -> RegistryAuth:
    return RegistryAuth(username=name, password=f"pw of {name}")


def entry(name: str) -> dict[str, str]:
    return {"auth": basic(name, f"pw of {name}")}


def podman_helper(home: DockerHome) -> None:
    home.store("podman-helper", {R: ("podman-helper", "pw of podman-helper")})
    home.write(home.runtime_auth_json, {"auths": {R: entry("x")}, "credHelpers": {R: "podman-helper"}})


def podman_file(home: DockerHome) -> None:
    home.environ["REGISTRY_AUTH_FILE"] = f"{home.path}/elsewhere.json"
    home.write(home.path / "elsewhere.json", {"auths": {R: entry("podman-file")}})


def store(home: DockerHome) -> None:
    home.store("store", {R: ("store", "pw of store")})
    home.config(auths={R: entry("auths")}, credsStore="store")


def helper(home: DockerHome) -> None:
    home.store("helper", {R: ("helper", "pw of helper")})
    home.config(auths={R: entry("auths")}, credsStore="store", credHelpers={R: "helper"})


# From the last resort to the first: each beats those before it.
PLACES: dict[str, Callable[[DockerHome], object]] = {
    "podman-home": lambda home: home.write(home.home_auth_json, {"auths": {R: entry("podman-home")}}),
    "podman-run": lambda home: home.write(home.runtime_auth_json, {"auths": {R: entry("podman-run")}}),
    "podman-helper": podman_helper,
    "podman-file": podman_file,
    "auths": lambda home: home.config(auths={R: entry("auths")}),
    "store": store,
    "helper": helper,
    "environment": lambda home: home.environ.update(
        DOCKER_AUTH_CONFIG=json.dumps({"auths": {R: entry("environment")}})
    ),
}


async def test_the_places_are_asked_in_their_order_anew_each_time(home: DockerHome, keychain: DockerKeychain) -> None:
    assert await keychain.resolve(R) is None
    for place, make in PLACES.items():
        make(home)
        assert await keychain.resolve(R) == someone(place)
        assert await keychain.resolve_all() == {R: someone(place)}
        assert await keychain.resolve("other.example") is None


async def test_a_place_without_the_registry_sends_on_to_the_next(home: DockerHome, keychain: DockerKeychain) -> None:
    home.environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {R: {}, "other.example": entry("other")}})
    home.store("empty", {})
    home.helper("blank", """echo '{"ServerURL": "", "Username": "", "Secret": ""}'""")
    home.config(auths={R: {}}, credHelpers={R: "empty"}, credsStore="blank")
    home.write(home.runtime_auth_json, {"auths": {R: None}})
    home.write(home.home_auth_json, {"auths": {R: entry("last")}})
    assert await keychain.resolve(R) == someone("last")
    home.config(auths={R: {"auth": ""}}, credsStore="blank")
    assert await keychain.resolve(R) == someone("last")
    home.config(auths={R: entry("auths")}, credsStore="blank")
    assert await keychain.resolve(R) == someone("auths")
    home.config(auths={R: entry("auths")}, credHelpers={R: ""}, credsStore="no-such-helper")
    assert await keychain.resolve(R) == someone("auths")


async def test_concurrent_calls_read_the_files_once(
    home: DockerHome, keychain: DockerKeychain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred pulls that begin at once are one look; each that begins later sees what the files hold then."""
    read: list[Path] = []

    def counting(path: Path) -> JSONConfig | None:
        read.append(path)
        return usable_config(path)

    monkeypatch.setattr(dockerkeychain, "usable_config", counting)
    home.config(auths={R: entry("before")})
    assert await asyncio.gather(*(keychain.resolve(R) for _ in range(100))) == [someone("before")] * 100
    assert read == [home.config_json]
    home.config(auths={R: entry("after")})
    assert await keychain.resolve(R) == someone("after")
    assert read == [home.config_json] * 2


async def test_concurrent_calls_share_the_same_helpers(home: DockerHome, keychain: DockerKeychain) -> None:
    """Two helpers that know nothing, and an entry behind them; of another registry only the first does."""
    home.store("one", {"other.example": ("one", "pw of one")})
    home.store("two", {})
    home.config(credsStore="one")
    home.write(home.runtime_auth_json, {"auths": {}, "credHelpers": {R: "two"}})
    home.write(home.home_auth_json, {"auths": {R: entry("last")}})
    asked = [R, "other.example", R, "nobody.example"] * 5
    found = await asyncio.gather(*map(keychain.resolve, asked))
    assert found == [someone("last"), someone("one"), someone("last"), None] * 5
    assert sorted((home.path / "asked").read_text().splitlines()) == [
        "one get nobody.example",
        "one get other.example",
        f"one get {R}",
        f"two get {R}",
    ]


async def test_the_environment_of_the_process_is_the_default(home: DockerHome, monkeypatch: pytest.MonkeyPatch) -> None:
    keychain = DockerKeychain()
    for variable, value in home.environ.items():
        monkeypatch.setenv(variable, value)
    home.store("helper", {R: ("helper", "pw of helper")})
    home.config(credsStore="helper")
    assert await keychain.resolve(R) == someone("helper")
    monkeypatch.delenv("DOCKER_CONFIG")
    assert await keychain.resolve(R) is None
    home.write(home.path / ".docker/config.json", {"auths": {R: entry("default")}})
    assert await keychain.resolve(R) == someone("default")


ENTRIES: dict[str, tuple[object, RegistryAuth | None]] = {
    "auth": ({"auth": "bWU6cHc="}, RegistryAuth(username="me", password="pw")),
    "a colon in the password": ({"auth": basic("me", "p:w:")}, RegistryAuth(username="me", password="p:w:")),
    "an empty password": ({"auth": basic("me", "")}, RegistryAuth(username="me")),
    "no ASCII": ({"auth": basic("größe", "пароль 🔑")}, RegistryAuth(username="größe", password="пароль 🔑")),
    "NULs at the end": ({"auth": basic("me", "pw\0\0")}, RegistryAuth(username="me", password="pw")),
    "line ends": ({"auth": "bWU6\r\ncHc=\n"}, RegistryAuth(username="me", password="pw")),
    "username, password": ({"username": "me", "password": "pw"}, RegistryAuth(username="me", password="pw")),
    "auth beats username": (
        {"auth": basic("me", "pw"), "username": "x", "password": "y", "email": "me@r.example"},
        RegistryAuth(username="me", password="pw"),
    ),
    "an identity token": (
        {"auth": basic("00000000-0000-0000-0000-000000000000", ""), "identitytoken": "it"},
        RegistryAuth(username="00000000-0000-0000-0000-000000000000", identity_token="it"),
    ),
    "an identity token alone": ({"auth": "", "identitytoken": "it"}, RegistryAuth(identity_token="it")),
    "a registry token": ({"registrytoken": "rt"}, RegistryAuth(registry_token="rt")),
    "<token>": ({"auth": basic("<token>", "it")}, RegistryAuth(identity_token="it")),
    "<token> as username": ({"username": "<token>", "password": "it"}, RegistryAuth(identity_token="it")),
    "<token> without one": ({"auth": basic("<token>", "")}, None),
    "nulls": ({"auth": None, "username": None, "password": None, "identitytoken": None, "registrytoken": None}, None),
    "empty texts": ({"auth": "", "username": "", "password": "", "identitytoken": ""}, None),
    "nothing": ({}, None),
    "null": (None, None),
    "what is unknown": ({"email": 1, "x": {"auth": 2}}, None),
}
# What is wrong, and what the error says of it.
BROKEN: dict[str, tuple[object, str]] = {
    "no base64": ({"auth": "s3cret!!"}, "'auth' in the entry for 'r.example:5000' in {} makes no sense"),
    "no padding": ({"auth": "bWU6c2VjcmV0cw"}, "it is no base64 of user:password"),
    "the alphabet of URLs": ({"auth": basic("me", "~~~>>>??").replace("+", "-").replace("/", "_")}, "no base64"),
    "no ASCII": ({"auth": "s3crét"}, "no base64"),
    "no UTF-8": ({"auth": "bWU6//4="}, "no base64"),
    "no colon": ({"auth": "czNjcmV0"}, "no base64 of user:password"),
    "no user": ({"auth": "OnMzY3JldA=="}, "no base64 of user:password"),
    "a number": ({"auth": 12345678}, "'auth' in the entry for 'r.example:5000' in {} makes no sense: Expected"),
    "a list": ({"password": ["s3cret"]}, "'password' in the entry for 'r.example:5000' in {} makes no sense"),
    "an object": ({"identitytoken": {"s3cret": 1}}, "'identitytoken' in the entry"),
    "a token that is none": ({"registrytoken": True}, "'registrytoken' in the entry"),
    "no entry": ("s3cret", "the entry for 'r.example:5000' in {} makes no sense: Expected `object`, got `str`"),
}


def places_of_entries(home: DockerHome, auths: object) -> dict[str, Callable[[], object]]:
    return {
        "DOCKER_AUTH_CONFIG": lambda: home.environ.update(DOCKER_AUTH_CONFIG=json.dumps({"auths": auths})),
        str(home.config_json): lambda: home.config(auths=auths),
        str(home.runtime_auth_json): lambda: home.write(home.runtime_auth_json, {"auths": auths}),
    }


@pytest.mark.parametrize(("given", "auth"), ENTRIES.values(), ids=ENTRIES)
async def test_every_form_of_entry_is_read_everywhere(
    home: DockerHome, keychain: DockerKeychain, given: object, auth: RegistryAuth | None
) -> None:
    for make in reversed(places_of_entries(home, {R: given}).values()):
        make()
        assert await keychain.resolve(R) == auth
        assert await keychain.resolve_all() == ({R: auth} if auth else {})


@pytest.mark.parametrize(("given", "reason"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_entry_hurts_only_its_own_registry(
    home: DockerHome, keychain: DockerKeychain, caplog: pytest.LogCaptureFixture, given: object, reason: str
) -> None:
    for where, make in reversed(places_of_entries(home, {R: given, "other.example": entry("other")}).items()):
        make()
        caplog.clear()
        with pytest.raises(ConfigError) as caught:
            await keychain.resolve(R)
        assert reason.replace("{}", where) in str(caught.value)
        assert where in str(caught.value)
        assert "cret" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert await keychain.resolve("other.example") == someone("other")
        assert await keychain.resolve("none.example") is None
        assert await keychain.resolve_all() == {"other.example": someone("other")}
        assert [record.getMessage() for record in caplog.records] == [f"no credentials for {R}: {caught.value}"]


MEMBERS: dict[str, tuple[dict[str, object], str]] = {
    "auths": ({"auths": ["s3cret"]}, "'auths' in {} makes no sense: Expected `object | null`"),
    "auths that are null": ({"auths": None}, ""),
    "credHelpers": ({"credHelpers": "s3cret"}, "'credHelpers' in {} makes no sense"),
    "credHelpers of one": ({"credHelpers": {R: 7}}, f"'{R}' in 'credHelpers' in {{}} makes no sense"),
    "credsStore": ({"credsStore": 1}, "'credsStore' in {} makes no sense: Expected `str | null`"),
}


@pytest.mark.parametrize(("members", "warning"), MEMBERS.values(), ids=MEMBERS)
async def test_a_member_of_a_wrong_kind_is_left_out_with_one_warning(
    home: DockerHome,
    keychain: DockerKeychain,
    caplog: pytest.LogCaptureFixture,
    members: dict[str, object],
    warning: str,
) -> None:
    """As by the docker CLI: what is sound beside it counts."""
    home.config(**({"auths": {R: entry("me")}} | members))
    expected = None if "auths" in members else someone("me")
    for _ in range(3):
        assert await keychain.resolve(R) == expected
    assert len(caplog.messages) == bool(warning)
    assert "".join(caplog.messages).startswith(warning.replace("{}", str(home.config_json)))
    assert "s3cret" not in "".join(caplog.messages)


@pytest.mark.parametrize("text", ["{", "[]", "s3cret", '{"auths": {},}', "\udcff"], ids=ascii)
async def test_a_place_that_makes_no_sense_is_left_out_with_one_warning(
    home: DockerHome, keychain: DockerKeychain, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """The docker CLI warns as well, and goes on with what there is elsewhere."""
    home.config(auths={R: entry("docker")})
    home.environ["DOCKER_AUTH_CONFIG"] = text
    assert await keychain.resolve(R) == someone("docker")
    assert await keychain.resolve_all() == {R: someone("docker")}
    (message,) = caplog.messages
    assert message.startswith("DOCKER_AUTH_CONFIG makes no sense")
    del home.environ["DOCKER_AUTH_CONFIG"]
    home.config_json.write_bytes(text.encode("utf-8", "surrogateescape"))
    home.write(home.runtime_auth_json, {"auths": {R: entry("podman")}})
    assert await keychain.resolve(R) == someone("podman")
    assert caplog.messages[1].startswith(f"{home.config_json} makes no sense")
    assert "s3cret" not in "".join(caplog.messages)


async def test_members_are_found_in_any_case_and_registries_are_not(home: DockerHome, keychain: DockerKeychain) -> None:
    home.config(Auths={R: {"Auth": basic("me", "pw"), "IDENTITYTOKEN": "it"}, "Other.example": entry("x")})
    assert await keychain.resolve(R) == RegistryAuth(username="me", password="pw", identity_token="it")
    assert await keychain.resolve("other.example") is None


PARTS: list[tuple[str, str, str | None]] = [
    (R, "team-a/app", "a"),
    (R, "team-a", "a"),
    (R, "team-a/app/deep", "deep"),
    (R, "team-a/application", "a"),
    (R, "team-ab/app", None),
    (R, "other/app", None),
    (R, "", None),
    ("docker.io", "library/alpine", "hub"),
    ("docker.io", "me/app", "me"),
    ("docker.io", "", "hub"),
    ("whole.example", "team/app", "whole"),
    ("whole.example", "app", "all"),
]


@pytest.mark.parametrize(("registry", "repository", "user"), PARTS)
async def test_the_longest_key_that_matches_the_image_counts(
    home: DockerHome, keychain: DockerKeychain, registry: str, repository: str, user: str | None
) -> None:
    """In the docker CLI's file, in Podman's, as entries and as helpers; what is for others is never sent."""
    users = {
        f"{R}/team-z": "z", f"{R}/team-a": "a", f"{R}/team-a/app/deep": "deep", "docker.io/me": "me", HUB: "hub",
        "whole.example/team": "whole", "whole.example": "all",
    }  # fmt: skip
    expected = None if user is None else someone(user)
    auths = {key: entry(name) for key, name in users.items()}
    home.config(auths=auths)
    assert await keychain.resolve(registry, repository) == expected
    static = StaticKeychain({key: someone(name) for key, name in users.items()})
    assert await static.resolve(registry, repository) == expected
    assert await MultiKeychain(StaticKeychain({}), static).resolve(registry, repository) == expected
    home.config()
    home.write(home.runtime_auth_json, {"auths": auths})
    assert await keychain.resolve(registry, repository) == expected


NAMES = ["a+b", "my helper", "\u00e9", "a=b", "-x", "$(x)", "a.b_c"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_helper_may_be_called_whatever_a_program_may_be_called(
    home: DockerHome, keychain: DockerKeychain, name: str
) -> None:
    home.helper(name, """echo '{"Username": "me", "Secret": "pw"} and more'""")
    home.config(credHelpers={R: name})
    assert await keychain.resolve(R) == RegistryAuth(username="me", password="pw")


@pytest.mark.parametrize("name", ["../../bin/s3cret", "a/b", "a\0b", "no-such-helper"], ids=ascii)
async def test_a_helper_that_fails_does_not_hide_what_is_beside_and_behind_it(
    home: DockerHome, keychain: DockerKeychain, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    home.config_json.parent.mkdir(parents=True, exist_ok=True)
    home.config_json.write_text(json.dumps({"credHelpers": {R: name}}))
    with pytest.raises(CredentialHelperError):
        await keychain.resolve(R)
    home.write(home.runtime_auth_json, {"auths": {R: entry("podman")}})
    assert await keychain.resolve(R) == someone("podman")
    home.config_json.write_text(json.dumps({"credHelpers": {R: name}, "auths": {R: entry("beside")}}))
    assert await keychain.resolve(R) == someone("beside")
    assert await keychain.resolve_all() == {R: someone("beside")}
    assert all("other credentials are used for" in message for message in caplog.messages)


SAME: dict[str, list[str]] = {
    "docker.io": [
        *("docker.io", "index.docker.io", "registry-1.docker.io"),
        *(HUB, "https://index.docker.io", "http://index.docker.io/v1", "https://docker.io/", "docker.io/v1/"),
        *("https://registry-1.docker.io/v2/", "https://index.docker.io/v2/"),
    ],
    R: [R, f"https://{R}", f"http://{R}/", f"https://{R}/v1/", f"https://{R}/v2/some/path", f"https://me@{R}/"],
    "localhost": ["localhost", "http://localhost", "localhost/v2/"],
    "[::1]:5000": ["[::1]:5000", "https://[::1]:5000/v2/"],
}
OTHER = [
    "docker.com",
    "io",
    "docker.io.example",
    "xdocker.io",
    "docker.io:443",
    "r.example",
    f"x{R}",
    f"{R}0",
    "https://",
]


@pytest.mark.parametrize(("registry", "key"), [(registry, key) for registry, keys in SAME.items() for key in keys])
async def test_a_registry_is_meant_by_all_its_names(
    home: DockerHome, keychain: DockerKeychain, registry: str, key: str
) -> None:
    home.config(auths={other: entry("other") for other in OTHER} | {key: entry("me")})
    assert await keychain.resolve(registry) == someone("me")
    assert await keychain.resolve(key) == someone("me")
    assert (await keychain.resolve_all())[registry] == someone("me")
    home.store("mine", {HUB if registry == "docker.io" else registry: ("me", "pw of me")})
    home.store("others", {})
    home.config(credHelpers=dict.fromkeys(OTHER, "others") | {key: "mine"})
    assert await keychain.resolve(registry) == someone("me")


@pytest.mark.parametrize("other", OTHER)
async def test_another_registry_gets_nothing(home: DockerHome, keychain: DockerKeychain, other: str) -> None:
    home.config(auths={"docker.io": entry("me"), R: entry("me"), "localhost": entry("me")})
    assert await keychain.resolve(other) is None


async def test_an_exact_name_beats_another(home: DockerHome, keychain: DockerKeychain) -> None:
    home.config(auths={f"https://{R}/v1/": entry("url"), R: entry("exact"), f"http://{R}": entry("url")})
    assert await keychain.resolve(R) == someone("exact")
    home.config(auths={"index.docker.io": entry("other"), "docker.io": entry("short"), HUB: entry("exact")})
    assert await keychain.resolve("docker.io") == someone("exact")
    home.config(auths={"index.docker.io": entry("other"), "docker.io": entry("short"), HUB: {}})
    assert await keychain.resolve("docker.io") == someone("short")


async def test_an_address_with_a_scheme_or_of_the_api_means_the_whole_registry(
    home: DockerHome, keychain: DockerKeychain
) -> None:
    for name in (f"https://{R}/team", f"{R}/v1/", f"{R}/v2", f"http://{R}/v2/team/"):
        home.config(auths={name: entry("old")})
        assert await keychain.resolve(R, "any/app") == someone("old")


async def test_helpers_are_asked_for_the_names_under_which_they_were_told(
    home: DockerHome, keychain: DockerKeychain
) -> None:
    home.store("cli", {})
    home.store("podman", {"docker.io": ("<token>", "it")})
    home.config(credsStore="cli", credHelpers={"index.docker.io": "cli"})
    home.write(home.runtime_auth_json, {"credHelpers": {"docker.io": "podman"}, "credsStore": "never"})
    assert await keychain.resolve(R) is None
    assert await keychain.resolve("registry-1.docker.io") == RegistryAuth(identity_token="it")
    assert home.asked == [f"cli get {R}", f"cli get {HUB}", "podman get docker.io"]


PODMAN_FILES: list[tuple[dict[str, str], list[str]]] = [
    ({"REGISTRY_AUTH_FILE": "/a.json", "XDG_RUNTIME_DIR": "/run/me", "HOME": "/home/me"}, ["/a.json"]),
    (
        {"XDG_RUNTIME_DIR": "/run/me", "HOME": "/home/me"},
        ["/run/me/containers/auth.json", "/home/me/.config/containers/auth.json"],
    ),
    (
        {"XDG_CONFIG_HOME": "/xdg", "HOME": "/home/me"},
        [f"/run/containers/{os.getuid()}/auth.json", "/xdg/containers/auth.json"],
    ),
]


@pytest.mark.parametrize(("environ", "paths"), PODMAN_FILES)
def test_podmans_files_are_where_podman_has_them(environ: dict[str, str], paths: list[str]) -> None:
    assert [str(path) for path in podman_files(environ)] == paths


async def test_all_that_is_known_is_what_each_registry_would_get(
    home: DockerHome, keychain: DockerKeychain, caplog: pytest.LogCaptureFixture
) -> None:
    home.store(
        "store",
        {
            HUB: ("hub", "pw of hub"),
            "https://index.docker.io/v1/access-token": ("hub", "s3cret"),
            "https://stored.example": ("stored", "pw of stored"),
            "env.example": ("x", "y"),
            R: ("x", "y"),
        },
    )
    home.store("own", {R: ("own", "pw of own")})
    home.helper("broken", "exit 2")
    home.environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"env.example": entry("env")}})
    home.config(
        credsStore="store",
        credHelpers={R: "own", "broken.example": "broken", "nowhere.example": "no-such"},
        auths={"file.example": entry("file"), "https://stored.example": {}, "bad.example": {"auth": "s3cret!"}},
    )
    home.write(home.home_auth_json, {"auths": {"podman.example": entry("podman"), "file.example": entry("x")}})
    assert isinstance(keychain, ListingKeychain)
    assert await keychain.resolve_all() == {
        "docker.io": someone("hub"),
        "stored.example": someone("stored"),
        "env.example": someone("env"),
        R: someone("own"),
        "file.example": someone("file"),
        "podman.example": someone("podman"),
    }
    assert sorted(home.asked) == [
        *(f"own get {R}", f"store get {HUB}", "store get https://stored.example", "store list unused"),
    ]
    failures = {
        "bad": f"'auth' in the entry for 'bad.example' in {home.config_json} makes no sense: it is no base64 of "
        "user:password",
        "broken": "docker-credential-broken, asked for 'broken.example', failed with exit status 2 and no message",
        "nowhere": "docker-credential-no-such, asked for 'nowhere.example', is not on PATH",
    }
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"no credentials for {name}.example: {failure}" for name, failure in failures.items()
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {("aiodocker_images", logging.WARNING)}


async def test_what_a_store_has_for_a_part_of_a_registry_is_not_for_all_of_it(
    home: DockerHome, keychain: DockerKeychain
) -> None:
    """`podman login registry.example/team` stores such names; the classic builder is sent whole registries alone."""
    home.store("store", {"part.example/team": ("part", "pw of part"), R: ("whole", "pw of whole")})
    home.config(credsStore="store", auths={"part.example/other": entry("other")})
    assert await keychain.resolve_all() == {R: someone("whole")}


async def test_a_store_that_cannot_list_costs_only_what_it_has(
    home: DockerHome, keychain: DockerKeychain, caplog: pytest.LogCaptureFixture
) -> None:
    home.helper("store", "exit 1")
    home.config(credsStore="store", auths={R: entry("file")})
    assert await keychain.resolve_all() == {R: someone("file")}
    (record,) = caplog.records
    assert record.getMessage() == (
        "no credentials from the credential store: docker-credential-store failed with exit status 1 and no message"
    )


FIELD = st.sampled_from(["auth", "username", "password", "identitytoken", "registrytoken", R, HUB]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["bWU6cHc=", "<token>", R]),
    lambda inner: st.lists(inner) | st.dictionaries(FIELD, inner),
    max_leaves=20,
)


@given(JSON, JSON)
def test_any_json_is_an_answer_or_a_config_error(auths: object, entry: object) -> None:
    for document in (auths, {"auths": auths}, {"auths": {R: entry}}):
        keychain = DockerKeychain(
            environ={
                "DOCKER_AUTH_CONFIG": json.dumps(document),
                "DOCKER_CONFIG": "/nowhere",
                "REGISTRY_AUTH_FILE": "/nowhere",
            }
        )

        async def ask(keychain: DockerKeychain = keychain) -> None:
            with contextlib.suppress(ConfigError):
                assert await keychain.resolve(R) != RegistryAuth()
            with contextlib.suppress(ConfigError):
                assert RegistryAuth() not in (await keychain.resolve_all()).values()

        asyncio.run(ask())


@pytest.mark.parametrize("seconds", [0, -1, float("nan")], ids=str)
def test_a_time_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="helper_timeout"):
        DockerKeychain(helper_timeout=seconds)


def test_the_repr_shows_nothing_of_the_environment() -> None:
    assert repr(DockerKeychain(environ={"DOCKER_AUTH_CONFIG": "s3cret"})) == "DockerKeychain()"

"""A docker context is found where the docker CLI wrote it, and whatever lies there is read or refused by name."""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiodocker_images import ConfigError, ContextNotFoundError, Endpoint, TLSConfig
from tests.support.docker_contexts import write_context


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"DOCKER_CONFIG": str(tmp_path)}


def choose(directory: Path, name: str) -> None:
    (directory / "config.json").write_text(json.dumps({"currentContext": name, "auths": {"broken": 1}}))


def test_the_variable_names_a_context(tmp_path: Path, environ: dict[str, str]) -> None:
    path = write_context(tmp_path, "prod", Host="tcp://prod.example:2376")
    choose(tmp_path, "other")
    found = Endpoint.resolve(environ=environ | {"DOCKER_CONTEXT": "prod"})
    assert (found.url, found.source, found.tls) == (
        "tcp://prod.example:2376",
        f'context "prod" in {path}',
        None,
    )
    assert found.considered == ("DOCKER_HOST: not set", "DOCKER_CONTEXT: prod")


def test_the_configuration_names_a_context(tmp_path: Path, environ: dict[str, str]) -> None:
    path = write_context(tmp_path, "prod", Host="ssh://me@prod.example")
    choose(tmp_path, "prod")
    found = Endpoint.resolve(environ=environ)
    assert (found.url, found.source) == ("ssh://me@prod.example", f'context "prod" in {path}')
    assert found.considered[-1] == f"currentContext in {tmp_path}/config.json: prod"


def test_an_address_beats_every_context(tmp_path: Path, environ: dict[str, str]) -> None:
    choose(tmp_path, "missing")
    environ |= {"DOCKER_CONTEXT": "missing", "DOCKER_HOST": "tcp://127.0.0.1:1"}
    assert Endpoint.resolve(environ=environ).source == "DOCKER_HOST"
    assert Endpoint.resolve("/d.sock", environ=environ).source == "argument"


def test_the_default_context_is_none(tmp_path: Path, environ: dict[str, str]) -> None:
    choose(tmp_path, "missing")
    found = Endpoint.resolve(environ=environ | {"DOCKER_CONTEXT": "default"})
    assert found.source == "default socket"
    assert Endpoint.from_context("default", environ=environ).source == "default socket"
    choose(tmp_path, "default")
    assert Endpoint.resolve(environ=environ).source == "default socket"


TLS: dict[str, tuple[tuple[str, ...], bool, Callable[[Path], TLSConfig | None]]] = {
    "nothing": ((), False, lambda _: None),
    "authority": (("ca.pem",), False, lambda files: TLSConfig(ca=files / "ca.pem")),
    "all": (
        ("ca.pem", "cert.pem", "key.pem"),
        False,
        lambda files: TLSConfig(ca=files / "ca.pem", cert=files / "cert.pem", key=files / "key.pem"),
    ),
    "unverified": ((), True, lambda _: TLSConfig(verify=False)),
    "client certificate, unverified": (
        ("cert.pem", "key.pem"),
        True,
        lambda files: TLSConfig(cert=files / "cert.pem", key=files / "key.pem", verify=False),
    ),
}


@pytest.mark.parametrize(("files", "skip", "expected"), TLS.values(), ids=TLS)
def test_tls_is_as_the_context_says_and_its_files_are_read_where_they_are(
    tmp_path: Path,
    environ: dict[str, str],
    files: tuple[str, ...],
    skip: bool,
    expected: Callable[[Path], TLSConfig | None],
) -> None:
    path = write_context(tmp_path, "prod", files=files, Host="tcp://prod", SkipTLSVerify=skip)
    # What the environment says is about addresses without a context.
    found = Endpoint.from_context("prod", environ=environ | {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/x"})
    assert found.tls == expected(tmp_path / "contexts/tls" / path.parent.name / "docker")


def test_a_context_without_a_host_is_the_default_one_by_another_name(tmp_path: Path, environ: dict[str, str]) -> None:
    path = write_context(tmp_path, "mine", Host="")
    found = Endpoint.from_context("mine", environ=environ)
    assert found.scheme == "unix"
    assert found.source == f'context "mine" in {path}'


def test_a_missing_context_names_its_source_and_the_known_contexts(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(
        ContextNotFoundError,
        match=rf"^there is no docker context 'prod' \(from DOCKER_CONTEXT\): there is none in {tmp_path}$",
    ):
        Endpoint.resolve(environ=environ | {"DOCKER_CONTEXT": "prod"})
    write_context(tmp_path, "two", Host="tcp://two")
    write_context(tmp_path, "one", Host="tcp://one")
    choose(tmp_path, "prod")
    with pytest.raises(
        ContextNotFoundError, match=rf"\(from currentContext in {tmp_path}/config\.json\): there are 'one', 'two'$"
    ):
        Endpoint.resolve(environ=environ)


@pytest.mark.parametrize("name", ["../prod", "a", "-prod", "prod/x", "prod\n", "p\0d", "ü" * 9, " "], ids=ascii)
def test_what_is_no_name_of_a_context_is_refused(environ: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a docker context"):
        Endpoint.resolve(environ=environ | {"DOCKER_CONTEXT": name})


BROKEN: dict[str, Any] = {
    "no endpoints": {"Name": "prod"},
    "no docker endpoint": {"Name": "prod", "Endpoints": {"kubernetes": {}}},
    "null": {"Endpoints": {"docker": None}},
    "a list": [],
    "endpoints of another type": {"Endpoints": [1]},
    "a host of another type": {"Endpoints": {"docker": {"Host": 1}}},
    "no address": {"Endpoints": {"docker": {"Host": "gopher://x"}}},
}


@pytest.mark.parametrize("meta", BROKEN.values(), ids=BROKEN)
def test_a_broken_context_is_an_error_that_names_its_file(
    tmp_path: Path, environ: dict[str, str], meta: object
) -> None:
    path = write_context(tmp_path, "prod", meta=meta)
    with pytest.raises(ConfigError) as caught:
        Endpoint.resolve(environ=environ | {"DOCKER_CONTEXT": "prod"})
    assert str(path) in str(caught.value)
    assert not isinstance(caught.value, ContextNotFoundError)


def test_a_bad_context_name_is_an_error_and_a_broken_file_a_warning(
    tmp_path: Path, environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text('{"currentContext": ["prod"]}')
    with pytest.raises(ConfigError, match=rf"^'currentContext' in {tmp_path}/config\.json makes no sense"):
        Endpoint.resolve(environ=environ)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    assert Endpoint.resolve(environ=environ).source not in ("argument", "DOCKER_HOST")
    assert caplog.messages == [f"{tmp_path}/config.json is no regular file; it is left out"]


def test_without_a_home_there_is_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ContextNotFoundError, match="this user has no home"):
        Endpoint.resolve(environ={"HOME": "", "DOCKER_CONTEXT": "prod"})

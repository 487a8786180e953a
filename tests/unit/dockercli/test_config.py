"""Configuration files are read whatever lies there: what they say, or a `ConfigError` that names them."""

from __future__ import annotations

import errno
import json
import os
import pwd
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images._dockercli.config import (
    MAX_CONFIG,
    JSONConfig,
    build_proxies,
    config_directory,
    http_headers,
    read_config,
    usable_config,
)
from aiodocker_images._system.users import home_directory
from aiodocker_images.errors import ConfigError


def _oversized(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)  # 1 GiB, and none of it on the disk


def _unreadable(path: Path) -> None:
    # root may read everything, but nobody a symbolic link to itself.
    path.symlink_to(path)


DEEP = 600_000
"""Levels that no Python follows: from 3.14 on, as many as the stack has room for, 200,000 at times."""

HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (Path.mkdir, "is no regular file"),
    "a FIFO": (os.mkfifo, "is no regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
    "1 GiB": (_oversized, "is longer than 4 MiB"),
    "a link to itself": (_unreadable, "cannot be read: Too many levels of symbolic links"),
    "deep arrays": (lambda path: path.write_text('{"x": ' + "[" * DEEP + "]" * DEEP + "}"), "makes no sense"),
    "deep objects": (lambda path: path.write_text('{"x":' * DEEP + "1" + "}" * DEEP), "makes no sense"),
    "half of it": (lambda path: path.write_text('{"auths": {'), "makes no sense: Input data was truncated"),
    "no object": (lambda path: path.write_text("[1]"), "makes no sense: Expected `object`, got `array`"),
    "NULs": (lambda path: path.write_bytes(b"\0" * 100), "makes no sense"),
}


@pytest.mark.parametrize(("make", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_configuration_is_an_error_that_names_the_file(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "config.json"
    make(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path} {reason}")
    assert len(str(caught.value)) < 400 + len(str(path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO], ids=["EACCES", "EPERM", "EIO"])
def test_a_file_that_cannot_be_read_is_left_out_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """A service often has the HOME of another user."""

    def forbid(*_: object) -> int:
        raise OSError(number, os.strerror(number), str(path))

    path = tmp_path / "config.json"
    monkeypatch.setattr(os, "open", forbid)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(path)
    assert caplog.messages == []
    assert usable_config(path) is None
    assert usable_config(path) is None
    assert caplog.messages == [f"{path} cannot be read: {os.strerror(number)}; it is left out"]


AS_GO_READS: dict[str, bytes] = {
    "as it is": b'{"credsStore": "x"}',
    "a byte order mark": b'\xef\xbb\xbf{"credsStore": "x"}',
    "UTF-16": '{"credsStore": "x"}'.encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + '{"credsStore": "x"}'.encode("utf-16-be"),
    "a brace too many": b'{"credsStore": "x"}}',
    "another document": b'{"credsStore": "x"} {"credsStore": "y"}',
    "small letters": b'{"credsstore": "x"}',
    "capitals": b'{"CREDSSTORE": "x"}',
    "twice": b'{"credsstore": "y", "credsStore": "x", "CredsStore": "z"}',
    "twice, none exact": b'{"credsstore": "y", "CredsStore": "x"}',
    "bad UTF-8 elsewhere": b'{"\xff": "\xff", "credsStore": "x"}',
    "white space": b' \r\n\t{"credsStore": "x"}\r\n',
}


@pytest.mark.parametrize("content", AS_GO_READS.values(), ids=AS_GO_READS)
def test_a_file_is_read_as_leniently_as_by_the_docker_cli(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    config = usable_config(tmp_path / "config.json")
    assert config is not None
    assert config.usable("credsStore", str) == "x"
    assert caplog.messages == []


@pytest.mark.parametrize("content", ['{"auths": {},}', "[1]", "s3cret", "{", "5"])
def test_an_invalid_file_is_left_out_with_one_warning_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    for _ in range(3):
        assert usable_config(path) is None
        assert http_headers({"DOCKER_CONFIG": str(tmp_path)}) == {}
    (message,) = caplog.messages
    assert message.startswith(f"{path} makes no sense")
    assert "s3cret" not in message
    path.write_text(content + "\n")  # it has changed: so one is warned of it again
    assert usable_config(path) is None
    assert len(caplog.messages) == 2


HEADERS: list[tuple[str, dict[str, str], str]] = [
    ('{"HttpHeaders": ["s3cret"]}', {}, "'HttpHeaders' in {} makes no sense: Expected `object | null`"),
    ('{"HttpHeaders": {"A": 1, "B": "b"}}', {"B": "b"}, "'A' in 'HttpHeaders' in {} makes no sense: Expected `str"),
    ('{"HttpHeaders": {"A b": "s3cret", "B": "b"}}', {"B": "b"}, "'HttpHeaders' in {}: 'A b' is no header"),
    ('{"HttpHeaders": {"A": "s3\\ncret", "B": "b"}}', {"B": "b"}, "'HttpHeaders' in {}: 'A' is no header"),
    ('{"HttpHeaders": {"A": null, "B": "b"}}', {"B": "b"}, ""),
    ('{"HttpHeaders": null}', {}, ""),
    ('{"httpheaders": {"B": "b", "Host": "x"}}', {"B": "b"}, ""),
]


@pytest.mark.parametrize(("content", "headers", "warning"), HEADERS, ids=lambda each: str(each)[:40])
def test_what_is_no_header_is_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, headers: dict[str, str], warning: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    for _ in range(3):
        assert http_headers({"DOCKER_CONFIG": str(tmp_path)}) == headers
    assert len(caplog.messages) == bool(warning)
    assert "".join(caplog.messages).startswith(warning.replace("{}", str(path)))
    assert "cret" not in "".join(caplog.messages)


def test_a_docker_config_that_names_a_file_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The docker CLI wants the directory, and says so."""
    (tmp_path / "config.json").write_text("{}")
    assert usable_config(tmp_path / "config.json" / "config.json") is None
    assert caplog.messages == [f"{tmp_path}/config.json/config.json cannot be read: Not a directory; it is left out"]


PROXIES: list[tuple[object, dict[str, str]]] = [
    ({"default": {"httpProxy": "http://p", "noProxy": "a"}}, {"HTTP_PROXY": "http://p", "NO_PROXY": "a"}),
    ({"default": {"ftpProxy": "f", "allProxy": "a"}}, {"FTP_PROXY": "f", "ALL_PROXY": "a"}),
    ({"default": {"httpProxy": "d"}, "unix:///a.sock": {"httpProxy": "e"}}, {"HTTP_PROXY": "e"}),
    ({"default": {"httpProxy": "d"}, "unix:///a.sock": {}}, {}),
    ({"unix:///b.sock": {"httpProxy": "d"}}, {}),
    ({"default": {"httpProxy": "", "HTTPSPROXY": "s", "noProxy": 5}}, {"HTTPS_PROXY": "s"}),
    ({"default": 5}, {}),
    (["x"], {}),
]  # fmt: skip


@pytest.mark.parametrize(("proxies", "arguments"), PROXIES, ids=lambda each: str(each)[:40])
def test_proxies_are_read_as_by_the_docker_cli(tmp_path: Path, proxies: object, arguments: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    both = arguments | {name.lower(): value for name, value in arguments.items()}
    assert build_proxies({"DOCKER_CONFIG": str(tmp_path)}, "unix:///a.sock") == both


def test_a_path_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigError, match="is no path"):
        read_config(Path("/tmp/a\0b"))


def test_no_file_is_no_configuration(tmp_path: Path) -> None:
    assert read_config(tmp_path / "config.json") is None
    assert read_config(tmp_path / "nowhere" / "config.json") is None


@pytest.mark.parametrize("content", ["", " \n", "null", "{}", '{"auths": null}'], ids=ascii)
def test_an_empty_file_is_an_empty_configuration(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    config = read_config(path)
    assert config is not None
    assert config.member("auths", dict) is None
    assert config.where == str(path)


def test_a_file_as_large_as_it_may_be_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text = '{"currentContext": "prod"}'
    path.write_text(text + " " * (MAX_CONFIG - len(text)))
    config = read_config(path)
    assert config is not None
    assert config.member("currentContext", str) == "prod"


def test_a_broken_member_harms_only_whoever_needs_it() -> None:
    config = JSONConfig.parse('{"currentContext": "prod", "auths": {"a": 1}, "credsStore": ["s3cret"]}', "config.json")
    assert config.member("currentContext", str) == "prod"
    with pytest.raises(ConfigError, match=r"^'credsStore' in config\.json makes no sense: Expected `str \| null`"):
        config.member("credsStore", str)


def test_nothing_of_the_content_is_quoted() -> None:
    """It may be a password; a decoder's own exception, which holds the text, is not behind it either."""
    for text in (b'{"auths": {"r": "s3cret"}}', b'{"auths": s3cret}', b'"s3cret"'):
        with pytest.raises(ConfigError) as caught:
            JSONConfig.parse(text, "config.json").member("auths", dict[str, int])
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@given(st.binary() | st.text() | st.recursive(st.none(), st.lists).map(str))
def test_anything_is_a_configuration_or_a_config_error(data: bytes | str) -> None:
    try:
        config = JSONConfig.parse(data, "here")
        config.member("auths", dict[str, int])
    except ConfigError:
        pass


def test_the_directory_is_the_one_of_the_docker_cli() -> None:
    assert config_directory({"DOCKER_CONFIG": "/etc/x", "HOME": "/home/me"}) == Path("/etc/x")
    assert config_directory({"DOCKER_CONFIG": "", "HOME": "/home/me"}) == Path("/home/me/.docker")
    assert config_directory({"DOCKER_CONFIG": "relative"}) == Path("relative")


def test_without_home_it_is_that_of_the_user_database(monkeypatch: pytest.MonkeyPatch) -> None:
    assert home_directory({}) == Path(pwd.getpwuid(os.getuid()).pw_dir)

    def unknown(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert home_directory({}) is None
    assert config_directory({}) is None

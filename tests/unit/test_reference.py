"""Names of images: what is one, what it means, how it is printed, and that nothing else gets through."""

from __future__ import annotations

import copy
import pickle
import re
import string
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from enum import Enum
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiodocker_images.errors import DockerError, InvalidReferenceError
from aiodocker_images.reference import Reference, name_or_id

HEX64 = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"
SHA256 = f"sha256:{HEX64}"
SHA384 = f"sha384:{HEX64}{HEX64[:32]}"
SHA512 = f"sha512:{HEX64}{HEX64}"


class Valid(NamedTuple):
    """A text, what it means and how it is printed: `familiar` and `canonical` are the text where left out."""

    text: str
    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None
    familiar: str | None = None
    canonical: str | None = None


def hub(
    text: str,
    path: str,
    tag: str | None = None,
    digest: str | None = None,
    *,
    familiar: str | None = None,
) -> Valid:
    """Describe a name on Docker Hub: its canonical text is always the long one."""
    suffix = (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return Valid(text, "docker.io", path, tag, digest, familiar, f"docker.io/{path}{suffix}")


VALID = [
    # Docker Hub, one word: an official image, whatever the word looks like.
    hub("ubuntu", "library/ubuntu"),
    hub("ubuntu:24.04", "library/ubuntu", "24.04"),
    hub(f"ubuntu@{SHA256}", "library/ubuntu", digest=SHA256),
    hub(f"ubuntu:24.04@{SHA256}", "library/ubuntu", "24.04", SHA256),
    hub("d", "library/d"),
    hub("0", "library/0"),
    hub("test_com", "library/test_com"),
    hub("test.com", "library/test.com"),
    hub("test.com:tag", "library/test.com", "tag"),
    hub("test.com:5000", "library/test.com", "5000"),
    hub("foo_bar.com:8080", "library/foo_bar.com", "8080"),
    hub("localhost", "library/localhost"),
    hub("localhost:5000", "library/localhost", "5000"),
    hub(f"localhost@{SHA256}", "library/localhost", digest=SHA256),
    hub("192.168.1.1", "library/192.168.1.1"),
    hub("192.168.1.1:5000", "library/192.168.1.1", "5000"),
    hub("docker.io", "library/docker.io"),
    hub("library", "library/library"),
    hub("ubuntu-12.04-base", "library/ubuntu-12.04-base"),
    hub("lowercase:Uppercase", "library/lowercase", "Uppercase"),
    hub("g" * 64, f"library/{'g' * 64}"),
    # Docker Hub, named in full or in part.
    hub("library/ubuntu", "library/ubuntu", familiar="ubuntu"),
    hub("library/ubuntu:24.04", "library/ubuntu", "24.04", familiar="ubuntu:24.04"),
    hub("docker.io/ubuntu", "library/ubuntu", familiar="ubuntu"),
    hub("docker.io/library/ubuntu:24.04", "library/ubuntu", "24.04", familiar="ubuntu:24.04"),
    hub("index.docker.io/ubuntu", "library/ubuntu", familiar="ubuntu"),
    hub("index.docker.io/library/ubuntu", "library/ubuntu", familiar="ubuntu"),
    hub("index.docker.io/user/app:1", "user/app", "1", familiar="user/app:1"),
    hub("user/app", "user/app"),
    hub("user/app:1.2", "user/app", "1.2"),
    hub(f"user/app@{SHA256}", "user/app", digest=SHA256),
    hub("docker.io/user/app", "user/app", familiar="user/app"),
    hub("docker/docker", "docker/docker"),
    hub("other/library", "other/library"),
    hub("store/foo/bar", "store/foo/bar"),
    hub("library/foo/bar", "library/foo/bar"),
    hub("docker.io/library/foo/bar", "library/foo/bar", familiar="library/foo/bar"),
    hub("a/a/a/a", "a/a/a/a"),
    hub("aa/bb/cc/dd:ee", "aa/bb/cc/dd", "ee"),
    # A first part without a dot, colon or capital is a namespace on Docker Hub, whatever it looks like.
    hub("test_com/foo", "test_com/foo"),
    hub("do__cker/docker", "do__cker/docker"),
    hub("docker---rules/docker", "docker---rules/docker"),
    hub("foo/foo_bar.com:8080", "foo/foo_bar.com", "8080"),
    hub("domain/repo", "domain/repo"),
    # Separators.
    hub("a.b_c__d-e--f---g", "library/a.b_c__d-e--f---g"),
    hub("user/project--id.module--name.ver---sion--name", "user/project--id.module--name.ver---sion--name"),
    # Names on Docker Hub that mean something else without "docker.io/" keep it.
    hub("docker.io/localhost/app:1", "localhost/app", "1"),
    hub("docker.io/example.com/app", "example.com/app"),
    hub("docker.io/docker.io/app", "docker.io/app"),
    hub("docker.io/index.docker.io/app", "index.docker.io/app"),
    hub("docker.io/foo_bar.com/app", "foo_bar.com/app"),
    # To Docker these have no registry, for a host name has no underscore; but they are names on all Engines.
    Valid("my_reg.local/app:1", "my_reg.local", "app", "1"),
    Valid("my__reg.local/team/app", "my__reg.local", "team/app"),
    Valid("foo_bar.com/app", "foo_bar.com", "app"),
    hub(f"docker.io/{HEX64}", f"library/{HEX64}", familiar=f"docker.io/library/{HEX64}"),
    hub(f"{HEX64}:1", f"library/{HEX64}", "1", familiar=f"docker.io/library/{HEX64}:1"),
    hub("docker.io/sha256:abc", "library/sha256", "abc", familiar="docker.io/library/sha256:abc"),
    hub("sha256", "library/sha256", familiar="docker.io/library/sha256"),
    hub("sha256:latest", "library/sha256", "latest", familiar="docker.io/library/sha256:latest"),
    hub("user/sha256:abc", "user/sha256", "abc"),
    hub(f"user/{HEX64}", f"user/{HEX64}"),
    # Hex words that are not 64 digits long are names.
    hub("dbcc1", "library/dbcc1"),
    hub("deadbeef:1", "library/deadbeef", "1"),
    hub(HEX64[:63], f"library/{HEX64[:63]}"),
    hub(f"{HEX64}0", f"library/{HEX64}0"),
    # Registries: a dot, a port, a capital, or localhost.
    Valid("localhost/app", "localhost", "app"),
    Valid("localhost/user/app:1", "localhost", "user/app", "1"),
    Valid("localhost:5000/app", "localhost:5000", "app"),
    Valid("localhost:8080/app:1", "localhost:8080", "app", "1"),
    Valid(f"localhost:8080/app@{SHA256}", "localhost:8080", "app", None, SHA256),
    Valid("host:5000/app", "host:5000", "app"),
    Valid("host:5000/app:tag", "host:5000", "app", "tag"),
    Valid(f"host:5000/app:tag@{SHA256}", "host:5000", "app", "tag", SHA256),
    Valid("test-com:8080/foo", "test-com:8080", "foo"),
    Valid("example.com/app", "example.com", "app"),
    Valid("example.com:8000/private/moonbase", "example.com:8000", "private/moonbase"),
    Valid("sub-dom1.foo.com/bar/baz/quux:some-long-tag", "sub-dom1.foo.com", "bar/baz/quux", "some-long-tag"),
    Valid("b.gcr.io/test.example.com/my-app:1.com", "b.gcr.io", "test.example.com/my-app", "1.com"),
    Valid("example.com/some_separator__underscore/my", "example.com", "some_separator__underscore/my"),
    Valid("ab.c-om/app", "ab.c-om", "app"),
    Valid("0101.com/app", "0101.com", "app"),
    Valid("1.a/app", "1.a", "app"),
    Valid("docker.io:443/app", "docker.io:443", "app"),
    Valid("registry-1.docker.io/library/app", "registry-1.docker.io", "library/app"),
    Valid("127.0.0.1:5000/library/debian", "127.0.0.1:5000", "library/debian"),
    Valid("192.168.1.1/repo", "192.168.1.1", "repo"),
    Valid("192.168.1.1:5000/repo:5050", "192.168.1.1:5000", "repo", "5050"),
    Valid("host:750050/app", "host:750050", "app"),
    Valid("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", "xn--n3h.com"),
    Valid("xn--n3h.com:18080/foo", "xn--n3h.com:18080", "foo"),
    Valid(f"xn--7o8h.com/myimage:xn--7o8h.com@{SHA512}", "xn--7o8h.com", "myimage", "xn--7o8h.com", SHA512),
    Valid("Foo/bar", "Foo", "bar"),
    Valid("Uppercase/lowercase:tag", "Uppercase", "lowercase", "tag"),
    Valid("LOCALDOMAIN/library/debian", "LOCALDOMAIN", "library/debian"),
    Valid("Docker.io/app", "Docker.io", "app"),
    Valid("Asdf.com/foo/bar", "Asdf.com", "foo/bar"),
    # IPv6.
    Valid("[::1]/app", "[::1]", "app"),
    Valid("[::1]:5000/app:1", "[::1]:5000", "app", "1"),
    Valid("[2001:db8::1]/repo", "[2001:db8::1]", "repo"),
    Valid("[2001:db8:1:2:3:4:5:6]/repo:tag", "[2001:db8:1:2:3:4:5:6]", "repo", "tag"),
    Valid(f"[2001:DB8::1]:5000/repo:tag@{SHA256}", "[2001:DB8::1]:5000", "repo", "tag", SHA256),
    Valid("[fc00:1:2:3:4:5:6:7]:5000/library/debian", "[fc00:1:2:3:4:5:6:7]:5000", "library/debian"),
    # Digests.
    Valid(f"example.com/app@{SHA384}", "example.com", "app", None, SHA384),
    Valid(f"example.com/app@{SHA512}", "example.com", "app", None, SHA512),
    # Tags.
    hub("app:_", "library/app", "_"),
    hub("app:0", "library/app", "0"),
    hub("app:a..b--c__", "library/app", "a..b--c__"),
    hub("app:V1.0_RC-2", "library/app", "V1.0_RC-2"),
    # The longest.
    hub(f"app:{'t' * 128}", "library/app", "t" * 128),
    hub("a" * 247, f"library/{'a' * 247}"),
    hub("/".join(["a"] * 128), "/".join(["a"] * 128)),
    Valid(f"example.com/{'a' * 255}:tag", "example.com", "a" * 255, "tag"),
]  # fmt: skip

A_REGISTRY = "is not a registry"
A_PART = "is not a part of a repository name"
LOWER_CASE = "repository names are lower-case"
EMPTY_NAME = "the repository name, or a part of it between slashes, is empty"
THE_TAG = "is not made of letters, digits, '_', '.' and '-'"

INVALID = [
    # Nothing, or nothing where something has to be.
    ("", "it is empty"),
    (":", EMPTY_NAME),
    ("/", EMPTY_NAME),
    ("@", EMPTY_NAME),
    (":tag", EMPTY_NAME),
    (f"@{SHA256}", EMPTY_NAME),
    ("/app", EMPTY_NAME),
    ("user/", EMPTY_NAME),
    ("a/a/a/", EMPTY_NAME),
    ("a//a", EMPTY_NAME),
    ("docker///docker", EMPTY_NAME),
    ("example.com/", EMPTY_NAME),
    ("example.com//app", EMPTY_NAME),
    ("docker.io/", EMPTY_NAME),
    ("localhost:5000/", EMPTY_NAME),
    ("example.com/:tag", EMPTY_NAME),
    ("ubuntu:", "the tag is empty"),
    (f"ubuntu:@{SHA256}", "the tag is empty"),
    ("ubuntu@", "the digest '' is not an algorithm, ':' and hex digits"),
    ("ubuntu@sha256:", "a sha256 digest has 64 hex digits, and this one has 0 characters"),
    # Paths that are to lead elsewhere.
    (".", A_PART),
    ("..", A_PART),
    ("./app", A_REGISTRY),
    ("../containers", f"'..' {A_REGISTRY}"),
    ("../../etc/passwd", A_REGISTRY),
    ("a/../b", f"'..' {A_PART}"),
    ("a/..", A_PART),
    ("a/./b", A_PART),
    ("example.com/../containers/json", A_PART),
    ("localhost:5000/..", A_PART),
    ("docker.io/../containers/json", A_PART),
    ("a/../../containers/x?force=1", A_PART),
    ("../containers/0123456789ab?force=1", A_REGISTRY),
    ("../version?x=", A_REGISTRY),
    ("%2e%2e", A_PART),
    ("%2e%2e/containers", A_PART),
    ("%2e%2e%2fcontainers", A_PART),
    ("app:..%2f..", THE_TAG),
    ("app:../..", A_REGISTRY),
    ("app:..", THE_TAG),
    ("a\\..\\b", A_PART),
    ("a?x", A_PART),
    ("a:1?x", THE_TAG),
    ("a?x:1", A_PART),
    ("a#x", A_PART),
    ("a;x", A_PART),
    ("a&x=1", A_PART),
    ("a b", A_PART),
    ("a:b c", THE_TAG),
    ("a+b", A_PART),
    ("a^a", A_PART),
    ("aa/asdf$$^/aa", A_PART),
    ("user@host/app", "the digest 'host/app' is not an algorithm"),
    # White space and control characters, newlines at the end above all.
    (" ubuntu", "there is white space around it"),
    ("ubuntu ", "there is white space around it"),
    ("ubuntu\n", "there is white space around it"),
    ("ubuntu\r\n", "there is white space around it"),
    ("ubuntu:24.04\n", "there is white space around it"),
    (f"ubuntu@{SHA256}\n", "there is white space around it"),
    (f"{HEX64}\n", "there is white space around it"),
    ("ubuntu\u2028", "there is white space around it"),
    ("\t", "there is white space around it"),
    ("a\r\nHost: evil", A_PART),
    ("a:1\r\nHost: evil", THE_TAG),
    ("a\n/b", A_PART),
    ("example.com\n/b", A_REGISTRY),
    ("a:1\n@" + SHA256, THE_TAG),
    ("a\0b", A_PART),
    ("ubuntu\0", A_PART),
    ("ubuntu:1\0", THE_TAG),
    ("a\x1bb", A_PART),
    ("a\x7f", A_PART),
    # Dashes, dots and underscores at the wrong place.
    ("-", A_PART),
    ("-foo", A_PART),
    ("--force", A_PART),
    ("-foo/bar", A_PART),
    ("-docker.io/docker/docker", A_REGISTRY),
    ("-docker-/docker", A_PART),
    ("docker-/docker", A_PART),
    ("foo/-bar", A_PART),
    ("foo/bar-", A_PART),
    ("example.com/a-/a", A_PART),
    ("____/____", A_PART),
    ("_docker/_docker", A_PART),
    ("docker_/docker_", A_PART),
    ("a___b", A_PART),
    ("dock._er", A_PART),
    ("dock-.er/docker", A_REGISTRY),
    ("dock_.er/docker", A_REGISTRY),
    ("do..cker/docker", A_REGISTRY),
    ("docker./docker", A_REGISTRY),
    (".docker/docker", A_REGISTRY),
    ("user/dock..er", A_PART),
    ("user/dock_.er", A_PART),
    ("user/dock-.er", A_PART),
    ("user/dock-_er", A_PART),
    ("example.com/..dots/app", A_PART),
    ("example.com/.dots/app", A_PART),
    ("example.com/nodouble..dots/app", A_PART),
    ("example.com/__underscore/app", A_PART),
    ("app:-foo", THE_TAG),
    ("app:.foo", THE_TAG),
    ("app:invalid~tag", THE_TAG),
    ("app:1:2", THE_TAG),
    # Registries.
    ("foo.com:http/bar", A_REGISTRY),
    ("localhost:http/app", A_REGISTRY),
    ("host:/app", A_REGISTRY),
    (":5000/app", A_REGISTRY),
    ("host:5000:5000/app", A_REGISTRY),
    ("do__cker:8080/docker", A_REGISTRY),
    ("foo_bar.com:8080/app", A_REGISTRY),
    ("Foo_bar.com/app", f"'Foo_bar.com' {A_REGISTRY}"),
    ("foo_.com/app", A_REGISTRY),
    ("foo___bar.com/app", A_REGISTRY),
    ("-ab.com/app", A_REGISTRY),
    ("ab-.com/app", A_REGISTRY),
    ("ab.-com/app", A_REGISTRY),
    ("ab.com-/app", A_REGISTRY),
    ("example..com/app", A_REGISTRY),
    ("example.com./app", A_REGISTRY),
    ("a%41.com/app", A_REGISTRY),
    ("a.b?c/app", A_REGISTRY),
    ("a.b#c/app", A_REGISTRY),
    ("fc00::1:5000/debian", "an IPv6 address in brackets"),
    ("[fc00::1]", A_PART),
    ("[fc00::1]:5000", A_PART),
    ("[fd00:1:2::3]75050/app", A_REGISTRY),
    ("[fd00:1:2::3]::75050/app", A_REGISTRY),
    ("[fe80::1%eth0]:5000/app", A_REGISTRY),
    ("[fe80::1%@invalidzone]:5000/app", A_PART),
    ("[2001:db8:3:4::192.0.2.33]:5000/debian", A_REGISTRY),
    ("[]:5000/app", A_REGISTRY),
    ("[::1/app", A_REGISTRY),
    ("::1]/app", A_REGISTRY),
    ("[::g]/app", A_REGISTRY),
    ("[abc]/app", A_PART),
    # Capitals.
    ("Ubuntu", f"{LOWER_CASE}, and 'Ubuntu' is not"),
    ("Uppercase:tag", LOWER_CASE),
    ("docker/Docker", f"{LOWER_CASE}, and 'Docker' is not"),
    ("docker.io/docker/Docker", LOWER_CASE),
    ("test:5000/Uppercase/lowercase:tag", LOWER_CASE),
    ("Foo/FarB", LOWER_CASE),
    (HEX64.upper(), LOWER_CASE),
    # Look-alikes of ASCII.
    ("\uff55buntu", A_PART),
    ("ubuntu:\uff11", THE_TAG),
    ("ubuntu:\u0661", THE_TAG),
    ("host:\uff15000/app", A_REGISTRY),
    ("host:\u0665/app", A_REGISTRY),
    ("ex\uff0eample/app", A_PART),
    ("a\u2024b/app", A_PART),
    ("\u2025/app", A_PART),
    ("a\u2215b", A_PART),
    ("\u212aubuntu", A_PART),
    ("\u0130/app", A_REGISTRY),
    ("stra\u00dfe", A_PART),
    ("\u0430pp", A_PART),
    ("app\u200b", A_PART),
    ("app\u0301", A_PART),
    ("app\ud800", A_PART),
    (f"app@sha256:{HEX64[:63]}\uff11", "lower-case hex digits"),
    ("app\U0001f433", A_PART),
    # URLs.
    ("https://github.com/docker/docker", "it is a URL: leave out 'https://'"),
    ("http://localhost:5000/app", "it is a URL: leave out 'http://'"),
    ("docker://ubuntu", "it is a URL: leave out 'docker://'"),
    ("://", "it is a URL"),
    # Digests.
    ("app@bad", "the digest 'bad' is not an algorithm, ':' and hex digits"),
    (f"app@{HEX64}", "is not an algorithm"),
    ("app@sha256:badbadbadbad", "a sha256 digest has 64 hex digits, and this one has 12 characters"),
    (f"app@sha256:{HEX64[:63]}", "and this one has 63 characters"),
    (f"app@sha256:{HEX64}0", "and this one has 65 characters"),
    (f"app@sha384:{HEX64}", "a sha384 digest has 96 hex digits, and this one has 64 characters"),
    (f"app@sha512:{HEX64}", "a sha512 digest has 128 hex digits, and this one has 64 characters"),
    (f"app@sha256:{HEX64.upper()}", "a digest is written in lower-case hex digits"),
    (f"app@sha256:{HEX64[:63]}g", "a digest is written in lower-case hex digits"),
    (f"app@SHA256:{HEX64}", "the digest's algorithm 'SHA256' is none of sha256, sha384, sha512"),
    (f"app@md5:{HEX64[:32]}", "the digest's algorithm 'md5' is none of"),
    (f"app@invaliddigest:{HEX64}", "algorithm 'invaliddigest' is none of"),
    (f"app@sha256+b64:{HEX64}", "algorithm 'sha256+b64' is none of"),
    (f"app@:{HEX64}", "algorithm '' is none of"),
    (f"app@{SHA256}@{SHA256}", "and this one has"),
    (f"app@{SHA256}:tag", "and this one has 68 characters"),
    (f"app@{SHA256}/x", "and this one has 66 characters"),
    # Lengths.
    (f"app:{'t' * 129}", "the tag is 129 characters long, and 128 is the most"),
    (f"app:{'t' * 300}", "the tag is 300 characters long"),
    ("a" * 248, "the repository name is 256 characters long, and 255 is the most"),
    ("a" * 300, "characters long, and 255 is the most"),
    (f"example.com/{'a' * 256}:tag", "the repository name is 256 characters long"),
    (f"example.com/{'a' * 300}", "the repository name is 300 characters long"),
    ("a/" * 128 + "a", "the repository name is 257 characters long"),
]

IDS = [HEX64, SHA256, HEX64[:12], f"sha256:{HEX64[:12]}", "deadbeef", "cafe", "a", "0", "sha256:0"]

NAMES_FOR_THE_ENGINE = [
    # What came short stays short.
    ("ubuntu", "ubuntu:latest"),
    ("ubuntu:24.04", "ubuntu:24.04"),
    ("library/ubuntu", "ubuntu:latest"),
    ("user/app", "user/app:latest"),
    ("localhost/app", "localhost/app:latest"),
    ("localhost:5000/app:1", "localhost:5000/app:1"),
    ("[::1]:5000/app", "[::1]:5000/app:latest"),
    (f"ubuntu@{SHA256}", f"ubuntu@{SHA256}"),
    (f"ubuntu:24.04@{SHA256}", f"ubuntu:24.04@{SHA256}"),
    # What came long stays long.
    ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
    ("docker.io/library/ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
    ("index.docker.io/user/app", "docker.io/user/app:latest"),
    # Almost ids.
    ("deadbeef:latest", "deadbeef:latest"),
    ("docker.io/deadbeef", "docker.io/library/deadbeef:latest"),
    ("user/deadbeef", "user/deadbeef:latest"),
    ("sha256", "docker.io/library/sha256:latest"),
    ("sha256:latest", "docker.io/library/sha256:latest"),
    (f"{HEX64}:1", f"docker.io/library/{HEX64}:1"),
    (f"{HEX64}0", f"{HEX64}0:latest"),
    # Words of the Engine's own paths.
    ("json", "json:latest"),
    ("create", "create:latest"),
    ("app/json", "app/json:latest"),
    ("app/push", "app/push:latest"),
    # A Reference is always a name, and says where.
    (Reference.parse("ubuntu"), "docker.io/library/ubuntu:latest"),
    (Reference.parse("localhost/app:1"), "localhost/app:1"),
    (Reference.parse(f"ubuntu:24.04@{SHA256}"), f"docker.io/library/ubuntu:24.04@{SHA256}"),
    (Reference.parse("deadbeef"), "docker.io/library/deadbeef:latest"),
    (Reference("docker.io", "library/deadbeef", "abc"), "docker.io/library/deadbeef:abc"),
    (Reference("docker.io", f"library/{HEX64}"), f"docker.io/library/{HEX64}:latest"),
    (Reference("docker.io", "library/sha256", "abc"), "docker.io/library/sha256:abc"),
]

DIRECT_FLAWS = [
    ("", "app", None, None, A_REGISTRY),
    ("user", "app", None, None, "'user' is a namespace on Docker Hub"),
    ("[abc]", "app", None, None, "is a namespace on Docker Hub"),
    ("index.docker.io", "user/app", None, None, "the registry of Docker Hub is 'docker.io'"),
    ("docker.io", "ubuntu", None, None, "one-word names on Docker Hub are under 'library/'"),
    ("a.b/c", "app", None, None, A_REGISTRY),
    ("a.b\n", "app", None, None, A_REGISTRY),
    ("..", "containers", None, None, A_REGISTRY),
    ("a.b", "", None, None, EMPTY_NAME),
    ("a.b", "/app", None, None, EMPTY_NAME),
    ("a.b", "../containers/json", None, None, A_PART),
    ("a.b", "app:1", None, None, A_PART),
    ("a.b", f"app@{SHA256}", None, None, A_PART),
    ("a.b", "app\n", None, None, A_PART),
    ("a.b", "App", None, None, LOWER_CASE),
    ("a.b", "a" * 256, None, None, "256 characters long"),
    ("a.b", "app", "", None, "the tag is empty"),
    ("a.b", "app", "1\n", None, THE_TAG),
    ("a.b", "app", "1/../..", None, THE_TAG),
    ("a.b", "app", f"1@{SHA256}", None, THE_TAG),
    ("a.b", "app", "t" * 129, None, "129 characters long"),
    ("a.b", "app", None, "", "is not an algorithm"),
    ("a.b", "app", None, HEX64, "is not an algorithm"),
    ("a.b", "app", None, f"{SHA256}\n", "65 characters"),
    ("a.b", "app", None, f"sha256:{HEX64[:63]}\n", "lower-case hex"),
]

HOSTILE = [
    "a" * 100_000 + "!",
    "a-" * 50_000 + "!",
    "a." * 50_000 + "!/app",
    "a-" * 50_000 + ".!/app",
    "-" * 100_000,
    "a" + "-" * 100_000,
    "a.b" + "-" * 100_000 + "/app",
    "a/" * 50_000 + "!",
    "a_" * 50_000,
    "A" * 100_000 + "!/app",
    "[" + ":" * 100_000 + "/app",
    "host:" + "1" * 100_000 + "!/app",
    "app:" + "." * 100_000,
    "app:" + "a" * 100_000 + "!",
    "app@" + "a+" * 50_000,
    "app@sha256:" + "a" * 100_000,
    ":" * 100_000,
    "@" * 100_000,
    "/" * 100_000,
    " " * 100_000 + "!",
    "://" * 33_000,
]

NASTY_ALPHABET = "./:@-_%?#\r\n\0 \\+=&;[]\uff0e\uff0f\u2025\u212a\uff11aZf09"

# Fragments that come near to being names: arbitrary characters alone seldom get beyond the first check.
FRAGMENTS = [
    *"./:@-_%?#\n\0 aF0[]",
    "..", "__", "--", "//", "%2e", "localhost", "docker.io", "index.docker.io", "library", "sha256", "ex.com",
    ":5000", "[::1]", "ubuntu", "deadbeef", "latest", HEX64, f"@{SHA256}", f"@{SHA512}", "\uff11",
]  # fmt: skip

SAFE_TEXT = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*\Z")

nasty_texts = st.one_of(
    st.text(),
    st.text(alphabet=NASTY_ALPHABET),
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join),
)


def short(text: object) -> str:
    """Name a row of a table by its text, cut to what a terminal can show."""
    shown = ascii(text) if isinstance(text, str) else str(text)
    return shown if len(shown) <= 60 else f"{shown[:50]}...{len(shown)}"


def words(alphabet: str, *, max_size: int = 6) -> st.SearchStrategy[str]:
    return st.text(alphabet=alphabet, min_size=1, max_size=max_size)


def joined(part: st.SearchStrategy[str], joints: list[str], *, max_parts: int = 3) -> st.SearchStrategy[str]:
    """Generate `part {joint part}`."""
    more = st.lists(st.tuples(st.sampled_from(joints), part), max_size=max_parts - 1)
    return st.tuples(part, more).map(lambda drawn: drawn[0] + "".join(joint + word for joint, word in drawn[1]))


LOWER = string.ascii_lowercase + string.digits
ALPHANUMERIC = string.ascii_letters + string.digits

components = joined(words(LOWER), [".", "_", "__", "-", "--", "---"])
namespaces = joined(words(LOWER), ["_", "__", "-", "--"]).filter(lambda namespace: namespace != "localhost")
labels = joined(words(ALPHANUMERIC), ["-", "--"])
ports = words(string.digits, max_size=5).map(":{}".format)
hosts = st.one_of(
    st.just("localhost"),
    st.lists(labels, min_size=2, max_size=4).map(".".join),
    st.tuples(labels, ports).map("".join),
    st.tuples(st.lists(labels, min_size=2, max_size=3).map(".".join), ports).map("".join),
    words("0123456789abcdefABCDEF:").map("[::{}]".format),
    words("0123456789abcdef:").map("[::{}]:5000".format),
    st.sampled_from(["docker.io", "index.docker.io", "LOCALDOMAIN"]),
)
paths = st.lists(components, min_size=1, max_size=4).map("/".join)
names = st.one_of(
    components.filter(lambda name: not re.fullmatch("[a-f0-9]{64}|sha256", name)),
    st.tuples(namespaces, paths).map("/".join),
    st.tuples(hosts, paths).map("/".join),
)
tags = st.builds(str.__add__, words(ALPHANUMERIC + "_", max_size=1), st.text(ALPHANUMERIC + "_.-", max_size=127))
digests = st.sampled_from([("sha256", 64), ("sha384", 96), ("sha512", 128)]).flatmap(
    lambda kind: st.text("0123456789abcdef", min_size=kind[1], max_size=kind[1]).map(f"{kind[0]}:{{}}".format)
)


@st.composite
def reference_texts(draw: st.DrawFn) -> str:
    """Generate what the grammar calls a reference, whole."""
    tag = draw(st.none() | tags)
    digest = draw(st.none() | digests)
    return draw(names) + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def parsed(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except InvalidReferenceError:
        return None


@pytest.mark.parametrize("row", VALID, ids=[short(row.text) for row in VALID])
def test_a_name_is_taken_apart_and_printed_as_docker_does_it(row: Valid) -> None:
    reference = Reference.parse(row.text)
    assert (reference.domain, reference.path, reference.tag, reference.digest) == row[1:5]
    assert reference.name == f"{row.domain}/{row.path}"
    assert reference.familiar == (row.familiar or row.text)
    assert str(reference) == (row.canonical or row.text)


@pytest.mark.parametrize("row", VALID, ids=[short(row.text) for row in VALID])
def test_every_printed_form_means_the_same_name(row: Valid) -> None:
    reference = Reference.parse(row.text)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert Reference(reference.domain, reference.path, reference.tag, reference.digest) == reference


@pytest.mark.parametrize("function", [Reference.parse, name_or_id], ids=["parse", "name_or_id"])
@pytest.mark.parametrize(("text", "fragment"), INVALID, ids=[short(text) for text, _ in INVALID])
def test_what_is_no_name_is_refused_with_the_reason(
    text: str, fragment: str, function: Callable[[str], object]
) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        function(text)
    message = str(caught.value)
    assert fragment in message
    assert message.startswith(ascii(text)[:70])
    assert len(message) < 400
    assert message.isprintable()


@pytest.mark.parametrize("text", [HEX64, SHA256, "sha256:1a3f5e7d9c1b", "sha256:0"], ids=short)
def test_an_id_is_refused_where_a_name_is_needed(text: str) -> None:
    with pytest.raises(InvalidReferenceError, match="it is an image id, and a name is needed here"):
        Reference.parse(text)


def test_a_refusal_is_a_docker_error_and_a_value_error() -> None:
    with pytest.raises(ValueError, match="lower-case") as caught:
        Reference.parse("Ubuntu")
    assert isinstance(caught.value, DockerError)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("domain", "path", "tag", "digest", "fragment"), DIRECT_FLAWS, ids=short)
def test_the_constructor_is_no_way_around_the_grammar(
    domain: str, path: str, tag: str | None, digest: str | None, fragment: str
) -> None:
    with pytest.raises(InvalidReferenceError, match=re.escape(fragment)):
        Reference(domain, path, tag, digest)


@pytest.mark.parametrize("value", [None, 1, b"ubuntu", ["ubuntu"], object()], ids=lambda value: type(value).__name__)
def test_what_is_not_a_str_is_a_type_error_that_names_the_type(value: object) -> None:
    pattern = f"must be a str, not {type(value).__name__}"
    with pytest.raises(TypeError, match=pattern):
        Reference.parse(value)  # type: ignore[arg-type]  # the point
    with pytest.raises(TypeError, match=pattern):
        name_or_id(value)  # type: ignore[arg-type]  # the point
    with pytest.raises(TypeError, match=pattern):
        Reference(value, "app")  # type: ignore[arg-type]  # the point
    with pytest.raises(TypeError, match=pattern):
        Reference("localhost", value)  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("value", [1, b"latest", ["latest"]], ids=lambda value: type(value).__name__)
def test_a_tag_or_digest_that_is_not_a_str_is_a_type_error(value: object) -> None:
    reference = Reference.parse("ubuntu")
    with pytest.raises(TypeError, match="tag must be a str"):
        reference.with_tag(value)  # type: ignore[arg-type]  # the point
    with pytest.raises(TypeError, match="digest must be a str"):
        reference.with_digest(value)  # type: ignore[arg-type]  # the point


class Image(str, Enum):  # noqa: UP042  # the older kind of enumeration, whose format() differs from its text
    """Names of images as members of an enumeration."""

    BASE = "user/base"
    ID = "cafe"

    def __format__(self, format_spec: str) -> str:
        return "../containers"


def test_a_str_that_formats_as_something_else_is_taken_for_its_text() -> None:
    """What is checked is what is sent, also for a member of an Enum."""
    reference = Reference.parse(Image.BASE)
    assert str(reference) == "docker.io/user/base"
    assert type(reference.path) is str
    assert str(Reference("localhost", Image.BASE, Image.ID)) == "localhost/user/base:cafe"
    assert f"{name_or_id(Image.BASE)}" == "user/base:latest"
    assert f"{name_or_id(Image.ID)}" == "cafe"


@pytest.mark.parametrize("text", IDS, ids=short)
def test_an_id_or_the_beginning_of_one_goes_to_the_engine_as_typed(text: str) -> None:
    assert name_or_id(text) == text


@pytest.mark.parametrize(
    ("image", "expected"), NAMES_FOR_THE_ENGINE, ids=[short(image) for image, _ in NAMES_FOR_THE_ENGINE]
)
def test_a_name_goes_to_the_engine_with_a_tag_as_long_or_short_as_it_came(
    image: str | Reference, expected: str
) -> None:
    assert name_or_id(image) == expected


def test_tags_and_digests_are_added_and_taken_off() -> None:
    bare = Reference.parse("user/app")
    tagged = bare.with_tag("1")
    pinned = tagged.with_digest(SHA256)
    assert str(tagged) == "docker.io/user/app:1"
    assert str(pinned) == f"docker.io/user/app:1@{SHA256}"
    assert str(bare.with_digest(SHA256)) == f"docker.io/user/app@{SHA256}"
    assert pinned.with_tag("2") == Reference("docker.io", "user/app", "2", SHA256)
    assert pinned.name_only() == bare
    assert bare.tag is None, "the original stays as it was"


@pytest.mark.parametrize("tag", ["", "-foo", ".foo", "a b", "a\n", "a/b", "a:b", "a@b", "t" * 129], ids=short)
def test_an_invalid_tag_cannot_be_added(tag: str) -> None:
    with pytest.raises(InvalidReferenceError, match="the tag"):
        Reference.parse("busybox").with_tag(tag)


@pytest.mark.parametrize("digest", ["", "foo", HEX64, "sha256:ff", f"md5:{HEX64}", f"{SHA256}\n"], ids=short)
def test_an_invalid_digest_cannot_be_added(digest: str) -> None:
    with pytest.raises(InvalidReferenceError, match="digest"):
        Reference.parse("busybox").with_digest(digest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ubuntu", "ubuntu:latest"),
        ("ubuntu:24.04", "ubuntu:24.04"),
        (f"ubuntu@{SHA256}", f"ubuntu@{SHA256}"),
        (f"ubuntu:24.04@{SHA256}", f"ubuntu:24.04@{SHA256}"),
    ],
    ids=["bare", "tag", "digest", "tag and digest"],
)
def test_the_default_tag_is_added_only_where_nothing_selects_an_image(text: str, expected: str) -> None:
    assert Reference.parse(text).with_default_tag().familiar == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("app", None), ("app:1", "1"), (f"app@{SHA256}", SHA256), (f"app:1@{SHA256}", SHA256)],
    ids=["bare", "tag", "digest", "tag and digest"],
)
def test_a_digest_outweighs_a_tag(text: str, expected: str | None) -> None:
    assert Reference.parse(text).tag_or_digest == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"ubuntu:24.04@{SHA256}", "ubuntu"),
        ("user/app:1", "user/app"),
        ("localhost:5000/app:1", "localhost:5000/app"),
        ("docker.io/localhost/app:1", "docker.io/localhost/app"),
        (f"{HEX64}:1", f"docker.io/library/{HEX64}"),
    ],
    ids=short,
)
def test_the_familiar_name_has_neither_tag_nor_digest(text: str, expected: str) -> None:
    assert Reference.parse(text).familiar_name == expected


def test_references_are_values() -> None:
    """Equal when their parts are, usable as keys, unchangeable, copied and pickled whole."""
    one, other = Reference.parse("ubuntu:24.04"), Reference.parse("docker.io/library/ubuntu:24.04")
    assert one == other
    assert {one: "seen"}[other] == "seen"
    assert one != other.with_tag("22.04")
    assert pickle.loads(pickle.dumps(one)) == one  # our own bytes
    assert copy.deepcopy(one) == one
    with pytest.raises(FrozenInstanceError):
        one.tag = "22.04"  # type: ignore[misc]  # the point
    with pytest.raises(InvalidReferenceError, match="the tag"):
        replace(one, tag="-")


@pytest.mark.parametrize("text", HOSTILE, ids=short)
def test_a_hostile_text_of_100_000_characters_is_refused_at_once(text: str) -> None:
    """The time limit of every test is the assertion: a pattern that backtracks would need hours."""
    with pytest.raises(InvalidReferenceError) as caught:
        Reference.parse(text)
    assert len(str(caught.value)) < 400


@given(reference_texts())
def test_whatever_the_grammar_generates_is_a_name(text: str) -> None:
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


@given(nasty_texts)
@example("docker.io/localhost/app")
@example(f"docker.io/{HEX64}")
@example("docker.io/sha256:abc")
def test_printing_and_parsing_are_inverse_for_whatever_is_taken(text: str) -> None:
    reference = parsed(text)
    if reference is not None:
        assert Reference.parse(str(reference)) == reference
        assert Reference.parse(reference.familiar) == reference
        assert Reference.parse(reference.familiar_name) == reference.name_only()


@given(nasty_texts)
@example("../containers")
@example("a/../../containers/x?force=1")
@example("app:..")
@example("ubuntu\n")
@example(f"{HEX64}\n")
@example("\u212a/app")
def test_no_text_gets_out_of_the_path_that_it_is_put_into(text: str) -> None:
    """Either it is refused, or each printed form is safe characters in segments that lead nowhere else."""
    printed: list[str] = []
    reference = parsed(text)
    if reference is not None:
        printed += [str(reference), reference.familiar, reference.name, reference.familiar_name]
    try:
        printed.append(name_or_id(text))
    except InvalidReferenceError:
        assert reference is None, "whatever is a name can be sent"
    for safe in printed:
        assert SAFE_TEXT.match(safe)
        assert not {"", ".", ".."} & set(safe.split("/"))


@given(reference_texts())
def test_the_engine_is_told_the_same_name(text: str) -> None:
    """A name gets the default tag and is otherwise not changed on its way; a hex word stays as it is."""
    sent = name_or_id(text)
    if re.fullmatch("[a-f0-9]{1,64}", text):
        assert sent == text
    else:
        assert Reference.parse(sent) == Reference.parse(text).with_default_tag()


@given(reference_texts())
def test_a_reference_is_never_taken_for_an_id(text: str) -> None:
    sent = name_or_id(Reference.parse(text))
    assert not re.fullmatch("(sha256:)?[a-f0-9]*", sent)
    assert Reference.parse(sent) == Reference.parse(text).with_default_tag()


@given(st.text("0123456789abcdef", min_size=1, max_size=64), st.sampled_from(["", "sha256:"]))
def test_every_beginning_of_an_id_passes(digits: str, prefix: str) -> None:
    assert name_or_id(prefix + digits) == prefix + digits

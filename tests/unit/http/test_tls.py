"""TLS files are read where they are; what is no certificate, or no file, is an error that names it."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from aiodocker_images._http.tls import client_context
from aiodocker_images.endpoint import TLSConfig
from aiodocker_images.errors import ConfigError
from tests.support import certificates
from tests.support.certificates import Certificates


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates.make(tmp_path)


def test_the_daemon_is_verified_by_name_and_authority(made: Certificates) -> None:
    context = client_context(made.client, "argument")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert [list(authority) for authority in context.get_ca_certs()] != []


def test_without_an_authority_it_is_whoever_the_system_trusts() -> None:
    context = client_context(TLSConfig(), "argument")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_no_verification_is_only_by_request(made: Certificates) -> None:
    context = client_context(dataclasses.replace(made.client, verify=False, ca=None), "argument")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def _encrypt(made: Certificates) -> TLSConfig:
    path = made.directory / "key.pem"
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
    )
    return made.client


def _fifo(made: Certificates, name: str) -> TLSConfig:
    (made.directory / name).unlink()
    os.mkfifo(made.directory / name)
    return made.client


def _with(made: Certificates, name: str, content: bytes | None) -> TLSConfig:
    path = made.directory / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return made.client


BROKEN: dict[str, tuple[Callable[[Certificates], TLSConfig], str]] = {
    "no authority": (
        lambda made: _with(made, "ca.pem", None),
        r"the certificate authority's file .*/ca\.pem \(from DOCKER_HOST\) cannot be read: No such file",
    ),
    "an empty authority": (lambda made: _with(made, "ca.pem", b""), r"/ca\.pem \(from DOCKER_HOST\) holds no cert"),
    "garbage for an authority": (
        lambda made: _with(made, "ca.pem", b"\0" * 1000),
        r"/ca\.pem \(from DOCKER_HOST\) holds no certificate",
    ),
    "a FIFO for an authority": (lambda made: _fifo(made, "ca.pem"), "is no regular file"),
    "no certificate": (lambda made: _with(made, "cert.pem", None), r"/cert\.pem .* cannot be read: No such file"),
    "no key": (lambda made: _with(made, "key.pem", None), r"/key\.pem .* cannot be read: No such file"),
    "a FIFO for a key": (lambda made: _fifo(made, "key.pem"), "is no regular file"),
    "a certificate alone": (
        lambda made: dataclasses.replace(made.client, key=None),
        r"/cert\.pem \(from DOCKER_HOST\) is a client certificate without its key",
    ),
    "a key alone": (lambda made: dataclasses.replace(made.client, cert=None), "is a client key without its cert"),
    "the key of another": (
        lambda made: dataclasses.replace(made.client, key=certificates.make(made.directory / "other").client.key),
        r"are no client certificate and its key: key values mismatch",
    ),
    "garbage for a key": (
        lambda made: _with(made, "key.pem", b"s3cret"),
        r"are no client certificate and its key: ",
    ),
    "an encrypted key": (_encrypt, r"/key\.pem \(from DOCKER_HOST\) is encrypted, and nobody is asked"),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_certificate_is_an_error_that_names_the_file(
    made: Certificates, spoil: Callable[[Certificates], TLSConfig], message: str
) -> None:
    tls = spoil(made)
    with pytest.raises(ConfigError, match=message) as caught:
        client_context(tls, "DOCKER_HOST")
    assert "s3cret" not in str(caught.value)

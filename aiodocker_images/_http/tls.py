"""TLS as an endpoint says: certificates read where they are, and a clear error for what is no certificate."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NoReturn

from aiodocker_images.endpoint import TLSConfig
from aiodocker_images.errors import ConfigError

__all__ = ["client_context"]


def client_context(tls: TLSConfig, source: str) -> ssl.SSLContext:
    """Make what secures connections; blocks while it reads files. Raises `ConfigError`, which names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca is None:
        context.load_default_certs()
    else:
        _check_file(tls.ca, "the certificate authority's file", source)
        try:
            context.load_verify_locations(cafile=os.fspath(tls.ca))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{tls.ca} (from {source}) holds no certificate: {_reason(error)}") from error
    if tls.cert is None and tls.key is None:
        return context
    if tls.cert is None or tls.key is None:
        given, missing = ("certificate", "key") if tls.key is None else ("key", "certificate")
        raise ConfigError(f"{tls.cert or tls.key} (from {source}) is a client {given} without its {missing}")
    for file in (tls.cert, tls.key):
        _check_file(file, "the client certificate's file", source)
    try:
        context.load_cert_chain(os.fspath(tls.cert), os.fspath(tls.key), password=_refuse_password)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise ConfigError(f"{tls.key} (from {source}) {error}") from None
        raise ConfigError(
            f"{tls.cert} and {tls.key} (from {source}) are no client certificate and its key: {_reason(error)}"
        ) from error
    return context


def _refuse_password() -> NoReturn:
    # Without this, OpenSSL would ask at the terminal and hold up the program.
    raise ConfigError("is encrypted, and nobody is asked for passphrases here: give the key in the clear")


def _check_file(path: str | os.PathLike[str], what: str, source: str) -> None:
    """Open it once: OpenSSL tells a missing file from an unreadable one, but not which it was."""
    try:
        # What is no regular file (a FIFO, say) could block for ever.
        if Path(path).stat() and not Path(path).is_file():
            raise ConfigError(f"{what} {path} (from {source}) is no regular file")
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{what} {path} (from {source}) cannot be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    # OpenSSL's own words, such as NO_CERTIFICATE_OR_CRL_FOUND or KEY_VALUES_MISMATCH.
    reason: object = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if isinstance(reason, str) else "not in PEM form"

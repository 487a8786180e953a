"""Certificates for TLS tests: an authority, what it signed, and what is wrong with others."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme

import engines
from aiodocker_images import TLSConfig


@dataclass(frozen=True)
class Certificates:
    """Files as `DOCKER_CERT_PATH` has them, and what a daemon shows."""

    directory: Path
    client: TLSConfig
    server: engines.ServerTLS


def make(
    directory: Path,
    *,
    names: tuple[str, ...] = ("127.0.0.1", "localhost"),
    expired: bool = False,
    clients: bool = True,
) -> Certificates:
    """Make an authority, a certificate for a daemon at `names` and one for a client; `clients`: who must show it."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    shown = authority.issue_cert(*names, not_after=yesterday if expired else None)
    ours = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    ours.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    ours.private_key_pem.write_to_path(directory / "key.pem")
    return Certificates(
        directory,
        TLSConfig(ca=directory / "ca.pem", cert=directory / "cert.pem", key=directory / "key.pem"),
        engines.ServerTLS(
            cert=b"".join(pem.bytes() for pem in shown.cert_chain_pems),
            key=shown.private_key_pem.bytes(),
            ca=authority.cert_pem.bytes() if clients else None,
        ),
    )

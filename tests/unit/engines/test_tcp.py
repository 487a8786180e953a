"""Private Engines that listen on TCP, with TLS or without."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

import engines
from tests.support.probes import ask, listens, ping, traces


class Authority:
    """An authority that signed the certificates of a server and of a client."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes()
        server = self._ca.issue_cert("127.0.0.1")
        self.cert, self.key = server.cert_chain_pems[0].bytes(), server.private_key_pem.bytes()
        self._client = self._ca.issue_cert("client@example.org")

    def context(self, *, certified: bool) -> ssl.SSLContext:
        """Return what a client needs that trusts the authority, with a certificate of its own or without."""
        context = ssl.create_default_context(cadata=self.pem.decode())
        if certified:
            self._client.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] - takes pyOpenSSL's too
        return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.engine
def test_an_engine_with_an_authority_wants_certificates(authority: Authority, engine_name: str) -> None:
    """It answers whom the authority signed for and nobody else; its socket answers as ever."""
    tls = engines.ServerTLS(cert=authority.cert, key=authority.key, ca=authority.pem)
    with engines.Engine(engine_name, tls=tls) as engine:
        assert ping(engine.tls_address, authority.context(certified=True)) == b"OK"
        with pytest.raises(ssl.SSLError, match="(?i)bad.certificate|certificate.required"):
            ping(engine.tls_address, authority.context(certified=False))
        with pytest.raises(ssl.SSLCertVerificationError):
            ping(engine.tls_address, ssl.create_default_context())
        assert b"HTTPS" in ping(engine.tls_address)
        assert ask(engine, "GET", "/_ping") == b"OK"
        pems = [path for path in engine.state.iterdir() if path.suffix == ".pem"]
        assert [path.stat().st_mode & 0o777 for path in pems] == [0o600] * 3
    assert traces(engine.state) == []
    assert not listens(engine.tls_address)


@pytest.mark.engine
def test_an_engine_without_an_authority_takes_every_client(
    authority: Authority, engine_name: str, tmp_path: Path
) -> None:
    """It wants no certificate of who connects; what it shows may be in files, which it reads at every start."""
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_bytes(authority.cert)
    key.write_bytes(authority.key)
    with engines.Engine(engine_name, tls=engines.ServerTLS(cert=cert, key=key)) as engine:
        assert ping(engine.tls_address, authority.context(certified=False)) == b"OK"
        other = Authority()
        cert.write_bytes(other.cert)
        key.write_bytes(other.key)
        engine.restart()
        assert ping(engine.tls_address, other.context(certified=False)) == b"OK"


def kill_and_start(engine: engines.Engine) -> None:
    engine.kill()
    engine.start()


INTERRUPTIONS: dict[str, Callable[[engines.Engine], None]] = {
    "restart": engines.Engine.restart,
    "kill": kill_and_start,
}


@pytest.mark.engine
def test_an_engine_listens_in_plain_text(engine_name: str) -> None:
    """At an address that lasts over restart and kill, is silent while the Engine is paused, and ends with it."""
    with engines.Engine(engine_name, tcp=True) as engine:
        address = engine.tcp_address
        for interrupt in INTERRUPTIONS.values():
            assert ping(address) == b"OK"
            interrupt(engine)
            assert engine.tcp_address == address
        engine.pause()
        with pytest.raises(TimeoutError):
            ping(address, timeout=0.2)
        with pytest.raises(TimeoutError):
            ask(engine, "GET", "/_ping", timeout=0.2)
        engine.resume()
        assert ping(address) == b"OK"
        engine.kill()
        assert not listens(address)
    assert traces(engine.state) == []


@pytest.mark.engine
def test_an_engine_whose_port_is_snatched_takes_another(engine_name: str, snatched: list[str]) -> None:
    """A port that another process takes between the choice and the start is not the end."""
    with engines.Engine(engine_name, tcp=True) as engine:
        assert len(snatched) == 1
        assert engine.tcp_address not in snatched
        assert ping(engine.tcp_address) == b"OK"


@pytest.mark.engine
def test_an_engine_whose_own_port_is_taken_says_so(engine_name: str) -> None:
    """An address that clients know already is not exchanged for another."""
    with engines.Engine(engine_name, tcp=True) as engine:
        engine.kill()
        with engines.Engine("docker20", tcp=True) as other:
            engine.tcp_address = other.tcp_address
            with pytest.raises(engines.EngineError, match="address already in use"):
                engine.start()


@pytest.mark.once
def test_a_key_that_is_none_is_said() -> None:
    """An Engine that cannot serve TLS does not start, and leaves nothing."""
    broken = engines.Engine(tls=engines.ServerTLS(cert=b"no certificate", key=b"no key"))
    with pytest.raises(engines.EngineError, match=r"cert\.pem"), broken:
        pass
    assert traces(broken.state) == []


def test_an_engine_has_tls_or_plain_text() -> None:
    with pytest.raises(engines.EngineError, match="with TLS or without"):
        engines.Engine(tcp=True, tls=engines.ServerTLS(cert=b"", key=b""))


def test_a_key_is_in_no_repr() -> None:
    assert "secret" not in repr(engines.ServerTLS(cert=b"", key=b"secret"))

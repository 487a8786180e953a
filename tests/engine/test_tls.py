"""TLS with real Engines: who may connect does, and who may not learns why."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import engines
from aiodocker_images import DaemonUnreachableError, Endpoint, ImageService, StreamInterruptedError, TLSConfig
from tests.conftest import Leftovers
from tests.support import certificates
from tests.support.certificates import Certificates
from tests.support.docker_contexts import run_docker
from tests.support.slow_registry import SlowRegistry
from tests.support.tars import root_file_system
from tests.support.ways_out import WAYS_OUT, WayOut


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("mutual"))


@pytest.fixture(scope="module")
def engine(engine_name: str, mutual: Certificates) -> Iterator[engines.Engine]:
    """An Engine that wants a client certificate."""
    with engines.Engine(engine_name, tls=mutual.server) as engine:
        yield engine


def at(engine: engines.Engine, tls: TLSConfig | None) -> Endpoint:
    return Endpoint(f"tcp://{engine.tls_address}", tls=tls)


@pytest.mark.engine
async def test_an_image_goes_both_ways(
    engine: engines.Engine, mutual: Certificates, tmp_path: Path, leftovers: Leftovers
) -> None:
    before = leftovers.now()
    name = f"localhost/tls-{secrets.token_hex(4)}:1"
    async with ImageService(at(engine, mutual.client)) as images:
        imported = await images.import_image(root_file_system(3 << 20), reference=name)
        saved = await images.save(name, to=tmp_path / "image.tar", checksum=True)
        await images.remove(name)
        loaded = await images.load(tmp_path / "image.tar")
        assert loaded.references == (name,)
        assert (await images.inspect(name)).id == imported.id
        assert saved.size == (tmp_path / "image.tar").stat().st_size
    await leftovers.settle(before)


@pytest.mark.engine
@pytest.mark.parametrize("leave", WAYS_OUT, ids=lambda way: way.__name__)
async def test_leaving_a_pull_over_tls_closes_its_connection(
    engine: engines.Engine, mutual: Certificates, leftovers: Leftovers, leave: WayOut
) -> None:
    before = leftovers.now()
    async with ImageService(at(engine, mutual.client)) as images, SlowRegistry() as registry:
        await images.ping()
        for _ in range(3):
            await leave(images, registry.image)
        await images.ping()
    await leftovers.settle(before)


@pytest.mark.engine
async def test_the_environment_of_the_docker_cli_is_enough(
    engine: engines.Engine, mutual: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://{engine.tls_address}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(mutual.directory))
    async with ImageService() as images:
        assert (await images.ping()).api_version
        await images.list()


REFUSED: dict[str, tuple[Callable[[Certificates, Certificates], TLSConfig | None], str]] = {
    "no client certificate": (
        lambda ours, _: TLSConfig(ca=ours.client.ca),
        r"cannot connect: the daemon wants a client certificate that it trusts \(",
    ),
    "another authority's client certificate": (
        lambda ours, other: dataclasses.replace(other.client, ca=ours.client.ca),
        r"cannot connect: the daemon wants a client certificate that it trusts \(",
    ),
    "another authority": (
        lambda ours, other: dataclasses.replace(ours.client, ca=other.client.ca),
        r"certificate it shows does not hold: unable to get local issuer certificate \(verified with .*/ca\.pem\)",
    ),
    "the system's authorities": (
        lambda ours, _: dataclasses.replace(ours.client, ca=None),
        r"cannot connect: the certificate it shows does not hold: .* \(verified with the system's authorities\)",
    ),
    "no TLS": (
        lambda _, __: None,
        r"if it expects TLS, set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
    ),
}


@pytest.mark.once
async def test_a_context_that_the_real_docker_cli_wrote_is_enough(
    engine: engines.Engine, mutual: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST")
    host = f"host=tcp://{engine.tls_address}"
    files = ",".join(f"{name}={mutual.directory / name}.pem" for name in ("ca", "cert", "key"))
    for name, settings in (("verified", f"{host},{files}"), ("unverified", f"{host},{files},skip-tls-verify=true")):
        await run_docker("context", "create", name, "--docker", settings)
        monkeypatch.setenv("DOCKER_CONTEXT", name)
        chosen = Endpoint.resolve()
        assert chosen.tls is not None
        assert chosen.tls.verify == (name == "verified")
        async with ImageService() as images:
            await images.ping()


CALLS: list[Callable[[ImageService], Awaitable[object]]] = [
    lambda images: images.ping(),
    lambda images: images.list(),
    lambda images: images.pull("alpine"),
    lambda images: images.load(root_file_system(4 << 20)),
]


@pytest.mark.engine
@pytest.mark.parametrize(("choose", "message"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_connection_says_why(
    engine: engines.Engine,
    mutual: Certificates,
    tmp_path: Path,
    leftovers: Leftovers,
    choose: Callable[[Certificates, Certificates], TLSConfig | None],
    message: str,
) -> None:
    before = leftovers.now()
    endpoint = at(engine, choose(mutual, certificates.make(tmp_path / "other")))
    async with ImageService(endpoint) as images:
        for call in CALLS:
            with pytest.raises(DaemonUnreachableError, match=message):
                await call(images)
    # A pinned version asks nothing before: the first that the daemon sees is the operation itself. An upload may
    # be in mid-send when the daemon breaks off, and the kernel then tells of the reset before of what was said.
    async with ImageService(endpoint, api_version="1.41") as images:
        for call in CALLS[1:] if endpoint.tls is not None else ():
            with pytest.raises((DaemonUnreachableError, StreamInterruptedError)) as caught:
                await call(images)
            reset = call is CALLS[-1] and isinstance(caught.value, StreamInterruptedError)
            assert re.search("before it answered" if reset else message, str(caught.value))
    await leftovers.settle(before)


@pytest.mark.engine
async def test_without_verification_anybody_is_believed(engine: engines.Engine, mutual: Certificates) -> None:
    tls = TLSConfig(cert=mutual.client.cert, key=mutual.client.key, verify=False)
    async with ImageService(at(engine, tls)) as images:
        await images.ping()


WRONG: dict[str, tuple[Callable[[Path], Certificates], str]] = {
    "expired": (lambda path: certificates.make(path, expired=True), "certificate has expired"),
    "another host": (
        lambda path: certificates.make(path, names=("docker.example", "127.0.0.2")),
        r"IP address mismatch, certificate is not valid for '127\.0\.0\.1'",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize(("make", "reason"), WRONG.values(), ids=WRONG)
async def test_a_certificate_that_does_not_hold_is_refused(
    tmp_path: Path, make: Callable[[Path], Certificates], reason: str
) -> None:
    made = make(tmp_path)
    with engines.Engine(tls=made.server) as engine:
        async with ImageService(at(engine, made.client)) as images:
            with pytest.raises(DaemonUnreachableError, match=reason):
                await images.ping()
        async with ImageService(at(engine, dataclasses.replace(made.client, verify=False))) as images:
            await images.ping()


@pytest.mark.once
async def test_a_daemon_may_want_no_client_certificate(tmp_path: Path) -> None:
    made = certificates.make(tmp_path, clients=False)
    with engines.Engine(tls=made.server) as engine:
        for url in (f"tcp://{engine.tls_address}", f"https://localhost:{engine.tls_address.rpartition(':')[2]}"):
            async with ImageService(Endpoint(url, tls=TLSConfig(ca=tmp_path / "ca.pem"))) as images:
                await images.ping()


@pytest.mark.once
async def test_a_plain_client_is_not_answered_in_tls(tmp_path: Path) -> None:
    made = certificates.make(tmp_path)
    with engines.Engine(tcp=True) as engine:
        async with ImageService(f"tcp://{engine.tcp_address}") as images:
            await images.ping()
        async with ImageService(Endpoint(f"tcp://{engine.tcp_address}", tls=made.client)) as images:
            with pytest.raises(DaemonUnreachableError, match="no TLS with what answers there: "):
                await images.ping()

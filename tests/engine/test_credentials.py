"""Registries that ask who we are, behind real Engines: each way of giving credentials opens them."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Final

import bcrypt
import msgspec
import pytest

import engines
from aiodocker_images import (
    DistributionInspect,
    DockerError,
    DockerKeychain,
    ForbiddenError,
    ImageService,
    Keychain,
    MultiKeychain,
    NotFoundError,
    RegistryAuth,
    ServerError,
    StaticKeychain,
    UnauthorizedError,
)
from tests.conftest import by_engine, engine_is
from tests.support.docker_home import DockerHome, basic
from tests.support.tars import root_file_system, tar_of
from tests.support.token_server import TokenServer
from tests.unit.dockercli.test_credential_helpers import told

pytestmark = pytest.mark.engine

USER: Final = "somebody"
PASSWORD: Final = f"{secrets.token_urlsafe()}:ä?>~"


@pytest.fixture(scope="module")
def guarded() -> Generator[str, None, None]:
    """The address of a registry that is open to USER with PASSWORD alone."""
    encrypted = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    with engines.Registry(htpasswd=f"{USER}:{encrypted}\n") as registry:
        yield registry.address


@pytest.fixture
def home(tmp_path: Path) -> DockerHome:
    return DockerHome(tmp_path)


@pytest.fixture
async def image(engine: ImageService, guarded: str) -> AsyncGenerator[str, None]:
    """An image of the Engine, named as if it were of the guarded registry."""
    name = f"{guarded}/{secrets.token_hex(4)}:1"
    await engine.import_image(root_file_system(), reference=name)
    yield name
    for each in await engine.list():
        if name in each.repo_tags:
            await engine.remove(name, force=True)


@pytest.fixture
async def built(engine: ImageService) -> AsyncGenerator[str, None]:
    """A name for what a test builds."""
    name = f"localhost/built-{secrets.token_hex(4)}:1"
    yield name
    for each in await engine.list():
        if name in each.repo_tags:
            await engine.remove(name, force=True)


def from_it(image: str) -> bytes:
    """Make the context of a build that needs the image."""
    return tar_of({"Dockerfile": f"FROM {image}\nLABEL a={secrets.token_hex(4)}\n"})


async def digest(inspected: Awaitable[DistributionInspect]) -> str | None:
    descriptor = (await inspected).descriptor
    return None if descriptor is None else descriptor.digest


def at(auth: RegistryAuth, registry: str) -> RegistryAuth:
    return msgspec.structs.replace(auth, server_address=registry)


ME: Final = RegistryAuth(username=USER, password=PASSWORD)
REFUSED = [None, RegistryAuth(username=USER, password="wrong"), RegistryAuth(username="nobody", password=PASSWORD)]


@pytest.mark.parametrize("auth", REFUSED, ids=["none", "a wrong password", "a wrong user"])
async def test_nothing_goes_without_the_right_credentials(
    engine: ImageService, guarded: str, image: str, auth: RegistryAuth | None
) -> None:
    with pytest.raises(UnauthorizedError):
        await engine.push(image, auth=auth)
    await engine.push(image, auth=ME)
    await engine.remove(image, force=True)
    with pytest.raises(UnauthorizedError):
        await engine.pull(image, auth=auth)
    with pytest.raises(UnauthorizedError):
        await engine.build(from_it(image), auths={guarded: auth} if auth else None)
    with pytest.raises(by_engine(UnauthorizedError, podman=NotFoundError)):  # Podman 5.8 has no such endpoint
        await engine.inspect_distribution(image, auth=auth)
    # Podman 5.8 logs in over TLS alone, whatever its registries.conf says.
    with pytest.raises(by_engine(UnauthorizedError, podman=ServerError)):
        await engine.login(at(auth or RegistryAuth(), guarded))


class Own:
    """A user's own keychain."""

    async def resolve(self, registry: str) -> RegistryAuth | None:
        return ME if registry.startswith("127.0.0.1:") else None


def helpers(home: DockerHome, registry: str) -> None:
    home.store("ours", {registry: (USER, PASSWORD)})


def cred_helpers(home: DockerHome, registry: str) -> Keychain:
    helpers(home, registry)
    home.config(credHelpers={registry: "ours"}, credsStore="absent")
    return DockerKeychain(environ=home.environ)


def creds_store(home: DockerHome, registry: str) -> Keychain:
    helpers(home, registry)
    home.config(credsStore="ours", auths={registry: {}})
    return DockerKeychain(environ=home.environ)


def auths(entry: dict[str, str]) -> Callable[[DockerHome, str], Keychain]:
    def configure(home: DockerHome, registry: str) -> Keychain:
        home.config(auths={f"https://{registry}/v2/": entry})
        return DockerKeychain(environ=home.environ)

    return configure


def auth_config(home: DockerHome, registry: str) -> Keychain:
    home.environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {registry: {"auth": basic(USER, PASSWORD)}}})
    return DockerKeychain(environ=home.environ)


def auth_json(home: DockerHome, registry: str) -> Keychain:
    home.write(home.runtime_auth_json, {"auths": {registry: {"auth": basic(USER, PASSWORD)}}})
    return DockerKeychain(environ=home.environ)


def several(home: DockerHome, registry: str) -> Keychain:
    home.config(credsStore="absent")
    return MultiKeychain(DockerKeychain(environ=home.environ), StaticKeychain({registry: ME}))


WAYS: dict[str, Callable[[DockerHome, str], Keychain]] = {
    "DOCKER_AUTH_CONFIG": auth_config,
    "credHelpers": cred_helpers,
    "credsStore": creds_store,
    "auths, auth": auths({"auth": basic(USER, PASSWORD)}),
    "auths, username and password": auths({"username": USER, "password": PASSWORD}),
    "Podman's auth.json": auth_json,
    "StaticKeychain": lambda _, registry: StaticKeychain({registry: ME}),
    "MultiKeychain": several,
    "a keychain of one's own": lambda _, registry: Own(),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_each_way_of_giving_credentials_opens_the_registry(
    engine_host: str, home: DockerHome, guarded: str, image: str, built: str, way: Callable[[DockerHome, str], Keychain]
) -> None:
    keychain = way(home, guarded)
    async with ImageService(engine_host, keychain=keychain) as images:
        pushed = await images.push(image)
        await images.remove(image)
        pulled = await images.pull(image)
        assert pulled.digest == by_engine(pushed.digest, podman=None)
        if engine_is("podman"):
            with pytest.raises(NotFoundError):
                await images.inspect_distribution(image)
        else:
            assert await digest(images.inspect_distribution(image)) == pushed.digest
        await images.remove(image)
        if isinstance(keychain, Own):  # it has no list of what it knows
            with pytest.raises(UnauthorizedError):
                await images.build(from_it(image), tags=built)
        else:
            assert (await images.build(from_it(image), tags=built)).id


async def test_explicit_credentials_open_the_registry(engine_host: str, guarded: str, image: str, built: str) -> None:
    wrong = StaticKeychain({guarded: RegistryAuth(username=USER, password="wrong")})
    async with ImageService(engine_host, keychain=wrong) as images:
        pushed = await images.push(image, auth=ME)
        await images.remove(image)
        assert (await images.pull(image, auth=ME)).reference == pushed.reference
        await images.remove(image)
        assert (await images.build(from_it(image), tags=built, auths={f"http://{guarded}": ME})).id
        if not engine_is("podman"):
            assert await digest(images.inspect_distribution(image, auth=ME)) == pushed.digest
            assert (await images.login(at(ME, guarded))).status == "Login Succeeded"


async def test_a_service_without_a_keychain_has_that_of_the_docker_cli(
    engine: ImageService, home: DockerHome, guarded: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each operation anew: what `docker login` stores is found by a service that is there already."""
    for variable, value in home.environ.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UnauthorizedError):
        await engine.push(image)
    creds_store(home, guarded)
    assert (await engine.push(image)).digest
    home.config()
    with pytest.raises(UnauthorizedError):
        await engine.push(image)


async def test_a_broken_helper_is_named_only_where_its_credentials_are_missing(
    engine_host: str,
    registry: str,
    guarded: str,
    image: str,
    home: DockerHome,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    home.helper("broken", f"echo {PASSWORD!r}; echo cannot reach the agent >&2; exit 3")
    home.config(credsStore="broken")
    problem = f"docker-credential-broken, asked for '{guarded}', failed with exit status 3: cannot reach the agent"
    async with ImageService(engine_host, keychain=DockerKeychain(environ=home.environ)) as images:
        open_name = f"{registry}/{secrets.token_hex(4)}:1"
        await images.tag(image, open_name)
        assert (await images.push(open_name)).digest
        await images.remove(open_name)
        with pytest.raises(UnauthorizedError) as caught:
            await images.push(image)
        assert caught.value.__notes__ == [f"The credentials could not be had: {problem}"]
        with pytest.raises(DockerError) as login:
            await images.login(RegistryAuth(username=USER, password=PASSWORD + "x", server_address=guarded))
    seen = told(caught.value) + told(login.value) + caplog.text
    assert problem in caplog.text
    assert PASSWORD not in seen
    assert basic(USER, PASSWORD)[:-4] not in seen


async def test_a_token_server_accepts_a_password_and_both_kinds_of_token(
    engine: ImageService, engine_host: str, home: DockerHome, tmp_path: Path
) -> None:
    async with TokenServer(tmp_path) as server:
        with engines.Registry(token=server.registry) as registry:
            address, path = registry.address, secrets.token_hex(4)
            image = f"{address}/{path}:1"
            token = server.token([f"repository:{path}:pull,push"])
            home.store("ours", {address: ("<token>", server.identity_token)})
            entries: dict[str, tuple[dict[str, object], set[str]]] = {
                "password": ({"auths": {address: {"auth": basic(USER, server.password)}}}, {"password"}),
                "identity token": ({"auths": {address: {"identitytoken": server.identity_token}}}, {"refresh_token"}),
                "identity token of a helper": ({"credsStore": "ours"}, {"refresh_token"}),
                "registry token": ({"auths": {address: {"registrytoken": token}}}, set()),
            }
            await engine.import_image(root_file_system(), reference=image)
            async with ImageService(engine_host, keychain=DockerKeychain(environ=home.environ)) as images:
                for what, (config, grants) in entries.items():
                    home.config(**config)
                    server.grants.clear()
                    if engine_is("podman") and what != "password":
                        # Podman 5.8 pulls with an identity token, but pushes with neither.
                        with pytest.raises(ForbiddenError):
                            await images.push(image)
                        continue
                    assert (await images.push(image)).digest
                    await images.remove(image)
                    await images.pull(image)
                    assert set(server.grants) == grants
                if engine_is("podman"):
                    home.config(credsStore="ours")
                    server.grants.clear()
                    await images.pull(image)
                    assert server.grants == ["refresh_token"]
                else:
                    me = RegistryAuth(username=USER, password=server.password, server_address=address)
                    login = await images.login(me)
                    assert login.identity_token == server.identity_token
                    assert await images.login(RegistryAuth(identity_token=login.identity_token, server_address=address))
            # At the end: some Engines ask for tokens in the background, even after they said that it failed.
            with pytest.raises(ForbiddenError):
                await engine.push(image)
            await engine.remove(image)

"""Operations find credentials, go on without those that cannot be had, and let no secret be seen."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aiodocker_images import (
    ConfigError,
    ConflictError,
    CredentialHelperError,
    DockerError,
    DockerKeychain,
    ForbiddenError,
    ImageService,
    InvalidArgumentError,
    Keychain,
    MultiKeychain,
    NotFoundError,
    RegistryAuth,
    ServerError,
    StaticKeychain,
    UnauthorizedError,
)
from tests.support.docker_home import DockerHome, basic
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.support.tars import tar_of
from tests.unit.dockercli.test_credential_helpers import processes, told

R = "r.example:5000"
SECRET = "s3cret-of-the-user"
ME = RegistryAuth(username="me", password=SECRET)
CONTEXT = tar_of({"Dockerfile": "FROM r.example:5000/base\n"})

Call = Callable[[ImageService], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "pull": lambda images: images.pull(f"{R}/a:1"),
    "push": lambda images: images.push(f"{R}/a:1"),
    "inspect_distribution": lambda images: images.inspect_distribution(f"{R}/a:1"),
    "search": lambda images: images.search(f"{R}/a"),
    "build": lambda images: images.build(CONTEXT),
}


@pytest.fixture
def home(tmp_path: Path) -> DockerHome:
    return DockerHome(tmp_path)


def answer(daemon: ScriptedDaemon, status: int, message: str = "the registry says no") -> None:
    """Let the daemon answer every operation so."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer_json({"message": message}, status)

    for method, path in (
        *(("POST", "/images/create"), ("POST", f"/images/{R}/a/push"), ("POST", "/build"), ("POST", "/auth")),
        *(("GET", f"/distribution/{R}/a:1/json"), ("GET", "/images/search")),
    ):
        daemon.on(method, path, refuse)


def sent(daemon: ScriptedDaemon) -> object:
    """Return the credentials in the last request, None if there is no header for them."""
    headers = daemon.requests[-1].headers
    header = headers.get("x-registry-auth", headers.get("x-registry-config"))
    return None if header is None else json.loads(base64.urlsafe_b64decode(header))


@pytest.mark.parametrize(("name", "call"), CALLS.items(), ids=CALLS)
async def test_every_operation_sends_what_the_docker_cli_would(
    daemon: ScriptedDaemon, home: DockerHome, monkeypatch: pytest.MonkeyPatch, name: str, call: Call
) -> None:
    answer(daemon, 500)
    for variable, value in home.environ.items():
        monkeypatch.setenv(variable, value)
    home.store("x", {R: ("me", SECRET)})
    home.config(credsStore="x")
    async with ImageService(daemon.socket) as images:
        with pytest.raises(ServerError):
            await call(images)
    document = {"username": "me", "password": SECRET, "serveraddress": R}
    assert sent(daemon) == ({R: document} if name == "build" else document)


REFUSALS = [(401, UnauthorizedError), (403, ForbiddenError), (404, NotFoundError), (409, ConflictError)]


@pytest.mark.parametrize(("name", "call"), CALLS.items(), ids=CALLS)
async def test_without_its_helper_a_call_is_anonymous_and_a_refusal_says_why(
    daemon: ScriptedDaemon, home: DockerHome, caplog: pytest.LogCaptureFixture, name: str, call: Call
) -> None:
    home.helper("x", "echo cannot reach the agent; exit 3")
    home.config(credHelpers={R: "x"})
    problem = f"docker-credential-x, asked for '{R}', failed with exit status 3: cannot reach the agent"
    async with ImageService(daemon.socket, keychain=DockerKeychain(environ=home.environ)) as images:
        for status, cls in REFUSALS:
            answer(daemon, status)
            caplog.clear()
            with pytest.raises(cls) as caught:
                await call(images)
            assert sent(daemon) == ({} if name == "push" else None)
            (record,) = caplog.records
            assert (record.name, record.levelno) == ("aiodocker_images", logging.WARNING)
            assert problem in record.getMessage()
            notes = getattr(caught.value, "__notes__", [])
            # A build goes on with what there is of the rest.
            expected = [] if status == 409 or name == "build" else [f"The credentials could not be had: {problem}"]
            assert notes == expected


async def test_a_call_that_succeeds_anonymously_succeeds(
    daemon: ScriptedDaemon, home: DockerHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.config(credsStore="absent")

    async def found(exchange: Exchange) -> None:
        await exchange.answer_json([{"name": "a"}])

    daemon.on("GET", "/images/search", found)
    async with ImageService(daemon.socket, keychain=DockerKeychain(environ=home.environ)) as images:
        assert [each.name for each in await images.search("a")] == ["a"]
    problem = "docker-credential-absent, asked for 'https://index.docker.io/v1/', is not on PATH"
    assert caplog.messages == [f"search a: goes on without credentials: {problem}"]


async def test_explicit_credentials_beat_a_keychain_that_is_not_even_asked(
    daemon: ScriptedDaemon, home: DockerHome, caplog: pytest.LogCaptureFixture
) -> None:
    answer(daemon, 500)
    home.store("x", {R: ("other", "pw")})
    home.config(credsStore="x")
    explicit: list[Call] = [
        lambda images: images.pull(f"{R}/a:1", auth=ME),
        lambda images: images.push(f"{R}/a:1", auth=ME),
        lambda images: images.inspect_distribution(f"{R}/a:1", auth=ME),
        lambda images: images.search(f"{R}/a", auth=ME),
        lambda images: images.build(CONTEXT, auths={R: ME}),
        lambda images: images.build(CONTEXT, auths={}),
        lambda images: images.build(CONTEXT, builder="buildkit"),
    ]
    document = {"username": "me", "password": SECRET, "serveraddress": R}
    async with ImageService(daemon.socket, keychain=DockerKeychain(environ=home.environ)) as images:
        seen: list[object] = []
        for call in explicit:
            with pytest.raises(ServerError):
                await call(images)
            seen.append(sent(daemon))
    assert seen == [document, document, document, document, {R: document}, None, None]
    assert home.asked == []
    assert caplog.messages == []


async def test_an_invalid_entry_stops_calls_to_its_own_registry_alone(daemon: ScriptedDaemon, home: DockerHome) -> None:
    answer(daemon, 500)
    home.config(auths={R: {"auth": SECRET}, "other.example": {"auth": basic("me", "pw")}})
    async with ImageService(daemon.socket, keychain=DockerKeychain(environ=home.environ)) as images:
        with pytest.raises(ConfigError, match=f"^pull {R}/a:1: 'auth' in the entry for '{R}' in ") as caught:
            await images.pull(f"{R}/a:1")
        assert SECRET not in told(caught.value)
        with pytest.raises(ConfigError, match=f"^inspect_distribution {R}/a:1: 'auth' in the entry for '{R}' in "):
            await images.inspect_distribution(f"{R}/a:1")
        assert daemon.requests == []
        with pytest.raises(ServerError):
            await images.pull("other.example/a:1")
        with pytest.raises(ServerError):
            await images.build(CONTEXT)
        assert sent(daemon) == {"other.example": {"username": "me", "password": "pw", "serveraddress": "other.example"}}


class Mine:
    """A user's own keychain, which waits for its answer, and has no list."""

    def __init__(self, answer: RegistryAuth | Exception | None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def resolve(self, registry: str) -> RegistryAuth | None:
        await asyncio.sleep(0)
        self.asked.append(registry)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_custom_keychain_is_asked_and_its_exceptions_are_passed_on(daemon: ScriptedDaemon) -> None:
    answer(daemon, 500)
    mine = Mine(ME)
    async with ImageService(daemon.socket, keychain=mine) as images:
        for call in CALLS.values():
            with pytest.raises(ServerError):
                await call(images)
    assert mine.asked == [R] * 4
    assert sent(daemon) is None  # of the build: a keychain without a list is not asked
    problem = KeyError("mine")
    async with ImageService(daemon.socket, keychain=Mine(problem)) as images:
        with pytest.raises(KeyError) as caught:
            await images.pull("a")
    assert caught.value is problem


FAILS = CredentialHelperError("it failed", helper="docker-credential-x", exit_status=1)
MULTI: dict[str, tuple[list[Keychain], RegistryAuth | None]] = {
    "none": ([], None),
    "nobody knows": ([Mine(None), StaticKeychain({})], None),
    "the first": ([Mine(ME), Mine(KeyError("not asked"))], ME),
    "the second": ([StaticKeychain({"x": RegistryAuth(username="x")}), StaticKeychain({R: ME})], ME),
    "in spite of a broken helper": ([Mine(FAILS), Mine(None), Mine(ME)], ME),
    "nested": ([MultiKeychain(Mine(FAILS)), MultiKeychain(MultiKeychain(Mine(ME)))], ME),
}


@pytest.mark.parametrize(("keychains", "auth"), MULTI.values(), ids=MULTI)
async def test_of_several_keychains_the_first_that_answers_wins(
    keychains: list[Keychain], auth: RegistryAuth | None
) -> None:
    assert await MultiKeychain(*keychains).resolve(R) == auth


async def test_a_broken_helper_is_raised_if_no_other_keychain_answers() -> None:
    with pytest.raises(CredentialHelperError) as caught:
        await MultiKeychain(Mine(None), Mine(FAILS), Mine(None)).resolve(R)
    assert caught.value is FAILS
    with pytest.raises(KeyError):
        await MultiKeychain(Mine(KeyError("mine")), Mine(ME)).resolve(R)


class Listing(Mine):
    """A user's own keychain with a list."""

    async def resolve_all(self) -> dict[str, RegistryAuth]:
        auth = await self.resolve("all")
        return {} if auth is None else {R: auth, "index.docker.io": auth}


async def test_several_keychains_list_what_each_knows_and_the_first_wins(caplog: pytest.LogCaptureFixture) -> None:
    own = RegistryAuth(username="own")
    keychain = MultiKeychain(Mine(KeyError("not asked")), Listing(FAILS), StaticKeychain({R: own}), Listing(ME))
    assert await keychain.resolve_all() == {R: own, "docker.io": ME}
    assert caplog.messages == ["some credentials cannot be had: it failed"]
    assert repr(keychain) == "MultiKeychain(Mine, Listing, StaticKeychain, Listing)"


async def test_a_list_that_cannot_be_had_is_gone_without(
    daemon: ScriptedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    answer(daemon, 404)
    async with ImageService(daemon.socket, keychain=Listing(FAILS)) as images:
        with pytest.raises(NotFoundError) as caught:
            await images.build(CONTEXT)
    assert caught.value.__notes__ == ["The credentials could not be had: it failed"]
    assert caplog.messages == ["build: goes on without credentials: it failed"]


async def test_credentials_that_are_no_text_are_refused_without_being_shown(images: ImageService) -> None:
    """What no JSON can carry: half a surrogate pair."""
    auth = RegistryAuth(username="me", password=f"{SECRET}\ud800", server_address=R)
    for call in (
        images.pull(f"{R}/a", auth=auth),
        images.push(f"{R}/a", auth=auth),
        images.inspect_distribution(f"{R}/a", auth=auth),
        images.login(auth),
    ):
        with pytest.raises(InvalidArgumentError, match="half of a surrogate pair") as caught:
            await call
        behind = [caught.value, caught.value.__cause__, caught.value.__context__]
        assert not any(SECRET in f"{error} {error!r} {vars(error) if error else ''}" for error in behind)
    with pytest.raises(InvalidArgumentError, match="half of a surrogate pair"):
        images.build_stream(CONTEXT, auths={R: auth})


async def test_no_secret_is_seen_when_login_push_and_helper_fail(
    daemon: ScriptedDaemon,
    home: DockerHome,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    """All that is printed: exceptions with all behind them, their variables, every logger, warnings, processes."""
    asyncio.get_running_loop().set_debug(True)  # asyncio then says more
    caplog.set_level(logging.DEBUG)
    answer(daemon, 401, "unauthorized: incorrect username or password")
    registry_token, identity_token = "rt-s3cret-too", "it-s3cret-too"
    failing = ("failing.example", "slow.example", "token.example", "bad.example")
    home.helper("fails", f"echo 'me {SECRET}' >&2; echo '{SECRET}'; exit 1")
    home.helper("slow", f'echo \'{{"Secret": "{SECRET}"\'; sleep 1000')
    home.helper("token", f'echo \'{{"Username": "<token>", "Secret": "{identity_token}"}}\'')
    home.config(
        credHelpers={"failing.example": "fails", "slow.example": "slow", "token.example": "token"},
        auths={R: {"auth": basic("me", SECRET), "registrytoken": registry_token}, "bad.example": {"auth": SECRET}},
    )
    errors: list[DockerError] = []
    listed: list[str] = []
    keychain = DockerKeychain(environ=home.environ, helper_timeout=1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        async with ImageService(daemon.socket, keychain=keychain) as images:
            calls: list[Awaitable[object]] = [
                images.login(ME),
                images.login(RegistryAuth(identity_token=identity_token, server_address=R)),
                images.build(CONTEXT),
                *(call(images) for call in CALLS.values()),
                *(images.pull(f"{registry}/a:1") for registry in failing),
                *(images.push(f"{registry}/a:1") for registry in failing),
            ]
            for call in calls:
                asking = asyncio.ensure_future(call)
                while not asking.done():
                    listed += processes(home)
                    await asyncio.sleep(0.05)
                with pytest.raises(DockerError) as caught:
                    await asking
                errors.append(caught.value)
        daemon.socket.unlink()
        async with ImageService(
            daemon.socket, keychain=keychain, api_version="1.43"
        ) as images:  # nothing is asked first
            for call in (images.login(ME), images.push(f"{R}/a:1"), images.pull("token.example/a:1")):
                with pytest.raises(DockerError) as caught:
                    await call
                errors.append(caught.value)
    printed = capfd.readouterr()
    log = logging.Formatter("%(name)s %(message)s %(args)s")
    seen = {
        "exceptions": "".join(map(told, errors)),
        "log": "".join(log.format(record) for record in caplog.records),
        "warnings": "".join(str(each.message) for each in recwarn),
        "output": printed.out + printed.err,
        "processes": "".join(listed),
        "reprs": f"{images!r} {keychain!r} {ME!r} {home.environ['PATH']}",
    }
    plain = [SECRET, registry_token, identity_token]
    hidden = plain + [basic("me", SECRET)] + [base64.b64encode(secret.encode()).decode()[:-4] for secret in plain]
    header = max(daemon.requests, key=lambda each: len(each.headers.get("x-registry-auth", "")))
    hidden.append(header.headers["x-registry-auth"])
    assert [(where, secret) for where, text in seen.items() for secret in hidden if secret in text] == []
    assert "unauthorized: incorrect username" in seen["exceptions"]
    assert "docker-credential-fails" in seen["log"]
    assert "docker-credential-slow get" in seen["processes"]

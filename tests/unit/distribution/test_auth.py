"""Challenges, tokens and passwords: what is sent, to whom, and how often it is asked for."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import traceback

import pytest
from rich.console import Console
from rich.traceback import Traceback

from aiodocker_images import (
    ForbiddenError,
    FrameDecodeError,
    Keychain,
    RegistryAuth,
    RegistryConfig,
    RegistryService,
    StaticKeychain,
    UnauthorizedError,
)
from aiodocker_images.testing import BasicAuth, FakeRegistry, Fault, TokenAuth, index
from tests.support.sweeps import spread

from .conftest import Opened

BASIC = "Basic " + base64.b64encode(b"alice:secret").decode()


async def test_a_password_is_sent_only_after_the_registry_asked_for_it(opened: Opened) -> None:
    async with FakeRegistry(auth=BasicAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))
        await registries.digest(fake.name("app:1"))
        assert [each.headers.get("authorization") for each in fake.requests] == [None, BASIC, BASIC]


async def test_a_token_is_asked_for_with_one_parameter_for_the_scope(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))
        (asked,) = fake.asked("GET token")
        assert asked.query == {"service": "fake-registry", "scope": "repository:app:pull", "account": "alice"}
        assert asked.headers["authorization"] == BASIC


@pytest.mark.parametrize("field", ["token", "access_token"])
async def test_either_field_of_a_token_servers_answer_has_the_token(opened: Opened, field: str) -> None:
    auth = TokenAuth("alice", "secret", token_field=field)  # type: ignore[arg-type]
    async with FakeRegistry(auth=auth) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))


async def test_requests_that_begin_at_once_share_one_challenge_and_one_token(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        await asyncio.gather(*(registries.digest(fake.name("app:1")) for _ in range(20)))
        assert fake.count("GET token") == 1
        assert [each.status for each in fake.asked("HEAD manifest")].count(401) == 1


async def test_requests_to_a_registry_that_is_down_fail_in_parallel(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", index())
        stalled = fake.fail(Fault.stall(of="response"), on="HEAD manifest")
        first = asyncio.create_task(registries.digest(fake.name("app:1")))
        await stalled.reached()
        second = asyncio.create_task(registries.digest(fake.name("app:1")))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).startswith("sha256:")
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_each_repository_has_a_token_of_its_own(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        for name in ("one:1", "two:1"):
            fake.put(name, index())
            await registries.digest(fake.name(name))
        assert [grant.scopes for grant in fake.grants] == [("repository:one:pull",), ("repository:two:pull",)]
        # The registry is known by now: the second repository costs no 401 any more.
        assert [each.status for each in fake.asked("HEAD manifest")] == [401, 200, 200]


async def test_an_identity_token_is_posted_as_a_refresh_token(opened: Opened) -> None:
    auth = TokenAuth("alice", "secret", identity_token="refresh-me")
    async with (
        FakeRegistry(auth=auth) as fake,
        opened(fake, auth=RegistryAuth(identity_token="refresh-me")) as registries,
    ):
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))
        assert [grant.how for grant in fake.grants] == ["refresh_token"]
        assert fake.count("POST token") == 1


async def test_without_credentials_a_token_for_nobody_is_asked_for(opened: Opened) -> None:
    auth = TokenAuth("alice", "secret", anonymous=("pull",))
    async with FakeRegistry(auth=auth) as fake, opened(fake, auth=None) as registries:
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))
        assert [grant.how for grant in fake.grants] == ["anonymous"]
        assert not fake.asked("GET token")[0].authorized


@pytest.mark.parametrize("uses", [1, 2, 3])
async def test_a_token_that_dies_between_two_requests_is_renewed(opened: Opened, uses: int) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret", uses=uses)) as fake, opened(fake) as registries:
        content = index()
        fake.put("app:1", content)
        image = await registries.image(fake.name("app:1"), platform="linux/arm64")
        assert image.manifest is not None
        assert image.manifest.digest == content.manifests[1].digest


async def test_a_token_is_renewed_before_it_ends(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret", expires_in=0.05)) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))
        await asyncio.sleep(0.1)
        await registries.digest(fake.name("app:1"))
        assert [each.status for each in fake.asked("HEAD manifest")] == [401, 200, 200]
        assert fake.count("GET token") == 2


async def test_a_token_of_which_no_end_is_told_is_kept(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret", expires_in=None)) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        for _ in range(3):
            await registries.digest(fake.name("app:1"))
        assert fake.count("GET token") == 1


class Rotating:
    """A keychain whose password changes."""

    def __init__(self, *passwords: str) -> None:
        self.passwords = list(passwords)

    async def resolve(self, registry: str) -> RegistryAuth:
        password = self.passwords.pop(0) if len(self.passwords) > 1 else self.passwords[0]
        return RegistryAuth(username="alice", password=password)


@pytest.mark.parametrize("auth", [BasicAuth("alice", "secret"), TokenAuth("alice", "secret")])
async def test_credentials_are_asked_for_again_when_they_are_needed_again(
    opened: Opened, auth: BasicAuth | TokenAuth
) -> None:
    keychain: Keychain = Rotating("secret", "rotated")
    async with FakeRegistry(auth=auth) as fake, opened(fake, keychain=keychain) as registries:
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))
        auth.password = "rotated"
        fake.revoke_tokens()
        await registries.digest(fake.name("app:1"))


@pytest.mark.parametrize("auth", [BasicAuth("alice", "other"), TokenAuth("alice", "other")])
async def test_refused_credentials_are_an_error_that_says_what_to_do(
    opened: Opened, auth: BasicAuth | TokenAuth
) -> None:
    async with FakeRegistry(auth=auth) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        with pytest.raises(UnauthorizedError, match=f"docker login {fake.host}") as caught:
            await registries.digest(fake.name("app:1"))
        assert caught.value.endpoint == fake.host
        assert caught.value.operation == f"digest {fake.host}/app:1"
        assert len(fake.requests) <= 3


async def test_missing_credentials_are_an_error_that_says_what_to_do(opened: Opened) -> None:
    async with FakeRegistry(auth=BasicAuth("alice", "secret")) as fake, opened(fake, auth=None) as registries:
        fake.put("app:1", index())
        with pytest.raises(UnauthorizedError, match="there are no credentials for it: docker login"):
            await registries.digest(fake.name("app:1"))
        assert len(fake.requests) == 1


async def test_a_token_that_grants_too_little_is_tried_twice_and_then_reported(opened: Opened) -> None:
    auth = TokenAuth("alice", "secret", allow=lambda account, repository, action: repository != "secret")
    async with FakeRegistry(auth=auth) as fake, opened(fake) as registries:
        fake.put("secret:1", index())
        with pytest.raises(UnauthorizedError) as caught:
            await registries.digest(fake.name("secret:1"))
        assert caught.value.path == "/v2/secret/manifests/1"
        assert [each.status for each in fake.asked("HEAD manifest")] == [401, 401, 401]
        assert fake.count("GET token") == 2


async def test_a_403_is_tried_once_more_with_a_new_token(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        fake.fail(Fault.refuse(403, code="DENIED"), on="HEAD manifest")
        await registries.digest(fake.name("app:1"))
        assert fake.count("GET token") == 2
        fake.fail(Fault.refuse(403, code="DENIED", message="not yours"), on="GET manifest", times=2)
        with pytest.raises(ForbiddenError, match="not yours") as caught:
            await registries.manifest(fake.name("app:1"))
        assert (caught.value.status, caught.value.code) == (403, "DENIED")


async def test_a_401_without_a_challenge_is_a_refusal_with_the_registrys_words(opened: Opened) -> None:
    async with FakeRegistry("pulp") as fake, opened(fake) as registries:
        with pytest.raises(ForbiddenError) as caught:
            await registries.manifest(fake.name("missing:1"))
        assert caught.value.status == 401
        assert len(fake.requests) == 1


async def test_credentials_go_to_nobody_but_the_registry_and_its_token_server(opened: Opened) -> None:
    auth = TokenAuth("alice", "secret")
    async with FakeRegistry(auth=auth, redirect=True) as fake, opened(fake) as registries:
        content = index()
        fake.put("app:1", content)
        digest = content.manifests[0].config.digest
        pieces = [piece async for piece in registries.blob_stream(fake.name("app"), digest)]
        assert b"".join(pieces) == fake.blob(digest)
        assert [each.authorized for each in fake.asked("GET storage")] == [False]
        assert "authorization" not in str([each.headers for each in fake.asked("GET storage")])


async def test_a_token_server_without_tls_gets_nothing_from_a_registry_with_it(opened: Opened) -> None:
    async with FakeRegistry() as fake, opened(fake) as registries:
        fake.put("app:1", index())
        for realm in ("ftp://auth.example/", "http://u:p@auth.example/", "/token", "https://", "ü"):
            challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'.encode().decode("latin-1")}
            fake.fail(Fault.refuse(401, headers=challenge), on="HEAD manifest")
            with pytest.raises(UnauthorizedError, match="token server that is not an address"):
                await registries.digest(fake.name("app:1"))


TOKEN_FAULTS = [
    Fault.refuse(503),
    Fault.refuse(429, retry_after=0),
    Fault.cut(of="response"),
    Fault.cut(after=20),
    Fault.reset(of="response"),
]


@pytest.mark.parametrize("fault", TOKEN_FAULTS, ids=str)
async def test_a_token_server_that_fails_is_asked_again(opened: Opened, fault: Fault) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        injected = fake.fail(fault, on="GET token", times=2)
        await registries.digest(fake.name("app:1"))
        assert injected.hits == 2


async def test_an_answer_of_a_token_server_may_break_anywhere(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake:
        fake.put("app:1", index())
        async with opened(fake) as registries:
            await registries.digest(fake.name("app:1"))
        whole = fake.asked("GET token")[0].bytes_out
        for after in spread(range(whole), 24):
            async with opened(fake) as registries:
                injected = fake.fail(Fault.cut(after=after), on="GET token")
                await registries.digest(fake.name("app:1"))
                assert injected.hits == 1


BAD_TOKENS = [b"", b"{}", b"[]", b'{"token": ""}', b'{"token": 7}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}']


@pytest.mark.parametrize("body", BAD_TOKENS)
async def test_what_is_no_token_is_a_clear_error(opened: Opened, body: bytes) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        fake.fail(Fault.refuse(200, body=body), on="GET token")
        with pytest.raises(FrameDecodeError, match="no usable token"):
            await registries.digest(fake.name("app:1"))


async def test_no_secret_is_in_an_error_or_in_the_variables_of_its_frames(opened: Opened) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        for fault in (Fault.refuse(500), Fault.cut(of="response"), Fault.refuse(401), Fault.refuse(200, body=b"{")):
            for step in ("HEAD manifest", "GET token"):
                fake.revoke_tokens()
                with fake.fail(fault, on=step, times=None):
                    try:
                        await registries.digest(fake.name("app:1"))
                    except Exception as error:  # noqa: BLE001 - any of them is looked at
                        check_without_secrets(error)
        assert "secret" not in repr(registries)


def check_without_secrets(error: BaseException) -> None:
    shown = io.StringIO()
    # Without the lines around: of this file, they have the word.
    told = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True, extra_lines=0)
    Console(file=shown, width=200, color_system=None).print(told)
    text = shown.getvalue() + "".join(traceback.format_exception(error)) + repr(error)
    assert "secret" not in text.replace("test_no_secret", "")
    assert BASIC.removeprefix("Basic ") not in text


async def test_no_secret_is_in_the_variables_of_a_cancelled_request(opened: Opened) -> None:
    async with FakeRegistry(auth=BasicAuth("alice", "secret")) as fake, opened(fake) as registries:
        fake.put("app:1", index())
        await registries.digest(fake.name("app:1"))
        stalled = fake.fail(Fault.stall(of="response"), on="HEAD manifest")
        asking = asyncio.create_task(registries.digest(fake.name("app:1")))
        await stalled.reached()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asking
        check_without_secrets(caught.value)


async def test_the_token_server_counts_as_a_part_of_the_registry(opened: Opened) -> None:
    """A limit on requests in a second holds for both together."""
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as fake:
        configs = {fake.host: RegistryConfig(requests_per_second=20)}
        async with opened(fake, registries=configs) as registries:
            fake.put("app:1", index())
            began = asyncio.get_running_loop().time()
            await registries.digest(fake.name("app:1"))
            assert len(fake.requests) == 3
            assert asyncio.get_running_loop().time() - began >= 0.1


async def test_credentials_are_those_of_the_docker_cli_unless_others_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeRegistry(auth=BasicAuth("alice", "secret")) as fake:
        fake.put("app:1", index())
        entry = {"auth": BASIC.removeprefix("Basic ")}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {fake.host: entry}}))
        async with RegistryService() as registries:
            await registries.digest(fake.name("app:1"))


@pytest.mark.parametrize("auth", [BasicAuth("alice", "secret"), TokenAuth("alice", "secret")], ids=["basic", "token"])
async def test_parts_of_a_registry_have_credentials_of_their_own(opened: Opened, auth: BasicAuth | TokenAuth) -> None:
    async with FakeRegistry(auth=auth) as fake:
        keychain = StaticKeychain(
            {
                fake.host: RegistryAuth(username="bob", password="wrong"),
                f"{fake.host}/team": RegistryAuth(username="alice", password="secret"),
            }
        )
        async with opened(fake, keychain=keychain) as registries:
            for name in ("team/app:1", "team/more:1", "other/app:1"):
                fake.put(name, index())
            for _ in range(2):
                await registries.digest(fake.name("team/app:1"))
                await registries.digest(fake.name("team/more:1"))
                with pytest.raises(UnauthorizedError):
                    await registries.digest(fake.name("other/app:1"))
            await registries.copy(fake.name("team/app:1"), fake.name("team/copy:1"))
            assert fake.tags("team/copy") == fake.tags("team/app")


async def test_a_password_of_a_repository_is_looked_up_once(opened: Opened) -> None:
    asked: list[str] = []

    class Counting:
        async def resolve(self, registry: str, repository: str = "") -> RegistryAuth | None:
            asked.append(f"{registry}/{repository}")
            return RegistryAuth(username="alice", password="secret")

    async with FakeRegistry(auth=BasicAuth("alice", "secret")) as fake:
        async with opened(fake, keychain=Counting()) as registries:
            for name in ("a:1", "b:1"):
                fake.put(name, index())
            for _ in range(3):
                await asyncio.gather(*(registries.digest(fake.name(name)) for name in ("a:1", "b:1", "b:1")))
            assert sorted(asked) == [f"{fake.host}/a", f"{fake.host}/b"]

"""Who may use a fake registry, and what its token server gives to whom."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator
from urllib.parse import urlencode

import pytest

from aiodocker_images.testing import BasicAuth, FakeRegistry, Grant, TokenAuth, image
from tests.support.registry_client import Answer, RegistryClient

APP = image()
MANIFEST = "/v2/app/manifests/1.0"
BASIC = {"Authorization": f"Basic {base64.b64encode(b'alice:secret').decode()}"}


def challenge(answer: Answer) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', answer.headers["www-authenticate"]))


async def token(client: RegistryClient, answer: Answer, **headers: str) -> Answer:
    """Ask the token server that an answer names for what the answer says is needed."""
    asked = challenge(answer)
    return await client.ask("GET", f"{asked.pop('realm')}?{urlencode(asked)}", headers=headers)


def bearer(answer: Answer, field: str = "token") -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json[field]}"}


@pytest.fixture
async def registry() -> AsyncGenerator[FakeRegistry, None]:
    async with FakeRegistry(auth=TokenAuth("alice", "secret")) as registry:
        registry.put("app:1.0", APP)
        yield registry


@pytest.fixture
async def client(registry: FakeRegistry) -> AsyncGenerator[RegistryClient, None]:
    async with RegistryClient(registry.url) as client:
        yield client


async def test_basic_authentication_accepts_the_right_password() -> None:
    async with FakeRegistry(auth=BasicAuth("alice", "secret")) as registry, RegistryClient(registry.url) as client:
        registry.put("app:1.0", APP)
        refused = await client.get(MANIFEST)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="fake registry"')
        assert (await client.ask("GET", MANIFEST, headers=BASIC)).body == APP.data
        assert (await client.get(MANIFEST, Authorization="Basic !")).status == 401
        assert [each.authorized for each in registry.requests] == [False, True, True]


async def test_a_challenge_names_the_token_server_and_the_scope(registry: FakeRegistry, client: RegistryClient) -> None:
    refused = await client.get(MANIFEST)
    assert challenge(refused) == {
        "realm": f"http://{registry.token_host}/token",
        "service": "fake-registry",
        "scope": "repository:app:pull",
    }
    opened = await client.ask("POST", "/v2/app/blobs/uploads/")
    assert challenge(opened)["scope"] == "repository:app:pull,push"


async def test_a_token_does_what_it_was_given_for_and_nothing_else(
    registry: FakeRegistry, client: RegistryClient
) -> None:
    given = await token(client, await client.get(MANIFEST), **BASIC)
    assert given.json["expires_in"] == 300
    assert (await client.ask("GET", MANIFEST, headers=bearer(given))).body == APP.data
    other = await client.ask("GET", "/v2/other/tags/list", headers=bearer(given))
    assert (other.status, challenge(other)["error"]) == (401, "insufficient_scope")
    assert registry.grants == [Grant(account="alice", how="basic", scopes=("repository:app:pull",))]


async def test_nobody_gets_a_token_for_what_nobody_may(registry: FakeRegistry, client: RegistryClient) -> None:
    given = await token(client, await client.get(MANIFEST))
    assert (await client.ask("GET", MANIFEST, headers=bearer(given))).status == 401
    assert (await token(client, await client.get(MANIFEST), Authorization="Basic eDp5")).status == 401


async def test_nobody_may_do_what_is_open_to_everybody() -> None:
    async with FakeRegistry(auth=TokenAuth(anonymous=["pull"])) as registry, RegistryClient(registry.url) as client:
        registry.put("app:1.0", APP)
        given = await token(client, await client.get(MANIFEST))
        assert (await client.ask("GET", MANIFEST, headers=bearer(given))).body == APP.data
        assert (await client.ask("POST", "/v2/app/blobs/uploads/", headers=bearer(given))).status == 401


async def test_two_scopes_in_one_parameter_grant_nothing(client: RegistryClient) -> None:
    asked = challenge(await client.get(MANIFEST))
    both = "repository:app:pull repository:other:pull"
    joined = await client.ask("GET", f"{asked['realm']}?{urlencode({'scope': both})}", headers=BASIC)
    assert (await client.ask("GET", MANIFEST, headers=bearer(joined))).status == 401
    apart = urlencode([("scope", each) for each in both.split()])
    given = await client.ask("GET", f"{asked['realm']}?{apart}", headers=BASIC)
    assert (await client.ask("GET", MANIFEST, headers=bearer(given))).status == 200


async def test_a_token_dies_after_its_uses_and_when_it_is_revoked(client: RegistryClient) -> None:
    async with FakeRegistry(auth=TokenAuth("alice", "secret", uses=2)) as registry, RegistryClient(registry.url) as own:
        registry.put("app:1.0", APP)
        given = await token(own, await own.get(MANIFEST), **BASIC)
        answers = [await own.ask("GET", MANIFEST, headers=bearer(given)) for _ in range(3)]
        assert [each.status for each in answers] == [200, 200, 401]
        assert challenge(answers[2])["error"] == "invalid_token"
        given = await token(own, await own.get(MANIFEST), **BASIC)
        registry.revoke_tokens()
        assert (await own.ask("GET", MANIFEST, headers=bearer(given))).status == 401


async def test_a_token_may_live_shorter_than_it_promises() -> None:
    auth = TokenAuth("alice", "secret", lifetime=0)
    async with FakeRegistry(auth=auth) as registry, RegistryClient(registry.url) as client:
        given = await token(client, await client.get(MANIFEST), **BASIC)
        assert given.json["expires_in"] == 300
        assert (await client.ask("GET", MANIFEST, headers=bearer(given))).status == 401


@pytest.mark.parametrize("only", ["token", "access_token"])
async def test_a_token_comes_in_one_field_only(only: str) -> None:
    auth = TokenAuth("alice", "secret", token_field="token" if only == "token" else "access_token", expires_in=None)
    async with FakeRegistry(auth=auth) as registry, RegistryClient(registry.url) as client:
        given = await token(client, await client.get(MANIFEST), **BASIC)
        assert given.json.keys() == {only}
        assert (await client.ask("GET", "/v2/", headers=bearer(given, only))).status == 200


async def test_the_identity_token_is_given_and_taken(registry: FakeRegistry, client: RegistryClient) -> None:
    realm = challenge(await client.get(MANIFEST))["realm"]
    first = await client.ask("GET", f"{realm}?offline_token=true", headers=BASIC)
    form = {"grant_type": "refresh_token", "refresh_token": first.json["refresh_token"], "scope": "repository:app:pull"}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    given = await client.ask("POST", realm, body=urlencode(form).encode(), headers=headers)
    assert (await client.ask("GET", MANIFEST, headers=bearer(given, "access_token"))).body == APP.data
    assert [each.how for each in registry.grants] == ["basic", "refresh_token"]


async def test_a_401_without_a_challenge_says_no_more() -> None:
    async with FakeRegistry(auth=TokenAuth(challenge=False)) as registry, RegistryClient(registry.url) as client:
        refused = await client.get(MANIFEST)
        assert refused.status == 401
        assert "www-authenticate" not in refused.headers


async def test_a_mount_needs_the_other_repository_in_its_token(registry: FakeRegistry, client: RegistryClient) -> None:
    registry.put_blob("secret", b"data")
    digest = registry.put_blob("base", b"data")
    mount = f"/v2/app/blobs/uploads/?mount={digest}&from=base"
    without = await token(client, await client.ask("POST", mount), **BASIC)
    assert (await client.ask("POST", mount, headers=bearer(without))).status == 202
    scopes = urlencode([("scope", "repository:app:pull,push"), ("scope", "repository:base:pull")])
    with_both = await client.ask("GET", f"http://{registry.token_host}/token?{scopes}", headers=BASIC)
    assert (await client.ask("POST", mount, headers=bearer(with_both))).status == 201


async def test_no_credentials_are_in_what_a_failed_test_prints() -> None:
    for auth in (BasicAuth("alice", "hidden"), TokenAuth("alice", "hidden", identity_token="hidden")):
        assert "hidden" not in repr(auth)

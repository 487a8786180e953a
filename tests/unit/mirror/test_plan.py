"""Plans: what a TOML file says is mirrored, and every mistake in it is told with its line."""

from __future__ import annotations

import asyncio
import os
import textwrap
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import ConfigError, ImageService, MirrorJob, MirrorPlan, RegistryAuth, Retry, StaticKeychain
from aiodocker_images._mirror import plan as plan_module
from aiodocker_images._mirror.toml_lines import line_of
from tests.support.mirror_daemon import MirrorDaemon, canonical
from tests.support.scripted import ScriptedDaemon

assert plan_module.__doc__ is not None
EXAMPLE = textwrap.dedent(plan_module.__doc__.split("\n", 2)[2])
SECRET = "hunter2-is-the-password"


def test_the_example_in_the_documentation_is_a_plan() -> None:
    plan = MirrorPlan.parse(EXAMPLE)
    assert plan.jobs == (
        MirrorJob("alpine:3.19", "registry.example.com/mirror/library/alpine:3.19"),
        MirrorJob("alpine:3.20", "registry.example.com/mirror/library/alpine:3.20"),
        MirrorJob("busybox:1.36", "registry.example.com/mirror/library/busybox:1.36"),
        MirrorJob("quay.io/team/app:latest", "registry.example.com/app:latest", "linux/arm64"),
    )
    assert (plan.concurrency, plan.per_registry, plan.platforms) == (8, 4, ("linux/amd64",))
    assert (plan.journal, plan.retry, plan.keep, plan.require_digest) == (
        "mirror.journal",
        Retry(attempts=5),
        False,
        False,
    )


REST = "\n[[source]]\nimages = ['a']\ntargets = ['r.x/a']\n"

# The plan, and what its error says behind the name of the file.
MISTAKES: list[tuple[str, str, str]] = [
    ("no TOML", "a = \n" + REST, " is not TOML: Invalid value (at line 1, column 5)"),
    ("nothing", "", ", line 1: Object missing required field `source`"),
    ("no table", "source = 3", ", line 1, source: Expected `array`, got `int`"),
    ("an unknown option", "\nspeed = 3" + REST, ", line 2, speed: Object contains unknown field `speed`"),
    ("an unknown field", REST + "tag = 'x'", ", line 5, source[0].tag: Object contains unknown field `tag`"),
    ("no images", "[[source]]\n\ntargets = ['a/']", ", line 1, source[0]: Object missing required field `images`"),
    ("no number", "concurrency = '4'" + REST, ", line 1, concurrency: Expected `int`, got `str`"),
    ("no such number", "\n\nconcurrency = 0" + REST, ", line 3, concurrency: concurrency must be 1 or more, not 0"),
    (
        "a registry's limit",
        "[per_registry]\n'r.x' = 0" + REST,
        ", line 1, per_registry: per_registry must be 1 or more",
    ),
    (
        "a limit's registry",
        "[per_registry]\n'r.x' = 1\n'r' = 2" + REST,
        ", line 3, per_registry.r: 'r' is not a registry",
    ),
    ("no platform", "platforms = ['intel']" + REST, ", line 1, platforms: 'intel' is not a platform"),
    ("not all", "platforms = 'every'" + REST, ", line 1, platforms: "),
    ("a source's platform", REST + "platform = 'x'", ", line 5, source[0].platform: 'x' is not a platform"),
    (
        "a name in many lines",
        "targets = ['r.x/']\n[[source]]\nimages = [\n  'a', # one\n\n  'b',\n  'C',\n]\n",
        ", line 7, source[0].images[2]: 'C' is not an image reference",
    ),
    (
        "a number in a second source",
        REST + "[[source]]\ntargets = ['r.y/a']\nimages = [\n 'a',\n 3]",
        ", line 9, source[1].images[1]: Expected `str`, got `int`",
    ),
    ("no tag", REST + "tags = ['-']", ", line 5, source[0].tags[0]: '-' is not a tag: of letters"),
    ("a pattern for a tag", REST + "tags = ['3.*']", ", line 5, source[0].tags[0]: '3.*' is not a tag: a plan has no"),
    (
        "a target that is a registry",
        "targets = ['registry.example.com']\n[[source]]\nimages = ['a']",
        ", line 1, targets[0]: 'registry.example.com' names no repository: a target is a registry and",
    ),
    (
        "a target that is a registry with a port",
        "targets = ['127.0.0.1:5102']\n[[source]]\nimages = ['a']",
        ", line 1, targets[0]: '127.0.0.1:5102' names no repository",
    ),
    (
        "a mistake behind thousands of lines",
        "targets = ['r.x/']\n[[source]]\nimages = [\n" + "'a', # ]\n" * 4000 + "'C',\n]\n",
        ", line 4004, source[0].images[4000]: 'C' is not an image reference",
    ),
    (
        "no target",
        "[[source]]\nimages = ['a']",
        ", line 1, source[0]: this source has no target, and the plan has none",
    ),
    (
        "no such target",
        "targets = ['R.x/A']\n[[source]]\nimages = ['a']",
        ", line 1, targets[0]: 'R.x/A' is not an image",
    ),
    ("one target twice", REST + REST, ", line 7, source[1].images[0]: two jobs write r.x/a:latest"),
    (
        "a chain",
        REST + "[[source]]\nimages = ['r.x/a']\ntargets = ['r.y/a']",
        ", line 6, source[1].images[0]: r.x/a:latest is the target of one job and the source of another",
    ),
    ("no journal", "journal = ''" + REST, ", line 1, journal: this is not the name of a file"),
    ("a retry's field", "[retry]\n\ntries = 3" + REST, ", line 3, retry.tries: Object contains unknown field `tries`"),
    ("a retry's value", "[retry]\nattempts = 0" + REST, ", line 1, retry: attempts must be 1 or more, not 0"),
    ("inline", "retry = {attempts = 'x'}" + REST, ", line 1, retry.attempts: Expected `int`, got `str`"),
    (
        "a secret",
        f"[credentials.'r.x']\npassword = '{SECRET}'" + REST,
        ", line 2, credentials.r.x.password: Object contains unknown field `password`: a plan holds no secrets",
    ),
    (
        "a secret for a name",
        f"[credentials.'r.x']\nusername_env = 'U'\npassword_env = '{SECRET}'" + REST,
        ", line 3, credentials.r.x.password_env: this is not the name of an environment variable: a plan holds no",
    ),
    ("no credentials", "[credentials]\n'r.x' = {}" + REST, ", line 2, credentials.r.x: either the names of"),
    (
        "two credentials",
        "[credentials.'r.x']\nkeychain = 'r.y'\nusername_env = 'U'" + REST,
        ", line 1, credentials.r.x: either the names of",
    ),
    (
        "half",
        "[credentials.'r.x']\npassword_env = 'P'" + REST,
        ", line 1, credentials.r.x: a password needs a user name",
    ),
    ("no registry", "[credentials.hub]\nkeychain = 'r.x'" + REST, ", line 1, credentials.hub: 'hub' is not a registry"),
    ("no keychain", "[credentials.'r.x']\nkeychain = 'hub'" + REST, ", line 2, credentials.r.x.keychain: 'hub' is not"),
    ("deep", "a = " + "[" * 20_000, " is nested too deeply"),
]


@pytest.mark.parametrize(("text", "told"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MirrorPlan.parse(text, name="plan.toml")
    assert str(caught.value).startswith(f"plan.toml{told}")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_bytes_that_are_no_text_are_told_with_their_line() -> None:
    with pytest.raises(ConfigError, match=r"^the plan, line 3: this is not UTF-8$"):
        MirrorPlan.parse(b"# \xc3\xa9\n\nkeep = \xe9\n")


def test_more_jobs_than_anybody_means_are_refused() -> None:
    tags = ", ".join(f"'t{number}'" for number in range(400))
    images = ", ".join(f"'a{number}'" for number in range(300))
    with pytest.raises(ConfigError, match="line 3, .*the plan comes to more than 100000 jobs"):
        MirrorPlan.parse(f"targets = ['r.x/']\n[[source]]\nimages = [{images}]\ntags = [{tags}]")


async def test_a_plan_is_read_from_a_file_and_its_journal_is_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text("journal = 'done'" + REST)
    assert (await MirrorPlan.read(file)).journal == str(tmp_path / "done")
    file.write_text(REST)
    assert (await MirrorPlan.read(str(file))).journal is None
    file.write_text("x")
    with pytest.raises(ConfigError, match=f"^{file} is not TOML"):
        await MirrorPlan.read(file)
    file.write_bytes(b"#" * (plan_module.MAX_PLAN + 1))
    os.mkfifo(tmp_path / "pipe")
    for path in (file, tmp_path, tmp_path / "missing", tmp_path / "pipe", "a\0b"):
        with pytest.raises(ConfigError, match=r"^the plan |^'a"):
            await MirrorPlan.read(path)


async def test_a_plan_is_done_with_its_options(images: ImageService, daemon: ScriptedDaemon, tmp_path: Path) -> None:
    engine = MirrorDaemon(daemon)
    engine.publish("a.example/app:1")
    text = "journal = 'done'\nkeep = true\ntargets = ['b.example/x/']\n[[source]]\nimages = ['a.example/app:1']"
    (tmp_path / "plan.toml").write_text(text)
    plan = await MirrorPlan.read(tmp_path / "plan.toml")
    assert [outcome.status async for outcome in plan.mirror(images, dry_run=True)] == ["planned"]
    assert not (tmp_path / "done").exists()
    assert [outcome.status async for outcome in plan.mirror(images)] == ["mirrored"]
    assert (tmp_path / "done").exists()
    assert set(engine.state.local) == {canonical("a.example/app:1"), canonical("b.example/x/app:1")}


async def test_credentials_are_found_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of environment variables, read each time anew, or of an entry of the service's own keychain."""
    text = (
        "[credentials.'r.x']\nusername_env = 'R_USER'\npassword_env = 'R_PASSWORD'\n"
        "[credentials.'r.y']\nidentity_token_env = 'R_TOKEN'\n[credentials.'r.z']\nkeychain = 'r.other'\n"
    )
    plan = MirrorPlan.parse(text + REST)
    own = StaticKeychain({name: RegistryAuth(username=name, password="p") for name in ("r.other", "r.else", "r.x")})
    for name, value in (("R_USER", "me"), ("R_PASSWORD", SECRET)):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"^the credentials for r\.y are in R_TOKEN, which is not set$"):
        plan.keychain(own)
    monkeypatch.setenv("R_TOKEN", "token")
    with pytest.raises(ConfigError, match="the plan was given none"):
        plan.keychain()
    keychain = plan.keychain(own)
    assert keychain is not None
    assert SECRET not in repr(keychain)
    assert await keychain.resolve("r.x") == RegistryAuth(username="me", password=SECRET)
    assert await keychain.resolve("r.y") == RegistryAuth(identity_token="token")
    assert await keychain.resolve("r.z") == RegistryAuth(username="r.other", password="p")
    assert await keychain.resolve("r.else") == RegistryAuth(username="r.else", password="p")
    assert await keychain.resolve("r.nowhere") is None
    monkeypatch.setenv("R_PASSWORD", "another")
    assert await keychain.resolve("r.x") == RegistryAuth(username="me", password="another")
    assert MirrorPlan.parse(REST).keychain(own) is own


@given(st.binary() | st.text() | st.text().map(lambda text: REST + text))
def test_any_bytes_are_a_plan_or_a_configuration_error(data: bytes | str) -> None:
    try:
        MirrorPlan.parse(data)
    except ConfigError as error:
        assert str(error).startswith("the plan")


Value = int | str | list["Value"] | dict[str, "Value"]

values: st.SearchStrategy[Value] = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=3) | st.sampled_from(["alpine", "r.x/a/", "linux/amd64", "all"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "attempts", "r.x"]), inner),
    max_leaves=6,
)
fields = ["source", "targets", "platforms", "concurrency", "per_registry", "retry", "credentials", "journal", "keep"]
source_fields: dict[str, st.SearchStrategy[Value]] = dict.fromkeys(("images", "tags", "targets"), values)
source: st.SearchStrategy[Value] = st.fixed_dictionaries(source_fields)
sources: st.SearchStrategy[list[Value]] = st.lists(source, max_size=2)


def toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = (c if (c.isalnum() and c.isascii()) or c in "./- " else f"\\U{ord(c):08x}" for c in value)
        return f'"{"".join(plain)}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return str(value)


@given(st.dictionaries(st.sampled_from(fields), values | sources))
def test_any_document_is_a_plan_or_a_configuration_error_with_a_line(document: dict[str, Value]) -> None:
    text = "\n".join(f"{key} = {toml(value)}" for key, value in document.items())
    assert tomllib.loads(text) == document
    try:
        MirrorPlan.parse(text)
    except ConfigError as error:
        assert str(error).startswith("the plan, line ")


LINES = """
a = 1
b.c = 2

[t]
x = { y = 1, z = [1, 2] }
s = '''
[no table]
'''
[[u]]
v = 1
[[u]]
v = [
  1, 2,

  3,
]
[u.w]
q = 1
[[u.k]]
n = 1
[[u.k]]
n = 2
"""

POSITIONS: list[tuple[tuple[str | int, ...], int]] = [
    (("a",), 2),
    (("b", "c"), 3),
    (("t",), 5),
    (("t", "x", "y"), 6),
    (("t", "x", "z", 1), 6),
    (("t", "s"), 7),
    (("t", "missing"), 5),
    (("u", 0, "v"), 11),
    (("u", 1), 12),
    (("u", 1, "v", 0), 14),
    (("u", 1, "v", 1), 14),
    (("u", 1, "v", 2), 16),
    (("u", 1, "w", "q"), 19),
    (("u", 1, "k", 0, "n"), 21),
    (("u", 1, "k", 1, "n"), 23),
    ((), 1),
]


@pytest.mark.parametrize(("path", "line"), POSITIONS, ids=[".".join(map(str, path)) for path, _ in POSITIONS])
def test_the_line_of_each_value_is_found(path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(LINES)
    assert line_of(LINES, path) == line


async def test_a_fifo_in_the_place_of_a_plan_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.toml")
    async with asyncio.timeout(20):
        with pytest.raises(ConfigError, match="is not a regular file"):
            await MirrorPlan.read(tmp_path / "plan.toml")

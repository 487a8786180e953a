"""Credential helpers of every behaviour: an answer, none, or an error that says why and quotes no secret."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import rich.console
import rich.traceback
from hypothesis import given
from hypothesis import strategies as st

from aiodocker_images import CredentialHelperError, DockerKeychain, RegistryAuth
from aiodocker_images._dockercli.config import Environment
from aiodocker_images._dockercli.credential_helpers import MAX_MESSAGE, CredentialHelpers, quotable
from tests.conftest import Leftovers
from tests.support.docker_home import DockerHome, basic

R = "r.example:5000"
SECRET = "s3cret-of-the-helper"
ENCODED = basic("me", SECRET)
ANSWER = json.dumps({"ServerURL": R, "Username": "me", "Secret": SECRET})
ME = RegistryAuth(username="me", password=SECRET)


@pytest.fixture
def home(tmp_path: Path) -> DockerHome:
    home = DockerHome(tmp_path)
    home.config(credsStore="x")
    home.environ["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {"elsewhere.example": {"auth": ENCODED}}})
    return home


ANSWERS: dict[str, tuple[str, RegistryAuth | None]] = {
    "credentials": (f"echo '{ANSWER}'", ME),
    "in any case": (f"""echo '{{"serverurl": "", "username": "me", "SECRET": "{SECRET}"}}'""", ME),
    "more than is known": (f"""echo '{{"Username": "me", "Secret": "{SECRET}", "Extra": [1]}}'""", ME),
    "over many lines": (f"""printf '{{\\n"Username":\\n"me",\\n"Secret": "{SECRET}"}}\\n\\n'""", ME),
    "with warnings": (f"echo 'you should update' >&2; echo '{ANSWER}'", ME),
    "without reading": (f"exec <&-; echo '{ANSWER}'", ME),
    "after reading": (f"""test "$(cat)" = {R} && echo '{ANSWER}'""", ME),
    "asked by its action": (f"""test "$*" = get && echo '{ANSWER}'""", ME),
    "an identity token": (
        f"""echo '{{"Username": "<token>", "Secret": "{SECRET}"}}'""",
        RegistryAuth(identity_token=SECRET),
    ),
    "a child holds the output": (f"sleep 1000 & echo '{ANSWER}'", ME),
    "nothing": ("""echo '{"ServerURL": "", "Username": "", "Secret": ""}'""", None),
    "nulls": ("""echo '{"Username": null, "Secret": null}'""", None),
    "an empty object": ("echo '{}'", None),
    "not found": ("echo 'credentials not found in native keychain'; exit 1", None),
    "not found, in others' words": ("echo 'Error: Credentials not found for that'; exit 255", None),
    "not found, on macOS": ("echo 'The specified item could not be found in the keychain.'; exit 1", None),
}


@pytest.mark.parametrize(("script", "auth"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_read(home: DockerHome, script: str, auth: RegistryAuth | None) -> None:
    home.helper("x", script)
    assert await DockerKeychain(environ=home.environ).resolve(R) == auth


ASKED = "docker-credential-x, asked for 'r.example:5000', "
HIDDEN = "; its message is not shown, for it may hold a secret"
BAD_JSON = "answered what is not the JSON that it should be"
# The helper, its mode, what the error says, and the exit status in it.
MISBEHAVIOUR: dict[str, tuple[str, int, str, int | None]] = {
    "not executable": (f"echo '{ANSWER}'", 0o644, "is not executable: {}/bin/docker-credential-x", None),
    "slow": ("sleep 1000", 0o755, "did not end within 0.5 seconds", None),
    "slow, with children": ("sleep 1000 & sleep 1000", 0o755, "did not end within 0.5 seconds", None),
    "slow after its answer": (f"echo '{ANSWER}'; sleep 1000", 0o755, "did not end within 0.5 seconds", None),
    "ignores SIGTERM": ("trap '' TERM INT; while :; do sleep 1; done", 0o755, "did not end within 0.5 seconds", None),
    "huge output": ("exec head -c 2000000 /dev/zero", 0o755, "wrote more than 1048576 bytes", None),
    "endless output": (f"while :; do echo '{ANSWER}'; done", 0o755, "wrote more than 1048576 bytes", None),
    "endless errors": ("while :; do echo no >&2; done", 0o755, "wrote more than 1048576 bytes", None),
    "bad JSON": (f"echo '{ANSWER[:-1]}'", 0o755, BAD_JSON, 0),
    "no JSON": (f"echo 'the secret is {SECRET}'", 0o755, BAD_JSON, 0),
    "another JSON": (f"""echo '["{SECRET}"]'""", 0o755, BAD_JSON, 0),
    "deep JSON": ("head -c 100000 /dev/zero | tr '\\0' '['", 0o755, BAD_JSON, 0),
    "JSON of other types": (f"""echo '{{"Username": 7, "Secret": ["{SECRET}"]}}'""", 0o755, BAD_JSON, 0),
    "not UTF-8": (f"""printf '{{"Username": "\\377", "Secret": "{SECRET}"}}'""", 0o755, BAD_JSON, 0),
    "exit 0 without output": ("exit 0", 0o755, "answered nothing", 0),
    "exit 0 with an error": (f"echo bad password {SECRET} >&2", 0o755, "answered nothing", 0),
    "wrong exit": (f"echo '{ANSWER}'; exit 3", 0o755, f"failed with exit status 3{HIDDEN}", 3),
    "an error": ("echo 'pass not initialized: exit status 1'; exit 1", 0o755,
                 "failed with exit status 1: pass not initialized: exit status 1", 1),
    "an error on stderr": ("echo 'cannot reach the agent' >&2; exit 4", 0o755,
                           "failed with exit status 4: cannot reach the agent", 4),
    "prints the secret and fails": (f"echo {SECRET}; echo {SECRET} >&2; exit 1", 0o755,
                                    f"failed with exit status 1{HIDDEN}", 1),
    "prints the secret in a sentence": (f"echo 'cannot parse the line {SECRET} of it'; exit 1", 0o755,
                                        "failed with exit status 1: cannot parse the line ... of it", 1),
    "no message": ("exit 9", 0o755, "failed with exit status 9 and no message", 9),
    "ended by a signal": ("kill -9 $$", 0o755, "was ended by signal 9 and no message", -9),
    "prompts at the terminal": ("{ echo Password: >/dev/tty; read -r pw </dev/tty; } 2>/dev/null || exit 5", 0o755,
                                "failed with exit status 5 and no message", 5),
    "prompts on its input": ("cat >/dev/null; read -r password || { echo there is nobody here; exit 6; }", 0o755,
                             "failed with exit status 6: there is nobody here", 6),
    "no interpreter": ("", 0o755, "cannot be run: No such file or directory", None),
}  # fmt: skip


def chain(error: BaseException) -> list[BaseException]:
    behind: list[BaseException] = [error]
    for each in behind:
        behind += [more for more in (each.__cause__, each.__context__) if more is not None and more not in behind]
    return behind


def told(error: BaseException) -> str:
    """Say all that could be seen of an exception, what is behind it, and the variables that it has come through."""
    console = rich.console.Console(width=2000, record=True, file=Path(os.devnull).open("w"))
    frames = error.__traceback__
    while frames is not None and "aiodocker_images" not in frames.tb_frame.f_code.co_filename:
        frames = frames.tb_next  # the test's own variables
    shown = rich.traceback.Traceback.from_exception(
        type(error), error, frames, width=2000, show_locals=True, locals_max_string=100_000, locals_max_length=10_000
    )
    console.print(shown)
    console.file.close()
    return "".join(
        [*traceback.format_exception(error), console.export_text()]
        + [f"{each} {each!r} {each.args} {vars(each)}" for each in chain(error)]
    )


def processes(home: DockerHome) -> list[str]:
    """List the command lines of what runs in the environment of the home."""
    mark, found = f"DOCKER_CONFIG={home.environ['DOCKER_CONFIG']}".encode(), list[str]()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


async def nothing_runs(home: DockerHome) -> None:
    async with asyncio.timeout(5):
        while processes(home):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("script", "mode", "reason", "status"), MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
async def test_a_broken_helper_is_an_error_that_says_how(
    home: DockerHome, leftovers: Leftovers, script: str, mode: int, reason: str, status: int | None
) -> None:
    path = home.helper("x", script, mode=mode)
    if not script:
        path.write_text("#!/no/such/interpreter\n")
    await asyncio.to_thread(int)  # the loop's threads are there before
    before = leftovers.now()
    with pytest.raises(CredentialHelperError) as caught:
        await DockerKeychain(environ=home.environ, helper_timeout=0.5 if "sleep" in script else 30).resolve(R)
    error = caught.value
    assert str(error) == ASKED + reason.replace("{}", str(home.path))
    assert (error.helper, error.exit_status) == ("docker-credential-x", status)
    seen = told(error)
    assert SECRET not in seen
    assert ENCODED not in seen
    await nothing_runs(home)
    await leftovers.settle(before)


async def test_an_absent_helper_is_an_error(home: DockerHome) -> None:
    keychain = DockerKeychain(environ=home.environ)
    with pytest.raises(CredentialHelperError) as caught:
        await keychain.resolve(R)
    assert str(caught.value) == f"{ASKED}is not on PATH"
    (home.path / "bin/docker-credential-x").mkdir()
    with pytest.raises(CredentialHelperError, match="is not on PATH"):
        await keychain.resolve(R)


# What a helper that failed wrote, and what of it is quoted.
MESSAGES: dict[str, str] = {
    "pass not initialized: exit status 1: Error: password store is empty. Try 'pass init'.":
        "pass not initialized: exit status 1: Error: password store is empty. Try 'pass init'.",
    "Cannot autolaunch D-Bus without X11 $DISPLAY": "Cannot autolaunch D-Bus without ... ...",
    "The name org.freedesktop.secrets was not provided by any .service files":
        "The name org.freedesktop.secrets was not provided by any ... files",
    "gpg: decryption failed: No secret key": "gpg: decryption failed: No secret key",
    "two\nlines \x1b[31mof it": "two lines ... it",
    "User interaction is not allowed.": "User interaction is not allowed.",
    "error getting credentials - err: exit status 1, out: `AccessDenied`":
        "error getting credentials - err: exit status 1, out: `AccessDenied`",
    "login to https://me:pw@r.example failed": "login to ... failed",
    "no access with AKIA1234567890 at all": "no access with ... at all",
    "the value hunter2 is wrong": "the value ... is wrong",
    "the value aGVsbG8gd29ybGQhIGhlbGxvIHdvcmxkIQ== is wrong": "the value ... is wrong",
    "the value абвгд is wrong": "the value ... is wrong",
}  # fmt: skip
WITHHELD = [
    "swordfish",
    "two words",
    "the password is swordfish",
    "no luck with password: swordfish",
    "no luck with token = swordfish here",
    "sent Authorization: Bearer swordfish to it",
    "a bearer swordfish was refused",
    'got {"Secret" as an answer',
    'got "secret": "swordfish" from there',
    "the api_key=swordfish was refused",
    "my passphrase was swordfish then",
    "my pin: swordfish or so",
]


@pytest.mark.parametrize(("text", "quoted"), MESSAGES.items())
def test_a_message_is_quoted_as_one_line_without_what_may_be_secret(text: str, quoted: str) -> None:
    assert quotable(text.encode()) == quoted


@pytest.mark.parametrize("text", WITHHELD)
def test_a_message_with_a_secret_in_it_is_not_quoted(text: str) -> None:
    assert quotable(text.encode()) == ""


@given(st.binary(max_size=6000) | st.text().map(str.encode) | st.lists(st.sampled_from(["word", "1", "it's"])).map(
    lambda words: " ".join(words * 50).encode()))  # fmt: skip
def test_whatever_was_written_the_quotation_is_one_printable_line(data: bytes) -> None:
    text = quotable(data)
    assert len(text) <= MAX_MESSAGE
    assert text.isascii()
    assert text.isprintable()


@given(st.from_regex(r"[A-Za-z]+[0-9]+[A-Za-z0-9+/=_.~-]*", fullmatch=True).filter(lambda secret: len(secret) > 5))
def test_what_looks_like_a_token_is_never_quoted(secret: str) -> None:
    for text in (secret, f"it was {secret} that failed", f"url={secret} is not good", f"({secret}) is not good"):
        assert secret not in quotable(text.encode())


# Counts its runs in the file `runs`, and answers when there is a file `go`.
COUNTED = """echo run >>{0}/runs
until test -e {0}/go; do sleep 0.01; done
echo '{1}'"""


def runs(home: DockerHome) -> int:
    path = home.path / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def counted(home: DockerHome) -> DockerHome:
    home.helper("x", COUNTED.format(home.path, ANSWER))
    return home


def ask(helpers: CredentialHelpers, home: DockerHome, count: int) -> list[asyncio.Task[RegistryAuth | None]]:
    return [asyncio.create_task(helpers.get("x", R, Environment(home.environ))) for _ in range(count)]


async def test_look_ups_at_the_same_time_share_one_run_and_later_ones_run_anew(counted: DockerHome) -> None:
    helpers = CredentialHelpers(30)
    asking = ask(helpers, counted, 50)
    other = asyncio.create_task(helpers.get("x", "other.example", Environment(counted.environ)))
    await until(lambda: runs(counted) == 2)
    (counted.path / "go").touch()
    assert list(await asyncio.gather(*asking, other)) == [ME] * 51
    assert runs(counted) == 2
    assert await helpers.get("x", R, Environment(counted.environ)) == ME
    assert runs(counted) == 3


async def test_cancelling_one_caller_leaves_the_others_their_answer(counted: DockerHome) -> None:
    asking = ask(CredentialHelpers(30), counted, 3)
    await until(lambda: runs(counted) == 1)
    asking[0].cancel()  # who began it
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    (counted.path / "go").touch()
    assert list(await asyncio.gather(*asking[1:])) == [ME] * 2
    assert runs(counted) == 1


async def test_the_helper_is_killed_when_all_callers_are_cancelled(counted: DockerHome, leftovers: Leftovers) -> None:
    keychain = DockerKeychain(environ=counted.environ)
    await asyncio.to_thread(int)
    before = leftovers.now()
    asking = [asyncio.create_task(keychain.resolve(R)) for _ in range(3)]
    await until(lambda: runs(counted) == 1)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert all(task.cancelled() for task in asking)
    await nothing_runs(counted)
    await leftovers.settle(before)
    (counted.path / "go").touch()
    assert await keychain.resolve(R) == ME
    assert runs(counted) == 2


async def test_callers_that_share_a_failure_each_get_their_own_error(counted: DockerHome) -> None:
    counted.helper("x", COUNTED.format(counted.path, "") + "\nexit 3")
    asking = ask(CredentialHelpers(30), counted, 3)
    await until(lambda: runs(counted) == 1)
    (counted.path / "go").touch()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert runs(counted) == 1
    assert [type(error) for error in errors] == [CredentialHelperError] * 3
    assert len({id(error) for error in errors}) == 3
    assert len({str(error) for error in errors}) == 1


def test_a_keychain_serves_a_new_loop_after_one_that_ended_midway(counted: DockerHome) -> None:
    """What was under way in a loop that is closed is nobody's: not waited for, and not kept."""
    keychain = DockerKeychain(environ=counted.environ)

    async def begin() -> None:
        asking = asyncio.create_task(keychain.resolve(R))
        await until(lambda: runs(counted) == 1)
        assert not asking.done()

    asyncio.run(begin())  # which cancels what is left
    (counted.path / "go").touch()
    assert asyncio.run(keychain.resolve(R)) == ME
    assert asyncio.run(keychain.resolve(R)) == ME
    assert runs(counted) == 3


def test_loops_at_the_same_time_do_not_share(counted: DockerHome) -> None:
    keychain = DockerKeychain(environ=counted.environ)

    async def both() -> None:
        mine = asyncio.create_task(keychain.resolve(R))
        theirs = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(keychain.resolve(R))))
        await until(lambda: runs(counted) == 2)
        (counted.path / "go").touch()
        assert list(await asyncio.gather(mine, theirs)) == [ME, ME]

    asyncio.run(both())


async def test_a_helper_gets_the_environment_as_it_was_when_it_was_asked(home: DockerHome) -> None:
    """Threads find and start it: what the program changes meanwhile is not half in it."""
    home.helper("x", f"echo \"$MARK\" >{home.path}/mark; echo '{ANSWER}'")
    environ = {**home.environ, "MARK": "before"}
    asking = asyncio.create_task(CredentialHelpers(30).get("x", R, Environment(environ)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    environ["MARK"] = "after"
    assert await asking == ME
    assert (home.path / "mark").read_text() == "before\n"


async def test_secrets_are_not_in_the_process_list(counted: DockerHome) -> None:
    asking = asyncio.create_task(DockerKeychain(environ=counted.environ).resolve(R))
    await until(lambda: runs(counted) == 1)
    lines = processes(counted)
    assert any("docker-credential-x get" in line for line in lines)
    assert not [line for line in lines if SECRET in line or ENCODED in line or R in line]
    (counted.path / "go").touch()
    assert await asking == ME


def test_a_keyboard_interrupt_ends_the_helper_as_well(counted: DockerHome) -> None:
    async def interrupted() -> None:
        asking = asyncio.create_task(DockerKeychain(environ=counted.environ).resolve(R))
        await until(lambda: runs(counted) == 1)
        os.kill(os.getpid(), signal.SIGINT)
        await asking

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(interrupted())
    asyncio.run(nothing_runs(counted))

"""Credential helpers: the programs `docker-credential-NAME`, what they answer, and how they fail."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from aiodocker_images._aio.program import Ended, ProgramError, find_program, run_program
from aiodocker_images._aio.shared_runs import SharedRuns
from aiodocker_images._aio.threads import in_thread
from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.credentials import RegistryAuth, registry_auth
from aiodocker_images.errors import CredentialHelperError, shown

from .config import Environment, first_value

__all__ = ["MAX_ANSWER", "CredentialHelpers"]

T = TypeVar("T")

MAX_ANSWER: Final = 1 << 20
"""Bytes that a helper may write; an answer with a large token has some 10 KiB."""

MAX_MESSAGE: Final = 200
"""Characters of a helper's message that are quoted."""

_NO_NAME: Final = re.compile(r"[/\0]|\\" if os.sep == "\\" else r"[/\0]")

# docker-credential-helpers' own words, shortened as others have them, and those of macOS's keychain.
_NOT_FOUND: Final = re.compile(r"\bcredentials not found\b|\bitem could not be found in the keychain\b", re.IGNORECASE)

# What may be a secret is not quoted: JSON, or the name of a secret with a value behind it.
_SECRET: Final = re.compile(
    r"""[{}]|"\s*: |\b(?:bearer|basic)\b\s+\S
    |(?:secret|passw(?:or)?d|passphrase|passcode|token|bearer|credentials?|authorization|api.?key|auth|pin)
     ["'`]?\s*(?:[:=]|\b(?:is|was)\b)\s*\S""",
    re.IGNORECASE | re.VERBOSE,
)
# A word, or a short number, of prose. Secrets look otherwise: long, or letters mixed with digits and signs.
_PROSE: Final = re.compile(r"""["'`(]*(?:[A-Za-z]{1,20}(?:['./-][A-Za-z]{1,20}){0,4}|\d{1,3})[)"'`.,:;!?]*|[&-]""")
_MIN_WORDS: Final = 3  # one or two words may be a password as well


class CredentialHelpers:
    """Runs helpers, each for at most `timeout` seconds; calls for the same answer at the same time share one run."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._runs = SharedRuns()

    async def get(self, helper: str, server: str, environ: Environment) -> RegistryAuth | None:
        """Return a helper's credentials for `server`, None if it has none; raise `CredentialHelperError`."""
        program = _program_name(helper)

        def read(ended: Ended) -> RegistryAuth | None:
            if ended.status and _NOT_FOUND.search(ended.output.decode("utf-8", "replace")):
                return None
            return _read(program, server, ended, _credentials)

        return await self._runs.share(
            (program, server), lambda: self._ask((program, "get"), server, environ=environ, read=read)
        )

    async def list(self, helper: str, environ: Environment) -> tuple[str, ...]:
        """Return the servers that a helper has credentials for; raise `CredentialHelperError`."""
        program = _program_name(helper)

        def read(ended: Ended) -> tuple[str, ...]:
            return _read(program, "", ended, tuple)

        return await self._runs.share(
            (program,), lambda: self._ask((program, "list"), "unused", environ=environ, read=read)
        )

    async def _ask(
        self, command: tuple[str, str], server: str, *, environ: Environment, read: Callable[[Ended], T]
    ) -> T:
        program, action = command
        variables = environ.copy()  # the process's own may change while a thread hands it over
        try:
            path = await in_thread(find_program, program, variables)
            ended = await run_program(
                (path, action),
                environ=variables,
                time_limit=self._timeout,
                max_output=MAX_ANSWER,
                stdin=server.encode("utf-8", "replace"),
            )
        except ProgramError as error:
            failure = _error(program, server if action == "get" else "", str(error))
            failure.__cause__ = error.__cause__
        else:
            return read(ended)
        raise failure


def _program_name(helper: str) -> str:
    """Return the program of a helper; raise `CredentialHelperError` for a name that no program can have."""
    name = f"docker-credential-{helper}"
    try:
        possible = helper != "" and not _NO_NAME.search(helper) and bool(os.fsencode(name))
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise CredentialHelperError(f"{shown(helper)} cannot be the name of a credential helper", helper=shown(name))
    return name


def _error(program: str, server: str, reason: str, status: int | None = None) -> CredentialHelperError:
    asked = f", asked for {shown(server)}," if server else ""
    return CredentialHelperError(f"{program}{asked} {reason}", helper=program, exit_status=status)


def _read(program: str, server: str, ended: Ended, convert: Callable[[dict[str, object]], T]) -> T:
    """Read a helper's answer; raise `CredentialHelperError` without a word of it that may be secret."""
    if ended.status:
        how = f"failed with exit status {ended.status}" if ended.status > 0 else f"was ended by signal {-ended.status}"
        raise _error(program, server, f"{how}{_message(ended)}", ended.status)
    with contextlib.suppress(*UNDECODABLE, TypeError):
        # The docker CLI reads one value and no further.
        return convert(msgspec.json.decode(first_value(ended.output.decode()), type=dict[str, object]))
    # Outside of any handler: the exception of a decoder holds the text.
    what = "what is not the JSON that it should be" if ended.output.strip() else "nothing"
    raise _error(program, server, f"answered {what}", ended.status)


def _credentials(fields: dict[str, object]) -> RegistryAuth | None:
    # The docker CLI takes the names in any case.
    given = {name.lower(): value for name, value in fields.items()}
    username, secret = given.get("username") or "", given.get("secret") or ""
    if not isinstance(username, str) or not isinstance(secret, str):
        raise TypeError
    return registry_auth(username, secret)


def _message(ended: Ended) -> str:
    """Say what a helper that failed has said, if it can be quoted."""
    # The protocol has errors on the output; some helpers write them where others do.
    if not ended.output.strip() and not ended.errors.strip():
        return " and no message"
    quoted = quotable(ended.output) or quotable(ended.errors)
    return f": {quoted}" if quoted else "; its message is not shown, for it may hold a secret"


def quotable(data: bytes) -> str:
    """Return as one line, and not for ever, what can be quoted of a message: nothing that may be a secret."""
    text = data[: MAX_MESSAGE * 20].decode("utf-8", "replace")
    words = text.split()
    if len(words) < _MIN_WORDS or _SECRET.search(text):
        return ""
    line = " ".join(word if _PROSE.fullmatch(word) else "..." for word in words)
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 3] + "..."

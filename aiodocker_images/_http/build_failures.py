"""Who speaks in the message of a failed build: a process that RUN has started, the builder, or a registry. Pure.

A build's message quotes what others have written: the command of RUN, names of files, lines of the Dockerfile. So the
words that tell a registry's refusal, or a full disk, count only where nobody else can have said them.

Who can say what:

- the classic builder of Docker 20.10 to 29: "The command '/bin/sh -c …' returned a non-zero code: 3", with the exit
  code as the `code` of the frame
- BuildKit: "process "/bin/sh -c …" did not complete successfully: exit code: 3", and before 0.10, as Docker 20.10 has
  it, "executor failed running [/bin/sh -c …]: exit code: 3"
- Podman: "building at STEP "RUN …": while running runtime: exit status 3", behind "error " before 4.0
- about files and the Dockerfile: "COPY failed: …", "ADD failed: …", "dockerfile parse error line 3: …"
- everything else is the daemon's, which passes on what a registry has told it
"""

from __future__ import annotations

import re
from typing import Final

from aiodocker_images.errors import APIError, BuildStepError, NoSpaceError, ServerError

from .refusals import BY_STATUS, api_error_class, ends_of

__all__ = ["build_error"]

# Where a command begins in the message, and what ends it: the last of that in the message.
_COMMANDS: Final = (
    (re.compile(r"The command '"), "' returned a non-zero code: "),
    (re.compile(r'(?:failed to solve: )?process "'), '" did not complete successfully: '),
    (re.compile(r"(?:failed to solve: |rpc error: code = \w+ desc = )*executor failed running \["), "]: "),
    (re.compile(r'(?:error )?building at STEP "RUN '), '": '),
)
_EXIT_CODE: Final = re.compile(r"(?:exit code: |(?:.{0,200}: )?exit status )?(\d{1,10})\b", re.DOTALL)

_OF_FILES: Final = re.compile(
    r"COPY failed: |ADD failed: |dockerfile parse error|failed to parse|unknown instruction"
    r"|building at STEP \"(?:COPY|ADD) ",
    re.IGNORECASE,
)
_DISK_FULL: Final = re.compile(r": (?:no space left on device|disk quota exceeded)\s*\Z", re.IGNORECASE)
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)

_NO_SESSION: Final = (
    "BuildKit asks the client for credentials, secrets and files through a session, which the docker CLI opens and this"
    " library does not. Pull the base images first, build with builder='classic', or do without --mount=type=secret"
    " and ssh."
)


def build_error(status: int | None, message: str, code: int | None) -> APIError:
    """Make the error for what a builder said; `code` is that of a frame: the exit code of a process, or a status."""
    if status is None and code is not None and code >= 400:
        status = code  # an exit code ends at 255
    head = ends_of(message)
    if "no active sessions" in head:
        message = f"{message.rstrip()}\n{_NO_SESSION}"
    for begin, end in _COMMANDS:
        if begin.match(head) and end in head:
            said = head.rpartition(end)[2]
            if found := _EXIT_CODE.match(said):
                return BuildStepError(message, status=status, exit_code=int(found[1]))
            head = said  # the process did not even begin: why, the daemon says
            break
    if _OF_FILES.match(head):
        cls = NoSpaceError if _DISK_FULL.search(head) else BY_STATUS.get(status or 0, ServerError)
    else:
        cls = api_error_class(status, _QUOTED.sub('""', head))
    return cls(message, status=status)

"""Standard input, output and error: what is written to them, and what each of them is."""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import sys
from contextlib import suppress
from typing import BinaryIO, Final, TextIO

from aiodocker_images import ArchiveError

__all__ = [
    "PROGRAM",
    "NobodyReadsError",
    "StandardStreamError",
    "archive_input",
    "archive_output",
    "clean",
    "is_terminal",
    "moves_cursor",
    "note",
    "reader_is_gone",
    "say",
    "say_bytes",
    "say_output",
    "tell_of_warnings",
    "tolerate_any_text",
    "visible",
]

PROGRAM: Final = "aiodocker-images"

# What would move the cursor, ring or recolour: registries and Engines are quoted on terminals.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# The same without the ends of lines and tabs, of which a page is made.
_PAGE_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
# Output of programs keeps what makes lines and bars of it.
_OUTPUT_CONTROL: Final = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class StandardStreamError(Exception):
    """Standard input or output cannot be used for what was asked. `misused`: it was known before anything was done."""

    def __init__(self, message: str, *, misused: bool = False) -> None:
        super().__init__(message)
        self.misused = misused


class NobodyReadsError(Exception):
    """Whoever read standard output has had enough, as `head` has. No OSError: typer would take it for itself."""


def say(text: str) -> None:
    """Write to standard output, at once. Raises `NobodyReadsError` and `StandardStreamError`.

    Programs that read it get every character as it is; on a terminal, control characters are written out.
    """
    stream = _output()
    _write(stream, _harmless(text, stream))


def say_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are, at once: not for a terminal. Raises as `say` does."""
    _write(_output(), data)


def say_output(text: str) -> None:
    """Write what the steps of a build print to standard output: with colours for a terminal, and no other control."""
    stream = _output()
    keep = is_terminal(stream) and not os.environ.get("NO_COLOR")
    text = _ESCAPE.sub(lambda match: match[0] if keep and _COLOUR.fullmatch(match[0]) else "", text)
    _write(stream, _OUTPUT_CONTROL.sub("", text))


def _write(stream: TextIO, content: str | bytes) -> None:
    try:
        if isinstance(content, bytes):
            stream.buffer.write(content)
        else:
            stream.write(content)
        stream.flush()
    except BrokenPipeError:
        raise NobodyReadsError from None
    except OSError as error:
        _forget_output()
        raise StandardStreamError(f"cannot write to standard output: {error.strerror or error}") from error


def _forget_output() -> None:
    """Let what could not be written be lost quietly, and not fail again when the interpreter ends."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def note(text: str) -> None:
    """Write a line to standard error, where nobody need read it."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:  # it is None if it was closed
            sys.stderr.write(f"{_harmless(text, sys.stderr)}\n")
            sys.stderr.flush()


def _harmless(text: str, stream: TextIO) -> str:
    """Return a text as it may go to a stream. Engines, registries and images' labels are quoted in it."""
    if not is_terminal(stream):
        return text
    # As JSON writes them: so a document on a terminal is still JSON.
    return _PAGE_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def tolerate_any_text() -> None:
    """Let no character that the locale does not know end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell_of_warnings() -> None:
    """Let what the library warns of be a line of ours."""
    logger = logging.getLogger("aiodocker_images")
    if not any(isinstance(handler, _Notes) for handler in logger.handlers):
        logger.addHandler(_Notes(logging.WARNING))


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(f"{PROGRAM}: {clean(record.getMessage())}")


def visible(text: str) -> str:
    """Return a text from outside with its control characters written out, line ends and tabs as well."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def clean(text: str) -> str:
    """Return a text from outside as one line without control characters."""
    return visible(" ".join(text.split()))


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether a person looks at it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def moves_cursor() -> bool:
    """Say whether standard error is a terminal on which lines can be drawn again."""
    return is_terminal(sys.stderr) and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def archive_input() -> str | BinaryIO:
    """Return standard input as a source of an archive. Raises `StandardStreamError` for a terminal."""
    stream = sys.stdin
    if stream is None or stream.closed:  # it is None if it was closed
        raise StandardStreamError("standard input is closed")
    if is_terminal(stream):
        raise StandardStreamError("standard input is a terminal: name a file, or redirect to it", misused=True)
    # Unbuffered: a buffer waits until it is full.
    raw: BinaryIO = getattr(stream.buffer, "raw", stream.buffer)
    return _by_path("/dev/stdin", 0, os.R_OK) or raw


def archive_output() -> str | BinaryIO:
    """Return standard output as a target of an archive. Raises `StandardStreamError` for a terminal."""
    stream = _output()
    if is_terminal(stream):
        raise StandardStreamError(
            "refusing to write an archive to a terminal: name a file with -o, or redirect", misused=True
        )
    return _by_path("/dev/stdout", 1, os.W_OK) or stream.buffer


def reader_is_gone(error: ArchiveError) -> bool:
    """Say whether an archive failed because nobody reads standard output any more."""
    return isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == _EPIPE)


_EPIPE: Final = BrokenPipeError(32, "").errno


def _output() -> TextIO:
    stream = sys.stdout
    if stream is None or stream.closed:  # it is None if it was closed
        raise StandardStreamError("standard output is closed")
    return stream


def _by_path(path: str, descriptor: int, mode: int) -> str | None:
    """Return the path of a pipe: opened again, a read or write that waits for the other side can be given up.

    A regular file goes by its object, which stands where the shell left it (`>>`); so does a socket, which cannot
    be opened, and the pipe of another user (sudo), which may not.
    """
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return None
    return path if is_pipe and os.access(path, mode) else None

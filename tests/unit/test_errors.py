"""The errors are one family: drawn as they are, told apart by what daemons really say, and fit to travel."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from collections.abc import Mapping

import pytest

from aiodocker_images import errors
from aiodocker_images.errors import (
    APIError,
    CredentialHelperError,
    DigestMismatchError,
    DockerError,
    LocalFileError,
    NotFoundError,
    UnsupportedAPIVersionError,
)

DEFINED: dict[str, type[DockerError]] = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, DockerError) and cls.__module__ == errors.__name__
}
WITH_MORE = (UnsupportedAPIVersionError, CredentialHelperError, DigestMismatchError)  # than a message
PLAIN = [cls for cls in DEFINED.values() if cls not in WITH_MORE]
ANSWERS = [cls for cls in PLAIN if issubclass(cls, APIError)]

_DRAWN = re.compile(r"(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+Error)(?:\((?P<foreign>\w+)\))?(?:\s|$)")


def drawn() -> dict[str, tuple[str, str | None]]:
    """Read the tree in the docstring: the parent of each class, and the foreign base in parentheses."""
    tree: dict[str, tuple[str, str | None]] = {}
    branch: list[tuple[int, str]] = [(-1, "Exception")]
    for line in (inspect.getdoc(errors) or "").splitlines():
        if match := _DRAWN.match(line):
            depth = len(match["indent"])
            branch = [each for each in branch if each[0] < depth]
            tree[match["name"]] = branch[-1][1], match["foreign"]
            branch.append((depth, match["name"]))
    return tree


def test_the_tree_in_the_docstring_is_the_family() -> None:
    real = {
        name: (cls.__bases__[0].__name__, cls.__bases__[1].__name__ if len(cls.__bases__) > 1 else None)
        for name, cls in DEFINED.items()
    }
    assert drawn() == real


def test_every_class_is_exported_and_nothing_else() -> None:
    assert sorted(errors.__all__) == sorted(DEFINED)


def test_every_class_says_what_it_means() -> None:
    assert [name for name, cls in DEFINED.items() if not cls.__doc__] == []


SPOKEN = [
    (DockerError("it failed"), "it failed"),
    (DockerError("it failed", operation="pull app:1"), "pull app:1: it failed"),
    (DockerError("it failed", endpoint="unix:///d.sock"), "it failed (at unix:///d.sock)"),
    (
        DockerError("it failed", operation="pull app:1", endpoint="unix:///d.sock"),
        "pull app:1: it failed (at unix:///d.sock)",
    ),
    (APIError("no", status=404), "no (status 404)"),
    (APIError("no", method="GET"), "no"),
    (APIError("no", path="/images/json"), "no"),
    (APIError("no", method="GET", path="/images/json"), "no (GET /images/json)"),
    (
        NotFoundError(
            "No such image: app:1",
            status=404,
            method="GET",
            path="/images/app:1/json",
            operation="inspect app:1",
            endpoint="tcp://127.0.0.1:2375",
        ),
        "inspect app:1: No such image: app:1 (GET /images/app:1/json, status 404, at tcp://127.0.0.1:2375)",
    ),
    (
        UnsupportedAPIVersionError("'platform' of push", required="1.46", actual="1.41", endpoint="unix:///d.sock"),
        "'platform' of push needs Engine API 1.46, but this connection speaks 1.41 (at unix:///d.sock)",
    ),
    (
        LocalFileError.of(OSError(errno.ENOENT, "No such file or directory", "/x.tar"), "cannot read '/x.tar'"),
        "cannot read '/x.tar': No such file or directory",
    ),
    (CredentialHelperError("docker-credential-x failed", helper="docker-credential-x"), "docker-credential-x failed"),
    (DigestMismatchError("r.example gave sha256:b", expected="sha256:a", actual="sha256:b"), "r.example gave sha256:b"),
    (LocalFileError.of(OSError("odd"), "cannot read '/x.tar'"), "cannot read '/x.tar': odd"),
]


@pytest.mark.parametrize(("error", "text"), SPOKEN, ids=[text for _, text in SPOKEN])
def test_an_error_says_the_operation_what_happened_and_where(error: DockerError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("cls", PLAIN)
def test_every_class_says_its_message(cls: type[DockerError]) -> None:
    """OSError and its kind print themselves in their own way, which must not win."""
    error = cls("it failed", operation="pull app:1", endpoint="unix:///d.sock")
    assert str(error) == "pull app:1: it failed (at unix:///d.sock)"
    assert error.args == ("it failed",)


def _fields(error: DockerError) -> Mapping[str, object]:
    own = {name: getattr(error, name) for name in ("errno", "strerror", "filename") if hasattr(error, name)}
    return vars(error) | own | {"args": error.args, "str": str(error), "class": type(error)}


def _one_of(cls: type[DockerError]) -> DockerError:
    if cls is UnsupportedAPIVersionError:
        error: DockerError = UnsupportedAPIVersionError("a thing", required="1.46", actual="1.41", operation="push a:1")
    elif issubclass(cls, APIError):
        error = cls("no", status=418, method="GET", path="/x", operation="inspect a:1", endpoint="unix:///d.sock")
    elif cls is DigestMismatchError:
        error = DigestMismatchError(
            "it failed", expected="sha256:a", actual=None, who="r.example", operation="copy a:1"
        )
    elif cls is CredentialHelperError:
        error = CredentialHelperError("it failed", helper="docker-credential-x", exit_status=3, operation="pull a:1")
    elif cls is LocalFileError:
        error = LocalFileError.of(OSError(errno.ENOSPC, "No space left on device", "/x.tar"), "cannot write")
    else:
        error = cls("it failed", operation="load", endpoint="unix:///d.sock")
    error.add_note("and a note")
    return error


@pytest.mark.parametrize("cls", DEFINED.values())
def test_every_error_crosses_a_process_border_whole(cls: type[DockerError]) -> None:
    error = _one_of(cls)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert _fields(pickle.loads(pickle.dumps(error, protocol))) == _fields(error)


@pytest.mark.parametrize("cls", DEFINED.values())
def test_every_error_can_be_copied(cls: type[DockerError]) -> None:
    error = _one_of(cls)
    for duplicate in (copy.copy(error), copy.deepcopy(error)):
        assert duplicate is not error
        assert _fields(duplicate) == _fields(error)


def test_a_copy_is_located_without_the_original() -> None:
    error = DockerError("it failed")
    duplicate = copy.copy(error)
    duplicate.operation = "pull app:1"
    assert error.operation is None


def test_a_file_error_keeps_what_code_for_an_oserror_reads() -> None:
    cause = PermissionError(errno.EACCES, "Permission denied", "/x.tar")
    error = LocalFileError.of(cause, "cannot write '/x.tar'")
    assert (error.errno, error.strerror, error.filename) == (errno.EACCES, "Permission denied", "/x.tar")

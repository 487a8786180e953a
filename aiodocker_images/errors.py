"""Every exception that this library raises, in one family.

    DockerError
    ├── DaemonUnreachableError(ConnectionError)   nothing that speaks the Engine API answers at the endpoint
    ├── RegistryUnreachableError(ConnectionError) nothing that speaks the distribution API answers at the registry
    ├── APIError                                  the daemon said that it failed: by status or in a stream
    │   ├── InvalidParameterError  400
    │   ├── UnauthorizedError      401
    │   ├── ForbiddenError         403
    │   ├── NotFoundError          404
    │   ├── ConflictError          409
    │   │   └── TagImmutableError  the registry does not let this tag be moved to another image
    │   ├── RateLimitedError       429, or "toomanyrequests" in any answer
    │   ├── NoSpaceError           "no space left on device" in any answer
    │   └── ServerError            5xx
    │       └── BuildStepError     a process that a build has started failed
    ├── StreamInterruptedError(ConnectionError)   the answer ended before its end
    │   └── StreamStalledError(TimeoutError)      nothing moved for `idle_timeout` seconds
    ├── FrameDecodeError(ValueError)              not JSON, or over a size limit
    ├── ArchiveError                              not a whole tar, or the daemon wrote an error into it
    │   ├── InvalidArchiveError(APIError)         the Engine cannot load or import the archive that it was sent
    │   └── LocalFileError(OSError)               a local file behind `to=`, `source` or a build's context failed
    ├── DigestMismatchError(ValueError)           content is not what its digest or size promised
    ├── PlatformMismatchError                     the image that came is for another platform
    ├── NotGivenBackError                         a mirror run could not put names back as they were
    ├── UnsupportedManifestError(ValueError)      a manifest of a kind that cannot be handled
    ├── UnsupportedAPIVersionError                raised before anything is sent
    ├── InvalidArgumentError(ValueError)          an argument has a wrong value: raised at the call
    │   ├── InvalidReferenceError                 not the name of an image
    │   └── InvalidPlatformError                  not a platform
    ├── ServiceClosedError(RuntimeError)          the service was used after `aclose()`
    └── ConfigError(ValueError)                   the endpoint or a configuration file makes no sense
        ├── ContextNotFoundError                  there is no docker context of that name
        └── CredentialHelperError                 a credential helper failed

The same class is raised whether the daemon reported a failure by status or in the middle of a stream.
The original exception, where there is one, is `__cause__`.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

__all__ = [
    "APIError",
    "ArchiveError",
    "BuildStepError",
    "ConfigError",
    "ConflictError",
    "ContextNotFoundError",
    "CredentialHelperError",
    "DaemonUnreachableError",
    "DigestMismatchError",
    "DockerError",
    "ForbiddenError",
    "FrameDecodeError",
    "InvalidArchiveError",
    "InvalidArgumentError",
    "InvalidParameterError",
    "InvalidPlatformError",
    "InvalidReferenceError",
    "LocalFileError",
    "NoSpaceError",
    "NotFoundError",
    "NotGivenBackError",
    "PlatformMismatchError",
    "RateLimitedError",
    "RegistryUnreachableError",
    "ServerError",
    "ServiceClosedError",
    "StreamInterruptedError",
    "StreamStalledError",
    "TagImmutableError",
    "UnauthorizedError",
    "UnsupportedAPIVersionError",
    "UnsupportedManifestError",
]


_E = TypeVar("_E", bound=BaseException)

_MAX_SHOWN = 80


def shown(text: str) -> str:
    """Return text from outside as a message takes it: quoted, escaped, and not for ever."""
    # ascii() and not repr(): it tells a full-width letter from the letter, and any log can take it.
    return ascii(text) if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]!a}..."


def named(text: str) -> str:
    """Return text as an operation is named by it: as it is, unless a log could not take it in one line."""
    return text if text.isprintable() and len(text) <= _MAX_SHOWN else shown(text)


def without_frames(error: _E, *, outer: BaseException | None = None) -> _E:
    """Drop the frames that an error, and all behind it, came through: their variables may hold secrets.

    Tools that report errors show such variables. `outer` is an exception that the caller was handling before: it
    keeps its frames.
    """
    chain: list[BaseException] = [error]
    for each in chain:
        each.__traceback__ = None
        behind = (each.__cause__, each.__context__)
        chain += [more for more in behind if more is not None and more is not outer and more not in chain]
    return error


class DockerError(Exception):
    """The root: `except DockerError` catches whatever this library raises.

    `message` says what happened. `operation` ("pull docker.io/library/alpine:3.20"), its `verb` ("pull"), `endpoint`
    ("unix:///var/run/docker.sock") and `endpoint_source` ("DOCKER_HOST") say where, and who chose that; they are
    None for an error that no operation met.

    `http_status` is what a web backend may answer for it: 400 for a wrong argument, 403, 404, 409 and 429 as the Engine
    or the registry said, 422 for what cannot be built or loaded, 501 for an option that the Engine is too old for, 502
    for an Engine or registry that fails, 503 for one that cannot be reached, 504 for one that is silent, 507 for a full
    disk, and 500 for what is wrong in the backend itself. A registry that refuses the backend's credentials is 403 as
    well: with 401, browsers would ask their user for a password.
    """

    http_status: ClassVar[int] = 500
    verb: str | None = None
    endpoint_source: str | None = None

    def __init__(self, message: str, *, operation: str | None = None, endpoint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.endpoint = endpoint

    def __str__(self) -> str:
        """Say the operation, what happened and where, each once."""
        text = f"{self.operation}: {self.message}" if self.operation else self.message
        where = ", ".join(self._where())
        return f"{text} ({where})" if where else text

    def _where(self) -> list[str]:
        if not self.endpoint:
            return []
        # What the caller gave, the caller knows.
        chosen = self.endpoint_source if self.endpoint_source != "argument" else None
        return [f"at {self.endpoint} from {chosen}" if chosen else f"at {self.endpoint}"]

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders; the default, cls(*args), cannot carry keyword-only arguments.
        return _restore, (type(self), self.args, self._state())

    def _state(self) -> dict[str, Any]:
        return dict(self.__dict__)


def _restore(cls: type[DockerError], args: tuple[Any, ...], state: dict[str, Any]) -> DockerError:
    error = cls.__new__(cls)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class DaemonUnreachableError(DockerError, ConnectionError):
    """Nothing that speaks the Engine API answers at the endpoint."""

    http_status = 503


class RegistryUnreachableError(DockerError, ConnectionError):
    """No connection to the registry, or what answers there does not speak the OCI distribution API."""

    http_status = 503


class APIError(DockerError):
    """The daemon, or a registry, answered that it failed.

    `status` is the HTTP status, or the `code` of an error frame; None where a frame named none.
    `method` and `path` name the endpoint of the Engine API, without the version, or of the distribution API.
    `code` is the registry's own word for the failure ("MANIFEST_UNKNOWN"), None where there is none.
    """

    http_status = 502

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        method: str | None = None,
        path: str | None = None,
        code: str | None = None,
        operation: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, operation=operation, endpoint=endpoint)
        self.status = status
        self.method = method
        self.path = path
        self.code = code

    def _where(self) -> list[str]:
        where = [f"{self.method} {self.path}"] if self.method and self.path else []
        if self.status is not None:
            where.append(f"status {self.status}")
        return where + super()._where()


class InvalidParameterError(APIError):
    """The daemon refused a parameter (400)."""

    http_status = 400


class UnauthorizedError(APIError):
    """Credentials are missing or refused (401)."""

    http_status = 403


class ForbiddenError(APIError):
    """The credentials do not permit this (403)."""

    http_status = 403


class NotFoundError(APIError):
    """No such image, tag or endpoint (404)."""

    http_status = 404


class ConflictError(APIError):
    """The image is in use, or the name is taken (409)."""

    http_status = 409


class TagImmutableError(ConflictError):
    """The registry does not let this tag be moved: it exists, and points to another image."""


class RateLimitedError(APIError):
    """The registry asks to slow down (429, or "toomanyrequests" in any answer).

    `retry_after` is how many seconds the registry asked to wait, None if it did not say.
    """

    http_status = 429

    retry_after: float | None = None


class NoSpaceError(APIError):
    """The disk of the daemon or of the registry is full."""

    http_status = 507


class ServerError(APIError):
    """The daemon or the registry failed (5xx), or said in a stream that it failed without saying how."""


class BuildStepError(ServerError):
    """A process that RUN has started in a build failed. `exit_code` is its exit code, None if it is not known.

    What the process has said and what its command is do not count for the class of the error: a registry's words in
    them are not a registry's.
    """

    http_status = 422

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        status: int | None = None,
        method: str | None = None,
        path: str | None = None,
        operation: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, status=status, method=method, path=path, operation=operation, endpoint=endpoint)
        self.exit_code = exit_code


class StreamInterruptedError(DockerError, ConnectionError):
    """The answer ended before its end: the connection was cut, or the daemon stopped in mid-answer."""

    http_status = 502


class StreamStalledError(StreamInterruptedError, TimeoutError):
    """Nothing was sent or received for `idle_timeout` seconds."""

    http_status = 504


class FrameDecodeError(DockerError, ValueError):
    """The daemon sent something that is not the JSON it should be, or that is over a size limit."""

    http_status = 502


class ArchiveError(DockerError):
    """The archive is not a whole tar, or the daemon wrote an error document into it."""

    http_status = 422


class LocalFileError(ArchiveError, OSError):
    """A local file that is read from or written to failed, as of an archive or a build's context.

    See `errno` and `filename`.
    """

    http_status = 500

    @classmethod
    def of(cls, cause: OSError, message: str) -> LocalFileError:
        """Wrap `cause`, keeping its errno and file name, so that `except OSError` code reads it as before."""
        error = cls(f"{message}: {cause.strerror or cause}")
        error.errno = cause.errno
        error.strerror = cause.strerror
        error.filename = cause.filename
        return error

    def _state(self) -> dict[str, Any]:
        # OSError keeps these outside of __dict__.
        return super()._state() | {"errno": self.errno, "strerror": self.strerror, "filename": self.filename}


class InvalidArchiveError(ArchiveError, APIError):
    """The Engine cannot load or import the archive that it was sent: not a tar, cut, damaged, or not of an image."""

    http_status = 422


class DigestMismatchError(DockerError, ValueError):
    """Content is not what was promised: it has another digest, or another size.

    `expected` is the digest that was promised. `actual` is that of what came, or None where only the size is
    wrong. `who` names the registry or the file that gave the content ("" if unknown).
    """

    http_status = 502

    def __init__(
        self,
        message: str,
        *,
        expected: str,
        actual: str | None,
        who: str = "",
        operation: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, operation=operation, endpoint=endpoint)
        self.expected = expected
        self.actual = actual
        self.who = who


class PlatformMismatchError(DockerError):
    """The image that came is for another platform (`actual`) than the one that was asked for (`wanted`)."""

    http_status = 404

    def __init__(
        self,
        message: str,
        *,
        wanted: str = "",
        actual: str = "",
        operation: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, operation=operation, endpoint=endpoint)
        self.wanted = wanted
        self.actual = actual

    @classmethod
    def of(cls, wanted: str, actual: str) -> PlatformMismatchError:
        """Make the error for an image that came for one platform where another one was asked for."""
        return cls(f"the image that came is for {actual}, not for {wanted}", wanted=wanted, actual=actual)


class NotGivenBackError(DockerError):
    """A mirror run could not put all names on the Engine back as they were; `names` are those that are left."""

    def __init__(
        self,
        message: str,
        *,
        names: tuple[str, ...] = (),
        operation: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, operation=operation, endpoint=endpoint)
        self.names = names


class UnsupportedManifestError(DockerError, ValueError):
    """A manifest of a kind that cannot be handled here, or whose kind cannot be told for certain."""

    http_status = 422


class UnsupportedAPIVersionError(DockerError):
    """`feature` needs API version `required`; this daemon and client speak `actual`."""

    http_status = 501

    def __init__(
        self,
        feature: str,
        *,
        required: str,
        actual: str,
        operation: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(
            f"{feature} needs Engine API {required}, but this connection speaks {actual}",
            operation=operation,
            endpoint=endpoint,
        )
        self.feature = feature
        self.required = required
        self.actual = actual


class InvalidArgumentError(DockerError, ValueError):
    """An argument has a value that makes no sense, or that no request can carry. Raised before anything is sent.

    An argument of a wrong type is a TypeError.
    """

    http_status = 400


class InvalidReferenceError(InvalidArgumentError):
    """Not the name of an image, by the grammar of Docker's references."""


class InvalidPlatformError(InvalidArgumentError):
    """Not a platform such as linux/amd64 or linux/arm64/v8."""


class ServiceClosedError(DockerError, RuntimeError):
    """The service was used after `aclose()`, or from another event loop than the one it was opened in."""


class ConfigError(DockerError, ValueError):
    """The endpoint or a configuration file makes no sense."""


class ContextNotFoundError(ConfigError):
    """There is no docker context of that name."""


class CredentialHelperError(ConfigError):
    """A credential helper is missing or failed.

    `helper` is the program ("docker-credential-pass"), `exit_status` its exit status, the negative of a signal
    that ended it, or None if it did not run to an end.
    """

    def __init__(
        self,
        message: str,
        *,
        helper: str,
        exit_status: int | None = None,
        operation: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message, operation=operation, endpoint=endpoint)
        self.helper = helper
        self.exit_status = exit_status

"""Whatever is given in the place of an argument is accepted, or refused at the call in words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aiodocker_images import (
    BuildOptions,
    DaemonUnreachableError,
    DockerError,
    DockerKeychain,
    Endpoint,
    ImageService,
    InvalidArgumentError,
    InvalidPlatformError,
    MirrorJob,
    MultiKeychain,
    Platform,
    Reference,
    RegistryAuth,
    RegistryConfig,
    RegistryService,
    Retry,
    StaticKeychain,
    mirror,
    transfer,
)

NOWHERE = "unix:///nowhere/docker.sock"
SECRET = "s3cret-in-a-wrong-place"
IN_WORDS = re.compile(r" must be |an archive is (?:read from|written to) ")


class Case(NamedTuple):
    """One argument of one function; `call` takes a service and a value for it."""

    function: str
    argument: str
    call: Callable[[ImageService, Any], Any]


# What each method needs besides the argument that is wrong.
SOURCE = {"source": b""}
NEEDED: dict[str, dict[str, Any]] = {
    "request": {"method": "GET", "path": "/info"},
    "tag": {"source": "a", "target": "b"},
    "search": {"term": "word"},
    "login": {"auth": RegistryAuth(username="me", password="x")},
    "save": {"to": "/dev/null"},
    "load": SOURCE,
    "load_stream": SOURCE,
    "import_image": SOURCE,
    "import_stream": SOURCE,
    "build": {"context": b"", "tags": "a"},
    "build_stream": {"context": b"", "tags": "a"},
}
# JSON can be many things; where a platform, an archive or an endpoint is, is said by more than one type.
ANYTHING = {("request", "json")}


def method_case(name: str, argument: str) -> Case:
    needed = NEEDED.get(name, {})
    parameters = inspect.signature(getattr(ImageService, name)).parameters
    if "reference" in parameters and parameters["reference"].default is inspect.Parameter.empty:
        needed = {"reference": "a"}

    def call(images: ImageService, value: Any) -> Any:  # noqa: ANN401 - the point
        if argument == "references":
            return getattr(images, name)(value, **needed)
        names = ("a",) if name.startswith("save") else ()
        return getattr(images, name)(*names, **{**needed, argument: value})

    return Case(name, argument, call)


def function_case(function: Callable[..., Any], argument: str, **needed: object) -> Case:
    def call(images: ImageService, value: Any) -> Any:  # noqa: ANN401 - the point
        given = {name: images if each is ImageService else each for name, each in needed.items()}
        return function(**{**given, argument: value})

    return Case(function.__qualname__, argument, call)


def transferred(source: ImageService, target: ImageService, **options: Any) -> object:  # noqa: ANN401 - the point
    return transfer(source, target, "a", **options)


def multi_keychain(keychain: Any) -> object:  # noqa: ANN401 - the point
    return MultiKeychain(keychain)


def cases() -> Iterator[Case]:
    for name, method in inspect.getmembers(ImageService, inspect.isfunction):
        if not name.startswith("_") and name != "end_with":  # which is for mirror()
            for argument in list(inspect.signature(method).parameters)[1:]:
                for each in BuildOptions.__annotations__ if argument == "options" else (argument,):
                    yield method_case(name, each)
    for argument in inspect.signature(ImageService).parameters:
        yield function_case(ImageService, argument)
    for argument in inspect.signature(mirror).parameters:
        yield function_case(mirror, argument, images=ImageService, jobs=[MirrorJob("a:1", "b.example/a:1")], retry=None)
    for argument in ("source", "target", "concurrency", "on_progress"):
        yield function_case(transferred, argument, source=ImageService, target=ImageService)
    for argument in inspect.signature(RegistryService).parameters:
        yield function_case(RegistryService, argument)
    for argument in inspect.signature(RegistryConfig).parameters:
        yield function_case(RegistryConfig, argument)
    for kind in (RegistryAuth, Retry):
        for argument in kind.__struct_fields__:
            yield function_case(kind, argument)
    for argument in inspect.signature(DockerKeychain).parameters:
        yield function_case(DockerKeychain, argument)
    yield function_case(StaticKeychain, "credentials")
    yield function_case(multi_keychain, "keychain")
    yield function_case(Reference.parse, "text")
    yield function_case(Platform.parse, "text")
    yield function_case(Endpoint.resolve, "endpoint")
    yield function_case(Endpoint.from_context, "name")
    yield function_case(Endpoint.parse, "text")


CASES = list(cases())


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text can be the name of a file, such as that of a journal."""
    monkeypatch.chdir(tmp_path)


async def outcome(case: Case, value: object) -> BaseException | None:
    """Call the function, run what it returns to its end, and return what was raised."""
    async with ImageService(NOWHERE, api_version="1.55", keychain=StaticKeychain({})) as images:
        try:
            result = case.call(images, value)
            if inspect.isasyncgen(result):
                async for _ in result:
                    pass
            elif inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001 - looked at by the test
            return error
    return None


@pytest.mark.parametrize("case", CASES, ids=[f"{case.function} {case.argument}" for case in CASES])
async def test_an_object_of_no_use_is_refused_in_words(case: Case) -> None:
    error = await outcome(case, object())
    assert isinstance(error, TypeError), repr(error)
    assert "object" in str(error)
    if (case.function, case.argument) not in ANYTHING:
        assert re.search(r" not (?:from |to )?object$", str(error)), str(error)


WRONG: dict[str, object] = {
    "a number": 3,
    "a fraction": 3.5,
    "a text": "word",
    "bytes": b"word",
    "a list": ["word", 3],
    "a tuple": ("word", SECRET),
    "a mapping": {"username": "word", "password": SECRET},
    "a set": {3},
    "a truth": True,
    "a reference": Reference.parse("a:1"),
    "a platform": Platform.parse("linux/arm64"),
    "credentials": RegistryAuth(username="me", password=SECRET),
    "a retry": Retry(),
    "a class": dict,
}


@pytest.mark.parametrize("case", CASES, ids=[f"{case.function} {case.argument}" for case in CASES])
async def test_whatever_is_given_is_accepted_or_refused_in_words(case: Case) -> None:
    for name, value in WRONG.items():
        error = await outcome(case, value)
        assert error is None or isinstance(error, TypeError | ValueError | DockerError), f"{name}: {error!r}"
        assert SECRET not in str(error)
        if isinstance(error, TypeError) and (case.function, case.argument) not in ANYTHING:
            assert IN_WORDS.search(str(error)), f"{name}: {error}"


# What people give, and are told.
TOLD: list[tuple[str, str, object, str]] = [
    ("pull", "auth", {"username": "me", "password": SECRET}, "auth must be a RegistryAuth(username=…, password=…)"),
    ("push", "auth", ("me", SECRET), "auth must be a RegistryAuth(username=…, password=…) or None, not tuple"),
    ("build", "auths", RegistryAuth(username="me"), 'auths must be a mapping such as {"docker.io": RegistryAuth(…)}'),
    ("list", "filters", ["dangling=true"], 'filters must be a mapping such as {"label": "stage=test"}, not list'),
    ("build", "labels", ["a=b"], 'labels must be a mapping such as {"name": "value"}, not list'),
    ("ImageService", "keychain", {"docker.io": SECRET}, "keychain must be "),
    ("mirror", "retry", 3, "retry must be a Retry(attempts=…), or None for no retry, not int"),
    ("remove", "force", "no", "force must be True or False, not str"),
]


@pytest.mark.parametrize(("function", "argument", "value", "words"), TOLD, ids=[f"{row[0]} {row[1]}" for row in TOLD])
async def test_a_common_mistake_is_told_with_what_is_expected(
    function: str, argument: str, value: object, words: str
) -> None:
    case = next(each for each in CASES if (each.function, each.argument) == (function, argument))
    error = await outcome(case, value)
    assert isinstance(error, TypeError)
    assert str(error).startswith(words)


ALIKE: list[tuple[str, str]] = [
    (case.function, case.argument)
    for case in CASES
    if (
        case.argument in {"reference", "references", "source", "target", "tags"}
        and case.function not in {"load", "load_stream", "import_image", "import_stream", "transferred"}
    )
    or (case.function, case.argument) in {("import_image", "reference"), ("import_stream", "reference")}
]


@pytest.mark.parametrize(("function", "argument"), ALIKE, ids=[" ".join(row) for row in ALIKE])
async def test_a_reference_is_accepted_wherever_its_text_is(function: str, argument: str) -> None:
    case = next(each for each in CASES if (each.function, each.argument) == (function, argument))
    if (function, argument) in {("build", "target"), ("build_stream", "target")}:
        return  # a stage of the Dockerfile
    for value in ("localhost:5000/app:1", Reference.parse("localhost:5000/app:1")):
        error = await outcome(case, value)
        assert isinstance(error, DaemonUnreachableError), repr(error)


@pytest.mark.parametrize(
    ("function", "argument"), [(case.function, case.argument) for case in CASES if case.argument.startswith("platform")]
)
async def test_a_platform_is_accepted_wherever_its_text_is(function: str, argument: str) -> None:
    case = next(each for each in CASES if (each.function, each.argument) == (function, argument))
    for value in ("linux/arm64", Platform.parse("linux/arm64")):
        error = await outcome(case, value)
        assert isinstance(error, DaemonUnreachableError) or (error is None and function == "mirror"), repr(error)
    assert isinstance(await outcome(case, "no platform"), InvalidPlatformError)


def test_a_wrong_value_is_an_error_of_one_class_everywhere() -> None:
    for wrong in (
        lambda: ImageService(max_connections=0),
        lambda: ImageService(idle_timeout=0),
        lambda: DockerKeychain(helper_timeout=0),
        lambda: Retry(attempts=0),
        lambda: Retry(jitter=-1),
        lambda: transfer(ImageService(NOWHERE), ImageService(NOWHERE), "a", concurrency=0),
        lambda: mirror(ImageService(NOWHERE), [], per_registry=0),
        lambda: ImageService(NOWHERE).save_stream("a", chunk_size=0),
        lambda: ImageService(NOWHERE).events(since=float("inf")),
    ):
        with pytest.raises(InvalidArgumentError, match=r"must be|not a valid"):
            wrong()

"""What the tests share: a scripted daemon, the real Engine and how Engines differ, and a look at what is left over."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import pytest
import uvloop

import engines
from aiodocker_images import ImageService

from .support.scripted import ScriptedDaemon
from .support.sweeps import set_extent
from .support.tally import INJECTED, table

T = TypeVar("T")


def engine_is(*names: str) -> bool:
    """Return whether the Engine under test is one of these, by their names in `engines.ENGINES`."""
    if unknown := set(names) - engines.ENGINES.keys():
        raise ValueError(f"no such Engine: {unknown}")  # a misspelt exception would never apply
    return os.environ.get("ENGINE") in names


def by_engine(default: T, **others: T) -> T:
    """Return what is right for the Engine under test, where Engines differ: `by_engine(404, podman=500)`."""
    return next((others[name] for name in others if engine_is(name)), default)


if os.environ.get("LOOP") == "uvloop":  # `make unit LOOP=uvloop`

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Run the tests in uvloop instead of asyncio's own loop."""
        return {"uvloop": _new_uvloop}

    def _new_uvloop() -> asyncio.AbstractEventLoop:
        """Make a loop that has listened once: libuv keeps a descriptor in reserve from then on."""
        loop = uvloop.new_event_loop()
        server = loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
        server.close()
        loop.run_until_complete(server.wait_closed())
        return loop


@pytest.fixture(autouse=True)
def nothing_reported_by_asyncio(caplog: pytest.LogCaptureFixture) -> Generator[None, None, None]:
    """What asyncio can tell nobody but its log, such as an exception that nobody retrieved, fails the test."""
    yield
    reports = [each for each in caplog.get_records("call") if each.name == "asyncio" and each.levelno >= logging.ERROR]
    assert [report.getMessage() for report in reports] == []


# What of the environment says where Docker is and who we are there, but how the private Engine and registry are named.
FOREIGN = (
    *("DOCKER_API_VERSION", "DOCKER_AUTH_CONFIG", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_CUSTOM_HEADERS"),
    "DOCKER_DEFAULT_PLATFORM",
    *("DOCKER_TLS", "DOCKER_TLS_VERIFY", "REGISTRY_AUTH_FILE"),
    # A machine's proxies are for its own addresses, not for those of the tests.
    *(name for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (proxy, proxy.lower())),
    # How wide a terminal is: pytest-xdist sets it.
    *("COLUMNS", "LINES"),
)
# Directories that are empty instead: unset, some would be looked for elsewhere.
OWN = ("DOCKER_CONFIG", "HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")


@pytest.fixture(scope="session", autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory) -> Generator[None, None, None]:
    """No test, nor a program that it starts, sees what this machine's user has configured for Docker and Podman."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in FOREIGN:
            patch.delenv(variable, raising=False)
        for variable in OWN:
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable)))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts what runs in the background, these tests perhaps, with Ctrl-C ignored, and programs inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def short_path() -> Generator[Path, None, None]:
    """A directory whose name leaves room for a socket's: a unix socket's path ends at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="adi-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
async def daemon(short_path: Path) -> AsyncGenerator[ScriptedDaemon, None]:
    """A scripted daemon that answers pings."""
    async with ScriptedDaemon(short_path / "docker.sock") as daemon:
        yield daemon


@pytest.fixture
async def images(daemon: ScriptedDaemon) -> AsyncGenerator[ImageService, None]:
    """A service that talks to the scripted daemon."""
    async with ImageService(daemon.socket) as service:
        yield service


STRICT_AIOHTTP: Final = sys.flags.dev_mode or bool(os.environ.get("PYTHONASYNCIODEBUG"))
"""In its debug mode, aiohttp's parser takes nothing of what servers do wrong and clients used to take."""


class Leftovers:
    """What this process has open: compared before and after, they show a leak."""

    @staticmethod
    def now(*, collect: bool = True) -> tuple[int, int, int, int]:
        """Return the number of open file descriptors, of tasks, of threads and of child processes.

        The threads of the loop's own pool are not counted: it keeps them for the next call.
        """
        if collect:
            gc.collect()
        threads = [each for each in threading.enumerate() if not each.name.startswith(("asyncio_", "uvloop_"))]
        children = 0
        for each in Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError):  # of a thread that ends just now
                children += len(each.read_text().split())
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one syscall
        return descriptors, len(asyncio.all_tasks()), len(threads), children

    async def settle(self, before: tuple[int, int, int, int], *, within: float = 5) -> None:
        """Fail unless everything opened since `before` is closed soon: a cancelled task ends at its next step."""
        async with asyncio.timeout(within):
            while True:
                now = self.now()
                if all(here <= then for here, then in zip(now, before, strict=True)):
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
def leftovers() -> Leftovers:
    return Leftovers()


@pytest.fixture(scope="session")
def engine_name() -> str:
    """The kind of the private Engine that was started for the tests, and of those that they start themselves."""
    return _started("ENGINE")


@pytest.fixture(scope="session")
def engine_host() -> str:
    """The address of the private Engine that `engines run` started for the tests."""
    return _started("DOCKER_HOST")


@pytest.fixture
async def engine(engine_host: str) -> AsyncGenerator[ImageService, None]:
    """A service that talks to the real Engine."""
    async with ImageService(engine_host) as service:
        yield service


@pytest.fixture(scope="session")
def registry() -> str:
    """The address of the private registry that `engines run` started for the tests."""
    return _started("REGISTRY")


@pytest.fixture
def snatched(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str], None, None]:
    """The first free port that is looked for is taken at once: its address, once there is one."""
    create_server, taken, addresses = socket.create_server, contextlib.ExitStack(), list[str]()

    @contextlib.contextmanager
    def kept_open_once(address: tuple[str, int]) -> Generator[socket.socket, None, None]:
        with create_server(address) as server:
            if not addresses:
                addresses.append("{}:{}".format(*server.getsockname()))
                taken.enter_context(server.dup()).listen()
            yield server

    monkeypatch.setattr(socket, "create_server", kept_open_once)
    with taken:
        yield addresses


def _started(variable: str) -> str:
    # A missing Engine fails: a skip would hide it. Nor is just any Engine good enough, for tests remove images.
    if "ENGINE" not in os.environ:
        pytest.fail("this test needs a private Engine: type `make test`, or `make unit` for the tests without one")
    return os.environ[variable]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--summary", metavar="TITLE:FILE", help="add a line to the file: how many passed")
    parser.addoption("--every-byte", action="store_true", help="cut at every byte, where a sample is cut otherwise")


def pytest_configure(config: pytest.Config) -> None:
    set_extent(whole=bool(config.getoption("--every-byte")))


@pytest.fixture(scope="session")
def every_byte(pytestconfig: pytest.Config) -> bool:
    """Whether sweeps cut at every byte: `.ci/run` does, `make test` at a sample of them."""
    return bool(pytestconfig.getoption("--every-byte"))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:  # noqa: ANN401 - xdist's Producer
    """Keep all tests that need the one Engine in one process; the others go wherever there is room.

    pytest-xdist's own groups (`--dist loadgroup`, 3.8) have no effect with pytest 9.2.
    """
    if config.getoption("dist") != "loadscope":
        return None
    scheduler: Any = importlib.import_module("xdist.scheduler").LoadScopeScheduling(config, log)
    scheduler._split_scope = _scope_of
    return cast("object", scheduler)


def _scope_of(nodeid: str) -> str:
    return "the Engine" if _needs_engine(nodeid.partition("::")[0]) else nodeid


@functools.cache
def _needs_engine(file: str) -> bool:
    """Whether tests of a file are marked so."""
    text = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    return "mark.engine" in text or "mark.once" in text


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over thousands of collected tests: many tests collect, to count what is left."""
    gc.collect()
    gc.freeze()


_FREEZES: Final = itertools.cycle([False] * 99 + [True])


def pytest_runtest_logfinish() -> None:
    """Let it also pass over what has come to stay since: reports, modules, and what hypothesis remembers."""
    if next(_FREEZES):
        gc.collect()
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a process that ran tests to the one that reports them."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["injected"] = [[*key, count] for key, count in INJECTED.items()]


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: object) -> None:
    """Add up the counts of the processes that ran tests."""
    output: dict[str, list[tuple[str, str, str, int]]] = getattr(node, "workeroutput", {})
    for engine, operation, kind, count in output.get("injected", []):
        INJECTED[engine, operation, kind] += count


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens, and not only at the end."""
    if report.failed and os.environ.get("PYTEST_XDIST_WORKER") is None:
        sys.stderr.write(f"\n{report.nodeid} failed in its {report.when}:\n{report.longreprtext}\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show how many faults were injected; note what this run came to, for the summary of the runs on all Engines."""
    if hasattr(config, "workerinput"):
        return  # one of several processes: the one that reports adds them up
    if injected := table(INJECTED):
        terminalreporter.section("faults injected")
        for line in injected:
            terminalreporter.write_line(line)
    title, _, file_name = (config.getoption("--summary") or "").partition(":")
    if file_name:
        counts = {kind: len(terminalreporter.stats.get(kind, ())) for kind in ("passed", "failed", "error", "skipped")}
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count or kind == "passed")
        with Path(file_name).open("a", encoding="utf-8") as file:
            file.write(f"{title}: {told}\n")

"""The harness that starts private Engines and registries: what it starts works, and nothing of it stays."""

import contextlib
import io
import json
import os
import platform
import pty
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

import engines
from engines import golang, packages, state
from engines.__main__ import main
from tests.conftest import by_engine, engine_is
from tests.support.probes import ask, listens, traces

ENGINES_RUN = (sys.executable, "-m", "engines", "run")
BUSY = "exec sleep 60"
# A shell starts background jobs, the tests perhaps among them, with SIGINT ignored; nohup ignores SIGHUP.
OWN_TERMINAL = ("env", "--default-signal=INT,HUP", "setsid", "--ctty")
# The harness holds every state directory open, for the lock on it.
SHOW_STATES = f"readlink /proc/$PPID/fd/* | grep ^{state.STATE_PARENT}/adi-;"
SHOW_ENVIRONMENT = 'echo "$ENGINE $DOCKER_HOST $REGISTRY"; echo up;'

WAYS_OUT: list[tuple[str, str, bytes | signal.Signals | None, int]] = [
    ("success", "true", None, 0),
    ("failure", "exit 7", None, 7),
    ("command-killed", "kill -KILL $$", None, 128 + signal.SIGKILL),
    ("ctrl-c", BUSY, b"\x03", 128 + signal.SIGINT),
    ("ctrl-c-many-times", BUSY, b"\x03" * 20, 128 + signal.SIGINT),
    ("SIGINT", BUSY, signal.SIGINT, 128 + signal.SIGINT),
    ("SIGTERM", BUSY, signal.SIGTERM, 128 + signal.SIGTERM),
    ("SIGHUP", BUSY, signal.SIGHUP, 128 + signal.SIGHUP),
    ("SIGKILL", BUSY, signal.SIGKILL, -signal.SIGKILL),
]


def import_image(engine: engines.Engine, tag: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(engines.busybox(), "bin/sh")
    ask(engine, "POST", f"/images/create?fromSrc=-&repo=localhost/box&tag={tag}", archive.getvalue())


def tags(engine: engines.Engine) -> list[str]:
    return [tag for image in json.loads(ask(engine, "GET", "/images/json")) for tag in image["RepoTags"]]


def read_until(descriptor: int, end: bytes) -> bytes:
    """Read a terminal until `end`, or until no process has it open any more."""
    output = b""
    with contextlib.suppress(OSError):
        while end not in output or not end:
            output += os.read(descriptor, 65536)
    return output


@pytest.fixture(scope="module")
def engine(engine_name: str) -> Iterator[engines.Engine]:
    with engines.Engine(engine_name) as engine:
        yield engine


@pytest.mark.once
@pytest.mark.parametrize(("script", "cause", "status"), [way[1:] for way in WAYS_OUT], ids=[way[0] for way in WAYS_OUT])
def test_every_way_out_leaves_nothing(script: str, cause: bytes | signal.Signals | None, status: int) -> None:
    """Whatever ends a run, its status is passed on, and no process, mount, directory or open port stays."""
    terminal, ours = pty.openpty()
    command = [*OWN_TERMINAL, *ENGINES_RUN, "docker20", "--", "sh", "-c"]
    with subprocess.Popen(
        [*command, SHOW_STATES + SHOW_ENVIRONMENT + script], stdin=ours, stdout=ours, stderr=ours
    ) as harness:
        os.close(ours)
        *states, name, host, registry, _up = read_until(terminal, b"up\r\n").decode().split()[:6]
        if isinstance(cause, bytes):
            os.write(terminal, cause)
        elif cause is not None:
            harness.send_signal(cause)
        read_until(terminal, b"")  # whoever cleans up has the terminal open until it is done
        assert harness.wait() == status
    os.close(terminal)
    assert name == engines.Engine("docker20").name
    assert len(states) == 2
    assert host in {f"unix://{directory}/docker.sock" for directory in states}
    assert [traces(Path(directory)) for directory in states] == [[], []]
    assert not listens(registry)


@pytest.mark.engine
def test_an_engine_sees_nothing_of_another(engine: engines.Engine) -> None:
    """An image in one private Engine is not in another that runs beside it."""
    import_image(engine, "apart")
    with engines.Engine(engine.name) as other:
        assert other.pid != engine.pid
        assert tags(other) == []
    assert "localhost/box:apart" in tags(engine)


def sigkill_the_daemon_alone(engine: engines.Engine) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        while True:
            ask(engine, "GET", "/_ping")
    engine.kill()


INTERRUPTIONS: dict[str, Callable[[engines.Engine], object]] = {
    "restart": engines.Engine.restart,
    "kill": engines.Engine.kill,
    "SIGKILL": sigkill_the_daemon_alone,
}


@pytest.mark.engine
@pytest.mark.parametrize("interrupt", INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys())
def test_images_outlive_the_daemon(engine: engines.Engine, interrupt: Callable[[engines.Engine], object]) -> None:
    """After a restart, or a kill and a start, an Engine has its address and its images, and a new process."""
    import_image(engine, "lasting")
    before = engine.pid, engine.host
    interrupt(engine)
    with contextlib.suppress(engines.EngineError):  # restart has started it
        engine.start()
    assert "localhost/box:lasting" in tags(engine)
    assert (engine.pid != before[0], engine.host) == (True, before[1])


@pytest.mark.engine
def test_a_paused_engine_is_silent(engine: engines.Engine) -> None:
    """Between pause and resume an Engine accepts connections and answers nothing."""
    engine.pause()
    with pytest.raises(TimeoutError):
        ask(engine, "GET", "/_ping", timeout=0.2)
    engine.resume()
    assert ask(engine, "GET", "/_ping") == b"OK"


@pytest.mark.once
def test_a_daemon_that_cannot_start_says_why() -> None:
    """The tail of the daemon's log is in the error, and what it had written is removed."""
    broken = engines.Engine(config={"storage-driver": "no-such-driver"})
    with pytest.raises(engines.EngineError, match="no-such-driver"), broken:
        pass
    assert traces(broken.state) == []


def test_auto_starts_nothing_where_the_environment_names_both() -> None:
    """With DOCKER_HOST and REGISTRY set, `run auto` only runs the command, whose environment says the same."""
    environment = {**os.environ, "ENGINE": "", "DOCKER_HOST": "unix:///there.sock", "REGISTRY": "there:5000"}
    script = SHOW_STATES + SHOW_ENVIRONMENT
    command = [*ENGINES_RUN, "auto", "--", "sh", "-c", script]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.split() == ["unix:///there.sock", "there:5000", "up"]


MISSING: dict[str, tuple[str, int, list[str], tuple[str, list[str]]]] = {
    "root": ("", 1000, ["run", "auto"], ("needs root", ["sudo make demo", "sudo make test", "DOCKER_HOST="])),
    "apt for make demo": ("", 0, ["run", "auto"], ("docker.io", ["DOCKER_HOST=", "REGISTRY="])),
    "apt for the registry": ("unix:///there.sock", 1000, ["run", "auto"], ("docker-registry", ["REGISTRY="])),
    "apt for make test": ("unix:///there.sock", 1000, ["prepare", "docker20"], ("docker.io", ["make unit"])),
}


@pytest.mark.parametrize(("docker_host", "user", "action", "words"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_said_in_two_lines(
    docker_host: str,
    user: int,
    action: list[str],
    words: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The first line says what is missing, the second what to type; the status is 1."""
    monkeypatch.delenv("REGISTRY", raising=False)
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    monkeypatch.setenv("ENGINES_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(state, "STATE_PARENT", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert main([*action, *(["--", "true"] * (action[0] == "run"))]) == 1
    first, second = capfd.readouterr().err.splitlines()
    assert words[0] in first
    assert [word for word in words[1] if word not in second] == []


APT_GET = """#!/bin/sh
case "$*" in
*update) echo x >>"$UPDATES" ;;
*download*) [ "$(wc -l <"$UPDATES")" -ge "$ENOUGH" ] || { echo "E: no such file" >&2; exit 100; }; >busybox.deb ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/bin" && cp "$2" "$3/bin/busybox"
"""


@pytest.fixture
def updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an apt-get in front whose downloads fail until it updated $ENOUGH times; return its record."""
    updates = tmp_path / "updates"
    updates.touch()
    for name, script in (("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
        program = tmp_path / name
        program.write_text(script)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("UPDATES", str(updates))
    monkeypatch.setenv("ENGINES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", Mock())
    return updates


@pytest.mark.parametrize("enough", [0, 1, 2], ids=["at-once", "old-package-lists", "mirror-away-for-a-moment"])
def test_a_download_is_tried_again(enough: int, updates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Package lists are updated only if a download fails, and what is unpacked is there to stay."""
    monkeypatch.setenv("ENOUGH", str(enough))
    assert engines.busybox().exists()
    monkeypatch.setenv("PATH", "")
    assert engines.busybox().exists()
    assert len(updates.read_text().split()) == enough


def test_a_download_that_never_works_gives_apts_reason(updates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries apt's own last words, and nothing that looks unpacked is left."""
    monkeypatch.setenv("ENOUGH", "100")
    with pytest.raises(engines.EngineError, match="E: no such file"):
        engines.busybox()
    assert updates.read_text()
    assert not list(updates.parent.glob("cache/*/tools"))


APT_SOURCES = """#!/bin/sh
case "$*" in
*indextargets*) printf '%s' "$TARGETS"; exit ;;
esac
for argument; do
  case "$argument" in --option=Dir::Etc::SourceList=*) cp "${argument##*=}" "$SOURCES" ;; esac
done
case "$*" in *download*) >busybox.deb ;; esac
"""
TARGETS: dict[str, tuple[str, str]] = {
    "by codename": ("http://a/debian/ {} main\n", "http://a/debian/"),
    "by alias": ("http://a/debian/ stable main\n", "http://a/debian/"),
    "several mirrors": ("http://a/ {} main\nhttp://a/ {} main\nhttp://b/ {} main\n", "http://a/ http://b/"),
    "other archives besides": (
        "http://s/ {}-security main\nhttp://t/ {} stable\nhttp://a/ {} main\nhttp://u/ {}-updates main\n",
        "http://a/",
    ),
}


@pytest.fixture
def sources(updates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an apt-get in front that says $TARGETS of the machine's sources; return where it leaves those it is given."""
    (tmp_path / "apt-get").write_text(APT_SOURCES)
    monkeypatch.setenv("SOURCES", str(tmp_path / "sources"))
    return tmp_path / "sources"


@pytest.mark.parametrize(("targets", "mirrors"), TARGETS.values(), ids=TARGETS)
def test_another_release_comes_from_the_machines_own_mirror(
    targets: str, mirrors: str, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what Debian did not sign is not accepted."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    monkeypatch.setenv("TARGETS", targets.replace("{}", codename))
    unpacked = packages.unpacked("box", ["box"], "", suite="forky", whole=False)
    assert (unpacked / "bin/busybox").exists()
    fields = dict(line.split(": ", 1) for line in sources.read_text().splitlines())
    assert (fields["URIs"], fields["Suites"]) == (mirrors, "forky")
    assert fields["Signed-By"] == str(packages.DEBIAN_KEYRING)


def test_a_machine_without_a_mirror_of_debian_is_told_so(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGETS", "http://u/ubuntu noble main\n")
    with pytest.raises(engines.EngineError, match="no mirror of Debian.*\ntype this"):
        packages.unpacked("box", ["box"], "type this", suite="forky", whole=False)
    assert not sources.exists()


GO_APT_GET = """#!/bin/sh
case "$*" in
*indextargets*) printf '%s' "$TARGETS" ;;
*--simulate*) echo "Inst golang-go (2:1.27~1 Debian:testing [amd64])" ;;
*download*) >golang.deb ;;
esac
"""
# The compiler that it unpacks notes its runs, and a program is its source.
GO_DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/lib/go/bin"
cat >"$3/usr/lib/go/bin/go" <<END
#!/bin/sh
echo x >>"$UPDATES"
if grep broken "\\$5" >&2; then exit 1; fi
cp "\\$5" "\\$4"
END
chmod +x "$3/usr/lib/go/bin/go"
"""


def test_a_program_in_go_is_built_once_for_each_version_of_its_source(
    updates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its compiler is gone afterwards, and what the compiler complains of is said."""
    for name, script in (("apt-get", GO_APT_GET), ("dpkg-deb", GO_DPKG_DEB)):
        (tmp_path / name).write_text(script)
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    monkeypatch.setenv("TARGETS", f"http://a/debian/ {codename} main\n")
    source, programs = tmp_path / "server.go", set[Path]()
    for text in ("one", "one", "two"):
        source.write_text(text)
        program = golang.built(source, ["golang-some-library-dev"], "")
        assert program.read_text() == text
        programs.add(program)
    assert len(programs) == len(updates.read_text().split()) == 2
    assert {path.name for path in program.parent.iterdir()} == {
        *(path.name for path in programs),
        *("lock", "lists", "build-lock"),
    }
    source.write_text("broken")
    with pytest.raises(engines.EngineError, match=r"Cannot build server\.go: broken"):
        golang.built(source, [], "")


@pytest.mark.parametrize("directory", ["bin", "usr/bin"], ids=["Debian 12", "Debian 13"])
def test_busybox_is_found_where_the_release_has_it(
    directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINES_CACHE", str(tmp_path))
    busybox = packages.unpacked_at("tools") / directory / "busybox"
    busybox.parent.mkdir(parents=True)
    busybox.touch()
    assert engines.busybox() == busybox


def test_an_unknown_engine_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "docker19", "--", "true"])
    assert (
        "no such Engine: docker19; there are docker20, docker26, docker28, docker28c, podman" in capsys.readouterr().err
    )


def test_another_python_runs_with_what_is_unpacked_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its path is all that is printed, and by it, its own dynamic linker runs it. Here, echo stands for it."""
    monkeypatch.setenv("ENGINES_CACHE", str(tmp_path))
    root = packages.unpacked_at("python3.99", "forky")
    linker = next(Path("/lib").glob("*/ld-linux*.so.*"))
    for link, target in {
        "usr/bin/python3.99": Path("/bin/echo"),
        f"lib/{linker.parent.name}/{linker.name}": linker,
    }.items():
        (root / link).parent.mkdir(parents=True)
        (root / link).symlink_to(target)
    assert main(["python", "3.99"]) == 0
    path = capsys.readouterr().out.removesuffix("\n")
    assert Path(path).is_relative_to(root)
    assert subprocess.run([path, "-m", "venv"], capture_output=True, text=True, check=True).stdout == "-m venv\n"
    assert str(root / "lib" / linker.parent.name / linker.name) in Path(path).read_text()


@pytest.mark.parametrize("versions", [[], ["3"], ["3.14", "3.15"], ["docker28"], ["3.15/../x"]])
def test_another_python_is_named_by_one_version(versions: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["python", *versions])
    assert "python needs one VERSION, as in: python 3.15" in capsys.readouterr().err


RELEASES = {"bookworm": "docker20", "trixie": "docker26", "forky": "docker28", "noble": "docker20"}


@pytest.mark.parametrize(("release", "name"), RELEASES.items())
def test_the_machines_own_docker_goes_by_the_name_of_its_release(
    release: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"VERSION_CODENAME": release})
    assert engines.Engine("docker20").name == name
    assert [engines.Engine(other).name for other in ("docker26", "docker28c", "podman")] == [
        "docker26",
        "docker28c",
        "podman",
    ]


def test_podman_takes_no_configuration_of_dockerd() -> None:
    with pytest.raises(engines.EngineError, match=r"no daemon\.json"):
        engines.Engine("podman", config={"registry-mirrors": []})


def test_what_differs_is_picked_by_the_name_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an Engine, as when tests are collected, the default is right; a name that none has is an error."""
    picked = list[int]()
    for name in ("docker20", "docker28c", "podman"):
        monkeypatch.setenv("ENGINE", name)
        picked.append(by_engine(0, docker28c=1, podman=2))
        assert engine_is("podman", "docker28") == (name == "podman")
    monkeypatch.delenv("ENGINE")
    picked.append(by_engine(0, docker28c=1))
    assert picked == [0, 1, 2, 0]
    with pytest.raises(ValueError, match="docker19"):
        by_engine(0, docker19=1)


def test_a_sweep_takes_what_has_no_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory that nobody holds goes, with the processes that carry its mark; a held one stays."""
    monkeypatch.setattr(state, "STATE_PARENT", tmp_path)
    left, held = tmp_path / "adi-left", tmp_path / "adi-held"
    left.mkdir()
    lock = state.claim(held)
    processes = [
        subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], state.STATE_MARK: str(directory)})
        for directory in (left, held)
    ]
    state.sweep()
    assert (processes[0].wait(), processes[1].poll()) == (-signal.SIGKILL, None)
    assert list(tmp_path.iterdir()) == [held]
    os.close(lock)
    state.sweep()
    assert processes[1].wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []

"""The command line: run a command with a private Engine and a registry, or only fetch what they need."""

# ruff: noqa: S603, S607 - to run programs found on PATH is what this package is for

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from .daemons import Engine
from .kinds import DEFAULT, ENGINES, prepare, python
from .registries import Registry
from .state import EngineError

USAGE = "python3 -m engines run NAME [--no-registry] -- COMMAND... | prepare NAME... | list | python VERSION"


def _run(name: str, command: Sequence[str], *, registry: bool = True) -> int:
    """Run the command with an Engine and a registry, end them, and return the command's exit status.

    By the name `auto`, only what DOCKER_HOST and REGISTRY do not name is started. ENGINE is a private Engine's kind.
    """
    environment = dict(os.environ)
    given = {variable for variable in ("DOCKER_HOST", "REGISTRY") if name == "auto" and environment.get(variable)}
    with contextlib.ExitStack() as daemons:
        if "DOCKER_HOST" not in given:
            engine = daemons.enter_context(Engine(DEFAULT if name == "auto" else name))
            for variable in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"):
                environment.pop(variable, None)  # they are about another Engine
            environment |= {"ENGINE": engine.name, "DOCKER_HOST": engine.host}
        if registry and "REGISTRY" not in given:
            environment["REGISTRY"] = daemons.enter_context(Registry()).address
        return _wait_for(command, environment)


def _wait_for(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command to its end, whatever signal comes; from then on signals wait until all is cleaned up."""
    # setpriv: if we are killed, the command is told to end.
    process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], env=environment)
    endings = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*endings, signal.SIGCHLD})
    while process.poll() is None:
        received = signal.sigwaitinfo({*endings, signal.SIGCHLD})
        # What the terminal sends, it sends to the command too; what another process sends (<= 0), to us alone.
        if received.si_signo in endings and received.si_code <= 0:
            process.send_signal(received.si_signo)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit status."""
    end = [*arguments, "--"].index("--")
    ours, command = arguments[:end], arguments[end + 1 :]
    parser = argparse.ArgumentParser(prog="engines", usage=USAGE)
    parser.add_argument("action", choices=("run", "prepare", "list", "python"))
    parser.add_argument("names", metavar="NAME", nargs="*")
    parser.add_argument("--registry", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(ours)
    names: list[str] = options.names or ["auto"]
    if options.action == "python":
        if len(names) > 1 or not re.fullmatch(r"3\.[0-9]+", names[0]):
            parser.error("python needs one VERSION, as in: python 3.15")
    elif unknown := set(names) - {*ENGINES, "auto"}:
        parser.error(f"no such Engine: {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    if (options.action == "run") != bool(command) or (command and len(names) > 1):
        parser.error("run needs one NAME and a COMMAND after --, and nothing else takes a COMMAND")
    try:
        if options.action == "run":
            return _run(names[0], command, registry=options.registry)
        if options.action == "prepare":
            for name in names:
                prepare(DEFAULT if name == "auto" else name)
        if options.action == "python":
            sys.stdout.write(f"{python(names[0])}\n")
        if options.action == "list":
            sys.stdout.writelines(f"{spec.name:12}{spec.what}\n" for spec in ENGINES.values())
    except (EngineError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

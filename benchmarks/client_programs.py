"""curl and the docker CLI as contestants: the whole life of their process counts."""

from __future__ import annotations

import os

from .job import Job, Meter

CURL = "/usr/bin/curl"
API = "http://localhost/v1.41"


def curl_save_file(job: Job, meter: Meter) -> None:
    """Save to a path."""
    run_program(meter, [CURL, *_options(job), "-o", job.path, f"{API}/images/{job.reference}/get"])


def curl_save_nowhere(job: Job, meter: Meter) -> None:
    """Save to /dev/null."""
    curl_save_file(job._replace(path="/dev/null"), meter)


def curl_load_file(job: Job, meter: Meter) -> None:
    """Load from a path."""
    headers = ["-H", "Content-Type: application/x-tar"]
    command = [*_options(job), "-o", "/dev/null", "-X", "POST", *headers, "-T", job.path]
    run_program(meter, [CURL, *command, f"{API}/images/load?{job.reference}"])


def curl_load_iterable(job: Job, meter: Meter) -> None:
    """Load from a path: it knows no iterables."""
    curl_load_file(job, meter)


def docker_save_file(job: Job, meter: Meter) -> None:
    """Save to a path."""
    _docker(job, meter, "save", "-o", job.path, job.reference)


def docker_save_nowhere(job: Job, meter: Meter) -> None:
    """Save to standard output."""
    _docker(job, meter, "save", job.reference)


def docker_load_file(job: Job, meter: Meter) -> None:
    """Load from a path."""
    _docker(job, meter, "load", "-i", job.path)


def _options(job: Job) -> list[str]:
    return ["-sS", "--fail", "--unix-socket", job.socket]


def _docker(job: Job, meter: Meter, *arguments: str) -> None:
    os.environ.clear()
    os.environ |= {"DOCKER_HOST": f"unix://{job.socket}", "DOCKER_CONFIG": "/nonexistent", "HOME": "/nonexistent"}
    run_program(meter, [job.program, *arguments])


def run_program(meter: Meter, command: list[str]) -> None:
    """Run a program; what it has waited for counts as well."""
    null = os.open("/dev/null", os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, descriptor) for descriptor in (0, 1)]
    with meter:
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise ChildProcessError(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    meter.cpu = usage.ru_utime + usage.ru_stime
    # The most that is known: it counts what this process had when it started the program.
    meter.notes["peak"] = meter.notes["growth"] = usage.ru_maxrss / 1024

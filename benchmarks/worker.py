"""The process of one contestant: does one job and prints, in JSON, what it cost.

python -m benchmarks.worker CONTESTANT JOB
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys

from .job import Job, Meter

MODULES = {
    "ours": "client_ours",
    "ours+uvloop": "client_ours",
    "ours+checksum": "client_ours",
    "aiodocker": "client_aiodocker",
    "docker-py": "client_dockerpy",
    "docker CLI": "client_programs",
    "curl": "client_programs",
    "bare": "client_bare",
    "bare+uvloop": "client_bare",
    "limit": "client_limit",
    "registries": "client_registries",
}


def main(contestant: str, words: str) -> None:
    """Do the job."""
    job = Job(**json.loads(words))
    module = importlib.import_module(f".{MODULES[contestant]}", __package__)
    run = getattr(module, f"{contestant.partition(' ')[0]}_{job.what}", None) or getattr(module, job.what)
    meter = Meter()
    if contestant == "ours+checksum":
        job = job._replace(what="checksum")
    if inspect.iscoroutinefunction(run):
        if contestant.endswith("+uvloop"):
            importlib.import_module("uvloop").run(run(job, meter))
        else:
            asyncio.run(run(job, meter))
    else:
        run(job, meter)
    sys.stdout.write(json.dumps(meter.report()))


if __name__ == "__main__":
    main(*sys.argv[1:3])

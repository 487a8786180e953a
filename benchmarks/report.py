"""The results as Markdown: a table of all rows, and one of what was aimed at."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from .harness import PYTHON, ROOT, Results, Row

COPIERS = ("skopeo 1.9", "skopeo 1.22", "crane", "oras", "aioregistry")
OURS = "this library"
OURS_RUNNING = "this library, running already"
"""Contestants that copy between registries."""

Measured = Sequence[tuple[Row, dict[str, Results]]]
HEAD = (
    "| work | contestant | seconds | × reference (lowest to highest) | rate | client CPU s | peak MiB | growth MiB | |"
)


def table(measured: Measured) -> str:
    """Return all rows as a table."""
    lines = [HEAD, "|---|---|---|---|---|---|---|---|---|"]
    for row, results in measured:
        reference = results[row.reference]
        for number, (contestant, kept) in enumerate(results.items()):
            seconds = kept.median("seconds")
            middle, low, high = kept.ratio(reference)
            ratio = "1" if kept is reference else f"{middle:.2f} ({low:.2f} to {high:.2f})"
            rate = f"{row.amount / seconds:,.0f} {row.unit}" if row.amount else ""
            notes = "; ".join(
                form.format(kept.median(note)) for note, form in row.shown.items() if note in kept.runs[0]
            )
            cells = (
                row.title if number == 0 else "",
                contestant,
                f"{seconds:.3g}",
                ratio,
                rate,
                f"{kept.median('cpu'):.3g}",
                f"{kept.median('peak'):.0f}",
                f"{kept.median('growth'):.1f}",
                notes,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Target:
    """What is aimed at: a value of the results at most, or with `least` at least, `bound`."""

    title: str
    bound: float
    value: Callable[[Mapping[str, dict[str, Results]]], float]
    least: bool = False

    def line(self, results: Mapping[str, dict[str, Results]]) -> str | None:
        """Return its line of the table; None if what it is about was not measured."""
        try:
            value = self.value(results)
        except KeyError:
            return None
        met = value >= self.bound if self.least else value <= self.bound
        return (
            f"| {self.title} | {'≥' if self.least else '≤'} {self.bound:g} | {value:.2f} | {'yes' if met else 'no'} |"
        )


def _ratio(
    row: str, one: str, other: str, what: str = "seconds"
) -> Callable[[Mapping[str, dict[str, Results]]], float]:
    return lambda results: results[row][one].ratio(results[row][other], what)[0]


def _growth(results: Mapping[str, dict[str, Results]]) -> float:
    rows = [each["ours"].median("growth") for key, each in results.items() if key.startswith("10g-")]
    if not rows:
        raise KeyError("10g")
    return max(rows)


def _linear(results: Mapping[str, dict[str, Results]]) -> float:
    large, small = results["large-5120"]["ours"], results["large-1280"]["ours"]
    return large.ratio(small)[0] / 4


def _share(results: Mapping[str, dict[str, Results]]) -> float:
    ours = results["registry"]["ours"]
    return 100 * ours.median("cpu") / (ours.median("cpu") + ours.median("daemons"))


def _fastest(row: str, one: str) -> Callable[[Mapping[str, dict[str, Results]]], float]:
    """Return the ratio of the seconds to those of the fastest peer."""
    return lambda results: (
        results[row][one].median("seconds") / min(results[row][peer].median("seconds") for peer in COPIERS)
    )


ENGINES = ("docker20", "docker26", "docker28", "docker28c", "podman")
TARGETS = (
    Target("1. save to a path, time × curl -o", 1.0, _ratio("save", "ours", "curl")),
    Target("1. save to a path, time × the docker CLI", 1.0, _ratio("save", "ours", "docker CLI")),
    Target("1. save_stream, time × curl", 1.5, _ratio("stream", "ours", "curl")),
    Target("1. save_stream, speed × aiodocker", 2, _ratio("stream", "aiodocker", "ours"), least=True),
    Target("2. load from a path, time × curl -T", 0.2, _ratio("load", "ours", "curl")),
    Target(
        "2. the same, where curl waits a second in vain for its 100 Continue", 0.2, _ratio("unheard", "ours", "curl")
    ),
    Target("2. load from a path, speed × the docker CLI", 3, _ratio("load", "docker CLI", "ours"), least=True),
    Target("2. load from a path, speed × aiodocker", 7, _ratio("load", "aiodocker", "ours"), least=True),
    Target("2. load from an async iterable, time × curl -T", 0.5, _ratio("iterable", "ours", "curl")),
    *(
        target
        for name in ENGINES
        for target in (
            Target(f"2. {name}: load, time × the docker CLI", 0.9, _ratio(f"{name}-load", "ours", "docker CLI")),
            Target(f"2. {name}: load, CPU × the docker CLI", 0.5, _ratio(f"{name}-load", "ours", "docker CLI", "cpu")),
            Target(f"2. {name}: save, time × the docker CLI", 1.0, _ratio(f"{name}-save", "ours", "docker CLI")),
            Target(f"2. {name}: save, CPU × the docker CLI", 1.0, _ratio(f"{name}-save", "ours", "docker CLI", "cpu")),
        )
    ),
    Target("3. frames in chunks of their own, speed × aiodocker", 3, _ratio("each", "aiodocker", "ours"), least=True),
    Target("3. frames in chunks of their own, speed × docker-py", 3, _ratio("each", "docker-py", "ours"), least=True),
    Target("3. frames in chunks of 64 KiB, speed × aiodocker", 7, _ratio("packed", "aiodocker", "ours"), least=True),
    Target("3. frames in chunks of 64 KiB, speed × docker-py", 7, _ratio("packed", "docker-py", "ours"), least=True),
    Target("3. a frame of 5 MiB, time for each byte × one of a fourth", 1.5, _linear),
    Target(
        "4. inspect during 1,000 pulls, time × idle",
        5,
        lambda results: results["pulls"]["ours"].median("busy") / results["pulls"]["ours"].median("idle"),
    ),
    Target("4. KiB for each open stream", 100, lambda results: results["pulls"]["ours"].median("stream_kib")),
    *(
        target
        for what in ("inspect", "list", "ping")
        for concurrency, how in ((1, "one after the other"), (50, "50 at once"))
        for target in (
            Target(f"5. {what}, {how}, time × bare aiohttp", 1.15, _ratio(f"{what}-{concurrency}", "ours", "bare")),
            Target(
                f"5. {what}, {how}, speed × docker-py",
                2,
                _ratio(f"{what}-{concurrency}", "docker-py", "ours"),
                least=True,
            ),
        )
    ),
    Target("5. list of 1,000, CPU of aiodocker × ours", 3, _ratio("list-1000", "aiodocker", "ours", "cpu"), least=True),
    Target("6. the most that memory grew over 10 GiB, MiB", 16, _growth),
    Target("7. import, time × import aiohttp", 1.15, _ratio("import", "aiodocker_images", "aiohttp")),
    Target("8. 32 pulls from a registry, the client's share of all CPU, %", 5, _share),
    Target("8. 32 pulls from a registry, CPU × aiodocker", 1, _ratio("registry", "ours", "aiodocker", "cpu")),
    Target("8. 32 pulls from a registry, CPU × docker-py", 1, _ratio("registry", "ours", "docker-py", "cpu")),
    *(
        target
        for who, how in ((OURS, ""), (OURS_RUNNING, ", running already"))
        for target in (
            Target(
                f"9. copy 1 GiB in one layer{how}, time × curl to curl",
                1.02,
                _ratio("registries-blob", who, "curl to curl"),
            ),
            Target(f"9. copy 1 GiB in one layer{how}, CPU × crane", 1, _ratio("registries-blob", who, "crane", "cpu")),
            Target(f"9. copy 20 images{how}, time × the fastest peer", 1, _fastest("registries-twenty", who)),
            Target(f"9. copy 20 images{how}, CPU × crane", 1, _ratio("registries-twenty", who, "crane", "cpu")),
            Target(f"9. copy 200 small images{how}, time × the fastest peer", 0.5, _fastest("registries-small", who)),
            Target(f"9. the same again{how}, time × the fastest peer", 0.5, _fastest("registries-small-again", who)),
        )
    ),
    Target(
        "9. copy 20 images, MiB down × what is missing", 1.01, _ratio("registries-twenty", OURS, "curl to curl", "down")
    ),
)


def targets(measured: Measured) -> str:
    """Return what was aimed at, and what came of it, as far as it was measured."""
    results = {row.key: results for row, results in measured}
    lines = [line for target in TARGETS if (line := target.line(results)) is not None]
    return "\n".join(["| target | bound | measured | met |", "|---|---|---|---|", *lines])


def machine() -> str:
    """Return the machine, Python and this version."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", info)
    cores = info.count("processor\t")
    return (
        f"{cores} cores ({model[1] if model else platform.machine()}), Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, aiodocker-images {version('aiodocker-images')}"
    )


def circumstances(rounds: int, cli: str) -> str:
    """Return the machine and the versions."""
    freeze = [str(PYTHON), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    installed = dict(line.split("==") for line in _output(freeze).split() if "==" in line)
    names = ("aiohttp", "yarl", "msgspec", "uvloop", "aiodocker", "docker", "requests", "urllib3")
    versions = ", ".join(f"{name} {installed[name]}" for name in names if name in installed)
    curl = _output(["curl", "--version"]).split()[1]
    return (
        f"{machine()}, {versions}, curl {curl}, "
        f"docker CLI {_output([cli, '--version']).split()[2].rstrip(',')}. {rounds} rounds at most, by turns; medians."
    )


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

"""The oldest versions that pyproject.toml allows, as constraints of pip: `python -m tests.support.minima`.

What is not named there, such as what a dependency depends on, keeps its version in constraints.txt.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def minima(requirements: Iterable[str], own_name: str) -> Iterator[str]:
    """Give "name==version" for each requirement but those on the project itself, by which extras include others.

    Raises ValueError for a requirement without a minimum.
    """
    for requirement in map(Requirement, requirements):
        if canonicalize_name(requirement.name) == own_name:
            continue
        versions = [each.version for each in requirement.specifier if each.operator == ">="]
        if len(versions) != 1:
            raise ValueError(f"{requirement} does not say from which version on")
        yield f"{canonicalize_name(requirement.name)}=={versions[0]}"


def constraints(root: Path = ROOT) -> list[str]:
    """Return the lines of a file of constraints."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    declared = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    oldest = set(minima(declared, canonicalize_name(project["name"])))
    names = {line.partition("==")[0] for line in oldest}
    pinned = (root / "constraints.txt").read_text().split()
    return sorted(oldest) + [line for line in pinned if canonicalize_name(line.partition("==")[0]) not in names]


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in constraints())

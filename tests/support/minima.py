"""The oldest versions that pyproject.toml allows, as constraints of pip: `python -m tests.support.minima`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


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


def constraints(pyproject: str) -> list[str]:
    """Return the lines of a file of constraints: what the package, its extras and its tests need."""
    project = tomllib.loads(pyproject)["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    declared = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    return sorted(set(minima(declared, canonicalize_name(project["name"]))))


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in constraints(PYPROJECT.read_text()))

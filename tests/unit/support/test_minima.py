"""The constraints by which the tests run on the oldest versions that are allowed."""

import pytest
from packaging.requirements import Requirement

from tests.support.minima import PYPROJECT, constraints

DECLARED = """
[project]
name = "some-thing"
dependencies = ["Aio_HTTP>=3.12.8,<4"]
[project.optional-dependencies]
cli = ["rich[jupyter]>=13.7,<16; python_version < '4'"]
dev = ["some-thing[cli]", "pytest>=8.3", "rich>=13.7"]
"""


def test_every_dependency_has_its_minimum_and_the_project_has_none() -> None:
    assert constraints(DECLARED) == ["aio-http==3.12.8", "pytest==8.3", "rich==13.7"]


@pytest.mark.parametrize("requirement", ["pytest", "pytest<9", "pytest==8.3"])
def test_a_dependency_without_a_minimum_is_an_error(requirement: str) -> None:
    with pytest.raises(ValueError, match=f"{requirement} does not say from which version on"):
        constraints(DECLARED.replace("pytest>=8.3", requirement))


def test_every_dependency_of_this_project_has_a_minimum() -> None:
    names = {Requirement(line).name for line in constraints(PYPROJECT.read_text())}
    assert names >= {"aiohttp", "msgspec", "yarl", "rich", "pytest"}

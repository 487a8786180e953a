"""The package itself: what its import brings, and what it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aiodocker_images

EXTRAS = ("rich", "uvloop")


def imported(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has after the code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("name", [*aiodocker_images.__all__, "errors", "service"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(aiodocker_images, name) is not None
    assert name in dir(aiodocker_images) or name in {"errors", "service"}


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="'aiodocker_images' has no attribute 'no_such_name'"):
        _ = aiodocker_images.no_such_name  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]  # the point


def test_a_public_name_is_imported_with_what_it_needs_alone() -> None:
    """Not even aiohttp for a reference."""
    modules = imported("from aiodocker_images import Reference")
    assert "aiodocker_images.reference" in modules
    assert not modules & {"aiohttp", "msgspec", "asyncio"}


def test_the_service_brings_nothing_that_an_extra_brings() -> None:
    modules = imported("from aiodocker_images import *")
    assert "aiohttp" in modules
    assert not modules & set(EXTRAS)

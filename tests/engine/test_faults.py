"""Each operation under every fault on a real Engine: a whole result or our exception, and nothing is left anywhere."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.conftest import Leftovers
from tests.support.fault_matrix import run_matrix

pytestmark = pytest.mark.engine

SEED = int(os.environ.get("SEED", "1"))


async def test_every_operation_under_every_fault(
    engine_name: str, engine_host: str, registry: str, short_path: Path, leftovers: Leftovers
) -> None:
    """One random byte for each operation, direction and kind of fault; `make torture` goes on with more of them."""
    before = leftovers.now()
    assert await run_matrix(engine_name, engine_host, registry, short_path, random.Random(SEED)) == []
    await leftovers.settle(before)

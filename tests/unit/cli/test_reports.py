"""What is written of jobs where nothing can be drawn."""

from __future__ import annotations

import pytest

from aiodocker_images import ProgressFrame
from aiodocker_images.cli.jobs import Job
from aiodocker_images.cli.reports import MAX_TOLD, PlainReport


def test_a_step_is_reported_once_and_remembered_layers_are_bounded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report, job = PlainReport(several=False), Job("app:1", "Pulling")

    def lines_of(layer: str) -> list[str]:
        report.frame(job, ProgressFrame(id=layer, status="Waiting"))
        return capsys.readouterr().err.splitlines()

    assert lines_of("a") == ["a: Waiting"]
    assert lines_of("a") == []
    for number in range(MAX_TOLD):
        lines_of(str(number))
    assert lines_of("a") == ["a: Waiting"]

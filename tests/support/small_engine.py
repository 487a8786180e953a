"""An Engine whose disk is soon full."""

from __future__ import annotations

import subprocess

import engines


class SmallEngine(engines.Engine):
    """An Engine whose data are on a file system of 64 MiB."""

    def _launch(self) -> None:
        self.data_root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.data_root], check=True)
        super()._launch()

"""The way in of `aiodocker-images` and `python -m aiodocker_images`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        # Here and not above, for all that can go wrong before the first line of it runs.
        from .cli import main as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        os.write(2, b"aiodocker-images: the command line is an extra: pip install 'aiodocker-images[cli]'\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""The way in of `aiodocker-images` and `python -m aiodocker_images`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # While there is nothing to clean up, Ctrl-C ends the program at once: an exception would come up in the middle of
    # some import, or of Python's own end. Who ignores it, as nohup does, ignores it still.
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        # Here and not above, for all that can go wrong before the first line of it runs.
        from .cli import main as run  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        os.write(2, b"aiodocker-images: the command line is an extra: pip install 'aiodocker-images[cli]'\n")
        return 1
    try:
        if raises:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run(arguments)
        if raises:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:  # before the first line of `run`, or after its last
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())

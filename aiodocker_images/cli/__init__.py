"""The command line, `aiodocker-images`: on the public methods of `ImageService` alone. Needs the extra `cli`."""

from .app import main

__all__ = ["main"]

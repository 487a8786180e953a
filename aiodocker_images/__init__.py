"""An asyncio-native client for the image part of the Docker Engine API.

    async with ImageService() as images:
        result = await images.pull("alpine:3.20")
        async for frame in images.pull_stream("alpine:3.20"):
            ...

`ImageService` has a coroutine for every operation, and for the long ones a `*_stream` twin, an async generator of
progress frames or of bytes. Every failure is a `DockerError`; `aiodocker_images.errors` draws the family.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from ._version import __version__ as __version__

# The modules that users' names come from; `__all__` of each has these names and no others. From the least to import to
# the most: whoever wants a `Reference` does not wait for aiohttp. Checkers and editors read the imports below, which
# name the same modules.
_HOMES = (
    "errors",
    "reference",
    "models",
    "progress",
    "results",
    "_retry",
    "api_version",
    "buildkit",
    "credentials",
    "_dockercli.keychain",
    "endpoint",
    "_encoding",
    "_archive.streams",
    "_api.build_options",
    "_api.events",
    "service",
    "shared_pulls",
    "_distribution.config",
    "_distribution.results",
    "_distribution.manifests",
    "_distribution.tag_selection",
    "_distribution.layouts",
    "_distribution.docker_archive",
    "_distribution.service",
    "_mirror",
)

if TYPE_CHECKING:
    from ._api.build_options import *
    from ._api.events import *
    from ._archive.streams import *
    from ._distribution.config import *
    from ._distribution.docker_archive import *
    from ._distribution.layouts import *
    from ._distribution.manifests import *
    from ._distribution.results import *
    from ._distribution.service import *
    from ._distribution.tag_selection import *
    from ._dockercli.keychain import *
    from ._encoding import *
    from ._mirror import *
    from ._retry import *
    from .api_version import *
    from .buildkit import *
    from .credentials import *
    from .endpoint import *
    from .errors import *
    from .models import *
    from .progress import *
    from .reference import *
    from .results import *
    from .service import *
    from .shared_pulls import *
else:

    def __getattr__(name: str) -> object:
        """Import what is asked for: a public name, all of them (`__all__`), or a module of public names."""
        if name == "__all__":
            found = sorted({"__version__", *(each for home in _HOMES for each in _home(home).__all__)})
        elif name in _HOMES:
            return _home(name)
        elif name.startswith("_"):  # nothing public does: what asks for `__wrapped__` imports nothing
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            found = _find(name)
        globals()[name] = found
        return found

    def _find(name: str) -> object:
        for home in _HOMES:
            module = _home(home)
            if name in module.__all__:
                return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def _home(home: str) -> object:
        return _import_module(f".{home}", __name__)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})

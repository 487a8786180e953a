"""A testing kit for those who build on images: a registry in the test's own process, and faults by name.

    from aiodocker_images.testing import Fault, FakeRegistry, index

    async with FakeRegistry() as registry:
        registry.put("app:1.0", index())
        registry.fail(Fault.refuse(429, retry_after=1), on="GET manifest", times=2)
        ...

With pytest, the fixture `fake_registry` is there without any configuration. Nothing here needs pytest or aiohttp.
"""

from importlib import import_module

# typing's, for checkers alone: pytest imports this package with the plugin whether or not a test uses it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._server import Request
    from ._store import StoredManifest, Upload
    from .auth import BasicAuth, Grant, TokenAuth
    from .behaviour import BEHAVIOURS, Behaviour
    from .content import (
        Blob,
        Manifest,
        artifact,
        attestation,
        docker_archive,
        image,
        index,
        layer,
        oci_archive,
        random_bytes,
        tar,
    )
    from .faults import Fault, Injection, NotFakedError
    from .registry import FakeRegistry

__all__ = [
    "BEHAVIOURS",
    "BasicAuth",
    "Behaviour",
    "Blob",
    "FakeRegistry",
    "Fault",
    "Grant",
    "Injection",
    "Manifest",
    "NotFakedError",
    "Request",
    "StoredManifest",
    "TokenAuth",
    "Upload",
    "artifact",
    "attestation",
    "docker_archive",
    "image",
    "index",
    "layer",
    "oci_archive",
    "random_bytes",
    "tar",
]

_HOMES = ("faults", "content", "behaviour", "_store", "_server", "auth", "registry")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name in __all__:
            for home in _HOMES:
                found = vars(import_module(f".{home}", __name__))
                if name in found:
                    globals()[name] = found[name]
                    return found[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

"""A testing kit for those who build on images: an Engine and a registry in the test's own process, and faults by name.

    from aiodocker_images.testing import FakeEngine, FakeRegistry, Fault, index

    async with FakeRegistry() as registry:
        registry.put("app:1.0", index())
        registry.fail(Fault.refuse(429, retry_after=1), on="GET manifest", times=2)
        ...

With pytest, the fixtures `fake_engine`, `images` and `fake_registry` are there without any configuration. Nothing here
needs pytest, and aiohttp is imported for `images` and `MockedResponse` alone.
"""

from importlib import import_module

# typing's, for checkers alone: pytest imports this package with the plugin whether or not a test uses it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._exchange import Request
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
    from .engine import FakeEngine
    from .engine_behaviour import ENGINES, EngineBehaviour
    from .faults import Fault, Injection, NotFakedError
    from .mocked_response import MockedResponse
    from .registry import FakeRegistry

__all__ = [
    "BEHAVIOURS",
    "ENGINES",
    "BasicAuth",
    "Behaviour",
    "Blob",
    "EngineBehaviour",
    "FakeEngine",
    "FakeRegistry",
    "Fault",
    "Grant",
    "Injection",
    "Manifest",
    "MockedResponse",
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

_HOMES = (
    "faults",
    "content",
    "behaviour",
    "_store",
    "_exchange",
    "auth",
    "registry",
    "engine_behaviour",
    "engine",
    "mocked_response",
)

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

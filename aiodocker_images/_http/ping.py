"""The answer to a ping: everything that it says is in its headers."""

from __future__ import annotations

from collections.abc import Mapping

from aiodocker_images.models import Ping

from .refusals import whole_text

__all__ = ["read_ping"]


def read_ping(headers: Mapping[str, str]) -> Ping | None:
    """Return what an Engine says of itself; None if the headers are not those of one."""
    version = headers.get("Api-Version")
    if not version:
        return None
    return Ping(
        api_version=whole_text(version),
        os_type=whole_text(headers.get("Ostype", "")),
        experimental=headers.get("Docker-Experimental", "").lower() == "true",
        builder_version=whole_text(headers.get("Builder-Version", "")),
        swarm=whole_text(headers.get("Swarm", "")),
        server=whole_text(headers.get("Server", "")),
    )

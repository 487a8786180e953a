"""Docker contexts, as the docker CLI writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def write_context(
    directory: Path, name: str, *, files: tuple[str, ...] = (), meta: object = None, **endpoint: object
) -> Path:
    """Write a context as the docker CLI does, and return its meta.json."""
    identity = hashlib.sha256(name.encode()).hexdigest()
    path = directory / "contexts/meta" / identity / "meta.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}} if meta is None else meta
    path.write_text(json.dumps(document))
    secrets = directory / "contexts/tls" / identity / "docker"
    secrets.mkdir(parents=True, exist_ok=True)
    for file in files:
        (secrets / file).touch()
    return path

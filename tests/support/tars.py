"""Tars that tests make of nothing."""

from __future__ import annotations

import io
import os
import secrets
import tarfile
from collections.abc import Mapping


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    """Make a tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def root_file_system(size: int = 1 << 16) -> bytes:
    """Make the tar of a root file system that no other test has: its layer is new to every Engine and registry."""
    return tar_of({"etc/motd": secrets.token_bytes(16), "data": os.urandom(size)})

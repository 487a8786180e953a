"""The configuration of an image, as a registry has it (OCI image specification, "Image Configuration"). Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aiodocker_images._struct import UNDECODABLE
from aiodocker_images.errors import FrameDecodeError
from aiodocker_images.models import HistoryItem, ImageConfig, Platform, RootFS

from .manifests import Manifest
from .results import RegistryImage

__all__ = ["MAX_CONFIG", "read_image", "read_platform"]

MAX_CONFIG: Final = 8 << 20
"""Bytes of an image's configuration; one with thousands of steps in its history has some hundred thousand."""


class _History(msgspec.Struct):
    created: Any = None
    created_by: str | None = None
    comment: str | None = None


class _RootFS(msgspec.Struct):
    type: str | None = None
    diff_ids: tuple[str, ...] | None = None


class _Config(msgspec.Struct):
    """The configuration of an image (OCI image specification, "Image Configuration")."""

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    created: Any = None
    author: str | None = None
    config: ImageConfig | None = None
    rootfs: _RootFS | None = None
    history: tuple[_History, ...] | None = None


_CONFIG: Final = msgspec.json.Decoder(_Config)


def read_platform(body: bytes) -> Platform | None:
    """Return the platform that a configuration names, None if it is not one or names none."""
    try:
        read = _CONFIG.decode(body)
    except UNDECODABLE:
        return None
    return Platform(os=read.os, architecture=read.architecture or "", variant=read.variant or "") if read.os else None


def read_image(top: Manifest, manifest: Manifest, body: bytes, *, who: str) -> RegistryImage:
    """Make what is told of an image from its manifests and the bytes of its configuration."""
    config = manifest.config
    try:
        read = _CONFIG.decode(body)
        platform = Platform(os=read.os or "", architecture=read.architecture or "", variant=read.variant or "")
        return RegistryImage(
            descriptor=top.descriptor,
            platforms=top.platforms or ((platform,) if platform.os else ()),
            manifest=manifest.descriptor,
            id=config.digest if config is not None else "",
            os=platform.os,
            architecture=platform.architecture,
            variant=platform.variant,
            created=read.created,
            author=read.author or "",
            config=read.config,
            root_fs=RootFS(type=read.rootfs.type or "", layers=read.rootfs.diff_ids or ()) if read.rootfs else None,
            history=tuple(
                HistoryItem(created=each.created, created_by=each.created_by or "", comment=each.comment or "")
                for each in read.history or ()
            ),
        )
    except UNDECODABLE as error:
        failure = FrameDecodeError(f"the configuration of {who}@{manifest.digest} is not what it should be: {error}")
    raise failure

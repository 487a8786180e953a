"""Operations on several images are complete only when the Engine has named each: a proxy may end a cut politely."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aiodocker_images import ImageService, LoadResult, StreamInterruptedError
from tests.support.scripted import Exchange, ScriptedDaemon
from tests.unit.archive.test_image_names import TWO, archive

DIGEST = "sha256:" + "1a" * 32

NAMES = [{"stream": f"Loaded image: {name}\n"} for name in ("a:1", "a:2", "b:1")]


def loads(*frames: object) -> Callable[[Exchange], Awaitable[None]]:
    async def load(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.head()
        await exchange.frames(*frames)
        await exchange.end()

    return load


@pytest.mark.parametrize("form", ["bytes", "path"])
@pytest.mark.parametrize("told", range(4))
async def test_a_load_is_not_complete_until_every_image_is_named(
    daemon: ScriptedDaemon, images: ImageService, tmp_path: Path, form: str, told: int
) -> None:
    source: bytes | Path = archive(TWO)
    if form == "path":
        (tmp_path / "x.tar").write_bytes(archive(TWO))
        source = tmp_path / "x.tar"
    daemon.on("POST", "/images/load", loads(*NAMES[:told]))
    if told == 3:
        assert await images.load(source) == LoadResult(references=("a:1", "a:2", "b:1"))
        return
    with pytest.raises(StreamInterruptedError, match=f" {told} of the 3 images of the archive"):
        await images.load(source)
    await images.aclose()  # it keeps the connection for the next call: the answer had an end
    await daemon.idle()


async def test_a_push_of_all_tags_that_does_not_name_each_is_not_complete(
    daemon: ScriptedDaemon, images: ImageService
) -> None:
    async def push(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames(
            {"status": "1: digest: " + DIGEST + " size: 528"},
            {"aux": {"Tag": "1", "Digest": DIGEST, "Size": 528}},
        )
        await exchange.end()

    async def listed(exchange: Exchange) -> None:
        await exchange.answer_json(
            [
                {"Id": DIGEST, "RepoTags": ["localhost:5000/app:1", "localhost:5000/app:2"]},
                {"Id": DIGEST, "RepoTags": ["localhost:5000/app:3", "other/localhost:5000/app:4", "<none>:<none>"]},
                {"Id": DIGEST, "RepoTags": None},
            ]
        )

    daemon.on("POST", "/images/localhost:5000/app/push", push)
    daemon.on("GET", "/images/json", listed)
    with pytest.raises(StreamInterruptedError, match="does not name 2, 3$|does not name 2, 3 "):
        await images.push("localhost:5000/app", all_tags=True)
    await images.push("localhost:5000/app:1")


async def test_a_push_of_all_tags_that_names_each_is_complete(daemon: ScriptedDaemon, images: ImageService) -> None:
    async def push(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.frames(*({"aux": {"Tag": tag, "Digest": DIGEST, "Size": 528}} for tag in ("1", "2")))
        await exchange.end()

    async def listed(exchange: Exchange) -> None:
        await exchange.answer_json([{"Id": DIGEST, "RepoTags": ["localhost:5000/app:1", "localhost:5000/app:2"]}])

    daemon.on("POST", "/images/localhost:5000/app/push", push)
    daemon.on("GET", "/images/json", listed)
    result = await images.push("localhost:5000/app", all_tags=True)
    assert [pushed.tag for pushed in result.tags] == ["1", "2"]

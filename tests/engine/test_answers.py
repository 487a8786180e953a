"""What real Engines answer is understood where they differ from each other."""

from __future__ import annotations

import io
import secrets
import tarfile

import pytest

from aiodocker_images import ArchiveError, DockerError, ImageService, InvalidArchiveError, NotFoundError
from tests.conftest import engine_is
from tests.support.oci_archives import MultiPlatformImage
from tests.support.tars import root_file_system

pytestmark = pytest.mark.engine

PODMAN = engine_is("podman")


def tar(**members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


BAD_ARCHIVES: dict[str, bytes] = {
    "one byte": b"x",
    "a tar of something else": tar(a=b"x"),
    "a manifest that is not JSON": tar(manifest_json=b"[{"),
    "a manifest of another shape": tar(manifest_json=b'{"a":1}'),
    "a manifest without its files": tar(manifest_json=b'[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]'),
    "cut": tar(manifest_json=b"[]" * 1000)[:900],
    "damaged gzip": b"\x1f\x8b\x08" + b"\0" * 50,
    "damaged xz": b"\xfd7zXZ\0" + b"\1" * 50,
    "damaged zstd": b"\x28\xb5\x2f\xfd" + b"\1" * 50,
    "damaged bzip2": b"BZh9" + b"\1" * 50,
}


@pytest.mark.parametrize("archive", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
async def test_a_load_of_a_bad_archive_is_an_archive_error_on_every_engine(
    engine: ImageService, archive: bytes
) -> None:
    # Docker 20.10 cannot read zstd: this client expands it, and finds the damage itself.
    found_here = engine_is("docker20") and archive is BAD_ARCHIVES["damaged zstd"]
    with pytest.raises(ArchiveError if found_here else InvalidArchiveError, match="^load: "):
        await engine.load(archive)


async def test_a_list_with_digests_is_that_without(engine: ImageService) -> None:
    """Podman answers a request for digests with nothing at all."""
    image = f"localhost/answers-{secrets.token_hex(4)}:1"
    await engine.import_image(root_file_system(), reference=image)
    listed = await engine.list(digests=True)
    assert listed == await engine.list()
    assert image in [name for each in listed for name in each.repo_tags]
    await engine.remove(image)


async def test_another_platform_of_an_index_is_new(engine: ImageService, registry: str) -> None:
    """The containerd store of Docker 28 calls the index up to date while it downloads the other platform."""
    both = MultiPlatformImage(f"{registry}/answers-{secrets.token_hex(4)}:1.0")
    await both.upload(registry)
    for platform in ("linux/amd64", "linux/arm64"):
        assert not (await engine.pull(both.name, platform=platform)).up_to_date
    again = await engine.pull(both.name, platform="linux/arm64")
    assert again.up_to_date == (not PODMAN)  # it does not tell
    assert [(tag.tag, tag.digest) for tag in again.tags] == ([] if PODMAN else [("1.0", both.digest)])
    await engine.remove(both.name, force=True)


async def test_a_push_of_all_tags_tells_the_digest_of_each(engine: ImageService, registry: str) -> None:
    repository = f"{registry}/answers-{secrets.token_hex(4)}"
    for tag in ("1", "2"):
        await engine.import_image(root_file_system(), reference=f"{repository}:{tag}", message=tag)
    result = await engine.push(f"{repository}:1") if PODMAN else await engine.push(repository, all_tags=True)
    digests = {tag.tag: tag.digest for tag in result.tags}
    assert set(digests) == ({"1"} if PODMAN else {"1", "2"})
    assert all(digests.values())
    assert result.instead_of_index is None
    for tag in ("1", "2"):
        await engine.remove(f"{repository}:{tag}")


async def test_a_push_by_long_name_does_not_push_another_with_its_short_name(engine: ImageService) -> None:
    """Podman looks for a short name under localhost/ first. Nothing is sent: Docker Hub cannot be reached from here."""
    short = f"answers-{secrets.token_hex(4)}/app"
    await engine.import_image(root_file_system(), reference=f"localhost/{short}:1")
    with pytest.raises(DockerError if PODMAN else NotFoundError) as caught:
        await engine.push(f"docker.io/{short}:1")
    assert "localhost" not in str(caught.value).replace("unix://", "")
    await engine.remove(f"localhost/{short}:1")

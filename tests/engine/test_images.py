"""Every image operation on a real Engine: what the test suites of docker-py, aiodocker and bollard try, and more.

Their cases that commit a container (docker-py's two and its removal of a committed image, bollard's one) have no place
here, because that is an operation on containers; the removal is tested with an imported image. Those that run a built
image to see what it prints look at its configuration and files instead. Builds are in test_engine_build.py.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from aiodocker_images import (
    APIError,
    APIVersion,
    DockerError,
    ImageService,
    InvalidPlatformError,
    NotFoundError,
    RegistryAuth,
    UnsupportedAPIVersionError,
)
from tests.conftest import engine_is
from tests.support.tars import root_file_system
from tests.unit.test_contract import GATED

from .test_transfers import all_names

pytestmark = pytest.mark.engine

PODMAN = engine_is("podman")
CONTAINERD_STORE = engine_is("docker28c")


@pytest.fixture
async def image(engine: ImageService, registry: str) -> AsyncGenerator[str, None]:
    """The name of a new small image of the Engine, in the registry's domain but not pushed."""
    name = f"{registry}/operations-{secrets.token_hex(4)}:1.0"
    await engine.import_image(
        root_file_system(), reference=name, message="imported", changes=['CMD ["/bin/sh"]', "LABEL stage=test"]
    )
    yield name
    with contextlib.suppress(NotFoundError):
        await engine.remove(name, force=True)


@pytest.fixture
async def container(engine: ImageService, image: str) -> AsyncGenerator[str, None]:
    """A container of the image, which never runs."""
    created: Any = await engine.request("POST", "/containers/create", json={"Image": image, "Cmd": ["/bin/sh"]})
    yield created["Id"]
    await engine.request("DELETE", f"/containers/{created['Id']}", params=[("force", "true")])


async def test_all_images_are_as_many_as_the_engine_says(engine: ImageService, image: str) -> None:
    summaries = await engine.list(all=True)
    info: Any = await engine.request("GET", "/info")
    assert len({summary.id for summary in summaries}) == info["Images"]
    mine = next(summary for summary in summaries if image in summary.repo_tags)
    assert mine.created is not None
    assert timedelta() <= datetime.now(UTC) - mine.created < timedelta(hours=1)


async def test_images_are_found_by_repository_and_by_whole_name(engine: ImageService, image: str) -> None:
    repository = image.rpartition(":")[0]
    details = await engine.inspect(image)
    for reference in (repository, image):
        assert [summary.id for summary in await engine.list(reference)] == [details.id]
    for filters in ({"label": "stage=test"}, {"label": {"stage": "test"}}, {"label": ["stage"]}):
        assert details.id in {summary.id for summary in await engine.list(filters=filters)}
    assert details.id not in {summary.id for summary in await engine.list(filters={"label": "stage=other"})}


async def test_a_tag_comes_and_goes_without_the_image(engine: ImageService, image: str) -> None:
    name = f"tagged-{secrets.token_hex(4)}"
    details = await engine.inspect(image)
    for tag in ("1.0", "2.0"):
        await engine.tag(image, f"{name}:{tag}")
    tags = (await engine.inspect(details.id)).repo_tags
    assert len([each for each in tags if name in each]) == 2
    steps = await engine.remove(f"{name}:1.0")
    assert any(step.untagged and step.untagged.endswith(f"{name}:1.0") for step in steps)
    assert not any(step.deleted for step in steps)
    await engine.remove(f"{name}:2.0", no_prune=True)
    assert await engine.list(name) == []
    assert (await engine.inspect(image)).id == details.id


async def test_the_history_of_an_import_is_one_step(engine: ImageService, image: str) -> None:
    (layer,) = await engine.history(image)
    assert layer.comment == "imported"
    assert layer.size > 1 << 16
    assert layer.created is not None
    assert image in layer.tags


async def test_an_import_takes_changes(engine: ImageService) -> None:
    changes = ["USER nobody", 'CMD ["echo"]', "EXPOSE 8000", "VOLUME /data", "WORKDIR /data", 'ENTRYPOINT ["/x"]']
    name = f"changed-{secrets.token_hex(4)}"
    await engine.import_image(root_file_system(), reference=f"{name}:1", changes=changes)
    config = (await engine.inspect(f"{name}:1")).config
    assert config is not None
    assert (config.user, config.cmd, config.working_dir, config.entrypoint) == ("nobody", ("echo",), "/data", ("/x",))
    assert list(config.exposed_ports) == ["8000/tcp"]
    assert list(config.volumes) == ["/data"]
    await engine.remove(f"{name}:1")


async def test_an_import_without_a_name_has_only_its_id(engine: ImageService) -> None:
    result = await engine.import_image(root_file_system())
    details = await engine.inspect(result.id)
    assert (details.id, details.repo_tags) == (result.id, ())
    assert result.id in {summary.id for summary in await engine.list(filters={"dangling": True})}
    assert result.id in {step.deleted for step in await engine.remove(result.id)}


async def test_prune_takes_what_its_options_say(engine: ImageService, image: str, container: str) -> None:
    """Without a name; then with one, but not what a container uses."""
    assert container
    nameless = await engine.import_image(root_file_system())
    named = f"pruned-{secrets.token_hex(4)}:1"
    unused = await engine.import_image(root_file_system(), reference=named, changes=["LABEL prune=me"])

    report = await engine.prune(filters={"until": "1h"})
    assert nameless.id not in {step.deleted for step in report.removed}
    report = await engine.prune()
    assert nameless.id in {step.deleted for step in report.removed}
    assert report.space_reclaimed > 0
    assert (await engine.inspect(named)).id == unused.id

    assert (await engine.prune(all=True, filters={"label": {"prune": "not me"}})).removed == ()
    report = await engine.prune(all=True, filters={"label": {"prune": "me"}})
    assert unused.id in {step.deleted for step in report.removed}
    with pytest.raises(NotFoundError):
        await engine.inspect(named)
    await engine.prune(all=True)
    names = [summary.repo_tags for summary in await engine.list() if summary.repo_tags]
    assert names == [(image,)]
    with pytest.raises(APIError, match=r"^prune: .*nonsense"):
        await engine.prune(filters={"nonsense": True})


async def test_search_asks_the_registry_of_the_term(engine: ImageService) -> None:
    """The first registry API's search, on loopback."""
    asked: list[str] = []

    async def search(request: web.Request) -> web.Response:
        asked.append(request.query["q"])
        result = {"name": "word/app", "description": "an app", "star_count": 3, "is_official": False}
        return web.json_response({"num_results": 1, "query": request.query["q"], "results": [result]})

    async def version(_: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/v1/search", search)
    app.router.add_get("/v1/_ping", version)
    app.router.add_get("/v2/", version)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        (found,) = await engine.search(f"{address}/word", limit=7)
        assert found.name.endswith("word/app")
        assert (found.description, found.star_count) == ("an app", 3)
        assert asked == ["word"]
        if PODMAN:
            with pytest.raises(NotFoundError):
                await engine.search(f"{address}/word", filters={"stars": 4})
        else:
            assert await engine.search(f"{address}/word", filters={"stars": 4}) == []
            with pytest.raises(APIError, match="nonsense"):
                await engine.search(f"{address}/word", filters={"nonsense": 1})
    finally:
        await runner.cleanup()


async def test_inspect_distribution_tells_the_digest_without_a_pull(engine: ImageService, image: str) -> None:
    pushed = await engine.push(image)
    await engine.remove(image, force=True)
    before = await all_names(engine)
    if PODMAN:
        with pytest.raises(NotFoundError):
            await engine.inspect_distribution(image)
        return
    found = await engine.inspect_distribution(image)
    assert found.descriptor is not None
    assert (found.descriptor.digest, found.descriptor.size) == (pushed.digest, pushed.size)
    if CONTAINERD_STORE:
        assert found.platforms == ()  # of an imported image it knows none
    else:
        assert [str(platform) for platform in found.platforms] == ["linux/amd64"]
    assert await all_names(engine) == before
    with pytest.raises(APIError, match=f"^inspect_distribution {image}2: "):
        await engine.inspect_distribution(f"{image}2")


async def test_disk_usage_counts_the_images(engine: ImageService, image: str, container: str) -> None:
    assert container
    details = await engine.inspect(image)
    usage = await engine.disk_usage(verbose=True)
    (mine,) = (item for item in usage.items if item.id == details.id)
    # Podman 5.8 takes the tag alone for the name.
    assert mine.repo_tags == (("1.0",) if PODMAN else (image,))
    assert mine.containers == 1
    assert usage.total_count == len(usage.items)
    assert usage.active_count == sum(item.containers > 0 for item in usage.items)
    assert usage.total_size is not None
    assert usage.total_size > 1 << 16


async def test_login_to_an_open_registry_succeeds(engine: ImageService, registry: str) -> None:
    auth = RegistryAuth(username="anybody", password="anything", server_address=registry)
    if PODMAN:
        with pytest.raises(APIError):
            await engine.login(auth)
        return
    result = await engine.login(auth)
    assert result.status == "Login Succeeded"


async def test_attestations_need_a_newer_engine(engine: ImageService, image: str) -> None:
    with pytest.raises(UnsupportedAPIVersionError, match=r"1\.55"):
        await engine.attestations(image)


async def test_the_version_gates_are_those_of_this_engine(engine: ImageService) -> None:
    """What is newer than the Engine is refused here; what it knows is left to it, whatever it then answers."""
    spoken = APIVersion.parse((await engine.ping()).api_version)
    for endpoint, parameter, first, send in GATED:
        try:
            await send(engine)
        except UnsupportedAPIVersionError as error:
            assert spoken < APIVersion.parse(first), f"{endpoint} {parameter}"
            assert (error.required, error.actual) == (first, str(spoken))
        except DockerError:
            assert spoken >= APIVersion.parse(first), f"{endpoint} {parameter}"
        else:
            assert spoken >= APIVersion.parse(first), f"{endpoint} {parameter}"


async def test_a_platform_that_is_none_is_refused(engine: ImageService, image: str) -> None:
    with pytest.raises(InvalidPlatformError):
        await engine.pull(image, platform="foobar")


async def test_all_tags_go_out_and_come_back(engine: ImageService, registry: str) -> None:
    repository = f"{registry}/tags-{secrets.token_hex(4)}"
    for tag in ("one", "two"):
        await engine.import_image(root_file_system(), reference=f"{repository}:{tag}")
    if PODMAN:  # it knows no push of all tags, and pushes the one it takes to be meant
        with pytest.raises(APIError):
            await engine.push(repository, all_tags=True)
        for tag in ("one", "two"):
            await engine.push(f"{repository}:{tag}")
    else:
        assert (await engine.push(repository, all_tags=True)).digest is not None
    for tag in ("one", "two"):
        await engine.remove(f"{repository}:{tag}")
    if PODMAN:
        with pytest.raises(APIError):
            await engine.pull(repository, all_tags=True)
        return
    result = await engine.pull(repository, all_tags=True)
    assert result.reference == repository
    assert not result.up_to_date
    names = {tag for summary in await engine.list(repository) for tag in summary.repo_tags}
    assert names == {f"{repository}:one", f"{repository}:two"}
    assert (await engine.pull(repository, all_tags=True)).up_to_date
    for name in names:
        await engine.remove(name)

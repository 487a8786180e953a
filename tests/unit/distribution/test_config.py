"""What a `RegistryConfig` takes and what it refuses."""

from __future__ import annotations

import pytest

from aiodocker_images import ConfigError, RegistryConfig, RegistryService, TLSConfig
from aiodocker_images._distribution.config import by_registry, split_mirror


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"requests_per_second": 0.0},
        {"requests_per_second": float("nan")},
        {"chunk_size": 1},
        {"pause_below": 0},
        {"foreign": "fetch"},
        {"mirrors": ("not a registry",)},
        {"mirrors": ("cache",)},
        {"mirrors": ("cache.example/UPPER",)},
        {"plain_http": True, "tls": TLSConfig()},
    ],
)
def test_a_configuration_that_cannot_be_is_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RegistryConfig(**wrong)  # type: ignore[arg-type]


def test_the_names_of_docker_hub_are_one_registry() -> None:
    config = RegistryConfig(concurrency=2)
    assert by_registry({"registry-1.docker.io": config}) == {"docker.io": config}
    with pytest.raises(ConfigError, match="configured twice"):
        by_registry({"index.docker.io": config, "docker.io": config})


def test_a_name_that_is_not_a_registry_is_refused_when_the_service_is_made() -> None:
    with pytest.raises(ConfigError, match="'app' is not a registry"):
        RegistryService(registries={"app": RegistryConfig()})


def test_a_mirror_is_a_registry_with_or_without_a_prefix() -> None:
    assert split_mirror("cache.example:5000") == ("cache.example:5000", "")
    assert split_mirror("[::1]:5000/hub/library") == ("[::1]:5000", "hub/library")

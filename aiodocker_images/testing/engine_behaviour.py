"""How a fake Engine behaves: the API version that it speaks, its image store, and what its releases say differently.

`ENGINES` has the Engines that the contract tests of this project compare with the fake, and Docker 29, whose answers
were recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Store = Literal["graph", "containerd", "podman"]
"""Docker's own store (a graph driver), its containerd image store, or Podman's."""


@dataclass(frozen=True, kw_only=True)
class EngineBehaviour:
    """What one release of an Engine does.

    Attributes:
        name: What `FakeEngine(like=...)` takes.
        version: The release, as `version` and the `Server` header have it.
        api_version: The newest API that it speaks.
        min_api_version: The oldest that it speaks.
        store: Where it keeps images, which decides what an image's id is and what progress looks like.
        release: The release's major number, for what changed from one to the next.
    """

    name: str
    version: str
    api_version: str
    min_api_version: str
    store: Store
    release: int

    @property
    def podman(self) -> bool:
        """Whether it is Podman."""
        return self.store == "podman"

    @property
    def server(self) -> str:
        """The `Server` header."""
        return f"{'Libpod' if self.podman else 'Docker'}/{self.version} (linux)"

    @property
    def progress_text(self) -> bool:
        """Whether frames carry a bar as text beside the numbers: Docker 29 leaves it out."""
        return not self.podman and self.release < 29


ENGINES: Final[Mapping[str, EngineBehaviour]] = {
    each.name: each
    for each in (
        EngineBehaviour(
            name="docker20",
            version="20.10.24+dfsg1",
            api_version="1.41",
            min_api_version="1.12",
            store="graph",
            release=20,
        ),
        EngineBehaviour(
            name="docker26",
            version="26.1.5+dfsg1",
            api_version="1.45",
            min_api_version="1.24",
            store="graph",
            release=26,
        ),
        EngineBehaviour(
            name="docker28",
            version="28.5.2+dfsg4",
            api_version="1.51",
            min_api_version="1.24",
            store="graph",
            release=28,
        ),
        EngineBehaviour(
            name="docker28c",
            version="28.5.2+dfsg4",
            api_version="1.51",
            min_api_version="1.24",
            store="containerd",
            release=28,
        ),
        EngineBehaviour(
            name="docker29", version="29.0.0", api_version="1.56", min_api_version="1.40", store="graph", release=29
        ),
        EngineBehaviour(
            name="docker29c",
            version="29.0.0",
            api_version="1.56",
            min_api_version="1.40",
            store="containerd",
            release=29,
        ),
        EngineBehaviour(
            name="podman", version="5.8.6", api_version="1.44", min_api_version="1.24", store="podman", release=5
        ),
    )
}
"""The Engines that the fake can behave as, by the names that `FakeEngine(like=...)` takes."""


def engine_behaviour(like: str | EngineBehaviour) -> EngineBehaviour:
    """Return a behaviour by its name; raises ValueError for a name that is not in `ENGINES`."""
    if isinstance(like, EngineBehaviour):
        return like
    try:
        return ENGINES[like]
    except KeyError:
        raise ValueError(f"no Engine {like!r} is faked; there are {', '.join(ENGINES)}") from None

"""A registry on 127.0.0.1 whose one image does not arrive until a test lets it."""

from __future__ import annotations

import secrets

from aiodocker_images.testing import FakeRegistry, Fault, Injection, image, layer


class SlowRegistry(FakeRegistry):
    """Serves the image `image`, whose layer trickles until `finish()`, and again from `hold()` on.

    It trickles, for Docker 20.10 reads on after a cancelled pull, and hangs up only at the next bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._layer = layer(size=1 << 20, seed=secrets.randbits(64), format="docker")  # Podman takes no mixture
        self.digest = self.put("slow:1", image([self._layer], format="docker"))
        self._trickle = self._slow_down()

    @property
    def image(self) -> str:
        """The image's whole name."""
        return self.name("slow:1")

    @property
    def open_blobs(self) -> int:
        """How many downloads of the layer are under way: none once the Engine has ended every pull of it."""
        return sum(not each.done for each in self.asked("GET blob", reference=self._layer.digest))

    @property
    def blobs_begun(self) -> int:
        """How many downloads of the layer have begun."""
        return self.count("GET blob", reference=self._layer.digest)

    def hold(self) -> None:
        """Let the layer trickle: it would take minutes."""
        if self._trickle.done:
            self._trickle = self._slow_down()

    def finish(self) -> None:
        """Send the rest, and every layer from now on, at once."""
        self._trickle.remove()

    def _slow_down(self) -> Injection:
        fault = Fault.slow(chunk=64, pause=0.01)
        return self.fail(fault, on="GET blob", reference=self._layer.digest, times=None)

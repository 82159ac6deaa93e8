"""Several GPUs behind one `VisionTower`."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tastemaker.models.clip import Embeddings, Pixels, VisionTower


class ReplicatedClip:
    """The same tower on several devices: each call of `embed` goes to the one with the fewest calls under way.

    One call is never split, so it takes several threads that call `embed` to keep all devices busy.

    Args:
        towers: At least one. The first speaks for all: they must have the same weights and precision.

    Example:
        ``ReplicatedClip([TorchClip(weights, "cuda:0"), TorchClip(weights, "cuda:1")])``
    """

    def __init__(self, towers: Sequence[VisionTower]) -> None:
        first = towers[0]
        self.config = first.config
        self.precision = first.precision
        self.device = first.device
        self.concurrency = sum(tower.concurrency for tower in towers)
        self._towers = list(towers)
        self._calls = [0] * len(towers)
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        """Images that each device takes at once."""
        return self._towers[0].batch_size

    def embed(self, pixels: Pixels) -> Embeddings:
        """Return the embeddings, float32 (n, 768), of uint8 (n, 224, 224, 3) pixels; see `VisionTower.embed`."""
        with self._lock:
            number = self._calls.index(min(self._calls))
            self._calls[number] += 1
        try:
            return self._towers[number].embed(pixels)
        finally:
            with self._lock:
                self._calls[number] -= 1

    def cancel(self) -> None:
        """Make every `embed` that runs in another thread, and every later one, raise `ModelError` soon."""
        for tower in self._towers:
            tower.cancel()

    def describe(self) -> dict[str, str]:
        """Return what the first tower says of itself, and on how many devices it runs."""
        described = self._towers[0].describe()
        return {**described, "device": f"{len(self._towers)} x {described['device']}"}

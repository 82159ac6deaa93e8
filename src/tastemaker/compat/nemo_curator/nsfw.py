"""NeMo Curator's NSFW filter: the scorer ``nsfw``, under NeMo Curator's names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tastemaker.compat.nemo_curator.models import PublishedModel, to_array, to_tensor
from tastemaker.compat.nemo_curator.stages import ImageAestheticFilterStage
from tastemaker.models.heads import Network
from tastemaker.models.published import Scorers
from tastemaker.models.published.laion_nsfw import NSFW, NSFW_DETECTOR


class NSFWScorer(PublishedModel):
    """Embeddings to the probability that an image is not safe for work. See `PublishedModel` for the argument."""

    weights = NSFW_DETECTOR

    def load(self, path: Path) -> Network:
        """Return the network."""
        return NSFW_DETECTOR.load(path)  # type: ignore[return-value]

    def __call__(self, embeddings: Any) -> Any:  # noqa: ANN401 - torch may not be there to name its type
        """Return the probability of each embedding, float32 (n,), from 0 (safe) to 1.

        Args:
            embeddings: float (n, d), each row of unit length: an array or a tensor.

        Raises:
            ModelError: Another dimension, a NaN, or a length far from 1.
        """
        return to_tensor(self.loaded(to_array(embeddings)))


@dataclass
class ImageNSFWFilterStage(ImageAestheticFilterStage):
    """Keeps the images whose NSFW probability is below the threshold; the others are in ``dropped`` with the reason.

    Args:
        weights_path: Not used, as in NeMo Curator.
        score_threshold: Images with this probability or more are dropped.
        scorer: The detector.

    The others are those of `ImageAestheticFilterStage`.
    """

    name: str = "image_nsfw_filter"
    weights_path: str | None = None
    scorer: Scorers = NSFW
    _what: ClassVar[str] = "NSFW"
    _refused: ClassVar[str] = "not below"

    def _passes(self, score: float) -> bool:
        return self.score_threshold is None or score < self.score_threshold

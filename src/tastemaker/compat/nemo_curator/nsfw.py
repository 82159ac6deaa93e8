"""NeMo Curator's NSFW filter: the scorer ``nsfw``, under NeMo Curator's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tastemaker.compat.nemo_curator.models import HeadModel
from tastemaker.compat.nemo_curator.stages import ImageAestheticFilterStage
from tastemaker.models.published import Scorers
from tastemaker.models.published.laion_nsfw import NSFW, NSFW_DETECTOR


class NSFWScorer(HeadModel):
    """Embeddings to the probability that an image is not safe for work, from 0 (safe) to 1."""

    weights = NSFW_DETECTOR


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

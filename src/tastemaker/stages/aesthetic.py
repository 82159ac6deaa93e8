"""The scores of every image in a batch, and the cut."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_numbers
from tastemaker.errors import ModelError, ReasonKind
from tastemaker.models.published import DEFAULT_SCORER, Scorers
from tastemaker.provenance import add_scores
from tastemaker.scores.schema import caption_and_json
from tastemaker.stages.base import OfBatches
from tastemaker.stages.head import HeadStage
from tastemaker.storage import Options, public_url
from tastemaker.tasks import ImageBatch

logger = logging.getLogger(__name__)


@dataclass
class ImageAestheticFilterStage(OfBatches, HeadStage[ImageBatch, ImageBatch]):
    """Scores every image with the heads of scorers, and keeps those whose first score reaches the cut-off.

    The scores are in `ImageObject.scores`, by column. The other images go into ``ImageBatch.dropped`` with scores and
    reason. Needs embeddings (`ImageEmbeddingStage`).

    Args:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        num_gpus_per_worker: For compatibility: heads are small, and run on the processor.
        model_inference_batch_size: For compatibility: a batch is scored at once.
        score_threshold: Images with this score or more are kept; None keeps all. LAION's scores lie roughly between 1
            and 10, so NeMo Curator's default of 0.5 keeps nearly everything.
        verbose: Log each dropped image with its score, and a count for each batch.
        storage_options: Settings of the store of models at a URL.
        scorer: What `find_scorers` takes: one scorer, or several with one backbone, of which the first decides. The
            default is LAION's aesthetic predictor v2, which fills ``aesthetic_score``.
    """

    model_dir: str | None = None
    num_gpus_per_worker: float = 0.25
    model_inference_batch_size: int = 32
    score_threshold: float | None = 0.5
    verbose: bool = False
    name: str = "image_aesthetic_filter"
    is_sink_stage = False
    storage_options: Options | None = field(default=None, repr=False)
    scorer: Scorers = DEFAULT_SCORER
    handles_empty: bool = field(default=True, init=False, repr=False)
    _heads: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _made_by: dict[str, dict[str, str]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        super().__post_init__()

    def check(self) -> None:
        """Say so if the cut-off keeps everything."""
        super().check()
        lowest, highest = self._scorers[0].score_range
        if self.score_threshold is not None and self.score_threshold < lowest:
            customary = ", ".join(f"{cutoff:g}" for cutoff in self._scorers[0].customary_cutoffs)
            logger.warning(
                "score_threshold=%g keeps nearly every image: scores lie roughly between %g and %g; customary cut-offs "
                "are %s",
                *(self.score_threshold, lowest, highest, customary or "none"),
            )

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return a batch of the images that reach the cut-off, with the others in ``dropped``."""
        if not self._heads:
            self.setup()
        column = self._scorers[0].column
        stated = {} if self.score_threshold is None else {"cutoff": f"{self.score_threshold:g}"}
        add_scores(task.partition, {**self._made_by, column: {**self._made_by[column], **stated}})
        if task.data:
            embeddings = stack_embeddings(task)  # (n, d)
            reads = any(scorer.reads_captions for scorer in self._scorers)
            captions = [caption_and_json(image)[0] for image in task.data] if reads else []
            for scorer in self._scorers:
                head = self._heads[scorer.column]
                scores = head(embeddings, captions) if scorer.reads_captions else head(embeddings)
                for image, score in zip(task.data, scores, strict=True):
                    if np.isfinite(score):
                        image.scores[scorer.column] = float(score)
        kept = [image for image in task.data if self._passes(image.scores.get(column, np.nan))]
        below = [image for image in task.data if not self._passes(image.scores.get(column, np.nan))]
        for image in below:
            score = image.scores.get(column)
            image.reason = (
                f"{column}: there is no caption"
                if score is None
                else f"{column} {score:.3f} is {self._refused} {self.score_threshold:g}"
            )
            image.reason_kind = ReasonKind.BELOW_CUTOFF
            if self.verbose:
                path = public_url(image.image_path)
                logger.info("Image %s (path: %s) filtered out: %s", image.image_id, path, image.reason)
        if self.verbose:
            counts = (self._what, len(kept), len(task.data), len(below))
            logger.info("%s filtering: %d/%d images passed, %d filtered out", *counts)
        return replace(task, data=kept, dropped=[*task.dropped, *below])

    _what: ClassVar[str] = "Aesthetic"
    _refused: ClassVar[str] = "below"

    def _passes(self, score: float) -> bool:
        # float32, as scores are stored: a row that shows the cut-off itself is kept.
        return self.score_threshold is None or bool(np.float32(score) >= np.float32(self.score_threshold))


def stack_embeddings(task: ImageBatch) -> npt.NDArray[np.float32]:
    """Return the embeddings of a batch, float32 (n, d).

    Raises:
        ModelError: An image has none.
    """
    missing = next((image for image in task.data if image.embedding is None), None)
    if missing is not None:
        raise ModelError(f"image {missing.image_id!r} has no embedding; put an ImageEmbeddingStage before this stage")
    return np.stack([image.embedding for image in task.data if image.embedding is not None])

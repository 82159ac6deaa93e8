"""The aesthetic score of every image in a batch, and the cut."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_numbers
from tastemaker.errors import ModelError, ReasonKind
from tastemaker.models.published import DEFAULT_SCORER
from tastemaker.models.records import Scorer
from tastemaker.provenance import add_provenance
from tastemaker.stages.head import HeadStage
from tastemaker.storage import Options, public_url
from tastemaker.tasks import ImageBatch

if TYPE_CHECKING:
    from tastemaker.models.records import Predictor

logger = logging.getLogger(__name__)


@dataclass
class ImageAestheticFilterStage(HeadStage[ImageBatch, ImageBatch]):
    """Scores every image with the head of a scorer and keeps those that reach the cut-off.

    The others go into ``ImageBatch.dropped`` with score and reason. Needs embeddings (`ImageEmbeddingStage`).

    Args:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        num_gpus_per_worker: For compatibility: the predictor is one dot product, and runs on the processor.
        model_inference_batch_size: For compatibility: a batch is scored at once.
        score_threshold: Images with this score or more are kept; None keeps all. LAION's scores lie roughly between 1
            and 10, so NeMo Curator's default of 0.5 keeps nearly everything.
        verbose: Log each dropped image with its score, and a count for each batch.
        predictor: Path of other weights for the head, for example ``.safetensors`` or ``.pth`` (see
            `AestheticPredictor.from_file`).
        storage_options: Settings of the store of models at a URL.
        scorer: A name, or a `Scorer`; the default is LAION's aesthetic predictor v2.
    """

    model_dir: str | None = None
    num_gpus_per_worker: float = 0.25
    model_inference_batch_size: int = 32
    score_threshold: float | None = 0.5
    verbose: bool = False
    name: str = "image_aesthetic_filter"
    is_sink_stage = False
    predictor: str | None = None
    storage_options: Options | None = field(default=None, repr=False)
    scorer: str | Scorer = DEFAULT_SCORER
    handles_empty: bool = field(default=True, init=False, repr=False)
    _predictor: Predictor | None = field(default=None, init=False, repr=False)
    _provenance: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        super().__post_init__()

    def inputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage reads."""
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage sets."""
        return ["data"], []

    def check(self) -> None:
        """Raise `ConfigurationError` if the predictor's file is not there; say so if the cut-off keeps everything."""
        super().check()
        lowest, highest = self._scorer.score_range
        if self.score_threshold is not None and self.score_threshold < lowest:
            customary = ", ".join(f"{cutoff:g}" for cutoff in self._scorer.customary_cutoffs)
            logger.warning(
                "score_threshold=%g keeps nearly every image: scores lie roughly between %g and %g; customary cut-offs "
                "are %s",
                *(self.score_threshold, lowest, highest, customary or "none"),
            )

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return a batch of the images that reach the cut-off, with the others in ``dropped``."""
        if self._predictor is None:
            self.setup()
        assert self._predictor is not None
        cutoff = "none" if self.score_threshold is None else f"{self.score_threshold:g}"
        add_provenance(task.partition, **self._provenance, score_threshold=cutoff)
        if task.data:
            scores = self._predictor(stack_embeddings(task))  # (n,)
            for image, score in zip(task.data, scores, strict=True):
                image.aesthetic_score = float(score)
        passes = [self._passes(image.aesthetic_score) for image in task.data]
        kept = [image for image, passed in zip(task.data, passes, strict=True) if passed]
        below = [image for image, passed in zip(task.data, passes, strict=True) if not passed]
        for image in below:
            image.reason = f"{self._scorer.column} {image.aesthetic_score:.3f} is below {cutoff}"
            image.reason_kind = ReasonKind.BELOW_CUTOFF
            if self.verbose:
                path = public_url(image.image_path)
                logger.info("Image %s (path: %s) filtered out: %s", image.image_id, path, image.reason)
        if self.verbose:
            logger.info("Aesthetic filtering: %d/%d images passed, %d filtered out", len(kept), len(passes), len(below))
        return replace(task, data=kept, dropped=[*task.dropped, *below])

    def _passes(self, score: float | None) -> bool:
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

"""NeMo Curator's NSFW filter: LAION's detector, a small network over the CLIP embeddings that are there already.

Source: LAION-AI, "CLIP-based-NSFW-Detector" (the variant for ViT-L/14), as NeMo Curator loads it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_numbers
from tastemaker.compat.nemo_curator.models import PublishedModel, to_array, to_tensor
from tastemaker.compat.nemo_curator.stages import ProcessingStage
from tastemaker.errors import ModelError, ReasonKind, WeightsNotFoundError
from tastemaker.models.aesthetic import check_embeddings
from tastemaker.models.hub import file_sha256, resolve_model_dir
from tastemaker.models.pth import read_pth
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.provenance import add_provenance
from tastemaker.stages.aesthetic import stack_embeddings
from tastemaker.stages.base import NodeInfo, Resources, WorkerMetadata
from tastemaker.storage import public_url
from tastemaker.tasks import ImageBatch, ImageObject

_SIZE = CLIP_VIT_L14.dimension

MODEL_ID = "laion/clip-autokeras-binary-nsfw"
_FILE = "clip_autokeras_binary_nsfw.pth"
_ADDRESS = "https://github.com/LAION-AI/CLIP-based-NSFW-Detector/files/10250461/clip_autokeras_binary_nsfw.zip"

_SHAPES = {
    "norm.mean": (_SIZE,),
    "norm.variance": (_SIZE,),
    **{
        f"linear_{number}.{kind}": shape
        for number, (inputs, outputs) in enumerate(((_SIZE, 64), (64, 512), (512, 256), (256, 1)), 1)
        for kind, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
    },
}

Floats = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)


class NSFWScorer(PublishedModel):
    """Embeddings to the probability that an image is not safe for work. See `PublishedModel` for the argument."""

    @property
    def model_id_names(self) -> list[str]:
        """The model's name, which is its folder too."""
        return [MODEL_ID]

    @classmethod
    def find_weights(cls, model_dir: str | None = None) -> Path:
        """Return the file of the weights. It is no file of a hub, so it is not downloaded here.

        Raises:
            WeightsNotFoundError: It is not there. Says where it is and where it belongs.
        """
        return find_weights(model_dir)

    def load(self, path: Path) -> dict[str, Floats]:
        """Return the tensors.

        Raises:
            ModelError: The file holds something else.
        """
        tensors = read_pth(path)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != _SHAPES:
            raise ModelError(f"{path} is not LAION's NSFW detector for ViT-L/14: it holds {shapes or 'nothing'}")
        return tensors

    def __call__(self, embeddings: Any) -> Any:  # noqa: ANN401 - torch may not be there to name its type
        """Return the probability of each embedding, float32 (n,), from 0 (safe) to 1.

        Args:
            embeddings: float (n, d), each row of unit length: an array or a tensor.

        Raises:
            ModelError: Another dimension, a NaN, or a length far from 1.
        """
        return to_tensor(self.score(check_embeddings(to_array(embeddings), _SIZE)))

    def score(self, embeddings: npt.NDArray[np.floating]) -> Floats:
        """Return the probability of each embedding, float32 (n,)."""
        tensors = self.loaded
        scale = np.sqrt(tensors["norm.variance"])
        x: Floats = np.divide(embeddings - tensors["norm.mean"], scale, dtype=np.float32)  # (n, d)
        for layer in ("linear_1", "linear_2", "linear_3", "linear_4"):
            x = np.maximum(x, 0) if layer != "linear_1" else x
            x = x @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"]
        probabilities: Floats = np.float32(0.5) * (1 + np.tanh(x[:, 0] / 2))  # the logistic function, without overflow
        return probabilities


@dataclass
class ImageNSFWFilterStage(ProcessingStage[ImageBatch, ImageBatch]):
    """Keeps the images whose NSFW probability is below the threshold; the others are in ``dropped`` with the reason.

    Args:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        num_gpus_per_worker: For compatibility: the network is small, and runs on the processor.
        model_inference_batch_size: For compatibility: a batch is scored at once.
        score_threshold: Images with this probability or more are dropped.
        verbose: Log each dropped image with its probability, and a count for each batch.
        weights_path: Not used, as in NeMo Curator.
    """

    model_dir: str | None = None
    num_gpus_per_worker: float = 0.25
    model_inference_batch_size: int = 32
    score_threshold: float = 0.5
    verbose: bool = False
    name: str = "image_nsfw_filter"
    is_sink_stage = False
    weights_path: str | None = None
    handles_empty: bool = field(default=True, init=False, repr=False)
    _scorer: NSFWScorer | None = field(default=None, init=False, repr=False)
    _sha256: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        self.resources = Resources()

    def inputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage reads."""
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage sets."""
        return ["data"], []

    def setup_on_node(self, node_info: NodeInfo | None = None, worker_metadata: WorkerMetadata | None = None) -> None:
        """Look for the weights."""
        find_weights(self.model_dir)

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Load the network."""
        self._scorer = NSFWScorer(self.model_dir)
        self._scorer.setup()
        self._sha256 = file_sha256(find_weights(self.model_dir))

    def teardown(self) -> None:
        """Free the network."""
        self._scorer = None

    def fingerprint(self) -> dict[str, Any]:
        """Return the threshold and the weights."""
        return {**super().fingerprint(), "nsfw_sha256": file_sha256(find_weights(self.model_dir))}

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return a batch of the images below the threshold, with the others in ``dropped``."""
        if self._scorer is None:
            self.setup()
        assert self._scorer is not None
        made_by = {"nsfw_model": MODEL_ID, "nsfw_sha256": self._sha256, "nsfw_threshold": f"{self.score_threshold:g}"}
        add_provenance(task.partition, **made_by)
        if task.data:
            for image, score in zip(task.data, self._scorer.score(stack_embeddings(task)), strict=True):
                image.nsfw_score = float(score)
        kept = [image for image in task.data if self._is_safe(image)]
        above = [image for image in task.data if not self._is_safe(image)]
        for image in above:
            image.reason = f"nsfw_score {image.nsfw_score:.3f} is not below {self.score_threshold:g}"
            image.reason_kind = ReasonKind.BELOW_CUTOFF
            if self.verbose:
                path = public_url(image.image_path)
                logger.info("Image %s (path: %s) filtered out: %s", image.image_id, path, image.reason)
        if self.verbose:
            logger.info("NSFW filtering: %d images passed, %d filtered out", len(kept), len(above))
        return replace(task, data=kept, dropped=[*task.dropped, *above])

    def _is_safe(self, image: ImageObject) -> bool:
        return image.nsfw_score is not None and image.nsfw_score < self.score_threshold


def find_weights(model_dir: str | None) -> Path:
    """Return the path of the weights.

    Raises:
        WeightsNotFoundError: There is no such file.
    """
    path = resolve_model_dir(model_dir) / MODEL_ID / _FILE
    if not path.is_file():
        raise WeightsNotFoundError(
            f"the NSFW filter needs {path}: there is no such file. Fetch {_ADDRESS} and unpack it in {path.parent}"
        )
    return path

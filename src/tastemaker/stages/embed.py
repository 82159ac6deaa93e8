"""Embeddings of the images in a batch."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.checks import check_choice, check_numbers, check_positive
from tastemaker.errors import ModelError, ReasonKind, UnreadableImageError
from tastemaker.imaging.model_input import ROUNDINGS, Preprocess
from tastemaker.imaging.preprocess import as_pixels, preprocess
from tastemaker.models.clip import load_clip, resolve_precision
from tastemaker.models.device import check_device, choose_device
from tastemaker.models.hub import ensure_weights
from tastemaker.models.published import DEFAULT_SCORER, Scorers, find_scorers
from tastemaker.models.records import Backbone
from tastemaker.models.vit import PRECISIONS, VisionTower
from tastemaker.provenance import add_provenance, weights_digest, weights_provenance
from tastemaker.stages.base import NodeInfo, OfBatches, ProcessingStage, Resources, WorkerMetadata
from tastemaker.storage import Options
from tastemaker.tasks import ImageBatch, ImageObject

logger = logging.getLogger(__name__)


@dataclass
class ImageEmbeddingStage(OfBatches, ProcessingStage[ImageBatch, ImageBatch]):
    """Embeds every image with the backbone of a scorer: `ImageObject.embedding`, float32 (d,), unit length.

    Takes the reader's model input. Where a stage in between set or asked for ``image_data``, those pixels are
    embedded instead, so that its changes count.

    Args:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        num_gpus_per_worker: Share of a GPU that a worker takes; none is asked for where there is no GPU.
        model_inference_batch_size: Images at a time on a GPU (a processor chooses its own); None for 256.
        verbose: Log a line for each batch.
        remove_image_data: Free pixels and source bytes afterwards; writers read the bytes again by their position.
        device: ``auto``, ``cpu``, ``cuda`` (the current GPU), ``cuda:N`` or ``mps``.
        precision: ``auto``, ``f32``, ``bf16``, ``fp16`` or ``int8``.
        threads: Processor threads for inference; None for all cores.
        preprocess: For images that no reader prepared, how a crop is rounded: ``openai`` or ``transformers``; None as
            the scorer's record has it.
        storage_options: Settings of the store of models at a URL.
        scorer: A name or a `Scorer`, or several with one backbone; the default embeds with CLIP ViT-L/14.
    """

    model_dir: str | None = None
    num_gpus_per_worker: float = 0.25
    model_inference_batch_size: int | None = 32
    verbose: bool = False
    remove_image_data: bool = False
    name: str = "image_embedding"
    is_sink_stage = False
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    preprocess: str | None = None
    storage_options: Options | None = field(default=None, repr=False)
    scorer: Scorers = DEFAULT_SCORER
    handles_empty: bool = field(default=True, init=False, repr=False)
    _tower: VisionTower | None = field(default=None, init=False, repr=False)
    _provenance: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        check_device(self.device)
        check_choice("precision", self.precision, PRECISIONS)
        if self.preprocess is not None:
            check_choice("preprocess", self.preprocess, ROUNDINGS)
        find_scorers(self.scorer, self.storage_options)
        check_positive("model_inference_batch_size", self.model_inference_batch_size)
        # Executors give a GPU only where there is one: the workers' machines may have some, and this one none.
        self.resources = Resources() if self.device == "cpu" else Resources(gpus=self.num_gpus_per_worker)

    @property
    def _backbone(self) -> Backbone:
        return find_scorers(self.scorer, self.storage_options)[0].backbone

    @property
    def _how(self) -> Preprocess:
        return self._backbone.preprocess.with_rounding(self.preprocess)

    def check(self) -> None:
        """Raise `ConfigurationError` for a device that this machine does not have."""
        choose_device(self.device)

    def setup_on_node(self, node_info: NodeInfo | None = None, worker_metadata: WorkerMetadata | None = None) -> None:
        """Fetch the weights, if they are not there."""
        ensure_weights(self._backbone, self.model_dir, self.storage_options)

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Load the vision tower."""
        weights = ensure_weights(self._backbone, self.model_dir, self.storage_options)
        batch_size = self.model_inference_batch_size
        self._tower = load_clip(weights, self.device, self.precision, self.threads, batch_size, self._backbone)
        self.concurrent_tasks = self._tower.concurrency
        tower = self._tower.describe()
        made_by = weights_provenance(self._backbone, weights)
        self._provenance = {**{f"clip_{name}": value for name, value in made_by.items()}, **tower}
        logger.info("%s runs on %s (%s, %s)", self._backbone.id, tower["device"], tower["backend"], tower["precision"])

    def fingerprint(self) -> dict[str, Any]:
        """Return the weights and the precision that will run, and no model is loaded for it."""
        precision = resolve_precision(choose_device(self.device), self.precision)
        return {
            **super().fingerprint(),
            **self._how.fingerprint(),
            "precision": precision,
            "clip_sha256": weights_digest(self._backbone, self.model_dir, self.storage_options),
        }

    def interrupt(self) -> None:
        """Cancel the inference that is going on."""
        if self._tower is not None:
            self._tower.cancel()

    def teardown(self) -> None:
        """Free the vision tower."""
        self._tower = None

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return the batch with an embedding in every image; images without readable pixels are dropped."""
        if self._tower is None:
            self.setup()
        assert self._tower is not None
        add_provenance(task.partition, **self._provenance)
        _note_resize(task)
        inputs = [self._input_of(image) for image in task.data]
        readable = [image for image, pixels in zip(task.data, inputs, strict=True) if pixels is not None]
        task.dropped += [image for image, pixels in zip(task.data, inputs, strict=True) if pixels is None]
        task.data = readable
        if readable:
            embeddings = self._tower.embed(np.stack([pixels for pixels in inputs if pixels is not None]))  # (n, d)
            for image, embedding in zip(readable, embeddings, strict=True):
                image.embedding = embedding
                image.model_input = None
                if self.remove_image_data:
                    image.remove_image_data()
        if self.verbose:
            logger.info("Generated embeddings for %d images.", len(readable))
        return task

    def _input_of(self, image: ImageObject) -> npt.NDArray[np.uint8] | None:
        """Return the model's input of one image, or None (and a reason in it) where it cannot be read."""
        made = image.model_input_kind
        if made is not None and made.with_rounding(self._how.rounding) != self._how:
            raise ModelError(
                f"the reader made the input of image {image.image_id!r} for another model than {self._backbone.id}; "
                "give ImageReaderStage and ImageEmbeddingStage the same scorer"
            )
        if _is_prepared(image):
            return image.model_input
        try:
            pixels = as_pixels(image.pixels())
        except UnreadableImageError as error:
            image.fail(f"unreadable: {error}", error.reason_kind)
            return None
        except ModelError as error:
            image.fail(f"unreadable: {error}", ReasonKind.UNSUPPORTED)
            return None
        return preprocess(pixels, made or self._how)


def _is_prepared(image: ImageObject) -> bool:
    return image.model_input is not None and not image.has_pixels


def _note_resize(task: ImageBatch) -> None:
    """Record that Pillow resizes here, beside what resized the images that the reader prepared."""
    prepared = [_is_prepared(image) for image in task.data]
    if all(prepared):
        return
    earlier = task.partition.provenance.get("resize", "pillow") if any(prepared) else "pillow"
    add_provenance(task.partition, resize="pillow" if earlier == "pillow" else f"{earlier}, pillow")

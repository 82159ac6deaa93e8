"""A running check of a reduced precision: now and then an image is embedded exactly, too, and the scores compared."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tastemaker.checks import check_numbers
from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.decode import decode_image
from tastemaker.imaging.preprocess import preprocess
from tastemaker.models.aesthetic import AestheticPredictor
from tastemaker.models.clip_plain import PlainClip
from tastemaker.models.hub import ensure_head, ensure_weights
from tastemaker.models.published.laion_v2 import AESTHETIC_PREDICTOR
from tastemaker.models.published.openai_clip import CLIP_VIT_L14
from tastemaker.models.vit import Embeddings
from tastemaker.parity import Embedded, ParityReport, compare_embeddings
from tastemaker.provenance import add_provenance
from tastemaker.stages.base import ProcessingStage, WorkerMetadata
from tastemaker.storage import Options
from tastemaker.tasks import ImageBatch, ImageObject

MAX_IMAGES = 256
MAX_TIME_SHARE = 0.02
FIRST_IMAGE_S = 4.0
"""What the first image may take: the others are allotted what the slowest so far took. One that takes longer than the
share of the run's time allows is given up, and tried again when there is twice the time."""


@dataclass
class ImageParityStage(ProcessingStage[ImageBatch, ImageBatch]):
    """Compares scores with exact ones on a sample of the images that come by, and notes the figures as provenance.

    The sample is spread over the run by the time it may take: 2% of it, and 256 images at most. A run of less than
    some minutes leaves no room for one; ``tastemaker verify`` does the same on demand. In f32 nothing is done.

    Args:
        model_dir: Directory of models.
        predictor: Path of another predictor.
        preprocess: ``openai`` or ``transformers``, as in the reader.
        max_images: Images in the sample.
        max_time_share: Share of the run's time that it may take.
        storage_options: Arguments of the fsspec file system of models at a URL.

    Attributes:
        report: The comparison so far; None before the first image.
    """

    model_dir: str | None = None
    predictor: str | None = None
    preprocess: str | None = None
    max_images: int = MAX_IMAGES
    max_time_share: float = MAX_TIME_SHARE
    name: str = "image_parity"
    storage_options: Options | None = field(default=None, repr=False)
    report: ParityReport | None = field(default=None, init=False, repr=False)
    _tower: PlainClip | None = field(default=None, init=False, repr=False)
    _predictor: AestheticPredictor | None = field(default=None, init=False, repr=False)
    _exact: list[Embeddings] = field(default_factory=list, init=False, repr=False)
    _chosen: list[Embeddings] = field(default_factory=list, init=False, repr=False)
    _started: float = field(default=0.0, init=False, repr=False)
    _spent_s: float = field(default=0.0, init=False, repr=False)
    _slowest_s: float = field(default=FIRST_IMAGE_S, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Map the weights, and start the clock."""
        self._tower = PlainClip(ensure_weights(CLIP_VIT_L14, self.model_dir, self.storage_options))
        self._predictor = AestheticPredictor.from_file(
            ensure_head(AESTHETIC_PREDICTOR, self.predictor, self.model_dir, self.storage_options)
        )
        self._started = time.monotonic()

    def interrupt(self) -> None:
        """Cancel the inference that is going on."""
        if self._tower is not None:
            self._tower.cancel()

    def teardown(self) -> None:
        """Free the tower."""
        self._tower = None

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return the batch as it came, with the figures so far in its provenance."""
        if self._tower is None:
            self.setup()
        way = task._metadata.get("provenance", {})
        if (way.get("precision"), way.get("resize", "pillow"), way.get("decode", "cpu")) == ("f32", "pillow", "cpu"):
            return task
        for image in task.data[:: max(1, len(task.data) // 4)]:  # from all of the batch, if there is time for several
            if self._time_left_s() >= self._slowest_s and len(self._exact) < self.max_images:
                self._compare(image, way)
        if self.report is not None:
            add_provenance(task._metadata, parity=asdict(self.report))
        return task

    def _time_left_s(self) -> float:
        return self.max_time_share * (time.monotonic() - self._started) - self._spent_s

    def _compare(self, image: ImageObject, way: dict[str, Any]) -> None:
        assert self._tower is not None
        assert self._predictor is not None
        if image.encoded is None or image.embedding is None:
            return
        started = time.monotonic()
        self._tower.deadline = started + self._time_left_s()
        try:
            pixels = decode_image(image.encoded, **image.decode_options).pixels
            exact = self._tower.embed(preprocess(pixels, CLIP_VIT_L14.preprocess.with_rounding(self.preprocess))[None])
        except UnreadableImageError:
            return
        except TimeoutError:
            took = time.monotonic() - started
            self._spent_s, self._slowest_s = self._spent_s + took, 2 * took
            return
        self._exact.append(exact)
        self._chosen.append(image.embedding[None])
        self.report = compare_embeddings(
            Embedded(np.concatenate(self._exact), self._tower.describe()),
            Embedded(
                np.concatenate(self._chosen), {key: str(way.get(key)) for key in ("backend", "device", "precision")}
            ),
            self._predictor,
        )
        took = time.monotonic() - started
        self._spent_s += took
        self._slowest_s = took if len(self._exact) == 1 else max(took, self._slowest_s)

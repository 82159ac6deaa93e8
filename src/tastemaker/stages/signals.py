"""Technical signals of the images in a batch: a cheap first filter, without a model."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from tastemaker.checks import check_numbers
from tastemaker.errors import ConfigurationError, ModelError, ReasonKind, UnreadableImageError
from tastemaker.imaging.room import ROOM
from tastemaker.imaging.signals import SIGNALS_VERSION, compute_signals
from tastemaker.machine import usable_cores
from tastemaker.provenance import add_provenance
from tastemaker.stages.base import ProcessingStage
from tastemaker.tasks import ImageBatch, ImageObject

logger = logging.getLogger(__name__)


@dataclass
class ImageSignalsStage(ProcessingStage[ImageBatch, ImageBatch]):
    """Measures sharpness, exposure, contrast, colourfulness, noise and blockiness (see docs/technical-quality.md).

    Put between the reader and the embedder with a ``min_technical_quality``, it spares the accelerator the worst. What
    the reader has measured is not measured again.

    Args:
        min_technical_quality: Images below are dropped with the reason, 0 to 1; None drops none.
        num_threads: Threads that decode and measure; never more than the machine has cores.
    """

    min_technical_quality: float | None = None
    num_threads: int = 8
    name: str = "image_signals"
    is_sink_stage = False
    handles_empty: bool = field(default=True, init=False, repr=False)
    _pool: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.min_technical_quality is not None and not 0 <= self.min_technical_quality <= 1:
            raise ConfigurationError(f"min_technical_quality={self.min_technical_quality} is not between 0 and 1")

    def outputs(self) -> tuple[list[str], list[str]]:
        """Return what the stage sets."""
        return ["data"], ["signals"]

    def teardown(self) -> None:
        """Stop the threads that measure."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def process(self, task: ImageBatch) -> ImageBatch:
        """Return the batch with `ImageObject.signals` in every image, and those below the minimum dropped."""
        add_provenance(task.partition, signals=SIGNALS_VERSION)
        self._pool = self._pool or ThreadPoolExecutor(min(self.num_threads, usable_cores()), "signals")
        left = [image for image in self._pool.map(self._measure, task.data) if image.reason]
        task.data = [image for image in task.data if not image.reason]
        task.dropped += left
        return task

    def _measure(self, image: ImageObject) -> ImageObject:
        try:
            with ROOM.hold():
                image.signals = image.signals or asdict(compute_signals(image.pixels()))
        except (UnreadableImageError, ModelError) as error:
            image.fail(f"unreadable: {error}", getattr(error, "reason_kind", ReasonKind.UNSUPPORTED))
            return image
        quality, minimum = image.signals["technical_quality"], self.min_technical_quality
        if minimum is not None and quality < minimum:
            image.reason = f"technical_quality {quality:.3f} is below {minimum:g}"
            image.reason_kind = ReasonKind.BELOW_CUTOFF
        return image

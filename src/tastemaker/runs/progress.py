"""How far a run is, for everyone who wants to know: the progress bar, the run's file, the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tastemaker.executors.base import StageCount
from tastemaker.executors.timing import StageTiming
from tastemaker.progress import Progress
from tastemaker.tasks import FileGroupTask


@dataclass
class ProgressCounter:
    """Counts what leaves the last stage before the writer.

    Attributes:
        counted: Name of that stage.
        bytes_total: Bytes of all input that this run reads.
        images_total: Images of it, if that is known.
        listeners: Called after each batch with the progress and the images of the batch, in a thread of the run.
        images: So far.
        bytes_done: So far.
        last_batch: Time of the last batch, in seconds since 1970; 0 before the first.
        timings: Where the time of each stage went so far.
    """

    counted: str
    bytes_total: int = 0
    images_total: int | None = None
    listeners: list[Callable[[Progress, int], None]] = field(default_factory=list)
    images: int = 0
    bytes_done: int = 0
    last_batch: float = 0.0
    timings: Callable[[], list[StageTiming]] = list

    def begin(self, tasks: list[FileGroupTask]) -> None:
        """Note what is to be done, and tell the listeners that nothing of it is done yet."""
        self.bytes_total = sum(task.partition.source_bytes for task in tasks)
        numbers = [_count_images(task) for task in tasks]
        self.images_total = None if None in numbers else sum(number or 0 for number in numbers)
        if tasks:
            self._tell(0)

    def count(self, count: StageCount) -> None:
        """Count the images that a stage has done, and the bytes that they have in the input files."""
        if count.stage == self.counted:
            self.images += count.images
            self.bytes_done += count.source_bytes
            self.last_batch = time.time()
            self._tell(count.images)

    def _tell(self, images: int) -> None:
        done = min(self.bytes_done, self.bytes_total)
        progress = Progress(self.images, done, self.bytes_total, self.images_total)
        for listener in self.listeners:
            listener(progress, images)


def _count_images(task: FileGroupTask) -> int | None:
    """Return how many images a task has; None for a shard, which is counted when it is read."""
    if task.partition.samples is not None:
        return len(task.partition.samples)
    return len(task.data) if task.partition.is_loose else None

"""How far a run is, for everyone who wants to know: the progress bar, the run's file, and Prometheus.

Metrics are served on a port of this machine that no other machine can reach.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tastemaker.errors import ConfigurationError
from tastemaker.executors.base import StageCount
from tastemaker.executors.timing import StageTiming
from tastemaker.progress import Progress
from tastemaker.runs.index import RowsIndex
from tastemaker.tasks import FileGroupTask

if TYPE_CHECKING:
    from prometheus_client import Metric

LOOPBACK = "127.0.0.1"

_LOOK_AGAIN_S = 15.0
"""Seconds between two listings of the directory, at least."""


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


class RunCollector:
    """Collects the metrics each time that Prometheus asks for them.

    Args:
        counter: What is done.
        index: The rows files of the run's directory: one of its own.
        names: The partitions of the run.
    """

    def __init__(self, counter: ProgressCounter, index: RowsIndex, names: list[str]) -> None:
        self._counter = counter
        self._index = index
        self._names = names
        self._lock = threading.Lock()
        self._looked_at = -float("inf")
        self._statuses: Counter[str] = Counter()
        self._done = 0

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counter = self._counter
        yield CounterMetricFamily("tastemaker_images_processed", "Images that this run did", value=counter.images)
        yield CounterMetricFamily("tastemaker_source_bytes", "Bytes of their files", value=counter.bytes_done)
        yield GaugeMetricFamily(
            "tastemaker_source_bytes_planned", "Bytes that this run reads in all", value=counter.bytes_total
        )
        yield GaugeMetricFamily(
            "tastemaker_last_batch_timestamp_seconds", "When the last batch was done", value=counter.last_batch
        )
        stages = CounterMetricFamily(
            "tastemaker_stage_seconds", "Where the time of each stage went", labels=["stage", "state"]
        )
        for timing in counter.timings():
            for state in ("setup", "busy", "waiting_for_input", "waiting_for_output"):
                stages.add_metric([timing.name, state], getattr(timing, f"{state}_s"))
        yield stages
        self._look()
        rows = GaugeMetricFamily("tastemaker_images", "Rows of finished partitions, by status", labels=["status"])
        for status in ("kept", "dropped", "failed"):
            rows.add_metric([status], self._statuses[status])
        yield rows
        yield GaugeMetricFamily("tastemaker_partitions", "Partitions of the run", value=len(self._names))
        yield GaugeMetricFamily("tastemaker_partitions_done", "Partitions that have rows", value=self._done)

    def _look(self) -> None:
        """Count the rows that are there, unless they were counted a moment ago."""
        with self._lock:
            if time.monotonic() - self._looked_at < _LOOK_AGAIN_S:
                return
            self._index.load()
            notes = self._index.notes(self._names)
            self._statuses, self._done = Counter(), len(notes)
            for note in notes.values():
                self._statuses.update(note.counts.get("statuses", {}))
            self._looked_at = time.monotonic()


@contextmanager
def serve_metrics(port: int | None, collector: RunCollector) -> Iterator[None]:
    """Serve metrics at ``http://127.0.0.1:<port>/metrics`` until the block ends; None serves none.

    Raises:
        ConfigurationError: The port is taken.
    """
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise ConfigurationError(f"metrics port {port}: {error.strerror or error}; choose another") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

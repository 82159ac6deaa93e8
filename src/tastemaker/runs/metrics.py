"""Prometheus metrics of a run, on a port of this machine that no other machine can reach."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tastemaker.errors import ConfigurationError
from tastemaker.runs.index import RowsIndex
from tastemaker.runs.progress import ProgressCounter

if TYPE_CHECKING:
    from prometheus_client import Metric

LOOPBACK = "127.0.0.1"

_LOOK_AGAIN_S = 15.0
"""Seconds between two listings of the directory, at least."""


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

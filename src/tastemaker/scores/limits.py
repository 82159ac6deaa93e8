"""Queries that are stopped: after a time, or because nobody waits for the answer any more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import duckdb

from tastemaker.errors import ConfigurationError


class QueryLimit:
    """How long a query may take, and the way to stop it before.

    Args:
        seconds: Of each query.

    Attributes:
        reason: Why a query was stopped; empty while none was.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.reason = seconds, ""
        self._running: duckdb.DuckDBPyConnection | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop the query that is running, or that begins after: its answer is not wanted any more."""
        self._interrupt("the query was given up")

    @contextlib.contextmanager
    def watch(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupt what a cursor does within the block, once its time is over.

        Raises:
            ConfigurationError: It was stopped before it began.
        """
        text = f"the query took longer than {self.seconds:g} seconds and was stopped; ask for less"
        timer = threading.Timer(self.seconds, self._interrupt, [text])
        timer.daemon = True
        with self._lock:
            if self.reason:
                raise ConfigurationError(self.reason)
            self._running = cursor
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._running = None

    def _interrupt(self, reason: str) -> None:
        with self._lock:
            self.reason = self.reason or reason
            if self._running is not None:
                self._running.interrupt()

"""Queries that are stopped: after a time, or because nobody waits for the answer any more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import duckdb

from tastemaker.errors import ConfigurationError

_AGAIN_S = 0.2


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
        self._timer = threading.Timer(seconds, self._end)
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop the query that is running, or that begins after: its answer is not wanted any more."""
        with self._lock:
            self._interrupt("the query was given up")

    @contextlib.contextmanager
    def watch(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupt what a cursor does within the block, once its time is over.

        Raises:
            ConfigurationError: It was stopped before it began.
        """
        with self._lock:
            if self.reason:
                raise ConfigurationError(self.reason)
            self._running = cursor
            self._end_after(self.seconds, cursor)
        try:
            yield
        finally:
            with self._lock:
                self._running = None
                self._timer.cancel()

    def _end(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._lock:
            if self._running is cursor:  # else it has ended just now
                self._interrupt(f"the query took longer than {self.seconds:g} seconds and was stopped; ask for less")

    def _interrupt(self, reason: str) -> None:
        self.reason = self.reason or reason
        if self._running is not None:
            self._running.interrupt()
            self._end_after(_AGAIN_S, self._running)  # DuckDB forgets one that comes before it has begun

    def _end_after(self, seconds: float, cursor: duckdb.DuckDBPyConnection) -> None:
        self._timer.cancel()
        self._timer = threading.Timer(seconds, self._end, [cursor])
        self._timer.daemon = True
        self._timer.start()

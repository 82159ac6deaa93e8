"""Where the time of a run goes: what each stage works and waits, and which one holds the others up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_ADDING = threading.Lock()


@dataclass
class StageTiming:
    """Where the time of one stage went, in seconds. Figures are measured where the work is done, and only ever grow.

    A stage that works on several tasks at a time counts what the oldest of them takes.

    Attributes:
        name: Of the stage.
        setup_s: Loading what it needs, before the first task.
        busy_s: At work.
        waiting_for_input_s: Idle, because the stage before had nothing ready.
        waiting_for_output_s: Idle, because the stage behind had no room.
    """

    name: str
    setup_s: float = 0.0
    busy_s: float = 0.0
    waiting_for_input_s: float = 0.0
    waiting_for_output_s: float = 0.0

    @contextmanager
    def count(self, what: str) -> Iterator[None]:
        """Add the time that a block takes to one of the attributes."""
        started = time.monotonic()
        try:
            yield
        finally:
            elapsed = time.monotonic() - started
            with _ADDING:
                setattr(self, what, getattr(self, what) + elapsed)

    @property
    def busy_share(self) -> float:
        """The share of its time, after the set-up, that it worked: 0 to 1."""
        return self.busy_s / max(self.busy_s + self.waiting_for_input_s + self.waiting_for_output_s, 1e-9)


def sum_timings(parts: list[list[StageTiming]]) -> list[StageTiming]:
    """Return the time of each stage, summed over all that worked on it."""
    sums: dict[str, StageTiming] = {}
    for timing in (timing for timings in parts for timing in timings):
        total = sums.setdefault(timing.name, StageTiming(timing.name))
        for name in ("setup_s", "busy_s", "waiting_for_input_s", "waiting_for_output_s"):
            setattr(total, name, getattr(total, name) + getattr(timing, name))
    return list(sums.values())


def find_bottleneck(timings: list[StageTiming]) -> StageTiming | None:
    """Return the stage that worked longest: the others wait for it. None if nothing ran."""
    return max((timing for timing in timings if timing.busy_s), key=lambda timing: timing.busy_s, default=None)

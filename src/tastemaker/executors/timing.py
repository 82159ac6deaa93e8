"""Where the time of a run goes: what each stage works and waits, and which one holds the others up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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
        """Add the time that a block takes to one of the attributes. Only one thread may add to each."""
        started = time.monotonic()
        try:
            yield
        finally:
            elapsed = time.monotonic() - started
            setattr(self, what, getattr(self, what) + elapsed)

    def add(self, other: StageTiming) -> None:
        """Add what the stage took in another process."""
        for what in ("setup_s", "busy_s", "waiting_for_input_s", "waiting_for_output_s"):
            setattr(self, what, getattr(self, what) + getattr(other, what))

    @property
    def busy_share(self) -> float:
        """The share of its time, after the set-up, that it worked: 0 to 1."""
        return self.busy_s / max(self.busy_s + self.waiting_for_input_s + self.waiting_for_output_s, 1e-9)


def find_bottleneck(timings: list[StageTiming]) -> StageTiming | None:
    """Return the stage that worked longest: the others wait for it. None if nothing ran."""
    return max((timing for timing in timings if timing.busy_s), key=lambda timing: timing.busy_s, default=None)

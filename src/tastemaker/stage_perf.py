"""What a stage spent on a task. Every task carries these figures of the stages that it went through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class StagePerfStats:
    """What one stage spent on one task.

    Attributes:
        stage_name: The stage's name.
        process_time: Seconds of work.
        num_items_processed: Images or files in the task. Of several results of one task, the first has them.
        custom_metrics: Figures that the stage has noted, by name.
    """

    stage_name: str
    process_time: float = 0.0
    num_items_processed: int = 0
    custom_metrics: dict[str, float] = field(default_factory=dict)

    def __add__(self, other: StagePerfStats) -> StagePerfStats:
        """Return the sums of both, by the name of the first."""
        metrics = dict(self.custom_metrics)
        for name, value in other.custom_metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value
        spent = self.process_time + other.process_time
        return StagePerfStats(self.stage_name, spent, self.num_items_processed + other.num_items_processed, metrics)

    def __radd__(self, other: object) -> StagePerfStats:
        """Return the same figures for 0, which `sum` begins with."""
        return self if other == 0 else NotImplemented

    def reset(self) -> None:
        """Set the figures to nothing."""
        self.process_time, self.num_items_processed, self.custom_metrics = 0.0, 0, {}

    def to_dict(self) -> dict[str, Any]:
        """Return name and figures."""
        return asdict(self)

    def items(self) -> list[tuple[str, float]]:
        """Return the figures by name; those that the stage has noted as ``custom.<name>``."""
        noted = [(f"custom.{name}", value) for name, value in self.custom_metrics.items()]
        return [("process_time", self.process_time), ("num_items_processed", self.num_items_processed), *noted]


def sum_perf(parts: Iterable[StagePerfStats]) -> list[StagePerfStats]:
    """Return one entry for each stage, with the sums of its entries. One that several tasks share counts once."""
    sums: dict[str, StagePerfStats] = {}
    for part in {id(part): part for part in parts}.values():
        sums[part.stage_name] = sums.get(part.stage_name, 0) + part
    return list(sums.values())

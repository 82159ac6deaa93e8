"""The times and figures of stages, summed up over the tasks that a pipeline returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.compat.nemo_curator.duplicates import WorkflowRunResult
from tastemaker.tasks import Task

Tasks = list[Task[Any]] | Mapping[str, Any] | WorkflowRunResult | None
"""What a pipeline returned; of several pipelines, by their names; or what a workflow returned."""


class TaskPerfUtils:
    """Sums and means of what stages spent. Figures of one stage on one task that several results share count once."""

    @staticmethod
    def collect_stage_metrics(tasks: Tasks) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
        """Return stage -> figure -> float64 (n,), one for each task that the stage worked on.

        The figures are those of `StagePerfStats.items`.
        """
        parts = {id(part): part for _, group in _by_pipeline(tasks) for task in group for part in task._stage_perf}
        found: dict[str, dict[str, list[float]]] = {}
        for part in parts.values():
            for name, value in part.items():
                found.setdefault(part.stage_name, {}).setdefault(name, []).append(float(value))
        return {stage: {name: np.array(values) for name, values in of.items()} for stage, of in found.items()}

    @staticmethod
    def aggregate_task_metrics(tasks: Tasks, prefix: str | None = None) -> dict[str, float]:
        """Return ``<prefix>_<pipeline>_<stage>_<figure>_<sum, mean or std>`` -> value."""
        groups, sums = _by_pipeline(tasks), {}
        for pipeline, group in groups:
            before = [prefix, pipeline if prefix or len(groups) > 1 else None]
            for stage, figures in TaskPerfUtils.collect_stage_metrics(group).items():
                for name, values in figures.items():
                    for how, value in (("sum", values.sum()), ("mean", values.mean()), ("std", values.std())):
                        sums["_".join(filter(None, [*before, stage, name, how]))] = float(value)
        return sums

    @staticmethod
    def get_aggregated_stage_stat(tasks: Tasks, stage_prefix: str, stat: str) -> float:
        """Return the sum of a figure over all stages whose names begin with a prefix; 0.0 if there are none."""
        stages = TaskPerfUtils.collect_stage_metrics(tasks).items()
        return float(sum(of[stat].sum() for stage, of in stages if stage.startswith(stage_prefix) and stat in of))


def _by_pipeline(tasks: Tasks) -> list[tuple[str, list[Task[Any]]]]:
    if isinstance(tasks, list) or tasks is None:
        return [("", tasks or [])]
    named = tasks.pipeline_tasks if isinstance(tasks, WorkflowRunResult) else tasks.get("pipeline_tasks", tasks)
    return [(name, group or []) for name, group in named.items()]

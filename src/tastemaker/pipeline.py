"""A pipeline: a list of stages and a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.executors import BaseExecutor, default_executor
from tastemaker.stages.base import ProcessingStage
from tastemaker.tasks import Task


class Pipeline:
    """Stages that run one after the other.

    Args:
        name: Shown in logs.
        description: What it is for.
        stages: First to last; `add_stage` appends more.
        config: For users' own stages; Tastemaker reads nothing from it.

    Example:
        >>> from tastemaker import FilePartitioningStage, ImageReaderStage
        >>> pipeline = Pipeline("read").add_stage(FilePartitioningStage("photos")).add_stage(ImageReaderStage())
        >>> [stage.name for stage in pipeline.stages]
        ['file_partitioning', 'image_reader']
    """

    def __init__(
        self,
        name: str,
        description: str | None = None,
        stages: list[ProcessingStage[Any, Any]] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.description = description
        self.stages: list[ProcessingStage[Any, Any]] = []
        self.config = dict(config or {})
        for stage in stages or []:
            self.add_stage(stage)

    def add_stage(self, stage: ProcessingStage[Any, Any]) -> Pipeline:
        """Append a stage, and return the pipeline.

        Raises:
            TypeError: It is no stage.
        """
        if not isinstance(stage, ProcessingStage):
            raise TypeError(f"a pipeline is made of stages (ProcessingStage), not of {type(stage).__name__}")
        self.stages.append(stage)
        return self

    def describe(self) -> str:
        """Return a text with the stages, what they need, read and set."""
        lines = [f"Pipeline: {self.name}", f"Description: {self.description or 'none'}", f"Stages: {len(self.stages)}"]
        for number, stage in enumerate(self.stages, 1):
            needs = stage.resources
            gpus = f", {needs.gpus:g} GPUs" if needs.gpus else ""
            gpus = f", {needs.gpu_memory_gb:g} GB of GPU memory" if needs.gpu_memory_gb else gpus
            lines += ["", f"Stage {number}: {stage.name}", f"  Resources: {needs.cpus:g} CPUs{gpus}"]
            for label, (attributes, columns) in (("Inputs", stage.inputs()), ("Outputs", stage.outputs())):
                if attributes or columns:
                    lines.append(f"  {label}: {', '.join([*attributes, *columns])}")
        return "\n".join(lines)

    def run(
        self,
        executor: BaseExecutor | None = None,
        initial_tasks: list[Task[Any]] | None = None,
        checkpoint_path: str | Path | None = None,
    ) -> list[Task[Any]]:
        """Run all stages, and return what the last one made, in the order of the input.

        Args:
            executor: Where to run; None for `XennaExecutor` where Xenna is installed and `LocalExecutor` where not,
                or for what ``TASTEMAKER_EXECUTOR`` names (``local``, ``xenna``, ``ray-data``).
            initial_tasks: For the first stage; None for one empty task.
            checkpoint_path: Directory that remembers which initial tasks are finished, so that a later run leaves them
                out and returns what they came to. The pipeline must end in a stage that writes. See docs/resume.md.

        Raises:
            ConfigurationError: No stages, or one cannot run as it is configured; a checkpoint of another pipeline.
                Raised before any work.
            StageError: A stage raised.
        """
        if not self.stages:
            raise ConfigurationError(f"pipeline {self.name!r} has no stages")
        if executor is None:
            executor = default_executor()
        if checkpoint_path is not None:
            from tastemaker.runs.checkpoint import run_with_checkpoint
            from tastemaker.storage import expand_path

            return run_with_checkpoint(self.stages, executor, initial_tasks, Path(expand_path(checkpoint_path)))
        return executor.execute(self.stages, initial_tasks)

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {self.stages!r})"

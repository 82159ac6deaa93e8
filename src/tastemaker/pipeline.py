"""A pipeline: a list of stages and a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.executors import BaseExecutor, StageCount, default_executor
from tastemaker.progress import Progress, show_progress
from tastemaker.runs.checkpoint import run_with_checkpoint
from tastemaker.stages.base import ProcessingStage, StageSpec
from tastemaker.storage import expand_path
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
            lines += [*_describe_spec("Inputs", stage.inputs()), *_describe_spec("Outputs", stage.outputs())]
        return "\n".join(lines)

    def run(
        self,
        executor: BaseExecutor | None = None,
        initial_tasks: list[Task[Any]] | None = None,
        checkpoint_path: str | Path | None = None,
    ) -> list[Task[Any]]:
        """Run all stages, and return what the last one made, in the order of the input.

        Args:
            executor: Where to run. None is `LocalExecutor`, or `XennaExecutor` where there is a cluster:
                ``RAY_ADDRESS`` names one, or the program has connected to Ray. ``TASTEMAKER_EXECUTOR`` decides
                otherwise (``local``, ``xenna``, ``ray-data``).
            initial_tasks: For the first stage; None for one empty task.
            checkpoint_path: Directory that remembers which initial tasks are finished, so that a later run leaves them
                out and returns what they came to. The pipeline must end in a stage that writes. See docs/resume.md.

        How many images are done is shown as a bar on a terminal and in a notebook, else as a line on stderr each half
        minute, unless the executor has an ``on_progress`` of its own.

        Raises:
            ConfigurationError: No stages, or one cannot run as it is configured; a checkpoint of another pipeline.
                Raised before any work.
            StageError: A stage raised.
        """
        if not self.stages:
            raise ConfigurationError(f"pipeline {self.name!r} has no stages")
        if executor is None:
            executor = default_executor()
        with _shown(executor, f"pipeline {self.name!r}"):
            if checkpoint_path is not None:
                return run_with_checkpoint(self.stages, executor, initial_tasks, Path(expand_path(checkpoint_path)))
            return executor.execute(self.stages, initial_tasks)

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {self.stages!r})"


@contextmanager
def _shown(executor: BaseExecutor, what: str) -> Iterator[None]:
    """Show how far an executor is, unless somebody else listens to it."""
    if executor.on_progress is not None:
        yield
        return
    done: Counter[str] = Counter()  # of each stage; the first one is a few batches ahead
    with show_progress(what, line_every_s=30.0, at_once=False) as update:

        def count(made: StageCount) -> None:
            done[made.stage] += made.images
            update(Progress(max(done.values())))

        executor.on_progress = count
        try:
            yield
        finally:
            executor.on_progress = None


def _describe_spec(label: str, spec: StageSpec) -> list[str]:
    """Return a line of what a stage reads or sets; of a dictionary, one for each kind of task."""
    kinds = {f" ({kind.__name__})": of_kind for kind, of_kind in spec.items()} if isinstance(spec, dict) else {"": spec}
    return [f"  {label}{kind}: {', '.join([*names[0], *names[1]])}" for kind, names in kinds.items() if any(names)]

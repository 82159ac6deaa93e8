"""NeMo Curator's pipeline, executors and Ray clients."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any

from tastemaker import executors, pipeline
from tastemaker.compat.nemo_curator.stages import CompositeStage
from tastemaker.errors import ConfigurationError
from tastemaker.executors import BaseExecutor
from tastemaker.executors.ray_session import has_cluster
from tastemaker.stages.base import ProcessingStage
from tastemaker.tasks import Task

logger = logging.getLogger(__name__)


class Pipeline(pipeline.Pipeline):
    """`tastemaker.Pipeline`, which also takes composite stages, and tasks by their classes."""

    def add_stage(self, stage: ProcessingStage[Any, Any]) -> Pipeline:
        """Append a stage, or the stages that a composite one is made of, and return the pipeline.

        Raises:
            TypeError: It is no stage.
        """
        for part in stage.decompose_and_apply_with() if isinstance(stage, CompositeStage) else [stage]:
            super().add_stage(part)
        return self

    def build(self) -> None:
        """Raise `ConfigurationError` if there are no stages. Nothing else is needed before a run."""
        if not self.stages:
            raise ConfigurationError(f"pipeline {self.name!r} has no stages")

    def run(
        self,
        executor: BaseExecutor | None = None,
        initial_tasks: list[Task[Any]] | None = None,
        checkpoint_path: str | Path | None = None,
    ) -> list[Task[Any]]:
        """Return what the last stage makes, as `tastemaker.Pipeline.run` does; None runs on `XennaExecutor`.

        Raises:
            ConfigurationError: Also for a checkpoint of stages of which one has ``is_resumable = False``.
        """
        self.build()
        never = [stage.name for stage in self.stages if not getattr(stage, "is_resumable", True)]
        if checkpoint_path is not None and never:
            raise ConfigurationError(f"checkpoint_path: {never[0]!r} says is_resumable = False, so run without it")
        return super().run(executor or XennaExecutor(), _make_tasks(initial_tasks), checkpoint_path)


_WITHOUT_EFFECT = frozenset(
    {"logging_interval", "ignore_failures", "execution_mode", "cpu_allocation_percentage", "autoscale_interval_s"}
    | {"runtime_env", "reserved_cpus", "reserved_gpus", "resource_wait_timeout_s", "resource_wait_interval_s"}
)
"""Options of NeMo Curator's executors that have no counterpart here."""


class XennaExecutor(BaseExecutor):
    """Runs a pipeline on a Ray cluster where there is one, and else in threads of this machine.

    There is one where ``RAY_ADDRESS`` is set, or the program has connected to Ray. ``TASTEMAKER_EXECUTOR`` decides
    otherwise. Threads give the same rows, and a job of a hundred images does not pay for starting Ray.

    Args:
        config: NeMo Curator's options. Only ``max_workers_per_stage`` has an effect.
        ignore_head_node: Place no workers on the machine that runs Ray's own services, if there are others.
        show_progress: NeMo Curator's RayActorPoolExecutor takes it. It has no effect.
        progress_interval: See ``show_progress``.

    Raises:
        ConfigurationError: NeMo Curator has no such option.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        ignore_head_node: bool = False,
        show_progress: bool = True,
        progress_interval: float = 10.0,
    ) -> None:
        super().__init__(config)
        self.ignore_head_node = ignore_head_node
        unknown = sorted(self.config.keys() - _WITHOUT_EFFECT - {"max_workers_per_stage"})
        if unknown:
            known = ", ".join(sorted({"max_workers_per_stage", *_WITHOUT_EFFECT}))
            raise ConfigurationError(f"{type(self).__name__} has no option {unknown[0]!r}; NeMo Curator has {known}")

    def execute(
        self, stages: list[ProcessingStage[Any, Any]], initial_tasks: list[Task[Any]] | None = None
    ) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input."""
        engine = self._choose()
        engine.on_progress, engine.timings = self.on_progress, self.timings
        try:
            return engine.execute(stages, _make_tasks(initial_tasks))
        finally:
            self.timings = engine.timings

    def _choose(self) -> BaseExecutor:
        named = os.environ.get(executors.EXECUTOR_VARIABLE) or ("ray-data" if has_cluster() else "")
        if named in ("", "local"):
            _say_local(type(self).__name__)
            return executors.LocalExecutor()
        options = {"max_workers_per_stage": self.config.get("max_workers_per_stage")}
        return executors.RayDataExecutor(options, self.ignore_head_node)


class RayDataExecutor(XennaExecutor):
    """`XennaExecutor` under another name."""


class RayActorPoolExecutor(XennaExecutor):
    """`XennaExecutor` under another name."""


class RayClient:
    """Starts nothing: threads of this machine need no cluster, and an engine that needs one starts it itself.

    Args:
        options: NeMo Curator's (``num_cpus``, ``ray_port``, ...); kept as attributes, not used.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        vars(self).update(options)

    def start(self) -> None:
        """Say that nothing is started."""
        _say_no_cluster()

    def stop(self) -> None:
        """Do nothing: nothing was started."""

    def __enter__(self) -> RayClient:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class SlurmRayClient(RayClient):
    """Stands for a Ray cluster over all machines of a Slurm job, which the job's script starts.

    Args:
        options: NeMo Curator's; kept as attributes, not used.
    """

    def start(self) -> None:
        """Raise `ConfigurationError` if there is no cluster: a run on one machine would be another job."""
        if not has_cluster():
            raise ConfigurationError(
                "SlurmRayClient starts no cluster here: start Ray in the job's script and set RAY_ADDRESS, as "
                "docs/deploy/slurm.sh of Tastemaker does, or use RayClient for one machine"
            )


def _make_tasks(tasks: list[Any] | None) -> list[Task[Any]] | None:
    """Return the tasks. A class becomes an object, because scripts for NeMo Curator 1.0 pass ``EmptyTask`` itself."""
    return [task() if isinstance(task, type) else task for task in tasks] if tasks else None


@functools.cache
def _say_local(executor: str) -> None:
    logger.warning(
        "%s: no Ray cluster is named (RAY_ADDRESS), so the pipeline runs on this machine in LocalExecutor, and the "
        "engine's options have no effect",
        executor,
    )


@functools.cache
def _say_no_cluster() -> None:
    logger.info("RayClient: no cluster is started, because none is needed")

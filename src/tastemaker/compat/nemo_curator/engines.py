"""What runs a pipeline in NeMo Curator: Pipeline, the executors and the Ray client."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any, ClassVar

from tastemaker import executors, pipeline
from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.executors import BaseExecutor, LocalExecutor
from tastemaker.stages.base import ProcessingStage
from tastemaker.tasks import Task

logger = logging.getLogger(__name__)


class Pipeline(pipeline.Pipeline):
    """`tastemaker.Pipeline`, which runs on Xenna where that is installed, as NeMo Curator's does."""

    def build(self) -> None:
        """Raise `ConfigurationError` if there are no stages; there is nothing else to be done ahead."""
        if not self.stages:
            raise ConfigurationError(f"pipeline {self.name!r} has no stages")

    def run(
        self,
        executor: BaseExecutor | None = None,
        initial_tasks: list[Task[Any]] | None = None,
        checkpoint_path: str | Path | None = None,
    ) -> list[Task[Any]]:
        """Run all stages, and return what the last one made, in the order of the input.

        Args:
            executor: Where to run; None for `XennaExecutor`.
            initial_tasks: For the first stage; None for one empty task.
            checkpoint_path: As `tastemaker.Pipeline.run` takes it.

        Raises:
            ConfigurationError: No stages, or one cannot run as it is configured. Raised before any work.
            StageError: A stage raised.
        """
        self.build()
        return super().run(executor or XennaExecutor(), _make_tasks(initial_tasks), checkpoint_path)


class _EngineOrLocal(LocalExecutor):
    """Runs on one of the engines in `tastemaker.executors`.

    On this machine where that is not installed, or where ``TASTEMAKER_EXECUTOR`` is ``local``.

    Args:
        config: Options of the engine.
        ignore_head_node: Option of the engine.
    """

    _engine_name: ClassVar[str]

    def __init__(self, config: dict[str, Any] | None = None, ignore_head_node: bool = False) -> None:
        super().__init__(config)
        self.ignore_head_node = ignore_head_node
        self._engine: BaseExecutor | None = None
        if os.environ.get(executors.EXECUTOR_VARIABLE) == "local":
            return
        try:
            self._engine = getattr(executors, self._engine_name)(self.config, ignore_head_node)
        except MissingExtraError:
            _say_local(self._engine_name)

    def execute(
        self, stages: list[ProcessingStage[Any, Any]], initial_tasks: list[Task[Any]] | None = None
    ) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input."""
        tasks = _make_tasks(initial_tasks)
        if self._engine is None:
            return super().execute(stages, tasks)
        self._engine.on_progress = self.on_progress
        results = self._engine.execute(stages, tasks)
        self.timings = self._engine.timings
        return results


class XennaExecutor(_EngineOrLocal):
    """`tastemaker.XennaExecutor`, or `tastemaker.LocalExecutor` where Xenna is not installed."""

    _engine_name = "XennaExecutor"


class RayDataExecutor(_EngineOrLocal):
    """`tastemaker.RayDataExecutor`, or `tastemaker.LocalExecutor` where Ray is not installed."""

    _engine_name = "RayDataExecutor"


class RayActorPoolExecutor(RayDataExecutor):
    """`RayDataExecutor` under another name: there is one way to run on Ray's actors here.

    Args:
        config: Options of the engine.
        ignore_head_node: Option of the engine.
        show_progress: For compatibility.
        progress_interval: For compatibility.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        ignore_head_node: bool = False,
        show_progress: bool = True,
        progress_interval: float = 10.0,
    ) -> None:
        super().__init__(config, ignore_head_node)
        self.show_progress, self.progress_interval = show_progress, progress_interval


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


def _make_tasks(tasks: list[Any] | None) -> list[Task[Any]] | None:
    """Return the tasks; one given as its class becomes an object (1.0's ``EmptyTask`` was one)."""
    return [task() if isinstance(task, type) else task for task in tasks] if tasks else None


@functools.cache
def _say_local(executor: str) -> None:
    logger.warning(
        "%s: the distributed engines (tastemaker[ray]) are not installed; the pipeline runs on this machine in "
        "LocalExecutor, and the engine's options have no effect",
        executor,
    )


@functools.cache
def _say_no_cluster() -> None:
    logger.info("RayClient: no cluster is started, because none is needed")

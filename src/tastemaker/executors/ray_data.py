"""A pipeline on a pool of Ray actors, which Ray itself starts again, with what they were doing, where one dies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from tastemaker.errors import ConfigurationError, MissingExtraError
from tastemaker.executors.base import BaseExecutor, Stage, StageCount
from tastemaker.executors.chain import Chain
from tastemaker.executors.ray_session import list_nodes, ray_session
from tastemaker.tasks import EmptyTask, Task

if TYPE_CHECKING:
    from tastemaker.executors.pool import ClusterRun

logger = logging.getLogger(__name__)


class RayDataExecutor(BaseExecutor):
    """Runs a pipeline on a Ray cluster: whole partitions, each by one worker that has all stages loaded.

    A first stage that makes the work (it wants one worker, and takes an `EmptyTask`) runs here. All others become one
    chain, which runs in every worker as `LocalExecutor` runs it. So rows and files are the same, and what crosses
    processes is names of files and the results of the last stage.

    The name is NeMo Curator's. What runs is a pool of Ray's actors: Ray Data itself would only carry names of files.

    Args:
        config: ``address`` of the cluster (else ``RAY_ADDRESS``, else a Ray is started here), ``logging_interval`` in
            seconds, ``max_workers_per_stage``, ``queue_size``. Other options of NeMo Curator's have no effect.
        ignore_head_node: Place no workers on the machine that runs Ray's own services, if there are others.
        on_progress: Called with what the stages have done, after each partition.

    Raises:
        MissingExtraError: The engine is not installed.
        ConfigurationError: An option is out of its range.
    """

    _modules: ClassVar[tuple[str, ...]] = ("ray",)
    _ray_shows_gpus: ClassVar[bool] = True

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        ignore_head_node: bool = False,
        on_progress: Callable[[StageCount], None] | None = None,
    ) -> None:
        missing = [module for module in self._modules if find_spec(module) is None]
        if missing:
            raise MissingExtraError(
                f'{type(self).__name__} needs {" and ".join(missing)}: pip install "tastemaker[ray]". '
                "LocalExecutor runs the same stages on this machine"
            )
        super().__init__(config, on_progress)
        self.ignore_head_node = ignore_head_node
        for name in ("logging_interval", "max_workers_per_stage"):
            value = self.config.get(name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name}={value!r} must be more than 0")

    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input.

        Raises:
            ConfigurationError: A stage's check failed, or the cluster has no room; no worker was started.
            StageError: A stage raised, or workers died again and again on the same task.
            KeyboardInterrupt: Ends the workers. What they had finished stays.
        """
        for stage in stages:
            stage.check()
        logger.info("the pipeline runs on %s", type(self).__name__)
        tasks = list(initial_tasks or [EmptyTask()])
        self.timings.clear()
        makes_work = stages[0].num_workers() == 1 and all(isinstance(task, EmptyTask) for task in tasks)
        here, chain = (stages[:1], stages[1:]) if makes_work else ([], stages)
        if here:
            first = Chain(here)
            self.timings += first.timings
            tasks = first.run_once(tasks)
        if not chain or not tasks:
            return tasks
        with ray_session(self.config.get("address"), sets_gpus=self._ray_shows_gpus):
            from tastemaker.executors.pool import ClusterRun

            run = ClusterRun(self, list_nodes(ignore_head_node=self.ignore_head_node), chain, tasks)
            run.prepare_nodes()
            self.run_engine(run)
        return [result for number in range(len(tasks)) for result in run.results[number]]

    def run_engine(self, run: ClusterRun) -> None:
        """Do all tasks of a run that have no result yet."""
        from tastemaker.executors.pool import run_pool

        run_pool(run)

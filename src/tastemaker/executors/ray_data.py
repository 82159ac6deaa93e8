"""A pipeline on a pool of Ray actors, which Ray itself starts again, with what they were doing, where one dies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar

from tastemaker.errors import MissingExtraError
from tastemaker.executors.base import BaseExecutor, Stage, StageCount
from tastemaker.executors.chain import Chain
from tastemaker.executors.ray_session import ray_session
from tastemaker.tasks import EmptyTask, Task

logger = logging.getLogger(__name__)


class RayDataExecutor(BaseExecutor):
    """Runs a pipeline on a Ray cluster: whole partitions, each by one worker that has all stages loaded.

    The first stage, if it makes the work of an `EmptyTask`, runs here. All others become one
    chain, which runs in every worker as `LocalExecutor` runs it. So rows and files are the same, and what crosses
    processes is names of files and the results of the last stage.

    The name is NeMo Curator's. What runs is a pool of Ray's actors: Ray Data itself would only carry names of files.

    Args:
        config: ``address`` of the cluster (else ``RAY_ADDRESS``, else a Ray is started here) and
            ``max_workers_per_stage``.
        ignore_head_node: Place no workers on the machine that runs Ray's own services, if there are others.
        on_progress: Called with what the stages have done, after each partition.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigurationError: There is no such option, or it is out of its range.
    """

    options: ClassVar[tuple[str, ...] | None] = ("address", "max_workers_per_stage")

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        ignore_head_node: bool = False,
        on_progress: Callable[[StageCount], None] | None = None,
    ) -> None:
        if find_spec("ray") is None:
            raise MissingExtraError(
                f'{type(self).__name__} needs ray: pip install "tastemaker[ray]". '
                "LocalExecutor runs the same stages on this machine"
            )
        super().__init__(config, on_progress)
        self.ignore_head_node = ignore_head_node

    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input.

        Raises:
            ConfigurationError: A stage's check failed, or the cluster has no room; no worker was started.
            StageError: A stage raised, or workers died again and again on the same task.
            KeyboardInterrupt: Ends the workers. What they had finished stays.
        """
        for stage in stages:
            stage.check()
        logger.info("the pipeline runs on a pool of Ray actors (%s)", type(self).__name__)
        tasks = list(initial_tasks or [EmptyTask()])
        self.timings.clear()
        if all(isinstance(task, EmptyTask) for task in tasks):
            first, stages = Chain(stages[:1]), stages[1:]
            self.timings += first.timings
            tasks = first.run_once(tasks)
        if not stages or not tasks:
            return tasks
        with ray_session(self.config.get("address")):
            import ray

            from tastemaker.executors.pool import ActorPool

            nodes = [node for node in ray.nodes() if node["Alive"]]
            others = [node for node in nodes if "node:__internal_head__" not in node["Resources"]]
            return ActorPool(self, stages).run(tasks, others if self.ignore_head_node and others else nodes)


class XennaExecutor(RayDataExecutor):
    """`RayDataExecutor` under the other name that NeMo Curator has: cosmos-xenna itself is not used."""

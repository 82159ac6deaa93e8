"""Every stage in threads of this process, joined by bounded queues; with several GPUs, a process for each."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, ClassVar

from tastemaker.executors.base import BaseExecutor, Stage
from tastemaker.executors.chain import Chain
from tastemaker.tasks import EmptyTask, Task

logger = logging.getLogger(__name__)


class LocalExecutor(BaseExecutor):
    """Runs a pipeline in threads: reading and decoding overlap inference, results come in the order of the input.

    One process cannot keep several GPUs busy. Where a stage may use all GPUs and there are several, the pipeline runs
    on a pool of one process for each, if Ray is installed (``tastemaker[ray]``), and else on the first GPU.

    Args:
        config: ``gpus``: GPUs to use; else all are.
        on_progress: Called with what a stage has made, in that stage's thread.
    """

    options: ClassVar[tuple[str, ...] | None] = ("gpus",)

    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in order.

        Raises:
            ConfigurationError: A stage's check failed; nothing was loaded yet.
            StageError: A stage raised. All others were stopped.
            KeyboardInterrupt: Stops all stages within two seconds; what they had not finished is deleted.
        """
        for stage in stages:
            stage.check()
        gpus = int(self.config.get("gpus") or _count_gpus(stages))
        if gpus > 1:
            if find_spec("ray") is not None:
                return self._run_on_gpus(gpus, stages, initial_tasks)
            logger.warning('%d GPUs, and one is used: to use all, pip install "tastemaker[ray]"', gpus)
        logger.info("the pipeline runs on %s", LocalExecutor.__name__)
        chain = Chain(stages)
        self.timings = chain.timings
        return chain.run_once(list(initial_tasks or [EmptyTask()]), self.on_progress)

    def _run_on_gpus(self, gpus: int, stages: list[Stage], tasks: list[Task[Any]] | None) -> list[Task[Any]]:
        from tastemaker.executors.ray_data import RayDataExecutor

        pool = RayDataExecutor({"address": "local", "max_workers_per_stage": gpus}, on_progress=self.on_progress)
        self.timings = pool.timings
        return pool.execute([_with_a_gpu(stage) if stage.resources.requires_gpu else stage for stage in stages], tasks)


def _with_a_gpu(stage: Stage) -> Stage:
    return stage.with_(resources=replace(stage.resources, gpus=1, gpu_memory_gb=0))


def _count_gpus(stages: list[Stage]) -> int:
    """Return how many GPUs of this machine the stages may use: all, unless one of them names one."""
    users = [stage for stage in stages if stage.resources.requires_gpu]
    if not users or any(getattr(stage, "device", "auto") not in ("auto", "cuda") for stage in users):
        return min(1, len(users))
    from tastemaker.models.device import cuda_devices, find_gpu

    return len(cuda_devices()) if find_gpu() == "cuda" else 0

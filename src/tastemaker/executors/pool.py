"""One run on a cluster that is connected: its tasks, what came of them, and the pool of actors that does them."""

from __future__ import annotations

import logging
import pickle
import sys
import time
from collections import Counter, deque
from dataclasses import astuple
from typing import Any

import ray
from ray import cloudpickle

from tastemaker.errors import ConfigurationError, StageError
from tastemaker.executors.base import BaseExecutor, Stage
from tastemaker.executors.chain import QUEUE_SIZE
from tastemaker.executors.ray_session import gpu_memory_gb, on_node
from tastemaker.executors.resources import share_cluster
from tastemaker.executors.timing import sum_timings
from tastemaker.executors.worker import ChainWorker, Done, Job, prepare_node, unpickle_error
from tastemaker.stages.base import describe_task
from tastemaker.tasks import Task

MAX_ATTEMPTS = 3
"""Workers that Ray gives a task to, one after the other, before it says that the task cannot be done."""

MAX_TRIES = 3
"""How often Ray is asked again where it says that a worker cannot be reached: its machine may be lost, and until Ray
knows that it uses its attempts up within a second."""

LOGGING_INTERVAL_S = 60.0
"""Seconds between lines about the progress, where ``logging_interval`` says nothing else."""

_WAIT_S = 1.0
_LOST_S = 5.0
_END_S = 5.0

logger = logging.getLogger(__name__)


class ClusterRun:
    """One `RayDataExecutor.execute` on a cluster that is connected.

    Attributes:
        job: What each worker is told.
        nodes: Where workers may be, of ``ray.nodes()``.
        results: Task -> what came of it.
    """

    def __init__(
        self, executor: BaseExecutor, nodes: list[dict[str, Any]], stages: list[Stage], tasks: list[Task[Any]]
    ) -> None:
        config, self._executor, self._tasks, self.nodes = executor.config, executor, tasks, nodes
        has = [node["Resources"] for node in nodes]
        share = share_cluster(stages, has, len(tasks), config.get("max_workers_per_stage"), gpu_memory_gb)
        logger.info("%d tasks on %d workers of %g cores and %g GPUs", len(tasks), *astuple(share))
        level = logging.getLogger("tastemaker").getEffectiveLevel()
        queue_size = config.get("queue_size", QUEUE_SIZE)
        self.job = Job(_pickle_stages(stages), list(sys.path), share, queue_size, level)
        self.results: dict[int, list[Task[Any]]] = {}
        self._images: Counter[str] = Counter()
        self._last_line = time.monotonic()

    @property
    def is_finished(self) -> bool:
        """Whether all tasks have results."""
        return len(self.results) == len(self._tasks)

    def missing(self) -> dict[int, Task[Any]]:
        """Return the tasks without a result, by their positions in the input."""
        return {number: task for number, task in enumerate(self._tasks) if number not in self.results}

    def prepare_nodes(self) -> None:
        """Fetch the weights, once on each machine that has room for workers."""
        prepare = ray.remote(prepare_node)
        usable = [node["NodeID"] for node in self.nodes if self.job.share.count_on(node["Resources"])]
        for error in ray.get(
            [prepare.options(num_cpus=0, scheduling_strategy=on_node(node)).remote(self.job) for node in usable]
        ):
            if error:
                raise unpickle_error(error)

    def take(self, number: int, done: Done) -> None:
        """Keep what came of a task, and tell of it.

        Raises:
            BaseException: What a stage raised.
        """
        self._executor.timings[:] = sum_timings([self._executor.timings, done.timings])
        if done.error:
            raise unpickle_error(done.error)
        self.results[number] = pickle.loads(done.results)
        for count in done.counts:
            self._images[count.stage] += count.images
            if self._executor.on_progress is not None:
                self._executor.on_progress(count)
        if time.monotonic() - self._last_line >= self._executor.config.get("logging_interval", LOGGING_INTERVAL_S):
            self._last_line = time.monotonic()
            images = max(self._images.values(), default=0)
            logger.info("%d of %d tasks done, %d images", len(self.results), len(self._tasks), images)


def run_pool(run: ClusterRun) -> None:
    """Have a pool of actors do all tasks that have no result yet, one at a time each.

    Raises:
        StageError: A stage raised, or workers died again and again on the same task.
    """
    share, nodes = run.job.share, ",".join(node["NodeID"] for node in run.nodes)
    make = ray.remote(ChainWorker).options(
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        label_selector={"ray.io/node-id": f"in({nodes})"},
        max_restarts=-1,
        max_task_retries=MAX_ATTEMPTS - 1,
    )
    waiting = deque(run.missing().items())
    pool = [make.remote(run.job) for _ in range(min(share.workers, len(waiting)))]
    calls: dict[Any, tuple[Any, int, Task[Any] | None]] = {}
    tries: Counter[int] = Counter()

    def call(actor: Any, number: int, task: Task[Any] | None) -> None:  # noqa: ANN401
        calls[actor.run.remote(None if task is None else pickle.dumps(task))] = actor, number, task

    try:
        for actor in pool:
            call(actor, -1, None)  # some answer only when others have ended and made room
        while not run.is_finished:
            for answer in ray.wait(list(calls), timeout=_WAIT_S)[0]:
                actor, number, task = calls.pop(answer)
                try:
                    done: Done | None = ray.get(answer)
                except ray.exceptions.RayError as error:
                    tries[number] += 1
                    if not isinstance(error, ray.exceptions.ActorUnavailableError) or tries[number] == MAX_TRIES:
                        what = "loading" if task is None else describe_task(task)
                        raise StageError(f"workers died again and again on {what}; is there enough memory?") from error
                    time.sleep(_LOST_S)
                    call(actor, number, task)
                    continue
                if done is not None:
                    run.take(number, done)
                if waiting:
                    call(actor, *waiting.popleft())
                else:
                    ray.wait([actor.end.remote()], timeout=_END_S)
                    ray.kill(actor)
    finally:
        for actor in pool:
            ray.kill(actor)


def _pickle_stages(stages: list[Stage]) -> bytes:
    """Return the stages as bytes; classes of a script's own go along by value.

    Raises:
        ConfigurationError: One cannot be sent.
    """
    for stage in stages:
        try:
            cloudpickle.dumps(stage)
        except Exception as error:
            raise ConfigurationError(
                f"stage {stage.name!r} cannot be sent to workers: {error}. Make what it holds (files, locks, "
                "connections, models) in setup(), or run the pipeline on LocalExecutor"
            ) from error
    return cloudpickle.dumps(stages)  # type: ignore[no-any-return]

"""A pool of Ray actors that does the tasks of one run, one task at a time each."""

from __future__ import annotations

import logging
import pickle
import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from typing import Any

import ray
from ray import cloudpickle

from tastemaker.errors import ConfigurationError, StageError
from tastemaker.executors.base import BaseExecutor, Stage
from tastemaker.executors.resources import share_cluster
from tastemaker.executors.timing import sum_timings
from tastemaker.executors.worker import ChainWorker, Done, Raised
from tastemaker.stages.base import describe_task
from tastemaker.tasks import Task

MAX_ATTEMPTS = 3
"""Workers that Ray gives a task to, one after the other, before it says that the task cannot be done."""

MAX_TRIES = 3
"""How often Ray is asked again where it says that a worker cannot be reached: its machine may be lost, and until Ray
knows that it uses its attempts up within a second."""

_LOST_S = 5.0
_END_S = 5.0

logger = logging.getLogger(__name__)


class ActorPool:
    """Workers for one `RayDataExecutor.execute` on a cluster that is connected. A thread here looks after each.

    Args:
        executor: Whose run it is; it is told of the progress.
        nodes: Where workers may be, of ``ray.nodes()``.
        stages: Of the chain.
    """

    def __init__(self, executor: BaseExecutor, nodes: list[dict[str, Any]], stages: list[Stage]) -> None:
        self._executor, self._nodes, self._stages = executor, nodes, stages
        self._waiting: queue.SimpleQueue[tuple[int, Task[Any]]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, Done] | BaseException] = queue.SimpleQueue()
        self._preparing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._prepared: set[str] = set()
        self._is_over = threading.Event()

    def run(self, tasks: list[Task[Any]]) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in their order.

        Raises:
            ConfigurationError: A stage cannot be sent to workers, or no machine has room for one.
            StageError: A stage raised, or workers died again and again on the same task.
        """
        workers = self._start_workers(len(tasks))
        threads = [threading.Thread(target=self._look_after, args=[worker], daemon=True) for worker in workers]
        for numbered in enumerate(tasks):
            self._waiting.put(numbered)
        try:
            for thread in threads:
                thread.start()
            results = dict(self.take(self._answers.get()) for _ in tasks)
            self._join(threads, _END_S)  # each has its worker free what that loaded
        finally:
            self._is_over.set()
            for worker in workers:
                ray.kill(worker)
            self._join(threads, _LOST_S)  # Ray cannot be left while a thread waits for it
        return [result for number in range(len(tasks)) for result in results[number]]

    def _start_workers(self, tasks: int) -> list[Any]:
        has = [node["Resources"] for node in self._nodes]
        share = share_cluster(self._stages, has, tasks, self._executor.config.get("max_workers_per_stage"))
        logger.info("%d tasks on %d workers of %g cores and %g GPUs", tasks, *astuple(share))
        nodes = ",".join(node["NodeID"] for node in self._nodes)
        make = ray.remote(ChainWorker).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            label_selector={"ray.io/node-id": f"in({nodes})"},
            max_restarts=-1,
            max_task_retries=MAX_ATTEMPTS - 1,
        )
        level = logging.getLogger("tastemaker").getEffectiveLevel()
        stages = _pickle_stages(self._stages)
        return [make.remote(stages, list(sys.path), share, level) for _ in range(share.workers)]

    def _look_after(self, worker: Any) -> None:  # noqa: ANN401 - of Ray
        """Give a worker one task after the other. It may begin only when others have ended and made room."""
        try:
            node = self._ask(worker.find_node.remote, "loading")
            with self._preparing[node]:
                if node not in self._prepared:
                    self._ask(worker.prepare_node.remote, "loading")
                    self._prepared.add(node)
            with suppress(queue.Empty):
                while True:
                    number, task = self._waiting.get_nowait()
                    call = partial(worker.run.remote, pickle.dumps(task))
                    self._answers.put((number, self._ask(call, describe_task(task))))
            ray.get(worker.end.remote(), timeout=_END_S)
            ray.kill(worker)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that runs the pool
            self._answers.put(error)

    def _ask(self, call: Callable[[], Any], what: str) -> Any:  # noqa: ANN401
        """Return what a worker answers. Raise what a stage raised there."""
        tries = 0
        while True:
            try:
                answer = ray.get(call())
                break
            except ray.exceptions.RayError as error:
                tries += 1
                is_lost = isinstance(error, ray.exceptions.ActorUnavailableError)
                if not is_lost or tries == MAX_TRIES or self._is_over.wait(_LOST_S):
                    raise StageError(f"workers died again and again on {what}; is there enough memory?") from error
        if isinstance(answer, Raised):
            raise answer.unpickle()
        return answer

    @staticmethod
    def _join(threads: list[threading.Thread], timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def take(self, answer: tuple[int, Done] | BaseException) -> tuple[int, list[Task[Any]]]:
        """Return the number of a task that is done and what came of it, and tell of it.

        Raises:
            BaseException: What a stage raised.
        """
        if isinstance(answer, BaseException):
            raise answer
        number, (results, counts, timings) = answer
        self._executor.timings[:] = sum_timings([self._executor.timings, timings])
        if self._executor.on_progress is not None:
            for count in counts:
                self._executor.on_progress(count)
        return number, pickle.loads(results)


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

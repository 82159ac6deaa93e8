"""A pool of Ray actors that does the tasks of one run, one task at a time each."""

from __future__ import annotations

import logging
import pickle
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tastemaker.errors import ConfigurationError, StageError
from tastemaker.executors.base import BaseExecutor, Stage
from tastemaker.executors.resources import Share, share_cluster
from tastemaker.executors.timing import StageTiming
from tastemaker.executors.worker import ChainWorker, Done, Raised, make_chain, prepare_node
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
    """Workers for one `RayDataExecutor.execute` on a cluster that is connected.

    Args:
        executor: Whose run it is; it is told of the progress.
        stages: Of the chain.

    Raises:
        ConfigurationError: A stage cannot be sent to workers.
    """

    def __init__(self, executor: BaseExecutor, stages: list[Stage]) -> None:
        self._executor, self._stages = executor, stages
        self._timings = [StageTiming(stage.name) for stage in stages]
        executor.timings += self._timings
        level = logging.getLogger("tastemaker").getEffectiveLevel()
        self._make_chain = partial(make_chain, _pickle_stages(stages), list(sys.path), level)

    def run(self, tasks: list[Task[Any]], nodes: list[dict[str, Any]]) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in their order.

        Args:
            tasks: For the first stage.
            nodes: Where workers may be, of ``ray.nodes()``.

        Raises:
            ConfigurationError: No machine has room for a worker.
            StageError: A stage raised, or workers died again and again on the same task.
        """
        share = share_cluster(self._stages, nodes, len(tasks), self._executor.config.get("max_workers_per_stage"))
        workers = self._start_workers(share)
        logger.info("%d tasks on %d workers of %g cores and %g GPUs", len(tasks), len(workers), share.cpus, share.gpus)
        try:
            self._prepare(list(share.cores))
            results = {number: self.take(done) for number, done in self._work(workers, tasks)}
        finally:
            for worker in workers:
                ray.kill(worker)
        return [result for number in range(len(tasks)) for result in results[number]]

    def take(self, done: Done) -> list[Task[Any]]:
        """Return what came of a task, and tell of it."""
        results, counts, timings = done
        for total, timing in zip(self._timings, timings, strict=True):
            total.add(timing)
        if self._executor.on_progress is not None:
            for count in counts:
                self._executor.on_progress(count)
        return pickle.loads(results)  # type: ignore[no-any-return]

    def _start_workers(self, share: Share) -> list[Any]:
        """Have Ray start workers. Where one dies, Ray starts another, and gives it the task of the dead one."""
        make = ray.remote(ChainWorker).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            label_selector={"ray.io/node-id": f"in({','.join(share.cores)})"},
            max_restarts=-1,
            max_task_retries=MAX_ATTEMPTS - 1,
        )
        return [make.remote(self._make_chain, share.cores) for _ in range(share.workers)]

    def _prepare(self, nodes: list[str]) -> None:
        """Have each machine fetch weights, all at the same time."""
        prepare, places = ray.remote(prepare_node), [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
        for answer in [
            prepare.options(num_cpus=0, scheduling_strategy=place).remote(self._make_chain) for place in places
        ]:
            _get(answer)

    def _work(self, workers: list[Any], tasks: list[Task[Any]]) -> Iterator[tuple[int, Done]]:
        """Yield what came of each task, with its number. Each worker gets one task after the other, and then ends."""
        asked: dict[Any, tuple[Any, int | None]] = {worker.__ray_ready__.remote(): (worker, None) for worker in workers}
        waiting, left, tries, ends = deque(range(len(tasks))), len(tasks), Counter[Any](), []
        while left:
            (answer,), _ = ray.wait(list(asked))
            worker, number = asked.pop(answer)
            try:
                done = _get(answer)
            except ray.exceptions.RayError as error:
                asked_for = worker if number is None else number  # several may be lost at once while they load
                tries[asked_for] += 1
                if not isinstance(error, ray.exceptions.ActorUnavailableError) or tries[asked_for] == MAX_TRIES:
                    what = "loading" if number is None else describe_task(tasks[number])
                    raise StageError(f"workers died again and again on {what}; is there enough memory?") from error
                time.sleep(_LOST_S)
                waiting.extendleft([] if number is None else [number])
            else:
                if number is not None:
                    left -= 1
                    yield number, done
            if waiting:  # a worker that is to begin finds none if others have done all in the meantime
                number = waiting.popleft()
                asked[worker.run.remote(pickle.dumps(tasks[number]))] = worker, number
            else:
                ends.append(worker.end.remote())  # and makes room for one that Ray could not start yet
        ray.wait(ends, num_returns=len(ends), timeout=_END_S)


def _get(answer: Any) -> Any:  # noqa: ANN401 - of Ray
    """Return what a worker answers. Raise what a stage raised there."""
    got = ray.get(answer)
    if isinstance(got, Raised):
        raise got.unpickle()
    return got


def _pickle_stages(stages: list[Stage]) -> list[bytes]:
    """Return each stage as bytes; classes of a script's own go along by value.

    Raises:
        ConfigurationError: One cannot be sent.
    """
    pickled = []
    for stage in stages:
        try:
            pickled.append(cloudpickle.dumps(stage))
        except Exception as error:
            raise ConfigurationError(
                f"stage {stage.name!r} cannot be sent to workers: {error}. Make what it holds (files, locks, "
                "connections, models) in setup(), or run the pipeline on LocalExecutor"
            ) from error
    return pickled

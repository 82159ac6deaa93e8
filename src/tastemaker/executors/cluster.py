"""What the executors on Ray share: where things run, the ledger, and starting again after a death."""

from __future__ import annotations

import logging
import pickle
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, ClassVar

from tastemaker.errors import ConfigurationError, MissingExtraError, StageError
from tastemaker.executors.base import BaseExecutor, Stage, StageCount
from tastemaker.executors.chain import QUEUE_SIZE, Chain
from tastemaker.executors.error_travel import pickle_error, unpickle_error
from tastemaker.executors.ledger import Ledger, Report
from tastemaker.executors.plan import Node, WorkerPlan, asks_for_gpu_memory, group_tasks, plan_workers
from tastemaker.executors.ray_session import list_nodes, on_node, ray_session
from tastemaker.tasks import EmptyTask, Task

LOGGING_INTERVAL_S = 60.0
"""Seconds between lines about the progress, where ``logging_interval`` says nothing else."""

MAX_FRUITLESS_RUNS = 3
"""Runs of the engine, one after the other, in which nothing was finished and no batch was found to be deadly."""

MAX_SHOWN_KEYS = 1000
"""Keys of a deadly batch that are logged one by one; of more, the first and the last."""

_COLLECT_S = 0.3
_PAUSE_S = 1.0
_LONG_PAUSE_S = 10.0
"""Until Ray has noticed that a machine is gone."""
_TASKS_IN_A_MESSAGE = 1000

logger = logging.getLogger(__name__)


class ClusterExecutor(BaseExecutor):
    """Runs a pipeline on a Ray cluster: whole partitions, each by one worker that has all stages loaded.

    A first stage that makes the work (it wants one worker, and takes an `EmptyTask`) runs here. All others become one
    chain, which runs in every worker as `LocalExecutor` runs it. So rows and files are the same, and what crosses
    processes is names of files and the results of the last stage.

    Args:
        config: ``address`` of the cluster (else ``RAY_ADDRESS``, else a Ray is started here), ``logging_interval`` in
            seconds, ``max_workers_per_stage``, ``queue_size``. ``ignore_failures`` is never used: nothing is lost.
        ignore_head_node: Place no workers on the machine that runs Ray's own services, if there are others.
        on_progress: Called with what a stage has done, twice a second or so.

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
        for name in ("logging_interval", "max_workers_per_stage", "autoscale_interval_s", "cpu_allocation_percentage"):
            value = self.config.get(name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name}={value!r} must be more than 0")
        if self.config.get("ignore_failures"):
            logger.warning(
                "ignore_failures is not used: the engines would drop whole batches. Images that fail are rows with a "
                "reason, and a batch that kills its workers is recorded as failed"
            )

    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in the order of the input.

        Raises:
            ConfigurationError: A stage's check failed, or the cluster has no room; no worker was started.
            StageError: A stage raised, or workers died again and again.
            KeyboardInterrupt: Ends the workers. What they had finished stays.
        """
        for stage in stages:
            stage.check()
        tasks = list(initial_tasks or [EmptyTask()])
        self.timings, self.bytes_per_image = [], 0.0
        makes_work = stages[0].num_workers() == 1 and all(isinstance(task, EmptyTask) for task in tasks)
        here, chain = (stages[:1], stages[1:]) if makes_work else ([], stages)
        if here:
            tasks = self._run_here(here, tasks)
        if not chain or not tasks:
            return tasks
        with ray_session(self.config.get("address"), sets_gpus=self._ray_shows_gpus):
            return _ClusterRun(self, chain, tasks).collect()

    @abstractmethod
    def run_engine(self, job: Any, plan: WorkerPlan, nodes: list[Node], portions: list[list[int]]) -> None:  # noqa: ANN401
        """Have a `ChainWorker` run each portion of the tasks, ``plan.workers`` of them at the same time.

        Args:
            job: A `tastemaker.executors.worker.Job`.
            plan: What each worker gets.
            nodes: Where workers may be.
            portions: Numbers of tasks.
        """

    def usable_cores(self, cores: float) -> float:
        """Return how many cores of a machine the engine gives to workers."""
        return cores

    def _run_here(self, stages: list[Stage], tasks: list[Task[Any]]) -> list[Task[Any]]:
        chain = Chain(stages)
        self.timings += chain.timings
        chain.setup_on_node()
        try:
            chain.setup()
            return [result for group in chain.run(tasks) for result in group]
        finally:
            chain.teardown()


class _ClusterRun:
    """One `ClusterExecutor.execute` on a cluster that is connected."""

    def __init__(self, executor: ClusterExecutor, stages: list[Stage], tasks: list[Task[Any]]) -> None:
        import ray

        self._ray = ray
        self._executor, self._stages, self._number = executor, stages, len(tasks)
        self._pickled_stages = _pickle_stages(stages)
        here = ray.get_runtime_context().get_node_id()
        self._ledger = ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=on_node(here)).remote()
        for start in range(0, len(tasks), _TASKS_IN_A_MESSAGE):
            payloads = [pickle.dumps(task) for task in tasks[start : start + _TASKS_IN_A_MESSAGE]]
            ray.get(self._ledger.add.remote(payloads))
        self._results: dict[int, list[Task[Any]]] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self._said: set[str] = set()
        self._error: Exception | None = None
        self._timings_here = list(executor.timings)
        self._last_line = time.monotonic()
        self._collecting = threading.Lock()
        self._ended = threading.Event()
        self._collector = threading.Thread(target=self._collect_often, name="collect", daemon=True)

    def collect(self) -> list[Task[Any]]:
        """Run to the end, and return the results in order."""
        self._collector.start()
        try:
            self._run_until_done()
            self._ended.set()
            self._collector.join()
            self._collect()
            self._state_figures()
        finally:
            self._ended.set()
            self._end_workers()
            self._ray.kill(self._ledger)
        return [result for number in range(self._number) for result in self._results[number]]

    def _run_until_done(self) -> None:
        fruitless, before, dead, death = 0, -1, list[str](), None
        while True:
            numbers, progress = self._ray.get(self._ledger.start_run.remote(dead))
            if not numbers:
                return
            fruitless = 0 if progress > before else fruitless + 1
            if fruitless == MAX_FRUITLESS_RUNS:
                raise StageError(f"workers died in {fruitless} runs that finished nothing: {death}") from death
            if death is not None:
                logger.warning("a worker died (%s); %d tasks are run again", _first_line(death), len(numbers))
                time.sleep(_LONG_PAUSE_S if fruitless else _PAUSE_S)
            before = progress
            death = self._run_once(numbers)
            dead = _dead_actors(death) if death is not None else []

    def _run_once(self, numbers: list[int]) -> Exception | None:
        """Let the engine run these tasks; return what ended it early, if that was a death."""
        try:
            job, plan, nodes = self._prepare(len(numbers))
            self._executor.run_engine(job, plan, nodes, group_tasks(numbers, plan.workers))
            self._raise_error()
            return None
        except Exception as error:
            self._raise_error()
            if not _is_death(error, self._ray):
                raise
            return error
        finally:
            self._end_workers()

    def _raise_error(self) -> None:
        """Raise what a worker or `on_progress` raised, if one did: rather than what the engine made of it."""
        if self._error is None:
            self._collect()
        if self._error is not None:
            raise self._error

    def _prepare(self, tasks: int) -> tuple[Any, WorkerPlan, list[Node]]:
        from tastemaker.executors.worker import Job

        nodes = list_nodes(
            ignore_head_node=self._executor.ignore_head_node, with_gpu_memory=asks_for_gpu_memory(self._stages)
        )
        nodes = [
            Node(n.node_id, self._executor.usable_cores(n.cores), n.gpus, n.gpu_memory_gb, n.cores)
            for n in nodes
            if n.cores > 0
        ]
        config = self._executor.config
        plan = plan_workers(self._stages, nodes, tasks, config.get("max_workers_per_stage"))
        level = logging.getLogger("tastemaker").getEffectiveLevel()
        queue_size = config.get("queue_size", QUEUE_SIZE)
        job = Job(self._pickled_stages, list(sys.path), self._ledger, plan.threads, queue_size, level)
        logger.info(
            "%d tasks on %d workers of %g cores and %g GPUs, on %d machines",
            *(tasks, plan.workers, plan.cpus, plan.gpus, len(plan.threads)),
        )
        return job, plan, nodes

    def _end_workers(self) -> None:
        """End what is left of the workers: engines leave some behind, more so after an error."""
        with suppress(self._ray.exceptions.RayError):  # the ledger is gone: so is its Ray, with the workers
            for handle in self._ray.get(self._ledger.take_handles.remote()):
                self._ray.kill(handle)

    def _collect_often(self) -> None:
        while not self._ended.wait(_COLLECT_S):
            try:
                self._collect()
            except self._ray.exceptions.RayError:
                return  # the main thread meets the same error
            except Exception as error:  # noqa: BLE001 - of on_progress; raised again in the main thread
                self._error = error
                self._ray.get(self._ledger.fail.remote(pickle_error(error)))
                return

    def _collect(self) -> None:
        """Fetch what is new; tell of it. Both threads do, one at a time: or the difference would be told twice."""
        with self._collecting:
            self._take(self._ray.get(self._ledger.collect.remote()))

    def _take(self, report: Report) -> None:
        self._results.update({number: pickle.loads(results) for number, results in report.results.items()})
        self._executor.timings = [*self._timings_here, *report.timings]
        if report.error is not None and self._error is None:
            self._error = unpickle_error(report.error)
        for level, name, text in report.records:
            if text not in self._said:
                self._said |= {text} if level >= logging.WARNING else set()
                logging.getLogger(name).log(level, "%s", text)
        before, self._counts = self._counts, report.counts
        for stage in before | report.counts:  # a stage's counts are gone with a worker that died
            images_before, size_before = before.get(stage, (0, 0))
            images, size = report.counts.get(stage, (0, 0))
            if self._executor.on_progress is not None and (images, size) != (images_before, size_before):
                self._executor.on_progress(StageCount(stage, images - images_before, size - size_before))
        if time.monotonic() - self._last_line >= self._executor.config.get("logging_interval", LOGGING_INTERVAL_S):
            self._last_line = time.monotonic()
            logger.info("%d of %d tasks done, %d images", report.finished, self._number, self._images())

    def _images(self) -> int:
        return max((images for images, _ in self._counts.values()), default=0)

    def _state_figures(self) -> None:
        executor, ray = self._executor, self._ray
        if images := self._images():
            executor.bytes_per_image = ray.get(self._ledger.bytes_crossed.remote()) / images
            logger.info(
                "%.2f bytes of tasks and results crossed processes for each of %d images",
                executor.bytes_per_image,
                images,
            )
        for (_, (kind, _)), names in ray.get(self._ledger.failed.remote()).items():
            shown = names if len(names) <= MAX_SHOWN_KEYS else [names[0], "...", names[-1]]
            if kind == "reading":
                logger.warning("a file killed the workers that read it; it is recorded as failed: %s", names[0])
            else:
                logger.warning(
                    "a batch killed its workers; its %d images are recorded as failed: %s", len(names), shown
                )


def _pickle_stages(stages: list[Stage]) -> bytes:
    """Return the stages as bytes; classes of a script's own go along by value.

    Raises:
        ConfigurationError: One cannot be sent.
    """
    from ray import cloudpickle

    for stage in stages:
        try:
            cloudpickle.dumps(stage)
        except Exception as error:
            raise ConfigurationError(
                f"stage {stage.name!r} cannot be sent to workers: {error}. Make what it holds (files, locks, "
                "connections, models) in setup(), or run the pipeline on LocalExecutor"
            ) from error
    pickled: bytes = cloudpickle.dumps(stages)
    return pickled


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        error = waiting.pop()
        if id(error) not in seen:
            seen.add(id(error))
            yield error
            causes = (error.__cause__, error.__context__, getattr(error, "cause", None))
            waiting += [cause for cause in causes if isinstance(cause, BaseException)]


def _is_death(error: Exception, ray: Any) -> bool:  # noqa: ANN401 - the module
    """Return whether a worker, an object or a machine was lost, as opposed to an error that some code raised."""
    return any(
        isinstance(cause, ray.exceptions.RayError) and not isinstance(cause, ray.exceptions.RayTaskError)
        for cause in _causes(error)
    )


def _dead_actors(error: Exception) -> list[str]:
    return [str(found) for cause in _causes(error) if (found := getattr(cause, "actor_id", None))]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]

"""Every stage in a thread of this process, joined by bounded queues."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tastemaker.executors.base import BaseExecutor
from tastemaker.executors.timing import StageTiming
from tastemaker.stages.base import NodeInfo, ProcessingStage, WorkerMetadata, run_stage
from tastemaker.tasks import EmptyTask, Task

QUEUE_SIZE = 2
"""Tasks that may wait before a stage: enough that it never starves, few enough that memory stays flat."""

_POLL_S = 0.1
_STOP_TIMEOUT_S = 1.5

logger = logging.getLogger(__name__)

Stage = ProcessingStage[Any, Any]


class LocalExecutor(BaseExecutor):
    """Runs a pipeline in threads: reading and decoding overlap inference, results come in the order of the input.

    Args:
        config: ``queue_size``: tasks that may wait before each stage (2).
        on_progress: Called with the stage and each task that it made, in that stage's thread.

    Attributes:
        timings: Where each stage's time went in the last `execute`, in the order of the stages.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        on_progress: Callable[[Stage, Task[Any]], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.on_progress = on_progress
        self.timings: list[StageTiming] = []

    def execute(self, stages: list[Stage], initial_tasks: list[Task[Any]] | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of the tasks, in order.

        Raises:
            ConfigurationError: A stage's check failed; nothing was loaded yet.
            StageError: A stage raised. All others were stopped.
            KeyboardInterrupt: Stops all stages within two seconds; what they had not finished is deleted.
        """
        for stage in stages:
            stage.check()
        for stage in stages:
            stage.setup_on_node(NodeInfo(), WorkerMetadata())
        run = _Run(
            stages, list(initial_tasks or [EmptyTask()]), self.config.get("queue_size", QUEUE_SIZE), self.on_progress
        )
        self.timings = run.timings
        try:
            for stage, timing in zip(stages, run.timings, strict=True):
                with timing.count("setup_s"):
                    stage.setup(WorkerMetadata())
            return run.collect()
        finally:
            run.stop()
            for stage in stages:
                stage.teardown()


class _End:
    """Follows the last task through the queues."""


class _Run:
    def __init__(
        self,
        stages: list[Stage],
        tasks: list[Task[Any]],
        queue_size: int,
        on_progress: Callable[[Stage, Task[Any]], None] | None,
    ) -> None:
        self._stages = stages
        self._tasks = tasks
        self._on_progress = on_progress
        self.timings = [StageTiming(stage.name) for stage in stages]
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._queues: list[queue.Queue[Task[Any] | _End]] = [queue.Queue(queue_size) for _ in stages]
        self._threads = [
            threading.Thread(target=self._work, args=(number, stage), name=stage.name, daemon=True)
            for number, stage in enumerate(stages)
        ]

    def collect(self) -> list[Task[Any]]:
        for thread in self._threads:
            thread.start()
        results = list(self._take(self._queues[-1]))
        if self._error is not None:
            raise self._error
        return results

    def stop(self) -> None:
        """Ask all threads to end, and wait for those that do so soon."""
        self._stopped.set()
        for thread, stage in zip(self._threads, self._stages, strict=True):
            if thread.is_alive():
                stage.interrupt()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, number: int, stage: Stage) -> None:
        source = iter(self._tasks) if number == 0 else self._take(self._queues[number - 1])
        timing = self.timings[number]
        results = self._results(stage, timing, source)
        try:
            while (result := _next(results, timing)) is not None:
                if self._on_progress is not None:
                    self._on_progress(stage, result)
                with timing.count("waiting_for_output_s"):
                    self._put(number, result)
            self._put(number, _End())
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = self._error or error
            self._stopped.set()

    def _results(self, stage: Stage, timing: StageTiming, source: Iterator[Task[Any]]) -> Iterator[Task[Any]]:
        """Yield what a stage makes of the tasks, in order; it works on ``stage.concurrent_tasks`` of them at a time."""
        pending: deque[Future[list[Task[Any]]]] = deque()
        tasks = _wait_for(source, timing, pending)
        if stage.concurrent_tasks == 1:
            for task in tasks:
                yield from run_stage(stage, task)
            return
        with ThreadPoolExecutor(stage.concurrent_tasks, thread_name_prefix=stage.name) as pool:
            for task in tasks:
                pending.append(pool.submit(_run_whole, stage, task))
                if len(pending) == stage.concurrent_tasks:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()

    def _take(self, tasks: queue.Queue[Task[Any] | _End]) -> Iterator[Task[Any]]:
        while not self._stopped.is_set():
            try:
                task = tasks.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(task, _End):
                return
            yield task

    def _put(self, number: int, task: Task[Any] | _End) -> None:
        while not self._stopped.is_set():
            try:
                return self._queues[number].put(task, timeout=_POLL_S)
            except queue.Full:
                continue
        raise _StoppedError


def _next(results: Iterator[Task[Any]], timing: StageTiming) -> Task[Any] | None:
    """Return the next result, None after the last. The time counts as work, but for what `_wait_for` takes off."""
    with timing.count("busy_s"):
        return next(results, None)


def _wait_for(
    source: Iterator[Task[Any]], timing: StageTiming, pending: deque[Future[list[Task[Any]]]]
) -> Iterator[Task[Any]]:
    """Yield the tasks; waiting for one is idle time, unless the stage works on others meanwhile."""
    while True:
        started = time.perf_counter()
        task = next(source, None)
        if all(future.done() for future in pending):
            waited = time.perf_counter() - started
            timing.waiting_for_input_s += waited
            timing.busy_s -= waited
        if task is None:
            return
        yield task


def _run_whole(stage: Stage, task: Task[Any]) -> list[Task[Any]]:
    return list(run_stage(stage, task))


class _StoppedError(Exception):
    """The run is over; the thread ends."""

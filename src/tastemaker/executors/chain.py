"""Stages side by side in threads of one process, joined by bounded queues: what every executor runs."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from tastemaker.executors.base import Stage, StageCount
from tastemaker.executors.timing import StageTiming
from tastemaker.stage_perf import StagePerfStats, sum_perf
from tastemaker.stages.base import NodeInfo, WorkerMetadata, run_stage
from tastemaker.tasks import Task

QUEUE_SIZE = 2
"""Tasks that may wait before a stage: enough that it never starves, few enough that memory stays flat."""

OnCount = Callable[[StageCount], None]
"""Called with what a stage has made."""

_POLL_S = 0.1
_STOP_TIMEOUT_S = 1.5


class Chain:
    """Stages that are set up once and run any number of tasks. The first reads ahead while the others work.

    Args:
        stages: First to last.

    Attributes:
        timings: Where each stage's time went.
    """

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self.timings = [StageTiming(stage.name) for stage in stages]

    def take_timings(self) -> list[StageTiming]:
        """Return the timings so far, and begin new ones."""
        taken, self.timings = self.timings, [StageTiming(stage.name) for stage in self.stages]
        return taken

    def setup_on_node(self, node_info: NodeInfo | None = None) -> None:
        """Prepare the machine: fetch weights."""
        for stage in self.stages:
            stage.setup_on_node(node_info or NodeInfo(), WorkerMetadata())

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Load what the stages need."""
        for stage, timing in zip(self.stages, self.timings, strict=True):
            with timing.count("setup_s"):
                stage.setup(worker_metadata or WorkerMetadata())

    def teardown(self) -> None:
        """Free what `setup` made."""
        for stage in self.stages:
            stage.teardown()

    def run(self, tasks: Iterable[Task[Any]], on_count: OnCount | None = None) -> Generator[Task[Any], None, None]:
        """Yield what the last stage makes of the tasks, in order, while the first stages work on the next ones.

        Raises:
            StageError: A stage raised. All others were stopped.
        """
        end, steps = threading.Event(), list[_Step]()
        for stage, timing in zip(self.stages, self.timings, strict=True):
            tasks = _Step(stage, timing, tasks, end, on_count)
            steps.append(tasks)
        try:
            for step in steps:
                step.start()
            yield from tasks
        finally:
            end.set()
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            for step in (step for step in steps if step.is_alive()):
                step.stage.interrupt()
            for step in (step for step in steps if step.is_alive()):
                step.join(max(0.0, deadline - time.monotonic()))

    def run_once(self, tasks: list[Task[Any]], on_count: OnCount | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of all tasks, with the set-up before and the teardown after it."""
        self.setup_on_node()
        try:
            self.setup()
            return list(self.run(tasks, on_count))
        finally:
            self.teardown()


class _EndedError(Exception):
    """The run is over; the thread ends."""


class _Step(threading.Thread):
    """One stage in a run: a thread that works, and a queue of what it made, which iterating over the step empties."""

    def __init__(
        self,
        stage: Stage,
        timing: StageTiming,
        source: Iterable[Task[Any]],
        end: threading.Event,
        on_count: OnCount | None,
    ) -> None:
        super().__init__(name=stage.name, daemon=True)
        self.stage = stage
        self._timing, self._source, self._end, self._on_count = timing, source, end, on_count
        self._queue: queue.Queue[Task[Any] | BaseException | None] = queue.Queue(QUEUE_SIZE)

    def __iter__(self) -> Iterator[Task[Any]]:
        """Yield what the stage makes, until it has nothing more or the run is over; raise what it raised."""
        while not self._end.is_set():
            with suppress(queue.Empty):
                made = self._queue.get(timeout=_POLL_S)
                if made is None:
                    return
                if isinstance(made, BaseException):
                    raise made
                yield made

    def run(self) -> None:
        """Work, in the order of the source."""
        with suppress(_EndedError):
            try:
                self._work()
                self._hand_on(None)
            except BaseException as error:  # noqa: BLE001 - raised again by whoever asks for the next task
                self._hand_on(error)

    def _work(self) -> None:
        unreturned: list[StagePerfStats] = []
        for task, made in self._begin_each():
            is_returned = False
            while (result := self._next(made)) is not None:
                if unreturned:  # the result stands for several tasks, as a writer's does
                    result._stage_perf = sum_perf([*unreturned, *result._stage_perf])
                is_returned, unreturned = True, []
                self._hand_on(result)
            unreturned += [] if is_returned else task._stage_perf

    def _begin_each(self) -> Iterator[tuple[Task[Any], Iterator[Task[Any]]]]:
        """Yield each task, with what the stage makes of it; it may have begun with the next ones."""
        if self.stage.concurrent_tasks == 1:
            yield from ((task, run_stage(self.stage, task)) for task in self._tasks())
            return
        threads, begun = ThreadPoolExecutor(self.stage.concurrent_tasks), deque[tuple[Task[Any], Iterator[Task[Any]]]]()
        try:
            for task in self._tasks():
                begun.append((task, _await(threads.submit(list, run_stage(self.stage, task)))))
                if len(begun) == self.stage.concurrent_tasks:
                    yield begun.popleft()
            yield from begun
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _tasks(self) -> Iterator[Task[Any]]:
        source = iter(self._source)
        while True:
            with self._timing.count("waiting_for_input_s"):
                task = next(source, None)
            if task is None:
                return
            yield task

    def _next(self, made: Iterator[Task[Any]]) -> Task[Any] | None:
        with self._timing.count("busy_s"):
            result = next(made, None)
        if result is not None and self._on_count is not None:
            self._on_count(StageCount(self.stage.name, *result.count_images()))
        return result

    def _hand_on(self, made: Task[Any] | BaseException | None) -> None:
        with self._timing.count("waiting_for_output_s"):
            while not self._end.is_set():
                with suppress(queue.Full):
                    return self._queue.put(made, timeout=_POLL_S)
        raise _EndedError


def _await(results: Future[list[Task[Any]]]) -> Iterator[Task[Any]]:
    yield from results.result()

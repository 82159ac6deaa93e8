"""Stages side by side in threads of one process, joined by bounded queues: what every executor runs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from tastemaker.executors.base import Stage, StageCount
from tastemaker.executors.timing import StageTiming
from tastemaker.stages.base import NodeInfo, WorkerMetadata, run_stage
from tastemaker.tasks import StagePerfStats, Task, sum_perf

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
        queue_size: Tasks that may wait before each stage.

    Attributes:
        timings: Where each stage's time went.
    """

    def __init__(self, stages: list[Stage], queue_size: int = QUEUE_SIZE) -> None:
        self.stages = stages
        self.timings = [StageTiming(stage.name) for stage in stages]
        self._queue_size = queue_size

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

    def run(
        self, tasks: Iterable[Task[Any]], on_count: OnCount | None = None
    ) -> Generator[list[Task[Any]], None, None]:
        """Yield what the last stage makes of each task, in order, while the first stages work on the next one.

        Raises:
            StageError: A stage raised. All others were stopped.
        """
        end, steps, source = _End(), list[_Step](), _mark(tasks)
        for stage, timing in zip(self.stages, self.timings, strict=True):
            steps.append(_Step(stage, timing, source, end, self._queue_size, on_count))
            source = steps[-1].results()
        results: list[Task[Any]] = []
        try:
            for step in steps:
                step.start()
            for item in source:
                if isinstance(item, _Mark):
                    yield results
                    results = []
                else:
                    results.append(item)
            if end.error is not None:
                raise end.error
        finally:
            end.set()
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            for step in steps:
                step.interrupt()
            for step in steps:
                step.join(deadline)

    def run_once(self, tasks: list[Task[Any]], on_count: OnCount | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of all tasks, with the set-up before and the teardown after it."""
        self.setup_on_node()
        results = self.run(tasks, on_count)
        try:
            self.setup()
            return [result for group in results for result in group]
        finally:
            results.close()
            self.teardown()


class _Mark:
    """Follows the last batch of an initial task through the queues."""


_Item = Task[Any] | _Mark


def _mark(tasks: Iterable[Task[Any]]) -> Iterator[_Item]:
    for task in tasks:
        yield task
        yield _Mark()


class _End(threading.Event):
    """Set when a run is over: all its threads are to end."""

    error: BaseException | None = None


class _EndedError(Exception):
    """The run is over; the thread ends."""


class _Step:
    """One stage in a run. Each of its threads takes a task, works, and hands the results on in the order of the input.

    There are ``stage.concurrent_tasks`` threads.
    """

    def __init__(
        self,
        stage: Stage,
        timing: StageTiming,
        source: Iterator[_Item],
        end: _End,
        queue_size: int,
        on_count: OnCount | None,
    ) -> None:
        self._stage, self._timing, self._source, self._end, self._on_count = stage, timing, source, end, on_count
        self._queue: queue.Queue[_Item | None] = queue.Queue(queue_size)
        self._taking, self._turns = threading.Lock(), threading.Condition()
        self._taken = self._turn = 0
        self._is_empty = False
        self._unreturned: list[StagePerfStats] = []
        self._threads = [
            threading.Thread(target=self._work, name=stage.name, daemon=True) for _ in range(stage.concurrent_tasks)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def interrupt(self) -> None:
        if any(thread.is_alive() for thread in self._threads):
            self._stage.interrupt()

    def join(self, deadline: float) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def results(self) -> Iterator[_Item]:
        """Yield what the stage makes, until it has nothing more or the run is over."""
        while not self._end.is_set():
            try:
                item = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                self._perform(*taken)
        except _EndedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that runs the chain
            self._end.error = self._end.error or error
            self._end.set()

    def _take(self) -> tuple[int, _Item | None] | None:
        """Return the next item and its turn. Behind the last one, one thread has None to hand on."""
        with self._count("waiting_for_input_s"), self._taking:
            if self._is_empty:
                return None
            item = next(self._source, None)
            self._is_empty = item is None
            self._taken += 1
            return self._taken - 1, item

    def _perform(self, turn: int, item: _Item | None) -> None:
        """Hand on what the stage makes of a task; anything else as it is."""
        if isinstance(item, Task):
            made, returned = run_stage(self._stage, item), 0
            while (result := self._next(made)) is not None:
                returned += 1
                self._hand_on(turn, result)
        else:
            self._hand_on(turn, item)
        self._wait_for_turn(turn)
        if isinstance(item, Task):
            self._unreturned += [] if returned else item._stage_perf
        else:
            self._unreturned = []
        with self._turns:
            self._turn += 1
            self._turns.notify_all()

    def _next(self, made: Iterator[Task[Any]]) -> Task[Any] | None:
        with self._count("busy_s"):
            result = next(made, None)
        if result is not None and self._on_count is not None:
            self._on_count(StageCount(self._stage.name, *result.count_images()))
        return result

    def _hand_on(self, turn: int, item: _Item | None) -> None:
        with self._count("waiting_for_output_s"):
            self._wait_for_turn(turn)
            if isinstance(item, Task) and self._unreturned:  # it stands for several tasks, as a writer's does
                item._stage_perf = sum_perf([*self._unreturned, *item._stage_perf])
                self._unreturned = []
            while True:
                self._check_end()
                try:
                    return self._queue.put(item, timeout=_POLL_S)
                except queue.Full:
                    continue

    def _wait_for_turn(self, turn: int) -> None:
        with self._turns:
            while not self._turns.wait_for(lambda: turn == self._turn, _POLL_S):
                self._check_end()

    def _check_end(self) -> None:
        if self._end.is_set():
            raise _EndedError

    def _count(self, what: str) -> AbstractContextManager[None]:
        return self._timing.count(what, len(self._threads))

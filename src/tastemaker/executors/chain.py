"""Stages side by side in threads of one process, joined by bounded queues: what every executor runs."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

from tastemaker.errors import StageError
from tastemaker.executors.base import Stage, StageCount, count_task
from tastemaker.executors.timing import StageTiming
from tastemaker.stages.base import (
    BeforeStep,
    NodeInfo,
    WorkerMetadata,
    describe_task,
    run_stage,
)
from tastemaker.tasks import Task

QUEUE_SIZE = 2
"""Tasks that may wait before a stage: enough that it never starves, few enough that memory stays flat."""

OnCount = Callable[[int, StageCount], None]
"""Called with the position of an initial task, from 0, and what a stage has made of it."""

_POLL_S = 0.1
_STOP_TIMEOUT_S = 1.5


class Chain:
    """Stages that are set up once and run any number of tasks. The first reads ahead while the others work.

    Args:
        stages: First to last.
        queue_size: Tasks that may wait before each stage.

    Attributes:
        timings: Where each stage's time went since the set-up.
    """

    def __init__(self, stages: list[Stage], queue_size: int = QUEUE_SIZE) -> None:
        self.stages = stages
        self.timings = [StageTiming(stage.name) for stage in stages]
        self._queue_size = queue_size

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
        run = _Run(self.stages, self.timings, tasks, self._queue_size, on_count)
        try:
            yield from run.collect()
        finally:
            run.stop()

    def run_carefully(self, task: Task[Any], watch: BeforeStep, on_count: OnCount | None = None) -> list[Task[Any]]:
        """Return what the last stage makes of one task, with one batch under way at a time and no other thread.

        Slower than `run`, with the same results. Whoever watches knows at any moment which step is being done.

        Args:
            task: An initial task.
            watch: Told of each step before it is done: of those of the first stage, where it tells of them; of each
                batch; and, as ``making``, of the first stage's turn to make the next one.
            on_count: As in `run`.

        Raises:
            StageError: A stage raised, or ``watch`` had a reason against the first stage's turn.
        """
        first, is_announced = self.stages[0], False

        def announce(kind: str, number: int, names: Callable[[], list[str]]) -> str | None:
            nonlocal is_announced
            is_announced = is_announced or kind == "batch"
            return watch(kind, number, names)

        first.before_step = announce
        results: list[Task[Any]] = []
        try:
            for number, batch in enumerate(_in_turns(run_stage(first, task), describe_task(task), watch)):
                if not is_announced and (reason := watch("batch", number, batch.image_ids)):
                    batch.fail_all(reason)
                is_announced = False
                if on_count is not None:
                    on_count(0, count_task(first, batch))
                results += self._run_rest(1, batch, on_count)
        finally:
            first.before_step = None
        return results

    def _run_rest(self, number: int, task: Task[Any], on_count: OnCount | None) -> Iterator[Task[Any]]:
        if number == len(self.stages):
            yield task
            return
        for result in run_stage(self.stages[number], task):
            if on_count is not None:
                on_count(0, count_task(self.stages[number], result))
            yield from self._run_rest(number + 1, result, on_count)


def _in_turns(batches: Iterator[Task[Any]], where: str, watch: BeforeStep) -> Iterator[Task[Any]]:
    """Yield the batches of the first stage, telling of its turn before each."""
    for number in count():
        if reason := watch("making", number, lambda: [where]):
            raise StageError(f"{where}: {reason}")
        batch = next(batches, None)
        if batch is None:
            return
        yield batch


class _Mark:
    """Follows the last batch of an initial task through the queues."""


class _End:
    """Follows the last task through the queues."""


_Item = Task[Any] | _Mark


class _Run:
    def __init__(
        self,
        stages: list[Stage],
        timings: list[StageTiming],
        tasks: Iterable[Task[Any]],
        queue_size: int,
        on_count: OnCount | None,
    ) -> None:
        self._stages = stages
        self._timings = timings
        self._tasks = tasks
        self._on_count = on_count
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._queues: list[queue.Queue[_Item | _End]] = [queue.Queue(queue_size) for _ in stages]
        self._threads = [
            threading.Thread(target=self._work, args=(number, stage), name=stage.name, daemon=True)
            for number, stage in enumerate(stages)
        ]

    def collect(self) -> Iterator[list[Task[Any]]]:
        for thread in self._threads:
            thread.start()
        results: list[Task[Any]] = []
        for item in self._take(self._queues[-1]):
            if isinstance(item, _Mark):
                yield results
                results = []
            else:
                results.append(item)
        if self._error is not None:
            raise self._error

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
        source = _mark(self._tasks) if number == 0 else self._take(self._queues[number - 1])
        timing = self._timings[number]
        position = 0
        try:
            results = self._results(stage, timing, source)
            while (result := _next(results, timing)) is not None:
                if isinstance(result, _Mark):
                    position += 1
                elif self._on_count is not None:
                    self._on_count(position, count_task(stage, result))
                with timing.count("waiting_for_output_s"):
                    self._put(number, result)
            self._put(number, _End())
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = self._error or error
            self._stopped.set()

    def _results(self, stage: Stage, timing: StageTiming, source: Iterator[_Item]) -> Iterator[_Item]:
        """Yield what a stage makes of the tasks, in order; it works on ``stage.concurrent_tasks`` of them at a time."""
        pending: deque[Future[list[_Item]]] = deque()
        tasks = _wait_for(source, timing, pending)
        if stage.concurrent_tasks == 1:
            for task in tasks:
                yield from [task] if isinstance(task, _Mark) else run_stage(stage, task)
            return
        with ThreadPoolExecutor(stage.concurrent_tasks, thread_name_prefix=stage.name) as pool:
            for task in tasks:
                pending.append(pool.submit(_run_whole, stage, task))
                if len(pending) == stage.concurrent_tasks:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()

    def _take(self, items: queue.Queue[_Item | _End]) -> Iterator[_Item]:
        while not self._stopped.is_set():
            try:
                item = items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                return
            yield item

    def _put(self, number: int, item: _Item | _End) -> None:
        while not self._stopped.is_set():
            try:
                return self._queues[number].put(item, timeout=_POLL_S)
            except queue.Full:
                continue
        raise _StoppedError


def _mark(tasks: Iterable[Task[Any]]) -> Iterator[_Item]:
    for task in tasks:
        yield task
        yield _Mark()


def _next(results: Iterator[_Item], timing: StageTiming) -> _Item | None:
    """Return the next result, None after the last. The time counts as work, but for what `_wait_for` takes off."""
    with timing.count("busy_s"):
        return next(results, None)


def _wait_for(source: Iterator[_Item], timing: StageTiming, pending: deque[Future[list[_Item]]]) -> Iterator[_Item]:
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


def _run_whole(stage: Stage, task: _Item) -> list[_Item]:
    return [task] if isinstance(task, _Mark) else list(run_stage(stage, task))


class _StoppedError(Exception):
    """The run is over; the thread ends."""

"""What runs in a worker process of a cluster: a chain of stages, kept loaded, and its reports to the ledger."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import ray
from ray import cloudpickle

from tastemaker.errors import ConfigurationError, StageError
from tastemaker.executors.base import Stage, StageCount
from tastemaker.executors.chain import Chain
from tastemaker.executors.error_travel import pickle_error
from tastemaker.executors.ledger import MAX_DEATHS, MAX_DEATHS_IN_RUN, REASONS, Counts, Work
from tastemaker.machine import CORES_VARIABLE
from tastemaker.stages.base import NodeInfo, WorkerMetadata, describe_task
from tastemaker.tasks import Task

PULSE_S = 0.5
"""Seconds between a worker's reports."""

_MAX_RECORDS = 200
_LAST_TEARDOWN_S = 3.0
_EXIT_S = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What all workers of a run are told.

    Attributes:
        stages: The stages of the chain, pickled.
        python_path: Where the driver finds modules; workers look there after their own places.
        ledger: Handle of the run's ledger.
        threads: Node -> threads that a worker there may start.
        queue_size: Tasks that may wait before each stage.
        log_level: Records of Tastemaker's loggers from this level on are sent to the driver.
    """

    stages: bytes
    python_path: list[str]
    ledger: Any
    threads: dict[str, int]
    queue_size: int
    log_level: int


class ChainWorker:
    """A chain in a worker process. It loads with the first task, keeps loaded, and frees when nothing is left to do."""

    def __init__(self, job: Job) -> None:
        context = ray.get_runtime_context()
        self._node, self._name = context.get_node_id(), context.get_actor_id() or str(os.getpid())
        self._ledger = job.ledger
        os.environ[CORES_VARIABLE] = str(job.threads.get(self._node, 1))
        self._job = job
        self._chain = Chain([])
        self._is_loaded = False
        self._busy = threading.Lock()
        self._counts: dict[int, Counts] = {}
        self._taken: list[int] = []
        self._aside: int | None = None
        self._records = _Records(job.log_level)
        ray.get(self._ledger.sign_on.remote([context.current_actor]))
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        threading.Thread(target=_end_for_certain, name="end", daemon=True).start()

    def run(self, numbers: list[int]) -> None:
        """Do some initial tasks; the results go to the ledger.

        Raises:
            Exception: What a stage raised. The ledger has it, too.
        """
        with self._busy:
            try:
                self._load()
                waiting = deque(numbers)
                while waiting:
                    self._run_together(waiting)
                    self._run_aside()
            except Exception as error:
                ray.get(self._ledger.fail.remote(pickle_error(error)))
                raise
            if self._send():
                self._free()
                self._wait_for_others()

    def _run_together(self, waiting: deque[int]) -> None:
        """Do tasks side by side, until there are none or one comes that is to be done carefully."""
        first = len(self._taken)
        chain = self._chain.run(self._tasks(waiting), lambda position, count: self._count(first + position, count))
        for position, results in enumerate(chain):
            self._finish(self._taken[first + position], results)

    def _run_aside(self) -> None:
        if self._aside is None:
            return
        number, self._aside = self._aside, None
        work: Work | None = ray.get(self._ledger.begin.remote(number, self._name, alone=True))
        if work is None:
            return
        task = _task_of(work)
        position = len(self._taken)
        self._taken.append(number)

        def watch(kind: str, step: int, names: Callable[[], list[str]]) -> str | None:
            deaths: int = ray.get(self._ledger.begin_step.remote(number, self._name, (kind, step)))
            if deaths < MAX_DEATHS:
                return None
            if deaths >= MAX_DEATHS_IN_RUN:
                raise StageError(f"{deaths} workers died on {describe_task(task)}, whatever was left out of it")
            ray.get(self._ledger.fail_step.remote(number, (kind, step), names()))
            return REASONS[kind]

        results = self._chain.run_carefully(task, watch, lambda _, count: self._count(position, count))
        self._finish(number, results)

    def _tasks(self, waiting: deque[int]) -> Iterator[Task[Any]]:
        while waiting and self._aside is None:
            number = waiting.popleft()
            work: Work | None = ray.get(self._ledger.begin.remote(number, self._name))
            if work is None:
                continue
            if work.careful:
                self._aside = number
                return
            self._taken.append(number)
            yield _task_of(work)

    def _finish(self, number: int, results: list[Task[Any]]) -> None:
        for result in results:
            result._metadata.pop("attempt", None)
        ray.get(self._ledger.finish.remote(number, cloudpickle.dumps(results), self._counts.pop(number, {})))

    def _load(self) -> None:
        if self._is_loaded:
            return
        if not ray.get(self._ledger.begin_setup.remote(self._name)):
            raise StageError(f"{MAX_DEATHS} workers died while they loaded their stages; is there enough memory?")
        if not self._chain.stages:
            self._chain = Chain(_unpickle_stages(self._job), self._job.queue_size)
        # One at a time on a machine: the first fetches the weights, the others find them.
        with filelock.FileLock(Path(tempfile.gettempdir()) / f"tastemaker-{os.getuid()}.lock"):
            if not ray.get(self._ledger.node_is_ready.remote(self._node)):
                self._chain.setup_on_node(NodeInfo(self._node))
                ray.get(self._ledger.set_node_ready.remote(self._node))
        self._chain.setup(WorkerMetadata(self._name))
        self._is_loaded = True
        ray.get(self._ledger.end_setup.remote(self._name))

    def _free(self) -> None:
        if self._is_loaded:
            self._is_loaded = False
            self._chain.teardown()
            ray.get(self._ledger.end_teardown.remote(self._name))

    def _wait_for_others(self) -> None:
        """Give the others the time to free what they loaded: engines end them as soon as the last task is done."""
        deadline = time.monotonic() + _LAST_TEARDOWN_S
        while time.monotonic() < deadline and ray.get(self._ledger.others_to_free.remote(self._name)):
            time.sleep(0.05)

    def _count(self, position: int, count: StageCount) -> None:
        counts = self._counts.setdefault(self._taken[position], {})
        images, size = counts.get(count.stage, (0, 0))
        counts[count.stage] = images + count.images, size + count.source_bytes

    def _pulse(self) -> None:
        while True:
            time.sleep(PULSE_S)
            try:
                nothing_left = self._send()
                if nothing_left and self._busy.acquire(blocking=False):
                    try:
                        self._free()
                    finally:
                        self._busy.release()
            except ray.exceptions.RayError:
                return  # the run is over

    def _send(self) -> bool:
        counts = {number: dict(stages) for number, stages in list(self._counts.items())}
        pulse = self._ledger.pulse.remote(self._name, counts, self._chain.timings, self._records.take())
        return bool(ray.get(pulse))


class _Records(logging.Handler):
    """Keeps what Tastemaker logs here, until the next report takes it to the driver."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._kept: deque[tuple[int, str, str]] = deque(maxlen=_MAX_RECORDS)
        ours = logging.getLogger("tastemaker")
        ours.setLevel(level)
        ours.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._kept.append((record.levelno, record.name, record.getMessage()))

    def take(self) -> list[tuple[int, str, str]]:
        """Return the records since the last call."""
        taken = []
        while self._kept:
            taken.append(self._kept.popleft())
        return taken


def _end_for_certain() -> None:
    """End this process some time after Ray let it go, even if its exit hangs: Ray does not look after it any more."""
    threading.main_thread().join()
    signal.alarm(_EXIT_S)  # the kernel's, because Python may be gone by then


def _unpickle_stages(job: Job) -> list[Stage]:
    """Return the stages.

    Raises:
        ConfigurationError: A module that one of them comes from is not on this machine.
    """
    sys.path += [place for place in job.python_path if place not in sys.path]
    try:
        stages: list[Stage] = pickle.loads(job.stages)
    except ImportError as error:
        raise ConfigurationError(
            f"a worker on {platform.node()} cannot load the stages: {error}. Install what they come from on every "
            "machine of the cluster, or define them in the script that runs the pipeline"
        ) from error
    return stages


def _task_of(work: Work) -> Task[Any]:
    task: Task[Any] = pickle.loads(work.payload)
    if work.attempt > 1:
        task._metadata["attempt"] = work.attempt
    return task

"""What runs in a worker process of a cluster: a chain of stages, kept loaded, that does one task after the other."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import signal
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import ray
from ray import cloudpickle

from tastemaker.errors import StageError
from tastemaker.executors.base import Stage, StageCount
from tastemaker.executors.chain import Chain
from tastemaker.executors.resources import Share
from tastemaker.executors.timing import StageTiming
from tastemaker.machine import CORES_VARIABLE
from tastemaker.stages.base import CAREFUL_ATTEMPT, NodeInfo, WorkerMetadata
from tastemaker.tasks import Task

_EXIT_S = 10


@dataclass(frozen=True)
class Job:
    """What all workers of a run are told.

    Attributes:
        stages: The stages of the chain, pickled.
        python_path: Where the driver finds modules; workers look there after their own places.
        share: What each worker gets.
        queue_size: Tasks that may wait before each stage.
        log_level: Tastemaker's, in the driver.
    """

    stages: bytes
    python_path: list[str]
    share: Share
    queue_size: int
    log_level: int


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        timings: Where the time went.
        results: The task's results, pickled.
        counts: What each stage did.
        error: What a stage raised instead, pickled.
    """

    timings: list[StageTiming]
    results: bytes = b""
    counts: list[StageCount] = field(default_factory=list)
    error: bytes = b""


class ChainWorker:
    """A chain in a worker process. It loads with the first task.

    Args:
        job: Of the run.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        context = ray.get_runtime_context()
        self._node, self._name = context.get_node_id(), context.get_actor_id()
        with warnings.catch_warnings(action="ignore"):  # of Ray about itself
            self._was_killed = bool(context.was_current_actor_reconstructed)
        self._chain: Chain | None = None
        threading.Thread(target=_end_for_certain, name="end", daemon=True).start()

    def run(self, payload: bytes | None) -> Done | None:
        """Return what the last stage makes of a task, pickled, or what a stage raised; without a task, just answer."""
        if payload is None:
            return None
        counts: list[StageCount] = []
        try:
            chain = self._chain = self._chain or self._load()
            (results,) = chain.run([self._unpickle_task(payload)], counts.append)
        except Exception as error:  # noqa: BLE001 - raised again in the driver
            return self._done(error=pickle_error(error))
        return self._done(results=cloudpickle.dumps(results), counts=counts)

    def end(self) -> None:
        """Free what the stages loaded."""
        if self._chain is not None:
            self._chain.teardown()

    def _done(self, **fields: Any) -> Done:  # noqa: ANN401
        return Done(self._chain.take_timings() if self._chain else [], **fields)

    def _unpickle_task(self, payload: bytes) -> Task[Any]:
        task: Task[Any] = pickle.loads(payload)
        if self._was_killed:  # by this task: Ray gives it to the process that takes the place of the dead one
            self._was_killed, task.partition.attempt = False, CAREFUL_ATTEMPT
        return task

    def _load(self) -> Chain:
        logging.basicConfig()
        logging.getLogger("tastemaker").setLevel(self._job.log_level)
        here = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == self._node)
        os.environ[CORES_VARIABLE] = str(self._job.share.cores_on(here))
        chain = Chain(unpickle_stages(self._job), self._job.queue_size)
        chain.setup(WorkerMetadata(self._name))
        return chain


def _end_for_certain() -> None:
    """End this process some time after Ray let it go, even if its exit hangs: nobody looks after it any more."""
    threading.main_thread().join()
    signal.alarm(_EXIT_S)  # the kernel's, because Python may be gone by then


def prepare_node(job: Job) -> bytes:
    """Prepare the machine that this runs on: fetch weights. Return what a stage raised, pickled, or nothing."""
    try:
        Chain(unpickle_stages(job)).setup_on_node(NodeInfo(ray.get_runtime_context().get_node_id()))
    except Exception as error:  # noqa: BLE001 - raised again in the driver
        return pickle_error(error)
    return b""


def unpickle_stages(job: Job) -> list[Stage]:
    """Return the stages, of modules that are here or where the driver finds them."""
    sys.path += [place for place in job.python_path if place not in sys.path]
    stages: list[Stage] = pickle.loads(job.stages)
    return stages


def pickle_error(error: BaseException) -> bytes:
    """Return an error and its causes, with the traceback as a note: pickle alone would leave both behind."""
    error.add_note(f"In a worker on {platform.node()}:\n{''.join(traceback.format_exception(error))}")
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(cause if _can_travel(cause) else StageError(f"{type(cause).__name__}: {cause}"))
        cause = cause.__cause__
    return cloudpickle.dumps(chain)  # type: ignore[no-any-return]


def unpickle_error(pickled: bytes) -> BaseException:
    """Return what `pickle_error` was given, with its causes."""
    errors: list[BaseException] = pickle.loads(pickled)
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def _can_travel(error: BaseException) -> bool:
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever its class does
        return False
    return True

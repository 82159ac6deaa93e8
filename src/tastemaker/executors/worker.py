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
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import ray
from ray import cloudpickle

from tastemaker.errors import StageError
from tastemaker.executors.base import StageCount
from tastemaker.executors.chain import Chain
from tastemaker.executors.timing import StageTiming
from tastemaker.machine import CORES_VARIABLE
from tastemaker.stages.base import CAREFUL_ATTEMPT, NodeInfo, WorkerMetadata
from tastemaker.tasks import ImageBatch, Task

_EXIT_S = 10

Done = tuple[bytes, list[StageCount], list[StageTiming]]
"""What came of a task: the results of the last stage, pickled; what each stage did; where the time went."""

T = TypeVar("T")


@dataclass(frozen=True)
class Raised:
    """What a stage raised in a worker.

    Attributes:
        pickled: The error and its causes, which pickle alone would leave behind. The traceback is a note of the error.
    """

    pickled: bytes

    def unpickle(self) -> BaseException:
        """Return the error, with its causes."""
        errors: list[BaseException] = pickle.loads(self.pickled)
        for error, cause in pairwise(errors):
            error.__cause__ = cause
        return errors[0]


def _catch(work: Callable[[], T]) -> T | Raised:
    """Return what a function returns, or what it raises."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - raised again in the driver
        note = f"In a worker on {platform.node()}:\n{''.join(traceback.format_exception(error))}"
        error.add_note(note)
        errors: list[BaseException] = [error]
        while (cause := errors[-1].__cause__) is not None:
            errors.append(cause)
        try:
            pickled = cloudpickle.dumps(errors)
            pickle.loads(pickled)
        except Exception:  # noqa: BLE001 - whatever the class of one of them does
            plain = StageError(f"{type(error).__name__}: {error}")
            plain.add_note(note)
            pickled = cloudpickle.dumps([plain])
        return Raised(pickled)


def make_chain(stages: list[bytes], python_path: list[str], log_level: int) -> Chain:
    """Return the chain, before its set-up, in a process that finds modules and logs as the driver does.

    Args:
        stages: The stages of the chain, each pickled.
        python_path: Where the driver finds modules; this process looks there after its own places.
        log_level: Tastemaker's, in the driver.
    """
    sys.path += [place for place in python_path if place not in sys.path]
    logging.basicConfig()
    logging.getLogger("tastemaker").setLevel(log_level)
    return Chain([pickle.loads(stage) for stage in stages])


def prepare_node(make: Callable[[], Chain]) -> Raised | None:
    """Prepare the machine that this runs on: fetch weights. Return what a stage raised, if one did."""
    return _catch(lambda: make().setup_on_node(NodeInfo(ray.get_runtime_context().get_node_id())))


class ChainWorker:
    """A chain in a worker process. It loads with the first task.

    Args:
        make: Makes the chain.
        cores: Machine -> processor cores that the chain may use there.
    """

    def __init__(self, make: Callable[[], Chain], cores: dict[str, int]) -> None:
        self._make, self._cores = make, cores
        self._chain: Chain | None = None
        with warnings.catch_warnings(action="ignore"):  # of Ray about itself
            self._was_killed = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        threading.Thread(target=_end_for_certain, name="end", daemon=True).start()

    def run(self, payload: bytes) -> Done | Raised:
        """Return what came of a task that is pickled."""
        return _catch(lambda: self._run(payload))

    def _run(self, payload: bytes) -> Done:
        chain = self._chain = self._chain or self._load()
        task: Task[Any] = pickle.loads(payload)
        if self._was_killed:  # by this task: Ray gives it to the process that takes the place of the dead one
            self._was_killed, task.partition.attempt = False, CAREFUL_ATTEMPT
        counts: list[StageCount] = []
        results = list(chain.run([task], counts.append))
        for batch in (made for made in results if isinstance(made, ImageBatch)):
            for image in [*batch.data, *batch.dropped]:
                image.leave_source_behind()
        return cloudpickle.dumps(results), counts, chain.take_timings()

    def end(self) -> None:
        """Free what the stages loaded, and end this process."""
        if self._chain is not None:
            self._chain.teardown()
        ray.actor.exit_actor()

    def _load(self) -> Chain:
        context = ray.get_runtime_context()
        os.environ[CORES_VARIABLE] = str(self._cores[context.get_node_id()])
        chain = self._make()
        chain.setup(WorkerMetadata(context.get_actor_id()))
        return chain


def _end_for_certain() -> None:
    """End this process some time after Ray let it go, even if its exit hangs: nobody looks after it any more."""
    threading.main_thread().join()
    signal.alarm(_EXIT_S)  # the kernel's, because Python may be gone by then

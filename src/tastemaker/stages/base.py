"""What a stage is, and the one function by which every executor runs one."""

from __future__ import annotations

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from tastemaker.checks import check_numbers
from tastemaker.errors import ConfigurationError, ReasonKind, StageError
from tastemaker.stage_perf import StagePerfStats
from tastemaker.storage import public_url
from tastemaker.tasks import ImageBatch, ImageObject, Task

_NEUTRAL = frozenset(
    {"verbose", "num_threads", "threads", "num_gpus_per_worker", "model_inference_batch_size", "model_dir", "device"}
    | {"resources", "concurrent_tasks", "handles_empty", "is_sink_stage", "remove_image_data", "storage_options"}
    | {"batch_size", "name", "scorer", "max_pixels"}
)
"""Fields of stages that say how the work is done, and nothing of what comes out; stages say what a scorer comes to.

A limit on pixels decides which images fail, and no score: a run with a higher one does those that failed again.
"""

CAREFUL_ATTEMPT = 3
"""`Partition.attempt` of a task whose process died; 2 is one that was stopped, and left its drafts behind."""

StageSpec = tuple[list[str], list[str]] | dict[type[Task[Any]], tuple[list[str], list[str]]]
"""Attributes of a task, and of its data; in a dictionary, for each kind of task that the stage takes."""

X = TypeVar("X", bound=Task[Any])
Y = TypeVar("Y", bound=Task[Any])


@dataclass
class Resources:
    """What one worker of a stage needs.

    Attributes:
        cpus: Processor cores.
        gpu_memory_gb: GPU memory in GB, of one GPU. Not together with ``gpus``.
        gpus: GPUs, or a share of one.
    """

    cpus: float = 1.0
    gpu_memory_gb: float = 0.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.gpus > 0 and self.gpu_memory_gb > 0:
            raise ConfigurationError("Resources takes gpus or gpu_memory_gb, not both")

    @property
    def requires_gpu(self) -> bool:
        """True where a worker needs a GPU."""
        return self.gpus > 0 or self.gpu_memory_gb > 0


@dataclass(frozen=True)
class NodeInfo:
    """The machine that `ProcessingStage.setup_on_node` runs on."""

    node_id: str = ""


@dataclass(frozen=True)
class WorkerMetadata:
    """The worker that `ProcessingStage.setup` runs in."""

    worker_id: str = ""
    allocation: Any = None


class ProcessingStage(ABC, Generic[X, Y]):
    """One step of a pipeline. Subclasses are dataclasses of plain configuration; `setup` makes their state.

    Attributes:
        name: Shown in logs, errors and statistics.
        resources: What one worker needs.
        concurrent_tasks: Tasks that a worker may process at the same time, each in a thread of its own.
        handles_empty: Whether the stage wants to see batches that no image is left in.
        is_sink_stage: Whether images end here: what it returns is no batch, and None is no loss. None, the default, is
            yes for the last stage of a pipeline with a checkpoint, and else no.
    """

    name: str = "stage"
    resources: Resources = Resources()
    concurrent_tasks: int = 1
    handles_empty: bool = False
    is_sink_stage: bool | None = None

    def check(self) -> None:
        """Raise `ConfigurationError` for what can be seen to be wrong before any worker starts."""

    def setup_on_node(self, node_info: NodeInfo | None = None, worker_metadata: WorkerMetadata | None = None) -> None:
        """Prepare a machine, once: fetch weights."""

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Prepare a worker, once: load a model."""

    @abstractmethod
    def process(self, task: X) -> Y | list[Y] | None:
        """Return the result of one task: a task, several, or None where nothing is left of it."""

    def stream(self, task: X) -> Iterator[Y]:
        """Yield the results of one task as they come. Stages that make many override this."""
        result = self.process(task)
        if isinstance(result, list):
            yield from result
        elif result is not None:
            yield result

    def fingerprint(self) -> dict[str, Any]:
        """Return what of the stage decides its results, as JSON takes it: all public fields of a dataclass.

        A pipeline with a checkpoint is not gone on with when it differs. Stages with weights add their digests.
        """
        fields = getattr(self, "__dataclass_fields__", None) or vars(self)
        values = {name: getattr(self, name) for name in fields if not name.startswith("_") and name not in _NEUTRAL}
        return json.loads(json.dumps(values, default=repr))  # type: ignore[no-any-return]

    def interrupt(self) -> None:
        """Make a `process` that runs in another thread end soon, by any error. The run is over; `teardown` follows."""

    def teardown(self) -> None:
        """Free what `setup` made. Runs after a failure, too."""

    def inputs(self) -> StageSpec:
        """Return the attributes of a task, and of its data, that the stage reads."""
        return [], []

    def outputs(self) -> StageSpec:
        """Return the attributes of a task, and of its data, that the stage sets."""
        return [], []

    def take_metrics(self) -> dict[str, float]:
        """Return figures of its own that the stage has noted since it was last asked, by name."""
        return {}

    def num_workers(self) -> int | None:
        """Return how many workers the stage wants; None leaves it to the executor."""
        return None

    def with_(self, **changes: Any) -> ProcessingStage[X, Y]:  # noqa: ANN401 - any attribute of the stage
        """Return a copy of a stage that is not set up, with other attributes: ``with_(resources=Resources(cpus=2))``.

        Raises:
            ConfigurationError: The stage has no such attribute.
        """
        unknown = [name for name in changes if not hasattr(self, name)]
        if unknown:
            raise ConfigurationError(f"{type(self).__name__} has no {', '.join(unknown)}")
        changed = copy.copy(self)
        for name, value in (vars(self) | changes).items():  # what one of them notes of its work is not the other's
            setattr(changed, name, copy.copy(value) if isinstance(value, (dict, list, set)) else value)
        return changed

    def __repr__(self) -> str:
        return type(self).__name__


class OfBatches:
    """What stages that take an `ImageBatch` say of themselves; it stands before `ProcessingStage` among their bases."""

    def inputs(self) -> StageSpec:
        """Return that the stage reads images."""
        return ["data"], []

    def outputs(self) -> StageSpec:
        """Return that the stage sets or leaves out images."""
        return ["data"], []


def run_stage(stage: ProcessingStage[Any, Any], task: Task[Any]) -> Iterator[Task[Any]]:
    """Yield what a stage makes of a task, with the time that it took, and with no image lost.

    A stage may leave images out of its result, as filters written for NeMo Curator do. They are found here and go
    into ``dropped`` with the stage's name as the reason.

    Raises:
        StageError: The stage raised; the message names the stage, the shard and the keys.
    """
    if isinstance(task, ImageBatch) and not task.data and not stage.handles_empty:
        yield task
        return
    before = (list(task.data), list(task.dropped)) if isinstance(task, ImageBatch) else ([], [])
    results = _time_each(stage, task)
    if isinstance(task, ImageBatch) and not stage.is_sink_stage:
        results = iter(_account_for(task, *before, list(results), stage.name))
    yield from results


def _time_each(stage: ProcessingStage[Any, Any], task: Task[Any]) -> Iterator[Task[Any]]:
    history, items, is_returned = list(task._stage_perf), task.num_items, False
    started = time.perf_counter()
    try:
        for result in stage.stream(task):
            if not isinstance(result, Task):
                raise TypeError(
                    f"process made a {type(result).__name__}; it must return a task, a list of them or None"
                )
            spent = time.perf_counter() - started
            result._stage_perf = [*history, StagePerfStats(stage.name, spent, items, stage.take_metrics())]
            if not result.partition.name:  # the stage made it without looking at its partition
                result.partition = replace(task.partition)
            is_returned, items = True, 0
            yield result
            started = time.perf_counter()
    except GeneratorExit:
        raise
    except Exception as error:
        what = str(error) or type(error).__name__  # as of a MemoryError
        raise StageError(f"stage {stage.name!r} failed on {describe_task(task)}: {what}") from error
    if not is_returned:
        spent = time.perf_counter() - started
        task._stage_perf = [*history, StagePerfStats(stage.name, spent, items, stage.take_metrics())]


def _account_for(
    task: ImageBatch, images: list[ImageObject], dropped: list[ImageObject], results: list[Task[Any]], stage_name: str
) -> list[Task[Any]]:
    """Return ``results`` with every image of the input in one of them, if they are batches of images."""
    batches = [result for result in results if isinstance(result, ImageBatch)]
    if len(batches) != len(results):
        return results
    if not batches:
        batches = [replace(task, data=[], dropped=[])]
    seen = {id(image) for batch in batches for image in [*batch.data, *batch.dropped]}
    paths = {image.image_path for batch in batches for image in batch.data if image.image_path}
    last = batches[-1]
    last.dropped += [image for image in dropped if id(image) not in seen]
    for image in images:
        if id(image) not in seen and image.image_path not in paths:
            image.reason = image.reason or f"dropped by stage {stage_name!r}"
            image.reason_kind = image.reason_kind or ReasonKind.DROPPED_BY_STAGE
            last.dropped.append(image)
    for batch in batches:
        batch.task_id = batch.task_id or task.task_id
        batch._metadata = {**task._metadata, **batch._metadata}
    for batch in batches[:-1]:  # of a last batch that was split, one part is the last
        batch.partition = replace(batch.partition, is_last_batch=not batch.partition.name)
    return list(batches)


def is_careful(task: Task[Any]) -> bool:
    """Return whether a task killed the process that worked on it: each image is to be decoded in a child process."""
    return task.partition.attempt >= CAREFUL_ATTEMPT


def describe_task(task: Task[Any]) -> str:
    """Return a task's shard and keys, for error messages."""
    if isinstance(task, ImageBatch) and task.data:
        first, last = task.data[0], task.data[-1]
        where = f"shard {public_url(first.shard)}" if first.shard else f"file {public_url(first.image_path)}"
        return f"{where}, keys {first.image_id!r} to {last.image_id!r} ({len(task.data)} images)"
    if isinstance(task.data, list) and task.data and isinstance(task.data[0], str):
        return public_url(task.data[0]) + (f" and {len(task.data) - 1} more files" if len(task.data) > 1 else "")
    return f"task {task.task_id!r}"

"""Pipelines that remember which initial tasks are finished: one small file for each, beside the results."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tastemaker.errors import ConfigurationError
from tastemaker.executors.base import BaseExecutor, Stage
from tastemaker.runs.fingerprint import Fingerprint, canonical, list_differences, make_fingerprint
from tastemaker.runs.lock import only_run_on
from tastemaker.runs.matching import describe_sources
from tastemaker.scores.files import remove_drafts
from tastemaker.scores.layout import read_note
from tastemaker.stage_perf import StagePerfStats
from tastemaker.stages.base import ProcessingStage, run_stage
from tastemaker.storage.inputs import source_of
from tastemaker.storage.place import Place
from tastemaker.tasks import EmptyTask, FileGroupTask, Task

_SECRET = "storage_options"
"""Entry of the metadata that may hold credentials, and is never written."""

logger = logging.getLogger(__name__)


def run_with_checkpoint(
    stages: list[Stage], executor: BaseExecutor, initial_tasks: list[Task[Any]] | None, folder: Path
) -> list[Task[Any]]:
    """Run what is not finished, and return the results of everything, in the order of the input.

    Without initial tasks the first stage makes them, here and now: it says which files there are.

    Args:
        stages: Of the pipeline; the last one writes. Of what a stage of the user's returned, only a `FileGroupTask` is
            given back by a later run.
        executor: Runs what is missing. It gets only the initial tasks that are not finished.
        initial_tasks: For the first stage; None for one empty task.
        folder: Of the checkpoint; made if need be.

    Raises:
        ConfigurationError: The last stage keeps its results in memory; a checkpoint of another pipeline, or in use.
        StageError: A stage raised. What is finished is remembered.
    """
    if stages[-1].is_sink_stage is False:
        raise ConfigurationError(
            f"checkpoint_path needs a pipeline that ends in a stage that writes, and {stages[-1].name!r} leaves its "
            "results in memory, where they do not outlive the process; add an ImageWriterStage"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with only_run_on(Place.of(folder)):
        Place.of(folder).remove_drafts()
        tasks, rest = _make_initial_tasks(stages, initial_tasks)
        fingerprint = make_fingerprint(rest)
        read = {key: read_note(Place.of(folder / f"{key}.json")) for key in tasks}
        notes = {key: note for key, note in read.items() if {"fingerprint", "sources", "results"} <= note.keys()}
        _refuse_others(notes, fingerprint, folder)
        finished = {key: _find_finished(notes.get(key), task) for key, task in tasks.items()}
        missing = [task for key, task in tasks.items() if finished[key] is None]
        _remove_drafts(stages[-1], missing)
        if len(missing) < len(tasks):
            logger.info("%d of %d initial tasks are finished already", len(tasks) - len(missing), len(tasks))
        made = executor.execute([*rest, CheckpointStage(str(folder), fingerprint)], missing) if missing else []
    return _in_order(finished, made)


def _remove_drafts(writer: Stage, tasks: list[Task[Any]]) -> None:
    """Delete the unfinished files that a killed run left of these tasks."""
    output_dir = getattr(writer, "output_dir", None)
    if isinstance(output_dir, str | Path):
        remove_drafts(Place.of(output_dir), [task.partition.name for task in tasks])


@dataclass
class CheckpointStage(ProcessingStage[Task[Any], Task[Any]]):
    """Notes each result of a pipeline, and which initial task it finishes. The result is passed on unchanged.

    Args:
        folder: Of the checkpoint; on a cluster one that all machines see.
        made_by: Fingerprint of the pipeline.
    """

    folder: str
    made_by: Fingerprint
    name: str = "checkpoint"
    is_sink_stage: bool = field(default=True, init=False, repr=False)
    handles_empty: bool = field(default=True, init=False, repr=False)
    _results: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False, repr=False)

    def process(self, task: Task[Any]) -> Task[Any]:
        """Return the task."""
        key = task.partition.checkpoint
        if key:
            results = self._results.setdefault(key, [])
            results += [_describe_result(task)] if isinstance(task, FileGroupTask) else []
            if task.partition.is_last_batch:
                sources, results = task.partition.provenance.get("sources"), self._results.pop(key)
                content = {"fingerprint": self.made_by, "sources": sources, "results": results}
                (Place.of(self.folder) / f"{key}.json").write(json.dumps(content, default=repr).encode())
        return task


def _make_initial_tasks(
    stages: list[Stage], initial_tasks: list[Task[Any]] | None
) -> tuple[dict[str, Task[Any]], list[Stage]]:
    """Return the initial tasks by their keys, and the stages that are to work on them."""
    if initial_tasks is None:
        first, *rest = stages
        first.check()
        first.setup()
        try:
            tasks: list[Task[Any]] = list(run_stage(first, EmptyTask()))
        finally:
            first.teardown()
    else:
        tasks, rest = list(initial_tasks), stages
    keyed: dict[str, Task[Any]] = {}
    for task in tasks:
        files = task.data if isinstance(task, FileGroupTask) else []
        options = task.partition.storage_options
        sources = tuple(source_of(Place.at(path, options)) for path in files)
        named = [path for path, _, _ in sources] or [task.task_id, str(len(keyed))]
        named.append(str(getattr(stages[-1], "output_dir", "")))
        key = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:24]
        described = describe_sources(replace(task.partition, files=sources))
        provenance = {**task.partition.provenance, "sources": described}
        task.partition = replace(task.partition, checkpoint=key, provenance=provenance)
        keyed[key] = task
    return keyed, rest


def _refuse_others(notes: dict[str, dict[str, Any]], fingerprint: Fingerprint, folder: Path) -> None:
    """Raise `ConfigurationError` where a checkpoint is of another pipeline."""
    others = (
        note["fingerprint"] for note in notes.values() if canonical(note["fingerprint"]) != canonical(fingerprint)
    )
    other = next(others, None)
    if other is not None:
        raise ConfigurationError(
            f"the checkpoint {folder} is of another pipeline ({'; '.join(list_differences(other, fingerprint))}); "
            "choose another checkpoint_path and output, or delete the folder to do everything again"
        )


def _find_finished(note: dict[str, Any] | None, task: Task[Any]) -> list[Task[Any]] | None:
    """Return the results of a finished task; None if it is not finished, its files changed, or results are gone."""
    if note is None or note["sources"] != task.partition.provenance["sources"]:
        return None
    results: list[Task[Any]] = [_restore_result(result) for result in note["results"]]
    options = task.partition.storage_options
    is_there = all(Place.at(file, options).is_file() for result in results for file in result.data)
    return results if is_there else None


def _describe_result(task: FileGroupTask) -> dict[str, Any]:
    return {
        "dataset_name": task.dataset_name,
        "data": task.data,
        "stage_perf": [perf.to_dict() for perf in task._stage_perf],
        "metadata": {name: value for name, value in task._metadata.items() if name != _SECRET},
        "task_id": task.task_id,
    }


def _restore_result(result: dict[str, Any]) -> FileGroupTask:
    perf = [StagePerfStats(**entry) for entry in result["stage_perf"]]
    return FileGroupTask(result["dataset_name"], result["data"], perf, result["metadata"], result["task_id"])


def _in_order(finished: dict[str, list[Task[Any]] | None], made: list[Task[Any]]) -> list[Task[Any]]:
    """Return all results in the order of the initial tasks. Results of no known task come last."""
    by_key: dict[str, list[Task[Any]]] = {}
    for task in made:
        by_key.setdefault(task.partition.checkpoint, []).append(task)
    ordered = [task for key, known in finished.items() for task in (by_key.pop(key, []) if known is None else known)]
    return ordered + [task for rest in by_key.values() for task in rest]

"""A whole run: it scores images, and writes a row for each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tastemaker.embeddings.find import find_embeddings, group_embeddings
from tastemaker.errors import ConfigurationError
from tastemaker.executors import make_executor
from tastemaker.parity import ParityReport
from tastemaker.progress import Progress
from tastemaker.runs.fingerprint import Fingerprint, make_fingerprint
from tastemaker.runs.index import RowsIndex, rows_path
from tastemaker.runs.lock import only_run_on
from tastemaker.runs.matching import match_inputs
from tastemaker.runs.metrics import ProgressCounter, RunCollector, serve_metrics
from tastemaker.runs.options import RunMode, RunOptions
from tastemaker.runs.recipe import check_embedding_options, make_embedding_stages, make_stages, state_parity
from tastemaker.runs.resume import Plan, make_plan
from tastemaker.runs.runfile import RunFile
from tastemaker.runs.summary import RunSummary, describe_bottleneck, summarise
from tastemaker.scores.files import remove_drafts
from tastemaker.scores.layout import ROWS_FOLDER
from tastemaker.scores.marks import follow_pictures
from tastemaker.stages.base import ProcessingStage
from tastemaker.stages.choice import without_sidecars
from tastemaker.stages.embed import ImageEmbeddingStage
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.storage import public_url
from tastemaker.storage.drafts import explain_full_disk
from tastemaker.storage.inputs import Listing, name_inputs
from tastemaker.storage.place import Place, look_anew
from tastemaker.tasks import FileGroupTask, Task

__all__ = ["Progress", "RunMode", "RunOptions", "run_scoring"]

logger = logging.getLogger(__name__)


def run_scoring(
    inputs: str | Path | Sequence[str | Path],
    output_dir: str | Path,
    options: RunOptions | None = None,
    mode: RunMode | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Score images, or embeddings that others computed, and return a summary.

    Each image has a row in ``output_dir/rows``. A run that was stopped goes on where it stopped: an input is finished
    once its rows exist, made in the same way from the same files. docs/resume.md describes it for users.

    Args:
        inputs: Files, folders, globs and URLs.
        output_dir: Directory of the results, or a URL.
        options: What to do; None for the defaults.
        mode: How to treat what is there already; None for the defaults.
        on_progress: Called while the input is listed, when the work begins, and after each batch, in a thread of it.

    Raises:
        ConfigurationError: Wrong options or inputs; rows that were made otherwise; a second run on the directory.
        WeightsNotFoundError: The models are not there and cannot be fetched.
        DiskFullError: The results have no room. What is finished stays, and the same call goes on from there.
        StageError: A stage failed; the same.
    """
    started, options, mode = time.monotonic(), options or RunOptions(), mode or RunMode()
    paths = name_inputs(inputs)
    if not str(output_dir):
        raise ConfigurationError("the directory of results has an empty name; '.' is the one that you are in")
    place = Place.of(output_dir, options.storage_options)
    place.check_writable()
    if place.local_path is not None and place.is_file():
        raise ConfigurationError(f"{place} is a file, not a directory of results")
    groups, is_of_embeddings, passed_over = _find_groups(paths, options, on_progress)
    stages = (make_embedding_stages if is_of_embeddings else make_stages)(place, options)
    fingerprint = make_fingerprint(stages)
    with explain_full_disk(place):
        is_new = place.local_path is not None and not place.is_folder()
        place.make_folder()
        if is_new and options.executor == "local":
            _fetch_weights(stages, place)
        with only_run_on(place, mode.part, wait=mode.wait) as check:
            if mode.part is None:
                place.remove_drafts()
            shown = [public_url(path) for path in paths]
            record = RunFile(place, mode.part, shown, options.as_json(), fingerprint)
            run = _Run(place, options, mode, fingerprint, record, stages)
            run.counter.listeners.append(lambda _progress, _images: check())
            if on_progress is not None:
                run.counter.listeners.append(lambda progress, _images: on_progress(progress))
            try:
                summary = run.do(groups)
                follow_pictures(place, options.storage_options)
                summary.passed_over = passed_over
                summary.seconds = round(time.monotonic() - started, 2)
                record.finish(summary)
            except BaseException as error:
                record.stop(error)
                raise
    return summary


def _fetch_weights(stages: list[ProcessingStage[Any, Any]], new_folder: Place) -> None:
    """Fetch the weights before anything is written: a run that cannot have them leaves no folder behind."""
    try:
        for stage in stages:
            stage.setup_on_node()
    except BaseException:
        if new_folder.local_path is not None:
            with suppress(OSError):
                new_folder.local_path.rmdir()
        raise


def _find_groups(
    paths: list[str], options: RunOptions, on_progress: Callable[[Progress], None] | None
) -> tuple[list[FileGroupTask], bool, dict[str, int]]:
    """Return the input in groups, whether it is embeddings, and what was passed over. URLs are looked at anew."""
    own = [scorer.head.path or "" for scorer in options.scorers]
    look_anew([*paths, options.model_dir or "", *own])
    find = Listing((lambda files: on_progress(Progress(0, found=files))) if on_progress else lambda _files: None)
    column, captions = options.column, options.caption_column
    embeddings = find_embeddings(paths, column, options.storage_options, options.scorers[0], find, captions)
    if embeddings:
        check_embedding_options(options)
        return group_embeddings(embeddings), True, {}
    if captions is not None:
        raise ConfigurationError(
            "--caption-column is of embeddings; pictures have theirs beside them, in the column `caption` or `text`"
        )
    finder = FilePartitioningStage(
        paths,
        storage_options=options.storage_options,
        column=column,
        exclude=list(options.exclude),
        root=options.root,
    )
    groups = finder.make_groups(find)
    return groups, False, without_sidecars(finder.passed_over)


class _Run:
    """The steps of a run, with what they share."""

    def __init__(
        self,
        output_dir: Place,
        options: RunOptions,
        mode: RunMode,
        fingerprint: Fingerprint,
        record: RunFile,
        stages: list[ProcessingStage[Any, Any]],
    ) -> None:
        self.output_dir = output_dir
        self.options = options
        self.mode = mode
        self.fingerprint = fingerprint
        self.record = record
        self.index = RowsIndex(output_dir, f"index-{mode.part}" if mode.part else "index")
        self.executor = make_executor(options.executor, {"address": options.address} if options.address else None)
        self.stages = stages
        self.counter = ProgressCounter(self.stages[-2].name, timings=lambda: self.executor.timings)
        self.counter.listeners.append(lambda _progress, images: record.count(images))

    def do(self, groups: list[FileGroupTask]) -> RunSummary:
        """Do the work that is left, and return the summary."""
        self.record.start()
        plan = self._plan(groups)
        collector = RunCollector(self.counter, RowsIndex(self.output_dir), plan.names)
        with serve_metrics(self.mode.metrics_port, collector):
            written = self._score(plan)
        return self._sum_up(plan, written)

    def _plan(self, groups: list[FileGroupTask]) -> Plan:
        """Compare the input with the rows that are there. No model has been loaded yet."""
        self.index.load()
        matches = match_inputs(groups, self.index, in_slices=self.mode.part is not None)
        if self.mode.part is not None:
            matches = matches[self.mode.part.index :: self.mode.part.total]
            remove_drafts(self.output_dir / ROWS_FOLDER, [match.name for match in matches])  # others may be writing
        plan = make_plan(matches, self.index, self.fingerprint, self.mode, self.options.max_pixels)
        self._save_index(plan)
        if finished := len(plan.names) - len(plan.changed):
            logger.info("partitions: %d of %d are finished already", finished, len(plan.names))
        return plan

    def _save_index(self, plan: Plan) -> None:
        self.index.save(self.index.names() if self.mode.part is None else plan.names)

    def _score(self, plan: Plan) -> list[Task[Any]]:
        """Run the stages over the work that is left, and return the results of the writer."""
        self.counter.begin(plan.tasks)
        if not plan.tasks:
            return []
        is_here = self.options.executor == "local" or self.options.precision == "int8"
        if is_here and any(isinstance(stage, ImageEmbeddingStage) for stage in self.stages):
            state_parity(plan.tasks, self.options)
        self.executor.on_progress = self.counter.count
        return self.executor.execute(self.stages, list(plan.tasks))

    def _sum_up(self, plan: Plan, written: list[Task[Any]]) -> RunSummary:
        names = plan.names
        if plan.changed:
            self.index.load()
        summary = summarise(names, self.index, self.options.ranking)
        self._save_index(plan)
        summary.rows_files = [rows_path(self.output_dir, name).address for name in names]
        summary.images_scored_now = self.counter.images
        summary.stages = self.executor.timings
        summary.parity = _find_parity(written)
        summary.bottleneck = describe_bottleneck(self.executor.timings)
        summary.is_mixed, summary.not_retried = plan.is_mixed, plan.not_retried
        summary.redone, summary.moved, summary.rerated = dict(+plan.redone), plan.moved, plan.rerated
        if self.mode.part is None:
            summary.other_rows_files = len({*self.index.names()} - {*names})
        return summary


def _find_parity(written: list[Task[Any]]) -> ParityReport | None:
    """Return the comparison with exact scores that this run's rows state."""
    stated = (task.partition.provenance.get("parity") for task in written)
    return next((ParityReport(**found) for found in stated if found), None)

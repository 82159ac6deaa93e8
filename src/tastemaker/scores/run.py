"""A whole run: score images, write a row for each, keep some."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import pyarrow.parquet as pq

from tastemaker.embeddings.find import find_embeddings, group_embeddings
from tastemaker.embeddings.run import check_options, make_embedding_stages
from tastemaker.embeddings.tasks import EmbeddingBatch
from tastemaker.errors import ConfigurationError
from tastemaker.executors import LocalExecutor
from tastemaker.imaging.decode import MAX_IMAGE_PIXELS
from tastemaker.machine import usable_cores
from tastemaker.models.device import choose_device
from tastemaker.parity import (
    MAX_DIFFERENCE,
    MAX_MEDIAN_DIFFERENCE,
    sample_groups,
    verify_parity,
)
from tastemaker.pipeline import Pipeline
from tastemaker.scores.cutoff import Top, keep_top, rows_path
from tastemaker.scores.files import remove_leftovers
from tastemaker.scores.schema import METADATA_KEY
from tastemaker.scores.summary import RunSummary, describe_bottleneck, summarise, write_run_file
from tastemaker.stages.aesthetic import ImageAestheticFilterStage
from tastemaker.stages.base import ProcessingStage
from tastemaker.stages.embed import ImageEmbeddingStage
from tastemaker.stages.parity import ImageParityStage
from tastemaker.stages.partition import FilePartitioningStage
from tastemaker.stages.read import ImageReaderStage
from tastemaker.stages.signals import ImageSignalsStage
from tastemaker.stages.write import ImageWriterStage
from tastemaker.tasks import FileGroupTask, ImageBatch, Task

RANKINGS = ("aesthetic_score", "technical_quality")
"""Columns that images can be ranked by."""

GPU_BATCH_SIZE = 256
"""Images in a batch on a GPU: a multiple of every size that `tastemaker.models.batch_size` may find the quickest."""

INT8_SAMPLE = 16
"""Images that int8 is tried on before a run; they take half a minute, most of it for the exact scores."""

_LOCK_NAME = ".tastemaker.lock"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What a run does. Those in `OPTIONS_THAT_CHANGE_ROWS` must be the same for all rows in a directory.

    Attributes:
        min_score: Keep images with this score or more; None keeps all.
        top: Keep the best instead; not together with ``min_score``.
        originals: ``shards``, ``folder`` or ``none``.
        images_per_tar: Samples in a tar at most.
        model_dir: Directory of models.
        predictor: Path of another predictor.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``f32``, ``bf16``, ``fp16`` or ``int8``.
        batch_size: Images in a batch, and in one inference on a GPU; None for 32, and on a GPU for what is quickest.
        threads: Processor threads; None for all cores.
        preprocess: ``openai`` or ``transformers``.
        exif_rotate: Turn images as their EXIF orientation says.
        max_pixels: Larger images are recorded as decompression bombs.
        signals: Measure the technical signals too.
        min_technical_quality: Drop images below before they are embedded; implies ``signals``.
        embeddings: Store embeddings in the rows.
        embedding_column: Where the input is embeddings: the array or column that holds them; None to recognise it.
        copy_embeddings: Where the input is embeddings: store them in the rows, too.
        rank_by: ``aesthetic_score``; or ``technical_quality``, for which no model is loaded.
        verbose: Log each image that is dropped or cannot be read.
    """

    min_score: float | None = None
    top: Top | None = None
    originals: str = "none"
    images_per_tar: int = 1000
    model_dir: str | None = None
    predictor: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    threads: int | None = None
    preprocess: str = "openai"
    exif_rotate: bool = False
    max_pixels: int = MAX_IMAGE_PIXELS
    signals: bool = False
    min_technical_quality: float | None = None
    embeddings: bool = True
    embedding_column: str | None = None
    copy_embeddings: bool = False
    rank_by: str = "aesthetic_score"
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.min_score is not None and self.top is not None:
            raise ConfigurationError("give a minimum score or a top share, not both")
        if self.rank_by not in RANKINGS:
            raise ConfigurationError(f"rank_by={self.rank_by!r} is not one of {', '.join(RANKINGS)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigurationError(f"threads={self.threads} is less than 1")


OPTIONS_THAT_CHANGE_ROWS = (
    *("min_score", "top", "originals", "images_per_tar", "predictor", "precision", "preprocess", "exif_rotate"),
    *("max_pixels", "signals", "min_technical_quality", "embeddings", "embedding_column", "copy_embeddings", "rank_by"),
)


@dataclass(frozen=True)
class Progress:
    """How far a run is. Bytes are those of the input files.

    Attributes:
        images: Images with a row, so far in this run.
        bytes_done: Bytes read.
        bytes_total: Bytes of all input that this run reads.
    """

    images: int
    bytes_done: int
    bytes_total: int


def run_scoring(
    inputs: list[str],
    output_dir: Path,
    options: RunOptions,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunSummary:
    """Score images, or embeddings that others computed; write a row for each, and keep the originals that pass.

    A run that was stopped goes on where it stopped: partitions whose rows are there, made with the same options from
    the same files, are not done again.

    Args:
        inputs: Files, folders and globs.
        output_dir: Directory of the results.
        options: What to do.
        overwrite: Replace rows that were made with other options, instead of refusing.
        on_progress: Called after each batch, in a thread of the run.

    Raises:
        ConfigurationError: Wrong options or inputs; rows made with other options; a second run on the directory.
        WeightsNotFoundError: The models are not there and cannot be fetched.
        StageError: A stage failed. What is finished stays, and the same call goes on from there.
    """
    started, started_at = time.monotonic(), datetime.now(UTC)
    executor = LocalExecutor()
    embeddings = find_embeddings(inputs, options.embedding_column)
    if embeddings:
        check_options(options)
    groups = group_embeddings(embeddings) if embeddings else FilePartitioningStage(file_paths=inputs).process()
    described = _describe_options(options)
    for group in groups:
        group._metadata["provenance"] = {"options": described, "sources": _describe_sources(group)}
    output_dir.mkdir(parents=True, exist_ok=True)
    with _only_run_on(output_dir):
        remove_leftovers(output_dir)
        missing = [group for group in groups if not _is_finished(group, output_dir, overwrite=overwrite)]
        if len(missing) < len(groups):
            logger.info("%d of %d partitions are finished already", len(groups) - len(missing), len(groups))
        stages = make_embedding_stages(output_dir, options) if embeddings else _make_stages(output_dir, options)
        counter = _ProgressCounter(missing, stages[-2], on_progress)
        if missing and not embeddings and options.precision == "int8" and options.rank_by == "aesthetic_score":
            _refuse_beyond_tolerance(missing, options)
        if missing:
            executor.on_progress = counter.count
            Pipeline("score", stages=stages).run(executor, initial_tasks=list(missing))
        cutoff = options.min_score
        if options.top is not None:
            cutoff = keep_top(
                groups, output_dir, options.top, options.originals, options.images_per_tar, options.rank_by
            )
        summary = summarise(groups, output_dir, options.rank_by)
        summary.cutoff = cutoff
        summary.images_scored_now = counter.images
        summary.stages = executor.timings
        summary.parity = next((stage.report for stage in stages if isinstance(stage, ImageParityStage)), None)
        summary.bottleneck = describe_bottleneck(executor.timings)
        summary.seconds = round(time.monotonic() - started, 2)
        write_run_file(output_dir, inputs, _as_json(options), started_at, summary)
    return summary


def _make_stages(output_dir: Path, options: RunOptions) -> list[ProcessingStage[Any, Any]]:
    on_gpu = choose_device(options.device) != "cpu"
    threads = options.threads or usable_cores()
    reader = ImageReaderStage(
        batch_size=options.batch_size or (GPU_BATCH_SIZE if on_gpu else 32),
        preprocess=options.preprocess,
        apply_exif_rotation=options.exif_rotate,
        max_pixels=options.max_pixels,
        verbose=options.verbose,
        num_threads=threads,
        resize="auto" if on_gpu else "pillow",
    )
    by_model = options.rank_by == "aesthetic_score"
    wants_signals = options.signals or options.min_technical_quality is not None or not by_model
    signals = [ImageSignalsStage(options.min_technical_quality, threads)] if wants_signals else []
    embedder = ImageEmbeddingStage(
        model_dir=options.model_dir,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        model_inference_batch_size=options.batch_size,
        preprocess=options.preprocess,
    )
    parity = ImageParityStage(options.model_dir, options.predictor, options.preprocess)
    judge = ImageAestheticFilterStage(
        model_dir=options.model_dir,
        score_threshold=options.min_score,
        predictor=options.predictor,
        verbose=options.verbose,
    )
    writer = ImageWriterStage(
        str(output_dir),
        images_per_tar=options.images_per_tar,
        originals="none" if options.top else options.originals,  # the best are known only at the end
        write_embeddings=options.embeddings and by_model,
    )
    return [reader, *signals, *([embedder, parity, judge] if by_model else []), writer]


def _refuse_beyond_tolerance(groups: list[FileGroupTask], options: RunOptions) -> None:
    """Raise unless int8 holds the tolerance on a sample of the run's own images; note the figures as provenance.

    Raises:
        ConfigurationError: It does not. The message has the figures.
    """
    report = verify_parity(
        sample_groups(groups, INT8_SAMPLE, options.preprocess, options.device),
        model_dir=options.model_dir,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        predictor=options.predictor,
    )
    if not report.is_within_tolerance:
        difference = report.score_difference
        raise ConfigurationError(
            f"precision='int8' moves the scores of {report.images} of these images by {difference['median']:.3f} in "
            f"the median and {difference['maximum']:.3f} at most; {MAX_MEDIAN_DIFFERENCE} and {MAX_DIFFERENCE} are "
            "allowed. Use precision='auto'; `tastemaker verify --images` shows more"
        )
    for group in groups:
        group._metadata["provenance"]["parity"] = asdict(report)


def _describe_options(options: RunOptions) -> dict[str, Any]:
    return {name: value for name, value in _as_json(options).items() if name in OPTIONS_THAT_CHANGE_ROWS}


def _as_json(options: RunOptions) -> dict[str, Any]:
    return asdict(options) | {"top": str(options.top) if options.top else None}


def _describe_sources(group: FileGroupTask) -> str:
    """Return a digest of the paths, sizes and modification times of a partition's files."""
    digest = hashlib.sha256()
    for path in group.data:
        with contextlib.suppress(OSError):
            stat = os.stat(path)
            digest.update(f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_finished(group: FileGroupTask, output_dir: Path, *, overwrite: bool) -> bool:
    """Return whether the rows of a partition are there, made from the same files with the same options."""
    path = rows_path(output_dir, group)
    if not path.exists():
        return False
    wanted = group._metadata["provenance"]
    made_by = json.loads((pq.read_schema(path).metadata or {}).get(METADATA_KEY, b"{}"))
    options = made_by.get("options", {})
    differing = [
        f"{name} was {options.get(name)!r} and is {value!r}"
        for name, value in wanted["options"].items()
        if options.get(name) != value
    ]
    if differing and not overwrite:
        raise ConfigurationError(
            f"{path} was made with other options ({'; '.join(differing)}); "
            "choose another output directory, or say --overwrite to replace it"
        )
    return not differing and made_by.get("sources") == wanted["sources"]


@contextmanager
def _only_run_on(output_dir: Path) -> Iterator[None]:
    """Keep a second run out of the directory. The lock goes with the process that holds it."""
    lock = filelock.FileLock(output_dir / _LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigurationError(f"another run is writing to {output_dir}; wait for it, or choose another") from None
    try:
        yield
    finally:
        lock.release()


class _ProgressCounter:
    def __init__(
        self,
        groups: list[FileGroupTask],
        counted: ProcessingStage[Any, Any],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.images = 0
        self._counted = counted
        self._bytes_done = 0
        self._bytes_total = sum(group._metadata["source_bytes"] for group in groups)
        self._on_progress = on_progress

    def count(self, stage: ProcessingStage[Any, Any], task: Task[Any]) -> None:
        """Count what leaves the last stage before the writer."""
        if stage is not self._counted:
            return
        if isinstance(task, EmbeddingBatch):
            self.images += task.num_items
            self._bytes_done += task.num_bytes
        elif isinstance(task, ImageBatch):
            images = [*task.data, *task.dropped]
            self.images += len(images)
            members = [m for image in images for m in [image.member, *image.sidecar_members.values()] if m]
            self._bytes_done += sum(member.size for member in members)
        if self._on_progress is not None:
            done = min(self._bytes_done, self._bytes_total)
            self._on_progress(Progress(self.images, done, self._bytes_total))

"""The stages that score embeddings: read, score, write. They do what the stages of images do, by columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tastemaker.embeddings.arrays import BLOCK_ROWS, EmbeddingBlock, EmbeddingSource
from tastemaker.embeddings.columns import ColumnPlan
from tastemaker.embeddings.find import EmbeddingFile, EmbeddingFileTask
from tastemaker.embeddings.rows import EmbeddingBatch, make_rows
from tastemaker.errors import UnreadableImageError
from tastemaker.imaging.tables import Table
from tastemaker.models.aesthetic import MAX_UNIT_ERROR, score_of_any_length
from tastemaker.models.published import DEFAULT_SCORER, Scorers
from tastemaker.provenance import add_provenance, add_scores
from tastemaker.scores.files import RowsFile, remove_drafts
from tastemaker.scores.schema import rows_schema
from tastemaker.stages.base import ProcessingStage
from tastemaker.stages.head import HeadStage
from tastemaker.storage import Options
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask


@dataclass
class EmbeddingReaderStage(ProcessingStage[EmbeddingFileTask, EmbeddingBatch]):
    """Reads files of embeddings in blocks, each with its part of the columns that come with them.

    Args:
        column: Name of the array or column that the files were found by; None where it was recognised.
        caption_column: The same of the captions.
    """

    column: str | None = None
    caption_column: str | None = None
    name: str = "embedding_reader"

    def process(self, task: EmbeddingFileTask) -> list[EmbeddingBatch]:
        """Return all embeddings of a file, in blocks."""
        return list(self.stream(task))

    def stream(self, task: EmbeddingFileTask) -> Iterator[EmbeddingBatch]:
        """Yield the embeddings of a file in blocks. Where it is damaged, the last one says so."""
        file, given_schema, first = task.file, pa.schema([]), 0
        partition = replace(task.partition)
        add_provenance(partition, clip_model="unknown, as given")

        def make_batch(block: EmbeddingBlock | None, problem: str = "") -> EmbeddingBatch:
            return EmbeddingBatch(
                *(task.dataset_name, block, [], dict(task._metadata), f"{task.task_id}_{first}"),
                first=first,
                source_bytes=0 if block is None else block.vectors.nbytes,
                problem=problem,
                file=file,
                given_schema=given_schema,
                partition=replace(partition, is_last_batch=block is None),
            )

        try:
            source = file.open()
            given_schema = source.schema if file.metadata is None else file.metadata_schema()[0]
            add_provenance(partition, embeddings=_describe(file, source))
            for block in _with_metadata(source, file):
                size = len(block.vectors)
                yield make_batch(block)
                first += size
            problem = "" if first else "unreadable: no embeddings"
        except (UnreadableImageError, OSError) as error:
            problem = f"unreadable: {error}"
        yield make_batch(None, problem)


@dataclass
class EmbeddingScoreStage(HeadStage[EmbeddingBatch, EmbeddingBatch]):
    """Scores embeddings with the heads of scorers, each divided by its length.

    Args:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        scorer: What `find_scorers` takes: one scorer, or several with one backbone.
        storage_options: Settings of the store of models at a URL.
    """

    model_dir: str | None = None
    scorer: Scorers = DEFAULT_SCORER
    storage_options: Options | None = field(default=None, repr=False)
    name: str = "embedding_score"
    _heads: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _made_by: dict[str, dict[str, str]] = field(default_factory=dict, init=False, repr=False)

    def process(self, task: EmbeddingBatch) -> EmbeddingBatch:
        """Return the batch with its scores, and why a row has none."""
        if not self._heads:
            self.setup()
        add_scores(task.partition, self._made_by)
        if task.data is None:
            return task
        captions = task.captions() if any(scorer.reads_captions for scorer in self._scorers) else []
        vectors, norms = task.data.vectors, None
        for scorer in self._scorers:
            head = self._heads[scorer.column]
            if scorer.reads_captions:
                task.scores[scorer.column] = head(vectors, captions)
            else:
                task.scores[scorer.column], norms = score_of_any_length(head, vectors)
        norms = np.linalg.norm(vectors.astype(np.float32), axis=1) if norms is None else norms
        task.failures = _explain_failures(norms, task.data)
        is_failed = ~task.failures.is_null().to_numpy(zero_copy_only=False)
        for scores in task.scores.values():
            scores[is_failed] = np.nan
        task.normalised = int(np.count_nonzero((np.abs(norms - 1) > MAX_UNIT_ERROR) & ~is_failed))
        return task


@dataclass
class EmbeddingWriterStage(ProcessingStage[EmbeddingBatch, FileGroupTask]):
    """Writes a row for each embedding, one Parquet file for each file of embeddings.

    Args:
        output_dir: Directory of the results, or a URL below which they go; made if need be.
        copy_embeddings: Store the embeddings in the rows, too, as float16 and of unit length.
        storage_options: Arguments of the file system of an output at a URL.
    """

    output_dir: str
    copy_embeddings: bool = False
    storage_options: Options | None = field(default=None, repr=False)
    name: str = "embedding_writer"
    is_sink_stage: bool = field(default=True, init=False, repr=False)
    _open: dict[str, RowsFile] = field(default_factory=dict, init=False, repr=False)

    def teardown(self) -> None:
        """Delete what is unfinished."""
        for rows in self._open.values():
            rows.discard()
        self._open.clear()

    def process(self, task: EmbeddingBatch) -> FileGroupTask | None:
        """Write one batch. Return the rows file of its partition with the last batch of it, None before."""
        name, plan = task.partition.name, task.plan()
        if name not in self._open:
            self._open[name] = self._start(name, task, plan)
        rows = self._open[name]
        rows.add_rows(make_rows(task, plan, rows.schema.remove_metadata()))
        rows.more_counts["normalised"] += task.normalised
        if not task.partition.is_last_batch:
            return None
        rows.commit()
        del self._open[name]
        metadata = {**task._metadata, "output_dir": self.output_dir}
        return FileGroupTask(
            task.dataset_name,
            [rows.path.address],
            task._stage_perf,
            metadata,
            task.task_id,
            partition=task.partition,
        )

    def _start(self, name: str, task: EmbeddingBatch, plan: ColumnPlan) -> RowsFile:
        output = Place.of(self.output_dir, self.storage_options)
        if task.partition.attempt > 1:
            remove_drafts(output, [name])
        rows = rows_schema(
            with_embeddings=self.copy_embeddings, with_signals=False, provenance=task.partition.provenance
        )
        return RowsFile(output / f"{name}.parquet", pa.schema([*rows, *plan.fields], rows.metadata))


def _with_metadata(source: EmbeddingSource, file: EmbeddingFile) -> Iterator[EmbeddingBlock]:
    """Yield the blocks of a file, each with its rows of the metadata beside it."""
    if file.metadata is None:
        yield from source.blocks()
        return
    with Table(file.metadata) as metadata:
        tables = metadata.blocks(file.metadata_schema()[0].names, BLOCK_ROWS)
        for block in source.blocks():
            table = next(tables, None)
            if table is None or len(table) < len(block.vectors):
                raise UnreadableImageError(f"{file.metadata} has fewer rows than there are embeddings")
            block.columns = table.slice(0, len(block.vectors))
            yield block


def _describe(file: EmbeddingFile, source: EmbeddingSource) -> dict[str, Any]:
    """Return where embeddings came from, for the rows' provenance."""
    metadata = None if file.metadata is None else str(file.metadata)
    return {"file": str(file.place), "name": source.name, "dtype": source.dtype, "metadata": metadata}


def _explain_failures(norms: npt.NDArray[np.float32], block: EmbeddingBlock) -> pa.Array:
    """Return why rows cannot be scored, as strings (n,), null for those that can."""
    size = block.vectors.shape[1]
    lengths = np.full(len(norms), size) if block.lengths is None else block.lengths
    reasons: list[str | None] = [None] * len(norms)
    for row in np.flatnonzero(~np.isfinite(norms) | (norms == 0) | (lengths != size)):
        if lengths[row] != size:
            has = f"the embedding has {lengths[row]} numbers, not {size}" if lengths[row] >= 0 else "no embedding"
        else:
            has = "the embedding is zero" if norms[row] == 0 else "the embedding holds a NaN or an infinity"
        reasons[row] = f"unusable: {has}"
    return pa.array(reasons, pa.string())

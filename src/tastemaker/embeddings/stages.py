"""The stages that score embeddings: read, score and cut, write. They do what the stages of images do, by columns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker import __version__
from tastemaker.checks import check_numbers
from tastemaker.embeddings.arrays import BLOCK_ROWS, EmbeddingBlock
from tastemaker.embeddings.columns import ColumnPlan
from tastemaker.embeddings.find import EmbeddingFile, Source
from tastemaker.embeddings.rows import EmbeddingRowsFile, make_rows, make_schema
from tastemaker.embeddings.tables import carried_columns, read_parquet_columns
from tastemaker.embeddings.tasks import EmbeddingBatch
from tastemaker.errors import ConfigurationError, ModelError, UnreadableImageError
from tastemaker.models.aesthetic import MAX_UNIT_ERROR, AestheticPredictor
from tastemaker.models.hub import ensure_head
from tastemaker.models.published import find_scorer
from tastemaker.provenance import add_provenance, weights_provenance
from tastemaker.scores.files import remove_drafts
from tastemaker.stages.base import NodeInfo, ProcessingStage, Resources, WorkerMetadata
from tastemaker.storage import Options, is_remote, public_url
from tastemaker.storage.place import Place
from tastemaker.tasks import FileGroupTask

logger = logging.getLogger(__name__)


@dataclass
class EmbeddingReaderStage(ProcessingStage[FileGroupTask, EmbeddingBatch]):
    """Reads files of embeddings in blocks, each with its part of the columns that come with them.

    Args:
        batch_size: Embeddings in a block.
    """

    batch_size: int = BLOCK_ROWS
    name: str = "embedding_reader"

    def __post_init__(self) -> None:
        check_numbers(self)
        self.resources = Resources()

    def process(self, task: FileGroupTask) -> list[EmbeddingBatch]:
        """Return all embeddings of a file, in blocks."""
        return list(self.stream(task))

    def stream(self, task: FileGroupTask) -> Iterator[EmbeddingBatch]:
        """Yield the embeddings of a file in blocks. Where it is damaged, the last one says so."""
        file: EmbeddingFile = task._metadata["embedding_file"]
        made: list[EmbeddingBatch] = []
        given, first = pa.schema([]), 0
        provenance: dict[str, Any] = {}
        problem = ""
        try:
            source = file.open()
            given = carried_columns(file.metadata, file.storage_options)[0] if file.metadata else source.schema
            provenance = _describe(file, source)
            blocks = _with_metadata(source, file, self.batch_size)
            for block in blocks:
                made.append(EmbeddingBatch(task.dataset_name, block, first=first, source_bytes=block.vectors.nbytes))
                first += len(block.vectors)
                del block  # its memory is used again as soon as nobody refers to it
                if len(made) > 1:  # the last one is marked, so that each waits for the next
                    yield self._mark(task, made.pop(0), given, provenance)
        except (UnreadableImageError, OSError) as error:
            problem = f"unreadable: {error}"
        if not problem and not first:
            problem = "unreadable: no embeddings"
        last = made.pop() if made else EmbeddingBatch(task.dataset_name, first=first)
        last.problem = problem
        yield self._mark(task, last, given, provenance, is_last=True)

    def _mark(
        self,
        task: FileGroupTask,
        batch: EmbeddingBatch,
        given: pa.Schema,
        provenance: dict[str, Any],
        *,
        is_last: bool = False,
    ) -> EmbeddingBatch:
        batch.task_id = f"{task.task_id}_{batch.first}"
        batch._metadata = {**task._metadata, "is_last_batch": is_last, "given_schema": given}
        add_provenance(batch._metadata, tastemaker=__version__, clip_model="unknown, as given", embeddings=provenance)
        return batch


@dataclass
class EmbeddingScoreStage(ProcessingStage[EmbeddingBatch, EmbeddingBatch]):
    """Scores embeddings with the aesthetic predictor, each divided by its length, and cuts.

    Args:
        model_dir: Directory of models; None for ``$TASTEMAKER_MODEL_DIR`` or the user's cache directory.
        predictor: Path of another predictor.
        score_threshold: Rows with this score or more are kept; None keeps all.
        keep_embeddings: Leave the embeddings in the batch, for a writer that copies them. Else they leave memory here.
        storage_options: Arguments of the fsspec file system of models at a URL.
    """

    model_dir: str | None = None
    predictor: str | None = None
    score_threshold: float | None = None
    keep_embeddings: bool = False
    storage_options: Options | None = field(default=None, repr=False)
    name: str = "embedding_score"
    _predictor: AestheticPredictor | None = field(default=None, init=False, repr=False)
    _provenance: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        self.resources = Resources()

    def check(self) -> None:
        """Raise `ConfigurationError` if the predictor's file is not there."""
        if self.predictor is not None and not is_remote(self.predictor) and not Path(self.predictor).is_file():
            raise ConfigurationError(f"predictor: {self.predictor} does not exist")

    def setup_on_node(self, node_info: NodeInfo | None = None, worker_metadata: WorkerMetadata | None = None) -> None:
        """Fetch the weights, if they are not there."""
        ensure_head(find_scorer().head, self.predictor, self.model_dir, self.storage_options)

    def setup(self, worker_metadata: WorkerMetadata | None = None) -> None:
        """Load the predictor."""
        weights = ensure_head(find_scorer().head, self.predictor, self.model_dir, self.storage_options)
        self._predictor = AestheticPredictor.from_file(weights)
        self._provenance = weights_provenance("predictor", find_scorer().head, weights)
        size = find_scorer().backbone.dimension
        if self._predictor.embedding_size != size:
            raise ModelError(f"{weights} scores {self._predictor.embedding_size} numbers, not {size}")

    def teardown(self) -> None:
        """Free the predictor."""
        self._predictor = None

    def process(self, task: EmbeddingBatch) -> EmbeddingBatch:
        """Return the batch with its scores, and why a row has none or is not kept."""
        if self._predictor is None:
            self.setup()
        assert self._predictor is not None
        cutoff = "none" if self.score_threshold is None else f"{self.score_threshold:g}"
        add_provenance(task._metadata, **self._provenance, score_threshold=cutoff)
        if task.data is None:
            return task
        scores, norms = self._predictor.score_of_any_length(task.data.vectors)
        failures = _explain_failures(norms, task.data.lengths)
        task.is_failed = ~failures.is_null().to_numpy(zero_copy_only=False)
        scores[task.is_failed] = np.nan
        task.scores = scores
        task.normalised = int(np.count_nonzero((np.abs(norms - 1) > MAX_UNIT_ERROR) & ~task.is_failed))
        task.reasons = failures if self.score_threshold is None else _cut(scores, self.score_threshold, failures)
        if not self.keep_embeddings:
            task.data.vectors = np.empty((len(scores), 0), task.data.vectors.dtype)
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
    _open: dict[str, EmbeddingRowsFile] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)
        self.resources = Resources()

    def teardown(self) -> None:
        """Delete what is unfinished."""
        for rows in self._open.values():
            rows.discard()
        self._open.clear()

    def process(self, task: EmbeddingBatch) -> FileGroupTask | None:
        """Write one batch. Return the rows file of its partition with the last batch of it, None before."""
        name = str(task._metadata["partition"])
        plan = ColumnPlan(task._metadata["given_schema"])
        schema = make_schema(plan, copy_embeddings=self.copy_embeddings)
        if name not in self._open:
            output = Place.of(self.output_dir, self.storage_options)
            if task._metadata.get("attempt", 1) > 1:
                remove_drafts(output / name)
            self._open[name] = EmbeddingRowsFile(output / f"{name}.parquet", schema)
        rows = self._open[name]
        rows.add(make_rows(task, plan, schema), task.normalised)
        if not task._metadata["is_last_batch"]:
            return None
        rows.finish(task._metadata["provenance"])
        del self._open[name]
        metadata = {**task._metadata, "output_dir": self.output_dir, "counts": dict(rows.counts)}
        return FileGroupTask(task.dataset_name, [rows.path.address], task._stage_perf, metadata, task.task_id)


def _with_metadata(source: Source, file: EmbeddingFile, block_rows: int) -> Iterator[EmbeddingBlock]:
    """Yield the blocks of a file, each with its rows of the metadata beside it."""
    if file.metadata is None:
        yield from source.blocks(block_rows)
        return
    tables = read_parquet_columns(file.metadata, block_rows, file.storage_options)
    for block in source.blocks(block_rows):
        table = next(tables, None)
        if table is None or len(table) < len(block.vectors):
            raise UnreadableImageError(f"{public_url(file.metadata)} has fewer rows than there are embeddings")
        block.columns = table.slice(0, len(block.vectors))
        yield block


def _describe(file: EmbeddingFile, source: Source) -> dict[str, Any]:
    """Return where embeddings came from, for the rows' provenance."""
    metadata = None if file.metadata is None else public_url(file.metadata)
    return {"file": public_url(file.path), "name": source.name, "dtype": source.dtype, "metadata": metadata}


def _explain_failures(norms: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64] | None) -> Any:  # noqa: ANN401
    """Return why rows cannot be scored, as strings (n,), null for those that can."""
    reasons = np.zeros(len(norms), np.int8)
    reasons[~np.isfinite(norms)] = 1
    reasons[norms == 0] = 2
    texts: list[str | None] = [
        None,
        "unusable: the embedding holds a NaN or an infinity",
        "unusable: the embedding is zero",
    ]
    if lengths is not None:
        size = find_scorer().backbone.dimension
        for wrong in np.unique(lengths[lengths != size])[:100]:
            reasons[lengths == wrong] = len(texts)
            has = "no embedding" if wrong < 0 else f"the embedding has {wrong} numbers, not {size}"
            texts.append(f"unusable: {has}")
    return pa.DictionaryArray.from_arrays(pa.array(reasons), pa.array(texts, pa.string())).dictionary_decode()


def _cut(scores: npt.NDArray[np.float32], threshold: float, failures: Any) -> Any:  # noqa: ANN401
    """Return the reasons with those for scores below the threshold."""
    is_below = scores < np.float32(threshold)  # float32, as scores are stored; False for NaN
    numbers = pa.array(scores[is_below]).cast(pa.decimal128(12, 3), safe=False).cast(pa.string())
    below = pc.binary_join_element_wise("aesthetic_score ", numbers, f" is below {threshold:g}", "")
    return pc.replace_with_mask(failures, pa.array(is_below), below)

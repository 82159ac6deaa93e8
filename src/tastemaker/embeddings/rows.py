"""What travels between the stages that score embeddings, and the rows that are made of it, by columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.embeddings.arrays import EmbeddingBlock
from tastemaker.embeddings.columns import ColumnPlan
from tastemaker.embeddings.find import EmbeddingFile
from tastemaker.errors import ReasonKind
from tastemaker.scores.schema import embedding_column, printable, score_columns
from tastemaker.tasks import Task


@dataclass
class EmbeddingBatch(Task[EmbeddingBlock | None]):
    """Some rows of a file of embeddings, of one partition.

    Attributes:
        data: The rows; None where the batch only tells of a problem.
        first: Position of the first row in the file.
        source_bytes: Of the embeddings in memory, which is about what was read of the file.
        problem: What is wrong with the file behind these rows; it becomes a failed row of its own.
        scores: Column -> float32 (n,), NaN where a row has none. Set by the stage that scores.
        failures: Strings (n,), null for a row that has a score. Set by it, too.
        file: Where they come from.
        given_schema: Of the columns that come with the embeddings of that file.
        normalised: How many rows were not of unit length, and were divided by their length.
    """

    dataset_name: str = ""
    data: EmbeddingBlock | None = None
    first: int = field(default=0, kw_only=True)
    source_bytes: int = field(default=0, kw_only=True)
    problem: str = field(default="", kw_only=True)
    scores: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict, kw_only=True)
    failures: Any = field(default=None, kw_only=True)
    normalised: int = field(default=0, kw_only=True)
    file: EmbeddingFile = field(kw_only=True)
    given_schema: pa.Schema = field(kw_only=True)

    def plan(self) -> ColumnPlan:
        """Return which column of the rows comes from which given one."""
        return ColumnPlan(self.given_schema, score_columns(self.partition.provenance), self.file.caption_column)

    def captions(self) -> list[str | None]:
        """Return the captions that come with the embeddings, None where there is none."""
        source, given = self.plan().sources.get("caption"), None if self.data is None else self.data.columns
        if source is None or given is None:
            return [None] * self.num_items
        captions: list[str | None] = given[source].cast(pa.string()).to_pylist()
        return captions

    @property
    def num_items(self) -> int:
        """Number of embeddings."""
        return 0 if self.data is None else len(self.data.vectors)

    def count_images(self) -> tuple[int, int]:
        """Return the embeddings, with the row of a problem, and their bytes."""
        return self.num_items + bool(self.problem), self.source_bytes


def make_rows(batch: EmbeddingBatch, plan: ColumnPlan, schema: pa.Schema) -> pa.Table:
    """Return a row for each embedding of a batch, and a failed one for what is wrong with the file."""
    tables = [schema.empty_table()]
    if batch.data is not None:
        tables.append(_rows_of(batch, batch.data, plan, schema))
    if batch.problem:
        path = printable(str(batch.file.place))
        row = {"image_id": "", "image_path": path, "status": "failed", "reason": batch.problem}
        tables.append(_fill({**row, "reason_kind": ReasonKind.DAMAGED}, 1, schema))
    return pa.concat_tables(tables)


def _rows_of(batch: EmbeddingBatch, block: EmbeddingBlock, plan: ColumnPlan, schema: pa.Schema) -> pa.Table:
    has_score = batch.failures.is_null()
    columns: dict[str, Any] = plan.make(block.columns, batch.num_items, batch.first, printable(batch.partition.name))
    columns |= {
        **{name: pa.array(scores, from_pandas=True) for name, scores in batch.scores.items()},  # NaN becomes null
        "status": pc.if_else(has_score, "kept", "failed"),
        "reason_kind": pc.if_else(has_score, None, ReasonKind.UNUSABLE_EMBEDDING),
        "reason": batch.failures,
    }
    if "embedding" in schema.names:
        is_failed = ~has_score.to_numpy(zero_copy_only=False)
        columns["embedding"] = _embedding_column(block.vectors, is_failed, is_unit=not batch.normalised)
    return _fill(columns, batch.num_items, schema)


def _fill(columns: Mapping[str, Any], count: int, schema: pa.Schema) -> pa.Table:
    """Return a table with all columns of a schema: those given (arrays, or one value for all rows), nulls elsewhere."""
    arrays = []
    for column in schema:
        value: Any = columns.get(column.name)
        if not isinstance(value, pa.Array | pa.ChunkedArray):
            value = pa.repeat(pa.scalar(value, column.type), count)
        arrays.append(value if value.type.equals(column.type) else value.cast(column.type))
    return pa.table(arrays, schema=schema)


def _embedding_column(
    vectors: npt.NDArray[np.floating], is_failed: npt.NDArray[np.bool_], *, is_unit: bool
) -> pa.Array:
    """Return embeddings as they are in rows of images: float16, of unit length; null in a failed row."""
    if not is_unit:
        wide = vectors.astype(np.float32)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        vectors = np.divide(wide, lengths, out=np.zeros_like(wide), where=np.isfinite(lengths) & (lengths > 0))
    whole = vectors[~is_failed] if is_failed.any() else vectors
    return embedding_column(whole.ravel(), np.where(is_failed, -1, vectors.shape[1]))

"""The rows of embeddings: the columns of images' rows, made by columns; what made them is written last."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.embeddings.columns import ColumnPlan
from tastemaker.embeddings.tasks import EmbeddingBatch
from tastemaker.errors import ReasonKind
from tastemaker.scores.files import PendingFile
from tastemaker.scores.schema import COUNTS_KEY, printable, rows_metadata, rows_schema
from tastemaker.storage import public_url
from tastemaker.storage.place import AnyPlace

_REPETITIVE = ("status", "reason_kind", "reason", "shard", "format")
"""Columns whose values are few, so that a dictionary of them pays."""


def make_schema(plan: ColumnPlan, *, copy_embeddings: bool) -> pa.Schema:
    """Return the columns of a rows file: those of images, and the given ones that go along."""
    columns = list(rows_schema(with_embeddings=copy_embeddings, with_signals=False))
    return pa.schema([*columns, *plan.fields])


def make_rows(batch: EmbeddingBatch, plan: ColumnPlan, schema: pa.Schema) -> pa.Table:
    """Return a row for each embedding of a batch, and a failed one for what is wrong with the file."""
    tables = [schema.empty_table()]
    if batch.data is not None:
        tables.append(_rows_of(batch, plan, schema))
    if batch.problem:
        path = printable(public_url(batch._metadata["embedding_file"].path))
        row = {"image_id": "", "image_path": path, "status": "failed", "reason": batch.problem}
        row["reason_kind"] = ReasonKind.DAMAGED
        tables.append(_fill(row, 1, schema))
    return pa.concat_tables(tables)


class EmbeddingRowsFile(PendingFile):
    """A rows file in the making. What made the scores is written at its end, when all is counted.

    Attributes:
        counts: Status -> rows, so far.
        reasons: Kind of reason -> failed rows, so far.
        normalised: Embeddings that were not of unit length, so far.
    """

    def __init__(self, path: AnyPlace, schema: pa.Schema) -> None:
        super().__init__(path)
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.normalised = 0
        self._schema = schema
        few = [name for name in _REPETITIVE if name in schema.names]
        # The schema is stored by finish(), with the provenance in it.
        self._file = self.draft.open("wb")  # pyarrow itself takes no path that is no UTF-8
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", use_dictionary=few, store_schema=False)

    def add(self, table: pa.Table, normalised: int) -> None:
        """Append rows as a row group."""
        self.normalised += normalised
        for item in pc.value_counts(table["status"]).to_pylist():
            self.counts[item["values"]] += item["counts"]
        self.reasons.update(table["reason_kind"].drop_null().to_pylist())
        if len(table):
            self._writer.write_table(table)

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write what made the scores, and make the file visible."""
        metadata = rows_metadata({**provenance, "embeddings_normalised": self.normalised})
        stored = base64.b64encode(self._schema.with_metadata(metadata).serialize().to_pybytes())
        counts = {"statuses": self.counts, "reasons": self.reasons, "embeddings": {"normalised": self.normalised}}
        metadata |= {b"ARROW:schema": stored, COUNTS_KEY: json.dumps(counts).encode()}
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()
        self._file.close()
        self.commit()

    def discard(self) -> None:
        """Close and delete the file."""
        for part in (self._writer, self._file):
            with contextlib.suppress(OSError):  # the disk may be full
                part.close()
        super().discard()


def _rows_of(batch: EmbeddingBatch, plan: ColumnPlan, schema: pa.Schema) -> pa.Table:
    assert batch.data is not None
    assert batch.scores is not None
    columns: dict[str, Any] = plan.make(
        batch.data.columns, batch.num_items, batch.first, printable(batch._metadata["partition"])
    )
    columns |= {
        "aesthetic_score": pa.array(batch.scores, from_pandas=True),  # NaN becomes null
        "reason_kind": pc.if_else(batch.reasons.is_null(), None, ReasonKind.UNUSABLE_EMBEDDING),
        "status": batch.status(),
        "reason": batch.reasons,
    }
    if "embedding" in schema.names:
        columns["embedding"] = _embedding_column(batch)
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


def _embedding_column(batch: EmbeddingBatch) -> pa.Array:
    """Return the embeddings as they are in rows of images: float16, of unit length; null in a failed row."""
    assert batch.data is not None
    assert batch.is_failed is not None
    vectors = batch.data.vectors
    if batch.normalised:
        wide = vectors.astype(np.float32)
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        vectors = np.divide(wide, lengths, out=np.zeros_like(wide), where=np.isfinite(lengths) & (lengths > 0))
    size = np.where(batch.is_failed, 0, vectors.shape[1])
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int32)
    values = vectors[~batch.is_failed].astype(np.float16).ravel()
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=pa.array(batch.is_failed))

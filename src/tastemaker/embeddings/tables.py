"""Embeddings in a column of a Parquet file, read in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.embeddings.arrays import BLOCK_ROWS, EmbeddingBlock, readable, refuse_without_ranges
from tastemaker.embeddings.names import choose_name
from tastemaker.errors import ConfigurationError, ModelError, UnreadableImageError
from tastemaker.scores.vectors import is_float_list, vectors_of
from tastemaker.storage.place import Place

_BUFFER_BYTES = 2**23
"""Bytes of a column that are asked for at once: memory holds so much of each column that is read."""


@dataclass
class TableSource:
    """The embeddings in one column of a Parquet file, with its other columns.

    Args:
        place: The file.
        wanted: Name of the column, where the user gave one.
        size: Numbers in an embedding.

    Attributes:
        name: Of the column with the embeddings.
        rows: How many there are.
        dtype: As stored, for example ``halffloat``.
        schema: The other columns: all but embeddings and bytes.

    Raises:
        UnreadableImageError: It is no such file.
        ModelError: No column holds embeddings.
        ConfigurationError: Several columns could be meant.
    """

    place: Place
    wanted: str | None
    size: int
    name: str = field(default="", init=False)
    rows: int = field(default=0, init=False)
    dtype: str = field(default="", init=False)
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        with open_parquet(self.place) as file:
            schema, self.rows = file.schema_arrow, file.metadata.num_rows
        self.name = choose_name(_widths_of(schema), self.wanted, self.size, str(self.place))
        self.dtype = str(schema.field(self.name).type.value_type)
        self.schema = carried_columns(schema)

    def blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[EmbeddingBlock]:
        """Yield the embeddings in order, each block with its part of the other columns.

        Raises:
            UnreadableImageError: The file is damaged. What could be read was yielded before.
        """
        for table in read_parquet(self.place, [self.name, *self.schema.names], block_rows):
            vectors, lengths = vectors_of(table[self.name].combine_chunks(), self.size)
            yield EmbeddingBlock(vectors, lengths, table.select(self.schema.names))


def has_embeddings(place: Place, size: int, wanted: str | None = None) -> bool:
    """Return whether a table has a column that would be taken for embeddings. An unreadable table has none."""
    try:
        TableSource(place, wanted, size)
    except ConfigurationError:
        return wanted is None  # several could be meant: whoever reads it says so
    except (ModelError, UnreadableImageError, OSError):
        return False
    return True


def read_parquet(place: Place, columns: list[str], block_rows: int) -> Iterator[pa.Table]:
    """Yield columns of a Parquet file in tables of ``block_rows``, but for the last."""
    with open_parquet(place) as file:
        waiting: list[pa.RecordBatch] = []
        for batch in file.iter_batches(block_rows, columns=columns):
            waiting.append(batch)
            if sum(map(len, waiting)) >= block_rows:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, block_rows)
                waiting = table.slice(block_rows).to_batches()
        if waiting:
            yield pa.Table.from_batches(waiting)


@contextlib.contextmanager
def open_parquet(place: Place) -> Iterator[pq.ParquetFile]:
    """Yield a Parquet file. Of a remote one columns are read in pieces, not a row group of each at once.

    Raises:
        UnreadableImageError: It is none, or damaged.
        OSError: It is not there or cannot be read.
    """
    with readable(str(place)):
        if place.local_path is not None:
            with pq.ParquetFile(place.local_path) as file:
                yield file
            return
        refuse_without_ranges(place)
        with place.open() as opened, pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES) as file:
            yield file


def carried_columns(schema: pa.Schema) -> pa.Schema:
    """Return the columns that go into the rows."""
    return pa.schema([column for column in schema if _is_carried(column.type)])


def _is_carried(kind: pa.DataType) -> bool:
    """Return whether a column goes into the rows: embeddings do not, nor do bytes, which may be whole pictures."""
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return False
    return not is_float_list(kind) and all(_is_carried(kind.field(n).type) for n in range(kind.num_fields))


def _widths_of(schema: pa.Schema) -> dict[str, int | None]:
    """Return the columns that could hold embeddings, each with its numbers in a row (None where they vary)."""
    return {
        column.name: column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
        for column in schema
        if is_float_list(column.type)
    }

"""Embeddings in a column of a table, read in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from tastemaker.embeddings.arrays import BLOCK_ROWS, EmbeddingBlock, EmbeddingSource
from tastemaker.embeddings.names import choose_name
from tastemaker.errors import ModelError
from tastemaker.imaging.tables import Table, carried_columns
from tastemaker.scores.vectors import is_float_list, vectors_of


@dataclass
class TableSource(EmbeddingSource):
    """The embeddings in one column of a Parquet or Arrow file, with its other columns."""

    def __post_init__(self) -> None:
        with Table(self.place) as table:
            schema, self.rows = table.schema, table.rows
            widths = _widths_of(schema)
            if not widths and self.wanted is None:
                raise ModelError(f"{self.place} holds no pictures and no embeddings. {table.describe()}")
        self.name = choose_name(widths, self.wanted, self.size, str(self.place))
        self.dtype = str(schema.field(self.name).type.value_type)
        self.schema = carried_columns(schema)

    def blocks(self) -> Iterator[EmbeddingBlock]:
        """See `EmbeddingSource.blocks`."""
        with Table(self.place) as table:
            for block in table.blocks([self.name, *self.schema.names], BLOCK_ROWS):
                vectors, lengths = vectors_of(block[self.name].combine_chunks(), self.size)
                yield EmbeddingBlock(vectors, lengths, block.select(self.schema.names))


def _widths_of(schema: pa.Schema) -> dict[str, int | None]:
    """Return the columns that could hold embeddings, each with its numbers in a row; None if they vary."""
    return {
        column.name: column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
        for column in schema
        if is_float_list(column.type)
    }

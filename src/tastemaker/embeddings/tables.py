"""Embeddings in a column of a table, read in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from tastemaker.embeddings.arrays import BLOCK_ROWS, EmbeddingBlock
from tastemaker.embeddings.names import choose_name
from tastemaker.errors import ConfigurationError, ModelError, UnreadableImageError
from tastemaker.imaging.tables import Table, carried_columns
from tastemaker.scores.vectors import is_float_list, vectors_of
from tastemaker.storage.place import Place


@dataclass
class TableSource:
    """The embeddings in one column of a Parquet or Arrow file, with its other columns.

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
        with Table(self.place) as table:
            schema, self.rows = table.schema, table.rows
            widths = _widths_of(schema)
            if not widths and self.wanted is None:
                raise ModelError(f"{self.place} holds no pictures and no embeddings. {table.describe()}")
        self.name = choose_name(widths, self.wanted, self.size, str(self.place))
        self.dtype = str(schema.field(self.name).type.value_type)
        self.schema = carried_columns(schema)

    def blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[EmbeddingBlock]:
        """Yield the embeddings in order, each block with its part of the other columns.

        Raises:
            UnreadableImageError: The file is damaged. What could be read was yielded before.
        """
        with Table(self.place) as table:
            for block in table.blocks([self.name, *self.schema.names], block_rows):
                vectors, lengths = vectors_of(block[self.name].combine_chunks(), self.size)
                yield EmbeddingBlock(vectors, lengths, block.select(self.schema.names))


def has_embeddings(place: Place, size: int, wanted: str | None = None) -> bool:
    """Return whether a table has a column that would be taken for embeddings. An unreadable table has none."""
    try:
        TableSource(place, wanted, size)
    except ConfigurationError:
        return wanted is None  # several could be meant: whoever reads it says so
    except (ModelError, UnreadableImageError, OSError):
        return False
    return True


def _widths_of(schema: pa.Schema) -> dict[str, int | None]:
    """Return the columns that could hold embeddings, each with its numbers in a row (None where they vary)."""
    return {
        column.name: column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
        for column in schema
        if is_float_list(column.type)
    }

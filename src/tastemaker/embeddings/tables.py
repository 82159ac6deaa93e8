"""Embeddings in a column of a Parquet, Arrow (Feather) or Lance table, read in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.embeddings.arrays import BLOCK_ROWS, EmbeddingBlock, Floats, as_floats, readable
from tastemaker.embeddings.names import EMBEDDING_NAMES, choose_name
from tastemaker.errors import MissingExtraError, UnreadableImageError

ARROW_EXTENSIONS = (".arrow", ".feather", ".ipc")
TABLE_EXTENSIONS = (".parquet", *ARROW_EXTENSIONS, ".lance")

_NUMPY_TYPES = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}


@dataclass
class TableSource:
    """The embeddings in one column of a table, with its other columns.

    Args:
        path: A ``.parquet``, ``.arrow``, ``.feather`` or ``.ipc`` file, or a ``.lance`` folder.
        wanted: Name of the column, where the user gave one.
        size: Numbers in an embedding.

    Attributes:
        name: Of the column with the embeddings.
        rows: How many there are; None where only reading to the end tells (Arrow streams).
        dtype: As stored, for example ``halffloat``.
        schema: The other columns: all but embeddings and bytes.

    Raises:
        UnreadableImageError: It is no such file.
        ModelError: No column holds embeddings.
        ConfigurationError: Several columns could be meant.
        MissingExtraError: A Lance folder without the extra ``lance``.
    """

    path: str
    wanted: str | None
    size: int
    name: str = field(default="", init=False)
    rows: int | None = field(default=None, init=False)
    dtype: str = field(default="", init=False)
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        with readable(self.path):
            schema, self.rows = read_schema(self.path)
        self.name = choose_name(embedding_columns(schema), self.wanted, self.size, self.path)
        self.dtype = str(schema.field(self.name).type.value_type)
        self.schema = pa.schema([column for column in schema if _is_carried(column.type)])

    def blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[EmbeddingBlock]:
        """Yield the embeddings in order, each block with its part of the other columns.

        Raises:
            UnreadableImageError: The file is damaged. What could be read was yielded before.
        """
        done = 0
        with readable(self.path):
            for batch in _read_batches(self.path, [self.name, *self.schema.names], block_rows):
                for start in range(0, len(batch), block_rows):
                    part = batch.slice(start, block_rows)
                    vectors, lengths = vectors_of(part.column(self.name), self.size)
                    columns = pa.Table.from_batches([part]).select(self.schema.names)
                    yield EmbeddingBlock(vectors, lengths, columns)
                done += len(batch)
        if self.rows is not None and done < self.rows:
            raise UnreadableImageError(f"truncated: only {done:,} of {self.rows:,} embeddings are there")


def embedding_columns(schema: pa.Schema) -> dict[str, int | None]:
    """Return the columns that could hold embeddings, each with its numbers in a row (None where they vary)."""
    widths: dict[str, int | None] = {}
    for column in schema:
        if is_float_list(column.type):
            widths[column.name] = column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
    return widths


def has_embeddings(path: str, size: int, wanted: str | None = None) -> bool:
    """Return whether a table has a column that would be taken for embeddings. An unreadable table has none.

    Rows of no fixed length count only under one of `EMBEDDING_NAMES`: tables hold many lists. Where the user named the
    column, that one counts and no other.
    """
    try:
        with readable(path):
            widths = embedding_columns(read_schema(path)[0])
    except (UnreadableImageError, OSError):
        return False
    if wanted is not None:
        return wanted in widths
    return any(width == size or (width is None and name.lower() in EMBEDDING_NAMES) for name, width in widths.items())


def is_float_list(kind: pa.DataType) -> bool:
    """Return whether a column's type is a list of float16, float32 or float64."""
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and kind.value_type in _NUMPY_TYPES


def read_schema(path: str) -> tuple[pa.Schema, int | None]:
    """Return the columns of a table, and its rows if that is known before reading it."""
    lower = path.lower().rstrip("/")
    if lower.endswith(".parquet"):
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    if lower.endswith(".lance"):
        dataset = _import_lance().dataset(path)
        return dataset.schema, dataset.count_rows()
    with pa.memory_map(path) as mapped:
        reader = _open_ipc(mapped)
        is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
        return reader.schema, _count_rows(reader) if is_file else None


def read_parquet_columns(path: str, block_rows: int) -> Iterator[pa.Table]:
    """Yield the columns that are carried into the rows, in tables of exactly ``block_rows``, but for the last."""
    with readable(path), pq.ParquetFile(path) as file:
        names = [column.name for column in file.schema_arrow if _is_carried(column.type)]
        waiting: list[pa.RecordBatch] = []
        for batch in file.iter_batches(block_rows, columns=names):
            waiting.append(batch)
            while sum(map(len, waiting)) >= block_rows:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, block_rows)
                waiting = table.slice(block_rows).to_batches()
        if waiting:
            yield pa.Table.from_batches(waiting)


def carried_columns(path: str) -> tuple[pa.Schema, int]:
    """Return the columns of a Parquet file that are carried into the rows, and how many rows it has."""
    with readable(path), pq.ParquetFile(path) as file:
        carried = [column for column in file.schema_arrow if _is_carried(column.type)]
        return pa.schema(carried), file.metadata.num_rows


def vectors_of(column: pa.Array, size: int) -> tuple[Floats, npt.NDArray[np.int64] | None]:
    """Return a list column as float16 or float32 (n, size), and the length of each row if they are not all ``size``.

    Rows of another length are zeros, and their length is stated; -1 for a null. A null inside a row is a NaN.
    """
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    is_whole = lengths == size
    if is_whole.all():
        return as_floats(_numbers(column.flatten()).reshape(-1, size)), None
    whole = column.filter(pa.array(is_whole))
    part = as_floats(_numbers(whole.flatten()).reshape(-1, size))
    vectors = np.zeros((len(column), size), part.dtype)
    vectors[is_whole] = part
    return vectors, lengths


def _numbers(values: pa.Array) -> Floats:
    kind = _NUMPY_TYPES[values.type]
    if not len(values):
        return np.empty(0, kind)
    numbers = np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]
    if values.null_count:
        numbers = numbers.copy()
        numbers[values.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return numbers


def _is_carried(kind: pa.DataType) -> bool:
    """Return whether a column goes into the rows: embeddings do not, nor do bytes, which may be whole pictures."""
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return False
    return not is_float_list(kind) and all(_is_carried(kind.field(n).type) for n in range(kind.num_fields))


def _read_batches(path: str, columns: list[str], block_rows: int) -> Iterator[pa.RecordBatch]:
    lower = path.lower().rstrip("/")
    if lower.endswith(".parquet"):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(block_rows, columns=columns)
    elif lower.endswith(".lance"):
        yield from _import_lance().dataset(path).to_batches(columns=columns, batch_size=block_rows)
    else:
        with pa.memory_map(path) as mapped:
            reader = _open_ipc(mapped)
            is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            for batch in batches:
                batch.validate()  # a hostile file may have offsets that lead out of it
                yield batch.select(columns)


def _open_ipc(mapped: Any) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return a reader of an Arrow file (Feather), or of an Arrow stream as Hugging Face's datasets write it."""
    try:
        return pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_stream(mapped)


def _count_rows(reader: Any) -> int:  # noqa: ANN401
    return sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))


def _import_lance() -> Any:  # noqa: ANN401
    try:
        import lance
    except ImportError as error:
        raise MissingExtraError('reading Lance tables needs pip install "tastemaker[lance]"') from error
    return lance
